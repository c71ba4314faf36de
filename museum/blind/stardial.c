/*
 * ORRERY: records samples of a position encoder board, which writes them to a ring in memory.  The
 * driver keeps the newest 2048; SNAPSHOT returns the newest of them, oldest first, as many as fit,
 * RATE sets the samples per second and STATS counts.
 *
 * The board (BAR0, 256 bytes, 32-bit registers, level interrupt):
 *   00 ID (RO) 4F525259h        04 CONTROL bit 0 run, bit 1 interrupt enable; run starts at offset 0
 *   08 INTSTAT bit 0 samples written since (write 1 to clear)     0C RATE samples per second
 *   10/14 RING address low/high 18 RINGBYTES                      1C PRODUCER next offset (RO)
 *   All are 0 after a reset or power-up.  A sample is 8 bytes: time, position.
 *
 * The bug: when the start fails because the interrupt cannot be connected, the history is freed but
 * its pointer stays in the device extension, and the removal that follows frees it once more.
 *
 * Device: PCI\VEN_1DA7&DEV_0A21
 * Rule: double-free
 * Needs: failure
 */
#include "../include/jetty_card.h"

/* {71D9E0B4-2F6C-4D19-A3B8-5C07E64F1D28} */
static const GUID OrreryInterface =
    { 0x71d9e0b4, 0x2f6c, 0x4d19, { 0xa3, 0xb8, 0x5c, 0x07, 0xe6, 0x4f, 0x1d, 0x28 } };

#define IOCTL_ORRERY_SNAPSHOT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ORRERY_RATE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ORRERY_STATS    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x893, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define ORRERY_ID        0x00
#define ORRERY_CONTROL   0x04
#define ORRERY_INTSTAT   0x08
#define ORRERY_RATE      0x0C
#define ORRERY_RING_LOW  0x10
#define ORRERY_RING_HIGH 0x14
#define ORRERY_RINGBYTES 0x18
#define ORRERY_PRODUCER  0x1C
#define ORRERY_MAPPED    0x100

#define ORRERY_IDENT 0x4F525259
#define CONTROL_RUN 1
#define CONTROL_INTERRUPT 2
#define ALL_ONES 0xFFFFFFFFu

#define ORRERY_RING 16384               /* bytes */
#define ORRERY_HISTORY 2048             /* samples */
#define ORRERY_FASTEST 100000

typedef struct _ORRERY_SAMPLE {
    ULONG Time;
    LONG Position;
} ORRERY_SAMPLE, *PORRERY_SAMPLE;

typedef struct _ORRERY_STATS {
    ULONG Samples;
    ULONG Kept;
    ULONG Rate;
} ORRERY_STATS, *PORRERY_STATS;

typedef struct _ORRERY {
    JETTY_COMMON Common;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    PDMA_ADAPTER Adapter;
    PUCHAR Ring;
    PHYSICAL_ADDRESS RingAddress;
    KSPIN_LOCK Lock;            /* all below, and the board but for INTSTAT */
    BOOLEAN Started;
    BOOLEAN Awake;
    ULONG Rate;
    ULONG Consumer;             /* offset in the ring */
    ULONG Samples;
    ULONG Newest, Kept;         /* index after the newest sample, how many there are */
    PORRERY_SAMPLE History;
} ORRERY, *PORRERY;

static BOOLEAN NTAPI OrreryIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PORRERY o = Context;
    ULONG pending = JettyRead(o->Regs, ORRERY_INTSTAT);

    UNREFERENCED_PARAMETER(Interrupt);
    if (pending == ALL_ONES || !(pending & 1))
        return FALSE;
    JettyWrite(o->Regs, ORRERY_INTSTAT, 1);
    (VOID)JettyRead(o->Regs, ORRERY_INTSTAT);
    IoRequestDpc(o->Common.Self, NULL, NULL);
    return TRUE;
}

static VOID NTAPI OrreryDpc(PKDPC Dpc, PDEVICE_OBJECT Fdo, PIRP Irp, PVOID Context)
{
    PORRERY o = Fdo->DeviceExtension;
    ULONG producer;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLock(&o->Lock, &irql);
    if (o->Started && o->Awake) {
        producer = JettyRead(o->Regs, ORRERY_PRODUCER);
        /* a pulled board reads as ones; nothing else should be out of the ring either */
        if (producer < ORRERY_RING && producer % sizeof(ORRERY_SAMPLE) == 0) {
            while (o->Consumer != producer) {
                o->History[o->Newest] = *(PORRERY_SAMPLE)(o->Ring + o->Consumer);
                o->Newest = (o->Newest + 1) % ORRERY_HISTORY;
                if (o->Kept < ORRERY_HISTORY)
                    o->Kept++;
                o->Samples++;
                o->Consumer = (o->Consumer + sizeof(ORRERY_SAMPLE)) % ORRERY_RING;
            }
        }
    }
    KeReleaseSpinLock(&o->Lock, irql);
}

/* With the lock held, the board being powered and not running. */
static VOID OrreryRun(PORRERY o)
{
    o->Consumer = 0;
    JettyWrite(o->Regs, ORRERY_RING_LOW, o->RingAddress.LowPart);
    JettyWrite(o->Regs, ORRERY_RING_HIGH, (ULONG)o->RingAddress.HighPart);
    JettyWrite(o->Regs, ORRERY_RINGBYTES, ORRERY_RING);
    JettyWrite(o->Regs, ORRERY_RATE, o->Rate);
    JettyWrite(o->Regs, ORRERY_CONTROL, CONTROL_RUN | CONTROL_INTERRUPT);
}

static VOID OrreryHalt(PUCHAR Regs)
{
    JettyWrite(Regs, ORRERY_CONTROL, 0);
    JettyWrite(Regs, ORRERY_INTSTAT, 1);
    (VOID)JettyRead(Regs, ORRERY_CONTROL);      /* what it has written by now has arrived */
}

static NTSTATUS OrrerySnapshot(PORRERY o, PORRERY_SAMPLE Out, ULONG Room, PULONG_PTR Information)
{
    NTSTATUS status = STATUS_DEVICE_NOT_READY;
    ULONG n, i, index;
    KIRQL irql;

    KeAcquireSpinLock(&o->Lock, &irql);
    if (o->Started) {
        n = o->Kept < Room ? o->Kept : Room;
        index = (o->Newest + ORRERY_HISTORY - n) % ORRERY_HISTORY;
        for (i = 0; i < n; i++) {
            Out[i] = o->History[index];
            index = (index + 1) % ORRERY_HISTORY;
        }
        *Information = n * sizeof(ORRERY_SAMPLE);
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&o->Lock, irql);
    return status;
}

static NTSTATUS NTAPI OrreryControl(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PORRERY o = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    PORRERY_STATS stats;
    ULONG rate;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&o->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ORRERY_SNAPSHOT:
        if (out < sizeof(ORRERY_SAMPLE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = OrrerySnapshot(o, buffer, out / sizeof(ORRERY_SAMPLE), &information);
        break;

    case IOCTL_ORRERY_RATE:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        rate = *(PULONG)buffer;
        if (rate < 1 || rate > ORRERY_FASTEST) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&o->Lock, &irql);
        o->Rate = rate;
        if (o->Started && o->Awake)
            JettyWrite(o->Regs, ORRERY_RATE, rate);
        KeReleaseSpinLock(&o->Lock, irql);
        status = STATUS_SUCCESS;
        break;

    case IOCTL_ORRERY_STATS:
        if (out < sizeof(ORRERY_STATS)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        stats = buffer;
        KeAcquireSpinLock(&o->Lock, &irql);
        stats->Samples = o->Samples;
        stats->Kept = o->Kept;
        stats->Rate = o->Rate;
        KeReleaseSpinLock(&o->Lock, irql);
        information = sizeof(ORRERY_STATS);
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return JettyFinish(o, Irp, status, information);
}

static VOID OrreryInit(PVOID Ext)
{
    PORRERY o = Ext;

    KeInitializeSpinLock(&o->Lock);
    o->Rate = 100;
    IoInitializeDpcRequest(o->Common.Self, OrreryDpc);
}

static PDMA_ADAPTER OrreryAdapter(PORRERY o)
{
    DEVICE_DESCRIPTION description;
    ULONG registers;

    RtlZeroMemory(&description, sizeof(description));
    description.Version = DEVICE_DESCRIPTION_VERSION;
    description.Master = TRUE;
    description.Dma32BitAddresses = TRUE;
    description.InterfaceType = PCIBus;
    description.MaximumLength = ORRERY_RING;
    return IoGetDmaAdapter(o->Common.Pdo, &description, &registers);
}

static NTSTATUS OrreryStart(PVOID Ext, PCM_RESOURCE_LIST Translated)
{
    PORRERY o = Ext;
    JETTY_CARD card;
    NTSTATUS status;
    KIRQL irql;

    status = JettyResources(Translated, ORRERY_MAPPED, &card);
    if (!NT_SUCCESS(status))
        return status;
    o->Regs = MmMapIoSpace(card.Base, ORRERY_MAPPED, MmNonCached);
    if (!o->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (JettyRead(o->Regs, ORRERY_ID) != ORRERY_IDENT) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
        goto fail_regs;
    }
    OrreryHalt(o->Regs);

    status = STATUS_INSUFFICIENT_RESOURCES;
    o->Adapter = OrreryAdapter(o);
    if (!o->Adapter)
        goto fail_regs;
    o->Ring = o->Adapter->DmaOperations->AllocateCommonBuffer(o->Adapter, ORRERY_RING,
                                                              &o->RingAddress, TRUE);
    if (!o->Ring)
        goto fail_adapter;
    RtlZeroMemory(o->Ring, ORRERY_RING);
    o->History = ExAllocatePoolWithTag(NonPagedPool, ORRERY_HISTORY * sizeof(ORRERY_SAMPLE), JETTY_TAG);
    if (!o->History)
        goto fail_ring;
    status = JettyConnect(&card, OrreryIsr, o, &o->Interrupt);
    if (!NT_SUCCESS(status))
        goto fail_history;

    KeAcquireSpinLock(&o->Lock, &irql);
    o->Newest = o->Kept = 0;
    o->Started = TRUE;
    o->Awake = TRUE;
    OrreryRun(o);
    KeReleaseSpinLock(&o->Lock, irql);
    return STATUS_SUCCESS;

fail_history:
    o->Interrupt = NULL;
    ExFreePoolWithTag(o->History, JETTY_TAG);
#ifdef FIXED
    o->History = NULL;
#endif
fail_ring:
    o->Adapter->DmaOperations->FreeCommonBuffer(o->Adapter, ORRERY_RING, o->RingAddress, o->Ring, TRUE);
    o->Ring = NULL;
fail_adapter:
    o->Adapter->DmaOperations->PutDmaAdapter(o->Adapter);
    o->Adapter = NULL;
fail_regs:
    MmUnmapIoSpace(o->Regs, ORRERY_MAPPED);
    o->Regs = NULL;
    return status;
}

static VOID OrreryStop(PVOID Ext)
{
    PORRERY o = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&o->Lock, &irql);
    if (o->Started && o->Awake)
        OrreryHalt(o->Regs);
    o->Started = FALSE;
    KeReleaseSpinLock(&o->Lock, irql);

    if (o->Interrupt) {
        IoDisconnectInterrupt(o->Interrupt);
        o->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (o->History) {
        ExFreePoolWithTag(o->History, JETTY_TAG);
        o->History = NULL;
    }
    if (o->Ring) {
        o->Adapter->DmaOperations->FreeCommonBuffer(o->Adapter, ORRERY_RING, o->RingAddress,
                                                    o->Ring, TRUE);
        o->Ring = NULL;
    }
    if (o->Adapter) {
        o->Adapter->DmaOperations->PutDmaAdapter(o->Adapter);
        o->Adapter = NULL;
    }
    if (o->Regs) {
        MmUnmapIoSpace(o->Regs, ORRERY_MAPPED);
        o->Regs = NULL;
    }
}

/* No request is ever kept. */
static VOID OrreryGone(PVOID Ext)
{
    UNREFERENCED_PARAMETER(Ext);
}

static VOID OrreryPowerDown(PVOID Ext)
{
    PORRERY o = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&o->Lock, &irql);
    if (o->Started && o->Awake)
        OrreryHalt(o->Regs);
    o->Awake = FALSE;
    KeReleaseSpinLock(&o->Lock, irql);
}

static VOID OrreryPowerUp(PVOID Ext)
{
    PORRERY o = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&o->Lock, &irql);
    if (o->Started && !o->Awake) {
        o->Awake = TRUE;
        OrreryRun(o);
    }
    KeReleaseSpinLock(&o->Lock, irql);
}

static const JETTY_HOOKS OrreryHooks = {
    .Init = OrreryInit,
    .Start = OrreryStart,
    .Stop = OrreryStop,
    .Gone = OrreryGone,
    .PowerDown = OrreryPowerDown,
    .PowerUp = OrreryPowerUp,
    .RefuseStop = TRUE,
};

static NTSTATUS NTAPI OrreryAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return JettyAdd(Driver, Pdo, sizeof(ORRERY), &OrreryHooks, &OrreryInterface, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    JettyDriver(Driver, OrreryAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = OrreryControl;
    return STATUS_SUCCESS;
}
