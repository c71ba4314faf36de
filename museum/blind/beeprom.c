/*
 * Reads words of the serial EEPROM by the bits of CNTRL, sets the user pins 0 and 1 as outputs in the
 * same register, and rings the card's doorbell (software interrupt).
 *
 * The bug: the pins are set by a read and a write of CNTRL without the mutex under which the EEPROM's
 * clock and select bits are driven, so an EEPROM read is garbled or a pin falls back.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-lost
 * Needs: schedule
 */
#include <ddk/wdm.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define HOLD_STOP   1u      /* not started, or about to be stopped */
#define HOLD_POWER  2u      /* not in D0 */
static const GUID InterfaceGuid = { 0xb747e2fe, 0xa1b6, 0x2fb6, { 0x9f, 0x46, 0xca, 0xdb, 0x0d, 0xa3, 0x06, 0x0d } };

typedef struct _DEV {
    PDEVICE_OBJECT Self, Lower, Pdo;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    DEVICE_POWER_STATE Power;
    PIRP SystemIrp;
    BOOLEAN Gone;               /* surprise removed: registers are not there any more */
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Int;
    BOOLEAN Live;               /* the card may interrupt; changed at the interrupt's level only */
    BOOLEAN Ready;              /* mapped and connected; under Lock */
    KSPIN_LOCK Lock;
    ULONG Base, Csr;            /* INTCSR with all off; as it is to be, at the interrupt's level */
    FAST_MUTEX Mutex;           /* who works at the card */
    volatile LONG Holds;        /* set with Mutex: why no request may begin */
    KEVENT Signal;
    KDPC IsrDpc;
    ULONG Pins;                 /* of CNTRL, if they have been set: for D0 again */
} DEV, *PDEV;

static NTSTATUS Done(PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    irp->IoStatus.Status = s;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return s;
}

/* completes a request that holds the remove lock */
static VOID Finish(PDEV d, PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    Done(irp, s, info);
    IoReleaseRemoveLock(&d->Remove, irp);
}

/* local configuration registers, in the first memory window */
#define INTCSR      0x4C
#define LINT1_EN    0x001u
#define LINT1_ACT   0x004u
#define LINT2_EN    0x008u
#define LINT2_ACT   0x020u
#define PCI_EN      0x040u
#define SOFT_INT    0x080u
#define LINT1_CLR   0x400u      /* of an edge; always read as 0 */
#define LINT2_CLR   0x800u
#define CNTRL       0x50

#define RD(d, r)    READ_REGISTER_ULONG((PULONG)((d)->Regs + (r)))
#define WR(d, r, v) WRITE_REGISTER_ULONG((PULONG)((d)->Regs + (r)), (v))
#define PIN_BITS    0x0000003Fu /* select, direction and data of user pins 0 and 1 */
#define PIN_OUT     0x00000012u /* user pins, outputs */
#define EE_CLK      0x01000000u
#define EE_CS       0x02000000u
#define EE_DI       0x04000000u
#define EE_DO       0x08000000u
#define EE_PRESENT  0x10000000u
#define ONCE        0x60000000u /* reload, reset: never written */
#define CODE(n)     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_READ_WORD CODE(0) /* in: ULONG, the word's number, less than EE_WORDS; out: ULONG */
#define IOCTL_PINS  CODE(1)     /* in: ULONG, 0 to 3: user pin 0, user pin 1 */
#define IOCTL_RING  CODE(2)     /* nothing in, nothing out */
#define EE_WORDS    64u
#define HOLD_DEAD   4u

static BOOLEAN NTAPI SyncOn(PVOID ctx)
{
    PDEV d = ctx;
    d->Csr = d->Base | PCI_EN;
    WR(d, INTCSR, d->Csr);
    (void)RD(d, INTCSR);
    if (d->Pins) {
        WR(d, CNTRL, (RD(d, CNTRL) & ~(ONCE | PIN_BITS)) | d->Pins);
        (void)RD(d, CNTRL);
    }
    d->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID ctx)
{
    PDEV d = ctx;
    d->Live = FALSE;
    d->Csr = d->Base;
    if (!d->Gone) {
        WR(d, INTCSR, d->Csr);
        (void)RD(d, INTCSR);    /* the write has arrived */
    }
    return TRUE;
}
/* D0 or not */
static VOID HwPower(PDEV d, BOOLEAN on)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    if (d->Ready && !d->Gone) KeSynchronizeExecution(d->Int, on ? SyncOn : SyncOff, d);
    KeReleaseSpinLock(&d->Lock, k);
}

static BOOLEAN NTAPI SyncRing(PVOID ctx)
{
    PDEV d = ctx;
    WR(d, INTCSR, d->Csr | SOFT_INT);
    (void)RD(d, INTCSR);
    return TRUE;
}

/* the doorbell: the software interrupt; one at a time */
static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID ctx)
{
    PDEV d = ctx;
    ULONG v = d->Live ? RD(d, INTCSR) : 0;
    if (v == ~0u || !(v & SOFT_INT)) return FALSE;
    WR(d, INTCSR, d->Csr);
    (void)RD(d, INTCSR);
    KeInsertQueueDpc(&d->IsrDpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI IsrDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{ KeSetEvent(&((PDEV)ctx)->Signal, IO_NO_INCREMENT, FALSE); }

static NTSTATUS Ring(PDEV d)
{
    LARGE_INTEGER limit;
    limit.QuadPart = -100 * 10000ll;
    KeClearEvent(&d->Signal);
    KeSynchronizeExecution(d->Int, SyncRing, d);
    return KeWaitForSingleObject(&d->Signal, Executive, KernelMode, FALSE, &limit) == STATUS_SUCCESS ? STATUS_SUCCESS : STATUS_IO_TIMEOUT;
}

static VOID HwRelease(PDEV d)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Ready = FALSE;
    KeReleaseSpinLock(&d->Lock, k);
    if (d->Int) {
        KeSynchronizeExecution(d->Int, SyncOff, d);
        IoDisconnectInterrupt(d->Int);
    }
    d->Int = NULL;
    KeFlushQueuedDpcs();
    if (d->Regs) MmUnmapIoSpace(d->Regs, d->RegsLength);
    d->Regs = NULL;
}

static NTSTATUS HwStart(PDEV d, PCM_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r, regs = NULL, line = NULL;
    PCM_PARTIAL_RESOURCE_LIST pl;
    NTSTATUS s;
    ULONG i;
    KIRQL k;
    if (!list || !list->Count) return STATUS_DEVICE_CONFIGURATION_ERROR;
    pl = &list->List[0].PartialResourceList;
    for (i = 0; i < pl->Count; i++) {
        r = &pl->PartialDescriptors[i];
        if (r->Type == CmResourceTypeMemory) {
            if (!regs) regs = r;
        } else if (r->Type == CmResourceTypeInterrupt && !line) line = r;
    }
    if (!regs || !line || regs->u.Memory.Length < CNTRL + 4) return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegsLength = regs->u.Memory.Length;
    d->Regs = MmMapIoSpace(regs->u.Memory.Start, d->RegsLength, MmNonCached);
    s = STATUS_INSUFFICIENT_RESOURCES;
    if (!d->Regs) goto fail;
    s = STATUS_DEVICE_DOES_NOT_EXIST;
    d->Base = RD(d, INTCSR);
    if (d->Base == ~0u) goto fail;
    d->Live = FALSE;
    d->Base &= ~(LINT1_EN | LINT2_EN | PCI_EN | SOFT_INT | LINT1_CLR | LINT2_CLR);
    WR(d, INTCSR, d->Base);
    (void)RD(d, INTCSR);
    s = IoConnectInterrupt(&d->Int, Isr, d, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
        (KIRQL)line->u.Interrupt.Level, line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
        line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(s)) {
        d->Int = NULL;
        goto fail;
    }
    KeAcquireSpinLock(&d->Lock, &k);
    KeSynchronizeExecution(d->Int, SyncOn, d);
    d->Ready = TRUE;
    KeReleaseSpinLock(&d->Lock, k);
    return STATUS_SUCCESS;
fail:
    HwRelease(d);
    return s;
}

/* none is at work when this returns, and none begins */
static VOID Hold(PDEV d, ULONG why)
{
    ExAcquireFastMutex(&d->Mutex);
    InterlockedOr(&d->Holds, (LONG)why);
    ExReleaseFastMutex(&d->Mutex);
}

static VOID Unhold(PDEV d, ULONG why) { InterlockedAnd(&d->Holds, ~(LONG)why); }
static VOID Kill(PDEV d) { Hold(d, HOLD_DEAD); }

static ULONG Change(PDEV d, ULONG off, ULONG on)
{
    ULONG v = RD(d, CNTRL) & ~ONCE;
    WR(d, CNTRL, (v & ~off) | on);
    v = RD(d, CNTRL);
    KeStallExecutionProcessor(1);
    return v;
}

static ULONG Clock(PDEV d, ULONG bit)
{
    Change(d, EE_DI, bit ? EE_DI : 0);
    Change(d, 0, EE_CLK);
    return Change(d, EE_CLK, 0);
}

static NTSTATUS ReadWord(PDEV d, ULONG n, PULONG word)
{
    ULONG cmd = (6u << 6) | n, v = RD(d, CNTRL);
    LONG i;
    if (v == ~0u || !(v & EE_PRESENT)) return STATUS_DEVICE_DOES_NOT_EXIST;
    *word = 0;
    Change(d, EE_CLK | EE_DI, EE_CS);
    for (i = 8; i >= 0; i--) Clock(d, (cmd >> i) & 1);
    for (i = 15; i >= 0; i--)
        if (Clock(d, 0) & EE_DO) *word |= 1u << i;
    v = Change(d, EE_CLK | EE_CS | EE_DI, 0);
    return v == ~0u ? STATUS_DEVICE_DOES_NOT_EXIST : STATUS_SUCCESS;
}

static NTSTATUS Run(PDEV d, ULONG code, ULONG arg, PULONG out)
{
    NTSTATUS s;
#ifdef FIXED
    ExAcquireFastMutex(&d->Mutex);
#else
    if (code != IOCTL_PINS) ExAcquireFastMutex(&d->Mutex);
#endif
    if (d->Holds) s = d->Holds & HOLD_DEAD ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY;
    else if (code == IOCTL_READ_WORD) s = ReadWord(d, arg, out);
    else if (code == IOCTL_RING) s = Ring(d);
    else {
        d->Pins = PIN_OUT | (arg & 1 ? 0x04 : 0) | (arg & 2 ? 0x20 : 0);
        s = Change(d, PIN_BITS, d->Pins) == ~0u ? STATUS_DEVICE_DOES_NOT_EXIST : STATUS_SUCCESS;
    }
#ifdef FIXED
    ExReleaseFastMutex(&d->Mutex);
#else
    if (code != IOCTL_PINS) ExReleaseFastMutex(&d->Mutex);
#endif
    return s;
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG code = sl->Parameters.DeviceIoControl.IoControlCode, out = 0, arg = 0;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS s = IoAcquireRemoveLock(&d->Remove, irp);
    if (!NT_SUCCESS(s)) return Done(irp, s, 0);
    if (code != IOCTL_READ_WORD && code != IOCTL_PINS && code != IOCTL_RING) s = STATUS_INVALID_DEVICE_REQUEST;
    else if (code != IOCTL_RING && sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) s = STATUS_BUFFER_TOO_SMALL;
    else if (code == IOCTL_READ_WORD && sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) s = STATUS_BUFFER_TOO_SMALL;
    else if (code != IOCTL_RING && (arg = *buffer) >= (code == IOCTL_PINS ? 4 : EE_WORDS)) s = STATUS_INVALID_PARAMETER;
    else s = Run(d, code, arg, &out);
    if (code == IOCTL_READ_WORD && NT_SUCCESS(s)) {
        *buffer = out;
        info = sizeof(ULONG);
    }
    Finish(d, irp, s, info);
    return s;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

/* requests are short: what the card works at ends by itself */
static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

static NTSTATUS Setup(PDEV d)
{
    KeInitializeSpinLock(&d->Lock);
    ExInitializeFastMutex(&d->Mutex);
    KeInitializeEvent(&d->Signal, SynchronizationEvent, FALSE);
    KeInitializeDpc(&d->IsrDpc, IsrDpc, d);
    d->Holds = HOLD_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS s = IoAcquireRemoveLock(&d->Remove, irp);
    if (!NT_SUCCESS(s)) return Done(irp, s, 0);
    switch (sl->MajorFunction == IRP_MJ_PNP ? sl->MinorFunction : 0xFF) {   /* WMI's are passed on */
    case IRP_MN_START_DEVICE:
        s = IoForwardIrpSynchronously(d->Lower, irp) ? irp->IoStatus.Status : STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(s)) s = HwStart(d, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(s)) {
            d->Power = PowerDeviceD0;
            Unhold(d, HOLD_STOP | HOLD_POWER);
            IoSetDeviceInterfaceState(&d->Link, TRUE);
        }
        Finish(d, irp, s, 0);
        return s;
    case IRP_MN_CANCEL_STOP_DEVICE:
        IoForwardIrpSynchronously(d->Lower, irp);
        if (d->Ready) Unhold(d, HOLD_STOP);
        Finish(d, irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;
    case IRP_MN_QUERY_STOP_DEVICE: Hold(d, HOLD_STOP); break;
    case IRP_MN_STOP_DEVICE:
        Hold(d, HOLD_STOP);
        HwRelease(d);
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE: break;
    case IRP_MN_SURPRISE_REMOVAL:
        d->Gone = TRUE;
        IoSetDeviceInterfaceState(&d->Link, FALSE);
        Kill(d);
        HwRelease(d);
        break;
    case IRP_MN_REMOVE_DEVICE:
        IoSetDeviceInterfaceState(&d->Link, FALSE);
        Kill(d);
        IoReleaseRemoveLockAndWait(&d->Remove, irp);
        HwRelease(d);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        s = IoCallDriver(d->Lower, irp);
        IoDetachDevice(d->Lower);
        RtlFreeUnicodeString(&d->Link);
        IoDeleteDevice(o);
        return s;
    default:
        goto pass;
    }
    irp->IoStatus.Status = STATUS_SUCCESS;
pass:
    IoSkipCurrentIrpStackLocation(irp);
    s = IoCallDriver(d->Lower, irp);
    IoReleaseRemoveLock(&d->Remove, irp);
    return s;
}

static VOID NTAPI DeviceStateSet(PDEVICE_OBJECT o, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    PDEV d = ctx;
    Finish(d, d->SystemIrp, io->Status, 0);
}

static NTSTATUS NTAPI PowerDone(PDEVICE_OBJECT o, PIRP irp, PVOID ctx)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    PDEV d = ctx;
    POWER_STATE ps = { .DeviceState = PowerDeviceD0 };
    if (NT_SUCCESS(irp->IoStatus.Status) && sl->Parameters.Power.Type == SystemPowerState) {
        if (sl->Parameters.Power.State.SystemState != PowerSystemWorking) ps.DeviceState = PowerDeviceD3;
        d->SystemIrp = irp;
        irp->IoStatus.Status = PoRequestPowerIrp(d->Pdo, IRP_MN_SET_POWER, ps, DeviceStateSet, d, NULL);
        if (NT_SUCCESS(irp->IoStatus.Status)) return STATUS_MORE_PROCESSING_REQUIRED;
    } else if (NT_SUCCESS(irp->IoStatus.Status)) {
        d->Power = PowerDeviceD0;
        PoSetPowerState(d->Self, DevicePowerState, ps);
        HwPower(d, TRUE);
        Unhold(d, HOLD_POWER);
    }
    IoReleaseRemoveLock(&d->Remove, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE ps = sl->Parameters.Power.State;
    BOOLEAN system = sl->Parameters.Power.Type == SystemPowerState, set = sl->MinorFunction == IRP_MN_SET_POWER;
    NTSTATUS s = IoAcquireRemoveLock(&d->Remove, irp);
    if (!NT_SUCCESS(s)) return Done(irp, s, 0);
    if (set && (system || (ps.DeviceState == PowerDeviceD0 && d->Power != PowerDeviceD0))) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, PowerDone, d, TRUE, TRUE, TRUE);
        PoCallDriver(d->Lower, irp);
        return STATUS_PENDING;
    }
    if (set && ps.DeviceState != PowerDeviceD0 && d->Power == PowerDeviceD0) {
        Hold(d, HOLD_POWER);
        HwPower(d, FALSE);
        d->Power = ps.DeviceState;
        PoSetPowerState(o, DevicePowerState, ps);
    }
    IoSkipCurrentIrpStackLocation(irp);
    s = PoCallDriver(d->Lower, irp);
    IoReleaseRemoveLock(&d->Remove, irp);
    return s;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT o;
    PDEV d;
    NTSTATUS s = IoCreateDevice(drv, sizeof(DEV), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &o);
    if (!NT_SUCCESS(s)) return s;
    d = o->DeviceExtension;
    RtlZeroMemory(d, sizeof(*d));
    d->Self = o;
    d->Pdo = pdo;
    d->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&d->Remove, 'b__D', 0, 0);
    s = Setup(d);
    if (NT_SUCCESS(s)) {
        s = IoRegisterDeviceInterface(pdo, &InterfaceGuid, NULL, &d->Link);
        if (NT_SUCCESS(s)) {
            d->Lower = IoAttachDeviceToDeviceStack(o, pdo);
            if (d->Lower) {
                o->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
                o->Flags &= ~DO_DEVICE_INITIALIZING;
                return STATUS_SUCCESS;
            }
            RtlFreeUnicodeString(&d->Link);
            s = STATUS_NO_SUCH_DEVICE;
        }
    }
    IoDeleteDevice(o);
    return s;
}

static VOID NTAPI Unload(PDRIVER_OBJECT drv) { }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    drv->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Ioctl;
    drv->MajorFunction[IRP_MJ_PNP] = drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = Pnp;
    drv->MajorFunction[IRP_MJ_POWER] = Power;
    drv->DriverExtension->AddDevice = AddDevice;
    drv->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
