/*
 * idler.sys: a driver that has the power manager watch whether its device is idle (`--device pci,id=abcd:0002,bar0=mem:128,irq,pm`), hears of power
 * settings, and keeps the system awake when asked to; its device is \\.\Idler.
 *
 * Pages: PoRegisterDeviceForIdleDetection function, PoRegisterPowerSettingCallback function, PoCreatePowerRequest function, PoQueryWatchdogTime function.
 */
#include <ddk/wdm.h>
#include "control.h"
#include "function.h"

#define IDLER(Index) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (Index), METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: ULONGs. Watched for ConservationIdleTime, PerformanceIdleTime, State; output: whether there is a counter. */
#define IOCTL_IDLER_WATCH IDLER(0)
/* The device is used: by PoSetDeviceBusyEx (0), the macro (1); from (2), and until (3) now. */
#define IOCTL_IDLER_USE IDLER(1)
/* The device goes to the state of the ULONG. */
#define IOCTL_IDLER_GO IDLER(2)
/* Output: an IDLER_STATE. */
#define IOCTL_IDLER_STATE IDLER(3)
/* Takes the callbacks back (0), registers for the power source and a setting of its own (1), for the lid (2). */
#define IOCTL_IDLER_SETTINGS IDLER(4)
/* The system is required: by PoRegisterSystemState (0), not any more (1), by PoSetSystemState (2), by a power request (3), not any more (4), by 5 its
   other types; output: what the last call returned. */
#define IOCTL_IDLER_REQUIRE IDLER(5)
/* The driver keeps power requests for so many seconds before it passes them on. */
#define IOCTL_IDLER_DELAY IDLER(6)
/* It is wrong: what is in the ULONG's bits is done once too often, or not at all. */
#define IOCTL_IDLER_WRONG IDLER(7)

#define WRONG_COUNTER 1      /* PoSetDeviceBusyEx with NULL */
#define WRONG_END 2          /* PoEndDeviceBusy without PoStartDeviceBusy */
#define WRONG_STATE 4        /* PoUnregisterSystemState twice */
#define WRONG_CALLBACK 8     /* unloaded with its callback registered */
#define WRONG_REQUEST 16     /* its device deleted with a power request */

typedef struct _IDLER_STATE {
    ULONG Downs;     /* 00 */
    ULONG Ups;       /* 04 */
    ULONG Counter;   /* 08 */
    ULONG Sets;      /* 0C settings that have arrived */
    ULONG Source;    /* 10 what GUID_ACDC_POWER_SOURCE was last */
    ULONG Own;       /* 14 what the driver's own setting was last */
    ULONG Watched;   /* 18 whether the last power request was watched in time */
    ULONG Seconds;   /* 1C and for how many seconds it still was */
} IDLER_STATE;

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    PULONG Counter;
    PVOID Source, Own, Lid; /* callbacks' handles */
    PVOID SystemState, Request;
    ULONG Delay;
    ULONG Wrong;
    IDLER_STATE State;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static const GUID PowerSource = {0x5D3E9A59, 0xE9D5, 0x4B00, {0xA6, 0xBD, 0xFF, 0x34, 0xFF, 0x51, 0x65, 0x48}};
static const GUID LidSwitch = {0xBA3E0F4D, 0xB817, 0x4094, {0xA2, 0xD1, 0xD5, 0x63, 0x79, 0xE6, 0xA0, 0xF3}};
static const GUID OwnSetting = {0x11112222, 0x3333, 0x4444, {5, 5, 6, 6, 7, 7, 8, 8}};

static NTSTATUS NTAPI SettingChanged(LPCGUID Setting, PVOID Value, ULONG Length, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    if (Length != sizeof(ULONG) || KeGetCurrentIrql() != PASSIVE_LEVEL) {
        return STATUS_INVALID_PARAMETER;
    }
    Extension->State.Sets++;
    if (RtlCompareMemory(Setting, &PowerSource, sizeof(GUID)) == sizeof(GUID)) {
        Extension->State.Source = *(PULONG)Value;
    } else if (RtlCompareMemory(Setting, &OwnSetting, sizeof(GUID)) == sizeof(GUID)) {
        Extension->State.Own = *(PULONG)Value;
    }
    return STATUS_SUCCESS;
}

static VOID TakeBack(PVOID *Handle)
{
    if (*Handle != NULL) {
        PoUnregisterPowerSettingCallback(*Handle);
        *Handle = NULL;
    }
}

static NTSTATUS Settings(PDEVICE_EXTENSION Extension, ULONG How)
{
    PDEVICE_OBJECT Self = Extension->Function.Self;
    NTSTATUS Status;

    if (How == 0) {
        TakeBack(&Extension->Source);
        TakeBack(&Extension->Own);
        TakeBack(&Extension->Lid);
        return PoUnregisterPowerSettingCallback(Extension); /* which is no handle */
    }
    if (How == 2) {
        return PoRegisterPowerSettingCallback(Self, &LidSwitch, SettingChanged, Extension, &Extension->Lid);
    }
    Status = PoRegisterPowerSettingCallback(Self, &PowerSource, SettingChanged, Extension, &Extension->Source);
    if (NT_SUCCESS(Status)) {
        Status = PoRegisterPowerSettingCallback(NULL, &OwnSetting, SettingChanged, Extension, &Extension->Own);
    }
    return Status;
}

static ULONG Require(PDEVICE_EXTENSION Extension, ULONG How)
{
    static WCHAR Text[] = L"a recording";
    COUNTED_REASON_CONTEXT Reason = {.Version = 0, .Flags = 1};

    RtlInitUnicodeString(&Reason.SimpleString, Text);
    switch (How) {
    case 0:
        Extension->SystemState = PoRegisterSystemState(Extension->SystemState, ES_CONTINUOUS | ES_SYSTEM_REQUIRED);
        return Extension->SystemState != NULL;
    case 1:
        PoUnregisterSystemState(Extension->SystemState);
        if (Extension->Wrong & WRONG_STATE) {
            PoUnregisterSystemState(Extension->SystemState);
        }
        Extension->SystemState = NULL;
        return 0;
    case 2:
        PoSetSystemState(ES_SYSTEM_REQUIRED);
        return 0;
    case 3:
        if (Extension->Request == NULL) {
            NTSTATUS Status = PoCreatePowerRequest(&Extension->Request, Extension->Function.Self, &Reason);

            if (!NT_SUCCESS(Status)) {
                return Status;
            }
        }
        return PoSetPowerRequest(Extension->Request, PowerRequestSystemRequired);
    case 4:
        return PoClearPowerRequest(Extension->Request, PowerRequestSystemRequired);
    case 5:
        return PoSetPowerRequest(Extension->Request, PowerRequestDisplayRequired);
    default:
        return PoCreatePowerRequest(&Extension->Request, NULL, NULL);
    }
}

static VOID Use(PDEVICE_EXTENSION Extension, ULONG How)
{
    switch (How) {
    case 0:
        PoSetDeviceBusyEx(Extension->Wrong & WRONG_COUNTER ? NULL : Extension->Counter);
        break;
    case 1:
        PoSetDeviceBusy(Extension->Counter);
        break;
    case 2:
        PoStartDeviceBusy(Extension->Counter);
        break;
    case 3:
        PoEndDeviceBusy(Extension->Counter);
        if (Extension->Wrong & WRONG_END) {
            PoEndDeviceBusy(Extension->Counter);
        }
        break;
    }
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength >= sizeof(ULONG) ? *Buffer : 0;
    POWER_STATE Wanted;
    NTSTATUS Status;

    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(IDLER_STATE)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_IDLER_WATCH:
        Extension->Counter = PoRegisterDeviceForIdleDetection(Device, Buffer[0], Buffer[1], Buffer[2]);
        *Buffer = Extension->Counter != NULL;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_IDLER_USE:
        Use(Extension, Input);
        break;
    case IOCTL_IDLER_GO:
        Wanted.DeviceState = Input;
        PoRequestPowerIrp(Extension->Function.Pdo, IRP_MN_SET_POWER, Wanted, NULL, NULL, NULL);
        break;
    case IOCTL_IDLER_STATE:
        Extension->State.Counter = Extension->Counter == NULL ? 0 : *(volatile ULONG *)Extension->Counter;
        *(IDLER_STATE *)Buffer = Extension->State;
        return Complete(Irp, STATUS_SUCCESS, sizeof(IDLER_STATE));
    case IOCTL_IDLER_SETTINGS:
        Status = Settings(Extension, Input);
        *Buffer = Status;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_IDLER_REQUIRE:
        *Buffer = Require(Extension, Input);
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_IDLER_DELAY:
        Extension->Delay = Input;
        break;
    case IOCTL_IDLER_WRONG:
        Extension->Wrong = Input;
        break;
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PFUNCTION Function = Device->DeviceExtension;

    return Read(Function, 0) == 0xFFFFFFFF ? STATUS_NO_SUCH_DEVICE : Connect(Function);
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    LARGE_INTEGER Time = {.QuadPart = -10000000ll * Extension->Delay};
    ULONG Seconds = 0;

    Write(&Extension->Function, 4, On);
    if (On) {
        Extension->State.Ups++;
        return;
    }
    if (Extension->Delay != 0) {
        KeDelayExecutionThread(KernelMode, FALSE, &Time);
    }
    Extension->State.Downs++;
    Extension->State.Watched = PoQueryWatchdogTime(Extension->Function.Pdo, &Seconds);
    Extension->State.Seconds = Seconds;
}

/* The device stops, or goes: its callbacks are unregistered, and the system may sleep. */
static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Present);
    Extension->Counter = PoRegisterDeviceForIdleDetection(Device, 0, 0, PowerDeviceD0);
    if (!(Extension->Wrong & WRONG_CALLBACK)) {
        TakeBack(&Extension->Source);
        TakeBack(&Extension->Own);
        TakeBack(&Extension->Lid);
    }
    if (Extension->SystemState != NULL) {
        PoUnregisterSystemState(Extension->SystemState);
        Extension->SystemState = NULL;
    }
    if (Extension->Request != NULL && !(Extension->Wrong & WRONG_REQUEST)) {
        PoDeletePowerRequest(Extension->Request);
        Extension->Request = NULL;
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return FALSE; /* it has none */
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\Idler");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Idler");

    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDevice = Device;
    FunctionLink = Link;
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
