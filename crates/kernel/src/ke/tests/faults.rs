//! What the processor refuses, as verdicts of compiled drivers.

use crate::Cx;
use crate::ke::rig::{Driver, bug_check, machine, message, rule};

const FAULTS: &str = "
    ROUTINE int wild(void) { *(volatile int *)0x202345678000 = 1; return 0; }
    ROUTINE int null(void) { return *(volatile int *)8; }
    ROUTINE int null_raised(void) { KfRaiseIrql(2); return *(volatile int *)8; }
    ROUTINE int null_call(void) { ((void (*)(void))0)(); return 0; }
    ROUTINE int text(void) { *(volatile char *)text = 1; return 0; }
    char data[64] = {1};
    ROUTINE int executes_data(void) { ((void (*)(void))data)(); return 0; }
    volatile int zero;
    ROUTINE int divides(void) { return 7 / zero; }
    ROUTINE int overflows(int n) { volatile char big[512]; big[0] = n; return overflows(n + 1) + big[0]; }
    ROUTINE int fails_fast(void) { __asm__ volatile(\"movl $3, %ecx; int $0x29\"); return 0; }
    ROUTINE int breaks(void) { __asm__ volatile(\"int3\"); return 0; }
    ROUTINE int asserts(void) { __asm__ volatile(\"int $0x2c\"); return 0; }
    ROUTINE int stops(void) { KeBugCheckEx(0xDEAD, 1, 2, 3, 4); return 0; }
    ROUTINE int region(void) { KeEnterCriticalRegion(); return 0; }
    ROUTINE int msr(void) { u32 a, d; __asm__ volatile(\"rdmsr\" : \"=a\"(a), \"=d\"(d) : \"c\"(0xDEAD)); return a; }
    ROUTINE int efer(void) { u32 a, d; __asm__ volatile(\"rdmsr\" : \"=a\"(a), \"=d\"(d) : \"c\"(0xC0000080)); return a; }
    ROUTINE u64 cr3(void) { u64 v; __asm__ volatile(\"mov %%cr3, %0\" : \"=r\"(v)); return v; }
    ROUTINE int unprotects(void) { u64 v; __asm__ volatile(\"mov %%cr0, %0; and $~0x10000, %0; mov %0, %%cr0\" : \"=&r\"(v)); return 0; }
    ROUTINE int caches(void) { u64 v; __asm__ volatile(\"mov %%cr0, %0; bts $30, %0; mov %0, %%cr0\" : \"=&r\"(v)); return 0; }
    ROUTINE int system_call(void) { __asm__ volatile(\"syscall\" ::: \"rcx\", \"r11\"); return 0; }
    ROUTINE int swaps(void) { __asm__ volatile(\"swapgs\"); return 0; }
    ROUTINE int target(void) { __asm__ volatile(\"wrmsr\" :: \"c\"(0xC0000082), \"a\"(0), \"d\"(0)); return 0; }
    ROUTINE int no_register(void) { __asm__ volatile(\"wrmsr\" :: \"c\"(0xDEAD), \"a\"(0), \"d\"(0)); return 0; }
    ROUTINE int same_efer(void) { __asm__ volatile(\"wrmsr\" :: \"c\"(0xC0000080), \"a\"(0xD01), \"d\"(0)); return 1; }
    ROUTINE int loads_gdt(void) { static const char t[10]; __asm__ volatile(\"lgdt %0\" :: \"m\"(t)); return 0; }
    ROUTINE int hypercall(void) { __asm__ volatile(\"vmcall\"); return 0; }
    ROUTINE u64 kernel_code(void) {
        struct __attribute__((packed)) { unsigned short limit; u64 base; } t;
        __asm__ volatile(\"sgdt %0\" : \"=m\"(t));
        return t.limit == 0x57 ? ((volatile u64 *)t.base)[2] : 0;
    }
    ROUTINE int empties(void) { __asm__ volatile(\"wbinvd; clts; invlpg (%0)\" :: \"r\"(&zero)); return 7; }
";

#[test]
fn each_fault_ends_the_run_with_windows_own_bug_check() {
    let cases = [
        ("wild", "wild-write", 0x50),
        ("null", "wild-read", 0x3B),
        ("null_raised", "wild-read", 0xD1),
        ("null_call", "wild-call", 0x3B),
        ("text", "write-to-read-only", 0xBE),
        ("executes_data", "execute-of-data", 0xFC),
        ("divides", "divide-error", 0x3B),
        ("overflows", "stack-overflow", 0x7F),
        ("fails_fast", "fast-fail", 0x139),
        ("breaks", "breakpoint", 0x3B),
        ("asserts", "assertion-failed", 0x3B),
        ("stops", "driver-bug-check", 0xDEAD),
        ("region", "critical-region-unpaired", 0x1),
        ("msr", "instruction-refused", 0x3B),
        ("no_register", "instruction-refused", 0x3B),
        ("unprotects", "instruction-refused", 0x109),
        ("target", "instruction-refused", 0x109),
        ("loads_gdt", "instruction-refused", 0x109),
        ("system_call", "instruction-refused", 0x7F),
        ("swaps", "instruction-refused", 0x7F),
        ("hypercall", "invalid-opcode", 0x3B),
    ];
    for (routine, expected, code) in cases {
        machine(|cx| {
            let driver = Driver::load(cx, "faults", FAULTS);
            assert_eq!(driver.run(cx, routine, &[]), None, "{routine}");
            assert_eq!((rule(cx), bug_check(cx)), (Some(expected), Some(code)), "{routine}: {}", message(cx));
            let verdict = cx.nt().verdict().unwrap();
            let innermost = verdict.stack.first().map_or(verdict.message, |line| line.symbol.clone());
            assert!(innermost.contains(&format!("faults.sys!{routine}")), "{routine}: {innermost}");
        });
    }
}

#[test]
fn a_stack_overflow_names_the_stack() {
    machine(|cx| {
        let driver = Driver::load(cx, "faults", FAULTS);
        driver.run(cx, "overflows", &[0]);
        assert!(message(cx).contains("ran over the end of the test thread"), "{}", message(cx));
    });
}

#[test]
fn what_the_processor_has_is_answered_and_what_is_not_modelled_is_named() {
    machine(|cx: &mut Cx<'_>| {
        let driver = Driver::load(cx, "faults", FAULTS);
        assert_eq!(driver.run(cx, "efer", &[]), Some(0xD01));
        assert_eq!(driver.run(cx, "cr3", &[]), Some(0x001A_A000));
        assert_eq!(driver.run(cx, "same_efer", &[]), Some(1));
        assert_eq!(driver.run(cx, "kernel_code", &[]), Some(0x0020_9B00_0000_0000));
        assert_eq!(driver.run(cx, "empties", &[]), Some(7));
        assert_eq!(driver.run(cx, "caches", &[]), None);
        assert_eq!(rule(cx), Some("not-implemented"));
        assert!(message(cx).contains("CR0"), "{}", message(cx));
    });
}
