/*
 * A parser of commands: the text is copied, parsed, and freed.
 *
 * The bug: Parse frees a text that it refuses, and so does its caller. It shows with a text that does not begin with a letter.
 *
 * Device: none
 * Rule: double-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Parser"
#define LINK_NAME L"\\DosDevices\\Parser"
#include "../include/legacy.h"

#define PARSER_TAG 'sraP'
#define IOCTL_PARSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EC, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS Parse(PUCHAR Text, ULONG Length)
{
    ULONG Index, Words = 1;

    if (Text[0] < 'A' || Text[0] > 'z') {
#ifndef FIXED
        ExFreePoolWithTag(Text, PARSER_TAG);
#endif
        return STATUS_INVALID_PARAMETER;
    }
    for (Index = 0; Index < Length; Index++) {
        Words += Text[Index] == ' ';
    }
    DbgPrint("parser: %d words\n", Words);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = InputOf(Stack);
    NTSTATUS Status;
    PUCHAR Copy;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_PARSE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Length == 0 || Length > 4096) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Copy = ExAllocatePoolWithTag(PagedPool, Length, PARSER_TAG);
    if (Copy == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlCopyMemory(Copy, Irp->AssociatedIrp.SystemBuffer, Length);
    Status = Parse(Copy, Length);
    ExFreePoolWithTag(Copy, PARSER_TAG);
    return Complete(Irp, Status, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
