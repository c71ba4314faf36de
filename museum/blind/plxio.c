/*
 * A digital input board behind a PLX PCI 9052: programs wait for the board's next edge (local interrupt 1) and read its
 * local registers. INTCSR of the 9052 switches the interrupt, the board's own registers are in local space 0.
 *
 * The bug: when the local space cannot be mapped, the start of the device fails with the interrupt still connected.
 * Shows by: the second MmMapIoSpace of IRP_MN_START_DEVICE fails; the next interrupt on the line runs a routine whose
 * device and driver have gone.
 *
 * Device: PCI\VEN_10B5&DEV_9050&SUBSYS_31511A2B
 * Rule: interrupt-still-connected
 * Needs: failure
 */
#include "../include/queue_card.h"

#define IOCTL_EDGE_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: EDGE */
#define IOCTL_LOCAL_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_READ_ACCESS) /* in: ULONG offset; out: ULONG */

#define PLX_LENGTH     0x50
#define PLX_INTCSR     0x4C
#define INTCSR_LINT1   0x01 /* local interrupt 1 enabled */
#define INTCSR_ACTIVE1 0x04 /* local interrupt 1 active */
#define INTCSR_PCI     0x40 /* PCI interrupt enabled */

#define LOCAL_EDGES  0x00   /* which inputs have changed; what is written back is cleared */
#define LOCAL_INPUTS 0x04
#define LOCAL_LENGTH 0x10

static const GUID PlxInterface = {0xd07b52c4, 0x98ee, 0x41f0, {0xb5, 0x2a, 0x77, 0x61, 0x0d, 0x3f, 0x9a, 0x15}};

typedef struct _EDGE {
    ULONG Edges;
    ULONG Inputs;
} EDGE;

typedef struct _EXTENSION {
    CARD Card;         /* Card.Regs: the configuration registers of the 9052 */
    PUCHAR Local;
    ULONG LocalLength;
} EXTENSION;

static ULONG LocalRead(EXTENSION *Ext, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Local + Offset));
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    EXTENSION *ext = Context;
    ULONG csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!ext->Card.IntOn) {
        return FALSE;
    }
    csr = CardRead(&ext->Card, PLX_INTCSR);
    if (csr == 0xFFFFFFFF || (csr & (INTCSR_LINT1 | INTCSR_ACTIVE1)) != (INTCSR_LINT1 | INTCSR_ACTIVE1)) {
        return FALSE;
    }
    CardWrite(&ext->Card, PLX_INTCSR, INTCSR_PCI); /* off until the DPC has looked at the board */
    KeInsertQueueDpc(&ext->Card.Dpc, NULL, NULL);
    return TRUE;
}

static VOID TurnOn(CARD *Card)
{
    CardWrite(Card, PLX_INTCSR, INTCSR_PCI | INTCSR_LINT1);
}

static VOID TurnOff(CARD *Card)
{
    CardWrite(Card, PLX_INTCSR, 0);
}

static BOOLEAN NTAPI TurnOnAgain(PVOID Context)
{
    TurnOn(Context);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC D, PVOID Context, PVOID A1, PVOID A2)
{
    EXTENSION *ext = Context;
    BOOLEAN awake;
    EDGE edge = {0, 0};
    PIRP irp;

    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&ext->Card.Lock);
    awake = ext->Card.Awake;
    if (awake) {
        edge.Edges = LocalRead(ext, LOCAL_EDGES);
        edge.Inputs = LocalRead(ext, LOCAL_INPUTS);
        WRITE_REGISTER_ULONG((PULONG)(ext->Local + LOCAL_EDGES), edge.Edges);
        KeSynchronizeExecution(ext->Card.Interrupt, TurnOnAgain, &ext->Card);
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Card.Lock);
    /* If it sleeps, the interrupt comes again when it is switched on. */
    while (awake && (irp = IoCsqRemoveNextIrp(&ext->Card.Queue.Csq, NULL)) != NULL) {
        *(EDGE *)irp->AssociatedIrp.SystemBuffer = edge;
        KitFinish(&ext->Card.Kit, irp, STATUS_SUCCESS, sizeof(edge));
    }
}

static VOID Nothing(CARD *Card)
{
    UNREFERENCED_PARAMETER(Card); /* requests wait in the queue for the DPC */
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
    ULONG offset;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Card.Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDGE_WAIT:
        if (out < sizeof(EDGE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        return CardQueueSubmit(&ext->Card, Irp, Nothing);
    case IOCTL_LOCAL_READ:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        offset = *buffer;
        status = STATUS_DEVICE_NOT_READY;
        KeAcquireSpinLock(&ext->Card.Lock, &irql);
        if (ext->Card.Awake) {
            if ((offset & 3) != 0 || offset > ext->LocalLength - sizeof(ULONG)) {
                status = STATUS_INVALID_PARAMETER;
            } else {
                *buffer = LocalRead(ext, offset);
                information = sizeof(ULONG);
                status = STATUS_SUCCESS;
            }
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
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = KitResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR local = KitResource(Translated, CmResourceTypeMemory, 1);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR interrupt = KitResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    KIRQL irql;

    if (plx == NULL || plx->u.Memory.Length < PLX_LENGTH || local == NULL || local->u.Memory.Length < LOCAL_LENGTH || interrupt == NULL) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    ext->Card.Regs = MmMapIoSpace(plx->u.Memory.Start, plx->u.Memory.Length, MmNonCached);
    if (ext->Card.Regs == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ext->Card.RegsLength = plx->u.Memory.Length;
    CardWrite(&ext->Card, PLX_INTCSR, 0);
    status = KitConnect(&ext->Card.Interrupt, Isr, &ext->Card, interrupt);
    if (!NT_SUCCESS(status)) {
        ext->Card.Interrupt = NULL;
        CardUnmap(&ext->Card);
        return status;
    }
    ext->Local = MmMapIoSpace(local->u.Memory.Start, local->u.Memory.Length, MmNonCached);
    if (ext->Local == NULL) {
#ifdef FIXED
        IoDisconnectInterrupt(ext->Card.Interrupt);
        ext->Card.Interrupt = NULL;
#endif
        CardUnmap(&ext->Card);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ext->LocalLength = local->u.Memory.Length;
    KeAcquireSpinLock(&ext->Card.Lock, &irql);
    ext->Card.Mapped = TRUE;
    KeReleaseSpinLock(&ext->Card.Lock, irql);
    CardUp(&ext->Card);
    CardQueueOpen(&ext->Card.Queue, TRUE);
    return STATUS_SUCCESS;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardQueueOpen(&ext->Card.Queue, FALSE);
    CardQueueFlush(&ext->Card.Queue, NULL, STATUS_DELETE_PENDING);
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    EXTENSION *ext = Device->DeviceExtension;

    CardStop(&ext->Card, Present);
    MmUnmapIoSpace(ext->Local, ext->LocalLength);
    ext->Local = NULL;
    ext->LocalLength = 0;
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

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &PlxInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Card.Isr = Isr;
    ext->Card.TurnOn = TurnOn;
    ext->Card.TurnOff = TurnOff;
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
