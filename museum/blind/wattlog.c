/*
 * wattlog: keeps the books of eight power meters that a program feeds: energy, peak and number of readings of each. A report of
 * them is a text, as the file below /proc was under Linux.
 *
 * The bug: the report adds up what _snprintf returns, as one may with Linux's scnprintf; a line that does not fit returns -1, so
 * the next one is written before the beginning of the buffer and the length given back is negative.
 *
 * Device: none
 * Rule: pool-underrun, information-too-large, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

int __cdecl _snprintf(char *Buffer, size_t Count, const char *Format, ...);

#define METERS 8

#define IOCTL_WATT_READING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WATT_REPORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WATT_METER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WATT_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x814, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* one reading: so much power for so long */
typedef struct _WATT_READING {
    ULONG Meter;
    ULONG Milliwatt;
    ULONG Millisecond;
} WATT_READING;

typedef struct _WATT_METER {
    ULONGLONG Microjoule;
    ULONG Peak;
    ULONG Readings;
} WATT_METER;

typedef struct _WATTLOG {
    KSPIN_LOCK Lock;
    WATT_METER Meter[METERS];
} WATTLOG;

static const SOLO WattSolo = { L"\\Device\\WattLog", L"\\DosDevices\\WattLog", sizeof(WATTLOG), DO_BUFFERED_IO };
static PDEVICE_OBJECT WattDevice;

static VOID WattSnapshot(WATTLOG *Log, WATT_METER *Meters)
{
    KIRQL irql;

    KeAcquireSpinLock(&Log->Lock, &irql);
    RtlCopyMemory(Meters, Log->Meter, sizeof(Log->Meter));
    KeReleaseSpinLock(&Log->Lock, irql);
}

static NTSTATUS WattReport(WATTLOG *Log, CHAR *Text, ULONG Size, ULONG_PTR *Length)
{
    WATT_METER meters[METERS];
    LONG used = 0;
    ULONG i;

    *Length = 0;
    if (Size == 0)
        return STATUS_BUFFER_TOO_SMALL;
    if (Size > 4096)
        Size = 4096;
    WattSnapshot(Log, meters);
    for (i = 0; i < METERS; i++) {
        LONG n;

        if (meters[i].Readings == 0) {
            n = _snprintf(Text + used, Size - used, "meter %u: unused\n", i);
        } else {
            n = _snprintf(Text + used, Size - used, "meter %u: %I64u mJ, peak %u mW, %u readings\n", i,
                          meters[i].Microjoule / 1000, meters[i].Peak, meters[i].Readings);
        }
#ifdef FIXED
        if (n < 0 || (ULONG)n > Size - used)
            return STATUS_BUFFER_TOO_SMALL;
#endif
        used += n;
    }
    *Length = used;
    return STATUS_SUCCESS;
}

static NTSTATUS WattReading(WATTLOG *Log, const WATT_READING *Reading)
{
    WATT_METER *meter;
    KIRQL irql;

    if (Reading->Meter >= METERS || Reading->Millisecond == 0)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Log->Lock, &irql);
    meter = &Log->Meter[Reading->Meter];
    meter->Microjoule += (ULONGLONG)Reading->Milliwatt * Reading->Millisecond;
    if (Reading->Milliwatt > meter->Peak)
        meter->Peak = Reading->Milliwatt;
    meter->Readings++;
    KeReleaseSpinLock(&Log->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI WattControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    WATTLOG *log = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    WATT_METER meters[METERS];
    NTSTATUS status;
    ULONG_PTR length;
    ULONG meter;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WATT_READING:
        if (in < sizeof(WATT_READING))
            return SoloEnd(Irp, STATUS_INVALID_PARAMETER, 0);
        return SoloEnd(Irp, WattReading(log, buffer), 0);

    case IOCTL_WATT_REPORT:
        status = WattReport(log, buffer, out, &length);
        return SoloEnd(Irp, status, length);

    case IOCTL_WATT_METER:
        if (in < sizeof(ULONG))
            return SoloEnd(Irp, STATUS_INVALID_PARAMETER, 0);
        if (out < sizeof(WATT_METER))
            return SoloEnd(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        meter = *(ULONG *)buffer;
        if (meter >= METERS)
            return SoloEnd(Irp, STATUS_INVALID_PARAMETER, 0);
        WattSnapshot(log, meters);
        RtlCopyMemory(buffer, &meters[meter], sizeof(WATT_METER));
        return SoloEnd(Irp, STATUS_SUCCESS, sizeof(WATT_METER));

    case IOCTL_WATT_RESET:
        KeAcquireSpinLock(&log->Lock, &irql);
        RtlZeroMemory(log->Meter, sizeof(log->Meter));
        KeReleaseSpinLock(&log->Lock, irql);
        return SoloEnd(Irp, STATUS_SUCCESS, 0);

    default:
        return SoloEnd(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI WattUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    SoloHide(&WattSolo);
    IoDeleteDevice(WattDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WattControl;
    DriverObject->DriverUnload = WattUnload;
    status = SoloMake(DriverObject, &WattSolo, &WattDevice);
    if (!NT_SUCCESS(status))
        return status;
    KeInitializeSpinLock(&((WATTLOG *)WattDevice->DeviceExtension)->Lock);
    status = SoloShow(&WattSolo);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(WattDevice);
    return status;
}
