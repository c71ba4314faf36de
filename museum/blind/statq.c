/*
 * A software device that keeps named counters: an application bumps a counter by its name, which makes it if there is none, and asks for all of them.
 *
 * The bug: the answer with all counters is said to be as long as the largest one, though only those that exist were put into it, so that the rest of the system buffer, whatever pool held before, goes out to the application.
 * Shows by: the counters are asked for while fewer than the most there can be exist.
 *
 * Device: Root\STATQ
 * Rule: output-never-stored
 * Needs: ioctl
 */
#include "../include/hold_frame.h"

#define STAT_TAG 'tatS'
#define STAT_NAME 12u
#define STAT_MOST 16u

#define IOCTL_STAT_BUMP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c1, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* in: STAT_BUMP */
#define IOCTL_STAT_QUERY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c2, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* out: STAT_REPLY */
#define IOCTL_STAT_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8c3, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _STAT_BUMP {
    CHAR Name[STAT_NAME];                       /* with zeros behind it */
    ULONG By;
} STAT_BUMP, *PSTAT_BUMP;

typedef struct _STAT_ENTRY {
    CHAR Name[STAT_NAME];
    ULONG Value;
} STAT_ENTRY, *PSTAT_ENTRY;

typedef struct _STAT_REPLY {
    ULONG Count;
    STAT_ENTRY Entries[STAT_MOST];
} STAT_REPLY, *PSTAT_REPLY;

typedef struct _STAT {
    KIT Kit;
    FAST_MUTEX Mutex;                           /* Count, Entries */
    ULONG Count;
    STAT_ENTRY Entries[STAT_MOST];
} STAT, *PSTAT;

DRIVER_INITIALIZE DriverEntry;

static const GUID StatInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x04 } };

static NTSTATUS StatBump(PSTAT Stat, const STAT_BUMP *Bump)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG i;

    if (Bump->Name[0] == 0)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Stat->Mutex);
    for (i = 0; i < Stat->Count; i++)
        if (RtlCompareMemory(Stat->Entries[i].Name, Bump->Name, STAT_NAME) == STAT_NAME)
            break;
    if (i == STAT_MOST)
        status = STATUS_QUOTA_EXCEEDED;
    else {
        if (i == Stat->Count) {
            RtlCopyMemory(Stat->Entries[i].Name, Bump->Name, STAT_NAME);
            Stat->Entries[i].Value = 0;
            Stat->Count++;
        }
        Stat->Entries[i].Value += Bump->By;
    }
    ExReleaseFastMutex(&Stat->Mutex);
    return status;
}

static ULONG StatQuery(PSTAT Stat, PSTAT_REPLY Reply)
{
    ULONG i, length;

    ExAcquireFastMutex(&Stat->Mutex);
    Reply->Count = Stat->Count;
    for (i = 0; i < Stat->Count; i++)
        Reply->Entries[i] = Stat->Entries[i];
#ifdef FIXED
    length = FIELD_OFFSET(STAT_REPLY, Entries) + Stat->Count * (ULONG)sizeof(STAT_ENTRY);
#else
    length = sizeof(STAT_REPLY);
#endif
    ExReleaseFastMutex(&Stat->Mutex);
    return length;
}

static NTSTATUS NTAPI StatControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSTAT stat = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = KitEnter(&stat->Kit, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STAT_BUMP:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(STAT_BUMP))
            return KitFinish(&stat->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return KitFinish(&stat->Kit, Irp, StatBump(stat, Irp->AssociatedIrp.SystemBuffer), 0);

    case IOCTL_STAT_QUERY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STAT_REPLY))
            return KitFinish(&stat->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return KitFinish(&stat->Kit, Irp, STATUS_SUCCESS, StatQuery(stat, Irp->AssociatedIrp.SystemBuffer));

    case IOCTL_STAT_RESET:
        ExAcquireFastMutex(&stat->Mutex);
        stat->Count = 0;
        ExReleaseFastMutex(&stat->Mutex);
        return KitFinish(&stat->Kit, Irp, STATUS_SUCCESS, 0);
    }
    return KitFinish(&stat->Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Kit);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

static void KitStop(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static NTSTATUS NTAPI StatAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PSTAT stat;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(STAT), STAT_TAG, &StatInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    stat = device->DeviceExtension;
    ExInitializeFastMutex(&stat->Mutex);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI StatUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, StatAddDevice, StatUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = StatControl;
    return STATUS_SUCCESS;
}
