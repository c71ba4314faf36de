/*
 * plx.h: the PLX PCI 9052 behind a hull: the local configuration registers in BAR0, and what interrupts: the board's two lines, taken on their rising
 * edges, and the software interrupt.
 */
#ifndef PLX_H
#define PLX_H

#define PLX_INTCSR      0x4c
#define PLX_LINE1_ON        0x0001
#define PLX_LINE1_HIGH      0x0002
#define PLX_LINE1_IS        0x0004
#define PLX_LINE2_ON        0x0008
#define PLX_LINE2_HIGH      0x0010
#define PLX_LINE2_IS        0x0020
#define PLX_PCI_ON          0x0040
#define PLX_SOFT            0x0080
#define PLX_LINE1_EDGE      0x0100
#define PLX_LINE2_EDGE      0x0200
#define PLX_LINE1_CLEAR     0x0400
#define PLX_LINE2_CLEAR     0x0800
#define PLX_EDGES (PLX_LINE1_HIGH | PLX_LINE2_HIGH | PLX_LINE1_EDGE | PLX_LINE2_EDGE)
#define PLX_CLEARS (PLX_LINE1_CLEAR | PLX_LINE2_CLEAR)

#define PLX_CNTRL       0x50
#define PLX_USER_MODE(n)    (1u << (3 * (n)))           /* 1: the pin has its other meaning */
#define PLX_USER_OUT(n)     (2u << (3 * (n)))
#define PLX_USER_DATA(n)    (4u << (3 * (n)))
#define PLX_USER_ALL        0x0fffu
#define PLX_EE_CLOCK        (1u << 24)
#define PLX_EE_SELECT       (1u << 25)
#define PLX_EE_IN           (1u << 26)                  /* into the EEPROM */
#define PLX_EE_OUT          (1u << 27)

#define PLX_CAUSE_LINE1 1
#define PLX_CAUSE_LINE2 2
#define PLX_CAUSE_SOFT  4

typedef struct PLX {
    PORTHOLE Regs;
    BELL Bell;
    KDPC Dpc;
    LONG Causes;
    ULONG Wanted;               /* what INTCSR holds while the card is awake; of the thread that starts, or of Begin */
    VOID (*Answer)(PVOID Owner, ULONG Causes);          /* DISPATCH_LEVEL */
    PVOID Owner;
} PLX;

typedef struct PLX_CHANGE {
    PLX *Plx;
    ULONG Clear, Set;
} PLX_CHANGE;

static inline BOOLEAN PlxRing(PVOID Plx)
{
    PLX *p = Plx;
    ULONG csr = HoleGet(&p->Regs, PLX_INTCSR), causes = 0;

    if (csr == ~0u || !(csr & PLX_PCI_ON))
        return FALSE;
    csr &= ~PLX_CLEARS;
    if ((csr & PLX_LINE1_ON) && (csr & PLX_LINE1_IS)) {
        causes |= PLX_CAUSE_LINE1;
        csr |= PLX_LINE1_CLEAR;
    }
    if ((csr & PLX_LINE2_ON) && (csr & PLX_LINE2_IS)) {
        causes |= PLX_CAUSE_LINE2;
        csr |= PLX_LINE2_CLEAR;
    }
    if (csr & PLX_SOFT) {
        causes |= PLX_CAUSE_SOFT;
        csr &= ~PLX_SOFT;
    }
    if (!causes)
        return FALSE;
    HolePut(&p->Regs, PLX_INTCSR, csr);
    HoleGet(&p->Regs, PLX_INTCSR);              /* the write is there */
    InterlockedOr(&p->Causes, (LONG)causes);
    KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    return TRUE;
}

static inline VOID NTAPI PlxDpc(PKDPC Dpc, PVOID Plx, PVOID A, PVOID B)
{
    PLX *p = Plx;
    ULONG causes = (ULONG)InterlockedExchange(&p->Causes, 0);

    (void)Dpc;
    (void)A;
    (void)B;
    if (causes)
        p->Answer(p->Owner, causes);
}

static inline BOOLEAN NTAPI PlxChanged(PVOID Change)
{
    PLX_CHANGE *c = Change;
    ULONG csr = HoleGet(&c->Plx->Regs, PLX_INTCSR);

    if (csr != ~0u) {
        HolePut(&c->Plx->Regs, PLX_INTCSR, (csr & ~(c->Clear | PLX_CLEARS)) | c->Set);
        HoleGet(&c->Plx->Regs, PLX_INTCSR);
    }
    return TRUE;
}

/* INTCSR belongs to the service routine, too: all changes of it are made below the interrupt's lock. */
static inline VOID PlxChange(PLX *p, ULONG Clear, ULONG Set)
{
    PLX_CHANGE c;

    c.Plx = p;
    c.Clear = Clear;
    c.Set = Set;
    KeSynchronizeExecution(p->Bell.Object, PlxChanged, &c);
}

static inline NTSTATUS PlxMap(PLX *p, PCM_RESOURCE_LIST List)
{
    return HoleOpen(&p->Regs, List, 0x54);
}

/* The window must have been mapped. Lines: PLX_LINE1_ON, PLX_LINE2_ON, both or none. */
static inline NTSTATUS PlxListen(PLX *p, PCM_RESOURCE_LIST List, ULONG Lines, VOID (*Answer)(PVOID, ULONG), PVOID Owner)
{
    NTSTATUS status;

    p->Answer = Answer;
    p->Owner = Owner;
    p->Causes = 0;
    p->Wanted = Lines | PLX_PCI_ON | PLX_EDGES;
    KeInitializeDpc(&p->Dpc, PlxDpc, p);
    HolePut(&p->Regs, PLX_INTCSR, PLX_EDGES | PLX_CLEARS);
    status = BellHang(&p->Bell, List, PlxRing, p);
    if (NT_SUCCESS(status))
        PlxChange(p, ~0u, p->Wanted);
    return status;
}

/* Before D3, and at the end */
static inline VOID PlxSilence(PLX *p)
{
    PlxChange(p, PLX_LINE1_ON | PLX_LINE2_ON | PLX_PCI_ON | PLX_SOFT, 0);
}

static inline VOID PlxDeafen(PLX *p, BOOLEAN touch)
{
    if (touch)
        PlxSilence(p);
    BellTake(&p->Bell);
    KeFlushQueuedDpcs();
}

static inline VOID PlxWake(PLX *p)
{
    BellUnmute(&p->Bell);
    PlxChange(p, ~0u, p->Wanted | PLX_CLEARS);
}

#endif
