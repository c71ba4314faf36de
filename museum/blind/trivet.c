/*
 * TRIVET: two plates of a warming table, one device each (\Device\TrivetHot, \Device\TrivetCold). Programs set the temperature that a plate shall have and ask for
 * it; each plate has its own limits.
 *
 * The bug: at unload the driver goes along the list of its devices and takes the link to the next one from a device that it has just deleted.
 *
 * Device: none
 * Rule: use-after-free, wild-read, wild-pointer
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/desk_or_rig.h"

#define TRIVET_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define TRIVET_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PLATE {
    UNICODE_STRING Link;
    BOOLEAN Linked;
    KSPIN_LOCK Lock;
    LONG Least;
    LONG Most;
    LONG Wanted;
    ULONG Changes;
} PLATE;

typedef struct _READING {
    LONG Wanted;
    LONG Least;
    LONG Most;
    ULONG Changes;
} READING;

static NTSTATUS NTAPI TrivetOpenClose(PDEVICE_OBJECT device, PIRP irp)
{
    (void)device;
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS Serve(PLATE *plate, TASK *task)
{
    NTSTATUS status = STATUS_SUCCESS;
    READING reading;
    LONG wanted;
    KIRQL irql;

    switch (task->Code) {
    case TRIVET_SET:
        if (task->In < sizeof(LONG))
            return STATUS_INVALID_PARAMETER;
        wanted = *(PLONG)task->Buffer;
        KeAcquireSpinLock(&plate->Lock, &irql);
        if (wanted < plate->Least || wanted > plate->Most) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            plate->Wanted = wanted;
            plate->Changes++;
        }
        KeReleaseSpinLock(&plate->Lock, irql);
        return status;

    case TRIVET_GET:
        if (task->Out < sizeof(READING))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&plate->Lock, &irql);
        reading.Wanted = plate->Wanted;
        reading.Least = plate->Least;
        reading.Most = plate->Most;
        reading.Changes = plate->Changes;
        KeReleaseSpinLock(&plate->Lock, irql);
        RtlCopyMemory(task->Buffer, &reading, sizeof(reading));
        task->Info = sizeof(reading);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS NTAPI TrivetControl(PDEVICE_OBJECT device, PIRP irp)
{
    NTSTATUS status;
    TASK task;

    TaskFill(&task, irp);
    status = Serve(device->DeviceExtension, &task);
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = task.Info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID NTAPI TrivetUnload(PDRIVER_OBJECT driver)
{
    PDEVICE_OBJECT device = driver->DeviceObject;

    while (device != NULL) {
        PLATE *plate = device->DeviceExtension;
#ifdef FIXED
        PDEVICE_OBJECT next = device->NextDevice;
#endif

        if (plate->Linked)
            IoDeleteSymbolicLink(&plate->Link);
        IoDeleteDevice(device);
#ifndef FIXED
        device = device->NextDevice;
#else
        device = next;
#endif
    }
}

static NTSTATUS MakePlate(PDRIVER_OBJECT driver, PCWSTR name, PCWSTR link, LONG least, LONG most)
{
    PDEVICE_OBJECT device;
    UNICODE_STRING text;
    PLATE *plate;
    NTSTATUS status;

    RtlInitUnicodeString(&text, name);
    status = IoCreateDevice(driver, sizeof(PLATE), &text, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    device->Flags |= DO_BUFFERED_IO;
    plate = device->DeviceExtension;
    RtlZeroMemory(plate, sizeof(*plate));
    RtlInitUnicodeString(&plate->Link, link);
    KeInitializeSpinLock(&plate->Lock);
    plate->Least = least;
    plate->Most = most;
    plate->Wanted = least;
    status = IoCreateSymbolicLink(&plate->Link, &text);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    plate->Linked = TRUE;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    PDEVICE_OBJECT hot;
    PLATE *plate;
    NTSTATUS status;

    (void)path;
    driver->MajorFunction[IRP_MJ_CREATE] = TrivetOpenClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = TrivetOpenClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TrivetControl;
    driver->DriverUnload = TrivetUnload;
    status = MakePlate(driver, L"\\Device\\TrivetHot", L"\\DosDevices\\TrivetHot", 40, 95);
    if (!NT_SUCCESS(status))
        return status;
    status = MakePlate(driver, L"\\Device\\TrivetCold", L"\\DosDevices\\TrivetCold", 2, 12);
    if (!NT_SUCCESS(status)) {
        hot = driver->DeviceObject;
        plate = hot->DeviceExtension;
        IoDeleteSymbolicLink(&plate->Link);
        IoDeleteDevice(hot);
    }
    return status;
}
