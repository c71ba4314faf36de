/*
 * scribe.sys: keeps the last batch of records that an application has given it.
 *
 * IOCTL_SCRIBE_APPEND (METHOD_IN_DIRECT, the records are in the second buffer): a ULONG, how many there are, then each one as a
 * USHORT, its length, and its bytes. The driver keeps the bytes of all, one behind the other. IOCTL_SCRIBE_LAST yields them.
 *
 * The bug: the records are looked at where the application has them (its pages are locked, not its own to change only). The
 * lengths are added up and checked in one pass, and read again in the second, which copies: an application that makes one larger
 * in between has the driver write beyond its block of pool, and read beyond the locked pages.
 *
 * How it shows: another thread of the application changes a length (or the count) while the request is carried out.
 *
 * Device: none
 * Rule: pool-overrun, wild-read, wild-write, bad-pointer
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_SCRIBE_APPEND CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_IN_DIRECT, FILE_WRITE_ACCESS)
#define IOCTL_SCRIBE_LAST CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC02, METHOD_BUFFERED, FILE_READ_ACCESS)

#define MOST_BYTES 0x10000u
#define MOST_RECORDS 64u
#define SCRIBE_TAG ((ULONG)'rcS')

DRIVER_INITIALIZE DriverEntry;

/* The last batch. */
static FAST_MUTEX g_Lock;
static PUCHAR g_Last;
static ULONG g_LastLength;

static UNICODE_STRING g_Name = RTL_CONSTANT_STRING(L"\\Device\\Scribe");
static UNICODE_STRING g_Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Scribe");

static USHORT ReadLength(const volatile UCHAR *From) { return (USHORT)(From[0] | From[1] << 8); }

/* The bytes of all records together, if they all lie within the batch. */
static NTSTATUS Measure(const volatile UCHAR *Batch, ULONG Length, PULONG Count, PULONG Total)
{
    ULONG Records, Index, At = sizeof(ULONG), Sum = 0;

    if (Length < sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    Records = ReadLength(Batch) | (ULONG)ReadLength(Batch + 2) << 16;
    if (Records == 0 || Records > MOST_RECORDS)
        return STATUS_INVALID_PARAMETER;
    for (Index = 0; Index < Records; Index++) {
        ULONG One;

        if (Length - At < sizeof(USHORT))
            return STATUS_INVALID_PARAMETER;
        One = ReadLength(Batch + At);
        At += sizeof(USHORT);
        if (One == 0 || Length - At < One)
            return STATUS_INVALID_PARAMETER;
        At += One;
        Sum += One;
    }
    *Count = Records;
    *Total = Sum;
    return STATUS_SUCCESS;
}

static VOID Gather(PUCHAR To, const volatile UCHAR *Batch, ULONG Count)
{
    ULONG At = sizeof(ULONG), Index;

    for (Index = 0; Index < Count; Index++) {
        ULONG One = ReadLength(Batch + At);

        At += sizeof(USHORT);
        RtlCopyMemory(To, (const UCHAR *)Batch + At, One);
        To += One;
        At += One;
    }
}

static NTSTATUS Append(PMDL Mdl, ULONG Length)
{
    const UCHAR *Batch;
    PUCHAR Block, Old;
    ULONG Count, Total;
    NTSTATUS Status;

    if (Mdl == NULL || Length > MOST_BYTES)
        return STATUS_INVALID_PARAMETER;
    Batch = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    if (Batch == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    PUCHAR Copy = ExAllocatePoolWithTag(PagedPool, Length, SCRIBE_TAG);
    if (Copy == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(Copy, Batch, Length);
    Batch = Copy;
#endif
    Status = Measure(Batch, Length, &Count, &Total);
    if (NT_SUCCESS(Status)) {
        Block = ExAllocatePoolWithTag(PagedPool, Total, SCRIBE_TAG);
        if (Block == NULL) {
            Status = STATUS_INSUFFICIENT_RESOURCES;
        } else {
            Gather(Block, Batch, Count);
            ExAcquireFastMutex(&g_Lock);
            Old = g_Last;
            g_Last = Block;
            g_LastLength = Total;
            ExReleaseFastMutex(&g_Lock);
            if (Old != NULL)
                ExFreePoolWithTag(Old, SCRIBE_TAG);
        }
    }
#ifdef FIXED
    ExFreePoolWithTag(Copy, SCRIBE_TAG);
#endif
    return Status;
}

static NTSTATUS Last(PVOID Buffer, ULONG Room, PULONG_PTR Information)
{
    NTSTATUS Status = STATUS_NOT_FOUND;

    ExAcquireFastMutex(&g_Lock);
    if (g_Last != NULL) {
        Status = STATUS_BUFFER_TOO_SMALL;
        if (Room >= g_LastLength) {
            RtlCopyMemory(Buffer, g_Last, g_LastLength);
            *Information = g_LastLength;
            Status = STATUS_SUCCESS;
        }
    }
    ExReleaseFastMutex(&g_Lock);
    return Status;
}

static NTSTATUS NTAPI ScribeDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG_PTR Information = 0;

    UNREFERENCED_PARAMETER(Device);
    if (Stack->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_SCRIBE_APPEND:
            Status = Append(Irp->MdlAddress, Output);
            break;
        case IOCTL_SCRIBE_LAST:
            Status = Last(Irp->AssociatedIrp.SystemBuffer, Output, &Information);
            break;
        default:
            Status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
    }
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID NTAPI ScribeUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&g_Link);
    IoDeleteDevice(Driver->DeviceObject);
    if (g_Last != NULL)
        ExFreePoolWithTag(g_Last, SCRIBE_TAG);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    ExInitializeFastMutex(&g_Lock);
    Driver->MajorFunction[IRP_MJ_CREATE] = ScribeDispatch;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ScribeDispatch;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ScribeDispatch;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ScribeDispatch;
    Driver->DriverUnload = ScribeUnload;
    Status = IoCreateDevice(Driver, 0, &g_Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCreateSymbolicLink(&g_Link, &g_Name);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Device);
    return Status;
}
