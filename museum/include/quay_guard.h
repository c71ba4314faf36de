/*
 * quay_guard.h: calls a routine under an exception handler (the compiler has no __try).
 * Returns the routine's own status, or the exception's code.
 */
#ifndef AI_GUARD_H
#define AI_GUARD_H
#include "quay_base.h"

NTSTATUS AiGuard(NTSTATUS (*routine)(PVOID), PVOID context);

__asm__(
    "\t.text\n"
    "\t.globl AiGuard\n"
    "\t.def AiGuard; .scl 2; .type 32; .endef\n"
    "\t.p2align 4\n"
    "\t.seh_proc AiGuard\n"
    "AiGuard:\n"
    "\tsubq $40, %rsp\n"
    "\t.seh_stackalloc 40\n"
    "\t.seh_endprologue\n"
    "\tmovq %rcx, %rax\n"
    "\tmovq %rdx, %rcx\n"
    ".Lai_begin:\n"
    "\tcall *%rax\n"
    "\tnop\n"
    ".Lai_end:\n"
    "\tnop\n"
    ".Lai_caught:\n"
    "\taddq $40, %rsp\n"
    "\tret\n"
    "\t.seh_handler __C_specific_handler, @except\n"
    "\t.seh_handlerdata\n"
    "\t.long 1\n"
    "\t.rva .Lai_begin, .Lai_end\n"
    "\t.long 1\n"
    "\t.rva .Lai_caught\n"
    "\t.text\n"
    "\t.seh_endproc\n");

typedef struct _AI_COPYIN {
    PVOID To;
    PVOID From;
    SIZE_T Length;
    KPROCESSOR_MODE Mode;
} AI_COPYIN;

static inline NTSTATUS AiCopyInBody(PVOID context)
{
    AI_COPYIN *c = context;

    if (c->Mode != KernelMode)
        ProbeForRead(c->From, c->Length, 1);
    RtlCopyMemory(c->To, c->From, c->Length);
    return STATUS_SUCCESS;
}

/* copies the caller's bytes in; the caller's context only */
static inline NTSTATUS AiCopyIn(PVOID to, PVOID from, SIZE_T length, KPROCESSOR_MODE mode)
{
    AI_COPYIN c = { to, from, length, mode };

    return AiGuard(AiCopyInBody, &c);
}

typedef struct _AI_LOCKDOWN {
    PMDL Mdl;
    KPROCESSOR_MODE Mode;
    LOCK_OPERATION Operation;
} AI_LOCKDOWN;

static inline NTSTATUS AiLockDownBody(PVOID context)
{
    AI_LOCKDOWN *c = context;

    MmProbeAndLockPages(c->Mdl, c->Mode, c->Operation);
    return STATUS_SUCCESS;
}

static inline NTSTATUS AiLockDown(PMDL mdl, KPROCESSOR_MODE mode, LOCK_OPERATION operation)
{
    AI_LOCKDOWN c = { mdl, mode, operation };

    return AiGuard(AiLockDownBody, &c);
}
#endif
