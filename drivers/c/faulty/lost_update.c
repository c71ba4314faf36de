/*
 * lost_update.sys: a counter that two threads and a DPC increment, with nothing that keeps them apart. An increment
 * between another one's load and its store is lost. One device, \\.\DirqlLostUpdate.
 *
 * A run that goes its usual way never shows it: it takes one that lets another go first at the right place. The codes
 * for locked increments are right, and no schedule breaks them.
 */
#include <ddk/wdm.h>

/* The bug. Something that other processors see (an interlocked instruction) stands between load and store. */
#define IOCTL_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Queues the DPC that does the same. */
#define IOCTL_ADD_BY_DPC CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: ULONG, how many increments were lost. */
#define IOCTL_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* The bug with nothing but plain instructions between load and store. */
#define IOCTL_ADD_QUIETLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* As it should be done: under the lock. */
#define IOCTL_ADD_LOCKED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Queues a DPC with the quiet bug. */
#define IOCTL_ADD_QUIETLY_BY_DPC CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Two bytes beside each other, each one caller's own: no bug. */
#define IOCTL_ADD_TO_LEFT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ADD_TO_RIGHT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x807, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Two bits of one byte: the bug again, though each has one writer. */
#define IOCTL_SET_FIRST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x808, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SET_SECOND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x809, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: ULONG, the bits and the bytes. */
#define IOCTL_SMALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x80A, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* If increments were lost, kills the process that runs the driver: for tests of searches. */
#define IOCTL_WRECK_IF_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x80B, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* If increments were lost, returns another status than the request was completed with: what only Driver Verifier stops for. */
#define IOCTL_STATUS_IF_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x80C, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Where dirql keeps, in its own memory, what each address of an image is translated to: 8 bytes for each. */
#define IMAGES 0x200000000000ull
#define DISPATCH_TABLE 0x200070000000ull

typedef struct _DEVICE_EXTENSION {
    KSPIN_LOCK Lock;
    KDPC Dpc;
    KDPC QuietDpc;
    volatile LONG Count;    /* what the increments have made of it */
    volatile LONG Attempts; /* how many there were */
    volatile struct {
        UCHAR First : 1;
        UCHAR Second : 1;
        UCHAR Left;
        UCHAR Right;
    } Small;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLostUpdate");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLostUpdate");

static VOID Add(PDEVICE_EXTENSION Extension)
{
    LONG Seen = Extension->Count;

    InterlockedIncrement(&Extension->Attempts);
    Extension->Count = Seen + 1;
}

static VOID AddQuietly(PDEVICE_EXTENSION Extension)
{
    InterlockedIncrement(&Extension->Attempts);
    Extension->Count = Extension->Count + 1;
}

static VOID AddLocked(PDEVICE_EXTENSION Extension)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    Add(Extension);
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
}

static VOID NTAPI AddDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Add(Context);
}

static VOID NTAPI AddQuietlyDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    AddQuietly(Context);
}

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Code of this page is found no more. */
static VOID Wreck(VOID)
{
    volatile UCHAR *At = (PUCHAR)DISPATCH_TABLE + 8 * (((ULONG_PTR)Complete & ~0xFFFull) - IMAGES);
    SIZE_T Index;

    for (Index = 0; Index < 8 * 0x1000; Index++) {
        At[Index] = 0x41;
    }
}

static NTSTATUS NTAPI DispatchOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ADD:
        Add(Extension);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_ADD_BY_DPC:
        KeInsertQueueDpc(&Extension->Dpc, NULL, NULL);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_LOST:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = Extension->Attempts - Extension->Count;
        return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
    case IOCTL_ADD_QUIETLY:
        AddQuietly(Extension);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_ADD_QUIETLY_BY_DPC:
        KeInsertQueueDpc(&Extension->QuietDpc, NULL, NULL);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_ADD_TO_LEFT:
        Extension->Small.Left = Extension->Small.Left + 1;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_ADD_TO_RIGHT:
        Extension->Small.Right = Extension->Small.Right + 1;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SET_FIRST:
        Extension->Small.First = 1;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SET_SECOND:
        Extension->Small.Second = 1;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SMALL:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PLONG)Irp->AssociatedIrp.SystemBuffer = Extension->Small.First | Extension->Small.Second << 1 |
                                                  Extension->Small.Left << 8 | Extension->Small.Right << 16;
        return Complete(Irp, STATUS_SUCCESS, sizeof(LONG));
    case IOCTL_ADD_LOCKED:
        AddLocked(Extension);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_WRECK_IF_LOST:
        if (Extension->Attempts != Extension->Count) {
            Wreck();
        }
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_STATUS_IF_LOST:
        Complete(Irp, STATUS_SUCCESS, 0);
        return Extension->Attempts == Extension->Count ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs();
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE_EXTENSION Extension;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Extension = Device->DeviceExtension;
    KeInitializeSpinLock(&Extension->Lock);
    KeInitializeDpc(&Extension->Dpc, AddDpc, Extension);
    KeInitializeDpc(&Extension->QuietDpc, AddQuietlyDpc, Extension);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
