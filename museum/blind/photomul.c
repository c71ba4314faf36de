/*
 * photomul: pulses of a photomultiplier in a spectroscopy laboratory. Programs wait for the next pulse with a device control each, which is answered with the
 * number of pulses so far; a test request has the card (`edu`, which raises any interrupt that it is asked for) make a pulse itself.
 *
 * The bug: a waiting request is marked pending only when it is in the list already and the list's lock is released. If the pulse comes at that moment the DPC on
 * another processor completes the request, which is then marked behind its end.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, write-after-free, pending-not-marked, pending-marked
 * Needs: schedule, ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define IOCTL_PM_NEXT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PM_FLASH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PM_TOTAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x882, METHOD_BUFFERED, FILE_READ_ACCESS)

#define EDU_STATUS 0x20
#define EDU_CAUSE  0x24
#define EDU_RAISE  0x60
#define EDU_ACK    0x64

static const GUID PhotomulInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x05 } };

typedef struct _PHOTOMUL {
    struct fdev f;
    struct hw hw;
    struct win *Regs;
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiters;         /* IRPs, each holds a reference of f.life */
    ULONG Total;
    KDPC Dpc;
    LONG Pulses;                /* since the DPC has last run */
} PHOTOMUL;

static VOID PmFinish(PHOTOMUL *pm, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    irp_end(Irp, Status, Info);
    ExReleaseRundownProtection(&pm->f.life);
}

static VOID NTAPI PmCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PHOTOMUL *pm = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&pm->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&pm->Lock, irql);
    PmFinish(pm, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS PmWait(PHOTOMUL *pm, PIRP Irp)
{
    BOOLEAN dead = FALSE;
    KIRQL irql;

    if (!ExAcquireRundownProtection(&pm->f.life))
        return irp_end(Irp, STATUS_NO_SUCH_DEVICE, 0);
#ifdef FIXED
    IoMarkIrpPending(Irp);
#endif
    KeAcquireSpinLock(&pm->Lock, &irql);
    IoSetCancelRoutine(Irp, PmCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL))
        dead = TRUE;
    else
        InsertTailList(&pm->Waiters, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&pm->Lock, irql);
#ifndef FIXED
    IoMarkIrpPending(Irp);
#endif
    if (dead)
        PmFinish(pm, Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

/* Ends those who wait, or of those the ones of one handle. */
static VOID PmAnswer(PHOTOMUL *pm, PFILE_OBJECT File, NTSTATUS Status, ULONG Value)
{
    LIST_ENTRY ready;
    PLIST_ENTRY entry, next;
    KIRQL irql;

    InitializeListHead(&ready);
    KeAcquireSpinLock(&pm->Lock, &irql);
    for (entry = pm->Waiters.Flink; entry != &pm->Waiters; entry = next) {
        PIRP irp = CONTAINING_RECORD(entry, IRP, Tail.Overlay.ListEntry);

        next = entry->Flink;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(entry);
        if (IoSetCancelRoutine(irp, NULL))
            InsertTailList(&ready, entry);
        else
            InitializeListHead(entry);      /* the cancel routine waits for the lock, and removes it from this */
    }
    KeReleaseSpinLock(&pm->Lock, irql);
    while (!IsListEmpty(&ready)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&ready), IRP, Tail.Overlay.ListEntry);

        if (NT_SUCCESS(Status)) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = Value;
            PmFinish(pm, irp, Status, sizeof(ULONG));
        } else {
            PmFinish(pm, irp, Status, 0);
        }
    }
}

static VOID NTAPI PmDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PHOTOMUL *pm = Context;
    LONG pulses = InterlockedExchange(&pm->Pulses, 0);
    ULONG total;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (!pulses)
        return;
    KeAcquireSpinLockAtDpcLevel(&pm->Lock);
    pm->Total += (ULONG)pulses;
    total = pm->Total;
    KeReleaseSpinLockFromDpcLevel(&pm->Lock);
    PmAnswer(pm, NULL, STATUS_SUCCESS, total);
}

static BOOLEAN PmIsr(PVOID Context)
{
    PHOTOMUL *pm = Context;
    ULONG cause = hw_r32(pm->Regs, EDU_CAUSE);

    if (!cause || cause == 0xFFFFFFFF)
        return FALSE;
    hw_w32(pm->Regs, EDU_ACK, cause);
    InterlockedIncrement(&pm->Pulses);
    KeInsertQueueDpc(&pm->Dpc, NULL, NULL);
    return TRUE;
}

static NTSTATUS PmRequest(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PHOTOMUL *pm = (PHOTOMUL *)f;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength, out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PM_NEXT:
        if (out < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return PmWait(pm, Irp);

    case IOCTL_PM_FLASH:
        if (in < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (*buffer == 0 || *buffer > 0xFF)
            return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
        hw_w32(pm->Regs, EDU_RAISE, *buffer);
        return irp_end(Irp, STATUS_SUCCESS, 0);

    case IOCTL_PM_TOTAL:
        if (out < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&pm->Lock, &irql);
        *buffer = pm->Total;
        KeReleaseSpinLock(&pm->Lock, irql);
        return irp_end(Irp, STATUS_SUCCESS, sizeof(ULONG));

    default:
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void PmSilence(PVOID Context)
{
    PHOTOMUL *pm = Context;

    hw_w32(pm->Regs, EDU_STATUS, 0);
    hw_w32(pm->Regs, EDU_ACK, 0xFFFFFFFF);
    hw_r32(pm->Regs, EDU_CAUSE);
}

static VOID PmOff(PHOTOMUL *pm, BOOLEAN Touch)
{
    hw_turn(&pm->hw, FALSE, Touch ? PmSilence : NULL);
    KeFlushQueuedDpcs();
}

static VOID PmQuiet(struct fdev *f, BOOLEAN Touch)
{
    PHOTOMUL *pm = (PHOTOMUL *)f;

    PmOff(pm, Touch);
    hw_disconnect(&pm->hw);
    hw_unmap(&pm->hw);
}

static NTSTATUS PmStart(struct fdev *f, PCM_RESOURCE_LIST List)
{
    PHOTOMUL *pm = (PHOTOMUL *)f;
    NTSTATUS status = hw_claim(&pm->hw, List);

    if (!NT_SUCCESS(status))
        return status;
    pm->Regs = &pm->hw.w[0];
    if (pm->hw.n == 0 || pm->Regs->port || pm->Regs->len < 0x100) {
        hw_unmap(&pm->hw);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    PmSilence(pm);
    status = hw_connect(&pm->hw, PmIsr, pm);
    if (!NT_SUCCESS(status)) {
        hw_unmap(&pm->hw);
        return status;
    }
    hw_turn(&pm->hw, TRUE, NULL);
    return STATUS_SUCCESS;
}

static VOID PmSleep(struct fdev *f)
{
    PmOff((PHOTOMUL *)f, TRUE);
}

static VOID PmWake(struct fdev *f)
{
    hw_turn(&((PHOTOMUL *)f)->hw, TRUE, PmSilence);
}

static VOID PmGone(struct fdev *f)
{
    PmAnswer((PHOTOMUL *)f, NULL, STATUS_NO_SUCH_DEVICE, 0);
}

static VOID PmCleanup(struct fdev *f, PFILE_OBJECT File)
{
    PmAnswer((PHOTOMUL *)f, File, STATUS_CANCELLED, 0);
}

static NTSTATUS PmAdd(struct fdev *f)
{
    PHOTOMUL *pm = (PHOTOMUL *)f;

    KeInitializeSpinLock(&pm->Lock);
    InitializeListHead(&pm->Waiters);
    KeInitializeDpc(&pm->Dpc, PmDpc, pm);
    return STATUS_SUCCESS;
}

static const struct fops PmOps = {
    .iface = &PhotomulInterface, .bytes = sizeof(PHOTOMUL), .flags = DO_BUFFERED_IO,
    .add = PmAdd, .start = PmStart, .quiet = PmQuiet, .sleep = PmSleep, .wake = PmWake,
    .request = PmRequest, .gone = PmGone, .cleanup = PmCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return fd_entry(DriverObject, &PmOps);
}
