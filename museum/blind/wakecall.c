/*
 * wakecall: wake-up calls. Each handle has one call: a program sets its time in milliseconds and waits for
 * it with requests that end when the time has come.
 *
 * The bug: the handle's context is freed at IRP_MJ_CLEANUP, when requests of other threads on that handle may still
 * be under way.
 *
 * Device: ROOT\WAKECALL
 * Rule: use-after-free
 * Needs: schedule
 */
#include "../include/kit_hooks.h"

static const GUID CallGuid = { 0x5d0f7a26, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x22, 0x06 } };

#define IOCTL_CALL_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_CALL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CALL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MAX_MS (24u * 3600 * 1000)

typedef struct _CALL {
    KIT Kit;
    KSPIN_LOCK ListLock;
    LIST_ENTRY Handles;             /* the contexts of all open handles, for surprise removal */
} CALL, *PCALL;

typedef struct _HANDLE_CONTEXT {
    LIST_ENTRY Link;
    KIT_QUEUE Waiters;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;                /* guards what follows */
    BOOLEAN Closed;
    ULONG Calls;
} HANDLE_CONTEXT, *PHANDLE_CONTEXT;

static VOID NTAPI CallDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PHANDLE_CONTEXT context = Context;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&context->Lock);
    context->Calls++;
    KeReleaseSpinLockFromDpcLevel(&context->Lock);
    while ((irp = IoCsqRemoveNextIrp(&context->Waiters.Csq, NULL)) != NULL)
        KitFinish(context->Waiters.Kit, irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CallCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCALL call = DeviceObject->DeviceExtension;
    PHANDLE_CONTEXT context;
    KIRQL irql;

    if (KitGone(&call->Kit))
        return KitComplete(Irp, STATUS_DELETE_PENDING, 0);
    context = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*context), 'llaC');
    if (!context)
        return KitComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(context, sizeof(*context));
    KitQueueInit(&call->Kit, &context->Waiters);
    KeInitializeTimer(&context->Timer);
    KeInitializeDpc(&context->Dpc, CallDpc, context);
    KeInitializeSpinLock(&context->Lock);
    KeAcquireSpinLock(&call->ListLock, &irql);
    InsertTailList(&call->Handles, &context->Link);
    KeReleaseSpinLock(&call->ListLock, irql);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = context;
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID CallFree(PCALL Call, PHANDLE_CONTEXT Context)
{
    KIRQL irql;

    KeAcquireSpinLock(&Call->ListLock, &irql);
    RemoveEntryList(&Context->Link);
    KeReleaseSpinLock(&Call->ListLock, irql);
    KeCancelTimer(&Context->Timer);
    KeFlushQueuedDpcs();
    ExFreePoolWithTag(Context, 'llaC');
}

static NTSTATUS NTAPI CallCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCALL call = DeviceObject->DeviceExtension;
    PHANDLE_CONTEXT context = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;

    UNREFERENCED_PARAMETER(call);
    KeAcquireSpinLock(&context->Lock, &irql);
    context->Closed = TRUE;
    KeReleaseSpinLock(&context->Lock, irql);
    KeCancelTimer(&context->Timer);
    KitQueueFlush(&context->Waiters, NULL, STATUS_CANCELLED);
#ifndef FIXED
    CallFree(call, context);
#endif
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI CallClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
#ifdef FIXED
    CallFree(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext);
#else
    UNREFERENCED_PARAMETER(DeviceObject);
#endif
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS CallSet(PHANDLE_CONTEXT Context, ULONG Ms)
{
    LARGE_INTEGER due;
    KIRQL irql;
    NTSTATUS status = STATUS_FILE_CLOSED;

    if (Ms == 0 || Ms > MAX_MS)
        return STATUS_INVALID_PARAMETER;
    due.QuadPart = -10000LL * Ms;
    KeAcquireSpinLock(&Context->Lock, &irql);
    if (!Context->Closed) {
        KeSetTimer(&Context->Timer, due, &Context->Dpc);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&Context->Lock, irql);
    return status;
}

/* Puts a request into the handle's queue; one that comes after cleanup's flush is ended here. */
static NTSTATUS CallWait(PCALL Call, PHANDLE_CONTEXT Context, PIRP Irp)
{
    BOOLEAN closed;
    KIRQL irql;
    NTSTATUS status = KitPend(&Call->Kit, &Context->Waiters, Irp);

    if (status == STATUS_PENDING) {
        KeAcquireSpinLock(&Context->Lock, &irql);
        closed = Context->Closed;
        KeReleaseSpinLock(&Context->Lock, irql);
        if (closed)
            KitQueueFlush(&Context->Waiters, NULL, STATUS_CANCELLED);
    }
    return status;
}

static NTSTATUS NTAPI CallControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCALL call = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PFILE_OBJECT file = stack->FileObject;
    PHANDLE_CONTEXT context = file->FsContext;
    ULONG_PTR information = 0;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&call->Kit.RemoveLock, call);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    ObReferenceObject(file);        /* the context lives as long as the file object, even when the request is over */
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CALL_SET:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = CallSet(context, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        break;
    case IOCTL_CALL_WAIT:
        status = CallWait(call, context, Irp);
        break;
    case IOCTL_CALL_COUNT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&context->Lock, &irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = context->Calls;
        KeReleaseSpinLock(&context->Lock, irql);
        information = sizeof(ULONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    if (status != STATUS_PENDING)
        KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&call->Kit.RemoveLock, call);
    ObDereferenceObject(file);
    return status;
}

static NTSTATUS CallStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Kit);
    UNREFERENCED_PARAMETER(Stack);
    return STATUS_SUCCESS;
}

static VOID CallRelease(PKIT Kit, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Kit);
    UNREFERENCED_PARAMETER(Reachable);
}

/* Surprise removal: all handles' waiting requests end. (At removal there are no handles.) */
static VOID CallFlush(PKIT Kit)
{
    PCALL call = (PCALL)Kit;
    LIST_ENTRY ended;
    PLIST_ENTRY link;
    PIRP irp;
    KIRQL irql;

    InitializeListHead(&ended);
    KeAcquireSpinLock(&call->ListLock, &irql);
    for (link = call->Handles.Flink; link != &call->Handles; link = link->Flink) {
        PHANDLE_CONTEXT context = CONTAINING_RECORD(link, HANDLE_CONTEXT, Link);
        while ((irp = IoCsqRemoveNextIrp(&context->Waiters.Csq, NULL)) != NULL)
            InsertTailList(&ended, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&call->ListLock, irql);
    while (!IsListEmpty(&ended)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&ended), IRP, Tail.Overlay.ListEntry);
        KitFinish(Kit, irp, STATUS_DELETE_PENDING, 0);
    }
}

static VOID CallPrepare(PKIT Kit)
{
    PCALL call = (PCALL)Kit;
    KeInitializeSpinLock(&call->ListLock);
    InitializeListHead(&call->Handles);
}

static const KIT_HOOKS KitHooks = { sizeof(CALL), 0, 'llaC', &CallGuid, CallPrepare, CallStart, CallRelease, CallFlush, NULL, NULL, NULL };

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = CallCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = CallCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = CallClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CallControl;
    return STATUS_SUCCESS;
}
