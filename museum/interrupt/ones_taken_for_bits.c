/*
 * The educational device's factorials, on a line that other cards share.
 *
 * The bug: the service routine reads the card's status also when the card has no power or is gone, and takes all ones for its bits: it claims what is not its
 * own. It shows when another card of the line interrupts in D3.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: interrupt-storm, card-without-power
 * Needs: power, device
 */
#include "../include/edu.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDU Edu = Context;
    ULONG Status;

    UNREFERENCED_PARAMETER(Interrupt);
#ifdef FIXED
    if (!Edu->Awake) {
        return FALSE;
    }
#endif
    Status = CardRead(&Edu->Fdo, EDU_INTERRUPT_STATUS);
#ifdef FIXED
    if (Status == 0xFFFFFFFF) {
        return FALSE;
    }
#endif
    if (Status == 0) {
        return FALSE;
    }
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, Status);
    InterlockedOr(&Edu->Pending, (LONG)Status);
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b018);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
