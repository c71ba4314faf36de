/*
 * trevet: a framed serial link on a board behind a PLX 9050. ReadFile gives one received frame and pends until there
 * is one; WriteFile sends a frame of up to 252 bytes; IOCTL_TRIVET_COUNTERS. Frames carry a check byte, not shown.
 *
 * The bug: a read looks for a stored frame under the lock, lets go of it and takes it again to queue itself. A frame
 * that comes in between finds no reader and is stored; the read pends beside it until one more frame comes.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: schedule, device
 *
 * The board (local space 0, BAR2, 32 bits each):
 *   0x00 FRAMES  received frames waiting on the board
 *   0x04 LENGTH  bytes of the oldest one, check byte included
 *   0x08 DATA    its next four bytes
 *   0x0C POP     write 1: drops the oldest one
 *   0x10 CAUSE   bit 0: a frame has come; latched, write 1 to clear
 *   0x14 ENABLE  CAUSE & ENABLE raises LINTi1, active high
 *   0x18 ROOM    free bytes of the sender
 *   0x1C TXDATA  the next four bytes to send
 *   0x20 TXSEND  write the length: sends what was written as one frame
 */
#include "../include/reed_wdm.h"

/* {51C7A9D2-0E64-4F5B-A4D8-1C9B3E6A2B04} */
static const GUID TrivetGuid = { 0x51c7a9d2, 0x0e64, 0x4f5b, { 0xa4, 0xd8, 0x1c, 0x9b, 0x3e, 0x6a, 0x2b, 0x04 } };

#define IOCTL_TRIVET_COUNTERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _TRIVET_COUNTERS {
    ULONG Received;
    ULONG Bad;
    ULONG Sent;
    ULONG Stored;
} TRIVET_COUNTERS;

#define PLX 0
#define BRD 1

#define PLX_INTCSR   0x4C
#define PLX_LINT1_UP 0x004u
#define PLX_ENABLE   0x043u         /* LINTi1 on, active high, PCI interrupt on */
#define PLX_DISABLE  0x002u

#define BRD_FRAMES   0x00
#define BRD_LENGTH   0x04
#define BRD_DATA     0x08
#define BRD_POP      0x0C
#define BRD_CAUSE    0x10
#define BRD_ENABLE   0x14
#define BRD_ROOM     0x18
#define BRD_TXDATA   0x1C
#define BRD_TXSEND   0x20
#define CAUSE_FRAME  0x01u
#define CARD_GONE    0xFFFFFFFFu

#define TRIVET_SLOTS 16u
#define TRIVET_FRAME 256u           /* with the check byte; a multiple of four */
#define TRIVET_SEND  252u
#define TRIVET_BATCH 64

typedef struct _TRIVET_SLOT {
    ULONG Length;                   /* without the check byte */
    UCHAR Data[TRIVET_FRAME];
} TRIVET_SLOT;

typedef struct _TRIVET {
    REED R;
    LIST_ENTRY Readers;
    ULONG First, Count;             /* the ring of stored frames */
    ULONG Received, Bad, Sent;
    TRIVET_SLOT Slot[TRIVET_SLOTS];
} TRIVET, *PTRIVET;

static UCHAR TrivetCheck(const UCHAR *Data, ULONG Length)
{
    UCHAR sum = 0x5A;
    ULONG i;

    for (i = 0; i < Length; i++)
        sum ^= Data[i];
    return sum;
}

/* Lock held. Takes the oldest stored frame into a read request. */
static VOID TrivetFill(PTRIVET t, PIRP Irp)
{
    TRIVET_SLOT *slot = &t->Slot[t->First];
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    ULONG n = slot->Length < room ? slot->Length : room;

    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, slot->Data, n);
    Irp->IoStatus.Status = n < slot->Length ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
    Irp->IoStatus.Information = n;
    t->First = (t->First + 1) % TRIVET_SLOTS;
    t->Count--;
}

/* Lock held. Frames from the board to the ring, from the ring to the readers; ended by the caller. */
static VOID TrivetService(PTRIVET t, PLIST_ENTRY Done)
{
    BOOLEAN card = t->R.Live && t->R.Awake;
    ULONG frames, i, k, n;
    PIRP irp;

    for (i = 0; card && i < TRIVET_BATCH && t->Count < TRIVET_SLOTS; i++) {
        TRIVET_SLOT *slot = &t->Slot[(t->First + t->Count) % TRIVET_SLOTS];

        frames = ReedGet(&t->R, BRD, BRD_FRAMES);
        if (frames == 0 || frames == CARD_GONE)
            break;
        n = ReedGet(&t->R, BRD, BRD_LENGTH);
        if (n < 2 || n > TRIVET_FRAME) {
            ReedSet(&t->R, BRD, BRD_POP, 1);
            t->Bad++;
            continue;
        }
        for (k = 0; k < n; k += 4) {
            ULONG word = ReedGet(&t->R, BRD, BRD_DATA);

            RtlCopyMemory(slot->Data + k, &word, 4);
        }
        ReedSet(&t->R, BRD, BRD_POP, 1);
        if (TrivetCheck(slot->Data, n - 1) != slot->Data[n - 1]) {
            t->Bad++;
            continue;
        }
        slot->Length = n - 1;
        t->Received++;
        t->Count++;
    }
    while (t->Count != 0 && (irp = ReedTake(&t->Readers)) != NULL) {
        TrivetFill(t, irp);
        InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
    }
    /* There is room again and there may be more on the board. */
    if (card && t->Count < TRIVET_SLOTS) {
        frames = ReedGet(&t->R, BRD, BRD_FRAMES);
        if (frames != 0 && frames != CARD_GONE)
            KeInsertQueueDpc(&t->R.Dpc, NULL, NULL);
    }
}

static BOOLEAN NTAPI TrivetIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PTRIVET t = Context;
    ULONG csr, cause;

    (VOID)Interrupt;
    if (!t->R.Awake)
        return FALSE;
    csr = ReedGet(&t->R, PLX, PLX_INTCSR);
    if (csr == CARD_GONE || (csr & PLX_LINT1_UP) == 0)
        return FALSE;
    cause = ReedGet(&t->R, BRD, BRD_CAUSE);
    if (cause == CARD_GONE || (cause & CAUSE_FRAME) == 0)
        return FALSE;
    ReedSet(&t->R, BRD, BRD_CAUSE, CAUSE_FRAME);
    KeInsertQueueDpc(&t->R.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TrivetDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PTRIVET t = Context;
    LIST_ENTRY done;
    KIRQL irql;

    (VOID)Dpc;
    (VOID)A;
    (VOID)B;
    InitializeListHead(&done);
    KeAcquireSpinLock(&t->R.Lock, &irql);
    if (t->R.Live)
        TrivetService(t, &done);
    KeReleaseSpinLock(&t->R.Lock, irql);
    ReedEndEach(&t->R, &done);
}

/* A stored frame into the request, if there is one; the ring is filled up from the board. */
static BOOLEAN TrivetFetch(PTRIVET t, PIRP Irp)
{
    BOOLEAN found = FALSE;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&t->R.Lock, &irql);
    if (t->R.Live && t->Count != 0) {
        TrivetFill(t, Irp);
        found = TRUE;
        TrivetService(t, &done);
    }
    KeReleaseSpinLock(&t->R.Lock, irql);
    ReedEndEach(&t->R, &done);
    return found;
}

static NTSTATUS NTAPI TrivetRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRIVET t = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS st = ReedEnter(&t->R, Irp);
    BOOLEAN again;
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.Read.Length == 0) {
        ReedEnd(&t->R, Irp, STATUS_SUCCESS, 0);
        return ReedLeave(&t->R, STATUS_SUCCESS);
    }
    do {
        again = FALSE;
        if (TrivetFetch(t, Irp)) {
            st = Irp->IoStatus.Status;
            ReedEnd(&t->R, Irp, st, Irp->IoStatus.Information);
            return ReedLeave(&t->R, st);
        }
        KeAcquireSpinLock(&t->R.Lock, &irql);
        if (!t->R.Live || sp->FileObject == NULL || sp->FileObject->FsContext2 != NULL)
            st = STATUS_DEVICE_NOT_READY;
#ifdef FIXED
        else if (t->Count != 0)
            again = TRUE;
#endif
        else
            st = ReedPut(&t->Readers, Irp) ? STATUS_PENDING : STATUS_CANCELLED;
        KeReleaseSpinLock(&t->R.Lock, irql);
    } while (again);
    if (st != STATUS_PENDING)
        ReedEnd(&t->R, Irp, st, 0);
    return ReedLeave(&t->R, st == STATUS_CANCELLED ? STATUS_PENDING : st);
}

static NTSTATUS NTAPI TrivetWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRIVET t = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS st = ReedEnter(&t->R, Irp);
    UCHAR frame[TRIVET_SEND + 4];
    ULONG room, k;
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return st;
    if (length == 0 || length > TRIVET_SEND) {
        ReedEnd(&t->R, Irp, STATUS_INVALID_PARAMETER, 0);
        return ReedLeave(&t->R, STATUS_INVALID_PARAMETER);
    }
    RtlZeroMemory(frame, sizeof(frame));
    RtlCopyMemory(frame, Irp->AssociatedIrp.SystemBuffer, length);
    frame[length] = TrivetCheck(frame, length);
    KeAcquireSpinLock(&t->R.Lock, &irql);
    if (!t->R.Live || !t->R.Awake) {
        st = STATUS_DEVICE_NOT_READY;
    } else {
        room = ReedGet(&t->R, BRD, BRD_ROOM);
        if (room == CARD_GONE) {
            st = STATUS_DEVICE_NOT_CONNECTED;
        } else if (room < length + 1) {
            st = STATUS_DEVICE_BUSY;
        } else {
            for (k = 0; k < length + 1; k += 4) {
                ULONG word;

                RtlCopyMemory(&word, frame + k, 4);
                ReedSet(&t->R, BRD, BRD_TXDATA, word);
            }
            ReedSet(&t->R, BRD, BRD_TXSEND, length + 1);
            t->Sent++;
            st = STATUS_SUCCESS;
        }
    }
    KeReleaseSpinLock(&t->R.Lock, irql);
    ReedEnd(&t->R, Irp, st, NT_SUCCESS(st) ? length : 0);
    return ReedLeave(&t->R, st);
}

static NTSTATUS NTAPI TrivetControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRIVET t = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    TRIVET_COUNTERS *out = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = ReedEnter(&t->R, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(st))
        return st;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_TRIVET_COUNTERS) {
        st = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*out)) {
        st = STATUS_BUFFER_TOO_SMALL;
    } else {
        KeAcquireSpinLock(&t->R.Lock, &irql);
        out->Received = t->Received;
        out->Bad = t->Bad;
        out->Sent = t->Sent;
        out->Stored = t->Count;
        KeReleaseSpinLock(&t->R.Lock, irql);
    }
    ReedEnd(&t->R, Irp, st, NT_SUCCESS(st) ? sizeof(*out) : 0);
    return ReedLeave(&t->R, st);
}

static NTSTATUS NTAPI TrivetCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PTRIVET t = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&t->R.Lock, &irql);
    file->FsContext2 = t;           /* closed: takes no more requests */
    ReedSift(&t->Readers, file, &done);
    KeReleaseSpinLock(&t->R.Lock, irql);
    ReedEndAll(&t->R, &done, STATUS_CANCELLED);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID TrivetSetup(PREED x)
{
    PTRIVET t = (PTRIVET)x;

    InitializeListHead(&t->Readers);
    KeInitializeDpc(&x->Dpc, TrivetDpc, t);
}

static VOID TrivetCardOff(PTRIVET t)
{
    ReedSet(&t->R, PLX, PLX_INTCSR, PLX_DISABLE);
    ReedSet(&t->R, BRD, BRD_ENABLE, 0);
    (VOID)ReedGet(&t->R, PLX, PLX_INTCSR);
}

/* Lock held, Awake is set. What has come before is looked for by the DPC. */
static VOID TrivetCardOn(PTRIVET t)
{
    ReedSet(&t->R, BRD, BRD_ENABLE, CAUSE_FRAME);
    ReedSet(&t->R, PLX, PLX_INTCSR, PLX_ENABLE);
    KeInsertQueueDpc(&t->R.Dpc, NULL, NULL);
}

static NTSTATUS TrivetStart(PREED x, PCM_RESOURCE_LIST Resources)
{
    static const ULONG need[2] = { 0x54, 0x24 };
    PTRIVET t = (PTRIVET)x;
    NTSTATUS st;
    KIRQL irql;

    st = ReedMap(x, Resources, need, 2);
    if (!NT_SUCCESS(st))
        return st;
    TrivetCardOff(t);
    st = ReedConnect(x, TrivetIsr);
    if (!NT_SUCCESS(st))
        return st;
    KeAcquireSpinLock(&x->Lock, &irql);
    t->First = 0;
    t->Count = 0;
    x->Live = TRUE;
    x->Awake = 1;
    TrivetCardOn(t);
    KeReleaseSpinLock(&x->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID TrivetStop(PREED x)
{
    PTRIVET t = (PTRIVET)x;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && x->Awake)
        TrivetCardOff(t);
    x->Live = FALSE;
    ReedSift(&t->Readers, NULL, &done);
    KeReleaseSpinLock(&x->Lock, irql);
    ReedEndAll(x, &done, STATUS_DEVICE_NOT_READY);
    ReedRelease(x);
}

/* Reads go on waiting. */
static VOID TrivetSleep(PREED x)
{
    PTRIVET t = (PTRIVET)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && x->Awake) {
        TrivetCardOff(t);
        x->Awake = 0;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    ReedFence(x);
}

static VOID TrivetWake(PREED x)
{
    PTRIVET t = (PTRIVET)x;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Live && !x->Awake) {
        x->Awake = 1;
        TrivetCardOn(t);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static const REED_OPS TrivetOps = {
    sizeof(TRIVET), &TrivetGuid, TrivetSetup, TrivetStart, TrivetStop, TrivetSleep, TrivetWake
};

static NTSTATUS NTAPI TrivetAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ReedAdd(Driver, Pdo, &TrivetOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (VOID)Path;
    ReedDriver(Driver, TrivetAdd);
    Driver->MajorFunction[IRP_MJ_READ] = TrivetRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = TrivetWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TrivetControl;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TrivetCleanup;
    return STATUS_SUCCESS;
}
