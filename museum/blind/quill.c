/*
 * quill.sys: tells applications when one of the bench card's eight sources has been raised. IOCTL_QUILL_WAIT (in: a ULONG mask of sources, out: those
 * of them that came) ends with the next one; IOCTL_QUILL_RAISE (in: mask) raises sources by itself. A busy source cannot bury the system: after
 * an interrupt the card is masked, and unmasked by a timer half a millisecond later (interrupt moderation).
 *
 * The bug: going to sleep the driver saves the card's ENABLE register, and puts it back when it has power again. If the moderation timer was
 * running, what it saves (and, the timer being cancelled, puts back for good) is "everything masked".
 * It shows when the device (or the system) goes to sleep within half a millisecond after an interrupt: after that, waits never end.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-forgotten
 * Needs: ioctl, power
 */
#include <ddk/wdm.h>
#include <ddk/csq.h>

#define IOCTL_QUILL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_QUILL_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_ID 0x00 /* "Benc" */
#define REG_RAISE 0x08
#define REG_STATUS 0x0C /* a one written clears its bit */
#define REG_ENABLE 0x14
#define ALL_SOURCES 0xFF

#define HOLD_STOP 1
#define HOLD_SLEEP 2
#define HOLD_GONE 4

struct card {
    PDEVICE_OBJECT pdo, lower;
    UNICODE_STRING ifname;
    LONG refs;     /* one while the device is there, one for each request */
    KEVENT unused; /* refs is 0 */
    PUCHAR regs;
    ULONG regs_len;
    union {
        PIO_INTERRUPT_MESSAGE_INFO messages;
        PKINTERRUPT line;
        PVOID any;
    } conn;
    ULONG how; /* it is connected: CONNECT_ */
    BOOLEAN connected;
    KSPIN_LOCK irq_lock;
    BOOLEAN awake; /* by irq_lock */
    ULONG events;  /* seen by the service routine; by irq_lock */
    ULONG enabled; /* for the ENABLE register; by irq_lock */
    KDPC dpc, quiet_dpc;
    KTIMER quiet;
    KSPIN_LOCK lock; /* hold, and the queue */
    ULONG hold;      /* why the card is not touched */
    IO_CSQ csq;
    LIST_ENTRY waiters;
};

/* Who is taken from the queue. */
struct pick {
    PFILE_OBJECT file; /* of this file, or */
    ULONG events;      /* who waits for one of these, or (0) all */
};

static const GUID card_guid = {0x6f0a4b1d, 0x0d6e, 0x4f0e, {0x9a, 0x51, 0x33, 0x10, 0x5c, 0x7e, 0x0d, 0xa1}};
DRIVER_INITIALIZE DriverEntry;

#define rd(c, o) READ_REGISTER_ULONG((PULONG)((c)->regs + (o)))
#define wr(c, o, v) WRITE_REGISTER_ULONG((PULONG)((c)->regs + (o)), (v))

static NTSTATUS irp_end(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

static void card_put(struct card *c)
{
    if (InterlockedDecrement(&c->refs) == 0)
        KeSetEvent(&c->unused, IO_NO_INCREMENT, FALSE);
}

/* Nothing is begun on a card that is gone. */
static BOOLEAN card_get(struct card *c)
{
    InterlockedIncrement(&c->refs);
    if (!(*(volatile ULONG *)&c->hold & HOLD_GONE))
        return TRUE;
    card_put(c);
    return FALSE;
}

static PKINTERRUPT irq_object(struct card *c)
{
    return c->how == CONNECT_MESSAGE_BASED ? c->conn.messages->MessageInfo[0].InterruptObject : c->conn.line;
}

/* ---- interrupts ---- */

static BOOLEAN isr(struct card *c)
{
    ULONG status;

    if (!c->awake || (status = rd(c, REG_STATUS)) == 0xFFFFFFFF || (status & c->enabled) == 0)
        return FALSE;
    wr(c, REG_ENABLE, 0);
    c->enabled = 0;
    wr(c, REG_STATUS, status);
    rd(c, REG_ID); /* posted writes */
    c->events |= status;
    KeInsertQueueDpc(&c->dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI isr_line(PKINTERRUPT, PVOID ctx)
{
    return isr(ctx);
}

static BOOLEAN NTAPI isr_message(PKINTERRUPT, PVOID ctx, ULONG)
{
    return isr(ctx);
}

static VOID NTAPI irq_dpc(PKDPC, PVOID ctx, PVOID, PVOID)
{
    struct card *c = ctx;
    LARGE_INTEGER due = {.QuadPart = -5000};
    struct pick pick = {NULL, 0};
    BOOLEAN awake;
    KIRQL irql;
    PIRP irp;

    irql = KeAcquireInterruptSpinLock(irq_object(c));
    awake = c->awake;
    pick.events = c->events;
    c->events = 0;
    KeReleaseInterruptSpinLock(irq_object(c), irql);
    while (pick.events && (irp = IoCsqRemoveNextIrp(&c->csq, &pick)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer &= pick.events;
        irp_end(irp, STATUS_SUCCESS, sizeof(ULONG));
        card_put(c);
    }
    if (awake)
        KeSetTimer(&c->quiet, due, &c->quiet_dpc);
}

static VOID NTAPI quiet_over(PKDPC, PVOID ctx, PVOID, PVOID)
{
    struct card *c = ctx;
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(irq_object(c));
    if (c->awake) {
        c->enabled = ALL_SOURCES;
        wr(c, REG_ENABLE, c->enabled);
    }
    KeReleaseInterruptSpinLock(irq_object(c), irql);
}

static void hw_irq(struct card *c, BOOLEAN on, BOOLEAN touch)
{
    KIRQL irql = KeAcquireInterruptSpinLock(irq_object(c));

#ifdef FIXED
    c->enabled = ALL_SOURCES;
#else
    if (!on && touch)
        c->enabled = rd(c, REG_ENABLE);
#endif
    c->awake = on;
    if (touch) {
        wr(c, REG_ENABLE, on ? c->enabled : 0);
        rd(c, REG_ID);
    }
    KeReleaseInterruptSpinLock(irq_object(c), irql);
}

/* ---- the queue ---- */

static NTSTATUS NTAPI q_insert(PIO_CSQ csq, PIRP irp, PVOID)
{
    struct card *c = CONTAINING_RECORD(csq, struct card, csq);

    if (c->hold & HOLD_GONE)
        return STATUS_DELETE_PENDING;
    InsertTailList(&c->waiters, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI q_remove(PIO_CSQ, PIRP irp)
{
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI q_peek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    struct card *c = CONTAINING_RECORD(csq, struct card, csq);
    struct pick *pick = context;
    PLIST_ENTRY at = irp ? irp->Tail.Overlay.ListEntry.Flink : c->waiters.Flink;

    for (; at != &c->waiters; at = at->Flink) {
        irp = CONTAINING_RECORD(at, IRP, Tail.Overlay.ListEntry);
        if (pick->file && IoGetCurrentIrpStackLocation(irp)->FileObject != pick->file)
            continue;
        if (!pick->events || (*(PULONG)irp->AssociatedIrp.SystemBuffer & pick->events))
            return irp;
    }
    return NULL;
}

static VOID NTAPI q_lock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, struct card, csq)->lock, irql);
}

static VOID NTAPI q_unlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, struct card, csq)->lock, irql);
}

static VOID NTAPI q_cancelled(PIO_CSQ csq, PIRP irp)
{
    irp_end(irp, STATUS_CANCELLED, 0);
    card_put(CONTAINING_RECORD(csq, struct card, csq));
}

static void card_flush(struct card *c, PFILE_OBJECT file, NTSTATUS st)
{
    struct pick pick = {file, 0};
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&c->csq, &pick)) != NULL) {
        irp_end(irp, st, 0);
        card_put(c);
    }
}

/* Waiting does no harm to a card that is stopped or asleep; raising does. */
static void card_resume(struct card *c, ULONG why)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->lock, &irql);
    c->hold &= ~why;
    KeReleaseSpinLock(&c->lock, irql);
}

static void card_pause(struct card *c, ULONG why)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->lock, &irql);
    c->hold |= why;
    KeReleaseSpinLock(&c->lock, irql);
    if (why != HOLD_STOP)
        KeCancelTimer(&c->quiet);
}

static NTSTATUS NTAPI card_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
    struct card *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PULONG mask = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;

    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_QUILL_WAIT &&
        sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_QUILL_RAISE)
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
    if ((*mask & ALL_SOURCES) == 0 || (*mask & ~ALL_SOURCES) != 0)
        return irp_end(irp, STATUS_INVALID_PARAMETER, 0);
    if (!card_get(c))
        return irp_end(irp, STATUS_DELETE_PENDING, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_QUILL_RAISE) {
        KeAcquireSpinLock(&c->lock, &irql);
        if (c->hold)
            st = STATUS_DEVICE_NOT_READY;
        else
            wr(c, REG_RAISE, *mask);
        KeReleaseSpinLock(&c->lock, irql);
        irp_end(irp, st, 0);
    } else if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        irp_end(irp, st = STATUS_BUFFER_TOO_SMALL, 0);
    } else {
        InterlockedIncrement(&c->refs); /* the queue's */
        st = IoCsqInsertIrpEx(&c->csq, irp, NULL, NULL);
        if (NT_SUCCESS(st)) {
            st = STATUS_PENDING;
        } else {
            irp_end(irp, st, 0);
            card_put(c);
        }
    }
    card_put(c);
    return st;
}

static NTSTATUS NTAPI card_file(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);

    if (sp->MajorFunction == IRP_MJ_CLEANUP)
        card_flush(dev->DeviceExtension, sp->FileObject, STATUS_CANCELLED);
    return irp_end(irp, STATUS_SUCCESS, 0);
}

/* ---- bus glue ---- */

static void hw_detach(struct card *c, BOOLEAN present)
{
    if (c->connected) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS p = {.Version = c->how, .ConnectionContext.Generic = c->conn.any};

        hw_irq(c, FALSE, present && !(c->hold & HOLD_SLEEP));
        KeFlushQueuedDpcs(); /* the last to set the timer */
        KeCancelTimer(&c->quiet);
        KeFlushQueuedDpcs();
        IoDisconnectInterruptEx(&p);
        c->connected = FALSE;
        KeFlushQueuedDpcs();
    }
    if (c->regs)
        MmUnmapIoSpace(c->regs, c->regs_len);
    c->regs = NULL;
}

static NTSTATUS hw_attach(struct card *c, PCM_RESOURCE_LIST res)
{
    PCM_PARTIAL_RESOURCE_LIST list = res ? &res->List[0].PartialResourceList : NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS p = {.Version = CONNECT_MESSAGE_BASED};
    NTSTATUS st = STATUS_DEVICE_CONFIGURATION_ERROR;

    for (ULONG i = 0; list && i < list->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR r = &list->PartialDescriptors[i];

        if (r->Type == CmResourceTypeMemory && !c->regs && r->u.Memory.Length >= 0x100) {
            c->regs_len = r->u.Memory.Length;
            c->regs = MmMapIoSpace(r->u.Memory.Start, c->regs_len, MmNonCached);
        }
    }
    if (!c->regs || rd(c, REG_ID) != 0x636E6542)
        goto fail;
    c->enabled = ALL_SOURCES;
    wr(c, REG_ENABLE, 0);
    rd(c, REG_ID);
    p.MessageBased.PhysicalDeviceObject = c->pdo;
    p.MessageBased.ConnectionContext.Generic = &c->conn.any;
    p.MessageBased.MessageServiceRoutine = isr_message;
    p.MessageBased.FallBackServiceRoutine = isr_line;
    p.MessageBased.ServiceContext = c;
    p.MessageBased.SpinLock = &c->irq_lock;
    st = IoConnectInterruptEx(&p);
    if (!NT_SUCCESS(st))
        goto fail;
    c->how = p.Version;
    c->connected = TRUE;
    hw_irq(c, TRUE, TRUE);
    st = IoSetDeviceInterfaceState(&c->ifname, TRUE);
    if (!NT_SUCCESS(st))
        goto fail;
    card_resume(c, HOLD_STOP | HOLD_SLEEP);
    return STATUS_SUCCESS;
fail:
    hw_detach(c, TRUE);
    return st;
}

static NTSTATUS NTAPI wake_up(PDEVICE_OBJECT, PIRP, PVOID ev)
{
    KeSetEvent(ev, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS down_and_wait(struct card *c, PIRP irp)
{
    KEVENT ev;

    KeInitializeEvent(&ev, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(irp);
    IoSetCompletionRoutine(irp, wake_up, &ev, TRUE, TRUE, TRUE);
    if (IoCallDriver(c->lower, irp) == STATUS_PENDING)
        KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
    return irp->IoStatus.Status;
}

static NTSTATUS NTAPI card_pass(PDEVICE_OBJECT dev, PIRP irp)
{
    IoSkipCurrentIrpStackLocation(irp);
    return IoCallDriver(((struct card *)dev->DeviceExtension)->lower, irp);
}

static NTSTATUS NTAPI card_pnp(PDEVICE_OBJECT dev, PIRP irp)
{
    struct card *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st;

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = down_and_wait(c, irp);
        if (NT_SUCCESS(st))
            st = hw_attach(c, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        return irp_end(irp, st, 0);
    case IRP_MN_CANCEL_STOP_DEVICE:
        down_and_wait(c, irp);
        if (c->regs)
            card_resume(c, HOLD_STOP);
        return irp_end(irp, STATUS_SUCCESS, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
        card_pause(c, HOLD_STOP);
        break;
    case IRP_MN_STOP_DEVICE:
        card_pause(c, HOLD_STOP);
        hw_detach(c, TRUE);
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        card_pause(c, HOLD_GONE);
        hw_detach(c, FALSE);
        card_flush(c, NULL, STATUS_DELETE_PENDING);
        IoSetDeviceInterfaceState(&c->ifname, FALSE);
        break;
    case IRP_MN_REMOVE_DEVICE:
        card_pause(c, HOLD_GONE);
        hw_detach(c, TRUE);
        card_flush(c, NULL, STATUS_DELETE_PENDING);
        IoSetDeviceInterfaceState(&c->ifname, FALSE);
        card_put(c);
        KeWaitForSingleObject(&c->unused, Executive, KernelMode, FALSE, NULL);
        KeFlushQueuedDpcs();
        irp->IoStatus.Status = STATUS_SUCCESS;
        st = card_pass(dev, irp);
        IoDetachDevice(c->lower);
        RtlFreeUnicodeString(&c->ifname);
        IoDeleteDevice(dev);
        return st;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (sp->Parameters.UsageNotification.InPath)
            return irp_end(irp, STATUS_UNSUCCESSFUL, 0);
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;
    default:
        return card_pass(dev, irp);
    }
    irp->IoStatus.Status = STATUS_SUCCESS;
    return card_pass(dev, irp);
}

static VOID NTAPI power_followed(PDEVICE_OBJECT, UCHAR, POWER_STATE, PVOID ctx, PIO_STATUS_BLOCK io)
{
    PIRP irp = ctx;
    struct card *c = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    PoStartNextPowerIrp(irp);
    irp_end(irp, io->Status, 0);
    card_put(c);
}

static NTSTATUS NTAPI power_system(PDEVICE_OBJECT dev, PIRP irp, PVOID)
{
    struct card *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE want = {.DeviceState = PowerDeviceD3};
    NTSTATUS st = irp->IoStatus.Status;

    if (sp->Parameters.Power.State.SystemState == PowerSystemWorking)
        want.DeviceState = PowerDeviceD0;
    if (NT_SUCCESS(st))
        st = PoRequestPowerIrp(c->pdo, sp->MinorFunction, want, power_followed, irp, NULL);
    if (st == STATUS_PENDING)
        return STATUS_MORE_PROCESSING_REQUIRED;
    irp->IoStatus.Status = st;
    PoStartNextPowerIrp(irp);
    card_put(c);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI power_up(PDEVICE_OBJECT dev, PIRP irp, PVOID)
{
    struct card *c = dev->DeviceExtension;

    if (NT_SUCCESS(irp->IoStatus.Status)) {
        PoSetPowerState(dev, DevicePowerState, IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State);
        if (c->connected)
            hw_irq(c, TRUE, TRUE);
        card_resume(c, HOLD_SLEEP);
    }
    PoStartNextPowerIrp(irp);
    card_put(c);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI card_power(PDEVICE_OBJECT dev, PIRP irp)
{
    struct card *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PIO_COMPLETION_ROUTINE then = NULL;
    NTSTATUS st;

    if (!card_get(c)) {
        PoStartNextPowerIrp(irp);
        return irp_end(irp, STATUS_DELETE_PENDING, 0);
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER) {
        if (sp->Parameters.Power.Type == SystemPowerState)
            then = power_system;
        else if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.State.DeviceState == PowerDeviceD0)
            then = power_up;
        else if (sp->MinorFunction == IRP_MN_SET_POWER && !(c->hold & HOLD_SLEEP)) {
            PoSetPowerState(dev, DevicePowerState, sp->Parameters.Power.State);
            card_pause(c, HOLD_SLEEP);
            if (c->connected) {
                hw_irq(c, FALSE, TRUE);
                KeFlushQueuedDpcs();
            }
        }
    }
    if (then) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, then, NULL, TRUE, TRUE, TRUE);
        PoCallDriver(c->lower, irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    st = PoCallDriver(c->lower, irp);
    card_put(c);
    return st;
}

static NTSTATUS NTAPI card_add(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    struct card *c;
    NTSTATUS st = IoCreateDevice(drv, sizeof(*c), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);

    if (!NT_SUCCESS(st))
        return st;
    c = dev->DeviceExtension;
    c->pdo = pdo;
    c->refs = 1;
    c->hold = HOLD_STOP;
    KeInitializeEvent(&c->unused, NotificationEvent, FALSE);
    KeInitializeSpinLock(&c->lock);
    KeInitializeSpinLock(&c->irq_lock);
    KeInitializeDpc(&c->dpc, irq_dpc, c);
    KeInitializeDpc(&c->quiet_dpc, quiet_over, c);
    KeInitializeTimer(&c->quiet);
    InitializeListHead(&c->waiters);
    IoCsqInitializeEx(&c->csq, q_insert, q_remove, q_peek, q_lock, q_unlock, q_cancelled);
    st = IoRegisterDeviceInterface(pdo, &card_guid, NULL, &c->ifname);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    c->lower = IoAttachDeviceToDeviceStack(dev, pdo);
    if (!c->lower) {
        RtlFreeUnicodeString(&c->ifname);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags = (dev->Flags | DO_BUFFERED_IO | DO_POWER_PAGABLE) & ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI card_unload(PDRIVER_OBJECT) {}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING)
{
    drv->MajorFunction[IRP_MJ_CREATE] = card_file;
    drv->MajorFunction[IRP_MJ_CLEANUP] = card_file;
    drv->MajorFunction[IRP_MJ_CLOSE] = card_file;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = card_ioctl;
    drv->MajorFunction[IRP_MJ_PNP] = card_pnp;
    drv->MajorFunction[IRP_MJ_POWER] = card_power;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = card_pass;
    drv->DriverExtension->AddDevice = card_add;
    drv->DriverUnload = card_unload;
    return STATUS_SUCCESS;
}
