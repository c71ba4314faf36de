/*
 * Whatever a page says is raised is raised: each such routine is called so that it raises, in a __try, and what it was called for must
 * be as it was. The status of each row stands on the routine's page.
 *
 * Not: semaphore-limit-exceeded, mutex-not-owned, mutex-limit-exceeded, unhandled-exception
 */
#ifndef SEH_RAISED_H
#define SEH_RAISED_H

#include "seh.h"

#ifndef STATUS_MUTANT_LIMIT_EXCEEDED
#define STATUS_MUTANT_LIMIT_EXCEEDED ((NTSTATUS)0xC0000191)
#endif
#define RAISE_POOL_FLAG 0x20ull /* POOL_FLAG_RAISE_ON_FAILURE */
#define RAISE_POOL_TYPE 16      /* POOL_RAISE_IF_ALLOCATION_FAILURE */
#define FAIL_POOL_TYPE 8        /* POOL_QUOTA_FAIL_INSTEAD_OF_RAISE */
#define FAR_TOO_MUCH (1ull << 45)

typedef PVOID(NTAPI *ALLOCATE_POOL_2)(ULONG64 Flags, SIZE_T Bytes, ULONG Tag);
typedef PVOID(NTAPI *ALLOCATE_POOL_3)(ULONG64 Flags, SIZE_T Bytes, ULONG Tag, PVOID Parameters, ULONG Count);
typedef NTSTATUS(NTAPI *WAIT_FOR_MUTEX)(PVOID Mutex, KWAIT_REASON Reason, KPROCESSOR_MODE Mode, BOOLEAN Alertable,
                                        PLARGE_INTEGER Timeout);
typedef VOID(NTAPI *INITIALIZE_SLIST)(PVOID Head);

static NOINLINE PVOID Find(PCWSTR Name)
{
    UNICODE_STRING String;

    RtlInitUnicodeString(&String, Name);
    return MmGetSystemRoutineAddress(&String);
}

static KSEMAPHORE OneSemaphore;
static KMUTEX OneMutex;
static volatile PVOID Given; /* by an allocation that should have raised */

static NOINLINE void Status(void) { ExRaiseStatus(STATUS_DEVICE_BUSY); }
static NOINLINE void Violation(void) { ExRaiseAccessViolation(); }
static NOINLINE void Misalignment(void) { ExRaiseDatatypeMisalignment(); }

static NOINLINE void Exception(void)
{
    EXCEPTION_RECORD Record;

    RtlZeroMemory(&Record, sizeof(Record));
    Record.ExceptionCode = (NTSTATUS)0xE0005EED;
    RtlRaiseException(&Record);
}

static NOINLINE void ReadOfKernel(void) { ProbeForRead(&OneMutex, 4, 4); }
static NOINLINE void ReadMisaligned(void) { ProbeForRead((PVOID)0x10002, 8, 4); }
static NOINLINE void ReadWrapped(void) { ProbeForRead((PVOID)0x10000, ~(SIZE_T)0, 1); }
static NOINLINE void ReadByOddMask(void) { ProbeForRead((PVOID)0x10010, 64, 32); } /* 32 masks, as 16 does */
static NOINLINE void WriteOfKernel(void) { ProbeForWrite(&OneMutex, 4, 4); }
static NOINLINE void WriteOfNothing(void) { ProbeForWrite((PVOID)0x10000, 8, 4); }

static NOINLINE void Lock(PVOID Address, KPROCESSOR_MODE Mode)
{
    PMDL Mdl = IoAllocateMdl(Address, 64, FALSE, FALSE, NULL);

    __try {
        MmProbeAndLockPages(Mdl, Mode, IoWriteAccess);
    } __finally {
        IoFreeMdl(Mdl);
    }
}

static NOINLINE void LockNothing(void) { Lock((PVOID)0x10000, UserMode); }
static NOINLINE void LockKernelAsUser(void) { Lock(&OneMutex, UserMode); }

static NOINLINE void QuotaTag(void)
{
    Given = ExAllocatePoolWithQuotaTag(NonPagedPool, FAR_TOO_MUCH, SEH_TAG);
}

static NOINLINE void Quota(void) { Given = (ExAllocatePoolWithQuota)(PagedPool, FAR_TOO_MUCH); }
static NOINLINE void Tag(void)
{
    Given = ExAllocatePoolWithTag((POOL_TYPE)(NonPagedPool | RAISE_POOL_TYPE), FAR_TOO_MUCH, SEH_TAG);
}

static NOINLINE void Priority(void)
{
    Given = ExAllocatePoolWithTagPriority((POOL_TYPE)(NonPagedPool | RAISE_POOL_TYPE), FAR_TOO_MUCH, SEH_TAG,
                                          NormalPoolPriority);
}

static NOINLINE void Pool2(void)
{
    Given = ((ALLOCATE_POOL_2)Find(L"ExAllocatePool2"))(0x40 | RAISE_POOL_FLAG, FAR_TOO_MUCH, SEH_TAG);
}

static NOINLINE void Pool2OfNoKind(void)
{
    Given = ((ALLOCATE_POOL_2)Find(L"ExAllocatePool2"))(RAISE_POOL_FLAG, 8, SEH_TAG);
}

static NOINLINE void Pool3(void)
{
    Given = ((ALLOCATE_POOL_3)Find(L"ExAllocatePool3"))(0x40 | RAISE_POOL_FLAG, FAR_TOO_MUCH, SEH_TAG, NULL, 0);
}

static NOINLINE void TooMany(void) { KeReleaseSemaphore(&OneSemaphore, IO_NO_INCREMENT, 2, FALSE); }
static NOINLINE void None(void) { KeReleaseSemaphore(&OneSemaphore, IO_NO_INCREMENT, 0, FALSE); }
static NOINLINE void Fewer(void) { KeReleaseSemaphore(&OneSemaphore, IO_NO_INCREMENT, -1, FALSE); }
static NOINLINE void NotOwned(void) { KeReleaseMutex(&OneMutex, FALSE); }

static NOINLINE void Abandoned(void)
{
    OneMutex.Abandoned = TRUE; /* as its owner's end leaves it */
    __try {
        KeReleaseMutex(&OneMutex, FALSE);
    } __finally {
        OneMutex.Abandoned = FALSE;
    }
}

/* The mutex is owned as often as can be counted. */
static NOINLINE void WaitOnceMore(ULONG How)
{
    PVOID Objects[1] = {&OneMutex};
    LONG Count;

    KeWaitForSingleObject(&OneMutex, Executive, KernelMode, FALSE, NULL);
    Count = OneMutex.Header.SignalState;
    OneMutex.Header.SignalState = (LONG)0x80000000;
    __try {
        switch (How) {
        case 0:
            KeWaitForSingleObject(&OneMutex, Executive, KernelMode, FALSE, NULL);
            break;
        case 1:
            KeWaitForMultipleObjects(1, Objects, WaitAny, Executive, KernelMode, FALSE, NULL, NULL);
            break;
        default:
            ((WAIT_FOR_MUTEX)Find(L"KeWaitForMutexObject"))(&OneMutex, Executive, KernelMode, FALSE, NULL);
        }
    } __finally {
        OneMutex.Header.SignalState = Count;
        KeReleaseMutex(&OneMutex, FALSE);
    }
}

static NOINLINE void SingleBeyondLimit(void) { WaitOnceMore(0); }
static NOINLINE void MultipleBeyondLimit(void) { WaitOnceMore(1); }
static NOINLINE void MutexBeyondLimit(void) { WaitOnceMore(2); }

static NOINLINE void MisalignedList(void)
{
    UCHAR Space[64];

    ((INITIALIZE_SLIST)Find(L"InitializeSListHead"))((PVOID)((((ULONG_PTR)Space + 15) & ~15ull) + 8));
}

static NOINLINE void MoveFromNothing(void) { RtlMoveMemory((PVOID)&Sink, (PUCHAR)NoPlace + 0x30, 4 + Zero); }

static const struct {
    const char *Routine;
    void (*Call)(void);
    NTSTATUS Raises;
} Raises[] = {
    {"ExRaiseStatus", Status, STATUS_DEVICE_BUSY},
    {"ExRaiseAccessViolation", Violation, STATUS_ACCESS_VIOLATION},
    {"ExRaiseDatatypeMisalignment", Misalignment, STATUS_DATATYPE_MISALIGNMENT},
    {"RtlRaiseException", Exception, (NTSTATUS)0xE0005EED},
    {"ProbeForRead", ReadOfKernel, STATUS_ACCESS_VIOLATION},
    {"ProbeForRead", ReadMisaligned, STATUS_DATATYPE_MISALIGNMENT},
    {"ProbeForRead", ReadWrapped, STATUS_ACCESS_VIOLATION},
    {"ProbeForRead", ReadByOddMask, STATUS_DATATYPE_MISALIGNMENT},
    {"ProbeForWrite", WriteOfKernel, STATUS_ACCESS_VIOLATION},
    {"ProbeForWrite", WriteOfNothing, STATUS_ACCESS_VIOLATION},
    {"MmProbeAndLockPages", LockNothing, STATUS_ACCESS_VIOLATION},
    {"MmProbeAndLockPages", LockKernelAsUser, STATUS_ACCESS_VIOLATION},
    {"ExAllocatePoolWithQuotaTag", QuotaTag, STATUS_INSUFFICIENT_RESOURCES},
    {"ExAllocatePoolWithQuota", Quota, STATUS_INSUFFICIENT_RESOURCES},
    {"ExAllocatePoolWithTag", Tag, STATUS_INSUFFICIENT_RESOURCES},
    {"ExAllocatePoolWithTagPriority", Priority, STATUS_INSUFFICIENT_RESOURCES},
    {"ExAllocatePool2", Pool2, STATUS_INSUFFICIENT_RESOURCES},
    {"ExAllocatePool2", Pool2OfNoKind, STATUS_INVALID_PARAMETER},
    {"ExAllocatePool3", Pool3, STATUS_INSUFFICIENT_RESOURCES},
    {"KeReleaseSemaphore", TooMany, (NTSTATUS)0xC0000047},
    {"KeReleaseSemaphore", None, (NTSTATUS)0xC0000047},
    {"KeReleaseSemaphore", Fewer, (NTSTATUS)0xC0000047},
    {"KeReleaseMutex", NotOwned, (NTSTATUS)0xC0000046},
    {"KeReleaseMutex", Abandoned, (NTSTATUS)0x80},
    {"KeWaitForSingleObject", SingleBeyondLimit, STATUS_MUTANT_LIMIT_EXCEEDED},
    {"KeWaitForMultipleObjects", MultipleBeyondLimit, STATUS_MUTANT_LIMIT_EXCEEDED},
    {"KeWaitForMutexObject", MutexBeyondLimit, STATUS_MUTANT_LIMIT_EXCEEDED},
    {"InitializeSListHead", MisalignedList, STATUS_DATATYPE_MISALIGNMENT},
    {"RtlMoveMemory", MoveFromNothing, STATUS_ACCESS_VIOLATION},
};

static ULONG WhatPagesRaise(void)
{
    KeInitializeSemaphore(&OneSemaphore, 1, 2);
    KeInitializeMutex(&OneMutex, 0);
    for (ULONG i = 0; i < RTL_NUMBER_OF(Raises); i++) {
        volatile NTSTATUS Code = 0;

        DbgPrint("raising by %s\n", Raises[i].Routine);
        Begin();
        __try {
            Raises[i].Call();
            Step('x');
        } __except (Code = GetExceptionCode(), Filter('f', 1)) {
            Step('e');
        }
        if (Code != Raises[i].Raises) {
            DbgPrint("seh: row %u raised %08x\n", i, Code);
        }
        CHECK(Went("fe"));
        CHECK(Code == Raises[i].Raises);
    }
    CHECK(KeReadStateSemaphore(&OneSemaphore) == 1);
    CHECK(KeReadStateMutex(&OneMutex) == 1);
    CHECK(ExAllocatePoolWithQuotaTag((POOL_TYPE)(NonPagedPool | FAIL_POOL_TYPE), FAR_TOO_MUCH, SEH_TAG) == NULL);
    return 0;
}

/* The verdict on an unhandled exception names the routine that raised it. */
static ULONG SemaphoreUnhandled(void)
{
    KeInitializeSemaphore(&OneSemaphore, 1, 2);
    TooMany();
    return 0;
}

static ULONG MutexUnhandled(void)
{
    KeInitializeMutex(&OneMutex, 0);
    NotOwned();
    return 0;
}

#endif
