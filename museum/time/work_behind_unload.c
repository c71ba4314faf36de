/*
 * A journal whose entries are written by a work item, so that a write need not wait for it.
 *
 * The bug: it is an item of ExQueueWorkItem, which keeps neither device nor driver, and Unload does not wait for those that are queued. It shows when the
 * driver is unloaded after a write.
 *
 * Device: none
 * Rule: unload-still-called, work-item, use-after-free
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Journal"
#define LINK_NAME L"\\DosDevices\\Journal"
#include "../include/legacy.h"

#define ENTRY_TAG 'nruJ'

typedef struct _DEVICE {
    LONG Outstanding; /* entries, and 1 until Unload */
    KEVENT None;
    LONG Written;
} DEVICE, *PDEVICE;

typedef struct _ENTRY {
    WORK_QUEUE_ITEM Item;
    PDEVICE Own;
} ENTRY, *PENTRY;

static VOID Release(PDEVICE Own)
{
    if (InterlockedDecrement(&Own->Outstanding) == 0) {
        KeSetEvent(&Own->None, IO_NO_INCREMENT, FALSE);
    }
}

static VOID NTAPI WriteEntry(PVOID Context)
{
    PENTRY Entry = Context;
    PDEVICE Own = Entry->Own;

    ExFreePoolWithTag(Entry, ENTRY_TAG);
    InterlockedIncrement(&Own->Written);
    Release(Own);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PENTRY Entry = ExAllocatePoolWithTag(NonPagedPool, sizeof(ENTRY), ENTRY_TAG);

    if (Entry == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Entry->Own = Own;
    InterlockedIncrement(&Own->Outstanding);
    ExInitializeWorkItem(&Entry->Item, WriteEntry, Entry);
    ExQueueWorkItem(&Entry->Item, DelayedWorkQueue);
    return Complete(Irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    Release(Own);
#ifdef FIXED
    KeWaitForSingleObject(&Own->None, Executive, KernelMode, FALSE, NULL);
#endif
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Own = Device->DeviceExtension;
        Own->Outstanding = 1;
        KeInitializeEvent(&Own->None, NotificationEvent, FALSE);
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
