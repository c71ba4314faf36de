/*
 * What the stories of seh.sys share: the check, a log of what ran in which order, and the ways to fault.
 */
#ifndef SEH_SEH_H
#define SEH_SEH_H

#include "clang.h"

#define STORIES "seh"
#include "../control.h"

#define SEH_TAG 0x20686553u /* "Seh " in pool listings */

static volatile ULONG Zero;    /* volatile, so that the compiler cannot see through the faults */
static volatile ULONG Sink;
static PVOID volatile NoPlace; /* a null pointer */

/* What ran, in its order: one letter for each step. */
static char Steps[32];
static volatile ULONG StepCount;

static void Begin(void)
{
    for (ULONG i = 0; i < sizeof(Steps); i++) {
        Steps[i] = 0;
    }
    StepCount = 0;
}

static NOINLINE void Step(char Letter)
{
    if (StepCount < sizeof(Steps) - 1) {
        Steps[StepCount++] = Letter;
    }
}

static BOOLEAN Went(const char *Expected)
{
    ULONG i;

    for (i = 0; Expected[i] != 0; i++) {
        if (Steps[i] != Expected[i]) {
            DbgPrint("seh: went %s, not %s\n", Steps, Expected);
            return FALSE;
        }
    }
    if (Steps[i] != 0) {
        DbgPrint("seh: went %s, not %s\n", Steps, Expected);
    }
    return Steps[i] == 0;
}

/* Filters are calls, so that they can take a step. */
static NOINLINE int Filter(char Letter, int Answer)
{
    Step(Letter);
    return Answer;
}

static NOINLINE ULONG ReadAt(volatile ULONG *Place)
{
    return *Place;
}

static NOINLINE ULONG Divide(ULONG By)
{
    return 1000 / By;
}

/*
 * Does not come back, but is not declared so: the compiler's guarded ranges end one byte late, and the return address of a call
 * with nothing behind it would be in the next range as well.
 */
static VOID(NTAPI *volatile RaiseStatus)(NTSTATUS Status) = (VOID(NTAPI *)(NTSTATUS))ExRaiseStatus;

static NOINLINE void Raise(NTSTATUS Status)
{
    RaiseStatus(Status);
    Step('x');
}

#endif
