/*
 * frmgrab.sys - FG-2 line-scan frame grabber (VEN_1DA7, DEV_0220)
 *
 * A read takes up to 64 KB of image data straight into the caller's buffer by
 * bus-master DMA. The card takes a table of up to 32 address/length pairs, and
 * interrupts when the whole transfer is done. One transfer at a time.
 *
 * The bug: only the first element of the scatter/gather list is given to the card, with the length of all.
 *
 * Device: PCI\VEN_1DA7&DEV_0220
 * Rule: dma-length-of-whole
 * Needs: device
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define FG_CONTROL              0x00
#define FG_CONTROL_START        0x01        /* reads 1 while running */
#define FG_CONTROL_RESET        0x02        /* stops DMA at once */
#define FG_INT_STATUS           0x04        /* write 1 to clear */
#define FG_INT_ENABLE           0x08
#define FG_INT_DONE             0x01
#define FG_SG_COUNT             0x0C
#define FG_SG_TABLE             0x100       /* low, high, length, 0 */
#define FG_SG_ENTRY             16
#define FG_SG_MAX               32
#define FG_WINDOW               0x300
#define FG_MAX_PAGES            16

DEFINE_GUID(GUID_FRMGRAB, 0x30a5e2d9, 0x77b1, 0x4c84, 0xa0, 0x66, 0x9b, 0x13, 0xf4, 0x4e, 0x82, 0xcd);

typedef struct _FG_EXTENSION {
    DEVKIT Kit;
    PUCHAR Registers;
    PKINTERRUPT Interrupt;
    PDMA_ADAPTER Adapter;
    ULONG MaxLength;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN Started;            /* Lock, with all that follows */
    BOOLEAN Busy;
    KEVENT Idle;                /* signalled: not busy */
    PIRP Current;               /* transfer running */
    PSCATTER_GATHER_LIST Sg;
} FG_EXTENSION, *PFG_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static ULONG FgRead(PFG_EXTENSION Ext, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Registers + Offset));
}

static VOID FgWrite(PFG_EXTENSION Ext, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Registers + Offset), Value);
}

static VOID FgFinish(PFG_EXTENSION Ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    DkComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Kit.RemoveLock, Irp);
}

/* The transfer of a request that has been taken is over. DISPATCH_LEVEL, no lock. */
static VOID FgRelease(PFG_EXTENSION Ext, PSCATTER_GATHER_LIST Sg)
{
    if (Sg != NULL)
        Ext->Adapter->DmaOperations->PutScatterGatherList(Ext->Adapter, Sg, FALSE);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    Ext->Busy = FALSE;
    KeSetEvent(&Ext->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
}

/* Lock held. Stops the card if the request that has been taken did not come to its end. */
static PSCATTER_GATHER_LIST FgDetach(PFG_EXTENSION Ext, BOOLEAN Abort)
{
    PSCATTER_GATHER_LIST sg = Ext->Sg;

    if (Abort) {
        FgWrite(Ext, FG_CONTROL, FG_CONTROL_RESET);
        FgRead(Ext, FG_CONTROL);
    }
    Ext->Current = NULL;
    Ext->Sg = NULL;
    return sg;
}

static VOID NTAPI FgCancel(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFG_EXTENSION ext = DeviceObject->DeviceExtension;
    PSCATTER_GATHER_LIST sg;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    sg = FgDetach(ext, TRUE);
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    FgRelease(ext, sg);
    KeLowerIrql(irql);
    FgFinish(ext, Irp, STATUS_CANCELLED, 0);
}

/* Ends the running transfer (of a file, if given). */
static VOID FgAbort(PFG_EXTENSION Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PSCATTER_GATHER_LIST sg = NULL;
    KIRQL irql;
    PIRP irp;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    if (File != NULL)
        File->FsContext = Ext;          /* its requests are refused from here on */
    irp = Ext->Current;
    if (irp != NULL && File != NULL && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
        irp = NULL;
    if (irp != NULL && IoSetCancelRoutine(irp, NULL) == NULL)
        irp = NULL;                     /* FgCancel is at it */
    if (irp != NULL)
        sg = FgDetach(Ext, TRUE);
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
    if (irp != NULL)
        FgRelease(Ext, sg);
    KeLowerIrql(irql);
    if (irp != NULL)
        FgFinish(Ext, irp, Status, 0);
}

/* Lock held. */
static VOID FgProgram(PFG_EXTENSION Ext, PSCATTER_GATHER_LIST Sg, ULONG Length)
{
    ULONG count, i;

#ifdef FIXED
    UNREFERENCED_PARAMETER(Length);
    count = Sg->NumberOfElements;
    for (i = 0; i < count; i++) {
        FgWrite(Ext, FG_SG_TABLE + i * FG_SG_ENTRY, Sg->Elements[i].Address.LowPart);
        FgWrite(Ext, FG_SG_TABLE + i * FG_SG_ENTRY + 4, (ULONG)Sg->Elements[i].Address.HighPart);
        FgWrite(Ext, FG_SG_TABLE + i * FG_SG_ENTRY + 8, Sg->Elements[i].Length);
    }
#else
    count = 1;
    i = 0;
    FgWrite(Ext, FG_SG_TABLE + i * FG_SG_ENTRY, Sg->Elements[i].Address.LowPart);
    FgWrite(Ext, FG_SG_TABLE + i * FG_SG_ENTRY + 4, (ULONG)Sg->Elements[i].Address.HighPart);
    FgWrite(Ext, FG_SG_TABLE + i * FG_SG_ENTRY + 8, Length);
#endif
    FgWrite(Ext, FG_SG_COUNT, count);
    FgWrite(Ext, FG_INT_STATUS, FG_INT_DONE);
    FgWrite(Ext, FG_INT_ENABLE, FG_INT_DONE);
    FgWrite(Ext, FG_CONTROL, FG_CONTROL_START);
}

static VOID NTAPI FgListReady(PDEVICE_OBJECT DeviceObject, PIRP Unused, PSCATTER_GATHER_LIST Sg, PVOID Context)
{
    PFG_EXTENSION ext = DeviceObject->DeviceExtension;
    PIRP irp = Context;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Unused);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    if (!ext->Started) {
        status = STATUS_DEVICE_REMOVED;
    } else if (Sg->NumberOfElements > FG_SG_MAX) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else if (sp->FileObject->FsContext != NULL) {
        status = STATUS_CANCELLED;
    } else {
        IoSetCancelRoutine(irp, FgCancel);
        if (irp->Cancel && IoSetCancelRoutine(irp, NULL) != NULL) {
            status = STATUS_CANCELLED;
        } else {
            ext->Current = irp;
            ext->Sg = Sg;
            FgProgram(ext, Sg, sp->Parameters.Read.Length);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    if (!NT_SUCCESS(status)) {
        FgRelease(ext, Sg);
        FgFinish(ext, irp, status, 0);
    }
}

static BOOLEAN NTAPI FgIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PFG_EXTENSION ext = Context;
    ULONG cause = FgRead(ext, FG_INT_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (cause == 0xFFFFFFFF || !(cause & FG_INT_DONE))
        return FALSE;
    FgWrite(ext, FG_INT_STATUS, FG_INT_DONE);
    KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI FgDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PFG_EXTENSION ext = Context;
    PSCATTER_GATHER_LIST sg = NULL;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    if (ext->Started && ext->Current != NULL && !(FgRead(ext, FG_CONTROL) & FG_CONTROL_START)) {
        irp = ext->Current;
        if (IoSetCancelRoutine(irp, NULL) == NULL)
            irp = NULL;
        else
            sg = FgDetach(ext, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    if (irp != NULL) {
        FgRelease(ext, sg);
        FgFinish(ext, irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length);
    }
}

static NTSTATUS NTAPI FgReadRequest(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PFG_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);

    /* GetScatterGatherList is called at DISPATCH_LEVEL. */
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    if (!ext->Started) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (sp->Parameters.Read.Length == 0 || sp->Parameters.Read.Length > ext->MaxLength) {
        status = STATUS_INVALID_PARAMETER;
    } else if (ext->Busy) {
        status = STATUS_DEVICE_BUSY;
    } else {
        ext->Busy = TRUE;
        KeClearEvent(&ext->Idle);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    if (!NT_SUCCESS(status)) {
        KeLowerIrql(irql);
        FgFinish(ext, Irp, status, 0);
        return status;
    }

    IoMarkIrpPending(Irp);
    KeFlushIoBuffers(Irp->MdlAddress, TRUE, TRUE);
    status = ext->Adapter->DmaOperations->GetScatterGatherList(ext->Adapter, DeviceObject, Irp->MdlAddress,
                                                               MmGetMdlVirtualAddress(Irp->MdlAddress),
                                                               sp->Parameters.Read.Length, FgListReady, Irp, FALSE);
    if (!NT_SUCCESS(status)) {
        FgRelease(ext, NULL);
        KeLowerIrql(irql);
        FgFinish(ext, Irp, status, 0);
    } else {
        KeLowerIrql(irql);
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI FgOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (sp->MajorFunction == IRP_MJ_CLEANUP)
        FgAbort(DeviceObject->DeviceExtension, sp->FileObject, STATUS_CANCELLED);
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID FgStop(PDEVICE_OBJECT DeviceObject)
{
    PFG_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    FgWrite(ext, FG_INT_ENABLE, 0);
    KeReleaseSpinLock(&ext->Lock, irql);
    FgAbort(ext, NULL, STATUS_DEVICE_REMOVED);
    KeWaitForSingleObject(&ext->Idle, Executive, KernelMode, FALSE, NULL);

    IoDisconnectInterrupt(ext->Interrupt);
    ext->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(ext->Registers, FG_WINDOW);
    ext->Registers = NULL;
    ext->Adapter->DmaOperations->PutDmaAdapter(ext->Adapter);
    ext->Adapter = NULL;
}

static NTSTATUS FgStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PFG_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, bar = NULL, line = NULL;
    DEVICE_DESCRIPTION description;
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
    ULONG i, mapRegisters = 0;
    KIRQL irql;

    for (i = 0; i < Resources->Count; i++) {
        d = &Resources->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && bar == NULL)
            bar = d;
        else if (d->Type == CmResourceTypeInterrupt && line == NULL)
            line = d;
    }
    if (bar == NULL || line == NULL || bar->u.Memory.Length < FG_WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION2;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = FG_MAX_PAGES * PAGE_SIZE;
    ext->Adapter = IoGetDmaAdapter(ext->Kit.Pdo, &description, &mapRegisters);
    if (ext->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (mapRegisters < 2)
        goto PutAdapter;
    ext->MaxLength = min(mapRegisters - 1, FG_MAX_PAGES) * PAGE_SIZE;
    ext->Registers = MmMapIoSpace(bar->u.Memory.Start, FG_WINDOW, MmNonCached);
    if (ext->Registers == NULL)
        goto PutAdapter;
    FgWrite(ext, FG_INT_ENABLE, 0);
    FgWrite(ext, FG_CONTROL, FG_CONTROL_RESET);
    status = IoConnectInterrupt(&ext->Interrupt, FgIsr, ext, NULL, line->u.Interrupt.Vector,
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
    MmUnmapIoSpace(ext->Registers, FG_WINDOW);
    ext->Registers = NULL;
PutAdapter:
    ext->Adapter->DmaOperations->PutDmaAdapter(ext->Adapter);
    ext->Adapter = NULL;
    return status;
}

static NTSTATUS NTAPI FgAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PFG_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(FG_EXTENSION), &GUID_FRMGRAB, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = FgStart;
    ext->Kit.Stop = FgStop;
    KeInitializeSpinLock(&ext->Lock);
    KeInitializeEvent(&ext->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&ext->Dpc, FgDpc, ext);
    device->Flags |= DO_DIRECT_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = FgOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = FgOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = FgOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = FgReadRequest;
    DK_DRIVER(DriverObject, FgAddDevice);
    return STATUS_SUCCESS;
}
