/*
 * Stories of __try, __except and __finally: who is asked, what runs in which order, and where execution goes on.
 */
#ifndef SEH_HANDLERS_H
#define SEH_HANDLERS_H

#include "seh.h"

/* A fault in a callee, and one in the __try itself, end in the __except; the filter sees what happened. */
static ULONG Caught(void)
{
    volatile NTSTATUS Code = 0;
    volatile ULONG_PTR How = 99, Where = 0;
    volatile ULONG Count = 0;
    volatile PVOID Address = NULL;

    Begin();
    __try {
        Sink = ReadAt((PULONG)((PUCHAR)NoPlace + 0x18));
        Step('x');
    } __except (Address = GetExceptionInformation()->ExceptionRecord->ExceptionAddress,
                How = GetExceptionInformation()->ExceptionRecord->ExceptionInformation[0],
                Where = GetExceptionInformation()->ExceptionRecord->ExceptionInformation[1],
                Count = GetExceptionInformation()->ExceptionRecord->NumberParameters, Filter('f', 1)) {
        Code = GetExceptionCode();
        Step('e');
    }
    CHECK(Went("fe"));
    CHECK(Code == STATUS_ACCESS_VIOLATION);
    CHECK(Count == 2 && How == 0 && Where == 0x18);
    CHECK((PUCHAR)Address >= (PUCHAR)ReadAt && (PUCHAR)Address < (PUCHAR)ReadAt + 16);

    Begin();
    __try {
        *(volatile ULONG *)NoPlace = 1;
        Step('x');
    } __except (How = GetExceptionInformation()->ExceptionRecord->ExceptionInformation[0], 1) {
        Step('e');
    }
    CHECK(Went("e"));
    CHECK(How == 1);

    Begin();
    __try {
        Step('t');
    } __except (Filter('f', 1)) {
        Step('e');
    }
    CHECK(Went("t"));
    return 0;
}

static NOINLINE void FinallyInside(ULONG By)
{
    __try {
        __try {
            Sink = Divide(By);
            Step('t');
        } __finally {
            Step(AbnormalTermination() ? 'A' : 'a');
        }
        Step('u');
    } __finally {
        Step(AbnormalTermination() ? 'B' : 'b');
    }
    Step('r');
}

/* First all filters up to the one that takes it, then the termination handlers from inside outwards, then the block. */
static ULONG FinallyOrder(void)
{
    volatile NTSTATUS Code = 0;

    Begin();
    __try {
        FinallyInside(10);
    } __except (Filter('f', 1)) {
        Step('e');
    }
    CHECK(Went("taubr"));

    Begin();
    __try {
        __try {
            FinallyInside(0);
        } __finally {
            Step(AbnormalTermination() ? 'C' : 'c');
        }
    } __except (Filter('f', 1)) {
        Code = GetExceptionCode();
        Step('e');
    }
    CHECK(Went("fABCe"));
    CHECK(Code == STATUS_INTEGER_DIVIDE_BY_ZERO);
    return 0;
}

static NOINLINE void NotMine(void)
{
    __try {
        __try {
            Raise(STATUS_DEVICE_BUSY);
            Step('x');
        } __except (Filter('1', EXCEPTION_CONTINUE_SEARCH)) {
            Step('x');
        }
    } __finally {
        Step('F');
    }
}

/* A filter that declines leaves it to the next one out. */
static ULONG ContinuedSearch(void)
{
    volatile NTSTATUS Code = 0;

    Begin();
    __try {
        __try {
            NotMine();
        } __except (Filter('2', EXCEPTION_CONTINUE_SEARCH)) {
            Step('x');
        }
    } __except (Filter('3', EXCEPTION_EXECUTE_HANDLER)) {
        Code = GetExceptionCode();
        Step('e');
    }
    CHECK(Went("123Fe"));
    CHECK(Code == STATUS_DEVICE_BUSY);

    Begin();
    __try {
        __try {
            NotMine();
        } __except (GetExceptionCode() == STATUS_DEVICE_BUSY ? EXCEPTION_EXECUTE_HANDLER : 0) {
            Step('i');
            Raise(STATUS_DEVICE_NOT_READY); /* from an __except block: for the next one out */
            Step('x');
        }
    } __except (Filter('o', 1)) {
        Code = GetExceptionCode();
        Step('e');
    }
    CHECK(Went("1Fioe"));
    CHECK(Code == STATUS_DEVICE_NOT_READY);
    return 0;
}

static ULONG Good = 0x600D;

/* mov eax, [rcx]; add eax, edx; ret */
ULONG LoadByRcx(volatile ULONG *Place, ULONG Plus);
__asm__(".text\n"
        ".globl LoadByRcx\n"
        "LoadByRcx:\n"
        "mov (%rcx), %eax\n"
        "add %edx, %eax\n"
        "ret\n");

static NOINLINE int Repair(EXCEPTION_POINTERS *Pointers)
{
    Step('f');
    if (Pointers->ContextRecord->Rip != (ULONG64)(ULONG_PTR)LoadByRcx || Pointers->ContextRecord->Rcx != 0x40) {
        return EXCEPTION_EXECUTE_HANDLER;
    }
    Pointers->ContextRecord->Rcx = (ULONG64)(ULONG_PTR)&Good;
    Pointers->ContextRecord->Rdx += 1;
    return EXCEPTION_CONTINUE_EXECUTION;
}

/* A filter mends a register: the instruction is tried again, with the registers that it has written. */
static ULONG ContinuedExecution(void)
{
    volatile ULONG Value = 0;

    Begin();
    __try {
        Value = LoadByRcx((PULONG)((PUCHAR)NoPlace + 0x40), 2);
        Step('t');
    } __except (Repair(GetExceptionInformation())) {
        Step('x');
    }
    CHECK(Went("ft"));
    CHECK(Value == 0x600D + 3);

    /* The same from within another handler's call, and for a write. */
    Begin();
    __try {
        __try {
            Raise(STATUS_UNSUCCESSFUL);
            Step('x');
        } __finally {
            __try {
                Value = LoadByRcx((PULONG)((PUCHAR)NoPlace + 0x40), 5);
                Step('t');
            } __except (Repair(GetExceptionInformation())) {
                Step('x');
            }
        }
    } __except (1) {
        Step('e');
    }
    CHECK(Went("fte"));
    CHECK(Value == 0x600D + 6);
    return 0;
}

static NOINLINE int IsCode(NTSTATUS Code, NTSTATUS Expected)
{
    Step(Code == Expected ? 'f' : 'n');
    return 1;
}

static NOINLINE void Undefined(void)
{
    __asm__ volatile("ud2");
    Step('x');
}

static NOINLINE void Assertion(void)
{
    __asm__ volatile("int $0x2c");
    Step('x');
}

static NOINLINE void Breakpoint(void)
{
    __asm__ volatile("int3");
    Step('x');
}

static NOINLINE void CallAt(PVOID Place)
{
    ((VOID(*)(VOID))Place)();
    Step('x');
}

/* Every kind of fault that Windows makes an exception of. */
static ULONG Kinds(void)
{
    Begin();
    __try {
        Sink = Divide(Zero);
    } __except (IsCode(GetExceptionCode(), STATUS_INTEGER_DIVIDE_BY_ZERO)) {
    }
    __try {
        Undefined();
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_ILLEGAL_INSTRUCTION)) {
    }
    __try {
        Sink = ReadAt((PULONG)(0x8000000000001000ull + Zero));
    } __except (IsCode(GetExceptionCode(), STATUS_ACCESS_VIOLATION)) {
    }
    __try {
        Assertion();
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_ASSERTION_FAILURE)) {
    }
    __try {
        Breakpoint();
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_BREAKPOINT)) {
    }
    __try {
        CallAt(NoPlace);
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_ACCESS_VIOLATION)) {
    }
    __try {
        DbgBreakPoint();
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_BREAKPOINT)) {
    }
    CHECK(Went("fffffff"));
    return 0;
}

/* What kernel routines raise: as documented, and where the caller can go on from it, that it does. */
static ULONG Raised(void)
{
    EXCEPTION_RECORD Record;
    UCHAR Local[16];
    volatile ULONG_PTR Second = 0;
    volatile ULONG Count = 0;

    Begin();
    __try {
        Raise(STATUS_INVALID_DEVICE_STATE);
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_INVALID_DEVICE_STATE)) {
    }
    __try {
        ExRaiseAccessViolation();
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_ACCESS_VIOLATION)) {
    }
    __try {
        ExRaiseDatatypeMisalignment();
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_DATATYPE_MISALIGNMENT)) {
    }
    __try {
        ProbeForRead(Local, sizeof(Local), 1); /* a kernel address */
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_ACCESS_VIOLATION)) {
    }
    __try {
        ProbeForRead((PVOID)0x10002, 8, 4);
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_DATATYPE_MISALIGNMENT)) {
    }
    __try {
        ProbeForWrite((PVOID)0x10000, 8, 4); /* nothing is there */
        Step('x');
    } __except (IsCode(GetExceptionCode(), STATUS_ACCESS_VIOLATION)) {
    }
    __try {
        ProbeForRead(Local, 0, 1); /* of nothing, nothing is raised */
        Step('0');
    } __except (Filter('x', 1)) {
    }
    CHECK(Went("ffffff0"));

    /* An exception of its own, continuable, with what belongs to it. */
    Begin();
    RtlZeroMemory(&Record, sizeof(Record));
    Record.ExceptionCode = (NTSTATUS)0xE0001234;
    Record.NumberParameters = 2;
    Record.ExceptionInformation[1] = 0x5678;
    __try {
        RtlRaiseException(&Record);
        Step('t');
    } __except (Second = GetExceptionInformation()->ExceptionRecord->ExceptionInformation[1],
                Count = GetExceptionInformation()->ExceptionRecord->NumberParameters,
                Filter('f', EXCEPTION_CONTINUE_EXECUTION)) {
        Step('x');
    }
    CHECK(Went("ft"));
    CHECK(Second == 0x5678 && Count == 2);
    CHECK(Record.ExceptionAddress > (PVOID)Raised && Record.ExceptionAddress < (PVOID)((PUCHAR)Raised + 0x1000));

    /* The kernel's own access to what it was given, as in a copy from a bad user buffer. */
    Begin();
    __try {
        RtlMoveMemory(Local, (PUCHAR)NoPlace + 0x20, 8 + Zero);
        Step('x');
    } __except (Second = GetExceptionInformation()->ExceptionRecord->ExceptionInformation[1],
                IsCode(GetExceptionCode(), STATUS_ACCESS_VIOLATION)) {
    }
    CHECK(Went("f"));
    CHECK(Second == 0x20);
    return 0;
}

#endif
