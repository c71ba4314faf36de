/*
 * Computes factorials on QEMU's edu card: a request gives a number and waits for the card's interrupt; requests wait in
 * a cancel-safe queue while the card works on another.
 *
 * The bug: on removal only the request in the card is completed; those in the queue are forgotten.
 * Shows by: the card is pulled out while two or more requests are outstanding; IRP_MN_REMOVE_DEVICE then never ends.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-pending-after-surprise-removal, deadlock
 * Needs: ioctl, removal
 */
#include "../include/queue_card.h"

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_READ_ACCESS) /* in: ULONG; out: ULONG */
#define IOCTL_IDENTITY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: ULONG */

#define EDU_ID         0x00
#define EDU_FACTORIAL  0x08
#define EDU_STATUS     0x20
#define EDU_COMPUTING  0x01
#define EDU_IRQ_WANTED 0x80
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK    0x64
#define EDU_LENGTH     0x100

static const GUID FactInterface = {0x5be0c9d1, 0x7a53, 0x4b0d, {0x83, 0x6f, 0x0a, 0x41, 0x5c, 0x19, 0xd3, 0x07}};

typedef struct _EXTENSION {
    CARD Card;
    PIRP Current; /* the request the card works on; under Card.Lock */
} EXTENSION;

/* Card.Lock held, the card awake. */
static VOID Submit(EXTENSION *Ext)
{
    CardWrite(&Ext->Card, EDU_STATUS, EDU_IRQ_WANTED);
    CardWrite(&Ext->Card, EDU_FACTORIAL, *(PULONG)Ext->Current->AssociatedIrp.SystemBuffer);
}

static VOID StartNext(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;
    KIRQL irql;

    KeAcquireSpinLock(&Card->Lock, &irql);
    if (Card->Awake && ext->Current == NULL) {
        ext->Current = IoCsqRemoveNextIrp(&Card->Queue.Csq, NULL);
        if (ext->Current != NULL) {
            Submit(ext);
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
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    if (ext->Card.Awake && ext->Current != NULL && (CardRead(&ext->Card, EDU_STATUS) & EDU_COMPUTING) == 0) {
        irp = ext->Current;
        ext->Current = NULL;
        *(PULONG)irp->AssociatedIrp.SystemBuffer = CardRead(&ext->Card, EDU_FACTORIAL);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    if (irp != NULL) {
        KitFinish(&ext->Card.Kit, irp, STATUS_SUCCESS, sizeof(ULONG));
        StartNext(&ext->Card);
    }
}

static VOID TurnOn(CARD *Card)
{
    CardWrite(Card, EDU_STATUS, EDU_IRQ_WANTED);
}

static VOID TurnOff(CARD *Card)
{
    ULONG bits;

    CardWrite(Card, EDU_STATUS, 0);
    bits = CardRead(Card, EDU_IRQ_STATUS);
    if (bits != 0) {
        CardWrite(Card, EDU_IRQ_ACK, bits);
    }
}

/* The card comes back from D3 and has forgotten what it was at. */
static VOID Resume(CARD *Card)
{
    EXTENSION *ext = (EXTENSION *)Card;

    if (ext->Current != NULL) {
        Submit(ext);
    }
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        return CardQueueSubmit(&ext->Card, Irp, StartNext);
    case IOCTL_IDENTITY:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = STATUS_DEVICE_NOT_READY;
        KeAcquireSpinLock(&ext->Card.Lock, &irql);
        if (ext->Card.Awake) {
            *buffer = CardRead(&ext->Card, EDU_ID);
            information = sizeof(ULONG);
            status = STATUS_SUCCESS;
        }
        KeReleaseSpinLock(&ext->Card.Lock, irql);
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

    CardQueueFlush(&ext->Card.Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    EXTENSION *ext = Device->DeviceExtension;
    NTSTATUS status = CardStart(&ext->Card, Translated, EDU_LENGTH);

    if (NT_SUCCESS(status)) {
        CardQueueOpen(&ext->Card.Queue, TRUE);
    }
    return status;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIRP irp;
    KIRQL irql;

    CardQueueOpen(&ext->Card.Queue, FALSE);
#ifdef FIXED
    CardQueueFlush(&ext->Card.Queue, NULL, STATUS_DELETE_PENDING);
#endif
    KeAcquireSpinLock(&ext->Card.Lock, &irql);
    irp = ext->Current;
    ext->Current = NULL;
    KeReleaseSpinLock(&ext->Card.Lock, irql);
    if (irp != NULL) {
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

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &FactInterface, 0, &device);
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
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    return STATUS_SUCCESS;
}
