/*
 * A gate counts who is inside. While it is open anyone may enter (at or below DISPATCH_LEVEL); who shuts it waits (at PASSIVE_LEVEL)
 * until the last one has left. It can be opened again.
 */
typedef struct _GATE {
    KSPIN_LOCK Lock;
    ULONG Inside;
    BOOLEAN Open;
    KEVENT Empty;
} GATE, *PGATE;

ANY VOID GateBuild(PGATE Gate, BOOLEAN Open)
{
    KeInitializeSpinLock(&Gate->Lock);
    KeInitializeEvent(&Gate->Empty, NotificationEvent, FALSE);
    Gate->Inside = 0;
    Gate->Open = Open;
}

ANY BOOLEAN GateEnter(PGATE Gate)
{
    BOOLEAN entered;
    KIRQL irql;

    KeAcquireSpinLock(&Gate->Lock, &irql);
    entered = Gate->Open;
    if (entered)
        Gate->Inside++;
    KeReleaseSpinLock(&Gate->Lock, irql);
    return entered;
}

/* For who is inside already, or is waited for by someone who is. */
ANY VOID GateMore(PGATE Gate)
{
    KIRQL irql;

    KeAcquireSpinLock(&Gate->Lock, &irql);
    Gate->Inside++;
    KeReleaseSpinLock(&Gate->Lock, irql);
}

ANY VOID GateLeave(PGATE Gate)
{
    KIRQL irql;

    KeAcquireSpinLock(&Gate->Lock, &irql);
    if (--Gate->Inside == 0 && !Gate->Open)
        KeSetEvent(&Gate->Empty, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Gate->Lock, irql);
}

ANY VOID GateOpen(PGATE Gate)
{
    KIRQL irql;

    KeAcquireSpinLock(&Gate->Lock, &irql);
    Gate->Open = TRUE;
    KeReleaseSpinLock(&Gate->Lock, irql);
}

ANY VOID GateShut(PGATE Gate)
{
    BOOLEAN wait;
    KIRQL irql;

    KeAcquireSpinLock(&Gate->Lock, &irql);
    Gate->Open = FALSE;
    KeClearEvent(&Gate->Empty);
    wait = Gate->Inside != 0;
    KeReleaseSpinLock(&Gate->Lock, irql);
    if (!wait)
        return;
    KeWaitForSingleObject(&Gate->Empty, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Gate->Lock, &irql);      /* the last one has let go of the lock, too */
    KeReleaseSpinLock(&Gate->Lock, irql);
}
