/*
 * The educational device's factorials.
 *
 * The bug: when the device is stopped or removed, its registers are unmapped and the interrupt is left connected. It shows when it is stopped.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: interrupt-still-connected, device-memory-not-mapped, wild-read
 * Needs: nothing
 */
#include "../include/edu.h"

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    if (Present) {
        EduQuiet(Fdo);
    }
#ifdef FIXED
    CardDisconnect(Fdo);
#endif
    CardUnmap(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b00a);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
