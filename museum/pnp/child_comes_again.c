/*
 * A crate whose modules are plugged in by a request.
 *
 * The bug: the device object of a module that was ejected is kept for the next one in the same slot, and reported again. It shows when a slot is filled, emptied and filled.
 *
 * Device: ROOT\CRATE
 * Rule: child-reused
 * Needs: ioctl
 */
#include "../include/crate_bus.h"

static NTSTATUS Plug(PCRATE Crate, PPLUG Plugged)
{
#ifndef FIXED
    PCHILD Child = CrateFind(Crate, Plugged->Slot);

    if (Child != NULL && !Child->Present && Child->Missing && !Child->SurpriseRemoved) {
        RtlCopyMemory(Child->Label, Plugged->Label, LABEL);
        Child->Missing = FALSE;
        Child->Present = TRUE;
        return STATUS_SUCCESS;
    }
#endif
    return CratePlug(Crate, Plugged);
}

static VOID Remove(PCHILD Child)
{
#ifdef FIXED
    ChildRemove(Child);
#else
    Child->SurpriseRemoved = FALSE; /* it stays for the next one */
#endif
}

static const CRATE_ROUTINES Routines = {.Plug = Plug, .Eject = CrateEject, .List = CrateList, .Remove = Remove, .InstanceId = ChildInstanceId};
static const GUID FdoInterface = FDO_GUID(0x10c3d005);
static const HOOKS Hooks = {CRATE_HOOKS};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return CrateDriver(Driver);
}
