/*
 * The educational device's factorials; in its start the driver has the card compute one, to see that it works.
 *
 * The bug: it waits for the end of that for as long as a bit of the status is set, which it is for ever in a card that has gone. It shows when the card comes out
 * of its slot in the driver's start.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: endless-loop, stuck, livelock
 * Needs: removal
 */
#include "../include/edu.h"

#define GONE 0xFFFFFFFF

static NTSTATUS SeeThatItWorks(PFDO Fdo)
{
    ULONG Status;

    CardWrite(Fdo, EDU_STATUS, 0);
    CardWrite(Fdo, EDU_FACTORIAL, 5);
    do {
        KeStallExecutionProcessor(1);
        Status = CardRead(Fdo, EDU_STATUS);
#ifdef FIXED
        if (Status == GONE) {
            return STATUS_NO_SUCH_DEVICE;
        }
#endif
    } while (Status & EDU_STATUS_COMPUTING);
    return CardRead(Fdo, EDU_FACTORIAL) == 120 ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = EduStart(Fdo, Resources);

    if (NT_SUCCESS(Status)) {
        Status = SeeThatItWorks(Fdo);
        if (!NT_SUCCESS(Status)) {
            EduStop(Fdo, FALSE);
        }
    }
    return Status;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0a1);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
