/* plx.h: the PCI 9052 itself: its interrupt control and its user pins; both inputs of the board are edge triggered. */
#ifndef SS_PLX_H
#define SS_PLX_H

#define PLX_INTCSR 0x4C
#define PLX_CNTRL  0x50

#define INT1_ON    0x001u
#define INT1_HIGH  0x002u
#define INT1_SET   0x004u
#define INT2_ON    0x008u
#define INT2_HIGH  0x010u
#define INT2_SET   0x020u
#define INT_PCI    0x040u
#define INT1_EDGE  0x100u
#define INT2_EDGE  0x200u
#define INT1_CLEAR 0x400u
#define INT2_CLEAR 0x800u

#define PLX_QUIET  (INT1_HIGH | INT1_EDGE | INT2_HIGH | INT2_EDGE)

typedef struct PLX {
    SITE Site;
    WINDOW Chip;            /* the configuration registers, in memory */
    LINE Line;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN Up;             /* under Lock: registers may be touched with it */
    LONG Fired;             /* 1: the first input, 2: the second; for the DPC */
} PLX;

/* Of a value of INTCSR, which inputs interrupt. */
static SPARE ULONG PlxCauses(ULONG intcsr)
{
    ULONG causes = 0;

    if (intcsr == ~0u || (intcsr & INT_PCI) == 0)
        return 0;
    if ((intcsr & (INT1_ON | INT1_SET)) == (INT1_ON | INT1_SET))
        causes |= 1;
    if ((intcsr & (INT2_ON | INT2_SET)) == (INT2_ON | INT2_SET))
        causes |= 2;
    return causes;
}

/* The ordinary service routine: takes the edges back, tells the DPC. */
static SPARE BOOLEAN PlxClaim(SITE *site)
{
    PLX *plx = (PLX *)site;
    ULONG intcsr = Get32(&plx->Chip, PLX_INTCSR);
    ULONG causes = PlxCauses(intcsr);

    if (causes == 0)
        return FALSE;
    Put32(&plx->Chip, PLX_INTCSR, intcsr | ((causes & 1) ? INT1_CLEAR : 0) | ((causes & 2) ? INT2_CLEAR : 0));
    (VOID)Get32(&plx->Chip, PLX_INTCSR);    /* the write has arrived */
    InterlockedOr(&plx->Fired, (LONG)causes);
    KeInsertQueueDpc(&plx->Dpc, NULL, NULL);
    return TRUE;
}

static SPARE VOID PlxBorn(PLX *plx, PKDEFERRED_ROUTINE dpc)
{
    KeInitializeSpinLock(&plx->Lock);
    KeInitializeDpc(&plx->Dpc, dpc, plx);
}

/* Which: INT1_ON and INT2_ON, for the inputs that may interrupt from now on. */
static SPARE VOID PlxUp(PLX *plx, ULONG which)
{
    KIRQL irql;

    plx->Fired = 0;
    Put32(&plx->Chip, PLX_INTCSR, PLX_QUIET | INT1_CLEAR | INT2_CLEAR);
    LineUp(&plx->Line);
    Put32(&plx->Chip, PLX_INTCSR, PLX_QUIET | INT_PCI | which);
    KeAcquireSpinLock(&plx->Lock, &irql);
    plx->Up = TRUE;
    KeReleaseSpinLock(&plx->Lock, irql);
}

static BOOLEAN NTAPI PlxHush(PVOID context)
{
    PLX *plx = context;

    plx->Line.Live = FALSE;
    Put32(&plx->Chip, PLX_INTCSR, PLX_QUIET | INT1_CLEAR | INT2_CLEAR);
    (VOID)Get32(&plx->Chip, PLX_INTCSR);
    return TRUE;
}

/* Behind it neither service routine nor DPC runs. */
static SPARE VOID PlxDown(PLX *plx, BOOLEAN live)
{
    KIRQL irql;

    KeAcquireSpinLock(&plx->Lock, &irql);
    plx->Up = FALSE;
    KeReleaseSpinLock(&plx->Lock, irql);
    if (live)
        KeSynchronizeExecution(plx->Line.Object, PlxHush, plx);
    else
        LineDown(&plx->Line);
    KeFlushQueuedDpcs();
}

static SPARE NTSTATUS PlxMap(PLX *plx, PCM_RESOURCE_LIST resources, BOOLEAN (*claim)(SITE *site))
{
    NTSTATUS status = WindowMap(&plx->Chip, resources, 0, 0x54);

    if (!NT_SUCCESS(status))
        return status;
    status = LineJoin(&plx->Line, &plx->Site, resources, claim);
    if (!NT_SUCCESS(status))
        WindowUnmap(&plx->Chip);
    return status;
}

static SPARE VOID PlxUnmap(PLX *plx)
{
    LinePart(&plx->Line);
    WindowUnmap(&plx->Chip);
}

#endif
