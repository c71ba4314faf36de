/*
 * A memory card with a bus-master engine: reads and writes go straight between the program's pages and the card, one
 * element of the scatter/gather list after the other, with an interrupt for each.
 *
 * The bug: when the card reports an error, the request is completed but its scatter/gather list is not given back.
 * Shows by: the card sets ERROR in its status at the end of a transfer; after some errors no transfer gets a list.
 *
 * Device: PCI\VEN_1DA7&DEV_4D03
 * Rule: scatter-gather-list-leak
 * Needs: ioctl, device
 */
#include "../include/queue_card.h"

#define SG_CTRL      0x00
#define CTRL_GO      0x01 /* stays until software takes it away, which ends interrupt and transfer */
#define CTRL_IE      0x02
#define CTRL_WRITE   0x04 /* from memory to the card */
#define SG_STATUS    0x04
#define STATUS_BUSY  0x01
#define STATUS_ERROR 0x02
#define SG_ADDRESS   0x10
#define SG_ADDRESSHI 0x14
#define SG_COUNT     0x18
#define SG_OFFSET    0x1C /* in the card's memory */
#define SG_LENGTH    0x20

#define TRANSFER_MAXIMUM 65536

static const GUID SgInterface = {0x3b9a57e0, 0xd41c, 0x4586, {0xbc, 0x40, 0x60, 0x2d, 0x91, 0x7e, 0x4a, 0x88}};

typedef struct _EXTENSION {
    CARD Card;
    PDMA_ADAPTER Adapter;
    ULONG Maximum;             /* bytes of one transfer */
    KEVENT MapDone;            /* set when no list is being waited for */
    /* Under Card.Lock: */
    PIRP Current;
    PSCATTER_GATHER_LIST Sg;   /* NULL while it is being made */
    BOOLEAN Abort;             /* complete Current when its list comes */
    ULONG Index, Done;
} EXTENSION;

static BOOLEAN IsWrite(PIRP Irp)
{
    return (BOOLEAN)(IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_WRITE);
}

/* Card.Lock held, the card awake. */
static VOID Program(EXTENSION *Ext)
{
    PSCATTER_GATHER_ELEMENT element = &Ext->Sg->Elements[Ext->Index];

    CardWrite(&Ext->Card, SG_ADDRESS, element->Address.LowPart);
    CardWrite(&Ext->Card, SG_ADDRESSHI, (ULONG)element->Address.HighPart);
    CardWrite(&Ext->Card, SG_COUNT, element->Length);
    CardWrite(&Ext->Card, SG_OFFSET, IoGetCurrentIrpStackLocation(Ext->Current)->Parameters.Read.ByteOffset.LowPart + Ext->Done);
    CardWrite(&Ext->Card, SG_CTRL, CTRL_GO | CTRL_IE | (IsWrite(Ext->Current) ? CTRL_WRITE : 0));
}

static VOID PutList(EXTENSION *Ext, PSCATTER_GATHER_LIST Sg, BOOLEAN Write)
{
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    Ext->Adapter->DmaOperations->PutScatterGatherList(Ext->Adapter, Sg, Write);
    KeLowerIrql(irql);
}

/* The list for the current request has been made. DISPATCH_LEVEL. */
static VOID NTAPI ListReady(PDEVICE_OBJECT Device, PIRP Unused, PSCATTER_GATHER_LIST Sg, PVOID Context)
{
    EXTENSION *ext = Context;
    BOOLEAN write = FALSE;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Unused);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    if (ext->Abort) {
        irp = ext->Current;
        write = IsWrite(irp);
    } else {
        ext->Sg = Sg;
        if (ext->Card.Awake) {
            Program(ext); /* else when it comes back to D0 */
        }
        KeSetEvent(&ext->MapDone, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (irp == NULL) {
        return;
    }
    PutList(ext, Sg, write);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    ext->Current = NULL;
    KeInsertQueueDpc(&ext->Card.Dpc, NULL, NULL); /* for the next */
    KeSetEvent(&ext->MapDone, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    KitFinish(&ext->Card.Kit, irp, STATUS_CANCELLED, 0);
}

static VOID StartNext(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;
    NTSTATUS status;
    BOOLEAN write;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        irp = NULL;
        KeAcquireSpinLock(&Card->Lock, &irql);
        if (Card->Awake && ext->Current == NULL) {
            irp = IoCsqRemoveNextIrp(&Card->Queue.Csq, NULL);
            if (irp != NULL) {
                ext->Current = irp;
                ext->Sg = NULL;
                ext->Abort = FALSE;
                ext->Index = 0;
                ext->Done = 0;
                KeClearEvent(&ext->MapDone);
            }
        }
        KeReleaseSpinLock(&Card->Lock, irql);
        if (irp == NULL) {
            return;
        }
        write = IsWrite(irp);
        KeFlushIoBuffers(irp->MdlAddress, !write, TRUE);
        KeRaiseIrql(DISPATCH_LEVEL, &irql);
        status = ext->Adapter->DmaOperations->GetScatterGatherList(ext->Adapter, Card->Kit.Self, irp->MdlAddress, MmGetMdlVirtualAddress(irp->MdlAddress),
                                                                   MmGetMdlByteCount(irp->MdlAddress), ListReady, ext, write);
        KeLowerIrql(irql);
        if (NT_SUCCESS(status)) {
            return;
        }
        KeAcquireSpinLock(&Card->Lock, &irql);
        ext->Current = NULL;
        KeSetEvent(&ext->MapDone, IO_NO_INCREMENT, FALSE);
        KeReleaseSpinLock(&Card->Lock, irql);
        KitFinish(&Card->Kit, irp, status, 0);
    }
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    EXTENSION *ext = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!ext->Card.IntOn || (CardRead(&ext->Card, SG_CTRL) & CTRL_GO) == 0 || (CardRead(&ext->Card, SG_STATUS) & STATUS_BUSY) != 0) {
        return FALSE; /* a card that has gone reads as busy */
    }
    CardWrite(&ext->Card, SG_CTRL, 0);
    KeInsertQueueDpc(&ext->Card.Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC D, PVOID Context, PVOID A1, PVOID A2)
{
    EXTENSION *ext = Context;
    NTSTATUS result = STATUS_SUCCESS;
    PSCATTER_GATHER_LIST sg = NULL;
    BOOLEAN write = FALSE;
    PIRP irp = NULL;
    ULONG done = 0;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    if (ext->Card.Awake && ext->Sg != NULL && (CardRead(&ext->Card, SG_CTRL) & CTRL_GO) == 0) {
        if ((CardRead(&ext->Card, SG_STATUS) & STATUS_ERROR) != 0) {
            result = STATUS_IO_DEVICE_ERROR;
        } else {
            ext->Done += ext->Sg->Elements[ext->Index].Length;
            ext->Index++;
        }
        if (NT_SUCCESS(result) && ext->Index < ext->Sg->NumberOfElements) {
            Program(ext);
        } else {
            irp = ext->Current;
            sg = ext->Sg;
            done = NT_SUCCESS(result) ? ext->Done : 0;
            write = IsWrite(irp);
            ext->Current = NULL;
            ext->Sg = NULL;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (irp != NULL) {
#ifdef FIXED
        PutList(ext, sg, write);
#else
        if (NT_SUCCESS(result)) {
            PutList(ext, sg, write);
        }
#endif
        KitFinish(&ext->Card.Kit, irp, result, done);
    }
    StartNext(&ext->Card);
}

static VOID TurnOn(CARD *Card)
{
    CardWrite(Card, SG_CTRL, 0);
}

static VOID TurnOff(CARD *Card)
{
    CardWrite(Card, SG_CTRL, 0);
    (void)CardRead(Card, SG_CTRL); /* the engine has stopped when this returns */
}

static VOID Resume(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;

    if (ext->Sg != NULL) {
        Program(ext); /* once more from the element it was at */
    }
}

static BOOLEAN NTAPI StopEngine(PVOID Context)
{
    TurnOff(Context);
    return TRUE;
}

/* Ends the current request, of a file object or any. */
static VOID AbortCurrent(EXTENSION *Ext, PFILE_OBJECT File, NTSTATUS Status)
{
    PSCATTER_GATHER_LIST sg = NULL;
    BOOLEAN write = FALSE;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    irp = Ext->Current;
    if (irp != NULL && (File == NULL || IoGetCurrentIrpStackLocation(irp)->FileObject == File)) {
        if (Ext->Sg == NULL) {
            Ext->Abort = TRUE; /* ListReady ends it */
            irp = NULL;
        } else {
            if (Ext->Card.Awake) {
                KeSynchronizeExecution(Ext->Card.Interrupt, StopEngine, &Ext->Card);
            }
            sg = Ext->Sg;
            write = IsWrite(irp);
            Ext->Sg = NULL;
            Ext->Current = NULL;
        }
    } else {
        irp = NULL;
    }
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
    if (irp != NULL) {
        PutList(Ext, sg, write);
        KitFinish(&Ext->Card.Kit, irp, Status, 0);
        StartNext(&Ext->Card);
    }
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG offset = sp->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = sp->Parameters.Read.Length;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    if (length == 0) {
        return KitFinish(&ext->Card.Kit, Irp, STATUS_SUCCESS, 0);
    }
    if (length > ext->Maximum || offset < 0 || offset > 0xFFFFFFFFLL - length) {
        return KitFinish(&ext->Card.Kit, Irp, STATUS_INVALID_PARAMETER, 0);
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
    AbortCurrent(ext, file, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID PutAdapter(EXTENSION *Ext)
{
    Ext->Adapter->DmaOperations->PutDmaAdapter(Ext->Adapter);
    Ext->Adapter = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;
    DEVICE_DESCRIPTION description;
    NTSTATUS status;
    ULONG maps;

    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.ScatterGather = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.Dma64BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = TRANSFER_MAXIMUM;
    ext->Adapter = IoGetDmaAdapter(ext->Card.Kit.Pdo, &description, &maps);
    if (ext->Adapter == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ext->Maximum = TRANSFER_MAXIMUM;
    if (maps < TRANSFER_MAXIMUM / PAGE_SIZE + 1) {
        if (maps < 2) {
            PutAdapter(ext);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        ext->Maximum = (maps - 1) * PAGE_SIZE;
    }
    status = CardStart(&ext->Card, Translated, SG_LENGTH);
    if (!NT_SUCCESS(status)) {
        PutAdapter(ext);
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
    AbortCurrent(ext, NULL, STATUS_DELETE_PENDING);
    KeWaitForSingleObject(&ext->MapDone, Executive, KernelMode, FALSE, NULL);
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardStop(&ext->Card, Present);
    PutAdapter(ext);
}

static VOID Down(PDEVICE_OBJECT Device)
{
    CardDown(Device->DeviceExtension);
}

static VOID Up(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardUp(&ext->Card);
    StartNext(&ext->Card);
}

static const KIT_OPS Ops = {Start, Drain, Stop, Down, Up};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &SgInterface, DO_DIRECT_IO, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Card.Isr = Isr;
    ext->Card.TurnOn = TurnOn;
    ext->Card.TurnOff = TurnOff;
    ext->Card.Resume = Resume;
    KeInitializeEvent(&ext->MapDone, NotificationEvent, TRUE);
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
