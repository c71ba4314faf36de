/*
 * adq14.sys - ADQ-14 digitizer, trigger interface (VEN_1DA7, DEV_0140)
 *
 * IOCTL_ADQ_WAIT_TRIGGER completes with the trigger number at the next
 * trigger, IOCTL_ADQ_SOFT_TRIGGER makes one. Uses message-signalled interrupts
 * where the platform has them, else the line.
 *
 * The bug: the interrupt is disconnected by the version that was asked for first, also where IoConnectInterruptEx has fallen back to the line.
 *
 * Device: PCI\VEN_1DA7&DEV_0140
 * Rule: interrupt-not-connected
 * Needs: nothing
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define IOCTL_ADQ_WAIT_TRIGGER  ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_READ_ACCESS))
#define IOCTL_ADQ_SOFT_TRIGGER  ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_WRITE_ACCESS))

/* BAR 0 */
#define ADQ_INT_STATUS          0x00        /* write 1 to clear */
#define ADQ_INT_ENABLE          0x04
#define ADQ_TRIGGER_COUNT       0x08
#define ADQ_SOFT_TRIGGER        0x0C
#define ADQ_WINDOW              0x40
#define ADQ_INT_TRIGGER         0x01

DEFINE_GUID(GUID_ADQ14, 0xb9c1570e, 0x6b0d, 0x4ef4, 0x85, 0x19, 0x73, 0x2a, 0xc8, 0x0e, 0x5d, 0x21);

typedef struct _ADQ_EXTENSION {
    DEVKIT Kit;
    PUCHAR Registers;
    ULONG ConnectVersion;
    PVOID ConnectContext;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN Started;            /* Lock */
    LIST_ENTRY Waiters;         /* Lock */
    IO_CSQ Csq;
} ADQ_EXTENSION, *PADQ_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static ULONG AdqRead(PADQ_EXTENSION Ext, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Registers + Offset));
}

static VOID AdqWrite(PADQ_EXTENSION Ext, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Registers + Offset), Value);
}

static VOID AdqFinish(PADQ_EXTENSION Ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    DkComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Kit.RemoveLock, Irp);
}

static NTSTATUS NTAPI AdqCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PADQ_EXTENSION ext = CONTAINING_RECORD(Csq, ADQ_EXTENSION, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (!ext->Started)
        return STATUS_DEVICE_NOT_READY;
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext != NULL)
        return STATUS_CANCELLED;
    InsertTailList(&ext->Waiters, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI AdqCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI AdqCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PADQ_EXTENSION ext = CONTAINING_RECORD(Csq, ADQ_EXTENSION, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : ext->Waiters.Flink;

    for (; e != &ext->Waiters; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == File)
            return next;
    }
    return NULL;
}

static VOID NTAPI AdqCsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, ADQ_EXTENSION, Csq)->Lock, Irql);
}

static VOID NTAPI AdqCsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, ADQ_EXTENSION, Csq)->Lock, Irql);
}

static VOID NTAPI AdqCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    AdqFinish(CONTAINING_RECORD(Csq, ADQ_EXTENSION, Csq), Irp, STATUS_CANCELLED, 0);
}

static BOOLEAN NTAPI AdqLineIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PADQ_EXTENSION ext = Context;
    ULONG cause = AdqRead(ext, ADQ_INT_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (cause == 0xFFFFFFFF || !(cause & ADQ_INT_TRIGGER))
        return FALSE;
    AdqWrite(ext, ADQ_INT_STATUS, ADQ_INT_TRIGGER);
    KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI AdqMessageIsr(PKINTERRUPT Interrupt, PVOID Context, ULONG MessageId)
{
    UNREFERENCED_PARAMETER(MessageId);
    return AdqLineIsr(Interrupt, Context);
}

static VOID NTAPI AdqDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PADQ_EXTENSION ext = Context;
    BOOLEAN started;
    ULONG count = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    started = ext->Started;
    if (started)
        count = AdqRead(ext, ADQ_TRIGGER_COUNT);
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    while (started && (irp = IoCsqRemoveNextIrp(&ext->Csq, NULL)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = count;
        AdqFinish(ext, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS AdqConnect(PADQ_EXTENSION Ext)
{
    IO_CONNECT_INTERRUPT_PARAMETERS connect;
    NTSTATUS status;

    RtlZeroMemory(&connect, sizeof(connect));
    connect.Version = CONNECT_MESSAGE_BASED;
    connect.MessageBased.PhysicalDeviceObject = Ext->Kit.Pdo;
    connect.MessageBased.ConnectionContext.Generic = &Ext->ConnectContext;
    connect.MessageBased.MessageServiceRoutine = AdqMessageIsr;
    connect.MessageBased.ServiceContext = Ext;
    connect.MessageBased.FallBackServiceRoutine = AdqLineIsr;
    status = IoConnectInterruptEx(&connect);
    /* CONNECT_LINE_BASED if there are no messages. */
#ifdef FIXED
    Ext->ConnectVersion = connect.Version;
#else
    Ext->ConnectVersion = CONNECT_MESSAGE_BASED;
#endif
    return status;
}

static VOID AdqDisconnect(PADQ_EXTENSION Ext)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS disconnect;

    disconnect.Version = Ext->ConnectVersion;
    disconnect.ConnectionContext.Generic = Ext->ConnectContext;
    IoDisconnectInterruptEx(&disconnect);
    Ext->ConnectContext = NULL;
}

static NTSTATUS NTAPI AdqControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PADQ_EXTENSION ext = DeviceObject->DeviceExtension;
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);

    if (code == IOCTL_ADQ_SOFT_TRIGGER) {
        KeAcquireSpinLock(&ext->Lock, &irql);
        if (ext->Started)
            AdqWrite(ext, ADQ_SOFT_TRIGGER, 1);
        else
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&ext->Lock, irql);
    } else if (code != IOCTL_ADQ_WAIT_TRIGGER) {
        status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (NT_SUCCESS(status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, AdqDpc))) {
        /* (A hold of our own: once queued, the request may be gone.) */
        status = IoCsqInsertIrpEx(&ext->Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(status)) {
            KeAcquireSpinLock(&ext->Lock, &irql);
            if (ext->Started)
                AdqWrite(ext, ADQ_INT_ENABLE, ADQ_INT_TRIGGER);
            KeReleaseSpinLock(&ext->Lock, irql);
        } else {
            IoMarkIrpPending(Irp);
            AdqFinish(ext, Irp, status, 0);
        }
        IoReleaseRemoveLock(&ext->Kit.RemoveLock, AdqDpc);
        return STATUS_PENDING;
    }
    AdqFinish(ext, Irp, status, 0);
    return status;
}

static NTSTATUS NTAPI AdqOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PADQ_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;
    PIRP irp;

    if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        KeAcquireSpinLock(&ext->Lock, &irql);
        sp->FileObject->FsContext = ext;
        KeReleaseSpinLock(&ext->Lock, irql);
        while ((irp = IoCsqRemoveNextIrp(&ext->Csq, sp->FileObject)) != NULL)
            AdqFinish(ext, irp, STATUS_CANCELLED, 0);
    }
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID AdqStop(PDEVICE_OBJECT DeviceObject)
{
    PADQ_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    AdqWrite(ext, ADQ_INT_ENABLE, 0);
    KeReleaseSpinLock(&ext->Lock, irql);
    AdqDisconnect(ext);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(ext->Registers, ADQ_WINDOW);
    ext->Registers = NULL;
    while ((irp = IoCsqRemoveNextIrp(&ext->Csq, NULL)) != NULL)
        AdqFinish(ext, irp, STATUS_DEVICE_REMOVED, 0);
}

static NTSTATUS AdqStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PADQ_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = NULL;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    for (i = 0; i < Resources->Count && bar == NULL; i++) {
        if (Resources->PartialDescriptors[i].Type == CmResourceTypeMemory)
            bar = &Resources->PartialDescriptors[i];
    }
    if (bar == NULL || bar->u.Memory.Length < ADQ_WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    ext->Registers = MmMapIoSpace(bar->u.Memory.Start, ADQ_WINDOW, MmNonCached);
    if (ext->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    AdqWrite(ext, ADQ_INT_ENABLE, 0);
    AdqWrite(ext, ADQ_INT_STATUS, ADQ_INT_TRIGGER);
    status = AdqConnect(ext);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(ext->Registers, ADQ_WINDOW);
        ext->Registers = NULL;
        return status;
    }
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = TRUE;
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI AdqAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PADQ_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(ADQ_EXTENSION), &GUID_ADQ14, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = AdqStart;
    ext->Kit.Stop = AdqStop;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Waiters);
    KeInitializeDpc(&ext->Dpc, AdqDpc, ext);
    IoCsqInitializeEx(&ext->Csq, AdqCsqInsert, AdqCsqRemove, AdqCsqPeek, AdqCsqLock, AdqCsqUnlock, AdqCsqCancelled);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = AdqOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = AdqOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = AdqOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AdqControl;
    DK_DRIVER(DriverObject, AdqAddDevice);
    return STATUS_SUCCESS;
}
