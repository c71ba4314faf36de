/*
 * weldctl: a spot welder's controller card: requests to weld are queued and done one after the
 * other (the driver's timer ends each), and programs have requests pending that are answered when
 * the card reports a fault by its interrupt. A fault ends the weld that is under way.
 *
 * The bug: when the card has gone (surprise removal), the queue of welds is emptied, but the
 * requests that wait for a fault are forgotten and stay.
 *
 * Device: PCI\VEN_1DA7&DEV_0042
 * Rule: request-pending-after-surprise-removal, irp-never-completed, request-pending-after-remove
 * Needs: removal
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID WeldInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x0C } };

#define IOCTL_WELD_CURRENT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WELD_WELD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A1, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WELD_FAULT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9A2, METHOD_BUFFERED, FILE_READ_ACCESS)

#define REG_CONTROL    0x00 /* bit 0: current flows */
#define REG_CURRENT    0x04 /* amperes */
#define REG_METER      0x08
#define REG_IRQ_STATUS 0x10 /* faults; writing 0 clears them */
#define REG_IRQ_ENABLE 0x14
#define REG_LENGTH     0x20
#define FAULTS         0x1F

#define WELD_MAX_CURRENT 8000
#define WELD_MIN_MS 10
#define WELD_MAX_MS 1500

typedef struct _WELD_EXT {
    FR_DEV Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    FR_IRQ Irq;
    ULONG Bits; /* under the interrupt's lock */
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    FR_QUEUE Welds;
    FR_QUEUE Faults;
    KSPIN_LOCK Lock; /* what follows, and REG_CONTROL; before the queues' locks */
    BOOLEAN Running;
    PIRP Current;
    ULONG64 End; /* interrupt time at which Current may be ended by the timer */
    ULONG Kept;  /* faults that are not reported yet */
} WELD_EXT, *PWELD_EXT;

typedef struct _WELD_FETCH {
    PWELD_EXT Ext;
    ULONG Bits;
} WELD_FETCH;

static ULONG WeldGet(PWELD_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID WeldPut(PWELD_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static BOOLEAN WeldService(PVOID Context)
{
    PWELD_EXT x = Context;
    ULONG bits = WeldGet(x, REG_IRQ_STATUS);

    if (bits == ~0u || (bits & FAULTS) == 0)
        return FALSE;
    WeldPut(x, REG_IRQ_STATUS, 0);
    x->Bits |= bits & FAULTS;
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI WeldFetch(PVOID Context)
{
    WELD_FETCH *f = Context;
    f->Bits = f->Ext->Bits;
    f->Ext->Bits = 0;
    return TRUE;
}

/* Begins the next weld, unless one is under way. */
static VOID WeldNext(PWELD_EXT x)
{
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Running && !x->Current && (x->Current = FrQueueGet(&x->Welds)) != NULL) {
        ULONG ms = *(ULONG *)x->Current->AssociatedIrp.SystemBuffer;
        due.QuadPart = -10000ll * ms;
        x->End = KeQueryInterruptTime() + ms * 10000ull - 5 * 10000ull;
        WeldPut(x, REG_CONTROL, 1);
        KeSetTimer(&x->Timer, due, &x->TimerDpc);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

/* Ends the weld that is under way: Timer: if its time is over. */
static VOID WeldEnd(PWELD_EXT x, BOOLEAN Timer, BOOLEAN Accessible, NTSTATUS Status)
{
    ULONG meter = 0;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    irp = x->Current;
    if (irp && Timer && KeQueryInterruptTime() < x->End)
        irp = NULL; /* the timer was of a weld before */
    if (irp) {
        x->Current = NULL;
        if (!Timer)
            KeCancelTimer(&x->Timer);
        if (Accessible) {
            meter = WeldGet(x, REG_METER);
            WeldPut(x, REG_CONTROL, 0);
        }
    }
    KeReleaseSpinLock(&x->Lock, irql);
    if (!irp)
        return;
    *(ULONG *)irp->AssociatedIrp.SystemBuffer = meter;
    FrDone(&x->Frame, irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
}

static VOID NTAPI WeldTimerDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    FR_UNUSED_OF_DPC();
    WeldEnd(Context, TRUE, TRUE, STATUS_SUCCESS);
    WeldNext(Context);
}

/* Tells faults to those who wait. */
static VOID WeldTell(PWELD_EXT x)
{
    for (;;) {
        PIRP irp = NULL;
        ULONG faults = 0;
        KIRQL irql;

        KeAcquireSpinLock(&x->Lock, &irql);
        if (x->Kept && (irp = FrQueueGet(&x->Faults)) != NULL) {
            faults = x->Kept;
            x->Kept = 0;
        }
        KeReleaseSpinLock(&x->Lock, irql);
        if (!irp)
            return;
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = faults;
        FrDone(&x->Frame, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI WeldDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PWELD_EXT x = Context;
    WELD_FETCH fetch;

    FR_UNUSED_OF_DPC();
    fetch.Ext = x;
    KeSynchronizeExecution(x->Irq.Object, WeldFetch, &fetch);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->Kept |= fetch.Bits;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (fetch.Bits)
        WeldEnd(x, FALSE, TRUE, STATUS_IO_DEVICE_ERROR);
    WeldTell(x);
    WeldNext(x);
}

static NTSTATUS WeldControl(PWELD_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WELD_CURRENT:
        if (inLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buffer > WELD_MAX_CURRENT)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        WeldPut(x, REG_CURRENT, *buffer);
        return FrDone(d, Irp, STATUS_SUCCESS, 0);
    case IOCTL_WELD_WELD:
        if (inLength < sizeof(ULONG) || outLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buffer < WELD_MIN_MS || *buffer > WELD_MAX_MS)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        FrQueuePut(&x->Welds, Irp);
        WeldNext(x);
        return STATUS_PENDING;
    case IOCTL_WELD_FAULT:
        if (outLength < sizeof(ULONG))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        FrQueuePut(&x->Faults, Irp);
        WeldTell(x);
        return STATUS_PENDING;
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI WeldRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWELD_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        status = WeldControl(x, Irp);
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS NTAPI WeldCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PWELD_EXT x = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    NTSTATUS status = FrBegin(&x->Frame, Irp);

    if (!NT_SUCCESS(status))
        return status;
    FrQueueFlush(&x->Welds, file, STATUS_CANCELLED);
    FrQueueFlush(&x->Faults, file, STATUS_CANCELLED);
    return FrDone(&x->Frame, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS WeldInit(PFR_DEV d)
{
    PWELD_EXT x = (PWELD_EXT)d;
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, WeldDpc, x);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->TimerDpc, WeldTimerDpc, x);
    FrQueueInit(&x->Welds, d);
    FrQueueInit(&x->Faults, d);
    return STATUS_SUCCESS;
}

static VOID WeldGo(PWELD_EXT x)
{
    KIRQL irql;

    WeldPut(x, REG_CONTROL, 0);
    WeldPut(x, REG_IRQ_STATUS, 0);
    FrIrqEnable(&x->Irq, TRUE);
    WeldPut(x, REG_IRQ_ENABLE, FAULTS);
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Running = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    WeldNext(x);
}

static VOID WeldQuiet(PWELD_EXT x, BOOLEAN Accessible)
{
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Running = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
    WeldEnd(x, FALSE, Accessible, STATUS_CANCELLED);
    if (Accessible)
        WeldPut(x, REG_IRQ_ENABLE, 0);
    FrIrqEnable(&x->Irq, FALSE);
    KeFlushQueuedDpcs();
}

static NTSTATUS WeldStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PWELD_EXT x = (PWELD_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Resources, CmResourceTypeMemory, 0);
    NTSTATUS status;

    if (!memory || memory->u.Memory.Length < REG_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLength = memory->u.Memory.Length;
    x->Regs = MmMapIoSpace(memory->u.Memory.Start, x->RegsLength, MmNonCached);
    if (!x->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    WeldPut(x, REG_IRQ_ENABLE, 0);
    status = FrIrqConnect(&x->Irq, Resources, WeldService, x);
    if (NT_SUCCESS(status))
        WeldGo(x);
    return status;
}

static VOID WeldStop(PFR_DEV d)
{
    PWELD_EXT x = (PWELD_EXT)d;

    if (x->Irq.Object) {
        WeldQuiet(x, FrPowered(d));
        FrIrqDisconnect(&x->Irq);
    }
    if (x->Regs) {
        MmUnmapIoSpace(x->Regs, x->RegsLength);
        x->Regs = NULL;
    }
}

static VOID WeldFlush(PFR_DEV d, NTSTATUS Status)
{
    PWELD_EXT x = (PWELD_EXT)d;
    FrQueueFlush(&x->Welds, NULL, Status);
#ifdef FIXED
    FrQueueFlush(&x->Faults, NULL, Status);
#endif
}

static VOID WeldPowerDown(PFR_DEV d)
{
    WeldQuiet((PWELD_EXT)d, TRUE);
}

static VOID WeldPowerUp(PFR_DEV d)
{
    WeldGo((PWELD_EXT)d);
}

static const FR_OPS WeldOps = {
    sizeof(WELD_EXT), &WeldInterface, DO_BUFFERED_IO, WeldInit, WeldStart, WeldStop, WeldFlush,
    WeldPowerDown, WeldPowerUp, FrNothing, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &WeldOps);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = WeldCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WeldRequest;
    return STATUS_SUCCESS;
}
