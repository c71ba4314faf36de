/*
 * walnut: copies blocks of up to 4 KB to the memory of the educational card, and back, for programs that measure how long that takes.
 * The card moves them by packet-based DMA between its memory and a page of the driver's; the driver looks whether it is done.
 *
 * The bug: an address that the card cannot reach makes the adapter control routine give the transfer up, but it returns the value by
 * which the map registers stay allocated, and no one frees them.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-map-registers-leak
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_edu.h"

#define WALNUT_TAG      'nlaW'

typedef struct WALNUT {
    SHELL Shell;
    WINDOW Card;
    PDMA_ADAPTER Adapter;
    PUCHAR Page;                /* one page */
    PMDL Mdl;                   /* of it */
    BOOLEAN Lent;               /* a card that never ended has the page */
    KEVENT Free;                /* a synchronization event: who uses the page and what follows has it */
    KEVENT Mapped;              /* the control routine has run */
    PVOID MapRegisters;
    ULONG Offset;
    ULONG Length;
    BOOLEAN ToRam;
    BOOLEAN Refused;
    BOOLEAN Stranded;           /* the transfer was given up while the card was at it, and is still mapped */
} WALNUT;

static const GUID WalnutInterface = { 0x31f0b6a8, 0x94d7, 0x4e12, { 0xb5, 0x66, 0x7d, 0x20, 0xc1, 0x4e, 0x83, 0x04 } };

static IO_ALLOCATION_ACTION NTAPI WalnutControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisters, PVOID Context)
{
    WALNUT *walnut = Context;
    PDMA_OPERATIONS dma = walnut->Adapter->DmaOperations;
    PVOID va = MmGetMdlVirtualAddress(walnut->Mdl);
    ULONG length = walnut->Length;
    PHYSICAL_ADDRESS logical;
    IO_ALLOCATION_ACTION action = DeallocateObjectKeepRegisters;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    walnut->MapRegisters = MapRegisters;
    logical = dma->MapTransfer(walnut->Adapter, walnut->Mdl, MapRegisters, va, &length, (BOOLEAN)!walnut->ToRam);
    walnut->Refused = length != walnut->Length || (ULONGLONG)logical.QuadPart + length > EDU_REACH;
    if (walnut->Refused) {
        dma->FlushAdapterBuffers(walnut->Adapter, walnut->Mdl, MapRegisters, va, length, (BOOLEAN)!walnut->ToRam);
#ifdef FIXED
        action = DeallocateObject;
#endif
    } else {
        EduDmaStart(&walnut->Card, (ULONG)logical.QuadPart, walnut->Offset, length, walnut->ToRam, FALSE);
    }
    KeSetEvent(&walnut->Mapped, IO_NO_INCREMENT, FALSE);
    return action;
}

/* The card is done with the transfer. */
static VOID WalnutUnmap(WALNUT *Walnut)
{
    PDMA_OPERATIONS dma = Walnut->Adapter->DmaOperations;
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    dma->FlushAdapterBuffers(Walnut->Adapter, Walnut->Mdl, Walnut->MapRegisters, MmGetMdlVirtualAddress(Walnut->Mdl), Walnut->Length,
                             (BOOLEAN)!Walnut->ToRam);
    dma->FreeMapRegisters(Walnut->Adapter, Walnut->MapRegisters, 1);
    KeLowerIrql(irql);
}

/* Moves what Offset, Length and ToRam say. */
static NTSTATUS WalnutMove(WALNUT *Walnut)
{
    NTSTATUS status;
    KIRQL irql;

    if (Walnut->Stranded)
        return STATUS_DEVICE_BUSY;
    KeClearEvent(&Walnut->Mapped);
    KeFlushIoBuffers(Walnut->Mdl, Walnut->ToRam, TRUE);
    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    status = Walnut->Adapter->DmaOperations->AllocateAdapterChannel(Walnut->Adapter, Walnut->Shell.Self, 1, WalnutControl, Walnut);
    KeLowerIrql(irql);
    if (!NT_SUCCESS(status))
        return status;
    KeWaitForSingleObject(&Walnut->Mapped, Executive, KernelMode, FALSE, NULL);
    if (Walnut->Refused)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (!EduDmaSettled(&Walnut->Card, 2000)) {
        Walnut->Stranded = TRUE;
        return STATUS_IO_TIMEOUT;
    }
    WalnutUnmap(Walnut);
    return RegRead(&Walnut->Card, EDU_DMA_COMMAND) == EDU_GONE ? STATUS_DEVICE_NOT_CONNECTED : STATUS_SUCCESS;
}

/* Looks whether a transfer that was given up has ended in the meantime. */
static VOID WalnutReclaim(WALNUT *Walnut)
{
    if (Walnut->Stranded && EduDmaSettled(&Walnut->Card, 0)) {
        WalnutUnmap(Walnut);
        Walnut->Stranded = FALSE;
    }
}

static NTSTATUS WalnutFound(SHELL *Shell)
{
    WALNUT *walnut = (WALNUT *)Shell;

    KeInitializeEvent(&walnut->Free, SynchronizationEvent, TRUE);
    KeInitializeEvent(&walnut->Mapped, NotificationEvent, FALSE);
    walnut->Page = ExAllocatePoolWithTag(NonPagedPool, PAGE_SIZE, WALNUT_TAG);
    if (walnut->Page == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    walnut->Mdl = IoAllocateMdl(walnut->Page, PAGE_SIZE, FALSE, FALSE, NULL);
    if (walnut->Mdl == NULL) {
        ExFreePoolWithTag(walnut->Page, WALNUT_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    MmBuildMdlForNonPagedPool(walnut->Mdl);
    return STATUS_SUCCESS;
}

static VOID WalnutLost(SHELL *Shell)
{
    WALNUT *walnut = (WALNUT *)Shell;

    if (!walnut->Lent) {
        IoFreeMdl(walnut->Mdl);
        ExFreePoolWithTag(walnut->Page, WALNUT_TAG);
    }
}

static NTSTATUS WalnutBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    WALNUT *walnut = (WALNUT *)Shell;
    ULONG registers;
    NTSTATUS status;

    if (walnut->Lent)
        return STATUS_DEVICE_BUSY;
    status = WindowMap(&walnut->Card, IronFind(Resources, CmResourceTypeMemory, 0), EDU_BYTES);
    if (!NT_SUCCESS(status))
        return status;
    if (!EduThere(&walnut->Card) || !EduDmaSettled(&walnut->Card, 2000)) {
        WindowUnmap(&walnut->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    EduQuiet(&walnut->Card);
    walnut->Adapter = EduAdapter(Shell->Pdo, &registers);
    if (walnut->Adapter == NULL) {
        WindowUnmap(&walnut->Card);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (registers == 0) {
        walnut->Adapter->DmaOperations->PutDmaAdapter(walnut->Adapter);
        walnut->Adapter = NULL;
        WindowUnmap(&walnut->Card);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static VOID WalnutEnd(SHELL *Shell, BOOLEAN Present)
{
    WALNUT *walnut = (WALNUT *)Shell;

    if (walnut->Stranded) {
        if (!Present || EduDmaSettled(&walnut->Card, 300000))
            WalnutUnmap(walnut);
        else
            walnut->Lent = TRUE;        /* broken: it keeps the page, the map registers and the adapter */
        walnut->Stranded = FALSE;
    }
    if (!walnut->Lent)
        walnut->Adapter->DmaOperations->PutDmaAdapter(walnut->Adapter);
    walnut->Adapter = NULL;
    WindowUnmap(&walnut->Card);
}

static VOID WalnutRest(SHELL *Shell)
{
    WALNUT *walnut = (WALNUT *)Shell;

    if (walnut->Stranded)
        EduDmaSettled(&walnut->Card, 2000);     /* what is still under way then ends with the power */
}

static NTSTATUS WalnutServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    WALNUT *walnut = (WALNUT *)Shell;
    BOOLEAN read = At->MajorFunction == IRP_MJ_READ;
    LONGLONG offset;
    ULONG length;
    NTSTATUS status;

    if (!read && At->MajorFunction != IRP_MJ_WRITE)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    offset = read ? At->Parameters.Read.ByteOffset.QuadPart : At->Parameters.Write.ByteOffset.QuadPart;
    length = read ? At->Parameters.Read.Length : At->Parameters.Write.Length;
    if (offset < 0 || offset > EDU_MEMORY_SIZE || length > EDU_MEMORY_SIZE - (ULONG)offset)
        return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
    if (length == 0)
        return Settle(Irp, STATUS_SUCCESS, 0);

    KeEnterCriticalRegion();
    KeWaitForSingleObject(&walnut->Free, Executive, KernelMode, FALSE, NULL);
    WalnutReclaim(walnut);
    if (walnut->Stranded) {
        status = STATUS_DEVICE_BUSY;
    } else {
        walnut->Offset = (ULONG)offset;
        walnut->Length = length;
        walnut->ToRam = read;
        if (!read)
            RtlCopyMemory(walnut->Page, Irp->AssociatedIrp.SystemBuffer, length);
        status = WalnutMove(walnut);
        if (NT_SUCCESS(status) && read)
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, walnut->Page, length);
    }
    KeSetEvent(&walnut->Free, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
    return Settle(Irp, status, NT_SUCCESS(status) ? length : 0);
}

static const SHELL_TRADE WalnutTrade = {
    .Size = sizeof(WALNUT), .Interface = &WalnutInterface, .IoFlags = DO_BUFFERED_IO,
    .Found = WalnutFound, .Lost = WalnutLost, .Begin = WalnutBegin, .End = WalnutEnd, .Rest = WalnutRest, .Serve = WalnutServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &WalnutTrade);
}
