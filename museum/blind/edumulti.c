/*
 * edumulti: factorials of up to sixteen numbers in one request on QEMU's edu card, without its interrupt: a timer looks every millisecond whether the
 * card has the next result.
 *
 * The bug: a request that the card did not answer in time is given up, and the next one does not look whether the card still works on the number of
 * the former: its own number is ignored by the busy card and it gets the former's result.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: device
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#define EE_QUEUE
#include "../include/framed_by_calls.h"

#define IOCTL_FACTORIALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define EDU_ID 0x010000EDu
#define R_ID 0x00
#define R_LIVE 0x04
#define R_FACT 0x08
#define R_STATUS 0x20
#define R_INT 0x24
#define R_ACK 0x64
#define STATUS_COMPUTING 1u
#define GONE 0xFFFFFFFFu
#define MIN_BYTES 0x100u
#define MAX_NUMBERS 16u
#define MAX_N 12u               /* 13! has more than 32 bits */
#define LIMIT 100u * 10000u     /* 100 ms for one number, in 100 ns */

static const GUID MultiGuid = { 0x7b1c0e62, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x07 } };

typedef struct _DEV {
    EE Ee;                      /* first */
    PUCHAR Regs;
    ULONG RegsLen;
    /* of the active request */
    ULONG Count, Index;
    ULONGLONG Until;            /* when the number under way is given up */
    ULONG Numbers[MAX_NUMBERS], Results[MAX_NUMBERS];
} DEV;

static ULONG Get(DEV *d, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(d->Regs + reg));
}

static VOID Set(DEV *d, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(d->Regs + reg), value);
}

/* The card is known to be idle. */
static VOID NextNumber(DEV *d, PIRP irp)
{
    d->Until = KeQueryInterruptTime() + LIMIT;
    Set(d, R_FACT, d->Numbers[d->Index]);
    EeArm(&d->Ee, irp, 1);
}

static VOID DrvBegin(EE *ee, PIRP irp)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG s = Get(d, R_STATUS);

    if (s == GONE) {
        EeFinish(ee, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
#ifdef FIXED
    if (s & STATUS_COMPUTING) {         /* for a request that was given up; it cannot be stopped */
        EeFinish(ee, irp, STATUS_DEVICE_BUSY, 0);
        return;
    }
#endif
    d->Count = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength / sizeof(ULONG);
    d->Index = 0;
    RtlCopyMemory(d->Numbers, irp->AssociatedIrp.SystemBuffer, d->Count * sizeof(ULONG));
    NextNumber(d, irp);
}

/* The millisecond is over: is the result there? */
static VOID DrvLimit(EE *ee, PIRP irp)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG s = Get(d, R_STATUS), bytes;

    if (s == GONE) {
        EeFinish(ee, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
    if (s & STATUS_COMPUTING) {
        if (KeQueryInterruptTime() >= d->Until)
            EeFinish(ee, irp, STATUS_IO_TIMEOUT, 0);
        else
            EeArm(ee, irp, 1);
        return;
    }
    d->Results[d->Index] = Get(d, R_FACT);
    if (d->Results[d->Index] == GONE) {             /* pulled between the two readings; no factorial looks like that */
        EeFinish(ee, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return;
    }
    if (++d->Index < d->Count) {
        NextNumber(d, irp);
        return;
    }
    bytes = d->Count * sizeof(ULONG);
    RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, d->Results, bytes);
    EeFinish(ee, irp, STATUS_SUCCESS, bytes);
}

/* Its interrupt is never used: off with it, the line is shared. */
static VOID CardQuiet(DEV *d)
{
    Set(d, R_STATUS, 0);
    Set(d, R_ACK, Get(d, R_INT));
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    NTSTATUS st = STATUS_DEVICE_CONFIGURATION_ERROR;
    EERES r;

    EeResources(list, &r);
    if (!r.Mems || r.MemLen[0] < MIN_BYTES)
        return st;
    d->Regs = MmMapIoSpace(r.Mem[0], r.MemLen[0], MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    d->RegsLen = r.MemLen[0];
    if (Get(d, R_ID) == EDU_ID) {
        Set(d, R_LIVE, 0x5A0FF0A5);
        if (Get(d, R_LIVE) == ~0x5A0FF0A5u) {
            CardQuiet(d);
            return STATUS_SUCCESS;
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
        CardQuiet(d);
    MmUnmapIoSpace(d->Regs, d->RegsLen);
    d->Regs = NULL;
}

static VOID DrvSleep(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);         /* no request is active: nothing goes to the card */
}

static VOID DrvWake(EE *ee)
{
    CardQuiet(CONTAINING_RECORD(ee, DEV, Ee));
}

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, i, n;
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_FACTORIALS) {
        st = STATUS_INVALID_DEVICE_REQUEST;
    } else if (!in || in % sizeof(ULONG) || in > MAX_NUMBERS * sizeof(ULONG)) {
        st = STATUS_INVALID_PARAMETER;
    } else if (sp->Parameters.DeviceIoControl.OutputBufferLength < in) {
        st = STATUS_BUFFER_TOO_SMALL;
    } else {
        for (i = 0; i < in / sizeof(ULONG) && NT_SUCCESS(st); i++) {
            RtlCopyMemory(&n, (PUCHAR)irp->AssociatedIrp.SystemBuffer + i * sizeof(ULONG), sizeof(n));
            if (n > MAX_N)
                st = STATUS_INVALID_PARAMETER;
        }
        if (NT_SUCCESS(st))
            return EeSubmit(&d->Ee, irp);
    }
    EeDone(irp, st, 0);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    EE *ee;
    NTSTATUS st = EeNew(drv, pdo, sizeof(DEV), &ee);

    if (!NT_SUCCESS(st))
        return st;
    return EeAttach(ee, &MultiGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
