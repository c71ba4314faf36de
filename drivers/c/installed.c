/*
 * installed.sys: a Plug and Play function driver that tells what its INF made of the properties of its device and of its device interface.
 *
 * IOCTL_INSTALLED_DEVICE and IOCTL_INSTALLED_INTERFACE take a DEVPROPKEY and answer with the property's type, its size and its bytes;
 * IOCTL_INSTALLED_FRIENDLY answers with what IoGetDeviceProperty says of the friendly name.
 *
 * Pages: IoGetDevicePropertyData function, IoGetDeviceInterfacePropertyData function, INF AddProperty Directive.
 */
#include <initguid.h>
#include <ddk/wdm.h>

#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "function.h"

DRIVER_INITIALIZE DriverEntry;

#define IOCTL_INSTALLED_DEVICE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_INSTALLED_INTERFACE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_INSTALLED_FRIENDLY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(GUID_INSTALLED, 0x3c7d1e02, 0x9a41, 0x4d0e, 0x8b, 0x55, 0x1f, 0x60, 0x27, 0x9e, 0xc4, 0x13);

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlInstalled");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlInstalled");

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

/* The answer to a request: a property. */
typedef struct _PROPERTY {
    ULONG Type;
    ULONG Size;
    UCHAR Bytes[1];
} PROPERTY, *PPROPERTY;

/* mingw's import library lacks it. */
NTKERNELAPI NTSTATUS NTAPI IoGetDeviceInterfacePropertyData(PUNICODE_STRING Link, const DEVPROPKEY *Key, LCID Locale, ULONG Flags,
                                                            ULONG Size, PVOID Data, PULONG Required, PULONG Type);

static NTSTATUS OfInterface(PDEVICE_OBJECT Pdo, const DEVPROPKEY *Key, ULONG Room, PPROPERTY Property)
{
    UNICODE_STRING Link;
    NTSTATUS Status = IoRegisterDeviceInterface(Pdo, &GUID_INSTALLED, NULL, &Link);

    if (NT_SUCCESS(Status)) {
        Status = IoGetDeviceInterfacePropertyData(&Link, Key, 0, 0, Room, Property->Bytes, &Property->Size, &Property->Type);
        RtlFreeUnicodeString(&Link);
    }
    return Status;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG Room = Output - FIELD_OFFSET(PROPERTY, Bytes);
    PPROPERTY Property = Irp->AssociatedIrp.SystemBuffer;
    PDEVICE_OBJECT Pdo = Extension->Function.Pdo;
    NTSTATUS Status;
    DEVPROPKEY Key;

    if (Output < sizeof(PROPERTY) || (Code != IOCTL_INSTALLED_FRIENDLY && Input < sizeof(Key))) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    RtlCopyMemory(&Key, Property, sizeof(Key)); /* the buffer has room for the longer of both */
    Property->Type = 0;
    switch (Code) {
    case IOCTL_INSTALLED_DEVICE:
        Status = IoGetDevicePropertyData(Pdo, &Key, 0, 0, Room, Property->Bytes, &Property->Size, &Property->Type);
        break;
    case IOCTL_INSTALLED_INTERFACE:
        Status = OfInterface(Pdo, &Key, Room, Property);
        break;
    case IOCTL_INSTALLED_FRIENDLY:
        Status = IoGetDeviceProperty(Pdo, DevicePropertyFriendlyName, Room, Property->Bytes, &Property->Size);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, Status, NT_SUCCESS(Status) ? FIELD_OFFSET(PROPERTY, Bytes) + Property->Size : 0);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return FALSE;
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

/* The card is not used: its registers stay as they are. */
static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return STATUS_SUCCESS;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(On);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Present);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
