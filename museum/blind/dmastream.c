/*
 * Streams data to and from a card's memory by its two bus masters: writes go through the first, reads through the second,
 * each with a queue of its own, and both work at the same time.
 *
 * The bug: the interrupt routine hands the causes to the DPC as the argument of IoRequestDpc, which is dropped when the DPC is queued already, so of two transfers that end one shortly after the other the second is never completed (or only by the watchdog, as failed).
 * Shows by: a read and a write are in progress together, and the second one's interrupt comes between the first one's and its DPC.
 *
 * Device: PCI\VEN_1234&DEV_BE2C
 * Rule: request-timed-out
 * Needs: ioctl, schedule, device
 */
#include "../include/pci_kit.h"

#define DMA_TAG             'amDS'
#define DMA_CHANNELS        2
#define DMA_WRITES          0
#define DMA_READS           1
#define DMA_SOURCE(n)       ((n) + 1)               /* the interrupt source of a channel's end */
#define DMA_SOURCES         0x6u
#define DMA_MEMORY          0x10000u
#define DMA_PIECES          256
#define DMA_LIST_BYTES      (DMA_PIECES * sizeof(PIECE))
#define DMA_MAX_LENGTH      0x10000u
#define DMA_WATCHDOG_MS     500

#define IOCTL_DMA_STATS     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DMA_FLUSH     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* {0A9F3D61-7E14-4C86-B7C5-52D7B9E0F301} */
static const GUID DmaInterface = { 0x0a9f3d61, 0x7e14, 0x4c86, { 0xb7, 0xc5, 0x52, 0xd7, 0xb9, 0xe0, 0xf3, 0x01 } };

typedef struct _PIECE { ULONGLONG Address; ULONG Length; ULONG Flags; } PIECE;
typedef struct _DMA_STATS { ULONG Done[DMA_CHANNELS]; ULONG Failed[DMA_CHANNELS]; ULONG Queued[DMA_CHANNELS]; ULONG Bytes[DMA_CHANNELS]; } DMA_STATS;

struct _DMA;

typedef struct _CHANNEL {
    struct _DMA *Dma;
    ULONG Index;
    LIST_ENTRY Queue;
    ULONG Queued;
    PIRP Active;                        /* mapped, or being mapped */
    PSCATTER_GATHER_LIST Sg;            /* of the active request, once it is mapped */
    BOOLEAN Running;                    /* the card has it */
    PIECE *List;                        /* in memory that the card sees */
    PHYSICAL_ADDRESS ListAddress;
    KTIMER Timer;
    KDPC TimerDpc;
    ULONGLONG TimerEnd;
    ULONG Done, Failed, Bytes;
} CHANNEL, *PCHANNEL;

typedef struct _DMA {
    FDO_KIT Kit;
    PCI_HW Hw;
    PDMA_ADAPTER Adapter;
    KSPIN_LOCK Lock;                    /* guards channels and, but for the interrupt's status, the card */
    BOOLEAN Online;
    BOOLEAN Gone;
    CHANNEL Channels[DMA_CHANNELS];
    ULONG Causes;                       /* under the interrupt's lock */
} DMA, *PDMA;

typedef struct _SYNC { PDMA Dma; ULONG Value; } SYNC;

static VOID DmaStartNext(PCHANNEL Channel);

/* At the interrupt's level */

static BOOLEAN NTAPI DmaInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    PDMA dma = Context;
    ULONG status;
    UNREFERENCED_PARAMETER(Interrupt);

    if (!dma->Hw.Live) return FALSE;
    status = HwRead(&dma->Hw, BENCH_STATUS);
    if (status == ~0u || !(status & DMA_SOURCES)) return FALSE;
    HwWrite(&dma->Hw, BENCH_STATUS, status & DMA_SOURCES);
#ifdef FIXED
    dma->Causes |= status & DMA_SOURCES;
    IoRequestDpc(dma->Kit.Self, NULL, NULL);
#else
    dma->Causes = status & DMA_SOURCES;
    IoRequestDpc(dma->Kit.Self, NULL, (PVOID)(ULONG_PTR)dma->Causes);
#endif
    return TRUE;
}

#ifdef FIXED
static BOOLEAN NTAPI DmaTakeCauses(PVOID Context)
{
    SYNC *sync = Context;
    sync->Value = sync->Dma->Causes;
    sync->Dma->Causes = 0;
    return TRUE;
}
#endif

/* A channel's transfers */

static ULONG DmaOffset(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    return (ULONG)(sp->MajorFunction == IRP_MJ_READ ? sp->Parameters.Read.ByteOffset.QuadPart : sp->Parameters.Write.ByteOffset.QuadPart);
}

static ULONG DmaLength(PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    return sp->MajorFunction == IRP_MJ_READ ? sp->Parameters.Read.Length : sp->Parameters.Write.Length;
}

/* With Lock held: the card begins the active request, which is mapped. */
static VOID DmaRun(PCHANNEL Channel)
{
    PDMA dma = Channel->Dma;
    ULONG base = BENCH_DMA(Channel->Index), i;
    LARGE_INTEGER due;

    for (i = 0; i < Channel->Sg->NumberOfElements; i++) {
        Channel->List[i].Address = Channel->Sg->Elements[i].Address.QuadPart;
        Channel->List[i].Length = Channel->Sg->Elements[i].Length;
        Channel->List[i].Flags = i + 1 == Channel->Sg->NumberOfElements;
    }
    HwWrite(&dma->Hw, base + BENCH_DMA_STATUS, BENCH_DMA_DONE | BENCH_DMA_FAILED);
    HwWrite(&dma->Hw, base + BENCH_DMA_LOW, Channel->ListAddress.LowPart);
    HwWrite(&dma->Hw, base + BENCH_DMA_HIGH, Channel->ListAddress.HighPart);
    HwWrite(&dma->Hw, base + BENCH_DMA_LENGTH, DmaLength(Channel->Active));
    HwWrite(&dma->Hw, base + BENCH_DMA_OFFSET, DmaOffset(Channel->Active));
    HwWrite(&dma->Hw, base + BENCH_DMA_COMMAND, BENCH_DMA_START | BENCH_DMA_LIST | BENCH_DMA_RAISE(DMA_SOURCE(Channel->Index))
            | (Channel->Index == DMA_READS ? BENCH_DMA_TO_MEMORY : 0));
    Channel->Running = TRUE;
    due.QuadPart = -(LONGLONG)DMA_WATCHDOG_MS * 10000;
    Channel->TimerEnd = KeQueryInterruptTime() - due.QuadPart;
    KeSetTimer(&Channel->Timer, due, &Channel->TimerDpc);
}

static VOID DmaFinish(PDMA Dma, PIRP Irp, NTSTATUS Status, ULONG Bytes)
{
    KitComplete(Irp, Status, Bytes);
    IoReleaseRemoveLock(&Dma->Kit.RemoveLock, Irp);
}

/* Takes the active request from its channel, with Lock held; then, without it, DmaRelease unmaps and completes it. */
static PIRP DmaTakeActive(PCHANNEL Channel, PSCATTER_GATHER_LIST *Sg)
{
    PIRP irp = Channel->Active;
    *Sg = Channel->Sg;
    Channel->Active = NULL;
    Channel->Sg = NULL;
    Channel->Running = FALSE;
    KeCancelTimer(&Channel->Timer);
    return irp;
}

/* At DISPATCH_LEVEL. */
static VOID DmaRelease(PCHANNEL Channel, PIRP Irp, PSCATTER_GATHER_LIST Sg, NTSTATUS Status)
{
    PDMA dma = Channel->Dma;
    ULONG bytes = NT_SUCCESS(Status) ? DmaLength(Irp) : 0;

    dma->Adapter->DmaOperations->PutScatterGatherList(dma->Adapter, Sg, Channel->Index == DMA_WRITES);
    DmaFinish(dma, Irp, Status, bytes);
}

/* The active request has its pieces. At DISPATCH_LEVEL. */
static VOID NTAPI DmaMapped(PDEVICE_OBJECT Device, PIRP Unused, PSCATTER_GATHER_LIST Sg, PVOID Context)
{
    PCHANNEL channel = Context;
    PDMA dma = channel->Dma;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP irp = NULL;
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Unused);

    KeAcquireSpinLockAtDpcLevel(&dma->Lock);
    channel->Sg = Sg;
    if (dma->Gone) status = STATUS_NO_SUCH_DEVICE;
    else if (Sg->NumberOfElements > DMA_PIECES) status = STATUS_INVALID_PARAMETER;
    else if (dma->Online) DmaRun(channel);                      /* else when the card is back in D0 */
    if (!NT_SUCCESS(status)) irp = DmaTakeActive(channel, &Sg);
    KeReleaseSpinLockFromDpcLevel(&dma->Lock);
    if (irp) {
        DmaRelease(channel, irp, Sg, status);
        DmaStartNext(channel);
    }
}

/* Begins the queue's next request if the channel is free. */
static VOID DmaStartNext(PCHANNEL Channel)
{
    PDMA dma = Channel->Dma;
    KIRQL irql;

    for (;;) {
        NTSTATUS status;
        PIRP irp = NULL;

        KeAcquireSpinLock(&dma->Lock, &irql);
        while (!Channel->Active && dma->Online && !IsListEmpty(&Channel->Queue)) {
            PLIST_ENTRY e = RemoveHeadList(&Channel->Queue);
            irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
            InitializeListHead(e);
            Channel->Queued--;
            if (IoSetCancelRoutine(irp, NULL)) {
                Channel->Active = irp;
                break;
            }
            irp = NULL;
        }
        KeReleaseSpinLock(&dma->Lock, irql);
        if (!irp) return;

        KeRaiseIrql(DISPATCH_LEVEL, &irql);
        status = dma->Adapter->DmaOperations->GetScatterGatherList(dma->Adapter, dma->Kit.Self, irp->MdlAddress,
                     MmGetMdlVirtualAddress(irp->MdlAddress), DmaLength(irp), DmaMapped, Channel, Channel->Index == DMA_WRITES);
        KeLowerIrql(irql);
        if (NT_SUCCESS(status)) return;

        KeAcquireSpinLock(&dma->Lock, &irql);
        Channel->Active = NULL;
        Channel->Failed++;
        KeReleaseSpinLock(&dma->Lock, irql);
        DmaFinish(dma, irp, status, 0);
    }
}

/* A channel's transfer may be over. At DISPATCH_LEVEL. */
static VOID DmaEnded(PCHANNEL Channel, BOOLEAN Late)
{
    PDMA dma = Channel->Dma;
    PSCATTER_GATHER_LIST sg = NULL;
    NTSTATUS result = STATUS_SUCCESS;
    PIRP irp = NULL;

    KeAcquireSpinLockAtDpcLevel(&dma->Lock);
    if (dma->Online && Channel->Running && (!Late || KeQueryInterruptTime() >= Channel->TimerEnd)) {
        ULONG status = HwRead(&dma->Hw, BENCH_DMA(Channel->Index) + BENCH_DMA_STATUS);
        if (status != ~0u && (status & (BENCH_DMA_DONE | BENCH_DMA_FAILED))) {
            if (status & BENCH_DMA_FAILED) result = STATUS_IO_DEVICE_ERROR;
            else if (Late) result = STATUS_IO_TIMEOUT;              /* it did not say so: its data is not to be trusted */
            irp = DmaTakeActive(Channel, &sg);
            if (NT_SUCCESS(result)) {
                Channel->Done++;
                Channel->Bytes += DmaLength(irp);
            } else Channel->Failed++;
        } else if (Late) {
            LARGE_INTEGER due;
            due.QuadPart = -(LONGLONG)DMA_WATCHDOG_MS * 10000;
            Channel->TimerEnd = KeQueryInterruptTime() - due.QuadPart;
            KeSetTimer(&Channel->Timer, due, &Channel->TimerDpc);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&dma->Lock);
    if (!irp) return;
    DmaRelease(Channel, irp, sg, result);
    DmaStartNext(Channel);
}

static VOID NTAPI DmaWatchdog(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    DmaEnded(Context, TRUE);
}

static VOID NTAPI DmaDpc(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDMA dma = Device->DeviceExtension;
    SYNC sync = { dma, (ULONG)(ULONG_PTR)Context };
    ULONG i;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Irp);

#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&dma->Lock);
    if (dma->Online) KeSynchronizeExecution(dma->Hw.Interrupt, DmaTakeCauses, &sync);
    KeReleaseSpinLockFromDpcLevel(&dma->Lock);
#endif
    for (i = 0; i < DMA_CHANNELS; i++)
        if (sync.Value & (1u << DMA_SOURCE(i))) DmaEnded(&dma->Channels[i], FALSE);
}

/* Requests */

static VOID NTAPI DmaCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDMA dma = Device->DeviceExtension;
    PCHANNEL channel = &dma->Channels[IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_READ ? DMA_READS : DMA_WRITES];
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&dma->Lock, &irql);
    if (!IsListEmpty(&Irp->Tail.Overlay.ListEntry)) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        channel->Queued--;
    }
    KeReleaseSpinLock(&dma->Lock, irql);
    DmaFinish(dma, Irp, STATUS_CANCELLED, 0);
}

/* Ends requests in the queues: a file's, or all. */
static VOID DmaEndQueued(PDMA Dma, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY done, *e, *next;
    KIRQL irql;
    ULONG i;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Dma->Lock, &irql);
    for (i = 0; i < DMA_CHANNELS; i++)
        for (e = Dma->Channels[i].Queue.Flink; e != &Dma->Channels[i].Queue; e = next) {
            PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
            next = e->Flink;
            if ((File && IoGetCurrentIrpStackLocation(irp)->FileObject != File) || !IoSetCancelRoutine(irp, NULL)) continue;
            RemoveEntryList(e);
            Dma->Channels[i].Queued--;
            InsertTailList(&done, e);
        }
    KeReleaseSpinLock(&Dma->Lock, irql);
    while (!IsListEmpty(&done)) DmaFinish(Dma, CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry), Status, 0);
}

static NTSTATUS DmaQueue(PDMA Dma, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PCHANNEL channel = &Dma->Channels[Sp->MajorFunction == IRP_MJ_READ ? DMA_READS : DMA_WRITES];
    LONGLONG offset = Sp->MajorFunction == IRP_MJ_READ ? Sp->Parameters.Read.ByteOffset.QuadPart : Sp->Parameters.Write.ByteOffset.QuadPart;
    ULONG length = DmaLength(Irp);
    KIRQL irql;

    if (length == 0) return STATUS_SUCCESS;
    if (offset < 0 || offset >= DMA_MEMORY || length > DMA_MEMORY - (ULONG)offset || length > DMA_MAX_LENGTH) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Dma->Lock, &irql);
    if (Dma->Gone) {
        KeReleaseSpinLock(&Dma->Lock, irql);
        return STATUS_NO_SUCH_DEVICE;
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&channel->Queue, &Irp->Tail.Overlay.ListEntry);
    channel->Queued++;
    IoSetCancelRoutine(Irp, DmaCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        channel->Queued--;
        KeReleaseSpinLock(&Dma->Lock, irql);
        DmaFinish(Dma, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&Dma->Lock, irql);
    DmaStartNext(channel);
    return STATUS_PENDING;
}

static VOID DmaStats(PDMA Dma, DMA_STATS *Stats)
{
    KIRQL irql;
    ULONG i;

    KeAcquireSpinLock(&Dma->Lock, &irql);
    for (i = 0; i < DMA_CHANNELS; i++) {
        Stats->Done[i] = Dma->Channels[i].Done;
        Stats->Failed[i] = Dma->Channels[i].Failed;
        Stats->Queued[i] = Dma->Channels[i].Queued;
        Stats->Bytes[i] = Dma->Channels[i].Bytes;
    }
    KeReleaseSpinLock(&Dma->Lock, irql);
}

static NTSTATUS NTAPI DmaRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDMA dma = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG information = 0;
    NTSTATUS status = KitEnter(&dma->Kit, Irp);

    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL) {
        status = DmaQueue(dma, Irp, sp);
        if (status == STATUS_PENDING) return status;
    } else switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DMA_STATS:
        status = STATUS_BUFFER_TOO_SMALL;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(DMA_STATS)) break;
        DmaStats(dma, Irp->AssociatedIrp.SystemBuffer);
        information = sizeof(DMA_STATS);
        status = STATUS_SUCCESS;
        break;
    case IOCTL_DMA_FLUSH:
        DmaEndQueued(dma, sp->FileObject, STATUS_CANCELLED);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&dma->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI DmaFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDMA dma = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;

    if (sp->MajorFunction == IRP_MJ_CREATE) status = KitOpen(&dma->Kit);
    else if (sp->MajorFunction == IRP_MJ_CLEANUP) DmaEndQueued(dma, sp->FileObject, STATUS_CANCELLED);
    else KitClosed(&dma->Kit);
    return KitComplete(Irp, status, 0);
}

/* The device */

static VOID DmaFreeLists(PDMA Dma)
{
    ULONG i;

    if (!Dma->Adapter) return;
    for (i = 0; i < DMA_CHANNELS; i++) {
        PCHANNEL c = &Dma->Channels[i];
        if (c->List) Dma->Adapter->DmaOperations->FreeCommonBuffer(Dma->Adapter, DMA_LIST_BYTES, c->ListAddress, c->List, FALSE);
        c->List = NULL;
    }
    Dma->Adapter->DmaOperations->PutDmaAdapter(Dma->Adapter);
    Dma->Adapter = NULL;
}

static NTSTATUS DmaMakeLists(PDMA Dma)
{
    DEVICE_DESCRIPTION description;
    ULONG registers, i;

    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = DMA_MAX_LENGTH + PAGE_SIZE;
    Dma->Adapter = IoGetDmaAdapter(Dma->Kit.Pdo, &description, &registers);
    if (!Dma->Adapter) return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < DMA_CHANNELS; i++) {
        PCHANNEL c = &Dma->Channels[i];
        c->List = Dma->Adapter->DmaOperations->AllocateCommonBuffer(Dma->Adapter, DMA_LIST_BYTES, &c->ListAddress, FALSE);
        if (!c->List) {
            DmaFreeLists(Dma);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    return STATUS_SUCCESS;
}

/* The card is in D0: what was in progress when it left begins anew. */
static VOID DmaPowerUp(PVOID Ext)
{
    PDMA dma = Ext;
    KIRQL irql;
    ULONG i;

    HwSetLive(&dma->Hw, TRUE);
    KeAcquireSpinLock(&dma->Lock, &irql);
    dma->Online = TRUE;
    HwWrite(&dma->Hw, BENCH_ENABLE, DMA_SOURCES);
    for (i = 0; i < DMA_CHANNELS; i++) if (dma->Channels[i].Sg) DmaRun(&dma->Channels[i]);
    KeReleaseSpinLock(&dma->Lock, irql);
    for (i = 0; i < DMA_CHANNELS; i++) DmaStartNext(&dma->Channels[i]);
}

static VOID DmaOffline(PDMA Dma, BOOLEAN Gone)
{
    KIRQL irql;
    ULONG i;

    KeAcquireSpinLock(&Dma->Lock, &irql);
    if (Dma->Online && !Gone) {
        HwWrite(&Dma->Hw, BENCH_ENABLE, 0);
        HwRead(&Dma->Hw, BENCH_ENABLE);
    }
    Dma->Online = FALSE;
    for (i = 0; i < DMA_CHANNELS; i++) {
        Dma->Channels[i].Running = FALSE;
        KeCancelTimer(&Dma->Channels[i].Timer);
    }
    KeReleaseSpinLock(&Dma->Lock, irql);
    if (Dma->Hw.Interrupt) HwSetLive(&Dma->Hw, FALSE);
}

/* Transfers in progress get a second to end. */
static VOID DmaPowerDown(PVOID Ext)
{
    PDMA dma = Ext;
    LARGE_INTEGER pause;
    ULONG tries, i;
    KIRQL irql;

    pause.QuadPart = -10 * 10000;
    for (tries = 0; tries < 100; tries++) {
        BOOLEAN busy = FALSE;
        KeAcquireSpinLock(&dma->Lock, &irql);
        for (i = 0; i < DMA_CHANNELS; i++) if (dma->Channels[i].Running) busy = TRUE;
        KeReleaseSpinLock(&dma->Lock, irql);
        if (!busy) break;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    DmaOffline(dma, FALSE);
}

static NTSTATUS DmaStart(PVOID Ext, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PDMA dma = Ext;
    NTSTATUS status = DmaMakeLists(dma);
    UNREFERENCED_PARAMETER(Raw);

    if (!NT_SUCCESS(status)) return status;
    status = HwAcquire(&dma->Hw, Translated, BENCH_WINDOW, DmaInterrupt, dma);
    if (!NT_SUCCESS(status)) {
        DmaFreeLists(dma);
        return status;
    }
    HwWrite(&dma->Hw, BENCH_STATUS, DMA_SOURCES);
    DmaPowerUp(dma);
    return STATUS_SUCCESS;
}

/* What the card had when it was pulled out is over. */
static VOID DmaStop(PVOID Ext, BOOLEAN Gone)
{
    PDMA dma = Ext;
    KIRQL irql;
    ULONG i;

    DmaOffline(dma, Gone);
    HwDisconnect(&dma->Hw);
    for (i = 0; i < DMA_CHANNELS; i++) {
        PSCATTER_GATHER_LIST sg = NULL;
        PIRP irp = NULL;
        KeAcquireSpinLock(&dma->Lock, &irql);
        if (dma->Channels[i].Sg) irp = DmaTakeActive(&dma->Channels[i], &sg);
        KeReleaseSpinLock(&dma->Lock, irql);
        if (!irp) continue;
        KeRaiseIrql(DISPATCH_LEVEL, &irql);
        DmaRelease(&dma->Channels[i], irp, sg, STATUS_NO_SUCH_DEVICE);
        KeLowerIrql(irql);
    }
    HwUnmap(&dma->Hw);
    if (!Gone) DmaFreeLists(dma);
}

static VOID DmaFlush(PVOID Ext)
{
    PDMA dma = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&dma->Lock, &irql);
    dma->Gone = TRUE;
    KeReleaseSpinLock(&dma->Lock, irql);
    DmaEndQueued(dma, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID DmaDelete(PVOID Ext) { DmaFreeLists(Ext); }

static const FDO_HOOKS DmaHooks = { DmaStart, DmaStop, DmaFlush, DmaPowerUp, DmaPowerDown, DmaDelete };

static NTSTATUS NTAPI DmaAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO_KIT kit;
    PDMA dma;
    ULONG i;
    NTSTATUS status = KitAdd(Driver, Pdo, sizeof(DMA), &DmaInterface, &DmaHooks, DMA_TAG, &kit);

    if (!NT_SUCCESS(status)) return status;
    dma = (PDMA)kit;
    KeInitializeSpinLock(&dma->Lock);
    for (i = 0; i < DMA_CHANNELS; i++) {
        PCHANNEL c = &dma->Channels[i];
        c->Dma = dma;
        c->Index = i;
        InitializeListHead(&c->Queue);
        KeInitializeTimer(&c->Timer);
        KeInitializeDpc(&c->TimerDpc, DmaWatchdog, c);
    }
    IoInitializeDpcRequest(kit->Self, DmaDpc);
    kit->Self->Flags |= DO_DIRECT_IO;
    kit->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DmaUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = DmaAddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = DmaFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DmaFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DmaFile;
    Driver->MajorFunction[IRP_MJ_READ] = DmaRequest;
    Driver->MajorFunction[IRP_MJ_WRITE] = DmaRequest;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DmaRequest;
    Driver->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = KitPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitSystemControl;
    Driver->DriverUnload = DmaUnload;
    return STATUS_SUCCESS;
}
