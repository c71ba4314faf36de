/*
 * roost: a root-enumerated device where readers wait for the messages of others: each message posted goes to the
 * reader that has waited longest, or is kept (sixteen at most) for the next one.
 *
 * The bug: whether the device goes away is looked at before a waiting request is queued and not after; one that is
 * queued just behind the removal's purge is never failed: its reader hangs and holds up the removal's end.
 *
 * Device: ROOT\ROOST
 * Rule: request-pending-after-surprise-removal
 * Needs: removal, schedule
 */
#define FRAME_NO_HARDWARE
#include "../include/caller_frame.h"

#define IOCTL_ROOST_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ROOST_POST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_WRITE_DATA)
#define KEPT 16

typedef struct _ROOST {
    FRAME F;
    IO_CSQ Csq;
    LIST_ENTRY Waiting;
    KSPIN_LOCK Lock;
    KSPIN_LOCK KeptLock;        /* taken outside of Lock */
    ULONG Kept, First;
    ULONGLONG Messages[KEPT];
} ROOST, *PROOST;

static const GUID RoostClass = {0x6c1e2a01, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x01}};

static VOID NTAPI RoostInsert(PIO_CSQ csq, PIRP irp)
{
    InsertTailList(&CONTAINING_RECORD(csq, ROOST, Csq)->Waiting, &irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI RoostTake(PIO_CSQ csq, PIRP irp)
{
    UNREFERENCED_PARAMETER(csq);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI RoostPeek(PIO_CSQ csq, PIRP irp, PVOID file)
{
    PROOST r = CONTAINING_RECORD(csq, ROOST, Csq);
    PLIST_ENTRY e = irp != NULL ? irp->Tail.Overlay.ListEntry.Flink : r->Waiting.Flink;

    while (e != &r->Waiting) {
        irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (file == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == file)
            return irp;
        e = e->Flink;
    }
    return NULL;
}

static VOID NTAPI RoostAcquire(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(csq, ROOST, Csq)->Lock, irql);
}

static VOID NTAPI RoostRelease(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(csq, ROOST, Csq)->Lock, irql);
}

static VOID Answer(PROOST r, PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&r->F.Remove, irp);
}

static VOID NTAPI RoostCanceled(PIO_CSQ csq, PIRP irp)
{
    Answer(CONTAINING_RECORD(csq, ROOST, Csq), irp, STATUS_CANCELLED, 0);
}

static VOID Purge(PROOST r, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&r->Csq, file)) != NULL)
        Answer(r, irp, status, 0);
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    Purge(dev->DeviceExtension, NULL, STATUS_DELETE_PENDING);
}

/* Matches kept messages with waiting readers. */
static VOID Match(PROOST r)
{
    PIRP irp;
    KIRQL irql;

    for (;;) {
        KeAcquireSpinLock(&r->KeptLock, &irql);
        irp = r->Kept != 0 ? IoCsqRemoveNextIrp(&r->Csq, NULL) : NULL;
        if (irp != NULL) {
            *(PULONGLONG)irp->AssociatedIrp.SystemBuffer = r->Messages[r->First];
            r->First = (r->First + 1) % KEPT;
            r->Kept--;
        }
        KeReleaseSpinLock(&r->KeptLock, irql);
        if (irp == NULL)
            return;
        Answer(r, irp, STATUS_SUCCESS, sizeof(ULONGLONG));
    }
}

static NTSTATUS Wait(PROOST r, PIRP irp)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (r->F.Gone)
        status = STATUS_DELETE_PENDING;
    else if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONGLONG))
        status = STATUS_BUFFER_TOO_SMALL;
    if (!NT_SUCCESS(status)) {
        Answer(r, irp, status, 0);
        return status;
    }
    IoCsqInsertIrp(&r->Csq, irp, NULL);     /* marks it pending */
#ifdef FIXED
    if (r->F.Gone)
        Purge(r, NULL, STATUS_DELETE_PENDING);
#endif
    Match(r);
    return STATUS_PENDING;
}

static NTSTATUS Post(PROOST r, PIRP irp)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONGLONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (r->F.Gone) {
        status = STATUS_DELETE_PENDING;
    } else {
        KeAcquireSpinLock(&r->KeptLock, &irql);
        if (r->Kept == KEPT) {
            status = STATUS_DEVICE_BUSY;
        } else {
            r->Messages[(r->First + r->Kept) % KEPT] = *(PULONGLONG)irp->AssociatedIrp.SystemBuffer;
            r->Kept++;
        }
        KeReleaseSpinLock(&r->KeptLock, irql);
        Match(r);
    }
    Answer(r, irp, status, 0);
    return status;
}

static NTSTATUS NTAPI RoostControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PROOST r = dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&r->F.Remove, irp), second;

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    /* One more for this thread, as the request's own may end while we are still here. */
    second = IoAcquireRemoveLock(&r->F.Remove, &second);
    if (!NT_SUCCESS(second)) {
        Answer(r, irp, second, 0);
        return second;
    }
    switch (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROOST_WAIT:
        status = Wait(r, irp);
        break;
    case IOCTL_ROOST_POST:
        status = Post(r, irp);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        Answer(r, irp, status, 0);
    }
    IoReleaseRemoveLock(&r->F.Remove, &second);
    return status;
}

static NTSTATUS NTAPI RoostCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    Purge(dev->DeviceExtension, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI RoostAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    PROOST r;
    NTSTATUS status = FrameAdd(driver, pdo, &RoostClass, sizeof(ROOST), DO_BUFFERED_IO, &dev);

    if (!NT_SUCCESS(status))
        return status;
    r = dev->DeviceExtension;
    InitializeListHead(&r->Waiting);
    KeInitializeSpinLock(&r->Lock);
    KeInitializeSpinLock(&r->KeptLock);
    status = IoCsqInitialize(&r->Csq, RoostInsert, RoostTake, RoostPeek, RoostAcquire, RoostRelease, RoostCanceled);
    if (!NT_SUCCESS(status)) {
        FrameUndoAdd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, RoostAdd);
    driver->MajorFunction[IRP_MJ_CLEANUP] = RoostCleanup;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RoostControl;
    return STATUS_SUCCESS;
}
