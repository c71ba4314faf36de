/* keel_seh.h: calling a function under an exception handler (gcc has no __try); once per driver. */
#ifndef AJ_SEH_H
#define AJ_SEH_H
#include "keel_base.h"

/* The function's result, or the code of the exception that ended it. */
NTSTATUS aj_guarded(NTSTATUS (*fn)(PVOID), PVOID arg);

__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl aj_guarded\n"
    ".def aj_guarded; .scl 2; .type 32; .endef\n"
    ".seh_proc aj_guarded\n"
    "aj_guarded:\n"
    "    subq $40, %rsp\n"
    "    .seh_stackalloc 40\n"
    "    .seh_endprologue\n"
    ".Laj_try:\n"
    "    movq %rcx, %rax\n"
    "    movq %rdx, %rcx\n"
    "    callq *%rax\n"
    "    nop\n"
    ".Laj_tryend:\n"
    ".Laj_except:\n"
    "    addq $40, %rsp\n"
    "    retq\n"
    "    .seh_handler __C_specific_handler, @except\n"
    "    .seh_handlerdata\n"
    "    .long 1\n"
    "    .rva .Laj_try, .Laj_tryend\n"
    "    .long 1\n"
    "    .rva .Laj_except\n"
    "    .text\n"
    "    .seh_endproc\n");

typedef struct AJ_COPY { PVOID dst; PVOID src; SIZE_T n; KPROCESSOR_MODE mode; BOOLEAN out; } AJ_COPY;

static inline NTSTATUS aj_copy_in_try(PVOID arg)
{
    AJ_COPY *c = arg;

    if (c->mode != KernelMode) {
        if (c->out)
            ProbeForWrite(c->dst, c->n, 1);
        else
            ProbeForRead(c->src, c->n, 1);
    }
    RtlCopyMemory(c->dst, c->src, c->n);
    return STATUS_SUCCESS;
}

static inline NTSTATUS aj_from_user(PVOID dst, PVOID src, SIZE_T n, KPROCESSOR_MODE mode)
{
    AJ_COPY c = { dst, src, n, mode, FALSE };

    return aj_guarded(aj_copy_in_try, &c);
}

static inline NTSTATUS aj_to_user(PVOID dst, PVOID src, SIZE_T n, KPROCESSOR_MODE mode)
{
    AJ_COPY c = { dst, src, n, mode, TRUE };

    return aj_guarded(aj_copy_in_try, &c);
}
#endif
