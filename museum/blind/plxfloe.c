/*
 * plxfloe: time stamps of a pulse input behind a PLX PCI 9052. Each edge at LINTi1 is stamped by the interrupt's service routine into a ring; programs read the
 * stamps, eight bytes each, and wait if there are none.
 *
 * The bug: the ring is allocated when the interrupt is connected and switched on already. A pulse, or a neighbour on the line, that interrupts
 * in between finds no ring.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: bad-pointer, wild-write, wild-read, wild-pointer
 * Needs: device
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID FloeInterface = { 0x6a1f0d41, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x21 } };

#define IOCTL_FLOE_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers three ULONGs: calls, foreign, lost */

#define INTCSR 0x4C
#define INTCSR_LINT1       0x001
#define INTCSR_LINT1_HIGH  0x002
#define INTCSR_LINT1_IS    0x004
#define INTCSR_PCI         0x040
#define INTCSR_LINT1_EDGE  0x100
#define INTCSR_LINT1_CLEAR 0x400
#define INTCSR_ON (INTCSR_LINT1 | INTCSR_LINT1_HIGH | INTCSR_PCI | INTCSR_LINT1_EDGE)

#define STAMPS 64

typedef struct _RING {
    ULONG Calls, Foreign, Lost;
    ULONG First, Count;
    ULONGLONG Stamp[STAMPS];
} RING;

typedef struct _FLOE {
    STATION Station;
    CARD Card;
    RING *Ring;          /* and all in it, and Awake, under the interrupt's lock */
    BOOLEAN Awake;
    KDPC Dpc;
    PARK Readers;
} FLOE;

typedef struct _FETCH {
    FLOE *Floe;
    ULONGLONG *To;
    ULONG Most, Got;
    ULONG Counts[3];
} FETCH;

#define REGISTERS(f) (&(f)->Card.Window[0])

static BOOLEAN NTAPI FloeIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    FLOE *f = Context;
    RING *r = f->Ring;
    ULONG v;
    UNREFERENCED_PARAMETER(Interrupt);
    r->Calls++;
    v = f->Awake ? CardRead(REGISTERS(f), INTCSR) : 0;
    if (v == 0xFFFFFFFF || !(v & INTCSR_LINT1_IS) || !(v & INTCSR_PCI)) {
        r->Foreign++;
        return FALSE;
    }
    CardWrite(REGISTERS(f), INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
    CardRead(REGISTERS(f), INTCSR);
    if (r->Count < STAMPS) {
        r->Stamp[(r->First + r->Count) % STAMPS] = KeQueryInterruptTime();
        r->Count++;
    } else {
        r->Lost++;
    }
    KeInsertQueueDpc(&f->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI FloeOnSync(PVOID Context)
{
    FLOE *f = Context;
    f->Awake = TRUE;
    CardWrite(REGISTERS(f), INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI FloeOffSync(PVOID Context)
{
    FLOE *f = Context;
    CardWrite(REGISTERS(f), INTCSR, INTCSR_LINT1_CLEAR);
    CardRead(REGISTERS(f), INTCSR);
    f->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI FloeDeafSync(PVOID Context)
{
    ((FLOE *)Context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI FloeFetchSync(PVOID Context)
{
    FETCH *x = Context;
    RING *r = x->Floe->Ring;
    while (x->Got < x->Most && r->Count) {
        x->To[x->Got++] = r->Stamp[r->First];
        r->First = (r->First + 1) % STAMPS;
        r->Count--;
    }
    x->Counts[0] = r->Calls;
    x->Counts[1] = r->Foreign;
    x->Counts[2] = r->Lost;
    return r->Count != 0;   /* there are more */
}

/* Readers get what there is. Where the ring is: in dispatch inside the sluice, and in the DPC. */
static VOID FloeServe(FLOE *F)
{
    PIRP irp;
    FETCH none = { F, NULL, 0, 0, { 0 } };
    while (KeSynchronizeExecution(F->Card.Interrupt, FloeFetchSync, &none) && (irp = ParkTake(&F->Readers, NULL)) != NULL) {
        FETCH x = { F, irp->AssociatedIrp.SystemBuffer, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONGLONG), 0, { 0 } };
        KeSynchronizeExecution(F->Card.Interrupt, FloeFetchSync, &x);
        if (x.Got)
            StationEnd(&F->Station, irp, STATUS_SUCCESS, x.Got * sizeof(ULONGLONG));
        else
            ParkWait(&F->Readers, irp);   /* another has been quicker; the loop looks again */
    }
}

static VOID NTAPI FloeDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    FloeServe(Context);
}

static NTSTATUS FloeAdded(STATION *S)
{
    FLOE *f = (FLOE *)S;
    ParkInit(&f->Readers, StationEnds, S);
    KeInitializeDpc(&f->Dpc, FloeDpc, f);
    return STATUS_SUCCESS;
}

static VOID FloeStop(STATION *S, BOOLEAN Reachable)
{
    FLOE *f = (FLOE *)S;
    KeSynchronizeExecution(f->Card.Interrupt, Reachable ? FloeOffSync : FloeDeafSync, f);
    KeFlushQueuedDpcs();
    CardDisconnect(&f->Card);
    CardRelease(&f->Card);
    if (f->Ring)
        YyPut(f->Ring);
    f->Ring = NULL;
}

static NTSTATUS FloeStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    FLOE *f = (FLOE *)S;
    NTSTATUS status = CardClaim(&f->Card, Translated);
    if (!NT_SUCCESS(status))
        return status;
    f->Awake = FALSE;
    status = CardHas(&f->Card, 0, 0x54) ? STATUS_SUCCESS : STATUS_DEVICE_CONFIGURATION_ERROR;
#ifdef FIXED
    if (NT_SUCCESS(status)) {
        f->Ring = YyGet(sizeof *f->Ring);
        if (!f->Ring)
            status = STATUS_INSUFFICIENT_RESOURCES;
    }
#endif
    if (NT_SUCCESS(status))
        status = CardConnect(&f->Card, FloeIsr, f);
    if (!NT_SUCCESS(status)) {
        CardRelease(&f->Card);
        if (f->Ring)
            YyPut(f->Ring);
        f->Ring = NULL;
        return status;
    }
    KeSynchronizeExecution(f->Card.Interrupt, FloeOnSync, f);
#ifndef FIXED
    f->Ring = YyGet(sizeof *f->Ring);
    if (!f->Ring) {
        FloeStop(S, TRUE);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
#endif
    return STATUS_SUCCESS;
}

static VOID FloeSleep(STATION *S)
{
    FLOE *f = (FLOE *)S;
    KeSynchronizeExecution(f->Card.Interrupt, FloeOffSync, f);
    KeFlushQueuedDpcs();
}

static VOID FloeWake(STATION *S)
{
    FLOE *f = (FLOE *)S;
    KeSynchronizeExecution(f->Card.Interrupt, FloeOnSync, f);
}

static VOID FloeAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    ParkFlush(&((FLOE *)S)->Readers, File, Status);
}

static NTSTATUS FloeIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    FLOE *f = (FLOE *)S;
    if (Sp->MajorFunction == IRP_MJ_READ) {
        if (Sp->Parameters.Read.Length < sizeof(ULONGLONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ParkWait(&f->Readers, Irp);
        FloeServe(f);
        return STATUS_PENDING;
    }
    if (Sp->MajorFunction == IRP_MJ_DEVICE_CONTROL && Sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_FLOE_COUNTS) {
        FETCH x = { f, NULL, 0, 0, { 0 } };
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof x.Counts)
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeSynchronizeExecution(f->Card.Interrupt, FloeFetchSync, &x);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x.Counts, sizeof x.Counts);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof x.Counts);
    }
    return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const STATION_OPS StationOps = {
    .Size = sizeof(FLOE),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &FloeInterface,
    .Added = FloeAdded,
    .Start = FloeStart,
    .Stop = FloeStop,
    .Sleep = FloeSleep,
    .Wake = FloeWake,
    .Abandon = FloeAbandon,
    .Io = FloeIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
