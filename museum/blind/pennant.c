/*
 * pennant: a root-enumerated driver that distributes signals ("pennants") between the programs of a ship's bridge. A
 * program subscribes to up to thirty-two kinds; what others hoist of these kinds is queued for its handle, in blocks of
 * a lookaside list, and read in order of arrival. A read that finds nothing waits.
 *
 * The bug: IRP_MJ_CLOSE frees the handle's structure, but not the signals that are still queued for it.
 *
 * Device: ROOT\PENNANT
 * Rule: pool-leak, lookaside-leak
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define TAG 'nneP'

#define IOCTL_PENNANT_SUBSCRIBE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PENNANT_HOIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PENNANT_LOST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8b2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define MOST_QUEUED 64

static const GUID PennantInterface = {0x3fd21a90, 0x95e6, 0x4b58, {0xa2, 0x7f, 0x18, 0x6e, 0x0b, 0x44, 0xce, 0x03}};

typedef struct PENNANT_SIGNAL {         /* of IOCTL_PENNANT_HOIST, and what is read */
    ULONG Kind;                         /* 0..31 */
    ULONG Value;
    LARGE_INTEGER Time;
} PENNANT_SIGNAL;

typedef struct SIGNAL {
    LIST_ENTRY Link;
    PENNANT_SIGNAL Signal;
} SIGNAL;

typedef struct SUBSCRIBER {             /* of an open handle */
    LIST_ENTRY Link;
    PFILE_OBJECT File;
    ULONG Kinds;
    LIST_ENTRY Signals;
    ULONG Queued, Lost;
} SUBSCRIBER;

typedef struct PENNANT {
    FRAME F;
    NPAGED_LOOKASIDE_LIST Pool;
    RQ Readers;                         /* of all handles */
    KSPIN_LOCK Lock;                    /* guards what follows, and is acquired before the queue's own */
    LIST_ENTRY Subscribers;
} PENNANT;

/* within the lock: queues a copy for one subscriber */
static void Queue(PENNANT *p, SUBSCRIBER *u, PENNANT_SIGNAL *Signal)
{
    SIGNAL *copy;

    if (u->Queued >= MOST_QUEUED || (copy = ExAllocateFromNPagedLookasideList(&p->Pool)) == NULL) {
        u->Lost++;
        return;
    }
    copy->Signal = *Signal;
    InsertTailList(&u->Signals, &copy->Link);
    u->Queued++;
}

/* hands queued signals to waiting reads of the same handle */
static void Serve(PENNANT *p)
{
    LIST_ENTRY served;
    PLIST_ENTRY e;
    SIGNAL *signal;
    KIRQL irql;
    PIRP irp;

    InitializeListHead(&served);
    KeAcquireSpinLock(&p->Lock, &irql);
    for (e = p->Subscribers.Flink; e != &p->Subscribers; e = e->Flink) {
        SUBSCRIBER *u = CONTAINING_RECORD(e, SUBSCRIBER, Link);

        while (!IsListEmpty(&u->Signals) && (irp = RqTake(&p->Readers, u->File)) != NULL) {
            irp->Tail.Overlay.DriverContext[0] = RemoveHeadList(&u->Signals);
            u->Queued--;
            InsertTailList(&served, &irp->Tail.Overlay.ListEntry);
        }
    }
    KeReleaseSpinLock(&p->Lock, irql);

    while (!IsListEmpty(&served)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&served), IRP, Tail.Overlay.ListEntry);
        signal = CONTAINING_RECORD(irp->Tail.Overlay.DriverContext[0], SIGNAL, Link);
        *(PENNANT_SIGNAL *)irp->AssociatedIrp.SystemBuffer = signal->Signal;
        ExFreeToNPagedLookasideList(&p->Pool, signal);
        Done(irp, STATUS_SUCCESS, sizeof(PENNANT_SIGNAL));
    }
}

static void Hoist(PENNANT *p, PENNANT_SIGNAL *Signal)
{
    PLIST_ENTRY e;
    KIRQL irql;

    KeQuerySystemTime(&Signal->Time);
    KeAcquireSpinLock(&p->Lock, &irql);
    for (e = p->Subscribers.Flink; e != &p->Subscribers; e = e->Flink) {
        SUBSCRIBER *u = CONTAINING_RECORD(e, SUBSCRIBER, Link);

        if (u->Kinds & (1u << Signal->Kind))
            Queue(p, u, Signal);
    }
    KeReleaseSpinLock(&p->Lock, irql);
    Serve(p);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    PENNANT *p = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&p->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(PENNANT_SIGNAL)) {
        status = Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    } else {
        status = RqPut(&p->Readers, Irp);
        Serve(p);
    }
    IoReleaseRemoveLock(&p->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    SUBSCRIBER *u = s->FileObject->FsContext;
    PENNANT *p = Device->DeviceExtension;
    PENNANT_SIGNAL signal;
    NTSTATUS status;
    ULONG done = 0;
    KIRQL irql;

    status = IoAcquireRemoveLock(&p->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PENNANT_SUBSCRIBE:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&p->Lock, &irql);
        u->Kinds = *(PULONG)buffer;
        KeReleaseSpinLock(&p->Lock, irql);
        break;

    case IOCTL_PENNANT_HOIST:
        if (in < sizeof signal) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(&signal, buffer, sizeof signal);
        if (signal.Kind > 31)
            status = STATUS_INVALID_PARAMETER;
        else
            Hoist(p, &signal);
        break;

    case IOCTL_PENNANT_LOST:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&p->Lock, &irql);
        *(PULONG)buffer = u->Lost;
        u->Lost = 0;
        KeReleaseSpinLock(&p->Lock, irql);
        done = sizeof(ULONG);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&p->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Create(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PENNANT *p = Device->DeviceExtension;
    SUBSCRIBER *u;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&p->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    u = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *u, TAG);
    if (u) {
        RtlZeroMemory(u, sizeof *u);
        u->File = file;
        InitializeListHead(&u->Signals);
        file->FsContext = u;
        KeAcquireSpinLock(&p->Lock, &irql);
        InsertTailList(&p->Subscribers, &u->Link);
        KeReleaseSpinLock(&p->Lock, irql);
    } else {
        status = STATUS_INSUFFICIENT_RESOURCES;
    }
    Done(Irp, status, 0);
    IoReleaseRemoveLock(&p->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PENNANT *p = Device->DeviceExtension;

    RqFlush(&p->Readers, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    SUBSCRIBER *u = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    PENNANT *p = Device->DeviceExtension;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    RemoveEntryList(&u->Link);
    KeReleaseSpinLock(&p->Lock, irql);
#ifdef FIXED
    while (!IsListEmpty(&u->Signals))
        ExFreeToNPagedLookasideList(&p->Pool, CONTAINING_RECORD(RemoveHeadList(&u->Signals), SIGNAL, Link));
#endif
    ExFreePoolWithTag(u, TAG);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Init(FRAME *f)
{
    PENNANT *p = (PENNANT *)f;

    KeInitializeSpinLock(&p->Lock);
    InitializeListHead(&p->Subscribers);
    RqInit(&p->Readers);
    ExInitializeNPagedLookasideList(&p->Pool, NULL, NULL, 0, sizeof(SIGNAL), TAG, 0);
    return STATUS_SUCCESS;
}

static void Gone(FRAME *f)
{
    RqShut(&((PENNANT *)f)->Readers, STATUS_DELETE_PENDING);
}

static void Free(FRAME *f)
{
    ExDeleteNPagedLookasideList(&((PENNANT *)f)->Pool);
}

static const FRAME_OPS Ops = { .Init = Init, .Gone = Gone, .Free = Free };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(PENNANT), &PennantInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = Create;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
