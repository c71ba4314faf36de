/*
 * A crate whose modules are plugged in by a request.
 *
 * The bug: a child's device extension is put into the list where its device object belongs: both are pointers. It shows as soon as there is a child.
 *
 * Device: ROOT\CRATE
 * Rule: child-is-no-device
 * Needs: nothing
 */
#include "../include/crate_bus.h"

#ifdef FIXED
#define REPORTED(Child) ((Child)->Self)
#else
#define REPORTED(Child) ((PVOID)(Child))
#endif

static VOID List(PCRATE Crate, PDEVICE_RELATIONS Relations)
{
    PLIST_ENTRY At;

    for (At = Crate->Children.Flink; At != &Crate->Children; At = At->Flink) {
        PCHILD Child = CONTAINING_RECORD(At, CHILD, Link);

        if (!Child->Present) {
            Child->Missing = TRUE;
            continue;
        }
        Child->Known = TRUE;
        ObReferenceObject(Child->Self);
        Relations->Objects[Relations->Count++] = REPORTED(Child);
    }
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = List, .Remove = ChildRemove, .InstanceId = ChildInstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d002);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
