/*
 * mortise: a byte pipe. Every open handle reads from and writes to the same 512-byte ring with ReadFile and WriteFile.
 * A write that does not fit waits, partly taken, until readers make room; a read of an empty pipe waits for bytes.
 * The bytes of one write come out together and in order, whatever other writers do. Waiting requests can be cancelled.
 *
 * The bug: a write of which the ring took only a part goes back to the end of the line instead of its head: with a
 * second writer waiting, that one's bytes come out in the middle of the first one's.
 *
 * Device: none
 * Rule: bytes of two writes mixed (a partly taken request put back behind the others)
 * Needs: ioctl
 */
#include "../include/keel_base.h"

#define RING 512
#define LINK L"\\DosDevices\\AjMortise"

typedef struct PIPE {
    KSPIN_LOCK lock;
    ULONG head;                 /* next byte to read */
    ULONG count;                /* bytes in the ring */
    LIST_ENTRY writers;         /* only while the ring is full */
    LIST_ENTRY readers;         /* only while it is empty */
    UCHAR ring[RING];
} PIPE;

static PDEVICE_OBJECT g_dev;

/* how many bytes of a waiting write the ring has taken already */
#define TAKEN(irp) aj_word(irp, 0)

static VOID pipe_cancel(PDEVICE_OBJECT dev, PIRP irp)
{
    PIPE *p = dev->DeviceExtension;
    KIRQL q;
    ULONG_PTR taken;

    IoReleaseCancelSpinLock(irp->CancelIrql);
    KeAcquireSpinLock(&p->lock, &q);
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&p->lock, q);
    taken = TAKEN(irp);
    aj_done(irp, taken ? STATUS_SUCCESS : STATUS_CANCELLED, taken);
}

static ULONG ring_in(PIPE *p, const UCHAR *src, ULONG n)
{
    ULONG i;

    if (n > RING - p->count)
        n = RING - p->count;
    for (i = 0; i < n; i++)
        p->ring[(p->head + p->count + i) % RING] = src[i];
    p->count += n;
    return n;
}

static ULONG ring_out(PIPE *p, UCHAR *dst, ULONG n)
{
    ULONG i;

    if (n > p->count)
        n = p->count;
    for (i = 0; i < n; i++)
        dst[i] = p->ring[(p->head + i) % RING];
    p->head = (p->head + n) % RING;
    p->count -= n;
    return n;
}

static void to_done(PLIST_ENTRY done, PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    InsertTailList(done, &irp->Tail.Overlay.ListEntry);
}

/* A write not wholly taken waits again. */
static void put_back_locked(PIPE *p, PIRP irp, PLIST_ENTRY done)
{
#ifdef FIXED
    InsertHeadList(&p->writers, &irp->Tail.Overlay.ListEntry);
#else
    InsertTailList(&p->writers, &irp->Tail.Overlay.ListEntry);
#endif
    (void)IoSetCancelRoutine(irp, pipe_cancel);
    if (irp->Cancel && IoSetCancelRoutine(irp, NULL)) {
        RemoveEntryList(&irp->Tail.Overlay.ListEntry);
        to_done(done, irp, TAKEN(irp) ? STATUS_SUCCESS : STATUS_CANCELLED, TAKEN(irp));
    }
}

/* Moves what can be moved: from writers into the ring, from the ring to readers. */
static void pump_locked(PIPE *p, PLIST_ENTRY done)
{
    BOOLEAN moved;
    PIRP irp;

    do {
        moved = FALSE;
        while (p->count < RING && (irp = aj_unpend_locked(&p->writers, NULL)) != NULL) {
            ULONG len = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
            UCHAR *b = irp->AssociatedIrp.SystemBuffer;

            aj_set_word(irp, 0, TAKEN(irp) + ring_in(p, b + TAKEN(irp), len - (ULONG)TAKEN(irp)));
            moved = TRUE;
            if (TAKEN(irp) == len)
                to_done(done, irp, STATUS_SUCCESS, len);
            else
                put_back_locked(p, irp, done);
        }
        while (p->count && (irp = aj_unpend_locked(&p->readers, NULL)) != NULL) {
            ULONG len = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;

            to_done(done, irp, STATUS_SUCCESS, ring_out(p, irp->AssociatedIrp.SystemBuffer, len));
            moved = TRUE;
        }
    } while (moved);
}

static void finish(PLIST_ENTRY done)
{
    PIRP irp;

    while ((irp = aj_pop_irp(done)) != NULL)
        IoCompleteRequest(irp, IO_NO_INCREMENT);
}

static NTSTATUS pipe_rw(PDEVICE_OBJECT dev, PIRP irp)
{
    PIPE *p = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    LIST_ENTRY done;
    KIRQL q;

    if ((write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length) == 0)
        return aj_done(irp, STATUS_SUCCESS, 0);
    InitializeListHead(&done);
    aj_set_word(irp, 0, 0);
    KeAcquireSpinLock(&p->lock, &q);
    if (!aj_pend_locked(write ? &p->writers : &p->readers, irp, pipe_cancel))
        to_done(&done, irp, STATUS_CANCELLED, 0);
    pump_locked(p, &done);
    KeReleaseSpinLock(&p->lock, q);
    finish(&done);
    return STATUS_PENDING;
}

/* The handle is closed: its waiting requests end; bytes it wrote stay in the pipe. */
static NTSTATUS pipe_cleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PIPE *p = dev->DeviceExtension;
    LIST_ENTRY done;
    PIRP w;
    KIRQL q;

    InitializeListHead(&done);
    KeAcquireSpinLock(&p->lock, &q);
    while ((w = aj_unpend_locked(&p->writers, aj_file(irp))) != NULL)
        to_done(&done, w, TAKEN(w) ? STATUS_SUCCESS : STATUS_CANCELLED, TAKEN(w));
    while ((w = aj_unpend_locked(&p->readers, aj_file(irp))) != NULL)
        to_done(&done, w, STATUS_CANCELLED, 0);
    KeReleaseSpinLock(&p->lock, q);
    finish(&done);
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS pipe_open(PDEVICE_OBJECT dev, PIRP irp)
{
    (void)dev;
    return aj_done(irp, STATUS_SUCCESS, 0);
}

static VOID pipe_unload(PDRIVER_OBJECT drv)
{
    (void)drv;
    aj_uncontrol(g_dev, LINK);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    NTSTATUS st = aj_control(drv, L"\\Device\\AjMortise", LINK, sizeof(PIPE), &g_dev);
    PIPE *p;

    (void)reg;
    if (!NT_SUCCESS(st))
        return st;
    p = g_dev->DeviceExtension;
    KeInitializeSpinLock(&p->lock);
    InitializeListHead(&p->writers);
    InitializeListHead(&p->readers);
    drv->MajorFunction[IRP_MJ_CREATE] = pipe_open;
    drv->MajorFunction[IRP_MJ_CLOSE] = pipe_open;
    drv->MajorFunction[IRP_MJ_CLEANUP] = pipe_cleanup;
    drv->MajorFunction[IRP_MJ_READ] = pipe_rw;
    drv->MajorFunction[IRP_MJ_WRITE] = pipe_rw;
    drv->DriverUnload = pipe_unload;
    return STATUS_SUCCESS;
}
