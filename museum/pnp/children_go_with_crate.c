/*
 * A crate whose modules are plugged in by a request.
 *
 * The bug: asked for what is to be removed with the crate, its driver names the modules in it, which are removed before it anyway. It shows when the crate is removed.
 *
 * Device: ROOT\CRATE
 * Rule: related-is-child
 * Needs: nothing
 */
#include "../include/crate_bus.h"

#ifdef FIXED
#define MODULES_GO_WITH_IT NULL /* the PnP manager knows */
#else
#define MODULES_GO_WITH_IT CrateList
#endif

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = CrateList, .Remove = ChildRemove, .InstanceId = ChildInstanceId, .CrateGoesWith = MODULES_GO_WITH_IT};
static const GUID FdoInterface = FDO_GUID(0x10c3d023);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
