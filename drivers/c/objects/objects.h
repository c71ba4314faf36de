/* What the stories of objects.sys share. */
#ifndef OBJECTS_H
#define OBJECTS_H

#include "../seh/clang.h"

#define STORIES "objects"
#include "../control.h"

#define OBJECTS_TAG 0x6A624F44u /* "DObj" in pool listings */
#define MILLISECONDS(Count) (-10000ll * (Count))

static PDRIVER_OBJECT TheDriver;

#define EXPORTED(Type, Name, Parameters) NTKERNELAPI Type NTAPI Nt##Name Parameters __asm__(#Name)

static inline NTSTATUS Sleep(LONG Milliseconds)
{
    LARGE_INTEGER Interval = {.QuadPart = MILLISECONDS(Milliseconds)};

    return KeDelayExecutionThread(KernelMode, FALSE, &Interval);
}

#endif
