/*
 * pofx.sys: a driver whose control codes tell stories of registrations with the power management framework, and check
 * what comes of them against what Microsoft documents (`--device pci,id=abcd:0004,bar0=mem:128,irq`). \\.\Fx tells
 * each story of Stories below by its name (IOCTL_TELL_STORY of control.h). Between stories the device is not
 * registered.
 */
#include <ddk/wdm.h>
#define STORIES "pofx"
#include "control.h"
#include "function.h"
#include "pofx/pofx.h"
#include "pofx/descriptions.h"
#include "pofx/conditions.h"
#include "pofx/performance.h"

DRIVER_INITIALIZE DriverEntry;

static const STORY Stories[] = {
    STORY(Descriptions), STORY(Dependencies), STORY(Callbacks), STORY(Directed), STORY(Silent), STORY(BeforeStart),
    STORY(Counted), STORY(Control), STORY(PerfRegistrations), STORY(PerfChanges),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFUNCTION Function = Device->DeviceExtension;

    FxPdo = Function->Pdo;
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    return Connect(Device->DeviceExtension);
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(On);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    if (Present) {
        Write(Device->DeviceExtension, 0, Read(Device->DeviceExtension, 0));
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
    return FunctionAdd(Driver, Pdo, sizeof(FUNCTION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\Fx");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Fx");

    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDevice = Device;
    FunctionLink = Link;
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
