/*
 * A crate whose modules are plugged in by a request. Two slots hold the two halves of one board, and who removes one half removes the other.
 *
 * The bug: the other half is named without a reference for the PnP manager, which gives one back. It shows when a module is removed beside another one.
 *
 * Device: ROOT\CRATE
 * Rule: related-not-referenced
 * Needs: ioctl, removal
 */
#include "../include/crate_bus.h"

/* The module beside it: slots 0 and 1 hold one board, and so do 2 and 3. */
static VOID GoesWith(PCHILD Child, PDEVICE_RELATIONS Relations)
{
    PCHILD Other = ChildBeside(Child);

    if (Other == NULL || !Other->Present || !Other->Known) {
        return;
    }
#ifdef FIXED
    ObReferenceObject(Other->Self);
#endif
    Relations->Objects[Relations->Count++] = Other->Self;
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = CrateList, .Remove = ChildRemove, .InstanceId = ChildInstanceId, .GoesWith = GoesWith};
static const GUID FdoInterface = FDO_GUID(0x10c3d021);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
