/*
 * A splitter of texts: IOCTL_SPLIT skips the blanks at the beginning of a copy.
 *
 * The bug: the pointer to the copy is advanced, and freed where it then points. It shows with a text that begins with a blank.
 *
 * Device: none
 * Rule: bad-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Splitter"
#define LINK_NAME L"\\DosDevices\\Splitter"
#include "../include/legacy.h"

#define SPLITTER_TAG 'tlpS'
#define IOCTL_SPLIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_ANY_ACCESS)

static NTSTATUS Split(const UCHAR *Text, ULONG Length)
{
    PUCHAR Copy, Word;

    if (Length == 0) {
        return STATUS_INVALID_PARAMETER;
    }
    Copy = ExAllocatePoolWithTag(PagedPool, Length, SPLITTER_TAG);
    if (Copy == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(Copy, Text, Length);
    Word = Copy;
    while (Length != 0 && *Word == ' ') {
        Word++;
        Length--;
    }
#ifdef FIXED
    ExFreePoolWithTag(Copy, SPLITTER_TAG);
#else
    ExFreePoolWithTag(Word, SPLITTER_TAG);
#endif
    return Length == 0 ? STATUS_NOT_FOUND : STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SPLIT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, Split(Irp->AssociatedIrp.SystemBuffer, InputOf(Stack)), 0);
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
