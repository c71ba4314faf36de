/*
 * canring: receives the frames of a CAN bus: the card's small FIFO is emptied into a ring of 128 frames, and reads (multiples of 24 bytes) get what
 * is there, or wait.
 *
 * The bug: the ring's counters are 16 bits wide and run on; the fill is their difference in int arithmetic, which is negative as soon as the counter
 * of the frames put in has wrapped: from the 65536th frame on the reads wait for ever and the frames in the ring are overwritten.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: request-forgotten
 * Needs: device
 *
 * The card: BAR0, 256 bytes of memory; an interrupt (shared).
 *   0x00 ID       0x0CA20002
 *   0x04 CONTROL  bit 0: receiver on; write 2: empty the FIFO
 *   0x08 STATUS   bit 0: frames in the FIFO (interrupts while it is set and enabled), bit 1: FIFO has overflowed (cleared by writing it as 1)
 *   0x0C ENABLE   bit 0: interrupt enable
 *   0x10 LEVEL    frames in the FIFO, 0 to 32
 *   0x20 IDENT, 0x24 LENGTH (low 4 bits), 0x28 and 0x2C DATA of the oldest frame; 0x30 POP: a write of 1 takes it out
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#define EE_INT
#define EE_CLEAN
#include "../include/framed_by_calls.h"

#define R_ID 0x00
#define CARD_ID 0x0CA20002u
#define R_CONTROL 0x04
#define C_ON 1u
#define C_EMPTY 2u
#define R_STATUS 0x08
#define S_FRAMES 1u
#define S_OVERFLOW 2u
#define R_ENABLE 0x0C
#define R_LEVEL 0x10
#define R_IDENT 0x20
#define R_LENGTH 0x24
#define R_DATA0 0x28
#define R_DATA1 0x2C
#define R_POP 0x30
#define CARD_BYTES 0x100u
#define CARD_FIFO 32u
#define GONE 0xFFFFFFFFu
#define RING 128                        /* a divisor of 65536: the counters may wrap */

static const GUID CanGuid = { 0x7b1c0e82, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x0d } };

typedef struct _FRAME {
    ULONGLONG Time;
    ULONG Ident;
    ULONG Length;                       /* 0 to 8; bit 31: frames before this one were lost */
    ULONG Data[2];
} FRAME;

C_ASSERT(sizeof(FRAME) == 24);

typedef struct _DEV {
    EE Ee;                              /* first */
    PUCHAR Regs;
    KDPC Dpc;
    EEQ Readers;
    KSPIN_LOCK Lock;                    /* the ring */
    USHORT In, Out;
    BOOLEAN Lost;
    FRAME Ring[RING];
} DEV;

static ULONG Get(DEV *d, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(d->Regs + reg));
}

static VOID Set(DEV *d, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(d->Regs + reg), value);
}

/* Frames in the ring; its lock is held. */
static int Fill(DEV *d)
{
#ifdef FIXED
    return (USHORT)(d->In - d->Out);
#else
    return d->In - d->Out;
#endif
}

static VOID RingPut(DEV *d, const FRAME *f)
{
    if (Fill(d) >= RING) {
        d->Lost = TRUE;
        return;
    }
    d->Ring[d->In % RING] = *f;
    if (d->Lost)
        d->Ring[d->In % RING].Length |= 0x80000000;
    d->Lost = FALSE;
    d->In++;
}

/* Gives the waiting reads what is there. */
static VOID Serve(DEV *d)
{
    LIST_ENTRY done;
    PIRP irp;
    PUCHAR out;
    ULONG room, n;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&d->Lock, &irql);
    while (Fill(d) > 0 && (irp = IoCsqRemoveNextIrp(&d->Readers.Csq, NULL)) != NULL) {
        out = irp->AssociatedIrp.SystemBuffer;
        room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(FRAME);
        for (n = 0; n < room && Fill(d) > 0; n++, out += sizeof(FRAME)) {
            RtlCopyMemory(out, &d->Ring[d->Out % RING], sizeof(FRAME));
            d->Out++;
        }
        irp->IoStatus.Information = n * sizeof(FRAME);
        InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&d->Lock, irql);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        EeqEnd(&d->Readers, irp, STATUS_SUCCESS, irp->IoStatus.Information);
    }
}

/* STATUS bit 0 stays until the FIFO is empty: silence until the DPC has emptied it. */
static BOOLEAN DrvIsr(EE *ee)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG s = Get(d, R_STATUS);

    if (s == GONE || !(s & S_FRAMES) || !(Get(d, R_ENABLE) & 1))
        return FALSE;
    Set(d, R_ENABLE, 0);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI IntEnable(PVOID ctx)
{
    DEV *d = ctx;

    if (d->Ee.IntOn)
        Set(d, R_ENABLE, 1);
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    DEV *d = ctx;
    ULONG level, s;
    FRAME f;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    s = Get(d, R_STATUS);
    level = Get(d, R_LEVEL);
    if (s != GONE && (s & S_OVERFLOW)) {
        Set(d, R_STATUS, S_OVERFLOW);
        d->Lost = TRUE;
    }
    if (level != GONE && level > CARD_FIFO)
        level = CARD_FIFO;
    while (level != GONE && level--) {
        f.Time = KeQueryInterruptTime();
        f.Ident = Get(d, R_IDENT);
        f.Length = Get(d, R_LENGTH);
        f.Data[0] = Get(d, R_DATA0);
        f.Data[1] = Get(d, R_DATA1);
        if (f.Length == GONE)                   /* pulled */
            break;
        f.Length &= 0xF;
        if (f.Length > 8)
            f.Length = 8;
        Set(d, R_POP, 1);
        RingPut(d, &f);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    EeSync(&d->Ee, IntEnable, d);
    Serve(d);
}

static BOOLEAN NTAPI CardOn(PVOID ctx)
{
    DEV *d = ctx;

    d->Ee.IntOn = TRUE;
    Set(d, R_CONTROL, C_EMPTY);
    Set(d, R_STATUS, S_OVERFLOW);
    Set(d, R_CONTROL, C_ON);
    Set(d, R_ENABLE, 1);
    return TRUE;
}

static BOOLEAN NTAPI CardOff(PVOID ctx)
{
    DEV *d = ctx;

    d->Ee.IntOn = FALSE;
    Set(d, R_ENABLE, 0);
    Set(d, R_CONTROL, C_EMPTY);
    return TRUE;
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    NTSTATUS st = STATUS_DEVICE_CONFIGURATION_ERROR;
    EERES r;

    EeResources(list, &r);
    if (!r.Mems || r.MemLen[0] < CARD_BYTES || !r.HaveInt)
        return st;
    d->Regs = MmMapIoSpace(r.Mem[0], CARD_BYTES, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(d, R_ID) == CARD_ID) {
        CardOff(d);
        st = EeConnect(ee, &r);
        if (NT_SUCCESS(st)) {
            EeSync(ee, CardOn, d);
            return st;
        }
    }
    MmUnmapIoSpace(d->Regs, CARD_BYTES);
    d->Regs = NULL;
    return st;
}

static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    if (touch)
        EeSync(ee, CardOff, d);
    EeDisconnect(ee);
    MmUnmapIoSpace(d->Regs, CARD_BYTES);
    d->Regs = NULL;
}

static VOID DrvSleep(EE *ee)
{
    EeSync(ee, CardOff, CONTAINING_RECORD(ee, DEV, Ee));
    EeQuiet(ee);
}

static VOID DrvWake(EE *ee)
{
    EeSync(ee, CardOn, CONTAINING_RECORD(ee, DEV, Ee));
}

static VOID DrvGone(EE *ee)
{
    EeqClose(&CONTAINING_RECORD(ee, DEV, Ee)->Readers, STATUS_DELETE_PENDING);
}

static VOID DrvClean(EE *ee, PFILE_OBJECT file)
{
    EeqFlush(&CONTAINING_RECORD(ee, DEV, Ee)->Readers, file, STATUS_CANCELLED);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT dev, PIRP irp)
{
    ULONG len = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (len < sizeof(FRAME) || len % sizeof(FRAME)) {
        st = EeDone(irp, STATUS_INVALID_PARAMETER, 0);
        IoReleaseRemoveLock(&d->Ee.Remove, irp);
        return st;
    }
    st = IoAcquireRemoveLock(&d->Ee.Remove, d);         /* of this call: the request's own goes with the request */
    if (!NT_SUCCESS(st)) {
        EeqEnd(&d->Readers, irp, st, 0);
        return st;
    }
    EeqPut(&d->Readers, irp);
    Serve(d);
    IoReleaseRemoveLock(&d->Ee.Remove, d);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    NTSTATUS st;
    EE *ee;
    DEV *d;

    st = EeNew(drv, pdo, sizeof(DEV), &ee);
    if (!NT_SUCCESS(st))
        return st;
    d = CONTAINING_RECORD(ee, DEV, Ee);
    KeInitializeSpinLock(&d->Lock);
    KeInitializeDpc(&d->Dpc, Dpc, d);
    st = EeqInit(&d->Readers, &ee->Remove);
    if (!NT_SUCCESS(st)) {
        EeDelete(ee);
        return st;
    }
    return EeAttach(ee, &CanGuid, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_READ] = Read;
    return STATUS_SUCCESS;
}
