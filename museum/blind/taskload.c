/*
 * taskload: a monitoring utility: keeps a list of up to 32 processes and counts, once a second, how long each has
 * lived and whether it has ended. Programs add, drop and list them.
 *
 * The bug: adding a process that is listed already (or when the list is full) keeps the reference to the process for
 * ever.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: ioctl
 */
#include <ddk/wdm.h>

NTKERNELAPI NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE pid, PEPROCESS *process);

#define IOCTL_TASK_ADD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TASK_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TASK_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_READ_ACCESS)

#define TASKS 32

typedef struct TASK_INFO { ULONG Pid, Seconds, Ended, Reserved; } TASK_INFO;

typedef struct TASK {
    PEPROCESS Process;          /* referenced; NULL: a free place */
    TASK_INFO Info;
} TASK;

typedef struct LOAD {
    PDEVICE_OBJECT Self;
    FAST_MUTEX Mutex;           /* guards Tasks */
    TASK Tasks[TASKS];
    KTIMER Timer;
    KDPC Dpc;
    PIO_WORKITEM Item;
    volatile LONG Busy;
    KEVENT Idle;
} LOAD;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\TaskLoad");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\TaskLoad");

static VOID NTAPI LoadSample(PDEVICE_OBJECT dev, PVOID context)
{
    LOAD *load = context;
    LARGE_INTEGER now = { .QuadPart = 0 };
    ULONG i;

    UNREFERENCED_PARAMETER(dev);
    ExAcquireFastMutex(&load->Mutex);
    for (i = 0; i < TASKS; i++) {
        TASK *t = &load->Tasks[i];
        if (!t->Process || t->Info.Ended)
            continue;
        if (KeWaitForSingleObject(t->Process, Executive, KernelMode, FALSE, &now) == STATUS_SUCCESS)
            t->Info.Ended = 1;
        else
            t->Info.Seconds++;
    }
    ExReleaseFastMutex(&load->Mutex);
    KeSetEvent(&load->Idle, IO_NO_INCREMENT, FALSE);
    InterlockedExchange(&load->Busy, 0);
}

static VOID NTAPI LoadTick(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    LOAD *load = context;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (InterlockedExchange(&load->Busy, 1) == 0) {
        KeClearEvent(&load->Idle);
        IoQueueWorkItem(load->Item, LoadSample, DelayedWorkQueue, load);
    }
}

static NTSTATUS LoadAdd(LOAD *load, ULONG pid)
{
    PEPROCESS process;
    TASK *place = NULL;
    ULONG i;
    NTSTATUS status = PsLookupProcessByProcessId((HANDLE)(ULONG_PTR)pid, &process);

    if (!NT_SUCCESS(status))
        return status;
    ExAcquireFastMutex(&load->Mutex);
    for (i = 0; i < TASKS; i++) {
        TASK *t = &load->Tasks[i];
        if (t->Process == process) {
            status = STATUS_OBJECT_NAME_COLLISION;
            break;
        }
        if (!t->Process && !place)
            place = t;
    }
    if (NT_SUCCESS(status) && !place)
        status = STATUS_INSUFFICIENT_RESOURCES;
    if (NT_SUCCESS(status)) {
        RtlZeroMemory(place, sizeof(*place));
        place->Process = process;
        place->Info.Pid = pid;
    }
    ExReleaseFastMutex(&load->Mutex);
#ifdef FIXED
    if (!NT_SUCCESS(status))
        ObDereferenceObject(process);
#endif
    return status;
}

static NTSTATUS LoadDrop(LOAD *load, ULONG pid)
{
    PEPROCESS process = NULL;
    ULONG i;

    ExAcquireFastMutex(&load->Mutex);
    for (i = 0; i < TASKS && !process; i++) {
        TASK *t = &load->Tasks[i];
        if (t->Process && t->Info.Pid == pid) {
            process = t->Process;
            t->Process = NULL;
        }
    }
    ExReleaseFastMutex(&load->Mutex);
    if (!process)
        return STATUS_NOT_FOUND;
    ObDereferenceObject(process);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI LoadControl(PDEVICE_OBJECT dev, PIRP irp)
{
    LOAD *load = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;

    if (code == IOCTL_TASK_ADD || code == IOCTL_TASK_DROP) {
        if (in < sizeof(ULONG))
            status = STATUS_INVALID_PARAMETER;
        else if (code == IOCTL_TASK_ADD)
            status = LoadAdd(load, *(ULONG *)buffer);
        else
            status = LoadDrop(load, *(ULONG *)buffer);
    } else if (code == IOCTL_TASK_LIST) {
        TASK_INFO *to = buffer;
        ULONG i, n = 0, room = out / sizeof(TASK_INFO);
        ExAcquireFastMutex(&load->Mutex);
        for (i = 0; i < TASKS && n < room; i++)
            if (load->Tasks[i].Process)
                to[n++] = load->Tasks[i].Info;
        ExReleaseFastMutex(&load->Mutex);
        info = n * sizeof(TASK_INFO);
        status = STATUS_SUCCESS;
    }
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI LoadCreateClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI LoadUnload(PDRIVER_OBJECT drv)
{
    LOAD *load = drv->DeviceObject->DeviceExtension;
    ULONG i;

    IoDeleteSymbolicLink(&LinkName);
    KeCancelTimer(&load->Timer);
    KeFlushQueuedDpcs();
    KeWaitForSingleObject(&load->Idle, Executive, KernelMode, FALSE, NULL);
    IoFreeWorkItem(load->Item);
    for (i = 0; i < TASKS; i++)
        if (load->Tasks[i].Process)
            ObDereferenceObject(load->Tasks[i].Process);
    IoDeleteDevice(load->Self);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    PDEVICE_OBJECT dev;
    LOAD *load;
    LARGE_INTEGER due;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(drv, sizeof(LOAD), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    load = dev->DeviceExtension;
    RtlZeroMemory(load, sizeof(*load));
    load->Self = dev;
    ExInitializeFastMutex(&load->Mutex);
    KeInitializeTimer(&load->Timer);
    KeInitializeDpc(&load->Dpc, LoadTick, load);
    KeInitializeEvent(&load->Idle, NotificationEvent, TRUE);
    load->Item = IoAllocateWorkItem(dev);
    if (!load->Item) {
        IoDeleteDevice(dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    drv->MajorFunction[IRP_MJ_CREATE] = LoadCreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = LoadCreateClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LoadControl;
    drv->DriverUnload = LoadUnload;
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        IoFreeWorkItem(load->Item);
        IoDeleteDevice(dev);
        return status;
    }
    due.QuadPart = -10000000;
    KeSetTimerEx(&load->Timer, due, 1000, &load->Dpc);
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
