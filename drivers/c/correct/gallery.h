/*
 * What the idioms of correct.sys share: the check, waits with a bound, and declarations that mingw's headers lack.
 *
 * An idiom is a function without parameters that does what a correct driver does, looks at what comes of it, and returns 0, or the
 * line of the first check that failed. It leaves nothing behind, in any schedule. It may rely on nothing but what
 * Microsoft's pages promise: no order of threads, no processor, no duration beyond "not earlier than".
 */
#ifndef GALLERY_H
#define GALLERY_H

#include "../seh/clang.h"

#define STORIES "correct"
#include "../control.h"
#include "../waits.h"

#define TAG 0x72726F43u /* "Corr" in pool listings */

#ifndef MdlMappingNoExecute
#define MdlMappingNoExecute 0x40000000
#endif

/* Of wdm.h and ntifs.h, which mingw's ntddk.h lacks or declares otherwise. */
NTKERNELAPI PVOID NTAPI ExAllocatePool2(ULONG64 Flags, SIZE_T Bytes, ULONG Tag);
NTKERNELAPI VOID NTAPI KeInitializeThreadedDpc(PRKDPC Dpc, PKDEFERRED_ROUTINE Routine, PVOID Context);
NTKERNELAPI NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE Id, PEPROCESS *Process);
NTKERNELAPI HANDLE NTAPI PsGetProcessId(PEPROCESS Process);
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Handle, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes, EVENT_TYPE Type,
                                      BOOLEAN State);
typedef volatile LONG EX_SPIN_LOCK;
NTKERNELAPI KIRQL NTAPI ExAcquireSpinLockShared(EX_SPIN_LOCK *Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockShared(EX_SPIN_LOCK *Lock, KIRQL Old);
NTKERNELAPI KIRQL NTAPI ExAcquireSpinLockExclusive(EX_SPIN_LOCK *Lock);
NTKERNELAPI VOID NTAPI ExReleaseSpinLockExclusive(EX_SPIN_LOCK *Lock, KIRQL Old);

/* The driver's one device; what an idiom asks of its own device goes to it. */
static PDEVICE_OBJECT TheDevice;

/* A block of nonpaged pool; the machine's limits are far away. */
static inline PVOID Nonpaged(SIZE_T Bytes)
{
    return ExAllocatePoolWithTag(NonPagedPoolNx, Bytes, TAG);
}

/* A system thread, by its object; the caller waits for it and dereferences it. */
__attribute__((unused)) static PKTHREAD StartThread(PKSTART_ROUTINE Routine, PVOID Context)
{
    HANDLE Handle;
    PKTHREAD Thread = NULL;

    if (!NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Routine, Context))) {
        return NULL;
    }
    ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&Thread, NULL);
    ZwClose(Handle);
    return Thread;
}

__attribute__((unused)) static VOID JoinThread(PKTHREAD Thread)
{
    WaitFor(Thread);
    ObDereferenceObject(Thread);
}

#endif
