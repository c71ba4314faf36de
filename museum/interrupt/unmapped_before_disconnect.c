/*
 * The educational device's factorials.
 *
 * The bug: when the device is stopped, its registers are unmapped first and then its interrupt is disconnected: one that comes in between finds a null
 * pointer. It shows with a schedule, or with another card that interrupts on the line at that time.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read, device-memory-not-mapped, use-after-free
 * Needs: ioctl, schedule, removal
 */
#include "../include/edu.h"

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
#ifdef FIXED
    EduStop(Fdo, Present);
#else
    UNREFERENCED_PARAMETER(Present);
    CardUnmap(Fdo);
    CardDisconnect(Fdo);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3b00b);
static const HOOKS Hooks = {.Add = EduAdd, .Start = EduStart, .Flush = EduFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
