/*
 * fetch.sys: what an application changes, or takes away, while a driver uses it. One device without hardware, \\.\DirqlFetch, whose control codes take a MESSAGE
 * and copy what it holds to a block of CAPACITY bytes of pool:
 *   with METHOD_NEITHER by the application's own address, within __try;
 *   with METHOD_IN_DIRECT's second buffer by a mapping of its locked pages.
 * Codes ending in _TWICE read the length once to look at it and once to use it: the bug. Those ending in _ONCE take it over first. With a PAUSE, the driver waits
 * between the look and the use, so that a script can come between by hand. IOCTL_UNGUARDED does not expect that the memory goes away: a bug. IOCTL_AT_OFFSET takes
 * an offset in the message instead of a length, and four bytes there: which may be those of the offset. IOCTL_COPIED has a function that knows nothing of exceptions call a routine which copies the message.
 */
#include "seh/clang.h"

#include "control.h"

#define CAPACITY 16
#define FETCH_TAG 0x63746546u /* "Fetc" in pool listings */

#define IOCTL_TWICE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_ONCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_PAUSE_TWICE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_PAUSE_ONCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_UNGUARDED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_DIRECT_TWICE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_IN_DIRECT, FILE_ANY_ACCESS)
#define IOCTL_DIRECT_ONCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_IN_DIRECT, FILE_ANY_ACCESS)
#define IOCTL_PAUSE_DIRECT_TWICE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x807, METHOD_IN_DIRECT, FILE_ANY_ACCESS)
#define IOCTL_PAUSE_DIRECT_ONCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x808, METHOD_IN_DIRECT, FILE_ANY_ACCESS)

#define IOCTL_COPIED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x80A, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_AT_OFFSET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x809, METHOD_NEITHER, FILE_ANY_ACCESS)

typedef struct _MESSAGE {
    volatile ULONG Length; /* of Bytes, at most CAPACITY */
    UCHAR Bytes[60];
} MESSAGE;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFetch");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFetch");

static VOID Pause(BOOLEAN Pauses)
{
    LARGE_INTEGER Interval;

    if (Pauses) {
        Interval.QuadPart = -50000; /* 5 ms */
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
}

static VOID Copy(PUCHAR To, const MESSAGE *From, ULONG Length)
{
    for (ULONG Index = 0; Index < Length && Index < sizeof(From->Bytes); Index++) {
        To[Index] = From->Bytes[Index];
    }
}

static NTSTATUS Use(const MESSAGE *Message, BOOLEAN Once, BOOLEAN Pauses, PULONG Used)
{
    PUCHAR Bytes = ExAllocatePoolWithTag(NonPagedPool, CAPACITY, FETCH_TAG);
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Length;

    if (Bytes == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    __try {
        Length = Message->Length;
        if (Length > CAPACITY) {
            Status = STATUS_INVALID_PARAMETER;
        } else {
            Pause(Pauses);
            *Used = Once ? Length : Message->Length;
            Copy(Bytes, Message, *Used);
        }
    } __finally {
        ExFreePoolWithTag(Bytes, FETCH_TAG);
    }
    return Status;
}

static NTSTATUS UseGuarded(MESSAGE *Message, ULONG Length, BOOLEAN Once, BOOLEAN Pauses, PULONG Used)
{
    if (Length < sizeof(MESSAGE)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    __try {
        ProbeForRead(Message, sizeof(MESSAGE), sizeof(ULONG));
        return Use(Message, Once, Pauses, Used);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
}

static NTSTATUS UseAtOffset(MESSAGE *Message, ULONG Length, PULONG Sum)
{
    if (Length < sizeof(MESSAGE)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    __try {
        ProbeForRead(Message, sizeof(MESSAGE), sizeof(ULONG));
        ULONG Offset = Message->Length;

        if (Offset > sizeof(MESSAGE) - 4) {
            return STATUS_INVALID_PARAMETER;
        }
        for (ULONG Index = 0; Index < 4; Index++) {
            *Sum += ((const volatile UCHAR *)Message)[Offset + Index];
        }
        return STATUS_SUCCESS;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
}

static __attribute__((noinline)) VOID CopyByRoutine(volatile UCHAR *To, const MESSAGE *From, ULONG Length)
{
    memcpy((PVOID)To, From->Bytes, Length);
    To[0]++;
}

static NTSTATUS UseCopied(MESSAGE *Message, ULONG Length, PULONG Used)
{
    volatile UCHAR Bytes[CAPACITY];

    if (Length < sizeof(MESSAGE)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    __try {
        ProbeForRead(Message, sizeof(MESSAGE), sizeof(ULONG));
        CopyByRoutine(Bytes, Message, CAPACITY);
        *Used = Bytes[0];
        return STATUS_SUCCESS;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
}

static NTSTATUS UseDirect(PMDL Mdl, BOOLEAN Once, BOOLEAN Pauses, PULONG Used)
{
    MESSAGE *Message;

    if (Mdl == NULL || MmGetMdlByteCount(Mdl) < sizeof(MESSAGE)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    Message = MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority);
    return Message == NULL ? STATUS_INSUFFICIENT_RESOURCES : Use(Message, Once, Pauses, Used);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    MESSAGE *Message = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
    ULONG Length = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Used = 0;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TWICE:
        Status = UseGuarded(Message, Length, FALSE, FALSE, &Used);
        break;
    case IOCTL_ONCE:
        Status = UseGuarded(Message, Length, TRUE, FALSE, &Used);
        break;
    case IOCTL_PAUSE_TWICE:
        Status = UseGuarded(Message, Length, FALSE, TRUE, &Used);
        break;
    case IOCTL_PAUSE_ONCE:
        Status = UseGuarded(Message, Length, TRUE, TRUE, &Used);
        break;
    case IOCTL_UNGUARDED:
        Status = Length < sizeof(MESSAGE) ? STATUS_BUFFER_TOO_SMALL : Use(Message, TRUE, TRUE, &Used);
        break;
    case IOCTL_AT_OFFSET:
        Status = UseAtOffset(Message, Length, &Used);
        break;
    case IOCTL_COPIED:
        Status = UseCopied(Message, Length, &Used);
        break;
    case IOCTL_DIRECT_TWICE:
        Status = UseDirect(Irp->MdlAddress, FALSE, FALSE, &Used);
        break;
    case IOCTL_DIRECT_ONCE:
        Status = UseDirect(Irp->MdlAddress, TRUE, FALSE, &Used);
        break;
    case IOCTL_PAUSE_DIRECT_TWICE:
        Status = UseDirect(Irp->MdlAddress, FALSE, TRUE, &Used);
        break;
    case IOCTL_PAUSE_DIRECT_ONCE:
        Status = UseDirect(Irp->MdlAddress, TRUE, TRUE, &Used);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Used : 0);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
