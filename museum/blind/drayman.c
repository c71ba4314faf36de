/*
 * drayman: a root-enumerated driver that computes checksums of blocks for a backup product. A block is sent by a write,
 * which is copied and completed at once; a work item computes its checksum, which goes into a history that
 * IOCTL_DRAYMAN_HISTORY returns.
 *
 * The bug: queued work holds no remove lock of its own: the device may be removed, and the history freed, while a block
 * still waits for its work item.
 *
 * Device: ROOT\DRAYMAN
 * Rule: use-after-free, write-after-free
 * Needs: removal, schedule
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define TAG 'yarD'

#define IOCTL_DRAYMAN_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DRAYMAN_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LARGEST (256 * 1024)
#define PIECE 16384
#define MOST_QUEUED 16
#define HISTORY 64

static const GUID DraymanInterface = {0x5b1e6c51, 0x7c3a, 0x4df0, {0x9a, 0x11, 0x3d, 0x2f, 0x60, 0xb7, 0x91, 0x01}};

typedef struct DRAYMAN_ENTRY {
    ULONG Number;                       /* of the block, from 1 */
    ULONG Bytes;
    ULONG Sum;
    NTSTATUS Status;
} DRAYMAN_ENTRY;

typedef struct BLOCK {
    PIO_WORKITEM Item;
    ULONG Number, Bytes;
    UCHAR Data[1];
} BLOCK;

typedef struct DRAYMAN {
    FRAME F;
    volatile LONG Leaving;              /* work that has not been done is dropped */
    KSPIN_LOCK Lock;                    /* guards what follows */
    ULONG LastNumber;
    ULONG Queued;
    ULONG Kept, Next;
    DRAYMAN_ENTRY *History;             /* HISTORY of them, in pool */
} DRAYMAN;

static ULONG Adler(ULONG Sum, const UCHAR *Bytes, ULONG Count)
{
    ULONG a = Sum & 0xffff, b = Sum >> 16, i;

    for (i = 0; i < Count; i++) {
        a = (a + Bytes[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* in a system thread, at PASSIVE_LEVEL */
static VOID NTAPI Compute(PDEVICE_OBJECT Device, PVOID Context)
{
    DRAYMAN *d = Device->DeviceExtension;
    BLOCK *block = Context;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG done = 0, piece, sum = 1;
    DRAYMAN_ENTRY *e;
    KIRQL irql;

    while (done < block->Bytes) {
        if (InterlockedCompareExchange(&d->Leaving, 0, 0)) {
            status = STATUS_DELETE_PENDING;
            break;
        }
        piece = block->Bytes - done < PIECE ? block->Bytes - done : PIECE;
        sum = Adler(sum, block->Data + done, piece);
        done += piece;
    }

    KeAcquireSpinLock(&d->Lock, &irql);
    e = &d->History[d->Next];
    e->Number = block->Number;
    e->Bytes = block->Bytes;
    e->Sum = sum;
    e->Status = status;
    d->Next = (d->Next + 1) % HISTORY;
    if (d->Kept < HISTORY)
        d->Kept++;
    d->Queued--;
    KeReleaseSpinLock(&d->Lock, irql);

    IoFreeWorkItem(block->Item);
    ExFreePoolWithTag(block, TAG);
#ifdef FIXED
    IoReleaseRemoveLock(&d->F.RemoveLock, block);
#endif
}

/* within the gate */
static NTSTATUS Queue(DRAYMAN *d, PVOID Bytes, ULONG Count)
{
    BOOLEAN room;
    BLOCK *block;
    KIRQL irql;

    if (Count == 0 || Count > LARGEST)
        return STATUS_INVALID_BUFFER_SIZE;
    block = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(BLOCK, Data) + Count, TAG);
    if (!block)
        return STATUS_INSUFFICIENT_RESOURCES;
    block->Item = IoAllocateWorkItem(d->F.Self);
    if (!block->Item) {
        ExFreePoolWithTag(block, TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    block->Bytes = Count;
    RtlCopyMemory(block->Data, Bytes, Count);

    KeAcquireSpinLock(&d->Lock, &irql);
    room = d->Queued < MOST_QUEUED;
    if (room) {
        d->Queued++;
        block->Number = ++d->LastNumber;
    }
    KeReleaseSpinLock(&d->Lock, irql);

#ifdef FIXED
    if (room && !NT_SUCCESS(IoAcquireRemoveLock(&d->F.RemoveLock, block))) {
        KeAcquireSpinLock(&d->Lock, &irql);
        d->Queued--;
        KeReleaseSpinLock(&d->Lock, irql);
        room = FALSE;
    }
#endif
    if (!room) {
        IoFreeWorkItem(block->Item);
        ExFreePoolWithTag(block, TAG);
        return STATUS_DEVICE_BUSY;
    }
    IoQueueWorkItem(block->Item, Compute, DelayedWorkQueue, block);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    DRAYMAN *d = Device->DeviceExtension;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&d->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    status = FrEnter(&d->F);
    if (NT_SUCCESS(status)) {
        status = Queue(d, Irp->AssociatedIrp.SystemBuffer, length);
        FrLeave(&d->F);
    }
    Done(Irp, status, NT_SUCCESS(status) ? length : 0);
    IoReleaseRemoveLock(&d->F.RemoveLock, Irp);
    return status;
}

/* the oldest first, as many as there is room for */
static ULONG GetHistory(DRAYMAN *d, DRAYMAN_ENTRY *To, ULONG Room)
{
    ULONG count, i;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    count = d->Kept < Room ? d->Kept : Room;
    for (i = 0; i < count; i++)
        To[i] = d->History[(d->Next + HISTORY - d->Kept + i) % HISTORY];
    KeReleaseSpinLock(&d->Lock, irql);
    return count * sizeof *To;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength, done = 0;
    DRAYMAN *d = Device->DeviceExtension;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&d->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DRAYMAN_HISTORY:
        if (out < sizeof(DRAYMAN_ENTRY))
            status = STATUS_BUFFER_TOO_SMALL;
        else
            done = GetHistory(d, Irp->AssociatedIrp.SystemBuffer, out / sizeof(DRAYMAN_ENTRY));
        break;

    case IOCTL_DRAYMAN_RESET:
        KeAcquireSpinLock(&d->Lock, &irql);
        d->Kept = 0;
        KeReleaseSpinLock(&d->Lock, irql);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&d->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS Init(FRAME *f)
{
    DRAYMAN *d = (DRAYMAN *)f;

    KeInitializeSpinLock(&d->Lock);
    d->History = ExAllocatePoolWithTag(NonPagedPoolNx, HISTORY * sizeof(DRAYMAN_ENTRY), TAG);
    return d->History ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void Gone(FRAME *f)
{
    InterlockedExchange(&((DRAYMAN *)f)->Leaving, 1);
}

static void Free(FRAME *f)
{
    ExFreePoolWithTag(((DRAYMAN *)f)->History, TAG);
}

static const FRAME_OPS Ops = { .Init = Init, .Gone = Gone, .Free = Free };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(DRAYMAN), &DraymanInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
