/*
 * carousel.sys: hands the bench card's interrupts to applications in the order in which they came. The DPC puts each into a ring of eight;
 * IOCTL_CAROUSEL_NEXT (out: a ULONG, the sources) takes the oldest, or waits for the next one. IOCTL_CAROUSEL_RAISE (in: a ULONG mask) raises
 * sources. If no thread asks in time the newest are merged.
 *
 * The bug: the indexes of the ring are bit fields of four bits (eight places, and which time round), and their difference is an int: when the head has
 * gone round to 0 and the tail has not yet, it is negative, not small. Then the ring counts as empty though there is something in it, and who waits is
 * not woken, by this interrupt or those that follow.
 * It shows with the sixteenth interrupt after the driver was loaded.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-forgotten
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include <ddk/csq.h>

#define IOCTL_CAROUSEL_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CAROUSEL_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_ID 0x00 /* "Benc" */
#define REG_RAISE 0x08
#define REG_STATUS 0x0C /* a one written clears its bit */
#define REG_ENABLE 0x14
#define ALL_SOURCES 0xFF
#define PLACES 8 /* of the ring */

/* Why the card is not touched. */
#define BLOCKED_STOPPED 1
#define BLOCKED_ASLEEP 2
#define BLOCKED_GONE 4
#define POOL_TAG 'oraC'

typedef struct _RING {
    ULONG Sources[PLACES];
    struct {
        ULONG Head : 4; /* goes round twice as far as there are places, so that full is not empty */
        ULONG Tail : 4;
    } At;
} RING;

typedef struct _CAROUSEL {
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
    ULONG Blocked;
    LIST_ENTRY Riders;
    RING Ring;
    BOOLEAN Matching, Again;
} CAROUSEL;

static const GUID InterfaceGuid = {0x6f0a4b1e, 0x0d6e, 0x4f0e, {0x9a, 0x51, 0x33, 0x10, 0x5c, 0x7e, 0x0e, 0xa1}};
DRIVER_INITIALIZE DriverEntry;

#define RD(D, O) READ_REGISTER_ULONG((PULONG)((D)->Regs + (O)))
#define WR(D, O, V) WRITE_REGISTER_ULONG((PULONG)((D)->Regs + (O)), (V))

static NTSTATUS CompleteIrp(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Of a request that holds the remove lock. */
static NTSTATUS CompleteAndRelease(CAROUSEL *Ride, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    CompleteIrp(Irp, Status, Information);
    IoReleaseRemoveLock(&Ride->RemoveLock, Irp);
    return Status;
}

/* ---- the ring, with the lock ---- */

static int Filled(RING *Ring)
{
#ifdef FIXED
    return (Ring->At.Head - Ring->At.Tail) & (2 * PLACES - 1);
#else
    return Ring->At.Head - Ring->At.Tail;
#endif
}

static VOID Put(RING *Ring, ULONG Sources)
{
    if (Filled(Ring) >= PLACES) {
        Ring->Sources[(Ring->At.Head + PLACES - 1) % PLACES] |= Sources;
        return;
    }
    Ring->Sources[Ring->At.Head % PLACES] = Sources;
    Ring->At.Head++;
}

static VOID Take(RING *Ring, PULONG Sources)
{
    *Sources = Ring->Sources[Ring->At.Tail % PLACES];
    Ring->At.Tail++;
}

/* ---- those that wait ---- */

static NTSTATUS NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID)
{
    CAROUSEL *Ride = CONTAINING_RECORD(Csq, CAROUSEL, Csq);

    if (Ride->Blocked & BLOCKED_GONE)
        return STATUS_DELETE_PENDING;
    InsertTailList(&Ride->Riders, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI CsqRemove(PIO_CSQ, PIRP Irp)
{
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* The next to be served (the ring), if it can be; those of a file, or (NULL) all. */
static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    CAROUSEL *Ride = CONTAINING_RECORD(Csq, CAROUSEL, Csq);
    PLIST_ENTRY Entry = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : Ride->Riders.Flink;

    if (File == &Ride->Ring && (Ride->Blocked != 0 || Filled(&Ride->Ring) <= 0))
        return NULL;
    for (; Entry != &Ride->Riders; Entry = Entry->Flink) {
        Irp = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || File == &Ride->Ring || File == IoGetCurrentIrpStackLocation(Irp)->FileObject)
            return Irp;
    }
    return NULL;
}

static VOID NTAPI CsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, CAROUSEL, Csq)->Lock, Irql);
}

static VOID NTAPI CsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, CAROUSEL, Csq)->Lock, Irql);
}

static VOID NTAPI CsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    CompleteAndRelease(CONTAINING_RECORD(Csq, CAROUSEL, Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID Purge(CAROUSEL *Ride, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&Ride->Csq, File)) != NULL)
        CompleteAndRelease(Ride, Irp, Status, 0);
}

/* Brings together who waits and what is there; one at a time. While the card sleeps or is stopped none is served. */
static VOID Match(CAROUSEL *Ride)
{
    BOOLEAN Mine;
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&Ride->Lock, &Irql);
    Mine = !Ride->Matching;
    Ride->Matching = TRUE;
    Ride->Again = !Mine;
    KeReleaseSpinLock(&Ride->Lock, Irql);
    while (Mine) {
        while ((Irp = IoCsqRemoveNextIrp(&Ride->Csq, &Ride->Ring)) != NULL) {
            KeAcquireSpinLock(&Ride->Lock, &Irql);
            Take(&Ride->Ring, Irp->AssociatedIrp.SystemBuffer); /* there is one: no other routine takes */
            KeReleaseSpinLock(&Ride->Lock, Irql);
            CompleteAndRelease(Ride, Irp, STATUS_SUCCESS, sizeof(ULONG));
        }
        KeAcquireSpinLock(&Ride->Lock, &Irql);
        Mine = Ride->Matching = Ride->Again; /* a thread came meanwhile */
        Ride->Again = FALSE;
        KeReleaseSpinLock(&Ride->Lock, Irql);
    }
}

static VOID NTAPI Came(PKDPC, PVOID Context, PVOID, PVOID)
{
    CAROUSEL *Ride = Context;
    ULONG Seen = InterlockedExchange(&Ride->Seen, 0);

    if (Seen == 0)
        return;
    KeAcquireSpinLockAtDpcLevel(&Ride->Lock);
    Put(&Ride->Ring, Seen);
    KeReleaseSpinLockFromDpcLevel(&Ride->Lock);
    Match(Ride);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT, PVOID Context)
{
    CAROUSEL *Ride = Context;
    ULONG Status;

    if (!Ride->Listening || (Status = RD(Ride, REG_STATUS)) == 0xFFFFFFFF || (Status &= ALL_SOURCES) == 0)
        return FALSE;
    WR(Ride, REG_STATUS, Status);
    RD(Ride, REG_ID); /* so that the write has arrived */
    InterlockedOr(&Ride->Seen, Status);
    KeInsertQueueDpc(&Ride->Dpc, NULL, NULL);
    return TRUE;
}

static VOID CardListen(CAROUSEL *Ride, BOOLEAN On, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(Ride->Interrupt);

    Ride->Listening = On;
    if (Touch) {
        WR(Ride, REG_ENABLE, On ? ALL_SOURCES : 0);
        RD(Ride, REG_ID);
    }
    KeReleaseInterruptSpinLock(Ride->Interrupt, Irql);
}

static VOID Block(CAROUSEL *Ride, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Ride->Lock, &Irql);
    Ride->Blocked |= Why;
    KeReleaseSpinLock(&Ride->Lock, Irql);
}

static VOID Unblock(CAROUSEL *Ride, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Ride->Lock, &Irql);
    Ride->Blocked &= ~Why;
    KeReleaseSpinLock(&Ride->Lock, Irql);
    Match(Ride);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    CAROUSEL *Ride = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG Mask = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = IoAcquireRemoveLock(&Ride->RemoveLock, Irp);
    KIRQL Irql;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CAROUSEL_NEXT:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return CompleteAndRelease(Ride, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = IoAcquireRemoveLock(&Ride->RemoveLock, Device); /* for what follows the insertion */
        if (!NT_SUCCESS(Status))
            return CompleteAndRelease(Ride, Irp, Status, 0);
        Status = IoCsqInsertIrpEx(&Ride->Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(Status)) {
            Match(Ride);
            Status = STATUS_PENDING;
        } else
            CompleteAndRelease(Ride, Irp, Status, 0);
        IoReleaseRemoveLock(&Ride->RemoveLock, Device);
        return Status;
    case IOCTL_CAROUSEL_RAISE:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || (*Mask & ALL_SOURCES) == 0 || (*Mask & ~ALL_SOURCES) != 0)
            return CompleteAndRelease(Ride, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&Ride->Lock, &Irql);
        if (Ride->Blocked == 0)
            WR(Ride, REG_RAISE, *Mask);
        else
            Status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&Ride->Lock, Irql);
        return CompleteAndRelease(Ride, Irp, Status, 0);
    }
    return CompleteAndRelease(Ride, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);

    if (Sp->MajorFunction == IRP_MJ_CLEANUP)
        Purge(Device->DeviceExtension, Sp->FileObject, STATUS_CANCELLED);
    return CompleteIrp(Irp, STATUS_SUCCESS, 0);
}

/* ---- the hardware, Plug and Play, power ---- */

static VOID CardDown(CAROUSEL *Ride, BOOLEAN Present)
{
    if (Ride->Interrupt != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED, .ConnectionContext.InterruptObject = Ride->Interrupt};

        CardListen(Ride, FALSE, Present && !(Ride->Blocked & BLOCKED_ASLEEP));
        IoDisconnectInterruptEx(&P);
        Ride->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (Ride->Regs != NULL)
        MmUnmapIoSpace(Ride->Regs, Ride->Length);
    Ride->Regs = NULL;
}

static NTSTATUS CardUp(CAROUSEL *Ride, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List = Resources != NULL ? &Resources->List[0].PartialResourceList : NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED};
    NTSTATUS Status;

    for (ULONG i = 0; List != NULL && i < List->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR R = &List->PartialDescriptors[i];

        if (R->Type == CmResourceTypeMemory && Ride->Regs == NULL && R->u.Memory.Length >= 0x100) {
            Ride->Length = R->u.Memory.Length;
            Ride->Regs = MmMapIoSpace(R->u.Memory.Start, Ride->Length, MmNonCached);
        }
    }
    if (Ride->Regs == NULL || RD(Ride, REG_ID) != 0x636E6542) {
        CardDown(Ride, FALSE);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    WR(Ride, REG_ENABLE, 0);
    RD(Ride, REG_ID);
    P.LineBased.PhysicalDeviceObject = Ride->Pdo;
    P.LineBased.InterruptObject = &Ride->Interrupt;
    P.LineBased.ServiceRoutine = Isr;
    P.LineBased.ServiceContext = Ride;
    Status = IoConnectInterruptEx(&P);
    if (!NT_SUCCESS(Status))
        Ride->Interrupt = NULL;
    else {
        CardListen(Ride, TRUE, TRUE);
        Status = IoSetDeviceInterfaceState(&Ride->Interface, TRUE);
    }
    if (NT_SUCCESS(Status))
        Unblock(Ride, BLOCKED_STOPPED | BLOCKED_ASLEEP);
    else
        CardDown(Ride, TRUE);
    return Status;
}

static NTSTATUS NTAPI ForwardDone(PDEVICE_OBJECT, PIRP, PVOID Event)
{
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS ForwardSync(CAROUSEL *Ride, PIRP Irp)
{
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, ForwardDone, &Event, TRUE, TRUE, TRUE);
    IoCallDriver(Ride->Lower, Irp);
    KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    CAROUSEL *Ride = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Ride->RemoveLock, Irp);
    UCHAR Minor = Sp->MinorFunction;

    if (!NT_SUCCESS(Status))
        return CompleteIrp(Irp, Status, 0);
    switch (Minor) {
    case IRP_MN_START_DEVICE:
        Status = ForwardSync(Ride, Irp);
        if (NT_SUCCESS(Status))
            Status = CardUp(Ride, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        return CompleteAndRelease(Ride, Irp, Status, 0);
    case IRP_MN_CANCEL_STOP_DEVICE:
        ForwardSync(Ride, Irp);
        if (Ride->Regs != NULL)
            Unblock(Ride, BLOCKED_STOPPED);
        return CompleteAndRelease(Ride, Irp, STATUS_SUCCESS, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        Block(Ride, BLOCKED_STOPPED);
        if (Minor == IRP_MN_STOP_DEVICE)
            CardDown(Ride, TRUE);
        break;
    case IRP_MN_SURPRISE_REMOVAL:
    case IRP_MN_REMOVE_DEVICE:
        Block(Ride, BLOCKED_GONE);
        CardDown(Ride, Minor == IRP_MN_REMOVE_DEVICE);
        Purge(Ride, NULL, STATUS_DELETE_PENDING);
        IoSetDeviceInterfaceState(&Ride->Interface, FALSE);
        if (Minor == IRP_MN_SURPRISE_REMOVAL)
            break;
        IoReleaseRemoveLockAndWait(&Ride->RemoveLock, Irp);
        KeFlushQueuedDpcs();
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Ride->Lower, Irp);
        IoDetachDevice(Ride->Lower);
        RtlFreeUnicodeString(&Ride->Interface);
        IoDeleteDevice(Device);
        return Status;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (Sp->Parameters.UsageNotification.InPath)
            return CompleteAndRelease(Ride, Irp, STATUS_UNSUCCESSFUL, 0);
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
    Status = IoCallDriver(Ride->Lower, Irp);
    IoReleaseRemoveLock(&Ride->RemoveLock, Irp);
    return Status;
}

static VOID NTAPI DeviceIrpDone(PDEVICE_OBJECT, UCHAR, POWER_STATE, PVOID Irp, PIO_STATUS_BLOCK Block)
{
    PoStartNextPowerIrp(Irp);
    CompleteAndRelease(IoGetCurrentIrpStackLocation((PIRP)Irp)->DeviceObject->DeviceExtension, Irp, Block->Status, 0);
}

/* A system state that the drivers below have seen, or D0. */
static NTSTATUS NTAPI PowerCompletion(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    CAROUSEL *Ride = Context;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);

    if (NT_SUCCESS(Irp->IoStatus.Status) && Sp->Parameters.Power.Type == SystemPowerState) {
        BOOLEAN Works = Sp->Parameters.Power.State.SystemState == PowerSystemWorking;
        POWER_STATE State = {.DeviceState = Works ? PowerDeviceD0 : PowerDeviceD3};
        NTSTATUS Status = PoRequestPowerIrp(Ride->Pdo, Sp->MinorFunction, State, DeviceIrpDone, Irp, NULL);

        if (Status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    } else if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(Device, DevicePowerState, Sp->Parameters.Power.State);
        if (Ride->Interrupt != NULL)
            CardListen(Ride, TRUE, TRUE);
        Unblock(Ride, BLOCKED_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Ride->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    CAROUSEL *Ride = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Sets = Sp->MinorFunction == IRP_MN_SET_POWER, Asks = Sp->MinorFunction == IRP_MN_QUERY_POWER;
    NTSTATUS Status = IoAcquireRemoveLock(&Ride->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return CompleteIrp(Irp, Status, 0);
    }
    if (((Sets || Asks) && Sp->Parameters.Power.Type == SystemPowerState) ||
        (Sets && Sp->Parameters.Power.State.DeviceState == PowerDeviceD0)) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, PowerCompletion, Ride, TRUE, TRUE, TRUE);
        PoCallDriver(Ride->Lower, Irp);
        return STATUS_PENDING;
    }
    if (Sets && !(Ride->Blocked & BLOCKED_ASLEEP)) {
        PoSetPowerState(Device, DevicePowerState, Sp->Parameters.Power.State);
        Block(Ride, BLOCKED_ASLEEP);
        if (Ride->Interrupt != NULL) {
            CardListen(Ride, FALSE, TRUE);
            KeFlushQueuedDpcs();
        }
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Ride->Lower, Irp);
    IoReleaseRemoveLock(&Ride->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(((CAROUSEL *)Device->DeviceExtension)->Lower, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(CAROUSEL), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    CAROUSEL *Ride;

    if (!NT_SUCCESS(Status))
        return Status;
    Ride = Device->DeviceExtension;
    Ride->Pdo = Pdo;
    Ride->Blocked = BLOCKED_STOPPED;
    IoInitializeRemoveLock(&Ride->RemoveLock, POOL_TAG, 0, 0);
    KeInitializeSpinLock(&Ride->Lock);
    KeInitializeDpc(&Ride->Dpc, Came, Ride);
    InitializeListHead(&Ride->Riders);
    IoCsqInitializeEx(&Ride->Csq, CsqInsert, CsqRemove, CsqPeek, CsqLock, CsqUnlock, CsqCancelled);
    Status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &Ride->Interface);
    if (NT_SUCCESS(Status)) {
        if ((Ride->Lower = IoAttachDeviceToDeviceStack(Device, Pdo)) != NULL) {
            Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
            Device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&Ride->Interface);
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
