/*
 * WAITERS devices that wait for a controller or for map registers, each with a number in the place of its current IRP, and the order in which
 * they got it. Included behind control.h, with WAITERS and TheDriver known.
 */
#ifndef WAITERS_H
#define WAITERS_H

static PDEVICE_OBJECT Waiters[WAITERS];
static ULONG Order[4 * WAITERS], Ordered, Mistakes;
static IO_ALLOCATION_ACTION Action;

/* What stands in the place of an IRP. */
static PIRP NumberOf(ULONG Index)
{
    return (PIRP)(0x1000ull + Index);
}

static ULONG MakeWaiters(VOID)
{
    ULONG Index;

    for (Index = 0; Index < WAITERS; Index++) {
        CHECK(NT_SUCCESS(IoCreateDevice(TheDriver, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Waiters[Index])));
        Waiters[Index]->CurrentIrp = NumberOf(Index);
    }
    Ordered = Mistakes = 0;
    return 0;
}

static VOID DeleteWaiters(VOID)
{
    ULONG Index;

    for (Index = 0; Index < WAITERS; Index++) {
        Waiters[Index]->CurrentIrp = NULL;
        IoDeleteDevice(Waiters[Index]);
    }
}

#endif
