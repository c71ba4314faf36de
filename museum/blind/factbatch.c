/*
 * factbatch: lets programs have batches of up to sixteen factorials computed by the card,
 * one interrupt after each; a batch that takes more than a second is given up.
 *
 * The bug: the time-out DPC completes the current batch before it takes it away from the interrupt's DPC, so that
 * both may complete it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: use-after-free, double-completion
 * Needs: device, schedule
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_FACTBATCH, 0x5d2f1b01, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x01);

#define IOCTL_FACT_BATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)

#define R_FACT   (0x08 / 4)
#define R_STATUS (0x20 / 4)
#define R_IRQ    (0x24 / 4)
#define R_ACK    (0x64 / 4)
#define ST_BUSY  0x01u
#define ST_IRQ   0x80u
#define MAX_BATCH 16u
#define LIMIT_100NS 10000000ull

typedef struct {
    KIT Kit;
    volatile ULONG *Regs;
    ULONG RegsLen;
    PKINTERRUPT Interrupt;
    BOOLEAN HwUp;                 /* changed in step with the ISR */
    KDPC IsrDpc, TimeoutDpc;
    KTIMER Timer;
    KSPIN_LOCK JobLock;           /* the fields below */
    PIRP Current;
    ULONG Index, Count;
    ULONGLONG Deadline;
} FB, *PFB;

static BOOLEAN NTAPI FbIsr(PKINTERRUPT I, PVOID Ctx)
{
    PFB F = Ctx;
    ULONG bits;
    UNREFERENCED_PARAMETER(I);
    if (!F->HwUp)
        return FALSE;
    bits = READ_REGISTER_ULONG(&F->Regs[R_IRQ]);
    if (bits == 0 || bits == 0xFFFFFFFF)
        return FALSE;
    WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_ACK], bits);
    KeInsertQueueDpc(&F->IsrDpc, NULL, NULL);
    return TRUE;
}

/* The batch's next result is there, if the card is not busy any more. */
static VOID NTAPI FbIsrDpc(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PFB F = Ctx;
    PIRP done = NULL;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    KeAcquireSpinLockAtDpcLevel(&F->JobLock);
    if (F->Current) {
        ULONG s = READ_REGISTER_ULONG(&F->Regs[R_STATUS]);
        PULONG v = F->Current->AssociatedIrp.SystemBuffer;
        if (s == 0xFFFFFFFF) {
            done = F->Current;
            st = STATUS_DEVICE_NOT_CONNECTED;
        } else if (!(s & ST_BUSY)) {
            v[F->Index] = READ_REGISTER_ULONG(&F->Regs[R_FACT]);
            if (++F->Index == F->Count) {
                done = F->Current;
                info = F->Count * sizeof(ULONG);
            } else {
                WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_FACT], v[F->Index]);
            }
        }
        if (done) {
            F->Current = NULL;
            KeCancelTimer(&F->Timer);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&F->JobLock);
    if (done)
        KitFinish(&F->Kit, done, st, info);
}

static VOID NTAPI FbTimeout(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PFB F = Ctx;
    PIRP irp = NULL;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    KeAcquireSpinLockAtDpcLevel(&F->JobLock);
    if (F->Current && KeQueryInterruptTime() >= F->Deadline) {
        irp = F->Current;
#ifdef FIXED
        F->Current = NULL;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&F->JobLock);
    if (!irp)
        return;
    KitFinish(&F->Kit, irp, STATUS_IO_TIMEOUT, 0);
#ifndef FIXED
    KeAcquireSpinLockAtDpcLevel(&F->JobLock);
    if (F->Current == irp)
        F->Current = NULL;
    KeReleaseSpinLockFromDpcLevel(&F->JobLock);
#endif
}

static NTSTATUS FbHandle(PKIT K, PIRP Irp)
{
    PFB F = (PFB)K;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG v = Irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER due;
    KIRQL irql;
    ULONG s;
    NTSTATUS st;

    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACT_BATCH) {
        KitFinish(K, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (in == 0 || in % sizeof(ULONG) || in > MAX_BATCH * sizeof(ULONG) || out < in) {
        KitFinish(K, Irp, STATUS_INVALID_PARAMETER, 0);
        return STATUS_INVALID_PARAMETER;
    }
    KeAcquireSpinLock(&F->JobLock, &irql);
    s = READ_REGISTER_ULONG(&F->Regs[R_STATUS]);
    if (s == 0xFFFFFFFF)
        st = STATUS_DEVICE_NOT_CONNECTED;
    else if (F->Current || (s & ST_BUSY))
        st = STATUS_DEVICE_BUSY;
    else {
        st = STATUS_PENDING;
        IoMarkIrpPending(Irp);
        F->Current = Irp;
        F->Index = 0;
        F->Count = in / sizeof(ULONG);
        F->Deadline = KeQueryInterruptTime() + LIMIT_100NS;
        due.QuadPart = -(LONGLONG)LIMIT_100NS - 20000;
        KeSetTimer(&F->Timer, due, &F->TimeoutDpc);
        WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_FACT], v[0]);
    }
    KeReleaseSpinLock(&F->JobLock, irql);
    if (st != STATUS_PENDING)
        KitFinish(K, Irp, st, 0);
    return st;
}

static VOID FbPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    PFB F = (PFB)K;
    PIRP irp = NULL;
    KIRQL irql;
    KeAcquireSpinLock(&F->JobLock, &irql);
    if (F->Current && (!File || IoGetCurrentIrpStackLocation(F->Current)->FileObject == File)) {
        irp = F->Current;
        F->Current = NULL;
        KeCancelTimer(&F->Timer);
    }
    KeReleaseSpinLock(&F->JobLock, irql);
    if (irp)
        KitFinish(K, irp, Status, 0);
}

static BOOLEAN NTAPI FbHwOn(PVOID Ctx)
{
    PFB F = Ctx;
    WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_STATUS], ST_IRQ);
    F->HwUp = TRUE;
    return TRUE;
}
static BOOLEAN NTAPI FbHwOff(PVOID Ctx)
{
    ((PFB)Ctx)->HwUp = FALSE;
    return TRUE;
}
static VOID FbUp(PKIT K)
{
    PFB F = (PFB)K;
    KeSynchronizeExecution(F->Interrupt, FbHwOn, F);
}
static VOID FbDown(PKIT K, BOOLEAN Present)
{
    PFB F = (PFB)K;
    if (Present) {
        ULONG bits;
        WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_STATUS], 0);
        KeSynchronizeExecution(F->Interrupt, FbHwOff, F);
        bits = READ_REGISTER_ULONG(&F->Regs[R_IRQ]);
        if (bits && bits != 0xFFFFFFFF)
            WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_ACK], bits);
    } else {
        KeSynchronizeExecution(F->Interrupt, FbHwOff, F);
    }
    KeCancelTimer(&F->Timer);
    KeFlushQueuedDpcs();
}
static VOID FbRelease(PKIT K)
{
    PFB F = (PFB)K;
    if (F->Interrupt) {
        IoDisconnectInterrupt(F->Interrupt);
        F->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (F->Regs) {
        MmUnmapIoSpace((PVOID)F->Regs, F->RegsLen);
        F->Regs = NULL;
    }
}
static NTSTATUS FbStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PFB F = (PFB)K;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = NULL;
    NTSTATUS st;
    ULONG i;
    for (i = 0; i < Res->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &Res->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && !F->Regs && d->u.Memory.Length >= 0x1000) {
            F->RegsLen = d->u.Memory.Length;
            F->Regs = MmMapIoSpace(d->u.Memory.Start, F->RegsLen, MmNonCached);
            if (!F->Regs)
                return STATUS_INSUFFICIENT_RESOURCES;
        } else if (d->Type == CmResourceTypeInterrupt && !irq) {
            irq = d;
        }
    }
    if (!F->Regs || !irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    st = IoConnectInterrupt(&F->Interrupt, FbIsr, F, NULL, irq->u.Interrupt.Vector,
                              (KIRQL)irq->u.Interrupt.Level, (KIRQL)irq->u.Interrupt.Level,
                              (irq->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                              irq->ShareDisposition == CmResourceShareShared,
                              irq->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(st))
        F->Interrupt = NULL;
    return st;
}

static const KIT_OPS CardOps = { FbStart, FbUp, FbDown, FbRelease, FbHandle, FbPurge };

static NTSTATUS NTAPI FbAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    PFB F;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(FB), &GUID_FACTBATCH, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    F = (PFB)K;
    KeInitializeSpinLock(&F->JobLock);
    KeInitializeDpc(&F->IsrDpc, FbIsrDpc, F);
    KeInitializeDpc(&F->TimeoutDpc, FbTimeout, F);
    KeInitializeTimer(&F->Timer);
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, FbAdd);
    return STATUS_SUCCESS;
}
