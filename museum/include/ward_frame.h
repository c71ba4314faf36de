/*
 * frame.h: what the drivers of this folder share.
 *
 *   QUAY   a cancel-safe queue of requests (IoCsq), that gives the remove lock back where there is one
 *   CRAFT  a PnP function driver: windows, one interrupt, a gate that is open while the device is started and in D0,
 *          power policy, a device interface. What is the driver's own stands in a PLAN.
 *   BOOTH  a control device with a name and a link
 *
 * The gate: PLAN.Serve is called inside it. Before the device stops, sleeps or leaves, the gate is shut, and shutting waits for all that are inside;
 * a request that pends is not inside any more. What pends on a QUAY stays there over D3 and stop, and is ended by PLAN.Scuttle at removal.
 */
#ifndef WW_FRAME_H
#define WW_FRAME_H

#define SPARE                                 /* a driver need not use it */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wunused-function"
#else
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#define WW_TAG 'yWWk'

#ifndef MdlMappingNoExecute
#define MdlMappingNoExecute 0x40000000
#endif
#define MAP_PRIORITY (NormalPagePriority | MdlMappingNoExecute)

/* ------------------------------------------------------------------ answers */

SPARE static NTSTATUS Answer(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* -------------------------------------------------------------------- QUAY */

typedef struct _QUAY QUAY;
struct _QUAY {
    IO_CSQ Csq;
    KSPIN_LOCK Spin;
    LIST_ENTRY Berths;
    PIO_REMOVE_LOCK Hold;                     /* given back for each request that ends, if there is one */
    void (*Leaving)(QUAY *, PIRP);            /* called before a cancelled request is completed, if there is one */
};

static VOID NTAPI QuayInsert(PIO_CSQ csq, PIRP irp)
{
    QUAY *q = CONTAINING_RECORD(csq, QUAY, Csq);
    InsertTailList(&q->Berths, &irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI QuayUnlink(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI QuayPeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    QUAY *q = CONTAINING_RECORD(csq, QUAY, Csq);
    PLIST_ENTRY at = irp ? irp->Tail.Overlay.ListEntry.Flink : q->Berths.Flink;
    for (; at != &q->Berths; at = at->Flink) {
        PIRP one = CONTAINING_RECORD(at, IRP, Tail.Overlay.ListEntry);
        if (!file || IoGetCurrentIrpStackLocation(one)->FileObject == (PFILE_OBJECT)file)
            return one;
    }
    return NULL;
}

static VOID NTAPI QuayLock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, QUAY, Csq)->Spin, irql);
}

static VOID NTAPI QuayUnlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, QUAY, Csq)->Spin, irql);
}

static void QuayEnd(QUAY *q, PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    PIO_REMOVE_LOCK hold = q->Hold;
    Answer(irp, status, information);
    if (hold)
        IoReleaseRemoveLock(hold, irp);
}

static VOID NTAPI QuayCancelled(PIO_CSQ csq, PIRP irp)
{
    QUAY *q = CONTAINING_RECORD(csq, QUAY, Csq);
    if (q->Leaving)
        q->Leaving(q, irp);
    QuayEnd(q, irp, STATUS_CANCELLED, 0);
}

SPARE static NTSTATUS QuayInit(QUAY *q, PIO_REMOVE_LOCK hold)
{
    KeInitializeSpinLock(&q->Spin);
    InitializeListHead(&q->Berths);
    q->Hold = hold;
    q->Leaving = NULL;
    return IoCsqInitialize(&q->Csq, QuayInsert, QuayUnlink, QuayPeek, QuayLock, QuayUnlock, QuayCancelled);
}

/* Takes the request; it is marked pending. Who calls returns what this returns. */
SPARE static NTSTATUS QuayPut(QUAY *q, PIRP irp)
{
    IoCsqInsertIrp(&q->Csq, irp, NULL);
    return STATUS_PENDING;
}

SPARE static PIRP QuayTake(QUAY *q, PFILE_OBJECT file)
{
    return IoCsqRemoveNextIrp(&q->Csq, file);
}

SPARE static void QuayFlush(QUAY *q, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;
    while ((irp = QuayTake(q, file)) != NULL)
        QuayEnd(q, irp, status, 0);
}

/* ------------------------------------------------------------------- CRAFT */

typedef struct _CRAFT CRAFT;

typedef struct _WINDOW {
    BOOLEAN Port;
    PUCHAR At;                                /* where it is mapped, or the port; NULL if the driver maps it itself */
    PHYSICAL_ADDRESS Raw;                     /* translated address */
    ULONG Length;
} WINDOW;

typedef struct _PLAN {
    ULONG Size;                               /* of the driver's structure, whose first member is a CRAFT */
    const GUID *Face;
    ULONG Buffering;                          /* DO_BUFFERED_IO or DO_DIRECT_IO */
    ULONG Windows;                            /* how many there must be */
    ULONG Least[2];                           /* bytes that the first two must have */
    BOOLEAN MapsItself;                       /* memory windows are mapped by Start */
    BOOLEAN Line;                             /* an interrupt is needed */
    NTSTATUS (*Outfit)(CRAFT *);              /* AddDevice; undoes itself if it fails */
    void (*Strip)(CRAFT *);                   /* removal: undoes Outfit */
    NTSTATUS (*Start)(CRAFT *);               /* windows are there, the interrupt is not connected; undoes itself if it fails */
    void (*Stop)(CRAFT *);                    /* undoes Start: no gate, no interrupt, no DPC any more */
    void (*Arm)(CRAFT *);                     /* started or back in D0; in step with the service routine (DIRQL) */
    void (*Run)(CRAFT *);                     /* after Arm, the gate is open; <= DISPATCH_LEVEL */
    void (*Drain)(CRAFT *);                   /* the gate is shut; interrupts still come; PASSIVE_LEVEL */
    void (*Disarm)(CRAFT *);                  /* makes the card silent, if it is there; DIRQL */
    void (*Idle)(CRAFT *);                    /* after Disarm and all DPCs of the interrupt; PASSIVE_LEVEL */
    void (*Scuttle)(CRAFT *);                 /* removal: ends all that pends */
    BOOLEAN (*Isr)(CRAFT *);
    void (*Dpc)(CRAFT *);
    NTSTATUS (*Serve)(CRAFT *, PIRP, PIO_STACK_LOCATION);   /* read, write, device control; sets Information; completes only what it returns as pending */
    NTSTATUS (*Open)(CRAFT *, PFILE_OBJECT);
    void (*Cleanup)(CRAFT *, PFILE_OBJECT);
    void (*Close)(CRAFT *, PFILE_OBJECT);
} PLAN;

struct _CRAFT {
    const PLAN *Plan;
    PDEVICE_OBJECT Fdo, Pdo, Lower;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Name;
    BOOLEAN Shown;                            /* the interface is enabled */
    KEVENT Turn;                              /* one at a time stops, puts to sleep, removes */
    KSPIN_LOCK Gate;                          /* of the next four */
    BOOLEAN Open, Started;
    volatile BOOLEAN Gone;
    LONG Inside;
    KEVENT Empty;                             /* set while no one is inside */
    volatile BOOLEAN Powered;
    volatile BOOLEAN Live;                    /* the service routine may look */
    WINDOW Window[6];
    ULONG Windows;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
};

static const PLAN *ThePlan;

SPARE static ULONG Rd(const WINDOW *w, ULONG offset)
{
    if (w->Port)
        return READ_PORT_ULONG((PULONG)(w->At + offset));
    return READ_REGISTER_ULONG((PULONG)(w->At + offset));
}

SPARE static void Wr(const WINDOW *w, ULONG offset, ULONG value)
{
    if (w->Port)
        WRITE_PORT_ULONG((PULONG)(w->At + offset), value);
    else
        WRITE_REGISTER_ULONG((PULONG)(w->At + offset), value);
}

/* Ends a request that Serve has left pending. */
SPARE static void CraftFinish(CRAFT *s, PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    Answer(irp, status, information);
    IoReleaseRemoveLock(&s->Lock, irp);
}

SPARE static void CraftSync(CRAFT *s, PKSYNCHRONIZE_ROUTINE routine, PVOID context)
{
    if (s->Interrupt)
        KeSynchronizeExecution(s->Interrupt, routine, context);
    else
        routine(context);
}

static BOOLEAN GateEnter(CRAFT *s)
{
    KIRQL irql;
    BOOLEAN open;
    KeAcquireSpinLock(&s->Gate, &irql);
    open = s->Open;
    if (open && s->Inside++ == 0)
        KeClearEvent(&s->Empty);
    KeReleaseSpinLock(&s->Gate, irql);
    return open;
}

static void GateLeave(CRAFT *s)
{
    KIRQL irql;
    KeAcquireSpinLock(&s->Gate, &irql);
    if (--s->Inside == 0)
        KeSetEvent(&s->Empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&s->Gate, irql);
}

static void GateShut(CRAFT *s)
{
    KIRQL irql;
    KeAcquireSpinLock(&s->Gate, &irql);
    s->Open = FALSE;
    KeReleaseSpinLock(&s->Gate, irql);
    KeWaitForSingleObject(&s->Empty, Executive, KernelMode, FALSE, NULL);
    /* who has set the event may still hold the lock */
    KeAcquireSpinLock(&s->Gate, &irql);
    KeReleaseSpinLock(&s->Gate, irql);
}

static BOOLEAN NTAPI CraftArmSync(PVOID context)
{
    CRAFT *s = context;
    if (s->Plan->Arm)
        s->Plan->Arm(s);
    s->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI CraftDisarmSync(PVOID context)
{
    CRAFT *s = context;
    s->Live = FALSE;
    if (!s->Gone && s->Plan->Disarm)
        s->Plan->Disarm(s);
    return TRUE;
}

/* The device is in D0: at start, or behind a power request. <= DISPATCH_LEVEL */
static void CraftWake(CRAFT *s)
{
    KIRQL irql;
    BOOLEAN mine;
    KeAcquireSpinLock(&s->Gate, &irql);
    mine = s->Started && !s->Gone && !s->Powered;
    if (mine && s->Inside++ == 0)
        KeClearEvent(&s->Empty);
    KeReleaseSpinLock(&s->Gate, irql);
    if (!mine)
        return;
    CraftSync(s, CraftArmSync, s);
    s->Powered = TRUE;
    KeAcquireSpinLock(&s->Gate, &irql);
    s->Open = s->Started && !s->Gone;
    KeReleaseSpinLock(&s->Gate, irql);
    if (s->Plan->Run)
        s->Plan->Run(s);
    GateLeave(s);
}

/* The opposite; with Turn, at PASSIVE_LEVEL. */
static void CraftRest(CRAFT *s)
{
    GateShut(s);
    if (!s->Powered)
        return;
    if (s->Plan->Drain)
        s->Plan->Drain(s);
    CraftSync(s, CraftDisarmSync, s);
    KeFlushQueuedDpcs();
    if (s->Plan->Idle)
        s->Plan->Idle(s);
    s->Powered = FALSE;
}

static void CraftUnmap(CRAFT *s)
{
    ULONG n;
    for (n = 0; n < s->Windows; n++) {
        if (!s->Window[n].Port && s->Window[n].At)
            MmUnmapIoSpace(s->Window[n].At, s->Window[n].Length);
        s->Window[n].At = NULL;
    }
    s->Windows = 0;
}

static void CraftDisconnect(CRAFT *s)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS away;
    if (!s->Interrupt)
        return;
    RtlZeroMemory(&away, sizeof away);
    away.Version = CONNECT_FULLY_SPECIFIED;
    away.ConnectionContext.InterruptObject = s->Interrupt;
    IoDisconnectInterruptEx(&away);
    s->Interrupt = NULL;
    KeFlushQueuedDpcs();
}

static void CraftHide(CRAFT *s)
{
    if (s->Shown)
        IoSetDeviceInterfaceState(&s->Name, FALSE);
    s->Shown = FALSE;
}

/* Stop, surprise removal, removal: everything that start has made goes. */
static void CraftDown(CRAFT *s, BOOLEAN gone)
{
    KIRQL irql;
    BOOLEAN was;
    KeWaitForSingleObject(&s->Turn, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&s->Gate, &irql);
    was = s->Started;
    s->Started = FALSE;
    if (gone)
        s->Gone = TRUE;
    KeReleaseSpinLock(&s->Gate, irql);
    CraftRest(s);
    if (was) {
        CraftDisconnect(s);
        if (s->Plan->Stop)
            s->Plan->Stop(s);
        CraftUnmap(s);
    }
    KeSetEvent(&s->Turn, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN NTAPI CraftIsr(PKINTERRUPT interrupt, PVOID context)
{
    CRAFT *s = context;
    UNREFERENCED_PARAMETER(interrupt);
    return s->Live ? s->Plan->Isr(s) : FALSE;
}

static VOID NTAPI CraftDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    CRAFT *s = context;
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (s->Plan->Dpc)
        s->Plan->Dpc(s);
}

static NTSTATUS CraftUp(CRAFT *s, PCM_RESOURCE_LIST list)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR line = NULL;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;
    ULONG n;

    if (s->Started)
        CraftDown(s, FALSE);
    s->Windows = 0;
    if (list && list->Count) {
        PCM_PARTIAL_RESOURCE_LIST part = &list->List[0].PartialResourceList;
        for (n = 0; n < part->Count && NT_SUCCESS(status); n++) {
            PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &part->PartialDescriptors[n];
            WINDOW *w;
            if (d->Type == CmResourceTypeInterrupt && !line)
                line = d;
            if ((d->Type != CmResourceTypeMemory && d->Type != CmResourceTypePort) || s->Windows == 6)
                continue;
            w = &s->Window[s->Windows++];
            w->Port = d->Type == CmResourceTypePort;
            w->Raw = d->u.Memory.Start;
            w->Length = d->u.Memory.Length;
            w->At = NULL;
            if (w->Port)
                w->At = (PUCHAR)(ULONG_PTR)w->Raw.QuadPart;
            else if (!s->Plan->MapsItself) {
                w->At = MmMapIoSpace(w->Raw, w->Length, MmNonCached);
                if (!w->At)
                    status = STATUS_INSUFFICIENT_RESOURCES;
            }
        }
    }
    if (NT_SUCCESS(status) && s->Windows < s->Plan->Windows)
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
    for (n = 0; NT_SUCCESS(status) && n < s->Plan->Windows && n < 2; n++)
        if (s->Window[n].Length < s->Plan->Least[n])
            status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (NT_SUCCESS(status) && s->Plan->Line && !line)
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!NT_SUCCESS(status))
        goto unmap;

    if (s->Plan->Start) {
        status = s->Plan->Start(s);
        if (!NT_SUCCESS(status))
            goto unmap;
    }
    if (s->Plan->Line) {
        IO_CONNECT_INTERRUPT_PARAMETERS to;
        RtlZeroMemory(&to, sizeof to);
        to.Version = CONNECT_FULLY_SPECIFIED;
        to.FullySpecified.PhysicalDeviceObject = s->Pdo;
        to.FullySpecified.InterruptObject = &s->Interrupt;
        to.FullySpecified.ServiceRoutine = CraftIsr;
        to.FullySpecified.ServiceContext = s;
        to.FullySpecified.SynchronizeIrql = (KIRQL)line->u.Interrupt.Level;
        to.FullySpecified.ShareVector = line->ShareDisposition == CmResourceShareShared;
        to.FullySpecified.Vector = line->u.Interrupt.Vector;
        to.FullySpecified.Irql = (KIRQL)line->u.Interrupt.Level;
        to.FullySpecified.InterruptMode = line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive;
        to.FullySpecified.ProcessorEnableMask = line->u.Interrupt.Affinity;
        status = IoConnectInterruptEx(&to);
        if (!NT_SUCCESS(status)) {
            s->Interrupt = NULL;
            goto stop;
        }
    }
    KeAcquireSpinLock(&s->Gate, &irql);
    s->Started = TRUE;
    KeReleaseSpinLock(&s->Gate, irql);
    CraftWake(s);
    if (!s->Shown) {
        status = IoSetDeviceInterfaceState(&s->Name, TRUE);
        if (!NT_SUCCESS(status)) {
            CraftDown(s, FALSE);
            return status;
        }
        s->Shown = TRUE;
    }
    return STATUS_SUCCESS;

stop:
    if (s->Plan->Stop)
        s->Plan->Stop(s);
unmap:
    CraftUnmap(s);
    return status;
}

static NTSTATUS NTAPI CraftCaught(PDEVICE_OBJECT device, PIRP irp, PVOID event)
{
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent(event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI CraftPnp(PDEVICE_OBJECT device, PIRP irp)
{
    CRAFT *s = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&s->Lock, irp);
    KEVENT caught;

    if (!NT_SUCCESS(status))
        return Answer(irp, status, 0);
    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        KeInitializeEvent(&caught, NotificationEvent, FALSE);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, CraftCaught, &caught, TRUE, TRUE, TRUE);
        if (IoCallDriver(s->Lower, irp) == STATUS_PENDING)
            KeWaitForSingleObject(&caught, Executive, KernelMode, FALSE, NULL);
        status = irp->IoStatus.Status;
        if (NT_SUCCESS(status))
            status = CraftUp(s, sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&s->Lock, irp);
        return status;
    case IRP_MN_STOP_DEVICE:
        CraftDown(s, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        CraftHide(s);
        CraftDown(s, TRUE);
        if (s->Plan->Scuttle)
            s->Plan->Scuttle(s);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        CraftHide(s);
        CraftDown(s, s->Gone);
        if (s->Plan->Scuttle)
            s->Plan->Scuttle(s);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(s->Lower, irp);
        IoReleaseRemoveLockAndWait(&s->Lock, irp);
        if (s->Plan->Strip)
            s->Plan->Strip(s);
        RtlFreeUnicodeString(&s->Name);
        IoDetachDevice(s->Lower);
        IoDeleteDevice(device);
        return status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(s->Lower, irp);
    IoReleaseRemoveLock(&s->Lock, irp);
    return status;
}

static VOID NTAPI CraftDeviceDone(PDEVICE_OBJECT device, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK result)
{
    PIRP irp = context;
    CRAFT *s = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(state);
    if (minor == IRP_MN_QUERY_POWER)
        irp->IoStatus.Status = result->Status;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&s->Lock, irp);
}

static NTSTATUS NTAPI CraftSystemDone(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    CRAFT *s = context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    UNREFERENCED_PARAMETER(device);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        UCHAR minor = sp->MinorFunction;
        POWER_STATE want;
        NTSTATUS status;
        want.DeviceState = sp->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(s->Pdo, minor, want, CraftDeviceDone, irp, NULL);
        if (NT_SUCCESS(status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        if (minor == IRP_MN_QUERY_POWER)
            irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&s->Lock, irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI CraftPoweredUp(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    CRAFT *s = context;
    if (irp->PendingReturned)
        IoMarkIrpPending(irp);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        POWER_STATE now;
        now.DeviceState = PowerDeviceD0;
        PoSetPowerState(device, DevicePowerState, now);
        CraftWake(s);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(&s->Lock, irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI CraftPower(PDEVICE_OBJECT device, PIRP irp)
{
    CRAFT *s = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&s->Lock, irp);
    BOOLEAN about = sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER;

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        return Answer(irp, status, 0);
    }
    if (about)
        irp->IoStatus.Status = STATUS_SUCCESS;
    if (about && sp->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, CraftSystemDone, s, TRUE, TRUE, TRUE);
        PoCallDriver(s->Lower, irp);
        return STATUS_PENDING;
    }
    if (sp->MinorFunction == IRP_MN_SET_POWER) {
        if (sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, CraftPoweredUp, s, TRUE, TRUE, TRUE);
            return PoCallDriver(s->Lower, irp);
        }
        KeWaitForSingleObject(&s->Turn, Executive, KernelMode, FALSE, NULL);
        CraftRest(s);
        KeSetEvent(&s->Turn, IO_NO_INCREMENT, FALSE);
        PoSetPowerState(device, DevicePowerState, sp->Parameters.Power.State);
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(s->Lower, irp);
    IoReleaseRemoveLock(&s->Lock, irp);
    return status;
}

static NTSTATUS NTAPI CraftWmi(PDEVICE_OBJECT device, PIRP irp)
{
    CRAFT *s = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&s->Lock, irp);
    if (!NT_SUCCESS(status))
        return Answer(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(s->Lower, irp);
    IoReleaseRemoveLock(&s->Lock, irp);
    return status;
}

static NTSTATUS NTAPI CraftFile(PDEVICE_OBJECT device, PIRP irp)
{
    CRAFT *s = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = STATUS_SUCCESS;
    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
        status = IoAcquireRemoveLock(&s->Lock, irp);
        if (!NT_SUCCESS(status))
            return Answer(irp, status, 0);
        if (s->Gone)
            status = STATUS_NO_SUCH_DEVICE;
        else if (s->Plan->Open)
            status = s->Plan->Open(s, sp->FileObject);
        Answer(irp, status, 0);
        IoReleaseRemoveLock(&s->Lock, irp);
        return status;
    case IRP_MJ_CLEANUP:
        if (s->Plan->Cleanup)
            s->Plan->Cleanup(s, sp->FileObject);
        break;
    default:
        if (s->Plan->Close)
            s->Plan->Close(s, sp->FileObject);
        break;
    }
    return Answer(irp, status, 0);
}

static NTSTATUS NTAPI CraftIo(PDEVICE_OBJECT device, PIRP irp)
{
    CRAFT *s = device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&s->Lock, irp);
    if (!NT_SUCCESS(status))
        return Answer(irp, status, 0);
    if (!GateEnter(s)) {
        status = Answer(irp, s->Gone ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_NOT_READY, 0);
        IoReleaseRemoveLock(&s->Lock, irp);
        return status;
    }
    irp->IoStatus.Information = 0;
    status = s->Plan->Serve(s, irp, IoGetCurrentIrpStackLocation(irp));
    if (status != STATUS_PENDING) {
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        GateLeave(s);
        IoReleaseRemoveLock(&s->Lock, irp);
        return status;
    }
    GateLeave(s);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI CraftAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT fdo;
    CRAFT *s;
    NTSTATUS status = IoCreateDevice(driver, ThePlan->Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);
    if (!NT_SUCCESS(status))
        return status;
    s = fdo->DeviceExtension;
    s->Plan = ThePlan;
    s->Fdo = fdo;
    s->Pdo = pdo;
    IoInitializeRemoveLock(&s->Lock, WW_TAG, 0, 0);
    KeInitializeEvent(&s->Turn, SynchronizationEvent, TRUE);
    KeInitializeEvent(&s->Empty, NotificationEvent, TRUE);
    KeInitializeSpinLock(&s->Gate);
    KeInitializeDpc(&s->Dpc, CraftDpc, s);
    if (s->Plan->Outfit) {
        status = s->Plan->Outfit(s);
        if (!NT_SUCCESS(status))
            goto delete;
    }
    s->Lower = IoAttachDeviceToDeviceStack(fdo, pdo);
    if (!s->Lower) {
        status = STATUS_NO_SUCH_DEVICE;
        goto strip;
    }
    status = IoRegisterDeviceInterface(pdo, s->Plan->Face, NULL, &s->Name);
    if (!NT_SUCCESS(status))
        goto detach;
    fdo->Flags |= s->Plan->Buffering | DO_POWER_PAGABLE;
    fdo->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

detach:
    IoDetachDevice(s->Lower);
strip:
    if (s->Plan->Strip)
        s->Plan->Strip(s);
delete:
    IoDeleteDevice(fdo);
    return status;
}

static VOID NTAPI CraftUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

SPARE static NTSTATUS CraftInstall(PDRIVER_OBJECT driver, const PLAN *plan)
{
    ThePlan = plan;
    driver->DriverUnload = CraftUnload;
    driver->DriverExtension->AddDevice = CraftAdd;
    driver->MajorFunction[IRP_MJ_PNP] = CraftPnp;
    driver->MajorFunction[IRP_MJ_POWER] = CraftPower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = CraftWmi;
    driver->MajorFunction[IRP_MJ_CREATE] = CraftFile;
    driver->MajorFunction[IRP_MJ_CLEANUP] = CraftFile;
    driver->MajorFunction[IRP_MJ_CLOSE] = CraftFile;
    driver->MajorFunction[IRP_MJ_READ] = CraftIo;
    driver->MajorFunction[IRP_MJ_WRITE] = CraftIo;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CraftIo;
    return STATUS_SUCCESS;
}

/* ------------------------------------------------------------------- BOOTH */

SPARE static NTSTATUS BoothOpen(PDRIVER_OBJECT driver, PCWSTR name, PCWSTR link, ULONG size, ULONG buffering, PDEVICE_OBJECT *made)
{
    UNICODE_STRING n, l;
    NTSTATUS status;
    RtlInitUnicodeString(&n, name);
    RtlInitUnicodeString(&l, link);
    status = IoCreateDevice(driver, size, &n, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, made);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&l, &n);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(*made);
        *made = NULL;
        return status;
    }
    (*made)->Flags |= buffering;
    return STATUS_SUCCESS;
}

/* The last step of DriverEntry: what the device needs has been made. */
SPARE static void BoothServe(PDEVICE_OBJECT device)
{
    device->Flags &= ~DO_DEVICE_INITIALIZING;
}

SPARE static void BoothShut(PDEVICE_OBJECT device, PCWSTR link)
{
    UNICODE_STRING l;
    RtlInitUnicodeString(&l, link);
    IoDeleteSymbolicLink(&l);
    IoDeleteDevice(device);
}

SPARE static NTSTATUS NTAPI BoothNod(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Answer(irp, STATUS_SUCCESS, 0);
}

#endif
