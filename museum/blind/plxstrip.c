/*
 * plxstrip: a strip-chart sampler behind a PLX 9050: a read of up to 256 bytes asks the board for as many 16-bit samples, waits for LINTi1 and takes
 * them out of the board's FIFO.
 *
 * The bug: when the sweep is over the board says how many samples there are, and so many are copied, be they more than were asked for (two boards
 * in a chain, a FIFO not quite cleared): the rest goes behind the request's buffer.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, wild-write
 * Needs: device
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#define EE_QUEUE
#define EE_INT
#include "../include/framed_by_calls.h"

/* the bridge */
#define P_INTCSR 0x4C
#define INT1_ENABLE 0x001u
#define INT1_HIGH 0x002u
#define INT1_STATUS 0x004u
#define INT2_ENABLE 0x008u
#define INT_PCI 0x040u
#define INT1_EDGE 0x100u
#define PLX_BYTES 128u
/* the board's window: LINTi1 is high from the end of a sweep until CLEAR */
#define W_WANT 0x00             /* samples of the next sweep */
#define W_CONTROL 0x04
#define GO 1u
#define CLEAR 2u                /* ends the sweep, empties the FIFO */
#define W_COUNT 0x08            /* samples in the FIFO */
#define W_DATA 0x0C             /* the next of them */
#define W_STATE 0x10
#define SWEEPING 1u
#define W_BYTES 0x20u
#define GONE 0xFFFFFFFFu
#define MAX_SAMPLES 128u
#define LIMIT_MS 1000

static const GUID StripGuid = { 0x7b1c0e71, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x09 } };

typedef struct _DEV {
    EE Ee;                      /* first */
    PUCHAR Plx, Win;
    ULONG PlxLen, WinLen;
    KDPC Dpc;
    KSPIN_LOCK Card;
} DEV;

static ULONG Get(PUCHAR base, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(base + reg));
}

static VOID Set(PUCHAR base, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(base + reg), value);
}

static BOOLEAN DrvIsr(EE *ee)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG v = Get(d->Plx, P_INTCSR);

    if (v == GONE || (v & (INT1_ENABLE | INT1_STATUS | INT_PCI)) != (INT1_ENABLE | INT1_STATUS | INT_PCI))
        return FALSE;
    Set(d->Plx, P_INTCSR, v & ~INT1_ENABLE);        /* level: silent until the next sweep */
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* In step with the interrupt routine: LINTi1 on and off, the whole bridge on and off. */
static BOOLEAN NTAPI Int1On(PVOID ctx)
{
    DEV *d = ctx;

    if (d->Ee.IntOn)
        Set(d->Plx, P_INTCSR, Get(d->Plx, P_INTCSR) | INT1_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI Int1Off(PVOID ctx)
{
    DEV *d = ctx;

    Set(d->Plx, P_INTCSR, Get(d->Plx, P_INTCSR) & ~INT1_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI BridgeOn(PVOID ctx)
{
    DEV *d = ctx;
    ULONG v = Get(d->Plx, P_INTCSR) & ~(INT1_ENABLE | INT2_ENABLE | INT1_EDGE);

    Set(d->Win, W_CONTROL, CLEAR);
    Set(d->Plx, P_INTCSR, v | INT1_HIGH | INT_PCI);
    d->Ee.IntOn = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI BridgeOff(PVOID ctx)
{
    DEV *d = ctx;

    d->Ee.IntOn = FALSE;
    Set(d->Plx, P_INTCSR, Get(d->Plx, P_INTCSR) & ~(INT1_ENABLE | INT2_ENABLE | INT_PCI));
    Set(d->Win, W_CONTROL, CLEAR);
    return TRUE;
}

/* The sweep is over and the request is ours. */
static NTSTATUS TakeSamples(DEV *d, PIRP irp, PULONG bytes)
{
    PUSHORT out = irp->AssociatedIrp.SystemBuffer;
    ULONG want = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(USHORT);
    ULONG n = Get(d->Win, W_COUNT), i;

    *bytes = 0;
    if (n == GONE)
        return STATUS_DEVICE_NOT_CONNECTED;
#ifdef FIXED
    if (n > want)
        return STATUS_DEVICE_DATA_ERROR;
#else
    UNREFERENCED_PARAMETER(want);
#endif
    for (i = 0; i < n; i++)
        out[i] = (USHORT)Get(d->Win, W_DATA);
    if (Get(d->Plx, P_INTCSR) == GONE)              /* pulled meanwhile: those are no samples */
        return STATUS_DEVICE_NOT_CONNECTED;
    *bytes = n * sizeof(USHORT);
    return STATUS_SUCCESS;
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    DEV *d = ctx;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG bytes = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->Card);
    if (Get(d->Win, W_STATE) & SWEEPING) {          /* a spurious one, or of a sweep that was given up */
        EeSync(&d->Ee, Int1On, d);
    } else {
        irp = EeTake(&d->Ee);
        if (irp) {
            st = TakeSamples(d, irp, &bytes);
            Set(d->Win, W_CONTROL, CLEAR);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&d->Card);
    if (irp)
        EeFinish(&d->Ee, irp, st, bytes);
}

static VOID DrvBegin(EE *ee, PIRP irp)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    NTSTATUS st = STATUS_SUCCESS;

    KeAcquireSpinLockAtDpcLevel(&d->Card);
    Set(d->Win, W_CONTROL, CLEAR);                  /* whatever an earlier request has left */
    if (Get(d->Plx, P_INTCSR) == GONE) {
        st = STATUS_DEVICE_NOT_CONNECTED;
    } else if (Get(d->Win, W_STATE) & SWEEPING) {
        st = STATUS_DEVICE_BUSY;
    } else {
        EeArm(ee, irp, LIMIT_MS);
        Set(d->Win, W_WANT, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(USHORT));
        Set(d->Win, W_CONTROL, GO);
        EeSync(ee, Int1On, d);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Card);
    if (!NT_SUCCESS(st))
        EeFinish(ee, irp, st, 0);
}

static VOID DrvLimit(EE *ee, PIRP irp)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    KeAcquireSpinLockAtDpcLevel(&d->Card);
    EeSync(ee, Int1Off, d);
    Set(d->Win, W_CONTROL, CLEAR);
    KeReleaseSpinLockFromDpcLevel(&d->Card);
    EeFinish(ee, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    NTSTATUS st;
    ULONG w;
    EERES r;

    EeResources(list, &r);
    for (w = 1; w < r.Mems && r.MemLen[w] < W_BYTES; w++)
        ;
    if (w >= r.Mems || r.MemLen[0] < PLX_BYTES || !r.HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->PlxLen = r.MemLen[0];
    d->Plx = MmMapIoSpace(r.Mem[0], d->PlxLen, MmNonCached);
    if (!d->Plx)
        return STATUS_INSUFFICIENT_RESOURCES;
    d->WinLen = W_BYTES;
    d->Win = MmMapIoSpace(r.Mem[w], d->WinLen, MmNonCached);
    if (!d->Win) {
        st = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        Set(d->Plx, P_INTCSR, Get(d->Plx, P_INTCSR) & ~(INT1_ENABLE | INT2_ENABLE | INT_PCI));
        st = EeConnect(ee, &r);
        if (NT_SUCCESS(st)) {
            EeSync(ee, BridgeOn, d);
            return st;
        }
        MmUnmapIoSpace(d->Win, d->WinLen);
        d->Win = NULL;
    }
    MmUnmapIoSpace(d->Plx, d->PlxLen);
    d->Plx = NULL;
    return st;
}

static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    if (touch)
        EeSync(ee, BridgeOff, d);
    EeDisconnect(ee);
    MmUnmapIoSpace(d->Win, d->WinLen);
    MmUnmapIoSpace(d->Plx, d->PlxLen);
    d->Win = d->Plx = NULL;
}

static VOID DrvSleep(EE *ee)
{
    EeSync(ee, BridgeOff, CONTAINING_RECORD(ee, DEV, Ee));
    EeQuiet(ee);
}

static VOID DrvWake(EE *ee)
{
    EeSync(ee, BridgeOn, CONTAINING_RECORD(ee, DEV, Ee));
}

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);         /* nothing waits outside the frame's queue */
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT dev, PIRP irp)
{
    ULONG len = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (len && !(len % sizeof(USHORT)) && len <= MAX_SAMPLES * sizeof(USHORT))
        return EeSubmit(&d->Ee, irp);
    st = EeDone(irp, len ? STATUS_INVALID_PARAMETER : STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    EE *ee;
    DEV *d;
    NTSTATUS st = EeNew(drv, pdo, sizeof(DEV), &ee);

    if (!NT_SUCCESS(st))
        return st;
    d = CONTAINING_RECORD(ee, DEV, Ee);
    KeInitializeSpinLock(&d->Card);
    KeInitializeDpc(&d->Dpc, Dpc, d);
    return EeAttach(ee, &StripGuid, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_READ] = Read;
    return STATUS_SUCCESS;
}
