/*
 * CAUSEWAY: a way for bytes between programs. A write waits until all of its bytes are read, a read waits until there are some; reads and writes need not be of
 * one length. All of them can be cancelled, and end when their handle is closed.
 *
 * The bug: while a write is read in part the driver keeps a pointer to it. When that write is cancelled, or its handle is closed, the pointer stays, and the
 * next read takes its bytes from a request that is gone.
 *
 * Device: Root\CAUSEWAY
 * Rule: use-after-free, double-completion, list-corrupt, list-damaged, wild-read, irp-in-use
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define CAUSEWAY_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MOST 65536

typedef struct _STATE {
    ULONGLONG Passed;
    ULONG Waiting;                  /* bytes that are written and not read yet */
    ULONG Reserved;
} STATE;

typedef struct _DEV {
    RIG Rig;
    ROW Readers;                    /* under the rig's lock, all of these */
    ROW Writers;                    /* of each the second context is how many of its bytes are read */
    ULONGLONG Passed;
#ifndef FIXED
    PIRP Current;
#endif
} DEV;

static const GUID Interface = { 0x6f1c02dd, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x0d } };

static ULONG Taken(PIRP writer)
{
    return (ULONG)(ULONG_PTR)writer->Tail.Overlay.DriverContext[1];
}

static ULONG Left(PIRP writer)
{
    return IoGetCurrentIrpStackLocation(writer)->Parameters.Write.Length - Taken(writer);
}

/* Lock held: whose bytes come next. */
static PIRP Source(DEV *dev)
{
    PLIST_ENTRY entry;

#ifndef FIXED
    if (dev->Current != NULL)
        return dev->Current;
#endif
    for (entry = dev->Writers.Irps.Flink; entry != &dev->Writers.Irps; entry = entry->Flink) {
        PIRP writer = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        /* One that is read in full and still here is being cancelled. */
        if (Left(writer) != 0) {
#ifndef FIXED
            dev->Current = writer;
#endif
            return writer;
        }
    }
    return NULL;
}

/* Lock held: what a reader gets of a writer; a writer that is read in full joins those that are done. */
static ULONG Pass(DEV *dev, PIRP writer, PUCHAR into, ULONG most, PLIST_ENTRY done)
{
    ULONG taken = Taken(writer), left = Left(writer), count = most < left ? most : left;

    RtlCopyMemory(into, (PUCHAR)writer->AssociatedIrp.SystemBuffer + taken, count);
    writer->Tail.Overlay.DriverContext[1] = (PVOID)(ULONG_PTR)(taken + count);
    if (count == left) {
#ifndef FIXED
        dev->Current = NULL;
#endif
        if (RowPull(writer)) {
            writer->IoStatus.Information = taken + count;
            InsertTailList(done, &writer->Tail.Overlay.ListEntry);
        }
    }
    dev->Passed += count;
    return count;
}

/* Without the lock. One more waits in this row; then all is passed that can be. */
static NTSTATUS Join(DEV *dev, ROW *row, PIRP irp)
{
    LIST_ENTRY done;
    NTSTATUS status;
    PIRP reader, writer;
    KIRQL irql;

    InitializeListHead(&done);
    irp->Tail.Overlay.DriverContext[1] = NULL;
    KeAcquireSpinLock(&dev->Rig.Lock, &irql);
    status = RigPut(&dev->Rig, row, irp);
    while (status == STATUS_PENDING && Source(dev) != NULL && (reader = RowTake(&dev->Readers, NULL)) != NULL) {
        PUCHAR into = reader->AssociatedIrp.SystemBuffer;
        ULONG wanted = IoGetCurrentIrpStackLocation(reader)->Parameters.Read.Length, count = 0;

        while (count < wanted && (writer = Source(dev)) != NULL)
            count += Pass(dev, writer, into + count, wanted - count, &done);
        reader->IoStatus.Information = count;
        InsertTailList(&done, &reader->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&dev->Rig.Lock, irql);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        RigFinish(&dev->Rig, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
    return status;
}

static NTSTATUS CausewayRead(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;

    if (task->Out == 0)
        return STATUS_SUCCESS;
    return Join(dev, &dev->Readers, task->Irp);
}

static NTSTATUS CausewayWrite(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;

    if (task->In == 0)
        return STATUS_SUCCESS;
    if (task->In > MOST)
        return STATUS_INVALID_PARAMETER;
    return Join(dev, &dev->Writers, task->Irp);
}

static NTSTATUS CausewayControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    PLIST_ENTRY entry;
    STATE state;
    KIRQL irql;

    if (task->Code != CAUSEWAY_STATE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (task->Out < sizeof(STATE))
        return STATUS_BUFFER_TOO_SMALL;
    RtlZeroMemory(&state, sizeof(state));
    KeAcquireSpinLock(&rig->Lock, &irql);
    state.Passed = dev->Passed;
    for (entry = dev->Writers.Irps.Flink; entry != &dev->Writers.Irps; entry = entry->Flink)
        state.Waiting += Left(CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry));
    KeReleaseSpinLock(&rig->Lock, irql);
    RtlCopyMemory(task->Buffer, &state, sizeof(state));
    task->Info = sizeof(state);
    return STATUS_SUCCESS;
}

static VOID CausewayClear(RIG *rig, PFILE_OBJECT file, NTSTATUS status)
{
    DEV *dev = (DEV *)rig;

    RowEmpty(&dev->Readers, file, status);
    RowEmpty(&dev->Writers, file, status);
}

static NTSTATUS CausewayBorn(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    RowInit(&dev->Readers, &rig->Lock, &rig->Gate);
    RowInit(&dev->Writers, &rig->Lock, &rig->Gate);
    return STATUS_SUCCESS;
}

static VOID CausewayDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS CausewayEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST resources)
{
    (void)rig;
    (void)resources;
    return STATUS_SUCCESS;
}

static VOID CausewayStrip(RIG *rig)
{
    (void)rig;
}

static VOID CausewayUp(RIG *rig)
{
    (void)rig;
}

static VOID CausewayDown(RIG *rig, BOOLEAN reachable)
{
    (void)rig;
    (void)reachable;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = CausewayBorn,
    .Dead = CausewayDead,
    .Equip = CausewayEquip,
    .Strip = CausewayStrip,
    .Up = CausewayUp,
    .Down = CausewayDown,
    .Clear = CausewayClear,
    .Control = CausewayControl,
    .Read = CausewayRead,
    .Write = CausewayWrite,
};

static NTSTATUS NTAPI CausewayAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, CausewayAdd);
}
