/*
 * What the parts of locks.sys share: declarations that mingw's wdm.h lacks, the check, threads on a processor of their own,
 * and the count of what came out wrong.
 */
#ifndef LOCKS_H
#define LOCKS_H

#include <ddk/wdm.h>

#define STORIES "locks"
#include "../control.h"
#include "../waits.h"

#define LOCKS_TAG 0x6B636F4Cu /* "Lock" in pool listings */

typedef volatile LONG EX_SPIN_LOCK, *PEX_SPIN_LOCK;

NTKERNELAPI KIRQL NTAPI ExAcquireSpinLockShared(PEX_SPIN_LOCK Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockShared(PEX_SPIN_LOCK Lock, KIRQL OldIrql);
NTKERNELAPI KIRQL NTAPI ExAcquireSpinLockExclusive(PEX_SPIN_LOCK Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockExclusive(PEX_SPIN_LOCK Lock, KIRQL OldIrql);
NTKERNELAPI VOID NTAPI ExAcquireSpinLockSharedAtDpcLevel(PEX_SPIN_LOCK Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockSharedFromDpcLevel(PEX_SPIN_LOCK Lock);
NTKERNELAPI VOID NTAPI ExAcquireSpinLockExclusiveAtDpcLevel(PEX_SPIN_LOCK Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockExclusiveFromDpcLevel(PEX_SPIN_LOCK Lock);
NTKERNELAPI LOGICAL NTAPI ExTryAcquireSpinLockSharedAtDpcLevel(PEX_SPIN_LOCK Lock);
NTKERNELAPI LOGICAL NTAPI ExTryAcquireSpinLockExclusiveAtDpcLevel(PEX_SPIN_LOCK Lock);
NTKERNELAPI LOGICAL NTAPI ExTryConvertSharedSpinLockExclusive(PEX_SPIN_LOCK Lock);

typedef ULONG_PTR PUSH_LOCK; /* EX_PUSH_LOCK */

NTKERNELAPI VOID NTAPI ExInitializePushLock(PUSH_LOCK *Lock);
NTKERNELAPI VOID NTAPI ExAcquirePushLockExclusiveEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExAcquirePushLockSharedEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExReleasePushLockExclusiveEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExReleasePushLockSharedEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI VOID NTAPI ExReleasePushLockEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI BOOLEAN NTAPI ExTryAcquirePushLockExclusiveEx(PUSH_LOCK *Lock, ULONG Flags);
NTKERNELAPI BOOLEAN NTAPI ExTryAcquirePushLockSharedEx(PUSH_LOCK *Lock, ULONG Flags);

/* As the export is: wdm.h makes a macro of it. */
NTKERNELAPI KIRQL NTAPI LevelNow(VOID) __asm__("KeGetCurrentIrql");

#define PROCESSORS() KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS)
#define HERE() KeGetCurrentProcessorNumberEx(NULL)

/* What came out wrong above the levels of DbgPrint, since the driver was loaded. Printed where DbgPrint may be called. */
static volatile LONG Wrong;

#define EXPECT(Condition)                                                                                              \
    do {                                                                                                               \
        if (!(Condition)) {                                                                                            \
            InterlockedIncrement(&Wrong);                                                                              \
            if (LevelNow() < CLOCK_LEVEL) {                                                                            \
                DbgPrint(STORIES ": %s:%u: %s\n", __FILE_NAME__, __LINE__, #Condition);                                \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

/* Starts a system thread; its object must be given back with ObDereferenceObject. */
static inline NTSTATUS StartThread(PKSTART_ROUTINE Routine, PVOID Context, PVOID *Thread)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Routine, Context);
    if (NT_SUCCESS(Status)) {
        Status = ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, Thread, NULL);
        ZwClose(Handle);
    }
    return Status;
}

/* Waits until a thread has ended, and gives its object back. */
static inline NTSTATUS Join(PVOID Thread)
{
    NTSTATUS Status = KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);

    ObDereferenceObject(Thread);
    return Status;
}

#endif
