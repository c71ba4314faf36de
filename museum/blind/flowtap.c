/*
 * flowtap: a PCI flow meter.  The card interrupts when its counter passes the limit or overflows; the driver counts the
 * alarms, completes IOCTL_FLOW_WAIT, and keeps the totals in the device's registry key from a work item.
 *
 * BAR0: 00 cause (write one to clear; bit 0 limit, bit 1 overflow), 04 enable, 08 counter, 0C limit.
 *
 * The bug: the DPC queues its work item while it is queued.
 *
 * Device: PCI\VEN_1DA7&DEV_0A10
 * Rule: work-item-queued
 * Needs: device, schedule
 */
#include "../include/dkit.h"

#define IOCTL_FLOW_LIMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FLOW_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FLOW_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define FL_CAUSE  0x00
#define FL_ENABLE 0x04
#define FL_COUNT  0x08
#define FL_LIMIT  0x0C
#define FL_SPAN   0x10
#define FL_CAUSES 0x03
#define GONE      0xFFFFFFFF

typedef struct _TOTALS {
    ULONG Count;
    ULONG Limits;
    ULONG Overflows;
} TOTALS;

typedef struct _FLOW {
    DK Dk;
    DKQ Waiters;
    KSPIN_LOCK Lock;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    PIO_WORKITEM Work;
    volatile LONG Saving;
    volatile LONG Causes;
    BOOLEAN Enabled; /* under the interrupt's lock */
    ULONG Limit;
    TOTALS Totals;   /* with Lock */
} FLOW, *PFLOW;

typedef struct _SYNC {
    PFLOW Flow;
    BOOLEAN On;
} SYNC, *PSYNC;

DRIVER_INITIALIZE DriverEntry;
static const GUID FlowClass = {0x14a9d5e8, 0x7c02, 0x4be3, {0xaf, 0x31, 0x68, 0x0d, 0x92, 0xc4, 0x17, 0x01}};

static ULONG Rd(PUCHAR Base, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Base + Offset));
}

static VOID Wr(PUCHAR Base, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Base + Offset), Value);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PFLOW F = Context;
    ULONG Cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!F->Enabled)
        return FALSE;
    Cause = Rd(F->Regs, FL_CAUSE);
    if (Cause == GONE || !(Cause & FL_CAUSES))
        return FALSE;
    Wr(F->Regs, FL_CAUSE, Cause & FL_CAUSES);
    InterlockedOr(&F->Causes, (LONG)(Cause & FL_CAUSES));
    KeInsertQueueDpc(&F->Dpc, NULL, NULL);
    return TRUE;
}

static VOID SetValue(HANDLE Key, PCWSTR Name, ULONG Value)
{
    UNICODE_STRING String;
    RtlInitUnicodeString(&String, Name);
    ZwSetValueKey(Key, &String, 0, REG_DWORD, &Value, sizeof(Value)); /* the next alarm tries again */
}

static VOID NTAPI Save(PDEVICE_OBJECT Dev, PVOID Context)
{
    PFLOW F = Context;
    TOTALS Now;
    HANDLE Key;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dev);
    InterlockedExchange(&F->Saving, 0); /* alarms from now on need another one */
    KeAcquireSpinLock(&F->Lock, &Irql);
    Now = F->Totals;
    KeReleaseSpinLock(&F->Lock, Irql);
    if (NT_SUCCESS(IoOpenDeviceRegistryKey(F->Dk.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_SET_VALUE, &Key))) {
        SetValue(Key, L"FlowCount", Now.Count);
        SetValue(Key, L"FlowLimits", Now.Limits);
        SetValue(Key, L"FlowOverflows", Now.Overflows);
        ZwClose(Key);
    }
    IoReleaseRemoveLock(&F->Dk.Lock, F->Work);
}

static VOID QueueSave(PFLOW F)
{
#ifdef FIXED
    if (InterlockedCompareExchange(&F->Saving, 1, 0) != 0)
        return;
#endif
    if (!NT_SUCCESS(IoAcquireRemoveLock(&F->Dk.Lock, F->Work))) {
        InterlockedExchange(&F->Saving, 0);
        return;
    }
    IoQueueWorkItem(F->Work, Save, DelayedWorkQueue, F);
}

static VOID NTAPI AlarmDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PFLOW F = Context;
    LONG Causes = InterlockedExchange(&F->Causes, 0);
    TOTALS Now;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    if (!Causes)
        return;
    KeAcquireSpinLockAtDpcLevel(&F->Lock);
    if (F->Interrupt && F->Enabled)
        F->Totals.Count = Rd(F->Regs, FL_COUNT);
    if (Causes & 1)
        F->Totals.Limits++;
    if (Causes & 2)
        F->Totals.Overflows++;
    Now = F->Totals;
    KeReleaseSpinLockFromDpcLevel(&F->Lock);

    while ((Irp = IoCsqRemoveNextIrp(&F->Waiters.Csq, NULL)) != NULL) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Now, sizeof(Now));
        DkFinish(Irp, STATUS_SUCCESS, sizeof(Now));
        IoReleaseRemoveLock(&F->Dk.Lock, Irp);
    }
    QueueSave(F);
}

static BOOLEAN NTAPI EnableSync(PVOID Context)
{
    PSYNC Y = Context;
    PFLOW F = Y->Flow;
    if (Y->On) {
        Wr(F->Regs, FL_LIMIT, F->Limit);
        Wr(F->Regs, FL_CAUSE, FL_CAUSES);
        Wr(F->Regs, FL_ENABLE, FL_CAUSES);
    } else if (F->Enabled) {
        Wr(F->Regs, FL_ENABLE, 0);
    }
    F->Enabled = Y->On;
    return TRUE;
}

static VOID Enable(PFLOW F, BOOLEAN On)
{
    SYNC Y = {F, On};
    KIRQL Irql;
    KeAcquireSpinLock(&F->Lock, &Irql);
    if (F->Interrupt)
        KeSynchronizeExecution(F->Interrupt, EnableSync, &Y);
    KeReleaseSpinLock(&F->Lock, Irql);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFLOW F = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Info = 0;
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&F->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FLOW_LIMIT:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&F->Lock, &Irql);
        F->Limit = *Buffer;
        if (F->Interrupt && F->Enabled)
            Wr(F->Regs, FL_LIMIT, F->Limit);
        KeReleaseSpinLock(&F->Lock, Irql);
        break;
    case IOCTL_FLOW_READ:
        if (Out < sizeof(TOTALS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&F->Lock, &Irql);
        if (F->Interrupt && F->Enabled)
            F->Totals.Count = Rd(F->Regs, FL_COUNT);
        *(TOTALS *)Buffer = F->Totals;
        KeReleaseSpinLock(&F->Lock, Irql);
        Info = sizeof(TOTALS);
        break;
    case IOCTL_FLOW_WAIT:
        if (Out < sizeof(TOTALS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = IoCsqInsertIrpEx(&F->Waiters.Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_PENDING;
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&F->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFLOW F = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&F->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&F->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&F->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static VOID Drain(PFLOW F)
{
    DkqSetClosed(&F->Waiters, STATUS_DELETE_PENDING);
    DkqFlush(&F->Waiters, NULL, STATUS_DELETE_PENDING);
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Enable(Dev->DeviceExtension, FALSE);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    Enable(Dev->DeviceExtension, TRUE);
}

static VOID StopCard(PFLOW F)
{
    SYNC Y = {F, FALSE};
    PKINTERRUPT Interrupt;
    KIRQL Irql;

    KeAcquireSpinLock(&F->Lock, &Irql);
    Interrupt = F->Interrupt;
    if (Interrupt)
        KeSynchronizeExecution(Interrupt, EnableSync, &Y);
    F->Interrupt = NULL;
    KeReleaseSpinLock(&F->Lock, Irql);
    if (Interrupt) {
        IoDisconnectInterrupt(Interrupt);
        KeFlushQueuedDpcs();
    }
    if (F->Regs)
        MmUnmapIoSpace(F->Regs, FL_SPAN);
    F->Regs = NULL;
}

static NTSTATUS StartCard(PFLOW F, PCM_RESOURCE_LIST List)
{
    PKINTERRUPT Interrupt;
    NTSTATUS Status;
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 1 || Res.Len[0] < FL_SPAN || !Res.Irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    F->Regs = MmMapIoSpace(Res.Base[0], FL_SPAN, MmNonCached);
    if (!F->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wr(F->Regs, FL_ENABLE, 0);
    Status = IoConnectInterrupt(&Interrupt, Isr, F, NULL, Res.Vector, Res.Level, Res.Level,
                                Res.Latched ? Latched : LevelSensitive, Res.Shared, Res.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        StopCard(F);
        return Status;
    }
    KeAcquireSpinLock(&F->Lock, &Irql);
    F->Interrupt = Interrupt;
    KeReleaseSpinLock(&F->Lock, Irql);
    Enable(F, TRUE);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFLOW F = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&F->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&F->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(F, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&F->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&F->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE: /* waiters wait for the next start */
        StopCard(F);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&F->Dk.Link, FALSE);
        Drain(F);
        StopCard(F);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(F);
        StopCard(F);
        DkRemoveWait(&F->Dk, Irp);
        IoFreeWorkItem(F->Work);
        return DkRemoveFinish(&F->Dk, Irp);
    }
    return DkPassRelease(&F->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PFLOW F;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(FLOW), &FlowClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    F = Dev->DeviceExtension;
    F->Work = IoAllocateWorkItem(Dev);
    if (!F->Work) {
        IoDetachDevice(F->Dk.Lower);
        RtlFreeUnicodeString(&F->Dk.Link);
        IoDeleteDevice(Dev);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    DkqInit(&F->Waiters, &F->Dk.Lock);
    KeInitializeSpinLock(&F->Lock);
    KeInitializeDpc(&F->Dpc, AlarmDpc, F);
    F->Limit = 1000000;
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
