/*
 * correct_pnp.sys: a function driver for dirql's `bench` card that does with Plug and Play, power and unloading what Microsoft's pages
 * allow, and what careful drivers do that a checker may take for a mistake. Its device is \\.\CorrectPnp. Every PnP request that it
 * gets is printed ("pnp 0x05"), so that a story can say which came, and in which order.
 *
 * Settings in the device's hardware key: Idioms, a sum of the IDIOM_ numbers below.
 */
#include <ddk/wdm.h>
#include "control.h"
#include "correct_pnp/pnp.h"
#include "correct_pnp/work.h"
#include "correct_pnp/requests.h"
#include "correct_pnp/resources.h"
#include "correct_pnp/power.h"
#include "correct_pnp/interface.h"
#include "correct_pnp/filter.h"
#include "correct_pnp/dispatch.h"

DRIVER_INITIALIZE DriverEntry;

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    EndWork();
    DbgPrint("correct_pnp: unloaded\n");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    ULONG Major;

    UNREFERENCED_PARAMETER(RegistryPath);
    BeginWork();
    Function[IRP_MJ_CREATE] = DispatchSucceed;
    Function[IRP_MJ_CLEANUP] = DispatchFile;
    Function[IRP_MJ_CLOSE] = DispatchFile;
    Function[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Function[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchInternalControl;
    Function[IRP_MJ_PNP] = DispatchPnp;
    Function[IRP_MJ_POWER] = DispatchPower;
    Function[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Function[IRP_MJ_SHUTDOWN] = DispatchShutdown;
    for (Major = 0; Major <= IRP_MJ_MAXIMUM_FUNCTION; Major++) {
        if (Function[Major] != NULL) {
            Driver->MajorFunction[Major] = Dispatch;
        }
    }
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
