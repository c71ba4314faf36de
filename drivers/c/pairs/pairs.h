/*
 * What the pairs of pairs.sys share: declarations that mingw's headers lack, threads, pool. A pair is
 *
 *     static VOID EventType(BOOLEAN Wrong)
 *
 * and calls the same routines both ways, up to the mistake; what comes behind the mistake need not be right. A pair that answers its
 * request itself takes the device and the IRP as well, and returns what its dispatch routine is to return.
 */
#ifndef PAIRS_H
#define PAIRS_H

#include "../seh/clang.h"

#include "../control.h"
#include "../waits.h"

#define TAG 0x72696150u /* "Pair" in pool listings */

#ifndef RTL_QUERY_REGISTRY_TYPECHECK /* mingw's headers lack it */
#define RTL_QUERY_REGISTRY_TYPECHECK 0x00000100
#define RTL_QUERY_REGISTRY_TYPECHECK_SHIFT 24
#endif

typedef volatile LONG EX_SPIN_LOCK;
NTKERNELAPI KIRQL NTAPI ExAcquireSpinLockShared(EX_SPIN_LOCK *Lock);
NTKERNELAPI VOID NTAPI ExAcquireSpinLockSharedAtDpcLevel(EX_SPIN_LOCK *Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockShared(EX_SPIN_LOCK *Lock, KIRQL Old);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockSharedFromDpcLevel(EX_SPIN_LOCK *Lock);

static PDRIVER_OBJECT TheDriver;
static PDEVICE_OBJECT TheDevice;
static volatile ULONG Zero; /* volatile, so that the compiler cannot see through a mistake */
static volatile ULONG Sink;
static PKEVENT AwaitedByUnload;

static inline PVOID Nonpaged(SIZE_T Bytes)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPoolNx, Bytes, TAG);

    if (Block != NULL) {
        RtlZeroMemory(Block, Bytes);
    }
    return Block;
}

static inline VOID Free(PVOID Block)
{
    ExFreePoolWithTag(Block, TAG);
}

/* A system thread, by its object, or NULL; the caller joins it. */
static inline PKTHREAD StartThread(PKSTART_ROUTINE Routine, PVOID Context)
{
    OBJECT_ATTRIBUTES Attributes;
    PKTHREAD Thread = NULL;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL); /* a handle that is not the application's */
    if (NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Routine, Context))) {
        ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&Thread, NULL);
        ZwClose(Handle);
    }
    return Thread;
}

static inline VOID JoinThread(PKTHREAD Thread)
{
    WaitFor(Thread);
    ObDereferenceObject(Thread);
}

#endif
