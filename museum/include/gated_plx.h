/* A board behind a PLX PCI 9052: the chip's configuration registers, local space 0, the board's line LINTi1 (rising edges). */
#ifndef VV_PLX
#define VV_PLX

#define PLX_INTCSR 0x4C
#define PLX_LINE 0x001              /* LINTi1 is enabled */
#define PLX_LINE_HIGH 0x002         /* and active high */
#define PLX_LINE_SEEN 0x004
#define PLX_PIN 0x040               /* the PCI interrupt is enabled */
#define PLX_SOFTWARE 0x080          /* an interrupt by software */
#define PLX_LINE_EDGE 0x100
#define PLX_LINE_CLEAR 0x400        /* a one takes the edge back */
#define PLX_ON (PLX_LINE | PLX_LINE_HIGH | PLX_PIN | PLX_LINE_EDGE)
#define PLX_REGISTERS 0x54
#define PLX_GONE 0xFFFFFFFF

typedef struct _PLX {
    PUCHAR Registers;
    SIZE_T RegisterBytes;
    PUCHAR Window;
    ULONG WindowBytes;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Live;                   /* these belong to the interrupt's lock */
    ULONG Edges;
    ULONG Tests;
} PLX, *PPLX;

typedef struct _PLX_ASK {
    PPLX Plx;
    ULONG Edges;
    ULONG Tests;
    BOOLEAN Live;
    BOOLEAN Present;
    ULONG More;
} PLX_ASK;

ANY ULONG PlxRead(PPLX Plx, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(Plx->Registers + Register));
}

ANY VOID PlxWrite(PPLX Plx, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Plx->Registers + Register), Value);
}

/* Offset must be a multiple of four below WindowBytes. */
ANY ULONG PlxPeek(PPLX Plx, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Plx->Window + Offset));
}

ANY VOID PlxPoke(PPLX Plx, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Plx->Window + Offset), Value);
}

/* The chip's registers; local space 0, too, if the driver needs some bytes of it. */
ANY NTSTATUS PlxMap(PPLX Plx, PCM_PARTIAL_RESOURCE_LIST List, ULONG WindowBytes)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = BoardResource(List, CmResourceTypeMemory, 0);

    if (d == NULL || d->u.Memory.Length < PLX_REGISTERS)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Plx->RegisterBytes = d->u.Memory.Length;
    Plx->Registers = MmMapIoSpace(d->u.Memory.Start, Plx->RegisterBytes, MmNonCached);
    if (Plx->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Plx->Window = NULL;
    Plx->WindowBytes = 0;
    if (WindowBytes == 0)
        return STATUS_SUCCESS;
    d = BoardResource(List, CmResourceTypeMemory, 1);
    if (d != NULL && d->u.Memory.Length >= WindowBytes) {
        Plx->WindowBytes = d->u.Memory.Length & ~3u;
        if (Plx->WindowBytes > 0x10000)
            Plx->WindowBytes = 0x10000;
        Plx->Window = MmMapIoSpace(d->u.Memory.Start, Plx->WindowBytes, MmNonCached);
        if (Plx->Window != NULL)
            return STATUS_SUCCESS;
    }
    MmUnmapIoSpace(Plx->Registers, Plx->RegisterBytes);
    Plx->Registers = NULL;
    return d != NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
}

ANY VOID PlxUnmap(PPLX Plx)
{
    if (Plx->Window != NULL)
        MmUnmapIoSpace(Plx->Window, Plx->WindowBytes);
    Plx->Window = NULL;
    MmUnmapIoSpace(Plx->Registers, Plx->RegisterBytes);
    Plx->Registers = NULL;
}

ANY BOOLEAN NTAPI PlxService(PKINTERRUPT Interrupt, PVOID Context)
{
    PPLX plx = Context;
    ULONG state;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!plx->Live)
        return FALSE;
    state = PlxRead(plx, PLX_INTCSR);
    if (state == PLX_GONE || !(state & PLX_PIN))
        return FALSE;
    if ((state & (PLX_LINE | PLX_LINE_SEEN)) == (PLX_LINE | PLX_LINE_SEEN))
        plx->Edges++;
    else if (!(state & PLX_SOFTWARE))
        return FALSE;
    if (state & PLX_SOFTWARE)
        plx->Tests++;
    PlxWrite(plx, PLX_INTCSR, PLX_ON | PLX_LINE_CLEAR);
    (VOID)PlxRead(plx, PLX_INTCSR);
    KeInsertQueueDpc(&plx->Dpc, NULL, NULL);
    return TRUE;
}

ANY BOOLEAN NTAPI PlxFetchLocked(PVOID Context)
{
    PLX_ASK *ask = Context;

    ask->Edges = ask->Plx->Edges;
    ask->Tests = ask->Plx->Tests;
    ask->Plx->Edges = 0;
    ask->Plx->Tests = 0;
    return TRUE;
}

/* How many edges (and software interrupts) the service routine has seen since the last call. */
ANY ULONG PlxFetch(PPLX Plx, PULONG Tests)
{
    PLX_ASK ask = { Plx, 0, 0, FALSE, FALSE, 0 };

    KeSynchronizeExecution(Plx->Interrupt, PlxFetchLocked, &ask);
    if (Tests != NULL)
        *Tests = ask.Tests;
    return ask.Edges;
}

ANY BOOLEAN NTAPI PlxLiveLocked(PVOID Context)
{
    PLX_ASK *ask = Context;

    ask->Plx->Live = ask->Live;
    ask->Plx->Edges = 0;
    ask->Plx->Tests = 0;
    if (ask->Present) {
        PlxWrite(ask->Plx, PLX_INTCSR, ask->Live ? PLX_ON | PLX_LINE_CLEAR | ask->More : 0);
        (VOID)PlxRead(ask->Plx, PLX_INTCSR);
    }
    return TRUE;
}

/* The line on (with an interrupt by software besides, if More says so) or off. */
ANY VOID PlxLive(PPLX Plx, BOOLEAN Live, BOOLEAN Present, ULONG More)
{
    PLX_ASK ask = { Plx, 0, 0, Live, Present, More };

    KeSynchronizeExecution(Plx->Interrupt, PlxLiveLocked, &ask);
}

ANY NTSTATUS PlxGain(PPLX Plx, PCM_PARTIAL_RESOURCE_LIST List, ULONG WindowBytes)
{
    NTSTATUS status = PlxMap(Plx, List, WindowBytes);

    if (!NT_SUCCESS(status))
        return status;
    PlxWrite(Plx, PLX_INTCSR, 0);
    (VOID)PlxRead(Plx, PLX_INTCSR);
    status = BoardConnect(List, PlxService, Plx, &Plx->Interrupt);
    if (!NT_SUCCESS(status))
        PlxUnmap(Plx);
    return status;
}

ANY VOID PlxLose(PPLX Plx)
{
    IoDisconnectInterrupt(Plx->Interrupt);
    Plx->Interrupt = NULL;
    PlxUnmap(Plx);
}
#endif
