/*
 * Timers and DPCs. Deletion waits until their routines have run.
 *
 * Pages: WdfTimerCreate, WdfTimerStart, WdfTimerStop, EvtTimerFunc, WdfDpcCreate, WdfDpcEnqueue, EvtDpcFunc. A timer has a parent and no high
 * resolution. AutomaticSerialization changes nothing, because callbacks have no synchronisation scope (object.h).
 */
#ifndef FRAMEWORK_TIMING_H
#define FRAMEWORK_TIMING_H

/* Not in these headers. */
NTKERNELAPI HANDLE NTAPI PsGetCurrentThreadId(VOID);

typedef struct _TIMER {
    OBJECT Object;
    KTIMER Timer;
    KDPC Dpc;
    WDF_TIMER_CONFIG Config;
    HANDLE volatile CallbackThread; /* NULL: its callback does not run */
} TIMER;

typedef struct _DPC {
    OBJECT Object;
    KDPC Dpc;
    WDF_DPC_CONFIG Config;
} DPC;

static VOID NTAPI TimerIsDue(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    TIMER *Timer = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    Timer->CallbackThread = PsGetCurrentThreadId();
    Timer->Config.EvtTimerFunc(HandleOf(&Timer->Object));
    Timer->CallbackThread = NULL;
}

static VOID DisposeTimer(OBJECT *Object)
{
    KeCancelTimer(&((TIMER *)Object)->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS TimerCreate(PWDF_DRIVER_GLOBALS Globals, WDF_TIMER_CONFIG *Given, PWDF_OBJECT_ATTRIBUTES Attributes, WDFTIMER *Created)
{
    CLIENT *Client = ClientOf(Globals);
    WDF_TIMER_CONFIG Config;
    TIMER *Timer;
    NTSTATUS Status;

    if (!Take(&Config, sizeof(Config), Given, TIMER_CONFIG_SIZE(Client->Minor))) {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    Status = CheckCreation(Attributes, Config.EvtTimerFunc != NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (Client->Minor >= 13 && Config.UseHighResolutionTimer) {
        Missing("UseHighResolutionTimer");
    }
    Status = CreateObject(Client, TimerKind, sizeof(*Timer), Attributes, NULL, (PVOID *)&Timer);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Timer->Config = Config;
    KeInitializeTimerEx(&Timer->Timer, NotificationTimer);
    KeInitializeDpc(&Timer->Dpc, TimerIsDue, Timer);
    Status = Adopt(&Timer->Object, Attributes, DisposeTimer);
    if (NT_SUCCESS(Status)) {
        *Created = HandleOf(&Timer->Object);
    }
    return Status;
}

static BOOLEAN TimerStart(PWDF_DRIVER_GLOBALS Globals, WDFTIMER Handle, LONGLONG DueTime)
{
    TIMER *Timer = ObjectOf(Handle, TimerKind);
    LARGE_INTEGER Due;

    Due.QuadPart = DueTime;
    if (ClientOf(Globals)->Minor >= 9 && Timer->Config.TolerableDelay != 0) {
        return KeSetCoalescableTimer(&Timer->Timer, Due, Timer->Config.Period, Timer->Config.TolerableDelay, &Timer->Dpc);
    }
    return KeSetTimerEx(&Timer->Timer, Due, (LONG)Timer->Config.Period, &Timer->Dpc);
}

/* Does nothing where its callback would wait for itself. */
static BOOLEAN TimerStop(PWDF_DRIVER_GLOBALS Globals, WDFTIMER Handle, BOOLEAN Wait)
{
    TIMER *Timer = ObjectOf(Handle, TimerKind);
    BOOLEAN WasSet;

    UNREFERENCED_PARAMETER(Globals);
    if (Wait && Timer->CallbackThread == PsGetCurrentThreadId()) {
        return FALSE;
    }
    WasSet = KeCancelTimer(&Timer->Timer);
    if (Wait) {
        KeFlushQueuedDpcs();
    }
    return WasSet;
}

static WDFOBJECT TimerGetParentObject(PWDF_DRIVER_GLOBALS Globals, WDFTIMER Handle)
{
    TIMER *Timer = ObjectOf(Handle, TimerKind);

    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(Timer->Object.Parent);
}

static VOID NTAPI DpcRuns(PKDPC Routine, PVOID Context, PVOID First, PVOID Second)
{
    DPC *Dpc = Context;

    UNREFERENCED_PARAMETER(Routine);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    Dpc->Config.EvtDpcFunc(HandleOf(&Dpc->Object));
}

static VOID DisposeDpc(OBJECT *Object)
{
    KeRemoveQueueDpc(&((DPC *)Object)->Dpc);
    KeFlushQueuedDpcs();
}

static NTSTATUS DpcCreate(PWDF_DRIVER_GLOBALS Globals, WDF_DPC_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes, WDFDPC *Created)
{
    DPC *Dpc;
    NTSTATUS Status;

    if (Config->Size != sizeof(*Config)) {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    Status = CheckCreation(Attributes, Config->EvtDpcFunc != NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = CreateObject(ClientOf(Globals), DpcKind, sizeof(*Dpc), Attributes, NULL, (PVOID *)&Dpc);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Dpc->Config = *Config;
    KeInitializeDpc(&Dpc->Dpc, DpcRuns, Dpc);
    Status = Adopt(&Dpc->Object, Attributes, DisposeDpc);
    if (NT_SUCCESS(Status)) {
        *Created = HandleOf(&Dpc->Object);
    }
    return Status;
}

static BOOLEAN DpcEnqueue(PWDF_DRIVER_GLOBALS Globals, WDFDPC Handle)
{
    DPC *Dpc = ObjectOf(Handle, DpcKind);

    UNREFERENCED_PARAMETER(Globals);
    return KeInsertQueueDpc(&Dpc->Dpc, NULL, NULL);
}

static BOOLEAN DpcCancel(PWDF_DRIVER_GLOBALS Globals, WDFDPC Handle, BOOLEAN Wait)
{
    DPC *Dpc = ObjectOf(Handle, DpcKind);
    BOOLEAN WasQueued = KeRemoveQueueDpc(&Dpc->Dpc);

    UNREFERENCED_PARAMETER(Globals);
    if (Wait) {
        KeFlushQueuedDpcs();
    }
    return WasQueued;
}

static WDFOBJECT DpcGetParentObject(PWDF_DRIVER_GLOBALS Globals, WDFDPC Handle)
{
    DPC *Dpc = ObjectOf(Handle, DpcKind);

    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(Dpc->Object.Parent);
}

static PKDPC DpcWdmGetDpc(PWDF_DRIVER_GLOBALS Globals, WDFDPC Handle)
{
    DPC *Dpc = ObjectOf(Handle, DpcKind);

    UNREFERENCED_PARAMETER(Globals);
    return &Dpc->Dpc;
}

#endif
