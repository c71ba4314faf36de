/*
 * edunight: computes tables of factorials on the edu card: a request brings up to 16 numbers, the card is given one after the other, its
 * interrupt brings the next. The whole table has two seconds.
 *
 * The bug: the card is informed only once, at the start of the device, to raise an interrupt when a number is done. The bit is lost when the card is
 * in D3; after the computer has slept no interrupt comes any more, and every request runs into its time limit.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out, request-forgotten
 * Needs: power
 */
#include "../include/gated_queue.h"

#define REG_IDENT 0x00
#define REG_LIVENESS 0x04
#define REG_FACTORIAL 0x08
#define REG_STATUS 0x20
#define REG_INT_STATUS 0x24
#define REG_INT_ACK 0x64
#define STATUS_COMPUTING 0x01
#define STATUS_RAISE 0x80
#define REGS_SIZE 0x1000
#define NUMBER_MAX 12
#define TABLE_MAX 16
#define ALL_ONES 0xFFFFFFFF
#define LIMIT_100NS (2 * 10 * 1000 * 1000)

#define IOCTL_EDUNIGHT_TABLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_EDUNIGHT_ALIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID EdunightGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x13}};

typedef struct _EDUNIGHT {
    AK Ak;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN On; /* guarded by the interrupt's lock: the ISR may touch the card */
    KDPC Dpc;
    KTIMER Limit;
    KDPC LimitDpc;
    KSPIN_LOCK Lock; /* guards all below */
    PIRP Current;
    BOOLEAN Over; /* the table is done, the limit's DPC is on its way and completes the request */
    ULONG Count;
    ULONG Index; /* of the number the card is at */
} EDUNIGHT, *PEDUNIGHT;

static ULONG Get(PEDUNIGHT n, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(n->Regs + reg));
}

static VOID Put(PEDUNIGHT n, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(n->Regs + reg), value);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDUNIGHT n = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!n->On)
        return FALSE;
    bits = Get(n, REG_INT_STATUS);
    if (bits == 0 || bits == ALL_ONES)
        return FALSE;
    Put(n, REG_INT_ACK, bits);
    KeInsertQueueDpc(&n->Dpc, NULL, NULL);
    return TRUE;
}

/* The card's settings for work. */
static BOOLEAN SyncSettings(PVOID Context)
{
    PEDUNIGHT n = Context;

    Put(n, REG_INT_ACK, Get(n, REG_INT_STATUS));
    Put(n, REG_STATUS, STATUS_RAISE);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    ((PEDUNIGHT)Context)->On = TRUE;
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PEDUNIGHT n = Context;

    n->On = FALSE;
    Put(n, REG_STATUS, 0);
    Put(n, REG_INT_ACK, Get(n, REG_INT_STATUS));
    return TRUE;
}

static BOOLEAN SyncForget(PVOID Context)
{
    ((PEDUNIGHT)Context)->On = FALSE;
    return TRUE;
}

/* The card has raised its interrupt: take the number that is done, give it the next. */
static VOID NumberDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PEDUNIGHT n = Context;
    PIRP irp = NULL;
    ULONG count = 0, state, value;
    PULONG table;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&n->Lock);
    if (n->Current && !n->Over) {
        state = Get(n, REG_STATUS);
        value = Get(n, REG_FACTORIAL);
        /* all ones: it is gone, the limit will find out */
        if (state != ALL_ONES && value != ALL_ONES && !(state & STATUS_COMPUTING)) {
            table = n->Current->AssociatedIrp.SystemBuffer;
            count = n->Count;
            table[n->Index++] = value;
            if (n->Index < count) {
                Put(n, REG_FACTORIAL, table[n->Index]);
            } else {
                n->Over = TRUE;
                if (KeCancelTimer(&n->Limit)) {
                    irp = n->Current;
                    n->Current = NULL;
                }
            }
        }
    }
    KeReleaseSpinLockFromDpcLevel(&n->Lock);
    if (irp)
        AkDone(&n->Ak, irp, STATUS_SUCCESS, count * sizeof *table);
}

static VOID LimitDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PEDUNIGHT n = Context;
    ULONG count;
    BOOLEAN over;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&n->Lock);
    irp = n->Current;
    n->Current = NULL;
    over = n->Over;
    count = n->Count;
    KeReleaseSpinLockFromDpcLevel(&n->Lock);
    if (irp)
        AkDone(&n->Ak, irp, over ? STATUS_SUCCESS : STATUS_IO_TIMEOUT, over ? count * sizeof(ULONG) : 0);
}

static VOID StartTable(PEDUNIGHT n, PIRP Irp, ULONG count)
{
    PULONG table = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER limit;
    ULONG state;
    KIRQL irql;

    KeAcquireSpinLock(&n->Lock, &irql);
    state = Get(n, REG_STATUS);
    if (state == ALL_ONES) {
        status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (state & STATUS_COMPUTING) {
        status = STATUS_DEVICE_BUSY;
    } else {
        n->Current = Irp;
        n->Over = FALSE;
        n->Count = count;
        n->Index = 0;
        limit.QuadPart = -(LONGLONG)LIMIT_100NS;
        KeSetTimer(&n->Limit, limit, &n->LimitDpc);
        Put(n, REG_FACTORIAL, table[0]);
    }
    KeReleaseSpinLock(&n->Lock, irql);
    if (!NT_SUCCESS(status))
        AkDone(&n->Ak, Irp, status, 0);
}

static VOID EdunightStartIo(PAK k, PIRP Irp)
{
    PEDUNIGHT n = (PEDUNIGHT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_EDUNIGHT_TABLE) {
        StartTable(n, Irp, s->Parameters.DeviceIoControl.InputBufferLength / sizeof(ULONG));
    } else {
        Put(n, REG_LIVENESS, 0x12345678);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Get(n, REG_LIVENESS) == ~0x12345678u;
        AkDone(k, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS EdunightIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG table = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDUNIGHT_TABLE:
        if (in == 0 || in % sizeof(ULONG) || in > TABLE_MAX * sizeof(ULONG) || out < in)
            return STATUS_INVALID_PARAMETER;
        for (i = 0; i < in / sizeof(ULONG); i++)
            if (table[i] > NUMBER_MAX)
                return STATUS_INVALID_PARAMETER;
        return AkQueue(k, Irp);

    case IOCTL_EDUNIGHT_ALIVE:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return AkQueue(k, Irp);

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS EdunightStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PEDUNIGHT n = (PEDUNIGHT)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = AkMemory(Translated, 0), line = AkLine(Translated);
    NTSTATUS status;
    ULONG ident;

    UNREFERENCED_PARAMETER(Raw);
    if (!memory || !line || memory->u.Memory.Length < REGS_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    n->Regs = MmMapIoSpace(memory->u.Memory.Start, REGS_SIZE, MmNonCached);
    if (!n->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    ident = Get(n, REG_IDENT);
    if ((ident & 0xFF) != 0xED || ident == ALL_ONES) {
        status = STATUS_NO_SUCH_DEVICE;
    } else {
        Put(n, REG_STATUS, 0); /* it must not interrupt before the ISR knows it */
        Put(n, REG_INT_ACK, Get(n, REG_INT_STATUS));
        status = AkConnect(line, Isr, n, &n->Interrupt);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(n->Regs, REGS_SIZE);
        n->Regs = NULL;
        return status;
    }
    KeSynchronizeExecution(n->Interrupt, SyncOn, n);
    KeSynchronizeExecution(n->Interrupt, SyncSettings, n);
    return STATUS_SUCCESS;
}

static VOID EdunightStop(PAK k, BOOLEAN Touch)
{
    PEDUNIGHT n = (PEDUNIGHT)k;

    KeSynchronizeExecution(n->Interrupt, Touch ? SyncOff : SyncForget, n);
    IoDisconnectInterrupt(n->Interrupt);
    n->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(n->Regs, REGS_SIZE);
    n->Regs = NULL;
}

static VOID EdunightPowerDown(PAK k)
{
    KeSynchronizeExecution(((PEDUNIGHT)k)->Interrupt, SyncOff, k);
}

static VOID EdunightPowerUp(PAK k)
{
    PEDUNIGHT n = (PEDUNIGHT)k;

    KeSynchronizeExecution(n->Interrupt, SyncOn, n);
#ifdef FIXED
    KeSynchronizeExecution(n->Interrupt, SyncSettings, n);
#endif
}

static NTSTATUS EdunightInit(PAK k)
{
    PEDUNIGHT n = (PEDUNIGHT)k;

    KeInitializeSpinLock(&n->Lock);
    KeInitializeDpc(&n->Dpc, NumberDpc, n);
    KeInitializeTimer(&n->Limit);
    KeInitializeDpc(&n->LimitDpc, LimitDpc, n);
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &EdunightGuid,
    .ExtSize = sizeof(EDUNIGHT),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = EdunightInit,
    .Start = EdunightStart,
    .Stop = EdunightStop,
    .PowerDown = EdunightPowerDown,
    .PowerUp = EdunightPowerUp,
    .Io = EdunightIo,
    .StartIo = EdunightStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
