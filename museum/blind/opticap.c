/*
 * opticap - line-scan camera card with scatter/gather DMA (1DA7:0101)
 *
 * ReadFile captures up to 64 KB of pixels straight into the caller's buffer.
 *
 *   0x00 CAUSE    bit 0 capture done, bit 1 capture failed (write 1 to clear)
 *   0x04 ENABLE   same bits
 *   0x08 CONTROL  bit 0 start, bit 1 abort (takes effect at once)
 *   0x0C ENTRIES  number of descriptors in use
 *   0x10 COUNT    bytes captured
 *   0x100 DESC[32]: address low, address high, length, reserved
 *
 * The bug: a request is completed before its scatter/gather list is put.
 *
 * Device: PCI\VEN_1DA7&DEV_0101
 * Rule: dma-unlocked-while-mapped
 * Needs: device
 */
#include <ddk/wdm.h>

static const GUID OcGuid =
    { 0x68d0b39a, 0x1c47, 0x4d85, { 0x91, 0x0f, 0xae, 0x72, 0x6d, 0x38, 0x04, 0xe1 } };

#define CARD_TAG        'citO'
#define CARD_GUID       OcGuid
#include "../include/unit_kit.h"

#define OC_CAUSE        0x00
#define OC_ENABLE       0x04
#define OC_CONTROL      0x08
#define   OC_START        1
#define   OC_ABORT        2
#define OC_ENTRIES      0x0C
#define OC_COUNT        0x10
#define OC_DESC(n)      (0x100 + 16 * (n))
#define OC_MAX_DESC     32
#define OC_MAX_BYTES    (64 * 1024)
#define OC_DONE         1
#define OC_FAILED       2

typedef enum { OcIdle, OcMapping, OcRunning } OC_STATE;

struct _EXT {
    CARD                 Card;
    PDMA_ADAPTER         Adapter;
    volatile LONG        Causes;

    OC_STATE             State;         /* Card.Lock, like the rest */
    PIRP                 Active;
    PSCATTER_GATHER_LIST List;
    BOOLEAN              Hold;          /* start nothing new */
    BOOLEAN              Pumping;       /* a thread is in OcPump */
    KEVENT               Unmapped;      /* set while no list is asked for or in use */
};

static VOID OcPump(PEXT x);

static ULONG CardMinBytes(VOID)
{
    return OC_DESC(OC_MAX_DESC);
}

static NTSTATUS CardProbe(PEXT x)
{
    DEVICE_DESCRIPTION d;
    ULONG regs;

    CardWrite(&x->Card, OC_ENABLE, 0);
    CardWrite(&x->Card, OC_CONTROL, OC_ABORT);

    RtlZeroMemory(&d, sizeof(d));
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.Dma64BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = OC_MAX_BYTES;
    x->Adapter = IoGetDmaAdapter(x->Card.Pdo, &d, &regs);
    return x->Adapter ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID CardRelease(PEXT x)
{
    if (x->Adapter)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
}

static VOID CardUp(PEXT x)
{
    InterlockedExchange(&x->Causes, 0);
    CardWrite(&x->Card, OC_CONTROL, OC_ABORT);
    CardWrite(&x->Card, OC_CAUSE, OC_DONE | OC_FAILED);
    CardWrite(&x->Card, OC_ENABLE, OC_DONE | OC_FAILED);
    x->Hold = FALSE;
}

static VOID CardDown(PEXT x, BOOLEAN Touch)
{
    if (Touch)
        CardWrite(&x->Card, OC_ENABLE, 0);
}

static VOID CardQuiesce(PEXT x)
{
    KeWaitForSingleObject(&x->Unmapped, Executive, KernelMode, FALSE, NULL);
}

static BOOLEAN NTAPI CardIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT x = Context;
    ULONG cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Card.Armed)
        return FALSE;
    cause = CardRead(&x->Card, OC_CAUSE);
    if (cause == MAXULONG || !(cause & (OC_DONE | OC_FAILED)))
        return FALSE;
    CardWrite(&x->Card, OC_CAUSE, cause & (OC_DONE | OC_FAILED));
    InterlockedOr(&x->Causes, (LONG)(cause & (OC_DONE | OC_FAILED)));
    KeInsertQueueDpc(&x->Card.Dpc, NULL, NULL);
    return TRUE;
}

/*
 * DISPATCH_LEVEL, no lock, State still says that the request is with the card.
 * Ends a request whose transfer is over; List may be NULL.
 */
static VOID OcFinish(PEXT x, PIRP Irp, PSCATTER_GATHER_LIST List, NTSTATUS Status, ULONG_PTR Bytes)
{
#ifdef FIXED
    if (List)
        x->Adapter->DmaOperations->PutScatterGatherList(x->Adapter, List, FALSE);
    CardComplete(Irp, Status, Bytes);
#else
    CardComplete(Irp, Status, Bytes);
    if (List)
        x->Adapter->DmaOperations->PutScatterGatherList(x->Adapter, List, FALSE);
#endif
    KeAcquireSpinLockAtDpcLevel(&x->Card.Lock);
    x->State = OcIdle;
    KeSetEvent(&x->Unmapped, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&x->Card.Lock);
    IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
}

static VOID OcFinishAndPump(PEXT x, PIRP Irp, PSCATTER_GATHER_LIST List, NTSTATUS Status, ULONG_PTR Bytes)
{
    BOOLEAN again = NT_SUCCESS(IoAcquireRemoveLock(&x->Card.RemoveLock, OcPump));

    OcFinish(x, Irp, List, Status, Bytes);
    if (again) {
        OcPump(x);
        IoReleaseRemoveLock(&x->Card.RemoveLock, OcPump);
    }
}

/* Lock held.  Takes the running request away from the card. */
static PIRP OcDetach(PEXT x, PSCATTER_GATHER_LIST *List)
{
    PIRP irp = x->Active;

    *List = x->List;
    x->Active = NULL;
    x->List = NULL;
    return irp;
}

static VOID NTAPI OcCancelRunning(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    PSCATTER_GATHER_LIST list;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&x->Card.Lock, &irql);
    OcDetach(x, &list);
    if (x->Card.Ready)
        CardWrite(&x->Card, OC_CONTROL, OC_ABORT);
    KeReleaseSpinLockFromDpcLevel(&x->Card.Lock);

    OcFinishAndPump(x, Irp, list, STATUS_CANCELLED, 0);
    KeLowerIrql(irql);
}

static VOID NTAPI OcMapped(PDEVICE_OBJECT DeviceObject, PIRP Unused, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP irp;
    ULONG i;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Unused);

    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    irp = x->Active;
    if (!c->Ready || x->Hold)
        status = STATUS_DEVICE_NOT_READY;
    else if (List->NumberOfElements > OC_MAX_DESC)
        status = STATUS_INVALID_BUFFER_SIZE;
    else {
        IoSetCancelRoutine(irp, OcCancelRunning);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL)
            status = STATUS_CANCELLED;
    }
    if (NT_SUCCESS(status)) {
        for (i = 0; i < List->NumberOfElements; i++) {
            CardWrite(c, OC_DESC(i), List->Elements[i].Address.LowPart);
            CardWrite(c, OC_DESC(i) + 4, (ULONG)List->Elements[i].Address.HighPart);
            CardWrite(c, OC_DESC(i) + 8, List->Elements[i].Length);
        }
        CardWrite(c, OC_ENTRIES, List->NumberOfElements);
        x->List = List;
        x->State = OcRunning;
        CardWrite(c, OC_CAUSE, OC_DONE | OC_FAILED);
        InterlockedExchange(&x->Causes, 0);
        CardWrite(c, OC_CONTROL, OC_START);
    } else {
        x->Active = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (!NT_SUCCESS(status))
        OcFinishAndPump(x, irp, List, status, 0);
}

/* DISPATCH_LEVEL, no lock, a remove lock held by the caller.  Hands waiting requests to the card while it is idle. */
static VOID OcPump(PEXT x)
{
    PCARD c = &x->Card;
    PDMA_OPERATIONS ops;
    NTSTATUS status;
    PIRP irp;

    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (x->Pumping) {                   /* that thread will look at the queue again */
        KeReleaseSpinLockFromDpcLevel(&c->Lock);
        return;
    }
    x->Pumping = TRUE;
    for (;;) {
        irp = NULL;
        while (!irp && c->Ready && !x->Hold && x->State == OcIdle && CardNext(c) != NULL)
            irp = CardTakeCurrent(c);
        if (!irp)
            break;
        x->Active = irp;
        x->State = OcMapping;
        KeClearEvent(&x->Unmapped);
        KeReleaseSpinLockFromDpcLevel(&c->Lock);

        KeFlushIoBuffers(irp->MdlAddress, TRUE, TRUE);
        ops = x->Adapter->DmaOperations;
        status = ops->GetScatterGatherList(x->Adapter, c->Fdo, irp->MdlAddress,
                                           MmGetMdlVirtualAddress(irp->MdlAddress),
                                           MmGetMdlByteCount(irp->MdlAddress), OcMapped, x, FALSE);
        if (!NT_SUCCESS(status)) {
            x->Active = NULL;
            OcFinish(x, irp, NULL, status, 0);
        }
        KeAcquireSpinLockAtDpcLevel(&c->Lock);
    }
    x->Pumping = FALSE;
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
}

static VOID NTAPI CardDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEXT x = Context;
    PCARD c = &x->Card;
    ULONG causes, bytes = 0;
    PSCATTER_GATHER_LIST list = NULL;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    if (!NT_SUCCESS(IoAcquireRemoveLock(&c->RemoveLock, CardDpc)))
        return;
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    causes = (ULONG)InterlockedExchange(&x->Causes, 0);
    if (causes && c->Ready && x->State == OcRunning && x->Active &&
        IoSetCancelRoutine(x->Active, NULL) != NULL) {
        bytes = CardRead(c, OC_COUNT);
        irp = OcDetach(x, &list);
        CardWrite(c, OC_CONTROL, OC_ABORT);     /* whatever it says, it is not to touch the buffer any more */
        if (bytes > MmGetMdlByteCount(irp->MdlAddress))
            bytes = MmGetMdlByteCount(irp->MdlAddress);
    }
    KeReleaseSpinLockFromDpcLevel(&c->Lock);

    if (irp) {
        if (causes & OC_FAILED)
            OcFinish(x, irp, list, STATUS_IO_DEVICE_ERROR, 0);
        else
            OcFinish(x, irp, list, STATUS_SUCCESS, bytes);
        OcPump(x);
    }
    IoReleaseRemoveLock(&c->RemoveLock, CardDpc);
}

/* Stops the running request, if there is one and it is of the given file (NULL: of any). */
static VOID OcStop(PEXT x, PFILE_OBJECT File, BOOLEAN Hold, BOOLEAN Touch, NTSTATUS Status)
{
    PSCATTER_GATHER_LIST list = NULL;
    PIRP irp = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&x->Card.Lock, &irql);
    if (Hold)
        x->Hold = TRUE;
    if (x->State == OcRunning && x->Active &&
        (!File || IoGetCurrentIrpStackLocation(x->Active)->FileObject == File) &&
        IoSetCancelRoutine(x->Active, NULL) != NULL) {
        if (Touch && x->Card.Ready)
            CardWrite(&x->Card, OC_CONTROL, OC_ABORT);
        irp = OcDetach(x, &list);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Card.Lock);
    if (irp)
        OcFinishAndPump(x, irp, list, Status, 0);
    KeLowerIrql(irql);
}

static VOID CardDrain(PEXT x, BOOLEAN Touch)
{
    OcStop(x, NULL, TRUE, Touch, Touch ? STATUS_DEVICE_NOT_READY : STATUS_DELETE_PENDING);
    KeWaitForSingleObject(&x->Unmapped, Executive, KernelMode, FALSE, NULL);
}

static NTSTATUS NTAPI OcCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);

    if (NT_SUCCESS(IoAcquireRemoveLock(&x->Card.RemoveLock, OcCleanup))) {
        OcStop(x, IoGetCurrentIrpStackLocation(Irp)->FileObject, FALSE, TRUE, STATUS_CANCELLED);
        IoReleaseRemoveLock(&x->Card.RemoveLock, OcCleanup);
    }
    return CardCleanup(DeviceObject, Irp);
}

static NTSTATUS NTAPI OcRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEXT x = CARD_EXT_OF(DeviceObject);
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->Card.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return CardComplete(Irp, status, 0);

    if (length == 0 || length > OC_MAX_BYTES) {
        status = length ? STATUS_INVALID_BUFFER_SIZE : STATUS_SUCCESS;
        CardComplete(Irp, status, 0);
        IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
        return status;
    }

    /* the IRP's own lock goes with the IRP; this one is for us */
    status = IoAcquireRemoveLock(&x->Card.RemoveLock, OcRead);
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&x->Card.Lock, &irql);
        status = CardEnqueue(&x->Card, Irp);
        KeReleaseSpinLockFromDpcLevel(&x->Card.Lock);
        if (status == STATUS_PENDING)
            OcPump(x);
        KeLowerIrql(irql);
        IoReleaseRemoveLock(&x->Card.RemoveLock, OcRead);
    }
    if (status != STATUS_PENDING) {
        CardComplete(Irp, status, 0);
        IoReleaseRemoveLock(&x->Card.RemoveLock, Irp);
    }
    return status;
}

static NTSTATUS NTAPI OcAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PEXT x;
    NTSTATUS status = CardAttach(DriverObject, Pdo, sizeof(EXT), &x);

    if (!NT_SUCCESS(status))
        return status;
    KeInitializeEvent(&x->Unmapped, NotificationEvent, TRUE);
    x->Card.Fdo->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
    x->Card.Fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    CardDispatch(DriverObject, OcAddDevice);
    DriverObject->MajorFunction[IRP_MJ_READ] = OcRead;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = OcCleanup;
    return STATUS_SUCCESS;
}
