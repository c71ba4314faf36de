/*
 * A crate whose modules are plugged in by a request. Two slots hold the two halves of one board, and who removes one half removes the other.
 *
 * The bug: behind the other half the crate is named, too, by its function device, which no relation may name. It shows when a module is removed beside another one.
 *
 * Device: ROOT\CRATE
 * Rule: related-is-no-device
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
    ObReferenceObject(Other->Self);
    Relations->Objects[Relations->Count++] = Other->Self;
#ifndef FIXED
    ObReferenceObject(Other->Crate->Fdo.Self);
    Relations->Objects[Relations->Count++] = Other->Crate->Fdo.Self;
#endif
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = CrateList, .Remove = ChildRemove, .InstanceId = ChildInstanceId, .GoesWith = GoesWith};
static const GUID FdoInterface = FDO_GUID(0x10c3d022);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
