/*
 * kmdf_classed.sys: a client of KMDF that binds the class of kmdf_class.sys too; its control device is \\.\KmdfClassed. A write gives its bytes to the
 * class, a read of a byte tells their mean. CLASS_WANTED is the minor version of the class that it asks for; without it, the one there is.
 */
#include <ddk/wdm.h>

#include "framework/types.h"

#include "framework/class.h"

#ifndef CLASS_WANTED
#define CLASS_WANTED CLASS_MINOR
#endif

static WDFFUNC ClassFunctions[CLASS_FUNCTION_COUNT];

static WDF_CLASS_BIND_INFO ClassBindInfo = {.Size = sizeof(ClassBindInfo),
                                            .ClassName = CLASS_NAME,
                                            .Version = {CLASS_MAJOR, CLASS_WANTED, 0},
                                            .FunctionTable = (PVOID *)ClassFunctions,
                                            .FunctionTableCount = CLASS_FUNCTION_COUNT};

#define CLIENT_CLASSES &ClassBindInfo
#include "framework/client.h"
#include "framework/control.h"

static VOID OnWrite(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    PUCHAR Bytes;
    SIZE_T Index;
    NTSTATUS Status = CALL(WdfRequestRetrieveInputBuffer, Request, 1, (PVOID *)&Bytes, &Length);

    UNREFERENCED_PARAMETER(Queue);
    for (Index = 0; NT_SUCCESS(Status) && Index < Length; Index++) {
        ((PFN_CLASS_ADD)ClassFunctions[ClassAddIndex])(WdfDriverGlobals, Bytes[Index]);
    }
    CALL(WdfRequestCompleteWithInformation, Request, Status, NT_SUCCESS(Status) ? Length : 0);
}

static VOID OnRead(WDFQUEUE Queue, WDFREQUEST Request, SIZE_T Length)
{
    PUCHAR Byte;
    NTSTATUS Status = CALL(WdfRequestRetrieveOutputBuffer, Request, 1, (PVOID *)&Byte, &Length);

    UNREFERENCED_PARAMETER(Queue);
    if (NT_SUCCESS(Status)) {
        *Byte = (UCHAR)((PFN_CLASS_MEAN)ClassFunctions[ClassMeanIndex])(WdfDriverGlobals);
    }
    CALL(WdfRequestCompleteWithInformation, Request, Status, NT_SUCCESS(Status) ? 1 : 0);
}

static VOID OnUnload(WDFDRIVER Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

static NTSTATUS FinishDevice(WDFDEVICE Device)
{
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\KmdfClassed");
    WDF_IO_QUEUE_CONFIG Config;
    NTSTATUS Status = CALL(WdfDeviceCreateSymbolicLink, Device, &Link);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    InitializeQueue(&Config, WdfIoQueueDispatchSequential, WdfFalse);
    Config.DefaultQueue = TRUE;
    Config.EvtIoRead = OnRead;
    Config.EvtIoWrite = OnWrite;
    Status = CALL(WdfIoQueueCreate, Device, &Config, NULL, NULL);
    if (NT_SUCCESS(Status)) {
        CALL(WdfControlFinishInitializing, Device);
    }
    return Status;
}

static VOID Configure(PWDFDEVICE_INIT Init)
{
    CALL(WdfDeviceInitSetIoType, Init, WdfDeviceIoDirect);
}

static NTSTATUS ClientEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\KmdfClassed");
    WDFDRIVER Handle;
    WDFDEVICE Device;
    NTSTATUS Status = CreateDriver(Driver, RegistryPath, OnUnload, &Handle);

    if (NT_SUCCESS(Status)) {
        Status = CreateControlDevice(Handle, &Name, Configure, &Device);
    }
    return NT_SUCCESS(Status) ? FinishDevice(Device) : Status;
}
