/*
 * The educational device's factorials, with a service routine of its own.
 *
 * The bug: the service routine claims the interrupt and does not acknowledge it at the card, whose line stays asserted. It shows with the first factorial.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: interrupt-storm
 * Needs: ioctl
 */
#include "../include/edu.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDU Edu = Context;
    ULONG Status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Edu->Awake) {
        return FALSE;
    }
    Status = CardRead(&Edu->Fdo, EDU_INTERRUPT_STATUS);
    if (Status == 0 || Status == 0xFFFFFFFF) {
        return FALSE;
    }
#ifdef FIXED
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, Status);
#endif
    InterlockedOr(&Edu->Pending, (LONG)Status);
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b001);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
