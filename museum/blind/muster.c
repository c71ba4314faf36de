/*
 * muster: waits on behalf of a program until all of up to eight events are signalled, within a limit of time, and counts how it went.
 *
 * The bug: KeWaitForMultipleObjects is given no wait blocks. A thread has three of its own (THREAD_WAIT_OBJECTS); a wait for four events or more without an
 * array of wait blocks stops the machine with MAXIMUM_WAIT_OBJECTS_EXCEEDED.
 *
 * Device: none
 * Rule: wait-object-count
 * Needs: ioctl
 */
#include "../include/ticking_card.h"

#define MOST 8
#define LONGEST 10000

#define IOCTL_MUSTER_ALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MUSTER_TALLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _MUSTER_ALL {
    ULONG Count;
    ULONG Milliseconds;
    ULONG64 Event[MOST];
} MUSTER_ALL, *PMUSTER_ALL;

typedef struct _MUSTER_TALLY {
    LONG Complete;
    LONG Late;
    LONG Broken;
} MUSTER_TALLY, *PMUSTER_TALLY;

typedef struct _MUSTER {
    volatile LONG Complete, Late, Broken;
} MUSTER, *PMUSTER;

typedef struct _PARTY {
    ULONG Count;
    PVOID Event[MOST];
#ifdef FIXED
    KWAIT_BLOCK Block[MOST];
#endif
} PARTY, *PPARTY;

static VOID Dismiss(PPARTY p)
{
    while (p->Count)
        ObDereferenceObject(p->Event[--p->Count]);
    ExFreePoolWithTag(p, 'suMZ');
}

/* References the events of the caller's handles; a thread cannot wait for the same event twice at a time. */
static NTSTATUS Gather(const MUSTER_ALL *In, PPARTY *Out)
{
    PPARTY p;
    NTSTATUS Status;
    ULONG i, k;

    p = ExAllocatePoolWithTag(NonPagedPool, sizeof(*p), 'suMZ');
    if (!p)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(p, sizeof(*p));
    for (i = 0; i < In->Count; i++) {
        PVOID Event;

        Status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)In->Event[i], SYNCHRONIZE, *ExEventObjectType, UserMode, &Event, NULL);
        if (!NT_SUCCESS(Status)) {
            Dismiss(p);
            return Status;
        }
        p->Event[p->Count++] = Event;
        for (k = 0; k < i; k++) {
            if (p->Event[k] == Event) {
                Dismiss(p);
                return STATUS_INVALID_PARAMETER_MIX;
            }
        }
    }
    *Out = p;
    return STATUS_SUCCESS;
}

static NTSTATUS WaitAllOf(PMUSTER m, const MUSTER_ALL *In)
{
    LARGE_INTEGER Due;
    PPARTY p;
    NTSTATUS Status;

    if (!In->Count || In->Count > MOST || In->Milliseconds > LONGEST)
        return STATUS_INVALID_PARAMETER;
    Status = Gather(In, &p);
    if (!NT_SUCCESS(Status))
        return Status;

    Due.QuadPart = -(LONGLONG)In->Milliseconds * 10000;
#ifdef FIXED
    Status = KeWaitForMultipleObjects(p->Count, p->Event, WaitAll, UserRequest, UserMode, FALSE, &Due, p->Block);
#else
    Status = KeWaitForMultipleObjects(p->Count, p->Event, WaitAll, UserRequest, UserMode, FALSE, &Due, NULL);
#endif
    Dismiss(p);

    if (Status == STATUS_TIMEOUT) {
        InterlockedIncrement(&m->Late);
        return STATUS_IO_TIMEOUT;
    }
    if (Status == STATUS_USER_APC || Status == STATUS_ALERTED || !NT_SUCCESS(Status)) {
        InterlockedIncrement(&m->Broken);
        return NT_SUCCESS(Status) ? STATUS_CANCELLED : Status;
    }
    InterlockedIncrement(&m->Complete);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Self, PIRP Irp)
{
    PMUSTER m = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    /* handles mean something only in the process that calls */
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MUSTER_ALL:
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(MUSTER_ALL))
            return ZComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return ZComplete(Irp, WaitAllOf(m, Buffer), 0);

    case IOCTL_MUSTER_TALLY: {
        PMUSTER_TALLY Out = Buffer;

        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(MUSTER_TALLY))
            return ZComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Out->Complete = m->Complete;
        Out->Late = m->Late;
        Out->Broken = m->Broken;
        return ZComplete(Irp, STATUS_SUCCESS, sizeof(*Out));
    }
    }
    return ZComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT Self, PIRP Irp)
{
    (void)Self;
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING Link;

    RtlInitUnicodeString(&Link, L"\\DosDevices\\Muster");
    IoDeleteSymbolicLink(&Link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING Name, Link;
    PDEVICE_OBJECT Self;
    NTSTATUS Status;

    (void)Path;
    RtlInitUnicodeString(&Name, L"\\Device\\Muster");
    RtlInitUnicodeString(&Link, L"\\DosDevices\\Muster");
    Driver->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;

    Status = IoCreateDevice(Driver, sizeof(MUSTER), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    RtlZeroMemory(Self->DeviceExtension, sizeof(MUSTER));
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Self);
    return Status;
}
