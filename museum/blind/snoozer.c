/*
 * snoozer: a root-enumerated mailbox.  Writes post messages, reads take them (or wait for one).  While the device is not
 * in D0 or is stopped, requests are held and go on when it is back.  The driver owns the power policy of its stack.
 *
 * The bug: that a device power request could not be made is passed over, and the system power request is kept.
 *
 * Device: ROOT\DOZER
 * Rule: power-irp-overdue
 * Needs: failure, power
 */
#include "../include/dkit.h"

#define TAG 'zDoB'
#define MAX_MESSAGE 1024
#define MAX_QUEUED  128

typedef struct _MAIL {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[];
} MAIL, *PMAIL;

typedef struct _DOZER {
    DK Dk;
    DKQ Held;    /* reads and writes that came while the device was off */
    DKQ Readers; /* reads that wait for a message */
    KSPIN_LOCK Lock;
    LIST_ENTRY Mails;
    ULONG Count;
    volatile LONG Started;
    volatile LONG Powered;
} DOZER, *PDOZER;

DRIVER_INITIALIZE DriverEntry;
static const GUID DozerClass = {0x91d6b0e1, 0x4a2f, 0x4e5c, {0xb3, 0x19, 0x6c, 0x02, 0x88, 0x1d, 0x2e, 0x01}};

/* Brings readers and messages together. */
static VOID Match(PDOZER D)
{
    for (;;) {
        PMAIL M = NULL;
        PIRP Irp = NULL;
        ULONG Room, Length;
        KIRQL Irql;

        KeAcquireSpinLock(&D->Lock, &Irql);
        if (!IsListEmpty(&D->Mails)) {
            Irp = IoCsqRemoveNextIrp(&D->Readers.Csq, NULL);
            if (Irp) {
                M = CONTAINING_RECORD(RemoveHeadList(&D->Mails), MAIL, Link);
                D->Count--;
            }
        }
        KeReleaseSpinLock(&D->Lock, Irql);
        if (!Irp)
            return;

        Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
        Length = M->Length < Room ? M->Length : Room;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, M->Data, Length);
        DkFinish(Irp, M->Length > Room ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS, Length);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        ExFreePoolWithTag(M, TAG);
    }
}

static NTSTATUS Post(PDOZER D, PIRP Irp, ULONG Length)
{
    PMAIL M = ExAllocatePoolWithTag(NonPagedPool, sizeof(MAIL) + Length, TAG);
    BOOLEAN Full;
    KIRQL Irql;

    if (!M)
        return STATUS_INSUFFICIENT_RESOURCES;
    M->Length = Length;
    RtlCopyMemory(M->Data, Irp->AssociatedIrp.SystemBuffer, Length);
    KeAcquireSpinLock(&D->Lock, &Irql);
    Full = D->Count >= MAX_QUEUED;
    if (!Full) {
        InsertTailList(&D->Mails, &M->Link);
        D->Count++;
    }
    KeReleaseSpinLock(&D->Lock, Irql);
    if (Full) {
        ExFreePoolWithTag(M, TAG);
        return STATUS_DEVICE_BUSY;
    }
    return STATUS_SUCCESS;
}

/* Does a request, at <= DISPATCH_LEVEL; consumes it and its remove lock. */
static NTSTATUS Perform(PDOZER D, PIRP Irp)
{
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;
    ULONG Length;

    if (Sp->MajorFunction == IRP_MJ_READ) {
        Status = IoCsqInsertIrpEx(&D->Readers.Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(Status)) {
            Match(D);
            return STATUS_PENDING;
        }
        Length = 0;
    } else {
        Length = Sp->Parameters.Write.Length;
        Status = Post(D, Irp, Length);
        if (!NT_SUCCESS(Status))
            Length = 0;
    }
    DkFinish(Irp, Status, Length);
    Match(D); /* a posted message may have its reader; still with the remove lock */
    IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    return Status;
}

static BOOLEAN Running(PDOZER D)
{
    return D->Started && D->Powered;
}

static VOID Resume(PDOZER D)
{
    PIRP Irp;
    while (Running(D) && (Irp = IoCsqRemoveNextIrp(&D->Held.Csq, NULL)) != NULL)
        Perform(D, Irp);
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDOZER D = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&D->Dk.Lock, Irp);
    ULONG Length = Sp->MajorFunction == IRP_MJ_READ ? Sp->Parameters.Read.Length : Sp->Parameters.Write.Length;

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Length == 0 || (Sp->MajorFunction == IRP_MJ_WRITE && Length > MAX_MESSAGE)) {
        DkFinish(Irp, STATUS_INVALID_PARAMETER, 0);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        return STATUS_INVALID_PARAMETER;
    }
    /* the request may go as soon as it is queued: keep the device with a lock of this thread's own */
    Status = IoAcquireRemoveLock(&D->Dk.Lock, Dev);
    if (!NT_SUCCESS(Status)) {
        DkFinish(Irp, Status, 0);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        return Status;
    }
    if (Running(D)) {
        Status = Perform(D, Irp);
    } else {
        Status = IoCsqInsertIrpEx(&D->Held.Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(Status)) {
            Status = STATUS_PENDING;
            Resume(D); /* it may have come back meanwhile */
        } else {
            DkFinish(Irp, Status, 0);
            IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        }
    }
    IoReleaseRemoveLock(&D->Dk.Lock, Dev);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDOZER D = Dev->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    if (NT_SUCCESS(IoAcquireRemoveLock(&D->Dk.Lock, Irp))) {
        DkqCleanup(&D->Held, File);
        DkqCleanup(&D->Readers, File);
        DkFinish(Irp, STATUS_SUCCESS, 0);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        return STATUS_SUCCESS;
    }
    return DkFinish(Irp, STATUS_SUCCESS, 0);
}

/* ---- power ---- */

static VOID NTAPI DeviceIrpDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP Sys = Context;
    PDOZER D = IoGetCurrentIrpStackLocation(Sys)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Sys->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Sys);
    IoCompleteRequest(Sys, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&D->Dk.Lock, Sys);
}

static NTSTATUS NTAPI SystemIrpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PDOZER D = Context;
    POWER_STATE Want;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Dev);
    if (!NT_SUCCESS(Irp->IoStatus.Status)) {
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
    Want.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking
                           ? PowerDeviceD0 : PowerDeviceD3;
    Status = PoRequestPowerIrp(D->Dk.Pdo, IRP_MN_SET_POWER, Want, DeviceIrpDone, Irp, NULL);
#ifdef FIXED
    if (!NT_SUCCESS(Status)) {
        Irp->IoStatus.Status = Status;
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        return STATUS_CONTINUE_COMPLETION;
    }
#else
    UNREFERENCED_PARAMETER(Status);
#endif
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI PowerUpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PDOZER D = Context;
    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(D->Dk.Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
        InterlockedExchange(&D->Powered, 1);
        Resume(D);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI Power(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDOZER D = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PIO_COMPLETION_ROUTINE Done = NULL;
    NTSTATUS Status = IoAcquireRemoveLock(&D->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return DkFinish(Irp, Status, 0);
    }
    if (Sp->MinorFunction == IRP_MN_SET_POWER) {
        if (Sp->Parameters.Power.Type == SystemPowerState) {
            Done = SystemIrpDone;
        } else if (Sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            Done = PowerUpDone;
        } else {
            InterlockedExchange(&D->Powered, 0);
            PoSetPowerState(Dev, DevicePowerState, Sp->Parameters.Power.State);
        }
    }
    if (Done) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, Done, D, TRUE, TRUE, TRUE);
        PoCallDriver(D->Dk.Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(D->Dk.Lower, Irp);
    IoReleaseRemoveLock(&D->Dk.Lock, Irp);
    return Status;
}

/* ---- plug and play ---- */

static VOID Drain(PDOZER D)
{
    InterlockedExchange(&D->Started, 0);
    DkqSetClosed(&D->Held, STATUS_DELETE_PENDING);
    DkqSetClosed(&D->Readers, STATUS_DELETE_PENDING);
    DkqFlush(&D->Held, NULL, STATUS_DELETE_PENDING);
    DkqFlush(&D->Readers, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDOZER D = Dev->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&D->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&D->Dk, Irp);
        if (NT_SUCCESS(Status)) {
            InterlockedExchange(&D->Powered, 1);
            InterlockedExchange(&D->Started, 1);
            Resume(D);
            IoSetDeviceInterfaceState(&D->Dk.Link, TRUE);
        }
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&D->Dk.Lock, Irp);
        return Status;
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&D->Started, 0);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&D->Dk.Link, FALSE);
        Drain(D);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(D);
        DkRemoveWait(&D->Dk, Irp);
        while (!IsListEmpty(&D->Mails))
            ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&D->Mails), MAIL, Link), TAG);
        return DkRemoveFinish(&D->Dk, Irp);
    }
    return DkPassRelease(&D->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PDOZER D;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(DOZER), &DozerClass, NULL, NULL, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    D = Dev->DeviceExtension;
    DkqInit(&D->Held, &D->Dk.Lock);
    DkqInit(&D->Readers, &D->Dk.Lock);
    KeInitializeSpinLock(&D->Lock);
    InitializeListHead(&D->Mails);
    Dev->Flags |= DO_BUFFERED_IO;
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
    Driver->MajorFunction[IRP_MJ_READ] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = Power;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
