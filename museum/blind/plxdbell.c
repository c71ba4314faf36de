/*
 * plxdbell: two door bells on the local interrupt inputs of a PLX 9050: IOCTL_BELL_WAIT waits for the next ring of line 0 or 1 (a ring for which none
 * waits passes unnoticed). An input is enabled while a program waits for it and switched off by the interrupt routine when it has rung.
 *
 * The bug: a waiting program's request enables its input (the driver's copy of the enable bits, then INTCSR) without being in step with the interrupt
 * routine. When the other bell rings in between, one of the two changes is lost: the waiters of one line sleep on for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#define EE_INT
#define EE_CLEAN
#include "../include/framed_by_calls.h"

#define IOCTL_BELL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BELL_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)
#define P_INTCSR 0x4C
#define INT_PCI 0x040u
#define INT_BOTH_HIGH 0x012u
#define INT_BOTH_EDGE 0x300u
#define PLX_BYTES 128u
#define GONE 0xFFFFFFFFu
#define LINES 2

static const ULONG EnableBit[LINES] = { 0x001, 0x008 };
static const ULONG StatusBit[LINES] = { 0x004, 0x020 };
static const ULONG ClearBit[LINES] = { 0x400, 0x800 };

static const GUID BellGuid = { 0x7b1c0e72, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x0a } };

typedef struct _COUNTS {
    ULONG Rings[LINES];
} COUNTS;

typedef struct _DEV {
    EE Ee;                      /* first */
    PUCHAR Plx;
    ULONG PlxLen;
    KDPC Dpc;
    EEQ Wait[LINES];
    /* in step with the interrupt routine */
    ULONG Armed;                /* the enable bits in INTCSR; kept while the card is stopped or asleep */
    ULONG Rung;                 /* the same bits: rung since the last DPC */
    COUNTS Counts;
} DEV;

typedef struct _ARM {
    DEV *Dev;
    ULONG Line;
} ARM;

static VOID SetInt(DEV *d, ULONG clear)
{
    WRITE_REGISTER_ULONG((PULONG)(d->Plx + P_INTCSR), INT_PCI | INT_BOTH_HIGH | INT_BOTH_EDGE | d->Armed | clear);
}

static BOOLEAN DrvIsr(EE *ee)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG v = READ_REGISTER_ULONG((PULONG)(d->Plx + P_INTCSR)), rung = 0, clear = 0, i;

    if (v == GONE)
        return FALSE;
    for (i = 0; i < LINES; i++) {
        if ((v & StatusBit[i]) && (d->Armed & EnableBit[i])) {
            rung |= EnableBit[i];
            clear |= ClearBit[i];
            d->Counts.Rings[i]++;
        }
    }
    if (!rung)
        return FALSE;
    d->Armed &= ~rung;
    d->Rung |= rung;
    SetInt(d, clear);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI TakeRung(PVOID ctx)
{
    ARM *a = ctx;

    a->Line = a->Dev->Rung;
    a->Dev->Rung = 0;
    return TRUE;
}

static VOID NTAPI Dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    DEV *d = ctx;
    ARM a;
    ULONG i;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    a.Dev = d;
    a.Line = 0;
    EeSync(&d->Ee, TakeRung, &a);
    for (i = 0; i < LINES; i++) {
        if (a.Line & EnableBit[i])
            EeqFlush(&d->Wait[i], NULL, STATUS_SUCCESS);
    }
}

/* A line that comes into use: what it has latched before does not count. */
static BOOLEAN NTAPI Arm(PVOID ctx)
{
    ARM *a = ctx;
    DEV *d = a->Dev;
    ULONG clear = (d->Armed & EnableBit[a->Line]) ? 0 : ClearBit[a->Line];

    d->Armed |= EnableBit[a->Line];
    if (d->Ee.IntOn)
        SetInt(d, clear);
    return TRUE;
}

static NTSTATUS BellWait(DEV *d, PIRP irp, ULONG line)
{
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, d);
    ARM a;

    if (!NT_SUCCESS(st)) {
        EeqEnd(&d->Wait[line], irp, st, 0);
        return st;
    }
    EeqPut(&d->Wait[line], irp);        /* first wait, then enable: a ring in between would find none that waits */
    a.Dev = d;
    a.Line = line;
#ifdef FIXED
    EeSync(&d->Ee, Arm, &a);
#else
    Arm(&a);
#endif
    IoReleaseRemoveLock(&d->Ee.Remove, d);
    return STATUS_PENDING;
}

static BOOLEAN NTAPI BridgeOn(PVOID ctx)
{
    DEV *d = ctx;

    d->Ee.IntOn = TRUE;
    SetInt(d, ClearBit[0] | ClearBit[1]);
    return TRUE;
}

static BOOLEAN NTAPI BridgeOff(PVOID ctx)
{
    DEV *d = ctx;

    d->Ee.IntOn = FALSE;
    WRITE_REGISTER_ULONG((PULONG)(d->Plx + P_INTCSR), INT_BOTH_HIGH | INT_BOTH_EDGE | ClearBit[0] | ClearBit[1]);
    return TRUE;
}

typedef struct _COPY {
    DEV *Dev;
    COUNTS Counts;
} COPY;

static BOOLEAN NTAPI CopyCounts(PVOID ctx)
{
    COPY *c = ctx;

    c->Counts = c->Dev->Counts;
    return TRUE;
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    NTSTATUS st;
    EERES r;

    EeResources(list, &r);
    if (!r.Mems || r.MemLen[0] < PLX_BYTES || !r.HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->PlxLen = r.MemLen[0];
    d->Plx = MmMapIoSpace(r.Mem[0], d->PlxLen, MmNonCached);
    if (!d->Plx)
        return STATUS_INSUFFICIENT_RESOURCES;
    BridgeOff(d);
    st = EeConnect(ee, &r);
    if (!NT_SUCCESS(st)) {
        MmUnmapIoSpace(d->Plx, d->PlxLen);
        d->Plx = NULL;
        return st;
    }
    EeSync(ee, BridgeOn, d);            /* those who waited over a stop go on waiting */
    return st;
}

static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    if (touch)
        EeSync(ee, BridgeOff, d);
    EeDisconnect(ee);
    MmUnmapIoSpace(d->Plx, d->PlxLen);
    d->Plx = NULL;
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
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG i;

    for (i = 0; i < LINES; i++)
        EeqClose(&d->Wait[i], STATUS_DELETE_PENDING);
}

static VOID DrvClean(EE *ee, PFILE_OBJECT file)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG i;

    for (i = 0; i < LINES; i++)
        EeqFlush(&d->Wait[i], file, STATUS_CANCELLED);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);
    ULONG_PTR info = 0;
    ULONG line;
    COPY c;

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BELL_WAIT:
        st = STATUS_INVALID_PARAMETER;
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(line))
            break;
        RtlCopyMemory(&line, irp->AssociatedIrp.SystemBuffer, sizeof(line));
        if (line >= LINES)
            break;
        return BellWait(d, irp, line);
    case IOCTL_BELL_COUNTS:
        st = STATUS_BUFFER_TOO_SMALL;
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(c.Counts))
            break;
        c.Dev = d;
        EeSync(&d->Ee, CopyCounts, &c);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &c.Counts, sizeof(c.Counts));
        info = sizeof(c.Counts);
        st = STATUS_SUCCESS;
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    EeDone(irp, st, info);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    NTSTATUS st;
    ULONG i;
    EE *ee;
    DEV *d;

    st = EeNew(drv, pdo, sizeof(DEV), &ee);
    if (!NT_SUCCESS(st))
        return st;
    d = CONTAINING_RECORD(ee, DEV, Ee);
    KeInitializeDpc(&d->Dpc, Dpc, d);
    for (i = 0; i < LINES && NT_SUCCESS(st); i++)
        st = EeqInit(&d->Wait[i], &ee->Remove);
    if (!NT_SUCCESS(st)) {
        EeDelete(ee);
        return st;
    }
    return EeAttach(ee, &BellGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
