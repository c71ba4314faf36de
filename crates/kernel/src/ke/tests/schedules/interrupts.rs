//! Interrupt routines: what they interrupt, what holds them back, what keeps them apart.

use super::{ALL, Scenario};

const LINES: &str = "
    int calls;
    ROUTINE u8 raises_higher(void *interrupt, void *context) { out(0x300, 0); say('i'); out(0x304, 1); say('j'); return 1; }
    ROUTINE u8 higher(void *interrupt, void *context) { out(0x304, 0); say('n'); say('o'); return 1; }
    ROUTINE u8 raises_lower(void *interrupt, void *context) {
        out(0x304, 0); say('n'); if (!calls++) out(0x300, 1); say('o'); return 1;
    }
    ROUTINE u8 again(void *interrupt, void *context) {
        out(0x300, 0); say('i'); if (++calls < 3) out(0x300, 1); say('j'); return 1;
    }
    u8 section(void *context) { say('c'); say('d'); return 1; }
    ROUTINE void synchronized(void) { say('1'); KeSynchronizeExecution(object, section, 0); say('2'); }
    ROUTINE u8 isr(void *interrupt, void *context) { out(0x300, 0); say('i'); say('j'); return 1; }
    u32 KeGetCurrentProcessorNumberEx(void *);
    ROUTINE u8 where(void *interrupt, void *context) {
        out(0x300, 0); say('a' + KeGetCurrentProcessorNumberEx(0)); return 1;
    }
    ROUTINE void steps(void) { say('1'); say('2'); }
    ROUTINE void at_level(u64 level) { u8 old = KfRaiseIrql((u8)level); say('1'); say('2'); KeLowerIrql(old); }
    ROUTINE void by_cr8(u64 level) { set_cr8(level); say('1'); say('2'); set_cr8(0); }
    ROUTINE void flag_off(void) { __asm__ volatile(\"cli\" ::: \"memory\"); say('1'); say('2'); __asm__ volatile(\"sti\" ::: \"memory\"); }
";

fn interrupted(routine: &'static str, argument: u64) -> Scenario {
    Scenario::new(LINES, &[(routine, argument, 8, ALL)]).interrupted_by("isr", ALL)
}

#[test]
fn an_interrupt_routine_comes_between_any_two_instructions_and_runs_to_its_end() {
    interrupted("steps", 0).is(&["ij12", "1ij2", "12ij"], &[]);
    interrupted("at_level", 7).is(&["ij12", "1ij2", "12ij"], &[]);
}

/// Holds: irql/held-back
#[test]
fn a_level_as_high_as_the_lines_holds_its_interrupt_back_by_call_and_by_cr8() {
    for level in [8, 9, 15] {
        interrupted("at_level", level).is(&["ij12", "12ij"], &[]);
        interrupted("by_cr8", level).is(&["ij12", "12ij"], &[]);
    }
}

#[test]
fn a_cleared_interrupt_flag_holds_every_interrupt_back() {
    interrupted("flag_off", 0).undrained().is(&["ij12", "12ij"], &[]);
}

/// Holds: irql/held-back
#[test]
fn on_another_processor_the_routine_runs_beside_the_code_it_would_have_interrupted() {
    let threads = [("at_level", 12, 8, 0b01)];
    let scenario = Scenario::new(LINES, &threads).on(2).interrupted_by("isr", 0b10);
    scenario.is(&["ij12", "1ij2", "12ij"], &["i1j2", "i12j", "1i2j"]);
}

#[test]
fn any_processor_of_its_affinity_takes_an_interrupt_and_no_other() {
    let scenario =
        |affinity| Scenario::new(LINES, &[("steps", 0, 8, 0b01)]).on(2).interrupted_by("where", affinity);
    scenario(0b01).is(&["a12", "1a2", "12a"], &[]);
    scenario(0b10).is(&["b12", "1b2", "12b"], &[]);
    scenario(ALL).is(&["a12", "1a2", "12a", "b12", "1b2", "12b"], &[]);
}

/// Holds: irql/nested
#[test]
fn a_higher_interrupt_comes_at_once_and_a_lower_one_waits_for_the_end() {
    let steps = |isr| Scenario::new(LINES, &[("steps", 0, 8, ALL)]).interrupted_by(isr, ALL);
    steps("raises_higher").and_by("higher").is(&["inoj12", "1inoj2", "12inoj"], &[]);
    // The lower line rises again while the higher routine runs.
    let twice = ["inoj", "ij"].concat();
    let possible = [format!("{twice}12"), format!("1{twice}2"), format!("12{twice}")];
    let possible: Vec<&str> = possible.iter().map(String::as_str).collect();
    let source = LINES.replace("out(0x304, 1); say('j')", "if (!calls) out(0x304, 1); say('j')");
    let scenario = Scenario::new(&source, &[("steps", 0, 8, ALL)]).interrupted_by("raises_higher", ALL);
    scenario.and_by("raises_lower").is(&possible, &[]);
}

#[test]
fn an_interrupt_routine_never_runs_twice_at_once_on_however_many_processors() {
    let threads = [("steps", 0, 8, ALL), ("at_level", 2, 8, ALL)];
    let scenario = Scenario::new(LINES, &threads).on(2).interrupted_by("again", ALL);
    scenario.always(|log| {
        let routine: String = log.chars().filter(char::is_ascii_alphabetic).collect();
        "ijijij".starts_with(&routine)
    });
}

#[test]
fn a_synchronized_section_and_the_interrupt_routine_keep_each_other_out() {
    let scenario = Scenario::new(LINES, &[("synchronized", 0, 8, 0b01)]).on(2).interrupted_by("isr", 0b10);
    let apart = ["ij1cd2", "1ijcd2", "1cdij2", "1cd2ij"];
    scenario.is(&apart, &["i1jcd2", "1cdi2j"]);
    let here = Scenario::new(LINES, &[("synchronized", 0, 8, ALL)]).interrupted_by("isr", ALL);
    here.is(&apart, &[]);
}
