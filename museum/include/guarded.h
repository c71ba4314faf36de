/* seh.h - structured exception guard for compilers without __try.
   NTSTATUS GuardedCall(fn, a, b, c): calls fn(a, b, c); STATUS_SUCCESS, or the code of the exception it raised. */
#pragma once
NTSTATUS GuardedCall(PVOID Function, ULONG_PTR A, ULONG_PTR B, ULONG_PTR C);
__asm__(
    ".text\n"
    ".def GuardedCall; .scl 2; .type 32; .endef\n"
    ".globl GuardedCall\n"
    ".seh_proc GuardedCall\n"
    "GuardedCall:\n"
    "    subq $40, %rsp\n"
    "    .seh_stackalloc 40\n"
    "    .seh_endprologue\n"
    "    movq %rcx, %rax\n"
    "    movq %rdx, %rcx\n"
    "    movq %r8, %rdx\n"
    "    movq %r9, %r8\n"
    ".Lguard_begin:\n"
    "    call *%rax\n"
    "    nop\n"
    ".Lguard_end:\n"
    "    xorl %eax, %eax\n"
    ".Lguard_leave:\n"
    "    addq $40, %rsp\n"
    "    ret\n"
    ".Lguard_except:\n"
    "    jmp .Lguard_leave\n"
    "    .seh_handler __C_specific_handler, @except\n"
    "    .seh_handlerdata\n"
    "    .long 1\n"
    "    .rva .Lguard_begin\n"
    "    .rva .Lguard_end\n"
    "    .long 1\n"
    "    .rva .Lguard_except\n"
    "    .text\n"
    "    .seh_endproc\n");
#define GuardedProbeRead(p, n)      GuardedCall((PVOID)ProbeForRead, (ULONG_PTR)(p), (ULONG_PTR)(n), 1)
#define GuardedCopy(d, s, n)        GuardedCall((PVOID)memmove, (ULONG_PTR)(d), (ULONG_PTR)(s), (ULONG_PTR)(n))
#define GuardedLock(mdl, mode, op)  GuardedCall((PVOID)MmProbeAndLockPages, (ULONG_PTR)(mdl), (ULONG_PTR)(mode), (ULONG_PTR)(op))
