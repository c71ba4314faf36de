/*
 * bufdepot: a depot for blocks of data. Writes put blocks in, reads take the oldest out; a read that finds the
 * depot empty waits in a cancel-safe queue. Both are direct I/O.
 *
 * The bug: a read that waits holds the remove lock; where it is cancelled it is completed without the lock being
 * released, and the device's removal waits forever.
 *
 * Device: ROOT\BUFDEPOT
 * Rule: stuck, remove-lock-not-awaited, deadlock
 * Needs: cancel, removal
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define BD_TAG      FR_TAG('B', 'f', 'D', 'p')
#define BD_ROOM     (256 * 1024)        /* bytes in the depot */
#define BD_LONGEST  (32 * 1024)

#define IOCTL_BD_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BD_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID GUID_BUFDEPOT = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x01 } };

typedef struct _BD_LEVEL {
    ULONG Blocks;
    ULONG Bytes;
} BD_LEVEL, *PBD_LEVEL;

typedef struct _BD_BLOCK {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[1];
} BD_BLOCK, *PBD_BLOCK;

typedef struct _BD_EXT {
    FR_EXT Frame;
    KSPIN_LOCK Lock;                    /* all below */
    LIST_ENTRY Blocks;
    BD_LEVEL Level;
    IO_CSQ Csq;
    LIST_ENTRY Reads;
} BD_EXT, *PBD_EXT;

#define BD_OF(Csq) CONTAINING_RECORD(Csq, BD_EXT, Csq)

static VOID NTAPI BdCsqInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&BD_OF(Csq)->Reads, &Irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI BdCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI BdCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PLIST_ENTRY Head = &BD_OF(Csq)->Reads;
    PLIST_ENTRY Entry = Irp ? Irp->Tail.Overlay.ListEntry.Flink : Head->Flink;
    for (; Entry != Head; Entry = Entry->Flink) {
        PIRP Next = CONTAINING_RECORD(Entry, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(Next)->FileObject == (PFILE_OBJECT)File)
            return Next;
    }
    return NULL;
}

static VOID NTAPI BdCsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&BD_OF(Csq)->Lock, Irql);
}

static VOID NTAPI BdCsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&BD_OF(Csq)->Lock, Irql);
}

/* Ends a read that has waited. */
static VOID BdEnd(PBD_EXT Ext, PIRP Irp, NTSTATUS Status, ULONG Length)
{
    FrComplete(Irp, Status, Length);
    IoReleaseRemoveLock(&Ext->Frame.RemoveLock, Irp);
}

static VOID NTAPI BdCsqCanceled(PIO_CSQ Csq, PIRP Irp)
{
#ifdef FIXED
    BdEnd(BD_OF(Csq), Irp, STATUS_CANCELLED, 0);
#else
    UNREFERENCED_PARAMETER(Csq);
    FrComplete(Irp, STATUS_CANCELLED, 0);
#endif
}

static VOID BdEndAll(PBD_EXT Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;
    while ((Irp = IoCsqRemoveNextIrp(&Ext->Csq, File)) != NULL)
        BdEnd(Ext, Irp, Status, 0);
}

static PBD_BLOCK BdTake(PBD_EXT Ext)
{
    PBD_BLOCK Block = NULL;
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (!IsListEmpty(&Ext->Blocks)) {
        Block = CONTAINING_RECORD(RemoveHeadList(&Ext->Blocks), BD_BLOCK, Link);
        Ext->Level.Blocks--;
        Ext->Level.Bytes -= Block->Length;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return Block;
}

/* TRUE: reads are waiting. */
static BOOLEAN BdPut(PBD_EXT Ext, PBD_BLOCK Block, BOOLEAN Front)
{
    BOOLEAN Waiting;
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (Front)
        InsertHeadList(&Ext->Blocks, &Block->Link);
    else
        InsertTailList(&Ext->Blocks, &Block->Link);
    Ext->Level.Blocks++;
    Ext->Level.Bytes += Block->Length;
    Waiting = !IsListEmpty(&Ext->Reads);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return Waiting;
}

/* Brings blocks and waiting reads together as long as there are both. */
static VOID BdMatch(PBD_EXT Ext)
{
    for (;;) {
        PBD_BLOCK Block = BdTake(Ext);
        PIRP Irp;
        PUCHAR To;
        ULONG Length;
        if (!Block)
            return;
        Irp = IoCsqRemoveNextIrp(&Ext->Csq, NULL);
        if (!Irp) {
            if (!BdPut(Ext, Block, TRUE))
                return;
            continue;                                       /* one came while the block was out */
        }
        Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
        To = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
        if (!To) {
            BdPut(Ext, Block, TRUE);
            BdEnd(Ext, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
            continue;
        }
        if (Length > Block->Length)
            Length = Block->Length;
        RtlCopyMemory(To, Block->Data, Length);
        BdEnd(Ext, Irp, Length < Block->Length ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS, Length);
        ExFreePoolWithTag(Block, BD_TAG);
    }
}

static NTSTATUS BdRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBD_EXT Ext = DeviceObject->DeviceExtension;
    NTSTATUS Status;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0)
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    Status = IoAcquireRemoveLock(&Ext->Frame.RemoveLock, Irp);
    if (!NT_SUCCESS(Status)) {
        FrLeave(&Ext->Frame);
        return FrComplete(Irp, Status, 0);
    }
    IoCsqInsertIrp(&Ext->Csq, Irp, NULL);
    BdMatch(Ext);
    FrLeave(&Ext->Frame);
    return STATUS_PENDING;
}

static NTSTATUS BdWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBD_EXT Ext = DeviceObject->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PBD_BLOCK Block;
    PUCHAR From;
    BOOLEAN Full;
    KIRQL Irql;
    NTSTATUS Status;

    if (Length == 0 || Length > BD_LONGEST)
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Full = Ext->Level.Bytes > BD_ROOM - Length;
    KeReleaseSpinLock(&Ext->Lock, Irql);
    From = Full ? NULL : MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    Block = From ? ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(BD_BLOCK, Data) + Length, BD_TAG) : NULL;
    if (!Block) {
        FrLeave(&Ext->Frame);
        return FrComplete(Irp, Full ? STATUS_DEVICE_BUSY : STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Block->Length = Length;
    RtlCopyMemory(Block->Data, From, Length);
    BdPut(Ext, Block, FALSE);
    BdMatch(Ext);
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, STATUS_SUCCESS, Length);
}

static VOID BdEmpty(PBD_EXT Ext)
{
    PBD_BLOCK Block;
    while ((Block = BdTake(Ext)) != NULL)
        ExFreePoolWithTag(Block, BD_TAG);
}

static NTSTATUS BdControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PBD_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR Information = 0;
    KIRQL Irql;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BD_LEVEL:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(BD_LEVEL)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        *(PBD_LEVEL)Irp->AssociatedIrp.SystemBuffer = Ext->Level;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        Information = sizeof(BD_LEVEL);
        break;
    case IOCTL_BD_EMPTY:
        BdEmpty(Ext);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

static NTSTATUS BdCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    BdEndAll(DeviceObject->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID BdStop(PFR_EXT Frame)
{
    BdEndAll((PBD_EXT)Frame, NULL, STATUS_DEVICE_NOT_READY);
}

static VOID BdAbort(PFR_EXT Frame)
{
    BdEndAll((PBD_EXT)Frame, NULL, STATUS_DELETE_PENDING);
}

static VOID BdFree(PFR_EXT Frame)
{
    BdEmpty((PBD_EXT)Frame);
}

static const FR_OPS BdOps = { .Stop = BdStop, .Abort = BdAbort, .Free = BdFree };

static VOID BdInit(PFR_EXT Frame)
{
    PBD_EXT Ext = (PBD_EXT)Frame;
    KeInitializeSpinLock(&Ext->Lock);
    InitializeListHead(&Ext->Blocks);
    InitializeListHead(&Ext->Reads);
    IoCsqInitialize(&Ext->Csq, BdCsqInsert, BdCsqRemove, BdCsqPeek, BdCsqAcquire, BdCsqRelease, BdCsqCanceled);
}

static NTSTATUS NTAPI BdAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(BD_EXT), DO_DIRECT_IO, &GUID_BUFDEPOT, &BdOps, BdInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, BdAddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BdCleanup;
    Driver->MajorFunction[IRP_MJ_READ] = BdRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = BdWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BdControl;
    return STATUS_SUCCESS;
}
