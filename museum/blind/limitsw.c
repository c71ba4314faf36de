/*
 * limitsw: limit switches of a machine on a board with a PLX 9050. The board latches changes of 32 switches in its local window and raises LINTi1 (level);
 * programs wait for changes.
 *
 * The bug: the service routine masks the interrupt in the bridge and the DPC unmasks it when it has cleared the latches, also when the device has been
 * stopped or put to sleep in between. The line then stays up with no handler that knows it: an interrupt storm on a shared line, the machine hangs.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-storm
 * Needs: device
 */
#include <ddk/wdm.h>

#define XF_PARKING
#include "../include/held_gate.h"

#define LCR_BYTES 0x54u
#define LCR_INTCSR 0x4c
#define INTCSR_LINT1_ENABLE 0x01u
#define INTCSR_LINT1_HIGH 0x02u
#define INTCSR_LINT1_ACTIVE 0x04u
#define INTCSR_PCI_ENABLE 0x40u
#define INTCSR_ON (INTCSR_LINT1_ENABLE | INTCSR_LINT1_HIGH | INTCSR_PCI_ENABLE)
#define INTCSR_OFF (INTCSR_LINT1_ENABLE | INTCSR_LINT1_HIGH)

/* the board's window */
#define BOARD_BYTES 16u
#define BOARD_CHANGED 0 /* latched changes; write ones to clear */
#define BOARD_LEVELS 4  /* the switches as they are */

#define EVENTS 32u
#define ONES 0xffffffffu

typedef struct _LIMIT_EVENT {
    ULONG Changed;
    ULONG Levels;
    ULONG Number; /* running; a gap: events not fetched in time */
} LIMIT_EVENT;

#define IOCTL_LIMIT_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: LIMIT_EVENT */
#define IOCTL_LIMIT_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: levels (ULONG) */

DRIVER_INITIALIZE DriverEntry;

/* {F90A1B2C-3D4E-45F6-97F8-091A2B3C4D0A} */
static const GUID LimitGuid = {0xf90a1b2c, 0x3d4e, 0x45f6, {0x97, 0xf8, 0x09, 0x1a, 0x2b, 0x3c, 0x4d, 0x0a}};

typedef struct _LIMIT {
    XF X;
    PUCHAR Lcr;
    PUCHAR Board;
    PKINTERRUPT Interrupt;
    BOOLEAN Live; /* guarded by the interrupt's lock, as INTCSR is */
    KDPC Dpc;
    ULONG Number; /* guarded by X.Lock, as all that follows */
    ULONG First;
    ULONG Used;
    LIMIT_EVENT Event[EVENTS];
} LIMIT, *PLIMIT;

static ULONG GetIntcsr(PLIMIT l)
{
    return READ_REGISTER_ULONG((PULONG)(l->Lcr + LCR_INTCSR));
}

/* Reads back, so that it has arrived. */
static VOID PutIntcsr(PLIMIT l, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(l->Lcr + LCR_INTCSR), Value);
    GetIntcsr(l);
}

static ULONG GetBoard(PLIMIT l, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(l->Board + Register));
}

static BOOLEAN NTAPI LimitIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PLIMIT l = Context;
    ULONG Value;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!l->Live)
        return FALSE;
    Value = GetIntcsr(l);
    if (Value == ONES || !(Value & INTCSR_PCI_ENABLE) || !(Value & INTCSR_LINT1_ACTIVE))
        return FALSE;
    PutIntcsr(l, INTCSR_OFF);
    KeInsertQueueDpc(&l->Dpc, NULL, NULL);
    return TRUE;
}

static VOID AddEvent(PLIMIT l, ULONG Changed, ULONG Levels)
{
    LIMIT_EVENT *e;
    KIRQL Irql;

    KeAcquireSpinLock(&l->X.Lock, &Irql);
    if (l->Used == EVENTS) {
        l->First = (l->First + 1) % EVENTS;
        l->Used--;
    }
    e = &l->Event[(l->First + l->Used) % EVENTS];
    l->Used++;
    e->Changed = Changed;
    e->Levels = Levels;
    e->Number = l->Number++;
    KeReleaseSpinLock(&l->X.Lock, Irql);
}

static VOID NTAPI LimitDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PLIMIT l = Context;
    ULONG Changed, Levels;
    BOOLEAN Live;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Irql = KeAcquireInterruptSpinLock(l->Interrupt);
    Live = l->Live;
    KeReleaseInterruptSpinLock(l->Interrupt, Irql);
    if (!Live)
        return; /* a start or a wake-up looks at the latches */

    /* stop and power-down wait for this DPC before the registers go */
    Changed = GetBoard(l, BOARD_CHANGED);
    if (Changed != 0) {
        WRITE_REGISTER_ULONG((PULONG)(l->Board + BOARD_CHANGED), Changed);
        Levels = GetBoard(l, BOARD_LEVELS);
        if (Changed != ONES || GetIntcsr(l) != ONES)
            AddEvent(l, Changed, Levels);
    }
    Irql = KeAcquireInterruptSpinLock(l->Interrupt);
#ifdef FIXED
    if (l->Live)
#endif
        PutIntcsr(l, INTCSR_ON);
    KeReleaseInterruptSpinLock(l->Interrupt, Irql);
    XfServe(&l->X);
}

/* X.Lock is held. */
static BOOLEAN DevTake(PXF x, PIRP Irp, BOOLEAN Take)
{
    PLIMIT l = CONTAINING_RECORD(x, LIMIT, X);

    if (l->Used == 0)
        return FALSE;
    if (Take) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &l->Event[l->First], sizeof(LIMIT_EVENT));
        l->First = (l->First + 1) % EVENTS;
        l->Used--;
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Irp->IoStatus.Information = sizeof(LIMIT_EVENT);
    }
    return TRUE;
}

static VOID DevIo(PXF x, PIRP Irp)
{
    PLIMIT l = CONTAINING_RECORD(x, LIMIT, X);
    ULONG Levels = GetBoard(l, BOARD_LEVELS);

    if (Levels == ONES && GetIntcsr(l) == ONES) {
        XfFinish(x, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Levels, sizeof(Levels));
    XfFinish(x, Irp, STATUS_SUCCESS, sizeof(Levels));
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LIMIT_WAIT:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LIMIT_EVENT))
            return STATUS_BUFFER_TOO_SMALL;
        return XfPark(x, Irp);
    case IOCTL_LIMIT_GET:
        return s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS DevInit(PXF x)
{
    PLIMIT l = CONTAINING_RECORD(x, LIMIT, X);

    KeInitializeDpc(&l->Dpc, LimitDpc, l);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

/* Lets interrupts come; latches that are set already raise one. */
static VOID DevUp(PXF x)
{
    PLIMIT l = CONTAINING_RECORD(x, LIMIT, X);
    KIRQL Irql = KeAcquireInterruptSpinLock(l->Interrupt);

    l->Live = TRUE;
    PutIntcsr(l, INTCSR_ON);
    KeReleaseInterruptSpinLock(l->Interrupt, Irql);
}

static VOID Quiet(PLIMIT l, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(l->Interrupt);

    l->Live = FALSE;
    if (Touch)
        PutIntcsr(l, INTCSR_OFF);
    KeReleaseInterruptSpinLock(l->Interrupt, Irql);
    KeFlushQueuedDpcs();
}

static VOID DevDown(PXF x)
{
    Quiet(CONTAINING_RECORD(x, LIMIT, X), TRUE);
}

static VOID Unmap(PLIMIT l)
{
    if (l->Board != NULL)
        MmUnmapIoSpace(l->Board, BOARD_BYTES);
    if (l->Lcr != NULL)
        MmUnmapIoSpace(l->Lcr, LCR_BYTES);
    l->Board = NULL;
    l->Lcr = NULL;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PLIMIT l = CONTAINING_RECORD(x, LIMIT, X);

    Quiet(l, Alive);
    IoDisconnectInterrupt(l->Interrupt);
    l->Interrupt = NULL;
    Unmap(l);
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PLIMIT l = CONTAINING_RECORD(x, LIMIT, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Lcr = XfResource(List, CmResourceTypeMemory, 0), Board = XfResource(List, CmResourceTypeMemory, 1);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Line = XfResource(List, CmResourceTypeInterrupt, 0);
    NTSTATUS Status;

    if (Lcr == NULL || Board == NULL || Line == NULL || Lcr->u.Memory.Length < LCR_BYTES || Board->u.Memory.Length < BOARD_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l->Lcr = MmMapIoSpace(Lcr->u.Memory.Start, LCR_BYTES, MmNonCached);
    l->Board = MmMapIoSpace(Board->u.Memory.Start, BOARD_BYTES, MmNonCached);
    if (l->Lcr == NULL || l->Board == NULL) {
        Unmap(l);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (GetIntcsr(l) == ONES) {
        Unmap(l);
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    PutIntcsr(l, INTCSR_OFF);
    Status = IoConnectInterrupt(&l->Interrupt, LimitIsr, l, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive, Line->ShareDisposition == CmResourceShareShared,
                                Line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        l->Interrupt = NULL;
        Unmap(l);
        return Status;
    }
    DevUp(x);
    return STATUS_SUCCESS;
}

static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(LIMIT), &LimitGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
