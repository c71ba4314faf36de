/*
 * duet.sys: the bench card's first four sources, each a line of its own for applications: IOCTL_DUET_CALL (in: a ULONG, 0 to 3) raises a source and
 * ends when its interrupt has been served. Several can be under way, of one source, too: they end together. What waits when the card goes to sleep or
 * is stopped is raised again afterwards.
 *
 * The bug: the service routine hands the sources that it has seen to the DPC as an argument of KeInsertQueueDpc. If the DPC of the interrupt before is
 * still queued, the call returns FALSE, and the argument is lost: the sources have been taken back from the card, and nothing ends their requests.
 * It shows when two sources interrupt one after the other before the DPC runs.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-forgotten
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include <ddk/csq.h>

#define IOCTL_DUET_CALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_ID 0x00 /* "Benc" */
#define REG_RAISE 0x08
#define REG_STATUS 0x0C /* a one written clears its bit */
#define REG_ENABLE 0x14
#define SOURCES 4
#define ALL_SOURCES 0xF

/* Why the card is not touched. */
#define STOPPED 1
#define ASLEEP 2
#define DEAD 4
#define POOL_TAG 'teuD'

typedef struct _DUET {
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    PUCHAR Regs;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* by the interrupt's lock */
    LONG Seen;
    KDPC Dpc;
    IO_CSQ Csq;
    KSPIN_LOCK Lock;   /* what follows */
    ULONG Gate;
    LIST_ENTRY Calls;
} DUET;

/* Which calls are meant: of a file, or of some sources. */
typedef struct _WHICH {
    PFILE_OBJECT File; /* NULL: any */
    ULONG Sources;
} WHICH;

static const GUID InterfaceGuid = {0x6f0a4b1b, 0x0d6e, 0x4f0e, {0x9a, 0x51, 0x33, 0x10, 0x5c, 0x7e, 0x0b, 0xa1}};
DRIVER_INITIALIZE DriverEntry;

#define RD(D, O) READ_REGISTER_ULONG((PULONG)((D)->Regs + (O)))
#define WR(D, O, V) WRITE_REGISTER_ULONG((PULONG)((D)->Regs + (O)), (V))

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Of a request that holds the remove lock. */
static NTSTATUS Leave(DUET *Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

/* ---- the list of calls ---- */

static ULONG SourceOf(PIRP Irp)
{
    return 1u << *(PULONG)Irp->AssociatedIrp.SystemBuffer;
}

static NTSTATUS NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID)
{
    DUET *Dev = CONTAINING_RECORD(Csq, DUET, Csq);

    if (Dev->Gate & DEAD)
        return STATUS_DELETE_PENDING;
    InsertTailList(&Dev->Calls, &Irp->Tail.Overlay.ListEntry);
    if (Dev->Gate == 0)
        WR(Dev, REG_RAISE, SourceOf(Irp));
    return STATUS_SUCCESS;
}

static VOID NTAPI CsqRemove(PIO_CSQ, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    DUET *Dev = CONTAINING_RECORD(Csq, DUET, Csq);
    PLIST_ENTRY Entry = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : Dev->Calls.Flink;
    WHICH *Which = Context;

    for (; Entry != &Dev->Calls; Entry = Entry->Flink) {
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if ((Which->File == NULL || Which->File == IoGetCurrentIrpStackLocation(Irp)->FileObject) && (SourceOf(Irp) & Which->Sources))
            return Irp;
    }
    return NULL;
}

static VOID NTAPI CsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, DUET, Csq)->Lock, Irql);
}

static VOID NTAPI CsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, DUET, Csq)->Lock, Irql);
}

static VOID NTAPI CsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    Leave(CONTAINING_RECORD(Csq, DUET, Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID End(DUET *Dev, PFILE_OBJECT File, ULONG Sources, NTSTATUS Status)
{
    WHICH Which = {File, Sources};
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&Dev->Csq, &Which)) != NULL)
        Leave(Dev, Irp, Status, 0);
}

static VOID Purge(DUET *Dev, PFILE_OBJECT File, NTSTATUS Status)
{
    End(Dev, File, ALL_SOURCES, Status);
}

/* ---- interrupts ---- */

static BOOLEAN NTAPI Isr(PKINTERRUPT, PVOID Context)
{
    DUET *Dev = Context;
    ULONG Status;

    if (!Dev->Listening || (Status = RD(Dev, REG_STATUS)) == 0xFFFFFFFF || (Status &= ALL_SOURCES) == 0)
        return FALSE;
    WR(Dev, REG_STATUS, Status);
    RD(Dev, REG_ID); /* so that the write has arrived */
#ifdef FIXED
    InterlockedOr(&Dev->Seen, Status);
    KeInsertQueueDpc(&Dev->Dpc, NULL, NULL);
#else
    KeInsertQueueDpc(&Dev->Dpc, (PVOID)(ULONG_PTR)Status, NULL);
#endif
    return TRUE;
}

static VOID NTAPI Served(PKDPC, PVOID Context, PVOID Sources, PVOID)
{
    DUET *Dev = Context;

    End(Dev, NULL, (ULONG)(ULONG_PTR)Sources | (ULONG)InterlockedExchange(&Dev->Seen, 0), STATUS_SUCCESS);
}

static VOID Listen(DUET *Dev, BOOLEAN On, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(Dev->Interrupt);

    Dev->Listening = On;
    if (Touch) {
        WR(Dev, REG_ENABLE, On ? ALL_SOURCES : 0);
        WR(Dev, REG_STATUS, 0xFFFFFFFF);
        RD(Dev, REG_ID);
    }
    KeReleaseInterruptSpinLock(Dev->Interrupt, Irql);
}

static VOID Close(DUET *Dev, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Dev->Lock, &Irql);
    Dev->Gate |= Why;
    KeReleaseSpinLock(&Dev->Lock, Irql);
}

/* What has waited is raised, perhaps once more. */
static VOID Open(DUET *Dev, ULONG Why)
{
    PLIST_ENTRY Entry;
    ULONG Sources = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&Dev->Lock, &Irql);
    Dev->Gate &= ~Why;
    for (Entry = Dev->Calls.Flink; Entry != &Dev->Calls; Entry = Entry->Flink)
        Sources |= SourceOf(CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry));
    if (Dev->Gate == 0 && Sources != 0)
        WR(Dev, REG_RAISE, Sources);
    KeReleaseSpinLock(&Dev->Lock, Irql);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DUET *Dev = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_DUET_CALL)
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || *(PULONG)Irp->AssociatedIrp.SystemBuffer >= SOURCES)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    Status = IoAcquireRemoveLock(&Dev->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    Status = IoCsqInsertIrpEx(&Dev->Csq, Irp, NULL, NULL);
    return NT_SUCCESS(Status) ? STATUS_PENDING : Leave(Dev, Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MajorFunction == IRP_MJ_CLEANUP)
        Purge(Device->DeviceExtension, Stack->FileObject, STATUS_CANCELLED);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* ---- the hardware, Plug and Play, power ---- */

static VOID LetGo(DUET *Dev, BOOLEAN Present)
{
    if (Dev->Interrupt != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED, .ConnectionContext.InterruptObject = Dev->Interrupt};

        Listen(Dev, FALSE, Present && !(Dev->Gate & ASLEEP));
        IoDisconnectInterruptEx(&P);
        Dev->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (Dev->Regs != NULL)
        MmUnmapIoSpace(Dev->Regs, Dev->Length);
    Dev->Regs = NULL;
}

static NTSTATUS StartCard(DUET *Dev, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List = Resources != NULL ? &Resources->List[0].PartialResourceList : NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED};
    NTSTATUS Status;

    for (ULONG i = 0; List != NULL && i < List->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR R = &List->PartialDescriptors[i];

        if (R->Type == CmResourceTypeMemory && Dev->Regs == NULL && R->u.Memory.Length >= 0x100) {
            Dev->Length = R->u.Memory.Length;
            Dev->Regs = MmMapIoSpace(R->u.Memory.Start, Dev->Length, MmNonCached);
        }
    }
    if (Dev->Regs == NULL || RD(Dev, REG_ID) != 0x636E6542) {
        LetGo(Dev, FALSE);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    WR(Dev, REG_ENABLE, 0);
    RD(Dev, REG_ID);
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

static NTSTATUS SendAndWait(DUET *Dev, PIRP Irp)
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
    DUET *Dev = Device->DeviceExtension;
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
    DUET *Dev = Context;
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
    DUET *Dev = Device->DeviceExtension;
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
    return IoCallDriver(((DUET *)Device->DeviceExtension)->Lower, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(DUET), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    DUET *Dev;

    if (!NT_SUCCESS(Status))
        return Status;
    Dev = Device->DeviceExtension;
    Dev->Pdo = Pdo;
    Dev->Gate = STOPPED;
    IoInitializeRemoveLock(&Dev->RemoveLock, POOL_TAG, 0, 0);
    KeInitializeSpinLock(&Dev->Lock);
    KeInitializeDpc(&Dev->Dpc, Served, Dev);
    InitializeListHead(&Dev->Calls);
    IoCsqInitializeEx(&Dev->Csq, CsqInsert, CsqRemove, CsqPeek, CsqLock, CsqUnlock, CsqCancelled);
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
