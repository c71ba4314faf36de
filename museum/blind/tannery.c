/*
 * TANNERY: a message card of our own. The card collects words and interrupts; the interrupt routine moves them into a ring of 256
 * words, IOCTL_TAKE gets them from there, IOCTL_SEND sends some. The ring is made at the first start and kept over stops. Registers
 * (BAR0, 32 bits): 00 identity 5441314Eh; 04 interrupt status, bit 0 words are there, bit 1 room to send (write 1 to clear bit 0); 08
 * interrupt enable, bit 0; 0C words in the card's FIFO (at most 16); 10 next word; 14 word to send.
 *
 * The bug: when the interrupt cannot be connected, the start frees the ring but leaves the pointer to it; removing the device frees the
 * ring once more.
 *
 * Device: PCI\VEN_1DA7&DEV_0A12
 * Rule: double-free
 * Needs: failure, removal
 */
#include "../include/quay_card.h"

#define RING        256
#define FIFO        16

#define REG_ID      0x00
#define  ID             0x5441314Eu
#define REG_INTST   0x04
#define  INT_WORDS      0x01
#define  INT_ROOM       0x02
#define REG_INTEN   0x08
#define REG_WORDS   0x0C
#define REG_TAKE    0x10
#define REG_SEND    0x14
#define GONE        0xFFFFFFFFu

#define IOCTL_TAKE      AI_CTL(0, METHOD_BUFFERED)      /* out: ULONG[], as many as there are */
#define IOCTL_SEND      AI_CTL(1, METHOD_BUFFERED)      /* in: ULONG[], out: ULONG words sent */
#define IOCTL_LOST      AI_CTL(2, METHOD_BUFFERED)      /* out: ULONG words that found no room in the ring */

static const GUID TanneryGuid = { 0x2f6b1c10, 0x77a1, 0x4e0b, { 0x91, 0x3c, 0x5a, 0x01, 0x6e, 0x20, 0x44, 0x32 } };

typedef struct _TANNERY {
    AI_CARD C;
    PULONG Ring;                    /* its contents and the rest: the interrupt lock */
    ULONG First, Count;
    ULONG Lost;
} TANNERY;

static BOOLEAN NTAPI Isr(PKINTERRUPT i, PVOID context)
{
    TANNERY *x = context;
    ULONG st, n, word;

    UNREFERENCED_PARAMETER(i);
    if (!x->C.Live)
        return FALSE;
    st = AiRead(&x->C, REG_INTST);
    if (st == GONE || !(st & INT_WORDS))
        return FALSE;
    AiWrite(&x->C, REG_INTST, INT_WORDS);
    n = AiRead(&x->C, REG_WORDS);
    if (n > FIFO)
        n = 0;                      /* the card has just gone */
    while (n--) {
        word = AiRead(&x->C, REG_TAKE);
        if (x->Count == RING) {
            x->Lost++;
        } else {
            x->Ring[(x->First + x->Count) % RING] = word;
            x->Count++;
        }
    }
    return TRUE;
}

static ULONG Take(TANNERY *x, PULONG out, ULONG room)
{
    ULONG n = 0;
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    while (n < room && x->Count) {
        out[n++] = x->Ring[x->First];
        x->First = (x->First + 1) % RING;
        x->Count--;
    }
    KeReleaseInterruptSpinLock(x->C.Int, q);
    return n;
}

/* sends what the card has room for, at most as many words as it has FIFO */
static NTSTATUS Send(TANNERY *x, PULONG words, ULONG count, PULONG sent)
{
    NTSTATUS s = STATUS_DEVICE_NOT_READY;
    ULONG st, n = 0;
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    if (x->C.Live) {
        s = STATUS_SUCCESS;
        while (n < count && n < FIFO) {
            st = AiRead(&x->C, REG_INTST);
            if (st == GONE) {
                s = STATUS_DEVICE_NOT_CONNECTED;
                break;
            }
            if (!(st & INT_ROOM))
                break;
            AiWrite(&x->C, REG_SEND, words[n++]);
        }
    }
    KeReleaseInterruptSpinLock(x->C.Int, q);
    *sent = n;
    return s;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    TANNERY *x = dev->DeviceExtension;
    PAI_FDO f = &x->C.F;
    PULONG v = AiBuffer(irp);
    ULONG n;
    NTSTATUS s = AiEnter(f, irp);
    KIRQL q;

    if (!NT_SUCCESS(s))
        return AiDone(irp, s, 0);
    if (AiCode(irp) != IOCTL_TAKE && AiCode(irp) != IOCTL_SEND && AiCode(irp) != IOCTL_LOST)
        return AiExit(f, irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (AiOutLen(irp) < sizeof(ULONG))
        return AiExit(f, irp, STATUS_BUFFER_TOO_SMALL, 0);

    switch (AiCode(irp)) {
    case IOCTL_TAKE:
        n = Take(x, v, AiOutLen(irp) / sizeof(ULONG));
        return AiExit(f, irp, STATUS_SUCCESS, n * sizeof(ULONG));

    case IOCTL_SEND:
        s = Send(x, v, AiInLen(irp) / sizeof(ULONG), &n);
        v[0] = n;
        return AiExit(f, irp, s, NT_SUCCESS(s) ? sizeof(ULONG) : 0);

    default:
        q = KeAcquireInterruptSpinLock(x->C.Int);
        v[0] = x->Lost;
        KeReleaseInterruptSpinLock(x->C.Int, q);
        return AiExit(f, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID GoLive(PAI_FDO f)
{
    TANNERY *x = (TANNERY *)f;
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    x->C.Live = TRUE;
    AiWrite(&x->C, REG_INTEN, INT_WORDS);
    KeReleaseInterruptSpinLock(x->C.Int, q);
}

static VOID Quiet(PAI_FDO f)
{
    TANNERY *x = (TANNERY *)f;
    KIRQL q = KeAcquireInterruptSpinLock(x->C.Int);

    if (x->C.Live) {
        AiWrite(&x->C, REG_INTEN, 0);
        x->C.Live = FALSE;
    }
    KeReleaseInterruptSpinLock(x->C.Int, q);
}

static NTSTATUS Start(PAI_FDO f, PCM_RESOURCE_LIST list)
{
    TANNERY *x = (TANNERY *)f;
    AI_RESOURCES r;
    NTSTATUS s;

    AiResources(list, &r);
    s = AiMap(&x->C, &r, 0x18, FALSE);
    if (!NT_SUCCESS(s))
        return s;
    if (AiRead(&x->C, REG_ID) != ID) {
        AiUnmap(&x->C);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (!x->Ring) {
        x->Ring = ExAllocatePoolWithTag(NonPagedPool, RING * sizeof(ULONG), AI_TAG);
        if (!x->Ring) {
            AiUnmap(&x->C);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        x->First = x->Count = 0;
    }
    AiWrite(&x->C, REG_INTEN, 0);
    s = AiConnect(&x->C, &r, Isr);
    if (!NT_SUCCESS(s)) {
        ExFreePoolWithTag(x->Ring, AI_TAG);
#ifdef FIXED
        x->Ring = NULL;
#endif
        AiUnmap(&x->C);
        return s;
    }
    GoLive(f);
    return STATUS_SUCCESS;
}

static VOID Halt(PAI_FDO f)
{
    TANNERY *x = (TANNERY *)f;

    Quiet(f);
    AiDisconnect(&x->C);
    AiUnmap(&x->C);
}

static VOID Gone(PAI_FDO f)
{
    TANNERY *x = (TANNERY *)f;

    if (x->Ring) {
        ExFreePoolWithTag(x->Ring, AI_TAG);
        x->Ring = NULL;
    }
}

static const AI_OPS Ops = { .Start = Start, .Halt = Halt, .PowerDown = Quiet, .PowerUp = GoLive, .Gone = Gone };

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PVOID p;
    TANNERY *x;
    NTSTATUS s = AiAdd(drv, pdo, sizeof(TANNERY), &Ops, &TanneryGuid, 0, &p);

    if (!NT_SUCCESS(s))
        return s;
    x = p;
    x->Ring = NULL;
    AiReady(&x->C.F);
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    AiEntry(drv, AddDevice, Control);
    return STATUS_SUCCESS;
}
