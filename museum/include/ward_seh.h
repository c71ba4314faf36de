/*
 * seh.h: before <ddk/wdm.h>, for drivers that clang compiles for __try. mingw's intrin.h takes clang's vector headers in, which do not go together with a target of
 * MSVC; a driver needs none of them.
 */
#define __INTRIN_H_
#include <ntdef.h>
/* as a constant: clang takes no pointers in those */
#undef FIELD_OFFSET
#define FIELD_OFFSET(type, field) ((LONG)__builtin_offsetof(type, field))
