//! Services that do the work of many instructions at once: what becomes due within them comes before the driver's next instruction.

use std::cell::RefCell;
use std::rc::Rc;

use super::interrupts::connection;
use crate::Cx;
use crate::ke::irq::interrupt;
use crate::ke::rig::{Driver, Line, Rig, Scripted, Trace, compile, message};

/// Each routine calls its service, then counts rounds until the interrupt has come that was due within. 1,000,000 more if the
/// service did not do what it should.
const SERVICES: &str = "
    void RtlFillMemory(void *, u64, u32); void *memmove(void *, const void *, u64); u64 strlen(const char *);
    int sprintf(char *, const char *, ...); u64 RtlCompareMemory(const void *, const void *, u64);
    void RtlInitializeBitMap(void *, u32 *, u32); u32 RtlFindClearBits(void *, u32, u32);
    enum { SIZE = 1 << 20 };
    char one[SIZE + 1], two[SIZE + 1]; u64 map[2]; volatile u32 came;
    static inline void out(unsigned short p, u32 v) { __asm__ volatile(\"outl %0, %1\" :: \"a\"(v), \"d\"(p)); }
    ROUTINE u8 isr(void *i, void *c) { came++; out(0x300, 0); return 1; }
    static u64 waits(int right) { u64 n = 0; while (!came && n < 900000) n++; return right ? n : n + 1000000; }
    ROUTINE void setup(void) { RtlFillMemory(one, SIZE, 'x'); came = 0; }
    ROUTINE u64 fills(void) { RtlFillMemory(two, SIZE, 'y'); return waits(two[SIZE - 1] == 'y'); }
    ROUTINE u64 copies(void) { memmove(two, one, SIZE); return waits(two[SIZE - 1] == 'x'); }
    ROUTINE u64 compares(void) { u64 same = RtlCompareMemory(one, one, SIZE); return waits(same == SIZE); }
    ROUTINE u64 measures(void) { u64 length = strlen(one); return waits(length == SIZE); }
    ROUTINE u64 prints(void) { int length = sprintf(two, \"%*d\", 60000, 5); return waits(length == 60000); }
    ROUTINE u64 searches(void) {
        RtlInitializeBitMap(map, (u32 *)one, 8 * SIZE); u32 found = RtlFindClearBits(map, 30, 0); return waits(found == ~0u);
    }
";

/// When the line rises, in nanoseconds from the start: within each service.
const DUE: u64 = 2_000;

/// Rounds that a routine waits, how often the interrupt came, and everything that happened.
fn run(routine: &str, slice: u64) -> (u64, Vec<String>) {
    let line = Rc::new(RefCell::new(Line::default()));
    let image = compile("long", SERVICES);
    let chooser = Box::new(Scripted { answers: Vec::new(), slice });
    Rig { line: line.clone(), chooser, ..Rig::default() }.run(|cx: &mut Cx<'_>| {
        let driver = Driver::load_image(cx, "long", engine::outside(|| image.clone()));
        interrupt::connect(cx, &connection(driver.at("isr"))).unwrap().unwrap();
        driver.run(cx, "setup", &[]);
        let trace = Trace::of(cx);
        line.borrow_mut().at = Some(cx.engine().now() + DUE);
        let rounds = driver.run(cx, routine, &[]).unwrap_or_else(|| panic!("{}", message(cx)));
        (rounds, trace.lines())
    })
}

/// The interrupt comes before the caller's next instruction, whatever the slices are, and all else is the same, too.
fn comes_directly_after(routine: &str) {
    let (rounds, whole) = run(routine, u64::MAX);
    assert_eq!(rounds, 0, "{routine}: the interrupt came so many rounds later");
    assert!(whole.iter().any(|line| line.contains("Interrupt {")), "{routine}: {whole:#?}");
    for slice in [1_000, 7, 1] {
        let (again, sliced) = run(routine, slice);
        assert_eq!(again, rounds, "{routine}, slices of {slice}");
        assert!(sliced == whole, "{routine}, slices of {slice}:\n{sliced:#?}\nin one:\n{whole:#?}");
    }
}

#[test]
fn what_is_due_while_memory_is_filled_copied_or_compared_comes_directly_after() {
    for routine in ["fills", "copies", "compares"] {
        comes_directly_after(routine);
    }
}

#[test]
fn what_is_due_while_text_is_measured_or_printed_comes_directly_after() {
    for routine in ["measures", "prints"] {
        comes_directly_after(routine);
    }
}

#[test]
fn what_is_due_while_a_bit_map_is_searched_comes_directly_after() {
    comes_directly_after("searches");
}
