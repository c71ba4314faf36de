/*
 * quoin: receiver of a serial badge reader line on a board behind a PLX PCI 9050. ReadFile gives the bytes received
 * (a read waits for at least one), IOCTL_QUOIN_STATS gives counters, IOCTL_QUOIN_PURGE empties the driver's buffer.
 *
 * Board in local space 0 (BAR2): 0x00 RXSTAT (bit 0 a byte is there, bit 1 overrun), 0x04 RXDATA (reading takes the
 * byte), 0x08 RXCTRL (bit 0 receiver on, bit 1 empty the FIFO, bit 2 LINTi1 at 16 bytes or more). The FIFO has 256
 * bytes. Fewer than 16 bytes raise no interrupt, a timer fetches them every 20 ms.
 *
 * The bug: the loop that empties the card's FIFO runs as long as the status says that a byte is there; a card that
 * was pulled out reads as all ones, so the timer's DPC never comes out of the loop and keeps the spin lock.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: endless-loop
 * Needs: removal, device
 */
#include <ddk/wdm.h>
#include "../include/sable_wdm.h"

static const GUID QuoinGuid = {0x6c1e51a4, 0x2f0b, 0x4b61, {0x9d, 0x11, 0x3a, 0x70, 0x5e, 0x21, 0x84, 0x02}};

#define IOCTL_QUOIN_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUOIN_PURGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    ULONG Received;
    ULONG Lost;         /* bytes that found the driver's buffer full */
    ULONG Overruns;     /* of the card's FIFO */
    ULONG Waiting;      /* bytes in the driver's buffer */
} QUOIN_STATS;

#define PLX_INTCSR  0x4C
#define PLX_SIZE    0x80
#define LINT1_ENABLE 0x01
#define LINT1_HIGH  0x02
#define LINT1_STATUS 0x04
#define PCI_ENABLE  0x40
#define INTCSR_OFF  (LINT1_ENABLE | LINT1_HIGH)
#define INTCSR_RUN  (INTCSR_OFF | PCI_ENABLE)

#define B_RXSTAT 0x00
#define B_RXDATA 0x04
#define B_RXCTRL 0x08
#define B_SIZE   0x10
#define RX_AVAIL 1
#define RX_OVERRUN 2
#define RXCTRL_ON 1
#define RXCTRL_EMPTY 2
#define RXCTRL_INT 4
#define FIFO_SIZE 256

#define RING_SIZE 4096
#define POLL_MS 20

typedef struct {
    SABLE S;
    PUCHAR Plx;
    PUCHAR Board;
    LIST_ENTRY Reads;
    KDPC Dpc;           /* of the interrupt */
    KDPC PollDpc;
    KTIMER Poll;
    ULONG First;        /* ring: oldest byte */
    ULONG Count;
    QUOIN_STATS Stats;
    UCHAR Ring[RING_SIZE];
} EXT, *PEXT;

static ULONG Rd(PUCHAR Base, ULONG Reg)
{
    return READ_REGISTER_ULONG((PULONG)(Base + Reg));
}

static VOID Wr(PUCHAR Base, ULONG Reg, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Base + Reg), Value);
}

/* ---- the interrupt's lock held ---- */

static BOOLEAN NTAPI QuoinRun(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 1;
    Wr(E->Plx, PLX_INTCSR, INTCSR_RUN);
    return TRUE;
}

static BOOLEAN NTAPI QuoinMask(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 0;
    Wr(E->Plx, PLX_INTCSR, INTCSR_OFF);
    return TRUE;
}

static BOOLEAN NTAPI QuoinIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT E = Context;
    ULONG v;

    (void)Interrupt;
    if (!E->S.IsrOn)
        return FALSE;
    v = Rd(E->Plx, PLX_INTCSR);
    if (v == SABLE_ONES || !(v & PCI_ENABLE) || !(v & LINT1_STATUS))
        return FALSE;
    Wr(E->Plx, PLX_INTCSR, INTCSR_OFF);     /* the line stays up until the DPC has emptied the FIFO */
    KeInsertQueueDpc(&E->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- SABLE.Lock held ---- */

/* May one more byte be fetched in this pass, after n? */
static BOOLEAN QuoinMore(PEXT E, ULONG n)
{
    ULONG st = Rd(E->Board, B_RXSTAT);

#ifdef FIXED
    if (st == SABLE_ONES || n >= FIFO_SIZE)
        return FALSE;
#endif
    if (n == 0 && (st & RX_OVERRUN))
        E->Stats.Overruns++;
    return (st & RX_AVAIL) != 0;
}

static VOID QuoinDrain(PEXT E)
{
    ULONG n = 0;

    while (QuoinMore(E, n)) {
        UCHAR byte = (UCHAR)Rd(E->Board, B_RXDATA);

        n++;
        E->Stats.Received++;
        if (E->Count == RING_SIZE) {
            E->Stats.Lost++;
            continue;
        }
        E->Ring[(E->First + E->Count) % RING_SIZE] = byte;
        E->Count++;
    }
}

/* Move the reads that can be served to Done. */
static VOID QuoinMatch(PEXT E, PLIST_ENTRY Done)
{
    while (E->Count) {
        PIRP irp = SableTake(&E->Reads, NULL);
        PUCHAR to;
        ULONG length, i;

        if (!irp)
            return;
        to = irp->AssociatedIrp.SystemBuffer;
        length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
        for (i = 0; i < length && E->Count; i++) {
            to[i] = E->Ring[E->First];
            E->First = (E->First + 1) % RING_SIZE;
            E->Count--;
        }
        irp->IoStatus.Information = i;
        InsertTailList(Done, &irp->Tail.Overlay.ListEntry);
    }
}

/* ---- no lock held ---- */

static VOID QuoinDone(PEXT E, PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry);

        SableFinish(&E->S, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
}

/* For both DPCs. */
static VOID QuoinService(PEXT E, BOOLEAN Unmask)
{
    LIST_ENTRY done;

    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&E->S.Lock);
    if (SableLive(&E->S)) {
        QuoinDrain(E);
        QuoinMatch(E, &done);
        if (Unmask)
            SableSync(&E->S, QuoinRun, E);
    }
    KeReleaseSpinLockFromDpcLevel(&E->S.Lock);
    QuoinDone(E, &done);
}

static VOID NTAPI QuoinDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    (void)Dpc;
    (void)A1;
    (void)A2;
    QuoinService(Context, TRUE);
}

static VOID NTAPI QuoinPollDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    (void)Dpc;
    (void)A1;
    (void)A2;
    QuoinService(Context, FALSE);
}

static NTSTATUS NTAPI QuoinFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, s->MajorFunction == IRP_MJ_CREATE ? status : STATUS_SUCCESS);
    if (s->MajorFunction == IRP_MJ_CREATE) {
        KIRQL q;

        KeAcquireSpinLock(&E->S.Lock, &q);
        if (!E->S.Started || E->S.Gone)
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&E->S.Lock, q);
    } else if (s->MajorFunction == IRP_MJ_CLEANUP) {
        SableFlush(&E->S, &E->Reads, s->FileObject, STATUS_CANCELLED);
    }
    return SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS NTAPI QuoinRead(PDEVICE_OBJECT Dev, PIRP Irp)
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
        QuoinMatch(E, &done);
    KeReleaseSpinLock(&E->S.Lock, q);
    QuoinDone(E, &done);
    return status == STATUS_PENDING ? status : SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS NTAPI QuoinControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);
    ULONG_PTR info = 0;
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUOIN_STATS:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(QUOIN_STATS)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&E->S.Lock, &q);
        E->Stats.Waiting = E->Count;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &E->Stats, sizeof E->Stats);
        KeReleaseSpinLock(&E->S.Lock, q);
        info = sizeof(QUOIN_STATS);
        break;
    case IOCTL_QUOIN_PURGE:
        KeAcquireSpinLock(&E->S.Lock, &q);
        E->Count = 0;
        KeReleaseSpinLock(&E->S.Lock, q);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return SableFinish(&E->S, Irp, status, info);
}

/* Lock held. */
static VOID QuoinBoardOn(PEXT E)
{
    Wr(E->Board, B_RXCTRL, RXCTRL_EMPTY);
    Wr(E->Board, B_RXCTRL, RXCTRL_ON | RXCTRL_INT);
    SableSync(&E->S, QuoinRun, E);
}

/* Lock held, device in D0. */
static VOID QuoinBoardOff(PEXT E)
{
    SableSync(&E->S, QuoinMask, E);
    Wr(E->Board, B_RXCTRL, 0);
}

static NTSTATUS CardStart(PSABLE C, PSABLE_RES R)
{
    PEXT E = (PEXT)C;
    LARGE_INTEGER due;
    NTSTATUS status;
    KIRQL q;

    if (R->MemCount < 2 || R->MemLen[0] < PLX_SIZE || R->MemLen[1] < B_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    E->Plx = MmMapIoSpace(R->Mem[0], PLX_SIZE, MmNonCached);
    E->Board = MmMapIoSpace(R->Mem[1], B_SIZE, MmNonCached);
    if (!E->Plx || !E->Board)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(E->Plx, PLX_INTCSR) == SABLE_ONES)
        return STATUS_NO_SUCH_DEVICE;
    Wr(E->Plx, PLX_INTCSR, INTCSR_OFF);
    Wr(E->Board, B_RXCTRL, 0);
    status = SableConnect(C, R, QuoinIsr);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&C->Lock, &q);
    E->Count = 0;
    C->Started = TRUE;
    QuoinBoardOn(E);
    KeReleaseSpinLock(&C->Lock, q);
    due.QuadPart = -POLL_MS * 10000;
    KeSetTimerEx(&E->Poll, due, POLL_MS, &E->PollDpc);
    return STATUS_SUCCESS;
}

static VOID CardStop(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeCancelTimer(&E->Poll);
    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Started && !C->Asleep && Rd(E->Plx, PLX_INTCSR) != SABLE_ONES)
        QuoinBoardOff(E);
    C->Started = FALSE;
    KeReleaseSpinLock(&C->Lock, q);
    SableDown(C);
    SableFlush(C, &E->Reads, NULL, STATUS_DEVICE_NOT_READY);
    if (E->Plx)
        MmUnmapIoSpace(E->Plx, PLX_SIZE);
    if (E->Board)
        MmUnmapIoSpace(E->Board, B_SIZE);
    E->Plx = NULL;
    E->Board = NULL;
}

/* Reads wait until bytes come after the wake. */
static VOID CardSleep(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Started && !C->Asleep && !C->Gone)
        QuoinBoardOff(E);
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
            QuoinBoardOn(E);
    }
    KeReleaseSpinLock(&C->Lock, q);
}

static VOID CardFree(PSABLE C)
{
    (void)C;
}

static NTSTATUS NTAPI QuoinAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PSABLE C;
    PEXT E;
    NTSTATUS status = SableAdd(Driver, Pdo, sizeof(EXT), &QuoinGuid, &C);

    if (!NT_SUCCESS(status))
        return status;
    E = (PEXT)C;
    InitializeListHead(&E->Reads);
    KeInitializeDpc(&E->Dpc, QuoinDpc, E);
    KeInitializeDpc(&E->PollDpc, QuoinPollDpc, E);
    KeInitializeTimer(&E->Poll);
    return SableAddEnd(C);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    SableEntry(Driver, QuoinAdd);
    Driver->MajorFunction[IRP_MJ_CREATE] = QuoinFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = QuoinFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = QuoinFile;
    Driver->MajorFunction[IRP_MJ_READ] = QuoinRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QuoinControl;
    return STATUS_SUCCESS;
}
