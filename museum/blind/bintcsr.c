/*
 * Two channels, each with one request at a time and a lock of its own: the doorbell (software
 * interrupt), which the card answers at once, and a wait for LINTi1 with a time limit.
 *
 * The bug: both channels change INTCSR by a read and a write under nothing but their own locks, so one
 * takes the other's bit back: the doorbell is never answered and its request hangs, or the line stays
 * shut off.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten, request-timed-out, register-update-lost
 * Needs: schedule
 */
#include <ddk/wdm.h>

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define HOLD_STOP   1u      /* not started, or about to be stopped */
#define HOLD_POWER  2u      /* not in D0 */

typedef struct _DEV {
    PDEVICE_OBJECT Self, Lower, Pdo;
    volatile LONG Users, Removed;       /* Users: one for the device's existence, one for each request */
    KEVENT NoUsers;
    WCHAR LinkName[32];
    DEVICE_POWER_STATE Power;
    PIRP SystemIrp;
    BOOLEAN Gone;               /* surprise removed: registers are not there any more */
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Int;
    BOOLEAN Live;               /* the card may interrupt; changed at the interrupt's level only */
    BOOLEAN Ready;              /* mapped and connected; under both locks, as Holds and Dead */
    KSPIN_LOCK Lock[2];         /* of the channels; what belongs to both is changed with both and read with any */
    ULONG Base, Csr;            /* INTCSR with all off; as it is to be, at the interrupt's level */
    BOOLEAN Dead;
    ULONG Holds;
    PIRP Waiting[2];            /* completed by who takes it from here and its cancel routine from it */
    ULONG Ticks;                /* of the wait for the line */
    ULONG Seen;                 /* at the interrupt's level: what has come of BELL and LINE, for the DPC */
    KTIMER Timer;               /* every 50 ms */
    KDPC TimerDpc, IsrDpc;
} DEV, *PDEV;

static VOID Leave(PDEV d)
{ if (InterlockedDecrement(&d->Users) == 0) KeSetEvent(&d->NoUsers, IO_NO_INCREMENT, FALSE); }

static BOOLEAN Enter(PDEV d)
{
    InterlockedIncrement(&d->Users);
    if (!d->Removed) return TRUE;
    Leave(d);
    return FALSE;
}

static NTSTATUS Done(PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    irp->IoStatus.Status = s;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return s;
}

/* completes a request that counts as a user */
static VOID Finish(PDEV d, PIRP irp, NTSTATUS s, ULONG_PTR info)
{
    Done(irp, s, info);
    Leave(d);
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
#define LINT1_EDGE  0x100u
#define BELL        0u
#define LINE        1u
#define CODE(n)     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RING  CODE(BELL)  /* nothing in, nothing out */
#define IOCTL_WAIT  CODE(LINE)  /* in: ULONG, the time limit in ms, up to MAX_WAIT */
#define MAX_WAIT    1000u

static VOID LockAll(PDEV d, PKIRQL k)
{
    KeAcquireSpinLock(&d->Lock[0], k);
    KeAcquireSpinLockAtDpcLevel(&d->Lock[1]);
}

static VOID UnlockAll(PDEV d, KIRQL k)
{
    KeReleaseSpinLockFromDpcLevel(&d->Lock[1]);
    KeReleaseSpinLock(&d->Lock[0], k);
}

static BOOLEAN NTAPI SyncOn(PVOID ctx)
{
    PDEV d = ctx;
    d->Csr = d->Base | PCI_EN;
    WR(d, INTCSR, d->Csr);
    (void)RD(d, INTCSR);
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
    LockAll(d, &k);
    if (d->Ready && !d->Gone) KeSynchronizeExecution(d->Int, on ? SyncOn : SyncOff, d);
    UnlockAll(d, k);
}

/* INTCSR: the line on or off; the doorbell. One that is on its way stays */
static BOOLEAN NTAPI SyncLineOn(PVOID ctx)
{
    PDEV d = ctx;
    ULONG bell = RD(d, INTCSR) & SOFT_INT;
    d->Csr |= LINT1_EN;
    WR(d, INTCSR, d->Csr | bell);
    (void)RD(d, INTCSR);
    return TRUE;
}

static BOOLEAN NTAPI SyncLineOff(PVOID ctx)
{
    PDEV d = ctx;
    ULONG bell = RD(d, INTCSR) & SOFT_INT;
    d->Csr &= ~LINT1_EN;
    WR(d, INTCSR, d->Csr | bell);
    (void)RD(d, INTCSR);
    return TRUE;
}

static BOOLEAN NTAPI SyncBell(PVOID ctx)
{
    PDEV d = ctx;
    WR(d, INTCSR, d->Csr | SOFT_INT);
    (void)RD(d, INTCSR);
    return TRUE;
}

/* has the card do what a channel's request waits for; the channel's lock is held */
static VOID Ask(PDEV d, ULONG ch)
{
    if (!d->Ready || d->Gone || d->Holds) return;
#ifdef FIXED
    KeSynchronizeExecution(d->Int, ch == BELL ? SyncBell : SyncLineOn, d);
#else
    if (ch == BELL) SyncBell(d);
    else SyncLineOn(d);
#endif
}

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID ctx)
{
    PDEV d = ctx;
    ULONG v = d->Live ? RD(d, INTCSR) : 0, seen = 0;
    if (v == ~0u) return FALSE;
    if (v & SOFT_INT) seen |= 1u << BELL;
    if ((v & LINT1_ACT) && (v & LINT1_EN)) seen |= 1u << LINE;
    if (!seen) return FALSE;
    if (seen & (1u << LINE)) d->Csr &= ~LINT1_EN;       /* a level: off until the next wait */
    WR(d, INTCSR, d->Csr);
    (void)RD(d, INTCSR);
    d->Seen |= seen;
    KeInsertQueueDpc(&d->IsrDpc, NULL, NULL);
    return TRUE;
}

typedef struct _FETCH { PDEV Dev; ULONG Bits; } FETCH, *PFETCH;

static BOOLEAN NTAPI SyncFetch(PVOID ctx)
{
    PFETCH f = ctx;
    f->Bits = f->Dev->Seen;
    f->Dev->Seen = 0;
    return TRUE;
}

/* the channel's lock is held: its request, if its cancel routine has not got it */
static PIRP Take(PDEV d, ULONG ch)
{
    PIRP irp = d->Waiting[ch];
    if (!irp || !IoSetCancelRoutine(irp, NULL)) return NULL;
    d->Waiting[ch] = NULL;
    return irp;
}

static VOID End(PDEV d, ULONG ch, NTSTATUS s)
{
    PIRP irp;
    KIRQL k;
    KeAcquireSpinLock(&d->Lock[ch], &k);
    irp = Take(d, ch);
    KeReleaseSpinLock(&d->Lock[ch], k);
    if (irp) Finish(d, irp, s, 0);
}

static VOID NTAPI IsrDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    PDEV d = ctx;
    FETCH f = { d, 0 };
    ULONG ch;
    KeAcquireSpinLockAtDpcLevel(&d->Lock[BELL]);
    if (d->Ready) KeSynchronizeExecution(d->Int, SyncFetch, &f);
    KeReleaseSpinLockFromDpcLevel(&d->Lock[BELL]);
    for (ch = 0; ch < 2; ch++)
        if (f.Bits & (1u << ch)) End(d, ch, STATUS_SUCCESS);
}

static VOID NTAPI TimerDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    PDEV d = ctx;
    PIRP irp = NULL;
    KeAcquireSpinLockAtDpcLevel(&d->Lock[LINE]);
    if (d->Waiting[LINE] && d->Ticks && --d->Ticks == 0) irp = Take(d, LINE);
    if (irp && d->Ready && d->Live) KeSynchronizeExecution(d->Int, SyncLineOff, d);
    KeReleaseSpinLockFromDpcLevel(&d->Lock[LINE]);
    if (irp) Finish(d, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID NTAPI Cancel(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    ULONG ch;
    KIRQL k;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    LockAll(d, &k);
    for (ch = 0; ch < 2; ch++)
        if (d->Waiting[ch] == irp) d->Waiting[ch] = NULL;
    UnlockAll(d, k);
    Finish(d, irp, STATUS_CANCELLED, 0);
}

static VOID HwRelease(PDEV d)
{
    KIRQL k;
    LockAll(d, &k);
    d->Ready = FALSE;
    UnlockAll(d, k);
    if (d->Int) {
        KeSynchronizeExecution(d->Int, SyncOff, d);
        IoDisconnectInterrupt(d->Int);
    }
    d->Int = NULL;
    KeCancelTimer(&d->Timer);
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
    LARGE_INTEGER due;
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
    d->Base &= ~(LINT1_EDGE | LINT1_EN | LINT2_EN | PCI_EN | SOFT_INT | LINT1_CLR | LINT2_CLR);
    WR(d, INTCSR, d->Base);
    (void)RD(d, INTCSR);
    s = IoConnectInterrupt(&d->Int, Isr, d, NULL, line->u.Interrupt.Vector, (KIRQL)line->u.Interrupt.Level,
        (KIRQL)line->u.Interrupt.Level, line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
        line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(s)) {
        d->Int = NULL;
        goto fail;
    }
    due.QuadPart = -50 * 10000ll;
    KeSetTimerEx(&d->Timer, due, 50, &d->TimerDpc);
    LockAll(d, &k);
    KeSynchronizeExecution(d->Int, SyncOn, d);
    d->Ready = TRUE;
    UnlockAll(d, k);
    return STATUS_SUCCESS;
fail:
    HwRelease(d);
    return s;
}

/* requests stay; what the card owes them is asked for again when the hold is over */
static VOID Hold(PDEV d, ULONG why)
{
    KIRQL k;
    LockAll(d, &k);
    d->Holds |= why;
    UnlockAll(d, k);
}

static VOID Unhold(PDEV d, ULONG why)
{
    ULONG ch;
    KIRQL k;
    LockAll(d, &k);
    d->Holds &= ~why;
    for (ch = 0; ch < 2; ch++)
        if (d->Waiting[ch]) Ask(d, ch);
    UnlockAll(d, k);
}

static VOID Flush(PDEV d, PFILE_OBJECT file, BOOLEAN dead, NTSTATUS s)
{
    PIRP irp[2] = { NULL, NULL };
    ULONG ch;
    KIRQL k;
    LockAll(d, &k);
    d->Dead |= dead;
    for (ch = 0; ch < 2; ch++)
        if (d->Waiting[ch] && (!file || IoGetCurrentIrpStackLocation(d->Waiting[ch])->FileObject == file)) irp[ch] = Take(d, ch);
    UnlockAll(d, k);
    for (ch = 0; ch < 2; ch++)
        if (irp[ch]) Finish(d, irp[ch], s, 0);
}

static VOID Kill(PDEV d) { Flush(d, NULL, TRUE, STATUS_DELETE_PENDING); }

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG ch = sl->Parameters.DeviceIoControl.IoControlCode == IOCTL_RING ? BELL : LINE, ms = 0;
    NTSTATUS s = STATUS_SUCCESS;
    KIRQL k;
    if (!Enter(d)) return Done(irp, STATUS_NO_SUCH_DEVICE, 0);
    if (ch == LINE) {
        if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_WAIT) s = STATUS_INVALID_DEVICE_REQUEST;
        else if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) s = STATUS_BUFFER_TOO_SMALL;
        else if ((ms = *(PULONG)irp->AssociatedIrp.SystemBuffer) > MAX_WAIT) s = STATUS_INVALID_PARAMETER;
    }
    if (NT_SUCCESS(s)) {
        KeAcquireSpinLock(&d->Lock[ch], &k);
        if (d->Dead) s = STATUS_DELETE_PENDING;
        else if (d->Waiting[ch]) s = STATUS_DEVICE_BUSY;
        else {
            IoSetCancelRoutine(irp, Cancel);
            if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) s = STATUS_CANCELLED;
            else {
                IoMarkIrpPending(irp);
                d->Waiting[ch] = irp;
                if (ch == LINE) d->Ticks = ms / 50 + 2;
                Ask(d, ch);
                s = STATUS_PENDING;
            }
        }
        KeReleaseSpinLock(&d->Lock[ch], k);
    }
    if (s != STATUS_PENDING) Finish(d, irp, s, 0);
    return s;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT o, PIRP irp)
{
    Flush(o->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, FALSE, STATUS_CANCELLED);
    return Done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Setup(PDEV d)
{
    KeInitializeSpinLock(&d->Lock[0]);
    KeInitializeSpinLock(&d->Lock[1]);
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->TimerDpc, TimerDpc, d);
    KeInitializeDpc(&d->IsrDpc, IsrDpc, d);
    d->Holds = HOLD_STOP;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Caught(PDEVICE_OBJECT o, PIRP irp, PVOID ev)
{
    KeSetEvent(ev, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS Forward(PDEV d, PIRP irp)
{
    KEVENT ev;
    KeInitializeEvent(&ev, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, Caught, &ev, TRUE, TRUE, TRUE);
    IoCallDriver(d->Lower, irp);
    KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static NTSTATUS RemoveDevice(PDEV d, PIRP irp)
{
    UNICODE_STRING link;
    NTSTATUS s;
    RtlInitUnicodeString(&link, d->LinkName);
    IoDeleteSymbolicLink(&link);
    InterlockedExchange(&d->Removed, 1);
    Kill(d);
    Leave(d);                   /* this request's */
    Leave(d);                   /* the device's */
    KeWaitForSingleObject(&d->NoUsers, Executive, KernelMode, FALSE, NULL);
    HwRelease(d);
    irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(irp);
    s = IoCallDriver(d->Lower, irp);
    IoDetachDevice(d->Lower);
    IoDeleteDevice(d->Self);
    return s;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    UCHAR minor = sl->MajorFunction == IRP_MJ_PNP ? sl->MinorFunction : 0xFF;      /* WMI's are passed on */
    NTSTATUS s;
    if (!Enter(d)) return Done(irp, STATUS_NO_SUCH_DEVICE, 0);
    if (minor == IRP_MN_REMOVE_DEVICE) return RemoveDevice(d, irp);
    if (minor == IRP_MN_START_DEVICE) {
        s = Forward(d, irp);
        if (NT_SUCCESS(s)) s = HwStart(d, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(s)) {
            d->Power = PowerDeviceD0;
            Unhold(d, HOLD_STOP | HOLD_POWER);
        }
        Finish(d, irp, s, 0);
        return s;
    }
    if (minor == IRP_MN_CANCEL_STOP_DEVICE || minor == IRP_MN_CANCEL_REMOVE_DEVICE) {
        Forward(d, irp);
        if (d->Ready) Unhold(d, HOLD_STOP);
        Finish(d, irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;
    }
    if (minor == IRP_MN_QUERY_STOP_DEVICE || minor == IRP_MN_QUERY_REMOVE_DEVICE || minor == IRP_MN_STOP_DEVICE) {
        Hold(d, HOLD_STOP);
        if (minor == IRP_MN_STOP_DEVICE) HwRelease(d);
        irp->IoStatus.Status = STATUS_SUCCESS;
    } else if (minor == IRP_MN_SURPRISE_REMOVAL) {
        d->Gone = TRUE;
        Kill(d);
        HwRelease(d);
        irp->IoStatus.Status = STATUS_SUCCESS;
    }
    IoSkipCurrentIrpStackLocation(irp);
    s = IoCallDriver(d->Lower, irp);
    Leave(d);
    return s;
}

static VOID NTAPI DeviceStateSet(PDEVICE_OBJECT o, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    PDEV d = ctx;
    Finish(d, d->SystemIrp, io->Status, 0);
}

static NTSTATUS NTAPI SystemDone(PDEVICE_OBJECT o, PIRP irp, PVOID ctx)
{
    PDEV d = ctx;
    POWER_STATE ps;
    NTSTATUS s = irp->IoStatus.Status;
    if (NT_SUCCESS(s)) {
        ps.DeviceState = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking
            ? PowerDeviceD0 : PowerDeviceD3;
        d->SystemIrp = irp;
        s = PoRequestPowerIrp(d->Pdo, IRP_MN_SET_POWER, ps, DeviceStateSet, d, NULL);
        if (NT_SUCCESS(s)) return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = s;
    }
    Leave(d);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI UpDone(PDEVICE_OBJECT o, PIRP irp, PVOID ctx)
{
    PDEV d = ctx;
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        d->Power = PowerDeviceD0;
        HwPower(d, TRUE);
        PoSetPowerState(d->Self, DevicePowerState, IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State);
        Unhold(d, HOLD_POWER);
    }
    Leave(d);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    PIO_COMPLETION_ROUTINE after = NULL;
    POWER_STATE ps = sl->Parameters.Power.State;
    NTSTATUS s;
    if (!Enter(d)) return Done(irp, STATUS_NO_SUCH_DEVICE, 0);
    if (sl->MinorFunction == IRP_MN_SET_POWER && sl->Parameters.Power.Type == SystemPowerState) after = SystemDone;
    else if (sl->MinorFunction == IRP_MN_SET_POWER && ps.DeviceState == PowerDeviceD0 && d->Power != PowerDeviceD0) after = UpDone;
    else if (sl->MinorFunction == IRP_MN_SET_POWER && ps.DeviceState != PowerDeviceD0 && d->Power == PowerDeviceD0) {
        Hold(d, HOLD_POWER);
        PoSetPowerState(o, DevicePowerState, ps);
        d->Power = ps.DeviceState;
        HwPower(d, FALSE);
    }
    if (after) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, after, d, TRUE, TRUE, TRUE);
        PoCallDriver(d->Lower, irp);
        return STATUS_PENDING;
    }
    IoSkipCurrentIrpStackLocation(irp);
    s = PoCallDriver(d->Lower, irp);
    Leave(d);
    return s;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    WCHAR name[] = L"\\Device\\bintcsr0", link[] = L"\\DosDevices\\bintcsr0";
    UNICODE_STRING n, l;
    PDEVICE_OBJECT o = NULL;
    PDEV d;
    WCHAR i;
    NTSTATUS s = STATUS_OBJECT_NAME_COLLISION;
    for (i = L'0'; i <= L'Z' && s == STATUS_OBJECT_NAME_COLLISION; i++) {   /* the first name that is free */
        name[RTL_NUMBER_OF(name) - 2] = link[RTL_NUMBER_OF(link) - 2] = i;
        RtlInitUnicodeString(&n, name);
        s = IoCreateDevice(drv, sizeof(DEV), &n, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &o);
    }
    if (!NT_SUCCESS(s)) return s;
    d = o->DeviceExtension;
    RtlZeroMemory(d, sizeof(*d));
    d->Self = o;
    d->Pdo = pdo;
    d->Power = PowerDeviceD3;
    d->Users = 1;
    KeInitializeEvent(&d->NoUsers, NotificationEvent, FALSE);
    RtlCopyMemory(d->LinkName, link, sizeof(link));
    RtlInitUnicodeString(&l, d->LinkName);
    s = Setup(d);
    if (NT_SUCCESS(s)) {
        s = IoCreateSymbolicLink(&l, &n);
        if (NT_SUCCESS(s)) {
            d->Lower = IoAttachDeviceToDeviceStack(o, pdo);
            if (d->Lower) {
                o->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
                o->Flags &= ~DO_DEVICE_INITIALIZING;
                return STATUS_SUCCESS;
            }
            IoDeleteSymbolicLink(&l);
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
