/* What the files of dma.sys share: the card, the driver's own way to set an adapter up, what is known of a device. */
#ifndef DMA_H
#define DMA_H

#include <ddk/wdm.h>

#define STORIES "dma"
#define CONTROL_WITHOUT_DEVICE
#include "../control.h"
#include "../edu.h"
#include "../function.h"

/* Input: a SETUP. No request may be under way. */
#define IOCTL_DMA_SETUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC00, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a ULONG, the mistake that the next transfer makes. */
#define IOCTL_DMA_MISUSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define FIRST_STORY 0xC10

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
};

typedef struct _SETUP {
    ULONG Version; /* of DEVICE_DESCRIPTION */
    ULONG Bits;    /* of addresses: 24, 32, 64; with version 3 any */
    ULONG ScatterGather;
    ULONG MaximumLength;
    ULONG How;
} SETUP;

/* mingw's DEVICE_DESCRIPTION ends with version 2. */
typedef struct _DESCRIPTION3 {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

#define DMA_SYNCHRONOUS_CALLBACK 1
#define DMA_TRANSFER_CONTEXT_SIZE_V1 128

typedef struct _ADAPTER_INFO1 {
    ULONG Version, ReadDmaCounterAvailable, ScatterGatherLimit, DmaAddressWidth, Flags, MinimumTransferUnit;
} ADAPTER_INFO1;

typedef struct _TRANSFER_INFO1 {
    ULONG Version, MapRegisterCount, ScatterGatherElementCount, ScatterGatherListSize, LogicalPageCount;
} TRANSFER_INFO1;

typedef struct _OPERATIONS3 {
    DMA_OPERATIONS Old;
    NTSTATUS (NTAPI *GetDmaAdapterInfo)(PDMA_ADAPTER, ADAPTER_INFO1 *);
    NTSTATUS (NTAPI *GetDmaTransferInfo)(PDMA_ADAPTER, PMDL, ULONGLONG, ULONG, BOOLEAN, TRANSFER_INFO1 *);
    NTSTATUS (NTAPI *InitializeDmaTransferContext)(PDMA_ADAPTER, PVOID);
    PVOID (NTAPI *AllocateCommonBufferEx)(PDMA_ADAPTER, PPHYSICAL_ADDRESS, ULONG, PPHYSICAL_ADDRESS, BOOLEAN, ULONG);
    NTSTATUS (NTAPI *AllocateAdapterChannelEx)(PDMA_ADAPTER, PDEVICE_OBJECT, PVOID, ULONG, ULONG, PDRIVER_CONTROL, PVOID,
                                               PVOID *);
    PVOID ConfigureAdapterChannel;
    BOOLEAN (NTAPI *CancelAdapterChannel)(PDMA_ADAPTER, PDEVICE_OBJECT, PVOID);
    NTSTATUS (NTAPI *MapTransferEx)(PDMA_ADAPTER, PMDL, PVOID, ULONGLONG, ULONG, PULONG, BOOLEAN, PSCATTER_GATHER_LIST,
                                    ULONG, PVOID, PVOID);
    NTSTATUS (NTAPI *GetScatterGatherListEx)(PDMA_ADAPTER, PDEVICE_OBJECT, PVOID, PMDL, ULONGLONG, ULONG, ULONG,
                                             PDRIVER_LIST_CONTROL, PVOID, BOOLEAN, PVOID, PVOID, PSCATTER_GATHER_LIST *);
    NTSTATUS (NTAPI *BuildScatterGatherListEx)(PDMA_ADAPTER, PDEVICE_OBJECT, PVOID, PMDL, ULONGLONG, ULONG, ULONG,
                                               PDRIVER_LIST_CONTROL, PVOID, BOOLEAN, PVOID, ULONG, PVOID, PVOID,
                                               PSCATTER_GATHER_LIST *);
    NTSTATUS (NTAPI *FlushAdapterBuffersEx)(PDMA_ADAPTER, PMDL, PVOID, ULONGLONG, ULONG, BOOLEAN);
    VOID (NTAPI *FreeAdapterObject)(PDMA_ADAPTER, IO_ALLOCATION_ACTION);
    NTSTATUS (NTAPI *CancelMappedTransfer)(PDMA_ADAPTER, PVOID);
    PVOID Domains[5];
    PVOID (NTAPI *AllocateCommonBufferWithBounds)(PDMA_ADAPTER, PPHYSICAL_ADDRESS, PPHYSICAL_ADDRESS, ULONG, ULONG,
                                                  MEMORY_CACHING_TYPE *, ULONG, PPHYSICAL_ADDRESS);
    NTSTATUS (NTAPI *AllocateCommonBufferVector)(PDMA_ADAPTER, PHYSICAL_ADDRESS, PHYSICAL_ADDRESS, MEMORY_CACHING_TYPE,
                                                 ULONG, ULONG, ULONG, ULONGLONG, PVOID *);
    VOID (NTAPI *GetCommonBufferFromVectorByIndex)(PDMA_ADAPTER, PVOID, ULONG, PVOID *, PPHYSICAL_ADDRESS);
    VOID (NTAPI *FreeCommonBufferFromVector)(PDMA_ADAPTER, PVOID, ULONG);
    VOID (NTAPI *FreeCommonBufferVector)(PDMA_ADAPTER, PVOID);
} OPERATIONS3;

#define OF3(Adapter) ((OPERATIONS3 *)(Adapter)->DmaOperations)

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
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

/* Of the story that runs. */
static PDEVICE_OBJECT Pdo;
static PDRIVER_OBJECT TheDriver;

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

    if (Extension->Common != NULL) {
        Adapter->DmaOperations->FreeCommonBuffer(Adapter, EDU_BUFFER_LENGTH, Extension->CommonAddress, Extension->Common,
                                                 FALSE);
        Extension->Common = NULL;
    }
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    Extension->Adapter = NULL;
}

/* The routines of Windows NT 4, whose names are macros now. */
extern NTSTATUS (NTAPI *OldAllocateAdapterChannel)(PDMA_ADAPTER, PDEVICE_OBJECT, ULONG, PDRIVER_CONTROL,
                                                   PVOID) __asm__("__imp_IoAllocateAdapterChannel");
extern PHYSICAL_ADDRESS (NTAPI *OldMapTransfer)(PDMA_ADAPTER, PMDL, PVOID, PVOID, PULONG,
                                                BOOLEAN) __asm__("__imp_IoMapTransfer");
extern BOOLEAN (NTAPI *OldFlushAdapterBuffers)(PDMA_ADAPTER, PMDL, PVOID, PVOID, ULONG,
                                               BOOLEAN) __asm__("__imp_IoFlushAdapterBuffers");
extern VOID (NTAPI *OldFreeMapRegisters)(PDMA_ADAPTER, PVOID, ULONG) __asm__("__imp_IoFreeMapRegisters");
extern VOID (NTAPI *OldFreeAdapterChannel)(PDMA_ADAPTER) __asm__("__imp_IoFreeAdapterChannel");
extern PVOID (NTAPI *OldAllocateCommonBuffer)(PDMA_ADAPTER, ULONG, PPHYSICAL_ADDRESS,
                                              BOOLEAN) __asm__("__imp_HalAllocateCommonBuffer");
extern VOID (NTAPI *OldFreeCommonBuffer)(PDMA_ADAPTER, ULONG, PHYSICAL_ADDRESS, PVOID,
                                         BOOLEAN) __asm__("__imp_HalFreeCommonBuffer");
extern ULONG (NTAPI *OldReadDmaCounter)(PDMA_ADAPTER) __asm__("__imp_HalReadDmaCounter");
extern PDMA_ADAPTER (NTAPI *OldGetAdapter)(PDEVICE_DESCRIPTION, PULONG) __asm__("__imp_HalGetAdapter");

#endif
