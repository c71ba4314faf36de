/*
 * skerry: scratch pad on the edu card's 4 KiB buffer. IOCTL_SKERRY_STORE puts bytes on the card, IOCTL_SKERRY_FETCH
 * gets bytes from it; each handle has a page of its own that the card's DMA works on, one transfer at a time.
 *
 * The bug: a transfer that was cancelled goes on in the card, but the close of its handle frees the handle's page at
 * once, so the card reads or writes memory that belongs to others by then.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap
 * Needs: ioctl, cancel, device
 */
#include <ddk/wdm.h>
#include "../include/sable_wdm.h"

static const GUID SkerryGuid = {0x6c1e51a4, 0x2f0b, 0x4b61, {0x9d, 0x11, 0x3a, 0x70, 0x5e, 0x21, 0x84, 0x01}};

#define IOCTL_SKERRY_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SKERRY_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    ULONG Offset;   /* in the card's buffer */
    ULONG Length;   /* bytes; STORE: they follow this header */
} SKERRY_AREA;

#define R_ID      0x00
#define R_STATUS  0x20
#define R_IRQ     0x24
#define R_ACK     0x64
#define R_SRC     0x80
#define R_DST     0x88
#define R_COUNT   0x90
#define R_COMMAND 0x98
#define CMD_START 1
#define CMD_TO_MEMORY 2
#define CMD_IRQ   4
#define IRQ_DMA   0x100
#define CARD_BUFFER 0x40000
#define PAD_SIZE  4096
#define BUS_LIMIT 0x10000000
#define MAP_SIZE  0x1000
#define MAX_HANDLES 32

typedef struct {
    PUCHAR Page;
    PHYSICAL_ADDRESS Bus;
} SESSION, *PSESSION;

typedef struct {
    SABLE S;
    PUCHAR Regs;
    PDMA_ADAPTER Dma;       /* from the first start to the removal */
    LIST_ENTRY Queue;
    LIST_ENTRY Active;      /* none or one request: the card works for it */
    BOOLEAN Busy;           /* the card works, though its request may have been cancelled */
    BOOLEAN Hold;           /* begin no transfer: sleep */
    BOOLEAN Stopping;       /* begin no transfer: stop */
    BOOLEAN Leaked;
    PSESSION Owner;         /* whose page the card works on */
    LONG Handles;
    volatile LONG Events;
    KDPC Dpc;
} EXT, *PEXT;

static ULONG Rd(PEXT E, ULONG Reg)
{
    return READ_REGISTER_ULONG((PULONG)(E->Regs + Reg));
}

static VOID Wr(PEXT E, ULONG Reg, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(E->Regs + Reg), Value);
}

static BOOLEAN IsFetch(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_SKERRY_FETCH;
}

/* Lock held: begin the next transfer if the card is free. The request can still be cancelled. */
static VOID SkerryNext(PEXT E)
{
    PLIST_ENTRY e;
    PIRP irp;
    SKERRY_AREA *area;
    PSESSION session;
    BOOLEAN fetch;

    if (E->Busy || E->Hold || E->Stopping || !SableLive(&E->S) || IsListEmpty(&E->Queue))
        return;
    e = RemoveHeadList(&E->Queue);
    InsertTailList(&E->Active, e);
    irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
    session = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;
    area = irp->AssociatedIrp.SystemBuffer;
    fetch = IsFetch(irp);
    if (!fetch)
        RtlCopyMemory(session->Page, area + 1, area->Length);
    E->Busy = TRUE;
    E->Owner = session;
    Wr(E, R_SRC, fetch ? CARD_BUFFER + area->Offset : session->Bus.LowPart);
    Wr(E, R_DST, fetch ? session->Bus.LowPart : CARD_BUFFER + area->Offset);
    Wr(E, R_COUNT, area->Length);
    Wr(E, R_COMMAND, CMD_START | CMD_IRQ | (fetch ? CMD_TO_MEMORY : 0));
}

static BOOLEAN NTAPI SkerryIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT E = Context;
    ULONG st;

    (void)Interrupt;
    if (!E->S.IsrOn)
        return FALSE;
    st = Rd(E, R_IRQ);
    if (st == 0 || st == SABLE_ONES)
        return FALSE;
    Wr(E, R_ACK, st);
    InterlockedOr(&E->Events, (LONG)st);
    KeInsertQueueDpc(&E->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI SkerryDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PEXT E = Context;
    LONG ev = InterlockedExchange(&E->Events, 0);
    PIRP irp = NULL;
    ULONG_PTR info = 0;

    (void)Dpc;
    (void)A1;
    (void)A2;
    if (!(ev & IRQ_DMA))
        return;
    KeAcquireSpinLockAtDpcLevel(&E->S.Lock);
    if (E->Busy) {
        E->Busy = FALSE;
        E->Owner = NULL;
        irp = SableTake(&E->Active, NULL);
        if (irp && IsFetch(irp)) {
            PSESSION session = IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext;

            info = ((SKERRY_AREA *)irp->AssociatedIrp.SystemBuffer)->Length;
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, session->Page, info);
        }
        SkerryNext(E);
    }
    KeReleaseSpinLockFromDpcLevel(&E->S.Lock);
    if (irp)
        SableFinish(&E->S, irp, STATUS_SUCCESS, info);
}

/*
 * PASSIVE_LEVEL: wait until the card does not work, or not on that session's page. A transfer cannot be stopped.
 * FALSE: the card is stuck, it may come to its end at any later time.
 */
static BOOLEAN SkerryIdle(PEXT E, PSESSION Session)
{
    LARGE_INTEGER pause;
    ULONG n;

    pause.QuadPart = -10 * 10000;
    for (n = 0; n < 1000; n++) {
        BOOLEAN busy;
        KIRQL q;

        KeAcquireSpinLock(&E->S.Lock, &q);
        busy = E->Busy && !E->S.Asleep && (!Session || E->Owner == Session);
        if (busy && E->Regs && Rd(E, R_ID) == SABLE_ONES) {
            E->Owner = NULL;        /* pulled out: nothing comes any more */
            busy = FALSE;
        }
        KeReleaseSpinLock(&E->S.Lock, q);
        if (!busy)
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    return FALSE;
}

static NTSTATUS SkerryOpen(PEXT E, PFILE_OBJECT File)
{
    PSESSION session;
    BOOLEAN ready;
    KIRQL q;

    File->FsContext = NULL;
    KeAcquireSpinLock(&E->S.Lock, &q);
    ready = E->S.Started && !E->S.Gone;
    KeReleaseSpinLock(&E->S.Lock, q);
    if (!ready)
        return STATUS_DEVICE_NOT_READY;
    if (InterlockedIncrement(&E->Handles) > MAX_HANDLES) {
        InterlockedDecrement(&E->Handles);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    session = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *session, SABLE_TAG);
    if (session) {
        session->Page = E->Dma->DmaOperations->AllocateCommonBuffer(E->Dma, PAD_SIZE, &session->Bus, FALSE);
        if (session->Page && session->Bus.QuadPart + PAD_SIZE > BUS_LIMIT) {
            E->Dma->DmaOperations->FreeCommonBuffer(E->Dma, PAD_SIZE, session->Bus, session->Page, FALSE);
            session->Page = NULL;
        }
        if (session->Page) {
            RtlZeroMemory(session->Page, PAD_SIZE);
            File->FsContext = session;
            return STATUS_SUCCESS;
        }
        ExFreePoolWithTag(session, SABLE_TAG);
    }
    InterlockedDecrement(&E->Handles);
    return STATUS_INSUFFICIENT_RESOURCES;
}

static VOID SkerryClose(PEXT E, PSESSION Session)
{
    BOOLEAN idle = TRUE;

#ifdef FIXED
    idle = SkerryIdle(E, Session);
#endif
    if (idle)
        E->Dma->DmaOperations->FreeCommonBuffer(E->Dma, PAD_SIZE, Session->Bus, Session->Page, FALSE);
    else
        E->Leaked = TRUE;       /* a page is rather lost than written to when it is used otherwise */
    ExFreePoolWithTag(Session, SABLE_TAG);
    InterlockedDecrement(&E->Handles);
}

static NTSTATUS NTAPI SkerryFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, s->MajorFunction == IRP_MJ_CREATE ? status : STATUS_SUCCESS);
    switch (s->MajorFunction) {
    case IRP_MJ_CREATE:
        status = SkerryOpen(E, s->FileObject);
        break;
    case IRP_MJ_CLEANUP:
        SableFlush(&E->S, &E->Queue, s->FileObject, STATUS_CANCELLED);
        SableFlush(&E->S, &E->Active, s->FileObject, STATUS_CANCELLED);
        break;
    default:
        SkerryClose(E, s->FileObject->FsContext);
        break;
    }
    return SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS NTAPI SkerryControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode;
    SKERRY_AREA *area = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    if (code != IOCTL_SKERRY_STORE && code != IOCTL_SKERRY_FETCH)
        return SableFinish(&E->S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (in < sizeof *area)
        return SableFinish(&E->S, Irp, STATUS_INVALID_PARAMETER, 0);
    if (area->Offset >= PAD_SIZE || area->Length == 0 || area->Length > PAD_SIZE - area->Offset)
        return SableFinish(&E->S, Irp, STATUS_INVALID_PARAMETER, 0);
    if (code == IOCTL_SKERRY_STORE ? in - sizeof *area < area->Length : out < area->Length)
        return SableFinish(&E->S, Irp, STATUS_BUFFER_TOO_SMALL, 0);

    KeAcquireSpinLock(&E->S.Lock, &q);
    status = E->S.Started && !E->S.Gone ? SableQueue(&E->Queue, Irp) : STATUS_DEVICE_NOT_READY;
    if (status == STATUS_PENDING)
        SkerryNext(E);
    KeReleaseSpinLock(&E->S.Lock, q);
    return status == STATUS_PENDING ? status : SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS CardStart(PSABLE C, PSABLE_RES R)
{
    PEXT E = (PEXT)C;
    PUCHAR regs;
    ULONG id, left;
    NTSTATUS status;
    KIRQL q;

    if (R->MemCount < 1 || R->MemLen[0] < MAP_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!E->Dma) {
        DEVICE_DESCRIPTION desc;
        ULONG map;

        RtlZeroMemory(&desc, sizeof desc);
        desc.Version = DEVICE_DESCRIPTION_VERSION;
        desc.Master = TRUE;
        desc.ScatterGather = TRUE;
        desc.Dma32BitAddresses = FALSE;     /* so that common buffers lie in low memory */
        desc.InterfaceType = PCIBus;
        desc.MaximumLength = PAD_SIZE;
        E->Dma = IoGetDmaAdapter(C->Pdo, &desc, &map);
        if (!E->Dma)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    regs = MmMapIoSpace(R->Mem[0], MAP_SIZE, MmNonCached);
    if (!regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&C->Lock, &q);
    E->Regs = regs;
    KeReleaseSpinLock(&C->Lock, q);
    id = Rd(E, R_ID);
    if ((id & 0xFFFF) != 0xED)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Wr(E, R_STATUS, 0);
    left = Rd(E, R_IRQ);
    Wr(E, R_ACK, left);
    if (left & IRQ_DMA) {           /* a transfer from before the stop came to its end meanwhile */
        KeAcquireSpinLock(&C->Lock, &q);
        E->Busy = FALSE;
        E->Owner = NULL;
        KeReleaseSpinLock(&C->Lock, q);
    }
    status = SableConnect(C, R, SkerryIsr);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&C->Lock, &q);
    E->Hold = FALSE;
    E->Stopping = FALSE;
    C->Started = TRUE;
    SableSync(C, SableIsrOn, C);
    KeReleaseSpinLock(&C->Lock, q);
    return STATUS_SUCCESS;
}

static VOID CardStop(PSABLE C)
{
    PEXT E = (PEXT)C;
    BOOLEAN idle;
    PUCHAR regs;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    E->Stopping = TRUE;
    KeReleaseSpinLock(&C->Lock, q);
    idle = SkerryIdle(E, NULL);
    SableDown(C);
    KeAcquireSpinLock(&C->Lock, &q);
    regs = E->Regs;
    E->Regs = NULL;
    if (idle) {
        E->Busy = FALSE;
        E->Owner = NULL;
    }
    KeReleaseSpinLock(&C->Lock, q);
    SableFlush(C, &E->Active, NULL, STATUS_DEVICE_NOT_READY);
    SableFlush(C, &E->Queue, NULL, STATUS_DEVICE_NOT_READY);
    if (regs)
        MmUnmapIoSpace(regs, MAP_SIZE);
}

/* The queue waits for the card to wake. */
static VOID CardSleep(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    E->Hold = TRUE;
    KeReleaseSpinLock(&C->Lock, q);
    SkerryIdle(E, NULL);
    KeAcquireSpinLock(&C->Lock, &q);
    C->Asleep = TRUE;
    E->Owner = NULL;
    SableSync(C, SableIsrOff, C);
    KeReleaseSpinLock(&C->Lock, q);
}

static VOID CardWake(PSABLE C)
{
    PEXT E = (PEXT)C;
    PIRP irp = NULL;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Asleep) {
        C->Asleep = FALSE;
        if (E->Busy) {              /* it was stuck when the power went */
            E->Busy = FALSE;
            irp = SableTake(&E->Active, NULL);
        }
        if (C->Started && !C->Gone) {
            E->Hold = FALSE;
            SableSync(C, SableIsrOn, C);
            Wr(E, R_STATUS, 0);
            SkerryNext(E);
        }
    }
    KeReleaseSpinLock(&C->Lock, q);
    if (irp)
        SableFinish(C, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID CardFree(PSABLE C)
{
    PEXT E = (PEXT)C;

    if (E->Dma && !E->Leaked)
        E->Dma->DmaOperations->PutDmaAdapter(E->Dma);
}

static NTSTATUS NTAPI SkerryAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PSABLE C;
    PEXT E;
    NTSTATUS status = SableAdd(Driver, Pdo, sizeof(EXT), &SkerryGuid, &C);

    if (!NT_SUCCESS(status))
        return status;
    E = (PEXT)C;
    InitializeListHead(&E->Queue);
    InitializeListHead(&E->Active);
    KeInitializeDpc(&E->Dpc, SkerryDpc, E);
    return SableAddEnd(C);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    SableEntry(Driver, SkerryAdd);
    Driver->MajorFunction[IRP_MJ_CREATE] = SkerryFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SkerryFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SkerryFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SkerryControl;
    return STATUS_SUCCESS;
}
