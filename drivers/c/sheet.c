/*
 * sheet.sys: a driver written from a card's data sheet, for a card that no model knows (`--device pci,id=abcd:0001,...`); its device is
 * \\.\Sheet. BAR0 has registers of 32 bits:
 *   00 IDENTIFICATION   5EE7000n: the revision n says how causes of the interrupt are acknowledged:
 *                       1 ones to ACKNOWLEDGE, 2 ones to STATUS, 3 zeros to STATUS, 4 any write to ACKNOWLEDGE, 5 a read of STATUS
 *   04 ENABLE           causes that may interrupt
 *   08 STATUS           causes
 *   0C ACKNOWLEDGE
 *   10 DATA
 * IOCTL_SHEET_WAIT waits for causes, and can be cancelled.
 *
 * Built with -DKEEPS_REGISTERS (sheet_stale.sys) it maps its registers once and goes on with them wherever the card is started; with
 * -DKEEPS_VECTOR (sheet_deaf.sys) it connects to the interrupt of the first start.
 */
#include <ddk/wdm.h>
#include "control.h"
#include "function.h"

/* Output: a SHEET_EVENT. */
#define IOCTL_SHEET_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a ULONG for ENABLE. */
#define IOCTL_SHEET_ENABLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: a SHEET_STATE. */
#define IOCTL_SHEET_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* The driver says that its requirements have changed; with the second that it has failed, too: so it has to be stopped first. */
#define IOCTL_SHEET_CHANGED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SHEET_FAILED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Its eject button was pressed: now, or when its next file is closed (input: a ULONG that is not 0). */
#define IOCTL_SHEET_EJECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SHEET_EVENT {
    ULONG Causes;
    ULONG Data;
} SHEET_EVENT;

typedef struct _SHEET_STATE {
    ULONG Data;       /* 00 what DATA holds */
    ULONG Starts;     /* 04 */
    ULONG Interrupts; /* 08 that were the card's */
    ULONG Vector;     /* 0C */
    ULONGLONG Base;   /* 10 where BAR0 is on the bus */
    ULONG Queries;    /* 18 IRP_MN_QUERY_STOP_DEVICE */
    ULONG Stops;      /* 1C IRP_MN_STOP_DEVICE */
} SHEET_STATE;

#define SHEET_IDENTIFICATION 0x00
#define SHEET_ENABLE 0x04
#define SHEET_STATUS 0x08
#define SHEET_ACKNOWLEDGE 0x0C
#define SHEET_DATA 0x10

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    ULONG Revision;
    volatile LONG Causes; /* that no request has returned */
    KSPIN_LOCK Lock;      /* of Waiting */
    PIRP Waiting;
    BOOLEAN EjectsAtClose;
    ULONG DeviceState; /* what the next IRP_MN_QUERY_PNP_DEVICE_STATE gets */
    SHEET_STATE State;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

/* The card's causes, taken back; 0 if it is not the one that interrupts. */
static ULONG Acknowledge(PDEVICE_EXTENSION Extension)
{
    PFUNCTION Function = &Extension->Function;
    ULONG Causes = Read(Function, SHEET_STATUS);

    if ((Causes & Read(Function, SHEET_ENABLE)) == 0) {
        return 0;
    }
    switch (Extension->Revision) {
    case 1:
    case 4:
        Write(Function, SHEET_ACKNOWLEDGE, Causes);
        break;
    case 2:
        Write(Function, SHEET_STATUS, Causes);
        break;
    case 3:
        Write(Function, SHEET_STATUS, ~Causes);
        break;
    default: /* the read has done it */
        break;
    }
    return Causes;
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Causes = Acknowledge(Extension);

    if (Causes == 0) {
        return FALSE;
    }
    Extension->State.Interrupts++;
    InterlockedOr(&Extension->Causes, (LONG)Causes);
    IoRequestDpc(Device, NULL, NULL);
    return TRUE;
}

static NTSTATUS Tell(PDEVICE_EXTENSION Extension, PIRP Irp, ULONG Causes)
{
    SHEET_EVENT *Event = Irp->AssociatedIrp.SystemBuffer;

    Event->Causes = Causes;
    Event->Data = Read(&Extension->Function, SHEET_DATA);
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Event));
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Ignored, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Causes = 0;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Ignored);
    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
    Irp = Extension->Waiting;
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) != NULL) {
        Extension->Waiting = NULL;
        Causes = (ULONG)InterlockedExchange(&Extension->Causes, 0);
    } else {
        Irp = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
    if (Irp != NULL) {
        Tell(Extension, Irp, Causes);
    }
}

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL Old;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    Extension->Waiting = NULL;
    KeReleaseSpinLock(&Extension->Lock, Old);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Wait(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    NTSTATUS Status = STATUS_PENDING;
    ULONG Causes = 0;
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    if (Extension->Waiting != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else if ((Causes = (ULONG)InterlockedExchange(&Extension->Causes, 0)) != 0) {
        Status = STATUS_SUCCESS;
    } else {
        IoSetCancelRoutine(Irp, CancelWait);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Extension->Waiting = Irp;
        }
    }
    KeReleaseSpinLock(&Extension->Lock, Old);
    if (Status == STATUS_SUCCESS) {
        return Tell(Extension, Irp, Causes);
    }
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SHEET_WAIT:
        if (Output < sizeof(SHEET_EVENT)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Wait(Extension, Irp);
    case IOCTL_SHEET_ENABLE:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Write(&Extension->Function, SHEET_ENABLE, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SHEET_STATE:
        if (Output < sizeof(SHEET_STATE)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Extension->State.Data = Read(&Extension->Function, SHEET_DATA);
        *(SHEET_STATE *)Irp->AssociatedIrp.SystemBuffer = Extension->State;
        return Complete(Irp, STATUS_SUCCESS, sizeof(SHEET_STATE));
    case IOCTL_SHEET_CHANGED:
    case IOCTL_SHEET_FAILED:
        Extension->DeviceState = PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED;
        if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_SHEET_FAILED) {
            Extension->DeviceState |= PNP_DEVICE_FAILED;
        }
        IoInvalidateDeviceState(Extension->Function.Pdo);
        return Complete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SHEET_EJECT:
        Extension->EjectsAtClose = Stack->Parameters.DeviceIoControl.InputBufferLength >= sizeof(ULONG) &&
                                   *(PULONG)Irp->AssociatedIrp.SystemBuffer != 0;
        if (!Extension->EjectsAtClose) {
            IoRequestDeviceEject(Extension->Function.Pdo);
        }
        return Complete(Irp, STATUS_SUCCESS, 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI DispatchSheetClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->EjectsAtClose) {
        Extension->EjectsAtClose = FALSE;
        IoRequestDeviceEject(Extension->Function.Pdo);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeInitializeSpinLock(&Extension->Lock);
    IoInitializeDpcRequest(Device, DpcForIsr);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Identification = Read(&Extension->Function, SHEET_IDENTIFICATION);
    NTSTATUS Status;

    Extension->Revision = Identification & 0xF;
    if ((Identification & ~0xFu) != 0x5EE70000 || Extension->Revision == 0 || Extension->Revision > 5) {
        DbgPrint("sheet: the card says it is %08X\n", Identification);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Extension->State.Starts++;
    Extension->State.Vector = Extension->Function.Line.u.Interrupt.Vector;
    Extension->State.Base = (ULONGLONG)MmGetPhysicalAddress(Extension->Function.Registers).QuadPart;
    Status = Connect(&Extension->Function);
    if (NT_SUCCESS(Status)) {
        Write(&Extension->Function, SHEET_ENABLE, 0xFFFFFFFF);
    }
    return Status;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

#ifdef FORGETS_REGISTERS
    if (On) {
        return; /* a mistake: what the card has lost is its driver's to restore */
    }
#endif
    Write(&Extension->Function, SHEET_ENABLE, On ? 0xFFFFFFFF : 0);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Present) {
        Write(&Extension->Function, SHEET_ENABLE, 0);
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

/* Plug and Play, with counts, and the answer to IRP_MN_QUERY_PNP_DEVICE_STATE. */
static NTSTATUS NTAPI DispatchSheetPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_QUERY_STOP_DEVICE:
        Extension->State.Queries++;
        break;
    case IRP_MN_STOP_DEVICE:
        Extension->State.Stops++;
        break;
    case IRP_MN_QUERY_PNP_DEVICE_STATE:
        Irp->IoStatus.Information |= Extension->DeviceState;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Extension->DeviceState = 0;
        break;
    default:
        break;
    }
    return DispatchPnp(Device, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\Sheet");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Sheet");

    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDevice = Device;
    FunctionLink = Link;
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchSheetPnp;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSheetClose;
    return STATUS_SUCCESS;
}
