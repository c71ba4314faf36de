/*
 * lookout: watches for serial ports that come and go (device interface notification) and gives their names, one per read, in order of arrival.
 *
 * The bug: when the device is stopped or removed, the notification is unregistered while the mutex of the list is held. Unregistering waits for a
 * notification under way, and that waits for the mutex: a deadlock in the Plug and Play thread.
 *
 * Device: ROOT\LOOKOUT
 * Rule: deadlock
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define NAME_TAG 'tkoL'
#define MOST_NAMES 64u
#define LONGEST_NAME 512u /* bytes */

#define IOCTL_LOOKOUT_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: LOOKOUT_COUNT */

typedef struct _LOOKOUT_COUNT {
    ULONG Arrived;
    ULONG Left;
    ULONG Lost; /* names for which there was no room */
    ULONG Waiting;
} LOOKOUT_COUNT;

DRIVER_INITIALIZE DriverEntry;

/* {7D0B6C5A-4938-4271-9605-F4E3D2C1B004} */
static const GUID LookoutGuid = {0x7d0b6c5a, 0x4938, 0x4271, {0x96, 0x05, 0xf4, 0xe3, 0xd2, 0xc1, 0xb0, 0x04}};
/* GUID_DEVINTERFACE_COMPORT */
static const GUID PortGuid = {0x86e0d1e0, 0x8089, 0x11d0, {0x9c, 0xe4, 0x08, 0x00, 0x3e, 0x30, 0x1f, 0x73}};
/* GUID_DEVICE_INTERFACE_ARRIVAL and _REMOVAL */
static const GUID ArrivalGuid = {0xcb3a4004, 0x46f0, 0x11d0, {0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f}};
static const GUID RemovalGuid = {0xcb3a4005, 0x46f0, 0x11d0, {0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f}};

typedef struct _NAME {
    LIST_ENTRY Entry;
    ULONG Length; /* bytes */
    UCHAR Text[LONGEST_NAME];
} NAME, *PNAME;

typedef struct _LOOKOUT {
    XF X;
    PVOID Notification; /* only start and stop touch it */
    KMUTEX ListLock;    /* guards the rest */
    LIST_ENTRY Names;
    LOOKOUT_COUNT Count;
} LOOKOUT, *PLOOKOUT;

static BOOLEAN SameGuid(const GUID *a, const GUID *b)
{
    return RtlCompareMemory(a, b, sizeof(GUID)) == sizeof(GUID);
}

static VOID LockList(PLOOKOUT l)
{
    KeWaitForSingleObject(&l->ListLock, Executive, KernelMode, FALSE, NULL);
}

static VOID UnlockList(PLOOKOUT l)
{
    KeReleaseMutex(&l->ListLock, FALSE);
}

static NTSTATUS NTAPI PortChanged(PVOID Structure, PVOID Context)
{
    PDEVICE_INTERFACE_CHANGE_NOTIFICATION n = Structure;
    PLOOKOUT l = Context;
    PNAME Name = NULL;

    if (SameGuid(&n->Event, &ArrivalGuid)) {
        if (n->SymbolicLinkName->Length <= LONGEST_NAME)
            Name = ExAllocatePoolWithTag(PagedPool, sizeof(*Name), NAME_TAG);
        if (Name != NULL) {
            Name->Length = n->SymbolicLinkName->Length;
            RtlCopyMemory(Name->Text, n->SymbolicLinkName->Buffer, Name->Length);
        }
        LockList(l);
        l->Count.Arrived++;
        if (Name != NULL && l->Count.Waiting < MOST_NAMES) {
            InsertTailList(&l->Names, &Name->Entry);
            l->Count.Waiting++;
            Name = NULL;
        } else {
            l->Count.Lost++;
        }
        UnlockList(l);
        if (Name != NULL)
            ExFreePoolWithTag(Name, NAME_TAG);
    } else if (SameGuid(&n->Event, &RemovalGuid)) {
        LockList(l);
        l->Count.Left++;
        UnlockList(l);
    }
    return STATUS_SUCCESS;
}

/* The mutex is held. */
static VOID FreeNames(PLOOKOUT l)
{
    while (!IsListEmpty(&l->Names))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&l->Names), NAME, Entry), NAME_TAG);
    RtlZeroMemory(&l->Count, sizeof(l->Count));
}

static NTSTATUS ReadName(PLOOKOUT l, PIRP Irp, ULONG Room)
{
    PNAME Name = NULL;
    NTSTATUS Status = STATUS_SUCCESS;

    LockList(l);
    if (!IsListEmpty(&l->Names)) {
        Name = CONTAINING_RECORD(l->Names.Flink, NAME, Entry);
        if (Name->Length > Room) {
            Name = NULL;
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RemoveEntryList(&Name->Entry);
            l->Count.Waiting--;
        }
    }
    UnlockList(l);
    if (Name != NULL) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Name->Text, Name->Length);
        Irp->IoStatus.Information = Name->Length;
        ExFreePoolWithTag(Name, NAME_TAG);
    }
    return Status;
}

/* Requests come at PASSIVE_LEVEL, from programs. */
static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PLOOKOUT l = CONTAINING_RECORD(x, LOOKOUT, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    LOOKOUT_COUNT Count;

    if (s->MajorFunction == IRP_MJ_READ)
        return ReadName(l, Irp, s->Parameters.Read.Length);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_LOOKOUT_COUNT)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(Count))
        return STATUS_BUFFER_TOO_SMALL;
    LockList(l);
    Count = l->Count;
    UnlockList(l);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Count, sizeof(Count));
    Irp->IoStatus.Information = sizeof(Count);
    return STATUS_SUCCESS;
}

/* Nothing goes through the queue. */
static VOID DevIo(PXF x, PIRP Irp)
{
    XfFinish(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS DevInit(PXF x)
{
    PLOOKOUT l = CONTAINING_RECORD(x, LOOKOUT, X);

    KeInitializeMutex(&l->ListLock, 0);
    InitializeListHead(&l->Names);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PLOOKOUT l = CONTAINING_RECORD(x, LOOKOUT, X);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(List);
    /* ports that are there already are announced before this returns: the mutex must be free */
    Status = IoRegisterPlugPlayNotification(EventCategoryDeviceInterfaceChange, PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES, (PVOID)&PortGuid,
                                            x->Self->DriverObject, PortChanged, l, &l->Notification);
    if (!NT_SUCCESS(Status)) {
        l->Notification = NULL;
        LockList(l);
        FreeNames(l);
        UnlockList(l);
    }
    return Status;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PLOOKOUT l = CONTAINING_RECORD(x, LOOKOUT, X);

    UNREFERENCED_PARAMETER(Alive);
#ifdef FIXED
    IoUnregisterPlugPlayNotificationEx(l->Notification); /* no callback is under way after it */
    LockList(l);
#else
    LockList(l);
    IoUnregisterPlugPlayNotificationEx(l->Notification);
#endif
    l->Notification = NULL;
    FreeNames(l);
    UnlockList(l);
}

static VOID DevUp(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevDown(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(LOOKOUT), &LookoutGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
