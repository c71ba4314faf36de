/*
 * rotary: a selector switch with ten positions on the front of a board behind a PLX PCI 9052. Its position comes as a BCD digit on the four user pins, and
 * each step gives an edge on the first local interrupt. The driver counts how often each position was chosen.
 *
 * The bug: the digit from the pins is used as an index into ten counters as it is. Pins that float between two positions, a cable that is off and a card that has
 * been pulled give 10 to 15.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_plx.h"

#define SWITCH_TAG 'wStR'
#define POSITIONS 10
#define PINS 4

#define IOCTL_ROTARY_POSITION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ROTARY_COUNTS   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ROTARY_AWAIT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID RotaryGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x0d } };

typedef struct _ROTARY {
    UNIT Unit;
    LANE Wait;
    PULONG Chosen;              /* Unit.Hw, while the unit is Ready: a counter for each position */
} ROTARY;

static VOID RotaryBorn(UNIT *U)
{
    LaneInit(&((ROTARY *)U)->Wait, &U->Guard);
}

static NTSTATUS RotaryPrepare(UNIT *U)
{
    ROTARY *Rotary = (ROTARY *)U;

    Rotary->Chosen = ExAllocatePoolWithTag(NonPagedPool, POSITIONS * sizeof(ULONG), SWITCH_TAG);
    if (!Rotary->Chosen)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(Rotary->Chosen, POSITIONS * sizeof(ULONG));
    return STATUS_SUCCESS;
}

static VOID RotaryRelease(UNIT *U)
{
    ROTARY *Rotary = (ROTARY *)U;

    if (Rotary->Chosen)
        ExFreePoolWithTag(Rotary->Chosen, SWITCH_TAG);
    Rotary->Chosen = NULL;
}

static VOID RotaryOn(UNIT *U)
{
    ULONG Value = Peek(U, PLX_CNTRL), i;

    for (i = 0; i < PINS; i++)
        Value &= ~(USER_SELECT(i) | USER_OUT(i));
    Poke(U, PLX_CNTRL, Value);
    Poke(U, PLX_INTCSR, PLX_FIRST_INPUT | INT1_CLEAR);
}

/* Where the switch stands, which is counted. */
static NTSTATUS Look(ROTARY *Rotary, PULONG Position)
{
    UNIT *U = &Rotary->Unit;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Value, Digit = 0, i;
    KIRQL Irql;

    KeAcquireSpinLock(&U->Hw, &Irql);
    if (!U->Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else {
        Value = Peek(U, PLX_CNTRL);
        for (i = 0; i < PINS; i++)
            if (Value & USER_DATA(i))
                Digit |= 1u << i;
#ifdef FIXED
        if (Digit >= POSITIONS)
            Status = STATUS_DEVICE_DATA_ERROR;
        else
#endif
            Rotary->Chosen[Digit]++;
    }
    KeReleaseSpinLock(&U->Hw, Irql);
    *Position = Digit;
    return Status;
}

static BOOLEAN RotaryIsr(UNIT *U)
{
    if (!PlxFirstInput(U))
        return FALSE;
    KeInsertQueueDpc(&U->Dpc, NULL, NULL);
    return TRUE;
}

static VOID RotaryDpc(UNIT *U)
{
    ROTARY *Rotary = (ROTARY *)U;
    LIST_ENTRY Leaving;
    ULONG Position;
    PIRP Irp;

    if (!NT_SUCCESS(Look(Rotary, &Position)))
        return;
    InitializeListHead(&Leaving);
    while ((Irp = LaneTake(&Rotary->Wait, NULL)) != NULL)
        InsertTailList(&Leaving, &Irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&Leaving)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Leaving), IRP, Tail.Overlay.ListEntry);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Position;
        Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID RotaryAbandon(UNIT *U)
{
    LaneShut(&((ROTARY *)U)->Wait, STATUS_DELETE_PENDING);
}

static NTSTATUS RotaryCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LaneClear(&((ROTARY *)U)->Wait, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS RotaryControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ROTARY *Rotary = (ROTARY *)U;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Position;
    KIRQL Irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ROTARY_POSITION:
        if (Out < sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Status = Look(Rotary, &Position);
        if (NT_SUCCESS(Status))
            *Data = Position;
        return Finish(&U->Guard, Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
    case IOCTL_ROTARY_COUNTS:
        if (Out < POSITIONS * sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&U->Hw, &Irql);
        if (U->Ready)
            RtlCopyMemory(Data, Rotary->Chosen, POSITIONS * sizeof(ULONG));
        else
            Status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&U->Hw, Irql);
        return Finish(&U->Guard, Irp, Status, NT_SUCCESS(Status) ? POSITIONS * sizeof(ULONG) : 0);
    case IOCTL_ROTARY_AWAIT:
        if (Out < sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LaneAdd(&Rotary->Wait, Irp);
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE RotaryTrade = {
    .Size = sizeof(ROTARY),
    .Interface = &RotaryGuid,
    .Windows = 1,
    .Span = PLX_SPAN,
    .Born = RotaryBorn,
    .Prepare = RotaryPrepare,
    .Release = RotaryRelease,
    .On = RotaryOn,
    .Off = PlxQuiet,
    .Isr = RotaryIsr,
    .Dpc = RotaryDpc,
    .Abandon = RotaryAbandon,
    .Cleanup = RotaryCleanup,
    .Control = RotaryControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &RotaryTrade);
}
