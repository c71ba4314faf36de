/*
 * The educational device's factorials and raised interrupts; a factorial may take two seconds, and then ends with STATUS_IO_TIMEOUT.
 *
 * The bug: the time limit's routine looks at the request that the card computes and ends it without taking it: where the card answers in that moment, the
 * interrupt's DPC ends it on another processor, too. It shows when the card answers as the limit ends.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, use-after-free, not-an-irp
 * Needs: ioctl, schedule, device
 */
#include "../include/edu_limit.h"

static VOID NTAPI TooLate(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PLIMITED Card = Context;
    PEDU Edu = &Card->Raising.Edu;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
#ifdef FIXED
    Irp = EduTakeCurrent(Edu);
#else
    Irp = Edu->Current;
#endif
    if (Irp == NULL) {
        Irp = LimitedTakeWaiting(Card);
    }
    if (Irp != NULL) {
        FdoEndPended(&Edu->Fdo, Irp, STATUS_IO_TIMEOUT, 0);
#ifndef FIXED
        Edu->Current = NULL;
#endif
        LimitedBegin(Card);
    }
}

static NTSTATUS Add(PFDO Fdo)
{
    NTSTATUS Status = LimitedAdd(Fdo);

    KeInitializeDpc(&((PLIMITED)Fdo)->TimerDpc, TooLate, Fdo);
    return Status;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e5);
static const HOOKS Hooks = {.Add = Add, .Start = EduStart, .Flush = RaisingFlush, .Stop = LimitedStop, .PowerDown = LimitedPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    LimitedDriver(Driver);
    return STATUS_SUCCESS;
}
