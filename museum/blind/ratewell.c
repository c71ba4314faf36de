/*
 * ratewell: load meter: programs count events into 32 counters; a timer works out each counter's
 * rate four times a second. A monitor reads all of them at once (METHOD_NEITHER, to save a copy),
 * or names counters (METHOD_BUFFERED).
 *
 * The bug: the table is copied to the application's buffer while the spin lock of the table is
 * held: that memory can be paged out, or not there at all, at DISPATCH_LEVEL.
 *
 * Device: none
 * Rule: paged-at-raised-irql, irql-too-high, spin-lock-held-on-return
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FR_LEGACY
#define FR_GUARDED
#include "../include/entered_gate.h"

#define RATE_NAME L"\\Device\\RateWell"
#define RATE_LINK L"\\DosDevices\\RateWell"

#define IOCTL_RATE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RATE_LABEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RATE_ALL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_RATE_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C3, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define RATE_COUNTERS  32
#define RATE_PERIOD_MS 250
#define RATE_TAG       'tarK'

typedef struct _RATE_COUNT { /* COUNT */
    ULONG Counter;
    ULONG Add;
} RATE_COUNT;

typedef struct _RATE_LABEL { /* LABEL */
    ULONG Counter;
    CHAR Name[12];
} RATE_LABEL;

typedef struct _RATE_ENTRY { /* ALL */
    CHAR Name[12];
    ULONG Rate; /* events a second */
    ULONG64 Total;
} RATE_ENTRY;

typedef struct _RATE_EXT {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock; /* what follows */
    ULONG64 Before[RATE_COUNTERS];
    RATE_ENTRY Table[RATE_COUNTERS];
} RATE_EXT, *PRATE_EXT;

typedef struct _RATE_COPY {
    PVOID User;
    ULONG Length;
    const VOID *From;
} RATE_COPY;

static VOID NTAPI RateDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PRATE_EXT x = Context;
    ULONG i;

    FR_UNUSED_OF_DPC();
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    for (i = 0; i < RATE_COUNTERS; i++) {
        x->Table[i].Rate = (ULONG)(x->Table[i].Total - x->Before[i]) * (1000 / RATE_PERIOD_MS);
        x->Before[i] = x->Table[i].Total;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
}

static NTSTATUS RateProbe(PVOID Context)
{
    RATE_COPY *c = Context;
    ProbeForWrite(c->User, c->Length, sizeof(ULONG));
    return STATUS_SUCCESS;
}

static NTSTATUS RateCopy(PVOID Context)
{
    RATE_COPY *c = Context;
    RtlCopyMemory(c->User, c->From, c->Length);
    return STATUS_SUCCESS;
}

static NTSTATUS RateAll(PRATE_EXT x, PIRP Irp, ULONG Length)
{
    RATE_COPY c;
    RATE_ENTRY *snapshot;
    NTSTATUS status;
    KIRQL irql;

    if (Length < sizeof(RATE_ENTRY))
        return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (Length > sizeof(x->Table))
        Length = sizeof(x->Table);
    Length -= Length % sizeof(RATE_ENTRY);
    c.User = Irp->UserBuffer;
    c.Length = Length;
    if (Irp->RequestorMode != KernelMode) {
        status = FrGuard(RateProbe, &c);
        if (!NT_SUCCESS(status))
            return FrComplete(Irp, status, 0);
    }
    snapshot = ExAllocatePoolWithTag(NonPagedPool, sizeof(x->Table), RATE_TAG);
    if (!snapshot)
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    KeAcquireSpinLock(&x->Lock, &irql);
    RtlCopyMemory(snapshot, x->Table, sizeof(x->Table));
    c.From = snapshot;
#ifdef FIXED
    KeReleaseSpinLock(&x->Lock, irql);
    status = FrGuard(RateCopy, &c);
#else
    status = FrGuard(RateCopy, &c);
    KeReleaseSpinLock(&x->Lock, irql);
#endif
    ExFreePoolWithTag(snapshot, RATE_TAG);
    return FrComplete(Irp, status, NT_SUCCESS(status) ? Length : 0);
}

static NTSTATUS NTAPI RateControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRATE_EXT x = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;
    ULONG i;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RATE_COUNT: {
        RATE_COUNT *in = Irp->AssociatedIrp.SystemBuffer;
        if (inLength < sizeof(*in))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (in->Counter >= RATE_COUNTERS)
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&x->Lock, &irql);
        x->Table[in->Counter].Total += in->Add;
        KeReleaseSpinLock(&x->Lock, irql);
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    }
    case IOCTL_RATE_LABEL: {
        RATE_LABEL *in = Irp->AssociatedIrp.SystemBuffer;
        if (inLength < sizeof(*in))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (in->Counter >= RATE_COUNTERS)
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        in->Name[sizeof(in->Name) - 1] = 0;
        KeAcquireSpinLock(&x->Lock, &irql);
        RtlCopyMemory(x->Table[in->Counter].Name, in->Name, sizeof(in->Name));
        KeReleaseSpinLock(&x->Lock, irql);
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    }
    case IOCTL_RATE_ALL:
        return RateAll(x, Irp, outLength);
    case IOCTL_RATE_RESET:
        KeAcquireSpinLock(&x->Lock, &irql);
        for (i = 0; i < RATE_COUNTERS; i++) {
            x->Table[i].Total = 0;
            x->Table[i].Rate = 0;
            x->Before[i] = 0;
        }
        KeReleaseSpinLock(&x->Lock, irql);
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    default:
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI RateCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    FR_UNUSED(Device);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI RateUnload(PDRIVER_OBJECT Driver)
{
    PRATE_EXT x = Driver->DeviceObject->DeviceExtension;

    KeCancelTimer(&x->Timer);
    KeFlushQueuedDpcs();
    FrLegacyDelete(Driver->DeviceObject, RATE_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    LARGE_INTEGER due;
    PRATE_EXT x;
    NTSTATUS status;

    FR_UNUSED(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = RateCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = RateCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RateControl;
    Driver->DriverUnload = RateUnload;
    status = FrLegacyCreate(Driver, RATE_NAME, RATE_LINK, sizeof(RATE_EXT), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    x = device->DeviceExtension;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->Dpc, RateDpc, x);
    due.QuadPart = -10000LL * RATE_PERIOD_MS;
    KeSetTimerEx(&x->Timer, due, RATE_PERIOD_MS, &x->Dpc);
    return STATUS_SUCCESS;
}
