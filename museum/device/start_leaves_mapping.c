/*
 * The educational device's factorials.
 *
 * The bug: where the interrupt cannot be connected, the start fails with the registers still mapped. It shows when that call fails.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: io-space-leak, io-space-still-mapped
 * Needs: failure
 */
#include "../include/edu.h"

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ((PEDU)Fdo)->Awake = TRUE;
    Status = CardConnect(Fdo, EduIsr);
    if (!NT_SUCCESS(Status)) {
#ifdef FIXED
        CardUnmap(Fdo);
#endif
        return Status;
    }
    return STATUS_SUCCESS;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b012);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
