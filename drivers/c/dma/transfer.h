/*
 * A request's way through an adapter: it is mapped, the card goes through what is mapped, and it is flushed, until nothing is left. All of it
 * at DISPATCH_LEVEL; the card's interrupt ends each transfer of its own.
 */
#ifndef DMA_TRANSFER_H
#define DMA_TRANSFER_H

#include "dma.h"

static VOID Proceed(PDEVICE_OBJECT Device);

/* The card moves what comes next of what is mapped: as much as its buffer takes without a break. */
static VOID Go(PDEVICE_EXTENSION Extension)
{
    ULONG64 Card = EDU_BUFFER + Extension->Card % EDU_BUFFER_LENGTH, Memory = Extension->Logical.QuadPart + Extension->Moved;
    ULONG Piece = min(Extension->Mapped - Extension->Moved, EDU_BUFFER_LENGTH - Extension->Card % EDU_BUFFER_LENGTH);
    volatile ULONG64 *Registers = (volatile ULONG64 *)Extension->Function.Registers;

    Extension->Moved += Piece;
    Extension->Card += Piece;
    Piece += Extension->Misuse == BEHIND ? 8 : 0;
    Registers[EDU_DMA_SOURCE / 8] = Extension->ToDevice ? Memory : Card;
    Registers[EDU_DMA_DESTINATION / 8] = Extension->ToDevice ? Card : Memory;
    Registers[EDU_DMA_COUNT / 8] = Piece;
    Registers[EDU_DMA_COMMAND / 8] = EDU_DMA_START | EDU_DMA_INTERRUPT | (Extension->ToDevice ? 0 : EDU_DMA_TO_MEMORY);
}

static VOID EndRequest(PDEVICE_OBJECT Device, NTSTATUS Status)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIRP Irp = Device->CurrentIrp;

    Extension->Misuse = NONE;
    IoStartNextPacket(Device, FALSE);
    Complete(Irp, Status, NT_SUCCESS(Status) ? Extension->Length : 0);
}

/* ---- by the channel ---- */

static VOID MapNext(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;
    BOOLEAN ToDevice = Extension->Misuse == DIRECTION ? !Extension->ToDevice : Extension->ToDevice;
    ULONG Offset = (ULONG)(ULONG_PTR)Extension->Va % PAGE_SIZE;

    Extension->Mapped = min(Extension->Length - Extension->Done, Extension->Count * PAGE_SIZE - Offset);
    if (Extension->Misuse == BEYOND_MDL) {
        Extension->Mapped = Extension->Length + 16;
    } else if (Extension->Misuse == TOO_FEW) {
        Extension->Mapped = Extension->Length;
    }
    Extension->Moved = 0;
    Extension->Logical = (Extension->Setup.How == OLD ? OldMapTransfer : Adapter->DmaOperations->MapTransfer)(
        Adapter, Device->CurrentIrp->MdlAddress, Extension->Base, Extension->Va, &Extension->Mapped, ToDevice);
    Go(Extension);
}

static IO_ALLOCATION_ACTION NTAPI AdapterControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    if (Irp != Device->CurrentIrp) {
        KeBugCheckEx(0xE2, 1, (ULONG_PTR)Irp, 0, 0);
    }
    Extension->Base = MapRegisterBase;
    MapNext(Device);
    return Extension->Setup.How == KEPT ? KeepObject : DeallocateObjectKeepRegisters;
}

static IO_ALLOCATION_ACTION NTAPI Hoards(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    Extension->Hoard[Extension->Hoarded++] = MapRegisterBase;
    return DeallocateObjectKeepRegisters;
}

static VOID FreeHoard(PDEVICE_EXTENSION Extension)
{
    PDMA_ADAPTER Adapter = Extension->Adapter;

    while (Extension->Hoarded > 0) {
        Adapter->DmaOperations->FreeMapRegisters(Adapter, Extension->Hoard[--Extension->Hoarded], Extension->MapRegisters);
    }
}

static VOID AskChannel(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;
    ULONG Pages = ADDRESS_AND_SIZE_TO_SPAN_PAGES(Extension->Va, Extension->Length - Extension->Done);
    NTSTATUS Status;

    Extension->Count = Extension->Misuse == TOO_FEW ? 1 : min(Pages, Extension->MapRegisters);
    if (Extension->Misuse == HOARD || Extension->Misuse == HOARD_MENDED) {
        Extension->Hoarded = 0;
        while (Extension->Hoarded < 7) { /* of 64 there are, 9 at a time */
            Adapter->DmaOperations->AllocateAdapterChannel(Adapter, Device, Extension->MapRegisters, Hoards, Extension);
        }
        if (Extension->Misuse == HOARD_MENDED) {
            FreeHoard(Extension);
        }
    }
    Status = (Extension->Setup.How == OLD ? OldAllocateAdapterChannel : Adapter->DmaOperations->AllocateAdapterChannel)(
        Adapter, Device, Extension->Count, AdapterControl, Extension);
    if (!NT_SUCCESS(Status)) {
        EndRequest(Device, Status);
    }
}

/* The card is through with what was mapped. */
static VOID FlushAndGoOn(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;
    PMDL Mdl = Device->CurrentIrp->MdlAddress;
    ULONG Flushed = Extension->Misuse == SHORT_FLUSH ? Extension->Mapped / 2 : Extension->Mapped;

    if (Extension->Misuse == STALE) {
        Extension->Hoard[0] = Extension->Base;
        Extension->Hoarded = 1;
        EndRequest(Device, STATUS_SUCCESS);
        return;
    }
    if (Extension->Misuse != NO_FLUSH) {
        (Extension->Setup.How == OLD ? OldFlushAdapterBuffers : Adapter->DmaOperations->FlushAdapterBuffers)(
            Adapter, Mdl, Extension->Base, Extension->Va, Flushed,
            Extension->Misuse == WRONG_FLUSH ? !Extension->ToDevice : Extension->ToDevice);
    }
    Extension->Va += Extension->Mapped;
    Extension->Done += Extension->Mapped;
    if (Extension->Done < Extension->Length) {
        MapNext(Device);
        return;
    }
    if (Extension->Misuse == KEEP_REGISTERS || Extension->Misuse == KEEP_CHANNEL) {
        EndRequest(Device, STATUS_SUCCESS);
        return;
    }
    if (Extension->Setup.How == KEPT) {
        Adapter->DmaOperations->FreeAdapterChannel(Adapter);
    } else {
        if (Extension->Misuse == REGISTERS_TWICE) {
            Adapter->DmaOperations->FreeMapRegisters(Adapter, Extension->Base, Extension->Count);
        }
        (Extension->Setup.How == OLD ? OldFreeMapRegisters : Adapter->DmaOperations->FreeMapRegisters)(
            Adapter, Extension->Base, Extension->Count);
    }
    EndRequest(Device, STATUS_SUCCESS);
}

/* ---- by a list ---- */

static VOID NextElement(PDEVICE_EXTENSION Extension)
{
    PSCATTER_GATHER_ELEMENT Element = &Extension->List->Elements[Extension->Element++];

    Extension->Logical = Element->Address;
    Extension->Mapped = Element->Length;
    Extension->Moved = 0;
    Go(Extension);
}

static VOID NTAPI AdapterListControl(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    if (Irp != Device->CurrentIrp || KeGetCurrentIrql() != DISPATCH_LEVEL) {
        KeBugCheckEx(0xE2, 2, (ULONG_PTR)Irp, 0, 0);
    }
    Extension->List = List;
    Extension->Element = 0;
    NextElement(Extension);
}

static VOID AskList(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;
    PMDL Mdl = Device->CurrentIrp->MdlAddress;
    ULONG Size = 0;
    NTSTATUS Status;

    if (Extension->Setup.How == LIST) {
        Status = Adapter->DmaOperations->GetScatterGatherList(Adapter, Device, Mdl, Extension->Va, Extension->Length,
                                                              AdapterListControl, Extension, Extension->ToDevice);
    } else {
        Status = Adapter->DmaOperations->CalculateScatterGatherList(Adapter, Mdl, Extension->Va, Extension->Length, &Size,
                                                                    NULL);
        Extension->Room = NT_SUCCESS(Status) ? ExAllocatePoolWithTag(NonPagedPool, Size, 'mdDi') : NULL;
        if (Extension->Room == NULL) {
            EndRequest(Device, STATUS_INSUFFICIENT_RESOURCES);
            return;
        }
        Status = Adapter->DmaOperations->BuildScatterGatherList(Adapter, Device, Mdl, Extension->Va, Extension->Length,
                                                                AdapterListControl, Extension, Extension->ToDevice,
                                                                Extension->Room, Size);
        if (!NT_SUCCESS(Status)) {
            ExFreePoolWithTag(Extension->Room, 'mdDi');
            Extension->Room = NULL;
        }
    }
    if (!NT_SUCCESS(Status)) {
        EndRequest(Device, Status);
    }
}

static VOID ElementDone(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Element < Extension->List->NumberOfElements) {
        NextElement(Extension);
        return;
    }
    if (Extension->Misuse != PUT_NEVER) {
        Extension->Adapter->DmaOperations->PutScatterGatherList(Extension->Adapter, Extension->List, Extension->ToDevice);
    }
    if (Extension->Misuse == PUT_TWICE) {
        Extension->Adapter->DmaOperations->PutScatterGatherList(Extension->Adapter, Extension->List, Extension->ToDevice);
    }
    if (Extension->Room != NULL) {
        ExFreePoolWithTag(Extension->Room, 'mdDi');
        Extension->Room = NULL;
    }
    EndRequest(Device, STATUS_SUCCESS);
}

/* ---- by version 3 ---- */

static VOID MapNextEx(PDEVICE_EXTENSION Extension)
{
    PDMA_ADAPTER Adapter = Extension->Adapter;
    PMDL Mdl = Extension->Function.Self->CurrentIrp->MdlAddress;
    NTSTATUS Status;

    Extension->Part = Extension->Length - Extension->Done;
    Extension->List = (PSCATTER_GATHER_LIST)Extension->Elements;
    Status = OF3(Adapter)->MapTransferEx(Adapter, Mdl, Extension->Base, Extension->Done, 0, &Extension->Part,
                                         Extension->ToDevice, Extension->List, LIST_ROOM, NULL, NULL);
    if (!NT_SUCCESS(Status)) {
        KeBugCheckEx(0xE2, 3, Status, 0, 0);
    }
    Extension->Element = 0;
    NextElement(Extension);
}

static IO_ALLOCATION_ACTION NTAPI AdapterControlEx(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    Extension->Base = MapRegisterBase;
    MapNextEx(Extension);
    return DeallocateObjectKeepRegisters;
}

static VOID NTAPI AdapterListControlEx(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Irp);
    if (Device != Extension->Function.Pdo || KeGetCurrentIrql() != DISPATCH_LEVEL) {
        KeBugCheckEx(0xE2, 4, (ULONG_PTR)Device, 0, 0);
    }
    Extension->List = List;
    Extension->Element = 0;
    NextElement(Extension);
}

static VOID AskExtended(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;
    PMDL Mdl = Device->CurrentIrp->MdlAddress;
    PDEVICE_OBJECT Target = Extension->Function.Pdo;
    TRANSFER_INFO1 Info = {1, 0, 0, 0, 0};
    NTSTATUS Status = OF3(Adapter)->InitializeDmaTransferContext(Adapter, Extension->Context);

    if (NT_SUCCESS(Status)) {
        Status = OF3(Adapter)->GetDmaTransferInfo(Adapter, Mdl, 0, Extension->Length, FALSE, &Info);
    }
    if (!NT_SUCCESS(Status)) {
        EndRequest(Device, Status);
        return;
    }
    switch (Extension->Setup.How) {
    case EXTENDED:
        Extension->Count = min(Info.MapRegisterCount, 2); /* so that there is more than one part */
        Status = OF3(Adapter)->AllocateAdapterChannelEx(Adapter, Target, Extension->Context, Extension->Count, 0,
                                                        AdapterControlEx, Extension, NULL);
        break;
    case EXTENDED_LIST:
        Status = OF3(Adapter)->GetScatterGatherListEx(Adapter, Target, Extension->Context, Mdl, 0, Extension->Length, 0,
                                                      AdapterListControlEx, Extension, Extension->ToDevice, NULL, NULL,
                                                      NULL);
        break;
    default:
        Extension->Room = ExAllocatePoolWithTag(NonPagedPool, Info.ScatterGatherListSize, 'mdDi');
        if (Extension->Room == NULL) {
            EndRequest(Device, STATUS_INSUFFICIENT_RESOURCES);
            return;
        }
        Status = OF3(Adapter)->BuildScatterGatherListEx(Adapter, Target, Extension->Context, Mdl, 0, Extension->Length, 0,
                                                        AdapterListControlEx, Extension, Extension->ToDevice,
                                                        Extension->Room, Info.ScatterGatherListSize, NULL, NULL, NULL);
    }
    if (!NT_SUCCESS(Status)) {
        if (Extension->Room != NULL) {
            ExFreePoolWithTag(Extension->Room, 'mdDi');
            Extension->Room = NULL;
        }
        EndRequest(Device, Status);
    }
}

static VOID PartDone(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDMA_ADAPTER Adapter = Extension->Adapter;

    if (Extension->Element < Extension->List->NumberOfElements) {
        NextElement(Extension);
        return;
    }
    OF3(Adapter)->FlushAdapterBuffersEx(Adapter, Device->CurrentIrp->MdlAddress, Extension->Base, Extension->Done,
                                        Extension->Part, Extension->ToDevice);
    Extension->Done += Extension->Part;
    if (Extension->Done < Extension->Length) {
        MapNextEx(Extension);
        return;
    }
    Adapter->DmaOperations->FreeMapRegisters(Adapter, Extension->Base, Extension->Count);
    EndRequest(Device, STATUS_SUCCESS);
}

/* ---- by the common buffer ---- */

static VOID CopyAndGo(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PUCHAR Buffer = MmGetSystemAddressForMdlSafe(Device->CurrentIrp->MdlAddress, NormalPagePriority);

    Extension->Mapped = min(Extension->Length - Extension->Done, EDU_BUFFER_LENGTH);
    Extension->Moved = 0;
    Extension->Logical = Extension->CommonAddress;
    if (Extension->ToDevice) {
        RtlCopyMemory(Extension->Common, Buffer + Extension->Done, Extension->Mapped);
    }
    Go(Extension);
}

static VOID CopyDone(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PUCHAR Buffer = MmGetSystemAddressForMdlSafe(Device->CurrentIrp->MdlAddress, NormalPagePriority);

    if (!Extension->ToDevice) {
        RtlCopyMemory(Buffer + Extension->Done, Extension->Common, Extension->Mapped);
    }
    Extension->Done += Extension->Mapped;
    if (Extension->Done < Extension->Length) {
        CopyAndGo(Device);
    } else {
        EndRequest(Device, STATUS_SUCCESS);
    }
}

/* ---- what all have in common ---- */

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    Extension->Va = MmGetMdlVirtualAddress(Irp->MdlAddress);
    Extension->Length = MmGetMdlByteCount(Irp->MdlAddress);
    Extension->Done = Extension->Card = 0;
    Extension->ToDevice = Stack->MajorFunction == IRP_MJ_WRITE;
    if (Extension->Misuse == AFTER_FLUSH || Extension->Misuse == PHYSICAL || Extension->Misuse == NEVER_MAPPED) {
        if (Extension->Misuse == NEVER_MAPPED) {
            Extension->Logical.QuadPart = 0x7000000000;
        } else if (Extension->Misuse == PHYSICAL) {
            Extension->Logical.QuadPart = ((LONGLONG)MmGetMdlPfnArray(Irp->MdlAddress)[0] << PAGE_SHIFT) +
                                          MmGetMdlByteOffset(Irp->MdlAddress);
        }
        Extension->Mapped = 16;
        Extension->Moved = 0;
        Go(Extension);
        return;
    }
    switch (Extension->Setup.How) {
    case LIST:
    case BUILT:
        AskList(Device);
        return;
    case COMMON:
        CopyAndGo(Device);
        return;
    case EXTENDED:
    case EXTENDED_LIST:
    case EXTENDED_BUILT:
        AskExtended(Device);
        return;
    default:
        AskChannel(Device);
    }
}

static VOID Proceed(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Moved < Extension->Mapped) {
        Go(Extension);
        return;
    }
    if (Extension->Misuse == AFTER_FLUSH || Extension->Misuse == PHYSICAL || Extension->Misuse == NEVER_MAPPED) {
        EndRequest(Device, STATUS_SUCCESS);
        return;
    }
    switch (Extension->Setup.How) {
    case LIST:
    case BUILT:
    case EXTENDED_LIST:
    case EXTENDED_BUILT:
        ElementDone(Device);
        return;
    case EXTENDED:
        PartDone(Device);
        return;
    case COMMON:
        CopyDone(Device);
        return;
    default:
        FlushAndGoOn(Device);
    }
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    Proceed(Device);
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Status = Read(&Extension->Function, EDU_INTERRUPT_STATUS);

    if (Status == 0) {
        return FALSE;
    }
    Write(&Extension->Function, EDU_INTERRUPT_ACKNOWLEDGE, Status);
    IoRequestDpc(Device, Device->CurrentIrp, NULL);
    return TRUE;
}

#endif
