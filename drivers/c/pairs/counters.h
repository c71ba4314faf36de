/* Pairs of performance counters. */
#ifndef PAIRS_COUNTERS_H
#define PAIRS_COUNTERS_H

#include "pairs.h"
#include "../pcw.h"

static PVOID CounterSet(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"Dirql Pairs");
    PCW_COUNTER_DESCRIPTOR Counter = {1, 0, 0, sizeof(ULONG)};
    PCW_REGISTRATION_INFORMATION Info = {PCW_VERSION_1, &Name, 1, &Counter, NULL, NULL, 0};
    PVOID Set = NULL;

    return NT_SUCCESS(PcwRegister(&Set, &Info)) ? Set : NULL;
}

static VOID CounterSetLeak(BOOLEAN Wrong)
{
    PVOID Set = CounterSet();

    if (Set == NULL) {
        return;
    }
    PcwUnregister(Set);
    Set = CounterSet();
    if (!Wrong && Set != NULL) {
        PcwUnregister(Set);
    }
}

static VOID NotACounterHandle(BOOLEAN Wrong)
{
    static ULONG Value = 7;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"One");
    PCW_DATA Data = {&Value, sizeof(Value)};
    PVOID Set = CounterSet(), Instance = NULL;

    if (Set == NULL) {
        return;
    }
    if (NT_SUCCESS(PcwCreateInstance(&Instance, Set, &Name, 1, &Data))) {
        PcwCloseInstance(Instance);
        if (Wrong) {
            PcwCloseInstance(Instance);
        }
    }
    PcwUnregister(Set);
}

#define COUNTER_PAIRS                                                                                                  \
    PAIR("counter-set-leak", CounterSetLeak)                                                                           \
    PAIR("not-a-counter-handle", NotACounterHandle)                                                                    \

#endif
