/*
 * What the compiler's hardening needs at run time, as the libraries of a real driver bring it: the /GS cookie and its check,
 * the pointers of control flow guard, and the load configuration that tells the loader of them.
 */
#ifndef HARDENED_HARDENED_H
#define HARDENED_HARDENED_H

#include "../seh/clang.h"

#define STORIES "hardened"
#include "../control.h"

#define DEFAULT_COOKIE 0x00002B992DDFA232ull
int _fltused = 1; /* the compiler asks for it where there is floating point */

#define NO_GUARD __declspec(guard(nocf))

ULONG_PTR __security_cookie = DEFAULT_COOKIE;
static volatile BOOLEAN OldReport; /* report as drivers for Windows 7 do */

static __declspec(noreturn) void FastFail(ULONG Code)
{
    __asm__ volatile("int $0x29" : : "c"(Code));
    __builtin_unreachable();
}

static NOINLINE __declspec(noreturn) void __report_gsfailure(ULONG_PTR Cookie)
{
    if (OldReport) {
        KeBugCheckEx(0xF7, Cookie, __security_cookie, ~__security_cookie, 0);
    }
    FastFail(2);
}

/* The end of every function with a buffer: what stands before its return address must still be the cookie. */
void __security_check_cookie(ULONG_PTR Cookie)
{
    if (Cookie != __security_cookie) {
        __report_gsfailure(Cookie);
    }
}

/* Where no guard is switched on the pointers stay as they are here. */
static void CheckNothing(ULONG_PTR Target)
{
    (void)Target;
}

__attribute__((naked)) static void DispatchAtOnce(void)
{
    __asm__ volatile("jmp *%rax");
}

typedef void (*GUARD_CHECK)(ULONG_PTR Target);
__attribute__((section(".00cfg"), used)) const volatile GUARD_CHECK __guard_check_icall_fptr = CheckNothing;
__attribute__((section(".00cfg"), used)) void (*const volatile __guard_dispatch_icall_fptr)(void) = DispatchAtOnce;

/* Made by the linker. */
extern char __guard_fids_table[], __guard_fids_count[], __guard_flags[], __guard_iat_table[], __guard_iat_count[];
extern char __guard_longjmp_table[], __guard_longjmp_count[];

/* IMAGE_LOAD_CONFIG_DIRECTORY64 up to what is used of it. */
typedef struct _LOAD_CONFIG {
    ULONG Size;
    ULONG Head[21];
    PVOID SecurityCookie;
    PVOID HandlerTable[2];
    const volatile void *GuardCheck;
    const volatile void *GuardDispatch;
    PVOID FunctionTable;
    PVOID FunctionCount;
    PVOID GuardFlagsAndCodeIntegrity; /* the flags are a ULONG: the linker's symbol is a small number */
    PVOID CodeIntegrity;
    PVOID IatTable;
    PVOID IatCount;
    PVOID LongJumpTable;
    PVOID LongJumpCount;
    PVOID Rest[15];
} LOAD_CONFIG;

__attribute__((used)) const LOAD_CONFIG _load_config_used = {
    .Size = sizeof(LOAD_CONFIG),
    .SecurityCookie = &__security_cookie,
    .GuardCheck = &__guard_check_icall_fptr,
    .GuardDispatch = &__guard_dispatch_icall_fptr,
    .FunctionTable = __guard_fids_table,
    .FunctionCount = __guard_fids_count,
    .GuardFlagsAndCodeIntegrity = __guard_flags,
    .IatTable = __guard_iat_table,
    .IatCount = __guard_iat_count,
    .LongJumpTable = __guard_longjmp_table,
    .LongJumpCount = __guard_longjmp_count,
};

#endif
