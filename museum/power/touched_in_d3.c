/*
 * The educational device's factorials. A timer reads the card's liveness register every 100 ms.
 *
 * The bug: the timer goes on when the device has lost its power. It shows in D3.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include "../include/edu.h"

static volatile ULONG Liveness;

static VOID NTAPI Look(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    Liveness = CardRead(Context, EDU_LIVENESS);
}

static VOID StartTimer(PEDU Edu)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -100 * 10000;
    KeSetTimerEx(&Edu->OwnTimer, Due, 100, &Edu->OwnTimerDpc);
}

static VOID StopTimer(PEDU Edu)
{
    KeCancelTimer(&Edu->OwnTimer);
    KeFlushQueuedDpcs();
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = EduStart(Fdo, Resources);
    PEDU Edu = (PEDU)Fdo;

    if (NT_SUCCESS(Status)) {
        KeInitializeTimer(&Edu->OwnTimer);
        KeInitializeDpc(&Edu->OwnTimerDpc, Look, Fdo);
        StartTimer(Edu);
    }
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    StopTimer((PEDU)Fdo);
    EduStop(Fdo, Present);
}

static VOID PowerDown(PFDO Fdo)
{
#ifdef FIXED
    StopTimer((PEDU)Fdo);
#endif
    EduPowerDown(Fdo);
}

static VOID PowerUp(PFDO Fdo)
{
    EduPowerUp(Fdo);
#ifdef FIXED
    StartTimer((PEDU)Fdo);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3b017);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = Stop, .PowerDown = PowerDown,
                            .PowerUp = PowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
