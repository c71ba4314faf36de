/*
 * The settings of a scale: one code, METHOD_NEITHER, answers the value of the driver's key that counts the scale's turns, as KEY_VALUE_PARTIAL_INFORMATION.
 *
 * The bug: the application's buffer is probed and handed to ZwQueryValueKey as it is. A Zw routine takes what it is given for the kernel's own: what the
 * application unmaps behind the probe, or puts in its place, is written without a look.
 *
 * Device: none
 * Rule: user-address-in-zw-call
 * Needs: ioctl
 * Compiler: clang
 */
#define DEVICE_NAME L"\\Device\\Steelyard"
#define LINK_NAME L"\\DosDevices\\Steelyard"
#include "../include/try.h"
#include "../include/legacy.h"

#define SCALE_TAG 'lacS'
#define IOCTL_SCALE_TURNS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE2C, METHOD_NEITHER, FILE_READ_DATA)

/* The value and what stands before it. */
typedef union _TURNS {
    KEY_VALUE_PARTIAL_INFORMATION Value;
    UCHAR Bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)];
} TURNS, *PTURNS;

typedef struct _DEVICE {
    HANDLE Key; /* the driver's own, a handle of the kernel's */
} DEVICE, *PDEVICE;

static UNICODE_STRING TurnsName = RTL_CONSTANT_STRING(L"Turns");

#ifdef FIXED
/* Called within __try. */
__attribute__((noinline)) static VOID CopyOut(PVOID To, const TURNS *Turns, ULONG Length)
{
    ProbeForWrite(To, Length, 1);
    RtlCopyMemory(To, Turns, Length);
}
#else
/* Called within __try. */
__attribute__((noinline)) static NTSTATUS ReadInto(PDEVICE Own, PVOID To, PULONG Length)
{
    ProbeForWrite(To, sizeof(TURNS), 1);
    return ZwQueryValueKey(Own->Key, &TurnsName, KeyValuePartialInformation, To, sizeof(TURNS), Length);
}
#endif

__attribute__((noinline)) static NTSTATUS Turns(PDEVICE Own, PVOID To, PULONG Length)
{
    NTSTATUS Status;
#ifdef FIXED
    TURNS Read;

    Status = ZwQueryValueKey(Own->Key, &TurnsName, KeyValuePartialInformation, &Read, sizeof(TURNS), Length);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    __try {
        CopyOut(To, &Read, *Length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
#else
    __try {
        Status = ReadInto(Own, To, Length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_ACCESS_VIOLATION;
    }
#endif
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = 0;
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_SCALE_TURNS) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(TURNS)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Status = Turns(Device->DeviceExtension, Irp->UserBuffer, &Length);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    ZwClose(Own->Key);
    LegacyDelete(Driver->DeviceObject);
}

/* Opens the key, and sees to it that the value is there. */
static NTSTATUS OpenKey(PDEVICE Own, PUNICODE_STRING RegistryPath)
{
    OBJECT_ATTRIBUTES Attributes;
    ULONG None = 0;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, RegistryPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    Status = ZwOpenKey(&Own->Key, KEY_READ | KEY_WRITE, &Attributes);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = ZwSetValueKey(Own->Key, &TurnsName, 0, REG_DWORD, &None, sizeof(None));
    if (!NT_SUCCESS(Status)) {
        ZwClose(Own->Key);
    }
    return Status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = OpenKey(Device->DeviceExtension, RegistryPath);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
