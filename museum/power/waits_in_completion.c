/*
 * The educational device's factorials.
 *
 * The bug: the completion routine of the request for D0 sleeps until the card is ready, as it does at PASSIVE_LEVEL. A bus driver may complete the request at
 * DISPATCH_LEVEL, and it shows with one that does.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irql-too-high, wait-at-raised-irql
 * Needs: power
 */
#include "../include/edu.h"

#define READY_US 20

static VOID PowerUp(PFDO Fdo)
{
#ifdef FIXED
    KeStallExecutionProcessor(READY_US);
#else
    LARGE_INTEGER Time;

    Time.QuadPart = -10LL * READY_US;
    KeDelayExecutionThread(KernelMode, FALSE, &Time);
#endif
    EduPowerUp(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b02f);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = PowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
