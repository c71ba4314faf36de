/*
 * plxenc.sys - Incremental encoder board (PLX PCI 9050)
 *
 * One 32-bit position counter behind local space 0. IOCTL_ENC_POSITION latches
 * and reads the counter, IOCTL_ENC_WAIT_INDEX completes at the next index
 * pulse, with the position. The board is often on a shared interrupt line.
 *
 * The bug: the registers are unmapped before the interrupt is disconnected.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-read
 * Needs: device
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define IOCTL_ENC_POSITION      ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_ACCESS))
#define IOCTL_ENC_WAIT_INDEX    ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS))

/* Local configuration registers */
#define LCR_INTCSR              0x4C
#define LCR_LENGTH              0x54
#define INTCSR_LINT1_ENABLE     0x01
#define INTCSR_LINT1_ACTIVE     0x04
#define INTCSR_PCI_ENABLE       0x40

/* Local space 0 */
#define ENC_LATCH               0x00
#define ENC_POSITION            0x04
#define ENC_INDEX_CLEAR         0x08
#define ENC_LENGTH              0x10

DEFINE_GUID(GUID_PLXENC, 0xd3e1c5f0, 0x8a0b, 0x4d9a, 0xae, 0x42, 0x0f, 0x5e, 0x61, 0x2c, 0x94, 0x07);

typedef struct _ENC_EXTENSION {
    DEVKIT Kit;
    PUCHAR Lcr;
    PUCHAR Local;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN Started;            /* Lock */
    LIST_ENTRY Waiters;         /* Lock */
    IO_CSQ Csq;
} ENC_EXTENSION, *PENC_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

#define EncRead(base, offset)           READ_REGISTER_ULONG((PULONG)((base) + (offset)))
#define EncWrite(base, offset, value)   WRITE_REGISTER_ULONG((PULONG)((base) + (offset)), (value))

static NTSTATUS NTAPI EncCsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    PENC_EXTENSION ext = CONTAINING_RECORD(Csq, ENC_EXTENSION, Csq);

    UNREFERENCED_PARAMETER(Context);
    if (!ext->Started)
        return STATUS_DEVICE_NOT_READY;
    if (IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext != NULL)
        return STATUS_CANCELLED;        /* its handle has been cleaned up */
    InsertTailList(&ext->Waiters, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI EncCsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

static PIRP NTAPI EncCsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PENC_EXTENSION ext = CONTAINING_RECORD(Csq, ENC_EXTENSION, Csq);
    PLIST_ENTRY e = Irp != NULL ? Irp->Tail.Overlay.ListEntry.Flink : ext->Waiters.Flink;

    for (; e != &ext->Waiters; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (File == NULL || IoGetCurrentIrpStackLocation(next)->FileObject == File)
            return next;
    }
    return NULL;
}

static VOID NTAPI EncCsqLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, ENC_EXTENSION, Csq)->Lock, Irql);
}

static VOID NTAPI EncCsqUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, ENC_EXTENSION, Csq)->Lock, Irql);
}

static VOID EncFinish(PENC_EXTENSION Ext, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    DkComplete(Irp, Status, Information);
    IoReleaseRemoveLock(&Ext->Kit.RemoveLock, Irp);
}

static VOID NTAPI EncCsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    EncFinish(CONTAINING_RECORD(Csq, ENC_EXTENSION, Csq), Irp, STATUS_CANCELLED, 0);
}

static VOID EncFinishAll(PENC_EXTENSION Ext, PVOID File, NTSTATUS Status)
{
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&Ext->Csq, File)) != NULL)
        EncFinish(Ext, irp, Status, 0);
}

static BOOLEAN NTAPI EncArm(PVOID Context)
{
    PENC_EXTENSION ext = Context;

    EncWrite(ext->Local, ENC_INDEX_CLEAR, 1);
    EncWrite(ext->Lcr, LCR_INTCSR, INTCSR_LINT1_ENABLE | INTCSR_PCI_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI EncDisarm(PVOID Context)
{
    EncWrite(((PENC_EXTENSION)Context)->Lcr, LCR_INTCSR, 0);
    return TRUE;
}

static BOOLEAN NTAPI EncIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PENC_EXTENSION ext = Context;
    ULONG csr = EncRead(ext->Lcr, LCR_INTCSR);

    UNREFERENCED_PARAMETER(Interrupt);
    if (csr == 0xFFFFFFFF || !(csr & INTCSR_LINT1_ACTIVE) || !(csr & INTCSR_LINT1_ENABLE))
        return FALSE;
    EncWrite(ext->Lcr, LCR_INTCSR, 0);
    KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
    return TRUE;
}

/* Lock held, started. */
static ULONG EncPosition(PENC_EXTENSION Ext)
{
    EncWrite(Ext->Local, ENC_LATCH, 1);
    return EncRead(Ext->Local, ENC_POSITION);
}

static VOID NTAPI EncDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PENC_EXTENSION ext = Context;
    BOOLEAN started;
    ULONG position = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    started = ext->Started;
    if (started)
        position = EncPosition(ext);
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
    while (started && (irp = IoCsqRemoveNextIrp(&ext->Csq, NULL)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = position;
        EncFinish(ext, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS NTAPI EncControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PENC_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    ULONG_PTR information = 0;
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);
    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_ENC_POSITION) {
        KeAcquireSpinLock(&ext->Lock, &irql);
        if (ext->Started) {
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = EncPosition(ext);
            information = sizeof(ULONG);
        } else {
            status = STATUS_DEVICE_NOT_READY;
        }
        KeReleaseSpinLock(&ext->Lock, irql);
    } else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_ENC_WAIT_INDEX) {
        /* The request may be gone as soon as it is queued: hold the device for ourselves, too. */
        status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, EncArm);
        if (NT_SUCCESS(status)) {
            status = IoCsqInsertIrpEx(&ext->Csq, Irp, NULL, NULL);
            if (NT_SUCCESS(status)) {
                KeAcquireSpinLock(&ext->Lock, &irql);
                if (ext->Started)
                    KeSynchronizeExecution(ext->Interrupt, EncArm, ext);
                KeReleaseSpinLock(&ext->Lock, irql);
            } else {
                IoMarkIrpPending(Irp);
                EncFinish(ext, Irp, status, 0);
            }
            IoReleaseRemoveLock(&ext->Kit.RemoveLock, EncArm);
            return STATUS_PENDING;
        }
    } else {
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    EncFinish(ext, Irp, status, information);
    return status;
}

static NTSTATUS NTAPI EncOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PENC_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    if (sp->MajorFunction == IRP_MJ_CLEANUP) {
        KeAcquireSpinLock(&ext->Lock, &irql);
        sp->FileObject->FsContext = ext;
        KeReleaseSpinLock(&ext->Lock, irql);
        EncFinishAll(ext, sp->FileObject, STATUS_CANCELLED);
    }
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID EncUnmap(PENC_EXTENSION Ext)
{
    if (Ext->Local != NULL)
        MmUnmapIoSpace(Ext->Local, ENC_LENGTH);
    if (Ext->Lcr != NULL)
        MmUnmapIoSpace(Ext->Lcr, LCR_LENGTH);
    Ext->Local = Ext->Lcr = NULL;
}

static VOID EncStop(PDEVICE_OBJECT DeviceObject)
{
    PENC_EXTENSION ext = DeviceObject->DeviceExtension;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    KeReleaseSpinLock(&ext->Lock, irql);
    KeSynchronizeExecution(ext->Interrupt, EncDisarm, ext);
#ifdef FIXED
    IoDisconnectInterrupt(ext->Interrupt);
    EncUnmap(ext);
#else
    EncUnmap(ext);
    IoDisconnectInterrupt(ext->Interrupt);
#endif
    ext->Interrupt = NULL;
    KeFlushQueuedDpcs();
    EncFinishAll(ext, NULL, STATUS_DEVICE_REMOVED);
}

static NTSTATUS EncStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PENC_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d, lcr = NULL, local = NULL, line = NULL;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    for (i = 0; i < Resources->Count; i++) {
        d = &Resources->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && lcr == NULL)
            lcr = d;
        else if (d->Type == CmResourceTypeMemory && local == NULL)
            local = d;
        else if (d->Type == CmResourceTypeInterrupt && line == NULL)
            line = d;
    }
    if (lcr == NULL || local == NULL || line == NULL ||
        lcr->u.Memory.Length < LCR_LENGTH || local->u.Memory.Length < ENC_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    ext->Lcr = MmMapIoSpace(lcr->u.Memory.Start, LCR_LENGTH, MmNonCached);
    ext->Local = MmMapIoSpace(local->u.Memory.Start, ENC_LENGTH, MmNonCached);
    if (ext->Lcr == NULL || ext->Local == NULL) {
        EncUnmap(ext);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    EncWrite(ext->Lcr, LCR_INTCSR, 0);
    status = IoConnectInterrupt(&ext->Interrupt, EncIsr, ext, NULL, line->u.Interrupt.Vector,
                                (KIRQL)line->u.Interrupt.Level, (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        EncUnmap(ext);
        return status;
    }
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = TRUE;
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EncAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PENC_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(ENC_EXTENSION), &GUID_PLXENC, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = EncStart;
    ext->Kit.Stop = EncStop;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Waiters);
    KeInitializeDpc(&ext->Dpc, EncDpc, ext);
    IoCsqInitializeEx(&ext->Csq, EncCsqInsert, EncCsqRemove, EncCsqPeek, EncCsqLock, EncCsqUnlock, EncCsqCancelled);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = EncOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = EncOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = EncOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EncControl;
    DK_DRIVER(DriverObject, EncAddDevice);
    return STATUS_SUCCESS;
}
