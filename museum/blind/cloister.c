/*
 * cloister: a small table of named values (sixteen of them) that applications put, get and drop; many may read at a time.
 *
 * The bug: when a new name does not fit into the full table, the resource is released but the critical region is not left, so the thread
 * returns to the application with its kernel APCs disabled, which is a bug check.
 *
 * Device: none
 * Rule: critical-region-unpaired
 * Needs: ioctl
 */
#include "../include/bay_control.h"

#define IOCTL_PUT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ITEM */
#define IOCTL_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: name; out: ITEM */
#define IOCTL_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: name */

#define NAME 24
#define ITEMS 16

typedef struct ITEM {
    UCHAR name[NAME];                           /* all bytes count */
    ULONGLONG value;
} ITEM;

static ERESOURCE Resource;
static ITEM Table[ITEMS];
static ULONG Count;

static ITEM *Find(const UCHAR *name)
{
    ULONG i;

    for (i = 0; i < Count; ++i) {
        if (RtlCompareMemory(Table[i].name, name, NAME) == NAME)
            return &Table[i];
    }
    return NULL;
}

static NTSTATUS Put(const ITEM *item)
{
    ITEM *place;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Resource, TRUE);
    place = Find(item->name);
    if (!place) {
        if (Count == ITEMS) {
            ExReleaseResourceLite(&Resource);
#ifdef FIXED
            KeLeaveCriticalRegion();
#endif
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        place = &Table[Count++];
    }
    *place = *item;
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    return STATUS_SUCCESS;
}

static NTSTATUS Get(ITEM *item)
{
    ITEM *place;

    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Resource, TRUE);
    place = Find(item->name);
    if (place)
        *item = *place;
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    return place ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS Drop(const UCHAR *name)
{
    ITEM *place;

    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Resource, TRUE);
    place = Find(name);
    if (place)
        *place = Table[--Count];
    ExReleaseResourceLite(&Resource);
    KeLeaveCriticalRegion();
    return place ? STATUS_SUCCESS : STATUS_NOT_FOUND;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    IO_STACK_LOCATION *stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ITEM *item = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(self);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PUT:
        if (in != sizeof *item)
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        return AfcComplete(irp, Put(item), 0);
    case IOCTL_GET:
        if (in != NAME)
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof *item)
            return AfcComplete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = Get(item);
        return AfcComplete(irp, status, NT_SUCCESS(status) ? sizeof *item : 0);
    case IOCTL_DROP:
        if (in != NAME)
            return AfcComplete(irp, STATUS_INVALID_PARAMETER, 0);
        return AfcComplete(irp, Drop(item->name), 0);
    default:
        return AfcComplete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    AfcDelete(L"\\DosDevices\\AfCloister");
    ExDeleteResourceLite(&Resource);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status = ExInitializeResourceLite(&Resource);

    UNREFERENCED_PARAMETER(path);
    if (!NT_SUCCESS(status))
        return status;
    driver->MajorFunction[IRP_MJ_CREATE] = AfcNothing;
    driver->MajorFunction[IRP_MJ_CLOSE] = AfcNothing;
    driver->MajorFunction[IRP_MJ_CLEANUP] = AfcNothing;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    status = AfcMake(driver, L"\\Device\\AfCloister", L"\\DosDevices\\AfCloister");
    if (!NT_SUCCESS(status))
        ExDeleteResourceLite(&Resource);
    return status;
}
