/*
 * A pulse generator with I/O ports: a request sends one pulse of a given width and returns the length that the card has
 * measured. A watchdog ends the request if the card's interrupt does not come.
 *
 * The bug: interrupt DPC and watchdog DPC look at the request and take it away in two steps, without a lock.
 * Shows by: the interrupt comes when the watchdog runs out, and both DPCs run at once on two processors.
 *
 * Device: PCI\VEN_1DA7&DEV_5003
 * Rule: use-after-free, double-completion
 * Needs: ioctl, schedule, device
 */
#include "../include/queue_card.h"

#define IOCTL_PULSE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG width; out: ULONG length */
#define IOCTL_WATCHDOG CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG milliseconds */

#define PULSE_CTRL   0x00
#define CTRL_GO      0x01 /* stays until software takes it away, which ends the interrupt */
#define CTRL_IE      0x02
#define PULSE_STATUS 0x04
#define STATUS_BUSY  0x01
#define PULSE_WIDTH  0x08
#define PULSE_LENGTH 0x0C
#define PORTS_LENGTH 0x10

static const GUID PulseInterface = {0xc27d90b4, 0x6f18, 0x4e3a, {0x8b, 0x95, 0x44, 0x0e, 0xd2, 0x6a, 0x13, 0x70}};

typedef struct _EXTENSION {
    CARD Card;
    KTIMER Timer;
    KDPC TimerDpc;
    ULONG Milliseconds;
    /* Under Card.Lock: */
    BOOLEAN Open;
    PIRP volatile Active;
    ULONGLONG Due;     /* when the watchdog of Active runs out */
} EXTENSION;

/* Card.Lock held, the card awake. */
static VOID Submit(EXTENSION *Ext)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * Ext->Milliseconds;
    Ext->Due = KeQueryInterruptTime() + 10000ULL * Ext->Milliseconds;
    CardWrite(&Ext->Card, PULSE_WIDTH, *(PULONG)Ext->Active->AssociatedIrp.SystemBuffer);
    CardWrite(&Ext->Card, PULSE_CTRL, CTRL_GO | CTRL_IE);
    KeSetTimer(&Ext->Timer, due, &Ext->TimerDpc);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    EXTENSION *ext = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!ext->Card.IntOn || (CardRead(&ext->Card, PULSE_CTRL) & CTRL_GO) == 0 || (CardRead(&ext->Card, PULSE_STATUS) & STATUS_BUSY) != 0) {
        return FALSE; /* a card that has gone reads as busy */
    }
    CardWrite(&ext->Card, PULSE_CTRL, 0);
    KeInsertQueueDpc(&ext->Card.Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI StopPulse(PVOID Context)
{
    CardWrite(Context, PULSE_CTRL, 0);
    return TRUE;
}

/* Has the card ended the pulse of the active request? Reads its length. Card.Lock held. */
static BOOLEAN Ended(EXTENSION *Ext, PULONG Length)
{
    if (!Ext->Card.Awake || (CardRead(&Ext->Card, PULSE_CTRL) & CTRL_GO) != 0) {
        return FALSE;
    }
    *Length = CardRead(&Ext->Card, PULSE_LENGTH);
    return TRUE;
}

/* The watchdog of the active request has run out (and not that of one before it). Card.Lock held. */
static BOOLEAN RunOut(EXTENSION *Ext)
{
    return (BOOLEAN)(Ext->Card.Awake && KeQueryInterruptTime() >= Ext->Due);
}

static VOID NTAPI Dpc(PKDPC D, PVOID Context, PVOID A1, PVOID A2)
{
    EXTENSION *ext = Context;
    BOOLEAN ended;
    ULONG length = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    irp = ext->Active;
    ended = (BOOLEAN)(irp != NULL && Ended(ext, &length));
    if (ended) {
        ext->Active = NULL;
        KeCancelTimer(&ext->Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (!ended) {
        return;
    }
#else
    irp = ext->Active;
    if (irp == NULL) {
        return;
    }
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    ended = Ended(ext, &length);
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (!ended) {
        return;
    }
    KeCancelTimer(&ext->Timer);
    ext->Active = NULL;
#endif
    *(PULONG)irp->AssociatedIrp.SystemBuffer = length;
    KitFinish(&ext->Card.Kit, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI Watchdog(PKDPC D, PVOID Context, PVOID A1, PVOID A2)
{
    EXTENSION *ext = Context;
    BOOLEAN out;
    PIRP irp;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    irp = ext->Active;
    out = (BOOLEAN)(irp != NULL && RunOut(ext));
    if (out) {
        ext->Active = NULL;
        KeSynchronizeExecution(ext->Card.Interrupt, StopPulse, &ext->Card);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (!out) {
        return;
    }
#else
    irp = ext->Active;
    if (irp == NULL) {
        return;
    }
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    out = RunOut(ext);
    if (out) {
        KeSynchronizeExecution(ext->Card.Interrupt, StopPulse, &ext->Card);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (!out) {
        return;
    }
    ext->Active = NULL;
#endif
    KitFinish(&ext->Card.Kit, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID TurnOn(CARD *Card)
{
    CardWrite(Card, PULSE_CTRL, 0);
}

static VOID TurnOff(CARD *Card)
{
    CardWrite(Card, PULSE_CTRL, 0);
}

static VOID Resume(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;

    if (ext->Active != NULL) {
        Submit(ext); /* the pulse is sent again */
    }
}

static NTSTATUS Pulse(EXTENSION *Ext, PIRP Irp)
{
    NTSTATUS status = STATUS_PENDING;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    if (!Ext->Open || !Ext->Card.Awake) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (Ext->Active != NULL) {
        status = STATUS_DEVICE_BUSY;
    } else {
        IoMarkIrpPending(Irp);
        Ext->Active = Irp;
        Submit(Ext);
    }
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
    if (status != STATUS_PENDING) {
        KitFinish(&Ext->Card.Kit, Irp, status, 0);
    }
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PULSE:
        if (in < sizeof(ULONG) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        return Pulse(ext, Irp);
    case IOCTL_WATCHDOG:
        if (in < sizeof(ULONG) || *buffer == 0 || *buffer > 10000) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&ext->Card.Lock, &irql);
        ext->Milliseconds = *buffer;
        KeReleaseSpinLock(&ext->Card.Lock, irql);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitFinish(&ext->Card.Kit, Irp, status, 0);
}

static VOID SetOpen(EXTENSION *Ext, BOOLEAN Open)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    Ext->Open = Open;
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = CardStart(&ext->Card, Translated, PORTS_LENGTH);

    if (NT_SUCCESS(status)) {
        SetOpen(ext, TRUE);
    }
    return status;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Card.Lock, &irql);
    ext->Open = FALSE;
    irp = ext->Active;
    ext->Active = NULL;
    KeCancelTimer(&ext->Timer);
    KeReleaseSpinLock(&ext->Card.Lock, irql);
    if (irp != NULL) {
        KitFinish(&ext->Card.Kit, irp, STATUS_DELETE_PENDING, 0);
    }
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    CardStop(Device->DeviceExtension, Present);
}

static VOID Down(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardDown(&ext->Card);
    KeCancelTimer(&ext->Timer);
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

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &PulseInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Card.UsePorts = TRUE;
    ext->Card.Isr = Isr;
    ext->Card.TurnOn = TurnOn;
    ext->Card.TurnOff = TurnOff;
    ext->Card.Resume = Resume;
    ext->Milliseconds = 2000;
    KeInitializeTimer(&ext->Timer);
    KeInitializeDpc(&ext->TimerDpc, Watchdog, ext);
    status = CardInit(&ext->Card, Dpc);
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
    return STATUS_SUCCESS;
}
