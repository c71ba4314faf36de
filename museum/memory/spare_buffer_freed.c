/*
 * A device that sorts its input: by way of a copy, with a spare buffer besides if there is memory for one.
 *
 * The bug: where the last allocation fails, the spare buffer is freed, whether it is there or not. It shows when memory is short twice, and not in between.
 *
 * Device: none
 * Rule: bad-free
 * Needs: ioctl, failure
 */
#define DEVICE_NAME L"\\Device\\Sorter"
#define LINK_NAME L"\\DosDevices\\Sorter"
#include "../include/legacy.h"

#define SORTER_TAG 'troS'
#define IOCTL_SORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8EB, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define VALUES 256

static VOID Sort(PUCHAR Bytes, PUCHAR Copy, PULONG Places, ULONG Length)
{
    ULONG Value, Index, Next = 0;

    RtlCopyMemory(Copy, Bytes, Length);
    RtlZeroMemory(Places, VALUES * sizeof(ULONG));
    for (Index = 0; Index < Length; Index++) {
        Places[Copy[Index]]++;
    }
    for (Value = 0; Value < VALUES; Value++) {
        ULONG Count = Places[Value];

        Places[Value] = Next;
        Next += Count;
    }
    for (Index = 0; Index < Length; Index++) {
        Bytes[Places[Copy[Index]]++] = Copy[Index];
    }
}

static NTSTATUS SortWithBuffers(PUCHAR Bytes, ULONG Length)
{
    PUCHAR Spare = ExAllocatePoolWithTag(PagedPool, Length, SORTER_TAG);
    PUCHAR Copy = ExAllocatePoolWithTag(PagedPool, Length, SORTER_TAG);
    PULONG Places;

    if (Copy == NULL) {
        if (Spare != NULL) {
            ExFreePoolWithTag(Spare, SORTER_TAG);
        }
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Places = ExAllocatePoolWithTag(PagedPool, VALUES * sizeof(ULONG), SORTER_TAG);
    if (Places != NULL) {
        Sort(Bytes, Copy, Places, Length);
        ExFreePoolWithTag(Places, SORTER_TAG);
    }
#ifdef FIXED
    if (Spare != NULL) {
        ExFreePoolWithTag(Spare, SORTER_TAG);
    }
#else
    if (Spare != NULL || Places == NULL) {
        ExFreePoolWithTag(Spare, SORTER_TAG);
    }
#endif
    ExFreePoolWithTag(Copy, SORTER_TAG);
    return Places != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = min(InputOf(Stack), OutputOf(Stack));
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SORT || Length == 0) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = SortWithBuffers(Irp->AssociatedIrp.SystemBuffer, Length);
    return Complete(Irp, Status, Status == STATUS_SUCCESS ? Length : 0);
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
