/* dkit.h: what the PnP function drivers share: forwarding, resources, and the power policy of a D0/D3 device. */
#ifndef DKIT_H
#define DKIT_H
#include "dkq.h"

typedef struct _DK { /* first member of every device extension */
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK Lock;
    UNICODE_STRING Link;
    VOID (*PowerDown)(PDEVICE_OBJECT); /* PASSIVE_LEVEL (the device is DO_POWER_PAGABLE) */
    VOID (*PowerUp)(PDEVICE_OBJECT);   /* <= DISPATCH_LEVEL */
} DK, *PDK;

typedef struct _DKRES {
    ULONG Bars;
    PHYSICAL_ADDRESS Base[6];
    ULONG Len[6];
    BOOLEAN Irq, Latched, Shared;
    KIRQL Level;
    ULONG Vector;
    KAFFINITY Affinity;
} DKRES, *PDKRES;

static inline VOID DkParse(PCM_RESOURCE_LIST List, PDKRES R)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR D;
    ULONG n;
    RtlZeroMemory(R, sizeof(*R));
    if (!List || !List->Count)
        return;
    D = List->List->PartialResourceList.PartialDescriptors;
    for (n = List->List->PartialResourceList.Count; n; n--, D++) {
        if (D->Type == CmResourceTypeMemory && R->Bars < 6) {
            R->Base[R->Bars] = D->u.Memory.Start;
            R->Len[R->Bars] = D->u.Memory.Length;
            R->Bars++;
        } else if (D->Type == CmResourceTypeInterrupt && !R->Irq && !(D->Flags & CM_RESOURCE_INTERRUPT_MESSAGE)) {
            R->Irq = TRUE;
            R->Level = (KIRQL)D->u.Interrupt.Level;
            R->Vector = D->u.Interrupt.Vector;
            R->Affinity = D->u.Interrupt.Affinity;
            R->Latched = (D->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
            R->Shared = D->ShareDisposition == CmResourceShareShared;
        }
    }
}

static inline NTSTATUS NTAPI DkSignal(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Dev);
    if (Irp->PendingReturned)
        KeSetEvent((PKEVENT)Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static inline NTSTATUS DkForwardWait(PDK Dk, PIRP Irp)
{
    KEVENT Event;
    NTSTATUS Status;
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, DkSignal, &Event, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Dk->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    return Status;
}

/* Passes an IRP down whose completion does not interest us, and gives the remove lock back. */
static inline NTSTATUS DkPassRelease(PDK Dk, PIRP Irp)
{
    NTSTATUS Status;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Dk->Lower, Irp);
    IoReleaseRemoveLock(&Dk->Lock, Irp);
    return Status;
}

static inline VOID NTAPI DkDeviceIrpDone(PDEVICE_OBJECT Pdo, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP Sys = Context;
    PDK Dk = IoGetCurrentIrpStackLocation(Sys)->DeviceObject->DeviceExtension;
    UNREFERENCED_PARAMETER(Pdo);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Sys->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Sys);
    IoCompleteRequest(Sys, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&Dk->Lock, Sys);
}

static inline NTSTATUS NTAPI DkSystemIrpDone(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PDK Dk = Context;
    NTSTATUS Status = Irp->IoStatus.Status;
    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(Status)) {
        POWER_STATE Want;
        Want.DeviceState = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState == PowerSystemWorking
                               ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(Dk->Pdo, IRP_MN_SET_POWER, Want, DkDeviceIrpDone, Irp, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Dk->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI DkD0Done(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Context)
{
    PDK Dk = Context;
    UNREFERENCED_PARAMETER(Dev);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        Dk->PowerUp(Dk->Self);
        PoSetPowerState(Dk->Self, DevicePowerState, IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Dk->Lock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static inline NTSTATUS NTAPI DkPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDK Dk = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Dk->Lock, Irp);
    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return DkFinish(Irp, Status, 0);
    }
    if (Sp->MinorFunction == IRP_MN_SET_POWER) {
        BOOLEAN Sys = Sp->Parameters.Power.Type == SystemPowerState;
        if (Sys || Sp->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(Irp);
            IoCopyCurrentIrpStackLocationToNext(Irp);
            IoSetCompletionRoutine(Irp, Sys ? DkSystemIrpDone : DkD0Done, Dk, TRUE, TRUE, TRUE);
            PoCallDriver(Dk->Lower, Irp);
            return STATUS_PENDING;
        }
        Dk->PowerDown(Dev);
        PoSetPowerState(Dev, DevicePowerState, Sp->Parameters.Power.State);
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Dk->Lower, Irp);
    IoReleaseRemoveLock(&Dk->Lock, Irp);
    return Status;
}

static inline NTSTATUS NTAPI DkSystemControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDK Dk = Dev->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Dk->Lock, Irp);
    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    return DkPassRelease(Dk, Irp);
}

static inline NTSTATUS NTAPI DkCreateClose(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PDK Dk = Dev->DeviceExtension;
    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE) {
        NTSTATUS Status = IoAcquireRemoveLock(&Dk->Lock, Irp);
        if (!NT_SUCCESS(Status))
            return DkFinish(Irp, Status, 0);
        DkFinish(Irp, STATUS_SUCCESS, 0);
        IoReleaseRemoveLock(&Dk->Lock, Irp);
        return STATUS_SUCCESS;
    }
    return DkFinish(Irp, STATUS_SUCCESS, 0);
}

/* Makes the function device object and puts it onto the stack; the caller clears DO_DEVICE_INITIALIZING. */
static inline NTSTATUS DkAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG ExtSize, const GUID *Class,
                                   VOID (*Down)(PDEVICE_OBJECT), VOID (*Up)(PDEVICE_OBJECT), PDEVICE_OBJECT *Out)
{
    PDEVICE_OBJECT Dev;
    PDK Dk;
    NTSTATUS Status = IoCreateDevice(Driver, ExtSize, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    Dk = Dev->DeviceExtension;
    RtlZeroMemory(Dk, ExtSize);
    Dk->Self = Dev;
    Dk->Pdo = Pdo;
    Dk->PowerDown = Down;
    Dk->PowerUp = Up;
    IoInitializeRemoveLock(&Dk->Lock, 'kDoB', 0, 0);
    Status = IoRegisterDeviceInterface(Pdo, Class, NULL, &Dk->Link);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Dev);
        return Status;
    }
    Dk->Lower = IoAttachDeviceToDeviceStack(Dev, Pdo);
    if (!Dk->Lower) {
        RtlFreeUnicodeString(&Dk->Link);
        IoDeleteDevice(Dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    Dev->Flags |= DO_POWER_PAGABLE;
    *Out = Dev;
    return STATUS_SUCCESS;
}

/* The end of IRP_MN_REMOVE_DEVICE: the driver has stopped everything; the IRP holds the remove lock. */
static inline VOID DkRemoveWait(PDK Dk, PIRP Irp)
{
    IoSetDeviceInterfaceState(&Dk->Link, FALSE);
    IoReleaseRemoveLockAndWait(&Dk->Lock, Irp);
}

static inline NTSTATUS DkRemoveFinish(PDK Dk, PIRP Irp)
{
    NTSTATUS Status;
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Dk->Lower, Irp);
    IoDetachDevice(Dk->Lower);
    RtlFreeUnicodeString(&Dk->Link);
    IoDeleteDevice(Dk->Self);
    return Status;
}

/* A one-shot timer whose expiry cannot be taken for that of its next use.  All three with the owner's spin lock. */
typedef struct _DKTIMER {
    KTIMER Timer;
    KDPC Dpc;
    BOOLEAN Armed;
    ULONG Stale; /* expiries under way that are wanted no more */
} DKTIMER, *PDKTIMER;

static inline VOID DkArm(PDKTIMER T, LONGLONG In100ns)
{
    LARGE_INTEGER Due;
    Due.QuadPart = -In100ns;
    T->Armed = TRUE;
    KeSetTimer(&T->Timer, Due, &T->Dpc);
}

static inline VOID DkDisarm(PDKTIMER T)
{
    if (!T->Armed)
        return;
    T->Armed = FALSE;
    if (!KeCancelTimer(&T->Timer) && !KeRemoveQueueDpc(&T->Dpc))
        T->Stale++; /* its DPC waits for the lock, or is about to run */
}

static inline BOOLEAN DkExpired(PDKTIMER T)
{
    if (T->Stale) {
        T->Stale--;
        return FALSE;
    }
    if (!T->Armed)
        return FALSE;
    T->Armed = FALSE;
    return TRUE;
}

static inline VOID DkInitTimer(PDKTIMER T, PKDEFERRED_ROUTINE Routine, PVOID Context)
{
    KeInitializeTimer(&T->Timer);
    KeInitializeDpc(&T->Dpc, Routine, Context);
    T->Armed = FALSE;
    T->Stale = 0;
}
#endif
