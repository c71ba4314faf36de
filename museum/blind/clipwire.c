/*
 * clipwire: carries clipboard snippets between sessions: a write (up to 1 KB) goes to all reads
 * that wait on other handles; reads wait for the next snippet and can be cancelled.
 *
 * The bug: the write takes waiting reads out of the list without looking whether their cancel routine has already
 * been called, so that both complete a read being cancelled.
 *
 * Device: none
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule
 */
#include <ddk/wdm.h>

#define SNIPPET 1024u
#define IOCTL_CLIP_WAITING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct {
    KSPIN_LOCK Lock;
    LIST_ENTRY Reads;
    ULONG Waiting;
} WIRE, *PWIRE;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\ClipWire");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\ClipWire");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI WireCancel(PDEVICE_OBJECT D, PIRP Irp)
{
    PWIRE W = D->DeviceExtension;
    KIRQL irql;
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&W->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    W->Waiting--;
    KeReleaseSpinLock(&W->Lock, irql);
    Finish(Irp, STATUS_CANCELLED, 0);
}

/* Takes from the list the reads of a handle (Of), or of all others (But), to Out. */
static VOID WireTake(PWIRE W, PFILE_OBJECT Of, PFILE_OBJECT But, PLIST_ENTRY Out)
{
    PLIST_ENTRY e, next;
    KIRQL irql;
    InitializeListHead(Out);
    KeAcquireSpinLock(&W->Lock, &irql);
    for (e = W->Reads.Flink; e != &W->Reads; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
        next = e->Flink;
        if ((Of && file != Of) || (But && file == But))
            continue;
#ifdef FIXED
        if (!IoSetCancelRoutine(irp, NULL))
            continue;                     /* WireCancel will take and complete it */
#else
        IoSetCancelRoutine(irp, NULL);
#endif
        RemoveEntryList(e);
        InitializeListHead(e);
        W->Waiting--;
        InsertTailList(Out, e);
    }
    KeReleaseSpinLock(&W->Lock, irql);
}

static NTSTATUS NTAPI WireRead(PDEVICE_OBJECT D, PIRP Irp)
{
    PWIRE W = D->DeviceExtension;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < SNIPPET)
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&W->Lock, &irql);
    IoSetCancelRoutine(Irp, WireCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        KeReleaseSpinLock(&W->Lock, irql);
        return Finish(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&W->Reads, &Irp->Tail.Overlay.ListEntry);
    W->Waiting++;
    KeReleaseSpinLock(&W->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI WireWrite(PDEVICE_OBJECT D, PIRP Irp)
{
    PWIRE W = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = sp->Parameters.Write.Length;
    LIST_ENTRY out;

    if (length == 0 || length > SNIPPET)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    WireTake(W, NULL, sp->FileObject, &out);
    while (!IsListEmpty(&out)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&out), IRP, Tail.Overlay.ListEntry);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, Irp->AssociatedIrp.SystemBuffer, length);
        Finish(irp, STATUS_SUCCESS, length);
    }
    return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI WireControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PWIRE W = D->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    KIRQL irql;
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_CLIP_WAITING)
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&W->Lock, &irql);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = W->Waiting;
    KeReleaseSpinLock(&W->Lock, irql);
    return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI WireFile(PDEVICE_OBJECT D, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        LIST_ENTRY out;
        WireTake(D->DeviceExtension, sp->FileObject, NULL, &out);
        while (!IsListEmpty(&out))
            Finish(CONTAINING_RECORD(RemoveHeadList(&out), IRP, Tail.Overlay.ListEntry), STATUS_CANCELLED, 0);
    }
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI WireUnload(PDRIVER_OBJECT Drv)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Drv->DeviceObject);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT d;
    PWIRE W;
    NTSTATUS st;
    UNREFERENCED_PARAMETER(Path);
    st = IoCreateDevice(Drv, sizeof(WIRE), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    d->Flags |= DO_BUFFERED_IO;
    W = d->DeviceExtension;
    KeInitializeSpinLock(&W->Lock);
    InitializeListHead(&W->Reads);
    W->Waiting = 0;
    Drv->DriverUnload = WireUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = WireFile;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = WireFile;
    Drv->MajorFunction[IRP_MJ_CLOSE] = WireFile;
    Drv->MajorFunction[IRP_MJ_READ] = WireRead;
    Drv->MajorFunction[IRP_MJ_WRITE] = WireWrite;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WireControl;
    st = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(st))
        IoDeleteDevice(d);
    return st;
}
