/*
 * wharf_edu.h: registers of the edu card, and the steps of starting and
 * stopping that do not differ between its drivers.
 */
#ifndef WHARF_EDU_H
#define WHARF_EDU_H
#include "wharf_card.h"

#define EDU_ID        0x00
#define EDU_LIVE      0x04
#define EDU_FACT      0x08
#define EDU_STATUS    0x20
#define   EDU_COMPUTING 0x01
#define   EDU_FACTIRQ   0x80
#define EDU_INTSTAT   0x24
#define   EDU_INT_FACT  0x001
#define   EDU_INT_DMA   0x100
#define EDU_INTACK    0x64
#define EDU_DMASRC    0x80
#define EDU_DMADST    0x88
#define EDU_DMACNT    0x90
#define EDU_DMACMD    0x98
#define   EDU_DMA_RUN   0x01
#define   EDU_DMA_TORAM 0x02
#define   EDU_DMA_IRQ   0x04
#define EDU_BUFFER    0x40000
#define EDU_BUFSIZE   4096
#define EDU_GONE      0xFFFFFFFFu

/* V3 of DEVICE_DESCRIPTION (Windows 8), which the headers lack */
typedef struct _EDU_DESCRIPTION3 {
    DEVICE_DESCRIPTION V2;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} EDU_DESCRIPTION3;

typedef struct _EDU_RAM {
    PDMA_ADAPTER Adapter;
    PVOID Va;
    PHYSICAL_ADDRESS La;
} EDU_RAM;

/* maps the card, sees that it is one, and waits for it to be at rest */
static inline NTSTATUS EduMap(WHARF *w, WHARF_RES *r)
{
    LARGE_INTEGER ms;
    ULONG i;
    NTSTATUS st = WharfMap(w, r, 0xA0);

    if (!NT_SUCCESS(st))
        return st;
    if ((WharfRd(w, EDU_ID) & 0xFFFF) != 0x00ED) {
        WharfUnmap(w);
        return STATUS_NO_SUCH_DEVICE;
    }
    ms.QuadPart = -10 * 10000;
    for (i = 0; (WharfRd(w, EDU_STATUS) & EDU_COMPUTING) ||
                (WharfRd(w, EDU_DMACMD) & EDU_DMA_RUN); i++) {
        if (i == 100) {
            WharfUnmap(w);
            return STATUS_IO_DEVICE_ERROR;
        }
        KeDelayExecutionThread(KernelMode, FALSE, &ms);
    }
    WharfWr(w, EDU_STATUS, 0);
    WharfWr(w, EDU_INTACK, WharfRd(w, EDU_INTSTAT));
    return STATUS_SUCCESS;
}

static inline VOID EduIsrOn(WHARF *w)
{
    KIRQL q = KeAcquireInterruptSpinLock(w->Interrupt);
    w->IsrOn = TRUE;
    KeReleaseInterruptSpinLock(w->Interrupt, q);
}

/* the card shall be quiet and the ISR keeps away from it */
static inline VOID EduQuiet(WHARF *w, BOOLEAN touch)
{
    KIRQL q = KeAcquireInterruptSpinLock(w->Interrupt);
    if (touch) {
        WharfWr(w, EDU_STATUS, 0);
        WharfWr(w, EDU_INTACK, WharfRd(w, EDU_INTSTAT));
    }
    w->IsrOn = FALSE;
    KeReleaseInterruptSpinLock(w->Interrupt, q);
}

static inline VOID EduRamFree(EDU_RAM *m)
{
    if (m->Va)
        m->Adapter->DmaOperations->FreeCommonBuffer(m->Adapter, EDU_BUFSIZE,
                                                    m->La, m->Va, TRUE);
    if (m->Adapter)
        m->Adapter->DmaOperations->PutDmaAdapter(m->Adapter);
    m->Va = NULL;
    m->Adapter = NULL;
}

/* one page below 256 MiB, the card has 28 address lines */
static inline NTSTATUS EduRamAllocate(WHARF *w, EDU_RAM *m)
{
    EDU_DESCRIPTION3 d;
    ULONG regs = 0;

    RtlZeroMemory(&d, sizeof(d));
    d.V2.Version = 3;
    d.V2.Master = TRUE;
    d.V2.ScatterGather = TRUE;
    d.V2.Dma32BitAddresses = TRUE;
    d.V2.InterfaceType = PCIBus;
    d.V2.MaximumLength = EDU_BUFSIZE;
    d.DmaAddressWidth = 28;
    m->Va = NULL;
    m->Adapter = IoGetDmaAdapter(w->Pdo, &d.V2, &regs);
    if (!m->Adapter) {
        d.V2.Version = DEVICE_DESCRIPTION_VERSION;
        m->Adapter = IoGetDmaAdapter(w->Pdo, &d.V2, &regs);
    }
    if (!m->Adapter)
        return STATUS_INSUFFICIENT_RESOURCES;
    m->Va = m->Adapter->DmaOperations->AllocateCommonBuffer(m->Adapter,
                EDU_BUFSIZE, &m->La, TRUE);
    if (!m->Va || (m->La.QuadPart + EDU_BUFSIZE - 1) >> 28) {
        EduRamFree(m);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(m->Va, EDU_BUFSIZE);
    return STATUS_SUCCESS;
}

/*
 * At the end of CardStop. A card that still copies, against its data sheet,
 * keeps its page: better to lose it than to have it written by the card.
 */
static inline VOID EduRamRelease(WHARF *w, EDU_RAM *m, BOOLEAN touch)
{
    ULONG command = touch ? WharfRd(w, EDU_DMACMD) : 0;

    if (command != 0xFFFFFFFFu && (command & EDU_DMA_RUN)) { /* ones: it is gone */
        m->Va = NULL;
        m->Adapter = NULL;
        return;
    }
    EduRamFree(m);
}

/* off and len have been checked; the engine is at rest */
static inline VOID EduDmaGo(WHARF *w, EDU_RAM *m, ULONG off, ULONG len,
                            BOOLEAN toRam)
{
    ULONG ram = m->La.LowPart, card = EDU_BUFFER + off;

    WharfWr(w, EDU_DMASRC, toRam ? card : ram);
    WharfWr(w, EDU_DMADST, toRam ? ram : card);
    WharfWr(w, EDU_DMACNT, len);
    WharfWr(w, EDU_DMACMD, EDU_DMA_RUN | EDU_DMA_IRQ |
                           (toRam ? EDU_DMA_TORAM : 0));
}

#endif
