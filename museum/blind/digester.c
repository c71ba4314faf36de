/*
 * digester: computes a checksum over everything written to a handle; the buffers may be large, so the driver maps them into system space in windows of
 * 64 KiB through one partial MDL.
 *
 * The bug: the partial MDL is built for the next window without MmPrepareMdlForReuse. The mapping of every window but the last of a write is lost;
 * system address space (PTEs) leaks until mappings fail all over the system.
 *
 * Device: none
 * Rule: mdl-rebuilt-mapped, locked-pages-leak
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define DIGEST_TAG 'tsgD'
#define WINDOW (64u * 1024)
#define LONGEST_WRITE (16u * 1024 * 1024)

typedef struct _DIGEST {
    ULONG64 Length;
    ULONG A; /* Adler-32 */
    ULONG B;
} DIGEST;

#define IOCTL_DIGEST_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)    /* out: DIGEST */
#define IOCTL_DIGEST_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)

DRIVER_INITIALIZE DriverEntry;

/* per handle */
typedef struct _SESSION {
    FAST_MUTEX Lock;
    DIGEST Digest; /* guarded by Lock */
} SESSION, *PSESSION;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Digester");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Digester");
static PDEVICE_OBJECT Control;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID Reset(DIGEST *Digest)
{
    Digest->Length = 0;
    Digest->A = 1;
    Digest->B = 0;
}

static VOID Add(DIGEST *Digest, const volatile UCHAR *Data, ULONG Length)
{
    ULONG i;

    for (i = 0; i < Length; i++) {
        Digest->A = (Digest->A + Data[i]) % 65521;
        Digest->B = (Digest->B + Digest->A) % 65521;
    }
    Digest->Length += Length;
}

/* Adds the user's pages window by window. On failure the digest stays as it was. */
static NTSTATUS AddPages(PSESSION Session, PMDL Mdl, ULONG Length, PIRP Irp)
{
    PUCHAR Va = MmGetMdlVirtualAddress(Mdl);
    ULONG Done, Part;
    DIGEST Digest;
    PMDL Partial;
    NTSTATUS Status = STATUS_SUCCESS;

    /* large enough for a window at any offset into a page */
    Partial = IoAllocateMdl((PVOID)(ULONG_PTR)(PAGE_SIZE - 1), WINDOW, FALSE, FALSE, NULL);
    if (Partial == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExAcquireFastMutex(&Session->Lock);
    Digest = Session->Digest;
    for (Done = 0; Done < Length; Done += Part) {
        PVOID Mapped;

        if (Irp->Cancel) {
            Status = STATUS_CANCELLED;
            break;
        }
        Part = Length - Done < WINDOW ? Length - Done : WINDOW;
        IoBuildPartialMdl(Mdl, Partial, Va + Done, Part);
        Mapped = MmGetSystemAddressForMdlSafe(Partial, NormalPagePriority);
        if (Mapped == NULL) {
            Status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        Add(&Digest, Mapped, Part);
#ifdef FIXED
        MmPrepareMdlForReuse(Partial);
#endif
    }
    if (NT_SUCCESS(Status))
        Session->Digest = Digest;
    ExReleaseFastMutex(&Session->Lock);
    IoFreeMdl(Partial);
    return Status;
}

static NTSTATUS NTAPI DigestWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = s->Parameters.Write.Length;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (Length > LONGEST_WRITE)
        return Complete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    if (Length == 0 || Irp->MdlAddress == NULL)
        return Complete(Irp, STATUS_SUCCESS, 0);
    Status = AddPages(s->FileObject->FsContext, Irp->MdlAddress, Length, Irp);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static NTSTATUS NTAPI DigestControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PSESSION Session = s->FileObject->FsContext;
    DIGEST Digest;

    UNREFERENCED_PARAMETER(Device);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DIGEST_GET:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(DIGEST))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&Session->Lock);
        Digest = Session->Digest;
        ExReleaseFastMutex(&Session->Lock);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Digest, sizeof(Digest));
        return Complete(Irp, STATUS_SUCCESS, sizeof(Digest));
    case IOCTL_DIGEST_RESET:
        ExAcquireFastMutex(&Session->Lock);
        Reset(&Session->Digest);
        ExReleaseFastMutex(&Session->Lock);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DigestOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSESSION Session = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Session), DIGEST_TAG);

    UNREFERENCED_PARAMETER(Device);
    if (Session == NULL)
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExInitializeFastMutex(&Session->Lock);
    Reset(&Session->Digest);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = Session;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DigestClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, DIGEST_TAG);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI DigestUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = DigestOpen;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DigestClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = DigestWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DigestControl;
    Driver->DriverUnload = DigestUnload;
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (!NT_SUCCESS(Status))
        return Status;
    Control->Flags |= DO_DIRECT_IO;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Control);
    return Status;
}
