/* edu.h: QEMU's educational card: its registers, its interrupt, a DPC behind it. */
#ifndef SS_EDU_H
#define SS_EDU_H

#define EDU_ID        0x00
#define EDU_LIVE      0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS    0x20
#define EDU_CAUSES    0x24
#define EDU_RAISE     0x60
#define EDU_TAKEN     0x64
#define EDU_SOURCE    0x80
#define EDU_TARGET    0x88
#define EDU_COUNT     0x90
#define EDU_COMMAND   0x98

#define EDU_COMPUTES  0x01u    /* of STATUS */
#define EDU_TELLS     0x80u    /* interrupt when the factorial is there */
#define EDU_MOVES     0x01u    /* of COMMAND */
#define EDU_TO_MEMORY 0x02u
#define EDU_MOVE_TELLS 0x04u
#define EDU_BYTES     4096u    /* of its own memory */
#define EDU_MEMORY    0x40000u

typedef struct EDU {
    SITE Site;
    WINDOW Bar;
    LINE Line;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN Up;             /* under Lock: registers may be touched with it */
    LONG Causes;            /* of interrupts, for the DPC */
} EDU;

static BOOLEAN EduClaim(SITE *site)
{
    EDU *edu = (EDU *)site;
    ULONG causes = Get32(&edu->Bar, EDU_CAUSES);

    if (causes == 0 || causes == ~0u)
        return FALSE;
    Put32(&edu->Bar, EDU_TAKEN, causes);
    (VOID)Get32(&edu->Bar, EDU_CAUSES);     /* the write has arrived */
    InterlockedOr(&edu->Causes, (LONG)causes);
    KeInsertQueueDpc(&edu->Dpc, NULL, NULL);
    return TRUE;
}

static SPARE VOID EduBorn(EDU *edu, PKDEFERRED_ROUTINE dpc)
{
    KeInitializeSpinLock(&edu->Lock);
    KeInitializeDpc(&edu->Dpc, dpc, edu);
}

static SPARE VOID EduUp(EDU *edu)
{
    KIRQL irql;

    Put32(&edu->Bar, EDU_TAKEN, Get32(&edu->Bar, EDU_CAUSES));
    edu->Causes = 0;
    LineUp(&edu->Line);
    Put32(&edu->Bar, EDU_STATUS, EDU_TELLS);
    KeAcquireSpinLock(&edu->Lock, &irql);
    edu->Up = TRUE;
    KeReleaseSpinLock(&edu->Lock, irql);
}

static BOOLEAN NTAPI EduHush(PVOID context)
{
    EDU *edu = context;

    edu->Line.Live = FALSE;
    Put32(&edu->Bar, EDU_STATUS, 0);
    Put32(&edu->Bar, EDU_TAKEN, Get32(&edu->Bar, EDU_CAUSES));
    (VOID)Get32(&edu->Bar, EDU_CAUSES);
    return TRUE;
}

/* Behind it neither service routine nor DPC runs. */
static SPARE VOID EduDown(EDU *edu, BOOLEAN live)
{
    KIRQL irql;

    KeAcquireSpinLock(&edu->Lock, &irql);
    edu->Up = FALSE;
    KeReleaseSpinLock(&edu->Lock, irql);
    if (live)
        KeSynchronizeExecution(edu->Line.Object, EduHush, edu);
    else
        LineDown(&edu->Line);
    KeFlushQueuedDpcs();
}

static SPARE NTSTATUS EduMap(EDU *edu, PCM_RESOURCE_LIST resources)
{
    NTSTATUS status = WindowMap(&edu->Bar, resources, 0, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    status = LineJoin(&edu->Line, &edu->Site, resources, EduClaim);
    if (!NT_SUCCESS(status))
        WindowUnmap(&edu->Bar);
    return status;
}

static SPARE VOID EduUnmap(EDU *edu)
{
    LinePart(&edu->Line);
    WindowUnmap(&edu->Bar);
}

#endif
