/*
 * A crate whose modules are plugged in by a request.
 *
 * The bug: the device object of a module that is ejected is deleted at once, and what is in the slot is reported as before: the
 * next report names a device object that is deleted. It shows when a module is ejected.
 *
 * Device: ROOT\CRATE
 * Rule: deleted-child
 * Needs: ioctl
 */
#include "../include/crate_bus.h"

static NTSTATUS Eject(PCRATE Crate, ULONG Slot)
{
    PCHILD Child = CrateFind(Crate, Slot);

    if (Child == NULL || !Child->Present || !Child->Known) {
        return CrateEject(Crate, Slot);
    }
#ifdef FIXED
    Child->Present = FALSE;
#else
    IoDeleteDevice(Child->Self);
#endif
    return STATUS_SUCCESS;
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = Eject, .List = CrateList, .Remove = ChildRemove, .InstanceId = ChildInstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d006);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
