/*
 * A driver for the bench card that tells applications of the card's sources: they wait for some of them, and can have the card raise them.
 *
 * The bug: the DPC reads and clears what the service routine has collected in two steps without the interrupt's lock, so that a source that is raised in between is lost and its waiter waits for ever.
 * Shows by: a second interrupt comes between the DPC's read and its clear, and an application waits for its source.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: data-race, request-timed-out
 * Needs: ioctl, schedule, device
 */
#include "../include/hold_card.h"

#define EVT_TAG 'tveB'
#define BEN_SOURCES 0x04
#define BEN_RAISE   0x08
#define BEN_STATUS  0x0c
#define BEN_ENABLE  0x14
#define BEN_BYTES   0x70u

#define IOCTL_EVT_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG mask, out: ULONG, which of them came */
#define IOCTL_EVT_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG mask */

typedef struct _EVT {
    KIT Kit;
    PUCHAR Registers;
    PKINTERRUPT Interrupt;
    ULONG Mask;                                 /* of the sources that there are */
    volatile ULONG Causes;                      /* from the service routine to the DPC */
    volatile BOOLEAN Shut;                      /* no DPC is queued any more, or not yet */
    KDPC Dpc;
    KSPIN_LOCK Lock;                            /* Latched, Waiters */
    ULONG Latched;                              /* has come, and was not waited for yet */
    LIST_ENTRY Waiters;
} EVT, *PEVT;

DRIVER_INITIALIZE DriverEntry;

static const GUID EvtInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x15 } };

static ULONG EvtRead(PEVT Evt, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Evt->Registers + Offset));
}

static void EvtWrite(PEVT Evt, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Evt->Registers + Offset), Value);
}

static BOOLEAN NTAPI EvtIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEVT evt = Context;
    ULONG status = EvtRead(evt, BEN_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xffffffff || (status & evt->Mask) == 0)
        return FALSE;
    EvtWrite(evt, BEN_STATUS, status);
    (void)EvtRead(evt, BEN_STATUS);
    if (!evt->Shut) {
        evt->Causes |= status & evt->Mask;
        KeInsertQueueDpc(&evt->Dpc, NULL, NULL);
    }
    return TRUE;
}

/* With the interrupt's lock. */
static BOOLEAN NTAPI EvtTake(PVOID Context)
{
    PEVT evt = ((PVOID *)Context)[0];

    *(PULONG)((PVOID *)Context)[1] = evt->Causes;
    evt->Causes = 0;
    return TRUE;
}

static PULONG EvtBuffer(PIRP Irp)
{
    return Irp->AssociatedIrp.SystemBuffer;
}

/* Ends waits: for what is latched, or all of a handle's (File) or of the device's (All). */
static void EvtEnd(PEVT Evt, ULONG Causes, PFILE_OBJECT File, BOOLEAN All)
{
    PLIST_ENTRY entry, next;
    LIST_ENTRY ended;
    BOOLEAN mine;
    ULONG came;
    KIRQL irql;
    PIRP irp;

    InitializeListHead(&ended);
    KeAcquireSpinLock(&Evt->Lock, &irql);
    Evt->Latched |= Causes;
    for (entry = Evt->Waiters.Flink; entry != &Evt->Waiters; entry = next) {
        next = entry->Flink;
        irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        came = *EvtBuffer(irp) & Evt->Latched;
        mine = All || (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject == File);
        if (!mine && came == 0)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;                           /* its cancel routine takes it out */
        RemoveEntryList(entry);
        InsertTailList(&ended, entry);
        if (mine)
            irp->IoStatus.Status = All ? STATUS_NO_SUCH_DEVICE : STATUS_CANCELLED;
        else {
            Evt->Latched &= ~came;
            *EvtBuffer(irp) = came;
            irp->IoStatus.Status = STATUS_SUCCESS;
        }
    }
    KeReleaseSpinLock(&Evt->Lock, irql);
    while (!IsListEmpty(&ended)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&ended), IRP, Tail.Overlay.ListEntry);
        KitDone(&Evt->Kit, irp, irp->IoStatus.Status, NT_SUCCESS(irp->IoStatus.Status) ? sizeof(ULONG) : 0);
    }
}

static VOID NTAPI EvtDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PEVT evt = Context;
    ULONG causes;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
#ifdef FIXED
    KeSynchronizeExecution(evt->Interrupt, EvtTake, (PVOID[2]){ evt, &causes });
#else
    EvtTake((PVOID[2]){ evt, &causes });
#endif
    if (causes != 0)
        EvtEnd(evt, causes, NULL, FALSE);
}

static VOID NTAPI EvtCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEVT evt = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&evt->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&evt->Lock, irql);
    KitDone(&evt->Kit, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS EvtWait(PEVT Evt, PIRP Irp)
{
    ULONG mask = *EvtBuffer(Irp), came;
    KIRQL irql;

    if (mask == 0 || (mask & ~Evt->Mask) != 0)
        return KitFinish(&Evt->Kit, Irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&Evt->Lock, &irql);
    came = Evt->Latched & mask;
    if (came != 0) {
        Evt->Latched &= ~came;
        KeReleaseSpinLock(&Evt->Lock, irql);
        *EvtBuffer(Irp) = came;
        return KitFinish(&Evt->Kit, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    IoSetCancelRoutine(Irp, EvtCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Evt->Lock, irql);
        return KitFinish(&Evt->Kit, Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Evt->Waiters, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Evt->Lock, irql);
    KitLeave(&Evt->Kit);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI EvtControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEVT evt = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = KitEnter(&evt->Kit, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EVT_WAIT:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return KitFinish(&evt->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return EvtWait(evt, Irp);

    case IOCTL_EVT_RAISE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return KitFinish(&evt->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*EvtBuffer(Irp) & ~evt->Mask)
            return KitFinish(&evt->Kit, Irp, STATUS_INVALID_PARAMETER, 0);
        EvtWrite(evt, BEN_RAISE, *EvtBuffer(Irp));
        return KitFinish(&evt->Kit, Irp, STATUS_SUCCESS, 0);
    }
    return KitFinish(&evt->Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI EvtCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EvtEnd(Device->DeviceExtension, 0, IoGetCurrentIrpStackLocation(Irp)->FileObject, FALSE);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static void EvtEnable(PEVT Evt, ULONG Mask)
{
    EvtWrite(Evt, BEN_ENABLE, Mask);
    (void)EvtRead(Evt, BEN_ENABLE);
}

/* With the interrupt's lock. */
static BOOLEAN NTAPI EvtShut(PVOID Context)
{
    ((PEVT)Context)->Shut = TRUE;
    EvtEnable(Context, 0);
    return TRUE;
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    PEVT evt = CONTAINING_RECORD(Kit, EVT, Kit);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = HwWindow(Translated, 0, BEN_BYTES);
    NTSTATUS status = STATUS_NO_SUCH_DEVICE;
    ULONG sources;

    if (window == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    evt->Registers = MmMapIoSpace(window->u.Memory.Start, BEN_BYTES, MmNonCached);
    if (evt->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    sources = EvtRead(evt, BEN_SOURCES);
    if (sources != 0 && sources != 0xffffffff) {
        evt->Mask = sources >= 32 ? 0x7fffffff : (1u << sources) - 1;  /* bit 31 would look like a card that is gone */
        EvtEnable(evt, 0);
        EvtWrite(evt, BEN_STATUS, 0xffffffff);
        evt->Causes = 0;
        evt->Shut = TRUE;
        status = HwConnect(Kit, &evt->Interrupt, EvtIsr, evt);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(evt->Registers, BEN_BYTES);
        evt->Registers = NULL;
        return status;
    }
    evt->Shut = FALSE;
    EvtEnable(evt, evt->Mask);
    return STATUS_SUCCESS;
}

static void KitStop(PKIT Kit)
{
    PEVT evt = CONTAINING_RECORD(Kit, EVT, Kit);

    KeSynchronizeExecution(evt->Interrupt, EvtShut, evt);
    KeFlushQueuedDpcs();                        /* the DPC needs the interrupt */
    HwDisconnect(evt->Interrupt);
    evt->Interrupt = NULL;
    MmUnmapIoSpace(evt->Registers, BEN_BYTES);
    evt->Registers = NULL;
}

/* Waits go on while the device is stopped or asleep, and end when it is gone. */
static void KitDrain(PKIT Kit)
{
    if (Kit->Holds & HOLD_GONE)
        EvtEnd(CONTAINING_RECORD(Kit, EVT, Kit), 0, NULL, TRUE);
}

static void KitSuspend(PKIT Kit)
{
    PEVT evt = CONTAINING_RECORD(Kit, EVT, Kit);

    KeSynchronizeExecution(evt->Interrupt, EvtShut, evt);
    KeFlushQueuedDpcs();
}

static void KitResume(PKIT Kit)
{
    PEVT evt = CONTAINING_RECORD(Kit, EVT, Kit);

    EvtWrite(evt, BEN_STATUS, 0xffffffff);
    evt->Shut = FALSE;
    EvtEnable(evt, evt->Mask);
}

static NTSTATUS NTAPI EvtAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PEVT evt;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(EVT), EVT_TAG, &EvtInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    evt = device->DeviceExtension;
    KeInitializeSpinLock(&evt->Lock);
    InitializeListHead(&evt->Waiters);
    KeInitializeDpc(&evt->Dpc, EvtDpc, evt);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI EvtUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, EvtAddDevice, EvtUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = EvtCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EvtControl;
    return STATUS_SUCCESS;
}
