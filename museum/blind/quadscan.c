/*
 * Four doorbells on a card: a program rings one, and others wait until it has been rung again since they last looked.
 * The card is QEMU's edu device, whose interrupt is raised by a register, one bit for each doorbell.
 *
 * The bug: the DPC reads and clears the bits that the interrupt routine collects without the interrupt's lock.
 * Shows by: an interrupt between the DPC's read and its clear; that ring is lost and its waiter waits for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten
 * Needs: ioctl, schedule
 */
#include "../include/queue_card.h"

#define IOCTL_QUAD_RING  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG mask, bits 0-3 */
#define IOCTL_QUAD_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_READ_ACCESS)  /* in: QUAD_WAIT; out: ULONG count */
#define IOCTL_QUAD_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: ULONG[4] */

#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_RAISE  0x60
#define EDU_IRQ_ACK    0x64
#define EDU_LENGTH     0x100

#define BELLS 4

static const GUID QuadInterface = {0x8d1a4f02, 0x11c9, 0x4f5e, {0xa6, 0x20, 0x33, 0x87, 0x11, 0xfe, 0x08, 0x41}};

typedef struct _QUAD_WAIT {
    ULONG Bell;
    ULONG Seen; /* waits until the count is another */
} QUAD_WAIT;

typedef struct _EXTENSION {
    CARD Card;
    volatile ULONG Pending; /* bits the interrupt routine has collected */
    KSPIN_LOCK Lock;        /* Waiters, Count, Open; taken after Card.Lock */
    IO_CSQ Csq;
    LIST_ENTRY Waiters;
    ULONG Count[BELLS];
    BOOLEAN Open;
} EXTENSION;

#define OF(C) CONTAINING_RECORD(C, EXTENSION, Csq)

static QUAD_WAIT *WaitOf(PIRP Irp)
{
    return Irp->AssociatedIrp.SystemBuffer;
}

static NTSTATUS NTAPI WaitInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = OF(Csq);

    UNREFERENCED_PARAMETER(Context);
    if (!ext->Open) {
        return STATUS_DEVICE_NOT_READY;
    }
    if (ext->Count[WaitOf(Irp)->Bell] != WaitOf(Irp)->Seen) {
        return STATUS_RETRY; /* it has been rung: nothing to wait for */
    }
    InsertTailList(&ext->Waiters, &Irp->Tail.Overlay.ListEntry);
    return STATUS_SUCCESS;
}

static VOID NTAPI WaitRemove(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
}

/* Context: the number of a bell and one, a file object, or NULL for all. */
static PIRP NTAPI WaitPeek(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = OF(Csq);
    PLIST_ENTRY e;

    for (e = Irp == NULL ? ext->Waiters.Flink : Irp->Tail.Overlay.ListEntry.Flink; e != &ext->Waiters; e = e->Flink) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (Context == NULL || WaitOf(irp)->Bell + 1 == (ULONG_PTR)Context || IoGetCurrentIrpStackLocation(irp)->FileObject == Context) {
            return irp;
        }
    }
    return NULL;
}

static VOID NTAPI WaitAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&OF(Csq)->Lock, Irql);
}

static VOID NTAPI WaitRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&OF(Csq)->Lock, Irql);
}

static VOID NTAPI WaitCancelled(PIO_CSQ Csq, PIRP Irp)
{
    KitFinish(&OF(Csq)->Card.Kit, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS FinishWait(EXTENSION *Ext, PIRP Irp, ULONG Count)
{
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Count;
    return KitFinish(&Ext->Card.Kit, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

/* ---- interrupt ---- */

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
    ext->Pending |= bits;
    KeInsertQueueDpc(&ext->Card.Dpc, NULL, NULL);
    return TRUE;
}

typedef struct _TAKE {
    EXTENSION *Ext;
    ULONG Bits;
} TAKE;

#ifdef FIXED
static BOOLEAN NTAPI TakePending(PVOID Context)
{
    TAKE *take = Context;

    take->Bits = take->Ext->Pending;
    take->Ext->Pending = 0;
    return TRUE;
}
#endif

static VOID NTAPI Dpc(PKDPC D, PVOID Context, PVOID A1, PVOID A2)
{
    EXTENSION *ext = Context;
    TAKE take = {ext, 0};
    ULONG bell, count;
    PIRP irp;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    if (ext->Card.Mapped) {
#ifdef FIXED
        KeSynchronizeExecution(ext->Card.Interrupt, TakePending, &take);
#else
        take.Bits = ext->Pending;
        ext->Pending = 0;
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);

    for (bell = 0; bell < BELLS; bell++) {
        if ((take.Bits & (1U << bell)) == 0) {
            continue;
        }
        KeAcquireSpinLockAtDpcLevel(&ext->Lock);
        count = ++ext->Count[bell];
        KeReleaseSpinLockFromDpcLevel(&ext->Lock);
        while ((irp = IoCsqRemoveNextIrp(&ext->Csq, (PVOID)(ULONG_PTR)(bell + 1))) != NULL) {
            FinishWait(ext, irp, count);
        }
    }
}

static VOID TurnOn(CARD *Card)
{
    UNREFERENCED_PARAMETER(Card); /* the card has no mask: IntOn is all there is */
}

static VOID TurnOff(CARD *Card)
{
    ULONG bits = CardRead(Card, EDU_IRQ_STATUS);

    if (bits != 0) {
        CardWrite(Card, EDU_IRQ_ACK, bits);
    }
}

/* ---- requests ---- */

static NTSTATUS Ring(EXTENSION *Ext, ULONG Mask)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    KIRQL irql;

    if (Mask == 0 || Mask >= 1U << BELLS) {
        return STATUS_INVALID_PARAMETER;
    }
    KeAcquireSpinLock(&Ext->Card.Lock, &irql);
    if (Ext->Card.Awake) {
        CardWrite(&Ext->Card, EDU_IRQ_RAISE, Mask);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&Ext->Card.Lock, irql);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    ULONG bell, count;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_QUAD_RING:
        status = in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Ring(ext, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        break;
    case IOCTL_QUAD_WAIT:
        if (in < sizeof(QUAD_WAIT) || out < sizeof(ULONG) || WaitOf(Irp)->Bell >= BELLS) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        bell = WaitOf(Irp)->Bell;
        status = IoCsqInsertIrpEx(&ext->Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(status)) {
            return STATUS_PENDING;
        }
        if (status == STATUS_RETRY) {
            KeAcquireSpinLock(&ext->Lock, &irql);
            count = ext->Count[bell];
            KeReleaseSpinLock(&ext->Lock, irql);
            return FinishWait(ext, Irp, count);
        }
        break;
    case IOCTL_QUAD_COUNT:
        if (out < sizeof(ext->Count)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&ext->Lock, &irql);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, ext->Count, sizeof(ext->Count));
        KeReleaseSpinLock(&ext->Lock, irql);
        information = sizeof(ext->Count);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitFinish(&ext->Card.Kit, Irp, status, information);
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIRP irp;

    while ((irp = IoCsqRemoveNextIrp(&ext->Csq, IoGetCurrentIrpStackLocation(Irp)->FileObject)) != NULL) {
        KitFinish(&ext->Card.Kit, irp, STATUS_CANCELLED, 0);
    }
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

/* ---- the device ---- */

static VOID Open(EXTENSION *Ext, BOOLEAN On)
{
    KIRQL irql;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    Ext->Open = On;
    KeReleaseSpinLock(&Ext->Lock, irql);
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = CardStart(&ext->Card, Translated, EDU_LENGTH);

    if (NT_SUCCESS(status)) {
        Open(ext, TRUE);
    }
    return status;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIRP irp;

    Open(ext, FALSE);
    while ((irp = IoCsqRemoveNextIrp(&ext->Csq, NULL)) != NULL) {
        KitFinish(&ext->Card.Kit, irp, STATUS_DELETE_PENDING, 0);
    }
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    CardStop(Device->DeviceExtension, Present);
}

static VOID Down(PDEVICE_OBJECT Device)
{
    CardDown(Device->DeviceExtension);
}

static VOID Up(PDEVICE_OBJECT Device)
{
    CardUp(Device->DeviceExtension);
}

static const KIT_OPS Ops = {Start, Drain, Stop, Down, Up};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &QuadInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Card.Isr = Isr;
    ext->Card.TurnOn = TurnOn;
    ext->Card.TurnOff = TurnOff;
    KeInitializeSpinLock(&ext->Lock);
    InitializeListHead(&ext->Waiters);
    status = CardInit(&ext->Card, Dpc);
    if (NT_SUCCESS(status)) {
        status = IoCsqInitializeEx(&ext->Csq, WaitInsert, WaitRemove, WaitPeek, WaitAcquire, WaitRelease, WaitCancelled);
    }
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
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}
