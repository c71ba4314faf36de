/*
 * edubasin: the 4 KB of memory in QEMU's edu card as something that programs read and write at an offset. Each
 * transfer goes by DMA through a common buffer; the caller waits for the card's interrupt, two seconds at most.
 *
 * The bug: where the interrupt cannot be connected, the start routine unmaps the registers and fails, but leaves the
 * common buffer and the DMA adapter, which came to the driver later, as they are.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: contiguous-memory-leak, dma-adapter-leak, common-buffer-leak
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define EB_BYTES    4096
#define EB_CARD     0x40000

#define IOCTL_EB_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_WRITE_ACCESS)

enum { EDU_ID = 0x00, EDU_IRQ = 0x24, EDU_ACK = 0x64, EDU_SRC = 0x80, EDU_DST = 0x88, EDU_COUNT = 0x90, EDU_COMMAND = 0x98, EDU_SPAN = 0xA0 };
#define EDU_BUSY    0x01                /* of command */
#define EDU_TO_RAM  0x02
#define EDU_DMAIRQ  0x04

static const GUID GUID_EDUBASIN = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x07 } };

typedef struct _EB_EXT {
    FR_EXT Frame;
    PUCHAR Regs;
    ULONG RegsLength;
    PKINTERRUPT Interrupt;
    BOOLEAN Awake;                      /* with the service routine */
    PDMA_ADAPTER Adapter;
    PUCHAR Buffer;
    PHYSICAL_ADDRESS BufferAt;
    KDPC Dpc;
    KEVENT Done;                        /* synchronization: the card has sent an interrupt */
    KEVENT Engine;                      /* synchronization: one transfer at a time */
} EB_EXT, *PEB_EXT;

typedef struct _EB_SYNC { PEB_EXT Ext; BOOLEAN Awake; } EB_SYNC, *PEB_SYNC;

static ULONG EbRead(PEB_EXT Ext, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Regs + Register));
}

static VOID EbWrite(PEB_EXT Ext, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Regs + Register), Value);
}

static BOOLEAN NTAPI EbIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEB_EXT Ext = Context;
    ULONG Status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Ext->Awake)
        return FALSE;
    Status = EbRead(Ext, EDU_IRQ);
    if (Status == 0 || Status == 0xFFFFFFFF)
        return FALSE;
    EbWrite(Ext, EDU_ACK, Status);
    KeInsertQueueDpc(&Ext->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI EbSetAwake(PVOID Context)
{
    PEB_SYNC Sync = Context;
    Sync->Ext->Awake = Sync->Awake;
    EbWrite(Sync->Ext, EDU_ACK, EbRead(Sync->Ext, EDU_IRQ));
    return TRUE;
}

static VOID NTAPI EbDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeSetEvent(&((PEB_EXT)Context)->Done, IO_NO_INCREMENT, FALSE);
}

/* Has the card move Length bytes, and waits for it. The engine is ours. */
static NTSTATUS EbMove(PEB_EXT Ext, ULONG Offset, ULONG Length, BOOLEAN ToRam)
{
    LARGE_INTEGER Time;
    ULONG i, Command;

    if (EbRead(Ext, EDU_COMMAND) & EDU_BUSY)                /* still with one that was given up */
        return STATUS_DEVICE_BUSY;
    KeClearEvent(&Ext->Done);
    EbWrite(Ext, EDU_SRC, ToRam ? EB_CARD + Offset : Ext->BufferAt.LowPart);
    EbWrite(Ext, EDU_DST, ToRam ? Ext->BufferAt.LowPart : EB_CARD + Offset);
    EbWrite(Ext, EDU_COUNT, Length);
    EbWrite(Ext, EDU_COMMAND, EDU_BUSY | EDU_DMAIRQ | (ToRam ? EDU_TO_RAM : 0));
    for (i = 0; i < 20; i++) {
        Time.QuadPart = -1000000;
        KeWaitForSingleObject(&Ext->Done, Executive, KernelMode, FALSE, &Time);
        Command = EbRead(Ext, EDU_COMMAND);
        if (Command == 0xFFFFFFFF)
            return STATUS_DEVICE_NOT_CONNECTED;
        if (!(Command & EDU_BUSY))
            return STATUS_SUCCESS;
    }
    return STATUS_IO_TIMEOUT;
}

/* Read and write. */
static NTSTATUS EbTransfer(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEB_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Read = Stack->MajorFunction == IRP_MJ_READ;
    ULONG Length = Read ? Stack->Parameters.Read.Length : Stack->Parameters.Write.Length;
    LONGLONG At = Read ? Stack->Parameters.Read.ByteOffset.QuadPart : Stack->Parameters.Write.ByteOffset.QuadPart;
    PUCHAR Address;
    NTSTATUS Status;

    if (Length == 0)
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    if (At < 0 || At >= EB_BYTES)
        return FrComplete(Irp, Read ? STATUS_END_OF_FILE : STATUS_DISK_FULL, 0);
    if (Length > EB_BYTES - (ULONG)At)
        Length = EB_BYTES - (ULONG)At;
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    Address = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!Address) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        KeWaitForSingleObject(&Ext->Engine, Executive, KernelMode, FALSE, NULL);
        if (!Read && !(EbRead(Ext, EDU_COMMAND) & EDU_BUSY))
            RtlCopyMemory(Ext->Buffer, Address, Length);
        Status = EbMove(Ext, (ULONG)At, Length, Read);
        if (Read && NT_SUCCESS(Status))
            RtlCopyMemory(Address, Ext->Buffer, Length);
        KeSetEvent(&Ext->Engine, IO_NO_INCREMENT, FALSE);
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static NTSTATUS EbControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PEB_EXT Ext = DeviceObject->DeviceExtension;
    NTSTATUS Status;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode != IOCTL_EB_CLEAR)
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    Status = FrEnter(&Ext->Frame);
    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    KeWaitForSingleObject(&Ext->Engine, Executive, KernelMode, FALSE, NULL);
    if (!(EbRead(Ext, EDU_COMMAND) & EDU_BUSY))
        RtlZeroMemory(Ext->Buffer, EB_BYTES);
    Status = EbMove(Ext, 0, EB_BYTES, FALSE);
    KeSetEvent(&Ext->Engine, IO_NO_INCREMENT, FALSE);
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, 0);
}

/* ---- start and stop ---- */

static VOID EbRelease(PEB_EXT Ext)
{
    if (Ext->Buffer)
        Ext->Adapter->DmaOperations->FreeCommonBuffer(Ext->Adapter, EB_BYTES, Ext->BufferAt, Ext->Buffer, FALSE);
    if (Ext->Adapter)
        Ext->Adapter->DmaOperations->PutDmaAdapter(Ext->Adapter);
    if (Ext->Regs)
        MmUnmapIoSpace(Ext->Regs, Ext->RegsLength);
    Ext->Buffer = NULL;
    Ext->Adapter = NULL;
    Ext->Regs = NULL;
}

static NTSTATUS EbStart(PFR_EXT Frame, PFR_RES Resources)
{
    PEB_EXT Ext = (PEB_EXT)Frame;
    ULONG MapRegisters;
    NTSTATUS Status;

    if (Resources->Memories < 1 || Resources->Memory[0].Length < EDU_SPAN || !Resources->HasInterrupt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Ext->RegsLength = Resources->Memory[0].Length;
    Ext->Regs = MmMapIoSpace(Resources->Memory[0].Start, Ext->RegsLength, MmNonCached);
    if (!Ext->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((EbRead(Ext, EDU_ID) & 0xFFFF) != 0x00ED) {
        EbRelease(Ext);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Ext->Adapter = FrDmaAdapter(Frame->Pdo, EB_BYTES, 28, &MapRegisters);
    if (Ext->Adapter)
        Ext->Buffer = Ext->Adapter->DmaOperations->AllocateCommonBuffer(Ext->Adapter, EB_BYTES, &Ext->BufferAt, FALSE);
    if (!Ext->Buffer || Ext->BufferAt.QuadPart + EB_BYTES > 1LL << 28) {
        EbRelease(Ext);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Ext->Buffer, EB_BYTES);
    EbWrite(Ext, EDU_ACK, EbRead(Ext, EDU_IRQ));
    Ext->Awake = TRUE;
    Status = FrConnect(Resources, EbIsr, Ext, &Ext->Interrupt);
    if (!NT_SUCCESS(Status)) {
#ifdef FIXED
        EbRelease(Ext);
#else
        MmUnmapIoSpace(Ext->Regs, Ext->RegsLength);
        Ext->Regs = NULL;
#endif
    }
    return Status;
}

/* The gate is shut, so no transfer waits; one that was given up may still be under way in the card. */
static VOID EbQuiet(PEB_EXT Ext)
{
    EB_SYNC Sync = { Ext, FALSE };
    LARGE_INTEGER Time;
    ULONG i, Command;

    for (i = 0; i < 100; i++) {
        Command = EbRead(Ext, EDU_COMMAND);
        if (!(Command & EDU_BUSY) || Command == 0xFFFFFFFF)
            break;
        Time.QuadPart = -100000;
        KeDelayExecutionThread(KernelMode, FALSE, &Time);
    }
    KeSynchronizeExecution(Ext->Interrupt, EbSetAwake, &Sync);
}

static VOID EbStop(PFR_EXT Frame)
{
    PEB_EXT Ext = (PEB_EXT)Frame;

    if (Ext->Awake)
        EbQuiet(Ext);
    IoDisconnectInterrupt(Ext->Interrupt);
    KeFlushQueuedDpcs();
    EbRelease(Ext);
}

static VOID EbPowerDown(PFR_EXT Frame)
{
    PEB_EXT Ext = (PEB_EXT)Frame;
    if (Ext->Awake)
        EbQuiet(Ext);
}

static VOID EbPowerUp(PFR_EXT Frame)
{
    EB_SYNC Sync = { (PEB_EXT)Frame, TRUE };
    KeSynchronizeExecution(Sync.Ext->Interrupt, EbSetAwake, &Sync);
}

static const FR_OPS EbOps = { .Start = EbStart, .Stop = EbStop, .PowerDown = EbPowerDown, .PowerUp = EbPowerUp };

static VOID EbInit(PFR_EXT Frame)
{
    PEB_EXT Ext = (PEB_EXT)Frame;
    KeInitializeDpc(&Ext->Dpc, EbDpc, Ext);
    KeInitializeEvent(&Ext->Done, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Ext->Engine, SynchronizationEvent, TRUE);
}

static NTSTATUS NTAPI EbAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(EB_EXT), DO_DIRECT_IO, &GUID_EDUBASIN, &EbOps, EbInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, EbAddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = EbTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = EbTransfer;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EbControl;
    return STATUS_SUCCESS;
}
