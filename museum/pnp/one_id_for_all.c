/*
 * A crate whose modules are plugged in by a request that says what is written on them.
 *
 * The bug: a module's instance id is what is written on it, and modules of one make say the same. It shows with two of them.
 *
 * Device: ROOT\CRATE
 * Rule: duplicate-child
 * Needs: ioctl
 */
#include "../include/crate_bus.h"

static VOID InstanceId(PCHILD Child, PWCHAR Id)
{
    ULONG At;

    for (At = 0; At < LABEL; At++) {
        Id[At] = L"0123456789ABCDEF"[Child->Label[At] & 0xF];
    }
#ifdef FIXED
    ChildInstanceId(Child, Id + LABEL);
#endif
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = CrateList, .Remove = ChildRemove, .InstanceId = InstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d008);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
