/*
 * snapper: takes snapshots of the system's clocks. IOCTL_SNAP_RECORD (METHOD_NEITHER) gives a buffer that a timer fills
 * with one sample every 10 ms; the request is completed when the buffer is full, and can be cancelled (what was filled
 * by then stays). One recording at a time. IOCTL_SNAP_NOW (METHOD_BUFFERED) answers one sample.
 *
 * The bug: the buffer, into which samples are stored, is probed and locked for reading only.
 *
 * Device: none
 * Rule: read-only-memory-written
 * Needs: ioctl
 * Compiler: clang
 */
#define __GNUC__ 4                      /* so that the headers of mingw suit clang */
#define __GNUC_MINOR__ 4
#define __INTRIN_H_
#include <ddk/wdm.h>

#define IOCTL_SNAP_RECORD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_SNAP_NOW    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_READ_ACCESS)
#define SAMPLES_MAX 6000u

typedef struct _SAMPLE {
    ULONGLONG InterruptTime;
    LONGLONG SystemTime;
} SAMPLE;

typedef struct _SNAPPER {
    KSPIN_LOCK Lock;                    /* the recording */
    PIRP Irp;
    BOOLEAN Reserved;                   /* a recording is being set up */
    SAMPLE *Buffer;
    ULONG Room;
    ULONG Count;
    KTIMER Timer;
    KDPC Dpc;
} SNAPPER, *PSNAPPER;

static VOID SnapTake(SAMPLE *S)
{
    LARGE_INTEGER now;

    KeQuerySystemTime(&now);
    S->InterruptTime = KeQueryInterruptTime();
    S->SystemTime = now.QuadPart;
}

static NTSTATUS SnapComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);            /* unlocks and frees Irp->MdlAddress */
    return Status;
}

static VOID NTAPI SnapDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PSNAPPER s = Context;
    PIRP done = NULL;
    ULONG_PTR bytes = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    if (s->Irp != NULL && s->Count < s->Room)
        SnapTake(&s->Buffer[s->Count++]);
    if (s->Irp != NULL && s->Count == s->Room && IoSetCancelRoutine(s->Irp, NULL) != NULL) {
        done = s->Irp;
        bytes = s->Count * sizeof(SAMPLE);
        s->Irp = NULL;
        KeCancelTimer(&s->Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
    if (done != NULL)
        SnapComplete(done, STATUS_SUCCESS, bytes);
}

static VOID NTAPI SnapCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSNAPPER s = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&s->Lock, &irql);
    if (s->Irp == Irp) {
        s->Irp = NULL;
        KeCancelTimer(&s->Timer);
    }
    KeReleaseSpinLock(&s->Lock, irql);
    SnapComplete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS SnapLockBuffer(PIRP Irp, PVOID Buffer, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;
    PMDL mdl = IoAllocateMdl(Buffer, Length, FALSE, FALSE, NULL);

    if (mdl == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
#ifdef FIXED
        MmProbeAndLockPages(mdl, Irp->RequestorMode, IoWriteAccess);
#else
        MmProbeAndLockPages(mdl, Irp->RequestorMode, IoReadAccess);
#endif
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = STATUS_ACCESS_VIOLATION;
    }
    if (!NT_SUCCESS(status)) {
        IoFreeMdl(mdl);
        return status;
    }
    Irp->MdlAddress = mdl;                              /* from now on the I/O manager unlocks and frees it */
    return STATUS_SUCCESS;
}

static NTSTATUS SnapRecord(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSNAPPER s = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG room = sp->Parameters.DeviceIoControl.OutputBufferLength / sizeof(SAMPLE);
    LARGE_INTEGER due;
    PVOID buffer = NULL;
    BOOLEAN busy;
    NTSTATUS status;
    KIRQL irql;

    if (room == 0 || room > SAMPLES_MAX || ((ULONG_PTR)Irp->UserBuffer & 7) != 0)
        return SnapComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    KeAcquireSpinLock(&s->Lock, &irql);
    busy = s->Reserved || s->Irp != NULL;
    if (!busy)
        s->Reserved = TRUE;
    KeReleaseSpinLock(&s->Lock, irql);
    if (busy)
        return SnapComplete(Irp, STATUS_DEVICE_BUSY, 0);

    /* In the context of the caller: this driver has no one above it. */
    status = SnapLockBuffer(Irp, Irp->UserBuffer, room * sizeof(SAMPLE));
    if (NT_SUCCESS(status)) {
        buffer = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
        if (buffer == NULL)
            status = STATUS_INSUFFICIENT_RESOURCES;
    }

    KeAcquireSpinLock(&s->Lock, &irql);
    s->Reserved = FALSE;
    if (NT_SUCCESS(status)) {
        IoMarkIrpPending(Irp);
        IoSetCancelRoutine(Irp, SnapCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            KeReleaseSpinLock(&s->Lock, irql);
            SnapComplete(Irp, STATUS_CANCELLED, 0);
            return STATUS_PENDING;
        }
        s->Irp = Irp;
        s->Buffer = buffer;
        s->Room = room;
        s->Count = 0;
        due.QuadPart = -100000;
        KeSetTimerEx(&s->Timer, due, 10, &s->Dpc);
        KeReleaseSpinLock(&s->Lock, irql);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&s->Lock, irql);
    return SnapComplete(Irp, status, 0);
}

static NTSTATUS NTAPI SnapControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SNAP_RECORD:
        return SnapRecord(DeviceObject, Irp);
    case IOCTL_SNAP_NOW:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SAMPLE))
            return SnapComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        SnapTake(Irp->AssociatedIrp.SystemBuffer);
        return SnapComplete(Irp, STATUS_SUCCESS, sizeof(SAMPLE));
    }
    return SnapComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI SnapOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return SnapComplete(Irp, STATUS_SUCCESS, 0);
}

/* The last handle of a file is closed: its recording ends. */
static NTSTATUS NTAPI SnapCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSNAPPER s = DeviceObject->DeviceExtension;
    PIRP done = NULL;
    KIRQL irql;

    KeAcquireSpinLock(&s->Lock, &irql);
    if (s->Irp != NULL &&
        IoGetCurrentIrpStackLocation(s->Irp)->FileObject == IoGetCurrentIrpStackLocation(Irp)->FileObject &&
        IoSetCancelRoutine(s->Irp, NULL) != NULL) {
        done = s->Irp;
        s->Irp = NULL;
        KeCancelTimer(&s->Timer);
    }
    KeReleaseSpinLock(&s->Lock, irql);
    if (done != NULL)
        SnapComplete(done, STATUS_CANCELLED, 0);
    return SnapComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI SnapUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Snapper");
    PSNAPPER s = DriverObject->DeviceObject->DeviceExtension;

    IoDeleteSymbolicLink(&link);
    KeCancelTimer(&s->Timer);
    KeFlushQueuedDpcs();
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Snapper");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\Snapper");
    PDEVICE_OBJECT device;
    PSNAPPER s;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, sizeof(SNAPPER), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                            &device);
    if (!NT_SUCCESS(status))
        return status;
    s = device->DeviceExtension;
    RtlZeroMemory(s, sizeof(*s));
    KeInitializeSpinLock(&s->Lock);
    KeInitializeTimer(&s->Timer);
    KeInitializeDpc(&s->Dpc, SnapDpc, s);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SnapOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SnapOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = SnapCleanup;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SnapControl;
    DriverObject->DriverUnload = SnapUnload;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
