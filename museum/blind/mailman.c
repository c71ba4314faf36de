/*
 * mailman.sys: QEMU's educational device has two engines that work beside each other, and so has this driver: IOCTL_MAILMAN_FACTORIAL (a ULONG in,
 * a ULONG out) is computed while IOCTL_MAILMAN_STORE (up to 4096 bytes in) or IOCTL_MAILMAN_FETCH (out) goes by DMA through a common buffer. Each
 * engine has its own queue; a request can be cancelled at any time, its engine then is busy until the card is done.
 *
 * The bug: the service routine acknowledges all that there could be instead of what it has seen. If the other engine's interrupt comes between the
 * read of the status and the acknowledgement, it is acknowledged unseen: that engine stays busy, and its requests wait forever.
 * It shows when a transfer and a factorial of two requests end within a fraction of a microsecond of each other.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include <ddk/csq.h>

#define IOCTL_MAILMAN_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MAILMAN_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MAILMAN_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20 /* 1: computing, 80h: interrupt when it is over */
#define EDU_INT_STATUS 0x24
#define EDU_INT_ACK 0x64
#define EDU_DMA_SRC 0x80
#define EDU_DMA_DST 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD 0x98 /* 1: run, 2: to memory, 4: interrupt */
#define EDU_BUFFER 0x40000
#define EDU_BUFFER_LEN 4096

#define HOLD_STOP 1
#define HOLD_SLEEP 2
#define HOLD_GONE 4

struct engine {
    struct card *card;
    ULONG bit; /* of the interrupt status */
    IO_CSQ csq;
    LIST_ENTRY queue;
    PIRP active;  /* still in the queue */
    BOOLEAN busy; /* the card is at it */
};

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
    LONG seen;
    KDPC dpc;
    PDMA_ADAPTER dma;
    PUCHAR common;
    PHYSICAL_ADDRESS common_at;
    KSPIN_LOCK lock; /* hold, and the engines */
    ULONG hold;      /* why nothing is begun */
    struct engine math, mover;
};

static const GUID card_guid = {0x6f0a4b12, 0x0d6e, 0x4f0e, {0x9a, 0x51, 0x33, 0x10, 0x5c, 0x7e, 0x02, 0xa1}};
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

/* ---- the engines ---- */

/* With the lock held. */
static void engine_next(struct engine *e)
{
    struct card *c = e->card;
    PIO_STACK_LOCATION sp;
    BOOLEAN fetch;

    if (c->hold || e->busy || IsListEmpty(&e->queue))
        return;
    e->busy = TRUE;
    if (rd(c, e == &c->math ? EDU_STATUS : EDU_DMA_CMD) & 1)
        return; /* not done with something that was given up: its interrupt will come */
    e->active = CONTAINING_RECORD(e->queue.Flink, IRP, Tail.Overlay.ListEntry);
    sp = IoGetCurrentIrpStackLocation(e->active);
    if (e == &c->math) {
        wr(c, EDU_FACTORIAL, *(PULONG)e->active->AssociatedIrp.SystemBuffer);
        return;
    }
    fetch = sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_MAILMAN_FETCH;
    if (!fetch)
        RtlCopyMemory(c->common, e->active->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.InputBufferLength);
    wr(c, EDU_DMA_SRC, fetch ? EDU_BUFFER : c->common_at.LowPart);
    wr(c, EDU_DMA_DST, fetch ? c->common_at.LowPart : EDU_BUFFER);
    wr(c, EDU_DMA_COUNT,
       fetch ? sp->Parameters.DeviceIoControl.OutputBufferLength : sp->Parameters.DeviceIoControl.InputBufferLength);
    wr(c, EDU_DMA_CMD, fetch ? 7 : 5);
}

static void engine_done(struct engine *e)
{
    struct card *c = e->card;
    PIRP irp = IoCsqRemoveNextIrp(&e->csq, &e->active);
    PIO_STACK_LOCATION sp = irp ? IoGetCurrentIrpStackLocation(irp) : NULL;
    ULONG_PTR info = 0;

    if (irp && e == &c->math) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = rd(c, EDU_FACTORIAL);
        info = sizeof(ULONG);
    } else if (irp && sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_MAILMAN_FETCH) {
        info = sp->Parameters.DeviceIoControl.OutputBufferLength;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, c->common, info);
    }
    KeAcquireSpinLockAtDpcLevel(&c->lock);
    e->busy = FALSE;
    engine_next(e);
    KeReleaseSpinLockFromDpcLevel(&c->lock);
    if (irp) {
        irp_end(irp, STATUS_SUCCESS, info);
        card_put(c);
    }
}

static VOID NTAPI irq_dpc(PKDPC, PVOID ctx, PVOID, PVOID)
{
    struct card *c = ctx;
    ULONG seen = InterlockedExchange(&c->seen, 0);

    if (seen & c->math.bit)
        engine_done(&c->math);
    if (seen & c->mover.bit)
        engine_done(&c->mover);
}

static BOOLEAN isr(struct card *c)
{
    ULONG status;

    if (!c->awake || (status = rd(c, EDU_INT_STATUS)) == 0 || status == 0xFFFFFFFF)
        return FALSE;
#ifdef FIXED
    wr(c, EDU_INT_ACK, status);
#else
    wr(c, EDU_INT_ACK, 0xFFFFFFFF);
#endif
    rd(c, EDU_INT_STATUS); /* posted writes */
    InterlockedOr(&c->seen, status);
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

/* ---- queues ---- */

static NTSTATUS NTAPI q_insert(PIO_CSQ csq, PIRP irp, PVOID)
{
    struct engine *e = CONTAINING_RECORD(csq, struct engine, csq);

    if (e->card->hold & HOLD_GONE)
        return STATUS_DELETE_PENDING;
    InsertTailList(&e->queue, &irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI q_remove(PIO_CSQ csq, PIRP irp)
{
    struct engine *e = CONTAINING_RECORD(csq, struct engine, csq);

    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    if (e->active == irp)
        e->active = NULL;
}

/* The active one, those of a file, or (NULL) all. */
static PIRP NTAPI q_peek(PIO_CSQ csq, PIRP irp, PVOID whose)
{
    struct engine *e = CONTAINING_RECORD(csq, struct engine, csq);
    PLIST_ENTRY at = irp ? irp->Tail.Overlay.ListEntry.Flink : e->queue.Flink;

    if (whose == &e->active)
        return irp ? NULL : e->active;
    for (; at != &e->queue; at = at->Flink) {
        irp = CONTAINING_RECORD(at, IRP, Tail.Overlay.ListEntry);
        if (!whose || IoGetCurrentIrpStackLocation(irp)->FileObject == whose)
            return irp;
    }
    return NULL;
}

static VOID NTAPI q_lock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, struct engine, csq)->card->lock, irql);
}

static VOID NTAPI q_unlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, struct engine, csq)->card->lock, irql);
}

static VOID NTAPI q_cancelled(PIO_CSQ csq, PIRP irp)
{
    irp_end(irp, STATUS_CANCELLED, 0);
    card_put(CONTAINING_RECORD(csq, struct engine, csq)->card);
}

static void engine_init(struct card *c, struct engine *e, ULONG bit)
{
    e->card = c;
    e->bit = bit;
    InitializeListHead(&e->queue);
    IoCsqInitializeEx(&e->csq, q_insert, q_remove, q_peek, q_lock, q_unlock, q_cancelled);
}

static void card_flush(struct card *c, PVOID whose, NTSTATUS st)
{
    struct engine *e = &c->math;
    PIRP irp;

    for (int i = 0; i < 2; i++, e = &c->mover)
        while ((irp = IoCsqRemoveNextIrp(&e->csq, whose)) != NULL) {
            irp_end(irp, st, 0);
            card_put(c);
        }
}

static void card_resume(struct card *c, ULONG why)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->lock, &irql);
    c->hold &= ~why;
    engine_next(&c->math);
    engine_next(&c->mover);
    KeReleaseSpinLock(&c->lock, irql);
}

static void engines_reset(struct card *c)
{
    KIRQL irql;

    KeAcquireSpinLock(&c->lock, &irql);
    c->math.active = c->mover.active = NULL; /* they are in their queues, and will be begun anew */
    c->math.busy = c->mover.busy = FALSE;
    KeReleaseSpinLock(&c->lock, irql);
}

/* Nothing is begun any more, and (TRUE) the card does not write to memory, nor interrupts for that: without power, it does neither. */
static BOOLEAN card_pause(struct card *c, ULONG why)
{
    BOOLEAN powered = !(c->hold & HOLD_SLEEP), quiet = FALSE;
    LARGE_INTEGER ms10 = {.QuadPart = -100000};
    KIRQL irql;
    ULONG cmd;

    KeAcquireSpinLock(&c->lock, &irql);
    c->hold |= why;
    KeReleaseSpinLock(&c->lock, irql);
    for (int i = 0; i < 500 && c->regs && powered && !quiet; i++) {
        cmd = rd(c, EDU_DMA_CMD);
        quiet = cmd == 0xFFFFFFFF || !(cmd & 1);
        if (!quiet)
            KeDelayExecutionThread(KernelMode, FALSE, &ms10);
    }
    if (why != HOLD_STOP)
        engines_reset(c);
    return quiet || !c->regs || !powered;
}

static NTSTATUS NTAPI card_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
    struct card *c = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    struct engine *e = &c->mover;
    NTSTATUS st;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MAILMAN_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return irp_end(irp, STATUS_BUFFER_TOO_SMALL, 0);
        e = &c->math;
        break;
    case IOCTL_MAILMAN_STORE:
        if (in == 0 || in > EDU_BUFFER_LEN)
            return irp_end(irp, STATUS_INVALID_BUFFER_SIZE, 0);
        break;
    case IOCTL_MAILMAN_FETCH:
        if (out == 0 || out > EDU_BUFFER_LEN)
            return irp_end(irp, STATUS_INVALID_BUFFER_SIZE, 0);
        break;
    default:
        return irp_end(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (!card_get(c))
        return irp_end(irp, STATUS_DELETE_PENDING, 0);
    InterlockedIncrement(&c->refs); /* the queue's */
    st = IoCsqInsertIrpEx(&e->csq, irp, NULL, NULL);
    if (!NT_SUCCESS(st)) {
        irp_end(irp, st, 0);
        card_put(c);
        card_put(c);
        return st;
    }
    KeAcquireSpinLock(&c->lock, &irql);
    engine_next(e);
    KeReleaseSpinLock(&c->lock, irql);
    card_put(c);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI card_file(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);

    if (sp->MajorFunction == IRP_MJ_CLEANUP)
        card_flush(dev->DeviceExtension, sp->FileObject, STATUS_CANCELLED);
    return irp_end(irp, STATUS_SUCCESS, 0);
}

static void hw_irq(struct card *c, BOOLEAN on, BOOLEAN touch)
{
    KIRQL irql = KeAcquireInterruptSpinLock(irq_object(c));

    c->awake = on;
    c->seen = 0;
    if (touch) {
        wr(c, EDU_STATUS, on ? 0x80 : 0);
        wr(c, EDU_INT_ACK, 0xFFFFFFFF);
        rd(c, EDU_INT_STATUS);
    }
    KeReleaseInterruptSpinLock(irq_object(c), irql);
}

static NTSTATUS common_make(struct card *c)
{
    DEVICE_DESCRIPTION d = {.Version = DEVICE_DESCRIPTION_VERSION2, .Master = TRUE, .InterfaceType = PCIBus};
    ULONG regs;

    d.MaximumLength = EDU_BUFFER_LEN; /* neither 32 nor 64 bits: the card has 28, so 24 */
    c->dma = IoGetDmaAdapter(c->pdo, &d, &regs);
    if (c->dma)
        c->common = c->dma->DmaOperations->AllocateCommonBuffer(c->dma, EDU_BUFFER_LEN, &c->common_at, FALSE);
    return c->common ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

/* ---- bus glue ---- */

static void hw_detach(struct card *c, BOOLEAN present)
{
    if (c->connected) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS p = {.Version = c->how, .ConnectionContext.Generic = c->conn.any};

        hw_irq(c, FALSE, present && !(c->hold & HOLD_SLEEP));
        IoDisconnectInterruptEx(&p);
        c->connected = FALSE;
        KeFlushQueuedDpcs();
    }
    engines_reset(c);
    if (c->common)
        c->dma->DmaOperations->FreeCommonBuffer(c->dma, EDU_BUFFER_LEN, c->common_at, c->common, FALSE);
    if (c->dma)
        c->dma->DmaOperations->PutDmaAdapter(c->dma);
    c->common = NULL;
    c->dma = NULL;
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

        if (r->Type == CmResourceTypeMemory && !c->regs && r->u.Memory.Length >= 0x1000) {
            c->regs_len = r->u.Memory.Length;
            c->regs = MmMapIoSpace(r->u.Memory.Start, c->regs_len, MmNonCached);
        }
    }
    if (!c->regs || (rd(c, EDU_ID) & 0xFFFF) != 0x00ED)
        goto fail;
    wr(c, EDU_STATUS, 0);
    wr(c, EDU_INT_ACK, 0xFFFFFFFF);
    rd(c, EDU_INT_STATUS);
    st = common_make(c);
    if (!NT_SUCCESS(st))
        goto fail;
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
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        down_and_wait(c, irp);
        if (c->regs)
            card_resume(c, HOLD_STOP);
        return irp_end(irp, STATUS_SUCCESS, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (!c->regs || card_pause(c, HOLD_STOP))
            break;
        card_resume(c, HOLD_STOP); /* the card works with memory yet */
        return irp_end(irp, STATUS_DEVICE_BUSY, 0);
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
        if (c->connected && (c->hold & HOLD_SLEEP)) /* else it is in D0, and may be at work */
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
    engine_init(c, &c->math, 0x001);
    engine_init(c, &c->mover, 0x100);
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
