/*
 * A crate whose modules are plugged in by a request.
 *
 * The bug: each slot has its place in the report, and all of them are counted: those of empty slots hold NULL. It shows as soon as the children are asked for.
 *
 * Device: ROOT\CRATE
 * Rule: null-child
 * Needs: nothing
 */
#include "../include/crate_bus.h"

static VOID List(PCRATE Crate, PDEVICE_RELATIONS Relations)
{
    ULONG Slot;

    for (Slot = 0; Slot < SLOTS; Slot++) {
        PCHILD Child = CrateFind(Crate, Slot);

        if (Child != NULL && Child->Present) {
            Child->Known = TRUE;
            ObReferenceObject(Child->Self);
            Relations->Objects[Relations->Count] = Child->Self;
        } else if (Child != NULL) {
            Child->Missing = TRUE;
        }
#ifdef FIXED
        Relations->Count += Child != NULL && Child->Present;
#else
        Relations->Count++;
#endif
    }
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = List, .Remove = ChildRemove, .InstanceId = ChildInstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d007);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
