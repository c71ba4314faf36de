/*
 * The educational device's factorials, with a service routine of its own.
 *
 * The bug: the service routine serves the card and returns FALSE, as if the interrupt had not been its own. It shows with the first factorial, where
 * Windows counts interrupts of the line that no driver claims.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: interrupt-not-claimed
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
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, Status);
    InterlockedOr(&Edu->Pending, (LONG)Status);
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
#ifdef FIXED
    return TRUE;
#else
    return FALSE;
#endif
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b002);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
