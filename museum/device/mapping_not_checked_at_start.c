/*
 * The educational device's factorials, with a check of the card's identification.
 *
 * The bug: what MmMapIoSpace returns is used without a look. It shows when there is no room to map the registers.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read, device-memory-not-mapped
 * Needs: failure
 */
#include "../include/edu.h"

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Index;

    for (Index = 0; Resources != NULL && Index < Resources->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR One = &Resources->PartialDescriptors[Index];

        if (One->Type == CmResourceTypeMemory && Fdo->Registers == NULL) {
            Fdo->Length = One->u.Memory.Length;
            Fdo->Registers = MmMapIoSpace(One->u.Memory.Start, Fdo->Length, MmNonCached);
#ifdef FIXED
            if (Fdo->Registers == NULL) {
                return STATUS_INSUFFICIENT_RESOURCES;
            }
#endif
            if ((CardRead(Fdo, EDU_IDENTIFICATION) & 0xFFFF) != 0x00ED) {
                Status = STATUS_DEVICE_CONFIGURATION_ERROR;
            }
        } else if (One->Type == CmResourceTypeInterrupt) {
            Fdo->Line = *One;
        }
    }
    ((PEDU)Fdo)->Awake = TRUE;
    if (NT_SUCCESS(Status)) {
        Status = Fdo->Registers == NULL ? STATUS_DEVICE_CONFIGURATION_ERROR : CardConnect(Fdo, EduIsr);
    }
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b013);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
