/*
 * A driver with a counter that programs read: its control device is made in DriverEntry. A client of KMDF.
 *
 * The bug: where the device's name cannot be assigned, the routine that does so frees the WDFDEVICE_INIT, and so does its caller, as for all that can
 * fail. It shows when that assignment fails.
 *
 * Device: none
 * Framework: KMDF
 * Rule: kmdf-device-init
 * Needs: failure
 */
#include "../include/client.h"

static LONG volatile Reads;

static VOID OnRead(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    PVOID Output;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, sizeof(LONG), &Output, NULL);

    UNREFERENCED_PARAMETER(Queue);
    UNREFERENCED_PARAMETER(Length);
    if (!NT_SUCCESS(Status)) {
        CALL(WdfRequestComplete, Request, Status);
        return;
    }
    *(PLONG)Output = InterlockedIncrement(&Reads);
    CALL(WdfRequestCompleteWithInformation, Request, STATUS_SUCCESS, sizeof(LONG));
}

/* What there is to say of the device before it is there. */
static NTSTATUS Describe(PWDFDEVICE_INIT Init)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\ReadCounter");
    NTSTATUS Status;

    CALL(WdfDeviceInitSetIoType, Init, WdfDeviceIoBuffered);
    Status = CALL(WdfDeviceInitAssignName, Init, &Name);
#ifndef FIXED
    if (!NT_SUCCESS(Status)) {
        CALL(WdfDeviceInitFree, Init);
    }
#endif
    return Status;
}

static NTSTATUS CreateDevice(WDFDRIVER Driver, WDFDEVICE *Device)
{
    static UNICODE_STRING ForAdministrators = RTL_CONSTANT_STRING(L"D:P(A;;GA;;;SY)(A;;GA;;;BA)");
    PWDFDEVICE_INIT Init = CALL(WdfControlDeviceInitAllocate, Driver, &ForAdministrators);
    NTSTATUS Status;

    if (Init == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = Describe(Init);
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfDeviceCreate, &Init, NULL, Device);
    }
    if (!NT_SUCCESS(Status)) {
        CALL(WdfDeviceInitFree, Init);
    }
    return Status;
}

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\ReadCounter");
    WDF_DRIVER_CONFIG Config;
    WDF_IO_QUEUE_CONFIG Queue;
    WDFDRIVER Handle;
    WDFDEVICE Device;
    NTSTATUS Status;

    INITIALIZE(WDF_DRIVER_CONFIG, &Config);
    Config.DriverInitFlags = WdfDriverInitNonPnpDriver;
    Config.EvtDriverUnload = OnUnload;
    Status = CALL(WdfDriverCreate, Driver, RegistryPath, NULL, &Config, &Handle);
    if (NT_SUCCESS(Status)) {
        Status = CreateDevice(Handle, &Device);
    }
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfDeviceCreateSymbolicLink, Device, &Link);
    }
    if (NT_SUCCESS(Status)) {
        InitializeQueue(&Queue, WdfIoQueueDispatchParallel, WdfFalse);
        Queue.DefaultQueue = TRUE;
        Queue.EvtIoRead = OnRead;
        Status = CALL(WdfIoQueueCreate, Device, &Queue, NULL, NULL);
    }
    if (NT_SUCCESS(Status)) {
        CALL(WdfControlFinishInitializing, Device);
    }
    return Status;
}
