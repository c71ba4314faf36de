//! What safe code can ask of the engine and must not get: each of these would have reached memory of the host's, or something that is gone.
//! What types refuse does not compile, and stands where it is refused: `Host`, `Engine`, `Guest`, `View`, and `Field` of the ABI.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::windows::{PAGE, SYSTEM};
use engine::{
    ANSWERS, Access, Answer, Args, DriverPtr, Engine, Fault, FaultKind, Flow, Guest, Host, Leave, Point,
    Progress, Protection, Question, Short, Special, Stack, StrandId, Turn,
};

use super::rig::{self, CODE, DATA, Rig};

const RETURN: [u8; 1] = [0xC3];

/// A guest whose strands give way once, and look at it afterwards.
struct Waiting {
    engine: Engine,
    seen: Cell<u32>,
}

impl Guest for Waiting {
    fn strand(&self, _id: StrandId) {
        self.engine.suspend();
        self.seen.set(self.seen.get() + 1);
    }
    fn export(&self, _: u32, _: &Args) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn slice(&self) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn port_read(&self, _: u16, _: u8) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn port_write(&self, _: u16, _: u8, _: u32) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn device_read(&self, _: Access, _: &mut [u8]) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn device_write(&self, _: Access, _: &[u8]) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn accessed(&self) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn set_irql(&self, _: u64) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn interrupt_flag(&self) -> bool {
        true
    }
    fn set_interrupt_flag(&self, _: bool) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn cpuid(&self, _: u32, _: u32) -> [u32; 4] {
        [0; 4]
    }
    fn special(&self, _: Special) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn fault(&self, _: &Fault) -> Leave {
        Leave::Stop
    }
}

fn waiting(host: &Host) -> Waiting {
    Waiting { engine: **host, seen: Cell::new(0) }
}

/// The words of the panic that `f` must end with.
fn refused<R>(f: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).err().expect("it is refused");
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap().to_owned();
    // It may lie in the machine.
    std::mem::forget(payload);
    text
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

#[test]
fn a_run_within_a_run_is_of_the_same_guest() {
    let host = Host::start().unwrap();
    let (guest, other) = (waiting(&host), waiting(&host));
    assert_eq!(host.run(&guest, || host.run(&guest, || 7)), 7);
    let why = refused(|| host.run(&guest, || host.run(&other, || 7)));
    assert!(why.contains("of the same guest"), "{why}");
}

#[test]
fn a_strand_goes_on_for_the_guest_that_it_began_with_and_no_other() {
    let host = Host::start().unwrap();
    let (guest, other) = (waiting(&host), waiting(&host));
    let strand = host.run(&guest, || {
        let strand = host.spawn();
        assert_eq!(host.resume(strand), Progress::Suspended);
        strand
    });
    let why = refused(|| host.run(&other, || host.resume(strand)));
    assert!(why.contains("another guest has begun"), "{why}");
    assert_eq!(other.seen.get(), 0);
    let why = refused(|| host.resume(strand));
    assert!(why.contains("within a run"), "{why}");
    assert_eq!(guest.seen.get(), 0);
}

#[test]
fn a_run_that_was_forgotten_is_not_gone_on_with_by_another() {
    let host = Host::start().unwrap();
    let guest = waiting(&host);
    let engine = *host;
    let ask = || engine.ask(Question::Choice { strand: 0, point: Point("forgotten"), n: 2 });
    let mut ended = host.explore(&guest, || 1_u64);
    assert_eq!(ended.go(), Turn::Ended(1));
    let mut run = host.explore(&guest, ask);
    assert!(matches!(run.go(), Turn::Asked(_)));
    std::mem::forget(run);
    let why = refused(|| ended.answer(0));
    assert!(why.contains("another run has begun"), "{why}");
}

#[test]
fn what_driver_code_is_called_on_is_memory_of_drivers() {
    let rig = Rig::new(&RETURN);
    let own = [0x1111_u64; 64];
    for top in [address(&own[60]) & !15, 0, 8, !15, SYSTEM.base, SYSTEM.end() + PAGE] {
        *rig.fault.borrow_mut() = None;
        let outcome = rig.host.run(&rig, || rig.engine.call(CODE, &[1, 2, 3, 4], Stack::At(top)));
        assert!(outcome.is_err(), "{top:#x}");
        assert_eq!(rig.the_fault().kind, FaultKind::Write, "{top:#x}");
    }
    assert!(own.iter().all(|word| *word == 0x1111));
    rig.engine.map(SYSTEM.end() - PAGE, 0x4000_0000, PAGE, Protection::READ_WRITE);
    let last = || rig.engine.call(CODE, &[1, 2, 3, 4], Stack::At(SYSTEM.end()));
    assert!(rig.host.run(&rig, last).is_ok(), "the last page of it is as good as any");
}

#[test]
fn a_processors_region_is_memory_of_drivers() {
    let host = Host::start().unwrap();
    let own = [0_u8; 0x2000];
    for region in [address(&own), 0, SYSTEM.base - 1, SYSTEM.end() - 8] {
        let why = refused(|| host.set_processor_region(region));
        assert!(why.contains("memory of drivers"), "{why}");
    }
    host.set_processor_region(SYSTEM.base);
}

#[test]
fn what_exports_answer_has_a_row_of_a_table_that_is_there() {
    let rig = Rig::new(&RETURN);
    let plain = Answer { value: 1, group: 1, levels: 0..=15, hands_on: (0, 0) };
    let defined = |row: u16, noted: u8| {
        rig.engine.define_exports(std::iter::once((rig::EXPORTS, 7, Some(Short::Answer(row, noted)))));
    };
    defined(ANSWERS as u16 - 1, 0);
    assert!(refused(|| defined(ANSWERS as u16, 0)).contains("no such row"));
    for noted in [1, 7, 124, u8::MAX] {
        assert!(refused(|| defined(0, noted)).contains("no such place"));
    }
    assert!(refused(|| rig.engine.answer(0, &plain)).contains("has made the table"));
    assert!(refused(|| rig.engine.open_answers(1)).contains("has made the table"));
    rig.engine.open_answers(0);
    assert_eq!((rig.engine.answered(5), rig.engine.noted_call(8, 9)), (0, None));
    rig.engine.note_call(5, 8, 9);
    assert_eq!(rig.engine.noted_call(8, 9), None, "there is nothing to note it in");
    rig.engine.make_answers();
    rig.engine.answer(0, &plain);
    assert!(!refused(|| rig.engine.answer(ANSWERS as u16, &plain)).is_empty());
    let Rig { engine, host, .. } = rig;
    drop(host);
    refused(|| engine.make_answers());
    refused(|| engine.answer(0, &plain));
}

#[test]
fn a_block_of_any_number_of_bytes_is_laid_in_memory_of_drivers_if_at_all() {
    let rig = Rig::new(&RETURN);
    let own = [0x11_u8; 256];
    let block = DATA + 0x40;
    let beyond = address(&own[128]).wrapping_sub(block);
    for bytes in [beyond, beyond - 16, u64::MAX, u64::MAX - 15, SYSTEM.size, 1 << 63] {
        let laid = rig.engine.lay::<0, 0xFB>(block, bytes);
        assert!(!laid || bytes > u64::MAX - 16, "{bytes:#x}: what wraps has no room");
        assert_ne!(rig.engine.is_guarded::<0x11>(block, bytes), Some(true), "{bytes:#x}");
    }
    assert!(own.iter().all(|byte| *byte == 0x11));
}

#[test]
fn a_comparison_of_sixteen_bytes_at_once_is_of_no_fewer() {
    let rig = Rig::new(&RETURN);
    let why = refused(|| rig.engine.is_filled(DATA, 15, 0));
    assert!(why.contains("16 bytes"), "{why}");
}

#[test]
fn the_engine_of_a_machine_that_has_ended_answers_or_refuses() {
    let host = Host::start().unwrap();
    let engine = *host;
    engine.map(SYSTEM.base, 0, PAGE, Protection::READ_WRITE);
    let view = engine.view(DriverPtr::<u64>::new(SYSTEM.base + 2 * PAGE)).unwrap();
    host.finish();
    assert!(engine.read(DriverPtr::<u64>::new(SYSTEM.base + PAGE)).is_err());
    assert_eq!(engine.peek(|| Some(view.word())), None, "what was never mapped");
    let why = refused(|| engine.spawn());
    assert!(why.contains("no machine is alive"), "{why}");
}

#[test]
fn a_value_in_a_machine_that_is_dropped_after_its_end_frees_nothing_and_one_that_grows_goes_on_outside() {
    let host = Host::start().unwrap();
    let (dropped, mut grown) = host.inside(|| (Box::new(7_u64), vec![1_u8, 2]));
    host.finish();
    assert_eq!((*dropped, &*grown), (7, [1, 2].as_slice()));
    drop(dropped);
    grown.extend([3; 100]);
    let next = Host::start().unwrap();
    next.inside(|| drop(vec![9_u8; 4096]));
    assert_eq!((grown.len(), grown[1], grown[2]), (102, 2, 3), "it lies where the next machine does not");
    next.finish();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "what a thread must not do is done")]
fn a_value_in_a_machine_that_another_thread_drops_stays_there() {
    let host = Host::start().unwrap();
    let sent = host.inside(|| Box::new(7_u64));
    let at = std::ptr::from_ref(&*sent).addr();
    std::thread::spawn(move || drop(sent)).join().unwrap();
    let other = host.inside(|| Box::new(8_u64));
    assert_ne!(at, std::ptr::from_ref(&*other).addr(), "the thread has not touched the machine's allocator");
    host.inside(|| drop(other));
    host.finish();
}
