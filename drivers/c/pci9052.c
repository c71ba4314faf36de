/*
 * pci9052_c.sys: what pci9052.sys is in Rust, in C: the function driver of cards with a PLX PCI 9050/9052 that have 64 KiB of local memory and
 * a peripheral which raises LINTi1 when it has ended an operation. Names, control codes, settings, WMI blocks and entries of the event log
 * are those of pci9052.sys, so that one suite of stories is held against both (crates/dirql/tests/twins.rs).
 *
 * Reads and writes can be cancelled at any time and wait while the device is stopped or without power. Settings: StopTimeout in the service's
 * Parameters (ms that a stop waits for the transfer under way; 1000) and UsePorts in the device's hardware key (1: registers by BAR1 and BAR3).
 */
#include <ddk/wdm.h>
#include "pci9052/control.h"
#include "pci9052/reports.h"

#define INIT_CODE __attribute__((section("INIT")))

DRIVER_INITIALIZE DriverEntry;

static const GUID InterfaceGuid = {0x5D624F94, 0x8850, 0x40C3, {0xA3, 0xFA, 0xA4, 0xFD, 0x20, 0x80, 0xBA, 0xF3}};
static LONG CardCount;
static ULONG StopTimeout = 1000; /* milliseconds */

static VOID CompleteCancelled(PIRP Irp)
{
    End(IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension, Irp, STATUS_CANCELLED, 0);
}

/* ---- requests ----------------------------------------------------------------------------------------------------- */

/* A handle may be closed at any time; all else needs a device that is not being removed. */
static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        BOOLEAN Closes = Stack->MajorFunction == IRP_MJ_CLEANUP || Stack->MajorFunction == IRP_MJ_CLOSE;

        return Complete(Irp, Closes ? STATUS_SUCCESS : Status, 0);
    }
    switch (Stack->MajorFunction) {
    case IRP_MJ_READ:
    case IRP_MJ_WRITE:
        return DispatchTransfer(Extension, Irp);
    case IRP_MJ_DEVICE_CONTROL:
        return DispatchControl(Extension, Irp);
    case IRP_MJ_CLEANUP: {
        PQUEUE Queues[] = {&Extension->Waiting, &Extension->Waiters, &Extension->InFlight};
        ULONG Index;
        PIRP Waiting;

        for (Index = 0; Index < RTL_NUMBER_OF(Queues); Index++) {
            while ((Waiting = Pop(Queues[Index], Stack->FileObject)) != NULL) {
                End(Extension, Waiting, STATUS_CANCELLED, 0);
            }
        }
        break;
    }
    }
    return End(Extension, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    SYSCTL_IRP_DISPOSITION Disposition;
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    Status = WmiSystemControl(&Library, Device, Irp, &Disposition);
    if (Disposition == IrpNotCompleted) {
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    } else if (Disposition != IrpProcessed) {
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Extension->Lower, Irp);
    }
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* ---- Plug and Play ------------------------------------------------------------------------------------------------ */

static NTSTATUS NTAPI SignalAndStop(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends the request down and returns its status when the drivers below are done; it is then ours again. */
static NTSTATUS ForwardAndWait(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    KEVENT Done;
    NTSTATUS Status;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SignalAndStop, &Done, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Extension->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    return Status;
}

static NTSTATUS Forward(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Extension->Lower, Irp);
}

/* Waits for the transfer under way, as long as a stop may. */
static BOOLEAN IsIdle(PDEVICE_EXTENSION Extension, CAUSE Cause)
{
    ULONG Milliseconds = (ULONG)Extension->StopTimeout;
    LARGE_INTEGER Due = {.QuadPart = -10000LL * Milliseconds};

    if (KeWaitForSingleObject(&Extension->Idle, Executive, KernelMode, FALSE, &Due) == STATUS_SUCCESS) {
        return TRUE;
    }
    ReportTimeOut(Extension, Milliseconds, Cause);
    return FALSE;
}

/* Gives up the hardware, if it is there. */
static VOID StopCard(PDEVICE_EXTENSION Extension, WHY Why)
{
    SetBar(Extension, Why == ForRebalance ? BarPaused : BarClosed, TRUE);
    if (LetGo(Extension, Why != ForSurprise)) {
        DbgPrint(Why == ForSurprise ? "pci9052: the card is gone\n" : "pci9052: stopped\n");
    }
    Abandon(Extension);
    Settle(Extension);
    if (Why != ForRebalance) {
        IoSetDeviceInterfaceState(&Extension->Interface, FALSE);
    }
}

static NTSTATUS StartCard(PDEVICE_EXTENSION Extension, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS Status = TakeHardware(Extension, Translated);
    KIRQL OldIrql;

    if (!NT_SUCCESS(Status)) {
        Log(Extension, IO_ERR_CONFIGURATION_ERROR, 2, Status, NULL, 0);
        return Status;
    }
    KeAcquireSpinLock(&Extension->Gate, &OldIrql);
    Extension->Closed = Extension->Paused = Extension->Asleep = FALSE;
    KeReleaseSpinLock(&Extension->Gate, OldIrql);
    Status = IoSetDeviceInterfaceState(&Extension->Interface, TRUE);
    if (!NT_SUCCESS(Status)) {
        StopCard(Extension, ForRemoval);
        return Status;
    }
    Extension->Phase = Started;
    RegisterProvider(Extension);
    Settle(Extension);
    return STATUS_SUCCESS;
}

static VOID EnterPhase(PDEVICE_EXTENSION Extension, PHASE Phase)
{
    Extension->PhaseBefore = Extension->Phase;
    Extension->Phase = Phase;
}

static VOID ResumeCard(PDEVICE_EXTENSION Extension)
{
    SetBar(Extension, BarPaused, FALSE);
    Settle(Extension);
}

/* May the device be stopped, or removed? */
static NTSTATUS Query(PDEVICE_EXTENSION Extension, PIRP Irp, PHASE Phase)
{
    if (Extension->Phase == Started) {
        SetBar(Extension, BarPaused, TRUE);
        if (!IsIdle(Extension, CauseStop)) {
            ResumeCard(Extension);
            return Complete(Irp, STATUS_DEVICE_BUSY, 0);
        }
    }
    EnterPhase(Extension, Phase);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return Forward(Extension, Irp);
}

/* It was only a question. The drivers below go on first. */
static NTSTATUS CancelQuery(PDEVICE_EXTENSION Extension, PIRP Irp, PHASE Phase)
{
    NTSTATUS Status;

    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (Extension->Phase != Phase) {
        return Forward(Extension, Irp);
    }
    Status = ForwardAndWait(Extension, Irp);
    Extension->Phase = Extension->PhaseBefore;
    if (Extension->Phase == Started) {
        ResumeCard(Extension);
    }
    return Complete(Irp, Status, 0);
}

static NTSTATUS OnRemove(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PDEVICE_OBJECT Device = Extension->Self;
    NTSTATUS Status;

    DeregisterProvider(Extension);
    if (Extension->Phase != SurpriseRemoved) {
        StopCard(Extension, ForRemoval);
    }
    IoReleaseRemoveLockAndWait(&Extension->RemoveLock, Irp);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = Forward(Extension, Irp);
    IoDeleteSymbolicLink(&Extension->Link);
    RtlFreeUnicodeString(&Extension->Interface);
    IoDetachDevice(Extension->Lower);
    IoDeleteDevice(Device);
    return Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (Stack->MinorFunction) {
    case IRP_MN_REMOVE_DEVICE:
        return OnRemove(Extension, Irp); /* releases the lock itself */
    case IRP_MN_START_DEVICE:
        Status = ForwardAndWait(Extension, Irp);
        if (NT_SUCCESS(Status)) {
            Status = StartCard(Extension, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        }
        Complete(Irp, Status, 0);
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
        Status = Query(Extension, Irp, StopPending);
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
        Status = Query(Extension, Irp, RemovePending);
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        Status = CancelQuery(Extension, Irp, StopPending);
        break;
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Status = CancelQuery(Extension, Irp, RemovePending);
        break;
    case IRP_MN_STOP_DEVICE:
        EnterPhase(Extension, Stopped);
        StopCard(Extension, ForRebalance);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = Forward(Extension, Irp);
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        EnterPhase(Extension, SurpriseRemoved);
        DeregisterProvider(Extension);
        StopCard(Extension, ForSurprise);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = Forward(Extension, Irp);
        break;
    default:
        Status = Forward(Extension, Irp);
        break;
    }
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* ---- power -------------------------------------------------------------------------------------------------------- */

/* A power request has ended that was kept: so does its hold of the remove lock. */
#define POWER_DONE(Irp) PowerDone(Irp)
static VOID PowerDone(PIRP Irp)
{
    PDEVICE_EXTENSION Extension = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
}
#include "power_policy.h"

/* The card has its power again, and has loaded its registers from its EEPROM: what the driver wrote is lost. */
static NTSTATUS NTAPI DeviceIsUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE State = {.DeviceState = PowerDeviceD0};

        PoSetPowerState(Extension->Self, DevicePowerState, State);
        if (Extension->Asleep) { /* else requests are under way; only power requests, which come one at a time, change it */
            if (Enter(Extension)) {
                ClearStatus(Extension);
                Wake(Extension);
                Leave(Extension);
            }
            SetBar(Extension, BarAsleep, FALSE);
            Settle(Extension);
        }
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* The card is about to lose its registers. */
static VOID GoDown(PDEVICE_EXTENSION Extension)
{
    SetBar(Extension, BarAsleep, TRUE);
    if (Enter(Extension)) {
        if (!IsIdle(Extension, CausePowerDown)) {
            Abandon(Extension);
        }
        KeCancelTimer(&Extension->PollTimer);
        KeFlushQueuedDpcs();
        /* Behind the owner of CNTRL: a word of the EEPROM is programmed whole. */
        KeWaitForSingleObject(&Extension->Cntrl, Executive, KernelMode, FALSE, NULL);
        Quiet(Extension);
        KeSetEvent(&Extension->Cntrl, IO_NO_INCREMENT, FALSE);
        Leave(Extension);
    }
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp); /* does nothing since Vista; needed before */
        return Complete(Irp, Status, 0);
    }
    switch (PowerAsked(Irp)) {
    case SystemPower:
        return PowerBelow(Extension->Lower, Irp, SystemBelowDone, Extension->Pdo);
    case DeviceUp:
        return PowerBelow(Extension->Lower, Irp, DeviceIsUp, Extension);
    case DeviceDown:
        if (!Extension->Asleep) {
            GoDown(Extension);
        }
        PoSetPowerState(Device, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        break;
    case OtherPower:
        break;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Extension->Lower, Irp);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* ---- adding a device, load and unload ------------------------------------------------------------------------------ */

/* A REG_DWORD of the device's hardware key (an INF's AddReg in its .HW section); 0 if there is none. */
static ULONG ReadHardwareSetting(PDEVICE_OBJECT Pdo, PCWSTR Name)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING ValueName;
    ULONG Setting = 0;
    ULONG Length;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key))) {
        return 0;
    }
    RtlInitUnicodeString(&ValueName, Name);
    if (NT_SUCCESS(ZwQueryValueKey(Key, &ValueName, KeyValuePartialInformation, Value, sizeof(Buffer), &Length)) &&
        Value->Type == REG_DWORD && Value->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&Setting, Value->Data, sizeof(Setting));
    }
    ZwClose(Key);
    return Setting;
}

/* A name that ends with a number. */
static VOID MakeName(PUNICODE_STRING Name, PWCHAR Buffer, PCWSTR Begin, ULONG Number)
{
    WCHAR Digits[10];
    ULONG Length = 0, Count = 0;

    while (Begin[Length] != 0) {
        Buffer[Length] = Begin[Length];
        Length++;
    }
    do {
        Digits[Count++] = (WCHAR)(L'0' + Number % 10);
        Number /= 10;
    } while (Number != 0);
    while (Count > 0) {
        Buffer[Length++] = Digits[--Count];
    }
    Name->Buffer = Buffer;
    Name->Length = Name->MaximumLength = (USHORT)(Length * sizeof(WCHAR));
}

static VOID InitializeExtension(PDEVICE_OBJECT Device, PDEVICE_OBJECT Pdo)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Extension->Self = Device;
    Extension->Pdo = Pdo;
    Extension->Closed = TRUE; /* until started */
    Extension->StopTimeout = (LONG)StopTimeout;
    Extension->UsePorts = ReadHardwareSetting(Pdo, L"UsePorts");
    KeInitializeSpinLock(&Extension->Gate);
    KeInitializeEvent(&Extension->Idle, NotificationEvent, TRUE);
    KeInitializeEvent(&Extension->Cntrl, SynchronizationEvent, TRUE);
    KeInitializeTimer(&Extension->PollTimer);
    KeInitializeDpc(&Extension->PollDpc, Poll, Extension);
    QueueInitialize(&Extension->Waiting, MAXULONG);
    QueueInitialize(&Extension->InFlight, MAXULONG);
    QueueInitialize(&Extension->Waiters, 1);
    ExInitializeRundownProtection(&Extension->Users);
    ExWaitForRundownProtectionRelease(&Extension->Users); /* closed until the start */
    IoInitializeRemoveLock(&Extension->RemoveLock, PCI9052_TAG, 0, 0);
    IoInitializeDpcRequest(Device, DpcForIsr);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    ULONG Number = (ULONG)InterlockedIncrement(&CardCount) - 1;
    WCHAR NameBuffer[RTL_FIELD_SIZE(DEVICE_EXTENSION, NameBuffer) / sizeof(WCHAR)];
    UNICODE_STRING Name;
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    MakeName(&Name, NameBuffer, L"\\Device\\Pci9052-", Number % 100000);
    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension = Device->DeviceExtension;
    InitializeExtension(Device, Pdo);
    MakeName(&Extension->Link, Extension->LinkBuffer, L"\\DosDevices\\Pci9052-", Number % 100000);
    Status = IoCreateSymbolicLink(&Extension->Link, &Name);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &Extension->Interface);
    if (NT_SUCCESS(Status)) {
        Extension->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
        if (Extension->Lower != NULL) {
            Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
            Device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&Extension->Interface);
        Status = STATUS_NO_SUCH_DEVICE;
    }
    IoDeleteSymbolicLink(&Extension->Link);
    IoDeleteDevice(Device);
    return Status;
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver); /* every device has been removed by now */
    ExFreePoolWithTag(RegistryKey.Buffer, PCI9052_TAG);
    DbgPrint("pci9052: unloaded\n");
}

/* Keeps the service's key, with a zero behind it: a WMI provider has to name it. */
INIT_CODE static NTSTATUS KeepRegistryPath(PUNICODE_STRING Path)
{
    RegistryKey.Buffer = ExAllocatePoolWithTag(PagedPool, Path->Length + sizeof(WCHAR), PCI9052_TAG);
    if (RegistryKey.Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(RegistryKey.Buffer, Path->Buffer, Path->Length);
    RegistryKey.Buffer[Path->Length / sizeof(WCHAR)] = L'\0';
    RegistryKey.Length = Path->Length;
    RegistryKey.MaximumLength = (USHORT)(Path->Length + sizeof(WCHAR));
    return STATUS_SUCCESS;
}

/* Parameters\StopTimeout of the service's key. */
INIT_CODE static VOID ReadStopTimeout(VOID)
{
    RTL_QUERY_REGISTRY_TABLE Table[3];

    RtlZeroMemory(Table, sizeof(Table));
    Table[0].Flags = RTL_QUERY_REGISTRY_SUBKEY;
    Table[0].Name = (PWSTR)L"Parameters";
    Table[1].Flags = RTL_QUERY_REGISTRY_DIRECT;
    Table[1].Name = (PWSTR)L"StopTimeout";
    Table[1].EntryContext = &StopTimeout;
    Table[1].DefaultType = REG_NONE; /* stays as it is if the value is missing */
    RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, RegistryKey.Buffer, Table, NULL, NULL);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = KeepRegistryPath(RegistryPath);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    ReadStopTimeout();
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = Dispatch;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Dispatch;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Dispatch;
    Driver->MajorFunction[IRP_MJ_READ] = Dispatch;
    Driver->MajorFunction[IRP_MJ_WRITE] = Dispatch;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Dispatch;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverUnload = DriverUnload;
    DbgPrint("pci9052: loaded, stop timeout %u ms\n", StopTimeout);
    return STATUS_SUCCESS;
}
