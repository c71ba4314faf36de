/* Timers: with a DPC, to be waited for, periodic, of Ex, of the device; how each is cancelled and forgotten. */
#ifndef TIMERS_H
#define TIMERS_H

#include "gallery.h"

typedef struct _ALARM {
    KTIMER Timer;
    KDPC Dpc;
    KEVENT Enough;
    LONG Rings;
    LONG Wanted;
} ALARM;

static VOID NTAPI Rings(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    ALARM *Alarm = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (InterlockedIncrement(&Alarm->Rings) == Alarm->Wanted) {
        KeSetEvent(&Alarm->Enough, IO_NO_INCREMENT, FALSE);
    }
}

static VOID PrepareAlarm(ALARM *Alarm, PKDEFERRED_ROUTINE Routine, LONG Wanted)
{
    KeInitializeTimer(&Alarm->Timer);
    KeInitializeDpc(&Alarm->Dpc, Routine, Alarm);
    KeInitializeEvent(&Alarm->Enough, NotificationEvent, FALSE);
    Alarm->Rings = 0;
    Alarm->Wanted = Wanted;
}

/* One shot: after the DPC has been seen to run and the queues are flushed, the memory goes. */
static ULONG TimerOnce(VOID)
{
    ALARM *Alarm = Nonpaged(sizeof(*Alarm));

    CHECK(Alarm != NULL);
    PrepareAlarm(Alarm, Rings, 1);
    CHECK(!KeSetTimer(&Alarm->Timer, After(MILLISECONDS(5)), &Alarm->Dpc));
    CHECK(WaitFor(&Alarm->Enough) == STATUS_SUCCESS);
    CHECK(!KeCancelTimer(&Alarm->Timer));
    KeFlushQueuedDpcs();
    ExFreePoolWithTag(Alarm, TAG);
    return 0;
}

/* Periodic: cancelled, and its last DPC waited for, before its memory goes. */
static ULONG TimerPeriodic(VOID)
{
    ALARM *Alarm = Nonpaged(sizeof(*Alarm));

    CHECK(Alarm != NULL);
    PrepareAlarm(Alarm, Rings, 3);
    KeSetTimerEx(&Alarm->Timer, After(MILLISECONDS(1)), 2, &Alarm->Dpc);
    CHECK(WaitFor(&Alarm->Enough) == STATUS_SUCCESS);
    CHECK(KeCancelTimer(&Alarm->Timer)); /* a periodic timer is always set */
    KeFlushQueuedDpcs();
    CHECK(Alarm->Rings >= 3);
    ExFreePoolWithTag(Alarm, TAG);
    return 0;
}

static VOID NTAPI RingsAndCancels(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    ALARM *Alarm = Context;

    if (Alarm->Rings + 1 == Alarm->Wanted) {
        KeCancelTimer(&Alarm->Timer);
    }
    Rings(Dpc, Context, One, Two);
}

/* A periodic timer that its own DPC cancels. */
static ULONG TimerCancelledByItsDpc(VOID)
{
    ALARM *Alarm = Nonpaged(sizeof(*Alarm));

    CHECK(Alarm != NULL);
    PrepareAlarm(Alarm, RingsAndCancels, 4);
    KeSetTimerEx(&Alarm->Timer, After(MILLISECONDS(1)), 1, &Alarm->Dpc);
    CHECK(WaitFor(&Alarm->Enough) == STATUS_SUCCESS);
    KeCancelTimer(&Alarm->Timer);
    KeFlushQueuedDpcs();
    CHECK(Alarm->Rings >= 4);
    ExFreePoolWithTag(Alarm, TAG);
    return 0;
}

static VOID NTAPI SetsItselfAgain(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    ALARM *Alarm = Context;

    if (Alarm->Rings + 1 < Alarm->Wanted) {
        KeSetTimer(&Alarm->Timer, After(MILLISECONDS(1)), &Alarm->Dpc);
    }
    Rings(Dpc, Context, One, Two);
}

/* A one-shot timer that its DPC sets again, as drivers did before there were periodic ones. */
static ULONG TimerSetsItselfAgain(VOID)
{
    ALARM Alarm;

    PrepareAlarm(&Alarm, SetsItselfAgain, 4);
    KeSetTimer(&Alarm.Timer, After(MILLISECONDS(1)), &Alarm.Dpc);
    CHECK(WaitFor(&Alarm.Enough) == STATUS_SUCCESS);
    KeFlushQueuedDpcs();
    CHECK(Alarm.Rings == 4);
    return 0;
}

/* A watchdog is set anew before it expires: the first setting is forgotten. */
static ULONG TimerAsWatchdog(VOID)
{
    ALARM Alarm;

    PrepareAlarm(&Alarm, Rings, 1);
    for (ULONG Round = 0; Round < 5; Round++) {
        BOOLEAN WasSet = KeSetTimer(&Alarm.Timer, After(MILLISECONDS(60000)), &Alarm.Dpc);

        CHECK(WasSet == (Round > 0));
        Delay(1);
    }
    CHECK(KeCancelTimer(&Alarm.Timer));
    CHECK(!KeCancelTimer(&Alarm.Timer));
    KeFlushQueuedDpcs();
    CHECK(Alarm.Rings == 0);
    return 0;
}

/* A timer as an object to wait for: a notification timer stays signalled, a synchronization timer lets one wait through. */
static ULONG TimerToWaitFor(VOID)
{
    KTIMER Stays, LetsOne;
    LARGE_INTEGER AtOnce = After(0);

    KeInitializeTimer(&Stays);
    KeInitializeTimerEx(&LetsOne, SynchronizationTimer);
    KeSetTimer(&Stays, After(MILLISECONDS(2)), NULL);
    KeSetTimer(&LetsOne, After(MILLISECONDS(2)), NULL);
    CHECK(WaitFor(&Stays) == STATUS_SUCCESS && WaitFor(&LetsOne) == STATUS_SUCCESS);
    CHECK(KeReadStateTimer(&Stays) && !KeReadStateTimer(&LetsOne));
    CHECK(KeWaitForSingleObject(&Stays, Executive, KernelMode, FALSE, &AtOnce) == STATUS_SUCCESS);
    CHECK(KeWaitForSingleObject(&LetsOne, Executive, KernelMode, FALSE, &AtOnce) == STATUS_TIMEOUT);
    return 0;
}

/* By the calendar: an absolute time is a positive number. */
static ULONG TimerAtATime(VOID)
{
    KTIMER Timer;
    LARGE_INTEGER Now, Due;

    KeInitializeTimer(&Timer);
    KeQuerySystemTime(&Now);
    Due.QuadPart = Now.QuadPart + 50000;
    KeSetTimer(&Timer, Due, NULL);
    CHECK(WaitFor(&Timer) == STATUS_SUCCESS);
    KeQuerySystemTime(&Now);
    CHECK(Now.QuadPart >= Due.QuadPart);
    KeSetTimer(&Timer, Due, NULL); /* it is past: due at once */
    CHECK(WaitFor(&Timer) == STATUS_SUCCESS);
    return 0;
}

/* A wait with a time-out, in which what is waited for does not come. */
static ULONG TimeOut(VOID)
{
    KEVENT Never;
    LARGE_INTEGER Limit = After(MILLISECONDS(3));
    ULONGLONG Before = KeQueryInterruptTime();

    KeInitializeEvent(&Never, NotificationEvent, FALSE);
    CHECK(KeWaitForSingleObject(&Never, Executive, KernelMode, FALSE, &Limit) == STATUS_TIMEOUT);
    CHECK(KeQueryInterruptTime() - Before >= 20000);
    return 0;
}

/* At DISPATCH_LEVEL an event is pulsed, with the promise of a wait; that wait takes no time. */
static ULONG PulsedAtDispatchLevel(VOID)
{
    KEVENT Pulsed, Signalled;
    LARGE_INTEGER AtOnce = After(0);
    KIRQL Old;

    KeInitializeEvent(&Pulsed, NotificationEvent, FALSE);
    KeInitializeEvent(&Signalled, SynchronizationEvent, TRUE);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(KePulseEvent(&Pulsed, IO_NO_INCREMENT, TRUE) == 0);
    CHECK(KeWaitForSingleObject(&Signalled, Executive, KernelMode, FALSE, &AtOnce) == STATUS_SUCCESS);
    KeLowerIrql(Old);
    return 0;
}

static VOID NTAPI TickOfDevice(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
}

static KEVENT TickedOnce;
static BOOLEAN HasIoTimer;

/* The device's own timer, once a second; it is made once, and started and stopped as often as needed. */
static ULONG TimerOfTheDevice(VOID)
{
    KeInitializeEvent(&TickedOnce, NotificationEvent, FALSE);
    if (!HasIoTimer) {
        CHECK(NT_SUCCESS(IoInitializeTimer(TheDevice, TickOfDevice, &TickedOnce)));
        HasIoTimer = TRUE;
    }
    IoStartTimer(TheDevice);
    CHECK(WaitFor(&TickedOnce) == STATUS_SUCCESS);
    IoStopTimer(TheDevice);
    return 0;
}

#define TIMER_IDIOMS                                                                                                   \
    IDIOM(TimerOnce)                                                                                                   \
    IDIOM(TimerPeriodic)                                                                                               \
    IDIOM(TimerCancelledByItsDpc)                                                                                      \
    IDIOM(TimerSetsItselfAgain)                                                                                        \
    IDIOM(TimerAsWatchdog)                                                                                             \
    IDIOM(TimerToWaitFor)                                                                                              \
    IDIOM(TimerAtATime)                                                                                                \
    IDIOM(TimeOut)                                                                                                     \
    IDIOM(PulsedAtDispatchLevel)                                                                                       \
    IDIOM(TimerOfTheDevice)

#endif
