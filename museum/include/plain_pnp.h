/* plain_pnp.h: plug and play for devices without hardware. The driver gives SoftStart (once, may
 * fail having undone its part), SoftStop (once, at surprise removal or removal, if started)
 * and SoftFinal (at removal, when nothing runs any more). */
#pragma once
#include <ddk/wdm.h>
#include <initguid.h>

typedef struct _SOFT {
    PDEVICE_OBJECT Self, Lower, Pdo;
    IO_REMOVE_LOCK RemoveLock;
    BOOLEAN Started, Stopped, RemovePending;
    UNICODE_STRING Link;
} SOFT, *PSOFT;

static NTSTATUS SoftStart(PSOFT S);
static VOID SoftStop(PSOFT S);
static VOID SoftFinal(PSOFT S);

static inline NTSTATUS SoftDone(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}
static inline BOOLEAN SoftOpenable(PSOFT S)
{
    return S->Started && !S->Stopped && !S->RemovePending;
}

static inline NTSTATUS NTAPI SoftCame(PDEVICE_OBJECT D, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}
static inline NTSTATUS SoftLowerFirst(PSOFT S, PIRP Irp)
{
    KEVENT ev;
    KeInitializeEvent(&ev, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SoftCame, &ev, TRUE, TRUE, TRUE);
    (void)IoCallDriver(S->Lower, Irp);
    KeWaitForSingleObject(&ev, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}
static inline VOID SoftStopOnce(PSOFT S)
{
    if (S->Started && !S->Stopped) {
        S->Stopped = TRUE;
        IoSetDeviceInterfaceState(&S->Link, FALSE);
        SoftStop(S);
    }
}

static inline NTSTATUS NTAPI SoftPnp(PDEVICE_OBJECT D, PIRP Irp)
{
    PSOFT S = D->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS st = IoAcquireRemoveLock(&S->RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);

    switch (minor) {
    case IRP_MN_START_DEVICE:
        st = SoftLowerFirst(S, Irp);
        if (NT_SUCCESS(st) && !S->Started) {      /* not again after a rebalance */
            st = SoftStart(S);
            if (NT_SUCCESS(st)) {
                S->Started = TRUE;
                IoSetDeviceInterfaceState(&S->Link, TRUE);
            }
        }
        Irp->IoStatus.Status = st;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&S->RemoveLock, Irp);
        return st;
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        (void)SoftLowerFirst(S, Irp);
        S->RemovePending = FALSE;
        st = Irp->IoStatus.Status = STATUS_SUCCESS;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&S->RemoveLock, Irp);
        return st;
    case IRP_MN_REMOVE_DEVICE:
        SoftStopOnce(S);
        IoReleaseRemoveLockAndWait(&S->RemoveLock, Irp);
        SoftFinal(S);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        st = IoCallDriver(S->Lower, Irp);
        IoDetachDevice(S->Lower);
        RtlFreeUnicodeString(&S->Link);
        IoDeleteDevice(D);
        return st;
    case IRP_MN_QUERY_REMOVE_DEVICE:
        S->RemovePending = TRUE;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        SoftStopOnce(S);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:                /* no resources: work goes on */
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(S->Lower, Irp);
    IoReleaseRemoveLock(&S->RemoveLock, Irp);
    return st;
}
static inline NTSTATUS NTAPI SoftPower(PDEVICE_OBJECT D, PIRP Irp)
{
    PSOFT S = D->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&S->RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    st = PoCallDriver(S->Lower, Irp);
    IoReleaseRemoveLock(&S->RemoveLock, Irp);
    return st;
}
static inline NTSTATUS NTAPI SoftPass(PDEVICE_OBJECT D, PIRP Irp)
{
    PSOFT S = D->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&S->RemoveLock, Irp);
    if (!NT_SUCCESS(st))
        return SoftDone(Irp, st, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    st = IoCallDriver(S->Lower, Irp);
    IoReleaseRemoveLock(&S->RemoveLock, Irp);
    return st;
}

static inline NTSTATUS SoftCreate(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo, ULONG Size, const GUID *Guid, PSOFT *Out)
{
    PDEVICE_OBJECT d;
    PSOFT S;
    NTSTATUS st = IoCreateDevice(Drv, Size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        return st;
    S = d->DeviceExtension;
    RtlZeroMemory(S, Size);
    S->Self = d;
    S->Pdo = Pdo;
    IoInitializeRemoveLock(&S->RemoveLock, 'tfoS', 0, 0);
    st = IoRegisterDeviceInterface(Pdo, Guid, NULL, &S->Link);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(d);
        return st;
    }
    *Out = S;
    return STATUS_SUCCESS;
}
static inline NTSTATUS SoftAttach(PSOFT S, ULONG Flags)
{
    S->Lower = IoAttachDeviceToDeviceStack(S->Self, S->Pdo);
    if (!S->Lower) {
        RtlFreeUnicodeString(&S->Link);
        IoDeleteDevice(S->Self);
        return STATUS_NO_SUCH_DEVICE;
    }
    S->Self->Flags |= Flags | (S->Lower->Flags & DO_POWER_PAGABLE);
    S->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
