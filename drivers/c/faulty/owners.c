/*
 * owners.sys: locks that a thread has and keeps, and what another one does to them. \\.\DirqlOwners,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900 + 0x10 * ACT + LOCK, METHOD_BUFFERED, FILE_ANY_ACCESS), ACT being the index into Acts and LOCK the
 * index into Locks below.
 *
 * Never load it on a machine you care for.
 */
#include <ddk/wdm.h>

#include "../control.h"

#define OWNERS_TAG 0x736E774Fu /* "Owns" in pool listings */
#define FIRST_FUNCTION 0x900

/* What mingw's headers lack; as in Microsoft's. */
typedef ULONG_PTR PUSH_LOCK; /* EX_PUSH_LOCK */
NTKERNELAPI VOID NTAPI ExAcquirePushLockExclusiveEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExAcquirePushLockSharedEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExReleasePushLockEx(PUSH_LOCK *Lock, ULONG Flags);

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlOwners");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlOwners");

typedef struct _SHARED {
    KMUTEX Mutex;
    FAST_MUTEX Fast;
    PUSH_LOCK Push;
    ERESOURCE Resource;
    KEVENT Kept;  /* the thread has it */
    KEVENT Never; /* is set */
} SHARED;

static VOID Wait(PVOID Object)
{
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
}

/* ---- how each lock is acquired and released ---------------------------------------------------------------------- */

static VOID TakeMutex(SHARED *Shared)
{
    KeWaitForSingleObject(&Shared->Mutex, Executive, KernelMode, FALSE, NULL);
    KeSetEvent(&Shared->Kept, IO_NO_INCREMENT, FALSE);
}

static VOID GiveMutex(SHARED *Shared)
{
    KeReleaseMutex(&Shared->Mutex, FALSE);
}

static VOID TakeFast(SHARED *Shared)
{
    ExAcquireFastMutex(&Shared->Fast);
    KeSetEvent(&Shared->Kept, IO_NO_INCREMENT, FALSE);
}

static VOID GiveFast(SHARED *Shared)
{
    ExReleaseFastMutex(&Shared->Fast);
}

static VOID TakePush(SHARED *Shared)
{
    ExAcquirePushLockExclusiveEx(&Shared->Push, 0);
    KeSetEvent(&Shared->Kept, IO_NO_INCREMENT, FALSE);
}

static VOID SharePush(SHARED *Shared)
{
    ExAcquirePushLockSharedEx(&Shared->Push, 0);
    KeSetEvent(&Shared->Kept, IO_NO_INCREMENT, FALSE);
}

static VOID GivePush(SHARED *Shared)
{
    ExReleasePushLockEx(&Shared->Push, 0);
}

static VOID TakeResource(SHARED *Shared)
{
    ExAcquireResourceExclusiveLite(&Shared->Resource, TRUE);
    KeSetEvent(&Shared->Kept, IO_NO_INCREMENT, FALSE);
}

static VOID ShareResource(SHARED *Shared)
{
    ExAcquireResourceSharedLite(&Shared->Resource, TRUE);
    KeSetEvent(&Shared->Kept, IO_NO_INCREMENT, FALSE);
}

static VOID GiveResource(SHARED *Shared)
{
    ExReleaseResourceLite(&Shared->Resource);
}

/* How the thread that keeps it acquires a lock, how the other one does, and how it is released. */
typedef struct _LOCK {
    VOID (*Keep)(SHARED *Shared);
    VOID (*Want)(SHARED *Shared);
    VOID (*Give)(SHARED *Shared);
} LOCK;

static const LOCK Locks[] = {
    {TakeMutex, TakeMutex, GiveMutex},          {TakeFast, TakeFast, GiveFast},
    {TakePush, TakePush, GivePush},             {SharePush, TakePush, GivePush},
    {TakeResource, ShareResource, GiveResource}, {ShareResource, TakeResource, GiveResource},
};

/* ---- what is done to it ------------------------------------------------------------------------------------------- */

static SHARED *TheShared;
static const LOCK *TheLock;

static VOID NTAPI KeepIt(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    KeEnterCriticalRegion();
    TheLock->Keep(TheShared);
    Wait(&TheShared->Never);
    KeLeaveCriticalRegion();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID StartThread(PKSTART_ROUTINE Routine)
{
    HANDLE Thread;

    if (NT_SUCCESS(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, Routine, NULL))) {
        ZwClose(Thread);
    }
}

static VOID LetAnotherKeepIt(VOID)
{
    StartThread(KeepIt);
    Wait(&TheShared->Kept);
}

/* 0: acquired by another thread, which is never given it. */
static VOID Wanted(VOID)
{
    LetAnotherKeepIt();
    KeEnterCriticalRegion();
    TheLock->Want(TheShared);
    TheLock->Give(TheShared);
    KeLeaveCriticalRegion();
}

/* 1: released by another thread. */
static VOID Released(VOID)
{
    LetAnotherKeepIt();
    KeEnterCriticalRegion();
    TheLock->Give(TheShared);
    KeLeaveCriticalRegion();
}

/* 2: freed. */
static VOID Freed(VOID)
{
    LetAnotherKeepIt();
    ExFreePoolWithTag(TheShared, OWNERS_TAG);
}

/* 3: handed on to the thread that keeps it, which waited for it. */
static VOID HandedOn(VOID)
{
    LARGE_INTEGER Moment = {.QuadPart = -10 * 10000};

    KeEnterCriticalRegion();
    TheLock->Keep(TheShared);
    KeClearEvent(&TheShared->Kept);
    StartThread(KeepIt);
    KeDelayExecutionThread(KernelMode, FALSE, &Moment);
    TheLock->Give(TheShared);
    Wait(&TheShared->Kept);
    TheLock->Want(TheShared);
    TheLock->Give(TheShared);
    KeLeaveCriticalRegion();
}

/* 4: acquired twice by the same thread. */
static VOID TakenTwice(VOID)
{
    KeEnterCriticalRegion();
    TheLock->Keep(TheShared);
    TheLock->Want(TheShared);
}

static KEVENT LastOfAll; /* has no symbol: mingw's assembler takes what begins with L for a label */

/* 5: waits for an event that no code sets. */
static VOID WaitsForNameless(VOID)
{
    KeInitializeEvent(&LastOfAll, NotificationEvent, FALSE);
    Wait(&LastOfAll);
}

static VOID (*const Acts[])(VOID) = {Wanted, Released, Freed, HandedOn, TakenTwice, WaitsForNameless};

/* ---- the driver around them --------------------------------------------------------------------------------------- */

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Number = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;
    ULONG Act = Number >> 4, Lock = Number & 0xF;

    UNREFERENCED_PARAMETER(Device);
    if (Act >= RTL_NUMBER_OF(Acts) || Lock >= RTL_NUMBER_OF(Locks)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    TheShared = ExAllocatePoolWithTag(NonPagedPool, sizeof(*TheShared), OWNERS_TAG);
    if (TheShared == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    TheLock = &Locks[Lock];
    KeInitializeMutex(&TheShared->Mutex, 0);
    ExInitializeFastMutex(&TheShared->Fast);
    TheShared->Push = 0;
    if (TheLock->Give == GiveResource) {
        ExInitializeResourceLite(&TheShared->Resource);
    }
    KeInitializeEvent(&TheShared->Kept, NotificationEvent, FALSE);
    KeInitializeEvent(&TheShared->Never, NotificationEvent, FALSE);
    Acts[Act]();
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
