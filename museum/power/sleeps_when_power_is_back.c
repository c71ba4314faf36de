/*
 * The educational device's factorials. The card wants 1 ms when its power is back.
 *
 * The bug: the completion routine of the request for D0 waits for that, though it may be called at DISPATCH_LEVEL. It shows where it is.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wait-at-raised-irql, irql-too-high
 * Needs: power
 */
#include "../include/edu.h"

static VOID PowerUp(PFDO Fdo)
{
#ifndef FIXED
    LARGE_INTEGER Pause;

    Pause.QuadPart = -10000;
    KeDelayExecutionThread(KernelMode, FALSE, &Pause);
#else
    ULONG Step;

    for (Step = 0; Step < 20; Step++) {
        KeStallExecutionProcessor(50);
    }
#endif
    EduPowerUp(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b01e);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = PowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
