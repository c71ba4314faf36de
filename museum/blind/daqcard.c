/*
 * A data acquisition card: four trigger inputs whose events are counted and can be waited for, and a sample FIFO that is
 * emptied into a buffer of the driver's when its trigger comes.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-forgotten
 * Needs: schedule, device
 * The bug: the status request reads the register that clears what it shows, so a trigger that comes just before the interrupt routine has seen it is lost, and its wait or read never ends.
 * Shows by: a trigger fires while another thread's status request holds the interrupt's lock or its interrupt is on the way, and a wait for this trigger (or a read) is pending.
 */
#include "../include/pci_kit.h"

#define DAQ_TAG             'qaDB'
#define DAQ_INPUTS          4
#define DAQ_ALL             ((1u << DAQ_INPUTS) - 1)
#define DAQ_DATA            0x1u                    /* input 0 says that there are samples */
#define DAQ_SAMPLES         1024
#define DAQ_MAX_DELAY_US    100000

#define IOCTL_DAQ_ENABLE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DAQ_TRIGGER   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DAQ_WAIT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DAQ_STATUS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x953, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DAQ_SAMPLE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x954, METHOD_BUFFERED, FILE_WRITE_ACCESS)

/* {6D2C4A10-33B7-4F0C-8E5D-91C0A4D4C201} */
static const GUID DaqInterface = { 0x6d2c4a10, 0x33b7, 0x4f0c, { 0x8e, 0x5d, 0x91, 0xc0, 0xa4, 0xd4, 0xc2, 0x01 } };

typedef struct _DAQ_TRIGGER { ULONG Inputs; ULONG DelayUs; } DAQ_TRIGGER;
typedef struct _DAQ_STATUS { ULONG Raised; ULONG Enabled; ULONG Samples; ULONG Lost; ULONG Counts[DAQ_INPUTS]; } DAQ_STATUS;

typedef struct _DAQ {
    FDO_KIT Kit;
    PCI_HW Hw;

    KSPIN_LOCK Lock;                    /* guards what follows, and the card but for its status */
    BOOLEAN Online;                     /* started, in D0 */
    BOOLEAN Gone;                       /* nothing waits any more */
    ULONG Enabled;
    ULONG Counts[DAQ_INPUTS];
    ULONG Samples[DAQ_SAMPLES];
    ULONG Head, Tail, Lost;
    LIST_ENTRY Waits;
    LIST_ENTRY Reads;

    ULONG IsrEnabled;                   /* these under the interrupt's lock */
    ULONG Fired;
} DAQ, *PDAQ;

typedef struct _SYNC { PDAQ Daq; ULONG Value; } SYNC;

/* At the interrupt's level */

static BOOLEAN NTAPI DaqInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    PDAQ daq = Context;
    ULONG status;
    UNREFERENCED_PARAMETER(Interrupt);

    if (!daq->Hw.Live) return FALSE;
    status = HwRead(&daq->Hw, BENCH_STATUS);
    if (status == ~0u) return FALSE;
    status &= daq->IsrEnabled;
    if (!status) return FALSE;
    HwWrite(&daq->Hw, BENCH_STATUS, status);
    daq->Fired |= status;
    IoRequestDpc(daq->Kit.Self, NULL, daq);
    return TRUE;
}

static BOOLEAN NTAPI DaqTakeFired(PVOID Context)
{
    SYNC *sync = Context;
    sync->Value = sync->Daq->Fired;
    sync->Daq->Fired = 0;
    return TRUE;
}

static BOOLEAN NTAPI DaqSetEnable(PVOID Context)
{
    SYNC *sync = Context;
    sync->Daq->IsrEnabled = sync->Value;
    HwWrite(&sync->Daq->Hw, BENCH_ENABLE, sync->Value);
    return TRUE;
}

/* What inputs show that was not reported yet: those that are not enabled are only seen here, and begin anew. */
static BOOLEAN NTAPI DaqReadRaised(PVOID Context)
{
    SYNC *sync = Context;
    PDAQ daq = sync->Daq;
#ifdef FIXED
    sync->Value = HwRead(&daq->Hw, BENCH_STATUS);
    if (sync->Value != ~0u) HwWrite(&daq->Hw, BENCH_STATUS, sync->Value & ~daq->IsrEnabled & DAQ_ALL);
#else
    sync->Value = HwRead(&daq->Hw, BENCH_STATUS_AND_CLEAR);
#endif
    if (sync->Value == ~0u) sync->Value = 0;
    sync->Value |= daq->Fired;
    return TRUE;
}

/* Requests that wait. Waits and reads lie in lists of their own, under Lock. */

static VOID NTAPI DaqCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDAQ daq = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&daq->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&daq->Lock, irql);
    KitComplete(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&daq->Kit.RemoveLock, Irp);
}

/* With Lock held: FALSE if the request has been cancelled already. */
static BOOLEAN DaqPend(PLIST_ENTRY List, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    InsertTailList(List, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, DaqCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        return FALSE;
    }
    return TRUE;
}

static BOOLEAN DaqWanted(PIRP Irp, PFILE_OBJECT File, ULONG Inputs)
{
    if (File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File) return FALSE;
    return !Inputs || (*(PULONG)Irp->AssociatedIrp.SystemBuffer & Inputs);
}

/* With Lock held: moves requests that are wanted, and not being cancelled, to Done. */
static VOID DaqTake(PLIST_ENTRY List, PFILE_OBJECT File, ULONG Inputs, PLIST_ENTRY Done)
{
    PLIST_ENTRY e, next;

    for (e = List->Flink; e != List; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if (!DaqWanted(irp, File, Inputs) || !IoSetCancelRoutine(irp, NULL)) continue;
        RemoveEntryList(e);
        irp->IoStatus.Status = STATUS_CANCELLED;
        irp->IoStatus.Information = 0;
        if (Inputs) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer &= Inputs;
            irp->IoStatus.Status = STATUS_SUCCESS;
            irp->IoStatus.Information = sizeof(ULONG);
        }
        InsertTailList(Done, e);
    }
}

static VOID DaqCompleteAll(PDAQ Daq, PLIST_ENTRY Done)
{
    while (!IsListEmpty(Done)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(Done), IRP, Tail.Overlay.ListEntry);
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&Daq->Kit.RemoveLock, irp);
    }
}

/* Samples */

/* With Lock held: as many as a read has room for. */
static ULONG DaqCopySamples(PDAQ Daq, PIRP Irp)
{
    PULONG out = Irp->AssociatedIrp.SystemBuffer;
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG), count = 0;

    while (count < room && Daq->Tail != Daq->Head) out[count++] = Daq->Samples[Daq->Tail++ % DAQ_SAMPLES];
    return count * sizeof(ULONG);
}

/* With Lock held. */
static VOID DaqDrain(PDAQ Daq)
{
    ULONG left = HwRead(&Daq->Hw, BENCH_FIFO_STATUS);

    if (left == ~0u) return;
    for (left &= BENCH_FIFO_COUNT; left; left--) {
        ULONG sample = HwRead(&Daq->Hw, BENCH_FIFO);
        if (Daq->Head - Daq->Tail == DAQ_SAMPLES) Daq->Lost++;
        else Daq->Samples[Daq->Head++ % DAQ_SAMPLES] = sample;
    }
}

static VOID NTAPI DaqDpc(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDAQ daq = Context;
    SYNC sync = { daq, 0 };
    LIST_ENTRY done;
    ULONG i;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);

    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&daq->Lock);
    if (daq->Online) {
        KeSynchronizeExecution(daq->Hw.Interrupt, DaqTakeFired, &sync);
        for (i = 0; i < DAQ_INPUTS; i++) if (sync.Value & (1u << i)) daq->Counts[i]++;
        if (sync.Value & DAQ_DATA) {
            DaqDrain(daq);
            while (daq->Head != daq->Tail && !IsListEmpty(&daq->Reads)) {
                PLIST_ENTRY e = RemoveHeadList(&daq->Reads);
                PIRP read = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
                InitializeListHead(e);
                if (!IoSetCancelRoutine(read, NULL)) continue;
                read->IoStatus.Status = STATUS_SUCCESS;
                read->IoStatus.Information = DaqCopySamples(daq, read);
                InsertTailList(&done, e);
            }
        }
        if (sync.Value) DaqTake(&daq->Waits, NULL, sync.Value, &done);
    }
    KeReleaseSpinLockFromDpcLevel(&daq->Lock);
    DaqCompleteAll(daq, &done);
}

/* Requests */

static NTSTATUS DaqRead(PDAQ Daq, PIRP Irp)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG bytes = 0;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG)) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Daq->Lock, &irql);
    if (Daq->Gone) status = STATUS_NO_SUCH_DEVICE;
    else if (Daq->Head != Daq->Tail) bytes = DaqCopySamples(Daq, Irp);
    else {
        BOOLEAN pending = DaqPend(&Daq->Reads, Irp);
        KeReleaseSpinLock(&Daq->Lock, irql);
        if (!pending) {
            KitComplete(Irp, STATUS_CANCELLED, 0);
            IoReleaseRemoveLock(&Daq->Kit.RemoveLock, Irp);
        }
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&Daq->Lock, irql);
    Irp->IoStatus.Information = bytes;
    return status;
}

static NTSTATUS DaqWait(PDAQ Daq, PIRP Irp, ULONG In, ULONG Out)
{
    NTSTATUS status;
    ULONG inputs;
    KIRQL irql;

    if (In < sizeof(ULONG) || Out < sizeof(ULONG)) return STATUS_INVALID_PARAMETER;
    inputs = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    if (inputs == 0 || (inputs & ~DAQ_ALL)) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Daq->Lock, &irql);
    if (Daq->Gone) status = STATUS_NO_SUCH_DEVICE;
    else if (inputs & ~Daq->Enabled) status = STATUS_INVALID_DEVICE_STATE;
    else {
        BOOLEAN pending = DaqPend(&Daq->Waits, Irp);
        KeReleaseSpinLock(&Daq->Lock, irql);
        if (!pending) {
            KitComplete(Irp, STATUS_CANCELLED, 0);
            IoReleaseRemoveLock(&Daq->Kit.RemoveLock, Irp);
        }
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&Daq->Lock, irql);
    return status;
}

/* Inputs that are no longer enabled will fire no more: who waits for them alone is sent away. */
static NTSTATUS DaqEnable(PDAQ Daq, ULONG Inputs)
{
    LIST_ENTRY done, *e, *next;
    SYNC sync = { Daq, Inputs };
    KIRQL irql;

    if (Inputs & ~DAQ_ALL) return STATUS_INVALID_PARAMETER;
    InitializeListHead(&done);
    KeAcquireSpinLock(&Daq->Lock, &irql);
    Daq->Enabled = Inputs;
    if (Daq->Online) KeSynchronizeExecution(Daq->Hw.Interrupt, DaqSetEnable, &sync);
    for (e = Daq->Waits.Flink; e != &Daq->Waits; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if ((*(PULONG)irp->AssociatedIrp.SystemBuffer & Inputs) || !IoSetCancelRoutine(irp, NULL)) continue;
        RemoveEntryList(e);
        irp->IoStatus.Status = STATUS_CANCELLED;
        irp->IoStatus.Information = 0;
        InsertTailList(&done, e);
    }
    KeReleaseSpinLock(&Daq->Lock, irql);
    DaqCompleteAll(Daq, &done);
    return STATUS_SUCCESS;
}

static NTSTATUS DaqTrigger(PDAQ Daq, const DAQ_TRIGGER *Trigger)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (Trigger->Inputs == 0 || (Trigger->Inputs & ~DAQ_ALL) || Trigger->DelayUs > DAQ_MAX_DELAY_US) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Daq->Lock, &irql);
    if (!Daq->Online) status = STATUS_DEVICE_NOT_READY;
    else {
        HwWrite(&Daq->Hw, BENCH_DELAY, Trigger->DelayUs * 1000);
        HwWrite(&Daq->Hw, BENCH_RAISE, Trigger->Inputs);
    }
    KeReleaseSpinLock(&Daq->Lock, irql);
    return status;
}

/* A sample as from the converter, for tests of the wiring behind it. */
static NTSTATUS DaqSample(PDAQ Daq, ULONG Sample)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&Daq->Lock, &irql);
    if (!Daq->Online) status = STATUS_DEVICE_NOT_READY;
    else {
        HwWrite(&Daq->Hw, BENCH_FIFO, Sample);
        HwWrite(&Daq->Hw, BENCH_DELAY, 0);
        HwWrite(&Daq->Hw, BENCH_RAISE, DAQ_DATA);
    }
    KeReleaseSpinLock(&Daq->Lock, irql);
    return status;
}

static NTSTATUS DaqStatus(PDAQ Daq, DAQ_STATUS *Status)
{
    NTSTATUS status = STATUS_SUCCESS;
    SYNC sync = { Daq, 0 };
    KIRQL irql;

    RtlZeroMemory(Status, sizeof(*Status));
    KeAcquireSpinLock(&Daq->Lock, &irql);
    if (!Daq->Online) status = STATUS_DEVICE_NOT_READY;
    else {
        KeSynchronizeExecution(Daq->Hw.Interrupt, DaqReadRaised, &sync);
        Status->Raised = sync.Value & DAQ_ALL;
        Status->Enabled = Daq->Enabled;
        Status->Samples = Daq->Head - Daq->Tail;
        Status->Lost = Daq->Lost;
        RtlCopyMemory(Status->Counts, Daq->Counts, sizeof(Daq->Counts));
    }
    KeReleaseSpinLock(&Daq->Lock, irql);
    return status;
}

static NTSTATUS NTAPI DaqRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDAQ daq = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status = KitEnter(&daq->Kit, Irp);

    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    Irp->IoStatus.Information = 0;
    if (sp->MajorFunction == IRP_MJ_READ) status = DaqRead(daq, Irp);
    else switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DAQ_ENABLE:
        status = in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : DaqEnable(daq, *(PULONG)buffer);
        break;
    case IOCTL_DAQ_TRIGGER:
        status = in < sizeof(DAQ_TRIGGER) ? STATUS_INVALID_PARAMETER : DaqTrigger(daq, buffer);
        break;
    case IOCTL_DAQ_WAIT:
        status = DaqWait(daq, Irp, in, out);
        break;
    case IOCTL_DAQ_STATUS:
        status = out < sizeof(DAQ_STATUS) ? STATUS_BUFFER_TOO_SMALL : DaqStatus(daq, buffer);
        if (NT_SUCCESS(status)) Irp->IoStatus.Information = sizeof(DAQ_STATUS);
        break;
    case IOCTL_DAQ_SAMPLE:
        status = in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : DaqSample(daq, *(PULONG)buffer);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    if (status == STATUS_PENDING) return status;
    KitComplete(Irp, status, Irp->IoStatus.Information);
    IoReleaseRemoveLock(&daq->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DaqFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDAQ daq = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    LIST_ENTRY done;
    KIRQL irql;

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
        status = KitOpen(&daq->Kit);
        break;
    case IRP_MJ_CLEANUP:
        InitializeListHead(&done);
        KeAcquireSpinLock(&daq->Lock, &irql);
        DaqTake(&daq->Waits, sp->FileObject, 0, &done);
        DaqTake(&daq->Reads, sp->FileObject, 0, &done);
        KeReleaseSpinLock(&daq->Lock, irql);
        DaqCompleteAll(daq, &done);
        break;
    default:
        KitClosed(&daq->Kit);
    }
    return KitComplete(Irp, status, 0);
}

/* The device */

static VOID DaqOnline(PDAQ Daq)
{
    SYNC sync = { Daq, 0 };
    KIRQL irql;

    HwSetLive(&Daq->Hw, TRUE);
    KeAcquireSpinLock(&Daq->Lock, &irql);
    Daq->Online = TRUE;
    sync.Value = Daq->Enabled;
    KeSynchronizeExecution(Daq->Hw.Interrupt, DaqSetEnable, &sync);
    KeReleaseSpinLock(&Daq->Lock, irql);
}

static VOID DaqOffline(PDAQ Daq, BOOLEAN Gone)
{
    SYNC sync = { Daq, 0 };
    KIRQL irql;

    KeAcquireSpinLock(&Daq->Lock, &irql);
    if (Daq->Online && !Gone) KeSynchronizeExecution(Daq->Hw.Interrupt, DaqSetEnable, &sync);
    Daq->Online = FALSE;
    KeReleaseSpinLock(&Daq->Lock, irql);
    if (Daq->Hw.Interrupt) HwSetLive(&Daq->Hw, FALSE);
}

static NTSTATUS DaqStart(PVOID Ext, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PDAQ daq = Ext;
    NTSTATUS status = HwAcquire(&daq->Hw, Translated, BENCH_WINDOW, DaqInterrupt, daq);
    UNREFERENCED_PARAMETER(Raw);

    if (!NT_SUCCESS(status)) return status;
    HwWrite(&daq->Hw, BENCH_ENABLE, 0);
    HwWrite(&daq->Hw, BENCH_STATUS, DAQ_ALL);
    DaqOnline(daq);
    return STATUS_SUCCESS;
}

static VOID DaqStop(PVOID Ext, BOOLEAN Gone)
{
    PDAQ daq = Ext;
    DaqOffline(daq, Gone);
    HwDisconnect(&daq->Hw);
    HwUnmap(&daq->Hw);
}

static VOID DaqFlush(PVOID Ext)
{
    PDAQ daq = Ext;
    LIST_ENTRY done;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&daq->Lock, &irql);
    daq->Gone = TRUE;
    DaqTake(&daq->Waits, NULL, 0, &done);
    DaqTake(&daq->Reads, NULL, 0, &done);
    KeReleaseSpinLock(&daq->Lock, irql);
    DaqCompleteAll(daq, &done);
}

static VOID DaqPowerUp(PVOID Ext) { DaqOnline(Ext); }
static VOID DaqPowerDown(PVOID Ext) { DaqOffline(Ext, FALSE); }

static const FDO_HOOKS DaqHooks = { DaqStart, DaqStop, DaqFlush, DaqPowerUp, DaqPowerDown, NULL };

static NTSTATUS NTAPI DaqAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO_KIT kit;
    PDAQ daq;
    NTSTATUS status = KitAdd(Driver, Pdo, sizeof(DAQ), &DaqInterface, &DaqHooks, DAQ_TAG, &kit);

    if (!NT_SUCCESS(status)) return status;
    daq = (PDAQ)kit;
    KeInitializeSpinLock(&daq->Lock);
    InitializeListHead(&daq->Waits);
    InitializeListHead(&daq->Reads);
    IoInitializeDpcRequest(kit->Self, DaqDpc);
    kit->Self->Flags |= DO_BUFFERED_IO;
    kit->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DaqUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = DaqAddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = DaqFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DaqFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DaqFile;
    Driver->MajorFunction[IRP_MJ_READ] = DaqRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DaqRequest;
    Driver->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = KitPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitSystemControl;
    Driver->DriverUnload = DaqUnload;
    return STATUS_SUCCESS;
}
