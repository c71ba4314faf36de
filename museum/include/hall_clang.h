/* clang.h: before <ddk/wdm.h>, for the compiler that knows __try: what of mingw's headers it does not take. */
#ifndef RR_CLANG_H
#define RR_CLANG_H
#define __INTRIN_H_
#include <ntdef.h>
#undef FIELD_OFFSET
#define FIELD_OFFSET(Type, Field) __builtin_offsetof(Type, Field)
#endif
