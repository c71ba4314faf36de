/*
 * The educational device's factorials and raised interrupts. The service routine hands the bits of the interrupt's status to the DPC.
 *
 * The bug: it adds them by |=, and the DPC takes them by a load and a store: bits that come in between are lost, and their request waits for ever. It shows
 * with a schedule in which the interrupt comes between the two.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, request-forgotten, stuck, deadlock, irp-never-completed
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
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, Status);
#ifdef FIXED
    InterlockedOr(&Edu->Pending, (LONG)Status);
#else
    *(volatile LONG *)&Edu->Pending |= (LONG)Status;
#endif
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PRAISING Card = Context;
    LONG Pending;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
#ifdef FIXED
    Pending = InterlockedExchange(&Card->Edu.Pending, 0);
#else
    Pending = *(volatile LONG *)&Card->Edu.Pending;
    *(volatile LONG *)&Card->Edu.Pending = 0;
#endif
    FactorialEnd(Card, Pending);
    RaisedEnd(Card, Pending);
}

static NTSTATUS Add(PFDO Fdo)
{
    RaisingAdd(Fdo);
    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b00d);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Flush = RaisingFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    RaisingDriver(Driver);
    return STATUS_SUCCESS;
}
