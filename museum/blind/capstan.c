/*
 * CAPSTAN: a chart recorder behind a PLX PCI 9052. Twenty times a second the driver notes what the board measures in a trace of the last minute; programs read
 * it. While the device sleeps or is paused there is nothing to note: the memory is given back, and the trace begins anew afterwards.
 *
 * The bug: when the device wakes up the memory for the trace is asked for again, and no one looks whether there was some; the next measurement is written to
 * where the trace would be.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-write, bad-pointer, wild-pointer, wild-read
 * Needs: failure, power
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define CAPSTAN_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'tpaC'
#define BOARD_VALUE 0x00
#define BOARD_LEAST 0x10
#define NOTES 1200
#define PERIOD 50

typedef struct _NOTE {
    ULONGLONG Time;
    ULONG Value;
    ULONG Number;
} NOTE;

typedef struct _STATE {
    ULONG Noted;
    ULONG Kept;
} STATE;

typedef struct _DEV {
    RIG Rig;
    PANE Chip;
    PANE Board;
    KTIMER Timer;
    KDPC Tick;
    NOTE *Trace;                    /* under the rig's lock, from here */
    ULONG Next;
    ULONG Count;
    ULONG Noted;
} DEV;

static const GUID Interface = { 0x6f1c02d4, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x04 } };

static VOID NTAPI Tick(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    DEV *dev = context;

    (void)dpc;
    (void)a;
    (void)b;
    KeAcquireSpinLockAtDpcLevel(&dev->Rig.Lock);
#ifndef FIXED
    if (RigLive(&dev->Rig)) {
#else
    if (RigLive(&dev->Rig) && dev->Trace != NULL) {
#endif
        NOTE *note = &dev->Trace[dev->Next];

        note->Time = KeQueryInterruptTime();
        note->Value = PaneRead(&dev->Board, BOARD_VALUE);
        note->Number = ++dev->Noted;
        dev->Next = (dev->Next + 1) % NOTES;
        if (dev->Count < NOTES)
            dev->Count++;
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Rig.Lock);
}

/* Lock held, or no one there yet. */
static VOID Forget(DEV *dev)
{
    if (dev->Trace != NULL)
        ExFreePoolWithTag(dev->Trace, TAG);
    dev->Trace = NULL;
    dev->Next = 0;
    dev->Count = 0;
}

static NTSTATUS CapstanBorn(RIG *rig)
{
    DEV *dev = (DEV *)rig;

    KeInitializeTimer(&dev->Timer);
    KeInitializeDpc(&dev->Tick, Tick, dev);
    return STATUS_SUCCESS;
}

static VOID CapstanDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS CapstanEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST list)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = PaneOpen(&dev->Chip, PlxChip(list), PLX_LEAST);
    NOTE *trace;
    KIRQL irql;

    if (NT_SUCCESS(status))
        status = PaneOpen(&dev->Board, PlxBoard(list), BOARD_LEAST);
    if (!NT_SUCCESS(status))
        return status;
    /* A recorder that cannot keep anything is not started at all. */
    trace = ExAllocatePoolWithTag(NonPagedPool, NOTES * sizeof(NOTE), TAG);
    if (trace == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&rig->Lock, &irql);
    dev->Trace = trace;
    KeReleaseSpinLock(&rig->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID CapstanStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    Forget(dev);
    KeReleaseSpinLock(&rig->Lock, irql);
    PaneShut(&dev->Board);
    PaneShut(&dev->Chip);
}

static VOID CapstanUp(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    LARGE_INTEGER due;

    PaneWrite(&dev->Chip, PLX_INTCSR, 0);
    if (dev->Trace == NULL)
        dev->Trace = ExAllocatePoolWithTag(NonPagedPool, NOTES * sizeof(NOTE), TAG);
    due.QuadPart = -10000LL * PERIOD;
    KeSetTimerEx(&dev->Timer, due, PERIOD, &dev->Tick);
}

static VOID CapstanDown(RIG *rig, BOOLEAN reachable)
{
    DEV *dev = (DEV *)rig;

    (void)reachable;
    KeCancelTimer(&dev->Timer);
    Forget(dev);
}

static NTSTATUS CapstanRead(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NOTE *into = task->Buffer;
    ULONG most = task->Out / sizeof(NOTE), i;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (most == 0)
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&rig->Lock, &irql);
    if (!RigLive(rig)) {
        status = RIG_HOLD;
#ifdef FIXED
    } else if (dev->Trace == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
#endif
    } else {
        if (most > dev->Count)
            most = dev->Count;
        for (i = 0; i < most; i++)
            into[i] = dev->Trace[(dev->Next + NOTES - most + i) % NOTES];
        task->Info = most * sizeof(NOTE);
    }
    KeReleaseSpinLock(&rig->Lock, irql);
    return status;
}

static NTSTATUS CapstanControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    STATE state;
    KIRQL irql;

    if (task->Code != CAPSTAN_STATE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (task->Out < sizeof(STATE))
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&rig->Lock, &irql);
    state.Noted = dev->Noted;
    state.Kept = dev->Count;
    KeReleaseSpinLock(&rig->Lock, irql);
    RtlCopyMemory(task->Buffer, &state, sizeof(state));
    task->Info = sizeof(state);
    return STATUS_SUCCESS;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = CapstanBorn,
    .Dead = CapstanDead,
    .Equip = CapstanEquip,
    .Strip = CapstanStrip,
    .Up = CapstanUp,
    .Down = CapstanDown,
    .Control = CapstanControl,
    .Read = CapstanRead,
};

static NTSTATUS NTAPI CapstanAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, CapstanAdd);
}
