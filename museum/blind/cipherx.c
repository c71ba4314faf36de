/*
 * cipherx: enciphers short texts with a key stream made from a seed; the request and the answer go by
 * METHOD_NEITHER, straight from and to the caller's memory.
 *
 * The bug: the length in the caller's request is fetched a second time for the copy, after the check.
 *
 * Device: none
 * Rule: double-fetch
 * Needs: ioctl
 * Compiler: clang
 */
/* clang and mingw's headers: no processor intrinsics but those used below, and an offset that is a constant. */
#define __INTRIN_H_
#include <ntdef.h>
#undef FIELD_OFFSET
#define FIELD_OFFSET(type, field) ((LONG)__builtin_offsetof(type, field))
#undef C_ASSERT
#define C_ASSERT(e) _Static_assert(e, #e)
#include <ddk/wdm.h>

/* Input: a CIPHER_REQUEST; output: the enciphered bytes. */
#define IOCTL_CIPHER_TEXT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA30, METHOD_NEITHER, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_CIPHER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA31, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'hpiC'
#define MAX_TEXT 512u

typedef struct _CIPHER_REQUEST {
    ULONG Length;
    ULONG Seed;
    UCHAR Text[1];
} CIPHER_REQUEST;
#define REQUEST_HEADER ((ULONG)FIELD_OFFSET(CIPHER_REQUEST, Text))

typedef struct _CIPHER {
    volatile LONG Count;
} CIPHER, *PCIPHER;

static UNICODE_STRING CipherDevice = RTL_CONSTANT_STRING(L"\\Device\\CipherX");
static UNICODE_STRING CipherLink = RTL_CONSTANT_STRING(L"\\DosDevices\\CipherX");

static VOID CipherApply(PUCHAR Text, ULONG Length, ULONG Seed)
{
    ULONG i;

    for (i = 0; i < Length; i++) {
        Seed = Seed * 1664525u + 1013904223u;
        Text[i] ^= (UCHAR)(Seed >> 24);
    }
}

static NTSTATUS CipherText(PIRP Irp, PIO_STACK_LOCATION Stack, PULONG_PTR Information)
{
    volatile CIPHER_REQUEST *user = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
    ULONG in = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG length, seed;
    PUCHAR text;
    NTSTATUS status = STATUS_SUCCESS;

    if (in < REQUEST_HEADER)
        return STATUS_BUFFER_TOO_SMALL;
    text = ExAllocatePoolWithTag(PagedPool, MAX_TEXT, TAG);
    if (!text)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        ProbeForRead((PVOID)user, in, 1);
        length = user->Length;
        seed = user->Seed;
        if (length == 0 || length > MAX_TEXT || length > in - REQUEST_HEADER) {
            status = STATUS_INVALID_PARAMETER;
            __leave;
        }
        if (length > out) {
            status = STATUS_BUFFER_TOO_SMALL;
            __leave;
        }
#ifndef FIXED
        length = user->Length;
#endif
        RtlCopyMemory(text, (PVOID)user->Text, length);
        CipherApply(text, length, seed);
        ProbeForWrite(Irp->UserBuffer, out, 1);
        RtlCopyMemory(Irp->UserBuffer, text, length);
        *Information = length;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = GetExceptionCode();
        *Information = 0;
    }
    ExFreePoolWithTag(text, TAG);
    return status;
}

static NTSTATUS NTAPI CipherControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCIPHER cipher = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CIPHER_TEXT:
        status = CipherText(Irp, stack, &information);
        if (NT_SUCCESS(status))
            InterlockedIncrement(&cipher->Count);
        break;
    case IOCTL_CIPHER_COUNT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = cipher->Count;
        information = sizeof(LONG);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI CipherOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI CipherUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&CipherLink);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(CIPHER), &CipherDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    ((PCIPHER)device->DeviceExtension)->Count = 0;
    status = IoCreateSymbolicLink(&CipherLink, &CipherDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = CipherOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = CipherOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CipherControl;
    DriverObject->DriverUnload = CipherUnload;
    return STATUS_SUCCESS;
}
