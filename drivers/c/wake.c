/*
 * wake.sys: a driver whose device wakes itself and the system (`--device pci,id=abcd:0002,bar0=mem:128,irq,pm=wake3+wakeoff`); its device is
 * \\.\Wake. When the card has asserted PME#, the device goes back to D0. With FORGETS_WAIT a device that goes leaves its wait/wake request where it
 * is, which is a mistake. BAR0 has one register that matters:
 *   04 ENABLE   what the driver writes when the card starts, and again whenever it has its power back
 *
 * Pages: Wait/Wake IRP Requests, Handling Wait/Wake IRPs, REQUEST_POWER_COMPLETE callback function.
 */
#include <ddk/wdm.h>
#include "control.h"
#include "function.h"

/* Input: a ULONG, the SYSTEM_POWER_STATE down to which the device shall wake the system. Sends IRP_MN_WAIT_WAKE. */
#define IOCTL_WAKE_ARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Cancels it. */
#define IOCTL_WAKE_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a ULONG, the DEVICE_POWER_STATE that the driver asks for. */
#define IOCTL_WAKE_GO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: a WAKE_STATE. */
#define IOCTL_WAKE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* From now on the driver keeps requests that set a device state, and never completes them. */
#define IOCTL_WAKE_KEEP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: SystemWake, DeviceWake, whether DeviceD1 and DeviceD2, and WakeFromD0-D3 as bits. */
#define IOCTL_WAKE_CAPABILITIES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Output: a ULONG, whether the last wait/wake request that ended has waked the system. */
#define IOCTL_WAKE_WOKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* From now on the driver marks each wait/wake request that comes back as one that has waked the system. */
#define IOCTL_WAKE_MARK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x80F, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _WAKE_STATE {
    ULONG Ended;  /* 00 wait/wake requests that have ended */
    ULONG Status; /* 04 of the last one */
    ULONG Ups;    /* 08 times that the card got its power back */
    ULONG Enable; /* 0C what ENABLE reads */
} WAKE_STATE;

#define WAKE_ENABLE 0x04

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    KSPIN_LOCK Lock; /* of Armed and Waits */
    PIRP Armed;      /* the wait/wake request on its way, which a routine that cancels it takes */
    KEVENT Back;     /* it has come back to the routine that took it */
    ULONG Waits;     /* requests that were asked for and have not ended */
    ULONG Disarming; /* who waits until there are none: one that comes meanwhile ends at once */
    KEVENT Disarmed; /* set while there are none */
    BOOLEAN Woke;    /* the system, by the last of them */
    BOOLEAN Marks;   /* each as that */
    BOOLEAN Keeps;   /* the driver is wrong: it completes no request that sets a state */
    WAKE_STATE State;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

/* A request is asked for, or has ended. */
static VOID CountWaits(PDEVICE_EXTENSION Extension, LONG More)
{
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    Extension->Waits += More;
    if (Extension->Waits == 0) {
        KeSetEvent(&Extension->Disarmed, IO_NO_INCREMENT, FALSE);
    } else {
        KeClearEvent(&Extension->Disarmed);
    }
    KeReleaseSpinLock(&Extension->Lock, Old);
}

/* The wait has ended: by a wake signal, or otherwise. The routine gets the physical device object, so the context says whose it is. */
static VOID NTAPI WaitEnded(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PDEVICE_EXTENSION Extension = Context;
    POWER_STATE Working;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
#ifdef FORGETS_WAIT
    DbgPrint("the wait ended with %x\n", Block->Status);
    return; /* the extension may be gone */
#endif
    Extension->State.Ended++;
    Extension->State.Status = Block->Status;
    if (NT_SUCCESS(Block->Status)) {
        Working.DeviceState = PowerDeviceD0;
        PoRequestPowerIrp(Extension->Function.Pdo, IRP_MN_SET_POWER, Working, NULL, NULL, NULL);
    }
    CountWaits(Extension, -1);
}

/* The request comes back up: to the routine that cancels it, so that it is there as long as IoCancelIrp needs it, or it ends. */
static NTSTATUS NTAPI WaitIsBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    BOOLEAN Taken;
    KIRQL Old;

    UNREFERENCED_PARAMETER(Device);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    Taken = Extension->Armed != Irp;
    if (Extension->Marks) {
        PoSetSystemWake(Irp);
    }
    Extension->Woke = PoGetSystemWake(Irp);
    Extension->Armed = NULL;
    KeReleaseSpinLock(&Extension->Lock, Old);
    if (Taken) {
        KeSetEvent(&Extension->Back, IO_NO_INCREMENT, FALSE);
        return STATUS_MORE_PROCESSING_REQUIRED;
    }
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchWakePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL Old;

    if (Extension->Keeps && IoGetCurrentIrpStackLocation(Irp)->MinorFunction == IRP_MN_SET_POWER) {
        IoMarkIrpPending(Irp);
        return STATUS_PENDING;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_WAIT_WAKE) {
        return DispatchPower(Device, Irp);
    }
    PoStartNextPowerIrp(Irp);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    if (Extension->Disarming != 0) {
        KeReleaseSpinLock(&Extension->Lock, Old);
        return Complete(Irp, STATUS_CANCELLED, 0);
    }
    if (Extension->Armed != NULL) {
        KeReleaseSpinLock(&Extension->Lock, Old);
#ifdef FORGETS_WAIT
        IoSkipCurrentIrpStackLocation(Irp); /* the bus driver refuses a second one */
        return PoCallDriver(Extension->Function.Lower, Irp);
#else
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
#endif
    }
    Extension->Armed = Irp;
    KeReleaseSpinLock(&Extension->Lock, Old);
    IoMarkIrpPending(Irp); /* a routine that cancels it meanwhile completes it, perhaps later */
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, WaitIsBack, Extension, TRUE, TRUE, TRUE);
    PoCallDriver(Extension->Function.Lower, Irp);
    return STATUS_PENDING;
}

static NTSTATUS Arm(PDEVICE_EXTENSION Extension, ULONG State)
{
    POWER_STATE Deepest;
    NTSTATUS Status;

    Deepest.SystemState = State;
    CountWaits(Extension, 1);
    Status = PoRequestPowerIrp(Extension->Function.Pdo, IRP_MN_WAIT_WAKE, Deepest, WaitEnded, Extension, NULL);
    if (Status != STATUS_PENDING) {
        CountWaits(Extension, -1);
        return Status;
    }
    return STATUS_SUCCESS;
}

/* Ends the wait, if there is one; returns when none is left. */
static VOID Disarm(PDEVICE_EXTENSION Extension)
{
    PIRP Irp;
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    Irp = Extension->Armed;
    Extension->Armed = NULL;
    Extension->Disarming++;
    KeReleaseSpinLock(&Extension->Lock, Old);
    if (Irp != NULL) {
        IoCancelIrp(Irp);
        KeWaitForSingleObject(&Extension->Back, Executive, KernelMode, FALSE, NULL);
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
    }
    KeWaitForSingleObject(&Extension->Disarmed, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    Extension->Disarming--;
    KeReleaseSpinLock(&Extension->Lock, Old);
}

static NTSTATUS Capabilities(PDEVICE_EXTENSION Extension, PULONG Out)
{
    DEVICE_CAPABILITIES Caps;
    IO_STATUS_BLOCK Block;
    NTSTATUS Status;
    KEVENT Done;
    PIRP Irp;

    RtlZeroMemory(&Caps, sizeof(Caps));
    Caps.Size = sizeof(Caps);
    Caps.Version = 1;
    Caps.Address = (ULONG)-1;
    Caps.UINumber = (ULONG)-1;
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Extension->Function.Lower, NULL, 0, NULL, &Done, &Block);
    if (Irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    IoGetNextIrpStackLocation(Irp)->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    IoGetNextIrpStackLocation(Irp)->Parameters.DeviceCapabilities.Capabilities = &Caps;
    Status = IoCallDriver(Extension->Function.Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
    Out[0] = Caps.SystemWake;
    Out[1] = Caps.DeviceWake;
    Out[2] = Caps.DeviceD1;
    Out[3] = Caps.DeviceD2;
    Out[4] = Caps.WakeFromD0 | Caps.WakeFromD1 << 1 | Caps.WakeFromD2 << 2 | Caps.WakeFromD3 << 3;
    return Status;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength >= sizeof(ULONG) ? *Buffer : 0;
    POWER_STATE Wanted;
    NTSTATUS Status;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WAKE_ARM:
        return Complete(Irp, Arm(Extension, Input), 0);
    case IOCTL_WAKE_DISARM:
        Disarm(Extension);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_WAKE_KEEP:
        Extension->Keeps = TRUE;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_WAKE_MARK:
        Extension->Marks = TRUE;
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_WAKE_WOKE:
        if (Output < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *Buffer = Extension->Woke;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_WAKE_GO:
        Wanted.DeviceState = Input;
        Status = PoRequestPowerIrp(Extension->Function.Pdo, IRP_MN_SET_POWER, Wanted, NULL, NULL, NULL);
        return Complete(Irp, Status == STATUS_PENDING ? STATUS_SUCCESS : Status, 0);
    case IOCTL_WAKE_STATE:
        if (Output < sizeof(WAKE_STATE)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Extension->State.Enable = Read(&Extension->Function, WAKE_ENABLE);
        *(WAKE_STATE *)Buffer = Extension->State;
        return Complete(Irp, STATUS_SUCCESS, sizeof(WAKE_STATE));
    case IOCTL_WAKE_CAPABILITIES:
        if (Output < 5 * sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Status = Capabilities(Extension, Buffer);
        return Complete(Irp, Status, NT_SUCCESS(Status) ? 5 * sizeof(ULONG) : 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeInitializeSpinLock(&Extension->Lock);
    KeInitializeEvent(&Extension->Disarmed, NotificationEvent, TRUE);
    KeInitializeEvent(&Extension->Back, SynchronizationEvent, FALSE);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Write(&Extension->Function, WAKE_ENABLE, 1);
    return Connect(&Extension->Function);
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Write(&Extension->Function, WAKE_ENABLE, On);
    Extension->State.Ups += On;
}

/* A device that stops does not wake the system. */
static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

#ifndef FORGETS_WAIT
    Disarm(Extension);
#endif
    if (Present) {
        Write(&Extension->Function, WAKE_ENABLE, 0);
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
    return FALSE; /* it has none */
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\Wake");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Wake");

    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDevice = Device;
    FunctionLink = Link;
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchWakePower;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
