/*
 * The educational device's factorials, with a service routine of its own.
 *
 * The bug: the service routine returns TRUE whether the interrupt is its card's or not: on a shared line another card's interrupt is taken from its driver.
 * It shows when another device of the line interrupts.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: interrupt-storm
 * Needs: device
 */
#include "../include/edu.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDU Edu = Context;
    ULONG Status = 0;

    UNREFERENCED_PARAMETER(Interrupt);
    if (Edu->Awake) {
        Status = CardRead(&Edu->Fdo, EDU_INTERRUPT_STATUS);
    }
    if (Status == 0xFFFFFFFF) {
        return FALSE;
    }
    if (Status != 0) {
        CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, Status);
        InterlockedOr(&Edu->Pending, (LONG)Status);
        KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    }
#ifdef FIXED
    return Status != 0;
#else
    return TRUE;
#endif
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b003);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
