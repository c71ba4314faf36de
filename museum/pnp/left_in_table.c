/*
 * The educational device's factorials, on as many cards as there are: each has the lowest number that no other one has.
 *
 * The bug: a card that is removed stays in the table of the driver's cards, and its extension is read when the next one looks for a number. It shows when a
 * card is disabled and enabled again beside another; if it is the only one, the driver is loaded anew.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free
 * Needs: removal
 */
#include "../include/edu.h"

#define CARDS 8

static PEDU Cards[CARDS]; /* AddDevice and removals come one at a time */

static ULONG_PTR NumberOf(PEDU Edu)
{
    return (ULONG_PTR)Edu->Own;
}

static BOOLEAN IsTaken(ULONG_PTR Number)
{
    ULONG Index;

    for (Index = 0; Index < CARDS; Index++) {
        if (Cards[Index] != NULL && NumberOf(Cards[Index]) == Number) {
            return TRUE;
        }
    }
    return FALSE;
}

static NTSTATUS Add(PFDO Fdo)
{
    PEDU Edu = (PEDU)Fdo;
    ULONG_PTR Number = 0;
    ULONG Index;

    for (Index = 0; Index < CARDS && Cards[Index] != NULL; Index++) {
    }
    if (Index == CARDS) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    while (IsTaken(Number)) {
        Number++;
    }
    Edu->Own = (PVOID)Number;
    Cards[Index] = Edu;
    return EduAdd(Fdo);
}

static VOID Removed(PFDO Fdo)
{
#ifdef FIXED
    ULONG Index;

    for (Index = 0; Index < CARDS; Index++) {
        if (Cards[Index] == (PEDU)Fdo) {
            Cards[Index] = NULL;
        }
    }
#else
    UNREFERENCED_PARAMETER(Fdo);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0f1);
static const HOOKS Hooks = {.Add = Add, .Removed = Removed, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop,
                            .PowerDown = EduPowerDown, .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
