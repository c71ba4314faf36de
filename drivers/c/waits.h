/*
 * Waits and times, for drivers of stories. Included behind the DDK's declarations.
 */
#ifndef WAITS_H
#define WAITS_H

/* Relative: from now on. */
#define MILLISECONDS(Count) (-(LONGLONG)(Count) * 10000)

static inline LARGE_INTEGER After(LONGLONG Units)
{
    LARGE_INTEGER Time;

    Time.QuadPart = Units;
    return Time;
}

static inline NTSTATUS WaitFor(PVOID Object)
{
    return KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
}

static inline VOID Delay(LONGLONG Milliseconds)
{
    LARGE_INTEGER Interval = After(MILLISECONDS(Milliseconds));

    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
}

#endif
