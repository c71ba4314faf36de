/*
 * serlet: a card that sends bytes down a line. Writes wait in the driver's own queue and are given to the
 * card's small FIFO as it has room; the card's interrupt tells that it has room again.
 *
 *
 * BAR0, 64 bytes of memory:
 *   0x00 CTRL    bit 0 transmitter on, bit 1 interrupt enable
 *   0x04 STATUS  bit 0 the FIFO has run empty, cleared by writing 1; interrupt while set and enabled
 *   0x08 ROOM    free places in the FIFO, 0 to 16
 *   0x0C DATA    puts a byte (bits 7..0) into the FIFO
 *
 * The bug: a write is marked pending only after it has been put into the queue and the lock released, when it may
 * have been completed already.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: use-after-free
 * Needs: cancel, schedule
 */
#include "../include/kit_hooks.h"

static const GUID SerGuid = { 0x5d0f7a18, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x08 } };

#define R_CTRL   0
#define R_STATUS 1
#define R_ROOM   2
#define R_DATA   3
#define FIFO_PLACES 16u

typedef struct _SER {
    KIT Kit;
    PULONG Regs;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN On;                 /* with the interrupt's lock */
    KDPC Dpc;
    KSPIN_LOCK Lock;            /* guards the two below */
    LIST_ENTRY Writes;          /* each with the remove lock and a cancel routine */
    ULONG Sent;                 /* bytes of the first write */
} SER, *PSER;

/* Takes a write out of the queue, lock held. FALSE: its cancel routine is on the way and completes it. */
static BOOLEAN SerTake(PSER Ser, PIRP Irp)
{
    if (Ser->Writes.Flink == &Irp->Tail.Overlay.ListEntry)
        Ser->Sent = 0;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    if (IoSetCancelRoutine(Irp, NULL))
        return TRUE;
    InitializeListHead(&Irp->Tail.Overlay.ListEntry);
    return FALSE;
}

static VOID NTAPI SerCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSER ser = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ser->Lock, &irql);
    if (ser->Writes.Flink == &Irp->Tail.Overlay.ListEntry)
        ser->Sent = 0;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ser->Lock, irql);
    KitFinish(&ser->Kit, Irp, STATUS_CANCELLED, 0);
}

static VOID SerComplete(PSER Ser, PLIST_ENTRY Done, NTSTATUS Status)
{
    while (!IsListEmpty(Done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry);
        KitFinish(&Ser->Kit, irp, Status, NT_SUCCESS(Status) ? IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length : 0);
    }
}

static VOID SerKick(PKIT Kit)
{
    PSER ser = (PSER)Kit;
    LIST_ENTRY done;
    KIRQL irql;
    ULONG room;

    if (!NT_SUCCESS(KitEnter(Kit)))
        return;
    InitializeListHead(&done);
    KeAcquireSpinLock(&ser->Lock, &irql);
    room = READ_REGISTER_ULONG(&ser->Regs[R_ROOM]);
    if (room > FIFO_PLACES)
        room = 0;                           /* the card is gone */
    while (room && !IsListEmpty(&ser->Writes)) {
        PIRP irp = CONTAINING_RECORD(ser->Writes.Flink, IRP, Tail.Overlay.ListEntry);
        ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
        PUCHAR data = irp->AssociatedIrp.SystemBuffer;

        for (; room && ser->Sent < length; room--)
            WRITE_REGISTER_ULONG(&ser->Regs[R_DATA], data[ser->Sent++]);
        if (ser->Sent < length)
            break;
        if (SerTake(ser, irp))
            InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&ser->Lock, irql);
    SerComplete(ser, &done, STATUS_SUCCESS);
    KitLeave(Kit);
}

/* Ends the waiting writes, those of one file or all. */
static VOID SerEnd(PSER Ser, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY done;
    PLIST_ENTRY entry, next;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Ser->Lock, &irql);
    for (entry = Ser->Writes.Flink; entry != &Ser->Writes; entry = next) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);
        next = entry->Flink;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        if (SerTake(Ser, irp))
            InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&Ser->Lock, irql);
    SerComplete(Ser, &done, Status);
}

static NTSTATUS NTAPI SerWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSER ser = DeviceObject->DeviceExtension;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&ser->Kit.RemoveLock, ser);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length == 0 || KitGone(&ser->Kit)) {
        status = KitGone(&ser->Kit) ? STATUS_DELETE_PENDING : STATUS_SUCCESS;
        goto complete;
    }
    status = IoAcquireRemoveLock(&ser->Kit.RemoveLock, Irp);    /* the queued write's own */
    if (!NT_SUCCESS(status))
        goto complete;

    KeAcquireSpinLock(&ser->Lock, &irql);
    IoSetCancelRoutine(Irp, SerCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&ser->Lock, irql);
        IoReleaseRemoveLock(&ser->Kit.RemoveLock, Irp);
        status = STATUS_CANCELLED;
        goto complete;
    }
#ifdef FIXED
    IoMarkIrpPending(Irp);
#endif
    InsertTailList(&ser->Writes, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ser->Lock, irql);
#ifndef FIXED
    IoMarkIrpPending(Irp);
#endif
    SerKick(&ser->Kit);
    if (KitGone(&ser->Kit))                 /* its flush may have gone before this write */
        SerEnd(ser, NULL, STATUS_DELETE_PENDING);
    IoReleaseRemoveLock(&ser->Kit.RemoveLock, ser);
    return STATUS_PENDING;

complete:
    KitComplete(Irp, status, 0);
    IoReleaseRemoveLock(&ser->Kit.RemoveLock, ser);
    return status;
}

static BOOLEAN NTAPI SerIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PSER ser = Context;
    ULONG status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!ser->On)
        return FALSE;
    status = READ_REGISTER_ULONG(&ser->Regs[R_STATUS]);
    if (status == 0xFFFFFFFF || !(status & 1))
        return FALSE;
    WRITE_REGISTER_ULONG(&ser->Regs[R_STATUS], 1);
    KeInsertQueueDpc(&ser->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI SerDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    SerKick((PKIT)Context);
}

static BOOLEAN NTAPI SerOn(PVOID Context)
{
    PSER ser = Context;

    ser->On = TRUE;
    WRITE_REGISTER_ULONG(&ser->Regs[R_CTRL], 3);
    return TRUE;
}

static BOOLEAN NTAPI SerOff(PVOID Context)
{
    PSER ser = Context;

    ser->On = FALSE;
    WRITE_REGISTER_ULONG(&ser->Regs[R_CTRL], 0);
    READ_REGISTER_ULONG(&ser->Regs[R_CTRL]);
    return TRUE;
}

static BOOLEAN NTAPI SerDeaf(PVOID Context)
{
    ((PSER)Context)->On = FALSE;
    return TRUE;
}

static VOID SerRelease(PKIT Kit, BOOLEAN Reachable)
{
    PSER ser = (PSER)Kit;

    if (ser->Interrupt) {
        KeSynchronizeExecution(ser->Interrupt, Reachable ? SerOff : SerDeaf, ser);
        IoDisconnectInterrupt(ser->Interrupt);
        ser->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (ser->Regs) {
        MmUnmapIoSpace(ser->Regs, ser->Length);
        ser->Regs = NULL;
    }
}

static NTSTATUS SerStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PSER ser = (PSER)Kit;
    KIT_RESOURCES res;
    NTSTATUS status;

    KitResources(Stack, &res);
    if (!res.HasInterrupt || !res.Memories || res.Memory[0].Length < 16)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    ser->Length = res.Memory[0].Length;
    ser->Regs = MmMapIoSpace(res.Memory[0].Start, ser->Length, MmNonCached);
    if (!ser->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    WRITE_REGISTER_ULONG(&ser->Regs[R_CTRL], 0);
    ser->On = FALSE;
    status = IoConnectInterrupt(&ser->Interrupt, SerIsr, ser, NULL, res.Vector, res.Level, res.Level, res.Mode, res.Shared, res.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        ser->Interrupt = NULL;
        SerRelease(Kit, FALSE);
        return status;
    }
    KeSynchronizeExecution(ser->Interrupt, SerOn, ser);
    return STATUS_SUCCESS;
}

static VOID SerSleep(PKIT Kit)
{
    PSER ser = (PSER)Kit;
    KeSynchronizeExecution(ser->Interrupt, SerOff, ser);
    KeFlushQueuedDpcs();
}

static VOID SerWake(PKIT Kit)
{
    PSER ser = (PSER)Kit;
    KeSynchronizeExecution(ser->Interrupt, SerOn, ser);
}

static VOID SerPrepare(PKIT Kit)
{
    PSER ser = (PSER)Kit;
    KeInitializeSpinLock(&ser->Lock);
    InitializeListHead(&ser->Writes);
    KeInitializeDpc(&ser->Dpc, SerDpc, ser);
}

static VOID SerFlush(PKIT Kit)
{
    SerEnd((PSER)Kit, NULL, STATUS_DELETE_PENDING);
}

static const KIT_HOOKS KitHooks = { sizeof(SER), DO_BUFFERED_IO, 'lreS', &SerGuid, SerPrepare, SerStart, SerRelease, SerFlush, SerSleep, SerWake, SerKick };

static NTSTATUS NTAPI SerCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    SerEnd(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_WRITE] = SerWrite;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = SerCleanup;
    return STATUS_SUCCESS;
}
