/*
 * edudrowse: factorials of small batches of numbers on the edu card, one number after the other; asleep (D3)
 * the card has no work, and new requests wait for its return.
 *
 * The bug: before the card is put to sleep or stopped new requests are held, but the one under way is not waited for.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read, device-memory-not-mapped, card-without-power
 * Needs: power
 */
#include "../include/timed_queue.h"

#define IOCTL_DROWSE_BATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DROWSE_SINCE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define BATCH_MOST 16

#define REG(dev, offset) ((PULONG)((dev)->Base + (offset)))

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x01, 0x03 } };

typedef struct _DEV {
    CORE Core;
    SERQ Queue;
    PUCHAR Base;
    SIZE_T Size;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Awake;
    ULONG Count, Next;          /* of the current batch; under the queue's lock */
    volatile LONG Batches;
} DEV;

static SERQ *HwQueue(CORE *Core) { return &((DEV *)Core)->Queue; }

static BOOLEAN NTAPI DrowseIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    irq = READ_REGISTER_ULONG(REG(dev, 0x24));
    if (irq == 0 || irq == ~0U)
        return FALSE;
    WRITE_REGISTER_ULONG(REG(dev, 0x64), irq);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI DrowseDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    DEV *dev = Context;
    SERQ *q = &dev->Queue;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    PIRP irp = NULL;
    PULONG numbers;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&q->Lock);
    if (q->Current) {
        ULONG state = READ_REGISTER_ULONG(REG(dev, 0x20));

        numbers = q->Current->AssociatedIrp.SystemBuffer;
        if (state == ~0U) {
            irp = q->Current;
            status = STATUS_DEVICE_NOT_CONNECTED;
        } else if (!(state & 1)) {
            numbers[dev->Next++] = READ_REGISTER_ULONG(REG(dev, 0x08));
            if (dev->Next < dev->Count) {
                WRITE_REGISTER_ULONG(REG(dev, 0x08), numbers[dev->Next]);
            } else {
                irp = q->Current;
                info = dev->Count * sizeof(ULONG);
            }
        }
        if (irp)
            q->Current = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&q->Lock);
    if (irp) {
        InterlockedIncrement(&dev->Batches);
        SerqEnd(q, irp, status, info);
    }
}

static NTSTATUS HwBegin(CORE *Core, PIRP Irp)
{
    DEV *dev = (DEV *)Core;
    ULONG state = READ_REGISTER_ULONG(REG(dev, 0x20));

    if (state == ~0U)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (state & 1)
        return STATUS_DEVICE_BUSY;
    dev->Next = 0;
    dev->Count = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength / sizeof(ULONG);
    WRITE_REGISTER_ULONG(REG(dev, 0x20), 0x80);
    WRITE_REGISTER_ULONG(REG(dev, 0x08), *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    return STATUS_PENDING;
}

static NTSTATUS CheckBatch(PIRP Irp, ULONG In, ULONG Out)
{
    PULONG numbers = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;

    if (In == 0 || In % sizeof(ULONG) || In > BATCH_MOST * sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    if (Out < In)
        return STATUS_BUFFER_TOO_SMALL;
    for (i = 0; i < In / sizeof(ULONG); i++) {
        if (numbers[i] > 5000)
            return STATUS_INVALID_PARAMETER;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DrowseControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);
    ULONG_PTR info = 0;

    if (!NT_SUCCESS(status))
        return status;
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DROWSE_BATCH:
        status = CheckBatch(Irp, stack->Parameters.DeviceIoControl.InputBufferLength, out);
        if (NT_SUCCESS(status))
            return SerqSubmit(&dev->Queue, Irp);
        break;
    case IOCTL_DROWSE_SINCE:
        if (out < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            *(PLONG)Irp->AssociatedIrp.SystemBuffer = dev->Batches;
            info = sizeof(LONG);
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CoreComplete(&dev->Core, Irp, status, info);
    return status;
}

/* A Hold bit keeps the queue from giving more to the card. */
static VOID HwQuiesce(CORE *Core)
{
#ifdef FIXED
    SerqQuiet(HwQueue(Core));
#else
    UNREFERENCED_PARAMETER(Core);
    (void)SerqQuiet;
#endif
}

static VOID Hush(DEV *Dev)
{
    WRITE_REGISTER_ULONG(REG(Dev, 0x20), 0);
    WRITE_REGISTER_ULONG(REG(Dev, 0x64), ~0U);
}

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR line = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status;

    if (!memory || !line || memory->u.Memory.Length < 4096)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Size = 4096;
    dev->Base = MmMapIoSpace(memory->u.Memory.Start, dev->Size, MmNonCached);
    if (!dev->Base)
        return STATUS_INSUFFICIENT_RESOURCES;
    Hush(dev);
    dev->Awake = TRUE;
    status = CoreConnect(&dev->Interrupt, DrowseIsr, dev, line);
    if (!NT_SUCCESS(status)) {
        dev->Awake = FALSE;
        dev->Interrupt = NULL;
        MmUnmapIoSpace(dev->Base, dev->Size);
        dev->Base = NULL;
    }
    return status;
}

static BOOLEAN NTAPI GoToSleep(PVOID Context)
{
    Hush(Context);
    ((DEV *)Context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI WakeUp(PVOID Context)
{
    Hush(Context);
    ((DEV *)Context)->Awake = TRUE;
    return TRUE;
}

static VOID HwSleep(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, GoToSleep, Core); }
static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, WakeUp, Core); }

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    if (Touch)
        HwSleep(Core);
    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(dev->Base, dev->Size);
    dev->Base = NULL;
}

static NTSTATUS NTAPI DrowseAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    if (NT_SUCCESS(status)) {
        SerqInit(HwQueue(core), core);
        KeInitializeDpc(&((DEV *)core)->Dpc, DrowseDpc, core);
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, DrowseAdd);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SerqCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DrowseControl;
    return STATUS_SUCCESS;
}
