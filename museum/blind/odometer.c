/*
 * odometer: counts the ticks of a periodic timer and keeps the distribution of its latenesses. The period in
 * milliseconds is the DWORD value PeriodMs (1 to 1000, else 10) of the service's key.
 * IOCTL_ODO_READ answers counts and distribution, IOCTL_ODO_RESET zeroes them.
 *
 * The bug: IOCTL_ODO_READ takes the lock, which the timer's DPC takes also, by the routine that does not raise the IRQL.
 *
 * Device: none
 * Rule: irql-too-low
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define CLASSES 16u
#define IOCTL_ODO_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_ODO_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _READING {
    ULONGLONG Ticks;
    ULONGLONG Worst;                    /* in 100 ns */
    ULONG Classes[CLASSES];             /* class n: late by less than 2^n * 100 us */
} READING;

typedef struct _ODOMETER {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    ULONG PeriodMs;
    ULONGLONG Last;
    READING Reading;
} ODOMETER, *PODOMETER;

static VOID OdoAccount(PODOMETER O, ULONGLONG Now)
{
    ULONGLONG due = O->Last + O->PeriodMs * 10000ULL, late = Now > due ? Now - due : 0, bound = 1000;
    ULONG n = 0;

    while (n < CLASSES - 1 && late >= bound) {
        bound *= 2;
        n++;
    }
    O->Reading.Classes[n]++;
    O->Reading.Ticks++;
    if (late > O->Reading.Worst)
        O->Reading.Worst = late;
    O->Last = Now;
}

static VOID NTAPI OdoDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PODOMETER o = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&o->Lock);
    OdoAccount(o, KeQueryInterruptTime());
    KeReleaseSpinLockFromDpcLevel(&o->Lock);
}

static VOID OdoRead(PODOMETER O, READING *Reading)
{
#ifdef FIXED
    KIRQL irql;

    KeAcquireSpinLock(&O->Lock, &irql);
    *Reading = O->Reading;
    KeReleaseSpinLock(&O->Lock, irql);
#else
    KeAcquireSpinLockAtDpcLevel(&O->Lock);
    *Reading = O->Reading;
    KeReleaseSpinLockFromDpcLevel(&O->Lock);
#endif
}

static VOID OdoReset(PODOMETER O)
{
    KIRQL irql;

    KeAcquireSpinLock(&O->Lock, &irql);
    RtlZeroMemory(&O->Reading, sizeof(O->Reading));
    KeReleaseSpinLock(&O->Lock, irql);
}

static NTSTATUS NTAPI OdoDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PODOMETER o = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR information = 0;

    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_ODO_READ:
            if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(READING)) {
                status = STATUS_BUFFER_TOO_SMALL;
            } else {
                OdoRead(o, Irp->AssociatedIrp.SystemBuffer);
                information = sizeof(READING);
            }
            break;
        case IOCTL_ODO_RESET:
            OdoReset(o);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static ULONG OdoPeriod(PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"PeriodMs");
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } value;
    OBJECT_ATTRIBUTES attributes;
    ULONG length, period = 10;
    HANDLE key;

    InitializeObjectAttributes(&attributes, RegistryPath, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes)))
        return period;
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof(value), &length)) &&
        value.Info.Type == REG_DWORD && value.Info.DataLength == sizeof(ULONG)) {
        ULONG v;

        RtlCopyMemory(&v, value.Info.Data, sizeof(v));
        if (v >= 1 && v <= 1000)
            period = v;
    }
    ZwClose(key);
    return period;
}

static VOID NTAPI OdoUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Odometer");
    PODOMETER o = DriverObject->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&link);
    KeCancelTimer(&o->Timer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Odometer");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Odometer");
    PDEVICE_OBJECT device;
    LARGE_INTEGER due;
    PODOMETER o;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(ODOMETER), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &device);
    if (!NT_SUCCESS(status))
        return status;
    o = device->DeviceExtension;
    RtlZeroMemory(o, sizeof(*o));
    KeInitializeSpinLock(&o->Lock);
    KeInitializeTimerEx(&o->Timer, SynchronizationTimer);
    KeInitializeDpc(&o->Dpc, OdoDpc, o);
    o->PeriodMs = OdoPeriod(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = OdoDispatch;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = OdoDispatch;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OdoDispatch;
    DriverObject->DriverUnload = OdoUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    o->Last = KeQueryInterruptTime();
    due.QuadPart = -10000LL * o->PeriodMs;
    KeSetTimerEx(&o->Timer, due, (LONG)o->PeriodMs, &o->Dpc);
    return STATUS_SUCCESS;
}
