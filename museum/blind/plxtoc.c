/*
 * plxtoc: a board with a PLX 9050 whose serial EEPROM (93C56, 128 words) holds a table of contents behind the bridge's own settings: word 0x40
 * is the number of entries, then two words (key, value) per entry. The driver reads it by the CNTRL register and tells it to programs.
 *
 * The bug: the number of entries is believed as the EEPROM says it; more than 24 (an erased EEPROM says 65535) run over the table in the
 * device extension.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-read, pool-overrun
 * Needs: device
 */
#define CK_HAS_POWER
#define CK_HAS_UNDO
#include "../include/kept_in_order.h"

#define TC_INTCSR 0x4c
#define TC_CNTRL  0x50

#define TC_SK     0x01000000u
#define TC_CS     0x02000000u
#define TC_DI     0x04000000u
#define TC_DO     0x08000000u
#define TC_RESET  0x60000000u               /* reload and reset: never to be written as ones */

#define TC_COUNT  0x40u
#define TC_FIRST  0x41u
#define TC_MOST   24u

#define IOCTL_TC_RELOAD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9f0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TC_FIND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9f1, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID TcGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x0a } };

typedef struct _TC_ENTRY {
    USHORT Key, Value;
} TC_ENTRY, *PTC_ENTRY;

typedef struct _TC_EXT {
    CK K;
    PIO_WORKITEM Reader;
    PIRP Reload;
    ULONG Count;                            /* of the one that has the request */
    TC_ENTRY Entry[TC_MOST];
    PUCHAR Lcr;
    ULONG LcrLen;
} TC_EXT, *PTC_EXT;

static ULONG TcIn(PTC_EXT x, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(x->Lcr + reg));
}

static VOID TcOut(PTC_EXT x, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Lcr + reg), value);
}

/* One clock; what the EEPROM says behind it. FALSE: the card is gone. */
static BOOLEAN TcClock(PTC_EXT x, ULONG lines, PULONG bit)
{
    ULONG value;

    TcOut(x, TC_CNTRL, lines);
    KeStallExecutionProcessor(1);
    TcOut(x, TC_CNTRL, lines | TC_SK);
    KeStallExecutionProcessor(1);
    value = TcIn(x, TC_CNTRL);
    TcOut(x, TC_CNTRL, lines);
    *bit = value & TC_DO ? 1 : 0;
    return value != 0xffffffff;
}

/* Start bit, 10 for "read", eight bits of address, sixteen bits come back. At PASSIVE_LEVEL, some 60 microseconds. */
static BOOLEAN TcWord(PTC_EXT x, ULONG address, PUSHORT word)
{
    ULONG base = TcIn(x, TC_CNTRL), command = 0x600 | (address & 0xff), bit, value = 0, i;
    BOOLEAN there = base != 0xffffffff;

    if (!there)
        return FALSE;
    base &= ~(TC_SK | TC_CS | TC_DI | TC_DO | TC_RESET);
    TcOut(x, TC_CNTRL, base);
    KeStallExecutionProcessor(1);
    for (i = 11; i != 0 && there; i--)
        there = TcClock(x, base | TC_CS | (command >> (i - 1) & 1 ? TC_DI : 0), &bit);
    for (i = 0; i < 16 && there; i++) {
        there = TcClock(x, base | TC_CS, &bit);
        value = value << 1 | bit;
    }
    TcOut(x, TC_CNTRL, base);
    *word = (USHORT)value;
    return there;
}

/* The table is empty when it cannot be read. At PASSIVE_LEVEL, one at a time. */
static NTSTATUS TcLoad(PTC_EXT x)
{
    USHORT count, key, value;
    ULONG i;

    x->Count = 0;
    if (!TcWord(x, TC_COUNT, &count))
        return STATUS_DEVICE_NOT_CONNECTED;
#ifdef FIXED
    if (count > TC_MOST)
        return STATUS_DEVICE_DATA_ERROR;
#endif
    for (i = 0; i < count; i++) {
        if (!TcWord(x, TC_FIRST + 2 * i, &key) || !TcWord(x, TC_FIRST + 2 * i + 1, &value))
            return STATUS_DEVICE_NOT_CONNECTED;
        x->Entry[i].Key = key;
        x->Entry[i].Value = value;
    }
    x->Count = count;
    return STATUS_SUCCESS;
}

static VOID NTAPI TcReader(PDEVICE_OBJECT dev, PVOID context)
{
    PTC_EXT x = context;
    NTSTATUS status = TcLoad(x);

    UNREFERENCED_PARAMETER(dev);
    CkDone(&x->K, x->Reload, status, 0);    /* which lets go of the remove lock */
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(irp);
    UNREFERENCED_PARAMETER(info);
    if (s->MajorFunction == IRP_MJ_READ)
        return s->Parameters.Read.Length < sizeof(TC_ENTRY) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TC_RELOAD:
        return STATUS_PENDING;
    case IOCTL_TC_FIND:                     /* a key in, its value out */
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(USHORT) ||
            s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(USHORT))
            return STATUS_BUFFER_TOO_SMALL;
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PTC_EXT x = (PTC_EXT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG count, i;
    PUSHORT key;

    if (s->MajorFunction == IRP_MJ_READ) {
        count = s->Parameters.Read.Length / sizeof(TC_ENTRY);
        if (count > x->Count)
            count = x->Count;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->Entry, count * sizeof(TC_ENTRY));
        *info = count * sizeof(TC_ENTRY);
        return STATUS_SUCCESS;
    }
    if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_TC_RELOAD) {
        x->Reload = irp;                    /* some milliseconds: not here, this may be DISPATCH_LEVEL */
        IoQueueWorkItem(x->Reader, TcReader, DelayedWorkQueue, x);
        return STATUS_PENDING;
    }
    key = irp->AssociatedIrp.SystemBuffer;
    for (i = 0; i < x->Count; i++) {
        if (x->Entry[i].Key == *key) {
            *key = x->Entry[i].Value;
            *info = sizeof(USHORT);
            return STATUS_SUCCESS;
        }
    }
    return STATUS_NOT_FOUND;
}

/* No interrupts are used: the inputs' and the bridge's off, whatever the EEPROM has set. */
static VOID TcHush(PTC_EXT x)
{
    ULONG csr = TcIn(x, TC_INTCSR);

    if (csr != 0xffffffff)
        TcOut(x, TC_INTCSR, csr & ~0xcc9u);
}

static VOID HwSleep(PCK k)
{
    UNREFERENCED_PARAMETER(k);
}

static VOID HwWake(PCK k)
{
    TcHush((PTC_EXT)k);
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PTC_EXT x = (PTC_EXT)k;

    x->Lcr = CkMap(r, 0, TC_CNTRL + 4);
    if (x->Lcr == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->LcrLen = r->Mem[0].Len;
    TcHush(x);
    if (TcLoad(x) == STATUS_DEVICE_NOT_CONNECTED) {
        MmUnmapIoSpace(x->Lcr, x->LcrLen);
        x->Lcr = NULL;
        return STATUS_NO_SUCH_DEVICE;
    }
    return STATUS_SUCCESS;                  /* with an empty table, if it makes no sense */
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    PTC_EXT x = (PTC_EXT)k;

    UNREFERENCED_PARAMETER(touch);
    MmUnmapIoSpace(x->Lcr, x->LcrLen);
    x->Lcr = NULL;
}

static VOID HwUndo(PCK k)
{
    IoFreeWorkItem(((PTC_EXT)k)->Reader);
}

static NTSTATUS TcInit(PCK k)
{
    PTC_EXT x = (PTC_EXT)k;

    x->Reader = IoAllocateWorkItem(k->Fdo);
    return x->Reader != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS NTAPI TcAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(TC_EXT), &TcGuid, DO_BUFFERED_IO, TcInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, TcAdd);
    return STATUS_SUCCESS;
}
