/*
 * The educational device's factorials.
 *
 * The bug: after the interrupt has been disconnected, a DPC that its service routine has queued may still run, and the registers are unmapped without waiting
 * for it. It shows with a schedule in which the DPC is late.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: device-memory-not-mapped, wild-read, wild-write, use-after-free
 * Needs: ioctl, schedule, removal
 */
#include "../include/edu.h"

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    if (Present) {
        EduQuiet(Fdo);
    }
    if (Fdo->Interrupt != NULL) {
        IoDisconnectInterrupt(Fdo->Interrupt);
        Fdo->Interrupt = NULL;
#ifdef FIXED
        KeFlushQueuedDpcs();
#endif
    }
    CardUnmap(Fdo);
}

static VOID NTAPI Dpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PEDU Edu = Context;

    EduDpc(Dpc, Context, One, Two);
    CardWrite(&Edu->Fdo, EDU_LIVENESS, 1); /* the card is shown that the driver lives */
}

static NTSTATUS Add(PFDO Fdo)
{
    EduAdd(Fdo);
    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    return STATUS_SUCCESS;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b00c);
static const HOOKS Hooks = {.Add = Add, .Start = EduStart, .Flush = EduFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
