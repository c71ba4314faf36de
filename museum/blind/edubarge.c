/*
 * edubarge: uses the 4096 bytes of the edu card as a scratch store: a write sends data to it and a read brings it back, both by the card's
 * DMA through a common buffer.
 *
 * The bug: a transfer that was given up at its time limit may still be going on; the next request uses the common buffer and the
 * card's registers all the same, and takes the end of the old transfer for its own: wrong data in the card or for the reader.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: device
 */
#define CK_HAS_POWER
#define CK_HAS_TIMER
#include "../include/kept_in_order.h"

#define EB_ID     0x00
#define EB_STATUS 0x20
#define EB_ISTAT  0x24
#define EB_IACK   0x64
#define EB_SRC    0x80
#define EB_DST    0x88
#define EB_COUNT  0x90
#define EB_CMD    0x98

#define EB_CMD_RUN   1u
#define EB_CMD_IN    2u                     /* card to RAM */
#define EB_CMD_IRQ   4u
#define EB_INT_DMA   0x100u

#define EB_STORE     0x40000u               /* where the card's buffer is for its DMA */
#define EB_SIZE      4096u
#define EB_TOP       0x10000000ull          /* the card's addresses have 28 bits */
#define EB_LIMIT     500                    /* milliseconds */

#define IOCTL_EB_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9b0, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID EbGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x06 } };

typedef struct _EB_COUNTS {
    ULONG Written, Read, TimedOut, Busy;
} EB_COUNTS, *PEB_COUNTS;

typedef struct _EB_EXT {
    CK K;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Interrupt;
    volatile BOOLEAN Listen;
    KDPC Dpc;
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS CommonAt;
    BUS_INTERFACE_STANDARD Bus;
    EB_COUNTS C;                            /* of the one that has the request */
} EB_EXT, *PEB_EXT;

static ULONG EbIn(PEB_EXT x, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + reg));
}

static VOID EbOut(PEB_EXT x, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + reg), value);
}

static BOOLEAN NTAPI EbIsr(PKINTERRUPT interrupt, PVOID context)
{
    PEB_EXT x = context;
    ULONG bits;

    UNREFERENCED_PARAMETER(interrupt);
    if (!x->Listen)
        return FALSE;
    bits = EbIn(x, EB_ISTAT);
    if (bits == 0 || bits == 0xffffffff)
        return FALSE;
    EbOut(x, EB_IACK, bits);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* The transfer of this request is over. */
static VOID EbFinish(PEB_EXT x, PIRP irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG length;

    if (s->MajorFunction == IRP_MJ_READ) {
        length = s->Parameters.Read.Length;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->Common, length);
        x->C.Read++;
    } else {
        length = s->Parameters.Write.Length;
        x->C.Written++;
    }
    CkDone(&x->K, irp, STATUS_SUCCESS, length);
}

static VOID NTAPI EbDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PEB_EXT x = context;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->K.Q.Lock);
    if (x->K.Cur != NULL && !(EbIn(x, EB_CMD) & EB_CMD_RUN))
        irp = CkClaimLocked(&x->K);
    KeReleaseSpinLockFromDpcLevel(&x->K.Q.Lock);
    if (irp != NULL)
        EbFinish(x, irp);
}

static VOID HwExpired(PCK k, PIRP irp)
{
    PEB_EXT x = (PEB_EXT)k;
    ULONG command = EbIn(x, EB_CMD);

    if (command != 0xffffffff && !(command & EB_CMD_RUN)) {
        EbFinish(x, irp);                   /* only its interrupt has been lost */
        return;
    }
    x->C.TimedOut++;
    CkDone(k, irp, command == 0xffffffff ? STATUS_DEVICE_NOT_CONNECTED : STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    LONGLONG at;
    ULONG length;

    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(irp);
    UNREFERENCED_PARAMETER(info);
    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        at = s->Parameters.Read.ByteOffset.QuadPart;
        length = s->Parameters.Read.Length;
        break;
    case IRP_MJ_WRITE:
        at = s->Parameters.Write.ByteOffset.QuadPart;
        length = s->Parameters.Write.Length;
        break;
    default:
        if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_EB_COUNTS)
            return STATUS_INVALID_DEVICE_REQUEST;
        return s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(EB_COUNTS) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    }
    if (length == 0)
        return STATUS_SUCCESS;
    if (at < 0 || at >= EB_SIZE || length > EB_SIZE - (ULONG)at)
        return STATUS_INVALID_PARAMETER;
    return STATUS_PENDING;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PEB_EXT x = (PEB_EXT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG command, length, at;
    BOOLEAN in;
    KIRQL irql;

    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        *(PEB_COUNTS)irp->AssociatedIrp.SystemBuffer = x->C;
        *info = sizeof(EB_COUNTS);
        return STATUS_SUCCESS;
    }
    command = EbIn(x, EB_CMD);
    if (command == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;
#ifdef FIXED
    if (command & EB_CMD_RUN) {             /* one that was given up; the card cannot be reset */
        x->C.Busy++;
        return STATUS_DEVICE_BUSY;
    }
#endif
    in = s->MajorFunction == IRP_MJ_READ;
    at = (ULONG)(in ? s->Parameters.Read.ByteOffset.QuadPart : s->Parameters.Write.ByteOffset.QuadPart);
    length = in ? s->Parameters.Read.Length : s->Parameters.Write.Length;
    if (!in)
        RtlCopyMemory(x->Common, irp->AssociatedIrp.SystemBuffer, length);

    KeAcquireSpinLock(&k->Q.Lock, &irql);
    EbOut(x, EB_SRC, in ? EB_STORE + at : x->CommonAt.LowPart);
    EbOut(x, EB_DST, in ? x->CommonAt.LowPart : EB_STORE + at);
    EbOut(x, EB_COUNT, length);
    CkArmLocked(k, irp, EB_LIMIT);
    EbOut(x, EB_CMD, EB_CMD_RUN | EB_CMD_IRQ | (in ? EB_CMD_IN : 0));
    KeReleaseSpinLock(&k->Q.Lock, irql);
    return STATUS_PENDING;
}

/* Waits until the card does not move anything, as long as that makes sense. At PASSIVE_LEVEL. */
static BOOLEAN EbQuiet(PEB_EXT x)
{
    LARGE_INTEGER pause;
    ULONG tries;

    pause.QuadPart = -10 * 10000;
    for (tries = 0; tries < 50; tries++) {
        if (!(EbIn(x, EB_CMD) & EB_CMD_RUN))
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    return FALSE;
}

static VOID HwSleep(PCK k)
{
    PEB_EXT x = (PEB_EXT)k;

    if (!EbQuiet(x))
        CkMaster(&x->Bus, FALSE);
    CkListen(x->Interrupt, &x->Listen, FALSE);
}

static VOID HwWake(PCK k)
{
    PEB_EXT x = (PEB_EXT)k;

    CkMaster(&x->Bus, TRUE);
    CkListen(x->Interrupt, &x->Listen, TRUE);
}

static VOID EbGiveBack(PEB_EXT x)
{
    if (x->Interrupt != NULL)
        IoDisconnectInterrupt(x->Interrupt);
    x->Interrupt = NULL;
    KeFlushQueuedDpcs();
    if (x->Common != NULL)
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, EB_SIZE, x->CommonAt, x->Common, TRUE);
    x->Common = NULL;
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
    CkPutBus(&x->Bus);
    if (x->Regs != NULL)
        MmUnmapIoSpace(x->Regs, x->RegsLen);
    x->Regs = NULL;
}

static NTSTATUS EbStart(PEB_EXT x, PCK_RES r)
{
    DEVICE_DESCRIPTION desc;
    ULONG mapRegisters;

    x->Regs = CkMap(r, 0, EB_CMD + 8);
    if (x->Regs == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLen = r->Mem[0].Len;
    if ((EbIn(x, EB_ID) & 0xffff) != 0x00ed)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!EbQuiet(x))
        return STATUS_DEVICE_BUSY;
    EbOut(x, EB_STATUS, 0);
    EbOut(x, EB_IACK, EbIn(x, EB_ISTAT));

    CkGetBus(&x->K, &x->Bus);
    CkMaster(&x->Bus, TRUE);
    RtlZeroMemory(&desc, sizeof desc);
    desc.Version = DEVICE_DESCRIPTION_VERSION;
    desc.Master = TRUE;
    desc.ScatterGather = TRUE;
    desc.Dma32BitAddresses = TRUE;
    desc.InterfaceType = PCIBus;
    desc.MaximumLength = EB_SIZE;
    x->Adapter = IoGetDmaAdapter(x->K.Pdo, &desc, &mapRegisters);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Common = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, EB_SIZE, &x->CommonAt, TRUE);
    if (x->Common == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((ULONGLONG)x->CommonAt.QuadPart > EB_TOP - EB_SIZE)         /* the card cannot reach it */
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Listen = TRUE;
    return CkConnect(r, &x->Interrupt, EbIsr, x);
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PEB_EXT x = (PEB_EXT)k;
    NTSTATUS status = EbStart(x, r);

    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        EbGiveBack(x);
    }
    return status;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    PEB_EXT x = (PEB_EXT)k;

    if (touch) {
        if (!EbQuiet(x))
            CkMaster(&x->Bus, FALSE);       /* before its memory is given back */
        EbOut(x, EB_IACK, EbIn(x, EB_ISTAT));
    }
    CkListen(x->Interrupt, &x->Listen, FALSE);
    EbGiveBack(x);
}

static NTSTATUS EbInit(PCK k)
{
    PEB_EXT x = (PEB_EXT)k;

    KeInitializeDpc(&x->Dpc, EbDpc, x);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EbAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(EB_EXT), &EbGuid, DO_BUFFERED_IO, EbInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, EbAdd);
    return STATUS_SUCCESS;
}
