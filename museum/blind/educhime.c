/*
 * educhime: chimes between programs by the edu card's doorbell: one raises interrupt bits, others wait for bits of their choice. A bit that has come
 * stays until a waiter takes it.
 *
 * The bug: the interrupt service routine hands the bits to its DPC as the DPC's argument. When the DPC is still queued from the interrupt before,
 * KeInsertQueueDpc does nothing and the bits are lost: the waiter sleeps for ever.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten, dpc-argument-lost
 * Needs: device, schedule
 */
#include <ddk/wdm.h>

#define XF_PARKING
#include "../include/held_gate.h"

#define CARD_ID 0x010000edu
#define REG_ID 0x00
#define REG_STATUS 0x20
#define REG_IRQ 0x24
#define REG_RAISE 0x60
#define REG_ACK 0x64
#define REG_BYTES 0x100
#define CHIMES 0x0000fffeu /* not the factorial's bit */
#define ONES 0xffffffffu

#define IOCTL_CHIME_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: bits (ULONG) */
#define IOCTL_CHIME_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)  /* in: bits; out: those that have come (ULONG) */

DRIVER_INITIALIZE DriverEntry;

/* {D5E6F708-192A-43B4-B5C6-D7E8F90A1B08} */
static const GUID ChimeGuid = {0xd5e6f708, 0x192a, 0x43b4, {0xb5, 0xc6, 0xd7, 0xe8, 0xf9, 0x0a, 0x1b, 0x08}};

typedef struct _CHIME {
    XF X;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Live;  /* guarded by the interrupt's lock, as is the next */
    ULONG Seen;
    KDPC Dpc;
    ULONG Pending; /* bits not taken yet; guarded by X.Lock */
} CHIME, *PCHIME;

static ULONG Get(PCHIME c, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(c->Regs + Register));
}

static VOID Put(PCHIME c, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(c->Regs + Register), Value);
}

/* Takes the bits that are up and sees that the DPC gets them. The interrupt's lock is held. */
static BOOLEAN Collect(PCHIME c)
{
    ULONG Irq = Get(c, REG_IRQ);

    if (Irq == 0 || Irq == ONES)
        return FALSE;
    Put(c, REG_ACK, Irq);
#ifdef FIXED
    c->Seen |= Irq;
    KeInsertQueueDpc(&c->Dpc, NULL, NULL);
#else
    KeInsertQueueDpc(&c->Dpc, (PVOID)(ULONG_PTR)Irq, NULL);
#endif
    return TRUE;
}

static BOOLEAN NTAPI ChimeIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PCHIME c = Context;

    UNREFERENCED_PARAMETER(Interrupt);
    return c->Live && Collect(c);
}

/* Lets the service routine look (or not). Touch: the card is there and awake. */
static VOID SetLive(PCHIME c, BOOLEAN Live, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(c->Interrupt);

    c->Live = Live;
    if (Touch) {
        Put(c, REG_STATUS, 0); /* no interrupts of the factorial */
        if (Live)
            Put(c, REG_ACK, Get(c, REG_IRQ)); /* nothing of ours */
        else
            Collect(c);
    }
    KeReleaseInterruptSpinLock(c->Interrupt, Irql);
}

static VOID NTAPI ChimeDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PCHIME c = Context;
    ULONG Bits;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument2);
#ifdef FIXED
    UNREFERENCED_PARAMETER(Argument1);
    Irql = KeAcquireInterruptSpinLock(c->Interrupt);
    Bits = c->Seen;
    c->Seen = 0;
    KeReleaseInterruptSpinLock(c->Interrupt, Irql);
#else
    Bits = (ULONG)(ULONG_PTR)Argument1;
#endif
    KeAcquireSpinLock(&c->X.Lock, &Irql);
    c->Pending |= Bits & CHIMES;
    KeReleaseSpinLock(&c->X.Lock, Irql);
    XfServe(&c->X);
}

/* X.Lock is held. */
static BOOLEAN DevTake(PXF x, PIRP Irp, BOOLEAN Take)
{
    PCHIME c = CONTAINING_RECORD(x, CHIME, X);
    ULONG Bits;

    RtlCopyMemory(&Bits, Irp->AssociatedIrp.SystemBuffer, sizeof(Bits));
    Bits &= c->Pending;
    if (Bits == 0)
        return FALSE;
    if (Take) {
        c->Pending &= ~Bits;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Bits, sizeof(Bits));
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Irp->IoStatus.Information = sizeof(Bits);
    }
    return TRUE;
}

/* Only ringing goes through the queue; it needs the card awake. */
static VOID DevIo(PXF x, PIRP Irp)
{
    PCHIME c = CONTAINING_RECORD(x, CHIME, X);
    ULONG Bits;

    RtlCopyMemory(&Bits, Irp->AssociatedIrp.SystemBuffer, sizeof(Bits));
    if (Get(c, REG_ID) != CARD_ID) {
        XfFinish(x, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    Put(c, REG_RAISE, Bits);
    XfFinish(x, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = s->Parameters.DeviceIoControl.IoControlCode, Bits;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || (Code != IOCTL_CHIME_RING && Code != IOCTL_CHIME_WAIT))
        return STATUS_INVALID_DEVICE_REQUEST;
    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&Bits, Irp->AssociatedIrp.SystemBuffer, sizeof(Bits));
    if (Bits == 0 || (Bits & ~CHIMES) != 0)
        return STATUS_INVALID_PARAMETER;
    if (Code == IOCTL_CHIME_RING)
        return STATUS_PENDING;
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    return XfPark(x, Irp);
}

static NTSTATUS DevInit(PXF x)
{
    PCHIME c = CONTAINING_RECORD(x, CHIME, X);

    KeInitializeDpc(&c->Dpc, ChimeDpc, c);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PCHIME c = CONTAINING_RECORD(x, CHIME, X);

    SetLive(c, FALSE, Alive);
    KeFlushQueuedDpcs(); /* what has been seen is served */
    IoDisconnectInterrupt(c->Interrupt);
    c->Interrupt = NULL;
    MmUnmapIoSpace(c->Regs, REG_BYTES);
    c->Regs = NULL;
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PCHIME c = CONTAINING_RECORD(x, CHIME, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = XfResource(List, CmResourceTypeMemory, 0), Line = XfResource(List, CmResourceTypeInterrupt, 0);
    NTSTATUS Status = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (Memory == NULL || Line == NULL || Memory->u.Memory.Length < REG_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    c->Regs = MmMapIoSpace(Memory->u.Memory.Start, REG_BYTES, MmNonCached);
    if (c->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(c, REG_ID) == CARD_ID) {
        Status = IoConnectInterrupt(&c->Interrupt, ChimeIsr, c, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                                    (KIRQL)Line->u.Interrupt.Level, (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
    }
    if (!NT_SUCCESS(Status)) {
        c->Interrupt = NULL;
        MmUnmapIoSpace(c->Regs, REG_BYTES);
        c->Regs = NULL;
        return Status;
    }
    SetLive(c, TRUE, TRUE);
    return STATUS_SUCCESS;
}

static VOID DevUp(PXF x)
{
    SetLive(CONTAINING_RECORD(x, CHIME, X), TRUE, TRUE);
}

static VOID DevDown(PXF x)
{
    SetLive(CONTAINING_RECORD(x, CHIME, X), FALSE, TRUE);
    KeFlushQueuedDpcs();
}

static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(CHIME), &ChimeGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
