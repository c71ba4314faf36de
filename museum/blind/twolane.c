/*
 * twolane: the receiving side of a card with a FIFO of words: its interrupt's DPC empties the FIFO into a ring, and
 * reads wait for words from the ring.
 * The card's registers (BAR0, memory, 256 bytes): 0x00 ident 0x4C414E45; 0x04 control (bit 0: interrupts on); 0x08 interrupt
 * status (bit 0: words there; written ones clear, it comes again while words are left); 0x0C number of words in the
 * FIFO (to 64); 0x10 the next word (a read takes it).
 *
 * The bug: the statistics take the queue's lock and then the ring's, while the DPC and the reads take the ring's and
 * then the queue's.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: lock-order-inversion, spin-lock-deadlock
 * Needs: device
 */
#include "../include/caller_frame.h"

#define IOCTL_LANE_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC11, METHOD_BUFFERED, FILE_READ_DATA)
#define R_IDENT 0x00
#define R_CONTROL 0x04
#define R_IRQ 0x08
#define R_LEVEL 0x0C
#define R_WORD 0x10
#define FIFO 64
#define RING 1024

typedef struct _LANE_STATS {
    ULONG Waiting;      /* reads */
    ULONG Kept;         /* words */
    ULONG Lost;
} LANE_STATS, *PLANE_STATS;

typedef struct _LANE {
    FRAME F;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Int;
    KDPC Dpc;
    volatile BOOLEAN On;        /* changed at DIRQL */
    KSPIN_LOCK RingLock;
    ULONG Head, Fill, Lost;
    ULONG Ring[RING];
    IO_CSQ Csq;
    KSPIN_LOCK QueueLock;       /* of the next three */
    LIST_ENTRY Reads;
    ULONG Waiting;
    BOOLEAN Dead;
} LANE, *PLANE;

static const GUID LaneClass = {0x6c1e2a0d, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x0d}};

#define LANE_OF(csq) CONTAINING_RECORD(csq, LANE, Csq)
static ULONG In(PLANE l, ULONG r) { return READ_REGISTER_ULONG((PULONG)(l->Regs + r)); }
static VOID Out(PLANE l, ULONG r, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(l->Regs + r), v); }

static VOID Answer(PLANE l, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&l->F.Remove, irp);
}

static NTSTATUS NTAPI LaneInsert(PIO_CSQ csq, PIRP irp, PVOID context)
{
    PLANE l = LANE_OF(csq);

    UNREFERENCED_PARAMETER(context);
    if (l->Dead)
        return STATUS_DELETE_PENDING;
    InsertTailList(&l->Reads, &irp->Tail.Overlay.ListEntry);
    l->Waiting++;
    return STATUS_SUCCESS;
}

static VOID NTAPI LaneTake(PIO_CSQ csq, PIRP irp)
{
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    LANE_OF(csq)->Waiting--;
}

static PIRP NTAPI LanePeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    PLIST_ENTRY head = &LANE_OF(csq)->Reads, e = irp != NULL ? irp->Tail.Overlay.ListEntry.Flink : head->Flink;

    for (; e != head; e = e->Flink) {
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (file == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == file)
            return irp;
    }
    return NULL;
}

static VOID NTAPI LaneAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&LANE_OF(csq)->QueueLock, irql);
}

static VOID NTAPI LaneRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&LANE_OF(csq)->QueueLock, irql);
}

static VOID NTAPI LaneCanceled(PIO_CSQ csq, PIRP irp)
{
    Answer(LANE_OF(csq), irp, STATUS_CANCELLED, 0);
}

/* Gives words to the reads that wait. What is answered is collected under the lock, completed after it. */
static VOID Serve(PLANE l)
{
    LIST_ENTRY done;
    PIRP irp;
    PULONG out;
    ULONG room, n;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&l->RingLock, &irql);
    while (l->Fill != 0 && (irp = IoCsqRemoveNextIrp(&l->Csq, NULL)) != NULL) {
        out = irp->AssociatedIrp.SystemBuffer;
        room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
        for (n = 0; n < room && l->Fill != 0; n++, l->Fill--) {
            out[n] = l->Ring[l->Head];
            l->Head = (l->Head + 1) % RING;
        }
        irp->IoStatus.Information = n * sizeof(ULONG);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&l->RingLock, irql);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        Answer(l, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
}

static VOID NTAPI LaneDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PLANE l = context;
    ULONG level, word;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&l->RingLock);
    level = In(l, R_LEVEL);
    if (level <= FIFO)              /* all ones: no card */
        for (; level != 0; level--) {
            word = In(l, R_WORD);
            if (l->Fill == RING)
                l->Lost++;
            else
                l->Ring[(l->Head + l->Fill++) % RING] = word;
        }
    KeReleaseSpinLockFromDpcLevel(&l->RingLock);
    Serve(l);
}

static BOOLEAN NTAPI LaneIsr(PKINTERRUPT interrupt, PVOID context)
{
    PLANE l = context;
    ULONG v;

    UNREFERENCED_PARAMETER(interrupt);
    if (!l->On)
        return FALSE;
    v = In(l, R_IRQ);
    if (v == 0xFFFFFFFFu || (v & 1) == 0)
        return FALSE;
    Out(l, R_IRQ, 1);
    KeInsertQueueDpc(&l->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI TurnOn(PVOID context)
{
    PLANE l = context;

    l->On = TRUE;
    Out(l, R_CONTROL, 1);
    return TRUE;
}

static BOOLEAN NTAPI TurnOff(PVOID context)
{
    ((PLANE)context)->On = FALSE;
    return TRUE;
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PLANE l = dev->DeviceExtension;
    NTSTATUS status;

    if (res->Mems == 0 || res->MemLen[0] < 0x14 || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l->RegsLen = res->MemLen[0];
    l->Regs = MmMapIoSpace(res->Mem[0], l->RegsLen, MmNonCached);
    if (l->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (In(l, R_IDENT) == 0xFFFFFFFFu) {
        status = STATUS_DEVICE_DOES_NOT_EXIST;
    } else {
        Out(l, R_CONTROL, 0);
        status = FrameConnect(res, &l->Int, LaneIsr, l);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(l->Regs, l->RegsLen);
        l->Regs = NULL;
        return status;
    }
    KeSynchronizeExecution(l->Int, TurnOn, l);
    return STATUS_SUCCESS;
}

static VOID HwHold(PDEVICE_OBJECT dev)
{
    UNREFERENCED_PARAMETER(dev);        /* reads only wait for words, they can go on waiting */
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    PLANE l = dev->DeviceExtension;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&l->QueueLock, &irql);
    l->Dead = TRUE;
    KeReleaseSpinLock(&l->QueueLock, irql);
    while ((irp = IoCsqRemoveNextIrp(&l->Csq, NULL)) != NULL)
        Answer(l, irp, STATUS_DELETE_PENDING, 0);
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    PLANE l = dev->DeviceExtension;

    if (touchable)
        Out(l, R_CONTROL, 0);
    KeSynchronizeExecution(l->Int, TurnOff, l);
    IoDisconnectInterrupt(l->Int);
    l->Int = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(l->Regs, l->RegsLen);
    l->Regs = NULL;
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
    PLANE l = dev->DeviceExtension;

    Out(l, R_CONTROL, 0);
    KeSynchronizeExecution(l->Int, TurnOff, l);
    KeFlushQueuedDpcs();
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PLANE l = dev->DeviceExtension;

    KeSynchronizeExecution(l->Int, TurnOn, l);
}

static VOID Stats(PLANE l, PLANE_STATS out)
{
    KIRQL irql;

#ifdef FIXED
    KeAcquireSpinLock(&l->RingLock, &irql);
    KeAcquireSpinLockAtDpcLevel(&l->QueueLock);
#else
    KeAcquireSpinLock(&l->QueueLock, &irql);
    KeAcquireSpinLockAtDpcLevel(&l->RingLock);
#endif
    out->Waiting = l->Waiting;
    out->Kept = l->Fill;
    out->Lost = l->Lost;
#ifdef FIXED
    KeReleaseSpinLockFromDpcLevel(&l->QueueLock);
    KeReleaseSpinLock(&l->RingLock, irql);
#else
    KeReleaseSpinLockFromDpcLevel(&l->RingLock);
    KeReleaseSpinLock(&l->QueueLock, irql);
#endif
}

static NTSTATUS NTAPI LaneRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PLANE l = dev->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    NTSTATUS status = IoAcquireRemoveLock(&l->F.Remove, irp), own;

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (length < sizeof(ULONG)) {
        status = length == 0 ? STATUS_SUCCESS : STATUS_BUFFER_TOO_SMALL;
        Answer(l, irp, status, 0);
        return status;
    }
    own = IoAcquireRemoveLock(&l->F.Remove, &own);      /* for this thread, the read may end before */
    if (!NT_SUCCESS(own)) {
        Answer(l, irp, own, 0);
        return own;
    }
    IoMarkIrpPending(irp);
    status = IoCsqInsertIrpEx(&l->Csq, irp, NULL, NULL);
    if (NT_SUCCESS(status))
        Serve(l);
    else
        Answer(l, irp, status, 0);
    IoReleaseRemoveLock(&l->F.Remove, &own);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI LaneControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PLANE l = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&l->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_LANE_STATS) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LANE_STATS)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        Stats(l, irp->AssociatedIrp.SystemBuffer);
        info = sizeof(LANE_STATS);
    }
    Answer(l, irp, status, info);
    return status;
}

static NTSTATUS NTAPI LaneCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PLANE l = dev->DeviceExtension;
    PIRP read;

    while ((read = IoCsqRemoveNextIrp(&l->Csq, IoGetCurrentIrpStackLocation(irp)->FileObject)) != NULL)
        Answer(l, read, STATUS_CANCELLED, 0);
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LaneAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    PLANE l;
    NTSTATUS status = FrameAdd(driver, pdo, &LaneClass, sizeof(LANE), DO_BUFFERED_IO, &dev);

    if (!NT_SUCCESS(status))
        return status;
    l = dev->DeviceExtension;
    KeInitializeDpc(&l->Dpc, LaneDpc, l);
    KeInitializeSpinLock(&l->RingLock);
    KeInitializeSpinLock(&l->QueueLock);
    InitializeListHead(&l->Reads);
    status = IoCsqInitializeEx(&l->Csq, LaneInsert, LaneTake, LanePeek, LaneAcquire, LaneRelease, LaneCanceled);
    if (!NT_SUCCESS(status)) {
        FrameUndoAdd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, LaneAdd);
    driver->MajorFunction[IRP_MJ_CLEANUP] = LaneCleanup;
    driver->MajorFunction[IRP_MJ_READ] = LaneRead;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LaneControl;
    return STATUS_SUCCESS;
}
