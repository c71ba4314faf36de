/*
 * hashd: a checksum service.  Writes (direct I/O) are queued to a system thread that folds them into the CRC-32 of
 * their open file; IOCTL_RESULT returns the file's sum, IOCTL_RESET starts it anew.
 *
 * The bug: unloading waits for an event that the thread sets before it ends, and not for the thread.
 *
 * Device: none
 * Rule: unload-still-called
 * Needs: schedule
 */
#include "../include/dkq.h"

#define IOCTL_RESULT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RESET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'hHoB'
#define MAX_WRITE (1024 * 1024)

typedef struct _HASHFILE {
    KSPIN_LOCK Lock;
    ULONG Crc;
    ULONG Jobs;
    ULONGLONG Bytes;
    ULONG Resets;
} HASHFILE, *PHASHFILE;

typedef struct _HASH_RESULT {
    ULONG Crc;
    ULONG Jobs;
    ULONGLONG Bytes;
} HASH_RESULT;

typedef struct _HASHD {
    DKQ Queue;
    KEVENT Work;
    KEVENT Gone;
    PKTHREAD Thread;
    volatile LONG Stop;
} HASHD, *PHASHD;

DRIVER_INITIALIZE DriverEntry;
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\HashD");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\HashD");

static ULONG Fold(ULONG Crc, const UCHAR *Data, ULONG Length)
{
    Crc = ~Crc;
    while (Length--) {
        int Bit;
        Crc ^= *Data++;
        for (Bit = 0; Bit < 8; Bit++)
            Crc = (Crc >> 1) ^ (0xEDB88320U & (0U - (Crc & 1)));
    }
    return ~Crc;
}

static VOID Process(PIRP Irp)
{
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PHASHFILE File = Sp->FileObject->FsContext;
    ULONG Length = Sp->Parameters.Write.Length;
    PUCHAR Data = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    ULONG Crc, Resets;
    BOOLEAN Again;
    KIRQL Irql;

    if (!Data) {
        DkFinish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        return;
    }

    /* only this thread adds to sums; a reset in the middle of a job counts as before it */
    KeAcquireSpinLock(&File->Lock, &Irql);
    Crc = File->Crc;
    Resets = File->Resets;
    KeReleaseSpinLock(&File->Lock, Irql);

    Crc = Fold(Crc, Data, Length);

    KeAcquireSpinLock(&File->Lock, &Irql);
    Again = Resets != File->Resets;
    KeReleaseSpinLock(&File->Lock, Irql);
    if (Again)
        Crc = Fold(0, Data, Length);

    KeAcquireSpinLock(&File->Lock, &Irql);
    File->Crc = Crc;
    File->Jobs++;
    File->Bytes += Length;
    KeReleaseSpinLock(&File->Lock, Irql);

    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = Length;
    IoCompleteRequest(Irp, IO_DISK_INCREMENT);
}

static VOID NTAPI Worker(PVOID Context)
{
    PHASHD X = Context;
    PIRP Irp;

    for (;;) {
        KeWaitForSingleObject(&X->Work, Executive, KernelMode, FALSE, NULL);
        while ((Irp = IoCsqRemoveNextIrp(&X->Queue.Csq, NULL)) != NULL)
            Process(Irp);
        if (X->Stop)
            break;
    }
    KeSetEvent(&X->Gone, IO_NO_INCREMENT, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS StartWorker(PHASHD X)
{
    OBJECT_ATTRIBUTES Attr;
    HANDLE Handle;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attr, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attr, NULL, NULL, Worker, X);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = ObReferenceObjectByHandle(Handle, SYNCHRONIZE, *PsThreadType, KernelMode, (PVOID *)&X->Thread, NULL);
    if (!NT_SUCCESS(Status)) {
        InterlockedExchange(&X->Stop, 1);
        KeSetEvent(&X->Work, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Handle, FALSE, NULL);
    }
    ZwClose(Handle);
    return Status;
}

static VOID StopWorker(PHASHD X)
{
    InterlockedExchange(&X->Stop, 1);
    KeSetEvent(&X->Work, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    KeWaitForSingleObject(X->Thread, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(&X->Gone, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(X->Thread);
    X->Thread = NULL;
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHASHFILE File = ExAllocatePoolWithTag(NonPagedPool, sizeof(*File), TAG);
    UNREFERENCED_PARAMETER(Device);
    if (!File)
        return DkFinish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(File, sizeof(*File));
    KeInitializeSpinLock(&File->Lock);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = File;
    return DkFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHASHD X = Device->DeviceExtension;
    DkqCleanup(&X->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return DkFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(File->FsContext, TAG);
    File->FsContext = NULL;
    return DkFinish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHASHD X = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status;

    if (Length == 0)
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    if (Length > MAX_WRITE || !Irp->MdlAddress)
        return DkFinish(Irp, STATUS_INVALID_PARAMETER, 0);
    Status = IoCsqInsertIrpEx(&X->Queue.Csq, Irp, NULL, NULL);
    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    KeSetEvent(&X->Work, IO_NO_INCREMENT, FALSE);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PHASHFILE File = Sp->FileObject->FsContext;
    HASH_RESULT *Out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RESULT:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*Out))
            return DkFinish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&File->Lock, &Irql);
        Out->Crc = File->Crc;
        Out->Jobs = File->Jobs;
        Out->Bytes = File->Bytes;
        KeReleaseSpinLock(&File->Lock, Irql);
        return DkFinish(Irp, STATUS_SUCCESS, sizeof(*Out));
    case IOCTL_RESET:
        KeAcquireSpinLock(&File->Lock, &Irql);
        File->Crc = 0;
        File->Jobs = 0;
        File->Bytes = 0;
        File->Resets++;
        KeReleaseSpinLock(&File->Lock, Irql);
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    default:
        return DkFinish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Device = Driver->DeviceObject;
    IoDeleteSymbolicLink(&LinkName);
    StopWorker(Device->DeviceExtension);
    IoDeleteDevice(Device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT Device;
    PHASHD X;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = IoCreateDevice(Driver, sizeof(HASHD), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Device->Flags |= DO_DIRECT_IO;
    X = Device->DeviceExtension;
    RtlZeroMemory(X, sizeof(*X));
    DkqInit(&X->Queue, NULL);
    KeInitializeEvent(&X->Work, SynchronizationEvent, FALSE);
    KeInitializeEvent(&X->Gone, NotificationEvent, FALSE);

    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = StartWorker(X);
    if (!NT_SUCCESS(Status)) {
        IoDeleteSymbolicLink(&LinkName);
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
