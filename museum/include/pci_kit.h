/* A PCI card's first memory window and its interrupt line, and the registers of the bench card. */
#pragma once
#include "../include/function_kit.h"

typedef struct _PCI_HW {
    PUCHAR Registers;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN Live;                       /* the card may be accessed by the interrupt routine; guarded by the interrupt's lock */
} PCI_HW, *PPCI_HW;

#define BENCH_IDENTIFICATION    0x00
#define BENCH_SOURCES           0x04
#define BENCH_RAISE             0x08
#define BENCH_STATUS            0x0C
#define BENCH_STATUS_AND_CLEAR  0x10
#define BENCH_ENABLE            0x14
#define BENCH_DELAY             0x20
#define BENCH_FIFO              0x24
#define BENCH_FIFO_STATUS       0x28
#define BENCH_FIFO_COUNT        0xFFu
#define BENCH_DMA(n)            (0x30 + (n) * 0x20)
#define BENCH_DMA_LOW           0x00
#define BENCH_DMA_HIGH          0x04
#define BENCH_DMA_LENGTH        0x08
#define BENCH_DMA_OFFSET        0x0C
#define BENCH_DMA_COMMAND       0x10
#define BENCH_DMA_STATUS        0x14
#define BENCH_DMA_MOVED         0x18
#define BENCH_WINDOW            0x80

#define BENCH_DMA_START         0x0001u
#define BENCH_DMA_TO_MEMORY     0x0002u
#define BENCH_DMA_LIST          0x0004u
#define BENCH_DMA_RAISE(n)      (0x0008u | ((ULONG)(n) << 8))
#define BENCH_DMA_DONE          0x0001u
#define BENCH_DMA_FAILED        0x0002u

static inline ULONG HwRead(PPCI_HW Hw, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Hw->Registers + Offset));
}

static inline VOID HwWrite(PPCI_HW Hw, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Hw->Registers + Offset), Value);
}

static inline VOID HwUnmap(PPCI_HW Hw)
{
    if (Hw->Registers) MmUnmapIoSpace(Hw->Registers, Hw->Length);
    Hw->Registers = NULL;
}

/* Maps the window and connects the interrupt; the interrupt routine leaves the card alone until HwSetLive. */
static inline NTSTATUS HwAcquire(PPCI_HW Hw, PCM_RESOURCE_LIST Translated, ULONG AtLeast, PKSERVICE_ROUTINE Isr, PVOID Context)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = NULL, interrupt = NULL;
    PCM_PARTIAL_RESOURCE_LIST list;
    NTSTATUS status;
    ULONG i;

    if (!Translated || Translated->Count == 0) return STATUS_DEVICE_CONFIGURATION_ERROR;
    list = &Translated->List[0].PartialResourceList;
    for (i = 0; i < list->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &list->PartialDescriptors[i];
        if (d->Type == CmResourceTypeMemory && !memory) memory = d;
        if (d->Type == CmResourceTypeInterrupt && !interrupt) interrupt = d;
    }
    if (!memory || !interrupt || memory->u.Memory.Length < AtLeast) return STATUS_DEVICE_CONFIGURATION_ERROR;
    Hw->Live = FALSE;
    Hw->Length = memory->u.Memory.Length;
    Hw->Registers = MmMapIoSpace(memory->u.Memory.Start, Hw->Length, MmNonCached);
    if (!Hw->Registers) return STATUS_INSUFFICIENT_RESOURCES;
    status = IoConnectInterrupt(&Hw->Interrupt, Isr, Context, NULL, interrupt->u.Interrupt.Vector,
                                (KIRQL)interrupt->u.Interrupt.Level, (KIRQL)interrupt->u.Interrupt.Level,
                                interrupt->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                interrupt->ShareDisposition == CmResourceShareShared,
                                interrupt->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        Hw->Interrupt = NULL;
        HwUnmap(Hw);
    }
    return status;
}

static BOOLEAN NTAPI HwLiveOn(PVOID Context)
{
    ((PPCI_HW)Context)->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI HwLiveOff(PVOID Context)
{
    ((PPCI_HW)Context)->Live = FALSE;
    return TRUE;
}

static inline VOID HwSetLive(PPCI_HW Hw, BOOLEAN Live)
{
    KeSynchronizeExecution(Hw->Interrupt, Live ? HwLiveOn : HwLiveOff, Hw);
}

/* The interrupt ends; DPCs that it has queued have run when this returns. The window is still mapped. */
static inline VOID HwDisconnect(PPCI_HW Hw)
{
    if (Hw->Interrupt) IoDisconnectInterrupt(Hw->Interrupt);
    Hw->Interrupt = NULL;
    KeFlushQueuedDpcs();
}
