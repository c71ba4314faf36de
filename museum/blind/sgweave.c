/*
 * sgweave: reads the samples of a capture card straight into the buffers of programs, by scatter/gather DMA.
 * The card's registers (BAR0, memory, 4 KB): 0x00 ident 0x57454156; 0x04 control (bit 0: interrupts on); 0x08 interrupt
 * status (bit 0: transfer ended; written ones clear); 0x0C go (the number of descriptors); 0x10 busy (bit 0);
 * 0x14 abort (any write stops the engine, busy is 0 when read back after it); 0x18 result (0: good);
 * 0x100.. 32 descriptors of 16 bytes: address low, address high, length, 0. The engine writes to memory.
 *
 * The bug: at the transfer's end the request is completed first and its scatter/gather list put back afterwards, when
 * the pages may be unlocked already and the data not yet copied from the map registers.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: dma-unlocked-while-mapped
 * Needs: device
 */
#include "../include/serial_queue.h"

#define R_IDENT 0x00
#define R_CONTROL 0x04
#define R_IRQ 0x08
#define R_GO 0x0C
#define R_BUSY 0x10
#define R_ABORT 0x14
#define R_RESULT 0x18
#define R_DESC 0x100
#define DESCS 32
#define LONGEST 0x10000
#define SECONDS 3

typedef struct _WEAVE {
    FRAME F;
    SERQ Q;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Int;
    KDPC Dpc;
    volatile BOOLEAN On;            /* changed at DIRQL */
    PDMA_ADAPTER Adapter;
    PSCATTER_GATHER_LIST List;      /* of the current request; as Seconds under the queue's lock */
    ULONG Seconds;
} WEAVE, *PWEAVE;

static const GUID WeaveClass = {0x6c1e2a0c, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x0c}};

static ULONG In(PWEAVE w, ULONG r) { return READ_REGISTER_ULONG((PULONG)(w->Regs + r)); }
static VOID Out(PWEAVE w, ULONG r, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(w->Regs + r), v); }

static BOOLEAN NTAPI WeaveIsr(PKINTERRUPT interrupt, PVOID context)
{
    PWEAVE w = context;
    ULONG v;

    UNREFERENCED_PARAMETER(interrupt);
    if (!w->On)
        return FALSE;
    v = In(w, R_IRQ);
    if (v == 0xFFFFFFFFu || (v & 1) == 0)
        return FALSE;
    Out(w, R_IRQ, 1);
    KeInsertQueueDpc(&w->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI TurnOn(PVOID context)
{
    PWEAVE w = context;

    w->On = TRUE;
    Out(w, R_IRQ, 1);
    Out(w, R_CONTROL, 1);
    return TRUE;
}

static BOOLEAN NTAPI TurnOff(PVOID context)
{
    ((PWEAVE)context)->On = FALSE;
    return TRUE;
}

static VOID NTAPI WeaveList(PDEVICE_OBJECT dev, PIRP unused, PSCATTER_GATHER_LIST list, PVOID context)
{
    PWEAVE w = dev->DeviceExtension;
    PIRP irp = context;
    PSCATTER_GATHER_ELEMENT e = (PSCATTER_GATHER_ELEMENT)((PUCHAR)list + FIELD_OFFSET(SCATTER_GATHER_LIST, Elements));
    ULONG i, n = list->NumberOfElements;

    UNREFERENCED_PARAMETER(unused);
    KeAcquireSpinLockAtDpcLevel(&w->Q.Lock);
    for (i = 0; i < n && i < DESCS; i++) {
        Out(w, R_DESC + 16 * i, e[i].Address.LowPart);
        Out(w, R_DESC + 16 * i + 4, (ULONG)e[i].Address.HighPart);
        Out(w, R_DESC + 16 * i + 8, e[i].Length);
        Out(w, R_DESC + 16 * i + 12, 0);
    }
    w->List = list;
    w->Seconds = SECONDS;
    w->Q.Current = irp;
    Out(w, R_GO, i);
    KeReleaseSpinLockFromDpcLevel(&w->Q.Lock);
}

static BOOLEAN WeaveBegin(PFRAME f, PIRP irp)
{
    PWEAVE w = CONTAINING_RECORD(f, WEAVE, F);
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    NTSTATUS status;
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = w->Adapter->DmaOperations->GetScatterGatherList(w->Adapter, f->Fdo, irp->MdlAddress,
                 MmGetMdlVirtualAddress(irp->MdlAddress), length, WeaveList, irp, FALSE);
    KeLowerIrql(irql);
    if (NT_SUCCESS(status))
        return TRUE;
    SerqAnswer(&w->Q, irp, status, 0);
    return FALSE;
}

static VOID NTAPI WeaveDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PWEAVE w = context;
    PSCATTER_GATHER_LIST list = NULL;
    PIRP irp = NULL;
    NTSTATUS status;
    ULONG result = 0, length;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&w->Q.Lock);
    if (w->Q.Current != NULL && (In(w, R_BUSY) & 1) == 0) {
        irp = SerqClaim(&w->Q);
        list = w->List;
        result = In(w, R_RESULT);
    }
    KeReleaseSpinLockFromDpcLevel(&w->Q.Lock);
    if (irp == NULL)
        return;
    status = result == 0 ? STATUS_SUCCESS : STATUS_IO_DEVICE_ERROR;
    length = result == 0 ? IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length : 0;
#ifdef FIXED
    w->Adapter->DmaOperations->PutScatterGatherList(w->Adapter, list, FALSE);
    SerqFinish(&w->Q, irp, status, length);
#else
    SerqFinish(&w->Q, irp, status, length);
    w->Adapter->DmaOperations->PutScatterGatherList(w->Adapter, list, FALSE);
#endif
}

static VOID NTAPI WeaveSecond(PDEVICE_OBJECT dev, PVOID context)
{
    PWEAVE w = context;
    PSCATTER_GATHER_LIST list = NULL;
    PIRP irp = NULL;
    KIRQL irql;

    UNREFERENCED_PARAMETER(dev);
    KeAcquireSpinLock(&w->Q.Lock, &irql);
    if (w->Q.Current != NULL && --w->Seconds == 0) {
        irp = SerqClaim(&w->Q);
        list = w->List;
        Out(w, R_ABORT, 1);
        (VOID)In(w, R_BUSY);
    }
    KeReleaseSpinLock(&w->Q.Lock, irql);
    if (irp == NULL)
        return;
    w->Adapter->DmaOperations->PutScatterGatherList(w->Adapter, list, FALSE);
    SerqFinish(&w->Q, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PWEAVE w = dev->DeviceExtension;
    DEVICE_DESCRIPTION d;
    ULONG maps;
    NTSTATUS status;

    if (res->Mems == 0 || res->MemLen[0] < 0x1000 || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = LONGEST;
    w->Adapter = IoGetDmaAdapter(w->F.Pdo, &d, &maps);
    if (w->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_INSUFFICIENT_RESOURCES;
    w->RegsLen = res->MemLen[0];
    w->Regs = MmMapIoSpace(res->Mem[0], w->RegsLen, MmNonCached);
    if (w->Regs == NULL)
        goto put;
    status = STATUS_DEVICE_DOES_NOT_EXIST;
    if (In(w, R_IDENT) == 0xFFFFFFFFu)
        goto unmap;
    Out(w, R_CONTROL, 0);
    Out(w, R_ABORT, 1);
    status = FrameConnect(res, &w->Int, WeaveIsr, w);
    if (!NT_SUCCESS(status))
        goto unmap;
    KeSynchronizeExecution(w->Int, TurnOn, w);
    IoStartTimer(dev);
    SerqOpen(&w->Q);
    return STATUS_SUCCESS;

unmap:
    MmUnmapIoSpace(w->Regs, w->RegsLen);
    w->Regs = NULL;
put:
    w->Adapter->DmaOperations->PutDmaAdapter(w->Adapter);
    w->Adapter = NULL;
    return status;
}

static VOID HwHold(PDEVICE_OBJECT dev)
{
    SerqHold(&((PWEAVE)dev->DeviceExtension)->Q);
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    SerqKill(&((PWEAVE)dev->DeviceExtension)->Q);
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    PWEAVE w = dev->DeviceExtension;

    IoStopTimer(dev);
    if (touchable)
        Out(w, R_CONTROL, 0);
    KeSynchronizeExecution(w->Int, TurnOff, w);
    IoDisconnectInterrupt(w->Int);
    w->Int = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(w->Regs, w->RegsLen);
    w->Regs = NULL;
    w->Adapter->DmaOperations->PutDmaAdapter(w->Adapter);
    w->Adapter = NULL;
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
    PWEAVE w = dev->DeviceExtension;

    SerqHold(&w->Q);
    Out(w, R_CONTROL, 0);
    KeSynchronizeExecution(w->Int, TurnOff, w);
    KeFlushQueuedDpcs();
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PWEAVE w = dev->DeviceExtension;

    KeSynchronizeExecution(w->Int, TurnOn, w);
    SerqOpen(&w->Q);
}

static NTSTATUS NTAPI WeaveRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PWEAVE w = dev->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    NTSTATUS status = IoAcquireRemoveLock(&w->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (length > LONGEST || length % sizeof(ULONG) != 0 || (length != 0 && irp->MdlAddress == NULL))
        status = STATUS_INVALID_PARAMETER;
    else if (length != 0)
        return SerqSubmit(&w->Q, irp);
    SerqAnswer(&w->Q, irp, status, 0);
    return status;
}

static NTSTATUS NTAPI WeaveCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    SerqPurge(&((PWEAVE)dev->DeviceExtension)->Q, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI WeaveAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    PWEAVE w;
    NTSTATUS status = FrameAdd(driver, pdo, &WeaveClass, sizeof(WEAVE), DO_DIRECT_IO, &dev);

    if (!NT_SUCCESS(status))
        return status;
    w = dev->DeviceExtension;
    KeInitializeDpc(&w->Dpc, WeaveDpc, w);
    status = SerqInit(&w->Q, &w->F, WeaveBegin);
    if (NT_SUCCESS(status))
        status = IoInitializeTimer(dev, WeaveSecond, w);
    if (!NT_SUCCESS(status)) {
        FrameUndoAdd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, WeaveAdd);
    driver->MajorFunction[IRP_MJ_CLEANUP] = WeaveCleanup;
    driver->MajorFunction[IRP_MJ_READ] = WeaveRead;
    return STATUS_SUCCESS;
}
