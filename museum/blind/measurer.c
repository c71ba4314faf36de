/*
 * measurer: a PCI card that measures one of sixteen channels at a time.  IOCTL_MEASURE queues a measurement; every
 * request can be cancelled, waiting or under way; one that the card does not finish within a second fails.
 *
 * BAR0: 00 cause (write one to clear; bit 0 done), 04 enable, 08 command (channel; bit 31 start,
 * which reads as one until the card is done), 0C result, 10 abort.
 *
 * The bug: the DPC completes a request whose cancel routine runs already.
 *
 * Device: PCI\VEN_1DA7&DEV_0C33
 * Rule: use-after-free, double-completion
 * Needs: cancel, schedule, device
 */
#include "../include/dkit.h"

#define IOCTL_MEASURE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define ME_CAUSE   0x00
#define ME_ENABLE  0x04
#define ME_COMMAND 0x08
#define ME_RESULT  0x0C
#define ME_ABORT   0x10
#define ME_SPAN    0x20
#define CAUSE_DONE 0x01
#define CMD_START  0x80000000
#define GONE       0xFFFFFFFF
#define PATIENCE   10000000LL

typedef struct _MEASURE {
    DK Dk;
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiting;
    PIRP Current; /* with its cancel routine still set */
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    DKTIMER Timer;
    BOOLEAN Enabled; /* under the interrupt's lock */
    BOOLEAN Run;     /* measurements may start */
    BOOLEAN Closed;  /* no more requests are taken */
    ULONG Done;
} MEASURE, *PMEASURE;

typedef struct _SYNC {
    PMEASURE Measure;
    BOOLEAN On;
} SYNC, *PSYNC;

DRIVER_INITIALIZE DriverEntry;
static const GUID MeasureClass = {0x66e38b05, 0xfa17, 0x4c92, {0xb8, 0x2d, 0x0f, 0x53, 0x7e, 0xd9, 0x84, 0x01}};

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
    PMEASURE M = Context;
    ULONG Cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!M->Enabled)
        return FALSE;
    Cause = Rd(M->Regs, ME_CAUSE);
    if (Cause == GONE || !(Cause & CAUSE_DONE))
        return FALSE;
    Wr(M->Regs, ME_CAUSE, CAUSE_DONE);
    KeInsertQueueDpc(&M->Dpc, NULL, NULL);
    return TRUE;
}

/* Starts the next measurement if none is under way.  With the lock. */
static VOID StartNext(PMEASURE M)
{
    PIRP Irp;
    if (!M->Run || M->Current || IsListEmpty(&M->Waiting))
        return;
    Irp = CONTAINING_RECORD(RemoveHeadList(&M->Waiting), IRP, Tail.Overlay.ListEntry);
    M->Current = Irp;
    DkArm(&M->Timer, PATIENCE);
    Wr(M->Regs, ME_COMMAND, CMD_START | *(PULONG)Irp->AssociatedIrp.SystemBuffer);
}

static VOID NTAPI CancelMeasure(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMEASURE M = Dev->DeviceExtension;
    KIRQL Irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&M->Lock, &Irql);
    if (M->Current == Irp) {
        M->Current = NULL;
        DkDisarm(&M->Timer);
        Wr(M->Regs, ME_ABORT, 1);
        StartNext(M);
    } else {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&M->Lock, Irql);
    DkFinish(Irp, STATUS_CANCELLED, 0);
    IoReleaseRemoveLock(&M->Dk.Lock, Irp);
}

static VOID NTAPI DoneDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PMEASURE M = Context;
    ULONG Result = GONE;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&M->Lock);
    Irp = M->Current;
    if (Irp) {
        ULONG Command = Rd(M->Regs, ME_COMMAND);
        if (Command != GONE && (Command & CMD_START))
            Irp = NULL; /* that was the end of one before */
    }
#ifdef FIXED
    if (Irp && !IoSetCancelRoutine(Irp, NULL))
        Irp = NULL; /* its cancel routine waits for the lock */
#else
    if (Irp)
        IoSetCancelRoutine(Irp, NULL);
#endif
    if (Irp) {
        Result = Rd(M->Regs, ME_RESULT);
        M->Current = NULL;
        M->Done++;
        DkDisarm(&M->Timer);
        StartNext(M);
    }
    KeReleaseSpinLockFromDpcLevel(&M->Lock);
    if (!Irp)
        return;
    if (Result == GONE) {
        DkFinish(Irp, STATUS_DEVICE_DATA_ERROR, 0);
    } else {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Result;
        DkFinish(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    IoReleaseRemoveLock(&M->Dk.Lock, Irp);
}

static VOID NTAPI LateDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PMEASURE M = Context;
    PIRP Irp = NULL;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&M->Lock);
    if (DkExpired(&M->Timer) && M->Current && IoSetCancelRoutine(M->Current, NULL)) {
        Irp = M->Current;
        M->Current = NULL;
        Wr(M->Regs, ME_ABORT, 1);
        StartNext(M);
    }
    KeReleaseSpinLockFromDpcLevel(&M->Lock);
    if (Irp) {
        DkFinish(Irp, STATUS_IO_TIMEOUT, 0);
        IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    }
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMEASURE M = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&M->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_MEASURE) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
               Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG) ||
               *(PULONG)Irp->AssociatedIrp.SystemBuffer > 15) {
        Status = STATUS_INVALID_PARAMETER;
    } else {
        KeAcquireSpinLock(&M->Lock, &Irql);
        if (M->Closed) {
            Status = STATUS_DELETE_PENDING;
        } else if (Sp->FileObject && Sp->FileObject->FsContext2) {
            Status = STATUS_CANCELLED;
        } else {
            IoSetCancelRoutine(Irp, CancelMeasure);
            if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
                Status = STATUS_CANCELLED;
            } else {
                IoMarkIrpPending(Irp);
                InsertTailList(&M->Waiting, &Irp->Tail.Overlay.ListEntry);
                StartNext(M);
                Status = STATUS_PENDING;
            }
        }
        KeReleaseSpinLock(&M->Lock, Irql);
        if (Status == STATUS_PENDING)
            return Status;
    }
    DkFinish(Irp, Status, 0);
    IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    return Status;
}

/* Takes waiting requests (of a file, or all) off that is not being cancelled, and fails them; others' cancel routines do. */
static VOID Fail(PMEASURE M, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY Taken;
    PLIST_ENTRY E, Next;
    KIRQL Irql;

    InitializeListHead(&Taken);
    KeAcquireSpinLock(&M->Lock, &Irql);
    if (File)
        File->FsContext2 = (PVOID)1;
    for (E = M->Waiting.Flink; E != &M->Waiting; E = Next) {
        PIRP Irp = CONTAINING_RECORD(E, IRP, Tail.Overlay.ListEntry);
        Next = E->Flink;
        if (File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
            continue;
        if (IoSetCancelRoutine(Irp, NULL)) {
            RemoveEntryList(E);
            InsertTailList(&Taken, E);
        }
    }
    KeReleaseSpinLock(&M->Lock, Irql);
    while (!IsListEmpty(&Taken)) {
        PIRP Irp = CONTAINING_RECORD(RemoveHeadList(&Taken), IRP, Tail.Overlay.ListEntry);
        DkFinish(Irp, Status, 0);
        IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    }
}

/* Ends the measurement under way, of a file or any. */
static VOID Break(PMEASURE M, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP Irp;
    KIRQL Irql;
    KeAcquireSpinLock(&M->Lock, &Irql);
    Irp = M->Current;
    if (Irp && File && IoGetCurrentIrpStackLocation(Irp)->FileObject != File)
        Irp = NULL;
    if (Irp && IoSetCancelRoutine(Irp, NULL)) {
        M->Current = NULL;
        DkDisarm(&M->Timer);
        Wr(M->Regs, ME_ABORT, 1);
        StartNext(M);
    } else {
        Irp = NULL;
    }
    KeReleaseSpinLock(&M->Lock, Irql);
    if (Irp) {
        DkFinish(Irp, Status, 0);
        IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    }
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMEASURE M = Dev->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&M->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    Fail(M, File, STATUS_CANCELLED);
    Break(M, File, STATUS_CANCELLED);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static VOID Drain(PMEASURE M)
{
    KIRQL Irql;
    KeAcquireSpinLock(&M->Lock, &Irql);
    M->Closed = TRUE;
    M->Run = FALSE;
    KeReleaseSpinLock(&M->Lock, Irql);
    Fail(M, NULL, STATUS_DELETE_PENDING);
}

static BOOLEAN NTAPI EnableSync(PVOID Context)
{
    PSYNC Y = Context;
    PMEASURE M = Y->Measure;
    if (Y->On) {
        Wr(M->Regs, ME_CAUSE, CAUSE_DONE);
        Wr(M->Regs, ME_ENABLE, CAUSE_DONE);
    } else if (M->Enabled) {
        Wr(M->Regs, ME_ENABLE, 0);
    }
    M->Enabled = Y->On;
    return TRUE;
}

/* The card stops measuring; the measurement under way fails. */
static VOID Halt(PMEASURE M, BOOLEAN Forget)
{
    SYNC Y = {M, FALSE};
    PKINTERRUPT Interrupt;
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&M->Lock, &Irql);
    M->Run = FALSE;
    Irp = M->Current;
    if (Irp) {
        M->Current = NULL;
        DkDisarm(&M->Timer);
        Wr(M->Regs, ME_ABORT, 1);
        if (!IoSetCancelRoutine(Irp, NULL)) {
            InitializeListHead(&Irp->Tail.Overlay.ListEntry); /* its cancel routine takes it off this */
            Irp = NULL;
        }
    }
    Interrupt = M->Interrupt;
    if (Interrupt)
        KeSynchronizeExecution(Interrupt, EnableSync, &Y);
    if (Forget)
        M->Interrupt = NULL;
    KeReleaseSpinLock(&M->Lock, Irql);

    if (Irp) {
        DkFinish(Irp, STATUS_DEVICE_NOT_READY, 0);
        IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    }
    if (Forget && Interrupt)
        IoDisconnectInterrupt(Interrupt);
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Halt(Dev->DeviceExtension, FALSE);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PMEASURE M = Dev->DeviceExtension;
    SYNC Y = {M, TRUE};
    KIRQL Irql;
    KeAcquireSpinLock(&M->Lock, &Irql);
    if (M->Interrupt) {
        KeSynchronizeExecution(M->Interrupt, EnableSync, &Y);
        M->Run = !M->Closed;
        StartNext(M);
    }
    KeReleaseSpinLock(&M->Lock, Irql);
}

static VOID StopCard(PMEASURE M)
{
    Halt(M, TRUE);
    KeFlushQueuedDpcs();
    if (M->Regs)
        MmUnmapIoSpace(M->Regs, ME_SPAN);
    M->Regs = NULL;
}

static NTSTATUS StartCard(PMEASURE M, PCM_RESOURCE_LIST List)
{
    PKINTERRUPT Interrupt;
    NTSTATUS Status;
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 1 || Res.Len[0] < ME_SPAN || !Res.Irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    M->Regs = MmMapIoSpace(Res.Base[0], ME_SPAN, MmNonCached);
    if (!M->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wr(M->Regs, ME_ENABLE, 0);
    Wr(M->Regs, ME_ABORT, 1);
    Status = IoConnectInterrupt(&Interrupt, Isr, M, NULL, Res.Vector, Res.Level, Res.Level,
                                Res.Latched ? Latched : LevelSensitive, Res.Shared, Res.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        StopCard(M);
        return Status;
    }
    KeAcquireSpinLock(&M->Lock, &Irql);
    M->Interrupt = Interrupt;
    KeReleaseSpinLock(&M->Lock, Irql);
    PowerUp(M->Dk.Self);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMEASURE M = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&M->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&M->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(M, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&M->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&M->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE: /* the queue waits for the next start */
        StopCard(M);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&M->Dk.Link, FALSE);
        Drain(M);
        StopCard(M);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(M);
        StopCard(M);
        DkRemoveWait(&M->Dk, Irp);
        return DkRemoveFinish(&M->Dk, Irp);
    }
    return DkPassRelease(&M->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PMEASURE M;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(MEASURE), &MeasureClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    M = Dev->DeviceExtension;
    KeInitializeSpinLock(&M->Lock);
    InitializeListHead(&M->Waiting);
    KeInitializeDpc(&M->Dpc, DoneDpc, M);
    DkInitTimer(&M->Timer, LateDpc, M);
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
