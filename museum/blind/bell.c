/*
 * bell.sys: a bell on a PLX PCI 9052's local bus. IOCTL_BELL_WAIT waits until it rings, IOCTL_BELL_RING rings it: all that wait are woken by the
 * interrupt. Those that wait are on a list of the driver's, each with a cancel routine. LINTi1 may be driven from outside, too: that wakes, and is
 * masked until a thread waits again.
 *
 * The bug: who takes a request off the list while it is being cancelled leaves it to the cancel routine, but leaves its list entry as it is. The
 * cancel routine takes it off once more, and so links its neighbours of then to each other: requests that are complete and freed, and the list's head.
 * It shows when the bell rings just while one of several waiting requests is cancelled (between the I/O manager's taking of the cancel routine and
 * the routine's taking of the lock).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: use-after-free, double-free
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>

#define IOCTL_BELL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Local configuration registers (BAR0), and the board's peripheral at the end of local space 0 (BAR2). */
#define LCR_LENGTH 0x80
#define INTCSR 0x4C
#define INTCSR_ON 0x53u     /* LINTi1 enabled and active high, interrupts to PCI */
#define INTCSR_MASKED 0x52u /* all but LINTi1 */
#define INTCSR_MINE 0x45u   /* enabled, active, to PCI */
#define INTCSR_ZERO 0x80000000u
#define LOCAL_LENGTH 0x10000
#define LOCAL_STATUS 0xFFF8 /* 1: done, 4: overrun; ones written clear them, and LINTi1 */
#define LOCAL_BELL 0xFFFC

/* Why the card is not touched. */
#define STOPPED 1
#define ASLEEP 2
#define DEAD 4
#define POOL_TAG 'lleB'

typedef struct _BELL {
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    PUCHAR Regs;
    ULONG Length;
    PKINTERRUPT Interrupt;
    PUCHAR Local;
    ULONG LocalLength;
    BOOLEAN Listening; /* by the interrupt's lock */
    KDPC Dpc;
    KSPIN_LOCK Lock;   /* what follows */
    ULONG Gate;
    LIST_ENTRY Waiting;
} BELL;

static const GUID InterfaceGuid = {0x6f0a4b18, 0x0d6e, 0x4f0e, {0x9a, 0x51, 0x33, 0x10, 0x5c, 0x7e, 0x08, 0xa1}};
DRIVER_INITIALIZE DriverEntry;

#define RD(D, O) READ_REGISTER_ULONG((PULONG)((D)->Regs + (O)))
#define WR(D, O, V) WRITE_REGISTER_ULONG((PULONG)((D)->Regs + (O)), (V))
#define LRD(D, O) READ_REGISTER_ULONG((PULONG)((D)->Local + (O)))
#define LWR(D, O, V) WRITE_REGISTER_ULONG((PULONG)((D)->Local + (O)), (V))

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Of a request that holds the remove lock. */
static NTSTATUS Leave(BELL *Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

/* ---- those that wait ---- */

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    BELL *Dev = Device->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Dev->Lock, &Irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&Dev->Lock, Irql);
    Leave(Dev, Irp, STATUS_CANCELLED, 0);
}

/* Takes all that wait, or those of a file, to a list of the caller's. */
static VOID TakeAll(BELL *Dev, PFILE_OBJECT File, PLIST_ENTRY Taken)
{
    PLIST_ENTRY Entry, Next;
    KIRQL Irql;

    InitializeListHead(Taken);
    KeAcquireSpinLock(&Dev->Lock, &Irql);
    for (Entry = Dev->Waiting.Flink; Entry != &Dev->Waiting; Entry = Next) {
        PIRP Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);

        Next = Entry->Flink;
        if (File != NULL && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        RemoveEntryList(Entry);
        if (IoSetCancelRoutine(Irp, NULL) != NULL)
            InsertTailList(Taken, Entry);
#ifdef FIXED
        else
            InitializeListHead(Entry); /* its cancel routine takes it off, and completes it */
#endif
    }
    KeReleaseSpinLock(&Dev->Lock, Irql);
}

static VOID Purge(BELL *Dev, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY Taken;

    TakeAll(Dev, File, &Taken);
    while (!IsListEmpty(&Taken))
        Leave(Dev, CONTAINING_RECORD(RemoveHeadList(&Taken), IRP, Tail.Overlay.ListEntry), Status, 0);
}

static VOID NTAPI Rung(PKDPC, PVOID Context, PVOID, PVOID)
{
    Purge(Context, NULL, STATUS_SUCCESS);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT, PVOID Context)
{
    BELL *Dev = Context;

    if (!Dev->Listening || (RD(Dev, INTCSR) & (INTCSR_MINE | INTCSR_ZERO)) != INTCSR_MINE)
        return FALSE;
    if (LRD(Dev, LOCAL_STATUS) & 1) {
        LWR(Dev, LOCAL_STATUS, 5);
        LRD(Dev, LOCAL_STATUS);
    } else {
        WR(Dev, INTCSR, INTCSR_MASKED); /* it is driven from outside, and would be at once again */
        RD(Dev, INTCSR);
    }
    KeInsertQueueDpc(&Dev->Dpc, NULL, NULL);
    return TRUE;
}

/* On and off; on again unmasks. */
static VOID Listen(BELL *Dev, BOOLEAN On, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(Dev->Interrupt);

    Dev->Listening = On;
    if (Touch) {
        WR(Dev, INTCSR, On ? INTCSR_ON : 0);
        RD(Dev, INTCSR);
    }
    KeReleaseInterruptSpinLock(Dev->Interrupt, Irql);
}

static VOID Close(BELL *Dev, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Dev->Lock, &Irql);
    Dev->Gate |= Why;
    KeReleaseSpinLock(&Dev->Lock, Irql);
}

static VOID Open(BELL *Dev, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Dev->Lock, &Irql);
    Dev->Gate &= ~Why;
    KeReleaseSpinLock(&Dev->Lock, Irql);
}

static NTSTATUS Wait(BELL *Dev, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    KIRQL Irql;

    KeAcquireSpinLock(&Dev->Lock, &Irql);
    if (Dev->Gate & DEAD) {
        Status = STATUS_DELETE_PENDING;
    } else {
        IoSetCancelRoutine(Irp, CancelWait);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL)
            Status = STATUS_CANCELLED;
    }
    if (Status == STATUS_PENDING) {
        IoMarkIrpPending(Irp);
        InsertTailList(&Dev->Waiting, &Irp->Tail.Overlay.ListEntry);
        if (Dev->Gate == 0)
            Listen(Dev, TRUE, TRUE);
    }
    KeReleaseSpinLock(&Dev->Lock, Irql);
    return Status == STATUS_PENDING ? Status : Leave(Dev, Irp, Status, 0);
}

static NTSTATUS Ring(BELL *Dev, PIRP Irp)
{
    NTSTATUS Status = STATUS_DEVICE_NOT_READY;
    KIRQL Irql;

    KeAcquireSpinLock(&Dev->Lock, &Irql);
    if (Dev->Gate == 0) {
        LWR(Dev, LOCAL_BELL, 1);
        Status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&Dev->Lock, Irql);
    return Leave(Dev, Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    BELL *Dev = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Dev->RemoveLock, Irp);

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BELL_WAIT:
        return Wait(Dev, Irp);
    case IOCTL_BELL_RING:
        return Ring(Dev, Irp);
    }
    return Leave(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MajorFunction == IRP_MJ_CLEANUP)
        Purge(Device->DeviceExtension, Stack->FileObject, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* ---- the hardware, Plug and Play, power ---- */

static VOID LetGo(BELL *Dev, BOOLEAN Present)
{
    if (Dev->Interrupt != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED, .ConnectionContext.InterruptObject = Dev->Interrupt};

        Listen(Dev, FALSE, Present && !(Dev->Gate & ASLEEP));
        IoDisconnectInterruptEx(&P);
        Dev->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (Dev->Local != NULL)
        MmUnmapIoSpace(Dev->Local, Dev->LocalLength);
    Dev->Local = NULL;
    if (Dev->Regs != NULL)
        MmUnmapIoSpace(Dev->Regs, Dev->Length);
    Dev->Regs = NULL;
}

static NTSTATUS StartCard(BELL *Dev, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List = Resources != NULL ? &Resources->List[0].PartialResourceList : NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED};
    NTSTATUS Status;

    for (ULONG i = 0; List != NULL && i < List->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR R = &List->PartialDescriptors[i];

        if (R->Type == CmResourceTypeMemory && R->u.Memory.Length == LCR_LENGTH && Dev->Regs == NULL) {
            Dev->Length = R->u.Memory.Length;
            Dev->Regs = MmMapIoSpace(R->u.Memory.Start, Dev->Length, MmNonCached);
        } else if (R->Type == CmResourceTypeMemory && R->u.Memory.Length >= LOCAL_LENGTH && Dev->Local == NULL) {
            Dev->LocalLength = R->u.Memory.Length;
            Dev->Local = MmMapIoSpace(R->u.Memory.Start, Dev->LocalLength, MmNonCached);
        }
    }
    if (Dev->Regs == NULL || Dev->Local == NULL) {
        LetGo(Dev, FALSE);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    WR(Dev, INTCSR, 0);
    LWR(Dev, LOCAL_STATUS, 5);
    LRD(Dev, LOCAL_STATUS);
    P.LineBased.PhysicalDeviceObject = Dev->Pdo;
    P.LineBased.InterruptObject = &Dev->Interrupt;
    P.LineBased.ServiceRoutine = Isr;
    P.LineBased.ServiceContext = Dev;
    Status = IoConnectInterruptEx(&P);
    if (!NT_SUCCESS(Status))
        Dev->Interrupt = NULL;
    else {
        Listen(Dev, TRUE, TRUE);
        Status = IoSetDeviceInterfaceState(&Dev->Interface, TRUE);
    }
    if (NT_SUCCESS(Status))
        Open(Dev, STOPPED | ASLEEP);
    else
        LetGo(Dev, TRUE);
    return Status;
}

static NTSTATUS NTAPI Signal(PDEVICE_OBJECT, PIRP, PVOID Event)
{
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS SendAndWait(BELL *Dev, PIRP Irp)
{
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Signal, &Event, TRUE, TRUE, TRUE);
    IoCallDriver(Dev->Lower, Irp);
    KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    BELL *Dev = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Dev->RemoveLock, Irp);
    UCHAR Minor = Stack->MinorFunction;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Minor) {
    case IRP_MN_START_DEVICE:
        Status = SendAndWait(Dev, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(Dev, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        return Leave(Dev, Irp, Status, 0);
    case IRP_MN_CANCEL_STOP_DEVICE:
        SendAndWait(Dev, Irp);
        if (Dev->Regs != NULL)
            Open(Dev, STOPPED);
        return Leave(Dev, Irp, STATUS_SUCCESS, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        Close(Dev, STOPPED);
        if (Minor == IRP_MN_STOP_DEVICE)
            LetGo(Dev, TRUE);
        break;
    case IRP_MN_SURPRISE_REMOVAL:
    case IRP_MN_REMOVE_DEVICE:
        Close(Dev, DEAD);
        LetGo(Dev, Minor == IRP_MN_REMOVE_DEVICE);
        Purge(Dev, NULL, STATUS_DELETE_PENDING);
        IoSetDeviceInterfaceState(&Dev->Interface, FALSE);
        if (Minor == IRP_MN_SURPRISE_REMOVAL)
            break;
        IoReleaseRemoveLockAndWait(&Dev->RemoveLock, Irp);
        KeFlushQueuedDpcs();
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Dev->Lower, Irp);
        IoDetachDevice(Dev->Lower);
        RtlFreeUnicodeString(&Dev->Interface);
        IoDeleteDevice(Device);
        return Status;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (Stack->Parameters.UsageNotification.InPath)
            return Leave(Dev, Irp, STATUS_UNSUCCESSFUL, 0);
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;
    default:
        goto Down;
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
Down:
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Dev->Lower, Irp);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

static VOID NTAPI DeviceFollowed(PDEVICE_OBJECT, UCHAR, POWER_STATE, PVOID Irp, PIO_STATUS_BLOCK Block)
{
    PoStartNextPowerIrp(Irp);
    Leave(IoGetCurrentIrpStackLocation((PIRP)Irp)->DeviceObject->DeviceExtension, Irp, Block->Status, 0);
}

/* A system state that the drivers below have seen, or D0. */
static NTSTATUS NTAPI PowerBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    BELL *Dev = Context;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (NT_SUCCESS(Irp->IoStatus.Status) && Stack->Parameters.Power.Type == SystemPowerState) {
        BOOLEAN Works = Stack->Parameters.Power.State.SystemState == PowerSystemWorking;
        POWER_STATE State = {.DeviceState = Works ? PowerDeviceD0 : PowerDeviceD3};
        NTSTATUS Status = PoRequestPowerIrp(Dev->Pdo, Stack->MinorFunction, State, DeviceFollowed, Irp, NULL);

        if (Status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    } else if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        if (Dev->Interrupt != NULL)
            Listen(Dev, TRUE, TRUE);
        Open(Dev, ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    BELL *Dev = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Sets = Stack->MinorFunction == IRP_MN_SET_POWER, Asks = Stack->MinorFunction == IRP_MN_QUERY_POWER;
    NTSTATUS Status = IoAcquireRemoveLock(&Dev->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, Status, 0);
    }
    if (((Sets || Asks) && Stack->Parameters.Power.Type == SystemPowerState) ||
        (Sets && Stack->Parameters.Power.State.DeviceState == PowerDeviceD0)) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, PowerBack, Dev, TRUE, TRUE, TRUE);
        PoCallDriver(Dev->Lower, Irp);
        return STATUS_PENDING;
    }
    if (Sets && !(Dev->Gate & ASLEEP)) {
        PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        Close(Dev, ASLEEP);
        if (Dev->Interrupt != NULL) {
            Listen(Dev, FALSE, TRUE);
            KeFlushQueuedDpcs();
        }
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Dev->Lower, Irp);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(((BELL *)Device->DeviceExtension)->Lower, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(BELL), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    BELL *Dev;

    if (!NT_SUCCESS(Status))
        return Status;
    Dev = Device->DeviceExtension;
    Dev->Pdo = Pdo;
    Dev->Gate = STOPPED;
    IoInitializeRemoveLock(&Dev->RemoveLock, POOL_TAG, 0, 0);
    KeInitializeSpinLock(&Dev->Lock);
    KeInitializeDpc(&Dev->Dpc, Rung, Dev);
    InitializeListHead(&Dev->Waiting);
    Status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &Dev->Interface);
    if (NT_SUCCESS(Status)) {
        if ((Dev->Lower = IoAttachDeviceToDeviceStack(Device, Pdo)) != NULL) {
            Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
            Device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&Dev->Interface);
        Status = STATUS_NO_SUCH_DEVICE;
    }
    IoDeleteDevice(Device);
    return Status;
}

static VOID NTAPI Unload(PDRIVER_OBJECT)
{
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = Driver->MajorFunction[IRP_MJ_CLEANUP] = Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchWmi;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
