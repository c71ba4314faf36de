/*
 * NAME.sys: a function driver for the PCI card VVVV:DDDD. Its device is \\.\NAME.
 *
 * The card has registers of 32 bits in BAR0. They are those of NAME.sheet: put your data sheet's here and there.
 * It does no power management.
 */
#include <ntddk.h>

#define ENABLE 0x04      /* causes that may interrupt */
#define STATUS 0x08      /* causes that are set */
#define ACKNOWLEDGE 0x0C /* a one clears its cause */
#define DATA 0x10

/* 0x226000: reads DATA. 0x226004: waits for an interrupt and tells its causes; can be cancelled. Both have a ULONG of output. */
#define IOCTL_READ_DATA CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_WAIT_INTERRUPT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _CARD {
    PDEVICE_OBJECT Self, Pdo, Lower;
    PUCHAR Registers; /* NULL while the device is not started */
    ULONG Length;
    PKINTERRUPT Interrupt;
    volatile LONG Causes;      /* that no request has returned */
    PIRP Waiting;              /* or NULL */
    KSPIN_LOCK Lock;           /* of Waiting, and of Registers for all but the service routine */
    IO_REMOVE_LOCK RemoveLock; /* held by each request that is under way */
} CARD, *PCARD;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\NAME");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\NAME");

DRIVER_INITIALIZE DriverEntry;
static DRIVER_ADD_DEVICE AddDevice;
static DRIVER_UNLOAD DriverUnload;
static DRIVER_DISPATCH DispatchOpen, DispatchControl, DispatchPnp, DispatchPower, DispatchSystemControl;
static DRIVER_CANCEL CancelWait;
static KSERVICE_ROUTINE ServiceRoutine;
static IO_DPC_ROUTINE DpcForIsr;

static ULONG Read(PCARD Card, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Card->Registers + Offset));
}

static VOID Write(PCARD Card, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Card->Registers + Offset), Value);
}

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Ends a request that holds the remove lock. */
static NTSTATUS End(PCARD Card, PIRP Irp, NTSTATUS Status, ULONG Value)
{
    if (NT_SUCCESS(Status)) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Value;
    }
    Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(Value) : 0);
    IoReleaseRemoveLock(&Card->RemoveLock, Irp);
    return Status;
}

static BOOLEAN NTAPI ServiceRoutine(PKINTERRUPT Interrupt, PVOID Context)
{
    PCARD Card = Context;
    ULONG Causes = Read(Card, STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (Causes == 0 || Causes == 0xFFFFFFFF) {
        return FALSE; /* another device's, or the card is gone */
    }
    Write(Card, ACKNOWLEDGE, Causes);
    InterlockedOr(&Card->Causes, (LONG)Causes);
    IoRequestDpc(Card->Self, NULL, NULL);
    return TRUE;
}

/* Takes the waiting request, if it is not being cancelled. The lock is held. */
static PIRP TakeWaiting(PCARD Card)
{
    PIRP Irp = Card->Waiting;

    if (Irp == NULL || IoSetCancelRoutine(Irp, NULL) == NULL) {
        return NULL;
    }
    Card->Waiting = NULL;
    return Irp;
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Ignored, PVOID Context)
{
    PCARD Card = Device->DeviceExtension;
    ULONG Causes = 0;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Ignored);
    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLockAtDpcLevel(&Card->Lock);
    Irp = TakeWaiting(Card);
    if (Irp != NULL) {
        Causes = (ULONG)InterlockedExchange(&Card->Causes, 0);
    }
    KeReleaseSpinLockFromDpcLevel(&Card->Lock);
    if (Irp != NULL) {
        End(Card, Irp, STATUS_SUCCESS, Causes);
    }
}

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;
    KIRQL Old;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Card->Lock, &Old);
    Card->Waiting = NULL;
    KeReleaseSpinLock(&Card->Lock, Old);
    End(Card, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PCARD Card, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    ULONG Causes = 0;
    KIRQL Old;

    KeAcquireSpinLock(&Card->Lock, &Old);
    if (Card->Registers == NULL) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if (Card->Waiting != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else if ((Causes = (ULONG)InterlockedExchange(&Card->Causes, 0)) != 0) {
        Status = STATUS_SUCCESS;
    } else {
        IoSetCancelRoutine(Irp, CancelWait);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Card->Waiting = Irp;
        }
    }
    KeReleaseSpinLock(&Card->Lock, Old);
    return Status == STATUS_PENDING ? Status : End(Card, Irp, Status, Causes);
}

static NTSTATUS ReadData(PCARD Card, PIRP Irp)
{
    NTSTATUS Status = STATUS_DEVICE_NOT_READY;
    ULONG Value = 0;
    KIRQL Old;

    KeAcquireSpinLock(&Card->Lock, &Old);
    if (Card->Registers != NULL) {
        Value = Read(Card, DATA);
        Status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&Card->Lock, Old);
    return End(Card, Irp, Status, Value);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Card->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        return End(Card, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_READ_DATA:
        return ReadData(Card, Irp);
    case IOCTL_WAIT_INTERRUPT:
        return Wait(Card, Irp);
    default:
        return End(Card, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* Takes the card into use: maps its registers, connects its interrupt, lets it interrupt. */
static NTSTATUS Start(PCARD Card, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List = &Resources->List[0].PartialResourceList;
    IO_CONNECT_INTERRUPT_PARAMETERS Connection = {.Version = CONNECT_LINE_BASED};
    NTSTATUS Status;
    ULONG Index;

    for (Index = 0; Index < List->Count && Card->Registers == NULL; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = &List->PartialDescriptors[Index];

        if (Own->Type == CmResourceTypeMemory) {
            Card->Length = Own->u.Memory.Length;
            Card->Registers = MmMapIoSpace(Own->u.Memory.Start, Card->Length, MmNonCached);
        }
    }
    if (Card->Registers == NULL) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Connection.LineBased.PhysicalDeviceObject = Card->Pdo;
    Connection.LineBased.InterruptObject = &Card->Interrupt;
    Connection.LineBased.ServiceRoutine = ServiceRoutine;
    Connection.LineBased.ServiceContext = Card;
    Status = IoConnectInterruptEx(&Connection);
    if (NT_SUCCESS(Status)) {
        Write(Card, ENABLE, 0xFFFFFFFF);
    } else {
        Card->Interrupt = NULL;
    }
    return Status;
}

/* Lets go of what Start took, and ends the waiting request. The card is quiet then, if it is Present. */
static VOID Stop(PCARD Card, BOOLEAN Present)
{
    PUCHAR Registers = Card->Registers;
    PIRP Irp;
    KIRQL Old;

    if (Registers == NULL) {
        return;
    }
    if (Present) {
        Write(Card, ENABLE, 0);
    }
    if (Card->Interrupt != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS Connection = {.Version = CONNECT_LINE_BASED};

        Connection.ConnectionContext.InterruptObject = Card->Interrupt;
        IoDisconnectInterruptEx(&Connection);
        Card->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    KeAcquireSpinLock(&Card->Lock, &Old);
    Card->Registers = NULL;
    Irp = TakeWaiting(Card);
    KeReleaseSpinLock(&Card->Lock, Old);
    MmUnmapIoSpace(Registers, Card->Length);
    if (Irp != NULL) {
        End(Card, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
}

static NTSTATUS NTAPI SignalEvent(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* The drivers below start the device first. */
static NTSTATUS StartDevice(PCARD Card, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    NTSTATUS Status;
    KEVENT Done;

    Stop(Card, TRUE); /* it may be started again, elsewhere, without a stop */
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SignalEvent, &Done, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Card->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    if (NT_SUCCESS(Status)) {
        Status = Resources == NULL ? STATUS_DEVICE_CONFIGURATION_ERROR : Start(Card, Resources);
        if (!NT_SUCCESS(Status)) {
            Stop(Card, TRUE);
        }
    }
    Complete(Irp, Status, 0);
    IoReleaseRemoveLock(&Card->RemoveLock, Irp);
    return Status;
}

static NTSTATUS RemoveDevice(PCARD Card, PIRP Irp)
{
    PDEVICE_OBJECT Lower = Card->Lower;
    NTSTATUS Status;

    Stop(Card, TRUE);
    IoReleaseRemoveLockAndWait(&Card->RemoveLock, Irp);
    IoDeleteSymbolicLink(&LinkName);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Lower, Irp);
    IoDetachDevice(Lower);
    IoDeleteDevice(Card->Self);
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Card->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return StartDevice(Card, Irp);
    case IRP_MN_REMOVE_DEVICE:
        return RemoveDevice(Card, Irp);
    case IRP_MN_STOP_DEVICE:
        Stop(Card, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        Stop(Card, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Card->Lower, Irp);
    IoReleaseRemoveLock(&Card->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;

    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(Card->Lower, Irp);
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCARD Card = Device->DeviceExtension;

    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Card->Lower, Irp);
}

static NTSTATUS NTAPI DispatchOpen(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    PCARD Card;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(CARD), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Card = Device->DeviceExtension;
    Card->Self = Device;
    Card->Pdo = Pdo;
    KeInitializeSpinLock(&Card->Lock);
    IoInitializeRemoveLock(&Card->RemoveLock, 'ksaT', 0, 0);
    IoInitializeDpcRequest(Device, DpcForIsr);
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (NT_SUCCESS(Status)) {
        Card->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
        if (Card->Lower == NULL) {
            IoDeleteSymbolicLink(&LinkName);
            Status = STATUS_NO_SUCH_DEVICE;
        }
    }
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOpen;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchOpen;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOpen;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}
