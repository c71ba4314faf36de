/*
 * plxmead: watches the two inputs of a weather station's board behind a PLX PCI 9052 (the pins LINTi1 and LINTi2, whose levels INTCSR shows) a hundred
 * times a second, and counts how often each has changed. There is no interrupt in it, but a timer that its own DPC sets again.
 *
 * The bug: when the board goes to sleep the timer is cancelled, but a DPC of it that runs just then does not notice: it reads the board without power and
 * sets the timer again, which goes on through all of the sleep.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power, schedule
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_plx.h"

#define PERIOD_MS       10
#define LEVEL_1         0x0004
#define LEVEL_2         0x0020

static const GUID MeadFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x0b } };

typedef struct _MEAD_COUNTS {
    ULONG Samples;
    ULONG Changes1, Changes2;
    ULONG Levels;
} MEAD_COUNTS;

typedef struct _DEV {
    FRAME F;
    KTIMER Timer;
    KDPC TimerDpc;
    BOOLEAN Known;              /* F.Lock, as all that follows: Counts.Levels is what was read last */
    MEAD_COUNTS Counts;
} DEV, *PDEV;

/* Under the lock. */
static VOID Arm(PDEV D)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * PERIOD_MS;
    KeSetTimer(&D->Timer, due, &D->TimerDpc);
}

/* Under the lock. */
static VOID Sample(PDEV D)
{
    ULONG csr = PlxRd(&D->F, PLX_INTCSR), levels, changed;

    if (csr == PLX_ALL_ONES)
        return;
    levels = csr & (LEVEL_1 | LEVEL_2);
    changed = D->Known ? levels ^ D->Counts.Levels : 0;
    if (changed & LEVEL_1)
        D->Counts.Changes1++;
    if (changed & LEVEL_2)
        D->Counts.Changes2++;
    D->Counts.Levels = levels;
    D->Counts.Samples++;
    D->Known = TRUE;
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEV d = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&d->F.Lock);
#ifndef FIXED
    if (d->F.Up) {
#else
    if (FrameLive(&d->F)) {
#endif
        Sample(d);
        Arm(d);
    }
    KeReleaseSpinLockFromDpcLevel(&d->F.Lock);
}

static NTSTATUS Setup(PFRAME F)
{
    PDEV d = (PDEV)F;

    KeInitializeTimer(&d->Timer);
    KeInitializeDpc(&d->TimerDpc, Tick, d);
    return STATUS_SUCCESS;
}

static VOID Ready(PFRAME F)
{
    PDEV d = (PDEV)F;

    d->Known = FALSE;
    Arm(d);
}

static VOID Lull(PFRAME F, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(Touch);
    KeCancelTimer(&((PDEV)F)->Timer);
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS status = FrameClaim(F, Translated);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxCheck(F);
    if (!NT_SUCCESS(status)) {
        FrameRelease(F);
        return status;
    }
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    FrameDown(F, Gone);
    FrameRelease(F);
}

static NTSTATUS Read(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;
    MEAD_COUNTS counts;
    KIRQL irql;

    if (Stack->Parameters.Read.Length < sizeof counts)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&F->Lock, &irql);
    counts = d->Counts;
    KeReleaseSpinLock(&F->Lock, irql);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &counts, sizeof counts);
    return Ends(Irp, STATUS_SUCCESS, sizeof counts);
}

/* Any write sets the counts to zero. */
static NTSTATUS Write(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PDEV d = (PDEV)F;
    KIRQL irql;

    KeAcquireSpinLock(&F->Lock, &irql);
    d->Counts.Samples = d->Counts.Changes1 = d->Counts.Changes2 = 0;
    KeReleaseSpinLock(&F->Lock, irql);
    return Ends(Irp, STATUS_SUCCESS, Stack->Parameters.Write.Length);
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &MeadFace,
    .Setup = Setup,
    .Start = Start,
    .Stop = Stop,
    .Ready = Ready,
    .Lull = Lull,
    .Read = Read,
    .Write = Write,
};
