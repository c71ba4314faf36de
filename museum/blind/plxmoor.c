/*
 * plxmoor: mooring lights of a harbour board: four lines at the user pins of a PLX PCI 9052, which are looked at every 20 ms, and an emergency button at LINTi1.
 * A program waits until something differs from what it knows.
 *
 * The bug: the timer is set before the interrupt is connected. If the interrupt can not be connected the start fails, and the timer
 * goes on, on a device that has given its registers back and is deleted.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: freed-active-timer, bad-pointer, device-memory-not-mapped, use-after-free, wild-read
 * Needs: failure
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID MoorInterface = { 0x6a1f0d42, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x22 } };

#define IOCTL_MOOR_LOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers a MOORING */
#define IOCTL_MOOR_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* the change that is known; answers a MOORING */

#define INTCSR 0x4C
#define CNTRL  0x50
#define INTCSR_LINT1_IS    0x004
#define INTCSR_PCI         0x040
#define INTCSR_LINT1_CLEAR 0x400
#define INTCSR_ON          (0x001 | 0x002 | INTCSR_PCI | 0x100)   /* LINTi1, high, edge */
#define CNTRL_LINES 0x924   /* the data bits of USER0 to USER3 */

typedef struct _MOORING {
    ULONG Change;    /* how many changes there were */
    ULONG Lines;
    ULONG Presses;
} MOORING;

typedef struct _MOOR {
    STATION Station;
    CARD Card;
    BOOLEAN Awake;       /* these two under the interrupt's lock */
    ULONG Pressed;
    KDPC ButtonDpc, LookDpc;
    KTIMER Timer;
    KSPIN_LOCK Lock;
    MOORING Now;         /* under Lock */
    PARK Waiters;
} MOOR;

#define REGISTERS(m) (&(m)->Card.Window[0])

static BOOLEAN NTAPI MoorIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    MOOR *m = Context;
    ULONG v;
    UNREFERENCED_PARAMETER(Interrupt);
    if (!m->Awake)
        return FALSE;
    v = CardRead(REGISTERS(m), INTCSR);
    if (v == 0xFFFFFFFF || !(v & INTCSR_LINT1_IS) || !(v & INTCSR_PCI))
        return FALSE;
    CardWrite(REGISTERS(m), INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
    CardRead(REGISTERS(m), INTCSR);
    m->Pressed++;
    KeInsertQueueDpc(&m->ButtonDpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI MoorOnSync(PVOID Context)
{
    MOOR *m = Context;
    m->Awake = TRUE;
    CardWrite(REGISTERS(m), INTCSR, INTCSR_ON | INTCSR_LINT1_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI MoorOffSync(PVOID Context)
{
    MOOR *m = Context;
    CardWrite(REGISTERS(m), INTCSR, INTCSR_LINT1_CLEAR);
    CardRead(REGISTERS(m), INTCSR);
    m->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI MoorDeafSync(PVOID Context)
{
    ((MOOR *)Context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI MoorPressedSync(PVOID Context)
{
    PVOID *two = Context;
    MOOR *m = two[0];
    *(ULONG *)two[1] = m->Pressed;
    m->Pressed = 0;
    return TRUE;
}

static MOORING MoorNow(MOOR *M)
{
    MOORING now;
    KIRQL irql;
    KeAcquireSpinLock(&M->Lock, &irql);
    now = M->Now;
    KeReleaseSpinLock(&M->Lock, irql);
    return now;
}

/* All who wait are informed. */
static VOID MoorTell(MOOR *M)
{
    PIRP irp;
    while ((irp = ParkTake(&M->Waiters, NULL)) != NULL) {
        *(MOORING *)irp->AssociatedIrp.SystemBuffer = MoorNow(M);
        StationEnd(&M->Station, irp, STATUS_SUCCESS, sizeof(MOORING));
    }
}

static VOID NTAPI MoorButton(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    MOOR *m = Context;
    ULONG pressed = 0;
    PVOID two[2] = { m, &pressed };
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    KeSynchronizeExecution(m->Card.Interrupt, MoorPressedSync, two);
    if (!pressed)
        return;
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    m->Now.Presses += pressed;
    m->Now.Change++;
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    MoorTell(m);
}

static VOID NTAPI MoorLook(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    MOOR *m = Context;
    ULONG v = CardRead(REGISTERS(m), CNTRL);
    BOOLEAN changed;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (v == 0xFFFFFFFF)
        return;
    KeAcquireSpinLockAtDpcLevel(&m->Lock);
    changed = m->Now.Lines != (v & CNTRL_LINES);
    if (changed) {
        m->Now.Lines = v & CNTRL_LINES;
        m->Now.Change++;
    }
    KeReleaseSpinLockFromDpcLevel(&m->Lock);
    if (changed)
        MoorTell(m);
}

static VOID MoorSetTimer(MOOR *M)
{
    LARGE_INTEGER due;
    due.QuadPart = -200000;
    KeSetTimerEx(&M->Timer, due, 20, &M->LookDpc);
}

static NTSTATUS MoorAdded(STATION *S)
{
    MOOR *m = (MOOR *)S;
    KeInitializeSpinLock(&m->Lock);
    KeInitializeTimer(&m->Timer);
    KeInitializeDpc(&m->LookDpc, MoorLook, m);
    KeInitializeDpc(&m->ButtonDpc, MoorButton, m);
    ParkInit(&m->Waiters, StationEnds, S);
    return STATUS_SUCCESS;
}

static NTSTATUS MoorStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    MOOR *m = (MOOR *)S;
    NTSTATUS status = CardClaim(&m->Card, Translated);
    if (!NT_SUCCESS(status))
        return status;
    if (!CardHas(&m->Card, 0, 0x54)) {
        CardRelease(&m->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    m->Awake = FALSE;
    m->Pressed = 0;
    MoorSetTimer(m);
    status = CardConnect(&m->Card, MoorIsr, m);
    if (!NT_SUCCESS(status)) {
#ifdef FIXED
        KeCancelTimer(&m->Timer);
        KeFlushQueuedDpcs();
#endif
        CardRelease(&m->Card);
        return status;
    }
    KeSynchronizeExecution(m->Card.Interrupt, MoorOnSync, m);
    return STATUS_SUCCESS;
}

static VOID MoorStop(STATION *S, BOOLEAN Reachable)
{
    MOOR *m = (MOOR *)S;
    KeCancelTimer(&m->Timer);
    KeSynchronizeExecution(m->Card.Interrupt, Reachable ? MoorOffSync : MoorDeafSync, m);
    KeFlushQueuedDpcs();
    CardDisconnect(&m->Card);
    CardRelease(&m->Card);
}

static VOID MoorSleep(STATION *S)
{
    MOOR *m = (MOOR *)S;
    KeCancelTimer(&m->Timer);
    KeSynchronizeExecution(m->Card.Interrupt, MoorOffSync, m);
    KeFlushQueuedDpcs();
}

static VOID MoorWake(STATION *S)
{
    MOOR *m = (MOOR *)S;
    KeSynchronizeExecution(m->Card.Interrupt, MoorOnSync, m);
    MoorSetTimer(m);
}

static VOID MoorAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    ParkFlush(&((MOOR *)S)->Waiters, File, Status);
}

static NTSTATUS MoorIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    MOOR *m = (MOOR *)S;
    ULONG known;
    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MOOR_LOOK:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(MOORING))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(MOORING *)Irp->AssociatedIrp.SystemBuffer = MoorNow(m);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(MOORING));
    case IOCTL_MOOR_WAIT:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof known || Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(MOORING))
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        known = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        ParkWait(&m->Waiters, Irp);
        if (MoorNow(m).Change != known)
            MoorTell(m);   /* those who are informed what they know ask again */
        return STATUS_PENDING;
    default:
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static const STATION_OPS StationOps = {
    .Size = sizeof(MOOR),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &MoorInterface,
    .Added = MoorAdded,
    .Start = MoorStart,
    .Stop = MoorStop,
    .Sleep = MoorSleep,
    .Wake = MoorWake,
    .Abandon = MoorAbandon,
    .Io = MoorIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
