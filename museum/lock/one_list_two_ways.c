/*
 * A list of jobs: IOCTL_JOB_ADD adds one by ExInterlockedInsertTailList, IOCTL_JOB_TAKE takes the first one out.
 *
 * The bug: taking one out is done without the lock that the interlocked routine takes. It shows with a schedule in which both run at a time.
 *
 * Device: none
 * Rule: list-corrupt, use-after-free, double-free, pool-leak, wild-write, fast-fail
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\JobList"
#define LINK_NAME L"\\DosDevices\\JobList"
#include "../include/legacy.h"

#define JOB_TAG 'sboJ'
#define IOCTL_JOB_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA70, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_JOB_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA71, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Jobs;
} DEVICE, *PDEVICE;

typedef struct _JOB {
    LIST_ENTRY Entry;
    ULONG Kind;
} JOB, *PJOB;

static PLIST_ENTRY Take(PDEVICE Own)
{
#ifdef FIXED
    return ExInterlockedRemoveHeadList(&Own->Jobs, &Own->Lock);
#else
    return IsListEmpty(&Own->Jobs) ? NULL : RemoveHeadList(&Own->Jobs);
#endif
}

static NTSTATUS Add(PDEVICE Own)
{
    PJOB Job = ExAllocatePoolWithTag(NonPagedPool, sizeof(JOB), JOB_TAG);

    if (Job == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Job->Kind = 1;
    ExInterlockedInsertTailList(&Own->Jobs, &Job->Entry, &Own->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PLIST_ENTRY Entry;

    switch (CodeOf(IoGetCurrentIrpStackLocation(Irp))) {
    case IOCTL_JOB_ADD:
        return Complete(Irp, Add(Own), 0);
    case IOCTL_JOB_TAKE:
        Entry = Take(Own);
        if (Entry == NULL) {
            return Complete(Irp, STATUS_NO_MORE_ENTRIES, 0);
        }
        ExFreePoolWithTag(CONTAINING_RECORD(Entry, JOB, Entry), JOB_TAG);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    while (!IsListEmpty(&Own->Jobs)) {
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Own->Jobs), JOB, Entry), JOB_TAG);
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
        InitializeListHead(&((PDEVICE)Device->DeviceExtension)->Jobs);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
