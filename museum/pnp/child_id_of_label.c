/*
 * A crate whose modules are plugged in by a request that says what is written on them.
 *
 * The bug: the label is part of the instance id as it is: it may have characters that no id may have. It shows when a module has such a label.
 *
 * Device: ROOT\CRATE
 * Rule: bad-device-id
 * Needs: ioctl
 */
#include "../include/crate_bus.h"

#ifdef FIXED
static WCHAR Letter(UCHAR Letter)
{
    return Letter >= '0' && Letter <= '9' ? Letter : Letter >= 'A' && Letter <= 'Z' ? Letter : L'_';
}
#else
static WCHAR Letter(UCHAR Letter)
{
    return Letter == 0 ? L'_' : Letter;
}
#endif

static VOID InstanceId(PCHILD Child, PWCHAR Id)
{
    ULONG At;

    ChildInstanceId(Child, Id);
    for (At = 0; At < LABEL; At++) {
        Id[8 + At] = Letter(Child->Label[At]);
    }
    Id[8 + LABEL] = 0;
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = CrateList, .Remove = ChildRemove, .InstanceId = InstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d001);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
