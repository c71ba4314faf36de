/*
 * The educational device's factorials, and an event for each interrupt that a thread could wait for.
 *
 * The bug: the service routine sets the event, at the card's level, where no dispatcher object may be touched. It shows with the first interrupt.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include "../include/edu.h"

static KEVENT Interrupted;

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    BOOLEAN Own = EduIsr(Interrupt, Context);

#ifndef FIXED
    if (Own) {
        KeSetEvent(&Interrupted, IO_NO_INCREMENT, FALSE);
    }
#endif
    return Own;
}

static VOID NTAPI Dpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
#ifdef FIXED
    KeSetEvent(&Interrupted, IO_NO_INCREMENT, FALSE);
#endif
    EduDpc(Dpc, Context, One, Two);
}

static NTSTATUS Add(PFDO Fdo)
{
    KeInitializeEvent(&Interrupted, SynchronizationEvent, FALSE);
    EduAdd(Fdo);
    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b004);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
