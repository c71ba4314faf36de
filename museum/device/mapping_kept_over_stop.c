/*
 * The educational device's factorials.
 *
 * The bug: the registers stay mapped while the device is stopped, and the next start goes on with the same address, though the card may be elsewhere then.
 * It shows when the device is stopped and started again.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stale-resource-used, io-space-still-mapped, resource-used-after-release
 * Needs: removal
 */
#include "../include/edu.h"

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
#ifdef FIXED
    return EduStart(Fdo, Resources);
#else
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Index;

    if (Fdo->Registers == NULL) {
        return EduStart(Fdo, Resources);
    }
    for (Index = 0; Resources != NULL && Index < Resources->Count; Index++) {
        if (Resources->PartialDescriptors[Index].Type == CmResourceTypeInterrupt) {
            Fdo->Line = Resources->PartialDescriptors[Index];
        }
    }
    Status = CardConnect(Fdo, EduIsr);
    return Status;
#endif
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    if (Present) {
        EduQuiet(Fdo);
    }
    CardDisconnect(Fdo);
#ifdef FIXED
    CardUnmap(Fdo);
#endif
}

static VOID Removed(PFDO Fdo)
{
    CardUnmap(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b016);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp, .Removed = Removed};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
