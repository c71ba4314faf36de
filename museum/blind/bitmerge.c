/*
 * bitmerge: lets a program ring the bells of QEMU's edu card (its "raise interrupt" register) and others
 * wait for them: a waiting request ends with the bits of all interrupts since the last one.
 *
 * The bug: the DPC reads and clears the bits the interrupt routine gathers without the interrupt's lock, so bits that
 * come between are lost.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race
 * Needs: device, schedule
 */
#include "../include/kit_hooks.h"

static const GUID MergeGuid = { 0x5d0f7a13, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x03 } };

#define IOCTL_MERGE_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MERGE_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _MERGE {
    KIT Kit;
    KIT_QUEUE Waiters;
    volatile ULONG *Bar;
    ULONG BarLength;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    /* with the interrupt's lock */
    BOOLEAN Live;
    ULONG Fresh;
    /* with the lock */
    KSPIN_LOCK Lock;
    ULONG Gathered;
} MERGE, *PMERGE;

#define R_STATUS (0x20 / 4)
#define R_IRQ   (0x24 / 4)
#define R_RAISE (0x60 / 4)
#define R_ACK   (0x64 / 4)

static ULONG MergeRead(PMERGE Merge, ULONG Index)
{
    return READ_REGISTER_ULONG((PULONG)&Merge->Bar[Index]);
}

static VOID MergeWrite(PMERGE Merge, ULONG Index, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)&Merge->Bar[Index], Value);
}

static BOOLEAN NTAPI MergeIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PMERGE merge = Context;
    ULONG irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!merge->Live)
        return FALSE;
    irq = MergeRead(merge, R_IRQ);
    if (irq == 0 || irq == 0xFFFFFFFF)
        return FALSE;
    MergeWrite(merge, R_ACK, irq);
    merge->Fresh |= irq;
    KeInsertQueueDpc(&merge->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI MergeGather(PVOID Context)
{
    PMERGE merge = Context;

    merge->Gathered |= merge->Fresh;
    merge->Fresh = 0;
    return TRUE;
}

/* Gives the gathered bits to the first waiter; one set of bits for one waiter. */
static VOID MergeDeliver(PMERGE Merge)
{
    KIRQL irql;
    PIRP irp = NULL;
    ULONG bits = 0;

    KeAcquireSpinLock(&Merge->Lock, &irql);
    if (Merge->Gathered) {
        irp = IoCsqRemoveNextIrp(&Merge->Waiters.Csq, NULL);
        if (irp) {
            bits = Merge->Gathered;
            Merge->Gathered = 0;
        }
    }
    KeReleaseSpinLock(&Merge->Lock, irql);
    if (irp) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = bits;
        KitFinish(&Merge->Kit, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI MergeDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PMERGE merge = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    KeAcquireSpinLockAtDpcLevel(&merge->Lock);
#ifdef FIXED
    KeSynchronizeExecution(merge->Interrupt, MergeGather, merge);
#else
    MergeGather(merge);
#endif
    KeReleaseSpinLockFromDpcLevel(&merge->Lock);
    MergeDeliver(merge);
}

static BOOLEAN NTAPI MergeGoLive(PVOID Context)
{
    PMERGE merge = Context;
    ULONG irq = MergeRead(merge, R_IRQ);

    if (irq)
        MergeWrite(merge, R_ACK, irq);
    merge->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI MergeGoQuiet(PVOID Context)
{
    PMERGE merge = Context;
    ULONG irq = MergeRead(merge, R_IRQ);

    if (irq && irq != 0xFFFFFFFF) {
        MergeWrite(merge, R_ACK, irq);
        merge->Fresh |= irq;
    }
    merge->Live = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI MergeGoDead(PVOID Context)
{
    ((PMERGE)Context)->Live = FALSE;
    return TRUE;
}

/* After Live is FALSE: the DPC that is still queued uses the interrupt object, so it is awaited first. */
static VOID MergeRelease(PKIT Kit, BOOLEAN Reachable)
{
    PMERGE merge = (PMERGE)Kit;

    if (merge->Interrupt) {
        KeSynchronizeExecution(merge->Interrupt, Reachable ? MergeGoQuiet : MergeGoDead, merge);
        KeFlushQueuedDpcs();
        IoDisconnectInterrupt(merge->Interrupt);
        merge->Interrupt = NULL;
    }
    if (merge->Bar) {
        MmUnmapIoSpace((PVOID)merge->Bar, merge->BarLength);
        merge->Bar = NULL;
    }
}

static NTSTATUS MergeStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PMERGE merge = (PMERGE)Kit;
    KIT_RESOURCES res;
    NTSTATUS status;

    KitResources(Stack, &res);
    if (!res.Memories || !res.HasInterrupt || res.Memory[0].Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    merge->BarLength = res.Memory[0].Length;
    merge->Bar = MmMapIoSpace(res.Memory[0].Start, merge->BarLength, MmNonCached);
    if (!merge->Bar)
        return STATUS_INSUFFICIENT_RESOURCES;
    MergeWrite(merge, R_STATUS, 0);
    MergeWrite(merge, R_ACK, MergeRead(merge, R_IRQ));
    merge->Live = FALSE;
    status = IoConnectInterrupt(&merge->Interrupt, MergeIsr, merge, NULL, res.Vector, res.Level, res.Level, res.Mode, res.Shared, res.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        merge->Interrupt = NULL;
        MergeRelease(Kit, FALSE);
        return status;
    }
    KeSynchronizeExecution(merge->Interrupt, MergeGoLive, merge);
    return STATUS_SUCCESS;
}

static VOID MergeSleep(PKIT Kit)
{
    PMERGE merge = (PMERGE)Kit;
    KeSynchronizeExecution(merge->Interrupt, MergeGoQuiet, merge);
    KeFlushQueuedDpcs();
}

/* What GoQuiet took up while falling asleep is gathered by a DPC now. */
static VOID MergeWake(PKIT Kit)
{
    PMERGE merge = (PMERGE)Kit;
    KeSynchronizeExecution(merge->Interrupt, MergeGoLive, merge);
    KeInsertQueueDpc(&merge->Dpc, NULL, NULL);
}

static VOID MergePrepare(PKIT Kit)
{
    PMERGE merge = (PMERGE)Kit;
    KitQueueInit(Kit, &merge->Waiters);
    KeInitializeSpinLock(&merge->Lock);
    KeInitializeDpc(&merge->Dpc, MergeDpc, merge);
}

static VOID MergeFlush(PKIT Kit)
{
    KitQueueFlush(&((PMERGE)Kit)->Waiters, NULL, STATUS_DELETE_PENDING);
}

static const KIT_HOOKS KitHooks = { sizeof(MERGE), 0, 'greM', &MergeGuid, MergePrepare, MergeStart, MergeRelease, MergeFlush, MergeSleep, MergeWake, NULL };

static NTSTATUS NTAPI MergeControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMERGE merge = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&merge->Kit.RemoveLock, merge);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MERGE_RING:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = KitEnter(&merge->Kit);
        if (NT_SUCCESS(status)) {
            MergeWrite(merge, R_RAISE, *(PULONG)Irp->AssociatedIrp.SystemBuffer & 0x7FFFFFFF);
            KitLeave(&merge->Kit);
        }
        break;
    case IOCTL_MERGE_WAIT:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = KitPend(&merge->Kit, &merge->Waiters, Irp);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    if (status == STATUS_PENDING)
        MergeDeliver(merge);
    else
        KitComplete(Irp, status, 0);
    IoReleaseRemoveLock(&merge->Kit.RemoveLock, merge);
    return status;
}

static NTSTATUS NTAPI MergeCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PMERGE merge = DeviceObject->DeviceExtension;
    KitQueueFlush(&merge->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MergeControl;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = MergeCleanup;
    return STATUS_SUCCESS;
}
