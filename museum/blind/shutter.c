/*
 * shutter: a camera trigger card. It reports events by its interrupt, a bit each: exposure begun, exposure over, film out and the like; a program waits for events and gets the bits
 * of all that have come since the last time.
 *
 * The bug: the DPC takes the events that the service routine has collected by reading them and then writing zero, without keeping the service routine out. An event
 * that comes between the two is lost, and the program that waits for it is not informed.
 *
 * Device: PCI\VEN_1D6A&DEV_0703
 * Rule: data-race, irp-never-completed, request-forgotten
 * Needs: device, schedule
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID ShutterInterface = { 0x6a1f0d53, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x33 } };

#define IOCTL_SHUTTER_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers the events */
#define IOCTL_SHUTTER_CLICK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* exposure time in us */

/* of the card */
#define ENABLE 0x04
#define STATUS 0x08
#define ACK    0x0C
#define EXPOSE 0x10
#define EVENTS 0x0000FFFF

typedef struct _SHUTTER {
    STATION Station;
    CARD Card;
    BOOLEAN Awake;         /* these two under the interrupt's lock */
    ULONG Fresh;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    ULONG Seen;            /* by the DPC, not yet by a program; under Lock */
    PARK Waiters;
} SHUTTER;

#define REGISTERS(s) (&(s)->Card.Window[0])

static BOOLEAN NTAPI ShutterIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    SHUTTER *s = Context;
    ULONG v;
    UNREFERENCED_PARAMETER(Interrupt);
    if (!s->Awake)
        return FALSE;
    v = CardRead(REGISTERS(s), STATUS);
    if (v == 0xFFFFFFFF || !(v & EVENTS))
        return FALSE;
    CardWrite(REGISTERS(s), ACK, v & EVENTS);
    CardRead(REGISTERS(s), STATUS);
    s->Fresh |= v & EVENTS;
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI ShutterOnSync(PVOID Context)
{
    SHUTTER *s = Context;
    s->Fresh = 0;
    s->Awake = TRUE;
    CardWrite(REGISTERS(s), ENABLE, EVENTS);
    return TRUE;
}

static BOOLEAN NTAPI ShutterOffSync(PVOID Context)
{
    SHUTTER *s = Context;
    ULONG v;
    CardWrite(REGISTERS(s), ENABLE, 0);
    v = CardRead(REGISTERS(s), STATUS);
    if (v != 0xFFFFFFFF && (v & EVENTS))
        CardWrite(REGISTERS(s), ACK, v & EVENTS);
    CardRead(REGISTERS(s), STATUS);
    s->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI ShutterDeafSync(PVOID Context)
{
    ((SHUTTER *)Context)->Awake = FALSE;
    return TRUE;
}

/* Tells one who waits of all that was seen. */
static VOID ShutterTell(SHUTTER *S)
{
    ULONG seen;
    PIRP irp;
    KIRQL irql;
    for (;;) {
        KeAcquireSpinLock(&S->Lock, &irql);
        seen = S->Seen;
        S->Seen = 0;
        KeReleaseSpinLock(&S->Lock, irql);
        if (!seen)
            return;
        irp = ParkTake(&S->Waiters, NULL);
        if (irp) {
            *(ULONG *)irp->AssociatedIrp.SystemBuffer = seen;
            StationEnd(&S->Station, irp, STATUS_SUCCESS, sizeof seen);
            continue;
        }
        KeAcquireSpinLock(&S->Lock, &irql);
        S->Seen |= seen;
        KeReleaseSpinLock(&S->Lock, irql);
        if (ParkEmpty(&S->Waiters))
            return;
    }
}

#ifdef FIXED
static BOOLEAN NTAPI ShutterFetchSync(PVOID Context)
{
    PVOID *two = Context;
    SHUTTER *s = two[0];
    *(ULONG *)two[1] = s->Fresh;
    s->Fresh = 0;
    return TRUE;
}
#endif

static VOID NTAPI ShutterDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    SHUTTER *s = Context;
    ULONG fresh = 0;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
#ifndef FIXED
    fresh = s->Fresh;
    s->Fresh = 0;
#else
    PVOID two[2] = { s, &fresh };
    KeSynchronizeExecution(s->Card.Interrupt, ShutterFetchSync, two);
#endif
    if (!fresh)
        return;
    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    s->Seen |= fresh;
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
    ShutterTell(s);
}

static NTSTATUS ShutterAdded(STATION *S)
{
    SHUTTER *s = (SHUTTER *)S;
    KeInitializeSpinLock(&s->Lock);
    KeInitializeDpc(&s->Dpc, ShutterDpc, s);
    ParkInit(&s->Waiters, StationEnds, S);
    return STATUS_SUCCESS;
}

static NTSTATUS ShutterStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    SHUTTER *s = (SHUTTER *)S;
    NTSTATUS status = CardClaim(&s->Card, Translated);
    if (!NT_SUCCESS(status))
        return status;
    s->Awake = FALSE;
    s->Fresh = 0;
    status = CardHas(&s->Card, 0, 0x20) ? CardConnect(&s->Card, ShutterIsr, s) : STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!NT_SUCCESS(status)) {
        CardRelease(&s->Card);
        return status;
    }
    KeSynchronizeExecution(s->Card.Interrupt, ShutterOnSync, s);
    return STATUS_SUCCESS;
}

static VOID ShutterStop(STATION *S, BOOLEAN Reachable)
{
    SHUTTER *s = (SHUTTER *)S;
    KeSynchronizeExecution(s->Card.Interrupt, Reachable ? ShutterOffSync : ShutterDeafSync, s);
    KeFlushQueuedDpcs();
    CardDisconnect(&s->Card);
    CardRelease(&s->Card);
}

static VOID ShutterSleep(STATION *S)
{
    SHUTTER *s = (SHUTTER *)S;
    KeSynchronizeExecution(s->Card.Interrupt, ShutterOffSync, s);
    KeFlushQueuedDpcs();
}

static VOID ShutterWake(STATION *S)
{
    SHUTTER *s = (SHUTTER *)S;
    KeSynchronizeExecution(s->Card.Interrupt, ShutterOnSync, s);
}

static VOID ShutterAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    ParkFlush(&((SHUTTER *)S)->Waiters, File, Status);
}

static NTSTATUS ShutterIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    SHUTTER *s = (SHUTTER *)S;
    ULONG exposure;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SHUTTER_WAIT:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ParkWait(&s->Waiters, Irp);
        ShutterTell(s);
        return STATUS_PENDING;
    case IOCTL_SHUTTER_CLICK:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof exposure)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        exposure = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (!exposure || exposure > 10000000)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        CardWrite(REGISTERS(s), EXPOSE, exposure);
        return StationEnd(S, Irp, STATUS_SUCCESS, 0);
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(SHUTTER),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &ShutterInterface,
    .Added = ShutterAdded,
    .Start = ShutterStart,
    .Stop = ShutterStop,
    .Sleep = ShutterSleep,
    .Wake = ShutterWake,
    .Abandon = ShutterAbandon,
    .Io = ShutterIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
