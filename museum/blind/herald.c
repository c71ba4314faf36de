/*
 * herald: an alarm clock. An application gives an event handle and a delay or a period (IOCTL_HERALD_SET); a timer sets
 * the event. Each handle of the device has one alarm; IOCTL_HERALD_QUERY tells how often it rang.
 *
 * The bug: the handle is referenced without the object type being given, so any object may be signalled as if it were
 * an event.
 *
 * Device: none
 * Rule: object-of-another-kind
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define HERALD_TAG 'drlH'
#define IOCTL_HERALD_SET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HERALD_CLEAR  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_HERALD_QUERY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _HERALD_SET {
    ULONG64 Event;
    ULONG DelayMs;
    ULONG PeriodMs;                 /* 0: rings once */
} HERALD_SET;

typedef struct _CLIENT {
    KMUTEX Mutex;                   /* Event, against IOCTLs on the same handle */
    KTIMER Timer;
    KDPC Dpc;
    PKEVENT Event;                  /* referenced while the timer or its DPC may run */
    volatile LONG Rings;
} CLIENT, *PCLIENT;

static const UNICODE_STRING HeraldDevice = RTL_CONSTANT_STRING(L"\\Device\\Herald");
static const UNICODE_STRING HeraldLink = RTL_CONSTANT_STRING(L"\\DosDevices\\Herald");

static VOID NTAPI HeraldDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PCLIENT c = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    InterlockedIncrement(&c->Rings);
    KeSetEvent(c->Event, IO_NO_INCREMENT, FALSE);
}

/* With the mutex, at PASSIVE_LEVEL. */
static VOID HeraldClear(PCLIENT C)
{
    if (C->Event == NULL)
        return;
    KeCancelTimer(&C->Timer);
    KeFlushQueuedDpcs();
    ObDereferenceObject(C->Event);
    C->Event = NULL;
}

static NTSTATUS HeraldSet(PCLIENT C, const HERALD_SET *Set, KPROCESSOR_MODE Mode)
{
    LARGE_INTEGER due;
    PVOID object;
    NTSTATUS status;

    if (Set->PeriodMs > 0x7FFFFFFF)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)Set->Event, EVENT_MODIFY_STATE, *ExEventObjectType, Mode,
                                       &object, NULL);
#else
    status = ObReferenceObjectByHandle((HANDLE)(ULONG_PTR)Set->Event, EVENT_MODIFY_STATE, NULL, Mode,
                                       &object, NULL);
#endif
    if (!NT_SUCCESS(status))
        return status;
    due.QuadPart = -10000LL * Set->DelayMs;
    KeWaitForSingleObject(&C->Mutex, Executive, KernelMode, FALSE, NULL);
    HeraldClear(C);
    C->Event = object;
    KeSetTimerEx(&C->Timer, due, (LONG)Set->PeriodMs, &C->Dpc);
    KeReleaseMutex(&C->Mutex, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS HeraldComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI HeraldCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCLIENT c = ExAllocatePoolWithTag(NonPagedPool, sizeof(CLIENT), HERALD_TAG);

    UNREFERENCED_PARAMETER(DeviceObject);
    if (c == NULL)
        return HeraldComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(c, sizeof(*c));
    KeInitializeMutex(&c->Mutex, 0);
    KeInitializeTimer(&c->Timer);
    KeInitializeDpc(&c->Dpc, HeraldDpc, c);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = c;
    return HeraldComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI HeraldCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCLIENT c = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    KeWaitForSingleObject(&c->Mutex, Executive, KernelMode, FALSE, NULL);
    HeraldClear(c);
    KeReleaseMutex(&c->Mutex, FALSE);
    return HeraldComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI HeraldClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PCLIENT c = file->FsContext;

    UNREFERENCED_PARAMETER(DeviceObject);
    /* A request that was on its way when the last handle was closed may have set an alarm after the clean-up. */
    HeraldClear(c);
    file->FsContext = NULL;
    ExFreePoolWithTag(c, HERALD_TAG);
    return HeraldComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI HeraldControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PCLIENT c = sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HERALD_SET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(HERALD_SET))
            return HeraldComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return HeraldComplete(Irp, HeraldSet(c, buffer, Irp->RequestorMode), 0);

    case IOCTL_HERALD_CLEAR:
        KeWaitForSingleObject(&c->Mutex, Executive, KernelMode, FALSE, NULL);
        HeraldClear(c);
        KeReleaseMutex(&c->Mutex, FALSE);
        return HeraldComplete(Irp, STATUS_SUCCESS, 0);

    case IOCTL_HERALD_QUERY:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return HeraldComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)buffer = (ULONG)c->Rings;
        return HeraldComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return HeraldComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI HeraldUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink((PUNICODE_STRING)&HeraldLink);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = HeraldCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = HeraldCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = HeraldClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = HeraldControl;
    DriverObject->DriverUnload = HeraldUnload;
    status = IoCreateDevice(DriverObject, 0, (PUNICODE_STRING)&HeraldDevice, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink((PUNICODE_STRING)&HeraldLink, (PUNICODE_STRING)&HeraldDevice);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
