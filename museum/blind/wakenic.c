/*
 * The wake-up side of a network card: a program gives a pattern and arms the wake-up (a wait/wake request is then
 * outstanding), disarms it, and asks how often the card has woken the machine.
 *
 * The bug: when the wait/wake request completes, the pointer to it that disarming uses is looked at but not taken away.
 * Shows by: the wake-up is armed, the card wakes (the wait/wake request completes), and then it is disarmed or removed.
 *
 * Device: PCI\VEN_1DA7&DEV_4E02
 * Rule: not-an-irp, use-after-free
 * Needs: ioctl, power
 */
#include "../include/queue_card.h"

#define IOCTL_WAKE_ARM    CTL_CODE(FILE_DEVICE_NETWORK, 0x8E0, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: WAKE_PATTERN */
#define IOCTL_WAKE_DISARM CTL_CODE(FILE_DEVICE_NETWORK, 0x8E1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WAKE_STATUS CTL_CODE(FILE_DEVICE_NETWORK, 0x8E2, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: WAKE_REPORT */

#define NIC_CTRL    0x00
#define CTRL_RX     0x01
#define NIC_LINK    0x04
#define NIC_MASK    0x08
#define NIC_PATTERN 0x10 /* four words */
#define NIC_LENGTH  0x20

static const GUID WakeInterface = {0xaf4411d8, 0x5e05, 0x4c2f, {0x90, 0x7d, 0x19, 0x3c, 0x82, 0x55, 0xe0, 0x5b}};

typedef struct _WAKE_PATTERN {
    ULONG Mask;
    ULONG Words[4];
} WAKE_PATTERN;

typedef struct _WAKE_REPORT {
    ULONG Armed;
    ULONG Wakes;
    NTSTATUS LastStatus;
    ULONG Link;
} WAKE_REPORT;

typedef struct _EXTENSION {
    CARD Card;
    KEVENT Gate;              /* arming and draining, one at a time */
    volatile BOOLEAN Open;    /* set under Gate */
    volatile LONG Armed;      /* from the request to its callback */
    PIRP volatile WakeIrp;    /* the outstanding request: who takes it away (exchanges it for NULL) may use it */
    volatile LONG Shared;     /* who finds 1 here, of Disarm and the completion routine, is the second to let go */
    volatile LONG Wakes;
    volatile LONG LastStatus;
} EXTENSION;

static PIRP TakeWakeIrp(EXTENSION *Ext)
{
    return InterlockedExchangePointer((PVOID volatile *)&Ext->WakeIrp, NULL);
}

static VOID EnterGate(EXTENSION *Ext)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Ext->Gate, Executive, KernelMode, FALSE, NULL);
}

static VOID LeaveGate(EXTENSION *Ext)
{
    KeSetEvent(&Ext->Gate, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

/* The wait/wake request comes up the stack. */
static NTSTATUS NTAPI WakeDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = Context;
    PIRP mine;

    UNREFERENCED_PARAMETER(Device);
#ifdef FIXED
    mine = TakeWakeIrp(ext);
#else
    mine = ext->WakeIrp;
#endif
    if (mine == NULL && InterlockedExchange(&ext->Shared, 1) == 0) {
        return STATUS_MORE_PROCESSING_REQUIRED; /* Disarm is about to cancel it, and completes it then */
    }
    IoReleaseRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* The request that Arm made is over; the remove lock was taken for it. */
static VOID NTAPI WakeOver(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    EXTENSION *ext = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    if (NT_SUCCESS(IoStatus->Status)) {
        InterlockedIncrement(&ext->Wakes);
    }
    InterlockedExchange(&ext->LastStatus, IoStatus->Status);
    InterlockedExchange(&ext->Armed, 0);
    IoReleaseRemoveLock(&ext->Card.Kit.RemoveLock, (PVOID)&ext->Armed);
}

/* Gate held, PASSIVE_LEVEL. */
static NTSTATUS Arm(EXTENSION *Ext, const WAKE_PATTERN *Pattern)
{
    POWER_STATE power;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    if (!Ext->Open) {
        return STATUS_DEVICE_NOT_READY;
    }
    status = IoAcquireRemoveLock(&Ext->Card.Kit.RemoveLock, (PVOID)&Ext->Armed);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    if (InterlockedExchange(&Ext->Armed, 1) != 0) {
        IoReleaseRemoveLock(&Ext->Card.Kit.RemoveLock, (PVOID)&Ext->Armed);
        return STATUS_DEVICE_BUSY;
    }
    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    if (Ext->Card.Awake) {
        CardWrite(&Ext->Card, NIC_MASK, Pattern->Mask);
        for (i = 0; i < 4; i++) {
            CardWrite(&Ext->Card, NIC_PATTERN + 4 * i, Pattern->Words[i]);
        }
    }
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
    power.SystemState = Ext->Card.Kit.SystemWake == PowerSystemUnspecified ? PowerSystemWorking : Ext->Card.Kit.SystemWake;
    status = PoRequestPowerIrp(Ext->Card.Kit.Pdo, IRP_MN_WAIT_WAKE, power, WakeOver, Ext, NULL);
    if (status != STATUS_PENDING) {
        InterlockedExchange(&Ext->Armed, 0);
        IoReleaseRemoveLock(&Ext->Card.Kit.RemoveLock, (PVOID)&Ext->Armed);
        return NT_SUCCESS(status) ? STATUS_UNSUCCESSFUL : status;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Disarm(EXTENSION *Ext)
{
    PIRP irp = TakeWakeIrp(Ext);

    if (irp == NULL) {
        return STATUS_NOT_FOUND;
    }
    IoCancelIrp(irp);
    if (InterlockedExchange(&Ext->Shared, 1) != 0) {
        /* The completion routine has been there and has left it to us. */
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&Ext->Card.Kit.RemoveLock, irp);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status;

    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_WAIT_WAKE || !ext->Armed) {
        return KitPower(Device, Irp);
    }
    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, WakeDone, ext, TRUE, TRUE, TRUE);
    InterlockedExchange(&ext->Shared, 0);
    InterlockedExchangePointer((PVOID volatile *)&ext->WakeIrp, Irp);
    PoCallDriver(ext->Card.Kit.Lower, Irp);
    if (!ext->Open) {
        (void)Disarm(ext); /* Drain came before there was a request to take */
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    WAKE_REPORT *report = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WAKE_ARM:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(WAKE_PATTERN)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        EnterGate(ext);
        status = Arm(ext, Irp->AssociatedIrp.SystemBuffer);
        LeaveGate(ext);
        break;
    case IOCTL_WAKE_DISARM:
        EnterGate(ext);
        status = Disarm(ext);
        LeaveGate(ext);
        break;
    case IOCTL_WAKE_STATUS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*report)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        report->Armed = (ULONG)ext->Armed;
        report->Wakes = (ULONG)ext->Wakes;
        report->LastStatus = ext->LastStatus;
        report->Link = 0;
        KeAcquireSpinLock(&ext->Card.Lock, &irql);
        if (ext->Card.Awake) {
            report->Link = CardRead(&ext->Card, NIC_LINK);
        }
        KeReleaseSpinLock(&ext->Card.Lock, irql);
        information = sizeof(*report);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitFinish(&ext->Card.Kit, Irp, status, information);
}

static VOID NTAPI NoDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
}

static VOID TurnOn(CARD *Card)
{
    CardWrite(Card, NIC_CTRL, CTRL_RX);
}

static VOID TurnOff(CARD *Card)
{
    CardWrite(Card, NIC_CTRL, 0);
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = CardStart(&ext->Card, Translated, NIC_LENGTH);

    if (NT_SUCCESS(status)) {
        EnterGate(ext);
        ext->Open = TRUE;
        LeaveGate(ext);
    }
    return status;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    EnterGate(ext);
    ext->Open = FALSE;
    (void)Disarm(ext);
    LeaveGate(ext);
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    CardStop(Device->DeviceExtension, Present);
}

static VOID Down(PDEVICE_OBJECT Device)
{
    CardDown(Device->DeviceExtension);
}

static VOID Up(PDEVICE_OBJECT Device)
{
    CardUp(Device->DeviceExtension);
}

static const KIT_OPS Ops = {Start, Drain, Stop, Down, Up};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &WakeInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Card.TurnOn = TurnOn;
    ext->Card.TurnOff = TurnOff;
    KeInitializeEvent(&ext->Gate, SynchronizationEvent, TRUE);
    status = CardInit(&ext->Card, NoDpc);
    if (!NT_SUCCESS(status)) {
        return KitUndo(device, status);
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitDriver(Driver, AddDevice, Control, TRUE);
    Driver->MajorFunction[IRP_MJ_POWER] = Power;
    return STATUS_SUCCESS;
}
