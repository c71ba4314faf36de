/* Pairs of expanded stacks. */
#ifndef PAIRS_STACKS_H
#define PAIRS_STACKS_H

#include "pairs.h"

static VOID NTAPI EndOrReturn(PVOID Wrong)
{
    if (Wrong != NULL) {
        PsTerminateSystemThread(STATUS_SUCCESS);
    }
}

static VOID NTAPI ExpandInThread(PVOID Wrong)
{
    KeExpandKernelStackAndCallout(EndOrReturn, Wrong, 0x8000);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID ThreadEndedOnExpandedStack(BOOLEAN Wrong)
{
    PKTHREAD Thread = StartThread(ExpandInThread, Wrong ? &TheDevice : NULL);

    if (Thread != NULL) {
        JoinThread(Thread);
    }
}

/* Never inlined, so that what is behind the buffer is its return address. */
static DECLSPEC_NOINLINE VOID CopyToLocal(const VOID *From, SIZE_T Bytes)
{
    volatile UCHAR Local[32];

    RtlMoveMemory((PVOID)Local, From, Bytes);
}

static VOID StackOverrun(BOOLEAN Wrong)
{
    static const UCHAR Bytes[512] = { 0 };

    CopyToLocal(Bytes, Wrong ? sizeof(Bytes) : 32);
}

#define STACK_PAIRS                                                                                                    \
    PAIR("stack-overrun", StackOverrun)                                                                                \
    PAIR("thread-ended-on-expanded-stack", ThreadEndedOnExpandedStack)

#endif
