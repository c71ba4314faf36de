/*
 * Write guard: a filter device over a pipe device of the same driver refuses writes while it is locked.
 *
 * The bug: the filter device does not take over DO_BUFFERED_IO from the device it attaches to; the I/O manager goes by
 * the topmost device's flags and gives the pipe no system buffer.
 *
 * Device: none
 * Rule: wild-read
 * Needs: ioctl
 * Symptom: the pipe uses a NULL system buffer at DISPATCH_LEVEL (0xD1) at the first read or write.
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

#define IOCTL_GUARD_LOCK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB10, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_GUARD_UNLOCK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB11, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _FILTER {
    PDEVICE_OBJECT Lower;
    volatile LONG Locked;
    volatile LONG Refused;
} FILTER, *PFILTER;

static PDEVICE_OBJECT FilterDevice;

static NTSTATUS FgFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- The device at the bottom: a pipe whose reads are ended by a timer's DPC. ---- */

static VOID NTAPI FgCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&back->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&back->Lock, irql);
    FgFinish(Irp, STATUS_CANCELLED, 0);
}

/* The first read (of a file, or of any) that no one cancels. With the lock held. */
static PIRP FgTake(PBACKEND Back, PFILE_OBJECT File)
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

static VOID NTAPI FgTick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
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
        irp = back->Count != 0 ? FgTake(back, NULL) : NULL;
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
        FgFinish(irp, STATUS_SUCCESS, n);
    }
}

static NTSTATUS FgBackRead(PBACKEND Back, PIRP Irp)
{
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        return FgFinish(Irp, STATUS_SUCCESS, 0);
    }
    KeAcquireSpinLock(&Back->Lock, &irql);
    IoSetCancelRoutine(Irp, FgCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Back->Lock, irql);
        return FgFinish(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Back->Reads, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Back->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS FgBackWrite(PBACKEND Back, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length, n = 0;
    PUCHAR buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    KeAcquireSpinLock(&Back->Lock, &irql);
    while (n < length && Back->Count < RING) {
        Back->Ring[(Back->Head + Back->Count) % RING] = buffer[n++];
        Back->Count++;
    }
    KeReleaseSpinLock(&Back->Lock, irql);
    return FgFinish(Irp, STATUS_SUCCESS, n);
}

static NTSTATUS FgBackCleanup(PBACKEND Back, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP read;
    KIRQL irql;

    for (;;) {
        KeAcquireSpinLock(&Back->Lock, &irql);
        read = FgTake(Back, file);
        KeReleaseSpinLock(&Back->Lock, irql);
        if (read == NULL) {
            break;
        }
        FgFinish(read, STATUS_CANCELLED, 0);
    }
    return FgFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS FgBackend(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLOSE:
        return FgFinish(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_CLEANUP:
        return FgBackCleanup(back, Irp);
    case IRP_MJ_READ:
        return FgBackRead(back, Irp);
    case IRP_MJ_WRITE:
        return FgBackWrite(back, Irp);
    case IRP_MJ_POWER:
        PoStartNextPowerIrp(Irp);
        return FgFinish(Irp, STATUS_NOT_SUPPORTED, 0);
    default:
        return FgFinish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- The filter. ---- */

static NTSTATUS FgPass(PFILTER Filter, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER) {
        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        return PoCallDriver(Filter->Lower, Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Filter->Lower, Irp);
}

static NTSTATUS FgFilter(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER filter = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MajorFunction == IRP_MJ_WRITE && filter->Locked) {
        InterlockedIncrement(&filter->Refused);
        return FgFinish(Irp, STATUS_MEDIA_WRITE_PROTECTED, 0);
    }
    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (sp->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_GUARD_LOCK:
            InterlockedExchange(&filter->Locked, 1);
            return FgFinish(Irp, STATUS_SUCCESS, 0);
        case IOCTL_GUARD_UNLOCK:
            InterlockedExchange(&filter->Locked, 0);
            return FgFinish(Irp, STATUS_SUCCESS, 0);
        }
    }
    return FgPass(filter, Irp);
}

NTKERNELAPI NTSTATUS NTAPI IoAttachDeviceToDeviceStackSafe(PDEVICE_OBJECT SourceDevice, PDEVICE_OBJECT TargetDevice,
                                                           PDEVICE_OBJECT *AttachedToDeviceObject);

static NTSTATUS NTAPI FgDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    return DeviceObject == FilterDevice ? FgFilter(DeviceObject, Irp) : FgBackend(DeviceObject, Irp);
}

static VOID NTAPI FgUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\WriteGuard");
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
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\WriteGuard");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\WriteGuard");
    PDEVICE_OBJECT lower;
    LARGE_INTEGER due;
    PBACKEND back;
    PFILTER filter;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++) {
        DriverObject->MajorFunction[i] = FgDispatch;
    }
    DriverObject->DriverUnload = FgUnload;

    status = IoCreateDevice(DriverObject, sizeof(BACKEND), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &lower);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    back = lower->DeviceExtension;
    KeInitializeSpinLock(&back->Lock);
    InitializeListHead(&back->Reads);
    KeInitializeTimer(&back->Timer);
    KeInitializeDpc(&back->Dpc, FgTick, back);
    lower->Flags |= DO_BUFFERED_IO;

    status = IoCreateDevice(DriverObject, sizeof(FILTER), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &FilterDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(lower);
        return status;
    }
    filter = FilterDevice->DeviceExtension;
#ifdef FIXED
    FilterDevice->Flags |= lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO);
#endif
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
