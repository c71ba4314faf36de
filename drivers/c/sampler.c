/*
 * sampler.sys: a driver for the card that sampler.sheet describes, for which no model was written
 * (`--device pci,sheet=drivers/c/sampler.sheet`); its device is \\.\Sampler.
 * A read waits until as many samples are there as it asks for: 1 to 64, 32 bits each. The service routine takes the causes of the
 * interrupt back, the DPC empties the card's FIFO.
 * IOCTL_SAMPLER_RUN sets the period and lets the card sample; IOCTL_SAMPLER_MOVE has it move a block of its memory to a page of the
 * driver's, and waits for its end.
 */
#include <ddk/wdm.h>
#include "control.h"
#include "function.h"
#include "bus_master.h"

/* Input: a ULONG, microseconds from one sample to the next, 1 to 255; 0 stops. */
#define IOCTL_SAMPLER_RUN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: as many bytes of the card's memory, from its beginning, as there is room for. */
#define IOCTL_SAMPLER_MOVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SAMPLER_ID 0x000
#define SAMPLER_CONTROL 0x004
#define SAMPLER_STATUS 0x008
#define SAMPLER_ENABLE 0x00C
#define SAMPLER_DATA 0x010
#define SAMPLER_ADDRESS_LOW 0x020
#define SAMPLER_ADDRESS_HIGH 0x024
#define SAMPLER_LENGTH 0x028

#define CONTROL_RUN 0x1u
#define CONTROL_CLEAR 0x2u
#define CONTROL_PERIOD(Microseconds) ((Microseconds) << 8)
#define STATUS_DONE 0x4u
#define STATUS_FAILED 0x8u
#define STATUS_CAUSES 0xFu
#define STATUS_LEVEL(Status) ((Status) >> 16)
#define PULLED 0xFFFFFFFFu /* what a card that is gone reads as */

#define SAMPLER_BLOCK 2048
#define MOST_SAMPLES 64

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    SHARED_PAGE Page;
    volatile LONG Causes;         /* that the DPC has not seen */
    KSPIN_LOCK Lock;              /* of what follows, up to Waiting */
    ULONG Samples[MOST_SAMPLES];  /* from the oldest on */
    ULONG Count;
    PIRP Waiting;                 /* a read that there are not enough samples for */
    KEVENT Idle;                  /* no block is under way */
    KEVENT Moved;
    ULONG Outcome;                /* STATUS_DONE or STATUS_FAILED */
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Status = Read(&Extension->Function, SAMPLER_STATUS);
    ULONG Causes = Status & STATUS_CAUSES;

    if (Causes == 0 || Status == PULLED) {
        return FALSE;
    }
    Write(&Extension->Function, SAMPLER_STATUS, Causes);
    InterlockedOr(&Extension->Causes, (LONG)Causes);
    IoRequestDpc(Device, NULL, NULL);
    return TRUE;
}

/* Takes what is in the card's FIFO; what there is no room for is lost. With the lock held. */
static VOID Drain(PDEVICE_EXTENSION Extension)
{
    ULONG Status;

    while ((Status = Read(&Extension->Function, SAMPLER_STATUS)) != PULLED && STATUS_LEVEL(Status) != 0) {
        ULONG Sample = Read(&Extension->Function, SAMPLER_DATA);

        if (Extension->Count < MOST_SAMPLES) {
            Extension->Samples[Extension->Count++] = Sample;
        }
    }
}

static ULONG Wanted(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG);
}

/* With the lock held, for a read that there are enough samples for. */
static VOID Take(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    ULONG Wants = Wanted(Irp);

    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Extension->Samples, Wants * sizeof(ULONG));
    Extension->Count -= Wants;
    RtlMoveMemory(Extension->Samples, Extension->Samples + Wants, Extension->Count * sizeof(ULONG));
}

/* The read that waits, if it is not being cancelled. With the lock held. */
static PIRP Claim(PDEVICE_EXTENSION Extension)
{
    PIRP Irp = Extension->Waiting;

    if (Irp == NULL || IoSetCancelRoutine(Irp, NULL) == NULL) {
        return NULL;
    }
    Extension->Waiting = NULL;
    return Irp;
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Ignored, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Causes = (ULONG)InterlockedExchange(&Extension->Causes, 0);
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Ignored);
    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
    Drain(Extension);
    if (Extension->Waiting != NULL && Extension->Count >= Wanted(Extension->Waiting)) {
        Irp = Claim(Extension);
    }
    if (Irp != NULL) {
        Take(Extension, Irp);
    }
    KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
    if (Irp != NULL) {
        Complete(Irp, STATUS_SUCCESS, Wanted(Irp) * sizeof(ULONG));
    }
    if ((Causes & (STATUS_DONE | STATUS_FAILED)) != 0) {
        Extension->Outcome = Causes;
        KeSetEvent(&Extension->Moved, IO_NO_INCREMENT, FALSE);
    }
}

static VOID NTAPI CancelRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL Old;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Extension->Lock, &Old);
    if (Extension->Waiting == Irp) {
        Extension->Waiting = NULL;
    }
    KeReleaseSpinLock(&Extension->Lock, Old);
    Complete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Wants = Wanted(Irp);
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Old;

    if (Wants == 0 || Wants > MOST_SAMPLES) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    KeAcquireSpinLock(&Extension->Lock, &Old);
    if (Extension->Function.Registers == NULL) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else if (Extension->Waiting != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else if (Extension->Count >= Wants) {
        Take(Extension, Irp);
    } else {
        IoSetCancelRoutine(Irp, CancelRead);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            Status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            Extension->Waiting = Irp;
            Status = STATUS_PENDING;
        }
    }
    KeReleaseSpinLock(&Extension->Lock, Old);
    if (Status == STATUS_PENDING) {
        return Status;
    }
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Wants * sizeof(ULONG) : 0);
}

static NTSTATUS Run(PDEVICE_EXTENSION Extension, ULONG Period)
{
    ULONG Control = CONTROL_CLEAR;

    if (Extension->Function.Registers == NULL) {
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    if (Period > 255) {
        return STATUS_INVALID_PARAMETER;
    }
    if (Period != 0) {
        Control = CONTROL_RUN | CONTROL_PERIOD(Period);
    }
    Write(&Extension->Function, SAMPLER_CONTROL, Control);
    return STATUS_SUCCESS;
}

/* A block of so many bytes, into the shared page and from there to Buffer. */
static NTSTATUS Move(PDEVICE_EXTENSION Extension, PVOID Buffer, ULONG Length)
{
    PFUNCTION Function = &Extension->Function;
    NTSTATUS Status = STATUS_SUCCESS;
    LARGE_INTEGER Patience;

    Patience.QuadPart = -10000000; /* a second */
    KeWaitForSingleObject(&Extension->Idle, Executive, KernelMode, FALSE, NULL);
    if (Function->Registers == NULL) {
        Status = STATUS_DEVICE_NOT_CONNECTED;
    } else {
        KeClearEvent(&Extension->Moved);
        Write(Function, SAMPLER_ADDRESS_LOW, Extension->Page.Address.LowPart);
        Write(Function, SAMPLER_ADDRESS_HIGH, (ULONG)Extension->Page.Address.HighPart);
        Write(Function, SAMPLER_LENGTH, Length);
        Status = KeWaitForSingleObject(&Extension->Moved, Executive, KernelMode, FALSE, &Patience);
        if (Status == STATUS_TIMEOUT) {
            Status = STATUS_IO_TIMEOUT;
        } else if ((Extension->Outcome & STATUS_FAILED) != 0) {
            Status = STATUS_IO_DEVICE_ERROR;
        } else {
            RtlCopyMemory(Buffer, (PVOID)Extension->Page.Words, Length);
        }
    }
    KeSetEvent(&Extension->Idle, IO_NO_INCREMENT, FALSE);
    return Status;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS Status;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SAMPLER_RUN:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Complete(Irp, Run(Extension, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
    case IOCTL_SAMPLER_MOVE:
        if (Output == 0 || Output > SAMPLER_BLOCK) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        Status = Move(Extension, Irp->AssociatedIrp.SystemBuffer, Output);
        return Complete(Irp, Status, NT_SUCCESS(Status) ? Output : 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    KeInitializeSpinLock(&Extension->Lock);
    KeInitializeEvent(&Extension->Idle, SynchronizationEvent, TRUE);
    KeInitializeEvent(&Extension->Moved, NotificationEvent, FALSE);
    IoInitializeDpcRequest(Device, DpcForIsr);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Identification = Read(&Extension->Function, SAMPLER_ID);
    NTSTATUS Status;

    if (Identification != 0x5A4D0001) {
        DbgPrint("sampler: the card says it is %08X\n", Identification);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Extension->Count = 0;
    Status = MakeSharedPage(&Extension->Function, &Extension->Page);
    if (NT_SUCCESS(Status)) {
        Status = Connect(&Extension->Function);
    }
    if (NT_SUCCESS(Status)) {
        Write(&Extension->Function, SAMPLER_ENABLE, STATUS_CAUSES);
    }
    return Status;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (!On) {
        Write(&Extension->Function, SAMPLER_CONTROL, 0);
    }
    Write(&Extension->Function, SAMPLER_ENABLE, On ? STATUS_CAUSES : 0);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Present) {
        Write(&Extension->Function, SAMPLER_CONTROL, 0);
        Write(&Extension->Function, SAMPLER_ENABLE, 0);
    }
}

/* What waits for the card ends: there will be no more samples. */
static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIRP Irp;
    KIRQL Old;

    KeAcquireSpinLock(&Extension->Lock, &Old);
    Irp = Claim(Extension);
    KeReleaseSpinLock(&Extension->Lock, Old);
    if (Irp != NULL) {
        Complete(Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    FreeSharedPage(&Extension->Page);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\Sampler");
    static UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\Sampler");

    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDevice = Device;
    FunctionLink = Link;
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
