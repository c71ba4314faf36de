/*
 * Reads and writes the card's memory by its second bus master, from and to the elements of the
 * request's scatter/gather list, one element after the other; one request at a time.
 *
 * The bug: the first element is programmed with the length of the whole request as if the pages of the
 * buffer lay side by side, so the card reads or writes memory that belongs to others.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: dma-behind-mapping
 * Needs: nothing
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
    PUCHAR Regs, Mem;
    ULONG RegsLength, MemLength;
    PKINTERRUPT Int;
    BOOLEAN Live;               /* the card may interrupt; changed at the interrupt's level only */
    BOOLEAN Ready;              /* mapped and connected; under Lock */
    KSPIN_LOCK Lock;
    BOOLEAN Dead;               /* under Lock: no more requests */
    ULONG Holds;                /* under Lock: why no request may be started */
    PIRP Cur;                   /* under Lock: who takes it from here completes it */
    KEVENT Idle;                /* no Cur */
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    PSCATTER_GATHER_LIST List;  /* under Lock, as all below: of Cur, while the card works */
    ULONG Element, Moved, Length, Tries;
    KTIMER Timer;               /* every 50 ms; who lasts Ticks of it has failed */
    KDPC TimerDpc, IsrDpc;
    ULONG Ticks;
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
#define SOURCE      1u

/* bus master 2; of COMMAND bit 0 starts (0 stops), bit 1 moves from the card to memory */
#define DMA2_LOW     0x50
#define DMA2_HIGH    0x54
#define DMA2_LENGTH  0x58
#define DMA2_OFFSET  0x5C
#define DMA2_COMMAND 0x60
#define DMA2_MOVED   0x68
#define DMA2_DELAY   0x6C
#define START_DMA    1u
#define FROM_CARD    2u
#define MAX_LENGTH  0x8000u

static BOOLEAN NTAPI SyncOn(PVOID ctx)
{
    PDEV d = ctx;
    WR(d, ENABLE, 0);
    WR(d, STATUS, ~0u);
    WR(d, ENABLE, SOURCE);
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
    if (s == ~0u || !(s & SOURCE)) return FALSE;
    WR(d, STATUS, SOURCE);
    if (RD(d, STATUS) & SOURCE)
        WR(d, ENABLE, 0);       /* does not go away: off until the next request */
    KeInsertQueueDpc(&d->IsrDpc, NULL, NULL);
    return TRUE;
}

/* the request that the card works at, for the one who may complete it; Lock is held */
static PIRP TakeCurrent(PDEV d)
{
    PIRP irp = d->Cur;
    d->Cur = NULL;
    KeSetEvent(&d->Idle, IO_NO_INCREMENT, FALSE);
    return irp;
}

/* Lock is held: has the card move the next element, and signal when that should have been done */
static VOID StartElement(PDEV d)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(d->Cur);
    PSCATTER_GATHER_ELEMENT e = &d->List->Elements[d->Element];
#ifdef FIXED
    d->Length = e->Length;
#else
    d->Length = sl->Parameters.Read.Length;
#endif
    d->Tries = 0;
    d->Ticks = 3;
    WR(d, DMA2_LOW, e->Address.LowPart);
    WR(d, DMA2_HIGH, (ULONG)e->Address.HighPart);
    WR(d, DMA2_LENGTH, d->Length);
    WR(d, DMA2_OFFSET, sl->Parameters.Read.ByteOffset.LowPart + d->Moved);
    WR(d, DMA2_MOVED, 0);
    WR(d, DMA2_DELAY, 5000);
    WR(d, ENABLE, SOURCE);
    WR(d, DELAY, 12000);
    WR(d, DMA2_COMMAND, START_DMA | (sl->MajorFunction == IRP_MJ_READ ? FROM_CARD : 0));
    WR(d, RAISE, SOURCE);
}

static VOID NTAPI GotList(PDEVICE_OBJECT o, PIRP current, PSCATTER_GATHER_LIST list, PVOID ctx)
{
    PDEV d = ctx;
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    d->List = list;
    d->Element = d->Moved = 0;
    StartElement(d);
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
}

/* Lock is held: gives the list back, which flushes what has to be, and Cur with it */
static PIRP End(PDEV d)
{
    d->Adapter->DmaOperations->PutScatterGatherList(d->Adapter, d->List, IoGetCurrentIrpStackLocation(d->Cur)->MajorFunction == IRP_MJ_WRITE);
    d->List = NULL;
    return TakeCurrent(d);
}

static PIRP GiveUp(PDEV d)
{
    WR(d, DMA2_COMMAND, 0);
    (void)RD(d, DMA2_COMMAND);
    return End(d);
}

static VOID NTAPI IsrDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    PDEV d = ctx;
    NTSTATUS s = STATUS_SUCCESS;
    PIRP irp = NULL;
    ULONG n = 0;
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    if (d->List) {
        n = RD(d, DMA2_MOVED);
        if (n == d->Length) {
            d->Moved += n;
            if (d->Moved < IoGetCurrentIrpStackLocation(d->Cur)->Parameters.Read.Length) {
                d->Element++;
                StartElement(d);
            } else irp = End(d);
        } else if (n != ~0u && ++d->Tries < 500) {      /* late: signal again */
            WR(d, ENABLE, SOURCE);
            WR(d, RAISE, SOURCE);
        } else {
            irp = GiveUp(d);
            s = STATUS_IO_DEVICE_ERROR;
        }
        n = d->Moved;
    }
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    if (irp) Finish(d, irp, s, NT_SUCCESS(s) ? n : 0);
}

static VOID NTAPI TimerDpc(PKDPC dpc, PVOID ctx, PVOID a, PVOID b)
{
    PDEV d = ctx;
    PIRP irp = NULL;
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    if (d->List && --d->Ticks == 0) irp = GiveUp(d);
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    if (irp) Finish(d, irp, STATUS_IO_TIMEOUT, 0);
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
    KeCancelTimer(&d->Timer);
    KeFlushQueuedDpcs();
    if (d->Adapter) d->Adapter->DmaOperations->PutDmaAdapter(d->Adapter);
    d->Adapter = NULL;
    if (d->Mem) MmUnmapIoSpace(d->Mem, d->MemLength);
    if (d->Regs) MmUnmapIoSpace(d->Regs, d->RegsLength);
    d->Mem = d->Regs = NULL;
    d->MemLength = 0;
}

static NTSTATUS HwStart(PDEV d, PCM_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r, regs = NULL, mem = NULL, line = NULL;
    PCM_PARTIAL_RESOURCE_LIST pl;
    NTSTATUS s;
    ULONG i;
    KIRQL k;
    LARGE_INTEGER due;
    DEVICE_DESCRIPTION dd;
    if (!list || !list->Count) return STATUS_DEVICE_CONFIGURATION_ERROR;
    pl = &list->List[0].PartialResourceList;
    for (i = 0; i < pl->Count; i++) {
        r = &pl->PartialDescriptors[i];
        if (r->Type == CmResourceTypeMemory) {
            *(regs ? &mem : &regs) = r;
        } else if (r->Type == CmResourceTypeInterrupt && !line) line = r;
    }
    if (!regs || !mem || !line || regs->u.Memory.Length < 0x70 || mem->u.Memory.Length < 0x1000)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->RegsLength = regs->u.Memory.Length;
    d->Regs = MmMapIoSpace(regs->u.Memory.Start, d->RegsLength, MmNonCached);
    d->MemLength = mem->u.Memory.Length;
    d->Mem = MmMapIoSpace(mem->u.Memory.Start, d->MemLength, MmNonCached);
    s = STATUS_INSUFFICIENT_RESOURCES;
    if (!d->Regs || !d->Mem) goto fail;
    s = STATUS_DEVICE_DOES_NOT_EXIST;
    i = RD(d, SOURCES);
    if (i == ~0u || i < 1) goto fail;
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
    due.QuadPart = -50 * 10000ll;
    KeSetTimerEx(&d->Timer, due, 50, &d->TimerDpc);
    RtlZeroMemory(&dd, sizeof(dd));
    dd.Version = DEVICE_DESCRIPTION_VERSION;
    dd.Master = TRUE;
    dd.ScatterGather = TRUE;
    dd.Dma32BitAddresses = TRUE;
    dd.Dma64BitAddresses = TRUE;
    dd.InterfaceType = PCIBus;
    dd.MaximumLength = MAX_LENGTH;
    d->Adapter = IoGetDmaAdapter(d->Pdo, &dd, &d->MapRegisters);
    if (!d->Adapter) {
        s = STATUS_INSUFFICIENT_RESOURCES;
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

static VOID Hold(PDEV d, ULONG why)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Holds |= why;
    KeReleaseSpinLock(&d->Lock, k);
    KeWaitForSingleObject(&d->Idle, Executive, KernelMode, FALSE, NULL);    /* the watchdog ends it at the latest */
}

static VOID Unhold(PDEV d, ULONG why)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Holds &= ~why;
    KeReleaseSpinLock(&d->Lock, k);
}

/* a buffer that the card may be writing to is not given back before it has ended */
static VOID Kill(PDEV d)
{
    KIRQL k;
    KeAcquireSpinLock(&d->Lock, &k);
    d->Dead = TRUE;
    KeReleaseSpinLock(&d->Lock, k);
    KeWaitForSingleObject(&d->Idle, Executive, KernelMode, FALSE, NULL);
}

/* may a request be started now? Lock is held */
static NTSTATUS CanStart(PDEV d)
{
    if (d->Dead) return STATUS_DELETE_PENDING;
    if (d->Holds) return STATUS_DEVICE_NOT_READY;
    return d->Cur ? STATUS_DEVICE_BUSY : STATUS_SUCCESS;
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT o, PIRP irp)
{
    PDEV d = o->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    ULONG length = sl->Parameters.Read.Length;
    LONGLONG at = sl->Parameters.Read.ByteOffset.QuadPart;
    BOOLEAN write = sl->MajorFunction == IRP_MJ_WRITE;
    PMDL mdl = irp->MdlAddress;
    NTSTATUS s;
    KIRQL k;
    if (!Enter(d)) return Done(irp, STATUS_NO_SUCH_DEVICE, 0);
    if (!length || length > MAX_LENGTH) {
        s = length ? STATUS_INVALID_PARAMETER : STATUS_SUCCESS;
        Finish(d, irp, s, 0);
        return s;
    }
    KeAcquireSpinLock(&d->Lock, &k);
    s = CanStart(d);
    if (NT_SUCCESS(s) && (RD(d, DMA2_COMMAND) & START_DMA)) s = STATUS_DEVICE_BUSY; /* with one that was given up */
    if (NT_SUCCESS(s) && (at < 0 || at > d->MemLength || length > d->MemLength - at)) s = STATUS_INVALID_PARAMETER;
    if (NT_SUCCESS(s)) {
        IoMarkIrpPending(irp);
        d->Cur = irp;
        KeClearEvent(&d->Idle);
    }
    KeReleaseSpinLock(&d->Lock, k);
    if (!NT_SUCCESS(s)) {
        Finish(d, irp, s, 0);
        return s;
    }
    KeRaiseIrql(DISPATCH_LEVEL, &k);
    s = d->Adapter->DmaOperations->GetScatterGatherList(d->Adapter, o, mdl, MmGetMdlVirtualAddress(mdl), length, GotList, d, write);
    if (!NT_SUCCESS(s)) {
        KeAcquireSpinLockAtDpcLevel(&d->Lock);
        TakeCurrent(d);
        KeReleaseSpinLockFromDpcLevel(&d->Lock);
    }
    KeLowerIrql(k);
    if (!NT_SUCCESS(s)) Finish(d, irp, s, 0);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

/* requests are short: what the card works at ends by itself */
static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT o, PIRP irp) { return Done(irp, STATUS_SUCCESS, 0); }

static NTSTATUS Setup(PDEV d)
{
    KeInitializeSpinLock(&d->Lock);
    KeInitializeEvent(&d->Idle, NotificationEvent, TRUE);
    d->Holds = HOLD_STOP;
    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->TimerDpc, TimerDpc, d);
    KeInitializeDpc(&d->IsrDpc, IsrDpc, d);
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
    WCHAR name[] = L"\\Device\\bsglist0", link[] = L"\\DosDevices\\bsglist0";
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
                o->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
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
    drv->MajorFunction[IRP_MJ_READ] = ReadWrite;
    drv->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    drv->MajorFunction[IRP_MJ_PNP] = drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = Pnp;
    drv->MajorFunction[IRP_MJ_POWER] = Power;
    drv->DriverExtension->AddDevice = AddDevice;
    drv->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
