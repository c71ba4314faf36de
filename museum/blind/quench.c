/*
 * quench: tells a program the modem lines of the first serial port. The port is opened for the handle; each query is sent to it as a request of the driver's
 * own, which is made once per handle and used again.
 *
 * The bug: the completion routine of the driver's request is not asked for when the port answers with an error. The I/O manager then finishes the driver's
 * request as if it were one of a thread (crash, or it is lost), and the program's request is never ended.
 *
 * Device: none
 * Rule: allocated-irp-completed, irp-never-completed
 * Needs: device
 */
#include <ddk/wdm.h>
#define YK_LEGACY
#include "../include/queue_kit.h"

#define QUE_TAG 'neuQ'

#define IOCTL_QUENCH_LINES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_QUENCH_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

#define IOCTL_SERIAL_GET_MODEMSTATUS CTL_CODE(FILE_DEVICE_SERIAL_PORT, 26, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _QUE_PORT {
    PDEVICE_OBJECT Device; /* of the port */
    PFILE_OBJECT File;
    PIRP Child;            /* our request to it */
    ULONG Answer;
    KSPIN_LOCK Lock;       /* of the rest */
    BOOLEAN Busy;          /* Child is in use */
    BOOLEAN Closing;
    BOOLEAN ChildDone;     /* the port has answered */
    BOOLEAN CancelSeen;    /* the cancel routine has done its part */
    PIRP User;             /* the program's request */
    ULONG Count;
} QUE_PORT, *PQUE_PORT;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING QueLink = {sizeof(L"\\DosDevices\\Quench") - sizeof(WCHAR), sizeof(L"\\DosDevices\\Quench"), (PWSTR)L"\\DosDevices\\Quench"};
static UNICODE_STRING QueName = {sizeof(L"\\Device\\Quench") - sizeof(WCHAR), sizeof(L"\\Device\\Quench"), (PWSTR)L"\\Device\\Quench"};
static UNICODE_STRING QueTarget = {sizeof(L"\\Device\\Serial0") - sizeof(WCHAR), sizeof(L"\\Device\\Serial0"), (PWSTR)L"\\Device\\Serial0"};

/* Under the lock: the round is over; the program's request is the caller's to end. */
static PIRP QueEndRound(PQUE_PORT p)
{
    PIRP User = p->User;

    p->User = NULL;
    p->Busy = FALSE;
    return User;
}

static NTSTATUS NTAPI QueAnswered(PDEVICE_OBJECT DeviceObject, PIRP Child, PVOID Context)
{
    PQUE_PORT p = Context;
    NTSTATUS Status = Child->IoStatus.Status;
    PIRP User = NULL;
    ULONG Answer = p->Answer;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Status) && Child->IoStatus.Information < sizeof(ULONG))
        Status = STATUS_DEVICE_PROTOCOL_ERROR;
    KeAcquireSpinLock(&p->Lock, &Irql);
    p->ChildDone = TRUE;
    p->Count++;
    /* If the cancel routine was called and is not through yet, it ends the request. */
    if (IoSetCancelRoutine(p->User, NULL) != NULL || p->CancelSeen)
        User = QueEndRound(p);
    KeReleaseSpinLock(&p->Lock, Irql);

    if (User != NULL) {
        if (NT_SUCCESS(Status)) {
            *(PULONG)User->AssociatedIrp.SystemBuffer = Answer;
            YkReply(User, STATUS_SUCCESS, sizeof(ULONG));
        } else {
            YkReply(User, Status, 0);
        }
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID NTAPI QueCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUE_PORT p = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    PIRP User = NULL;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    IoCancelIrp(p->Child); /* lives as long as the handle, and the round does not end before this routine has set CancelSeen */
    KeAcquireSpinLock(&p->Lock, &Irql);
    if (p->ChildDone)
        User = QueEndRound(p);
    else
        p->CancelSeen = TRUE;
    KeReleaseSpinLock(&p->Lock, Irql);
    if (User != NULL)
        YkReply(User, STATUS_CANCELLED, 0);
}

static NTSTATUS QueLines(PDEVICE_OBJECT DeviceObject, PQUE_PORT p, PIRP Irp)
{
    PIO_STACK_LOCATION n;
    NTSTATUS Status;
    KIRQL Irql;

    KeAcquireSpinLock(&p->Lock, &Irql);
    if (p->Busy || p->Closing) {
        Status = p->Closing ? STATUS_FILE_CLOSED : STATUS_DEVICE_BUSY;
        KeReleaseSpinLock(&p->Lock, Irql);
        return YkReply(Irp, Status, 0);
    }
    p->Busy = TRUE;
    p->ChildDone = FALSE;
    p->CancelSeen = FALSE;
    p->Answer = 0;
    IoReuseIrp(p->Child, STATUS_NOT_SUPPORTED);
    KeReleaseSpinLock(&p->Lock, Irql);

    p->Child->AssociatedIrp.SystemBuffer = &p->Answer;
    p->Child->RequestorMode = KernelMode;
    n = IoGetNextIrpStackLocation(p->Child);
    n->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    n->Parameters.DeviceIoControl.IoControlCode = IOCTL_SERIAL_GET_MODEMSTATUS;
    n->Parameters.DeviceIoControl.InputBufferLength = 0;
    n->Parameters.DeviceIoControl.OutputBufferLength = sizeof(p->Answer);
    n->FileObject = p->File;
    /* The Ex form keeps this driver loaded until the routine has returned. */
#ifdef FIXED
    Status = IoSetCompletionRoutineEx(DeviceObject, p->Child, QueAnswered, p, TRUE, TRUE, TRUE);
#else
    Status = IoSetCompletionRoutineEx(DeviceObject, p->Child, QueAnswered, p, TRUE, FALSE, TRUE);
#endif
    if (!NT_SUCCESS(Status)) {
        KeAcquireSpinLock(&p->Lock, &Irql);
        p->Busy = FALSE;
        KeReleaseSpinLock(&p->Lock, Irql);
        return YkReply(Irp, Status, 0);
    }

    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&p->Lock, &Irql);
    p->User = Irp;
    IoSetCancelRoutine(Irp, QueCancel);
    KeReleaseSpinLock(&p->Lock, Irql);
    /* A program's request that is cancelled from here on cancels Child, and the port ends it. */
    if (Irp->Cancel)
        IoCancelIrp(p->Child);
    IoCallDriver(p->Device, p->Child);
    return STATUS_PENDING;
}

static VOID QueFree(PQUE_PORT p)
{
    if (p->Child != NULL)
        IoFreeIrp(p->Child);
    if (p->File != NULL)
        ObDereferenceObject(p->File);
    ExFreePoolWithTag(p, QUE_TAG);
}

static NTSTATUS NTAPI QueCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUE_PORT p;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(DeviceObject);
    p = ExAllocatePoolWithTag(NonPagedPool, sizeof(*p), QUE_TAG);
    if (p == NULL)
        return YkReply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(p, sizeof(*p));
    KeInitializeSpinLock(&p->Lock);
    Status = IoGetDeviceObjectPointer(&QueTarget, FILE_READ_DATA, &p->File, &p->Device);
    if (!NT_SUCCESS(Status)) {
        p->File = NULL;
        QueFree(p);
        return YkReply(Irp, Status, 0);
    }
    p->Child = IoAllocateIrp(p->Device->StackSize, FALSE);
    if (p->Child == NULL) {
        QueFree(p);
        return YkReply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = p;
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI QueCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PQUE_PORT p = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    BOOLEAN Busy;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    KeAcquireSpinLock(&p->Lock, &Irql);
    p->Closing = TRUE;
    Busy = p->Busy;
    KeReleaseSpinLock(&p->Lock, Irql);
    if (Busy)
        IoCancelIrp(p->Child); /* is not used again: Closing */
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

/* Every request of the handle is ended by now. */
static NTSTATUS NTAPI QueClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    QueFree(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
    return YkReply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI QueControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PQUE_PORT p = s->FileObject->FsContext;

    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return YkReply(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUENCH_LINES:
        return QueLines(DeviceObject, p, Irp);
    case IOCTL_QUENCH_COUNT:
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = p->Count;
        return YkReply(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return YkReply(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI QueUnload(PDRIVER_OBJECT DriverObject)
{
    IoDeleteSymbolicLink(&QueLink);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT DeviceObject;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(DriverObject, 0, &QueName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &DeviceObject);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCreateSymbolicLink(&QueLink, &QueName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(DeviceObject);
        return Status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = QueCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = QueCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = QueClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = QueControl;
    DriverObject->DriverUnload = QueUnload;
    DeviceObject->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
