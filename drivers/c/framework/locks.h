/*
 * Spin locks and wait locks. A wait lock is an event, held in a critical region, so that no thread is suspended with it.
 *
 * Pages: WdfSpinLockAcquire, WdfWaitLockAcquire, Using Framework Locks.
 */
#ifndef FRAMEWORK_LOCKS_H
#define FRAMEWORK_LOCKS_H

typedef struct _SPIN_LOCK {
    OBJECT Object;
    KSPIN_LOCK Lock;
    KIRQL Irql; /* of its holder, before */
} SPIN_LOCK;

typedef struct _WAIT_LOCK {
    OBJECT Object;
    KEVENT Free;
} WAIT_LOCK;

static NTSTATUS SpinLockCreate(PWDF_DRIVER_GLOBALS Globals, PWDF_OBJECT_ATTRIBUTES Attributes, WDFSPINLOCK *Created)
{
    CLIENT *Client = ClientOf(Globals);
    SPIN_LOCK *Lock;
    NTSTATUS Status = CreateObject(Client, SpinLockKind, sizeof(*Lock), Attributes, Client->Driver, (PVOID *)&Lock);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeSpinLock(&Lock->Lock);
    Status = Adopt(&Lock->Object, Attributes, NULL);
    if (NT_SUCCESS(Status)) {
        *Created = HandleOf(&Lock->Object);
    }
    return Status;
}

static VOID SpinLockAcquire(PWDF_DRIVER_GLOBALS Globals, WDFSPINLOCK Handle)
{
    SPIN_LOCK *Lock = ObjectOf(Handle, SpinLockKind);
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Globals);
    KeAcquireSpinLock(&Lock->Lock, &Irql);
    Lock->Irql = Irql;
}

static VOID SpinLockRelease(PWDF_DRIVER_GLOBALS Globals, WDFSPINLOCK Handle)
{
    SPIN_LOCK *Lock = ObjectOf(Handle, SpinLockKind);

    UNREFERENCED_PARAMETER(Globals);
    KeReleaseSpinLock(&Lock->Lock, Lock->Irql);
}

static NTSTATUS WaitLockCreate(PWDF_DRIVER_GLOBALS Globals, PWDF_OBJECT_ATTRIBUTES Attributes, WDFWAITLOCK *Created)
{
    CLIENT *Client = ClientOf(Globals);
    WAIT_LOCK *Lock;
    NTSTATUS Status = CreateObject(Client, WaitLockKind, sizeof(*Lock), Attributes, Client->Driver, (PVOID *)&Lock);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeEvent(&Lock->Free, SynchronizationEvent, TRUE);
    Status = Adopt(&Lock->Object, Attributes, NULL);
    if (NT_SUCCESS(Status)) {
        *Created = HandleOf(&Lock->Object);
    }
    return Status;
}

static NTSTATUS TakeFree(PKEVENT Free, PLONGLONG Timeout)
{
    NTSTATUS Status;

    KeEnterCriticalRegion();
    Status = KeWaitForSingleObject(Free, Executive, KernelMode, FALSE, (PLARGE_INTEGER)Timeout);
    if (Status == STATUS_TIMEOUT) {
        KeLeaveCriticalRegion();
    }
    return Status;
}

static VOID GiveFree(PKEVENT Free)
{
    KeSetEvent(Free, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS WaitLockAcquire(PWDF_DRIVER_GLOBALS Globals, WDFWAITLOCK Handle, PLONGLONG Timeout)
{
    WAIT_LOCK *Lock = ObjectOf(Handle, WaitLockKind);

    UNREFERENCED_PARAMETER(Globals);
    return TakeFree(&Lock->Free, Timeout);
}

static VOID WaitLockRelease(PWDF_DRIVER_GLOBALS Globals, WDFWAITLOCK Handle)
{
    WAIT_LOCK *Lock = ObjectOf(Handle, WaitLockKind);

    UNREFERENCED_PARAMETER(Globals);
    GiveFree(&Lock->Free);
}

#endif
