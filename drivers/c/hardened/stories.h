/*
 * Stories of a hardened driver that does nothing wrong.
 */
#ifndef HARDENED_STORIES_H
#define HARDENED_STORIES_H

#include "hardened.h"

static NOINLINE ULONG Fill(volatile char *Buffer, ULONG Count)
{
    for (ULONG i = 0; i < Count; i++) {
        Buffer[i] = (char)i;
    }
    return Count;
}

static NOINLINE ULONG Buffered(ULONG Count)
{
    char Buffer[24];

    Fill(Buffer, Count);
    return (ULONG)Buffer[Count - 1];
}

/* The loader has given the cookie a value of its own, with 16 bits of zeroes at the top. */
static ULONG CookieHolds(void)
{
    CHECK(__security_cookie != DEFAULT_COOKIE);
    CHECK(__security_cookie != 0 && __security_cookie >> 48 == 0);
    CHECK(Buffered(24) == 23);
    return 0;
}

static NOINLINE ULONG64 Four(ULONG A, ULONG64 B, const char *C, ULONG D)
{
    return A + B * 10 + (ULONG64)C[0] * 100 + (ULONG64)D * 1000000;
}

static NOINLINE double Floating(double A, double B, ULONG C)
{
    return A * 100 + B * 10 + C;
}

static ULONG64 (*volatile FourPointer)(ULONG A, ULONG64 B, const char *C, ULONG D) = Four;
static double (*volatile FloatingPointer)(double A, double B, ULONG C) = Floating;
static KIRQL(NTAPI *volatile Imported)(PKSPIN_LOCK Lock) = NULL;
static SIZE_T(NTAPI *volatile Compare)(const VOID *A, const VOID *B, SIZE_T Length) = NULL;

/* A guarded call keeps every argument, in whichever register. */
static ULONG GuardedCalls(void)
{
    KSPIN_LOCK Lock;
    KIRQL Old;

    CHECK((PVOID)__guard_dispatch_icall_fptr != (PVOID)DispatchAtOnce);
    CHECK(FourPointer(1, 2, "a", 3) == 1 + 20 + 9700 + 3000000);
    CHECK(FloatingPointer(1.0, 2.0, 3) == 123.0);
    Imported = KeAcquireSpinLockRaiseToDpc;
    Compare = RtlCompareMemory;
    KeInitializeSpinLock(&Lock);
    Old = Imported(&Lock);
    KeReleaseSpinLock(&Lock, Old);
    CHECK(Old == PASSIVE_LEVEL);
    CHECK(Compare("abcd", "abxx", 4) == 2);
    return 0;
}

/* What the compiler calls where it cannot dispatch: it only looks. */
NO_GUARD static ULONG GuardChecks(void)
{
    GUARD_CHECK Check = __guard_check_icall_fptr;

    CHECK(Check != CheckNothing);
    Check((ULONG_PTR)Four);
    Check((ULONG_PTR)Floating);
    Check((ULONG_PTR)KeAcquireSpinLockRaiseToDpc);
    CHECK(TRUE);
    return 0;
}

static NOINLINE ULONG TwoPages(ULONG Seed)
{
    volatile ULONG Buffer[2500]; /* nearly three pages of stack */

    for (ULONG i = 0; i < 2500; i++) {
        Buffer[i] = Seed + i;
    }
    return Buffer[0] + Buffer[2499];
}

/* A frame of more than a page is probed page by page first. */
static ULONG BigFrames(void)
{
    CHECK(TwoPages(1) == 1 + 2500);
    CHECK(TwoPages(7) == 7 + 2506);
    return 0;
}

static NOINLINE ULONG Switch(ULONG Value)
{
    switch (Value) {
    case 0: return Fill((char[4]){0}, 1);
    case 1: return 17;
    case 2: return Fill((char[4]){0}, 3) + 1;
    case 3: return (ULONG)KeGetCurrentIrql() + 5;
    case 4: return 99;
    case 5: return Fill((char[4]){0}, 2) * 7;
    case 6: return 1234;
    case 7: return Fill((char[4]){0}, 4) - 1;
    default: return 0;
    }
}

/* A jump table's targets are no targets of calls, and need not be. */
static ULONG JumpTable(void)
{
    static const ULONG Expected[] = {1, 17, 4, 5, 99, 14, 1234, 3, 0};

    for (ULONG i = 0; i < RTL_NUMBER_OF(Expected); i++) {
        CHECK(Switch(i) == Expected[i]);
    }
    return 0;
}

#endif
