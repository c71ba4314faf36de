/*
 * Write splitter: a filter device over a slow pipe device of the same driver sends long writes down in pieces of 256 bytes.
 *
 * The bug: a piece that the pipe pends is not waited for; its event and status block lie on the stack that the filter
 * leaves.
 *
 * Device: none
 * Rule: irp-on-dead-stack
 * Needs: ioctl
 * Symptom: the I/O manager writes the status block and sets the event in a stack frame that is gone (0x139, 0x7E, odd crashes); wrong byte counts.
 */
#include <ddk/wdm.h>

#define RING 8192

typedef struct _BACKEND {
    KSPIN_LOCK Lock;
    LIST_ENTRY Reads;
    KTIMER Timer;
    KDPC Dpc;
    ULONG Head;
    ULONG Count;
    UCHAR Ring[RING];
} BACKEND, *PBACKEND;
#define PIECE 256

typedef struct _FILTER {
    PDEVICE_OBJECT Lower;
    volatile LONG Split;
} FILTER, *PFILTER;

static PDEVICE_OBJECT FilterDevice;

static NTSTATUS FwFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- The device at the bottom: a pipe whose reads are ended by a timer's DPC. ---- */

static VOID NTAPI FwCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&back->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&back->Lock, irql);
    FwFinish(Irp, STATUS_CANCELLED, 0);
}

/* The first read (of a file, or of any) that no one cancels. With the lock held. */
static PIRP FwTake(PBACKEND Back, PFILE_OBJECT File)
{
    PLIST_ENTRY entry;

    for (entry = Back->Reads.Flink; entry != &Back->Reads; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File) {
            continue;
        }
        if (IoSetCancelRoutine(irp, NULL) != NULL) {
            RemoveEntryList(entry);
            return irp;
        }
    }
    return NULL;
}

static VOID NTAPI FwTick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PBACKEND back = Context;
    ULONG length, n;
    PUCHAR buffer;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    for (;;) {
        n = 0;
        KeAcquireSpinLockAtDpcLevel(&back->Lock);
        irp = back->Count != 0 ? FwTake(back, NULL) : NULL;
        if (irp != NULL) {
            buffer = irp->AssociatedIrp.SystemBuffer;
            length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
            while (n < length && back->Count != 0) {
                buffer[n++] = back->Ring[back->Head];
                back->Head = (back->Head + 1) % RING;
                back->Count--;
            }
        }
        KeReleaseSpinLockFromDpcLevel(&back->Lock);
        if (irp == NULL) {
            break;
        }
        FwFinish(irp, STATUS_SUCCESS, n);
    }
}

static NTSTATUS FwBackRead(PBACKEND Back, PIRP Irp)
{
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        return FwFinish(Irp, STATUS_SUCCESS, 0);
    }
    KeAcquireSpinLock(&Back->Lock, &irql);
    IoSetCancelRoutine(Irp, FwCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Back->Lock, irql);
        return FwFinish(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Back->Reads, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Back->Lock, irql);
    return STATUS_PENDING;
}

static IO_WORKITEM_ROUTINE FwStore;

typedef struct _STORE {
    PIO_WORKITEM Item;
    PIRP Irp;
} STORE, *PSTORE;

/* Writes are slow: a work item puts the bytes into the ring. */
static VOID NTAPI FwStore(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PBACKEND back = DeviceObject->DeviceExtension;
    PSTORE store = Context;
    PIRP irp = store->Irp;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length, n = 0;
    PUCHAR buffer = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    KeAcquireSpinLock(&back->Lock, &irql);
    while (n < length && back->Count < RING) {
        back->Ring[(back->Head + back->Count) % RING] = buffer[n++];
        back->Count++;
    }
    KeReleaseSpinLock(&back->Lock, irql);
    IoFreeWorkItem(store->Item);
    ExFreePoolWithTag(store, 'tSwF');
    FwFinish(irp, STATUS_SUCCESS, n);
}

static NTSTATUS FwBackWrite(PBACKEND Back, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSTORE store;

    UNREFERENCED_PARAMETER(Back);
    if (sp->Parameters.Write.Length == 0) {
        return FwFinish(Irp, STATUS_SUCCESS, 0);
    }
    store = ExAllocatePoolWithTag(NonPagedPool, sizeof(STORE), 'tSwF');
    if (store == NULL) {
        return FwFinish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    store->Irp = Irp;
    store->Item = IoAllocateWorkItem(sp->DeviceObject);
    if (store->Item == NULL) {
        ExFreePoolWithTag(store, 'tSwF');
        return FwFinish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoMarkIrpPending(Irp);
    IoQueueWorkItem(store->Item, FwStore, DelayedWorkQueue, store);
    return STATUS_PENDING;
}

static NTSTATUS FwBackCleanup(PBACKEND Back, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP read;
    KIRQL irql;

    for (;;) {
        KeAcquireSpinLock(&Back->Lock, &irql);
        read = FwTake(Back, file);
        KeReleaseSpinLock(&Back->Lock, irql);
        if (read == NULL) {
            break;
        }
        FwFinish(read, STATUS_CANCELLED, 0);
    }
    return FwFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS FwBackend(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLOSE:
        return FwFinish(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_CLEANUP:
        return FwBackCleanup(back, Irp);
    case IRP_MJ_READ:
        return FwBackRead(back, Irp);
    case IRP_MJ_WRITE:
        return FwBackWrite(back, Irp);
    case IRP_MJ_POWER:
        PoStartNextPowerIrp(Irp);
        return FwFinish(Irp, STATUS_NOT_SUPPORTED, 0);
    default:
        return FwFinish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- The filter. ---- */

static NTSTATUS FwPass(PFILTER Filter, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER) {
        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        return PoCallDriver(Filter->Lower, Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Filter->Lower, Irp);
}

/* Sends one piece and gives how much of it was taken. */
static NTSTATUS FwPiece(PFILTER Filter, PFILE_OBJECT File, PUCHAR Bytes, ULONG Length, PULONG Taken)
{
    IO_STATUS_BLOCK result;
    LARGE_INTEGER offset;
    NTSTATUS status;
    KEVENT event;
    PIRP irp;

    offset.QuadPart = 0;
    result.Status = STATUS_SUCCESS;
    result.Information = 0;
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_WRITE, Filter->Lower, Bytes, Length, &offset, &event, &result);
    if (irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoGetNextIrpStackLocation(irp)->FileObject = File;
    status = IoCallDriver(Filter->Lower, irp);
#ifdef FIXED
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = result.Status;
    }
#endif
    *Taken = (ULONG)result.Information;
    return status;
}

static NTSTATUS FwWrite(PFILTER Filter, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PUCHAR bytes = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = sp->Parameters.Write.Length, done = 0, part, taken;
    NTSTATUS status = STATUS_SUCCESS;

    while (done < length) {
        part = length - done < PIECE ? length - done : PIECE;
        taken = 0;
        status = FwPiece(Filter, sp->FileObject, bytes + done, part, &taken);
        if (!NT_SUCCESS(status)) {
            break;
        }
        done += taken;
        if (taken < part) {
            break;                      /* the pipe is full */
        }
    }
    InterlockedIncrement(&Filter->Split);
    if (done != 0) {
        status = STATUS_SUCCESS;        /* some of it went down */
    }
#ifndef FIXED
    else if (status == STATUS_PENDING) {
        status = STATUS_SUCCESS;
    }
#endif
    return FwFinish(Irp, status, done);
}

static NTSTATUS FwFilter(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER filter = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MajorFunction == IRP_MJ_WRITE && sp->Parameters.Write.Length > PIECE) {
        return FwWrite(filter, Irp);
    }
    return FwPass(filter, Irp);
}

NTKERNELAPI NTSTATUS NTAPI IoAttachDeviceToDeviceStackSafe(PDEVICE_OBJECT SourceDevice, PDEVICE_OBJECT TargetDevice,
                                                           PDEVICE_OBJECT *AttachedToDeviceObject);

static NTSTATUS NTAPI FwDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    return DeviceObject == FilterDevice ? FwFilter(DeviceObject, Irp) : FwBackend(DeviceObject, Irp);
}

static VOID NTAPI FwUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\WriteSplit");
    PFILTER filter = FilterDevice->DeviceExtension;
    PDEVICE_OBJECT lower = filter->Lower;

    UNREFERENCED_PARAMETER(DriverObject);
    IoDeleteSymbolicLink(&link);
    KeCancelTimer(&((PBACKEND)lower->DeviceExtension)->Timer);
    KeFlushQueuedDpcs();
    IoDetachDevice(lower);
    IoDeleteDevice(FilterDevice);
    IoDeleteDevice(lower);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\WriteSplit");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\WriteSplit");
    PDEVICE_OBJECT lower;
    LARGE_INTEGER due;
    PBACKEND back;
    PFILTER filter;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++) {
        DriverObject->MajorFunction[i] = FwDispatch;
    }
    DriverObject->DriverUnload = FwUnload;

    status = IoCreateDevice(DriverObject, sizeof(BACKEND), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &lower);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    back = lower->DeviceExtension;
    KeInitializeSpinLock(&back->Lock);
    InitializeListHead(&back->Reads);
    KeInitializeTimer(&back->Timer);
    KeInitializeDpc(&back->Dpc, FwTick, back);
    lower->Flags |= DO_BUFFERED_IO;

    status = IoCreateDevice(DriverObject, sizeof(FILTER), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &FilterDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(lower);
        return status;
    }
    filter = FilterDevice->DeviceExtension;
    FilterDevice->Flags |= lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO);
    FilterDevice->AlignmentRequirement = lower->AlignmentRequirement;

    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(FilterDevice);
        IoDeleteDevice(lower);
        return status;
    }
    /* A device that is still being initialised cannot be attached to. */
    lower->Flags &= ~DO_DEVICE_INITIALIZING;
    status = IoAttachDeviceToDeviceStackSafe(FilterDevice, lower, &filter->Lower);
    if (!NT_SUCCESS(status)) {
        IoDeleteSymbolicLink(&link);
        IoDeleteDevice(FilterDevice);
        IoDeleteDevice(lower);
        return status;
    }
    FilterDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    due.QuadPart = -2 * 10000;
    KeSetTimerEx(&back->Timer, due, 2, &back->Dpc);
    return STATUS_SUCCESS;
}
