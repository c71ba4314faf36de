/*
 * The educational device's factorials, with a test interrupt as soon as the line is connected.
 *
 * The bug: the DPC is initialised last: the service routine queues it before. It shows when the device is started.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dpc-not-initialized
 * Needs: nothing
 */
#include "../include/edu.h"

#define EDU_TEST 0x10000

static NTSTATUS Add(PFDO Fdo)
{
    PEDU Edu = (PEDU)Fdo;

    KeInitializeSpinLock(&Edu->Lock);
    QueueInitialize(&Edu->Waiting, EduEnded);
#ifdef FIXED
    KeInitializeDpc(&Edu->Dpc, EduDpc, Edu);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = EduStart(Fdo, Resources);

    if (NT_SUCCESS(Status)) {
        CardWrite(Fdo, EDU_INTERRUPT_RAISE, EDU_TEST);
#ifndef FIXED
        KeInitializeDpc(&((PEDU)Fdo)->Dpc, EduDpc, Fdo);
#endif
    }
    return Status;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b009);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
