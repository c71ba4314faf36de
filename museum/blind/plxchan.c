/*
 * plxchan: a board with a PLX 9050 and up to eight analog outputs in its first local window, 16 bytes each: +0 value (write), +4 value as it
 * is put out (read), +8 status (bit 0: the converter is busy). Programs set the outputs and look at them; a stop or a sleep
 * does not change what they are to be.
 *
 * The bug: the table of channels, with the address of each channel's registers, is made at the first start only; after a stop and a new
 * start it points to where the window was mapped before.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: power
 */
#define CK_HAS_POWER
#include "../include/kept_in_order.h"

#define PC_INTCSR   0x4c
#define PC_VALUE    0x00
#define PC_ACTUAL   0x04
#define PC_STATUS   0x08
#define PC_BUSY     1u

#define PC_STRIDE   16u
#define PC_CHANNELS 8u
#define PC_TRIES    20                      /* of 2 microseconds */

#define IOCTL_PC_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa00, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PC_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PC_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa02, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID PcGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x0b } };

typedef struct _PC_SET {
    ULONG Channel, Value;
} PC_SET, *PPC_SET;

typedef struct _PC_GET {
    ULONG Wanted, Actual, Sets;
} PC_GET, *PPC_GET;

typedef struct _PC_CHANNEL {
    PUCHAR Regs;
    BOOLEAN IsSet;
    USHORT Wanted;
    ULONG Sets;
} PC_CHANNEL, *PPC_CHANNEL;

typedef struct _PC_EXT {
    CK K;
    PUCHAR Lcr, Window;
    ULONG LcrLen, WindowLen;
    ULONG Channels;
    PC_CHANNEL Channel[PC_CHANNELS];        /* of the one that has the request */
} PC_EXT, *PPC_EXT;

static ULONG PcIn(PPC_CHANNEL c, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(c->Regs + reg));
}

static NTSTATUS PcReady(PPC_CHANNEL c)
{
    ULONG tries, status;

    for (tries = 0; tries < PC_TRIES; tries++) {
        status = PcIn(c, PC_STATUS);
        if (status == 0xffffffff)
            return STATUS_DEVICE_NOT_CONNECTED;
        if (!(status & PC_BUSY))
            return STATUS_SUCCESS;
        KeStallExecutionProcessor(2);
    }
    return STATUS_IO_TIMEOUT;
}

/* Puts out again what the channels are to be; up to DISPATCH_LEVEL. */
static VOID PcRestore(PPC_EXT x)
{
    ULONG i;

    for (i = 0; i < x->Channels; i++) {
        if (x->Channel[i].IsSet)
            WRITE_REGISTER_ULONG((PULONG)(x->Channel[i].Regs + PC_VALUE), x->Channel[i].Wanted);
    }
}

/* No interrupts are used: the inputs' and the bridge's off, whatever the board's EEPROM has set. */
static BOOLEAN PcHush(PPC_EXT x)
{
    ULONG csr = READ_REGISTER_ULONG((PULONG)(x->Lcr + PC_INTCSR));

    if (csr == 0xffffffff)
        return FALSE;
    WRITE_REGISTER_ULONG((PULONG)(x->Lcr + PC_INTCSR), csr & ~0xcc9u);
    return TRUE;
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;

    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(info);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PC_SET:
        if (in < sizeof(PC_SET))
            return STATUS_BUFFER_TOO_SMALL;
        return ((PPC_SET)irp->AssociatedIrp.SystemBuffer)->Value > 0xfff ? STATUS_INVALID_PARAMETER : STATUS_PENDING;
    case IOCTL_PC_GET:                      /* a channel in */
        return in < sizeof(ULONG) || out < sizeof(PC_GET) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    case IOCTL_PC_COUNT:
        return out < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS PcSet(PPC_EXT x, const PC_SET *set)
{
    PPC_CHANNEL c;
    NTSTATUS status;

    if (set->Channel >= x->Channels)
        return STATUS_INVALID_PARAMETER;
    c = &x->Channel[set->Channel];
    status = PcReady(c);
    if (!NT_SUCCESS(status))
        return status;
    c->Wanted = (USHORT)set->Value;
    c->IsSet = TRUE;
    c->Sets++;
    WRITE_REGISTER_ULONG((PULONG)(c->Regs + PC_VALUE), set->Value);
    return PcReady(c);
}

static NTSTATUS PcGet(PPC_EXT x, PIRP irp, PULONG_PTR info)
{
    ULONG n = *(PULONG)irp->AssociatedIrp.SystemBuffer, actual;
    PPC_GET get = irp->AssociatedIrp.SystemBuffer;
    PPC_CHANNEL c;

    if (n >= x->Channels)
        return STATUS_INVALID_PARAMETER;
    c = &x->Channel[n];
    actual = PcIn(c, PC_ACTUAL);
    if (actual == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;
    get->Wanted = c->Wanted;
    get->Actual = actual & 0xfff;
    get->Sets = c->Sets;
    *info = sizeof *get;
    return STATUS_SUCCESS;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PPC_EXT x = (PPC_EXT)k;

    switch (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PC_SET:
        return PcSet(x, irp->AssociatedIrp.SystemBuffer);
    case IOCTL_PC_GET:
        return PcGet(x, irp, info);
    default:
        *(PULONG)irp->AssociatedIrp.SystemBuffer = x->Channels;
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
}

static VOID HwSleep(PCK k)
{
    UNREFERENCED_PARAMETER(k);
}

static VOID HwWake(PCK k)
{
    PcHush((PPC_EXT)k);
    PcRestore((PPC_EXT)k);
}

static VOID PcGiveBack(PPC_EXT x)
{
    if (x->Window != NULL)
        MmUnmapIoSpace(x->Window, x->WindowLen);
    if (x->Lcr != NULL)
        MmUnmapIoSpace(x->Lcr, x->LcrLen);
    x->Window = NULL;
    x->Lcr = NULL;
}

/* The first memory window behind the bridge's own that holds a channel at least. */
static NTSTATUS PcMap(PPC_EXT x, PCK_RES r)
{
    ULONG i;

    for (i = 1; i < r->Mems; i++) {
        if (r->Mem[i].Len >= PC_STRIDE)
            break;
    }
    if (i >= r->Mems || r->Mem[0].Len < PC_INTCSR + 4)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->LcrLen = r->Mem[0].Len;
    x->Lcr = MmMapIoSpace(r->Mem[0].Base, x->LcrLen, MmNonCached);
    if (x->Lcr == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->WindowLen = r->Mem[i].Len < PC_STRIDE * PC_CHANNELS ? r->Mem[i].Len : PC_STRIDE * PC_CHANNELS;
    x->Window = MmMapIoSpace(r->Mem[i].Base, x->WindowLen, MmNonCached);
    return x->Window != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PPC_EXT x = (PPC_EXT)k;
    NTSTATUS status = PcMap(x, r);
    ULONG i;

    if (NT_SUCCESS(status) && !PcHush(x))
        status = STATUS_NO_SUCH_DEVICE;
    if (!NT_SUCCESS(status)) {
        PcGiveBack(x);
        return status;
    }
#ifndef FIXED
    if (x->Channels == 0)                   /* what the channels are to be outlives a stop */
#endif
    {
        x->Channels = x->WindowLen / PC_STRIDE;
        for (i = 0; i < x->Channels; i++)
            x->Channel[i].Regs = x->Window + i * PC_STRIDE;
    }
    PcRestore(x);
    return STATUS_SUCCESS;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(touch);
    PcGiveBack((PPC_EXT)k);
}

static NTSTATUS NTAPI PcAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(PC_EXT), &PcGuid, DO_BUFFERED_IO, NULL);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, PcAdd);
    return STATUS_SUCCESS;
}
