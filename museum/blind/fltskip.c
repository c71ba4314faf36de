/*
 * Read meter: a filter device over a pipe device of the same driver counts the bytes read.
 *
 * The bug: the filter skips its stack location and then sets a completion routine, which so lands in its own location
 * (shared with the device below) and is called with the wrong device object.
 *
 * Device: none
 * Rule: completion-routine-skipped, pool-overrun, wild-read
 * Needs: ioctl
 * Symptom: NULL device object in FsReadDone (0xD1 / 0x7E) at the first read; Driver Verifier 0xC9 (completion routine set after IoSkipCurrentIrpStackLocation).
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

#define IOCTL_METER_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB00, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _FILTER {
    PDEVICE_OBJECT Lower;
    volatile LONG Reads;
    volatile LONG Bytes;
} FILTER, *PFILTER;

static PDEVICE_OBJECT FilterDevice;

static NTSTATUS FsFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- The device at the bottom: a pipe whose reads are ended by a timer's DPC. ---- */

static VOID NTAPI FsCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&back->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&back->Lock, irql);
    FsFinish(Irp, STATUS_CANCELLED, 0);
}

/* The first read (of a file, or of any) that no one cancels. With the lock held. */
static PIRP FsTake(PBACKEND Back, PFILE_OBJECT File)
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

static VOID NTAPI FsTick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
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
        irp = back->Count != 0 ? FsTake(back, NULL) : NULL;
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
        FsFinish(irp, STATUS_SUCCESS, n);
    }
}

static NTSTATUS FsBackRead(PBACKEND Back, PIRP Irp)
{
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        return FsFinish(Irp, STATUS_SUCCESS, 0);
    }
    KeAcquireSpinLock(&Back->Lock, &irql);
    IoSetCancelRoutine(Irp, FsCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Back->Lock, irql);
        return FsFinish(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Back->Reads, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Back->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS FsBackWrite(PBACKEND Back, PIRP Irp)
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
    return FsFinish(Irp, STATUS_SUCCESS, n);
}

static NTSTATUS FsBackCleanup(PBACKEND Back, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP read;
    KIRQL irql;

    for (;;) {
        KeAcquireSpinLock(&Back->Lock, &irql);
        read = FsTake(Back, file);
        KeReleaseSpinLock(&Back->Lock, irql);
        if (read == NULL) {
            break;
        }
        FsFinish(read, STATUS_CANCELLED, 0);
    }
    return FsFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS FsBackend(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLOSE:
        return FsFinish(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_CLEANUP:
        return FsBackCleanup(back, Irp);
    case IRP_MJ_READ:
        return FsBackRead(back, Irp);
    case IRP_MJ_WRITE:
        return FsBackWrite(back, Irp);
    case IRP_MJ_POWER:
        PoStartNextPowerIrp(Irp);
        return FsFinish(Irp, STATUS_NOT_SUPPORTED, 0);
    default:
        return FsFinish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- The filter. ---- */

static NTSTATUS FsPass(PFILTER Filter, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER) {
        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        return PoCallDriver(Filter->Lower, Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Filter->Lower, Irp);
}

static NTSTATUS NTAPI FsReadDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PFILTER filter = DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Context);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        InterlockedIncrement(&filter->Reads);
        InterlockedExchangeAdd(&filter->Bytes, (LONG)Irp->IoStatus.Information);
    }
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS FsRead(PFILTER Filter, PIRP Irp)
{
#ifdef FIXED
    IoCopyCurrentIrpStackLocationToNext(Irp);
#else
    IoSkipCurrentIrpStackLocation(Irp);
#endif
    IoSetCompletionRoutine(Irp, FsReadDone, NULL, TRUE, TRUE, TRUE);
    return IoCallDriver(Filter->Lower, Irp);
}

static NTSTATUS FsFilter(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER filter = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PLONG out;

    if (sp->MajorFunction == IRP_MJ_READ) {
        return FsRead(filter, Irp);
    }
    if (sp->MajorFunction == IRP_MJ_DEVICE_CONTROL
        && sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_METER_GET) {
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(LONG)) {
            return FsFinish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        out = Irp->AssociatedIrp.SystemBuffer;
        out[0] = filter->Reads;
        out[1] = filter->Bytes;
        return FsFinish(Irp, STATUS_SUCCESS, 2 * sizeof(LONG));
    }
    return FsPass(filter, Irp);
}

NTKERNELAPI NTSTATUS NTAPI IoAttachDeviceToDeviceStackSafe(PDEVICE_OBJECT SourceDevice, PDEVICE_OBJECT TargetDevice,
                                                           PDEVICE_OBJECT *AttachedToDeviceObject);

static NTSTATUS NTAPI FsDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    return DeviceObject == FilterDevice ? FsFilter(DeviceObject, Irp) : FsBackend(DeviceObject, Irp);
}

static VOID NTAPI FsUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ReadMeter");
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
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\ReadMeter");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ReadMeter");
    PDEVICE_OBJECT lower;
    LARGE_INTEGER due;
    PBACKEND back;
    PFILTER filter;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++) {
        DriverObject->MajorFunction[i] = FsDispatch;
    }
    DriverObject->DriverUnload = FsUnload;

    status = IoCreateDevice(DriverObject, sizeof(BACKEND), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &lower);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    back = lower->DeviceExtension;
    KeInitializeSpinLock(&back->Lock);
    InitializeListHead(&back->Reads);
    KeInitializeTimer(&back->Timer);
    KeInitializeDpc(&back->Dpc, FsTick, back);
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
