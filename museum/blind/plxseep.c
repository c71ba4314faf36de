/*
 * plxseep: reads and writes the serial EEPROM (93CS46, 64 words of 16 bits) behind a PLX 9050 for the board's configuration tool. While the device is
 * stopped or asleep, requests fail with STATUS_DEVICE_NOT_READY.
 *
 * The bug: after a word has been written the driver waits until the EEPROM says that it is ready, without a limit. With an EEPROM that is missing,
 * broken or write-protected the thread polls for ever, and holds the lock that a stop or the removal of the device needs.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: irp-never-completed
 * Needs: device
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#include "../include/framed_by_calls.h"

#define IOCTL_SEEP_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SEEP_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define P_INTCSR 0x4C
#define P_CNTRL 0x50
#define INT_PCI 0x40u
#define EE_CLOCK (1u << 24)
#define EE_SELECT (1u << 25)
#define EE_DATA_OUT (1u << 26)
#define EE_DATA_IN (1u << 27)
#define PLX_BYTES 128u
#define GONE 0xFFFFFFFFu
#define WORDS 64u
#define OP_READ 0x180u          /* start bit, two bits of operation, six of address: nine bits */
#define OP_WRITE 0x140u
#define OP_WRITE_ENABLE 0x130u
#define OP_WRITE_DISABLE 0x100u
#define READY_MS 20

static const GUID SeepGuid = { 0x7b1c0e73, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x0b } };

typedef struct _WORD {          /* in and (READ) out */
    ULONG Address;
    ULONG Value;
} WORD;

typedef struct _DEV {
    EE Ee;                      /* first; its door is also what one request holds while it works on the EEPROM */
    PUCHAR Plx;
    ULONG PlxLen;
} DEV;

static ULONG Get(DEV *d, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(d->Plx + reg));
}

static VOID Set(DEV *d, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(d->Plx + reg), value);
}

/* Sets the lines of the EEPROM; the other bits of CNTRL (user pins, wait states) stay. */
static VOID Pins(DEV *d, ULONG pins)
{
    ULONG v = Get(d, P_CNTRL);

    if (v == GONE)
        return;
    Set(d, P_CNTRL, (v & ~(EE_CLOCK | EE_SELECT | EE_DATA_OUT | EE_DATA_IN)) | pins);
    KeStallExecutionProcessor(1);
}

static VOID SendBits(DEV *d, ULONG bits, ULONG n)
{
    ULONG out;

    while (n--) {
        out = EE_SELECT | (((bits >> n) & 1) ? EE_DATA_OUT : 0);
        Pins(d, out);
        Pins(d, out | EE_CLOCK);
    }
    Pins(d, EE_SELECT);
}

static VOID Deselect(DEV *d)
{
    Pins(d, EE_SELECT);
    Pins(d, 0);
}

static NTSTATUS ReadWord(DEV *d, ULONG address, PULONG value)
{
    ULONG i, v, word = 0;

    Pins(d, 0);
    SendBits(d, OP_READ | address, 9);
    for (i = 0; i < 16; i++) {
        Pins(d, EE_SELECT | EE_CLOCK);
        v = Get(d, P_CNTRL);
        if (v == GONE)
            return STATUS_DEVICE_NOT_CONNECTED;
        word = word << 1 | ((v & EE_DATA_IN) ? 1 : 0);
        Pins(d, EE_SELECT);
    }
    Deselect(d);
    *value = word;
    return STATUS_SUCCESS;
}

/* The EEPROM pulls its data line low while it burns the word. */
static NTSTATUS WaitReady(DEV *d)
{
    LARGE_INTEGER ms;
    ULONG i, v;

    ms.QuadPart = -10000;
    Pins(d, 0);
    Pins(d, EE_SELECT);
#ifdef FIXED
    for (i = 0; i < READY_MS; i++) {
#else
    for (i = 0; ; i++) {
#endif
        v = Get(d, P_CNTRL);
        if (v == GONE)
            return STATUS_DEVICE_NOT_CONNECTED;
        if (v & EE_DATA_IN)
            return STATUS_SUCCESS;
        KeDelayExecutionThread(KernelMode, FALSE, &ms);
    }
    return STATUS_IO_TIMEOUT;
}

static NTSTATUS WriteWord(DEV *d, ULONG address, ULONG value)
{
    ULONG back = 0;
    NTSTATUS st;

    Pins(d, 0);
    SendBits(d, OP_WRITE_ENABLE, 9);
    Deselect(d);
    SendBits(d, OP_WRITE | address, 9);
    SendBits(d, value, 16);
    Deselect(d);
    st = WaitReady(d);
    Deselect(d);
    SendBits(d, OP_WRITE_DISABLE, 9);
    Deselect(d);
    if (!NT_SUCCESS(st))
        return st;
    st = ReadWord(d, address, &back);
    if (NT_SUCCESS(st) && back != value)
        st = STATUS_DEVICE_DATA_ERROR;
    return st;
}

/* One request at a time; a thread that holds the door is not suspended. */
static NTSTATUS SeepRequest(DEV *d, PIRP irp, PIO_STACK_LOCATION sp, PULONG_PTR info)
{
    BOOLEAN write = sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_SEEP_WRITE;
    EE *ee = &d->Ee;
    NTSTATUS st;
    WORD w;

    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(w) ||
        (!write && sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(w)))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&w, irp->AssociatedIrp.SystemBuffer, sizeof(w));
    if (w.Address >= WORDS || (write && w.Value > 0xFFFF))
        return STATUS_INVALID_PARAMETER;
    KeEnterCriticalRegion();
    EeEnter(ee);
    if (ee->Gone)
        st = STATUS_DELETE_PENDING;
    else if (!ee->Started || ee->Power != PowerDeviceD0)
        st = STATUS_DEVICE_NOT_READY;
    else if (write)
        st = WriteWord(d, w.Address, w.Value);
    else
        st = ReadWord(d, w.Address, &w.Value);
    EeLeave(ee);
    KeLeaveCriticalRegion();
    if (NT_SUCCESS(st) && !write) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &w, sizeof(w));
        *info = sizeof(w);
    }
    return st;
}

/* The EEPROM may have enabled the interrupt of a board that we do not serve: the line is shared, off with it. */
static VOID IntOff(DEV *d)
{
    ULONG v = Get(d, P_INTCSR);

    if (v != GONE)
        Set(d, P_INTCSR, v & ~INT_PCI);
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    EERES r;

    EeResources(list, &r);
    if (!r.Mems || r.MemLen[0] < PLX_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->PlxLen = r.MemLen[0];
    d->Plx = MmMapIoSpace(r.Mem[0], d->PlxLen, MmNonCached);
    if (!d->Plx)
        return STATUS_INSUFFICIENT_RESOURCES;
    IntOff(d);
    Pins(d, 0);
    return STATUS_SUCCESS;
}

static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    if (touch)
        Pins(d, 0);
    MmUnmapIoSpace(d->Plx, d->PlxLen);
    d->Plx = NULL;
}

static VOID DrvSleep(EE *ee)
{
    Pins(CONTAINING_RECORD(ee, DEV, Ee), 0);
}

static VOID DrvWake(EE *ee)
{
    IntOff(CONTAINING_RECORD(ee, DEV, Ee));
}

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);         /* a request that works ends within some tens of milliseconds */
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;
    ULONG_PTR info = 0;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SEEP_READ:
    case IOCTL_SEEP_WRITE:
        st = SeepRequest(d, irp, sp, &info);
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
    EE *ee;
    NTSTATUS st = EeNew(drv, pdo, sizeof(DEV), &ee);

    if (!NT_SUCCESS(st))
        return st;
    return EeAttach(ee, &SeepGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
