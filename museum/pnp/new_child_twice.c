/*
 * A crate whose modules are plugged in by a request.
 *
 * The bug: modules that are new come first in the report, and are marked as known there: so they come once more, with those that were known before. It shows with the first child.
 *
 * Device: ROOT\CRATE
 * Rule: child-reported-twice
 * Needs: nothing
 */
#include "../include/crate_bus.h"

static VOID Report(PCHILD Child, PDEVICE_RELATIONS Relations)
{
    ObReferenceObject(Child->Self);
    Relations->Objects[Relations->Count++] = Child->Self;
}

/* The PnP manager starts children in this order: the new ones are waited for. */
static VOID List(PCRATE Crate, PDEVICE_RELATIONS Relations)
{
    PLIST_ENTRY At;

    for (At = Crate->Children.Flink; At != &Crate->Children; At = At->Flink) {
        PCHILD Child = CONTAINING_RECORD(At, CHILD, Link);

        if (Child->Present && !Child->Known) {
            Report(Child, Relations);
#ifndef FIXED
            Child->Known = TRUE;
#endif
        }
    }
    for (At = Crate->Children.Flink; At != &Crate->Children; At = At->Flink) {
        PCHILD Child = CONTAINING_RECORD(At, CHILD, Link);

        if (!Child->Present) {
            Child->Missing = TRUE;
        } else if (Child->Known) {
            Report(Child, Relations);
        }
        Child->Known = TRUE;
    }
}

static const CRATE_ROUTINES Routines = {.Plug = CratePlug, .Eject = CrateEject, .List = List, .Remove = ChildRemove, .InstanceId = ChildInstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d004);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
