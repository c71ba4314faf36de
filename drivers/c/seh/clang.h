/*
 * mingw's wdm.h for clang's msvc target, which has __try, and what both lack: the intrinsics and types of exception
 * handling. mingw's intrin.h is for gcc; of it only the few instructions that are needed stand here.
 */
#ifndef SEH_CLANG_H
#define SEH_CLANG_H

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

#include <ddk/ntddk.h>

#define NOINLINE __declspec(noinline)
#define INIT_CODE __declspec(code_seg("INIT"))

/* excpt.h's are for another compiler's types. */
#undef GetExceptionCode
#undef GetExceptionInformation
#define GetExceptionCode() ((NTSTATUS)_exception_code())
#define GetExceptionInformation() ((EXCEPTION_POINTERS *)_exception_info())

#define EXCEPTION_UNWINDING 0x2
#define EXCEPTION_TARGET_UNWIND 0x20

typedef struct _RUNTIME_FUNCTION {
    ULONG BeginAddress;
    ULONG EndAddress;
    ULONG UnwindData;
} RUNTIME_FUNCTION;

typedef struct _DISPATCHER_CONTEXT {
    ULONG64 ControlPc;
    ULONG64 ImageBase;
    RUNTIME_FUNCTION *FunctionEntry;
    ULONG64 EstablisherFrame;
    ULONG64 TargetIp;
    PCONTEXT ContextRecord;
    PVOID LanguageHandler;
    PVOID HandlerData;
    PVOID HistoryTable;
    ULONG ScopeIndex;
} DISPATCHER_CONTEXT;

NTSYSAPI VOID NTAPI RtlRaiseException(PEXCEPTION_RECORD Record);
NTSYSAPI VOID NTAPI RtlCaptureContext(PCONTEXT Context);
NTSYSAPI VOID NTAPI RtlRestoreContext(PCONTEXT Context, PEXCEPTION_RECORD Record);
NTSYSAPI RUNTIME_FUNCTION *NTAPI RtlLookupFunctionEntry(ULONG64 Pc, PULONG64 ImageBase, PVOID History);
NTSYSAPI PVOID NTAPI RtlVirtualUnwind(ULONG Kind, ULONG64 ImageBase, ULONG64 Pc, RUNTIME_FUNCTION *Entry,
                                      PCONTEXT Context, PVOID *Data, PULONG64 Frame, PVOID Pointers);
NTSYSAPI VOID NTAPI RtlUnwindEx(PVOID Frame, PVOID Ip, PEXCEPTION_RECORD Record, PVOID Value, PCONTEXT Context,
                                PVOID History);
NTSYSAPI VOID NTAPI RtlUnwind(PVOID Frame, PVOID Ip, PEXCEPTION_RECORD Record, PVOID Value);
NTSYSAPI PVOID NTAPI RtlPcToFileHeader(PVOID Pc, PVOID *Base);
NTSYSAPI VOID NTAPI ExRaiseAccessViolation(VOID);
NTSYSAPI VOID NTAPI ExRaiseDatatypeMisalignment(VOID);

#endif
