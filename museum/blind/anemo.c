/*
 * anemo: a wind gauge on a board behind a PLX PCI 9052. Each turn of the cups gives an edge on the first local interrupt; the service routine notes its
 * time in a ring, which programs read to reckon the wind and its gusts.
 *
 * The bug: the ring lives until the device is removed, so that a rebalancing of resources does not cost the gusts of the last minutes, but each start
 * allocates one: when the device is stopped and started again, the ring of before is lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_plx.h"

#define RING_TAG 'niwA'
#define TURNS 512
#define AT_A_TIME 64

#define IOCTL_ANEMO_TURNS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ANEMO_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID AnemoGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x09 } };

typedef struct _ANEMO {
    UNIT Unit;
    LONGLONG *Ring;             /* the interrupt's lock, as all below */
    ULONG Turns;                /* all of them; the last TURNS are in the ring */
} ANEMO;

/* What a program asks for; answered beside the service routine. */
typedef struct _ASKING {
    ANEMO *Anemo;
    ULONG From;                 /* the number of the first turn that it has not seen */
    ULONG Room;
    ULONG Given;
    LONGLONG Times[AT_A_TIME];
} ASKING;

static NTSTATUS AnemoPrepare(UNIT *U)
{
    ANEMO *Anemo = (ANEMO *)U;

#ifndef FIXED
    Anemo->Ring = ExAllocatePoolWithTag(NonPagedPool, TURNS * sizeof(LONGLONG), RING_TAG);
    if (!Anemo->Ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(Anemo->Ring, TURNS * sizeof(LONGLONG));
    Anemo->Turns = 0;
#else
    if (!Anemo->Ring) {
        Anemo->Ring = ExAllocatePoolWithTag(NonPagedPool, TURNS * sizeof(LONGLONG), RING_TAG);
        if (!Anemo->Ring)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlZeroMemory(Anemo->Ring, TURNS * sizeof(LONGLONG));
        Anemo->Turns = 0;
    }
#endif
    return STATUS_SUCCESS;
}

static VOID AnemoDead(UNIT *U)
{
    ANEMO *Anemo = (ANEMO *)U;

    if (Anemo->Ring)
        ExFreePoolWithTag(Anemo->Ring, RING_TAG);
    Anemo->Ring = NULL;
}

static VOID AnemoOn(UNIT *U)
{
    Poke(U, PLX_INTCSR, PLX_FIRST_INPUT | INT1_CLEAR);
}

static BOOLEAN AnemoIsr(UNIT *U)
{
    ANEMO *Anemo = (ANEMO *)U;

    if (!PlxFirstInput(U))
        return FALSE;
    Anemo->Ring[Anemo->Turns++ % TURNS] = KeQueryPerformanceCounter(NULL).QuadPart;
    return TRUE;
}

static BOOLEAN NTAPI Answer(PVOID Context)
{
    ASKING *Asking = Context;
    ANEMO *Anemo = Asking->Anemo;
    ULONG Number = Asking->From;

    if (Anemo->Turns - Number > TURNS)
        Number = Anemo->Turns < TURNS ? 0 : Anemo->Turns - TURNS;
    Asking->From = Number;
    while (Number != Anemo->Turns && Asking->Given < Asking->Room)
        Asking->Times[Asking->Given++] = Anemo->Ring[Number++ % TURNS];
    return TRUE;
}

static BOOLEAN NTAPI Count(PVOID Context)
{
    ASKING *Asking = Context;

    Asking->From = Asking->Anemo->Turns;
    return TRUE;
}

static NTSTATUS AnemoControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    ASKING Asking = { .Anemo = (ANEMO *)U };

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ANEMO_TURNS:
        if (In != sizeof(ULONG) || Out < sizeof(LONGLONG))
            return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
        Asking.From = *(PULONG)Data;
        Asking.Room = Out / sizeof(LONGLONG);
        if (Asking.Room > AT_A_TIME)
            Asking.Room = AT_A_TIME;
        if (!UnitSync(U, Answer, &Asking))
            return Finish(&U->Guard, Irp, STATUS_DEVICE_NOT_READY, 0);
        RtlCopyMemory(Data, Asking.Times, Asking.Given * sizeof(LONGLONG));
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, Asking.Given * sizeof(LONGLONG));
    case IOCTL_ANEMO_COUNT:
        if (Out < sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (!UnitSync(U, Count, &Asking))
            return Finish(&U->Guard, Irp, STATUS_DEVICE_NOT_READY, 0);
        *(PULONG)Data = Asking.From;
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE AnemoTrade = {
    .Size = sizeof(ANEMO),
    .Interface = &AnemoGuid,
    .Windows = 1,
    .Span = PLX_SPAN,
    .Prepare = AnemoPrepare,
    .On = AnemoOn,
    .Off = PlxQuiet,
    .Isr = AnemoIsr,
    .Dead = AnemoDead,
    .Control = AnemoControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &AnemoTrade);
}
