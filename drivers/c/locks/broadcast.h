/* KeIpiGenericCall. */
#include "locks.h"

/* One call of it. */
typedef struct _BROADCAST {
    ULONG Count; /* processors */
    volatile LONG Inside;
    volatile LONG Ran[64];
} BROADCAST;

static BROADCAST *volatile UnderWay; /* the one whose routine runs anywhere */

static ULONG_PTR NTAPI OnEach(ULONG_PTR Argument)
{
    BROADCAST *Broadcast = (BROADCAST *)Argument;
    ULONG Here = HERE();
    PVOID Other = InterlockedCompareExchangePointer((PVOID volatile *)&UnderWay, Broadcast, NULL);

    EXPECT(LevelNow() == IPI_LEVEL);
    EXPECT(Other == NULL || Other == Broadcast); /* one at a time */
    InterlockedIncrement(&Broadcast->Ran[Here]);
    InterlockedIncrement(&Broadcast->Inside);
    while (Broadcast->Inside < (LONG)Broadcast->Count) { /* ends only if all are here at once */
        YieldProcessor();
    }
    if (InterlockedIncrement(&Broadcast->Inside) == 2 * (LONG)Broadcast->Count) {
        InterlockedExchangePointer((PVOID volatile *)&UnderWay, NULL);
    }
    return 100 + Here;
}

static NTSTATUS BroadcastOnce(VOID)
{
    BROADCAST Broadcast;
    ULONG_PTR Result;
    ULONG Here;
    KIRQL Old;

    RtlZeroMemory(&Broadcast, sizeof(Broadcast));
    Broadcast.Count = PROCESSORS();
    Old = KeRaiseIrqlToDpcLevel(); /* so that the thread stays where it is */
    Here = HERE();
    Result = KeIpiGenericCall(OnEach, (ULONG_PTR)&Broadcast);
    EXPECT(LevelNow() == DISPATCH_LEVEL && HERE() == Here);
    EXPECT(Result == 100 + Here);
    EXPECT(Broadcast.Inside == 2 * (LONG)Broadcast.Count); /* it has returned on all */
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Broadcast.Ran); Index++) {
        EXPECT(Broadcast.Ran[Index] == (Index < Broadcast.Count));
    }
    KeLowerIrql(Old);
    return STATUS_SUCCESS;
}

/* While an IPI's routine runs anywhere, no processor runs anything else. */
static volatile LONG Stopped, Moved;

static ULONG_PTR NTAPI HoldAll(ULONG_PTR Argument)
{
    LONG Before = Moved;

    InterlockedIncrement(&Stopped);
    for (ULONG Index = 0; Index < 50; Index++) {
        InterlockedExchangeAdd(&Stopped, 0);
        EXPECT(Moved == Before);
    }
    InterlockedIncrement(&Stopped);
    while (Stopped < 2 * (LONG)Argument) { /* who returns goes on with what was interrupted */
        YieldProcessor();
    }
    return 0;
}

static NTSTATUS BroadcastHolds(VOID)
{
    Stopped = 0;
    KeIpiGenericCall(HoldAll, PROCESSORS());
    EXPECT(LevelNow() == PASSIVE_LEVEL);
    return STATUS_SUCCESS;
}

/* At first where no interrupt comes in: only the barrier makes the others wait for that. */
static NTSTATUS Move(VOID)
{
    KIRQL Old;

    KeRaiseIrql(HIGH_LEVEL, &Old);
    for (ULONG Index = 0; Index < 40; Index++) {
        InterlockedIncrement(&Moved);
    }
    KeLowerIrql(Old);
    for (ULONG Index = 0; Index < 8; Index++) {
        InterlockedIncrement(&Moved);
    }
    return STATUS_SUCCESS;
}

/* ---- stories ---- */

static ULONG Broadcasts(VOID)
{
    LONG Were = Wrong;

    for (ULONG Index = 0; Index < 3; Index++) {
        BroadcastOnce();
    }
    CHECK(Wrong == Were && LevelNow() == PASSIVE_LEVEL);
    CHECK(NT_SUCCESS(BroadcastHolds()));
    CHECK(Wrong == Were);
    return 0;
}

/* A processor at HIGH_LEVEL lets the interrupt in as soon as it lowers. */
static volatile LONG AtHigh, Lowers;

static VOID NTAPI StayHigh(PVOID Context)
{
    KIRQL Old;

    UNREFERENCED_PARAMETER(Context);
    KeSetSystemAffinityThread(2);
    KeRaiseIrql(HIGH_LEVEL, &Old);
    AtHigh = 1;
    for (ULONG Index = 0; Index < 100000; Index++) {
        YieldProcessor();
    }
    Lowers = 1;
    KeLowerIrql(Old);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG_PTR NTAPI AfterLowering(ULONG_PTR Argument)
{
    UNREFERENCED_PARAMETER(Argument);
    EXPECT(Lowers == 1);
    return 0;
}

static ULONG BroadcastWaitsForHigh(VOID)
{
    KAFFINITY Before = KeSetSystemAffinityThreadEx(1);
    LONG Were = Wrong;
    PVOID Thread;

    AtHigh = Lowers = 0;
    CHECK(NT_SUCCESS(StartThread(StayHigh, NULL, &Thread)));
    while (!AtHigh) {
        YieldProcessor();
    }
    KeIpiGenericCall(AfterLowering, 0);
    KeRevertToUserAffinityThreadEx(Before);
    CHECK(Join(Thread) == STATUS_SUCCESS && Wrong == Were && Lowers);
    return 0;
}
