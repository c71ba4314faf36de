/*
 * A device whose last message is exchanged under a spin lock.
 *
 * The bug: the message before, which is in paged pool, is freed with the lock held, at DISPATCH_LEVEL. It shows with the second message.
 *
 * Device: none
 * Rule: pool-irql, irql-too-high
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\LastMessage"
#define LINK_NAME L"\\DosDevices\\LastMessage"
#include "../include/legacy.h"

#define MESSAGE_TAG 'gseM'

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    PVOID Message;
} DEVICE, *PDEVICE;

static VOID Exchange(PDEVICE Own, PVOID New)
{
    PVOID Old;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Old = Own->Message;
    Own->Message = New;
#ifdef FIXED
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    if (Old != NULL) {
        ExFreePoolWithTag(Old, MESSAGE_TAG);
    }
#else
    if (Old != NULL) {
        ExFreePoolWithTag(Old, MESSAGE_TAG);
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
#endif
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PVOID New;

    if (Length == 0 || Length > PAGE_SIZE) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    New = ExAllocatePoolWithTag(PagedPool, Length, MESSAGE_TAG);
    if (New == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    RtlCopyMemory(New, Irp->AssociatedIrp.SystemBuffer, Length);
    Exchange(Device->DeviceExtension, New);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    if (Own->Message != NULL) {
        ExFreePoolWithTag(Own->Message, MESSAGE_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
