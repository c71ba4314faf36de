/*
 * The educational device's factorials and raised interrupts, with a service routine of its own.
 *
 * The bug: the service routine acknowledges all causes, and not those that it has read: one that comes in between is acknowledged and never served, so its
 * request is forgotten. It shows with a factorial and a raised interrupt at once.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: ioctl, schedule
 */
#include "../include/edu_raise.h"

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
#else
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, 0xFFFFFFFF);
#endif
    InterlockedOr(&Edu->Pending, (LONG)Status);
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e0);
static const HOOKS Hooks = {.Add = RaisingAdd, .Start = Start, .Flush = RaisingFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    RaisingDriver(Driver);
    return STATUS_SUCCESS;
}
