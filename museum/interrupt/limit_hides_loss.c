/*
 * The educational device's factorials and raised interrupts; a factorial may take two seconds, and then ends with STATUS_IO_TIMEOUT.
 *
 * The bug: the service routine stores what it has read over what the DPC has not taken yet: a factorial's interrupt is lost where a raised one follows it, and
 * the time limit passes for a fault of the card's. It shows with both at once.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out, request-forgotten
 * Needs: ioctl, schedule
 */
#include "../include/edu_raise.h"

#define LIMIT (2 * 10000000LL)

typedef struct _LIMITED {
    RAISING Raising;
    KTIMER Timer;
    KDPC TimerDpc;
} LIMITED, *PLIMITED;

/* Each factorial that is begun gets the time from now on. */
static VOID Begin(PLIMITED Card)
{
    LARGE_INTEGER Limit;

    Limit.QuadPart = -LIMIT;
    EduNext(&Card->Raising.Edu);
    KeSetTimer(&Card->Timer, Limit, &Card->TimerDpc);
}

static VOID NTAPI TooLate(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PLIMITED Card = Context;
    PIRP Irp = EduTakeCurrent(&Card->Raising.Edu);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Irp != NULL) {
        FdoEndPended(&Card->Raising.Edu.Fdo, Irp, STATUS_IO_TIMEOUT, 0);
        Begin(Card);
    }
}

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
    InterlockedExchange(&Edu->Pending, (LONG)Status);
#endif
    KeInsertQueueDpc(&Edu->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLIMITED Card = Device->DeviceExtension;
    PEDU Edu = &Card->Raising.Edu;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (CodeOf(Stack) != IOCTL_EDU_FACTORIAL) {
        return RaisingControl(Device, Irp);
    }
    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    IoCsqInsertIrp(&Edu->Waiting.Csq, Irp, NULL);
    Begin(Card);
    return FdoPend(&Edu->Fdo);
}

static NTSTATUS Add(PFDO Fdo)
{
    PLIMITED Card = (PLIMITED)Fdo;

    KeInitializeTimer(&Card->Timer);
    KeInitializeDpc(&Card->TimerDpc, TooLate, Card);
    return RaisingAdd(Fdo);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    return EduStartWith(Fdo, Resources, Isr);
}

static VOID Rest(PLIMITED Card)
{
    KeCancelTimer(&Card->Timer);
    KeFlushQueuedDpcs();
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    Rest((PLIMITED)Fdo);
    EduStop(Fdo, Present);
}

static VOID PowerDown(PFDO Fdo)
{
    Rest((PLIMITED)Fdo);
    EduPowerDown(Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e1);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Flush = RaisingFlush, .Stop = Stop, .PowerDown = PowerDown, .PowerUp = EduPowerUp};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(LIMITED), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    RaisingDriver(Driver);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    return STATUS_SUCCESS;
}
