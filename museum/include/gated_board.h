/*
 * The function driver of one PnP device. A driver describes itself by a BOARD_KIND; its device extension begins with a BOARD.
 *
 *   Begin, End    AddDevice and removal: locks, queues, memory without hardware
 *   Start, Stop   gain and release resources; the card is neither awake before nor after
 *   Wake, Quiet   the card is in D0 and may work; it must stop (it loses its power, is stopped, removed or gone: Present is FALSE)
 *   Drain         shut all queues for good
 *   Io            a read, write or device control. It ends by BoardFinish once, the one who calls it.
 *
 * Begin to Drain are called at PASSIVE_LEVEL. Start to Quiet never run at the same time: who changes the state has the turn. The gate Run is
 * open while the card is awake; what is inside may touch it. The gate Life is open until the device is removed.
 */
typedef struct _BOARD BOARD, *PBOARD;

typedef struct _BOARD_KIND {
    ULONG Bytes;
    ULONG Flags;
    const GUID *Class;
    NTSTATUS (*Begin)(PBOARD Board);
    VOID (*End)(PBOARD Board);
    NTSTATUS (*Start)(PBOARD Board, PCM_PARTIAL_RESOURCE_LIST List);
    VOID (*Stop)(PBOARD Board);
    VOID (*Wake)(PBOARD Board);
    VOID (*Quiet)(PBOARD Board, BOOLEAN Present);
    VOID (*Drain)(PBOARD Board);
    NTSTATUS (*Io)(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack);
    NTSTATUS (*Open)(PBOARD Board, PFILE_OBJECT File);
    VOID (*Cleanup)(PBOARD Board, PFILE_OBJECT File);
    VOID (*Close)(PBOARD Board, PFILE_OBJECT File);
} BOARD_KIND;

struct _BOARD {
    const BOARD_KIND *Kind;
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Under;       /* the next lower device */
    PDEVICE_OBJECT Base;        /* the physical device */
    GATE Life;
    GATE Run;
    KEVENT Turn;
    PIO_WORKITEM Riser;
    PIRP Rising;
    UNICODE_STRING Name;
    BOOLEAN Gained;             /* these two belong to who has the turn */
    BOOLEAN Up;
    volatile LONG Started;
};

static const BOARD_KIND *BoardKind;

ANY NTSTATUS BoardFinish(PBOARD Board, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    GateLeave(&Board->Life);
    return Status;
}

ANY NTSTATUS BoardPend(PBOARD Board, PIRPQ Queue, PIRP Irp)
{
    NTSTATUS status = IrpqPut(Queue, Irp);

    if (status != STATUS_PENDING)
        BoardFinish(Board, Irp, status, 0);
    return STATUS_PENDING;
}

/* A Retire for queues whose Owner is the board. */
ANY VOID BoardRetire(PIRPQ Queue, PIRP Irp, NTSTATUS Status)
{
    BoardFinish(Queue->Owner, Irp, Status, 0);
}

ANY PCM_PARTIAL_RESOURCE_DESCRIPTOR BoardResource(PCM_PARTIAL_RESOURCE_LIST List, UCHAR Type, ULONG Which)
{
    ULONG i;

    if (List != NULL)
        for (i = 0; i < List->Count; i++)
            if (List->PartialDescriptors[i].Type == Type && Which-- == 0)
                return &List->PartialDescriptors[i];
    return NULL;
}

ANY NTSTATUS BoardConnect(PCM_PARTIAL_RESOURCE_LIST List, PKSERVICE_ROUTINE Routine, PVOID Context, PKINTERRUPT *Interrupt)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = BoardResource(List, CmResourceTypeInterrupt, 0);

    if (d == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return IoConnectInterrupt(Interrupt, Routine, Context, NULL, d->u.Interrupt.Vector, (KIRQL)d->u.Interrupt.Level,
                              (KIRQL)d->u.Interrupt.Level,
                              (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              (BOOLEAN)(d->ShareDisposition == CmResourceShareShared), d->u.Interrupt.Affinity, FALSE);
}

static VOID BoardTurn(PBOARD Board)
{
    KeWaitForSingleObject(&Board->Turn, Executive, KernelMode, FALSE, NULL);
}

static VOID BoardTurnOver(PBOARD Board)
{
    KeSetEvent(&Board->Turn, IO_NO_INCREMENT, FALSE);
}

static VOID BoardUp(PBOARD Board)
{
    Board->Kind->Wake(Board);
    Board->Up = TRUE;
    GateOpen(&Board->Run);
}

static VOID BoardDown(PBOARD Board, BOOLEAN Present)
{
    if (!Board->Up)
        return;
    GateShut(&Board->Run);
    Board->Kind->Quiet(Board, Present);
    Board->Up = FALSE;
}

static VOID BoardLetGo(PBOARD Board, BOOLEAN Present)
{
    BoardTurn(Board);
    BoardDown(Board, Present);
    if (Board->Gained)
        Board->Kind->Stop(Board);
    Board->Gained = FALSE;
    BoardTurnOver(Board);
}

static NTSTATUS NTAPI BoardBack(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS BoardSendAndWait(PBOARD Board, PIRP Irp)
{
    KEVENT back;
    NTSTATUS status;

    KeInitializeEvent(&back, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, BoardBack, &back, TRUE, TRUE, TRUE);
    status = IoCallDriver(Board->Under, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&back, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

/* Reads or writes the card's configuration space; the bus driver does it. */
ANY NTSTATUS BoardConfig(PBOARD Board, BOOLEAN Write, ULONG Offset, PVOID Buffer, ULONG Length)
{
    PIO_STACK_LOCATION stack;
    IO_STATUS_BLOCK iosb;
    KEVENT done;
    NTSTATUS status;
    PIRP irp;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Board->Under, NULL, 0, NULL, &done, &iosb);
    if (irp == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    irp->IoStatus.Information = 0;
    stack = IoGetNextIrpStackLocation(irp);
    stack->MinorFunction = Write ? IRP_MN_WRITE_CONFIG : IRP_MN_READ_CONFIG;
    stack->Parameters.ReadWriteConfig.WhichSpace = 0;       /* PCI_WHICHSPACE_CONFIG */
    stack->Parameters.ReadWriteConfig.Buffer = Buffer;
    stack->Parameters.ReadWriteConfig.Offset = Offset;
    stack->Parameters.ReadWriteConfig.Length = Length;
    status = IoCallDriver(Board->Under, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        status = iosb.Status;
    }
    return status;
}

static NTSTATUS BoardStart(PBOARD Board, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PCM_RESOURCE_LIST list = Stack->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS status = BoardSendAndWait(Board, Irp);

    if (NT_SUCCESS(status)) {
        BoardTurn(Board);
        status = Board->Kind->Start(Board, list != NULL && list->Count != 0 ? &list->List[0].PartialResourceList : NULL);
        if (NT_SUCCESS(status)) {
            Board->Gained = TRUE;
            BoardUp(Board);
        }
        BoardTurnOver(Board);
        if (NT_SUCCESS(status) && Board->Kind->Class != NULL) {
            status = IoSetDeviceInterfaceState(&Board->Name, TRUE);
            if (!NT_SUCCESS(status))
                BoardLetGo(Board, TRUE);
        }
        if (NT_SUCCESS(status)) {
            InterlockedExchange(&Board->Started, 1);
            status = STATUS_SUCCESS;
        }
    }
    return BoardFinish(Board, Irp, status, 0);
}

static NTSTATUS BoardPass(PBOARD Board, PIRP Irp)
{
    NTSTATUS status;

    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(Board->Under, Irp);
    GateLeave(&Board->Life);
    return status;
}

static NTSTATUS BoardRemove(PBOARD Board, PIRP Irp)
{
    NTSTATUS status;

    InterlockedExchange(&Board->Started, 0);
    if (Board->Kind->Class != NULL)
        IoSetDeviceInterfaceState(&Board->Name, FALSE);
    BoardLetGo(Board, TRUE);
    Board->Kind->Drain(Board);
    GateLeave(&Board->Life);
    GateShut(&Board->Life);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(Board->Under, Irp);
    IoDetachDevice(Board->Under);
    Board->Kind->End(Board);
    IoFreeWorkItem(Board->Riser);
    if (Board->Kind->Class != NULL)
        RtlFreeUnicodeString(&Board->Name);
    IoDeleteDevice(Board->Self);
    return status;
}

static NTSTATUS NTAPI BoardPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBOARD board = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    if (!GateEnter(&board->Life))
        return Finish(Irp, STATUS_DELETE_PENDING, 0);
    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return BoardStart(board, Irp, stack);
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&board->Started, 0);
        BoardLetGo(board, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return BoardPass(board, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&board->Started, 0);
        if (board->Kind->Class != NULL)
            IoSetDeviceInterfaceState(&board->Name, FALSE);
        BoardLetGo(board, FALSE);
        board->Kind->Drain(board);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return BoardPass(board, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return BoardRemove(board, Irp);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        return BoardPass(board, Irp);
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (stack->Parameters.UsageNotification.InPath)     /* no place for a page file */
            return BoardFinish(board, Irp, STATUS_UNSUCCESSFUL, 0);
        return BoardPass(board, Irp);
    default:
        return BoardPass(board, Irp);
    }
}

/* The card is in D0 again; at PASSIVE_LEVEL. */
static VOID NTAPI BoardRise(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    PBOARD board = Context;
    PIRP irp = board->Rising;
    POWER_STATE state;

    BoardTurn(board);
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(DeviceObject, DevicePowerState, state);
    if (board->Gained && !board->Up)
        BoardUp(board);
    BoardTurnOver(board);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    GateLeave(&board->Life);
}

static NTSTATUS NTAPI BoardRaised(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PBOARD board = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        PoStartNextPowerIrp(Irp);
        GateLeave(&board->Life);
        return STATUS_CONTINUE_COMPLETION;
    }
    board->Rising = Irp;
    IoQueueWorkItem(board->Riser, BoardRise, CriticalWorkQueue, board);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* The request for the device's state that a system request has brought about is over. */
static VOID NTAPI BoardFollowed(PDEVICE_OBJECT DeviceObject, UCHAR MinorFunction, POWER_STATE State, PVOID Context,
                                PIO_STATUS_BLOCK IoStatus)
{
    PIRP irp = Context;
    PBOARD board = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(MinorFunction);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(IoStatus);
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    GateLeave(&board->Life);
}

static NTSTATUS NTAPI BoardSystem(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PBOARD board = Context;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (NT_SUCCESS(Irp->IoStatus.Status) && InterlockedCompareExchange(&board->Started, 0, 0)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking
            ? PowerDeviceD0 : PowerDeviceD3;
        if (PoRequestPowerIrp(board->Base, IRP_MN_SET_POWER, state, BoardFollowed, Irp, NULL) == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
    }
    PoStartNextPowerIrp(Irp);
    GateLeave(&board->Life);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI BoardPower(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBOARD board = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE back = NULL;
    NTSTATUS status;

    if (!GateEnter(&board->Life)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, STATUS_DELETE_PENDING, 0);
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER) {
        if (stack->Parameters.Power.Type == SystemPowerState)
            back = BoardSystem;
        else if (stack->Parameters.Power.State.DeviceState == PowerDeviceD0)
            back = BoardRaised;
        else {
            BoardTurn(board);
            BoardDown(board, TRUE);
            PoSetPowerState(DeviceObject, DevicePowerState, stack->Parameters.Power.State);
            BoardTurnOver(board);
        }
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER || stack->MinorFunction == IRP_MN_QUERY_POWER)
        Irp->IoStatus.Status = STATUS_SUCCESS;
    if (back != NULL) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, back, board, TRUE, TRUE, TRUE);
        PoCallDriver(board->Under, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(board->Under, Irp);
    GateLeave(&board->Life);
    return status;
}

static NTSTATUS NTAPI BoardWmi(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBOARD board = DeviceObject->DeviceExtension;

    if (!GateEnter(&board->Life))
        return Finish(Irp, STATUS_DELETE_PENDING, 0);
    return BoardPass(board, Irp);
}

static NTSTATUS NTAPI BoardFile(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBOARD board = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;

    if (!GateEnter(&board->Life))
        return Finish(Irp, stack->MajorFunction == IRP_MJ_CREATE ? STATUS_DELETE_PENDING : STATUS_SUCCESS, 0);
    if (stack->MajorFunction == IRP_MJ_CREATE) {
        if (board->Kind->Open != NULL)
            status = board->Kind->Open(board, stack->FileObject);
    } else if (stack->MajorFunction == IRP_MJ_CLEANUP) {
        if (board->Kind->Cleanup != NULL)
            board->Kind->Cleanup(board, stack->FileObject);
    } else if (board->Kind->Close != NULL)
        board->Kind->Close(board, stack->FileObject);
    return BoardFinish(board, Irp, status, 0);
}

static NTSTATUS NTAPI BoardIo(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBOARD board = DeviceObject->DeviceExtension;
    NTSTATUS status;

    if (!GateEnter(&board->Life))
        return Finish(Irp, STATUS_DELETE_PENDING, 0);
    GateMore(&board->Life);     /* one for the request, one for us: the request may be over before we are */
    status = board->Kind->Io(board, Irp, IoGetCurrentIrpStackLocation(Irp));
    GateLeave(&board->Life);
    return status;
}

static NTSTATUS NTAPI BoardAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Base)
{
    PDEVICE_OBJECT self;
    NTSTATUS status;
    PBOARD board;

    status = IoCreateDevice(DriverObject, BoardKind->Bytes, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &self);
    if (!NT_SUCCESS(status))
        return status;
    board = self->DeviceExtension;
    board->Kind = BoardKind;
    board->Self = self;
    board->Base = Base;
    GateBuild(&board->Life, TRUE);
    GateBuild(&board->Run, FALSE);
    KeInitializeEvent(&board->Turn, SynchronizationEvent, TRUE);
    board->Riser = IoAllocateWorkItem(self);
    if (board->Riser == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_riser;
    }
    status = BoardKind->Begin(board);
    if (!NT_SUCCESS(status))
        goto no_begin;
    if (BoardKind->Class != NULL) {
        status = IoRegisterDeviceInterface(Base, BoardKind->Class, NULL, &board->Name);
        if (!NT_SUCCESS(status))
            goto no_name;
    }
    self->Flags |= BoardKind->Flags | DO_POWER_PAGABLE;
    board->Under = IoAttachDeviceToDeviceStack(self, Base);
    if (board->Under == NULL) {
        status = STATUS_NO_SUCH_DEVICE;
        goto no_stack;
    }
    self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

no_stack:
    if (BoardKind->Class != NULL)
        RtlFreeUnicodeString(&board->Name);
no_name:
    BoardKind->End(board);
no_begin:
    IoFreeWorkItem(board->Riser);
no_riser:
    IoDeleteDevice(self);
    return status;
}

static VOID NTAPI BoardUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

/* All of DriverEntry. */
ANY NTSTATUS BoardDriver(PDRIVER_OBJECT DriverObject, const BOARD_KIND *Kind)
{
    BoardKind = Kind;
    DriverObject->DriverExtension->AddDevice = BoardAdd;
    DriverObject->DriverUnload = BoardUnload;
    DriverObject->MajorFunction[IRP_MJ_PNP] = BoardPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = BoardPower;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = BoardWmi;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = BoardFile;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = BoardFile;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = BoardFile;
    DriverObject->MajorFunction[IRP_MJ_READ] = BoardIo;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = BoardIo;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BoardIo;
    return STATUS_SUCCESS;
}
