/*
 * legacy.sys: a driver without hardware or Plug and Play. One device, \\.\DirqlLegacy, keeps a block of bytes and
 * shows every way a request carries data: buffered reads and writes, and one control code for each transfer method.
 *
 * Its service's Parameters key may hold Limit (REG_DWORD): how many bytes the device keeps, 4096 by default.
 * It does not handle bad pointers in the METHOD_NEITHER code: gcc has no __try, so a bad one is a bug check.
 */
#include <ddk/wdm.h>

#define LEGACY_TAG 'glqD' /* "Dqlg" in pool listings */
#define DEFAULT_LIMIT 4096
#define INIT_CODE __attribute__((section("INIT")))

/* Input: text. Output: the same in capitals. */
#define IOCTL_LEGACY_UPPERCASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: ULONG offset. "Output" buffer: bytes to keep from that offset on. Information: how many were kept. */
#define IOCTL_LEGACY_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_IN_DIRECT, FILE_WRITE_ACCESS)
/* Input: ULONGs. Output: one LEGACY_SUM. */
#define IOCTL_LEGACY_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_OUT_DIRECT, FILE_ANY_ACCESS)
/* Input: bytes. Output: the same backwards. */
#define IOCTL_LEGACY_REVERSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_NEITHER, FILE_ANY_ACCESS)
/* Output: one LEGACY_STATE. */
#define IOCTL_LEGACY_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _LEGACY_SUM {
    ULONG Count;
    ULONG Sum; /* modulo 2^32 */
} LEGACY_SUM;

typedef struct _LEGACY_STATE {
    ULONG Limit;   /* bytes the device can keep */
    ULONG Used;    /* bytes kept */
    LONG Handles;  /* open now */
    ULONG Reads;   /* completed with success */
    ULONG Writes;
} LEGACY_STATE;

typedef struct _DEVICE_EXTENSION {
    KSPIN_LOCK Lock;    /* guards State.Used, the counters and Bytes */
    LEGACY_STATE State;
    PUCHAR Bytes;       /* State.Limit bytes of non-paged pool */
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLegacy");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLegacy");

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    InterlockedIncrement(&Extension->State.Handles);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device); /* nothing is ever pending here */
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    InterlockedDecrement(&Extension->State.Handles);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Stack->Parameters.Read.Length;
    LONGLONG Offset = Stack->Parameters.Read.ByteOffset.QuadPart;
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL OldIrql;

    if (Length == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    if (Offset < 0 || Offset >= (LONGLONG)Extension->State.Used) {
        Status = STATUS_END_OF_FILE;
        Length = 0;
    } else {
        Length = min(Length, Extension->State.Used - (ULONG)Offset);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Extension->Bytes + Offset, Length);
        Extension->State.Reads++;
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    return Complete(Irp, Status, Length);
}

/* Keeps Length bytes from Offset on, or nothing if they would not all fit. */
static NTSTATUS Store(PDEVICE_EXTENSION Extension, ULONGLONG Offset, const VOID *From, ULONG Length)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    if (Offset > Extension->State.Limit || Length > Extension->State.Limit - Offset) {
        Status = STATUS_DISK_FULL;
    } else {
        RtlCopyMemory(Extension->Bytes + Offset, From, Length);
        Extension->State.Used = max(Extension->State.Used, (ULONG)Offset + Length);
        Extension->State.Writes++;
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    return Status;
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Stack->Parameters.Write.Length;
    NTSTATUS Status;

    if (Length == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    Status = Store(Device->DeviceExtension, (ULONGLONG)Stack->Parameters.Write.ByteOffset.QuadPart,
                   Irp->AssociatedIrp.SystemBuffer, Length);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static NTSTATUS Uppercase(PIRP Irp, ULONG InputLength, ULONG OutputLength)
{
    PUCHAR Text = Irp->AssociatedIrp.SystemBuffer; /* input and output are the same buffer */
    ULONG Index;

    if (OutputLength < InputLength) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    for (Index = 0; Index < InputLength; Index++) {
        if (Text[Index] >= 'a' && Text[Index] <= 'z') {
            Text[Index] -= 'a' - 'A';
        }
    }
    return Complete(Irp, STATUS_SUCCESS, InputLength);
}

static NTSTATUS StoreDirect(PDEVICE_EXTENSION Extension, PIRP Irp, ULONG InputLength, ULONG OutputLength)
{
    PVOID Bytes;
    NTSTATUS Status;

    if (InputLength != sizeof(ULONG) || OutputLength == 0) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Bytes = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (Bytes == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Status = Store(Extension, *(PULONG)Irp->AssociatedIrp.SystemBuffer, Bytes, OutputLength);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? OutputLength : 0);
}

static NTSTATUS Sum(PIRP Irp, ULONG InputLength, ULONG OutputLength)
{
    const ULONG *Numbers = Irp->AssociatedIrp.SystemBuffer;
    LEGACY_SUM Result = {InputLength / sizeof(ULONG), 0};
    LEGACY_SUM *Output;
    ULONG Index;

    if (InputLength % sizeof(ULONG) != 0 || OutputLength < sizeof(Result)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Output = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (Output == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    for (Index = 0; Index < Result.Count; Index++) {
        Result.Sum += Numbers[Index];
    }
    *Output = Result;
    return Complete(Irp, STATUS_SUCCESS, sizeof(Result));
}

/* Runs in the caller's own context: both addresses are the caller's, used as they came. */
static NTSTATUS Reverse(PIRP Irp, PIO_STACK_LOCATION Stack, ULONG InputLength, ULONG OutputLength)
{
    PUCHAR Input = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
    PUCHAR Output = Irp->UserBuffer;
    PUCHAR Copy;
    ULONG Index;

    if (InputLength == 0 || OutputLength < InputLength) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Copy = ExAllocatePoolWithTag(PagedPool, InputLength, LEGACY_TAG);
    if (Copy == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    if (Irp->RequestorMode != KernelMode) {
        ProbeForRead(Input, InputLength, 1);
        ProbeForWrite(Output, InputLength, 1);
    }
    RtlCopyMemory(Copy, Input, InputLength);
    for (Index = 0; Index < InputLength; Index++) {
        Output[Index] = Copy[InputLength - 1 - Index];
    }
    ExFreePoolWithTag(Copy, LEGACY_TAG);
    return Complete(Irp, STATUS_SUCCESS, InputLength);
}

static NTSTATUS ReportState(PDEVICE_EXTENSION Extension, PIRP Irp, ULONG OutputLength)
{
    KIRQL OldIrql;

    if (OutputLength < sizeof(LEGACY_STATE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    *(LEGACY_STATE *)Irp->AssociatedIrp.SystemBuffer = Extension->State;
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    return Complete(Irp, STATUS_SUCCESS, sizeof(LEGACY_STATE));
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InputLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutputLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LEGACY_UPPERCASE:
        return Uppercase(Irp, InputLength, OutputLength);
    case IOCTL_LEGACY_STORE:
        return StoreDirect(Device->DeviceExtension, Irp, InputLength, OutputLength);
    case IOCTL_LEGACY_SUM:
        return Sum(Irp, InputLength, OutputLength);
    case IOCTL_LEGACY_REVERSE:
        return Reverse(Irp, Stack, InputLength, OutputLength);
    case IOCTL_LEGACY_STATE:
        return ReportState(Device->DeviceExtension, Irp, OutputLength);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    PDEVICE_OBJECT Device = Driver->DeviceObject;
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    IoDeleteSymbolicLink(&LinkName);
    ExFreePoolWithTag(Extension->Bytes, LEGACY_TAG);
    IoDeleteDevice(Device);
    DbgPrint("legacy: unloaded\n");
}

/* Reads Parameters\Limit; without key or value the default stands. */
INIT_CODE static ULONG ReadLimit(PUNICODE_STRING RegistryPath)
{
    RTL_QUERY_REGISTRY_TABLE Table[3];
    ULONG Default = DEFAULT_LIMIT;
    ULONG Limit = DEFAULT_LIMIT;
    PWSTR Path;

    /* RegistryPath need not end in a zero; RtlQueryRegistryValues wants one. */
    Path = ExAllocatePoolWithTag(PagedPool, RegistryPath->Length + sizeof(WCHAR), LEGACY_TAG);
    if (Path == NULL) {
        return DEFAULT_LIMIT;
    }
    RtlCopyMemory(Path, RegistryPath->Buffer, RegistryPath->Length);
    Path[RegistryPath->Length / sizeof(WCHAR)] = L'\0';

    RtlZeroMemory(Table, sizeof(Table)); /* the zero entry at the end is the terminator */
    Table[0].Flags = RTL_QUERY_REGISTRY_SUBKEY;
    Table[0].Name = (PWSTR)L"Parameters";
    Table[1].Flags = RTL_QUERY_REGISTRY_DIRECT;
    Table[1].Name = (PWSTR)L"Limit";
    Table[1].EntryContext = &Limit;
    Table[1].DefaultType = REG_DWORD;
    Table[1].DefaultData = &Default;
    Table[1].DefaultLength = sizeof(Default);
    if (!NT_SUCCESS(RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, Path, Table, NULL, NULL)) || Limit == 0) {
        Limit = DEFAULT_LIMIT;
    }
    ExFreePoolWithTag(Path, LEGACY_TAG);
    return Limit;
}

INIT_CODE static NTSTATUS CreateTheDevice(PDRIVER_OBJECT Driver, ULONG Limit)
{
    PDEVICE_OBJECT Device;
    PDEVICE_EXTENSION Extension;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension = Device->DeviceExtension; /* IoCreateDevice has zeroed it */
    KeInitializeSpinLock(&Extension->Lock);
    Extension->State.Limit = Limit;
    Extension->Bytes = ExAllocatePoolWithTag(NonPagedPool, Limit, LEGACY_TAG);
    if (Extension->Bytes == NULL) {
        IoDeleteDevice(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Extension->Bytes, Limit);
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Extension->Bytes, LEGACY_TAG);
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    ULONG Limit = ReadLimit(RegistryPath);
    NTSTATUS Status = CreateTheDevice(Driver, Limit);

    if (!NT_SUCCESS(Status)) {
        DbgPrint("legacy: no device, status %08x\n", Status);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->DriverUnload = DriverUnload;
    DbgPrint("legacy: loaded from %wZ, keeps %u bytes\n", RegistryPath, Limit);
    return STATUS_SUCCESS;
}
