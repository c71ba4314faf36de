/*
 * tamarin: concentrator card of a radio sensor net. ReadFile gives one frame of the net (a read waits for one; only
 * one handle at a time), IOCTL_TAMARIN_COUNTERS gives counters.
 *
 * BAR0 (memory, 2 KiB): 0x00 ID (0x7A3A0001), 0x04 INTSTAT (bit 0: a frame is in the window), 0x08 INTEN (bit 0),
 * 0x0C RELEASE (a write gives the window back, the next frame may come), 0x10 CTRL (bit 0 receive), 0x400 LENGTH of
 * the frame in bytes (1 to 1020), 0x404 its bytes. One shared level interrupt, up while INTSTAT and INTEN have bit 0.
 *
 * The bug: the frame's length is read from the card once for the check and the allocation and once more for the
 * copy; a card that is pulled out or reset in between gives another length and the copy runs over the pool block.
 *
 * Device: PCI\VEN_1DA7&DEV_7A3A
 * Rule: pool-overrun
 * Needs: device, removal
 */
#include <ddk/wdm.h>
#include "../include/sable_wdm.h"

static const GUID TamarinGuid = {0x6c1e51a4, 0x2f0b, 0x4b61, {0x9d, 0x11, 0x3a, 0x70, 0x5e, 0x21, 0x84, 0x04}};

#define IOCTL_TAMARIN_COUNTERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    ULONG Frames;
    ULONG Lost;         /* too many waited, or no memory */
    ULONG Bad;
    ULONG Waiting;
} TAMARIN_COUNTERS;

#define R_ID      0x00
#define R_INTSTAT 0x04
#define R_INTEN   0x08
#define R_RELEASE 0x0C
#define R_CTRL    0x10
#define R_LENGTH  0x400
#define R_DATA    0x404
#define MAP_SIZE  0x800
#define INT_FRAME 1
#define CTRL_RECEIVE 1
#define MAX_LENGTH 1020
#define MAX_FRAMES 64
#define PER_PASS  16

typedef struct {
    LIST_ENTRY Entry;
    ULONG Length;
    ULONG Data[1];      /* Length bytes, rounded up to whole words */
} FRAME, *PFRAME;

typedef struct {
    SABLE S;
    PUCHAR Regs;
    BOOLEAN Enabled;    /* INTEN, under the interrupt's lock */
    LIST_ENTRY Reads;
    LIST_ENTRY Frames;
    ULONG FrameCount;
    TAMARIN_COUNTERS Counters;
    LONG Opened;
    KDPC Dpc;
} EXT, *PEXT;

static ULONG Rd(PEXT E, ULONG Reg)
{
    return READ_REGISTER_ULONG((PULONG)(E->Regs + Reg));
}

static VOID Wr(PEXT E, ULONG Reg, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(E->Regs + Reg), Value);
}

/* ---- the interrupt's lock held ---- */

static BOOLEAN NTAPI TamarinUnmask(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 1;
    E->Enabled = TRUE;
    Wr(E, R_INTEN, INT_FRAME);
    return TRUE;
}

static BOOLEAN NTAPI TamarinMask(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 0;
    E->Enabled = FALSE;
    Wr(E, R_INTEN, 0);
    return TRUE;
}

static BOOLEAN NTAPI TamarinIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT E = Context;
    ULONG st;

    (void)Interrupt;
    if (!E->S.IsrOn || !E->Enabled)
        return FALSE;
    st = Rd(E, R_INTSTAT);
    if (st == SABLE_ONES || !(st & INT_FRAME))
        return FALSE;
    E->Enabled = FALSE;         /* until the DPC has fetched the frames */
    Wr(E, R_INTEN, 0);
    KeInsertQueueDpc(&E->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- SABLE.Lock held ---- */

static VOID TamarinDropFrames(PEXT E)
{
    while (!IsListEmpty(&E->Frames))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&E->Frames), FRAME, Entry), SABLE_TAG);
    E->FrameCount = 0;
}

static ULONG TamarinLength(PEXT E)
{
    return Rd(E, R_LENGTH);
}

static VOID TamarinCopy(PEXT E, PFRAME Frame)
{
#ifdef FIXED
    ULONG length = Frame->Length;
#else
    ULONG length = TamarinLength(E);
#endif
    ULONG i;

    for (i = 0; i * sizeof(ULONG) < length; i++)
        Frame->Data[i] = Rd(E, R_DATA + i * sizeof(ULONG));
}

/* Fetch the frame in the window and give the window back. */
static VOID TamarinFetch(PEXT E)
{
    ULONG length = TamarinLength(E);
    PFRAME frame = NULL;

    if (length == 0 || length > MAX_LENGTH) {
        E->Counters.Bad++;
    } else {
        if (E->FrameCount < MAX_FRAMES)
            frame = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(FRAME, Data) + ((length + 3) & ~3u), SABLE_TAG);
        if (!frame) {
            E->Counters.Lost++;
        } else {
            frame->Length = length;
            TamarinCopy(E, frame);
            if (TamarinLength(E) == length) {
                InsertTailList(&E->Frames, &frame->Entry);
                E->FrameCount++;
                E->Counters.Frames++;
            } else {                /* the card went away or began anew meanwhile */
                ExFreePoolWithTag(frame, SABLE_TAG);
                E->Counters.Bad++;
            }
        }
    }
    Wr(E, R_RELEASE, 1);
}

/* Move the reads that come to their end to Done. A frame that is too long for a read stays. */
static VOID TamarinMatch(PEXT E, PLIST_ENTRY Done)
{
    while (!IsListEmpty(&E->Frames)) {
        PFRAME frame = CONTAINING_RECORD(E->Frames.Flink, FRAME, Entry);
        PIRP irp = SableTake(&E->Reads, NULL);

        if (!irp)
            return;
        if (IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length < frame->Length) {
            irp->IoStatus.Status = STATUS_BUFFER_TOO_SMALL;
            irp->IoStatus.Information = 0;
        } else {
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, frame->Data, frame->Length);
            irp->IoStatus.Status = STATUS_SUCCESS;
            irp->IoStatus.Information = frame->Length;
            RemoveEntryList(&frame->Entry);
            E->FrameCount--;
            ExFreePoolWithTag(frame, SABLE_TAG);
        }
        InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
    }
}

/* ---- no lock held ---- */

static VOID TamarinDone(PEXT E, PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry);

        SableFinish(&E->S, irp, irp->IoStatus.Status, irp->IoStatus.Information);
    }
}

static VOID NTAPI TamarinDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PEXT E = Context;
    LIST_ENTRY done;

    (void)Dpc;
    (void)A1;
    (void)A2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&E->S.Lock);
    if (SableLive(&E->S)) {
        ULONG n, st = 0;

        for (n = 0; n < PER_PASS; n++) {
            st = Rd(E, R_INTSTAT);
            if (st == SABLE_ONES || !(st & INT_FRAME))
                break;
            TamarinFetch(E);
        }
        TamarinMatch(E, &done);
        if (st != SABLE_ONES)
            SableSync(&E->S, TamarinUnmask, E);
    }
    KeReleaseSpinLockFromDpcLevel(&E->S.Lock);
    TamarinDone(E, &done);
}

static NTSTATUS NTAPI TamarinFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, s->MajorFunction == IRP_MJ_CREATE ? status : STATUS_SUCCESS);
    switch (s->MajorFunction) {
    case IRP_MJ_CREATE:
        KeAcquireSpinLock(&E->S.Lock, &q);
        if (!E->S.Started || E->S.Gone) {
            status = STATUS_DEVICE_NOT_READY;
        } else if (E->Opened) {
            status = STATUS_SHARING_VIOLATION;
        } else {
            E->Opened = 1;
            TamarinDropFrames(E);       /* what came while the device was not open */
        }
        KeReleaseSpinLock(&E->S.Lock, q);
        break;
    case IRP_MJ_CLEANUP:
        SableFlush(&E->S, &E->Reads, s->FileObject, STATUS_CANCELLED);
        break;
    default:
        KeAcquireSpinLock(&E->S.Lock, &q);
        E->Opened = 0;
        TamarinDropFrames(E);
        KeReleaseSpinLock(&E->S.Lock, q);
        break;
    }
    return SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS NTAPI TamarinRead(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);
    LIST_ENTRY done;
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0)
        return SableFinish(&E->S, Irp, STATUS_SUCCESS, 0);
    InitializeListHead(&done);
    KeAcquireSpinLock(&E->S.Lock, &q);
    status = E->S.Started && !E->S.Gone ? SableQueue(&E->Reads, Irp) : STATUS_DEVICE_NOT_READY;
    if (status == STATUS_PENDING)
        TamarinMatch(E, &done);
    KeReleaseSpinLock(&E->S.Lock, q);
    TamarinDone(E, &done);
    return status == STATUS_PENDING ? status : SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS NTAPI TamarinControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_TAMARIN_COUNTERS)
        return SableFinish(&E->S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TAMARIN_COUNTERS))
        return SableFinish(&E->S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&E->S.Lock, &q);
    E->Counters.Waiting = E->FrameCount;
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &E->Counters, sizeof E->Counters);
    KeReleaseSpinLock(&E->S.Lock, q);
    return SableFinish(&E->S, Irp, STATUS_SUCCESS, sizeof(TAMARIN_COUNTERS));
}

/* Lock held. */
static VOID TamarinOn(PEXT E)
{
    Wr(E, R_CTRL, CTRL_RECEIVE);
    SableSync(&E->S, TamarinUnmask, E);
}

/* Lock held, device in D0. */
static VOID TamarinOff(PEXT E)
{
    SableSync(&E->S, TamarinMask, E);
    Wr(E, R_CTRL, 0);
}

static NTSTATUS CardStart(PSABLE C, PSABLE_RES R)
{
    PEXT E = (PEXT)C;
    NTSTATUS status;
    KIRQL q;

    if (R->MemCount < 1 || R->MemLen[0] < MAP_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    E->Regs = MmMapIoSpace(R->Mem[0], MAP_SIZE, MmNonCached);
    if (!E->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(E, R_ID) == SABLE_ONES)
        return STATUS_NO_SUCH_DEVICE;
    Wr(E, R_INTEN, 0);
    Wr(E, R_CTRL, 0);
    status = SableConnect(C, R, TamarinIsr);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&C->Lock, &q);
    C->Started = TRUE;
    TamarinOn(E);
    KeReleaseSpinLock(&C->Lock, q);
    return STATUS_SUCCESS;
}

static VOID CardStop(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Started && !C->Asleep && Rd(E, R_ID) != SABLE_ONES)
        TamarinOff(E);
    C->Started = FALSE;
    KeReleaseSpinLock(&C->Lock, q);
    SableDown(C);
    SableFlush(C, &E->Reads, NULL, STATUS_DEVICE_NOT_READY);
    KeAcquireSpinLock(&C->Lock, &q);
    TamarinDropFrames(E);
    KeReleaseSpinLock(&C->Lock, q);
    if (E->Regs)
        MmUnmapIoSpace(E->Regs, MAP_SIZE);
    E->Regs = NULL;
}

/* Reads wait until a frame comes after the wake. */
static VOID CardSleep(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (SableLive(C))
        TamarinOff(E);
    C->Asleep = TRUE;
    KeReleaseSpinLock(&C->Lock, q);
}

static VOID CardWake(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Asleep) {
        C->Asleep = FALSE;
        if (SableLive(C))
            TamarinOn(E);
    }
    KeReleaseSpinLock(&C->Lock, q);
}

static VOID CardFree(PSABLE C)
{
    (void)C;
}

static NTSTATUS NTAPI TamarinAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PSABLE C;
    PEXT E;
    NTSTATUS status = SableAdd(Driver, Pdo, sizeof(EXT), &TamarinGuid, &C);

    if (!NT_SUCCESS(status))
        return status;
    E = (PEXT)C;
    InitializeListHead(&E->Reads);
    InitializeListHead(&E->Frames);
    KeInitializeDpc(&E->Dpc, TamarinDpc, E);
    return SableAddEnd(C);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    SableEntry(Driver, TamarinAdd);
    Driver->MajorFunction[IRP_MJ_CREATE] = TamarinFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TamarinFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TamarinFile;
    Driver->MajorFunction[IRP_MJ_READ] = TamarinRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TamarinControl;
    return STATUS_SUCCESS;
}
