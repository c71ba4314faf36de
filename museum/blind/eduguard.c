/*
 * eduguard: lets programs compute factorials on the edu card, one at a time. A card that is still busy after one second is taken out of service
 * until it is started or powered up again, so that no one waits for it in vain.
 *
 * The bug: when the card's interrupt ends a computation, the time limit is cancelled but no one looks whether the cancel came too late. A limit
 * DPC that is already queued then finds the next computation, takes it for the old one, fails it and condemns a healthy card.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-refused
 * Needs: device, schedule
 */
#include "../include/gated_queue.h"

#define REG_IDENT 0x00
#define REG_FACTORIAL 0x08
#define REG_STATUS 0x20
#define REG_INT_STATUS 0x24
#define REG_INT_ACK 0x64
#define STATUS_COMPUTING 0x01
#define STATUS_RAISE 0x80
#define REGS_SIZE 0x1000
#define NUMBER_MAX 12 /* more does not fit the card's 32 bits */
#define ALL_ONES 0xFFFFFFFF
#define LIMIT_100NS (10 * 1000 * 1000)

#define IOCTL_EDUGUARD_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_EDUGUARD_HEALTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID EduguardGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x12}};

typedef struct _HEALTH {
    ULONG InService;
    ULONG Computed;
    ULONG Late;
} HEALTH, *PHEALTH;

typedef struct _EDUGUARD {
    AK Ak;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN On; /* guarded by the interrupt's lock: the ISR may touch the card */
    KDPC Dpc;
    KTIMER Limit;
    KDPC LimitDpc;
    KSPIN_LOCK Lock; /* guards all below */
    PIRP Current;
    BOOLEAN Over; /* Value is there, the limit's DPC is on its way and completes the request */
    BOOLEAN Condemned;
    ULONG Value;
    ULONG Computed;
    ULONG Late;
} EDUGUARD, *PEDUGUARD;

static ULONG Get(PEDUGUARD g, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(g->Regs + reg));
}

static VOID Put(PEDUGUARD g, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(g->Regs + reg), value);
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDUGUARD g = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!g->On)
        return FALSE;
    bits = Get(g, REG_INT_STATUS);
    if (bits == 0 || bits == ALL_ONES)
        return FALSE;
    Put(g, REG_INT_ACK, bits);
    KeInsertQueueDpc(&g->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN SyncOn(PVOID Context)
{
    PEDUGUARD g = Context;

    Put(g, REG_INT_ACK, Get(g, REG_INT_STATUS));
    Put(g, REG_STATUS, STATUS_RAISE);
    g->On = TRUE;
    return TRUE;
}

static BOOLEAN SyncOff(PVOID Context)
{
    PEDUGUARD g = Context;

    g->On = FALSE;
    Put(g, REG_STATUS, 0);
    Put(g, REG_INT_ACK, Get(g, REG_INT_STATUS));
    return TRUE;
}

static BOOLEAN SyncForget(PVOID Context)
{
    ((PEDUGUARD)Context)->On = FALSE;
    return TRUE;
}

/* What the card says about the computation; the lock is held. */
static NTSTATUS Fetch(PEDUGUARD g)
{
    ULONG state = Get(g, REG_STATUS);

    if (state == ALL_ONES)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (state & STATUS_COMPUTING)
        return STATUS_IO_TIMEOUT;
    g->Value = Get(g, REG_FACTORIAL);
    if (g->Value == ALL_ONES)
        return STATUS_DEVICE_NOT_CONNECTED;
    return STATUS_SUCCESS;
}

static VOID Finish(PEDUGUARD g, PIRP irp, NTSTATUS status, ULONG value)
{
    if (NT_SUCCESS(status))
        *(PULONG)irp->AssociatedIrp.SystemBuffer = value;
    AkDone(&g->Ak, irp, status, NT_SUCCESS(status) ? sizeof value : 0);
}

/* The card has raised its interrupt. */
static VOID ComputedDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PEDUGUARD g = Context;
    PIRP irp = NULL;
    ULONG value = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&g->Lock);
    if (g->Current && !g->Over && NT_SUCCESS(Fetch(g))) {
#ifdef FIXED
        if (KeCancelTimer(&g->Limit)) {
            irp = g->Current;
            g->Current = NULL;
        } else {
            g->Over = TRUE;
        }
#else
        KeCancelTimer(&g->Limit);
        irp = g->Current;
        g->Current = NULL;
#endif
        value = g->Value;
        g->Computed++;
    }
    KeReleaseSpinLockFromDpcLevel(&g->Lock);
    if (irp)
        Finish(g, irp, STATUS_SUCCESS, value);
}

/* The second is over. */
static VOID LimitDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PEDUGUARD g = Context;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG value;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&g->Lock);
    irp = g->Current;
    g->Current = NULL;
    if (irp && !g->Over) {
        status = Fetch(g); /* its interrupt may have been lost */
        if (NT_SUCCESS(status)) {
            g->Computed++;
        } else {
            g->Late++;
            g->Condemned = TRUE;
        }
    }
    value = g->Value;
    KeReleaseSpinLockFromDpcLevel(&g->Lock);
    if (irp)
        Finish(g, irp, status, value);
}

static VOID EduguardStartIo(PAK k, PIRP Irp)
{
    PEDUGUARD g = (PEDUGUARD)k;
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER limit;
    ULONG state;
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    state = Get(g, REG_STATUS);
    if (state == ALL_ONES) {
        status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (g->Condemned) {
        status = STATUS_IO_DEVICE_ERROR;
    } else if (state & STATUS_COMPUTING) {
        status = STATUS_DEVICE_BUSY;
    } else {
        g->Current = Irp;
        g->Over = FALSE;
        limit.QuadPart = -(LONGLONG)LIMIT_100NS;
        KeSetTimer(&g->Limit, limit, &g->LimitDpc);
        Put(g, REG_FACTORIAL, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    }
    KeReleaseSpinLock(&g->Lock, irql);
    if (!NT_SUCCESS(status))
        AkDone(k, Irp, status, 0);
}

static NTSTATUS EduguardIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PEDUGUARD g = (PEDUGUARD)k;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PHEALTH health = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDUGUARD_FACTORIAL:
        if (in != sizeof(ULONG) || out < sizeof(ULONG) || *(PULONG)Irp->AssociatedIrp.SystemBuffer > NUMBER_MAX)
            return STATUS_INVALID_PARAMETER;
        return AkQueue(k, Irp);

    case IOCTL_EDUGUARD_HEALTH:
        if (out < sizeof *health)
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&g->Lock, &irql);
        health->InService = !g->Condemned;
        health->Computed = g->Computed;
        health->Late = g->Late;
        KeReleaseSpinLock(&g->Lock, irql);
        Irp->IoStatus.Information = sizeof *health;
        return STATUS_SUCCESS;

    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static VOID Acquit(PEDUGUARD g)
{
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    g->Condemned = FALSE;
    KeReleaseSpinLock(&g->Lock, irql);
}

static NTSTATUS EduguardStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PEDUGUARD g = (PEDUGUARD)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = AkMemory(Translated, 0), line = AkLine(Translated);
    NTSTATUS status;
    ULONG ident;

    UNREFERENCED_PARAMETER(Raw);
    if (!memory || !line || memory->u.Memory.Length < REGS_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    g->Regs = MmMapIoSpace(memory->u.Memory.Start, REGS_SIZE, MmNonCached);
    if (!g->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    ident = Get(g, REG_IDENT);
    if ((ident & 0xFF) != 0xED || ident == ALL_ONES) {
        status = STATUS_NO_SUCH_DEVICE;
    } else {
        Put(g, REG_STATUS, 0); /* it must not interrupt before the ISR knows it */
        Put(g, REG_INT_ACK, Get(g, REG_INT_STATUS));
        status = AkConnect(line, Isr, g, &g->Interrupt);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(g->Regs, REGS_SIZE);
        g->Regs = NULL;
        return status;
    }
    Acquit(g);
    KeSynchronizeExecution(g->Interrupt, SyncOn, g);
    return STATUS_SUCCESS;
}

static VOID EduguardStop(PAK k, BOOLEAN Touch)
{
    PEDUGUARD g = (PEDUGUARD)k;

    KeSynchronizeExecution(g->Interrupt, Touch ? SyncOff : SyncForget, g);
    IoDisconnectInterrupt(g->Interrupt);
    g->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(g->Regs, REGS_SIZE);
    g->Regs = NULL;
}

static VOID EduguardPowerDown(PAK k)
{
    KeSynchronizeExecution(((PEDUGUARD)k)->Interrupt, SyncOff, k);
}

static VOID EduguardPowerUp(PAK k)
{
    Acquit((PEDUGUARD)k);
    KeSynchronizeExecution(((PEDUGUARD)k)->Interrupt, SyncOn, k);
}

static NTSTATUS EduguardInit(PAK k)
{
    PEDUGUARD g = (PEDUGUARD)k;

    KeInitializeSpinLock(&g->Lock);
    KeInitializeDpc(&g->Dpc, ComputedDpc, g);
    KeInitializeTimer(&g->Limit);
    KeInitializeDpc(&g->LimitDpc, LimitDpc, g);
    return STATUS_SUCCESS;
}

static const AK_OPS AkOps = {
    .Interface = &EduguardGuid,
    .ExtSize = sizeof(EDUGUARD),
    .DeviceFlags = DO_BUFFERED_IO,
    .Init = EduguardInit,
    .Start = EduguardStart,
    .Stop = EduguardStop,
    .PowerDown = EduguardPowerDown,
    .PowerUp = EduguardPowerUp,
    .Io = EduguardIo,
    .StartIo = EduguardStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
