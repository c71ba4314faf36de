/*
 * fobread: reads the key fobs shown to a door reader on a small in-house card; programs wait for
 * the next fob, or ask for the last one.
 * The card (BAR0, memory): 0x00 ident 0x52464F42; 0x04 control (1 reader on, 2 interrupt on);
 * 0x08 state (1 frame ready, cleared by writing it); 0x0C length of the frame (bits 7:0);
 * 0x10 the frame's next byte (bits 7:0). Fobs send up to 64 bytes.
 *
 * The bug: the frame's length is taken from the card as it is, up to 255, and so many bytes are put into an array of
 * 64.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: pool-overrun
 * Needs: device
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_FOBREAD, 0x5d2f1b07, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x07);

#define FOB_MAX 64u
typedef struct {
    ULONG Sequence, Length;
    UCHAR Data[FOB_MAX];
} FOB;
#define IOCTL_FOB_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FOB_LAST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_READ_ACCESS)

#define R_IDENT 0
#define R_CTRL  1
#define R_STATE 2
#define R_LEN   3
#define R_FIFO  4
#define REGS_LEN 0x14u
#define IDENT   0x52464F42u

typedef struct {
    KIT Kit;
    volatile ULONG *Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN HwUp;
    KDPC Dpc;
    IO_CSQ Csq;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY Waiters;
    KSPIN_LOCK FobLock;
    FOB Last;
} FOBR, *PFOBR;

static VOID NTAPI FobInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, FOBR, Csq)->Waiters, &Irp->Tail.Overlay.ListEntry);
}
static VOID NTAPI FobRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}
static PIRP NTAPI FobPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PLIST_ENTRY head = &CONTAINING_RECORD(Csq, FOBR, Csq)->Waiters, e;
    for (e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : head->Flink; e != head; e = e->Flink) {
        PIRP c = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(c)->FileObject == File)
            return c;
    }
    return NULL;
}
static VOID NTAPI FobLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, FOBR, Csq)->QueueLock, Irql);
}
static VOID NTAPI FobUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, FOBR, Csq)->QueueLock, Irql);
}
static VOID NTAPI FobCanceled(PIO_CSQ Csq, PIRP Irp)
{
    KitComplete(&CONTAINING_RECORD(Csq, FOBR, Csq)->Kit, Irp, STATUS_CANCELLED, 0);
}

static BOOLEAN NTAPI FobIsr(PKINTERRUPT I, PVOID Ctx)
{
    PFOBR F = Ctx;
    ULONG state;
    UNREFERENCED_PARAMETER(I);
    if (!F->HwUp)
        return FALSE;
    state = READ_REGISTER_ULONG(&F->Regs[R_STATE]);
    if (state == 0xFFFFFFFF || !(state & 1))
        return FALSE;
    WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_STATE], 1);
    KeInsertQueueDpc(&F->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI FobDpc(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PFOBR F = Ctx;
    PIRP irp;
    ULONG len, i;
    FOB now;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    if (!KitTryGate(&F->Kit))
        return;
    KeAcquireSpinLockAtDpcLevel(&F->FobLock);
    len = READ_REGISTER_ULONG(&F->Regs[R_LEN]);
    if (len == 0xFFFFFFFF || (len & 0xFF) == 0) {
        KeReleaseSpinLockFromDpcLevel(&F->FobLock);
        KitUngate(&F->Kit);
        return;
    }
    len &= 0xFF;
#ifdef FIXED
    if (len > FOB_MAX)
        len = FOB_MAX;
#endif
    RtlZeroMemory(F->Last.Data, FOB_MAX);
    for (i = 0; i < len; i++)
        F->Last.Data[i] = (UCHAR)READ_REGISTER_ULONG(&F->Regs[R_FIFO]);
    F->Last.Length = len;
    F->Last.Sequence++;
    now = F->Last;
    KeReleaseSpinLockFromDpcLevel(&F->FobLock);

    while ((irp = IoCsqRemoveNextIrp(&F->Csq, NULL))) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &now, sizeof(FOB));
        KitComplete(&F->Kit, irp, STATUS_SUCCESS, sizeof(FOB));
    }
    KitUngate(&F->Kit);
}

static NTSTATUS FobHandle(PKIT K, PIRP Irp)
{
    PFOBR F = (PFOBR)K;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL irql;

    if (code != IOCTL_FOB_NEXT && code != IOCTL_FOB_LAST)
        st = STATUS_INVALID_DEVICE_REQUEST;
    else if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(FOB))
        st = STATUS_BUFFER_TOO_SMALL;
    else if (code == IOCTL_FOB_NEXT)
        return KitPark(K, Irp, &F->Csq);
    else {
        KeAcquireSpinLock(&F->FobLock, &irql);
        if (F->Last.Sequence)
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &F->Last, sizeof(FOB));
        else
            st = STATUS_NO_MORE_ENTRIES;
        KeReleaseSpinLock(&F->FobLock, irql);
    }
    KitFinish(K, Irp, st, NT_SUCCESS(st) ? sizeof(FOB) : 0);
    return st;
}
static VOID FobPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    PFOBR F = (PFOBR)K;
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&F->Csq, File)))
        KitComplete(K, irp, Status, 0);
}

static BOOLEAN NTAPI FobOn(PVOID Ctx)
{
    PFOBR F = Ctx;
    F->HwUp = TRUE;
    WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_CTRL], 3);
    return TRUE;
}
static BOOLEAN NTAPI FobOff(PVOID Ctx)
{
    PFOBR F = Ctx;
    F->HwUp = FALSE;
    WRITE_REGISTER_ULONG((PULONG)&F->Regs[R_CTRL], 0);
    return TRUE;
}
static BOOLEAN NTAPI FobLost(PVOID Ctx)
{
    ((PFOBR)Ctx)->HwUp = FALSE;
    return TRUE;
}
static VOID FobUp(PKIT K)
{
    KeSynchronizeExecution(((PFOBR)K)->Interrupt, FobOn, K);
}
static VOID FobDown(PKIT K, BOOLEAN Present)
{
    KeSynchronizeExecution(((PFOBR)K)->Interrupt, Present ? FobOff : FobLost, K);
    KeFlushQueuedDpcs();
}
static VOID FobRelease(PKIT K)
{
    PFOBR F = (PFOBR)K;
    if (F->Interrupt) {
        IoDisconnectInterrupt(F->Interrupt);
        F->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (F->Regs) {
        MmUnmapIoSpace((PVOID)F->Regs, REGS_LEN);
        F->Regs = NULL;
    }
}
static NTSTATUS FobStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PFOBR F = (PFOBR)K;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = NULL, irq = NULL;
    NTSTATUS st;
    ULONG i;

    for (i = 0; i < Res->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &Res->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && !mem)
            mem = d;
        else if (d->Type == CmResourceTypeInterrupt && !irq)
            irq = d;
    }
    if (!mem || !irq || mem->u.Memory.Length < REGS_LEN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    F->Regs = MmMapIoSpace(mem->u.Memory.Start, REGS_LEN, MmNonCached);
    if (!F->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (READ_REGISTER_ULONG(&F->Regs[R_IDENT]) != IDENT)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    st = IoConnectInterrupt(&F->Interrupt, FobIsr, F, NULL, irq->u.Interrupt.Vector,
                            (KIRQL)irq->u.Interrupt.Level, (KIRQL)irq->u.Interrupt.Level,
                            (irq->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                            irq->ShareDisposition == CmResourceShareShared,
                            irq->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(st))
        F->Interrupt = NULL;
    return st;
}

static const KIT_OPS CardOps = { FobStart, FobUp, FobDown, FobRelease, FobHandle, FobPurge };

static NTSTATUS NTAPI FobAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    PFOBR F;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(FOBR), &GUID_FOBREAD, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    F = (PFOBR)K;
    KeInitializeSpinLock(&F->QueueLock);
    KeInitializeSpinLock(&F->FobLock);
    InitializeListHead(&F->Waiters);
    KeInitializeDpc(&F->Dpc, FobDpc, F);
    st = IoCsqInitialize(&F->Csq, FobInsert, FobRemove, FobPeek, FobLock, FobUnlock, FobCanceled);
    if (!NT_SUCCESS(st)) {
        RtlFreeUnicodeString(&K->Link);
        IoDeleteDevice(K->Self);
        return st;
    }
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, FobAdd);
    return STATUS_SUCCESS;
}
