/*
 * sonarbuf: a sonar receiver that delivers samples without a pause. The ISR empties the card's small FIFO into a ring of 1024 samples, because the
 * FIFO overflows before a DPC would come; a read takes out what is in the ring.
 *
 * The card (BAR0, 4096 bytes): 0x00 = identification 0x534F4E42; 0x04 = control (bit 0 run, bit 1 interrupt enable); 0x08 = status (bits 0 to 4:
 * words in the FIFO, 0 to 16; bit 31: it interrupts); 0x0C = FIFO; 0x10 = samples per second; 0x14 = acknowledge (write 1). D3 resets it.
 *
 * The bug: a read guards the ring with an ordinary spin lock, which does not keep the ISR out (and the ISR does not take it). An interrupt while
 * a read takes samples out changes the count in between; one of the two changes is lost: samples are lost, or old ones are delivered again.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: data-race
 * Needs: device, schedule
 */
#include "../include/gated_queue.h"

#define REG_IDENT 0x00
#define REG_CONTROL 0x04
#define REG_STATUS 0x08
#define REG_FIFO 0x0C
#define REG_RATE 0x10
#define REG_ACK 0x14
#define REGS_SIZE 0x1000
#define IDENT 0x534F4E42
#define CONTROL_RUN 1
#define CONTROL_INTERRUPT 2
#define STATUS_WORDS 0x1F
#define STATUS_INTERRUPT 0x80000000
#define FIFO_WORDS 16
#define RATE_MAX 10000
#define RING 1024
#define PIECE 64 /* samples taken out at a time */
#define ALL_ONES 0xFFFFFFFF

#define IOCTL_SONARBUF_RATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SONARBUF_FILL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID SonarbufGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x32}};

typedef struct _FILL {
    ULONG Samples;
    ULONG Lost;
} FILL, *PFILL;

typedef struct _SONARBUF {
    AK Ak;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    ULONG Rate; /* changed while a request is served, so never during power-up */
#ifndef FIXED
    KSPIN_LOCK RingLock;
#endif
    BOOLEAN On; /* this and all below is shared with the ISR */
    ULONG First, Count, Lost;
    ULONG Sample[RING];
} SONARBUF, *PSONARBUF;

static ULONG Get(PSONARBUF b, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(b->Regs + reg));
}

static VOID Put(PSONARBUF b, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(b->Regs + reg), value);
}

static KIRQL LockRing(PSONARBUF b)
{
#ifdef FIXED
    return KeAcquireInterruptSpinLock(b->Interrupt);
#else
    KIRQL irql;

    KeAcquireSpinLock(&b->RingLock, &irql);
    return irql;
#endif
}

static VOID UnlockRing(PSONARBUF b, KIRQL irql)
{
#ifdef FIXED
    KeReleaseInterruptSpinLock(b->Interrupt, irql);
#else
    KeReleaseSpinLock(&b->RingLock, irql);
#endif
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PSONARBUF b = Context;
    ULONG status, words;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!b->On)
        return FALSE;
    status = Get(b, REG_STATUS);
    if (status == ALL_ONES || !(status & STATUS_INTERRUPT))
        return FALSE;
    words = status & STATUS_WORDS;
    if (words > FIFO_WORDS)
        words = FIFO_WORDS;
    while (words--) {
        ULONG sample = Get(b, REG_FIFO);

        if (b->Count < RING) {
            b->Sample[(b->First + b->Count) % RING] = sample;
            b->Count++;
        } else {
            b->Lost++;
        }
    }
    Put(b, REG_ACK, 1);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    PSONARBUF b = Context;

    b->On = TRUE;
    Put(b, REG_RATE, b->Rate);
    Put(b, REG_ACK, 1);
    Put(b, REG_CONTROL, CONTROL_RUN | CONTROL_INTERRUPT);
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PSONARBUF b = Context;

    b->On = FALSE;
    Put(b, REG_CONTROL, 0);
    Put(b, REG_ACK, 1);
    return TRUE;
}

static BOOLEAN SyncForget(PVOID Context)
{
    ((PSONARBUF)Context)->On = FALSE;
    return TRUE;
}

/* Takes up to room samples out of the ring. */
static ULONG TakeOut(PSONARBUF b, PULONG out, ULONG room)
{
    ULONG n, i;
    KIRQL irql;

    irql = LockRing(b);
    n = b->Count < room ? b->Count : room;
    for (i = 0; i < n; i++)
        out[i] = b->Sample[(b->First + i) % RING];
    b->First = (b->First + n) % RING;
    b->Count -= n;
    UnlockRing(b, irql);
    return n;
}

static ULONG ReadSamples(PSONARBUF b, PIRP Irp, ULONG room)
{
    PULONG out = Irp->AssociatedIrp.SystemBuffer;
    ULONG total = 0, n, want;

    if (room > RING)
        room = RING;
    do {
        want = room - total < PIECE ? room - total : PIECE;
        n = TakeOut(b, out + total, want);
        total += n;
    } while (n == PIECE && total < room);
    return total;
}

static VOID SonarbufStartIo(PAK k, PIRP Irp)
{
    PSONARBUF b = (PSONARBUF)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PFILL fill = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;
    ULONG n;

    if (s->MajorFunction == IRP_MJ_READ) {
        n = ReadSamples(b, Irp, s->Parameters.Read.Length / sizeof(ULONG));
        AkDone(k, Irp, STATUS_SUCCESS, n * sizeof(ULONG));
    } else if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_SONARBUF_RATE) {
        b->Rate = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
        Put(b, REG_RATE, b->Rate);
        AkDone(k, Irp, STATUS_SUCCESS, 0);
    } else {
        irql = LockRing(b);
        fill->Samples = b->Count;
        fill->Lost = b->Lost;
        UnlockRing(b, irql);
        AkDone(k, Irp, STATUS_SUCCESS, sizeof *fill);
    }
}

static NTSTATUS SonarbufIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    ULONG rate;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        if (s->Parameters.Read.Length < sizeof(ULONG))
            return s->Parameters.Read.Length ? STATUS_BUFFER_TOO_SMALL : STATUS_SUCCESS;
        return AkQueue(k, Irp);

    case IRP_MJ_DEVICE_CONTROL:
        switch (s->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_SONARBUF_RATE:
            if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof rate)
                return STATUS_INVALID_PARAMETER;
            rate = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
            if (rate == 0 || rate > RATE_MAX)
                return STATUS_INVALID_PARAMETER;
            return AkQueue(k, Irp);

        case IOCTL_SONARBUF_FILL:
            if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(FILL))
                return STATUS_BUFFER_TOO_SMALL;
            return AkQueue(k, Irp);

        default:
            return STATUS_INVALID_DEVICE_REQUEST;
        }

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS SonarbufStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PSONARBUF b = (PSONARBUF)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = AkMemory(Translated, 0), line = AkLine(Translated);
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Raw);
    if (!memory || !line || memory->u.Memory.Length < REGS_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    b->Regs = MmMapIoSpace(memory->u.Memory.Start, REGS_SIZE, MmNonCached);
    if (!b->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(b, REG_IDENT) != IDENT) {
        status = STATUS_NO_SUCH_DEVICE;
    } else {
        Put(b, REG_CONTROL, 0); /* it must not interrupt before the ISR knows it */
        Put(b, REG_ACK, 1);
        b->First = b->Count = 0; /* what was sampled before the stop is stale */
        status = AkConnect(line, Isr, b, &b->Interrupt);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(b->Regs, REGS_SIZE);
        b->Regs = NULL;
        return status;
    }
    KeSynchronizeExecution(b->Interrupt, SyncOn, b);
    return STATUS_SUCCESS;
}

static VOID SonarbufStop(PAK k, BOOLEAN Touch)
{
    PSONARBUF b = (PSONARBUF)k;

    KeSynchronizeExecution(b->Interrupt, Touch ? SyncOff : SyncForget, b);
    IoDisconnectInterrupt(b->Interrupt);
    b->Interrupt = NULL;
    MmUnmapIoSpace(b->Regs, REGS_SIZE);
    b->Regs = NULL;
}

static VOID SonarbufPowerDown(PAK k)
{
    KeSynchronizeExecution(((PSONARBUF)k)->Interrupt, SyncOff, k);
}

static VOID SonarbufPowerUp(PAK k)
{
    KeSynchronizeExecution(((PSONARBUF)k)->Interrupt, SyncOn, k);
}

static NTSTATUS SonarbufInit(PAK k)
{
    PSONARBUF b = (PSONARBUF)k;

    b->Rate = 100;
#ifndef FIXED
    KeInitializeSpinLock(&b->RingLock);
#endif
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &SonarbufGuid,
    .ExtSize = sizeof(SONARBUF),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = SonarbufInit,
    .Start = SonarbufStart,
    .Stop = SonarbufStop,
    .PowerDown = SonarbufPowerDown,
    .PowerUp = SonarbufPowerUp,
    .Io = SonarbufIo,
    .StartIo = SonarbufStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
