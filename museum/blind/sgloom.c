/*
 * sgloom: writes to a pattern loom card: the data of each write are fetched by the card (bus master) from the
 * application's buffer.
 *
 * Registers (BAR0, 32 bits each): 0x00 identity (0x4C4F4F4D); 0x04 bus address; 0x08 length in bytes;
 * 0x0C control: 1 start, 2 interrupt at the end, 0x80 reset (stops the engine before the next register read
 * is answered); 0x10 status: 1 busy, 2 ended (interrupt; cleared by writing 1), 4 error (until the next start).
 *
 * The bug: the card is given the first element's address with the length of the whole buffer, as if that were
 * contiguous in memory.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: dma-length-of-whole
 * Needs: device
 */
#include "../include/held_core.h"

#define LOOM_ID      0x4C4F4F4D
#define REG_ID       0x00
#define REG_ADDRESS  0x04
#define REG_LENGTH   0x08
#define REG_CONTROL  0x0C
#define REG_STATUS   0x10
#define LOOM_SIZE    0x20
#define CTL_START    0x01
#define CTL_IRQ      0x02
#define CTL_RESET    0x80
#define ST_BUSY      0x01
#define ST_ENDED     0x02
#define ST_ERROR     0x04
#define WRITE_MOST   (256 * 1024)

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x03, 0x01 } };

typedef struct _DEV {
    CORE Core;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Awake;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters;
    FAST_MUTEX Gate;            /* one write at a time */
    KEVENT Listed;              /* the list of the present write is there */
    PSCATTER_GATHER_LIST List;
    KEVENT Ended;
} DEV;

static ULONG In(DEV *Dev, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(Dev->Regs + Reg)); }
static VOID Out(DEV *Dev, ULONG Reg, ULONG Value) { WRITE_REGISTER_ULONG((PULONG)(Dev->Regs + Reg), Value); }

static BOOLEAN NTAPI LoomIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    status = In(dev, REG_STATUS);
    if (status == MAXULONG || !(status & ST_ENDED))
        return FALSE;
    Out(dev, REG_STATUS, ST_ENDED);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI LoomDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeSetEvent(&((DEV *)Context)->Ended, IO_DISK_INCREMENT, FALSE);
}

static VOID NTAPI LoomListed(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    DEV *dev = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    dev->List = List;
    KeSetEvent(&dev->Listed, IO_NO_INCREMENT, FALSE);
}

/* Waits for the engine's end; it is idle in any case afterwards. */
static NTSTATUS AwaitEngine(DEV *Dev)
{
    ULONGLONG limit = KeQueryInterruptTime() + 10000000;
    LARGE_INTEGER tick;
    ULONG status;

    for (;;) {
        tick.QuadPart = -1000000;
        KeWaitForSingleObject(&Dev->Ended, Executive, KernelMode, FALSE, &tick);
        status = In(Dev, REG_STATUS);
        if (status == MAXULONG)
            return STATUS_DEVICE_NOT_CONNECTED;
        if (!(status & ST_BUSY))
            return (status & ST_ERROR) ? STATUS_IO_DEVICE_ERROR : STATUS_SUCCESS;
        if ((Dev->Core.Hold & HOLD_GONE) || KeQueryInterruptTime() > limit) {
            Out(Dev, REG_CONTROL, CTL_RESET);
            In(Dev, REG_STATUS);
            return STATUS_IO_TIMEOUT;
        }
    }
}

static NTSTATUS Weave(DEV *Dev, PSCATTER_GATHER_LIST List, ULONG Total)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG i, left = Total;

    for (i = 0; i < List->NumberOfElements && left && NT_SUCCESS(status); i++) {
        ULONG length = List->Elements[i].Length;

#ifndef FIXED
        length = left;
#endif
        KeClearEvent(&Dev->Ended);
        Out(Dev, REG_ADDRESS, List->Elements[i].Address.LowPart);
        Out(Dev, REG_LENGTH, length);
        Out(Dev, REG_CONTROL, CTL_START | CTL_IRQ);
        status = AwaitEngine(Dev);
        left -= length;
    }
    return status;
}

/* With the gate held and no Hold bit. */
static NTSTATUS WriteLocked(DEV *Dev, PMDL Mdl, ULONG Length)
{
    PDMA_OPERATIONS ops = Dev->Adapter->DmaOperations;
    NTSTATUS status;
    KIRQL irql;

    if (ADDRESS_AND_SIZE_TO_SPAN_PAGES(MmGetMdlVirtualAddress(Mdl), Length) > Dev->MapRegisters)
        return STATUS_INVALID_BUFFER_SIZE;
    KeFlushIoBuffers(Mdl, FALSE, TRUE);
    KeClearEvent(&Dev->Listed);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = ops->GetScatterGatherList(Dev->Adapter, Dev->Core.Self, Mdl, MmGetMdlVirtualAddress(Mdl), Length,
                                       LoomListed, Dev, TRUE);
    KeLowerIrql(irql);
    if (!NT_SUCCESS(status))
        return status;
    KeWaitForSingleObject(&Dev->Listed, Executive, KernelMode, FALSE, NULL);
    status = Weave(Dev, Dev->List, Length);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    ops->PutScatterGatherList(Dev->Adapter, Dev->List, TRUE);
    KeLowerIrql(irql);
    return status;
}

static NTSTATUS NTAPI LoomWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);

    if (!NT_SUCCESS(status))
        return status;
    if (length > WRITE_MOST) {
        status = STATUS_INVALID_BUFFER_SIZE;
    } else if (length != 0) {
        ExAcquireFastMutex(&dev->Gate);
        status = dev->Core.Hold ? STATUS_DEVICE_NOT_READY : WriteLocked(dev, Irp->MdlAddress, length);
        ExReleaseFastMutex(&dev->Gate);
    }
    CoreComplete(&dev->Core, Irp, status, NT_SUCCESS(status) ? length : 0);
    return status;
}

static VOID HwQuiesce(CORE *Core)
{
    ExAcquireFastMutex(&((DEV *)Core)->Gate);
    ExReleaseFastMutex(&((DEV *)Core)->Gate);
}

static NTSTATUS GetAdapter(DEV *Dev)
{
    DEVICE_DESCRIPTION what;

    RtlZeroMemory(&what, sizeof(what));
    what.Version = DEVICE_DESCRIPTION_VERSION;
    what.Master = TRUE;
    what.ScatterGather = TRUE;
    what.Dma32BitAddresses = TRUE;
    what.InterfaceType = PCIBus;
    what.MaximumLength = WRITE_MOST;
    Dev->Adapter = IoGetDmaAdapter(Dev->Core.Pdo, &what, &Dev->MapRegisters);
    return Dev->Adapter ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID Release(DEV *Dev)
{
    if (Dev->Interrupt)
        IoDisconnectInterrupt(Dev->Interrupt);
    Dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    if (Dev->Adapter)
        Dev->Adapter->DmaOperations->PutDmaAdapter(Dev->Adapter);
    Dev->Adapter = NULL;
    if (Dev->Regs)
        MmUnmapIoSpace(Dev->Regs, LOOM_SIZE);
    Dev->Regs = NULL;
    Dev->Awake = FALSE;
}

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status;

    if (!bar || !irq || bar->u.Memory.Length < LOOM_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Regs = MmMapIoSpace(bar->u.Memory.Start, LOOM_SIZE, MmNonCached);
    if (!dev->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (In(dev, REG_ID) != LOOM_ID) {
        Release(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    Out(dev, REG_CONTROL, CTL_RESET);
    Out(dev, REG_STATUS, ST_ENDED);
    status = GetAdapter(dev);
    if (NT_SUCCESS(status)) {
        dev->Awake = TRUE;
        status = CoreConnect(&dev->Interrupt, LoomIsr, dev, irq);
        if (!NT_SUCCESS(status))
            dev->Interrupt = NULL;
    }
    if (!NT_SUCCESS(status))
        Release(dev);
    return status;
}

static BOOLEAN NTAPI SyncSleep(PVOID Context)
{
    Out(Context, REG_CONTROL, CTL_RESET);
    Out(Context, REG_STATUS, ST_ENDED);
    ((DEV *)Context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI SyncWake(PVOID Context)
{
    Out(Context, REG_CONTROL, CTL_RESET);
    Out(Context, REG_STATUS, ST_ENDED);
    ((DEV *)Context)->Awake = TRUE;
    return TRUE;
}

static VOID HwSleep(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncSleep, Core); }
static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncWake, Core); }
static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwAbort(CORE *Core) { UNREFERENCED_PARAMETER(Core); }      /* a write sees HOLD_GONE by itself */
static VOID HwFini(CORE *Core) { UNREFERENCED_PARAMETER(Core); }

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    if (Touch)
        HwSleep(Core);
    Release((DEV *)Core);
}

static NTSTATUS NTAPI LoomAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    if (NT_SUCCESS(status)) {
        DEV *dev = (DEV *)core;

        ExInitializeFastMutex(&dev->Gate);
        KeInitializeEvent(&dev->Listed, NotificationEvent, FALSE);
        KeInitializeEvent(&dev->Ended, SynchronizationEvent, FALSE);
        KeInitializeDpc(&dev->Dpc, LoomDpc, dev);
        core->Self->Flags |= DO_DIRECT_IO;
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, LoomAdd);
    Driver->MajorFunction[IRP_MJ_WRITE] = LoomWrite;
    return STATUS_SUCCESS;
}
