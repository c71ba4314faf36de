/*
 * What clients without Plug and Play share: a driver that needs no device, and a control device for administrators. Included behind client.h.
 *
 * Pages: Using Control Device Objects, Creating KMDF Non-PnP Drivers.
 */
#ifndef FRAMEWORK_CONTROL_H
#define FRAMEWORK_CONTROL_H

/* Who may open a control device. */
static UNICODE_STRING ForAdministrators = RTL_CONSTANT_STRING(L"D:P(A;;GA;;;SY)(A;;GA;;;BA)");

static NTSTATUS CreateDriver(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath, VOID (*EvtUnload)(WDFDRIVER Driver), WDFDRIVER *Created)
{
    WDF_DRIVER_CONFIG Config;

    INITIALIZE(WDF_DRIVER_CONFIG, &Config);
    Config.DriverInitFlags = WdfDriverInitNonPnpDriver;
    Config.EvtDriverUnload = EvtUnload;
    return CALL(WdfDriverCreate, Driver, RegistryPath, NULL, &Config, Created);
}

/* The device of this name; what else there is to say of it, Configure says, if there is one. It gets requests when the caller has called
 * WdfControlFinishInitializing. */
static NTSTATUS CreateControlDevice(WDFDRIVER Driver, PUNICODE_STRING Name, VOID (*Configure)(PWDFDEVICE_INIT Init), WDFDEVICE *Device)
{
    PWDFDEVICE_INIT Init = CALL(WdfControlDeviceInitAllocate, Driver, &ForAdministrators);
    NTSTATUS Status;

    if (Init == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (Configure != NULL) {
        Configure(Init);
    }
    Status = CALL(WdfDeviceInitAssignName, Init, Name);
    if (NT_SUCCESS(Status)) {
        Status = CALL(WdfDeviceCreate, &Init, NULL, Device);
    }
    if (!NT_SUCCESS(Status)) {
        CALL(WdfDeviceInitFree, Init);
    }
    return Status;
}

#endif
