/*
 * magnet: a magnetometer card without interrupts. While it is switched on, its FIFO is emptied every twenty milliseconds into a ring
 * from which programs read; a request may wait for new samples.
 *
 * The bug: on return to D0 the polling timer is started whether or not the card is switched on; stopping, sleeping and removal cancel
 * it only if it is. The timer left over polls registers that are unmapped and fires from a freed device extension.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: freed-active-timer, wild-read
 * Needs: power
 *
 * The card: BAR0, 256 bytes of memory; it has no interrupt. Registers of 32 bits:
 *   0x00 ID     (ro)  0x4d470002
 *   0x04 CTRL   (rw)  bit 0 RUN: one sample each millisecond goes to the FIFO; 0 empties it; lost in D3
 *   0x08 LEVEL  (ro)  samples in the FIFO, 0 to 64; when it is full, new ones are dropped
 *   0x0c DATA   (ro)  takes the oldest sample out of the FIFO (16 bits); 0 if there is none
 */
#include <ddk/wdm.h>

static const GUID MagnetGuid = { 0x5d0a2c17, 0x7e43, 0x4b0e, { 0x9a, 0x61, 0x10, 0x42, 0x77, 0x3c, 0xd5, 0x07 } };

#define GG_GUID MagnetGuid
#define GG_IO DO_BUFFERED_IO
#include "../include/with_waits.h"

#define IOCTL_MAGNET_SWITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x971, METHOD_BUFFERED, FILE_WRITE_ACCESS)  /* 0, 1 */
#define IOCTL_MAGNET_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x972, METHOD_BUFFERED, FILE_READ_ACCESS)   /* -> 1: new samples came */
#define IOCTL_MAGNET_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x973, METHOD_BUFFERED, FILE_READ_ACCESS)   /* -> MAGNET_STATE */

#define REG_ID    0x00
#define REG_CTRL  0x04
#define REG_LEVEL 0x08
#define REG_DATA  0x0c
#define CARD_ID   0x4d470002
#define WINDOW    0x100
#define FIFO      64

#define RING      4096                      /* samples, a power of two */
#define POLL_MS   20
#define NEW_SAMPLES 1                       /* the event that is waited for */

typedef struct _MAGNET_STATE {
    ULONG On, Held, Lost;
} MAGNET_STATE, *PMAGNET_STATE;

typedef struct _MAGNET {
    GG Gg;
    PUCHAR Regs;
    BOOLEAN On;                             /* the user's wish; kept over sleep and stop. Changed by HwRun only */
    KTIMER Poll;
    KDPC PollDpc;
    KSPIN_LOCK RingLock;                    /* guards the next four */
    PUSHORT Ring;
    ULONG In, Out;                          /* both run freely, In - Out is what is there */
    ULONG Lost;
    GG_WAITS Waits;
} MAGNET, *PMAGNET;

static ULONG HwSize(VOID)
{
    return sizeof(MAGNET);
}

static ULONG MagnetGet(PMAGNET m, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(m->Regs + reg));
}

static VOID MagnetPut(PMAGNET m, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(m->Regs + reg), value);
}

static VOID MagnetStartPolling(PMAGNET m)
{
    LARGE_INTEGER due;

    due.QuadPart = -POLL_MS * 10000;
    KeSetTimerEx(&m->Poll, due, POLL_MS, &m->PollDpc);
}

static VOID NTAPI MagnetPoll(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PMAGNET m = context;
    ULONG level, i, sample;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    level = MagnetGet(m, REG_LEVEL);
    if (level == 0 || level > FIFO)                         /* all ones: the card was pulled */
        return;
    KeAcquireSpinLockAtDpcLevel(&m->RingLock);
    for (i = 0; i < level; i++) {
        sample = MagnetGet(m, REG_DATA);
        if (sample > MAXUSHORT)                             /* pulled meanwhile */
            break;
        if (m->In - m->Out == RING) {
            if (m->Lost != MAXULONG)
                m->Lost++;
        } else {
            m->Ring[m->In++ % RING] = (USHORT)sample;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&m->RingLock);
    if (i)
        GgWaitsServe(&m->Waits, NEW_SAMPLES);
}

static NTSTATUS MagnetRead(PMAGNET m, PIRP irp, ULONG length)
{
    PUCHAR to = irp->AssociatedIrp.SystemBuffer;
    ULONG n = 0;
    KIRQL irql;

    KeAcquireSpinLock(&m->RingLock, &irql);
    while (length - n >= sizeof(USHORT) && m->Out != m->In) {
        RtlCopyMemory(to + n, &m->Ring[m->Out++ % RING], sizeof(USHORT));
        n += sizeof(USHORT);
    }
    KeReleaseSpinLock(&m->RingLock, irql);
    return GgEnd(irp, STATUS_SUCCESS, n);
}

static NTSTATUS MagnetState(PMAGNET m, PIRP irp)
{
    MAGNET_STATE state;
    KIRQL irql;

    state.On = m->On;
    KeAcquireSpinLock(&m->RingLock, &irql);
    state.Held = m->In - m->Out;
    state.Lost = m->Lost;
    KeReleaseSpinLock(&m->RingLock, irql);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &state, sizeof state);
    return GgEnd(irp, STATUS_SUCCESS, sizeof state);
}

/* Switching on or off. */
static VOID HwRun(PGG g, PIRP irp)
{
    PMAGNET m = CONTAINING_RECORD(g, MAGNET, Gg);
    ULONG on;

    RtlCopyMemory(&on, irp->AssociatedIrp.SystemBuffer, sizeof on);
    if (MagnetGet(m, REG_ID) != CARD_ID) {
        GgDone(g, irp, STATUS_DEVICE_DOES_NOT_EXIST, 0);
        return;
    }
    if (on && !m->On) {
        m->On = TRUE;
        MagnetPut(m, REG_CTRL, 1);
        MagnetStartPolling(m);
    } else if (!on && m->On) {
        m->On = FALSE;
        KeCancelTimer(&m->Poll);
        MagnetPut(m, REG_CTRL, 0);
    }
    GgDone(g, irp, STATUS_SUCCESS, 0);
}

static VOID HwLimit(PGG g, PIRP irp)                        /* nothing is ever armed */
{
    GgDone(g, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID HwCleanup(PGG g, PFILE_OBJECT file)
{
    GgWaitsEnd(&CONTAINING_RECORD(g, MAGNET, Gg)->Waits, file);
}

static NTSTATUS HwIo(PGG g, PIRP irp, PIO_STACK_LOCATION sp)
{
    PMAGNET m = CONTAINING_RECORD(g, MAGNET, Gg);
    ULONG in, out, on;

    if (sp->MajorFunction == IRP_MJ_READ)
        return MagnetRead(m, irp, sp->Parameters.Read.Length);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MAGNET_SWITCH:
        if (in != sizeof on)
            return GgEnd(irp, STATUS_INVALID_PARAMETER, 0);
        RtlCopyMemory(&on, irp->AssociatedIrp.SystemBuffer, sizeof on);
        if (on > 1)
            return GgEnd(irp, STATUS_INVALID_PARAMETER, 0);
        return GgQueue(g, irp);
    case IOCTL_MAGNET_WAIT:
        if (out < sizeof(ULONG))
            return GgEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return GgWaitsAdd(&m->Waits, irp, NEW_SAMPLES);
    case IOCTL_MAGNET_STATE:
        if (out < sizeof(MAGNET_STATE))
            return GgEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return MagnetState(m, irp);
    default:
        return GgEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- start, stop, sleep --------------------------------------------------------------------------------------------------- */

static NTSTATUS HwInit(PGG g)
{
    PMAGNET m = CONTAINING_RECORD(g, MAGNET, Gg);
    NTSTATUS status;

    KeInitializeTimer(&m->Poll);
    KeInitializeDpc(&m->PollDpc, MagnetPoll, m);
    KeInitializeSpinLock(&m->RingLock);
    status = GgWaitsInit(g, &m->Waits);
    if (!NT_SUCCESS(status))
        return status;
    m->Ring = ExAllocatePoolWithTag(NonPagedPool, RING * sizeof(USHORT), GG_TAG);
    return m->Ring ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID HwFree(PGG g)
{
    ExFreePoolWithTag(CONTAINING_RECORD(g, MAGNET, Gg)->Ring, GG_TAG);
}

static NTSTATUS HwStart(PGG g, PGG_RES res)
{
    PMAGNET m = CONTAINING_RECORD(g, MAGNET, Gg);

    if (res->Mems == 0 || res->MemLen[0] < WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    m->Regs = MmMapIoSpace(res->Mem[0], WINDOW, MmNonCached);
    if (m->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (MagnetGet(m, REG_ID) != CARD_ID) {
        MmUnmapIoSpace(m->Regs, WINDOW);
        m->Regs = NULL;
        return STATUS_NO_SUCH_DEVICE;
    }
    MagnetPut(m, REG_CTRL, m->On);
    if (m->On)
        MagnetStartPolling(m);
    return STATUS_SUCCESS;
}

static VOID HwStop(PGG g, BOOLEAN present)
{
    PMAGNET m = CONTAINING_RECORD(g, MAGNET, Gg);

    if (m->On)
        KeCancelTimer(&m->Poll);
    KeFlushQueuedDpcs();
    if (present)
        MagnetPut(m, REG_CTRL, 0);
    MmUnmapIoSpace(m->Regs, WINDOW);
    m->Regs = NULL;
}

static VOID HwSleep(PGG g)
{
    PMAGNET m = CONTAINING_RECORD(g, MAGNET, Gg);

    if (m->On)
        KeCancelTimer(&m->Poll);
    KeFlushQueuedDpcs();
    MagnetPut(m, REG_CTRL, 0);
}

static NTSTATUS HwWake(PGG g)
{
    PMAGNET m = CONTAINING_RECORD(g, MAGNET, Gg);

    if (MagnetGet(m, REG_ID) != CARD_ID)
        return STATUS_NO_SUCH_DEVICE;
    MagnetPut(m, REG_CTRL, m->On);
#ifdef FIXED
    if (m->On)
#endif
        MagnetStartPolling(m);
    return STATUS_SUCCESS;
}
