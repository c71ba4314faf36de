/*
 * The educational device's factorials and raised interrupts; a factorial may take two seconds, and then ends with STATUS_IO_TIMEOUT.
 *
 * The bug: the service routine stores what it has read over what the DPC has not taken yet: a factorial's interrupt is lost where a raised one follows it, and
 * the time limit passes for a fault of the card's. It shows with both at once.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out, request-forgotten
 * Needs: ioctl, schedule
 */
#include "../include/edu_limit.h"

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
#ifdef FIXED
    InterlockedOr(&Edu->Pending, (LONG)Status);
#else
    InterlockedExchange(&Edu->Pending, (LONG)Status);
#endif
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e1);
static const HOOKS Hooks = {.Add = LimitedAdd, .Start = Start, .Flush = RaisingFlush, .Stop = LimitedStop, .PowerDown = LimitedPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    LimitedDriver(Driver);
    return STATUS_SUCCESS;
}
