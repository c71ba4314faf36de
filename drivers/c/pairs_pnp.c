/*
 * pairs_pnp.sys: as pairs.sys, for what a function driver does wrong with Plug and Play, power and interrupts, on dirql's `bench` card. In
 * the device's hardware key, Pair is the place of the rule among PNP_PAIRS, from 1, and Wrong says which half it is. A
 * request to \\.\PairsPnp (USE_CARD) does what a rule is about while the device runs.
 */
#define CONTROL_WITHOUT_DEVICE
#include "pairs/pairs.h"
#include "pairs/card.h"
#include "pairs/card_adding.h"
#include "pairs/card_running.h"

DRIVER_INITIALIZE DriverEntry;

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    if (Driver->DeviceObject != NULL) {
        IoDeleteDevice(Driver->DeviceObject); /* that IRP_MN_REMOVE_DEVICE did not reach */
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchPass;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
