/*
 * edudma.sys - DMA access to the 4 KB buffer of the EDU card (QEMU -device edu)
 *
 * Reads and writes at file offset 0..4095 are DMA transfers between the card's
 * buffer and a bounce page below 256 MB (the card has 28 address bits). One
 * transfer at a time; a watchdog gives up on a card that does not answer.
 *
 * The bug: the DPC of the time limit looks which request is active before it has the lock.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-completion
 * Needs: schedule, device
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define EDU_BUFFER              0x40000
#define EDU_BUFFER_SIZE         4096
#define EDU_IRQ_STATUS          0x24
#define EDU_IRQ_ACK             0x64
#define EDU_DMA_SRC             0x80
#define EDU_DMA_DST             0x88
#define EDU_DMA_COUNT           0x90
#define EDU_DMA_CMD             0x98
#define EDU_CMD_RUN             0x1
#define EDU_CMD_FROM_CARD       0x2
#define EDU_CMD_IRQ             0x4
#define EDU_WINDOW              0x1000
#define EDU_TIMEOUT             (1000 * 10000LL)

DEFINE_GUID(GUID_EDUDMA, 0x97d0a1b3, 0x2f6c, 0x4a8e, 0x8f, 0x11, 0x6e, 0x75, 0x0c, 0xc2, 0x3a, 0x55);

/* DEVICE_DESCRIPTION as of Windows 8, which knows the number of address bits. */
typedef struct _EDU_DEVICE_DESCRIPTION {
    DEVICE_DESCRIPTION Base;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} EDU_DEVICE_DESCRIPTION;

typedef struct _EDU_EXTENSION {
    DEVKIT Kit;
    PUCHAR Registers;
    PKINTERRUPT Interrupt;
    KDPC IsrDpc;
    KTIMER Watchdog;
    KDPC WatchdogDpc;
    PDMA_ADAPTER Adapter;
    PVOID Bounce;
    PHYSICAL_ADDRESS BounceLogical;
    KSPIN_LOCK Lock;
    BOOLEAN Started;            /* Lock, with all that follows */
    PIRP Active;
    ULONG64 Deadline;
    LIST_ENTRY Queue;
} EDU_EXTENSION, *PEDU_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static ULONG EduRead(PEDU_EXTENSION Ext, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Registers + Offset));
}

static VOID EduWrite(PEDU_EXTENSION Ext, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Registers + Offset), Value);
}

static VOID EduFinish(PEDU_EXTENSION Ext, PIRP Irp, NTSTATUS Status)
{
    DkComplete(Irp, Status, NT_SUCCESS(Status) ? MmGetMdlByteCount(Irp->MdlAddress) : 0);
    IoReleaseRemoveLock(&Ext->Kit.RemoveLock, Irp);
}

/* Lock held. */
static NTSTATUS EduStartTransfer(PEDU_EXTENSION Ext, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    ULONG card = EDU_BUFFER + (write ? sp->Parameters.Write.ByteOffset.LowPart : sp->Parameters.Read.ByteOffset.LowPart);
    LARGE_INTEGER due;

    /* Still at a transfer that was given up: the bounce page is not free. */
    if (EduRead(Ext, EDU_DMA_CMD) & EDU_CMD_RUN)
        return STATUS_DEVICE_BUSY;

    if (write)
        RtlCopyMemory(Ext->Bounce, Irp->MdlAddress->MappedSystemVa, length);
    Ext->Active = Irp;
    EduWrite(Ext, EDU_DMA_SRC, write ? Ext->BounceLogical.LowPart : card);
    EduWrite(Ext, EDU_DMA_DST, write ? card : Ext->BounceLogical.LowPart);
    EduWrite(Ext, EDU_DMA_COUNT, length);
    EduWrite(Ext, EDU_DMA_CMD, EDU_CMD_RUN | EDU_CMD_IRQ | (write ? 0 : EDU_CMD_FROM_CARD));
    Ext->Deadline = KeQueryInterruptTime() + EDU_TIMEOUT;
    due.QuadPart = -EDU_TIMEOUT;
    KeSetTimer(&Ext->Watchdog, due, &Ext->WatchdogDpc);
    return STATUS_SUCCESS;
}

/* Starts the next transfer if none is under way. */
static VOID EduPump(PEDU_EXTENSION Ext)
{
    NTSTATUS status;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&Ext->Lock, &irql);
        if (Ext->Active != NULL || IsListEmpty(&Ext->Queue)) {
            KeReleaseSpinLock(&Ext->Lock, irql);
            return;
        }
        irp = CONTAINING_RECORD(RemoveHeadList(&Ext->Queue), IRP, Tail.Overlay.ListEntry);
        status = Ext->Started ? EduStartTransfer(Ext, irp) : STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&Ext->Lock, irql);
        if (NT_SUCCESS(status))
            return;
        EduFinish(Ext, irp, status);
    }
}

static BOOLEAN NTAPI EduIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEDU_EXTENSION ext = Context;
    ULONG cause = EduRead(ext, EDU_IRQ_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    EduWrite(ext, EDU_IRQ_ACK, cause);
    KeInsertQueueDpc(&ext->IsrDpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI EduIsrDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEDU_EXTENSION ext = Context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    if (ext->Started && ext->Active != NULL && !(EduRead(ext, EDU_DMA_CMD) & EDU_CMD_RUN)) {
        irp = ext->Active;
        ext->Active = NULL;
        KeCancelTimer(&ext->Watchdog);
        if (IoGetCurrentIrpStackLocation(irp)->MajorFunction == IRP_MJ_READ)
            RtlCopyMemory(irp->MdlAddress->MappedSystemVa, ext->Bounce, MmGetMdlByteCount(irp->MdlAddress));
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    if (irp != NULL) {
        EduPump(ext);
        EduFinish(ext, irp, STATUS_SUCCESS);
    }
}

static VOID NTAPI EduWatchdogDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PEDU_EXTENSION ext = Context;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    irp = ext->Active;
#else
    irp = ext->Active;
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
#endif
    if (KeQueryInterruptTime() < ext->Deadline)
        irp = NULL;             /* meant for the transfer before */
    else
        ext->Active = NULL;
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    if (irp != NULL) {
        EduPump(ext);
        EduFinish(ext, irp, STATUS_IO_TIMEOUT);
    }
}

static NTSTATUS NTAPI EduReadWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEDU_EXTENSION ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    ULONG length = write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    LONGLONG offset = write ? sp->Parameters.Write.ByteOffset.QuadPart : sp->Parameters.Read.ByteOffset.QuadPart;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);
    if (length == 0 || offset < 0 || offset >= EDU_BUFFER_SIZE || length > EDU_BUFFER_SIZE - (ULONG)offset)
        status = STATUS_INVALID_PARAMETER;
    else if (MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority) == NULL)
        status = STATUS_INSUFFICIENT_RESOURCES;
    /* A second hold for ourselves: the request may be over before EduPump is. */
    if (NT_SUCCESS(status))
        status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, EduPump);
    if (!NT_SUCCESS(status)) {
        EduFinish(ext, Irp, status);
        return status;
    }

    IoMarkIrpPending(Irp);
    KeAcquireSpinLock(&ext->Lock, &irql);
    InsertTailList(&ext->Queue, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ext->Lock, irql);
    EduPump(ext);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, EduPump);
    return STATUS_PENDING;
}

/* Ends what is queued, for one handle or all. */
static VOID EduFlush(PEDU_EXTENSION Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PLIST_ENTRY e, next;
    LIST_ENTRY gone;
    KIRQL irql;

    InitializeListHead(&gone);
    KeAcquireSpinLock(&Ext->Lock, &irql);
    for (e = Ext->Queue.Flink; e != &Ext->Queue; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if (File == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == File) {
            RemoveEntryList(e);
            InsertTailList(&gone, e);
        }
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    while (!IsListEmpty(&gone))
        EduFinish(Ext, CONTAINING_RECORD(RemoveHeadList(&gone), IRP, Tail.Overlay.ListEntry), Status);
}

static NTSTATUS NTAPI EduOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MajorFunction == IRP_MJ_CLEANUP)
        EduFlush(DeviceObject->DeviceExtension, sp->FileObject, STATUS_CANCELLED);
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID EduStop(PDEVICE_OBJECT DeviceObject)
{
    PEDU_EXTENSION ext = DeviceObject->DeviceExtension;
    LARGE_INTEGER tick;
    ULONG tries, cmd;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    irp = ext->Active;
    ext->Active = NULL;
    KeReleaseSpinLock(&ext->Lock, irql);

    KeCancelTimer(&ext->Watchdog);
    IoDisconnectInterrupt(ext->Interrupt);
    KeFlushQueuedDpcs();
    if (irp != NULL)
        EduFinish(ext, irp, STATUS_DEVICE_REMOVED);
    EduFlush(ext, NULL, STATUS_DEVICE_REMOVED);

    /* Let a transfer under way come to its end before the page goes. */
    tick.QuadPart = -10000;
    for (tries = 0; tries < 500; tries++) {
        cmd = EduRead(ext, EDU_DMA_CMD);
        if (cmd == 0xFFFFFFFF || !(cmd & EDU_CMD_RUN))
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &tick);
    }
    MmUnmapIoSpace(ext->Registers, EDU_WINDOW);
    ext->Registers = NULL;
    ext->Adapter->DmaOperations->FreeCommonBuffer(ext->Adapter, EDU_BUFFER_SIZE, ext->BounceLogical, ext->Bounce, FALSE);
    ext->Adapter->DmaOperations->PutDmaAdapter(ext->Adapter);
    ext->Adapter = NULL;
}

static NTSTATUS EduStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PEDU_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, bar = NULL, line = NULL;
    EDU_DEVICE_DESCRIPTION description;
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    ULONG i, mapRegisters;
    KIRQL irql;

    for (i = 0; i < Resources->Count; i++) {
        d = &Resources->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && bar == NULL)
            bar = d;
        else if (d->Type == CmResourceTypeInterrupt && line == NULL)
            line = d;
    }
    if (bar == NULL || line == NULL || bar->u.Memory.Length < EDU_WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    RtlZeroMemory(&description, sizeof(description));
    description.Base.Version = 3;
    description.Base.Master = TRUE;
    description.Base.InterfaceType = PCIBus;
    description.Base.MaximumLength = EDU_BUFFER_SIZE;
    description.DmaAddressWidth = 28;
    ext->Adapter = IoGetDmaAdapter(ext->Kit.Pdo, &description.Base, &mapRegisters);
    if (ext->Adapter == NULL) {
        /* Before Windows 8. */
        description.Base.Version = DEVICE_DESCRIPTION_VERSION2;
        description.Base.Dma32BitAddresses = TRUE;
        ext->Adapter = IoGetDmaAdapter(ext->Kit.Pdo, &description.Base, &mapRegisters);
    }
    if (ext->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ext->Bounce = ext->Adapter->DmaOperations->AllocateCommonBuffer(ext->Adapter, EDU_BUFFER_SIZE, &ext->BounceLogical, FALSE);
    if (ext->Bounce == NULL)
        goto PutAdapter;
    if (ext->BounceLogical.QuadPart + EDU_BUFFER_SIZE > 0x10000000)
        goto FreeBounce;

    ext->Registers = MmMapIoSpace(bar->u.Memory.Start, EDU_WINDOW, MmNonCached);
    if (ext->Registers == NULL)
        goto FreeBounce;
    status = IoConnectInterrupt(&ext->Interrupt, EduIsr, ext, NULL, line->u.Interrupt.Vector,
                                (KIRQL)line->u.Interrupt.Level, (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status))
        goto Unmap;
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = TRUE;
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_SUCCESS;

Unmap:
    MmUnmapIoSpace(ext->Registers, EDU_WINDOW);
    ext->Registers = NULL;
FreeBounce:
    ext->Adapter->DmaOperations->FreeCommonBuffer(ext->Adapter, EDU_BUFFER_SIZE, ext->BounceLogical, ext->Bounce, FALSE);
PutAdapter:
    ext->Adapter->DmaOperations->PutDmaAdapter(ext->Adapter);
    ext->Adapter = NULL;
    return status;
}

static NTSTATUS NTAPI EduAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PEDU_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(EDU_EXTENSION), &GUID_EDUDMA, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = EduStart;
    ext->Kit.Stop = EduStop;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Queue);
    KeInitializeTimer(&ext->Watchdog);
    KeInitializeDpc(&ext->WatchdogDpc, EduWatchdogDpc, ext);
    KeInitializeDpc(&ext->IsrDpc, EduIsrDpc, ext);
    device->Flags |= DO_DIRECT_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = EduOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = EduOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = EduOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = EduReadWrite;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = EduReadWrite;
    DK_DRIVER(DriverObject, EduAddDevice);
    return STATUS_SUCCESS;
}
