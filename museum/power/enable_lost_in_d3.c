/*
 * The educational device's factorials. That the card interrupts is enabled once, when it is started.
 *
 * The bug: in D3 the card forgets what was written to it, and the driver does not enable the interrupt again when the card is back in D0: the next request
 * waits for ever. It shows with a request after D3 and D0.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: power, ioctl
 */
#include "../include/edu.h"

static VOID Next(PEDU Edu)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Edu->Lock, &OldIrql);
    if (Edu->Current == NULL) {
        Edu->Current = QueueTake(&Edu->Waiting);
        if (Edu->Current != NULL) {
            CardWrite(&Edu->Fdo, EDU_FACTORIAL, *(PULONG)Edu->Current->AssociatedIrp.SystemBuffer);
        }
    }
    KeReleaseSpinLock(&Edu->Lock, OldIrql);
}

static VOID NTAPI Dpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PEDU Edu = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (!(InterlockedExchange(&Edu->Pending, 0) & EDU_COMPUTED)) {
        return;
    }
    Irp = EduTakeCurrent(Edu);
    if (Irp == NULL) {
        return;
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Edu->Fdo, EDU_FACTORIAL);
    FdoEndPended(&Edu->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
    Next(Edu);
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
    IoCsqInsertIrp(&Edu->Waiting.Csq, Irp, NULL);
    Next(Edu);
    return FdoPend(&Edu->Fdo);
}

static NTSTATUS Add(PFDO Fdo)
{
    EduAdd(Fdo);
    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = EduStart(Fdo, Resources);

    if (NT_SUCCESS(Status)) {
        CardWrite(Fdo, EDU_STATUS, EDU_STATUS_INTERRUPT);
    }
    return Status;
}

static VOID PowerUp(PFDO Fdo)
{
    EduPowerUp(Fdo);
#ifdef FIXED
    CardWrite(Fdo, EDU_STATUS, EDU_STATUS_INTERRUPT);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3b01a);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = PowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
