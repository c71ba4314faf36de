/*
 * rivulet: a stream of bytes from program to program. What is written comes out where it is read; a read waits until it
 * is full, and what no program reads is kept, up to 1 KiB. A read that is cancelled loses the bytes it has got.
 *
 * The bug: the driver remembers the read that it has filled in part, and forgets it when it is full, but not when it is
 * cancelled: the next bytes go to a buffer of a request that is completed.
 *
 * Device: Root\RIVULET
 * Rule: use-after-free, write-after-free, wild-write, bad-pointer, list-corrupt
 * Needs: ioctl, cancel
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_RIVULET_LEVEL     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RIVULET_DRAIN     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8d1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define STORE 1024

typedef struct RIVULET {
    FR_DEV fr;
    IO_CSQ csq;             /* reads; guard guards the bytes as well */
    KSPIN_LOCK guard;
    LIST_ENTRY reads;
    PIRP reader;            /* the one that is being filled */
    ULONG filled;
    BOOLEAN full;           /* it waits for being taken out */
    UCHAR byte[STORE];
    ULONG first, count;
} RIVULET;

#define RV(csq_) CONTAINING_RECORD(csq_, RIVULET, csq)

static UCHAR FullOne;       /* its address is what IoCsqRemoveNextIrp is asked for */

static VOID NTAPI Insert(PIO_CSQ csq, PIRP irp)
{
    InsertTailList(&RV(csq)->reads, &irp->Tail.Overlay.ListEntry);
}

static VOID NTAPI Remove(PIO_CSQ csq, PIRP irp)
{
    RemoveEntryList(&irp->Tail.Overlay.ListEntry);
#ifdef FIXED
    if (RV(csq)->reader == irp) {
        RV(csq)->reader = NULL;
        RV(csq)->full = FALSE;
    }
#else
    UNREFERENCED_PARAMETER(csq);
#endif
}

static PIRP NTAPI Peek(PIO_CSQ csq, PIRP irp, PVOID context)
{
    RIVULET *r = RV(csq);
    PLIST_ENTRY e;
    if (context == &FullOne) {
        PIRP full = r->full && r->reader != irp ? r->reader : NULL;
        if (full) {
            r->reader = NULL;
            r->full = FALSE;
        }
        return full;
    }
    for (e = irp ? irp->Tail.Overlay.ListEntry.Flink : r->reads.Flink; e != &r->reads; e = e->Flink) {
        PIRP next = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        if (!context || IoGetCurrentIrpStackLocation(next)->FileObject == (PFILE_OBJECT)context) {
#ifndef FIXED
            if (next == r->reader) {        /* it goes by its handle: begin anew with another */
                r->reader = NULL;
                r->full = FALSE;
            }
#endif
            return next;
        }
    }
    return NULL;
}

static VOID NTAPI Lock(PIO_CSQ csq, PKIRQL irql)
{
    KeAcquireSpinLock(&RV(csq)->guard, irql);
}

static VOID NTAPI Unlock(PIO_CSQ csq, KIRQL irql)
{
    KeReleaseSpinLock(&RV(csq)->guard, irql);
}

static VOID NTAPI Cancelled(PIO_CSQ csq, PIRP irp)
{
    FrFinish(&RV(csq)->fr, irp, STATUS_CANCELLED, 0);
}

/* Fills reads as far as there are bytes. */
static void Flow(RIVULET *r)
{
    PLIST_ENTRY e;
    KIRQL irql;
    PIRP irp;
    for (;;) {
        while ((irp = IoCsqRemoveNextIrp(&r->csq, &FullOne)) != NULL)
            FrFinish(&r->fr, irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length);
        KeAcquireSpinLock(&r->guard, &irql);
        if (r->full) {
            KeReleaseSpinLock(&r->guard, irql);
            continue;
        }
        for (e = r->reads.Flink; !r->reader && e != &r->reads; e = e->Flink) {
            irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
            if (!irp->Cancel) {
                r->reader = irp;
                r->filled = 0;
            }
        }
        if (!r->reader || !r->count) {
            KeReleaseSpinLock(&r->guard, irql);
            return;
        }
        while (r->count && !r->full) {
            PUCHAR out = r->reader->AssociatedIrp.SystemBuffer;
            out[r->filled++] = r->byte[r->first];
            r->first = (r->first + 1) % STORE;
            r->count--;
            r->full = r->filled == IoGetCurrentIrpStackLocation(r->reader)->Parameters.Read.Length;
        }
        KeReleaseSpinLock(&r->guard, irql);
    }
}

static NTSTATUS Make(FR_DEV *dev)
{
    RIVULET *r = (RIVULET *)dev;
    KeInitializeSpinLock(&r->guard);
    InitializeListHead(&r->reads);
    return IoCsqInitialize(&r->csq, Insert, Remove, Peek, Lock, Unlock, Cancelled);
}

static void End(RIVULET *r, PFILE_OBJECT file, NTSTATUS status)
{
    PIRP irp;
    while ((irp = IoCsqRemoveNextIrp(&r->csq, file)) != NULL)
        FrFinish(&r->fr, irp, status, 0);
}

static void Flush(FR_DEV *dev, NTSTATUS status)
{
    End((RIVULET *)dev, NULL, status);
}

static void Cleanup(FR_DEV *dev, PFILE_OBJECT file)
{
    End((RIVULET *)dev, file, STATUS_CANCELLED);
    Flow((RIVULET *)dev);
}

static NTSTATUS Io(FR_DEV *dev, PIRP irp, PIO_STACK_LOCATION at, PULONG_PTR info)
{
    RIVULET *r = (RIVULET *)dev;
    const UCHAR *in = irp->AssociatedIrp.SystemBuffer;
    ULONG length, n;
    KIRQL irql;
    switch (at->MajorFunction) {
    case IRP_MJ_READ:
        if (!at->Parameters.Read.Length)
            return STATUS_SUCCESS;
        IoCsqInsertIrp(&r->csq, irp, NULL);
        Flow(r);
        return STATUS_PENDING;
    case IRP_MJ_WRITE:
        length = at->Parameters.Write.Length;
        KeAcquireSpinLock(&r->guard, &irql);
        for (n = 0; n < length && r->count < STORE; n++) {
            r->byte[(r->first + r->count) % STORE] = in[n];
            r->count++;
        }
        KeReleaseSpinLock(&r->guard, irql);
        if (length && !n)
            return STATUS_DEVICE_BUSY;
        Flow(r);
        *info = n;
        return STATUS_SUCCESS;
    case IRP_MJ_DEVICE_CONTROL:
        switch (at->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_RIVULET_LEVEL:
            if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
                return STATUS_BUFFER_TOO_SMALL;
            KeAcquireSpinLock(&r->guard, &irql);
            *(PULONG)irp->AssociatedIrp.SystemBuffer = r->count;
            KeReleaseSpinLock(&r->guard, irql);
            *info = sizeof(ULONG);
            return STATUS_SUCCESS;
        case IOCTL_RIVULET_DRAIN:
            KeAcquireSpinLock(&r->guard, &irql);
            r->count = 0;
            KeReleaseSpinLock(&r->guard, irql);
            return STATUS_SUCCESS;
        }
        break;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const GUID Guid = { 0x5a1e0001, 0x7c1b, 0x4d0e, { 0x91, 0x2a, 0x00, 0x5a, 0x5a, 0x00, 0x00, 0x0d } };
static const FR_OPS Ops = {
    .guid = &Guid, .size = sizeof(RIVULET), .flags = DO_BUFFERED_IO, .make = Make,
    .flush = Flush, .cleanup = Cleanup, .io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return FrDriver(driver, &Ops);
}
