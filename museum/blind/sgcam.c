/*
 * sgcam: a line camera's frame grabber: a read of up to 64 KiB brings the next lines straight into the reader's buffer, by scatter/gather DMA.
 *
 * The bug: the table of descriptors has 16 places, enough for 64 KiB that begin on a page; a buffer that does not begin on a page may need
 * 17, which is not looked at: the table is overrun in the device extension and on the card.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: wild-read
 * Needs: ioctl
 *
 * The card (one memory window of 1 KiB, one interrupt; 64 bit addresses):
 *   00 ID       5347434D
 *   04 CONTROL  bit 0 start (clears itself), bit 1 interrupt enable, bit 2 reset (clears itself; the card moves nothing any more
 *               when busy has gone away, within 10 microseconds)
 *   08 STATUS   bit 0 busy; bit 1 done, bit 2 error (both write 1 to clear; they interrupt)
 *   0C COUNT    number of descriptors, 1 to 16
 *   100-1FF     16 descriptors of 4 words: address low, address high, length in bytes, 0
 *   200-21F     calibration of the sensor
 */
#define CK_HAS_POWER
#define CK_HAS_TIMER
#include "../include/kept_in_order.h"

#define SC_ID       0x00
#define SC_CONTROL  0x04
#define SC_STATUS   0x08
#define SC_COUNT    0x0c
#define SC_TABLE    0x100

#define SC_MAGIC    0x5347434du
#define SC_START    1u
#define SC_IRQ      2u
#define SC_RESET    4u
#define SC_BUSY     1u
#define SC_DONE     2u
#define SC_ERROR    4u

#define SC_PLACES   16u
#define SC_MOST     (SC_PLACES * PAGE_SIZE)
#define SC_LIMIT    1000                    /* milliseconds */

static const GUID ScGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x0d } };

typedef struct _SC_DESC {
    ULONG Low, High, Length, Zero;
} SC_DESC, *PSC_DESC;

typedef struct _SC_EXT {
    CK K;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Interrupt;
    volatile BOOLEAN Listen;
    KDPC Dpc;
    BUS_INTERFACE_STANDARD Bus;
    volatile LONG Bits;                     /* what the ISR has seen of this transfer */
    PIRP Irp;                               /* the request; and what belongs to it */
    NTSTATUS Failed;                        /* it was not started */
    PSCATTER_GATHER_LIST List;
    SC_DESC Desc[SC_PLACES];
    PDMA_ADAPTER Adapter;
    BOOLEAN Broken;                         /* it did not stop when it was to */
} SC_EXT, *PSC_EXT;

static ULONG ScIn(PSC_EXT x, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + reg));
}

static VOID ScOut(PSC_EXT x, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + reg), value);
}

static BOOLEAN NTAPI ScIsr(PKINTERRUPT interrupt, PVOID context)
{
    PSC_EXT x = context;
    ULONG status;

    UNREFERENCED_PARAMETER(interrupt);
    if (!x->Listen)
        return FALSE;
    status = ScIn(x, SC_STATUS);
    if (status == 0xffffffff || !(status & (SC_DONE | SC_ERROR)))
        return FALSE;
    ScOut(x, SC_STATUS, status & (SC_DONE | SC_ERROR));
    InterlockedOr(&x->Bits, (LONG)(status & (SC_DONE | SC_ERROR)));
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* In step with the ISR: what it sees from here on is of this transfer. */
static BOOLEAN NTAPI ScGo(PVOID context)
{
    PSC_EXT x = context;

    ScOut(x, SC_STATUS, SC_DONE | SC_ERROR);
    x->Bits = 0;
    ScOut(x, SC_CONTROL, SC_START | SC_IRQ);
    return TRUE;
}

/* Ends the request; at DISPATCH_LEVEL, the card moves nothing for it any more. */
static VOID ScFinish(PSC_EXT x, PIRP irp, NTSTATUS status)
{
    x->Adapter->DmaOperations->PutScatterGatherList(x->Adapter, x->List, FALSE);
    x->List = NULL;
    CkDone(&x->K, irp, status, NT_SUCCESS(status) ? IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length : 0);
}

static VOID NTAPI ScDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PSC_EXT x = context;
    NTSTATUS result = STATUS_SUCCESS;
    PIRP irp = NULL;
    ULONG status;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->K.Q.Lock);
    if (x->K.Cur != NULL && x->Failed != STATUS_SUCCESS) {
        result = x->Failed;
        irp = CkClaimLocked(&x->K);
    } else if (x->K.Cur != NULL) {
        status = ScIn(x, SC_STATUS);
        if (x->Bits != 0 && !(status & SC_BUSY)) {
            result = x->Bits & SC_ERROR ? STATUS_DEVICE_DATA_ERROR : STATUS_SUCCESS;
            irp = CkClaimLocked(&x->K);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->K.Q.Lock);
    if (irp != NULL)
        ScFinish(x, irp, result);
}

/* FALSE: the card goes on. Up to DISPATCH_LEVEL. */
static BOOLEAN ScReset(PSC_EXT x)
{
    ULONG tries;

    ScOut(x, SC_CONTROL, SC_RESET);
    for (tries = 0; tries < 20; tries++) {
        if (!(ScIn(x, SC_STATUS) & SC_BUSY)) {
            ScOut(x, SC_STATUS, SC_DONE | SC_ERROR);
            return TRUE;
        }
        KeStallExecutionProcessor(2);
    }
    return FALSE;
}

static VOID HwExpired(PCK k, PIRP irp)
{
    PSC_EXT x = (PSC_EXT)k;
    ULONG status = ScIn(x, SC_STATUS), bits;

    if (x->Failed != STATUS_SUCCESS || status == 0xffffffff) {
        ScFinish(x, irp, x->Failed != STATUS_SUCCESS ? x->Failed : STATUS_DEVICE_NOT_CONNECTED);
        return;
    }
    bits = (ULONG)x->Bits | (status & (SC_DONE | SC_ERROR));
    if (!(status & SC_BUSY) && bits != 0) { /* only its interrupt has been lost */
        ScFinish(x, irp, bits & SC_ERROR ? STATUS_DEVICE_DATA_ERROR : STATUS_SUCCESS);
        return;
    }
    if (!ScReset(x) && ScIn(x, SC_STATUS) != 0xffffffff) {
        CkMaster(&x->Bus, FALSE);           /* so that it does not write to a buffer that is another's soon */
        x->Broken = TRUE;
    }
    ScFinish(x, irp, STATUS_IO_TIMEOUT);
}

/* At DISPATCH_LEVEL; within HwBegin or later. It does not end the request itself: the DPC does, and nothing recurses. */
static VOID NTAPI ScList(PDEVICE_OBJECT dev, PIRP none, PSCATTER_GATHER_LIST list, PVOID context)
{
    PSC_EXT x = context;
    PSCATTER_GATHER_ELEMENT e;
    ULONG i, word, count = list->NumberOfElements;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(none);
    x->List = list;
    x->Failed = STATUS_SUCCESS;
#ifdef FIXED
    if (count > SC_PLACES)
        x->Failed = STATUS_INVALID_BUFFER_SIZE;
#endif
    if (x->Failed == STATUS_SUCCESS) {
        e = (PSCATTER_GATHER_ELEMENT)((PUCHAR)list + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements));
        for (i = 0; i < count; i++, e++) {
            x->Desc[i].Low = e->Address.LowPart;
            x->Desc[i].High = (ULONG)e->Address.HighPart;
            x->Desc[i].Length = e->Length;
            x->Desc[i].Zero = 0;
            for (word = 0; word < 4; word++)
                ScOut(x, SC_TABLE + i * sizeof(SC_DESC) + word * sizeof(ULONG), ((PULONG)&x->Desc[i])[word]);
        }
        ScOut(x, SC_COUNT, count);
    }
    KeAcquireSpinLockAtDpcLevel(&x->K.Q.Lock);
    CkArmLocked(&x->K, x->Irp, SC_LIMIT);
    if (x->Failed == STATUS_SUCCESS)
        KeSynchronizeExecution(x->Interrupt, ScGo, x);
    else
        KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    KeReleaseSpinLockFromDpcLevel(&x->K.Q.Lock);
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(info);
    if (s->MajorFunction != IRP_MJ_READ)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (s->Parameters.Read.Length == 0)
        return STATUS_SUCCESS;
    if (s->Parameters.Read.Length > SC_MOST || irp->MdlAddress == NULL)
        return STATUS_INVALID_PARAMETER;
    return STATUS_PENDING;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PSC_EXT x = (PSC_EXT)k;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length, now;
    PMDL mdl = irp->MdlAddress;
    NTSTATUS status;
    KIRQL irql;

    UNREFERENCED_PARAMETER(info);
    now = ScIn(x, SC_STATUS);
    if (now == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (x->Broken)
        return STATUS_IO_DEVICE_ERROR;
    if ((now & SC_BUSY) && !ScReset(x))
        return STATUS_DEVICE_BUSY;
    x->Irp = irp;
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = x->Adapter->DmaOperations->GetScatterGatherList(x->Adapter, k->Fdo, mdl, MmGetMdlVirtualAddress(mdl), length, ScList, x,
                                                             FALSE);
    KeLowerIrql(irql);
    return NT_SUCCESS(status) ? STATUS_PENDING : status;
}

static VOID HwSleep(PCK k)
{
    PSC_EXT x = (PSC_EXT)k;

    if (!ScReset(x))                        /* interrupts off, too */
        CkMaster(&x->Bus, FALSE);
    CkListen(x->Interrupt, &x->Listen, FALSE);
}

/* Every read enables the interrupt. */
static VOID HwWake(PCK k)
{
    PSC_EXT x = (PSC_EXT)k;

    if (!x->Broken)
        CkMaster(&x->Bus, TRUE);
    CkListen(x->Interrupt, &x->Listen, TRUE);
}

static VOID ScGiveBack(PSC_EXT x)
{
    if (x->Interrupt != NULL)
        IoDisconnectInterrupt(x->Interrupt);
    x->Interrupt = NULL;
    KeFlushQueuedDpcs();
    if (x->Adapter != NULL)
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
    x->Adapter = NULL;
    CkPutBus(&x->Bus);
    if (x->Regs != NULL)
        MmUnmapIoSpace(x->Regs, x->RegsLen);
    x->Regs = NULL;
}

static NTSTATUS ScStart(PSC_EXT x, PCK_RES r)
{
    DEVICE_DESCRIPTION desc;
    ULONG mapRegisters;

    x->Regs = CkMap(r, 0, 0x400);
    if (x->Regs == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLen = r->Mem[0].Len;
    if (ScIn(x, SC_ID) != SC_MAGIC || !ScReset(x))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Broken = FALSE;
    CkGetBus(&x->K, &x->Bus);
    CkMaster(&x->Bus, TRUE);
    RtlZeroMemory(&desc, sizeof desc);
    desc.Version = DEVICE_DESCRIPTION_VERSION;
    desc.Master = TRUE;
    desc.ScatterGather = TRUE;
    desc.Dma32BitAddresses = TRUE;
    desc.Dma64BitAddresses = TRUE;
    desc.InterfaceType = PCIBus;
    desc.MaximumLength = SC_MOST;
    x->Adapter = IoGetDmaAdapter(x->K.Pdo, &desc, &mapRegisters);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Listen = TRUE;
    return CkConnect(r, &x->Interrupt, ScIsr, x);
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PSC_EXT x = (PSC_EXT)k;
    NTSTATUS status = ScStart(x, r);

    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        ScGiveBack(x);
    }
    return status;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    PSC_EXT x = (PSC_EXT)k;

    if (touch && !ScReset(x))
        CkMaster(&x->Bus, FALSE);
    CkListen(x->Interrupt, &x->Listen, FALSE);
    ScGiveBack(x);
}

static NTSTATUS ScInit(PCK k)
{
    PSC_EXT x = (PSC_EXT)k;

    KeInitializeDpc(&x->Dpc, ScDpc, x);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI ScAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(SC_EXT), &ScGuid, DO_DIRECT_IO, ScInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, ScAdd);
    return STATUS_SUCCESS;
}
