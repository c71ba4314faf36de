/*
 * tickrec: records the jitter of a one-shot kernel timer that its DPC sets
 * anew each time (the period may so be changed while it runs). The samples
 * are kept in a ring of 256 which an application reads. The first period comes from
 * the value Period (milliseconds) of the service's Parameters key.
 *
 * The bug: stopping cancels the timer and flushes the DPCs before it tells the DPC not to set the timer again.
 *
 * Device: none
 * Rule: freed-active-timer
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define RING 256u
#define PERIOD_MIN 1u
#define PERIOD_MAX 60000u

#define IOCTL_TR_START  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TR_STOP   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TR_PERIOD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x903, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _SAMPLE {
    ULONG64 Due;
    ULONG64 Came;
} SAMPLE;

typedef struct _RECORDER {
    KEVENT Control;         /* synchronization event: one start/stop at a time */
    KSPIN_LOCK Lock;        /* guards what follows */
    BOOLEAN Running;
    ULONG Period;
    ULONG64 NextDue;
    ULONG Head;             /* counts up, taken modulo RING */
    ULONG Tail;
    SAMPLE Ring[RING];
    KTIMER Timer;
    KDPC Dpc;
} RECORDER, *PRECORDER;

static UNICODE_STRING TrDevice = RTL_CONSTANT_STRING(L"\\Device\\TickRec");
static UNICODE_STRING TrLink = RTL_CONSTANT_STRING(L"\\??\\TickRec");

static VOID TrArm(PRECORDER R)      /* with the lock */
{
    LARGE_INTEGER due;
    due.QuadPart = -(LONGLONG)R->Period * 10000;
    R->NextDue = KeQueryInterruptTime() + (ULONG64)R->Period * 10000;
    KeSetTimer(&R->Timer, due, &R->Dpc);
}

static VOID NTAPI TrTick(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PRECORDER r = Context;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeAcquireSpinLockAtDpcLevel(&r->Lock);
    if (r->Running) {
        SAMPLE *s = &r->Ring[r->Head % RING];
        s->Due = r->NextDue;
        s->Came = KeQueryInterruptTime();
        r->Head++;
        if (r->Head - r->Tail > RING)
            r->Tail = r->Head - RING;
        TrArm(r);
    }
    KeReleaseSpinLockFromDpcLevel(&r->Lock);
}

static VOID TrStart(PRECORDER R)
{
    KIRQL irql;
    KeAcquireSpinLock(&R->Lock, &irql);
    if (!R->Running) {
        R->Running = TRUE;
        TrArm(R);
    }
    KeReleaseSpinLock(&R->Lock, irql);
}

static VOID TrStop(PRECORDER R)
{
    KIRQL irql;
#ifndef FIXED
    KeCancelTimer(&R->Timer);
    KeFlushQueuedDpcs();
#endif
    KeAcquireSpinLock(&R->Lock, &irql);
    R->Running = FALSE;
    KeReleaseSpinLock(&R->Lock, irql);
#ifdef FIXED
    KeCancelTimer(&R->Timer);
    KeFlushQueuedDpcs();
#endif
}

static VOID TrLock(PRECORDER R)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&R->Control, Executive, KernelMode, FALSE, NULL);
}

static VOID TrUnlock(PRECORDER R)
{
    KeSetEvent(&R->Control, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS TrComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI TrOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TrComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TrRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRECORDER r = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    SAMPLE *out = Irp->AssociatedIrp.SystemBuffer;
    ULONG n = 0, room = length / sizeof(SAMPLE);
    KIRQL irql;

    if (room == 0)
        return TrComplete(Irp, length ? STATUS_BUFFER_TOO_SMALL : STATUS_SUCCESS, 0);
    KeAcquireSpinLock(&r->Lock, &irql);
    while (n < room && r->Tail != r->Head) {
        out[n++] = r->Ring[r->Tail % RING];
        r->Tail++;
    }
    KeReleaseSpinLock(&r->Lock, irql);
    return TrComplete(Irp, STATUS_SUCCESS, n * sizeof(SAMPLE));
}

static NTSTATUS NTAPI TrControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRECORDER r = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG period;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TR_START:
        TrLock(r);
        TrStart(r);
        TrUnlock(r);
        break;
    case IOCTL_TR_STOP:
        TrLock(r);
        TrStop(r);
        TrUnlock(r);
        break;
    case IOCTL_TR_PERIOD:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        period = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (period < PERIOD_MIN || period > PERIOD_MAX) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&r->Lock, &irql);
        r->Period = period;         /* from the next tick */
        KeReleaseSpinLock(&r->Lock, irql);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return TrComplete(Irp, status, 0);
}

static ULONG TrConfiguredPeriod(PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING sub = RTL_CONSTANT_STRING(L"Parameters");
    static UNICODE_STRING name = RTL_CONSTANT_STRING(L"Period");
    union {
        KEY_VALUE_PARTIAL_INFORMATION info;
        UCHAR space[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } u;
    OBJECT_ATTRIBUTES oa;
    HANDLE service, key;
    ULONG length, period = 10;

    InitializeObjectAttributes(&oa, RegistryPath, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&service, KEY_READ, &oa)))
        return period;
    InitializeObjectAttributes(&oa, &sub, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, service, NULL);
    if (NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &oa))) {
        if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &u, sizeof u, &length)) &&
            u.info.Type == REG_DWORD && u.info.DataLength == sizeof(ULONG)) {
            RtlCopyMemory(&period, u.info.Data, sizeof period);
            if (period < PERIOD_MIN)
                period = PERIOD_MIN;
            if (period > PERIOD_MAX)
                period = PERIOD_MAX;
        }
        ZwClose(key);
    }
    ZwClose(service);
    return period;
}

static VOID NTAPI TrUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&TrLink);
    TrStop(Driver->DeviceObject->DeviceExtension);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PRECORDER r;
    NTSTATUS status = IoCreateDevice(Driver, sizeof(RECORDER), &TrDevice, FILE_DEVICE_UNKNOWN,
                                     FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    r = device->DeviceExtension;
    KeInitializeEvent(&r->Control, SynchronizationEvent, TRUE);
    KeInitializeSpinLock(&r->Lock);
    KeInitializeTimer(&r->Timer);
    KeInitializeDpc(&r->Dpc, TrTick, r);
    r->Running = FALSE;
    r->Head = r->Tail = 0;
    r->Period = TrConfiguredPeriod(RegistryPath);
    status = IoCreateSymbolicLink(&TrLink, &TrDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = TrOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = TrOpenClose;
    Driver->MajorFunction[IRP_MJ_READ] = TrRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TrControl;
    Driver->DriverUnload = TrUnload;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}
