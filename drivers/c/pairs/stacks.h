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
    JoinThread(StartThread(ExpandInThread, Wrong ? &TheDevice : NULL));
}

#define STACK_PAIRS PAIR("thread-ended-on-expanded-stack", ThreadEndedOnExpandedStack)

#endif
