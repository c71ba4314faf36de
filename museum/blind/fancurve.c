/*
 * fancurve: a virtual fan controller: a monitoring service sets the temperature curve and reports
 * temperatures; every half second a work item computes the duty from the curve and its history.
 *
 * The bug: nothing waits for a queued work item at removal, which frees it while it is queued or running.
 *
 * Device: ROOT\FANCURVE
 * Rule: work-item-queued
 * Needs: removal
 */
#include "../include/plain_pnp.h"

DEFINE_GUID(GUID_FANCURVE, 0x8d0c2e01, 0x15b2, 0x4a7f, 0xa1, 0x44, 0x60, 0x0d, 0x93, 0x2b, 0x17, 0x01);

#define POINTS 8
typedef struct { ULONG Count; struct { LONG Temp; ULONG Duty; } Point[POINTS]; } CURVE;
typedef struct { LONG Temp; ULONG Duty, Rounds; } FAN_STATE;
#define IOCTL_FAN_CURVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FAN_TEMP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FAN_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x883, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    SOFT Soft;
    KTIMER Timer;
    KDPC Dpc;
    PIO_WORKITEM Work;
    LONG Queued;
    FAST_MUTEX Mutex;          /* the fields below */
    CURVE Curve;
    FAN_STATE State;
    LONG History[8];
    ULONG Next;
} FAN, *PFAN;

static VOID NTAPI FanWork(PDEVICE_OBJECT D, PVOID Ctx)
{
    PFAN F = Ctx;
    LONG sum = 0;
    ULONG i, duty;
    UNREFERENCED_PARAMETER(D);

    ExAcquireFastMutex(&F->Mutex);
    F->History[F->Next++ % 8] = F->State.Temp;
    for (i = 0; i < 8; i++)
        sum += F->History[i];
    sum /= 8;
    duty = 100;
    for (i = F->Curve.Count; i > 0; i--) {
        if (sum >= F->Curve.Point[i - 1].Temp) {
            duty = F->Curve.Point[i - 1].Duty;
            break;
        }
        duty = F->Curve.Point[0].Duty;
    }
    F->State.Duty = duty;
    F->State.Rounds++;
    ExReleaseFastMutex(&F->Mutex);
    InterlockedExchange(&F->Queued, 0);
#ifdef FIXED
    IoReleaseRemoveLock(&F->Soft.RemoveLock, F->Work);
#endif
}

static VOID NTAPI FanTick(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PFAN F = Ctx;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    if (InterlockedCompareExchange(&F->Queued, 1, 0) != 0)
        return;
#ifdef FIXED
    if (!NT_SUCCESS(IoAcquireRemoveLock(&F->Soft.RemoveLock, F->Work))) {
        InterlockedExchange(&F->Queued, 0);
        return;
    }
#endif
    IoQueueWorkItem(F->Work, FanWork, DelayedWorkQueue, F);
}

static NTSTATUS SoftStart(PSOFT S)
{
    PFAN F = (PFAN)S;
    LARGE_INTEGER due;
    F->Work = IoAllocateWorkItem(S->Self);
    if (!F->Work)
        return STATUS_INSUFFICIENT_RESOURCES;
    due.QuadPart = -5000000;
    KeSetTimerEx(&F->Timer, due, 500, &F->Dpc);
    return STATUS_SUCCESS;
}
static VOID SoftStop(PSOFT S)
{
    PFAN F = (PFAN)S;
    KeCancelTimer(&F->Timer);
    KeFlushQueuedDpcs();
}
static VOID SoftFinal(PSOFT S)
{
    PFAN F = (PFAN)S;
    if (F->Work)
        IoFreeWorkItem(F->Work);
}

static NTSTATUS NTAPI FanOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE && !SoftOpenable(D->DeviceExtension))
        return SoftDone(Irp, STATUS_DELETE_PENDING, 0);
    return SoftDone(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI FanControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PFAN F = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    ULONG i;
    NTSTATUS st = IoAcquireRemoveLock(&F->Soft.RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);

    if (F->Soft.Stopped) {
        st = STATUS_DEVICE_NOT_CONNECTED;
    } else switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FAN_CURVE: {
        CURVE *c = buf;
        if (in != sizeof(CURVE)) {
            st = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        if (c->Count == 0 || c->Count > POINTS)
            st = STATUS_INVALID_PARAMETER;
        for (i = 0; NT_SUCCESS(st) && i < c->Count; i++)
            if (c->Point[i].Duty > 100 || (i && c->Point[i].Temp <= c->Point[i - 1].Temp))
                st = STATUS_INVALID_PARAMETER;
        if (NT_SUCCESS(st)) {
            ExAcquireFastMutex(&F->Mutex);
            F->Curve = *c;
            ExReleaseFastMutex(&F->Mutex);
        }
        break;
    }
    case IOCTL_FAN_TEMP: {
        LONG *t = buf;
        if (in != sizeof(LONG))
            st = STATUS_INFO_LENGTH_MISMATCH;
        else if (*t < -100 || *t > 300)
            st = STATUS_INVALID_PARAMETER;
        else {
            ExAcquireFastMutex(&F->Mutex);
            F->State.Temp = *t;
            ExReleaseFastMutex(&F->Mutex);
        }
        break;
    }
    case IOCTL_FAN_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(FAN_STATE)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&F->Mutex);
        *(FAN_STATE *)buf = F->State;
        ExReleaseFastMutex(&F->Mutex);
        info = sizeof(FAN_STATE);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    SoftDone(Irp, st, info);
    IoReleaseRemoveLock(&F->Soft.RemoveLock, Irp);
    return st;
}

static NTSTATUS NTAPI FanAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PSOFT S;
    PFAN F;
    NTSTATUS st = SoftCreate(Drv, Pdo, sizeof(FAN), &GUID_FANCURVE, &S);
    if (!NT_SUCCESS(st))
        return st;
    F = (PFAN)S;
    KeInitializeTimerEx(&F->Timer, NotificationTimer);
    KeInitializeDpc(&F->Dpc, FanTick, F);
    ExInitializeFastMutex(&F->Mutex);
    return SoftAttach(S, DO_BUFFERED_IO);
}
static VOID NTAPI FanUnload(PDRIVER_OBJECT Drv)
{
    UNREFERENCED_PARAMETER(Drv);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = FanAdd;
    Drv->DriverUnload = FanUnload;
    Drv->MajorFunction[IRP_MJ_PNP] = SoftPnp;
    Drv->MajorFunction[IRP_MJ_POWER] = SoftPower;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SoftPass;
    Drv->MajorFunction[IRP_MJ_CREATE] = FanOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = FanOpenClose;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = FanOpenClose;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FanControl;
    return STATUS_SUCCESS;
}
