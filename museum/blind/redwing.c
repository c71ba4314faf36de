/*
 * redwing: a counter card with a FIFO of 256 words. It interrupts when there is something in the FIFO; the driver fetches it into a ring, from which programs read. A
 * program can have all of it thrown away, and the driver does so itself before the device stops or sleeps, as old words are of no use behind that.
 *
 * The bug: the FIFO is emptied by reading until its level is zero. A card that has been pulled answers all reads with ones, so its level is never zero, and the loop
 * never ends, with the lock of the FIFO held.
 *
 * Device: PCI\VEN_1A8C&DEV_2F01
 * Rule: stuck, endless-loop, livelock, dpc-watchdog
 * Needs: removal
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID RedwingFace = { 0x5d0c1c41, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x14, 0x01 } };

#define IOCTL_DISCARD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LEVELS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_STATUS 0x04                       /* a one written clears its bit */
#define   FILLED     1u
#define   OVERFLOW   2u
#define REG_ENABLE 0x08
#define REG_LEVEL  0x0C
#define REG_FIFO   0x10
#define DEPTH      256                        /* of the card's FIFO */

#define RING       1024

typedef struct _LEVELS {
    ULONG Held;
    ULONG Lost;
    ULONG Overflows;
} LEVELS;

typedef struct _REDWING {
    CRAFT Craft;
    QUAY Readers;
    KSPIN_LOCK Lock;                          /* of the FIFO, the ring and the levels; before that of Readers */
    ULONG Ring[RING];
    ULONG First;
    LEVELS Levels;
    volatile LONG Cause;
} REDWING;

static const WINDOW *Regs(REDWING *r)
{
    return &r->Craft.Window[0];
}

/* With the lock. */
static void Keep(REDWING *r, ULONG word)
{
    if (r->Levels.Held == RING) {
        r->First = (r->First + 1) % RING;
        r->Levels.Held--;
        r->Levels.Lost++;
    }
    r->Ring[(r->First + r->Levels.Held++) % RING] = word;
}

/* With the lock. */
static void Fetch(REDWING *r)
{
    ULONG level = Rd(Regs(r), REG_LEVEL);
    if (level > DEPTH)
        return;                               /* no level a FIFO could have */
    while (level-- > 0)
        Keep(r, Rd(Regs(r), REG_FIFO));
}

static void Discard(REDWING *r)
{
    KIRQL irql;
#ifdef FIXED
    ULONG most = DEPTH, level;
#endif
    KeAcquireSpinLock(&r->Lock, &irql);
#ifndef FIXED
    while (Rd(Regs(r), REG_LEVEL) != 0)
        (void)Rd(Regs(r), REG_FIFO);
#else
    while (most-- > 0 && (level = Rd(Regs(r), REG_LEVEL)) != 0 && level <= DEPTH)
        (void)Rd(Regs(r), REG_FIFO);
#endif
    r->First = 0;
    r->Levels.Held = 0;
    KeReleaseSpinLock(&r->Lock, irql);
}

/* Gives words to those who wait. */
static void Feed(REDWING *r)
{
    for (;;) {
        PIRP irp = NULL;
        ULONG n = 0, words;
        KIRQL irql;
        KeAcquireSpinLock(&r->Lock, &irql);
        if (r->Levels.Held)
            irp = QuayTake(&r->Readers, NULL);
        if (irp) {
            ULONG *to = irp->AssociatedIrp.SystemBuffer;
            words = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG);
            for (n = 0; n < words && r->Levels.Held; n++) {
                to[n] = r->Ring[r->First];
                r->First = (r->First + 1) % RING;
                r->Levels.Held--;
            }
        }
        KeReleaseSpinLock(&r->Lock, irql);
        if (!irp)
            return;
        CraftFinish(&r->Craft, irp, STATUS_SUCCESS, n * sizeof(ULONG));
    }
}

static BOOLEAN RedwingIsr(CRAFT *s)
{
    REDWING *r = (REDWING *)s;
    ULONG cause = Rd(Regs(r), REG_STATUS);
    if (cause == ~0u || !(cause & (FILLED | OVERFLOW)))
        return FALSE;
    Wr(Regs(r), REG_STATUS, cause & (FILLED | OVERFLOW));
    InterlockedOr(&r->Cause, (LONG)(cause & (FILLED | OVERFLOW)));
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static void RedwingDpc(CRAFT *s)
{
    REDWING *r = (REDWING *)s;
    ULONG cause = (ULONG)InterlockedExchange(&r->Cause, 0);
    if (!cause)
        return;
    KeAcquireSpinLockAtDpcLevel(&r->Lock);
    if (cause & OVERFLOW)
        r->Levels.Overflows++;
    Fetch(r);
    KeReleaseSpinLockFromDpcLevel(&r->Lock);
    Feed(r);
}

static NTSTATUS RedwingServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    REDWING *r = (REDWING *)s;
    KIRQL irql;
    if (sp->MajorFunction == IRP_MJ_READ) {
        if (sp->Parameters.Read.Length < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        QuayPut(&r->Readers, irp);
        Feed(r);
        return STATUS_PENDING;
    }
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DISCARD:
        Discard(r);
        return STATUS_SUCCESS;
    case IOCTL_LEVELS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LEVELS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&r->Lock, &irql);
        *(LEVELS *)irp->AssociatedIrp.SystemBuffer = r->Levels;
        KeReleaseSpinLock(&r->Lock, irql);
        irp->IoStatus.Information = sizeof(LEVELS);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS RedwingStart(CRAFT *s)
{
    Wr(&s->Window[0], REG_ENABLE, 0);
    return STATUS_SUCCESS;
}

static void RedwingArm(CRAFT *s)
{
    Wr(&s->Window[0], REG_STATUS, FILLED | OVERFLOW);
    Wr(&s->Window[0], REG_ENABLE, FILLED | OVERFLOW);
}

static void RedwingDrain(CRAFT *s)
{
    Discard((REDWING *)s);
}

static void RedwingDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ENABLE, 0);
}

static void RedwingIdle(CRAFT *s)
{
    InterlockedExchange(&((REDWING *)s)->Cause, 0);
}

static void RedwingScuttle(CRAFT *s)
{
    QuayFlush(&((REDWING *)s)->Readers, NULL, STATUS_DELETE_PENDING);
}

static void RedwingCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((REDWING *)s)->Readers, file, STATUS_CANCELLED);
}

static NTSTATUS RedwingOutfit(CRAFT *s)
{
    REDWING *r = (REDWING *)s;
    KeInitializeSpinLock(&r->Lock);
    return QuayInit(&r->Readers, &s->Lock);
}

static const PLAN RedwingPlan = {
    .Size = sizeof(REDWING),
    .Face = &RedwingFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 0x14 },
    .Line = TRUE,
    .Outfit = RedwingOutfit,
    .Start = RedwingStart,
    .Arm = RedwingArm,
    .Drain = RedwingDrain,
    .Disarm = RedwingDisarm,
    .Idle = RedwingIdle,
    .Scuttle = RedwingScuttle,
    .Isr = RedwingIsr,
    .Dpc = RedwingDpc,
    .Serve = RedwingServe,
    .Cleanup = RedwingCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &RedwingPlan);
}
