/*
 * vmebrdg: a VME crate behind a PCI card (PLX 9052), with drivers' habits of NT 4. Programs wait for one of the crate's interrupt levels 1 to 7, and read and write
 * words of the crate's A16 space, as far as it can be seen through the card's local space.
 *
 * The bug: the cancel routine releases the cancel spin lock, with the request's CancelIrql, while it still holds the driver's own lock: it runs on at
 * PASSIVE_LEVEL with a spin lock in its hands, where it can be preempted by a thread, or by the DPC that spins for it.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: spin-lock-held-below-dispatch, irql-too-low
 * Needs: cancel, ioctl
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"
#include "../include/parked_plx.h"

#define IOCTL_VME_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_VME_PEEK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_VME_POKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* local space: three registers of the bridge, then the A16 window */
#define B_PENDING 0x00
#define B_ENABLE  0x04
#define B_VECTOR  0x08
#define B_WINDOW  0x10
#define LEVELS    0xFE

static const GUID VmeInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x07 } };

typedef struct _VME_WORD {
    ULONG Offset;
    ULONG Value;
} VME_WORD;

typedef struct _VME {
    struct fdev f;
    struct hw hw;
    struct win *Chip, *Board;
    KSPIN_LOCK Lock;
    LIST_ENTRY Waiters;             /* IRPs, each with a reference of f.life */
    KDPC Dpc;
    LONG Levels;
} VME;

static VOID VmeComplete(VME *v, PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    irp_end(Irp, Status, Info);
    ExReleaseRundownProtection(&v->f.life);
}

/* The cancel spin lock is held, so this is DISPATCH_LEVEL. */
static VOID NTAPI VmeCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    VME *v = Device->DeviceExtension;

    KeAcquireSpinLockAtDpcLevel(&v->Lock);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
#ifndef FIXED
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeReleaseSpinLockFromDpcLevel(&v->Lock);
#else
    KeReleaseSpinLockFromDpcLevel(&v->Lock);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
#endif
    VmeComplete(v, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS VmeWait(VME *v, PIRP Irp, ULONG Level)
{
    BOOLEAN dead = FALSE;
    KIRQL irql;

    if (Level < 1 || Level > 7)
        return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
    if (!ExAcquireRundownProtection(&v->f.life))
        return irp_end(Irp, STATUS_NO_SUCH_DEVICE, 0);
    IoMarkIrpPending(Irp);
    Irp->Tail.Overlay.DriverContext[0] = (PVOID)(ULONG_PTR)(1u << Level);
    KeAcquireSpinLock(&v->Lock, &irql);
    IoSetCancelRoutine(Irp, VmeCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL))
        dead = TRUE;
    else
        InsertTailList(&v->Waiters, &Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&v->Lock, irql);
    if (dead)
        VmeComplete(v, Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

/* Takes those out who wait for one of the levels (0: for anything) with this handle (NULL: with any), and answers them. */
static VOID VmeAnswer(VME *v, ULONG Levels, PFILE_OBJECT File, NTSTATUS Status, ULONG Vector)
{
    LIST_ENTRY ready;
    PLIST_ENTRY e, next;
    KIRQL irql;

    InitializeListHead(&ready);
    KeAcquireSpinLock(&v->Lock, &irql);
    for (e = v->Waiters.Flink; e != &v->Waiters; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        next = e->Flink;
        if (Levels && !((ULONG)(ULONG_PTR)irp->Tail.Overlay.DriverContext[0] & Levels))
            continue;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File)
            continue;
        RemoveEntryList(e);
        if (IoSetCancelRoutine(irp, NULL))
            InsertTailList(&ready, e);
        else
            InitializeListHead(e);
    }
    KeReleaseSpinLock(&v->Lock, irql);
    while (!IsListEmpty(&ready)) {
        PIRP irp = CONTAINING_RECORD(RemoveHeadList(&ready), IRP, Tail.Overlay.ListEntry);

        if (NT_SUCCESS(Status))
            *(PULONG)irp->AssociatedIrp.SystemBuffer = Vector;
        VmeComplete(v, irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
    }
}

static BOOLEAN VmeIsr(PVOID Context)
{
    VME *v = Context;
    ULONG levels;

    if (!plx_claim(v->Chip))
        return FALSE;
    levels = hw_r32(v->Board, B_PENDING) & LEVELS;
    hw_w32(v->Board, B_PENDING, levels);
    InterlockedOr(&v->Levels, (LONG)levels);
    KeInsertQueueDpc(&v->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI VmeDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    VME *v = Context;
    ULONG levels = (ULONG)InterlockedExchange(&v->Levels, 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (levels)
        VmeAnswer(v, levels, NULL, STATUS_SUCCESS, hw_r32(v->Board, B_VECTOR) & 0xFF);
}

static NTSTATUS VmeRequest(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    VME *v = (VME *)f;
    VME_WORD *word = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength, out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG window = (v->Board->len - B_WINDOW) & ~3u;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VME_WAIT:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return VmeWait(v, Irp, word->Offset);

    case IOCTL_VME_PEEK:
    case IOCTL_VME_POKE:
        if (in < sizeof(VME_WORD))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if ((word->Offset & 3) || word->Offset >= window)
            return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
        if (Sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_VME_POKE) {
            hw_w32(v->Board, B_WINDOW + word->Offset, word->Value);
            return irp_end(Irp, STATUS_SUCCESS, 0);
        }
        if (out < sizeof(VME_WORD))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        word->Value = hw_r32(v->Board, B_WINDOW + word->Offset);
        return irp_end(Irp, STATUS_SUCCESS, sizeof(VME_WORD));

    default:
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static void VmeMask(PVOID Context)
{
    VME *v = Context;

    hw_w32(v->Board, B_ENABLE, 0);
    hw_w32(v->Chip, PLX_INTCSR, 0);
    hw_r32(v->Chip, PLX_INTCSR);
}

static void VmeUnmask(PVOID Context)
{
    VME *v = Context;

    hw_w32(v->Board, B_PENDING, LEVELS);
    hw_w32(v->Board, B_ENABLE, LEVELS);
    hw_w32(v->Chip, PLX_INTCSR, PLX_LINT1_ON | PLX_LINT1_CLEAR);
}

static VOID VmeOff(VME *v, BOOLEAN Touch)
{
    hw_turn(&v->hw, FALSE, Touch ? VmeMask : NULL);
    KeFlushQueuedDpcs();
}

static VOID VmeQuiet(struct fdev *f, BOOLEAN Touch)
{
    VME *v = (VME *)f;

    VmeOff(v, Touch);
    hw_disconnect(&v->hw);
    hw_unmap(&v->hw);
}

static NTSTATUS VmeStart(struct fdev *f, PCM_RESOURCE_LIST List)
{
    VME *v = (VME *)f;
    NTSTATUS status = hw_claim(&v->hw, List);

    if (!NT_SUCCESS(status))
        return status;
    status = plx_find(&v->hw, B_WINDOW + 16, &v->Chip, &v->Board);
    if (NT_SUCCESS(status)) {
        VmeMask(v);
        status = hw_connect(&v->hw, VmeIsr, v);
    }
    if (!NT_SUCCESS(status)) {
        hw_unmap(&v->hw);
        return status;
    }
    hw_turn(&v->hw, TRUE, VmeUnmask);
    return STATUS_SUCCESS;
}

static VOID VmeSleep(struct fdev *f)
{
    VmeOff((VME *)f, TRUE);
}

static VOID VmeWake(struct fdev *f)
{
    hw_turn(&((VME *)f)->hw, TRUE, VmeUnmask);
}

static VOID VmeGone(struct fdev *f)
{
    VmeAnswer((VME *)f, 0, NULL, STATUS_NO_SUCH_DEVICE, 0);
}

static VOID VmeCleanup(struct fdev *f, PFILE_OBJECT File)
{
    VmeAnswer((VME *)f, 0, File, STATUS_CANCELLED, 0);
}

static NTSTATUS VmeAdd(struct fdev *f)
{
    VME *v = (VME *)f;

    KeInitializeSpinLock(&v->Lock);
    InitializeListHead(&v->Waiters);
    KeInitializeDpc(&v->Dpc, VmeDpc, v);
    return STATUS_SUCCESS;
}

static const struct fops VmeOps = {
    .iface = &VmeInterface, .bytes = sizeof(VME), .flags = DO_BUFFERED_IO,
    .add = VmeAdd, .start = VmeStart, .quiet = VmeQuiet, .sleep = VmeSleep, .wake = VmeWake,
    .request = VmeRequest, .gone = VmeGone, .cleanup = VmeCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return fd_entry(DriverObject, &VmeOps);
}
