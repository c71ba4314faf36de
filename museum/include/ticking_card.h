/*
 * the frame of the PnP drivers by one author: AddDevice, PnP, power, a gated queue of requests with one in flight, cancel-safe lists of waiting
 * requests, and for cards the resources, the interrupt and a tick of 100 ms that limits the time of the request in flight.
 *
 * Rules:
 * - Every request holds the remove lock (tag: the IRP) from dispatch to completion; a second reference covers the dispatch call itself.
 * - Start, Stop, Up and Down are serialised by one mutex, at PASSIVE_LEVEL, with no request in flight. Requests that come meanwhile wait in the queue.
 * - Begin runs at DISPATCH_LEVEL. It returns a final status, or STATUS_PENDING after (or shortly before) ZPublish; then the one that ZTake gives the IRP calls
 *   ZFinish. ZFinish must not be called from within Begin.
 */
#ifndef ZFRAME_H
#define ZFRAME_H

#include <ddk/wdm.h>

#define ZTAG 'marZ'
#define ZBARS 8
#define ZHOLD_PNP 1u
#define ZHOLD_POWER 2u

typedef struct _ZDEV ZDEV, *PZDEV;

typedef struct _ZLIST {
    IO_CSQ Csq;
    LIST_ENTRY Head;
    KSPIN_LOCK Lock;
    BOOLEAN Kick; /* something was put in since the pump looked; under Lock */
    PZDEV Dev;
} ZLIST, *PZLIST;

typedef struct _ZBAR {
    PHYSICAL_ADDRESS Base;
    ULONG Length;
    BOOLEAN Port;
    PUCHAR Va;
} ZBAR, *PZBAR;

typedef struct _ZOPS {
    const GUID *Interface;
    ULONG ExtensionSize;
    ULONG Flags;
    NTSTATUS (*Add)(PZDEV d);                          /* once; what it made is undone by Free */
    VOID (*Free)(PZDEV d);                             /* also after an Add that failed half-way */
    NTSTATUS (*Start)(PZDEV d, PCM_RESOURCE_LIST List); /* undoes its own work if it fails */
    VOID (*Stop)(PZDEV d, BOOLEAN Touch);              /* Touch: the card has power */
    NTSTATUS (*Up)(PZDEV d);
    VOID (*Down)(PZDEV d);
    VOID (*Kill)(PZDEV d);                             /* the device ends: complete what waits in lists of one's own; d->Dead is set */
    NTSTATUS (*Open)(PZDEV d, PFILE_OBJECT File);
    VOID (*Cleanup)(PZDEV d, PFILE_OBJECT File);
    VOID (*Close)(PZDEV d, PFILE_OBJECT File);
    NTSTATUS (*Request)(PZDEV d, PIRP Irp);            /* a final status, or what ZSubmit or ZPark returned */
    NTSTATUS (*Begin)(PZDEV d, PIRP Irp);
    VOID (*Limit)(PZDEV d, PIRP Irp);                  /* the time of the IRP is over; it is the callee's */
    BOOLEAN (*Isr)(PZDEV d);
    VOID (*Dpc)(PZDEV d);
    VOID (*Tick)(PZDEV d);
} ZOPS;

struct _ZDEV {
    const ZOPS *Ops;
    PDEVICE_OBJECT Self, Pdo, Lower;
    UNICODE_STRING Link;
    IO_REMOVE_LOCK Lock;
    KMUTEX Mutex;
    BOOLEAN Started;     /* Start succeeded and Stop has not been called; under Mutex */
    BOOLEAN HwUp;        /* the card has power and is set up; under Mutex */
    BOOLEAN StopPending; /* under Mutex */
    volatile BOOLEAN Dead;   /* requests are refused; written under Q.Lock */
    volatile BOOLEAN Gone;   /* removed */
    volatile BOOLEAN Failed;
    BOOLEAN Added; /* Add was called */

    ZLIST Q;
    ULONG Holds; /* these under Q.Lock */
    BOOLEAN Busy;
    PIRP Current;
    ULONG Ticks;
    KEVENT Idle;

    PIO_WORKITEM PowerWork;
    PIRP PowerIrp, SystemIrp;
    BOOLEAN PowerDown;

    ZBAR Bar[ZBARS];
    ULONG Bars;
    BOOLEAN HaveIrq;
    ULONG Vector;
    KIRQL Level;
    KINTERRUPT_MODE Mode;
    BOOLEAN Shared;
    KAFFINITY Affinity;
    PKINTERRUPT Interrupt;
    volatile BOOLEAN HwOn; /* the ISR may look at the card; under the interrupt's lock */
    KDPC Dpc, TickDpc;
    KTIMER TickTimer;
};

static inline NTSTATUS ZComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static inline NTSTATUS ZRefusal(PZDEV d)
{
    return d->Gone ? STATUS_DELETE_PENDING : STATUS_DEVICE_NOT_READY;
}

/* ---- cancel-safe lists ---- */

static inline VOID NTAPI ZCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    PZLIST l = CONTAINING_RECORD(Csq, ZLIST, Csq);

    InsertTailList(&l->Head, &Irp->Tail.Overlay.ListEntry);
    l->Kick = TRUE;
}

static inline VOID NTAPI ZCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    (void)Csq;
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static inline PIRP NTAPI ZCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PZLIST l = CONTAINING_RECORD(Csq, ZLIST, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : l->Head.Flink;

    for (; e != &l->Head; e = e->Flink) {
        PIRP Next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        if (!File || IoGetCurrentIrpStackLocation(Next)->FileObject == File)
            return Next;
    }
    return NULL;
}

static inline VOID NTAPI ZCsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, ZLIST, Csq)->Lock, Irql);
}

static inline VOID NTAPI ZCsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, ZLIST, Csq)->Lock, Irql);
}

static inline VOID NTAPI ZCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PZDEV d = CONTAINING_RECORD(Csq, ZLIST, Csq)->Dev;

    ZComplete(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&d->Lock, Irp);
}

static inline VOID ZListInit(PZLIST l, PZDEV d)
{
    InitializeListHead(&l->Head);
    KeInitializeSpinLock(&l->Lock);
    l->Kick = FALSE;
    l->Dev = d;
    IoCsqInitialize(&l->Csq, ZCsqInsert, ZCsqRemove, ZCsqPeek, ZCsqLock, ZCsqUnlock, ZCsqCancelled);
}

static inline VOID ZDrain(PZLIST l, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;

    while ((Irp = IoCsqRemoveNextIrp(&l->Csq, File)) != NULL) {
        ZComplete(Irp, Status, 0);
        IoReleaseRemoveLock(&l->Dev->Lock, Irp);
    }
}

/* Lets a request wait in a list of the driver's. Kill drains the list after Dead is set, so one that comes too late drains it itself. */
static inline NTSTATUS ZPark(PZLIST l, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoCsqInsertIrp(&l->Csq, Irp, NULL);
    if (l->Dev->Dead)
        ZDrain(l, NULL, ZRefusal(l->Dev));
    return STATUS_PENDING;
}

/* ---- the queue with one request in flight ---- */

static inline VOID ZIdle(PZDEV d, PBOOLEAN Again)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    d->Busy = FALSE;
    if (Again)
        *Again = d->Q.Kick;
    KeSetEvent(&d->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&d->Q.Lock, Irql);
}

/* The caller holds a reference of the remove lock. */
static inline VOID ZPump(PZDEV d)
{
    for (;;) {
        KIRQL Irql;
        PIRP Irp;
        NTSTATUS Status;
        BOOLEAN Dead, Again;

        KeAcquireSpinLock(&d->Q.Lock, &Irql);
        if (d->Busy || (d->Holds && !d->Dead)) {
            KeReleaseSpinLock(&d->Q.Lock, Irql);
            return;
        }
        Dead = d->Dead;
        d->Busy = TRUE;
        d->Q.Kick = FALSE;
        KeClearEvent(&d->Idle);
        KeReleaseSpinLock(&d->Q.Lock, Irql);

        Irp = IoCsqRemoveNextIrp(&d->Q.Csq, NULL);
        if (!Irp) {
            ZIdle(d, &Again);
            if (!Again)
                return;
            continue;
        }
        Irp->IoStatus.Information = 0;
        if (Dead) {
            Status = ZRefusal(d);
        } else {
            KeRaiseIrql(DISPATCH_LEVEL, &Irql);
            Status = d->Ops->Begin(d, Irp);
            KeLowerIrql(Irql);
            if (Status == STATUS_PENDING)
                return;
        }
        ZComplete(Irp, Status, NT_ERROR(Status) ? 0 : Irp->IoStatus.Information);
        ZIdle(d, NULL);
        IoReleaseRemoveLock(&d->Lock, Irp);
    }
}

static inline NTSTATUS ZSubmit(PZDEV d, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoCsqInsertIrp(&d->Q.Csq, Irp, NULL);
    ZPump(d);
    return STATUS_PENDING;
}

/* From here on the IRP can be taken by the DPC or the tick. Ticks: of 100 ms, 0 = no limit by the tick. */
static inline VOID ZPublish(PZDEV d, PIRP Irp, ULONG Ticks)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    d->Current = Irp;
    d->Ticks = Ticks;
    KeReleaseSpinLock(&d->Q.Lock, Irql);
}

static inline PIRP ZTake(PZDEV d)
{
    KIRQL Irql;
    PIRP Irp;

    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    Irp = d->Current;
    d->Current = NULL;
    KeReleaseSpinLock(&d->Q.Lock, Irql);
    return Irp;
}

/* Puts back what ZTake gave: it has not come to its end. Its time goes on. */
static inline VOID ZPutBack(PZDEV d, PIRP Irp)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    d->Current = Irp;
    KeReleaseSpinLock(&d->Q.Lock, Irql);
}

static inline VOID ZFinish(PZDEV d, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    ZComplete(Irp, Status, Information);
    ZIdle(d, NULL);
    ZPump(d);
    IoReleaseRemoveLock(&d->Lock, Irp);
}

static inline VOID ZHold(PZDEV d, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    d->Holds |= Why;
    KeReleaseSpinLock(&d->Q.Lock, Irql);
    KeWaitForSingleObject(&d->Idle, Executive, KernelMode, FALSE, NULL);
}

static inline VOID ZUnhold(PZDEV d, ULONG Why)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    d->Holds &= ~Why;
    KeReleaseSpinLock(&d->Q.Lock, Irql);
    ZPump(d);
}

static inline VOID ZSetDead(PZDEV d, BOOLEAN Dead)
{
    KIRQL Irql;

    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    d->Dead = Dead;
    KeReleaseSpinLock(&d->Q.Lock, Irql);
}

/* The card cannot be brought back: refuse everything and have the device taken away. */
static inline VOID ZFail(PZDEV d)
{
    d->Failed = TRUE;
    ZSetDead(d, TRUE);
    ZPump(d);
    IoInvalidateDeviceState(d->Pdo);
}

/* ---- card: resources, interrupt, tick ---- */

static inline NTSTATUS ZResources(PZDEV d, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_LIST Part;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR p;
    ULONG n;

    d->Bars = 0;
    d->HaveIrq = FALSE;
    if (!List || !List->Count)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Part = (PVOID)((PUCHAR)List + FIELD_OFFSET(CM_RESOURCE_LIST, List) + FIELD_OFFSET(CM_FULL_RESOURCE_DESCRIPTOR, PartialResourceList));
    p = (PVOID)((PUCHAR)Part + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (n = Part->Count; n; n--, p++) {
        switch (p->Type) {
        case CmResourceTypeMemory:
        case CmResourceTypePort:
            if (d->Bars < ZBARS) {
                PZBAR b = &d->Bar[d->Bars++];

                b->Base = p->u.Memory.Start;
                b->Length = p->u.Memory.Length;
                b->Port = p->Type == CmResourceTypePort;
                b->Va = NULL;
            }
            break;
        case CmResourceTypeInterrupt:
            if (p->Flags & CM_RESOURCE_INTERRUPT_MESSAGE)
                break;
            d->HaveIrq = TRUE;
            d->Vector = p->u.Interrupt.Vector;
            d->Level = (KIRQL)p->u.Interrupt.Level;
            d->Affinity = p->u.Interrupt.Affinity;
            d->Mode = (p->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
            d->Shared = p->ShareDisposition == CmResourceShareShared;
            break;
        }
    }
    return STATUS_SUCCESS;
}

static inline NTSTATUS ZMap(PZDEV d, ULONG i, ULONG Least)
{
    if (i >= d->Bars || d->Bar[i].Port || d->Bar[i].Length < Least)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (d->Bar[i].Va)
        return STATUS_SUCCESS;
    d->Bar[i].Va = MmMapIoSpace(d->Bar[i].Base, d->Bar[i].Length, MmNonCached);
    return d->Bar[i].Va ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static inline BOOLEAN NTAPI ZIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PZDEV d = Context;

    (void)Interrupt;
    return d->HwOn ? d->Ops->Isr(d) : FALSE;
}

static inline NTSTATUS ZConnect(PZDEV d)
{
    NTSTATUS Status;

    if (!d->HaveIrq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->HwOn = FALSE;
    Status = IoConnectInterrupt(&d->Interrupt, ZIsr, d, NULL, d->Vector, d->Level, d->Level, d->Mode, d->Shared, d->Affinity, FALSE);
    if (!NT_SUCCESS(Status))
        d->Interrupt = NULL;
    return Status;
}

static inline BOOLEAN NTAPI ZSetOn(PVOID Context)
{
    ((PZDEV)Context)->HwOn = TRUE;
    return TRUE;
}

static inline BOOLEAN NTAPI ZSetOff(PVOID Context)
{
    ((PZDEV)Context)->HwOn = FALSE;
    return TRUE;
}

static inline VOID ZHwOn(PZDEV d)
{
    LARGE_INTEGER Due;

    KeSynchronizeExecution(d->Interrupt, ZSetOn, d);
    Due.QuadPart = -1000000;
    KeSetTimerEx(&d->TickTimer, Due, 100, &d->TickDpc);
}

/* Afterwards neither ISR nor DPC nor tick looks at the card. PASSIVE_LEVEL. */
static inline VOID ZHwOff(PZDEV d)
{
    if (d->Interrupt)
        KeSynchronizeExecution(d->Interrupt, ZSetOff, d);
    KeCancelTimer(&d->TickTimer);
    KeFlushQueuedDpcs();
}

static inline VOID ZReleaseHw(PZDEV d)
{
    ULONG i;

    if (d->Interrupt) {
        IoDisconnectInterrupt(d->Interrupt);
        d->Interrupt = NULL;
    }
    for (i = 0; i < d->Bars; i++) {
        if (d->Bar[i].Va)
            MmUnmapIoSpace(d->Bar[i].Va, d->Bar[i].Length);
        d->Bar[i].Va = NULL;
    }
    d->Bars = 0;
}

static inline VOID NTAPI ZDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PZDEV d = Context;

    (void)Dpc, (void)A, (void)B;
    if (d->Ops->Dpc)
        d->Ops->Dpc(d);
}

static inline VOID NTAPI ZTickDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    PZDEV d = Context;
    PIRP Irp = NULL;

    (void)Dpc, (void)A, (void)B;
    if (d->Ops->Tick)
        d->Ops->Tick(d);
    KeAcquireSpinLockAtDpcLevel(&d->Q.Lock);
    if (d->Current && d->Ticks && --d->Ticks == 0) {
        Irp = d->Current;
        d->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&d->Q.Lock);
    if (Irp)
        d->Ops->Limit(d, Irp);
}

static inline ULONG ZRead(PUCHAR Va, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Va + Offset));
}

static inline VOID ZWrite(PUCHAR Va, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Va + Offset), Value);
}

static inline VOID ZSleep(ULONG Milliseconds)
{
    LARGE_INTEGER Due;

    Due.QuadPart = -(LONGLONG)Milliseconds * 10000;
    KeDelayExecutionThread(KernelMode, FALSE, &Due);
}

/* ---- opens and requests ---- */

static inline NTSTATUS NTAPI ZDispatchFile(PDEVICE_OBJECT Self, PIRP Irp)
{
    PZDEV d = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = STATUS_SUCCESS;

    if (sl->MajorFunction == IRP_MJ_CREATE) {
        Status = IoAcquireRemoveLock(&d->Lock, Irp);
        if (!NT_SUCCESS(Status))
            return ZComplete(Irp, Status, 0);
        if (d->Dead)
            Status = ZRefusal(d);
        else if (d->Ops->Open)
            Status = d->Ops->Open(d, sl->FileObject);
        ZComplete(Irp, Status, 0);
        IoReleaseRemoveLock(&d->Lock, Irp);
        return Status;
    }
    if (sl->MajorFunction == IRP_MJ_CLEANUP) {
        ZDrain(&d->Q, sl->FileObject, STATUS_CANCELLED);
        if (d->Ops->Cleanup)
            d->Ops->Cleanup(d, sl->FileObject);
    } else if (d->Ops->Close) {
        d->Ops->Close(d, sl->FileObject);
    }
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static inline NTSTATUS NTAPI ZDispatchIo(PDEVICE_OBJECT Self, PIRP Irp)
{
    PZDEV d = Self->DeviceExtension;
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->Lock, Irp);
    if (!NT_SUCCESS(Status))
        return ZComplete(Irp, Status, 0);
    Status = IoAcquireRemoveLock(&d->Lock, Self);
    if (!NT_SUCCESS(Status)) {
        ZComplete(Irp, Status, 0);
        IoReleaseRemoveLock(&d->Lock, Irp);
        return Status;
    }
    Irp->IoStatus.Information = 0;
    Status = d->Dead ? ZRefusal(d) : d->Ops->Request(d, Irp);
    if (Status != STATUS_PENDING) {
        ZComplete(Irp, Status, NT_ERROR(Status) ? 0 : Irp->IoStatus.Information);
        IoReleaseRemoveLock(&d->Lock, Irp);
    }
    IoReleaseRemoveLock(&d->Lock, Self);
    return Status;
}

/* ---- PnP ---- */

static inline NTSTATUS NTAPI ZForwarded(PDEVICE_OBJECT Self, PIRP Irp, PVOID Event)
{
    (void)Self;
    if (Irp->PendingReturned)
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS ZForward(PZDEV d, PIRP Irp)
{
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, ZForwarded, &Event, TRUE, TRUE, TRUE);
    if (IoCallDriver(d->Lower, Irp) == STATUS_PENDING)
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}

static inline VOID ZEnter(PZDEV d)
{
    KeWaitForSingleObject(&d->Mutex, Executive, KernelMode, FALSE, NULL);
}

static inline VOID ZLeave(PZDEV d)
{
    KeReleaseMutex(&d->Mutex, FALSE);
}

/* Ends all requests and gives the hardware back. Under the mutex. */
static inline VOID ZEnd(PZDEV d)
{
    ZSetDead(d, TRUE);
    KeWaitForSingleObject(&d->Idle, Executive, KernelMode, FALSE, NULL);
    ZPump(d);
    if (d->Ops->Kill)
        d->Ops->Kill(d);
    if (d->Started) {
        if (d->Ops->Stop)
            d->Ops->Stop(d, d->HwUp);
        d->Started = d->HwUp = FALSE;
    }
}

static inline NTSTATUS ZStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    ZEnter(d);
    d->StopPending = FALSE;
    ZHold(d, ZHOLD_PNP);
    if (d->Started) { /* started anew without a stop */
        if (d->Ops->Stop)
            d->Ops->Stop(d, d->HwUp);
        d->Started = d->HwUp = FALSE;
    }
    if (d->Ops->Start)
        Status = d->Ops->Start(d, List);
    if (!NT_SUCCESS(Status)) {
        ZEnd(d);
        ZLeave(d);
        return Status;
    }
    d->Started = d->HwUp = TRUE;
    d->Failed = FALSE;
    KeAcquireSpinLock(&d->Q.Lock, &Irql);
    d->Dead = FALSE;
    d->Holds = 0;
    KeReleaseSpinLock(&d->Q.Lock, Irql);
    ZPump(d);
    ZLeave(d);
    Status = IoSetDeviceInterfaceState(&d->Link, TRUE);
    if (!NT_SUCCESS(Status)) {
        ZEnter(d);
        ZEnd(d);
        ZLeave(d);
        return Status;
    }
    return STATUS_SUCCESS;
}

static inline VOID ZDelete(PZDEV d)
{
    if (d->Added && d->Ops->Free)
        d->Ops->Free(d);
    if (d->Link.Buffer)
        RtlFreeUnicodeString(&d->Link);
    if (d->PowerWork)
        IoFreeWorkItem(d->PowerWork);
    IoDeleteDevice(d->Self);
}

static inline NTSTATUS NTAPI ZDispatchPnp(PDEVICE_OBJECT Self, PIRP Irp)
{
    PZDEV d = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->Lock, Irp);
    if (!NT_SUCCESS(Status))
        return ZComplete(Irp, Status, 0);

    switch (sl->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = ZForward(d, Irp);
        if (NT_SUCCESS(Status))
            Status = ZStart(d, sl->Parameters.StartDevice.AllocatedResourcesTranslated);
        ZComplete(Irp, Status, 0);
        IoReleaseRemoveLock(&d->Lock, Irp);
        return Status;

    case IRP_MN_QUERY_STOP_DEVICE:
        ZEnter(d);
        d->StopPending = TRUE;
        ZHold(d, ZHOLD_PNP);
        ZLeave(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        ZForward(d, Irp);
        ZEnter(d);
        if (d->StopPending) {
            d->StopPending = FALSE;
            ZUnhold(d, ZHOLD_PNP);
        }
        ZLeave(d);
        ZComplete(Irp, STATUS_SUCCESS, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&d->Lock, Irp);
        return STATUS_SUCCESS;

    case IRP_MN_STOP_DEVICE:
        ZEnter(d);
        d->StopPending = FALSE;
        ZHold(d, ZHOLD_PNP);
        if (d->Started) {
            if (d->Ops->Stop)
                d->Ops->Stop(d, d->HwUp);
            d->Started = d->HwUp = FALSE;
        }
        ZLeave(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        d->Gone = TRUE;
        IoSetDeviceInterfaceState(&d->Link, FALSE);
        ZEnter(d);
        ZEnd(d);
        ZLeave(d);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        d->Gone = TRUE;
        IoSetDeviceInterfaceState(&d->Link, FALSE);
        ZEnter(d);
        ZEnd(d);
        ZLeave(d);
        IoReleaseRemoveLockAndWait(&d->Lock, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(d->Lower, Irp);
        IoDetachDevice(d->Lower);
        ZDelete(d);
        return Status;

    case IRP_MN_QUERY_PNP_DEVICE_STATE:
        Status = ZForward(d, Irp);
        if (d->Failed) {
            if (!NT_SUCCESS(Status))
                Irp->IoStatus.Information = 0;
            Irp->IoStatus.Information |= PNP_DEVICE_FAILED;
            Status = STATUS_SUCCESS;
        }
        ZComplete(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&d->Lock, Irp);
        return Status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->Lock, Irp);
    return Status;
}

static inline NTSTATUS NTAPI ZDispatchDown(PDEVICE_OBJECT Self, PIRP Irp)
{
    PZDEV d = Self->DeviceExtension;
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->Lock, Irp);
    if (!NT_SUCCESS(Status))
        return ZComplete(Irp, Status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->Lock, Irp);
    return Status;
}

/* ---- power ---- */

static inline VOID NTAPI ZRequested(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Result)
{
    PZDEV d = Context;
    PIRP Irp = d->SystemIrp;

    (void)Pdo, (void)Minor;
    if (State.DeviceState != PowerDeviceD0 && !NT_SUCCESS(Result->Status))
        Irp->IoStatus.Status = Result->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&d->Lock, Irp);
}

/* The system power IRP has been dealt with below: ask for the device power IRP that goes with it. */
static inline NTSTATUS NTAPI ZSystemDone(PDEVICE_OBJECT Self, PIRP Irp, PVOID Context)
{
    PZDEV d = Context;
    POWER_STATE State;
    NTSTATUS Status = Irp->IoStatus.Status;

    (void)Self;
    if (NT_SUCCESS(Status)) {
        State.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        d->SystemIrp = Irp;
        Status = PoRequestPowerIrp(d->Pdo, IRP_MN_SET_POWER, State, ZRequested, d, NULL);
        if (Status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        if (State.DeviceState == PowerDeviceD0)
            ZFail(d);
        else
            Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&d->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline VOID NTAPI ZPowerWork(PDEVICE_OBJECT Self, PVOID Context);

/* The device power IRP has been dealt with below. Going up goes on in the work item, and so does going down if the devices below refused it. */
static inline NTSTATUS NTAPI ZDeviceDone(PDEVICE_OBJECT Self, PIRP Irp, PVOID Context)
{
    PZDEV d = Context;

    (void)Self;
    if (d->PowerDown && NT_SUCCESS(Irp->IoStatus.Status)) {
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&d->Lock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    d->PowerDown = FALSE;
    IoQueueWorkItem(d->PowerWork, ZPowerWork, DelayedWorkQueue, d);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline VOID NTAPI ZPowerWork(PDEVICE_OBJECT Self, PVOID Context)
{
    PZDEV d = Context;
    PIRP Irp = d->PowerIrp;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    POWER_STATE State = sl->Parameters.Power.State;

    if (d->PowerDown) {
        ZEnter(d);
        ZHold(d, ZHOLD_POWER);
        if (d->Started && d->HwUp) {
            if (d->Ops->Down)
                d->Ops->Down(d);
            d->HwUp = FALSE;
        }
        ZLeave(d);
        PoSetPowerState(Self, DevicePowerState, State);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, ZDeviceDone, d, TRUE, TRUE, TRUE);
        PoCallDriver(d->Lower, Irp);
        return;
    }

    ZEnter(d);
    if (State.DeviceState == PowerDeviceD0 && !NT_SUCCESS(Irp->IoStatus.Status)) {
        ZFail(d);
    } else {
        NTSTATUS Status = STATUS_SUCCESS;

        if (d->Started && !d->HwUp) {
            if (d->Ops->Up)
                Status = d->Ops->Up(d);
            d->HwUp = NT_SUCCESS(Status);
        }
        if (NT_SUCCESS(Status))
            ZUnhold(d, ZHOLD_POWER);
        else
            ZFail(d);
    }
    ZLeave(d);
    State.DeviceState = PowerDeviceD0;
    PoSetPowerState(Self, DevicePowerState, State);
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&d->Lock, Irp);
}

static inline NTSTATUS NTAPI ZDispatchPower(PDEVICE_OBJECT Self, PIRP Irp)
{
    PZDEV d = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    Status = IoAcquireRemoveLock(&d->Lock, Irp);
    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return ZComplete(Irp, Status, 0);
    }
    if (sl->MinorFunction == IRP_MN_SET_POWER && sl->Parameters.Power.Type == DevicePowerState) {
        IoMarkIrpPending(Irp);
        d->PowerIrp = Irp;
        d->PowerDown = sl->Parameters.Power.State.DeviceState != PowerDeviceD0;
        if (d->PowerDown) {
            IoQueueWorkItem(d->PowerWork, ZPowerWork, DelayedWorkQueue, d);
        } else {
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, ZDeviceDone, d, TRUE, TRUE, TRUE);
            PoCallDriver(d->Lower, Irp);
        }
        return STATUS_PENDING;
    }
    if (sl->MinorFunction == IRP_MN_SET_POWER && sl->Parameters.Power.Type == SystemPowerState && d->Started) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, ZSystemDone, d, TRUE, TRUE, TRUE);
        PoCallDriver(d->Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(d->Lower, Irp);
    IoReleaseRemoveLock(&d->Lock, Irp);
    return Status;
}

/* ---- the driver ---- */

static inline NTSTATUS ZAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, const ZOPS *Ops)
{
    PDEVICE_OBJECT Self;
    PZDEV d;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, Ops->ExtensionSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    d = Self->DeviceExtension;
    RtlZeroMemory(d, Ops->ExtensionSize);
    d->Ops = Ops;
    d->Self = Self;
    d->Pdo = Pdo;
    d->Dead = TRUE;
    d->Holds = ZHOLD_PNP;
    IoInitializeRemoveLock(&d->Lock, ZTAG, 0, 0);
    KeInitializeMutex(&d->Mutex, 0);
    KeInitializeEvent(&d->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&d->Dpc, ZDpc, d);
    KeInitializeDpc(&d->TickDpc, ZTickDpc, d);
    KeInitializeTimer(&d->TickTimer);
    ZListInit(&d->Q, d);
    d->PowerWork = IoAllocateWorkItem(Self);
    Status = d->PowerWork ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
    if (NT_SUCCESS(Status) && Ops->Add) {
        d->Added = TRUE;
        Status = Ops->Add(d);
    }
    if (NT_SUCCESS(Status))
        Status = IoRegisterDeviceInterface(Pdo, Ops->Interface, NULL, &d->Link);
    if (NT_SUCCESS(Status)) {
        d->Lower = IoAttachDeviceToDeviceStack(Self, Pdo);
        if (!d->Lower)
            Status = STATUS_NO_SUCH_DEVICE;
    }
    if (!NT_SUCCESS(Status)) {
        ZDelete(d);
        return Status;
    }
    Self->Flags |= Ops->Flags | DO_POWER_PAGABLE;
    Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static inline VOID NTAPI ZUnload(PDRIVER_OBJECT Driver)
{
    (void)Driver;
}

static inline NTSTATUS ZDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE Add)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = ZDispatchFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = ZDispatchFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = ZDispatchFile;
    Driver->MajorFunction[IRP_MJ_READ] = ZDispatchIo;
    Driver->MajorFunction[IRP_MJ_WRITE] = ZDispatchIo;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ZDispatchIo;
    Driver->MajorFunction[IRP_MJ_PNP] = ZDispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = ZDispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = ZDispatchDown;
    Driver->DriverExtension->AddDevice = Add;
    Driver->DriverUnload = ZUnload;
    return STATUS_SUCCESS;
}

#endif
