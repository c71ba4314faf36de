/*
 * doorbell: lets threads of different processes meet: one waits at a numbered door until another rings there or its time is over.
 *
 * The bug: the waiter with its event lies on the kernel stack while the thread waits in UserMode. Windows may page out the stack of such a thread;
 * the ringer then walks the list and sets the event under a spin lock, at DISPATCH_LEVEL, in memory that is not there.
 *
 * Device: none
 * Rule: user-wait-on-stack
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define DOOR_TAG 'rooD'
#define LONGEST_WAIT 30000u /* milliseconds */

typedef struct _DOOR_REQUEST {
    ULONG Door;
    ULONG Milliseconds; /* wait only */
} DOOR_REQUEST;

#define IOCTL_DOOR_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)   /* in: DOOR_REQUEST; out: ULONG, rings so far */
#define IOCTL_DOOR_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)  /* in: DOOR_REQUEST; out: ULONG, threads woken */
#define IOCTL_DOOR_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)  /* in: DOOR_REQUEST; out: ULONG, threads waiting */

DRIVER_INITIALIZE DriverEntry;

typedef struct _WAITER {
    LIST_ENTRY Entry;
    ULONG Door;
    BOOLEAN Rung; /* and so no longer in the list */
    ULONG Number;
    KEVENT Event;
} WAITER, *PWAITER;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Doorbell");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Doorbell");
static PDEVICE_OBJECT Control;
static KSPIN_LOCK Lock; /* guards the rest and all waiters */
static LIST_ENTRY Waiters;
static ULONG Rings;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS WaitAt(const DOOR_REQUEST *Request, PULONG Number)
{
#ifdef FIXED
    PWAITER Waiter = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Waiter), DOOR_TAG);
#else
    WAITER OnStack;
    PWAITER Waiter = &OnStack;
#endif
    LARGE_INTEGER Limit;
    NTSTATUS Status;
    KIRQL Irql;

    if (Waiter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Waiter->Door = Request->Door;
    Waiter->Rung = FALSE;
    Waiter->Number = 0;
    KeInitializeEvent(&Waiter->Event, NotificationEvent, FALSE);
    KeAcquireSpinLock(&Lock, &Irql);
    InsertTailList(&Waiters, &Waiter->Entry);
    KeReleaseSpinLock(&Lock, Irql);

    /* in UserMode, so that the thread can be ended meanwhile */
    Limit.QuadPart = -10000LL * Request->Milliseconds;
    Status = KeWaitForSingleObject(&Waiter->Event, UserRequest, UserMode, FALSE, &Limit);

    KeAcquireSpinLock(&Lock, &Irql);
    if (Waiter->Rung) {
        *Number = Waiter->Number;
        Status = STATUS_SUCCESS;
    } else {
        RemoveEntryList(&Waiter->Entry);
        Status = Status == STATUS_TIMEOUT ? STATUS_IO_TIMEOUT : STATUS_CANCELLED;
    }
    KeReleaseSpinLock(&Lock, Irql);
#ifdef FIXED
    ExFreePoolWithTag(Waiter, DOOR_TAG);
#endif
    return Status;
}

static ULONG RingAt(ULONG Door)
{
    PLIST_ENTRY e, Next;
    ULONG Woken = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&Lock, &Irql);
    Rings++;
    for (e = Waiters.Flink; e != &Waiters; e = Next) {
        PWAITER Waiter = CONTAINING_RECORD(e, WAITER, Entry);

        Next = e->Flink;
        if (Waiter->Door == Door) {
            RemoveEntryList(e);
            Waiter->Number = Rings;
            Waiter->Rung = TRUE;
            KeSetEvent(&Waiter->Event, IO_NO_INCREMENT, FALSE); /* it comes past the lock before it goes */
            Woken++;
        }
    }
    KeReleaseSpinLock(&Lock, Irql);
    return Woken;
}

static ULONG CountAt(ULONG Door)
{
    PLIST_ENTRY e;
    ULONG n = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&Lock, &Irql);
    for (e = Waiters.Flink; e != &Waiters; e = e->Flink) {
        if (CONTAINING_RECORD(e, WAITER, Entry)->Door == Door)
            n++;
    }
    KeReleaseSpinLock(&Lock, Irql);
    return n;
}

static NTSTATUS NTAPI DoorControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = s->Parameters.DeviceIoControl.IoControlCode;
    DOOR_REQUEST Request;
    ULONG Answer = 0;
    NTSTATUS Status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Device);
    if (Code != IOCTL_DOOR_WAIT && Code != IOCTL_DOOR_RING && Code != IOCTL_DOOR_COUNT)
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(Request) || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    RtlCopyMemory(&Request, Irp->AssociatedIrp.SystemBuffer, sizeof(Request));

    switch (Code) {
    case IOCTL_DOOR_WAIT:
        if (Request.Milliseconds > LONGEST_WAIT)
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        Status = WaitAt(&Request, &Answer);
        break;
    case IOCTL_DOOR_RING:
        Answer = RingAt(Request.Door);
        break;
    case IOCTL_DOOR_COUNT:
        Answer = CountAt(Request.Door);
        break;
    }
    if (!NT_SUCCESS(Status))
        return Complete(Irp, Status, 0);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Answer, sizeof(Answer));
    return Complete(Irp, STATUS_SUCCESS, sizeof(Answer));
}

static NTSTATUS NTAPI DoorOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI DoorUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    KeInitializeSpinLock(&Lock);
    InitializeListHead(&Waiters);
    Driver->MajorFunction[IRP_MJ_CREATE] = DoorOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DoorOpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DoorControl;
    Driver->DriverUnload = DoorUnload;
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Control);
    return Status;
}
