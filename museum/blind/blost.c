/*
 * Two channels, sources 0 and 1: a request waits for the signal of its channel, which it asks the card
 * for; each channel has one request at a time.
 *
 * The bug: the interrupt routine overwrites the causes that an earlier interrupt left for the DPC
 * instead of adding to them, so if both channels signal before the DPC runs one signal is lost and its
 * request hangs.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-forgotten, request-timed-out
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
    BOOLEAN Ready;              /* mapped and connected; under Lock */
    KSPIN_LOCK Lock;
    BOOLEAN Dead;               /* under Lock, as all below */
    ULONG Holds;
    PIRP Waiting[2];            /* completed by who takes it from here and its cancel routine from it */
    ULONG Seen;                 /* at the interrupt's level: causes for the DPC */
    ULONG Stuck;                /* how often they did not go away */
    KDPC IsrDpc;
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

/* registers in the first window; the card's memory is the last one */
#define ID          0x00
#define SOURCES     0x04
#define RAISE       0x08
#define STATUS      0x0C
#define ENABLE      0x14
#define DELAY       0x20

#define RD(d, r)    READ_REGISTER_ULONG((PULONG)((d)->Regs + (r)))
#define WR(d, r, v) WRITE_REGISTER_ULONG((PULONG)((d)->Regs + (r)), (v))
#define BOTH        3u      /* sources 0 and 1 */
#define CODE(n)     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + (n), METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT  CODE(0)     /* in: ULONG, the channel, 0 or 1 */

static BOOLEAN NTAPI SyncOn(PVOID ctx)
{
    PDEV d = ctx;
    WR(d, ENABLE, 0);
    WR(d, STATUS, ~0u);
    WR(d, ENABLE, BOTH);
    (void)RD(d, ENABLE);
    d->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID ctx)
{
    PDEV d = ctx;
    d->Live = FALSE;
    if (!d->Gone) {
        WR(d, ENABLE, 0);
        WR(d, STATUS, ~0u);
        (void)RD(d, STATUS);    /* the writes have arrived */
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

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID ctx)
{
    PDEV d = ctx;
    ULONG s = d->Live ? RD(d, STATUS) : 0;
    if (s == ~0u || !(s & BOTH)) return FALSE;
    WR(d, STATUS, s & BOTH);
    d->Stuck = RD(d, STATUS) & s & BOTH ? d->Stuck + 1 : 0;
    if (d->Stuck > 16) WR(d, ENABLE, 0);        /* does not go away: off until the next request */
#ifdef FIXED
    d->Seen |= s & BOTH;
#else
    d->Seen = s & BOTH;
#endif
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

/* Lock is held: the channel's request, if its cancel routine has not got it */
static PIRP Take(PDEV d, ULONG ch)
{
    PIRP irp = d->Waiting[ch];
    if (!irp || !IoSetCancelRoutine(irp, NULL)) return NULL;
    d->Waiting[ch] = NULL;
    return irp;
}

static VOID NTAPI IsrDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    PDEV d = ctx;
    FETCH f = { d, 0 };
    PIRP irp[2] = { NULL, NULL };
    ULONG ch;
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    if (d->Ready) KeSynchronizeExecution(d->Int, SyncFetch, &f);
    for (ch = 0; ch < 2; ch++)
        if (f.Bits & (1u << ch)) irp[ch] = Take(d, ch);
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    for (ch = 0; ch < 2; ch++)
        if (irp[ch]) Finish(d, irp[ch], STATUS_SUCCESS, 0);
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
    if (!regs || !line || regs->u.Memory.Length < 0x70) return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegsLength = regs->u.Memory.Length;
    d->Regs = MmMapIoSpace(regs->u.Memory.Start, d->RegsLength, MmNonCached);
    s = STATUS_INSUFFICIENT_RESOURCES;
    if (!d->Regs) goto fail;
    s = STATUS_DEVICE_DOES_NOT_EXIST;
    i = RD(d, SOURCES);
    if (i == ~0u || i < 2) goto fail;
    d->Live = FALSE;
    WR(d, ENABLE, 0);
    (void)RD(d, ENABLE);
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

/* Lock is held: asks for the signals that are waited for */
static VOID Ask(PDEV d, ULONG bits)
{
    if (!d->Ready || d->Gone || d->Holds || !bits) return;
    WR(d, ENABLE, BOTH);
    WR(d, DELAY, 30000);
    WR(d, RAISE, bits);
}

/* waiting requests stay; what the card owes them is asked for again when the hold is over */
static VOID Hold(PDEV d, ULONG why)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Holds |= why;
    KeReleaseSpinLock(&d->Lock, k);
}

static VOID Unhold(PDEV d, ULONG why)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Holds &= ~why;
    Ask(d, (d->Waiting[0] ? 1 : 0) | (d->Waiting[1] ? 2 : 0));
    KeReleaseSpinLock(&d->Lock, k);
}

/* completes what waits: of one file, or all of it */
static VOID Flush(PDEV d, PFILE_OBJECT file, BOOLEAN dead, NTSTATUS s)
{
    PIRP irp[2] = { NULL, NULL };
    ULONG ch;
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Dead |= dead;
    for (ch = 0; ch < 2; ch++)
        if (d->Waiting[ch] && (!file || IoGetCurrentIrpStackLocation(d->Waiting[ch])->FileObject == file)) irp[ch] = Take(d, ch);
    KeReleaseSpinLock(&d->Lock, k);
    for (ch = 0; ch < 2; ch++)
        if (irp[ch]) Finish(d, irp[ch], s, 0);
}

static VOID Kill(PDEV d) { Flush(d, NULL, TRUE, STATUS_DELETE_PENDING); }

static VOID NTAPI Cancel(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    ULONG ch;
    KIRQL k;
    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&d->Lock, &k);
    for (ch = 0; ch < 2; ch++)
        if (d->Waiting[ch] == irp) d->Waiting[ch] = NULL;
    KeReleaseSpinLock(&d->Lock, k);
    Finish(d, irp, STATUS_CANCELLED, 0);
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS s = STATUS_SUCCESS;
    ULONG ch = 0;
    KIRQL k;
    if (!Enter(d)) return Done(irp, STATUS_NO_SUCH_DEVICE, 0);
    if (sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_WAIT) s = STATUS_INVALID_DEVICE_REQUEST;
    else if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) s = STATUS_BUFFER_TOO_SMALL;
    else if ((ch = *(PULONG)irp->AssociatedIrp.SystemBuffer) > 1) s = STATUS_INVALID_PARAMETER;
    if (NT_SUCCESS(s)) {
        KeAcquireSpinLock(&d->Lock, &k);
        if (d->Dead) s = STATUS_DELETE_PENDING;
        else if (d->Waiting[ch]) s = STATUS_DEVICE_BUSY;
        else {
            IoSetCancelRoutine(irp, Cancel);
            if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) s = STATUS_CANCELLED;
            else {
                IoMarkIrpPending(irp);
                d->Waiting[ch] = irp;
                Ask(d, 1u << ch);
                s = STATUS_PENDING;
            }
        }
        KeReleaseSpinLock(&d->Lock, k);
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
    KeInitializeSpinLock(&d->Lock);
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
    WCHAR name[] = L"\\Device\\blost0", link[] = L"\\DosDevices\\blost0";
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
