/*
 * noisebox: gathers random words from an in-house noise card every 10 ms into a pool of 4 KB
 * and serves reads from it; a read gets what is there, at least a byte.
 * The card (BAR0, memory): 0x00 ident 0x4E4F4953; 0x04 control (1 run); 0x08 words ready; 0x0C word.
 *
 * The bug: the periodic timer is stopped only while the card is present: after a surprise removal it goes on in the
 * freed device extension.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: freed-active-timer
 * Needs: removal
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_NOISEBOX, 0x5d2f1b09, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x09);

#define R_IDENT 0
#define R_CTRL  1
#define R_READY 2
#define R_WORD  3
#define REGS_LEN 0x10u
#define IDENT   0x4E4F4953u
#define POOL    4096u

typedef struct {
    KIT Kit;
    volatile ULONG *Regs;
    KTIMER Timer;
    KDPC Dpc;
    IO_CSQ Csq;
    KSPIN_LOCK QueueLock;
    LIST_ENTRY Readers;
    KSPIN_LOCK PoolLock;
    ULONG Fill;
    UCHAR Pool[POOL];
} NOISE, *PNOISE;

static VOID NTAPI NbInsert(PIO_CSQ Csq, PIRP Irp)
{
    InsertTailList(&CONTAINING_RECORD(Csq, NOISE, Csq)->Readers, &Irp->Tail.Overlay.ListEntry);
}
static VOID NTAPI NbRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}
static PIRP NTAPI NbPeek(PIO_CSQ Csq, PIRP Irp, PVOID File)
{
    PNOISE N = CONTAINING_RECORD(Csq, NOISE, Csq);
    PLIST_ENTRY e = Irp ? Irp->Tail.Overlay.ListEntry.Flink : N->Readers.Flink;
    while (e != &N->Readers) {
        PIRP c = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!File || IoGetCurrentIrpStackLocation(c)->FileObject == File)
            return c;
        e = e->Flink;
    }
    return NULL;
}
static VOID NTAPI NbLock(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&CONTAINING_RECORD(Csq, NOISE, Csq)->QueueLock, Irql);
}
static VOID NTAPI NbUnlock(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&CONTAINING_RECORD(Csq, NOISE, Csq)->QueueLock, Irql);
}
static VOID NTAPI NbCanceled(PIO_CSQ Csq, PIRP Irp)
{
    KitComplete(&CONTAINING_RECORD(Csq, NOISE, Csq)->Kit, Irp, STATUS_CANCELLED, 0);
}

static VOID NbGather(PNOISE N)
{
    ULONG ready = READ_REGISTER_ULONG(&N->Regs[R_READY]);
    if (ready == 0xFFFFFFFF)
        return;
    if (ready > 64)
        ready = 64;
    while (ready-- && N->Fill + sizeof(ULONG) <= POOL) {
        ULONG w = READ_REGISTER_ULONG(&N->Regs[R_WORD]);
        RtlCopyMemory(N->Pool + N->Fill, &w, sizeof(w));
        N->Fill += sizeof(w);
    }
}

static VOID NTAPI NbTick(PKDPC Dpc, PVOID Ctx, PVOID A1, PVOID A2)
{
    PNOISE N = Ctx;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);

    if (!KitTryGate(&N->Kit))
        return;
    KeAcquireSpinLockAtDpcLevel(&N->PoolLock);
    NbGather(N);
    KeReleaseSpinLockFromDpcLevel(&N->PoolLock);
    for (;;) {
        PIRP irp;
        ULONG n = 0;
        KeAcquireSpinLockAtDpcLevel(&N->PoolLock);
        irp = N->Fill ? IoCsqRemoveNextIrp(&N->Csq, NULL) : NULL;
        if (irp) {
            /* from the end; what is handed out is wiped */
            n = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
            if (n > N->Fill)
                n = N->Fill;
            N->Fill -= n;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, N->Pool + N->Fill, n);
            RtlZeroMemory(N->Pool + N->Fill, n);
        }
        KeReleaseSpinLockFromDpcLevel(&N->PoolLock);
        if (!irp)
            break;
        KitComplete(&N->Kit, irp, STATUS_SUCCESS, n);
    }
    KitUngate(&N->Kit);
}

static NTSTATUS NbHandle(PKIT K, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    if (sp->MajorFunction != IRP_MJ_READ) {
        KitFinish(K, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    if (sp->Parameters.Read.Length == 0) {
        KitFinish(K, Irp, STATUS_SUCCESS, 0);
        return STATUS_SUCCESS;
    }
    return KitPark(K, Irp, &((PNOISE)K)->Csq);
}
static VOID NbPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&((PNOISE)K)->Csq, File)))
        KitComplete(K, irp, Status, 0);
}

static VOID NbUp(PKIT K)
{
    PNOISE N = (PNOISE)K;
    LARGE_INTEGER due;
    WRITE_REGISTER_ULONG((PULONG)&N->Regs[R_CTRL], 1);
    due.QuadPart = -100000;
    KeSetTimerEx(&N->Timer, due, 10, &N->Dpc);
}
static VOID NbDown(PKIT K, BOOLEAN Present)
{
    PNOISE N = (PNOISE)K;
#ifdef FIXED
    KeCancelTimer(&N->Timer);
    KeFlushQueuedDpcs();
    if (Present)
        WRITE_REGISTER_ULONG((PULONG)&N->Regs[R_CTRL], 0);
#else
    if (Present) {
        KeCancelTimer(&N->Timer);
        KeFlushQueuedDpcs();
        WRITE_REGISTER_ULONG((PULONG)&N->Regs[R_CTRL], 0);
    }
#endif
}
static VOID NbRelease(PKIT K)
{
    PNOISE N = (PNOISE)K;
    if (N->Regs) {
        MmUnmapIoSpace((PVOID)N->Regs, REGS_LEN);
        N->Regs = NULL;
    }
}
static NTSTATUS NbStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PNOISE N = (PNOISE)K;
    ULONG i;
    for (i = 0; i < Res->Count; i++)
        if (Res->PartialDescriptors[i].Type == CmResourceTypeMemory)
            break;
    if (i == Res->Count || Res->PartialDescriptors[i].u.Memory.Length < REGS_LEN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    N->Regs = MmMapIoSpace(Res->PartialDescriptors[i].u.Memory.Start, REGS_LEN, MmNonCached);
    if (!N->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    return READ_REGISTER_ULONG(&N->Regs[R_IDENT]) == IDENT ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
}

static const KIT_OPS CardOps = { NbStart, NbUp, NbDown, NbRelease, NbHandle, NbPurge };

static NTSTATUS NTAPI NbAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    PNOISE N;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(NOISE), &GUID_NOISEBOX, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    N = (PNOISE)K;
    KeInitializeTimerEx(&N->Timer, NotificationTimer);
    KeInitializeDpc(&N->Dpc, NbTick, N);
    KeInitializeSpinLock(&N->QueueLock);
    KeInitializeSpinLock(&N->PoolLock);
    InitializeListHead(&N->Readers);
    st = IoCsqInitialize(&N->Csq, NbInsert, NbRemove, NbPeek, NbLock, NbUnlock, NbCanceled);
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
    KitEntry(Drv, NbAdd);
    Drv->MajorFunction[IRP_MJ_READ] = KitIo;
    return STATUS_SUCCESS;
}
