/*
 * What drivers of the museum that are clients of KMDF share: the framework's functions, which they call by CALL, their entry, and a device with its
 * default queue. It holds no bug: what a driver does wrong stands in its own file, between `#ifdef FIXED` and `#else`.
 *
 * A driver has a ClientEntry, and there calls ClientDriver or, if it makes its device itself, what control.h has.
 */
#ifndef CLIENT_H
#define CLIENT_H

#ifndef KMDF_MINOR
#define KMDF_MINOR 15 /* client.inf.in says it too */
#endif
#include <ddk/wdm.h>

#include "../../drivers/c/framework/client.h"

#define SHARED static inline

/* Each is of the device, and goes with it. */
SHARED NTSTATUS ClientSpinLock(WDFDEVICE Device, WDFSPINLOCK *Lock)
{
    WDF_OBJECT_ATTRIBUTES Attributes;

    InitializeAttributes(&Attributes, NULL, Device);
    return CALL(WdfSpinLockCreate, &Attributes, Lock);
}

SHARED NTSTATUS ClientTimer(WDFDEVICE Device, VOID (*EvtTimerFunc)(WDFTIMER Timer), ULONG Period, WDFTIMER *Timer)
{
    WDF_OBJECT_ATTRIBUTES Attributes;
    WDF_TIMER_CONFIG Config;

    InitializeAttributes(&Attributes, NULL, Device);
    INITIALIZE(WDF_TIMER_CONFIG, &Config);
    Config.EvtTimerFunc = EvtTimerFunc;
    Config.Period = Period;
    return CALL(WdfTimerCreate, &Config, &Attributes, Timer);
}

/* A driver of devices that Plug and Play finds. */
SHARED NTSTATUS ClientDriver(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath, NTSTATUS (*EvtDriverDeviceAdd)(WDFDRIVER, PWDFDEVICE_INIT))
{
    WDF_DRIVER_CONFIG Config;

    INITIALIZE(WDF_DRIVER_CONFIG, &Config);
    Config.EvtDriverDeviceAdd = EvtDriverDeviceAdd;
    return CALL(WdfDriverCreate, Driver, RegistryPath, NULL, &Config, NULL);
}

/* Its device, with a context of this type. */
SHARED NTSTATUS ClientDevice(PWDFDEVICE_INIT Init, PCWDF_OBJECT_CONTEXT_TYPE_INFO Type, WDFDEVICE *Device)
{
    WDF_OBJECT_ATTRIBUTES Attributes;

    CALL(WdfDeviceInitSetIoType, Init, WdfDeviceIoBuffered);
    InitializeAttributes(&Attributes, Type, NULL);
    return CALL(WdfDeviceCreate, &Init, &Attributes, Device);
}

#define CLIENT_GUID(Data1) {Data1, 0x2f64, 0x4b8d, {0xa7, 0x1c, 0x58, 0x93, 0x0e, 0xd4, 0x61, 0xb2}}

#endif
