/*
 * evtroll: a roll of event subscribers. A program joins with an event and a topic, one that rings the topic sets the events of all that joined it;
 * what a handle has joined is left when it is closed.
 *
 * The bug: when JOIN refuses (the handle has joined the topic already, or the roll is full), the reference on the event object that was taken before
 * is not given back; the event is never freed.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define ROLL_TAG 'lloR'
#define MAX_MEMBERS 64

#ifndef EVENT_MODIFY_STATE
#define EVENT_MODIFY_STATE 0x0002
#endif

#define IOCTL_ROLL_JOIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROLL_LEAVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROLL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ROLL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _JOIN {
    ULONGLONG Event; /* a handle */
    ULONG Topic;
    ULONG Reserved;
} JOIN, *PJOIN;

typedef struct _MEMBER {
    LIST_ENTRY Link;
    PFILE_OBJECT File;
    PKEVENT Event;
    ULONG Topic;
} MEMBER, *PMEMBER;

typedef struct _ROLL {
    KSPIN_LOCK Lock;
    LIST_ENTRY Members;
    ULONG Number;
    ULONG Rings;
} ROLL, *PROLL;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\EvtRoll");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS Join(PROLL roll, PFILE_OBJECT file, const JOIN *join, KPROCESSOR_MODE mode)
{
    PMEMBER member;
    PLIST_ENTRY entry;
    PVOID event;
    NTSTATUS status;
    KIRQL irql;

    if (join->Reserved != 0)
        return STATUS_INVALID_PARAMETER;
    member = ExAllocatePoolWithTag(NonPagedPool, sizeof(*member), ROLL_TAG);
    if (!member)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)join->Event, EVENT_MODIFY_STATE, *ExEventObjectType, mode, &event, NULL);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(member, ROLL_TAG);
        return status;
    }
    member->File = file;
    member->Event = event;
    member->Topic = join->Topic;

    KeAcquireSpinLock(&roll->Lock, &irql);
    if (roll->Number >= MAX_MEMBERS)
        status = STATUS_QUOTA_EXCEEDED;
    for (entry = roll->Members.Flink; entry != &roll->Members && NT_SUCCESS(status); entry = entry->Flink) {
        PMEMBER other = CONTAINING_RECORD(entry, MEMBER, Link);

        if (other->File == file && other->Topic == join->Topic)
            status = STATUS_OBJECT_NAME_COLLISION;
    }
    if (NT_SUCCESS(status)) {
        InsertTailList(&roll->Members, &member->Link);
        roll->Number++;
    }
    KeReleaseSpinLock(&roll->Lock, irql);

    if (!NT_SUCCESS(status)) {
#ifdef FIXED
        ObDereferenceObject(event);
#endif
        ExFreePoolWithTag(member, ROLL_TAG);
    }
    return status;
}

/* Takes the members of the handle off the roll: all of them or those of one topic. Returns how many. */
static ULONG Leave(PROLL roll, PFILE_OBJECT file, const ULONG *topic)
{
    LIST_ENTRY left;
    PLIST_ENTRY entry, next;
    ULONG number = 0;
    KIRQL irql;

    InitializeListHead(&left);
    KeAcquireSpinLock(&roll->Lock, &irql);
    for (entry = roll->Members.Flink; entry != &roll->Members; entry = next) {
        PMEMBER member = CONTAINING_RECORD(entry, MEMBER, Link);

        next = entry->Flink;
        if (member->File != file || (topic && member->Topic != *topic))
            continue;
        RemoveEntryList(entry);
        InsertTailList(&left, entry);
        roll->Number--;
        number++;
    }
    KeReleaseSpinLock(&roll->Lock, irql);
    while (!IsListEmpty(&left)) {
        PMEMBER member = CONTAINING_RECORD(RemoveHeadList(&left), MEMBER, Link);

        ObDereferenceObject(member->Event);
        ExFreePoolWithTag(member, ROLL_TAG);
    }
    return number;
}

static ULONG Ring(PROLL roll, ULONG topic)
{
    PLIST_ENTRY entry;
    ULONG number = 0;
    KIRQL irql;

    KeAcquireSpinLock(&roll->Lock, &irql);
    for (entry = roll->Members.Flink; entry != &roll->Members; entry = entry->Flink) {
        PMEMBER member = CONTAINING_RECORD(entry, MEMBER, Link);

        if (member->Topic != topic)
            continue;
        KeSetEvent(member->Event, IO_NO_INCREMENT, FALSE);
        number++;
    }
    roll->Rings++;
    KeReleaseSpinLock(&roll->Lock, irql);
    return number;
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS, 0);
}

/* Cleanup and close: a JOIN may still have been running at the cleanup. */
static NTSTATUS NTAPI CleanupClose(PDEVICE_OBJECT device, PIRP irp)
{
    Leave(device->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, NULL);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT device, PIRP irp)
{
    PROLL roll = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG inLength = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG numbers[2];
    ULONG topic;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROLL_JOIN:
        if (inLength < sizeof(JOIN))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        return Finish(irp, Join(roll, stack->FileObject, buffer, irp->RequestorMode), 0);

    case IOCTL_ROLL_LEAVE:
        if (inLength < sizeof(ULONG))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        topic = *(PULONG)buffer;
        return Finish(irp, Leave(roll, stack->FileObject, &topic) ? STATUS_SUCCESS : STATUS_NOT_FOUND, 0);

    case IOCTL_ROLL_RING:
        if (inLength < sizeof(ULONG) || outLength < sizeof(ULONG))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)buffer = Ring(roll, *(PULONG)buffer);
        return Finish(irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_ROLL_COUNT:
        if (outLength < sizeof(numbers))
            return Finish(irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&roll->Lock, &irql);
        numbers[0] = roll->Number;
        numbers[1] = roll->Rings;
        KeReleaseSpinLock(&roll->Lock, irql);
        RtlCopyMemory(buffer, numbers, sizeof(numbers));
        return Finish(irp, STATUS_SUCCESS, sizeof(numbers));
    }
    return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\EvtRoll");
    PDEVICE_OBJECT device;
    PROLL roll;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(ROLL), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    roll = device->DeviceExtension;
    RtlZeroMemory(roll, sizeof(*roll));
    KeInitializeSpinLock(&roll->Lock);
    InitializeListHead(&roll->Members);
    driver->MajorFunction[IRP_MJ_CREATE] = Create;
    driver->MajorFunction[IRP_MJ_CLOSE] = CleanupClose;
    driver->MajorFunction[IRP_MJ_CLEANUP] = CleanupClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    status = IoCreateSymbolicLink(&LinkName, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
