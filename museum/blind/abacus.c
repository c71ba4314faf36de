/*
 * abacus: a root-enumerated driver that converts raw readings of a measuring rack into units, by a curve of points that
 * an application loads. Between two points it interpolates. There is one curve per device, shared by all handles.
 *
 * The bug: the number of points that the application gives is not limited, and the sizes computed from it wrap at
 * 32 bits: a small input passes the check, a small block is allocated, and all points are converted into it.
 *
 * Device: ROOT\ABACUS
 * Rule: pool-overrun, wild-read, wild-write, pool-zero-bytes
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define TAG 'cabA'

#define IOCTL_ABACUS_LOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_ABACUS_CONVERT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ABACUS_POINTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a2, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ABACUS_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a3, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define MOST_POINTS 4096
#define LARGEST_COORDINATE (1 << 30)

static const GUID AbacusInterface = {0x0d5a2b17, 0x4be1, 0x47c4, {0x86, 0x3e, 0x77, 0x1a, 0xc9, 0x04, 0x5d, 0x02}};

typedef struct ABACUS_POINT {           /* as the application gives it */
    LONG Raw;
    LONG Unit;
} ABACUS_POINT;

typedef struct ABACUS_CURVE {
    ULONG Count;
    ULONG Flags;
    ABACUS_POINT Points[1];
} ABACUS_CURVE;

typedef struct POINT {                  /* as it is kept */
    LONG64 Raw;
    LONG64 Unit;
} POINT;

typedef struct ABACUS {
    FRAME F;
    KSPIN_LOCK Lock;                    /* guards the curve */
    POINT *Curve;
    ULONG Count;
} ABACUS;

static void Replace(ABACUS *a, POINT *Curve, ULONG Count)
{
    POINT *old;
    KIRQL irql;

    KeAcquireSpinLock(&a->Lock, &irql);
    old = a->Curve;
    a->Curve = Curve;
    a->Count = Count;
    KeReleaseSpinLock(&a->Lock, irql);
    if (old)
        ExFreePoolWithTag(old, TAG);
}

static BOOLEAN InRange(LONG Value)
{
    return Value >= -LARGEST_COORDINATE && Value <= LARGEST_COORDINATE;
}

static NTSTATUS Load(ABACUS *a, ABACUS_CURVE *Given, ULONG Bytes)
{
    ULONG count, size, i;
    POINT *curve;

    if (Bytes < (ULONG)FIELD_OFFSET(ABACUS_CURVE, Points))
        return STATUS_BUFFER_TOO_SMALL;
    count = Given->Count;
    if (count < 2 || Given->Flags != 0)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (count > MOST_POINTS)
        return STATUS_INVALID_PARAMETER;
#endif
    size = count * sizeof(ABACUS_POINT);
    if (Bytes - FIELD_OFFSET(ABACUS_CURVE, Points) < size)
        return STATUS_BUFFER_TOO_SMALL;

    size = count * sizeof(POINT);
    curve = ExAllocatePoolWithTag(NonPagedPoolNx, size, TAG);
    if (!curve)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < count; i++) {
        curve[i].Raw = Given->Points[i].Raw;
        curve[i].Unit = Given->Points[i].Unit;
    }
    for (i = 0; i < count; i++) {
        if (!InRange(Given->Points[i].Raw) || !InRange(Given->Points[i].Unit) ||
            (i > 0 && curve[i].Raw <= curve[i - 1].Raw)) {
            ExFreePoolWithTag(curve, TAG);
            return STATUS_INVALID_PARAMETER;
        }
    }
    Replace(a, curve, count);
    return STATUS_SUCCESS;
}

static NTSTATUS Convert(ABACUS *a, LONG Raw, PLONG Unit)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG low, high, middle;
    POINT *p;
    KIRQL irql;

    KeAcquireSpinLock(&a->Lock, &irql);
    p = a->Curve;
    if (!p) {
        status = STATUS_NO_DATA_DETECTED;
    } else if (Raw < p[0].Raw || Raw > p[a->Count - 1].Raw) {
        status = STATUS_RANGE_NOT_FOUND;
    } else {
        low = 0;
        high = a->Count - 1;
        while (high - low > 1) {
            middle = (low + high) / 2;
            if (p[middle].Raw <= Raw)
                low = middle;
            else
                high = middle;
        }
        *Unit = (LONG)(p[low].Unit +
            (Raw - p[low].Raw) * (p[high].Unit - p[low].Unit) / (p[high].Raw - p[low].Raw));
    }
    KeReleaseSpinLock(&a->Lock, irql);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ABACUS *a = Device->DeviceExtension;
    NTSTATUS status;
    ULONG done = 0;
    KIRQL irql;
    LONG unit;

    status = IoAcquireRemoveLock(&a->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ABACUS_LOAD:
        status = Load(a, buffer, in);
        break;

    case IOCTL_ABACUS_CONVERT:
        if (in < sizeof(LONG) || out < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = Convert(a, *(PLONG)buffer, &unit);
        if (NT_SUCCESS(status)) {
            *(PLONG)buffer = unit;
            done = sizeof(LONG);
        }
        break;

    case IOCTL_ABACUS_POINTS:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&a->Lock, &irql);
        *(PULONG)buffer = a->Count;
        KeReleaseSpinLock(&a->Lock, irql);
        done = sizeof(ULONG);
        break;

    case IOCTL_ABACUS_FORGET:
        Replace(a, NULL, 0);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&a->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS Init(FRAME *f)
{
    KeInitializeSpinLock(&((ABACUS *)f)->Lock);
    return STATUS_SUCCESS;
}

static void Free(FRAME *f)
{
    Replace((ABACUS *)f, NULL, 0);
}

static const FRAME_OPS Ops = { .Init = Init, .Free = Free };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(ABACUS), &AbacusInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
