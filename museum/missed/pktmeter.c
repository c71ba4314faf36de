/*
 * pktmeter: a load generator card that sends batches of frames: a write of up to 16 frames of 64 bytes is copied to the card and ends when
 * all of them are on the wire.
 *
 * The bug: the card's counter of frames has 16 bits, the difference to its value at the beginning is taken in 32 bits: when the counter
 * wraps within a batch, the batch ends as a success with its first frames, and the next one resets the card under the others: lost.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: output-never-stored
 * Needs: device
 *
 * The card (one memory window of 2 KiB, one interrupt):
 *   00 ID       504B544D
 *   04 CONTROL  bit 0 enable, bit 1 interrupt enable, bit 2 reset (clears itself; frames that are not sent yet are dropped, busy
 *               goes away within 10 microseconds)
 *   08 CAUSE    bit 0 a frame has been sent; write 1 to clear
 *   0C KICK     write n: send the frames 0..n-1 of the memory
 *   10 SENT     frames sent since the card got power, bits 0-15, wraps; not touched by a reset, higher bits are 0
 *   14 STATE    bit 0 busy; goes away with or before the last count
 *   400-7FF     memory for 16 frames
 */
#define CK_HAS_POWER
#define CK_HAS_TIMER
#include "../include/kept_in_order.h"

#define PM_ID       0x00
#define PM_CONTROL  0x04
#define PM_CAUSE    0x08
#define PM_KICK     0x0c
#define PM_SENT     0x10
#define PM_STATE    0x14
#define PM_MEMORY   0x400

#define PM_MAGIC    0x504b544du
#define PM_ENABLE   1u
#define PM_IRQ      2u
#define PM_RESET    4u
#define PM_BUSY     1u

#define PM_FRAME    64u
#define PM_FRAMES   16u
#define PM_LIMIT    500                     /* milliseconds */

#define IOCTL_PM_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa10, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID PmGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x0c } };

typedef struct _PM_COUNTS {
    ULONG Batches, Frames, TimedOut;
} PM_COUNTS, *PPM_COUNTS;

typedef struct _PM_EXT {
    CK K;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Interrupt;
    volatile BOOLEAN Listen;
    KDPC Dpc;
    ULONG Begun, Frames;                    /* of the batch under way: SENT at its beginning, how many */
    PM_COUNTS C;                            /* of the one that has the request */
} PM_EXT, *PPM_EXT;

static ULONG PmIn(PPM_EXT x, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + reg));
}

static VOID PmOut(PPM_EXT x, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + reg), value);
}

static BOOLEAN NTAPI PmIsr(PKINTERRUPT interrupt, PVOID context)
{
    PPM_EXT x = context;
    ULONG cause;

    UNREFERENCED_PARAMETER(interrupt);
    if (!x->Listen)
        return FALSE;
    cause = PmIn(x, PM_CAUSE);
    if (cause == 0xffffffff || !(cause & 1))
        return FALSE;
    PmOut(x, PM_CAUSE, 1);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* Whether the batch is on the wire. */
static BOOLEAN PmAllSent(PPM_EXT x)
{
    ULONG count = PmIn(x, PM_SENT), sent;

    if (count == 0xffffffff)
        return FALSE;
#ifdef FIXED
    sent = (USHORT)(count - x->Begun);
#else
    sent = count - x->Begun;
#endif
    return sent >= x->Frames;
}

static VOID PmFinish(PPM_EXT x, PIRP irp)
{
    x->C.Batches++;
    x->C.Frames += x->Frames;
    CkDone(&x->K, irp, STATUS_SUCCESS, x->Frames * PM_FRAME);
}

static VOID NTAPI PmDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PPM_EXT x = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->K.Q.Lock);
    if (x->K.Cur != NULL && PmAllSent(x))
        irp = CkClaimLocked(&x->K);
    KeReleaseSpinLockFromDpcLevel(&x->K.Q.Lock);
    if (irp != NULL)
        PmFinish(x, irp);
}

/* FALSE: the card does not become idle. Up to DISPATCH_LEVEL. */
static BOOLEAN PmReset(PPM_EXT x)
{
    ULONG tries;

    PmOut(x, PM_CONTROL, PM_RESET);
    for (tries = 0; tries < 20; tries++) {
        if (!(PmIn(x, PM_STATE) & PM_BUSY)) {
            PmOut(x, PM_CAUSE, 1);
            return TRUE;
        }
        KeStallExecutionProcessor(2);
    }
    return FALSE;
}

static VOID HwExpired(PCK k, PIRP irp)
{
    PPM_EXT x = (PPM_EXT)k;

    if (PmAllSent(x)) {                     /* only its interrupt has been lost */
        PmFinish(x, irp);
        return;
    }
    PmReset(x);                             /* if it does not help, the next batch finds the card busy */
    x->C.TimedOut++;
    CkDone(k, irp, PmIn(x, PM_STATE) == 0xffffffff ? STATUS_DEVICE_NOT_CONNECTED : STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(irp);
    UNREFERENCED_PARAMETER(info);
    if (s->MajorFunction == IRP_MJ_WRITE) {
        if (s->Parameters.Write.Length == 0 || s->Parameters.Write.Length % PM_FRAME != 0 ||
            s->Parameters.Write.Length > PM_FRAME * PM_FRAMES)
            return STATUS_INVALID_PARAMETER;
        return STATUS_PENDING;
    }
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_PM_COUNTS)
        return STATUS_INVALID_DEVICE_REQUEST;
    return s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PM_COUNTS) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PPM_EXT x = (PPM_EXT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG length = s->Parameters.Write.Length, state, begun, i;
    const ULONG *from = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        *(PPM_COUNTS)irp->AssociatedIrp.SystemBuffer = x->C;
        *info = sizeof(PM_COUNTS);
        return STATUS_SUCCESS;
    }
    state = PmIn(x, PM_STATE);
    if (state == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;
    if ((state & PM_BUSY) && !PmReset(x))   /* with a batch that was given up */
        return STATUS_DEVICE_BUSY;
    for (i = 0; i < length / sizeof(ULONG); i++)
        PmOut(x, PM_MEMORY + i * sizeof(ULONG), from[i]);
    begun = PmIn(x, PM_SENT);
    if (begun == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;

    KeAcquireSpinLock(&k->Q.Lock, &irql);
    x->Begun = begun;
    x->Frames = length / PM_FRAME;
    CkArmLocked(k, irp, PM_LIMIT);
    PmOut(x, PM_CONTROL, PM_ENABLE | PM_IRQ);
    PmOut(x, PM_KICK, x->Frames);
    KeReleaseSpinLock(&k->Q.Lock, irql);
    return STATUS_PENDING;
}

static VOID HwSleep(PCK k)
{
    PPM_EXT x = (PPM_EXT)k;

    PmReset(x);                             /* interrupts off, too */
    CkListen(x->Interrupt, &x->Listen, FALSE);
}

/* Every batch enables the card. */
static VOID HwWake(PCK k)
{
    PPM_EXT x = (PPM_EXT)k;

    CkListen(x->Interrupt, &x->Listen, TRUE);
}

static VOID PmGiveBack(PPM_EXT x)
{
    if (x->Interrupt != NULL)
        IoDisconnectInterrupt(x->Interrupt);
    x->Interrupt = NULL;
    KeFlushQueuedDpcs();
    if (x->Regs != NULL)
        MmUnmapIoSpace(x->Regs, x->RegsLen);
    x->Regs = NULL;
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PPM_EXT x = (PPM_EXT)k;
    NTSTATUS status;

    x->Regs = CkMap(r, 0, PM_MEMORY + PM_FRAME * PM_FRAMES);
    if (x->Regs == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLen = r->Mem[0].Len;
    if (PmIn(x, PM_ID) != PM_MAGIC) {
        PmGiveBack(x);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    PmReset(x);
    x->Listen = TRUE;
    status = CkConnect(r, &x->Interrupt, PmIsr, x);
    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        PmGiveBack(x);
    }
    return status;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    PPM_EXT x = (PPM_EXT)k;

    if (touch)
        PmReset(x);
    CkListen(x->Interrupt, &x->Listen, FALSE);
    PmGiveBack(x);
}

static NTSTATUS PmInit(PCK k)
{
    PPM_EXT x = (PPM_EXT)k;

    KeInitializeDpc(&x->Dpc, PmDpc, x);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PmAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(PM_EXT), &PmGuid, DO_BUFFERED_IO, PmInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, PmAdd);
    return STATUS_SUCCESS;
}
