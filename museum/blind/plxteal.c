/*
 * plxteal: two alarm inputs of a board behind a PLX PCI 9052, wired to its local interrupt lines, which latch edges. An input is enabled by a program, fires once and
 * is disabled then until a program enables it again; a program can wait for the next alarm.
 *
 * The bug: enabling and disabling an input reads, changes and writes INTCSR without being in step with the service routine, which does the same. If an alarm comes
 * between the read and the write, the input that has fired is enabled again, or what the service routine has written is lost.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost, data-race
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID TealFace = { 0x5d0c1c31, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x13, 0x01 } };

#define IOCTL_ENABLE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DISABLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_WAIT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x893, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COUNTS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x894, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define INTCSR         0x4C
#define   ENABLE_1       0x001u
#define   POLARITY_1     0x002u
#define   STATUS_1       0x004u
#define   ENABLE_2       0x008u
#define   POLARITY_2     0x010u
#define   STATUS_2       0x020u
#define   PCI_ENABLE     0x040u
#define   EDGE_1         0x100u
#define   EDGE_2         0x200u
#define   CLEAR_1        0x400u
#define   CLEAR_2        0x800u

typedef struct _COUNTS {
    ULONG Count[2];
    ULONG Unseen;                             /* inputs that have fired, of which no one has been informed */
} COUNTS;

typedef struct _TEAL {
    CRAFT Craft;
    QUAY Waiting;
    KSPIN_LOCK Lock;                          /* of Counts; before that of Waiting */
    COUNTS Counts;
    ULONG Wanted;                             /* ENABLE_1, ENABLE_2: what is put back behind D3 */
    volatile LONG Fired;                      /* from the service routine to the DPC: bits 0 and 1 */
} TEAL;

typedef struct _CHANGE {
    TEAL *Teal;
    ULONG Set, Reset;
} CHANGE;

static BOOLEAN NTAPI Change(PVOID context)
{
    CHANGE *c = context;
    const WINDOW *w = &c->Teal->Craft.Window[0];
    ULONG value = Rd(w, INTCSR) & ~(CLEAR_1 | CLEAR_2);
    value = (value & ~c->Reset) | c->Set;
    Wr(w, INTCSR, value);
    c->Teal->Wanted = (c->Teal->Wanted & ~c->Reset) | c->Set;
    return TRUE;
}

static NTSTATUS SetInputs(TEAL *t, PIRP irp, PIO_STACK_LOCATION sp, BOOLEAN on)
{
    ULONG inputs, bits;
    CHANGE c;
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof inputs)
        return STATUS_BUFFER_TOO_SMALL;
    inputs = *(ULONG *)irp->AssociatedIrp.SystemBuffer;
    if (inputs == 0 || inputs > 3)
        return STATUS_INVALID_PARAMETER;
    bits = (inputs & 1 ? ENABLE_1 : 0) | (inputs & 2 ? ENABLE_2 : 0);
    c.Teal = t;
    c.Set = on ? bits : 0;
    c.Reset = on ? 0 : bits;
#ifndef FIXED
    Change(&c);
#else
    CraftSync(&t->Craft, Change, &c);
#endif
    return STATUS_SUCCESS;
}

static BOOLEAN TealIsr(CRAFT *s)
{
    TEAL *t = (TEAL *)s;
    ULONG value = Rd(&s->Window[0], INTCSR);
    ULONG fired = 0;
    if (value == ~0u || !(value & PCI_ENABLE))
        return FALSE;
    value &= ~(CLEAR_1 | CLEAR_2);
    if ((value & (ENABLE_1 | STATUS_1)) == (ENABLE_1 | STATUS_1)) {
        fired |= 1;
        value = (value & ~ENABLE_1) | CLEAR_1;
        t->Wanted &= ~ENABLE_1;
    }
    if ((value & (ENABLE_2 | STATUS_2)) == (ENABLE_2 | STATUS_2)) {
        fired |= 2;
        value = (value & ~ENABLE_2) | CLEAR_2;
        t->Wanted &= ~ENABLE_2;
    }
    if (!fired)
        return FALSE;
    Wr(&s->Window[0], INTCSR, value);
    InterlockedOr(&t->Fired, (LONG)fired);
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

/* Tells one who waits what has fired that no one knows of. */
static void Tell(TEAL *t)
{
    ULONG unseen = 0;
    PIRP irp = NULL;
    KIRQL irql;
    KeAcquireSpinLock(&t->Lock, &irql);
    if (t->Counts.Unseen)
        irp = QuayTake(&t->Waiting, NULL);
    if (irp) {
        unseen = t->Counts.Unseen;
        t->Counts.Unseen = 0;
    }
    KeReleaseSpinLock(&t->Lock, irql);
    if (irp) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = unseen;
        CraftFinish(&t->Craft, irp, STATUS_SUCCESS, sizeof unseen);
    }
}

static void TealDpc(CRAFT *s)
{
    TEAL *t = (TEAL *)s;
    ULONG fired = (ULONG)InterlockedExchange(&t->Fired, 0);
    if (!fired)
        return;
    KeAcquireSpinLockAtDpcLevel(&t->Lock);
    if (fired & 1)
        t->Counts.Count[0]++;
    if (fired & 2)
        t->Counts.Count[1]++;
    t->Counts.Unseen |= fired;
    KeReleaseSpinLockFromDpcLevel(&t->Lock);
    Tell(t);
}

static NTSTATUS TealServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    TEAL *t = (TEAL *)s;
    KIRQL irql;
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ENABLE:
        return SetInputs(t, irp, sp, TRUE);
    case IOCTL_DISABLE:
        return SetInputs(t, irp, sp, FALSE);
    case IOCTL_WAIT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        QuayPut(&t->Waiting, irp);
        Tell(t);
        return STATUS_PENDING;
    case IOCTL_COUNTS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(COUNTS))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&t->Lock, &irql);
        *(COUNTS *)irp->AssociatedIrp.SystemBuffer = t->Counts;
        KeReleaseSpinLock(&t->Lock, irql);
        irp->IoStatus.Information = sizeof(COUNTS);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS TealStart(CRAFT *s)
{
    Wr(&s->Window[0], INTCSR, 0);
    return STATUS_SUCCESS;
}

static void TealArm(CRAFT *s)
{
    Wr(&s->Window[0], INTCSR, PCI_ENABLE | EDGE_1 | EDGE_2 | POLARITY_1 | POLARITY_2 | CLEAR_1 | CLEAR_2 | ((TEAL *)s)->Wanted);
}

static void TealDisarm(CRAFT *s)
{
    Wr(&s->Window[0], INTCSR, 0);
}

static void TealScuttle(CRAFT *s)
{
    QuayFlush(&((TEAL *)s)->Waiting, NULL, STATUS_DELETE_PENDING);
}

static void TealCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((TEAL *)s)->Waiting, file, STATUS_CANCELLED);
}

static NTSTATUS TealOutfit(CRAFT *s)
{
    TEAL *t = (TEAL *)s;
    KeInitializeSpinLock(&t->Lock);
    return QuayInit(&t->Waiting, &s->Lock);
}

static const PLAN TealPlan = {
    .Size = sizeof(TEAL),
    .Face = &TealFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 0x54 },
    .Line = TRUE,
    .Outfit = TealOutfit,
    .Start = TealStart,
    .Arm = TealArm,
    .Disarm = TealDisarm,
    .Scuttle = TealScuttle,
    .Isr = TealIsr,
    .Dpc = TealDpc,
    .Serve = TealServe,
    .Cleanup = TealCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &TealPlan);
}
