/*
 * edusnap: takes snapshots of the card's 4 KB buffer into memory by DMA, and hands
 * the part asked for to the program. The end of a transfer is found by a timer.
 *
 * The bug: when the card is stopped or removed just after a program has given up its snapshot, the common buffer is
 * freed while the card still writes into it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap
 * Needs: device, removal
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_EDUSNAP, 0x5d2f1b02, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x02);

typedef struct { ULONG Offset, Length; } SNAP_REQUEST;
#define IOCTL_SNAP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_ACCESS)

#define R_DMASRC (0x80 / 4)
#define R_DMADST (0x88 / 4)
#define R_DMACNT (0x90 / 4)
#define R_DMACMD (0x98 / 4)
#define CMD_RUN  1u
#define CMD_FROM_CARD 2u
#define CARD_BUF 0x40000u
#define CARD_LEN 4096u

typedef struct {
    KIT Kit;
    volatile ULONG *Regs;
    ULONG RegsLen;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS Logical;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock;           /* the fields below */
    PIRP Current;
    ULONG Ticks;
    BOOLEAN Stuck;             /* a transfer did not end */
} SNAP, *PSNAP;

static VOID Wr(PSNAP S, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)&S->Regs[R], V); }
static ULONG Rd(PSNAP S, ULONG R) { return READ_REGISTER_ULONG(&S->Regs[R]); }

static VOID SnapArm(PSNAP S)
{
    LARGE_INTEGER due;
    due.QuadPart = -100000;       /* 10 ms */
    KeSetTimer(&S->Timer, due, &S->TimerDpc);
}

static VOID NTAPI SnapTick(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PSNAP S = Ctx;
    PIRP irp = NULL;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    KeAcquireSpinLockAtDpcLevel(&S->Lock);
    if (S->Current) {
        ULONG cmd = Rd(S, R_DMACMD);
        if (cmd == 0xFFFFFFFF)
            st = STATUS_DEVICE_NOT_CONNECTED;
        else if (!(cmd & CMD_RUN)) {
            SNAP_REQUEST *rq = S->Current->AssociatedIrp.SystemBuffer;
            SNAP_REQUEST r = *rq;
            RtlCopyMemory(rq, S->Common + r.Offset, r.Length);
            info = r.Length;
        } else if (++S->Ticks > 100)
            st = STATUS_IO_TIMEOUT;
        else {
            SnapArm(S);
            KeReleaseSpinLockFromDpcLevel(&S->Lock);
            return;
        }
        irp = S->Current;
        S->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&S->Lock);
    if (irp)
        KitFinish(&S->Kit, irp, st, info);
}

static NTSTATUS SnapHandle(PKIT K, PIRP Irp)
{
    PSNAP S = (PSNAP)K;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    SNAP_REQUEST *rq = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;
    ULONG cmd;

    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_SNAP)
        st = STATUS_INVALID_DEVICE_REQUEST;
    else if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(SNAP_REQUEST))
        st = STATUS_INFO_LENGTH_MISMATCH;
    else if (rq->Length == 0 || rq->Length > CARD_LEN || rq->Offset > CARD_LEN - rq->Length)
        st = STATUS_INVALID_PARAMETER;
    else if (sp->Parameters.DeviceIoControl.OutputBufferLength < rq->Length)
        st = STATUS_BUFFER_TOO_SMALL;
    if (NT_SUCCESS(st)) {
        KeAcquireSpinLock(&S->Lock, &irql);
        cmd = Rd(S, R_DMACMD);
        if (cmd == 0xFFFFFFFF)
            st = STATUS_DEVICE_NOT_CONNECTED;
        else if (S->Current || (cmd & CMD_RUN))
            st = STATUS_DEVICE_BUSY;
        else {
            IoMarkIrpPending(Irp);
            st = STATUS_PENDING;
            S->Current = Irp;
            S->Ticks = 0;
            Wr(S, R_DMASRC, CARD_BUF);
            Wr(S, R_DMASRC + 1, 0);
            Wr(S, R_DMADST, S->Logical.LowPart);
            Wr(S, R_DMADST + 1, 0);
            Wr(S, R_DMACNT, CARD_LEN);
            Wr(S, R_DMACNT + 1, 0);
            Wr(S, R_DMACMD, CMD_RUN | CMD_FROM_CARD);
            SnapArm(S);
        }
        KeReleaseSpinLock(&S->Lock, irql);
    }
    if (st != STATUS_PENDING)
        KitFinish(K, Irp, st, 0);
    return st;
}

/* A program that closes its handle does not wait for its snapshot. */
static VOID SnapPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    PSNAP S = (PSNAP)K;
    PIRP irp = NULL;
    KIRQL irql;
    KeAcquireSpinLock(&S->Lock, &irql);
    if (S->Current && (!File || IoGetCurrentIrpStackLocation(S->Current)->FileObject == File)) {
        irp = S->Current;
        S->Current = NULL;
        KeCancelTimer(&S->Timer);
    }
    KeReleaseSpinLock(&S->Lock, irql);
    if (irp)
        KitFinish(K, irp, Status, 0);
}

static VOID SnapUp(PKIT K)
{
    UNREFERENCED_PARAMETER(K);
}
static VOID SnapDown(PKIT K, BOOLEAN Present)
{
    PSNAP S = (PSNAP)K;
    KeCancelTimer(&S->Timer);
    KeFlushQueuedDpcs();
#ifdef FIXED
    if (Present) {
        LARGE_INTEGER wait;
        ULONG cmd, n = 0;
        wait.QuadPart = -100000;
        while (((cmd = Rd(S, R_DMACMD)) & CMD_RUN) && cmd != 0xFFFFFFFF && n++ < 100)
            KeDelayExecutionThread(KernelMode, FALSE, &wait);   /* a transfer takes 0.1 s */
        S->Stuck = (cmd & CMD_RUN) && cmd != 0xFFFFFFFF;
    }
#else
    UNREFERENCED_PARAMETER(Present);
#endif
}
static VOID SnapRelease(PKIT K)
{
    PSNAP S = (PSNAP)K;
    if (S->Common) {
        if (!S->Stuck)                /* else the buffer is given up to the card */
            S->Adapter->DmaOperations->FreeCommonBuffer(S->Adapter, CARD_LEN, S->Logical, S->Common, FALSE);
        S->Common = NULL;
        S->Stuck = FALSE;
    }
    if (S->Adapter) {
        S->Adapter->DmaOperations->PutDmaAdapter(S->Adapter);
        S->Adapter = NULL;
    }
    if (S->Regs) {
        MmUnmapIoSpace((PVOID)S->Regs, S->RegsLen);
        S->Regs = NULL;
    }
}
static NTSTATUS SnapStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PSNAP S = (PSNAP)K;
    DEVICE_DESCRIPTION dd;
    ULONG i, regs;
    for (i = 0; i < Res->Count && !S->Regs; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &Res->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && d->u.Memory.Length >= 0x1000) {
            S->RegsLen = d->u.Memory.Length;
            S->Regs = MmMapIoSpace(d->u.Memory.Start, S->RegsLen, MmNonCached);
            if (!S->Regs)
                return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    if (!S->Regs)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&dd, sizeof(dd));
    dd.Version = DEVICE_DESCRIPTION_VERSION;
    dd.Master = TRUE;
    dd.Dma32BitAddresses = TRUE;
    dd.InterfaceType = PCIBus;
    dd.MaximumLength = CARD_LEN;
    S->Adapter = IoGetDmaAdapter(K->Pdo, &dd, &regs);
    if (!S->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    S->Common = S->Adapter->DmaOperations->AllocateCommonBuffer(S->Adapter, CARD_LEN, &S->Logical, FALSE);
    if (!S->Common)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (S->Logical.QuadPart + CARD_LEN > 0x10000000)    /* the card has 28 address lines */
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(S->Common, CARD_LEN);
    return STATUS_SUCCESS;
}

static const KIT_OPS CardOps = { SnapStart, SnapUp, SnapDown, SnapRelease, SnapHandle, SnapPurge };

static NTSTATUS NTAPI SnapAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    PSNAP S;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(SNAP), &GUID_EDUSNAP, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    S = (PSNAP)K;
    KeInitializeSpinLock(&S->Lock);
    KeInitializeTimer(&S->Timer);
    KeInitializeDpc(&S->TimerDpc, SnapTick, S);
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, SnapAdd);
    return STATUS_SUCCESS;
}
