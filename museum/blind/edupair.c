/*
 * edupair: computes factorials on the edu card; each request also rings a doorbell of its own, and is complete
 * when both the computation and the doorbell have interrupted.
 *
 * The bug: the DPC fetches and clears the event bits that the ISR sets in two steps, so an interrupt in between is
 * lost.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: data-race, request-timed-out
 * Needs: device, schedule
 */
#include "../include/timed_queue.h"

#define IOCTL_EDU_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS)

#define EDU_IDENT  0x00
#define EDU_FACT   0x08
#define EDU_STATUS 0x20
#define EDU_IRQ    0x24
#define EDU_RAISE  0x60
#define EDU_ACK    0x64

#define EV_FACT 0x01
#define EV_BELL 0x02

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x01, 0x01 } };

typedef struct _DEV {
    CORE Core;
    SERQ Queue;
    PUCHAR Regs;
    ULONG Length;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Awake;              /* registers may be read by the ISR */
    volatile LONG Events;       /* of the ISR, for the DPC */
    LONG Seen;                  /* of the current request; under the queue's lock */
} DEV;

static ULONG Get(DEV *Dev, ULONG Register) { return READ_REGISTER_ULONG((PULONG)(Dev->Regs + Register)); }
static VOID Put(DEV *Dev, ULONG Register, ULONG Value) { WRITE_REGISTER_ULONG((PULONG)(Dev->Regs + Register), Value); }

static SERQ *HwQueue(CORE *Core) { return &((DEV *)Core)->Queue; }

static BOOLEAN NTAPI EduIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    irq = Get(dev, EDU_IRQ);
    if (irq == 0 || irq == 0xFFFFFFFF)
        return FALSE;
    Put(dev, EDU_ACK, irq);
    InterlockedOr(&dev->Events, (LONG)irq & (EV_FACT | EV_BELL));
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI EduDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    DEV *dev = Context;
    SERQ *q = &dev->Queue;
    NTSTATUS result = STATUS_SUCCESS;
    PIRP irp = NULL;
    LONG events;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
#ifdef FIXED
    events = InterlockedExchange(&dev->Events, 0);
#else
    events = dev->Events;
    dev->Events = 0;
#endif
    KeAcquireSpinLockAtDpcLevel(&q->Lock);
    dev->Seen |= events;
    if (q->Current && dev->Seen == (EV_FACT | EV_BELL)) {
        ULONG status = Get(dev, EDU_STATUS);

        if (status == 0xFFFFFFFF) {                     /* gone */
            irp = q->Current;
            q->Current = NULL;
            result = STATUS_DEVICE_NOT_CONNECTED;
        } else if (!(status & 1)) {
            irp = q->Current;
            q->Current = NULL;
            *(PULONG)irp->AssociatedIrp.SystemBuffer = Get(dev, EDU_FACT);
        } else {
            dev->Seen &= ~EV_FACT;                      /* of an earlier, late computation */
        }
    }
    KeReleaseSpinLockFromDpcLevel(&q->Lock);
    if (irp)
        SerqEnd(q, irp, result, NT_SUCCESS(result) ? sizeof(ULONG) : 0);
}

static NTSTATUS HwBegin(CORE *Core, PIRP Irp)
{
    DEV *dev = (DEV *)Core;
    ULONG status = Get(dev, EDU_STATUS);

    if (status == 0xFFFFFFFF)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (status & 1)
        return STATUS_DEVICE_BUSY;      /* a computation that was given up */
    dev->Seen = 0;
    Put(dev, EDU_STATUS, 0x80);         /* interrupt when computed */
    Put(dev, EDU_FACT, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    Put(dev, EDU_RAISE, EV_BELL);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI EduControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);

    if (!NT_SUCCESS(status))
        return status;
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_EDU_FACTORIAL)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
             *(PULONG)Irp->AssociatedIrp.SystemBuffer > 100000)
        status = STATUS_INVALID_PARAMETER;
    else if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        status = STATUS_BUFFER_TOO_SMALL;
    else
        return SerqSubmit(&dev->Queue, Irp);
    CoreComplete(&dev->Core, Irp, status, 0);
    return status;
}

static VOID HwQuiesce(CORE *Core) { SerqQuiet(HwQueue(Core)); }

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status;

    if (!bar || !irq || bar->u.Memory.Length < 0x100)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Length = bar->u.Memory.Length;
    dev->Regs = MmMapIoSpace(bar->u.Memory.Start, dev->Length, MmNonCached);
    if (!dev->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((Get(dev, EDU_IDENT) & 0xFF) != 0xED || Get(dev, EDU_IDENT) == 0xFFFFFFFF) {
        status = STATUS_NO_SUCH_DEVICE;
        goto unmap;
    }
    Put(dev, EDU_STATUS, 0);
    Put(dev, EDU_ACK, 0xFFFFFFFF);
    dev->Events = 0;
    dev->Awake = TRUE;
    status = CoreConnect(&dev->Interrupt, EduIsr, dev, irq);
    if (NT_SUCCESS(status))
        return status;
    dev->Awake = FALSE;
    dev->Interrupt = NULL;
unmap:
    MmUnmapIoSpace(dev->Regs, dev->Length);
    dev->Regs = NULL;
    return status;
}

static BOOLEAN NTAPI SyncSleep(PVOID Context)
{
    DEV *dev = Context;

    Put(dev, EDU_STATUS, 0);
    Put(dev, EDU_ACK, 0xFFFFFFFF);
    dev->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI SyncWake(PVOID Context)
{
    DEV *dev = Context;

    Put(dev, EDU_STATUS, 0);
    Put(dev, EDU_ACK, 0xFFFFFFFF);
    dev->Awake = TRUE;
    return TRUE;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    if (Touch)
        KeSynchronizeExecution(dev->Interrupt, SyncSleep, dev);
    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(dev->Regs, dev->Length);
    dev->Regs = NULL;
}

static VOID HwSleep(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncSleep, Core); }
static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncWake, Core); }

static NTSTATUS NTAPI EduAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    if (NT_SUCCESS(status)) {
        DEV *dev = (DEV *)core;

        SerqInit(&dev->Queue, core);
        KeInitializeDpc(&dev->Dpc, EduDpc, dev);
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, EduAdd);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SerqCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EduControl;
    return STATUS_SUCCESS;
}
