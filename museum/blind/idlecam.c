/*
 * An inspection camera on a card that sleeps when it is not asked for pictures: after a minute it goes to D3, and the
 * next request for a picture wakes it. Its temperature can be asked for at any time.
 *
 * The bug: the temperature is read from the card's register without looking whether the card is in D0.
 * Shows by: IOCTL_CAM_TEMPERATURE after the card has gone to D3 (by idling, or in a sleep of the system).
 *
 * Device: PCI\VEN_1DA7&DEV_4C01
 * Rule: card-without-power
 * Needs: ioctl, power
 */
#include "../include/queue_card.h"

#define IOCTL_CAM_GRAB        CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: ULONG frame */
#define IOCTL_CAM_TEMPERATURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: ULONG */

#define CAM_CTRL        0x00
#define CTRL_GO         0x01 /* stays until software takes it away, which ends the interrupt */
#define CTRL_IE         0x02
#define CAM_STATUS      0x04
#define STATUS_BUSY     0x01
#define CAM_FRAME       0x08
#define CAM_TEMPERATURE 0x0C
#define CAM_LENGTH      0x10

#define IDLE_SECONDS 60

static const GUID CamInterface = {0x61e0a7bd, 0x3c58, 0x4d94, {0xae, 0x01, 0x2b, 0x90, 0x64, 0x1d, 0xf8, 0x33}};

typedef struct _EXTENSION {
    CARD Card;
    PIRP Current;          /* under Card.Lock, as is the next */
    ULONG Temperature;     /* the last one seen */
    PULONG Idle;           /* the idle counter, or NULL */
    volatile LONG Asked;   /* for D0 */
} EXTENSION;

static VOID AskForPower(EXTENSION *Ext);

/* Card.Lock held, the card awake. */
static VOID Submit(EXTENSION *Ext)
{
    CardWrite(&Ext->Card, CAM_CTRL, CTRL_GO | CTRL_IE);
}

static BOOLEAN QueueHasWork(EXTENSION *Ext)
{
    BOOLEAN work;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Card.Queue.Lock, &irql);
    work = (BOOLEAN)!IsListEmpty(&Ext->Card.Queue.List);
    KeReleaseSpinLock(&Ext->Card.Queue.Lock, irql);
    return work;
}

/* Starts the next request, or has the card woken for it. */
static VOID StartNext(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;
    BOOLEAN ask = FALSE;
    KIRQL irql;

    KeAcquireSpinLock(&Card->Lock, &irql);
    if (Card->Awake) {
        if (ext->Current == NULL) {
            ext->Current = IoCsqRemoveNextIrp(&Card->Queue.Csq, NULL);
            if (ext->Current != NULL) {
                Submit(ext);
            }
        }
    } else if (Card->Mapped) {
        ask = (BOOLEAN)(ext->Current != NULL || QueueHasWork(ext));
    }
    KeReleaseSpinLock(&Card->Lock, irql);
    if (ask) {
        AskForPower(ext);
    }
}

static VOID FailAll(EXTENSION *Ext, NTSTATUS Status)
{
    PIRP irp;
    KIRQL irql;

    CardQueueFlush(&Ext->Card.Queue, NULL, Status);
    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    irp = Ext->Current;
    Ext->Current = NULL;
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
    if (irp != NULL) {
        KitFinish(&Ext->Card.Kit, irp, Status, 0);
    }
}

/* The request for D0 is over; the remove lock was taken for it. */
static VOID NTAPI PowerAsked(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    EXTENSION *ext = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    InterlockedExchange(&ext->Asked, 0);
    if (NT_SUCCESS(IoStatus->Status)) {
        StartNext(&ext->Card); /* it may have gone to sleep again */
    } else {
        FailAll(ext, STATUS_DEVICE_POWER_FAILURE);
    }
    IoReleaseRemoveLock(&ext->Card.Kit.RemoveLock, (PVOID)&ext->Asked);
}

static VOID AskForPower(EXTENSION *Ext)
{
    POWER_STATE power;
    NTSTATUS status;

    if (Ext->Card.Kit.Asleep || InterlockedExchange(&Ext->Asked, 1) != 0) {
        return; /* the card comes to D0 with the system, or has been asked to already */
    }
    status = IoAcquireRemoveLock(&Ext->Card.Kit.RemoveLock, (PVOID)&Ext->Asked);
    if (!NT_SUCCESS(status)) {
        InterlockedExchange(&Ext->Asked, 0);
        return; /* the removal completes what waits */
    }
    power.DeviceState = PowerDeviceD0;
    status = PoRequestPowerIrp(Ext->Card.Kit.Pdo, IRP_MN_SET_POWER, power, PowerAsked, Ext, NULL);
    if (status != STATUS_PENDING) {
        InterlockedExchange(&Ext->Asked, 0);
        FailAll(Ext, STATUS_DEVICE_POWER_FAILURE);
        IoReleaseRemoveLock(&Ext->Card.Kit.RemoveLock, (PVOID)&Ext->Asked);
    }
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    EXTENSION *ext = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!ext->Card.IntOn || (CardRead(&ext->Card, CAM_CTRL) & CTRL_GO) == 0 || (CardRead(&ext->Card, CAM_STATUS) & STATUS_BUSY) != 0) {
        return FALSE; /* a card that has gone reads as busy */
    }
    CardWrite(&ext->Card, CAM_CTRL, 0);
    KeInsertQueueDpc(&ext->Card.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC D, PVOID Context, PVOID A1, PVOID A2)
{
    EXTENSION *ext = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    if (ext->Card.Awake && ext->Current != NULL && (CardRead(&ext->Card, CAM_CTRL) & CTRL_GO) == 0) {
        irp = ext->Current;
        ext->Current = NULL;
        *(PULONG)irp->AssociatedIrp.SystemBuffer = CardRead(&ext->Card, CAM_FRAME);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (irp != NULL) {
        KitFinish(&ext->Card.Kit, irp, STATUS_SUCCESS, sizeof(ULONG));
        StartNext(&ext->Card);
    }
}

static VOID TurnOn(CARD *Card)
{
    CardWrite(Card, CAM_CTRL, 0);
}

static VOID TurnOff(CARD *Card)
{
    CardWrite(Card, CAM_CTRL, 0);
}

static VOID Resume(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;

    if (ext->Current != NULL) {
        Submit(ext);
    }
}

/* The card's temperature; the last one seen while it sleeps. */
static NTSTATUS Temperature(EXTENSION *Ext, PULONG Out)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    if (!Ext->Card.Mapped) {
        status = STATUS_DEVICE_NOT_READY;
#ifdef FIXED
    } else if (Ext->Card.Awake) {
#else
    } else {
#endif
        Ext->Temperature = CardRead(&Ext->Card, CAM_TEMPERATURE);
    }
    *Out = Ext->Temperature;
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    PULONG idle;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    if (code != IOCTL_CAM_GRAB && code != IOCTL_CAM_TEMPERATURE) {
        return KitFinish(&ext->Card.Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        return KitFinish(&ext->Card.Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    if (code == IOCTL_CAM_TEMPERATURE) {
        status = Temperature(ext, Irp->AssociatedIrp.SystemBuffer);
        return KitFinish(&ext->Card.Kit, Irp, status, NT_SUCCESS(status) ? sizeof(ULONG) : 0);
    }
    idle = ext->Idle;
    if (idle != NULL) {
        PoSetDeviceBusy(idle);
    }
    return CardQueueSubmit(&ext->Card, Irp, StartNext);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardQueueFlush(&ext->Card.Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = CardStart(&ext->Card, Translated, CAM_LENGTH);

    if (NT_SUCCESS(status)) {
        CardQueueOpen(&ext->Card.Queue, TRUE);
        ext->Idle = PoRegisterDeviceForIdleDetection(Device, IDLE_SECONDS, IDLE_SECONDS, PowerDeviceD3);
    }
    return status;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardQueueOpen(&ext->Card.Queue, FALSE);
    FailAll(ext, STATUS_DELETE_PENDING);
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    EXTENSION *ext = Device->DeviceExtension;

    if (ext->Idle != NULL) {
        ext->Idle = NULL;
        (void)PoRegisterDeviceForIdleDetection(Device, 0, 0, PowerDeviceD3);
    }
    CardStop(&ext->Card, Present);
}

static VOID Down(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardDown(&ext->Card);
    StartNext(&ext->Card); /* if it was at a picture, it has to wake again */
}

static VOID Up(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardUp(&ext->Card);
    StartNext(&ext->Card);
}

static const KIT_OPS Ops = {Start, Drain, Stop, Down, Up};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &CamInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Card.Isr = Isr;
    ext->Card.TurnOn = TurnOn;
    ext->Card.TurnOff = TurnOff;
    ext->Card.Resume = Resume;
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
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}
