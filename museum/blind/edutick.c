/*
 * edutick: one factorial per request on QEMU's edu card, by interrupt: the card is set once to interrupt when a result is there, and each
 * request writes its number and waits for the interrupt.
 *
 * The bug: the "interrupt when done" bit is set when the device is started and nowhere else. The card loses it in D3: after the first sleep of the
 * machine every request runs into its time limit.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out
 * Needs: power
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#define EE_QUEUE
#define EE_INT
#include "../include/framed_by_calls.h"

#define IOCTL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define EDU_ID 0x010000EDu
#define R_ID 0x00
#define R_FACT 0x08
#define R_STATUS 0x20
#define R_INT 0x24
#define R_ACK 0x64
#define STATUS_COMPUTING 1u
#define STATUS_INT 0x80u
#define GONE 0xFFFFFFFFu
#define MIN_BYTES 0x100u
#define MAX_N 12u
#define LIMIT_MS 1000

static const GUID TickGuid = { 0x7b1c0e63, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x08 } };

typedef struct _DEV {
    EE Ee;                      /* first */
    PUCHAR Regs;
    ULONG RegsLen;
    KDPC Dpc;
    KSPIN_LOCK Card;
} DEV;

static ULONG Get(DEV *d, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(d->Regs + reg));
}

static VOID Set(DEV *d, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(d->Regs + reg), value);
}

static BOOLEAN DrvIsr(EE *ee)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG is = Get(d, R_INT);

    if (!is || is == GONE)
        return FALSE;
    Set(d, R_ACK, is);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* The interrupt may be that of a request which was given up: a card that still computes has not answered the active one. */
static VOID NTAPI Dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    DEV *d = ctx;
    ULONG result = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->Card);
    if (!(Get(d, R_STATUS) & STATUS_COMPUTING)) {
        irp = EeTake(&d->Ee);
        if (irp)
            result = Get(d, R_FACT);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Card);
    if (!irp)
        return;
    if (result == GONE) {               /* pulled in between */
        EeFinish(&d->Ee, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &result, sizeof(result));
    EeFinish(&d->Ee, irp, STATUS_SUCCESS, sizeof(result));
}

static VOID DrvBegin(EE *ee, PIRP irp)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    NTSTATUS st = STATUS_SUCCESS;
    ULONG s, n;

    RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof(n));
    KeAcquireSpinLockAtDpcLevel(&d->Card);
    s = Get(d, R_STATUS);
    if (s == GONE) {
        st = STATUS_DEVICE_NOT_CONNECTED;
    } else if (s & STATUS_COMPUTING) {  /* for one that was given up */
        st = STATUS_DEVICE_BUSY;
    } else {
        EeArm(ee, irp, LIMIT_MS);
        Set(d, R_FACT, n);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Card);
    if (!NT_SUCCESS(st))
        EeFinish(ee, irp, st, 0);
}

static VOID DrvLimit(EE *ee, PIRP irp)
{
    EeFinish(ee, irp, STATUS_IO_TIMEOUT, 0);
}

/* In step with the interrupt routine. */
static BOOLEAN NTAPI IntEnable(PVOID ctx)
{
    DEV *d = ctx;

    Set(d, R_ACK, Get(d, R_INT));
    Set(d, R_STATUS, STATUS_INT);
    d->Ee.IntOn = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI IntDisable(PVOID ctx)
{
    DEV *d = ctx;

    d->Ee.IntOn = FALSE;
    Set(d, R_STATUS, 0);
    Set(d, R_ACK, Get(d, R_INT));
    return TRUE;
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    NTSTATUS st = STATUS_DEVICE_CONFIGURATION_ERROR;
    EERES r;

    EeResources(list, &r);
    if (!r.Mems || r.MemLen[0] < MIN_BYTES || !r.HaveInt)
        return st;
    d->Regs = MmMapIoSpace(r.Mem[0], r.MemLen[0], MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    d->RegsLen = r.MemLen[0];
    if (Get(d, R_ID) == EDU_ID) {
        Set(d, R_STATUS, 0);
        Set(d, R_ACK, Get(d, R_INT));
        st = EeConnect(ee, &r);
        if (NT_SUCCESS(st)) {
            EeSync(ee, IntEnable, d);
            return st;
        }
    }
    MmUnmapIoSpace(d->Regs, d->RegsLen);
    d->Regs = NULL;
    return st;
}

static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    if (touch)
        EeSync(ee, IntDisable, d);
    EeDisconnect(ee);
    MmUnmapIoSpace(d->Regs, d->RegsLen);
    d->Regs = NULL;
}

static VOID DrvSleep(EE *ee)
{
    EeSync(ee, IntDisable, CONTAINING_RECORD(ee, DEV, Ee));
    EeQuiet(ee);
}

static VOID DrvWake(EE *ee)
{
#ifdef FIXED
    EeSync(ee, IntEnable, CONTAINING_RECORD(ee, DEV, Ee));
#else
    EeSync(ee, EeIntSetOn, ee);
#endif
}

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);         /* nothing waits outside the frame's queue */
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);
    ULONG n;

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACTORIAL) {
        st = STATUS_INVALID_DEVICE_REQUEST;
    } else if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
               sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        st = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(&n, irp->AssociatedIrp.SystemBuffer, sizeof(n));
        if (n <= MAX_N)
            return EeSubmit(&d->Ee, irp);
        st = STATUS_INVALID_PARAMETER;
    }
    EeDone(irp, st, 0);
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
    return EeAttach(ee, &TickGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
