/*
 * mingw's headers for clang's msvc target, which has __try. Included before all others. mingw's intrin.h is for gcc; of it only the few instructions that are
 * needed stand here.
 */
#ifndef TRY_H
#define TRY_H

#define __INTRIN_H_
#include <ntdef.h>
#undef FIELD_OFFSET /* mingw's is no constant for clang */
#define FIELD_OFFSET(Type, Field) ((LONG)__builtin_offsetof(Type, Field))

static inline unsigned __int64 __readcr8(void)
{
    unsigned __int64 Value;

    __asm__ volatile("mov %%cr8, %0" : "=r"(Value));
    return Value;
}

static inline void __writecr8(unsigned __int64 Value)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(Value) : "memory");
}

#include <ddk/wdm.h>

#ifndef EXCEPTION_EXECUTE_HANDLER
#define EXCEPTION_EXECUTE_HANDLER 1
#endif

#endif
