/*
 * bodkin: a strip recorder of three channels in software. Each channel is a device of its own to which one program writes samples of
 * 32 bits; another one reads the oldest of them, or asks for a channel's highest and lowest value.
 *
 * The bug: at the end the driver goes through its device objects by NextDevice, which it takes from a device that it has just
 * deleted; that memory is no longer a device.
 *
 * Device: none
 * Rule: use-after-free, device-deleted-twice, device-not-deleted, device-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define BODKIN_CHANNELS 3
#define BODKIN_SAMPLES 256
#define IOCTL_BODKIN_EXTREMES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_BODKIN_ERASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _BODKIN_EXTREMES {
    LONG Lowest;
    LONG Highest;
    ULONG Samples;
} BODKIN_EXTREMES, *PBODKIN_EXTREMES;

typedef struct _BODKIN {
    FAST_MUTEX Mutex;
    ULONG Channel;
    BOOLEAN Shown;              /* its link is there */
    ULONG First;
    ULONG Count;
    LONG Samples[BODKIN_SAMPLES];
} BODKIN, *PBODKIN;

static const PCWSTR BodkinNames[BODKIN_CHANNELS] = { L"\\Device\\Bodkin0", L"\\Device\\Bodkin1", L"\\Device\\Bodkin2" };
static const PCWSTR BodkinLinks[BODKIN_CHANNELS] = { L"\\DosDevices\\Bodkin0", L"\\DosDevices\\Bodkin1", L"\\DosDevices\\Bodkin2" };

/* The oldest samples make room when the strip is full. */
static NTSTATUS NTAPI BodkinWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBODKIN b = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PLONG sample = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;

    if (length % sizeof(LONG) != 0)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    ExAcquireFastMutex(&b->Mutex);
    for (i = 0; i < length / sizeof(LONG); i++) {
        b->Samples[(b->First + b->Count) % BODKIN_SAMPLES] = sample[i];
        if (b->Count < BODKIN_SAMPLES)
            b->Count++;
        else
            b->First = (b->First + 1) % BODKIN_SAMPLES;
    }
    ExReleaseFastMutex(&b->Mutex);
    return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI BodkinRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBODKIN b = DeviceObject->DeviceExtension;
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(LONG);
    PLONG sample = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;

    ExAcquireFastMutex(&b->Mutex);
    for (i = 0; i < room && b->Count != 0; i++) {
        sample[i] = b->Samples[b->First];
        b->First = (b->First + 1) % BODKIN_SAMPLES;
        b->Count--;
    }
    ExReleaseFastMutex(&b->Mutex);
    return Finish(Irp, STATUS_SUCCESS, i * sizeof(LONG));
}

static NTSTATUS NTAPI BodkinControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBODKIN b = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PBODKIN_EXTREMES e = Irp->AssociatedIrp.SystemBuffer;
    LONG sample;
    ULONG i;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BODKIN_EXTREMES:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*e))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlZeroMemory(e, sizeof(*e));
        ExAcquireFastMutex(&b->Mutex);
        for (i = 0; i < b->Count; i++) {
            sample = b->Samples[(b->First + i) % BODKIN_SAMPLES];
            if (i == 0 || sample < e->Lowest)
                e->Lowest = sample;
            if (i == 0 || sample > e->Highest)
                e->Highest = sample;
        }
        e->Samples = b->Count;
        ExReleaseFastMutex(&b->Mutex);
        return Finish(Irp, STATUS_SUCCESS, sizeof(*e));

    case IOCTL_BODKIN_ERASE:
        ExAcquireFastMutex(&b->Mutex);
        b->First = b->Count = 0;
        ExReleaseFastMutex(&b->Mutex);
        return Finish(Irp, STATUS_SUCCESS, 0);
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* All channels that there are, in whatever state DriverEntry has left them. */
static VOID BodkinTakeDown(PDRIVER_OBJECT DriverObject)
{
    PDEVICE_OBJECT device;
    PBODKIN b;
#ifndef FIXED
    for (device = DriverObject->DeviceObject; device != NULL; device = device->NextDevice) {
        b = device->DeviceExtension;
        if (b->Shown)
            DeskHide(BodkinLinks[b->Channel]);
        IoDeleteDevice(device);
    }
#else
    PDEVICE_OBJECT next;

    for (device = DriverObject->DeviceObject; device != NULL; device = next) {
        next = device->NextDevice;
        b = device->DeviceExtension;
        if (b->Shown)
            DeskHide(BodkinLinks[b->Channel]);
        IoDeleteDevice(device);
    }
#endif
}

static VOID NTAPI BodkinUnload(PDRIVER_OBJECT DriverObject)
{
    BodkinTakeDown(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;
    ULONG channel;
    PBODKIN b;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = BodkinRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = BodkinWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BodkinControl;
    DriverObject->DriverUnload = BodkinUnload;
    for (channel = 0; channel < BODKIN_CHANNELS; channel++) {
        status = DeskBuild(DriverObject, sizeof(BODKIN), BodkinNames[channel], DO_BUFFERED_IO, &device);
        if (!NT_SUCCESS(status))
            goto failed;
        b = device->DeviceExtension;
        ExInitializeFastMutex(&b->Mutex);
        b->Channel = channel;
        b->Shown = FALSE;
        b->First = b->Count = 0;
        status = DeskShow(BodkinNames[channel], BodkinLinks[channel]);
        if (!NT_SUCCESS(status))
            goto failed;
        b->Shown = TRUE;
    }
    return STATUS_SUCCESS;

failed:
    BodkinTakeDown(DriverObject);
    return status;
}
