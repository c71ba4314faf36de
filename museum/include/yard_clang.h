/* clangddk.h: mingw's wdm.h under clang for Microsoft's target: its headers take the branches for gcc. Included in place of <ddk/wdm.h>'s first inclusion. */
#ifdef __clang__
#undef _MSC_VER
#undef _MSC_FULL_VER
#undef _MSC_BUILD
#ifndef __GNUC__
#define __GNUC__ 9
#define __GNUC_MINOR__ 0
#endif
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#include <ddk/wdm.h>
#pragma clang diagnostic pop
#endif
