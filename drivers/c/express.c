/*
 * express.sys: a Plug and Play function driver for the card PCI\VEN_ABCD&DEV_0E00 that looks at its configuration space in the three ways that there are, and walks
 * the lists of its capabilities. It counts the card's interrupts, whether messages or the line.
 *
 * Pages: Accessing Device Configuration Space, Obtaining Device Configuration Information at IRQL = PASSIVE_LEVEL, Obtaining Device Configuration Information at
 * IRQL = DISPATCH_LEVEL, HalGetBusDataByOffset function.
 */
#include <ddk/wdm.h>

#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "function.h"

DRIVER_INITIALIZE DriverEntry;

/* mingw's wdm.h has it in ntddk.h only. */
NTHALAPI ULONG NTAPI HalGetBusDataByOffset(ULONG Type, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Offset, ULONG Length);
#define PCI_CONFIGURATION 4

/* Input: offset and length; output: the bytes that were read, by BUS_INTERFACE_STANDARD at DISPATCH_LEVEL, IRP_MN_READ_CONFIG, HalGetBusDataByOffset. */
#define IOCTL_EXPRESS_INTERFACE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EXPRESS_REQUEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EXPRESS_HAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: an offset and a 32-bit value; output: how many bytes were written. */
#define IOCTL_EXPRESS_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EXPRESS_SET_REQUEST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: number and place of each capability, two 16-bit words; FFFFh twice; the same of each extended one. */
#define IOCTL_EXPRESS_WALK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: how often the card has interrupted, and whether it sends messages. */
#define IOCTL_EXPRESS_INTERRUPTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Of wdmguid.h. */
static const GUID BusInterfaceStandard = {0x496B8280, 0x6F25, 0x11D0, {0xBE, 0xAF, 0x08, 0x00, 0x2B, 0xE2, 0x09, 0x2F}};

#define STATUS_WORD 0x06
#define CAPABILITIES_LIST 0x10
#define FIRST_CAPABILITY 0x34
#define FIRST_EXTENDED 0x100

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlExpress");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlExpress");

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    BUS_INTERFACE_STANDARD Bus; /* Size is 0 while there is none */
    volatile LONG Interrupts;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

typedef struct _PLACE {
    ULONG Offset;
    ULONG Length; /* or a value */
} PLACE;

typedef struct _CAPABILITY {
    USHORT Id;
    USHORT At;
} CAPABILITY;

/* Sends a Plug and Play request to the device's own stack, and waits for its end. */
static NTSTATUS Ask(PDEVICE_EXTENSION Extension, PIO_STACK_LOCATION Wanted, PULONG_PTR Information)
{
    PDEVICE_OBJECT Top = IoGetAttachedDeviceReference(Extension->Function.Pdo);
    IO_STATUS_BLOCK Block = {0};
    PIO_STACK_LOCATION Next;
    NTSTATUS Status;
    KEVENT Done;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Top, NULL, 0, NULL, &Done, &Block);
    if (Irp == NULL) {
        ObDereferenceObject(Top);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MinorFunction = Wanted->MinorFunction;
    Next->Parameters = Wanted->Parameters;
    Status = IoCallDriver(Top, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
    ObDereferenceObject(Top);
    *Information = Block.Information;
    return Status;
}

static ULONG ByRequest(PDEVICE_EXTENSION Extension, UCHAR Minor, PVOID Buffer, ULONG Offset, ULONG Length)
{
    IO_STACK_LOCATION Wanted = {0};
    ULONG_PTR Information = 0;

    Wanted.MinorFunction = Minor;
    Wanted.Parameters.ReadWriteConfig.WhichSpace = PCI_WHICHSPACE_CONFIG;
    Wanted.Parameters.ReadWriteConfig.Buffer = Buffer;
    Wanted.Parameters.ReadWriteConfig.Offset = Offset;
    Wanted.Parameters.ReadWriteConfig.Length = Length;
    return NT_SUCCESS(Ask(Extension, &Wanted, &Information)) ? (ULONG)Information : 0;
}

static ULONG ByHal(PDEVICE_EXTENSION Extension, PVOID Buffer, ULONG Offset, ULONG Length)
{
    PCI_SLOT_NUMBER Slot = {0};
    ULONG Bus, Address, Size;

    if (!NT_SUCCESS(IoGetDeviceProperty(Extension->Function.Pdo, DevicePropertyBusNumber, sizeof(Bus), &Bus, &Size)) ||
        !NT_SUCCESS(IoGetDeviceProperty(Extension->Function.Pdo, DevicePropertyAddress, sizeof(Address), &Address, &Size))) {
        return 0;
    }
    Slot.u.bits.DeviceNumber = Address >> 16;
    Slot.u.bits.FunctionNumber = Address & 0xFFFF;
    return HalGetBusDataByOffset(PCI_CONFIGURATION, Bus, Slot.u.AsULONG, Buffer, Offset, Length);
}

static ULONG ByInterface(PDEVICE_EXTENSION Extension, PVOID Buffer, ULONG Offset, ULONG Length)
{
    return Extension->Bus.GetBusData(Extension->Bus.Context, PCI_WHICHSPACE_CONFIG, Buffer, Offset, Length);
}

static ULONG Field(PDEVICE_EXTENSION Extension, ULONG Offset, ULONG Length)
{
    ULONG Value = 0;

    ByInterface(Extension, &Value, Offset, Length);
    return Value;
}

static ULONG Walk(PDEVICE_EXTENSION Extension, CAPABILITY *Found, ULONG Room)
{
    ULONG Count = 0, At, Head;

    At = Field(Extension, STATUS_WORD, 2) & CAPABILITIES_LIST ? Field(Extension, FIRST_CAPABILITY, 1) & 0xFC : 0;
    while (At != 0 && Count + 1 < Room) {
        Head = Field(Extension, At, 2);
        Found[Count].Id = (USHORT)(Head & 0xFF);
        Found[Count++].At = (USHORT)At;
        At = Head >> 8 & 0xFC;
    }
    Found[Count].Id = Found[Count].At = 0xFFFF;
    Count++;
    At = FIRST_EXTENDED;
    while (At != 0 && Count < Room) {
        if (ByInterface(Extension, &Head, At, sizeof(Head)) != sizeof(Head) || Head == 0) {
            break; /* a conventional function has no more, and one without extended capabilities zeroes */
        }
        Found[Count].Id = (USHORT)(Head & 0xFFFF);
        Found[Count++].At = (USHORT)At;
        At = Head >> 20 & 0xFFC;
    }
    return Count;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    PLACE Place = {0};
    ULONG Length = 0;
    KIRQL Irql;

    if (Input >= sizeof(Place)) {
        Place = *(PLACE *)Buffer;
    }
    if (Extension->Bus.Size == 0 || Output < sizeof(ULONG) || (Code != IOCTL_EXPRESS_SET && Code != IOCTL_EXPRESS_SET_REQUEST && Place.Length > Output)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    switch (Code) {
    case IOCTL_EXPRESS_INTERFACE:
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        Length = ByInterface(Extension, Buffer, Place.Offset, Place.Length);
        KeLowerIrql(Irql);
        break;
    case IOCTL_EXPRESS_REQUEST:
        Length = ByRequest(Extension, IRP_MN_READ_CONFIG, Buffer, Place.Offset, Place.Length);
        break;
    case IOCTL_EXPRESS_HAL:
        Length = ByHal(Extension, Buffer, Place.Offset, Place.Length);
        break;
    case IOCTL_EXPRESS_SET:
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        *(PULONG)Buffer = Extension->Bus.SetBusData(Extension->Bus.Context, PCI_WHICHSPACE_CONFIG, &Place.Length, Place.Offset,
                                                    sizeof(ULONG));
        KeLowerIrql(Irql);
        Length = sizeof(ULONG);
        break;
    case IOCTL_EXPRESS_SET_REQUEST:
        *(PULONG)Buffer = ByRequest(Extension, IRP_MN_WRITE_CONFIG, &Place.Length, Place.Offset, sizeof(ULONG));
        Length = sizeof(ULONG);
        break;
    case IOCTL_EXPRESS_WALK:
        Length = Walk(Extension, Buffer, Output / sizeof(CAPABILITY)) * sizeof(CAPABILITY);
        break;
    case IOCTL_EXPRESS_INTERRUPTS:
        if (Output < 2 * sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        ((PULONG)Buffer)[0] = Extension->Interrupts;
        ((PULONG)Buffer)[1] = Extension->Function.Version == CONNECT_MESSAGE_BASED;
        Length = 2 * sizeof(ULONG);
        break;
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

/* Messages only: the line is another device's. */
static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Function.Version != CONNECT_MESSAGE_BASED) {
        return FALSE;
    }
    InterlockedIncrement(&Extension->Interrupts);
    return TRUE;
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Bus.Size != 0) {
        Extension->Bus.InterfaceDereference(Extension->Bus.Context);
        Extension->Bus.Size = 0;
    }
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    IO_STACK_LOCATION Wanted = {0};
    ULONG_PTR Information;
    NTSTATUS Status;

    Wanted.MinorFunction = IRP_MN_QUERY_INTERFACE;
    Wanted.Parameters.QueryInterface.InterfaceType = &BusInterfaceStandard;
    Wanted.Parameters.QueryInterface.Size = sizeof(Extension->Bus);
    Wanted.Parameters.QueryInterface.Version = 1;
    Wanted.Parameters.QueryInterface.Interface = (PINTERFACE)&Extension->Bus;
    Status = Ask(Extension, &Wanted, &Information);
    if (!NT_SUCCESS(Status)) {
        Extension->Bus.Size = 0;
        return Status;
    }
    return Extension->Function.Line.Type != 0 ? Connect(&Extension->Function) : STATUS_SUCCESS;
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
