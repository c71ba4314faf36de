/*
 * localbus.sys: a Plug and Play function driver for the PLX PCI 9052 that measures what accesses through local space 0 take; its device is
 * \\.\LocalBus. Each request says what LAS0BRD is to hold, and gets how many nanoseconds of the performance counter have passed:
 *   IOCTL_LOCALBUS_READ reads a word of memory again and again.
 *   IOCTL_LOCALBUS_WRITE writes one again and again.
 *   IOCTL_LOCALBUS_POLL rings the built-in peripheral and polls its status until it is done; tells how often, too.
 * With no descriptor (NO_DESCRIPTOR) the register stays as it is. It does not use interrupts.
 */
#include <ddk/wdm.h>
#define CONTROL_WITHOUT_DEVICE
#define SECOND_WINDOW
#include "control.h"
#include "function.h"

#define IOCTL_LOCALBUS_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LOCALBUS_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE21, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LOCALBUS_POLL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE22, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _LOCALBUS_ASKED {
    ULONG Descriptor;
    ULONG Count; /* of accesses */
} LOCALBUS_ASKED;

typedef struct _LOCALBUS_TOLD {
    ULONG Nanoseconds;
    ULONG Count;
} LOCALBUS_TOLD;

#define LCR_LAS0BRD 0x28
#define NO_DESCRIPTOR 0xFFFFFFFFu
#define LOCAL_STATUS 0xFFF8
#define LOCAL_DOORBELL 0xFFFC
#define STATUS_DONE 1

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    PUCHAR Local; /* space 0 */
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\LocalBus");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\LocalBus");

static ULONG ReadWords(PUCHAR Local, ULONG Count)
{
    ULONG Left;

    for (Left = Count; Left > 0; Left--) {
        READ_REGISTER_ULONG((PULONG)Local);
    }
    return Count;
}

static ULONG WriteWords(PUCHAR Local, ULONG Count)
{
    ULONG Left;

    for (Left = Count; Left > 0; Left--) {
        WRITE_REGISTER_ULONG((PULONG)Local, Left);
    }
    return Count;
}

static ULONG Poll(PUCHAR Local)
{
    ULONG Count = 1;

    WRITE_REGISTER_ULONG((PULONG)(Local + LOCAL_DOORBELL), 1);
    while ((READ_REGISTER_ULONG((PULONG)(Local + LOCAL_STATUS)) & STATUS_DONE) == 0) {
        Count++;
    }
    WRITE_REGISTER_ULONG((PULONG)(Local + LOCAL_STATUS), STATUS_DONE);
    return Count;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    LOCALBUS_ASKED Asked;
    LOCALBUS_TOLD Answer;
    LARGE_INTEGER Begin, End, Frequency;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(Asked) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(Answer)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (Extension->Local == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    Asked = *(LOCALBUS_ASKED *)Irp->AssociatedIrp.SystemBuffer;
    if (Asked.Descriptor != NO_DESCRIPTOR) {
        Write(&Extension->Function, LCR_LAS0BRD, Asked.Descriptor);
        Read(&Extension->Function, LCR_LAS0BRD);
    }
    Begin = KeQueryPerformanceCounter(&Frequency);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOCALBUS_READ:
        Answer.Count = ReadWords(Extension->Local, Asked.Count);
        break;
    case IOCTL_LOCALBUS_WRITE:
        Answer.Count = WriteWords(Extension->Local, Asked.Count);
        break;
    case IOCTL_LOCALBUS_POLL:
        Answer.Count = Poll(Extension->Local);
        break;
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    End = KeQueryPerformanceCounter(NULL);
    Answer.Nanoseconds = (ULONG)((End.QuadPart - Begin.QuadPart) * 1000000000 / Frequency.QuadPart);
    *(LOCALBUS_TOLD *)Irp->AssociatedIrp.SystemBuffer = Answer;
    return Complete(Irp, STATUS_SUCCESS, sizeof(Answer));
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

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PFUNCTION Function = &Extension->Function;

    if (Function->SecondLength == 0) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Extension->Local = MmMapIoSpace(Function->Second, Function->SecondLength, MmNonCached);
    return Extension->Local == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Present);
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Local != NULL) {
        MmUnmapIoSpace(Extension->Local, Extension->Function.SecondLength);
        Extension->Local = NULL;
    }
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(On);
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
