/* clang.h: before wdm.h in files that clang builds: mingw's headers ask for vector intrinsics that a kernel driver has no use for. */
#ifdef __clang__
#include <ntdef.h>
#undef FIELD_OFFSET
#define FIELD_OFFSET(type, field) ((LONG)__builtin_offsetof(type, field))
#undef C_ASSERT
#define C_ASSERT(e) _Static_assert(e, #e)
#define __MMINTRIN_H
#define __XMMINTRIN_H
#define __EMMINTRIN_H
#define __PMMINTRIN_H
#define __IMMINTRIN_H
#define _MM3DNOW_H_INCLUDED
typedef long long __m64 __attribute__((vector_size(8)));
typedef float __m128 __attribute__((vector_size(16)));
typedef double __m128d __attribute__((vector_size(16)));
typedef long long __m128i __attribute__((vector_size(16)));
#pragma clang diagnostic ignored "-W#warnings"
#pragma clang diagnostic ignored "-Wunused-function"
#endif
