/*
 * plxknot: a pattern generator behind a PLX PCI 9052, whose driver has come from NT 3.51: writes go through StartIo one by one into the
 * board's FIFO. It has been a WDM driver since Windows 2000.
 *
 * The bug: if the pages of a write cannot be mapped, StartIo completes the request and returns without IoStartNextPacket: the device stays
 * busy for ever, and all later writes stay in its queue.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: next-packet-not-started, request-forgotten, irp-never-completed, irp-forgotten, request-pending-after-remove
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define IOCTL_KNOT_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_KNOT_WORDS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define KNOT_MOST    256                     /* bytes of one write */
#define KNOT_FIFO    0x00
#define KNOT_STATUS  0x04
#define KNOT_FULL    0x01
#define KNOT_CONTROL 0x08
#define KNOT_RUN     0x01
#define KNOT_CLEAR   0x02

typedef struct KNOT {
    DEPOT *Depot;
    WINDOW Local;
    KSPIN_LOCK Lock;
    BOOLEAN Lit;
    ULONG Words;
} KNOT;

static const GUID KnotGuid = { 0x91d2be40, 0xf7a3, 0x4d15, { 0x86, 0x9b, 0x5c, 0x3a, 0x90, 0x50, 0x82, 0x06 } };

static VOID NTAPI KnotCancel(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;

    if (fdo->CurrentIrp == irp) {
        IoReleaseCancelSpinLock(irp->CancelIrql);       /* StartIo will get it, and finds it cancelled */
        return;
    }
    KeRemoveEntryDeviceQueue(&fdo->DeviceQueue, &irp->Tail.Overlay.DeviceQueueEntry);
    IoReleaseCancelSpinLock(irp->CancelIrql);
    DepotEnd(d, irp, STATUS_CANCELLED, 0);
}

static VOID NTAPI KnotStartIo(PDEVICE_OBJECT fdo, PIRP irp)
{
    DEPOT *d = fdo->DeviceExtension;
    KNOT *k = d->Own;
    ULONG i, words;
    PULONG pattern;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    KIRQL irql;

    IoAcquireCancelSpinLock(&irql);
    IoSetCancelRoutine(irp, NULL);
    IoReleaseCancelSpinLock(irql);
    if (irp->Cancel) {
        IoStartNextPacket(fdo, TRUE);
        DepotEnd(d, irp, STATUS_CANCELLED, 0);
        return;
    }

    pattern = IrpPages(irp);
    if (pattern == NULL) {
#ifndef FIXED
        DepotEnd(d, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        return;
#else
        IoStartNextPacket(fdo, TRUE);
        DepotEnd(d, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        return;
#endif
    }
    words = IrpHere(irp)->Parameters.Write.Length / sizeof(ULONG);
    KeAcquireSpinLockAtDpcLevel(&k->Lock);
    if (!k->Lit) {
        st = STATUS_DEVICE_NOT_READY;
    } else if (WindowGet(&k->Local, KNOT_STATUS) & KNOT_FULL) {
        st = STATUS_DEVICE_BUSY;
    } else {
        for (i = 0; i < words; i++)
            WindowPut(&k->Local, KNOT_FIFO, pattern[i]);
        WindowPut(&k->Local, KNOT_CONTROL, KNOT_RUN);
        k->Words += words;
        info = words * sizeof(ULONG);
    }
    KeReleaseSpinLockFromDpcLevel(&k->Lock);
    IoStartNextPacket(fdo, TRUE);
    DepotEnd(d, irp, st, info);
}

static NTSTATUS KnotWrite(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    ULONG length = sp->Parameters.Write.Length;

    if (length == 0)
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    if (length > KNOT_MOST || length % sizeof(ULONG) != 0)
        return DepotEnd(d, irp, STATUS_INVALID_PARAMETER, 0);
    IoMarkIrpPending(irp);
    IoStartPacket(d->Fdo, irp, NULL, KnotCancel);
    return STATUS_PENDING;
}

static NTSTATUS KnotControl(DEPOT *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    KNOT *k = d->Own;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KNOT_RESET:
        KeAcquireSpinLock(&k->Lock, &irql);
        WindowPut(&k->Local, KNOT_CONTROL, KNOT_CLEAR);
        WindowPut(&k->Local, KNOT_CONTROL, 0);
        k->Words = 0;
        KeReleaseSpinLock(&k->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, 0);
    case IOCTL_KNOT_WORDS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return DepotEnd(d, irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&k->Lock, &irql);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = k->Words;
        KeReleaseSpinLock(&k->Lock, irql);
        return DepotEnd(d, irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        return DepotEnd(d, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID KnotSwitch(KNOT *k, BOOLEAN lit, BOOLEAN reach)
{
    KIRQL irql;

    KeAcquireSpinLock(&k->Lock, &irql);
    k->Lit = lit;
    if (reach)
        WindowPut(&k->Local, KNOT_CONTROL, KNOT_CLEAR);
    KeReleaseSpinLock(&k->Lock, irql);
}

static NTSTATUS KnotUp(DEPOT *d, PCM_RESOURCE_LIST list)
{
    KNOT *k = d->Own;
    const RES *r = PlxLocal(list);

    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!WindowOpen(&k->Local, r, 0x10))
        return STATUS_INSUFFICIENT_RESOURCES;
    KnotSwitch(k, TRUE, TRUE);
    return STATUS_SUCCESS;
}

static VOID KnotDown(DEPOT *d, BOOLEAN reach)
{
    KNOT *k = d->Own;

    KnotSwitch(k, FALSE, reach);
    WindowShut(&k->Local);
}

static VOID KnotSleep(DEPOT *d)
{
    KnotSwitch(d->Own, FALSE, TRUE);
}

static VOID KnotWake(DEPOT *d)
{
    KnotSwitch(d->Own, TRUE, TRUE);
}

static NTSTATUS KnotPrepare(DEPOT *d)
{
    KNOT *k = d->Own;

    k->Depot = d;
    KeInitializeSpinLock(&k->Lock);
    IoSetStartIoAttributes(d->Fdo, TRUE, FALSE);   /* StartIo does not call itself */
    return STATUS_SUCCESS;
}

static const PLAN KnotPlan = {
    .Interface = &KnotGuid,
    .OwnSize = sizeof(KNOT),
    .IoFlags = DO_DIRECT_IO,
    .Prepare = KnotPrepare,
    .Up = KnotUp,
    .Down = KnotDown,
    .Sleep = KnotSleep,
    .Wake = KnotWake,
    .Write = KnotWrite,
    .Control = KnotControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    driver->DriverStartIo = KnotStartIo;
    return DepotMain(driver, &KnotPlan);
}
