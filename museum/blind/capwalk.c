/*
 * capwalk: a measuring card of our own. The calibration lies in a vendor-specific PCI capability, which the driver reads when it starts by means of the bus
 * interface of the stack below; programs take samples.
 *
 * The bug: the IRP_MN_QUERY_INTERFACE is sent without STATUS_NOT_SUPPORTED in it. If no one below knows the interface the IRP comes back with what it was
 * allocated with, which is STATUS_SUCCESS, and the driver calls through the interface that no one has filled in.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: irp-status-not-set
 * Needs: nothing
 *
 * The card, BAR0:
 *   0x00 ID      0x43505741
 *   0x04 CTRL    bit 0: take a sample; bit 1: interrupt enable; bit 31: reset (clears everything, CTRL too)
 *   0x08 STATUS  bit 0: sample ready, bit 1: fault (both: write 1 to clear). The line is active while interrupts are enabled and one of them is set.
 *   0x0c VALUE   the last sample, bits 0-23; bits 24-31 read 0
 * Its capability (id 9): id, next, length (12), 0, gain (16.16, signed), offset (signed). A card without it has gain 1 and offset 0.
 */
#include "../include/ticking_card.h"

#define CARD_ID 0x43505741u
#define R_ID 0x00
#define R_CTRL 0x04
#define R_STATUS 0x08
#define R_VALUE 0x0c
#define R_SIZE 0x10
#define C_SAMPLE 1u
#define C_IRQ 2u
#define C_RESET 0x80000000u
#define S_READY 1u
#define S_FAULT 2u
#define ONES 0xffffffffu

#define CAP_LIST 0x34
#define CAP_VENDOR 9
#define CONFIG_SIZE 256

#define IOCTL_CAPWALK_SAMPLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9f0, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CAPWALK_CALIBRATION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9f1, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID CAPWALK_GUID = {0x5d0b6c1e, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x0e}};
static const GUID BUS_STANDARD = {0x496b8280, 0x6f25, 0x11d0, {0xbe, 0xaf, 0x08, 0x00, 0x2b, 0xe2, 0x09, 0x2f}};

typedef struct _CALIBRATION {
    LONG Gain;
    LONG Offset;
} CALIBRATION, *PCALIBRATION;

typedef struct _CAPABILITY {
    UCHAR Id, Next, Length, Zero;
    CALIBRATION Calibration;
} CAPABILITY, *PCAPABILITY;

typedef struct _CAPWALK {
    ZDEV Dev;
    PUCHAR Regs;
    CALIBRATION Calibration;
    KSPIN_LOCK HwLock; /* publishing and starting are one step for the DPC */
    volatile LONG Flags; /* what the ISR has seen */
} CAPWALK, *PCAPWALK;

static NTSTATUS QueryBus(PZDEV d, PBUS_INTERFACE_STANDARD Bus)
{
    IO_STATUS_BLOCK Iosb;
    PIO_STACK_LOCATION sl;
    KEVENT Event;
    PIRP Irp;
    NTSTATUS Status;

    RtlZeroMemory(Bus, sizeof(*Bus));
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, d->Lower, NULL, 0, NULL, &Event, &Iosb);
    if (!Irp)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
#endif
    sl = IoGetNextIrpStackLocation(Irp);
    sl->MinorFunction = IRP_MN_QUERY_INTERFACE;
    sl->Parameters.QueryInterface.InterfaceType = &BUS_STANDARD;
    sl->Parameters.QueryInterface.Size = sizeof(*Bus);
    sl->Parameters.QueryInterface.Version = 1;
    sl->Parameters.QueryInterface.Interface = (PINTERFACE)Bus;
    sl->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    Status = IoCallDriver(d->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Iosb.Status;
    }
    return Status;
}

/* The configuration space is the card's to fill in: nothing in it is taken for granted. */
static VOID ReadCalibration(PCAPWALK x)
{
    BUS_INTERFACE_STANDARD Bus;
    CAPABILITY Cap;
    UCHAR At = 0;
    ULONG n;

    x->Calibration.Gain = 0x10000;
    x->Calibration.Offset = 0;
    if (!NT_SUCCESS(QueryBus(&x->Dev, &Bus)))
        return;
    if (Bus.GetBusData(Bus.Context, PCI_WHICHSPACE_CONFIG, &At, CAP_LIST, sizeof(At)) != sizeof(At))
        At = 0;
    for (n = 0; n < CONFIG_SIZE / 4; n++) {
        At &= ~3;
        if (At < 0x40 || At > CONFIG_SIZE - 4)
            break;
        RtlZeroMemory(&Cap, sizeof(Cap));
        if (Bus.GetBusData(Bus.Context, PCI_WHICHSPACE_CONFIG, &Cap, At, 4) != 4)
            break;
        if (Cap.Id == CAP_VENDOR && Cap.Length >= sizeof(Cap) && At <= CONFIG_SIZE - sizeof(Cap)) {
            if (Bus.GetBusData(Bus.Context, PCI_WHICHSPACE_CONFIG, &Cap, At, sizeof(Cap)) == sizeof(Cap) && Cap.Id == CAP_VENDOR && Cap.Calibration.Gain != -1)
                x->Calibration = Cap.Calibration;
            break;
        }
        At = Cap.Next;
    }
    Bus.InterfaceDereference(Bus.Context);
}

/* Forgets what was before; in one step for the ISR. */
static BOOLEAN NTAPI Forget(PVOID Context)
{
    PCAPWALK x = Context;

    ZWrite(x->Regs, R_STATUS, S_READY | S_FAULT);
    x->Flags = 0;
    return TRUE;
}

static NTSTATUS CapwalkBegin(PZDEV d, PIRP Irp)
{
    PCAPWALK x = CONTAINING_RECORD(d, CAPWALK, Dev);

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_CAPWALK_CALIBRATION) {
        *(PCALIBRATION)Irp->AssociatedIrp.SystemBuffer = x->Calibration;
        Irp->IoStatus.Information = sizeof(CALIBRATION);
        return STATUS_SUCCESS;
    }
    if (ZRead(x->Regs, R_ID) != CARD_ID)
        return STATUS_NO_SUCH_DEVICE;
    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    KeSynchronizeExecution(x->Dev.Interrupt, Forget, x);
    ZPublish(d, Irp, 20);
    ZWrite(x->Regs, R_CTRL, C_IRQ | C_SAMPLE);
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    return STATUS_PENDING;
}

static BOOLEAN CapwalkIsr(PZDEV d)
{
    PCAPWALK x = CONTAINING_RECORD(d, CAPWALK, Dev);
    ULONG Status = ZRead(x->Regs, R_STATUS);

    if (Status == ONES || !(Status & (S_READY | S_FAULT)))
        return FALSE;
    ZWrite(x->Regs, R_STATUS, Status & (S_READY | S_FAULT));
    InterlockedOr(&x->Flags, (LONG)(Status & (S_READY | S_FAULT)));
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Answer(PCAPWALK x, PIRP Irp, ULONG Flags)
{
    ULONG Value = ZRead(x->Regs, R_VALUE);

    if (Value == ONES || ZRead(x->Regs, R_ID) != CARD_ID) {
        ZFinish(&x->Dev, Irp, STATUS_NO_SUCH_DEVICE, 0);
    } else if (Flags & S_FAULT) {
        ZFinish(&x->Dev, Irp, STATUS_IO_DEVICE_ERROR, 0);
    } else {
        *(LONG64 *)Irp->AssociatedIrp.SystemBuffer = (LONG64)(Value & 0xffffff) * x->Calibration.Gain / 0x10000 + x->Calibration.Offset;
        ZFinish(&x->Dev, Irp, STATUS_SUCCESS, sizeof(LONG64));
    }
}

static VOID CapwalkDpc(PZDEV d)
{
    PCAPWALK x = CONTAINING_RECORD(d, CAPWALK, Dev);
    PIRP Irp = NULL;
    ULONG Flags;

    KeAcquireSpinLockAtDpcLevel(&x->HwLock);
    Flags = (ULONG)InterlockedExchange(&x->Flags, 0);
    if (Flags)
        Irp = ZTake(d);
    KeReleaseSpinLockFromDpcLevel(&x->HwLock);
    if (Irp)
        Answer(x, Irp, Flags);
}

static VOID CapwalkLimit(PZDEV d, PIRP Irp)
{
    PCAPWALK x = CONTAINING_RECORD(d, CAPWALK, Dev);
    ULONG Flags = ZRead(x->Regs, R_STATUS);

    if (Flags != ONES && (Flags & (S_READY | S_FAULT))) { /* just the interrupt was lost */
        Answer(x, Irp, Flags);
        return;
    }
    ZWrite(x->Regs, R_CTRL, C_RESET);
    ZRead(x->Regs, R_ID);
    ZFinish(d, Irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS CapwalkRequest(PZDEV d, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG OutLength;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CAPWALK_SAMPLE:
        if (OutLength < sizeof(LONG64))
            return STATUS_BUFFER_TOO_SMALL;
        return ZSubmit(d, Irp);
    case IOCTL_CAPWALK_CALIBRATION:
        if (OutLength < sizeof(CALIBRATION))
            return STATUS_BUFFER_TOO_SMALL;
        return ZSubmit(d, Irp); /* not while it is being read again */
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS CapwalkUp(PZDEV d)
{
    PCAPWALK x = CONTAINING_RECORD(d, CAPWALK, Dev);

    if (ZRead(x->Regs, R_ID) != CARD_ID)
        return STATUS_NO_SUCH_DEVICE;
    ZWrite(x->Regs, R_CTRL, C_RESET);
    ZRead(x->Regs, R_ID);
    ZHwOn(d);
    ZWrite(x->Regs, R_CTRL, C_IRQ);
    return STATUS_SUCCESS;
}

static VOID CapwalkDown(PZDEV d)
{
    PCAPWALK x = CONTAINING_RECORD(d, CAPWALK, Dev);

    ZWrite(x->Regs, R_CTRL, C_RESET);
    ZRead(x->Regs, R_ID);
    ZHwOff(d);
}

static NTSTATUS CapwalkStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PCAPWALK x = CONTAINING_RECORD(d, CAPWALK, Dev);
    NTSTATUS Status;

    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, R_SIZE);
    x->Regs = d->Bar[0].Va;
    if (NT_SUCCESS(Status) && ZRead(x->Regs, R_ID) != CARD_ID)
        Status = STATUS_NO_SUCH_DEVICE;
    if (NT_SUCCESS(Status)) {
        ZWrite(x->Regs, R_CTRL, C_RESET);
        ZRead(x->Regs, R_ID);
        ReadCalibration(x);
        Status = ZConnect(d);
    }
    if (NT_SUCCESS(Status))
        Status = CapwalkUp(d);
    if (!NT_SUCCESS(Status))
        ZReleaseHw(d);
    return Status;
}

static VOID CapwalkStop(PZDEV d, BOOLEAN Touch)
{
    if (Touch)
        CapwalkDown(d);
    ZReleaseHw(d);
}

static NTSTATUS CapwalkAdd(PZDEV d)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(d, CAPWALK, Dev)->HwLock);
    return STATUS_SUCCESS;
}

static const ZOPS CapwalkOps = {
    .Interface = &CAPWALK_GUID,
    .ExtensionSize = sizeof(CAPWALK),
    .Add = CapwalkAdd,
    .Start = CapwalkStart,
    .Stop = CapwalkStop,
    .Up = CapwalkUp,
    .Down = CapwalkDown,
    .Request = CapwalkRequest,
    .Begin = CapwalkBegin,
    .Limit = CapwalkLimit,
    .Isr = CapwalkIsr,
    .Dpc = CapwalkDpc,
};

static NTSTATUS NTAPI CapwalkAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &CapwalkOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, CapwalkAddDevice);
}
