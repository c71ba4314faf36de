/*
 * gantlet: an eight channel thermocouple card. A conversion is started by a write and its code read from a register; the driver makes it into tenths of
 * a degree with a table that it computes for the cold junction's temperature when the device starts.
 *
 * The bug: each start allocates the table anew, but only the removal frees it: a stop and start, as after a rebalance of resources, loses
 * the one that was there.
 *
 * Device: PCI\VEN_1CAB&DEV_0308
 * Rule: pool-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_GANTLET_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GANTLET_SCAN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC02, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GANTLET_RANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC03, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define GANTLET_TAG      'tnaG'
#define GANTLET_CHANNELS 8
#define GANTLET_CODES    1024
#define REG_JUNCTION     0x00                /* of the terminal block, in tenths of a degree */
#define REG_RANGE        0x04
#define REG_START        0x08
#define REG_CODE         0x0C                /* lower ten bits */

typedef struct GANTLET {
    WINDOW Regs;
    KSPIN_LOCK Lock;                         /* one conversion at a time */
    PLONG Table;
    ULONG Range;
} GANTLET;

static const GUID GantletGuid = { 0x4f1b7e90, 0x2d6a, 0x43c8, { 0xa1, 0x57, 0x3c, 0xab, 0x03, 0x08, 0x10, 0x0b } };

/* Type K, by two straight lines and the cold junction. */
static VOID GantletCompute(GANTLET *g, LONG junction)
{
    ULONG i;

    for (i = 0; i < GANTLET_CODES; i++) {
        LONG tenths = i < 512 ? (LONG)i * 12 : 512 * 12 + ((LONG)i - 512) * 11;

        g->Table[i] = tenths + junction;
    }
}

/* With the lock. */
static LONG GantletConvert(GANTLET *g, ULONG channel)
{
    WindowPut(&g->Regs, REG_START, 0x80 | channel);
    return g->Table[WindowGet(&g->Regs, REG_CODE) & (GANTLET_CODES - 1)];
}

static NTSTATUS GantletControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    GANTLET *g = d->Own;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG i;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GANTLET_READ:
        if (in < sizeof(ULONG) || buffer[0] >= GANTLET_CHANNELS)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        if (out < sizeof(LONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&g->Lock, &irql);
        buffer[0] = (ULONG)GantletConvert(g, buffer[0]);
        KeReleaseSpinLock(&g->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(LONG));
    case IOCTL_GANTLET_SCAN:
        if (out < GANTLET_CHANNELS * sizeof(LONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        for (i = 0; i < GANTLET_CHANNELS; i++) {
            KeAcquireSpinLock(&g->Lock, &irql);
            buffer[i] = (ULONG)GantletConvert(g, i);
            KeReleaseSpinLock(&g->Lock, irql);
        }
        return DepotEnd(d, irp, STATUS_SUCCESS, GANTLET_CHANNELS * sizeof(LONG));
    case IOCTL_GANTLET_RANGE:
        if (in < sizeof(ULONG) || buffer[0] > 3)
            return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&g->Lock, &irql);
        g->Range = buffer[0];
        WindowPut(&g->Regs, REG_RANGE, g->Range);
        KeReleaseSpinLock(&g->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS GantletUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    GANTLET *g = d->Own;
    const RES *r = ChartNth(list, TRUE, 0);
    ULONG junction;

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&g->Regs, r, 0x10))
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    if (g->Table == NULL)
#endif
    g->Table = Alloc(GANTLET_CODES * sizeof(LONG), GANTLET_TAG);
    if (g->Table == NULL) {
        WindowShut(&g->Regs);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    junction = WindowGet(&g->Regs, REG_JUNCTION);
    GantletCompute(g, junction < 1000 ? (LONG)junction : 230);
    WindowPut(&g->Regs, REG_RANGE, g->Range);
    return STATUS_SUCCESS;
}

static VOID GantletDown(DEPOT *d, BOOLEAN reach)
{
    GANTLET *g = d->Own;

    if (reach)
        WindowPut(&g->Regs, REG_START, 0);
    WindowShut(&g->Regs);
}

static VOID GantletSleep(DEPOT *d)
{
    GANTLET *g = d->Own;

    WindowPut(&g->Regs, REG_START, 0);
}

static VOID GantletWake(DEPOT *d)
{
    GANTLET *g = d->Own;

    WindowPut(&g->Regs, REG_RANGE, g->Range);
}

static NTSTATUS GantletPrepare(DEPOT *d)
{
    GANTLET *g = d->Own;

    KeInitializeSpinLock(&g->Lock);
    return STATUS_SUCCESS;
}

static VOID GantletDiscard(DEPOT *d)
{
    GANTLET *g = d->Own;

    if (g->Table != NULL)
        ExFreePoolWithTag(g->Table, GANTLET_TAG);
}

static const PLAN GantletPlan = {
    .Interface = &GantletGuid,
    .OwnSize = sizeof(GANTLET),
    .IoFlags = DO_BUFFERED_IO,
    .Prepare = GantletPrepare,
    .Discard = GantletDiscard,
    .Up = GantletUp,
    .Down = GantletDown,
    .Sleep = GantletSleep,
    .Wake = GantletWake,
    .Control = GantletControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return DepotMain(driver, &GantletPlan);
}
