/*
 * A crate whose modules are plugged in by a request.
 *
 * The bug: where a module that was ejected is removed, it is taken off the list, but its device object stays: with it a name and memory for each module that was ever there, until the
 * driver is unloaded, which it cannot be. It shows when a module is ejected.
 *
 * Device: ROOT\CRATE
 * Rule: child-not-deleted
 * Needs: ioctl
 */
#include "../include/crate_bus.h"

static VOID Remove(PCHILD Child)
{
    Child->SurpriseRemoved = FALSE;
    if (Child->Missing) {
        RemoveEntryList(&Child->Link);
#ifdef FIXED
        IoDeleteDevice(Child->Self);
#endif
    }
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = CrateList, .Remove = Remove, .InstanceId = ChildInstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d003);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
