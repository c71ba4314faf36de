/*
 * Read cipher: a filter device over a pipe device of the same driver; data is kept enciphered below, deciphered on read.
 *
 * The bug: the filter's read completion routine does not pass the pending mark on to its own stack location.
 *
 * Device: none
 * Rule: pending-not-marked
 * Needs: ioctl
 * Symptom: reads that the pipe pended are never seen to end by the caller (hang); Driver Verifier 0xC9 (0x21D: pending not marked in completion routine).
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

typedef struct _FILTER {
    PDEVICE_OBJECT Lower;
    UCHAR Key;
} FILTER, *PFILTER;

static PDEVICE_OBJECT FilterDevice;

static NTSTATUS FpFinish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ---- The device at the bottom: a pipe whose reads are ended by a timer's DPC. ---- */

static VOID NTAPI FpCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&back->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&back->Lock, irql);
    FpFinish(Irp, STATUS_CANCELLED, 0);
}

/* The first read (of a file, or of any) that no one cancels. With the lock held. */
static PIRP FpTake(PBACKEND Back, PFILE_OBJECT File)
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

static VOID NTAPI FpTick(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
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
        irp = back->Count != 0 ? FpTake(back, NULL) : NULL;
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
        FpFinish(irp, STATUS_SUCCESS, n);
    }
}

static NTSTATUS FpBackRead(PBACKEND Back, PIRP Irp)
{
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        return FpFinish(Irp, STATUS_SUCCESS, 0);
    }
    KeAcquireSpinLock(&Back->Lock, &irql);
    IoSetCancelRoutine(Irp, FpCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Back->Lock, irql);
        return FpFinish(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Back->Reads, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Back->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS FpBackWrite(PBACKEND Back, PIRP Irp)
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
    return FpFinish(Irp, STATUS_SUCCESS, n);
}

static NTSTATUS FpBackCleanup(PBACKEND Back, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP read;
    KIRQL irql;

    for (;;) {
        KeAcquireSpinLock(&Back->Lock, &irql);
        read = FpTake(Back, file);
        KeReleaseSpinLock(&Back->Lock, irql);
        if (read == NULL) {
            break;
        }
        FpFinish(read, STATUS_CANCELLED, 0);
    }
    return FpFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS FpBackend(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBACKEND back = DeviceObject->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_CREATE:
    case IRP_MJ_CLOSE:
        return FpFinish(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_CLEANUP:
        return FpBackCleanup(back, Irp);
    case IRP_MJ_READ:
        return FpBackRead(back, Irp);
    case IRP_MJ_WRITE:
        return FpBackWrite(back, Irp);
    case IRP_MJ_POWER:
        PoStartNextPowerIrp(Irp);
        return FpFinish(Irp, STATUS_NOT_SUPPORTED, 0);
    default:
        return FpFinish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* ---- The filter. ---- */

static NTSTATUS FpPass(PFILTER Filter, PIRP Irp)
{
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER) {
        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        return PoCallDriver(Filter->Lower, Irp);
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Filter->Lower, Irp);
}

static VOID FpCrypt(PFILTER Filter, PUCHAR Bytes, ULONG_PTR Length)
{
    ULONG_PTR i;

    for (i = 0; i < Length; i++) {
        Bytes[i] ^= Filter->Key;
    }
}

static NTSTATUS NTAPI FpReadDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        FpCrypt(Context, Irp->AssociatedIrp.SystemBuffer, Irp->IoStatus.Information);
    }
#ifdef FIXED
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
#endif
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS FpFilter(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILTER filter = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    switch (sp->MajorFunction) {
    case IRP_MJ_READ:
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, FpReadDone, filter, TRUE, TRUE, TRUE);
        return IoCallDriver(filter->Lower, Irp);
    case IRP_MJ_WRITE:
        /* The system buffer is a copy of the caller's bytes, so it may be changed. */
        FpCrypt(filter, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.Write.Length);
        return FpPass(filter, Irp);
    default:
        return FpPass(filter, Irp);
    }
}

NTKERNELAPI NTSTATUS NTAPI IoAttachDeviceToDeviceStackSafe(PDEVICE_OBJECT SourceDevice, PDEVICE_OBJECT TargetDevice,
                                                           PDEVICE_OBJECT *AttachedToDeviceObject);

static NTSTATUS NTAPI FpDispatch(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    return DeviceObject == FilterDevice ? FpFilter(DeviceObject, Irp) : FpBackend(DeviceObject, Irp);
}

static VOID NTAPI FpUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ReadCipher");
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
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\ReadCipher");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\ReadCipher");
    PDEVICE_OBJECT lower;
    LARGE_INTEGER due;
    PBACKEND back;
    PFILTER filter;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++) {
        DriverObject->MajorFunction[i] = FpDispatch;
    }
    DriverObject->DriverUnload = FpUnload;

    status = IoCreateDevice(DriverObject, sizeof(BACKEND), &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &lower);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    back = lower->DeviceExtension;
    KeInitializeSpinLock(&back->Lock);
    InitializeListHead(&back->Reads);
    KeInitializeTimer(&back->Timer);
    KeInitializeDpc(&back->Dpc, FpTick, back);
    lower->Flags |= DO_BUFFERED_IO;

    status = IoCreateDevice(DriverObject, sizeof(FILTER), NULL, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &FilterDevice);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(lower);
        return status;
    }
    filter = FilterDevice->DeviceExtension;
    filter->Key = 0x5a;
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
