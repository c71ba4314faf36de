/* quay_edu.h: QEMU's edu card. */
#ifndef AI_EDU_H
#define AI_EDU_H
#include "quay_card.h"

#define EDU_ID      0x00
#define EDU_ALIVE   0x04
#define EDU_FACT    0x08
#define EDU_STATUS  0x20
#define  EDU_BUSY       0x01
#define  EDU_FACT_INT   0x80
#define EDU_INTST   0x24
#define EDU_RAISE   0x60
#define EDU_ACK     0x64
#define EDU_SRC     0x80
#define EDU_DST     0x88
#define EDU_COUNT   0x90
#define EDU_CMD     0x98
#define  EDU_RUN        0x01
#define  EDU_TO_RAM     0x02
#define  EDU_DMA_INT    0x04
#define EDU_BUF     0x40000
#define EDU_REACH   0x10000000ull       /* the card drives 28 address lines */

#define EDU_INT_FACT 0x001
#define EDU_INT_DMA  0x100
#define EDU_GONE     0xFFFFFFFFu

static inline BOOLEAN NTAPI AiEduIsr(PKINTERRUPT i, PVOID context)
{
    PAI_CARD c = context;
    ULONG st;

    UNREFERENCED_PARAMETER(i);
    if (!c->Live)
        return FALSE;
    st = AiRead(c, EDU_INTST);
    if (st == 0 || st == EDU_GONE)
        return FALSE;
    AiWrite(c, EDU_ACK, st);
    c->Cause |= st;
    KeInsertQueueDpc(&c->Dpc, NULL, NULL);
    return TRUE;
}

/* the card neither computes nor moves bytes within a fifth of a second */
static inline BOOLEAN AiEduRests(PAI_CARD c)
{
    ULONG n;

    for (n = 0; n < 200; n++) {
        ULONG st = AiRead(c, EDU_STATUS);

        if (st == EDU_GONE)
            return FALSE;
        if (!(st & EDU_BUSY) && !(AiRead(c, EDU_CMD) & EDU_RUN))
            return TRUE;
        AiSleep(1);
    }
    return FALSE;
}

static inline NTSTATUS AiEduStart(PAI_CARD c, PCM_RESOURCE_LIST list, PKSERVICE_ROUTINE isr)
{
    AI_RESOURCES r;
    NTSTATUS s;
    KIRQL q;

    AiResources(list, &r);
    s = AiMap(c, &r, 0x100, FALSE);
    if (!NT_SUCCESS(s))
        return s;
    if ((AiRead(c, EDU_ID) & 0xFFFF) != 0x00ED || !AiEduRests(c)) {
        AiUnmap(c);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    AiWrite(c, EDU_STATUS, 0);
    AiWrite(c, EDU_ACK, AiRead(c, EDU_INTST));
    s = AiConnect(c, &r, isr);
    if (!NT_SUCCESS(s)) {
        AiUnmap(c);
        return s;
    }
    q = KeAcquireInterruptSpinLock(c->Int);
    c->Cause = 0;
    c->Live = TRUE;
    KeReleaseInterruptSpinLock(c->Int, q);
    return STATUS_SUCCESS;
}

/* before D3, and first thing of AiEduStop */
static inline VOID AiEduQuiet(PAI_CARD c)
{
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);

    if (c->Live) {
        AiWrite(c, EDU_STATUS, 0);
        AiWrite(c, EDU_ACK, AiRead(c, EDU_INTST));
        c->Live = FALSE;
    }
    c->Cause = 0;
    KeReleaseInterruptSpinLock(c->Int, q);
}

/* back in D0 */
static inline VOID AiEduWake(PAI_CARD c)
{
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);

    AiWrite(c, EDU_STATUS, 0);
    AiWrite(c, EDU_ACK, AiRead(c, EDU_INTST));
    c->Cause = 0;
    c->Live = TRUE;
    KeReleaseInterruptSpinLock(c->Int, q);
}

static inline VOID AiEduStop(PAI_CARD c)
{
    AiEduQuiet(c);
    AiDisconnect(c);
    AiUnmap(c);
}

/* the card is there, powered and not computing: sets it computing. Any IRQL up to DISPATCH. */
static inline NTSTATUS AiEduCompute(PAI_CARD c, ULONG n)
{
    NTSTATUS s = STATUS_SUCCESS;
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);
    ULONG st;

    if (!c->Live) {
        s = STATUS_DEVICE_NOT_READY;
    } else {
        st = AiRead(c, EDU_STATUS);
        if (st == EDU_GONE) {
            s = STATUS_DEVICE_NOT_CONNECTED;
        } else if (st & EDU_BUSY) {
            s = STATUS_DEVICE_BUSY;
        } else {
            AiWrite(c, EDU_STATUS, EDU_FACT_INT);
            AiWrite(c, EDU_FACT, n);
        }
    }
    KeReleaseInterruptSpinLock(c->Int, q);
    return s;
}

/* what the computing came to; FALSE when the card is not there */
static inline BOOLEAN AiEduProduct(PAI_CARD c, PULONG value)
{
    BOOLEAN ok;
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);

    ok = c->Live && AiRead(c, EDU_STATUS) != EDU_GONE;
    if (ok)
        *value = AiRead(c, EDU_FACT);
    KeReleaseInterruptSpinLock(c->Int, q);
    return ok;
}

static inline NTSTATUS AiEduMove(PAI_CARD c, ULONG from, ULONG to, ULONG count, BOOLEAN toRam)
{
    NTSTATUS s = STATUS_SUCCESS;
    KIRQL q = KeAcquireInterruptSpinLock(c->Int);

    if (!c->Live) {
        s = STATUS_DEVICE_NOT_READY;
    } else if (AiRead(c, EDU_STATUS) == EDU_GONE) {
        s = STATUS_DEVICE_NOT_CONNECTED;
    } else {
        AiWrite(c, EDU_SRC, from);
        AiWrite(c, EDU_DST, to);
        AiWrite(c, EDU_COUNT, count);
        AiWrite(c, EDU_CMD, EDU_RUN | EDU_DMA_INT | (toRam ? EDU_TO_RAM : 0));
    }
    KeReleaseInterruptSpinLock(c->Int, q);
    return s;
}

/* The adapter of a card with fewer than 32 address lines: the HAL keeps the addresses of such a bus master low (24 bits). */
static inline PDMA_ADAPTER AiEduAdapter(PAI_CARD c, ULONG longest, PULONG mapRegisters)
{
    DEVICE_DESCRIPTION d;

    RtlZeroMemory(&d, sizeof d);
    d.Version = DEVICE_DESCRIPTION_VERSION1;
    d.Master = TRUE;
    d.ScatterGather = TRUE;
    d.Dma32BitAddresses = FALSE;
    d.InterfaceType = PCIBus;
    d.DmaWidth = Width32Bits;
    d.MaximumLength = longest;
    return IoGetDmaAdapter(c->F.Pdo, &d, mapRegisters);
}
#endif
