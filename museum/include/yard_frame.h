/*
 * frame.h: what the drivers of this set share.
 *
 * Always:                  Ends() and the SHELF, a first-in-first-out store of waiting requests over IO_CSQ, in which a request may stay (and be
 *                          cancelled) while the hardware works for it: it is found again by its number.
 * #define FRAME_PLAIN:     a control device made in DriverEntry.
 * #define FRAME_PNP:       a function driver: DriverEntry, AddDevice, PnP, power; what differs is in the driver's `Hooks`.
 */
#ifndef TT_FRAME_H
#define TT_FRAME_H

#define FR static __attribute__((unused))
#define TT_TAG 'TTrF'

FR NTSTATUS Ends(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* ------------------------------------------------------------------ shelf */

typedef struct _SHELF {
    IO_CSQ Csq;                         /* first */
    KSPIN_LOCK Lock;                    /* of all below */
    LIST_ENTRY Irps;
    ULONG_PTR Last;                     /* number of the request that was put last */
    ULONG_PTR Handed;                   /* number of the last one that ShelfNext has shown */
    NTSTATUS Shut;                      /* not STATUS_SUCCESS: with this all requests end */
    PIO_REMOVE_LOCK Gate;               /* released behind each request's end; may be NULL */
    VOID (*Dropped)(struct _SHELF *Shelf, PIRP Irp);    /* of a cancelled request, before it is completed; may be NULL */
} SHELF, *PSHELF;

/* Which request is to be taken; all that is not 0 must fit. */
typedef struct _SHELF_WISH {
    ULONG_PTR Number;
    PFILE_OBJECT File;
    BOOLEAN (*Fits)(PIRP Irp, PVOID Context);           /* called under the shelf's lock */
    PVOID Context;
} SHELF_WISH;

#define ShelfNumberOf(Irp) ((ULONG_PTR)(Irp)->Tail.Overlay.DriverContext[0])
#define ShelfValueOf(Irp)  ((ULONG_PTR)(Irp)->Tail.Overlay.DriverContext[1])

FR VOID ShelfEnd(PSHELF Shelf, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    PIO_REMOVE_LOCK gate = Shelf->Gate;

    Ends(Irp, Status, Information);
    if (gate)
        IoReleaseRemoveLock(gate, Irp);
}

FR NTSTATUS NTAPI ShelfCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID InsertContext)
{
    PSHELF shelf = (PSHELF)Csq;

    shelf->Last++;
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)shelf->Last;
    *(ULONG_PTR *)InsertContext = shelf->Last;
    InsertTailList(&shelf->Irps, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

FR VOID NTAPI ShelfCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

FR PIRP NTAPI ShelfCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID PeekContext)
{
    PSHELF shelf = (PSHELF)Csq;
    SHELF_WISH *wish = PeekContext;
    PLIST_ENTRY entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : shelf->Irps.Flink;

    for (; entry != &shelf->Irps; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (!wish)
            return irp;
        if (wish->Number && ShelfNumberOf(irp) != wish->Number)
            continue;
        if (wish->File && IoGetCurrentIrpStackLocation(irp)->FileObject != wish->File)
            continue;
        if (wish->Fits && !wish->Fits(irp, wish->Context))
            continue;
        return irp;
    }
    return NULL;
}

FR VOID NTAPI ShelfCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&((PSHELF)Csq)->Lock, Irql);
}

FR VOID NTAPI ShelfCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&((PSHELF)Csq)->Lock, Irql);
}

FR VOID NTAPI ShelfCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    PSHELF shelf = (PSHELF)Csq;

    if (shelf->Dropped)
        shelf->Dropped(shelf, Irp);
    ShelfEnd(shelf, Irp, STATUS_CANCELLED, 0);
}

FR NTSTATUS ShelfInit(PSHELF Shelf, PIO_REMOVE_LOCK Gate)
{
    RtlZeroMemory(Shelf, sizeof *Shelf);
    KeInitializeSpinLock(&Shelf->Lock);
    InitializeListHead(&Shelf->Irps);
    Shelf->Shut = STATUS_SUCCESS;
    Shelf->Gate = Gate;
    return IoCsqInitializeEx(&Shelf->Csq, ShelfCsqInsert, ShelfCsqRemove, ShelfCsqPeek, ShelfCsqAcquire, ShelfCsqRelease, ShelfCsqCancelled);
}

/* Takes one request off; it has no cancel routine then. NULL if there is none that fits. */
FR PIRP ShelfTake(PSHELF Shelf, ULONG_PTR Number, PFILE_OBJECT File)
{
    SHELF_WISH wish = { Number, File, NULL, NULL };

    return IoCsqRemoveNextIrp(&Shelf->Csq, &wish);
}

FR VOID ShelfFlush(PSHELF Shelf, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = ShelfTake(Shelf, 0, File)) != NULL)
        ShelfEnd(Shelf, irp, Status, 0);
}

/* From here on all requests end with Status, those on the shelf and those that are put there later. */
FR VOID ShelfShut(PSHELF Shelf, NTSTATUS Status)
{
    KIRQL irql;

    KeAcquireSpinLock(&Shelf->Lock, &irql);
    Shelf->Shut = Status;
    KeReleaseSpinLock(&Shelf->Lock, irql);
    ShelfFlush(Shelf, NULL, Status);
}

/* Puts a request on the shelf and marks it pending; the request is not the caller's any more, who returns STATUS_PENDING. Its number is the result.
   Where the shelf has a gate the caller has taken it for the request. Not to be called with a lock held. */
FR ULONG_PTR ShelfPut(PSHELF Shelf, PIRP Irp, ULONG_PTR Value)
{
    ULONG_PTR number = 0;
    NTSTATUS shut;
    KIRQL irql;

    Irp->Tail.Overlay.DriverContext[1] = (PVOID)Value;
    IoCsqInsertIrpEx(&Shelf->Csq, Irp, NULL, &number);
    KeAcquireSpinLock(&Shelf->Lock, &irql);
    shut = Shelf->Shut;
    KeReleaseSpinLock(&Shelf->Lock, irql);
    if (shut != STATUS_SUCCESS)
        ShelfFlush(Shelf, NULL, shut);
    return number;
}

/* Shows the oldest request that was not shown yet, and leaves it there. */
FR BOOLEAN ShelfNext(PSHELF Shelf, ULONG_PTR *Number, ULONG_PTR *Value)
{
    BOOLEAN found = FALSE;
    PLIST_ENTRY entry;
    KIRQL irql;

    KeAcquireSpinLock(&Shelf->Lock, &irql);
    for (entry = Shelf->Irps.Flink; entry != &Shelf->Irps && !found; entry = entry->Flink) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        if (ShelfNumberOf(irp) > Shelf->Handed) {
            Shelf->Handed = *Number = ShelfNumberOf(irp);
            *Value = ShelfValueOf(irp);
            found = TRUE;
        }
    }
    KeReleaseSpinLock(&Shelf->Lock, irql);
    return found;
}

/* ShelfNext begins again with the oldest. */
FR VOID ShelfRewind(PSHELF Shelf)
{
    KIRQL irql;

    KeAcquireSpinLock(&Shelf->Lock, &irql);
    Shelf->Handed = 0;
    KeReleaseSpinLock(&Shelf->Lock, irql);
}

/* ------------------------------------------------------------------ a control device */
#ifdef FRAME_PLAIN

FR NTSTATUS PlainMake(PDRIVER_OBJECT Driver, PCWSTR Name, ULONG Bytes, ULONG Flags, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Name);
    status = IoCreateDevice(Driver, Bytes, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (NT_SUCCESS(status)) {
        RtlZeroMemory((*Device)->DeviceExtension, Bytes);
        (*Device)->Flags |= Flags;
    }
    return status;
}

FR NTSTATUS PlainShow(PCWSTR Link, PCWSTR Name)
{
    UNICODE_STRING link, name;

    RtlInitUnicodeString(&link, Link);
    RtlInitUnicodeString(&name, Name);
    return IoCreateSymbolicLink(&link, &name);
}

FR VOID PlainHide(PCWSTR Link)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Link);
    IoDeleteSymbolicLink(&link);
}

/* For IRP_MJ_CREATE, IRP_MJ_CLEANUP and IRP_MJ_CLOSE where there is nothing to do. */
FR NTSTATUS NTAPI PlainNod(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Ends(Irp, STATUS_SUCCESS, 0);
}

#endif /* FRAME_PLAIN */

/* ------------------------------------------------------------------ a function driver */
#ifdef FRAME_PNP

typedef struct _WINDOW {
    PHYSICAL_ADDRESS Start;
    ULONG Length;
    BOOLEAN Port;
    PUCHAR At;
} WINDOW;

typedef struct _FRAME {
    PDEVICE_OBJECT Self, Below, Pdo;
    UNICODE_STRING Face;
    IO_REMOVE_LOCK Gate;
    SHELF Shelf;                /* requests that wait; each holds the gate */
    KSPIN_LOCK Lock;            /* Up, Awake, and the registers outside of the service routine */
    BOOLEAN Up;                 /* between FrameUp and FrameDown */
    BOOLEAN Awake;              /* in D0 */
    BOOLEAN Started;            /* PnP only: Stop is owed */
    BOOLEAN Surprised;          /* PnP only */
    BOOLEAN Shown;              /* PnP only: the interface is enabled */
    volatile LONG Gone;
    BOOLEAN Hear;               /* the interrupt's lock: the service routine may look at the card */
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    PIRP SystemIrp;
    ULONG Windows;
    WINDOW Window[8];
    BOOLEAN HasLine, LineShared;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
    KINTERRUPT_MODE Mode;
} FRAME, *PFRAME;

typedef struct _FRAME_HOOKS {
    ULONG Bytes;                                        /* of the extension, which begins with a FRAME */
    ULONG Flags;                                        /* DO_BUFFERED_IO or DO_DIRECT_IO */
    const GUID *Face;
    NTSTATUS (*Setup)(PFRAME F);                        /* once; optional */
    VOID (*Clear)(PFRAME F);                            /* undoes Setup; optional */
    NTSTATUS (*Start)(PFRAME F, PCM_RESOURCE_LIST Translated);  /* ends with FrameUp, or undoes all */
    VOID (*Stop)(PFRAME F, BOOLEAN Gone);               /* undoes Start; Gone: no register may be touched */
    NTSTATUS (*MayStop)(PFRAME F);                      /* optional */
    VOID (*Unhold)(PFRAME F);                           /* undoes MayStop; optional */
    VOID (*Abandon)(PFRAME F);                          /* all requests end for good; optional, F->Shelf is shut anyway */
    VOID (*Drain)(PFRAME F);                            /* at PASSIVE_LEVEL, before D0 is left; optional */
    BOOLEAN (*Isr)(PFRAME F);
    VOID (*Listen)(PFRAME F, BOOLEAN On);               /* the card's interrupts on or off; under the interrupt's lock */
    VOID (*Ready)(PFRAME F);                            /* the card is up and awake; under F->Lock; optional */
    VOID (*Lull)(PFRAME F, BOOLEAN Touch);              /* it is not any more, or will not be; under F->Lock; optional */
    VOID (*Kick)(PFRAME F);                             /* work can go on; no lock; optional */
    VOID (*Dpc)(PFRAME F);
    NTSTATUS (*Read)(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack);
    NTSTATUS (*Write)(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack);
    NTSTATUS (*Control)(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack);
    VOID (*Cleanup)(PFRAME F, PFILE_OBJECT File);       /* optional, F->Shelf is looked after anyway */
} FRAME_HOOKS;

static const FRAME_HOOKS Hooks;

/* Under F->Lock: registers may be touched. */
#define FrameLive(F) ((F)->Up && (F)->Awake)

FR ULONG Rd32(PFRAME F, ULONG Window, ULONG Offset)
{
    WINDOW *w = &F->Window[Window];

    return w->Port ? READ_PORT_ULONG((PULONG)(w->At + Offset)) : READ_REGISTER_ULONG((PULONG)(w->At + Offset));
}

FR VOID Wr32(PFRAME F, ULONG Window, ULONG Offset, ULONG Value)
{
    WINDOW *w = &F->Window[Window];

    if (w->Port)
        WRITE_PORT_ULONG((PULONG)(w->At + Offset), Value);
    else
        WRITE_REGISTER_ULONG((PULONG)(w->At + Offset), Value);
}

/* --- resources --- */

FR VOID FrameRelease(PFRAME F)
{
    ULONG i;

    for (i = 0; i < F->Windows; i++)
        if (!F->Window[i].Port)
            MmUnmapIoSpace(F->Window[i].At, F->Window[i].Length);
    F->Windows = 0;
    F->HasLine = FALSE;
}

FR NTSTATUS FrameClaim(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_LIST list;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    ULONG i;

    F->Windows = 0;
    F->HasLine = FALSE;
    if (!Translated || Translated->Count == 0)
        return STATUS_SUCCESS;
    list = &Translated->List[0].PartialResourceList;
    d = list->PartialDescriptors;
    for (i = 0; i < list->Count; i++, d++) {
        WINDOW *w;

        switch (d->Type) {
        case CmResourceTypeMemory:
        case CmResourceTypePort:
            if (F->Windows == RTL_NUMBER_OF(F->Window))
                break;
            w = &F->Window[F->Windows];
            w->Port = d->Type == CmResourceTypePort;
            w->Start = w->Port ? d->u.Port.Start : d->u.Memory.Start;
            w->Length = w->Port ? d->u.Port.Length : d->u.Memory.Length;
            if (w->Port) {
                w->At = (PUCHAR)(ULONG_PTR)w->Start.QuadPart;
            } else {
                w->At = MmMapIoSpace(w->Start, w->Length, MmNonCached);
                if (!w->At) {
                    FrameRelease(F);
                    return STATUS_INSUFFICIENT_RESOURCES;
                }
            }
            F->Windows++;
            break;
        case CmResourceTypeInterrupt:
            F->HasLine = TRUE;
            F->LineShared = d->ShareDisposition == CmResourceShareShared;
            F->Vector = d->u.Interrupt.Vector;
            F->Level = (KIRQL)d->u.Interrupt.Level;
            F->Affinity = d->u.Interrupt.Affinity;
            F->Mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
            break;
        }
    }
    return STATUS_SUCCESS;
}

/* --- interrupt --- */

FR BOOLEAN NTAPI FrameIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PFRAME f = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    return f->Hear ? Hooks.Isr(f) : FALSE;
}

FR VOID NTAPI FrameDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Hooks.Dpc(Context);
}

FR NTSTATUS FrameConnect(PFRAME F)
{
    if (!F->HasLine)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    F->Hear = FALSE;
    return IoConnectInterrupt(&F->Interrupt, FrameIsr, F, NULL, F->Vector, F->Level, F->Level, F->Mode, F->LineShared, F->Affinity, FALSE);
}

FR VOID FrameDisconnect(PFRAME F)
{
    if (F->Interrupt) {
        IoDisconnectInterrupt(F->Interrupt);
        F->Interrupt = NULL;
    }
}

typedef struct _FRAME_LISTEN {
    PFRAME F;
    BOOLEAN On, Touch;
} FRAME_LISTEN;

FR BOOLEAN NTAPI FrameListenRoutine(PVOID Context)
{
    FRAME_LISTEN *l = Context;

    l->F->Hear = l->On;
    if (l->Touch)
        Hooks.Listen(l->F, l->On);
    return TRUE;
}

/* Under F->Lock. */
FR VOID FrameListen(PFRAME F, BOOLEAN On, BOOLEAN Touch)
{
    FRAME_LISTEN l = { F, On, Touch };

    if (F->Interrupt)
        KeSynchronizeExecution(F->Interrupt, FrameListenRoutine, &l);
}

FR VOID FrameKick(PFRAME F)
{
    if (Hooks.Kick)
        Hooks.Kick(F);
}

/* The last step of Start. */
FR VOID FrameUp(PFRAME F)
{
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    F->Up = TRUE;
    if (F->Awake) {
        FrameListen(F, TRUE, TRUE);
        if (Hooks.Ready)
            Hooks.Ready(F);
    }
    KeReleaseSpinLock(&F->Lock, irql);
    FrameKick(F);
}

/* The first step of Stop: when it is over neither requests nor the service routine nor DPCs use the card. */
FR VOID FrameDown(PFRAME F, BOOLEAN Gone)
{
    BOOLEAN touch;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    touch = FrameLive(F) && !Gone;
    F->Up = FALSE;
    FrameListen(F, FALSE, touch);
    if (Hooks.Lull)
        Hooks.Lull(F, touch);
    KeReleaseSpinLock(&F->Lock, irql);
    FrameDisconnect(F);
    KeFlushQueuedDpcs();
}

/* D0 is left; up to DISPATCH_LEVEL. */
FR VOID FrameSleep(PFRAME F)
{
    KIRQL irql;

    if (Hooks.Drain && KeGetCurrentIrql() == PASSIVE_LEVEL)
        Hooks.Drain(F);
    KeAcquireSpinLock(&F->Lock, &irql);
    if (FrameLive(F)) {
        FrameListen(F, FALSE, TRUE);
        if (Hooks.Lull)
            Hooks.Lull(F, TRUE);
    }
    F->Awake = FALSE;
    KeReleaseSpinLock(&F->Lock, irql);
}

/* D0 is reached; up to DISPATCH_LEVEL. */
FR VOID FrameWake(PFRAME F)
{
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    if (!F->Awake) {
        F->Awake = TRUE;
        if (F->Up) {
            FrameListen(F, TRUE, TRUE);
            if (Hooks.Ready)
                Hooks.Ready(F);
        }
    }
    KeReleaseSpinLock(&F->Lock, irql);
    FrameKick(F);
}

/* --- requests --- */

/* Has a request wait on the shelf. Returns what the dispatch routine returns. */
FR NTSTATUS FramePark(PFRAME F, PSHELF Shelf, PIRP Irp, ULONG_PTR Value)
{
    NTSTATUS status = IoAcquireRemoveLock(&F->Gate, Irp);

    if (!NT_SUCCESS(status))
        return Ends(Irp, status, 0);
    ShelfPut(Shelf, Irp, Value);
    return STATUS_PENDING;
}

FR NTSTATUS NTAPI FrameRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFRAME f = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS (*hook)(PFRAME, PIRP, PIO_STACK_LOCATION) = NULL;
    NTSTATUS status = IoAcquireRemoveLock(&f->Gate, &stack);

    if (!NT_SUCCESS(status))
        return Ends(Irp, status, 0);
    switch (stack->MajorFunction) {
    case IRP_MJ_READ: hook = Hooks.Read; break;
    case IRP_MJ_WRITE: hook = Hooks.Write; break;
    case IRP_MJ_DEVICE_CONTROL: hook = Hooks.Control; break;
    }
    status = hook ? hook(f, Irp, stack) : Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    IoReleaseRemoveLock(&f->Gate, &stack);
    return status;
}

FR NTSTATUS NTAPI FrameHandle(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFRAME f = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR major = stack->MajorFunction;
    NTSTATUS status = IoAcquireRemoveLock(&f->Gate, &stack);

    if (!NT_SUCCESS(status))
        return Ends(Irp, major == IRP_MJ_CREATE ? status : STATUS_SUCCESS, 0);
    status = STATUS_SUCCESS;
    if (major == IRP_MJ_CREATE && InterlockedCompareExchange(&f->Gone, 0, 0))
        status = STATUS_DELETE_PENDING;
    if (major == IRP_MJ_CLEANUP) {
        ShelfFlush(&f->Shelf, stack->FileObject, STATUS_CANCELLED);
        if (Hooks.Cleanup)
            Hooks.Cleanup(f, stack->FileObject);
    }
    Ends(Irp, status, 0);
    IoReleaseRemoveLock(&f->Gate, &stack);
    return status;
}

FR NTSTATUS NTAPI FramePass(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFRAME f = Device->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&f->Gate, Irp);

    if (!NT_SUCCESS(status))
        return Ends(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Below, Irp);
    IoReleaseRemoveLock(&f->Gate, Irp);
    return status;
}

/* --- power: the shelf is left to wait in D1 to D3 and while the device is stopped --- */

FR VOID FrameSystemEnd(PFRAME F)
{
    PIRP irp = F->SystemIrp;

    F->SystemIrp = NULL;
    PoStartNextPowerIrp(irp);
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&F->Gate, irp);
}

FR VOID NTAPI FrameDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK IoStatus)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(IoStatus);
    FrameSystemEnd(Context);
}

FR NTSTATUS NTAPI FrameSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFRAME f = Context;
    POWER_STATE state;

    UNREFERENCED_PARAMETER(Device);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&f->Gate, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    state.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
    f->SystemIrp = Irp;
    if (!NT_SUCCESS(PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, state, FrameDeviceDone, f, NULL))) {
        /* The system goes on without: at least the card is left alone. */
        if (state.DeviceState != PowerDeviceD0)
            FrameSleep(f);
        FrameSystemEnd(f);
    }
    return STATUS_MORE_PROCESSING_REQUIRED;
}

FR NTSTATUS NTAPI FrameDeviceUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFRAME f = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        POWER_STATE state;

        state.DeviceState = PowerDeviceD0;
        FrameWake(f);
        PoSetPowerState(f->Self, DevicePowerState, state);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&f->Gate, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

FR NTSTATUS NTAPI FramePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFRAME f = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->Gate, Irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return Ends(Irp, status, 0);
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER) {
        BOOLEAN system = stack->Parameters.Power.Type == SystemPowerState;

        if (system || stack->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, system ? FrameSystemDone : FrameDeviceUp, f, TRUE, TRUE, TRUE);
            PoCallDriver(f->Below, Irp);
            return STATUS_PENDING;
        }
        FrameSleep(f);
        PoSetPowerState(f->Self, DevicePowerState, stack->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(f->Below, Irp);
    IoReleaseRemoveLock(&f->Gate, Irp);
    return status;
}

/* --- PnP --- */

FR NTSTATUS NTAPI FrameLowerDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned)
        KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends it down and waits; it comes back to us. */
FR NTSTATUS FrameLower(PFRAME F, PIRP Irp)
{
    NTSTATUS status;
    KEVENT done;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, FrameLowerDone, &done, TRUE, TRUE, TRUE);
    status = IoCallDriver(F->Below, Irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        status = Irp->IoStatus.Status;
    }
    return status;
}

FR VOID FrameStop(PFRAME F, BOOLEAN Gone)
{
    if (F->Started) {
        F->Started = FALSE;
        Hooks.Stop(F, Gone);
    }
}

FR VOID FrameHide(PFRAME F)
{
    if (F->Shown) {
        F->Shown = FALSE;
        IoSetDeviceInterfaceState(&F->Face, FALSE);
    }
}

FR VOID FrameAbandon(PFRAME F)
{
    InterlockedExchange(&F->Gone, 1);
    FrameHide(F);
}

FR VOID FrameEmpty(PFRAME F)
{
    ShelfShut(&F->Shelf, STATUS_DELETE_PENDING);
    if (Hooks.Abandon)
        Hooks.Abandon(F);
}

FR NTSTATUS FrameStart(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status = FrameLower(F, Irp);
    POWER_STATE state;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return status;
    FrameStop(F, FALSE);
    state.DeviceState = PowerDeviceD0;
    PoSetPowerState(F->Self, DevicePowerState, state);
    KeAcquireSpinLock(&F->Lock, &irql);
    F->Awake = TRUE;
    KeReleaseSpinLock(&F->Lock, irql);
    status = Hooks.Start(F, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (!NT_SUCCESS(status))
        return status;
    F->Started = TRUE;
    if (!F->Shown) {
        status = IoSetDeviceInterfaceState(&F->Face, TRUE);
        if (!NT_SUCCESS(status)) {
            FrameStop(F, FALSE);
            return status;
        }
        F->Shown = TRUE;
    }
    return STATUS_SUCCESS;
}

FR NTSTATUS NTAPI FramePnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFRAME f = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->Gate, Irp);

    if (!NT_SUCCESS(status))
        return Ends(Irp, status, 0);
    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = FrameStart(f, Irp, stack);
        Ends(Irp, status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&f->Gate, Irp);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (Hooks.MayStop && f->Started) {
            status = Hooks.MayStop(f);
            if (!NT_SUCCESS(status)) {
                Ends(Irp, status, 0);
                IoReleaseRemoveLock(&f->Gate, Irp);
                return status;
            }
        }
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        status = FrameLower(f, Irp);
        if (Hooks.Unhold)
            Hooks.Unhold(f);
        Ends(Irp, status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&f->Gate, Irp);
        return status;

    case IRP_MN_STOP_DEVICE:
        FrameStop(f, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        f->Surprised = TRUE;
        FrameAbandon(f);
        FrameStop(f, TRUE);
        FrameEmpty(f);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        if (!f->Surprised)
            FrameAbandon(f);
        FrameStop(f, FALSE);
        FrameEmpty(f);
        IoReleaseRemoveLockAndWait(&f->Gate, Irp);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(f->Below, Irp);
        if (Hooks.Clear)
            Hooks.Clear(f);
        IoDetachDevice(f->Below);
        RtlFreeUnicodeString(&f->Face);
        IoDeleteDevice(Device);
        return status;

    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        /* No paging, dump or hibernation file on the way through this device. */
        if (stack->Parameters.UsageNotification.InPath) {
            Ends(Irp, STATUS_UNSUCCESSFUL, 0);
            IoReleaseRemoveLock(&f->Gate, Irp);
            return STATUS_UNSUCCESSFUL;
        }
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(f->Below, Irp);
    IoReleaseRemoveLock(&f->Gate, Irp);
    return status;
}

FR NTSTATUS NTAPI FrameAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;
    PFRAME f;

    status = IoCreateDevice(Driver, Hooks.Bytes, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    f = device->DeviceExtension;
    RtlZeroMemory(f, Hooks.Bytes);
    f->Self = device;
    f->Pdo = Pdo;
    IoInitializeRemoveLock(&f->Gate, TT_TAG, 0, 0);
    KeInitializeSpinLock(&f->Lock);
    KeInitializeDpc(&f->Dpc, FrameDpc, f);
    status = ShelfInit(&f->Shelf, &f->Gate);
    if (NT_SUCCESS(status) && Hooks.Setup)
        status = Hooks.Setup(f);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    f->Below = IoAttachDeviceToDeviceStack(device, Pdo);
    status = f->Below ? IoRegisterDeviceInterface(Pdo, Hooks.Face, NULL, &f->Face) : STATUS_NO_SUCH_DEVICE;
    if (!NT_SUCCESS(status)) {
        if (f->Below)
            IoDetachDevice(f->Below);
        if (Hooks.Clear)
            Hooks.Clear(f);
        IoDeleteDevice(device);
        return status;
    }
    device->Flags |= Hooks.Flags;
    device->Flags |= (f->Below->Flags & DO_POWER_INRUSH) ? DO_POWER_INRUSH : DO_POWER_PAGABLE;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

FR VOID NTAPI FrameUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = FrameAdd;
    Driver->DriverUnload = FrameUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = FrameHandle;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrameHandle;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrameHandle;
    Driver->MajorFunction[IRP_MJ_READ] = FrameRequest;
    Driver->MajorFunction[IRP_MJ_WRITE] = FrameRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FrameRequest;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FramePass;
    Driver->MajorFunction[IRP_MJ_POWER] = FramePower;
    Driver->MajorFunction[IRP_MJ_PNP] = FramePnp;
    return STATUS_SUCCESS;
}

#endif /* FRAME_PNP */
#endif
