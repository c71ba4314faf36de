/*
 * eduoath: gives receipts. A program hands in a number, the card computes its factorial, and the receipt has it together with a serial number. The
 * card does one at a time, the others wait.
 *
 * The bug: whether the card is free is looked at and then noted, in two steps. Two requests at once both find it free: the card ignores the second number as it is
 * computing, there is one interrupt for the two, and one of them is left waiting.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, request-forgotten, register-write-ignored, data-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID OathInterface = { 0x6a1f0d33, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x13 } };

#define IOCTL_OATH_RECEIPT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* ULONG; answers a RECEIPT */

#define EDU_ID        0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS    0x20
#define EDU_IRQ       0x24
#define EDU_ACK       0x64
#define STATUS_COMPUTING  0x01
#define STATUS_IRQ_BEHIND 0x80

#define FREE    0
#define HELD    1   /* a request is about to begin or to end */
#define RUNNING 2

typedef struct _RECEIPT {
    ULONG Number;
    ULONG Factorial;
    ULONG Serial;
} RECEIPT;

typedef struct _OATH {
    STATION Station;
    BELL Bell;
    PARK Waiting, Active;
    KSPIN_LOCK Lock;          /* between the begin of a computation and its end */
    volatile LONG State;
    LONG Halt;
    ULONG Number, Serial;
} OATH;

#define REGISTERS(o) (&(o)->Bell.Card.Window[0])

static BOOLEAN OathHold(OATH *O)
{
    if (InterlockedCompareExchange(&O->Halt, 0, 0))
        return FALSE;
#ifndef FIXED
    if (O->State != FREE)
        return FALSE;
    O->State = HELD;
    return TRUE;
#else
    return InterlockedCompareExchange(&O->State, HELD, FREE) == FREE;
#endif
}

static VOID OathPump(OATH *O)
{
    PIRP irp;
    KIRQL irql;
    while (OathHold(O)) {
        irp = ParkTake(&O->Waiting, NULL);
        if (irp) {
            O->Number = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
            ParkWait(&O->Active, irp);
            KeAcquireSpinLock(&O->Lock, &irql);
            InterlockedExchange(&O->State, RUNNING);
            CardWrite(REGISTERS(O), EDU_FACTORIAL, O->Number);
            KeReleaseSpinLock(&O->Lock, irql);
            return;
        }
        InterlockedExchange(&O->State, FREE);
        if (ParkEmpty(&O->Waiting))
            return;
    }
}

static VOID NTAPI OathDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    OATH *o = Context;
    BOOLEAN done;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (!BellFetch(&o->Bell))
        return;
    KeAcquireSpinLockAtDpcLevel(&o->Lock);
    done = InterlockedCompareExchange(&o->State, HELD, RUNNING) == RUNNING;
    KeReleaseSpinLockFromDpcLevel(&o->Lock);
    if (!done)
        return;
    irp = ParkTake(&o->Active, NULL);
    if (irp) {
        RECEIPT *r = irp->AssociatedIrp.SystemBuffer;
        r->Number = o->Number;
        r->Factorial = CardRead(REGISTERS(o), EDU_FACTORIAL);
        r->Serial = ++o->Serial;
        StationEnd(&o->Station, irp, STATUS_SUCCESS, sizeof *r);
    }
    InterlockedExchange(&o->State, FREE);
    OathPump(o);
}

static NTSTATUS OathAdded(STATION *S)
{
    OATH *o = (OATH *)S;
    KeInitializeSpinLock(&o->Lock);
    ParkInit(&o->Waiting, StationEnds, S);
    ParkInit(&o->Active, StationEnds, S);
    o->Halt = 1;
    BellInit(&o->Bell, OathDpc, o, EDU_IRQ, EDU_ACK, BELL_NO_ENABLE, 1);
    return STATUS_SUCCESS;
}

static VOID OathWake(STATION *S)
{
    OATH *o = (OATH *)S;
    LARGE_INTEGER nap;
    ULONG i, status;
    nap.QuadPart = -10000;   /* 1 ms */
    for (i = 0; i < 1000; i++) {   /* a computation from before a stop may not be over */
        status = CardRead(REGISTERS(o), EDU_STATUS);
        if (status == 0xFFFFFFFF || !(status & STATUS_COMPUTING))
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &nap);
    }
    BellOn(&o->Bell);
    CardWrite(REGISTERS(o), EDU_STATUS, STATUS_IRQ_BEHIND);
    InterlockedExchange(&o->Halt, 0);
    OathPump(o);
}

static NTSTATUS OathStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    OATH *o = (OATH *)S;
    NTSTATUS status = BellOpen(&o->Bell, Translated, 0x1000);
    if (!NT_SUCCESS(status))
        return status;
    if ((CardRead(REGISTERS(o), EDU_ID) & 0xFFFF) != 0x00ED) {
        BellClose(&o->Bell, TRUE);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    OathWake(S);
    return STATUS_SUCCESS;
}

/* With the card quiet: what it was at waits again. */
static VOID OathReset(OATH *O)
{
    PIRP irp;
    while ((irp = ParkTake(&O->Active, NULL)) != NULL)
        ParkWait(&O->Waiting, irp);
    InterlockedExchange(&O->State, FREE);
}

static VOID OathStop(STATION *S, BOOLEAN Reachable)
{
    OATH *o = (OATH *)S;
    InterlockedExchange(&o->Halt, 1);
    if (Reachable)
        CardWrite(REGISTERS(o), EDU_STATUS, 0);
    BellClose(&o->Bell, Reachable);
    OathReset(o);
}

static VOID OathSleep(STATION *S)
{
    OATH *o = (OATH *)S;
    InterlockedExchange(&o->Halt, 1);
    CardWrite(REGISTERS(o), EDU_STATUS, 0);
    BellOff(&o->Bell);
    OathReset(o);
}

static VOID OathAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    OATH *o = (OATH *)S;
    ParkFlush(&o->Waiting, File, Status);
    ParkFlush(&o->Active, File, Status);
}

static NTSTATUS OathIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    OATH *o = (OATH *)S;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL || Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_OATH_RECEIPT)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(RECEIPT) ||
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer > 100)
        return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
    ParkWait(&o->Waiting, Irp);
    OathPump(o);
    return STATUS_PENDING;
}

static const STATION_OPS StationOps = {
    .Size = sizeof(OATH),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &OathInterface,
    .Added = OathAdded,
    .Start = OathStart,
    .Stop = OathStop,
    .Sleep = OathSleep,
    .Wake = OathWake,
    .Abandon = OathAbandon,
    .Io = OathIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
