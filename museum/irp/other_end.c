/*
 * A cable: two devices, and what is written to one is read from the other. An end has one reader at most; what is written while there is none is lost.
 *
 * The bug: as much is copied to the reader's buffer as was written, though the reader may have asked for less. It shows when one end is written to while a shorter
 * read of the other waits.
 *
 * Device: none
 * Rule: pool-overrun, information-too-large
 * Needs: ioctl
 */
#include "../include/driver.h"

/* One end of the cable. */
typedef struct _END {
    PDEVICE_OBJECT Other;
    PIRP Reader; /* guarded by Lock */
} END, *PEND;

static KSPIN_LOCK Lock;
static UNICODE_STRING Names[] = {RTL_CONSTANT_STRING(L"\\Device\\CableA"), RTL_CONSTANT_STRING(L"\\Device\\CableB")};
static UNICODE_STRING Links[] = {RTL_CONSTANT_STRING(L"\\DosDevices\\CableA"), RTL_CONSTANT_STRING(L"\\DosDevices\\CableB")};

static VOID NTAPI CancelRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEND End = Device->DeviceExtension;
    KIRQL Level;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Lock, &Level);
    if (End->Reader == Irp) {
        End->Reader = NULL;
    }
    KeReleaseSpinLock(&Lock, Level);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEND End = Device->DeviceExtension;
    KIRQL Level;

    KeAcquireSpinLock(&Lock, &Level);
    if (End->Reader != NULL) {
        KeReleaseSpinLock(&Lock, Level);
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
    }
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, CancelRead);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Lock, Level);
        Complete(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    /* If it is being cancelled, its routine waits for the lock. */
    End->Reader = Irp;
    KeReleaseSpinLock(&Lock, Level);
    return STATUS_PENDING;
}

/* The reader of an end, if it is not being cancelled and the file is its own or none is said; it is this caller's from then on. */
static PIRP TakeReader(PEND End, PFILE_OBJECT File)
{
    PIRP Irp;
    KIRQL Level;

    KeAcquireSpinLock(&Lock, &Level);
    Irp = End->Reader;
    if (Irp != NULL && File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File) {
        Irp = NULL;
    }
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        Irp = NULL;
    }
    if (Irp != NULL) {
        End->Reader = NULL;
    }
    KeReleaseSpinLock(&Lock, Level);
    return Irp;
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEND End = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PIRP Reader = TakeReader(End->Other->DeviceExtension, NULL);

    if (Reader != NULL) {
        ULONG Count = Length;
#ifdef FIXED
        Count = min(Length, IoGetCurrentIrpStackLocation(Reader)->Parameters.Read.Length);
#endif
        RtlCopyMemory(Reader->AssociatedIrp.SystemBuffer, Irp->AssociatedIrp.SystemBuffer, Count);
        Complete(Reader, STATUS_SUCCESS, Count);
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIRP Reader = TakeReader(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject);

    if (Reader != NULL) {
        Complete(Reader, STATUS_CANCELLED, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID DeleteAll(PDRIVER_OBJECT Driver, ULONG Count)
{
    while (Count-- > 0) {
        IoDeleteSymbolicLink(&Links[Count]);
    }
    while (Driver->DeviceObject != NULL) {
        IoDeleteDevice(Driver->DeviceObject);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    DeleteAll(Driver, RTL_NUMBER_OF(Links));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Ends[RTL_NUMBER_OF(Names)];
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Count = 0;

    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&Lock);
    for (; Count < RTL_NUMBER_OF(Names); Count++) {
        Status = IoCreateDevice(Driver, sizeof(END), &Names[Count], FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Ends[Count]);
        if (NT_SUCCESS(Status)) {
            Ends[Count]->Flags |= DO_BUFFERED_IO;
            Status = IoCreateSymbolicLink(&Links[Count], &Names[Count]);
        }
        if (!NT_SUCCESS(Status)) {
            DeleteAll(Driver, Count);
            return Status;
        }
    }
    ((PEND)Ends[0]->DeviceExtension)->Other = Ends[1];
    ((PEND)Ends[1]->DeviceExtension)->Other = Ends[0];
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOpenClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
