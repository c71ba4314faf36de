/* What mingw's kit has not: DMA version 3, and the names of Windows NT 4 as the exports they were. Included behind the DDK's declarations. */
#ifndef DMA_OPERATIONS_H
#define DMA_OPERATIONS_H

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

/* DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION. */
typedef struct _BUFFER_CONFIGURATION {
    ULONG ConfigType;
    union {
        struct {
            PHYSICAL_ADDRESS MinimumAddress;
            PHYSICAL_ADDRESS MaximumAddress;
        } LogicalAddressLimits;
        struct {
            ULONGLONG Offset;
            ULONG Length;
        } SubSection;
        ULONG HardwareAccessType;
        ULONGLONG Reserved[4];
    };
} BUFFER_CONFIGURATION;

enum { LIMITS_OF_BUFFER, SUBSECTION_OF_BUFFER, ACCESS_TO_BUFFER };

typedef struct _OPERATIONS3 {
    DMA_OPERATIONS Old;
    NTSTATUS (NTAPI *GetDmaAdapterInfo)(PDMA_ADAPTER, ADAPTER_INFO1 *);
    NTSTATUS (NTAPI *GetDmaTransferInfo)(PDMA_ADAPTER, PMDL, ULONGLONG, ULONG, BOOLEAN, TRANSFER_INFO1 *);
    NTSTATUS (NTAPI *InitializeDmaTransferContext)(PDMA_ADAPTER, PVOID);
    PVOID (NTAPI *AllocateCommonBufferEx)(PDMA_ADAPTER, PPHYSICAL_ADDRESS, ULONG, PPHYSICAL_ADDRESS, BOOLEAN, ULONG);
    NTSTATUS (NTAPI *AllocateAdapterChannelEx)(PDMA_ADAPTER, PDEVICE_OBJECT, PVOID, ULONG, ULONG, PDRIVER_CONTROL, PVOID,
                                               PVOID *);
    NTSTATUS (NTAPI *ConfigureAdapterChannel)(PDMA_ADAPTER, ULONG, PVOID);
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
    NTSTATUS (NTAPI *AllocateDomainCommonBuffer)(PDMA_ADAPTER, HANDLE, PPHYSICAL_ADDRESS, ULONG, ULONG,
                                                 MEMORY_CACHING_TYPE *, ULONG, PPHYSICAL_ADDRESS, PVOID *);
    NTSTATUS (NTAPI *FlushDmaBuffer)(PDMA_ADAPTER, PMDL, BOOLEAN);
    NTSTATUS (NTAPI *JoinDmaDomain)(PDMA_ADAPTER, HANDLE);
    NTSTATUS (NTAPI *LeaveDmaDomain)(PDMA_ADAPTER);
    HANDLE (NTAPI *GetDmaDomain)(PDMA_ADAPTER);
    PVOID (NTAPI *AllocateCommonBufferWithBounds)(PDMA_ADAPTER, PPHYSICAL_ADDRESS, PPHYSICAL_ADDRESS, ULONG, ULONG,
                                                  MEMORY_CACHING_TYPE *, ULONG, PPHYSICAL_ADDRESS);
    NTSTATUS (NTAPI *AllocateCommonBufferVector)(PDMA_ADAPTER, PHYSICAL_ADDRESS, PHYSICAL_ADDRESS, MEMORY_CACHING_TYPE,
                                                 ULONG, ULONG, ULONG, ULONGLONG, PVOID *);
    VOID (NTAPI *GetCommonBufferFromVectorByIndex)(PDMA_ADAPTER, PVOID, ULONG, PVOID *, PPHYSICAL_ADDRESS);
    VOID (NTAPI *FreeCommonBufferFromVector)(PDMA_ADAPTER, PVOID, ULONG);
    VOID (NTAPI *FreeCommonBufferVector)(PDMA_ADAPTER, PVOID);
    NTSTATUS (NTAPI *CreateCommonBufferFromMdl)(PDMA_ADAPTER, PMDL, BUFFER_CONFIGURATION *, ULONG, PPHYSICAL_ADDRESS);
} OPERATIONS3;

#define OF3(Adapter) ((OPERATIONS3 *)(Adapter)->DmaOperations)

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
