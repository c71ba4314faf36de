/*
 * A device that tells how often each byte is in its input, by way of a table in pool.
 *
 * The bug: where there is no memory for a table of words, a smaller one of bytes is used, without a look at whether there was memory for that. It shows when two
 * allocations fail behind each other.
 *
 * Device: none
 * Rule: bad-pointer, wild-write, wild-read
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Counter"
#define LINK_NAME L"\\DosDevices\\Counter"
#include "../include/legacy.h"

#define COUNTER_TAG 'tnuC'
#define IOCTL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EA, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define VALUES 256

/* The most frequent byte, by a table of words, or else of bytes that stay at their greatest value. */
static NTSTATUS Count(PUCHAR Bytes, ULONG Length)
{
    PULONG Words = ExAllocatePoolWithTag(NonPagedPool, VALUES * sizeof(ULONG), COUNTER_TAG);
    PUCHAR Small = NULL;
    ULONG Index, Best = 0;

    if (Words == NULL) {
        Small = ExAllocatePoolWithTag(NonPagedPool, VALUES, COUNTER_TAG);
#ifdef FIXED
        if (Small == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
#endif
        RtlZeroMemory(Small, VALUES);
        for (Index = 0; Index < Length; Index++) {
            Small[Bytes[Index]] += Small[Bytes[Index]] < 0xFF;
            Best = Small[Bytes[Index]] > Small[Best] ? Bytes[Index] : Best;
        }
        ExFreePoolWithTag(Small, COUNTER_TAG);
    } else {
        RtlZeroMemory(Words, VALUES * sizeof(ULONG));
        for (Index = 0; Index < Length; Index++) {
            Words[Bytes[Index]]++;
            Best = Words[Bytes[Index]] > Words[Best] ? Bytes[Index] : Best;
        }
        ExFreePoolWithTag(Words, COUNTER_TAG);
    }
    Bytes[0] = (UCHAR)Best;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_COUNT || InputOf(Stack) == 0 || OutputOf(Stack) == 0) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = Count(Irp->AssociatedIrp.SystemBuffer, InputOf(Stack));
    return Complete(Irp, Status, Status == STATUS_SUCCESS ? 1 : 0);
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
