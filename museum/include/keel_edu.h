/* keel_edu.h: registers of the edu card, its DMA and its interrupts. */
#ifndef AJ_EDU_H
#define AJ_EDU_H
#include "keel_card.h"

#define EDU_ID      0x00
#define EDU_FACT    0x08
#define EDU_STATUS  0x20
#define EDU_ISTAT   0x24
#define EDU_IACK    0x64
#define EDU_SRC     0x80
#define EDU_DST     0x88
#define EDU_COUNT   0x90
#define EDU_CMD     0x98

#define EDU_COMPUTING 0x01u
#define EDU_IRQFACT   0x80u
#define EDU_I_FACT    0x001u
#define EDU_I_DMA     0x100u

#define EDU_RUN     1u
#define EDU_TO_RAM  2u
#define EDU_DMAIRQ  4u

#define EDU_BUF     0x40000u
#define EDU_BUFLEN  4096u

/* one transfer between the card's buffer and a logical address; the card is idle */
static inline void edu_dma(AJ_CARD *c, BOOLEAN to_ram, ULONG card_off, PHYSICAL_ADDRESS la, ULONG n)
{
    aj_wr(c, EDU_SRC, to_ram ? EDU_BUF + card_off : la.LowPart);
    aj_wr(c, EDU_DST, to_ram ? la.LowPart : EDU_BUF + card_off);
    aj_wr(c, EDU_COUNT, n);
    aj_wr(c, EDU_CMD, EDU_RUN | EDU_DMAIRQ | (to_ram ? EDU_TO_RAM : 0));
}

/* PASSIVE_LEVEL: waits until neither engine of the card runs (a card that is gone does not run) */
static inline void edu_settle(AJ_CARD *c)
{
    LARGE_INTEGER ms;
    ULONG i;

    ms.QuadPart = -10000;
    for (i = 0; i < 2000; i++) {
        ULONG s = aj_rd(c, EDU_STATUS), d = aj_rd(c, EDU_CMD);

        if (s == AJ_GONE || d == AJ_GONE)
            return;
        if (!(s & EDU_COMPUTING) && !(d & EDU_RUN))
            break;
        KeDelayExecutionThread(KernelMode, FALSE, &ms);
    }
    KeDelayExecutionThread(KernelMode, FALSE, &ms);     /* the interrupt that tells so may come a little later */
}

/* no interrupt from the factorial any more, and what is raised taken back */
static inline void edu_quiet(AJ_CARD *c)
{
    ULONG s;

    aj_wr(c, EDU_STATUS, 0);
    s = aj_rd(c, EDU_ISTAT);
    if (s && s != AJ_GONE)
        aj_wr(c, EDU_IACK, s);
}

static inline NTSTATUS edu_map(AJ_CARD *c, PCM_RESOURCE_LIST res)
{
    NTSTATUS st = aj_map(c, res, 0x100);

    if (NT_SUCCESS(st) && (aj_rd(c, EDU_ID) & 0xFF) != 0xED) {
        aj_unmap(c);
        st = STATUS_NO_SUCH_DEVICE;
    }
    return st;
}

static inline PDMA_ADAPTER edu_adapter(AJ_FDO *f)
{
    DEVICE_DESCRIPTION d;
    ULONG regs;

    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = TRUE;
    d.InterfaceType = PCIBus;
    d.MaximumLength = EDU_BUFLEN;
    return IoGetDmaAdapter(f->pdo, &d, &regs);
}

/* a common buffer of one card buffer's length; the card reaches 28 bits of address */
static inline PUCHAR edu_common(PDMA_ADAPTER a, PHYSICAL_ADDRESS *la)
{
    PUCHAR p = a->DmaOperations->AllocateCommonBuffer(a, EDU_BUFLEN, la, FALSE);

    if (p && la->QuadPart + EDU_BUFLEN > 0x10000000) {
        a->DmaOperations->FreeCommonBuffer(a, EDU_BUFLEN, *la, p, FALSE);
        p = NULL;
    }
    return p;
}

static inline void edu_common_free(PDMA_ADAPTER a, PHYSICAL_ADDRESS la, PUCHAR p)
{
    a->DmaOperations->FreeCommonBuffer(a, EDU_BUFLEN, la, p, FALSE);
}

static inline void edu_adapter_put(PDMA_ADAPTER a)
{
    a->DmaOperations->PutDmaAdapter(a);
}
#endif
