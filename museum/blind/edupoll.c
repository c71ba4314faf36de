/*
 * edupoll: watches the health of QEMU's edu device: a periodic timer writes a pattern to the
 * liveness register and checks that its inversion comes back; factorials are computed
 * by polling. The period is the value PollMs of the device's hardware key (10..10000).
 * Registers used (BAR0): 0x00 identification, 0x04 liveness, 0x08 factorial, 0x20 status (1: computing).
 *
 * The bug: the timer is not stopped when the device is stopped to be given other resources.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-write, wild-read, device-memory-not-mapped
 * Needs: power
 */
#include "../include/pausing_frame.h"

#define REG_ID     0x00
#define REG_LIVE   0x04
#define REG_FACT   0x08
#define REG_STATUS 0x20

#define IOCTL_EP_HEALTH    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_EP_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID PollInterface = { 0x2f6e90a8, 0x5e0c, 0x47d5, { 0x8d, 0x41, 0x6c, 0x33, 0x0a, 0x1b, 0x72, 0x03 } };

typedef struct { ULONG Id, Polls, Bad, Absent, PeriodMs; } EP_HEALTH;

typedef struct {
    FRAME Frame;
    PUCHAR Regs;
    KTIMER Timer;
    KDPC Dpc;
    KEVENT FactMutex;       /* synchronization event: one factorial at a time */
    KSPIN_LOCK Lock;        /* guards what follows */
    ULONG Pattern;
    EP_HEALTH Health;
} POLL, *PPOLL;

static inline ULONG Rd(PPOLL P, ULONG R) { return READ_REGISTER_ULONG((PULONG)(P->Regs + R)); }
static inline VOID Wr(PPOLL P, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(P->Regs + R), V); }

static VOID Tick(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PPOLL p = Ctx;
    ULONG back;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeAcquireSpinLockAtDpcLevel(&p->Lock);
    p->Pattern = p->Pattern * 1664525u + 1013904223u;
    if (p->Pattern == 0)            /* its inversion would look like no device */
        p->Pattern = 1;
    Wr(p, REG_LIVE, p->Pattern);
    back = Rd(p, REG_LIVE);
    p->Health.Polls++;
    if (back == 0xFFFFFFFF)
        p->Health.Absent++;
    else if (back != ~p->Pattern)
        p->Health.Bad++;
    KeReleaseSpinLockFromDpcLevel(&p->Lock);
}

static VOID StartPolling(PPOLL P)
{
    LARGE_INTEGER due;
    due.QuadPart = -10000LL * P->Health.PeriodMs;
    KeSetTimerEx(&P->Timer, due, (LONG)P->Health.PeriodMs, &P->Dpc);
}

static VOID StopPolling(PPOLL P)
{
    KeCancelTimer(&P->Timer);
    KeFlushQueuedDpcs();
}

static ULONG ConfiguredPeriod(PDEVICE_OBJECT Pdo)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"PollMs");
    union {
        KEY_VALUE_PARTIAL_INFORMATION info;
        UCHAR space[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } u;
    HANDLE key;
    ULONG n, ms = 100;
    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key)))
        return ms;
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &u, sizeof u, &n)) &&
        u.info.Type == REG_DWORD && u.info.DataLength == sizeof(ULONG))
        RtlCopyMemory(&ms, u.info.Data, sizeof ms);
    ZwClose(key);
    return ms < 10 ? 10 : ms > 10000 ? 10000 : ms;
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PPOLL p = Dev->DeviceExtension;
#ifdef FIXED
    StopPolling(p);
#endif
    if (p->Regs)
        MmUnmapIoSpace(p->Regs, 0x100);
    p->Regs = NULL;
}

static VOID Flush(PDEVICE_OBJECT Dev)       /* the device is going; comes before Stop then */
{
    StopPolling(Dev->DeviceExtension);
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PPOLL p = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = FrResource(Translated, CmResourceTypeMemory, 0);
    KIRQL irql;
    ULONG id, ms;
    UNREFERENCED_PARAMETER(Raw);
    if (!mem || mem->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->Regs = MmMapIoSpace(mem->u.Memory.Start, 0x100, MmNonCached);
    if (!p->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    id = Rd(p, REG_ID);
    if ((id & 0xFF) != 0xED) {
        Stop(Dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    ms = ConfiguredPeriod(p->Frame.Pdo);
    KeAcquireSpinLock(&p->Lock, &irql);
    p->Health.Id = id;
    p->Health.PeriodMs = ms;
    KeReleaseSpinLock(&p->Lock, irql);
    Wr(p, REG_STATUS, 0);
    StartPolling(p);
    return STATUS_SUCCESS;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    StopPolling(Dev->DeviceExtension);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PPOLL p = Dev->DeviceExtension;
    Wr(p, REG_STATUS, 0);
    StartPolling(p);
}

/* with the gate held */
static NTSTATUS Factorial(PPOLL P, ULONG N, ULONG *Result)
{
    LARGE_INTEGER wait;
    NTSTATUS status = STATUS_IO_TIMEOUT;
    ULONG i, s;
    wait.QuadPart = -10000LL;
    KeWaitForSingleObject(&P->FactMutex, Executive, KernelMode, FALSE, NULL);
    if (Rd(P, REG_STATUS) & 1) { /* still at one that was given up */
        KeSetEvent(&P->FactMutex, IO_NO_INCREMENT, FALSE);
        return STATUS_DEVICE_BUSY;
    }
    Wr(P, REG_FACT, N);
    for (i = 0; i < 200; i++) {
        s = Rd(P, REG_STATUS);
        if (s == 0xFFFFFFFF) {
            status = STATUS_DEVICE_NOT_CONNECTED;
            break;
        }
        if (!(s & 1)) {
            *Result = Rd(P, REG_FACT);
            status = STATUS_SUCCESS;
            break;
        }
        KeDelayExecutionThread(KernelMode, FALSE, &wait);
    }
    KeSetEvent(&P->FactMutex, IO_NO_INCREMENT, FALSE);
    return status;
}

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PPOLL p = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG result = 0;
    NTSTATUS status;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EP_HEALTH:
        if (out < sizeof(EP_HEALTH))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&p->Lock, &irql);
        *(EP_HEALTH *)buf = p->Health;
        KeReleaseSpinLock(&p->Lock, irql);
        Irp->IoStatus.Information = sizeof(EP_HEALTH);
        return STATUS_SUCCESS;
    case IOCTL_EP_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(ULONG *)buf > 12)
            return STATUS_INTEGER_OVERFLOW;
        status = FrEnter(&p->Frame);
        if (!NT_SUCCESS(status))
            return status;
        KeEnterCriticalRegion();
        status = Factorial(p, *(ULONG *)buf, &result);
        KeLeaveCriticalRegion();
        FrLeave(&p->Frame);
        if (NT_SUCCESS(status)) {
            *(ULONG *)buf = result;
            Irp->IoStatus.Information = sizeof(ULONG);
        }
        return status;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS Ops = {
    .Start = Start, .Stop = Stop, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = PowerUp, .Io = Io
};

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PPOLL p;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(POLL), &Ops, &PollInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    p = dev->DeviceExtension;
    KeInitializeSpinLock(&p->Lock);
    KeInitializeTimer(&p->Timer);
    KeInitializeDpc(&p->Dpc, Tick, p);
    KeInitializeEvent(&p->FactMutex, SynchronizationEvent, TRUE);
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, Add);
    return STATUS_SUCCESS;
}
