/*
 * Reads and writes the 4 KB buffer of QEMU's edu card by DMA through a common buffer, one request at a time. A request
 * whose handle is closed is completed at once; its transfer, which the card cannot break off, then ends for no request.
 *
 * The bug: on stop and removal the common buffer is freed without waiting for a transfer that the card is still at.
 * Shows by: a handle is closed with a read in the card, and the device is disabled within the 100 ms the transfer takes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap
 * Needs: ioctl, removal, device
 */
#include "../include/queue_card.h"

#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK    0x64
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT  0x90
#define EDU_DMA_CMD    0x98
#define EDU_DMA_RUN    0x01
#define EDU_DMA_TO_RAM 0x02
#define EDU_DMA_IRQ    0x04
#define EDU_LENGTH     0x100
#define EDU_BUFFER     0x40000
#define EDU_SIZE       4096

static const GUID DmaInterface = {0x94b1f3a6, 0x0c7e, 0x4a12, {0x9d, 0x3b, 0x5e, 0x72, 0x2f, 0x48, 0xc0, 0x66}};

/* DEVICE_DESCRIPTION of version 3 (Windows 8), which mingw does not have: the card drives 28 address lines. */
typedef struct _DESCRIPTION3 {
    DEVICE_DESCRIPTION Base;
    UCHAR DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

typedef struct _EXTENSION {
    CARD Card;
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS Logical;
    PIRP Current;   /* the request whose transfer the card is at; under Card.Lock, as are the next */
    BOOLEAN Busy;   /* a transfer has been started and not been seen to end */
    BOOLEAN Hold;   /* no new ones */
} EXTENSION;

static BOOLEAN IsRead(PIRP Irp)
{
    return (BOOLEAN)(IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_READ);
}

/* Offset and length of a read or write: both structures are the same. */
static ULONG OffsetOf(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.ByteOffset.LowPart;
}

static ULONG LengthOf(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
}

/* Card.Lock held, the card awake. */
static VOID Program(EXTENSION *Ext)
{
    PIRP irp = Ext->Current;
    BOOLEAN read = IsRead(irp);

    if (!read) {
        RtlCopyMemory(Ext->Buffer, irp->AssociatedIrp.SystemBuffer, LengthOf(irp));
    }
    Ext->Busy = TRUE;
    CardWrite(&Ext->Card, EDU_DMA_SOURCE, read ? EDU_BUFFER + OffsetOf(irp) : Ext->Logical.LowPart);
    CardWrite(&Ext->Card, EDU_DMA_TARGET, read ? Ext->Logical.LowPart : EDU_BUFFER + OffsetOf(irp));
    CardWrite(&Ext->Card, EDU_DMA_COUNT, LengthOf(irp));
    CardWrite(&Ext->Card, EDU_DMA_CMD, EDU_DMA_RUN | EDU_DMA_IRQ | (read ? EDU_DMA_TO_RAM : 0));
}

static VOID StartNext(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;
    KIRQL irql;

    KeAcquireSpinLock(&Card->Lock, &irql);
    if (Card->Awake && !ext->Hold && !ext->Busy) {
        ext->Current = IoCsqRemoveNextIrp(&Card->Queue.Csq, NULL);
        if (ext->Current != NULL) {
            Program(ext);
        }
    }
    KeReleaseSpinLock(&Card->Lock, irql);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    EXTENSION *ext = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!ext->Card.IntOn) {
        return FALSE;
    }
    bits = CardRead(&ext->Card, EDU_IRQ_STATUS);
    if (bits == 0 || bits == 0xFFFFFFFF) {
        return FALSE;
    }
    CardWrite(&ext->Card, EDU_IRQ_ACK, bits);
    KeInsertQueueDpc(&ext->Card.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC D, PVOID Context, PVOID A1, PVOID A2)
{
    EXTENSION *ext = Context;
    ULONG length = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    if (ext->Card.Awake && ext->Busy && (CardRead(&ext->Card, EDU_DMA_CMD) & EDU_DMA_RUN) == 0) {
        ext->Busy = FALSE;
        irp = ext->Current; /* NULL: it was given up */
        ext->Current = NULL;
        if (irp != NULL) {
            length = LengthOf(irp);
            if (IsRead(irp)) {
                RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, ext->Buffer, length);
            }
        }
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (irp != NULL) {
        KitFinish(&ext->Card.Kit, irp, STATUS_SUCCESS, length);
    }
    StartNext(&ext->Card);
}

static VOID TurnOn(CARD *Card)
{
    UNREFERENCED_PARAMETER(Card);
}

static VOID TurnOff(CARD *Card)
{
    ULONG bits = CardRead(Card, EDU_IRQ_STATUS);

    if (bits != 0) {
        CardWrite(Card, EDU_IRQ_ACK, bits);
    }
}

static VOID Resume(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;

    if (ext->Current != NULL) {
        Program(ext);
    } else {
        ext->Busy = FALSE;
    }
}

/* Completes the request in the card, of a file object or any. Its transfer goes on: Busy stays. */
static VOID GiveUp(EXTENSION *Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    irp = Ext->Current;
    if (irp != NULL && (File == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == File)) {
        Ext->Current = NULL;
    } else {
        irp = NULL;
    }
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
    if (irp != NULL) {
        KitFinish(&Ext->Card.Kit, irp, Status, 0);
    }
}

static VOID SetHold(EXTENSION *Ext, BOOLEAN Hold)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    Ext->Hold = Hold;
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
}

/* Waits until the card is at no transfer. FALSE: it is stuck. PASSIVE_LEVEL. */
static BOOLEAN WaitForDma(EXTENSION *Ext)
{
    LARGE_INTEGER delay;
    BOOLEAN running;
    ULONG i, cmd;
    KIRQL irql;

    delay.QuadPart = -10 * 10000LL;
    for (i = 0; i < 500; i++) {
        running = FALSE;
        KeAcquireSpinLock(&Ext->Card.Lock, &irql);
        if (Ext->Card.Awake && Ext->Busy) {
            cmd = CardRead(&Ext->Card, EDU_DMA_CMD);
            running = (BOOLEAN)(cmd != 0xFFFFFFFF && (cmd & EDU_DMA_RUN) != 0);
        }
        KeReleaseSpinLock(&Ext->Card.Lock, irql);
        if (!running) {
            return TRUE;
        }
        KeDelayExecutionThread(KernelMode, FALSE, &delay);
    }
    return FALSE;
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    if (sp->Parameters.Read.ByteOffset.QuadPart < 0 || sp->Parameters.Read.ByteOffset.QuadPart >= EDU_SIZE ||
        sp->Parameters.Read.Length > EDU_SIZE - sp->Parameters.Read.ByteOffset.LowPart) {
        return KitFinish(&ext->Card.Kit, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (sp->Parameters.Read.Length == 0) {
        return KitFinish(&ext->Card.Kit, Irp, STATUS_SUCCESS, 0);
    }
    return CardQueueSubmit(&ext->Card, Irp, StartNext);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return KitComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    CardQueueFlush(&ext->Card.Queue, file, STATUS_CANCELLED);
    GiveUp(ext, file, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID FreeDma(EXTENSION *Ext)
{
    if (Ext->Buffer != NULL) {
        Ext->Adapter->DmaOperations->FreeCommonBuffer(Ext->Adapter, EDU_SIZE, Ext->Logical, Ext->Buffer, FALSE);
        Ext->Buffer = NULL;
    }
    if (Ext->Adapter != NULL) {
        Ext->Adapter->DmaOperations->PutDmaAdapter(Ext->Adapter);
        Ext->Adapter = NULL;
    }
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;
    DESCRIPTION3 description;
    NTSTATUS status;
    ULONG maps;

    RtlZeroMemory(&description, sizeof(description));
    description.Base.Version = 3;
    description.Base.Master = TRUE;
    description.Base.Dma32BitAddresses = TRUE;
    description.Base.InterfaceType = PCIBus;
    description.Base.MaximumLength = EDU_SIZE;
    description.DmaAddressWidth = 28;
    ext->Adapter = IoGetDmaAdapter(ext->Card.Kit.Pdo, &description.Base, &maps);
    if (ext->Adapter == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ext->Buffer = ext->Adapter->DmaOperations->AllocateCommonBuffer(ext->Adapter, EDU_SIZE, &ext->Logical, FALSE);
    if (ext->Buffer == NULL) {
        FreeDma(ext);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ext->Busy = FALSE;
    ext->Hold = FALSE;
    status = CardStart(&ext->Card, Translated, EDU_LENGTH);
    if (!NT_SUCCESS(status)) {
        FreeDma(ext);
        return status;
    }
    CardQueueOpen(&ext->Card.Queue, TRUE);
    return STATUS_SUCCESS;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardQueueOpen(&ext->Card.Queue, FALSE);
    CardQueueFlush(&ext->Card.Queue, NULL, STATUS_DELETE_PENDING);
    GiveUp(ext, NULL, STATUS_DELETE_PENDING);
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    EXTENSION *ext = Device->DeviceExtension;
    BOOLEAN idle = TRUE;

    SetHold(ext, TRUE);
#ifdef FIXED
    if (Present) {
        idle = WaitForDma(ext);
    }
#endif
    CardStop(&ext->Card, Present);
    if (idle) {
        FreeDma(ext);
    } /* else better lost than given to others while the card writes to it */
}

static VOID Down(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    SetHold(ext, TRUE);
    (void)WaitForDma(ext);
    CardDown(&ext->Card);
}

static VOID Up(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    SetHold(ext, FALSE);
    CardUp(&ext->Card);
    StartNext(&ext->Card);
}

static const KIT_OPS Ops = {Start, Drain, Stop, Down, Up};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &DmaInterface, DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Card.Isr = Isr;
    ext->Card.TurnOn = TurnOn;
    ext->Card.TurnOff = TurnOff;
    ext->Card.Resume = Resume;
    status = CardInit(&ext->Card, Dpc);
    if (!NT_SUCCESS(status)) {
        return KitUndo(device, status);
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitDriver(Driver, AddDevice, Control, TRUE);
    Driver->MajorFunction[IRP_MJ_READ] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}
