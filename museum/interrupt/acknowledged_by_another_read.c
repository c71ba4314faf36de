/*
 * The educational device's factorials and raised interrupts, with a service routine of its own.
 *
 * The bug: the service routine reads the causes twice: what it serves, and what it acknowledges. A factorial that ends between the two reads is acknowledged and never
 * served. It shows with a raised interrupt while the card computes, on a card that is quick.
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
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, CardRead(&Edu->Fdo, EDU_INTERRUPT_STATUS));
#endif
    InterlockedOr(&Edu->Pending, (LONG)Status);
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e7);
static const HOOKS Hooks = {.Add = RaisingAdd, .Start = Start, .Flush = RaisingFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    RaisingDriver(Driver);
    return STATUS_SUCCESS;
}
