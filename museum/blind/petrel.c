/*
 * petrel: the card's own memory of 4 KiB as a scratch pad: a write is moved there by the card's bus master, a read is moved back, both
 * by way of a common buffer. One transfer at a time is under way; the other requests wait, and all can be cancelled.
 *
 * The bug: when the device is stopped or removed the common buffer is freed without waiting for a transfer that the card has begun.
 * The card goes on reading or writing memory that belongs to others then.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-dma, dma-after-unmap, freed-while-in-use, dma-adapter-released
 * Needs: removal, schedule, device
 */
#include "../include/site_frame.h"
#include "../include/site_edu.h"
#include <ddk/wdmguid.h>

DEFINE_GUID(GUID_PETREL, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x05);

#define PCI_COMMAND          4
#define COMMAND_MASTER       0x0004
#define COMMAND_NO_INTERRUPT 0x0400

/* DEVICE_DESCRIPTION of version 3, which these headers do not have. */
typedef struct DESCRIPTION3 {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

typedef struct PETREL {
    EDU Edu;
    LANE Asked;                 /* under Edu.Lock, as Doing, Busy and Held */
    LANE Doing;                 /* the request that the card moves for, if it was not cancelled */
    BOOLEAN Busy;               /* the card moves */
    BOOLEAN Held;               /* nothing new shall be begun */
    BUS_INTERFACE_STANDARD Bus;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS Logical;
} PETREL;

static NTSTATUS PetrelBus(PETREL *petrel)
{
    PDEVICE_OBJECT below = petrel->Edu.Site.Below;
    PIO_STACK_LOCATION next;
    IO_STATUS_BLOCK done;
    NTSTATUS status;
    KEVENT event;
    PIRP irp;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, below, NULL, 0, NULL, &event, &done);
    if (irp == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    next = IoGetNextIrpStackLocation(irp);
    next->MinorFunction = IRP_MN_QUERY_INTERFACE;
    next->Parameters.QueryInterface.InterfaceType = &GUID_BUS_INTERFACE_STANDARD;
    next->Parameters.QueryInterface.Size = sizeof petrel->Bus;
    next->Parameters.QueryInterface.Version = 1;
    next->Parameters.QueryInterface.Interface = (PINTERFACE)&petrel->Bus;
    next->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    status = IoCallDriver(below, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = done.Status;
    }
    return status;
}

/* Lets the card be a bus master and interrupt, or forbids it both. */
static VOID PetrelMaster(PETREL *petrel, BOOLEAN on)
{
    USHORT command = 0;

    if (petrel->Bus.GetBusData(petrel->Bus.Context, PCI_WHICHSPACE_CONFIG, &command, PCI_COMMAND, sizeof command) != sizeof command)
        return;
    if (on)
        command = (USHORT)((command | COMMAND_MASTER) & ~COMMAND_NO_INTERRUPT);
    else
        command = (USHORT)((command & ~COMMAND_MASTER) | COMMAND_NO_INTERRUPT);
    petrel->Bus.SetBusData(petrel->Bus.Context, PCI_WHICHSPACE_CONFIG, &command, PCI_COMMAND, sizeof command);
}

/* With the gate shut: nothing new is begun, and what the card has begun is over, if need be by force. */
static VOID PetrelIdle(PETREL *petrel)
{
    LARGE_INTEGER pause;
    ULONG i;
    KIRQL irql;

    KeAcquireSpinLock(&petrel->Edu.Lock, &irql);
    petrel->Held = TRUE;
    KeReleaseSpinLock(&petrel->Edu.Lock, irql);
    pause.QuadPart = -10000LL;
    for (i = 0; i < 1000; ++i) {
        if ((Get32(&petrel->Edu.Bar, EDU_COMMAND) & EDU_MOVES) == 0)
            return;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    PetrelMaster(petrel, FALSE);
}

static VOID PetrelPump(PETREL *petrel)
{
    PIO_STACK_LOCATION stack;
    EDU *edu = &petrel->Edu;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&edu->Lock, &irql);
        irp = NULL;
        if (edu->Up && !petrel->Busy && !petrel->Held)
            irp = LaneTakeLocked(&petrel->Asked, NULL);
        if (irp == NULL || LaneAddLocked(&petrel->Doing, irp))
            break;
        KeReleaseSpinLock(&edu->Lock, irql);
        Finish(&edu->Site, irp, STATUS_CANCELLED, 0);
    }
    if (irp != NULL) {
        stack = IoGetCurrentIrpStackLocation(irp);
        petrel->Busy = TRUE;
        if (stack->MajorFunction == IRP_MJ_WRITE) {
            RtlCopyMemory(petrel->Common, irp->AssociatedIrp.SystemBuffer, stack->Parameters.Write.Length);
            Put32(&edu->Bar, EDU_SOURCE, petrel->Logical.LowPart);
            Put32(&edu->Bar, EDU_TARGET, EDU_MEMORY);
            Put32(&edu->Bar, EDU_COUNT, stack->Parameters.Write.Length);
            Put32(&edu->Bar, EDU_COMMAND, EDU_MOVES | EDU_MOVE_TELLS);
        } else {
            Put32(&edu->Bar, EDU_SOURCE, EDU_MEMORY);
            Put32(&edu->Bar, EDU_TARGET, petrel->Logical.LowPart);
            Put32(&edu->Bar, EDU_COUNT, stack->Parameters.Read.Length);
            Put32(&edu->Bar, EDU_COMMAND, EDU_MOVES | EDU_TO_MEMORY | EDU_MOVE_TELLS);
        }
    }
    KeReleaseSpinLock(&edu->Lock, irql);
}

static VOID NTAPI PetrelDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    PETREL *petrel = context;
    PIO_STACK_LOCATION stack;
    ULONG length = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&petrel->Edu.Lock);
    if (!petrel->Edu.Up || !petrel->Busy || (Get32(&petrel->Edu.Bar, EDU_COMMAND) & EDU_MOVES) != 0) {
        KeReleaseSpinLockFromDpcLevel(&petrel->Edu.Lock);
        return;
    }
    petrel->Busy = FALSE;
    irp = LaneTakeLocked(&petrel->Doing, NULL);
    if (irp != NULL) {
        stack = IoGetCurrentIrpStackLocation(irp);
        if (stack->MajorFunction == IRP_MJ_WRITE) {
            length = stack->Parameters.Write.Length;
        } else {
            length = stack->Parameters.Read.Length;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, petrel->Common, length);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&petrel->Edu.Lock);
    if (irp != NULL)
        Finish(&petrel->Edu.Site, irp, STATUS_SUCCESS, length);
    PetrelPump(petrel);
}

static NTSTATUS PetrelServe(SITE *site, ASK *ask)
{
    PETREL *petrel = (PETREL *)site;
    ULONG length = ask->In + ask->Out;      /* one of them is 0 */

    if (ask->Major == IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (length > EDU_BYTES)
        return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
    if (length == 0)
        return Finish(site, ask->Irp, STATUS_SUCCESS, 0);
    LanePut(&petrel->Asked, ask->Irp);
    PetrelPump(petrel);
    return STATUS_PENDING;
}

static VOID PetrelUp(PETREL *petrel)
{
    KIRQL irql;

    PetrelMaster(petrel, TRUE);
    EduUp(&petrel->Edu);
    KeAcquireSpinLock(&petrel->Edu.Lock, &irql);
    petrel->Busy = (Get32(&petrel->Edu.Bar, EDU_COMMAND) & EDU_MOVES) != 0;
    petrel->Held = FALSE;
    KeReleaseSpinLock(&petrel->Edu.Lock, irql);
    PetrelPump(petrel);
}

static VOID PetrelDown(PETREL *petrel, BOOLEAN live)
{
    BOOLEAN there = TRUE;
    KIRQL irql;
    PIRP irp;

    EduDown(&petrel->Edu, live);
    KeAcquireSpinLock(&petrel->Edu.Lock, &irql);
    irp = LaneTakeLocked(&petrel->Doing, NULL);
    if (irp != NULL)
        there = LaneAddLocked(&petrel->Asked, irp);
    KeReleaseSpinLock(&petrel->Edu.Lock, irql);
    if (!there)
        Finish(&petrel->Edu.Site, irp, STATUS_CANCELLED, 0);
}

/* The card drives 28 address lines. */
static NTSTATUS PetrelMemory(PETREL *petrel)
{
    DESCRIPTION3 description;
    ULONG registers = 0;

    RtlZeroMemory(&description, sizeof description);
    description.Old.Version = 3;
    description.Old.Master = TRUE;
    description.Old.ScatterGather = TRUE;
    description.Old.Dma32BitAddresses = TRUE;
    description.Old.InterfaceType = PCIBus;
    description.Old.MaximumLength = EDU_BYTES;
    description.DmaAddressWidth = 28;
    petrel->Adapter = IoGetDmaAdapter(petrel->Edu.Site.Physical, &description.Old, &registers);
    if (petrel->Adapter == NULL) {
        description.Old.Version = DEVICE_DESCRIPTION_VERSION;
        petrel->Adapter = IoGetDmaAdapter(petrel->Edu.Site.Physical, &description.Old, &registers);
    }
    if (petrel->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    petrel->Common = petrel->Adapter->DmaOperations->AllocateCommonBuffer(petrel->Adapter, EDU_BYTES, &petrel->Logical, TRUE);
    if (petrel->Common != NULL && petrel->Logical.QuadPart + EDU_BYTES > 0x10000000) {
        petrel->Adapter->DmaOperations->FreeCommonBuffer(petrel->Adapter, EDU_BYTES, petrel->Logical, petrel->Common, TRUE);
        petrel->Common = NULL;
    }
    if (petrel->Common == NULL) {
        petrel->Adapter->DmaOperations->PutDmaAdapter(petrel->Adapter);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(petrel->Common, EDU_BYTES);
    return STATUS_SUCCESS;
}

static NTSTATUS PetrelBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    PETREL *petrel = (PETREL *)site;
    NTSTATUS status = PetrelBus(petrel);

    if (!NT_SUCCESS(status))
        return status;
    status = EduMap(&petrel->Edu, resources);
    if (!NT_SUCCESS(status))
        goto no_card;
    if ((Get32(&petrel->Edu.Bar, EDU_COMMAND) & EDU_MOVES) != 0) {
        status = STATUS_DEVICE_NOT_READY;       /* it still has an address of long ago */
        goto no_memory;
    }
    status = PetrelMemory(petrel);
    if (!NT_SUCCESS(status))
        goto no_memory;
    PetrelUp(petrel);
    return STATUS_SUCCESS;

no_memory:
    EduUnmap(&petrel->Edu);
no_card:
    petrel->Bus.InterfaceDereference(petrel->Bus.Context);
    return status;
}

static VOID PetrelEnd(SITE *site, BOOLEAN live)
{
    PETREL *petrel = (PETREL *)site;

#ifdef FIXED
    if (live)
        PetrelIdle(petrel);
#endif
    PetrelDown(petrel, live);
    petrel->Adapter->DmaOperations->FreeCommonBuffer(petrel->Adapter, EDU_BYTES, petrel->Logical, petrel->Common, TRUE);
    petrel->Adapter->DmaOperations->PutDmaAdapter(petrel->Adapter);
    EduUnmap(&petrel->Edu);
    petrel->Bus.InterfaceDereference(petrel->Bus.Context);
}

static VOID PetrelSleep(SITE *site)
{
    PetrelIdle((PETREL *)site);
    PetrelDown((PETREL *)site, TRUE);
}

static VOID PetrelWake(SITE *site)
{
    PetrelUp((PETREL *)site);
}

static VOID PetrelLeave(SITE *site, PFILE_OBJECT file)
{
    PETREL *petrel = (PETREL *)site;

    LaneSweep(&petrel->Asked, file, STATUS_CANCELLED);
    LaneSweep(&petrel->Doing, file, STATUS_CANCELLED);
}

static VOID PetrelDrop(SITE *site, NTSTATUS status)
{
    PETREL *petrel = (PETREL *)site;

    LaneSweep(&petrel->Asked, NULL, status);
    LaneSweep(&petrel->Doing, NULL, status);
}

static NTSTATUS PetrelBorn(SITE *site)
{
    PETREL *petrel = (PETREL *)site;

    EduBorn(&petrel->Edu, PetrelDpc);
    LaneInit(&petrel->Asked, site, &petrel->Edu.Lock);
    LaneInit(&petrel->Doing, site, &petrel->Edu.Lock);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(PETREL),
    .Interface = &GUID_PETREL,
    .Born = PetrelBorn,
    .Begin = PetrelBegin,
    .End = PetrelEnd,
    .Sleep = PetrelSleep,
    .Wake = PetrelWake,
    .Serve = PetrelServe,
    .Leave = PetrelLeave,
    .Drop = PetrelDrop,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}
