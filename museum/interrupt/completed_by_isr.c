/*
 * The educational device's factorials, without a DPC to be quick.
 *
 * The bug: the service routine reads the result and completes the request itself, at the card's level. It shows with the first factorial.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include "../include/edu.h"

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
#ifdef FIXED
    return EduIsr(Interrupt, Context);
#else
    PEDU Edu = Context;
    ULONG Status;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Edu->Awake) {
        return FALSE;
    }
    Status = CardRead(&Edu->Fdo, EDU_INTERRUPT_STATUS);
    if (Status == 0 || Status == 0xFFFFFFFF) {
        return FALSE;
    }
    CardWrite(&Edu->Fdo, EDU_INTERRUPT_ACKNOWLEDGE, Status);
    Irp = InterlockedExchangePointer((PVOID *)&Edu->Current, NULL);
    if (Irp != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Edu->Fdo, EDU_FACTORIAL);
        Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&Edu->Fdo.RemoveLock, Irp);
    }
    return TRUE;
#endif
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b006);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
