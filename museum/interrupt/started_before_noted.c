/*
 * The educational device's factorials, one at a time.
 *
 * The bug: the request is noted as the current one after the card has been started: where its interrupt comes first, the DPC finds none, and the request
 * waits for ever. It shows with a schedule in which the card is quick.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: ioctl, schedule
 */
#include "../include/edu.h"

/* One of the cards is. */
static LONG Busy;

static VOID NTAPI Dpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PEDU Edu = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (InterlockedExchange(&Edu->Pending, 0) & EDU_COMPUTED) {
        Irp = InterlockedExchangePointer((PVOID *)&Edu->Current, NULL);
        if (Irp != NULL) {
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Edu->Fdo, EDU_FACTORIAL);
            InterlockedExchange(&Busy, FALSE);
            FdoEndPended(&Edu->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
        }
    }
}

static VOID Compute(PEDU Edu, PIRP Irp)
{
    ULONG Number = *(PULONG)Irp->AssociatedIrp.SystemBuffer;

    IoMarkIrpPending(Irp);
    CardWrite(&Edu->Fdo, EDU_STATUS, EDU_STATUS_INTERRUPT);
#ifdef FIXED
    InterlockedExchangePointer((PVOID *)&Edu->Current, Irp);
    CardWrite(&Edu->Fdo, EDU_FACTORIAL, Number);
#else
    CardWrite(&Edu->Fdo, EDU_FACTORIAL, Number);
    InterlockedExchangePointer((PVOID *)&Edu->Current, Irp);
#endif
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_EDU_FACTORIAL || InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (InterlockedExchange(&Busy, TRUE)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_DEVICE_BUSY, 0);
    }
    Compute(Edu, Irp);
    return FdoPend(&Edu->Fdo);
}

static VOID Flush(PFDO Fdo)
{
    PIRP Irp = InterlockedExchangePointer((PVOID *)&((PEDU)Fdo)->Current, NULL);

    /* If it is the other cards', it stays. */
    if (Irp != NULL) {
        InterlockedExchange(&Busy, FALSE);
        FdoEndPended(Fdo, Irp, STATUS_DEVICE_NOT_READY, 0);
    }
}

static NTSTATUS Add(PFDO Fdo)
{
    EduAdd(Fdo);
    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    return STATUS_SUCCESS;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b00e);
static const HOOKS Hooks = {.Add = Add, .Start = EduStart, .Flush = Flush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
