/*
 * The educational device's buffer, filled by DMA from a common buffer; the card tells by a message that a transfer is over. The buffer is the device's for its life. Requests
 * wait in a queue, and one at a time is the card's, which is busy until its message has come.
 *
 * The bug: when the device is stopped or removed its interrupt is disconnected while the card may still send its message, which is awaited only behind that. The
 * message comes when no routine is connected, and is lost (of a line the level would have been left), so the card counts as busy for ever. It shows when the device is
 * stopped during a transfer and started again.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: device
 */
#include "../include/edu_dma.h"

typedef struct _STORE {
    DMA Dma;
    PIO_INTERRUPT_MESSAGE_INFO Messages; /* or the line's interrupt object */
    ULONG Version;                       /* which of the two */
    BOOLEAN Busy;                        /* by the lock: the card's message is to come */
} STORE, *PSTORE;

/* Gives the card the next request, if it is done with the last. */
static VOID Next(PSTORE Store)
{
    PEDU Edu = &Store->Dma.Edu;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Edu->Lock, &OldIrql);
    if (!Store->Busy) {
        Edu->Current = QueueTake(&Edu->Waiting);
        if (Edu->Current != NULL) {
            Store->Busy = TRUE;
            KeClearEvent(&Store->Dma.Idle);
            DmaStore(&Edu->Fdo, Edu->Current->AssociatedIrp.SystemBuffer, InputOf(IoGetCurrentIrpStackLocation(Edu->Current)));
        }
    }
    KeReleaseSpinLock(&Edu->Lock, OldIrql);
}

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG Number)
{
    UNREFERENCED_PARAMETER(Number);
    return EduIsr(Interrupt, Context);
}

static VOID NTAPI Dpc(PKDPC Queued, PVOID Context, PVOID One, PVOID Two)
{
    PSTORE Store = Context;
    PEDU Edu = Context;
    PIRP Irp;
    KIRQL OldIrql;

    UNREFERENCED_PARAMETER(Queued);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (!(InterlockedExchange(&Edu->Pending, 0) & EDU_TRANSFERRED)) {
        return;
    }
    KeAcquireSpinLock(&Edu->Lock, &OldIrql);
    Irp = Edu->Current;
    Edu->Current = NULL;
    Store->Busy = FALSE;
    KeSetEvent(&Store->Dma.Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Edu->Lock, OldIrql);
    if (Irp != NULL) {
        FdoEndPended(&Edu->Fdo, Irp, STATUS_SUCCESS, 0);
    }
    Next(Store);
}

static NTSTATUS Connect(PSTORE Store)
{
    PFDO Fdo = &Store->Dma.Edu.Fdo;
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    NTSTATUS Status;

    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = CONNECT_MESSAGE_BASED;
    Parameters.MessageBased.PhysicalDeviceObject = Fdo->Pdo;
    Parameters.MessageBased.ConnectionContext.InterruptMessageTable = &Store->Messages;
    Parameters.MessageBased.MessageServiceRoutine = OnMessage;
    Parameters.MessageBased.ServiceContext = Store;
    Parameters.MessageBased.FallBackServiceRoutine = EduIsr;
    Status = IoConnectInterruptEx(&Parameters);
    if (NT_SUCCESS(Status)) {
        Store->Version = Parameters.Version;
        Fdo->Interrupt = Parameters.Version == CONNECT_MESSAGE_BASED ? Store->Messages->MessageInfo[0].InterruptObject : (PKINTERRUPT)Store->Messages;
    }
    return Status;
}

static VOID Disconnect(PSTORE Store)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

    Parameters.Version = Store->Version;
    Parameters.ConnectionContext.Generic = Store->Messages;
    IoDisconnectInterruptEx(&Parameters);
    Store->Dma.Edu.Fdo.Interrupt = NULL;
    KeFlushQueuedDpcs();
}

/* Waits until the card's message has come, for a second at most: a transfer takes a tenth of that. */
static VOID AwaitMessage(PFDO Fdo)
{
    LARGE_INTEGER Limit;

    Limit.QuadPart = -10000000;
    KeWaitForSingleObject(&((PDMA)Fdo)->Idle, Executive, KernelMode, FALSE, &Limit);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PSTORE Store = (PSTORE)Fdo;
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (NT_SUCCESS(Status) && (CardRead(Fdo, EDU_IDENTIFICATION) & 0xFFFF) != 0x00ED) {
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (NT_SUCCESS(Status) && Store->Dma.Adapter == NULL) {
        Status = DmaGetAdapter(Fdo);
    }
    if (NT_SUCCESS(Status) && Store->Dma.Common == NULL) {
        Status = DmaGetCommon(Fdo);
    }
    if (NT_SUCCESS(Status)) {
        Store->Dma.Edu.Awake = TRUE;
        Status = Connect(Store);
    }
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    PSTORE Store = (PSTORE)Fdo;

#ifdef FIXED
    if (Present) {
        AwaitMessage(Fdo);
    }
    Disconnect(Store);
#else
    Disconnect(Store);
    if (Present) {
        AwaitMessage(Fdo);
    }
#endif
    CardUnmap(Fdo);
}

static VOID PowerDown(PFDO Fdo)
{
    AwaitMessage(Fdo);
    EduPowerDown(Fdo);
}

static VOID Removed(PFDO Fdo)
{
    DmaPutCommon(Fdo);
    DmaPutAdapter(Fdo);
}

static NTSTATUS Add(PFDO Fdo)
{
    EduAdd(Fdo);
    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    KeInitializeEvent(&((PDMA)Fdo)->Idle, NotificationEvent, TRUE);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PSTORE Store = Device->DeviceExtension;
    PEDU Edu = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Edu->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_EDU_STORE || InputOf(Stack) == 0 || InputOf(Stack) > MOST_BYTES) {
        return FdoEnd(&Edu->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    IoCsqInsertIrp(&Edu->Waiting.Csq, Irp, NULL);
    Next(Store);
    return FdoPend(&Edu->Fdo);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(STORE), DO_BUFFERED_IO);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b015);
static const HOOKS Hooks = {.Add = Add, .Removed = Removed, .Start = Start, .Flush = EduFlush, .Stop = Stop, .PowerDown = PowerDown, .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
