/*
 * linden: a trigger distribution card for test benches: eight trigger inputs, each of which can be armed. A program waits for the next trigger of an
 * input; the trigger disarms its input in the card's control register, and the program arms it again.
 *
 * The bug: the control register is read, changed and written back by programs' requests with a spin lock, and by the service routine
 * without: a trigger between the request's read and its write is armed again by the write, or an arming is lost.
 *
 * Device: PCI\VEN_1CAB&DEV_0508
 * Rule: register-update-race, register-update-lost, data-race
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_LINDEN_ARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC21, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LINDEN_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC22, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LINDEN_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC23, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LINDEN_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC24, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LINDEN_INPUTS 8
#define REG_STATUS    0x00                   /* triggers; a one written clears its bit */
#define REG_CONTROL   0x04                   /* a bit for each armed input */

typedef struct LINDEN {
    DEPOT *Depot;
    WINDOW Regs;
    WIRE Wire;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    volatile LONG Fired;
    ULONG Kept;                              /* the control register over a sleep */
    SIDING Waiting[LINDEN_INPUTS];
} LINDEN;

typedef struct CHANGE {
    LINDEN *Owner;
    ULONG Set, Clear;
    ULONG After;
} CHANGE;

static const GUID LindenGuid = { 0x2e8d40b1, 0x9f3c, 0x4c62, { 0xb3, 0x96, 0x3c, 0xab, 0x05, 0x08, 0x12, 0x0d } };

static BOOLEAN LindenIsr(PVOID context)
{
    LINDEN *l = context;
    ULONG fired = WindowGet(&l->Regs, REG_STATUS);

    if (fired == 0xFFFFFFFF || (fired & 0xFF) == 0)
        return FALSE;
    fired &= 0xFF;
    WindowPut(&l->Regs, REG_CONTROL, WindowGet(&l->Regs, REG_CONTROL) & ~fired);
    WindowPut(&l->Regs, REG_STATUS, fired);
    InterlockedOr(&l->Fired, (LONG)fired);
    KeInsertQueueDpc(&l->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI LindenApply(PVOID context)
{
    CHANGE *c = context;
    LINDEN *l = c->Owner;

    c->After = (WindowGet(&l->Regs, REG_CONTROL) | c->Set) & ~c->Clear;
    WindowPut(&l->Regs, REG_CONTROL, c->After);
    return TRUE;
}

/* Changes the control register; what it holds now. */
static ULONG LindenChange(LINDEN *l, ULONG set, ULONG clear)
{
    CHANGE c = { l, set, clear, 0 };
#ifndef FIXED
    KIRQL irql;

    KeAcquireSpinLock(&l->Lock, &irql);
    LindenApply(&c);
    KeReleaseSpinLock(&l->Lock, irql);
#else
    KeSynchronizeExecution(l->Wire.Object, LindenApply, &c);
#endif
    return c.After;
}

static VOID NTAPI LindenDpc(PKDPC dpc, PVOID context, PVOID x, PVOID y)
{
    LINDEN *l = context;
    ULONG fired = (ULONG)InterlockedExchange(&l->Fired, 0), i;
    LARGE_INTEGER now;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(y);
    KeQuerySystemTime(&now);
    for (i = 0; i < LINDEN_INPUTS; i++) {
        if (!(fired & (1UL << i)))
            continue;
        irp = SidingTake(&l->Waiting[i], NULL);      /* the first that waits, as the card has one shot */
        if (irp != NULL) {
            *(PLARGE_INTEGER)irp->AssociatedIrp.SystemBuffer = now;
            DepotEnd(l->Depot, irp, STATUS_SUCCESS, sizeof(now));
        }
    }
}

static NTSTATUS LindenControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    LINDEN *l = d->Own;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;

    if (code == IOCTL_LINDEN_STATE) {
        if (out < sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        *buffer = WindowGet(&l->Regs, REG_CONTROL) & 0xFF;
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (code != IOCTL_LINDEN_ARM && code != IOCTL_LINDEN_DISARM && code != IOCTL_LINDEN_WAIT)
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (in < sizeof(ULONG) || *buffer >= LINDEN_INPUTS)
        return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
    switch (code) {
    case IOCTL_LINDEN_ARM:
        LindenChange(l, 1UL << *buffer, 0);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    case IOCTL_LINDEN_DISARM:
        LindenChange(l, 0, 1UL << *buffer);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    default:
        if (out < sizeof(LARGE_INTEGER))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        return SidingPut(&l->Waiting[*buffer], irp);
    }
}

/* What was armed is armed again; the service routine is not called before WireLive. */
static VOID LindenLight(LINDEN *l)
{
    WindowPut(&l->Regs, REG_STATUS, 0xFF);
    WireLive(&l->Wire, TRUE);
    LindenChange(l, l->Kept, 0);
}

/* With the interrupt's lock. */
static BOOLEAN NTAPI LindenQuiet(PVOID context)
{
    LINDEN *l = context;

    l->Kept = WindowGet(&l->Regs, REG_CONTROL) & 0xFF;
    WindowPut(&l->Regs, REG_CONTROL, 0);
    WindowPut(&l->Regs, REG_STATUS, 0xFF);
    return TRUE;
}

static VOID LindenDark(LINDEN *l, BOOLEAN reach)
{
    if (reach)
        KeSynchronizeExecution(l->Wire.Object, LindenQuiet, l);
    WireLive(&l->Wire, FALSE);
    KeRemoveQueueDpc(&l->Dpc);
    KeFlushQueuedDpcs();
    InterlockedExchange(&l->Fired, 0);
}

static NTSTATUS LindenUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    LINDEN *l = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);
    NTSTATUS st;

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&l->Regs, r, 0x10))
        return STATUS_INSUFFICIENT_RESOURCES;
    WindowPut(&l->Regs, REG_CONTROL, 0);
    st = WireConnect(&l->Wire, ChartNth(list, FALSE, 0), LindenIsr, l);
    if (!NT_SUCCESS(st)) {
        WindowShut(&l->Regs);
        return st;
    }
    LindenLight(l);
    return STATUS_SUCCESS;
}

static VOID LindenDown(DEPOT *d, BOOLEAN reach)
{
    LINDEN *l = d->Own;

    LindenDark(l, reach);
    WireCut(&l->Wire);
    WindowShut(&l->Regs);
}

static VOID LindenSleep(DEPOT *d)
{
    LindenDark(d->Own, TRUE);
}

static VOID LindenWake(DEPOT *d)
{
    LindenLight(d->Own);
}

static NTSTATUS LindenPrepare(DEPOT *d)
{
    LINDEN *l = d->Own;
    ULONG i;

    l->Depot = d;
    KeInitializeSpinLock(&l->Lock);
    KeInitializeDpc(&l->Dpc, LindenDpc, l);
    for (i = 0; i < LINDEN_INPUTS; i++)
        SidingInit(&l->Waiting[i], &d->Lock, l);
    return STATUS_SUCCESS;
}

static VOID LindenPurge(DEPOT *d, PFILE_OBJECT file, NTSTATUS st)
{
    LINDEN *l = d->Own;
    ULONG i;

    for (i = 0; i < LINDEN_INPUTS; i++)
        SidingClear(&l->Waiting[i], file, st);
}

static const PLAN LindenPlan = {
    .Interface = &LindenGuid,
    .OwnSize = sizeof(LINDEN),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = LindenPrepare,
    .Up = LindenUp,
    .Down = LindenDown,
    .Sleep = LindenSleep,
    .Wake = LindenWake,
    .Purge = LindenPurge,
    .Control = LindenControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &LindenPlan);
}
