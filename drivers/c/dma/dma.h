/* What the files of dma.sys share: the card, the driver's own way to set an adapter up, what is known of a device. */
#ifndef DMA_H
#define DMA_H

#include <ddk/wdm.h>

#define STORIES "dma"
#define CONTROL_WITHOUT_DEVICE
#include "../control.h"
#include "../edu.h"
#include "../function.h"
#include "operations.h"

/* Input: a SETUP. No request may be under way. */
#define IOCTL_DMA_SETUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC00, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a ULONG, the mistake that the next transfer makes. */
#define IOCTL_DMA_MISUSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum {
    CHANNEL, /* AllocateAdapterChannel, MapTransfer, FlushAdapterBuffers, FreeMapRegisters */
    KEPT,    /* the same, but the channel is kept and freed at the end */
    OLD,     /* as CHANNEL, by the exports of Windows NT 4 */
    LIST,    /* GetScatterGatherList, PutScatterGatherList */
    BUILT,   /* CalculateScatterGatherList, BuildScatterGatherList, PutScatterGatherList */
    COMMON,  /* a common buffer, to and from which data is copied */
    EXTENDED,       /* AllocateAdapterChannelEx, MapTransferEx, FlushAdapterBuffersEx, FreeMapRegisters */
    EXTENDED_LIST,  /* GetScatterGatherListEx, PutScatterGatherList */
    EXTENDED_BUILT, /* GetDmaTransferInfo, BuildScatterGatherListEx, PutScatterGatherList */
};

enum {
    NONE,
    AFTER_FLUSH, /* the card goes to where the last transfer went */
    PHYSICAL,    /* the card is given a physical address */
    DIRECTION,   /* mapped the other way round */
    BEHIND,      /* 8 bytes more than were mapped */
    NO_FLUSH,    /* map registers are freed while they map */
    SHORT_FLUSH, /* half of what was mapped is flushed */
    NEVER_MAPPED,   /* the card is given an address that was never mapped */
    STALE,          /* the request ends, nothing is flushed, and the map registers are freed when the adapter is let go */
    WRONG_FLUSH,    /* flushed for the other direction */
    KEEP_REGISTERS, /* map registers are not freed */
    KEEP_CHANNEL,   /* a channel that was kept is not freed */
    BEYOND_MDL,     /* 16 bytes more are mapped than the MDL has */
    TOO_FEW,        /* one map register for all of the request */
    PUT_TWICE,      /* the list is put twice */
    PUT_NEVER,      /* the list is not put */
    REGISTERS_TWICE, /* map registers are freed twice */
    HOARD,          /* waits for map registers with all others in its hands */
    HOARD_MENDED,   /* as HOARD, but gives them back before */
};

typedef struct _SETUP {
    ULONG Version; /* of DEVICE_DESCRIPTION */
    ULONG Bits;    /* of addresses: 24, 32, 64; with version 3 any */
    ULONG ScatterGather;
    ULONG MaximumLength;
    ULONG How;
} SETUP;

/* Room for lists of so many elements. */
#define ELEMENTS 3
#define LIST_ROOM (16 + ELEMENTS * sizeof(SCATTER_GATHER_ELEMENT))

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    SETUP Setup;
    ULONG Misuse;
    PDMA_ADAPTER Adapter;
    ULONG MapRegisters; /* the most of one transfer */
    PUCHAR Common;
    PHYSICAL_ADDRESS CommonAddress;
    /* The request under way. */
    PUCHAR Va;      /* where the next piece begins, as the MDL has it */
    ULONG Done;     /* bytes that were mapped or copied */
    ULONG Length;   /* of the request */
    BOOLEAN ToDevice;
    PVOID Base;     /* of the map registers */
    ULONG Count;
    PSCATTER_GATHER_LIST List;
    PVOID Room;     /* for a list that is built */
    ULONG Element;
    DECLSPEC_ALIGN(16) UCHAR Context[DMA_TRANSFER_CONTEXT_SIZE_V1];
    DECLSPEC_ALIGN(16) UCHAR Elements[LIST_ROOM];
    ULONG Part;     /* bytes that Elements describes */
    /* What is mapped and the card goes through. */
    PHYSICAL_ADDRESS Logical;
    ULONG Mapped;
    ULONG Moved;
    ULONG Card;     /* bytes that the card has moved in all */
    PVOID Hoard[8]; /* map registers besides */
    ULONG Hoarded;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

/* Of the story that runs. */
static PDEVICE_OBJECT Pdo;
static PDRIVER_OBJECT TheDriver;
static PFUNCTION Card;

static PDMA_ADAPTER Get(PDEVICE_OBJECT Device, const SETUP *Setup, PULONG MapRegisters)
{
    DESCRIPTION3 Description;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Old.Version = Setup->Version;
    Description.Old.Master = TRUE;
    Description.Old.ScatterGather = Setup->ScatterGather != 0;
    Description.Old.Dma32BitAddresses = Setup->Bits >= 32;
    Description.Old.Dma64BitAddresses = Setup->Bits >= 64;
    Description.Old.InterfaceType = PCIBus;
    Description.Old.MaximumLength = Setup->MaximumLength;
    Description.DmaAddressWidth = Setup->Bits;
    return IoGetDmaAdapter(Device, &Description.Old, MapRegisters);
}

/* An adapter for a story, of the newest version that all of its routines are of. */
__attribute__((unused)) static PDMA_ADAPTER Adapter(ULONG Bits, BOOLEAN ScatterGather, ULONG MaximumLength,
                                                    PULONG MapRegisters)
{
    SETUP Setup = {DEVICE_DESCRIPTION_VERSION2, Bits, ScatterGather, MaximumLength, 0};

    return Get(Pdo, &Setup, MapRegisters);
}

static VOID LetGo(PDEVICE_EXTENSION Extension)
{
    PDMA_ADAPTER Adapter = Extension->Adapter;
    KIRQL Irql;

    if (Extension->Hoarded > 0) {
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        Adapter->DmaOperations->FreeMapRegisters(Adapter, Extension->Hoard[--Extension->Hoarded], Extension->Count);
        KeLowerIrql(Irql);
    }
    if (Extension->Common != NULL) {
        Adapter->DmaOperations->FreeCommonBuffer(Adapter, EDU_BUFFER_LENGTH, Extension->CommonAddress, Extension->Common,
                                                 FALSE);
        Extension->Common = NULL;
    }
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    Extension->Adapter = NULL;
}

#endif
