/*
 * plxfifo.sys - Fast A/D board with FIFO (PLX PCI 9050)
 *
 * The board collects 32-bit samples in a 512-word FIFO and interrupts when it
 * is half full. The driver takes a block at a time out of the FIFO and hands
 * it to the reads waiting.
 *
 * The bug: the card says how many words are in its buffer, and that is believed.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun
 * Needs: device
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define LCR_INTCSR              0x4C
#define LCR_LENGTH              0x54
#define INTCSR_LINT1_ENABLE     0x01
#define INTCSR_LINT1_ACTIVE     0x04
#define INTCSR_PCI_ENABLE       0x40

#define AD_CONTROL              0x00        /* 1: convert */
#define AD_FIFO_COUNT           0x04        /* bits 15..0: words in the FIFO */
#define AD_FIFO_DATA            0x08
#define AD_LENGTH               0x10
#define AD_FIFO_DEPTH           512

DEFINE_GUID(GUID_PLXFIFO, 0x7f21ab64, 0x90c5, 0x4c1f, 0x93, 0xee, 0x41, 0x07, 0xd2, 0x58, 0x3c, 0xb6);

typedef struct _AD_EXTENSION {
    DEVKIT Kit;
    PUCHAR Lcr;
    PUCHAR Local;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    ULONG Block[AD_FIFO_DEPTH]; /* Lock, with all that follows */
    ULONG Filled;
    ULONG Taken;
    BOOLEAN Started;
    LIST_ENTRY Reads;
} AD_EXTENSION, *PAD_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static ULONG AdRead(PUCHAR Base, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Base + Offset));
}

static VOID AdWrite(PUCHAR Base, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Base + Offset), Value);
}

static VOID AdFinish(PAD_EXTENSION Ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    DkComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Kit.RemoveLock, Irp);
}

static VOID NTAPI AdCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PAD_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&ext->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&ext->Lock, irql);
    AdFinish(ext, Irp, STATUS_CANCELLED, 0);
}

/* Lock held. The oldest read (of a file, if given) that is not just being cancelled, off the list. */
static PIRP AdTakeRead(PAD_EXTENSION Ext, PFILE_OBJECT File)
{
    PLIST_ENTRY e;

    for (e = Ext->Reads.Flink; e != &Ext->Reads; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            continue;
        RemoveEntryList(e);
        return irp;
    }
    return NULL;
}

static BOOLEAN NTAPI AdArm(PVOID Context)
{
    PAD_EXTENSION ext = Context;

    AdWrite(ext->Local, AD_CONTROL, 1);
    AdWrite(ext->Lcr, LCR_INTCSR, INTCSR_LINT1_ENABLE | INTCSR_PCI_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI AdDisarm(PVOID Context)
{
    PAD_EXTENSION ext = Context;

    AdWrite(ext->Lcr, LCR_INTCSR, 0);
    AdWrite(ext->Local, AD_CONTROL, 0);
    return TRUE;
}

static BOOLEAN NTAPI AdIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PAD_EXTENSION ext = Context;
    ULONG csr = AdRead(ext->Lcr, LCR_INTCSR);

    UNREFERENCED_PARAMETER(Interrupt);
    if (csr == 0xFFFFFFFF || !(csr & INTCSR_LINT1_ACTIVE) || !(csr & INTCSR_LINT1_ENABLE))
        return FALSE;
    /* Off until the FIFO has been emptied. */
    AdWrite(ext->Lcr, LCR_INTCSR, 0);
    KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
    return TRUE;
}

/* Lock held, started, block used up. */
static VOID AdFillBlock(PAD_EXTENSION Ext)
{
    ULONG words, i;

    words = AdRead(Ext->Local, AD_FIFO_COUNT) & 0xFFFF;
#ifdef FIXED
    if (words > AD_FIFO_DEPTH)
        words = AD_FIFO_DEPTH;
#endif
    for (i = 0; i < words; i++)
        Ext->Block[i] = AdRead(Ext->Local, AD_FIFO_DATA);
    Ext->Filled = words;
    Ext->Taken = 0;
}

/* Serves waiting reads from the block; asks for more when it is used up. */
static VOID AdServe(PAD_EXTENSION Ext)
{
    ULONG n = 0;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&Ext->Lock, &irql);
        irp = NULL;
        if (Ext->Started && Ext->Taken < Ext->Filled)
            irp = AdTakeRead(Ext, NULL);
        if (irp == NULL) {
            if (Ext->Started && Ext->Taken >= Ext->Filled && !IsListEmpty(&Ext->Reads))
                KeSynchronizeExecution(Ext->Interrupt, AdArm, Ext);
            KeReleaseSpinLock(&Ext->Lock, irql);
            return;
        }
        n = min(IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG), Ext->Filled - Ext->Taken);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &Ext->Block[Ext->Taken], n * sizeof(ULONG));
        Ext->Taken += n;
        KeReleaseSpinLock(&Ext->Lock, irql);
        AdFinish(Ext, irp, STATUS_SUCCESS, n * sizeof(ULONG));
    }
}

static VOID NTAPI AdDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PAD_EXTENSION ext = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    if (ext->Started && ext->Taken >= ext->Filled)
        AdFillBlock(ext);
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    AdServe(ext);
}

static NTSTATUS NTAPI AdReadRequest(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PAD_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);
    /* And once more, for the time after the request is queued. */
    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, AdServe);
    if (!NT_SUCCESS(status)) {
        AdFinish(ext, Irp, status, 0);
        return status;
    }

    KeAcquireSpinLock(&ext->Lock, &irql);
    if (sp->Parameters.Read.Length < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (!ext->Started) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (sp->FileObject->FsContext != NULL) {
        status = STATUS_CANCELLED;      /* the handle has been cleaned up */
    } else {
        IoSetCancelRoutine(Irp, AdCancel);
        if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
            status = STATUS_CANCELLED;
        } else {
            IoMarkIrpPending(Irp);
            InsertTailList(&ext->Reads, &Irp->Tail.Overlay.ListEntry);
            status = STATUS_PENDING;
        }
    }
    KeReleaseSpinLock(&ext->Lock, irql);

    if (status == STATUS_PENDING)
        AdServe(ext);
    else
        AdFinish(ext, Irp, status, 0);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, AdServe);
    return status;
}

static VOID AdFlush(PAD_EXTENSION Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&Ext->Lock, &irql);
        if (File != NULL)
            File->FsContext = Ext;
        irp = AdTakeRead(Ext, File);
        KeReleaseSpinLock(&Ext->Lock, irql);
        if (irp == NULL)
            return;
        AdFinish(Ext, irp, Status, 0);
    }
}

static NTSTATUS NTAPI AdOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MajorFunction == IRP_MJ_CLEANUP)
        AdFlush(DeviceObject->DeviceExtension, sp->FileObject, STATUS_CANCELLED);
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID AdStop(PDEVICE_OBJECT DeviceObject)
{
    PAD_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    KeReleaseSpinLock(&ext->Lock, irql);
    KeSynchronizeExecution(ext->Interrupt, AdDisarm, ext);
    IoDisconnectInterrupt(ext->Interrupt);
    ext->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(ext->Local, AD_LENGTH);
    MmUnmapIoSpace(ext->Lcr, LCR_LENGTH);
    ext->Local = ext->Lcr = NULL;
    AdFlush(ext, NULL, STATUS_DEVICE_REMOVED);
}

static NTSTATUS AdStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PAD_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, bars[2], line = NULL;
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    ULONG i, n = 0;
    KIRQL irql;

    for (i = 0; i < Resources->Count; i++) {
        d = &Resources->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && n < 2)
            bars[n++] = d;
        else if (d->Type == CmResourceTypeInterrupt)
            line = d;
    }
    if (n < 2 || line == NULL || bars[0]->u.Memory.Length < LCR_LENGTH || bars[1]->u.Memory.Length < AD_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    ext->Lcr = MmMapIoSpace(bars[0]->u.Memory.Start, LCR_LENGTH, MmNonCached);
    if (ext->Lcr == NULL)
        return status;
    ext->Local = MmMapIoSpace(bars[1]->u.Memory.Start, AD_LENGTH, MmNonCached);
    if (ext->Local == NULL)
        goto UnmapLcr;
    AdWrite(ext->Lcr, LCR_INTCSR, 0);
    AdWrite(ext->Local, AD_CONTROL, 0);
    status = IoConnectInterrupt(&ext->Interrupt, AdIsr, ext, NULL, line->u.Interrupt.Vector,
                                (KIRQL)line->u.Interrupt.Level, (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status))
        goto UnmapLocal;
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Filled = ext->Taken = 0;
    ext->Started = TRUE;
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_SUCCESS;

UnmapLocal:
    MmUnmapIoSpace(ext->Local, AD_LENGTH);
UnmapLcr:
    MmUnmapIoSpace(ext->Lcr, LCR_LENGTH);
    ext->Local = ext->Lcr = NULL;
    return status;
}

static NTSTATUS NTAPI AdAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PAD_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(AD_EXTENSION), &GUID_PLXFIFO, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = AdStart;
    ext->Kit.Stop = AdStop;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Reads);
    KeInitializeDpc(&ext->Dpc, AdDpc, ext);
    device->Flags |= DO_BUFFERED_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = AdOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = AdOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = AdOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = AdReadRequest;
    DK_DRIVER(DriverObject, AdAddDevice);
    return STATUS_SUCCESS;
}
