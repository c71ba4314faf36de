//! What a rewind puts back besides plain pages: mappings, aliases, code, the clock, the allocator; and what must stay as it
//! is while writes are being noticed.

use engine::windows::{IMAGES, PAGE, SYSTEM, USER};
use engine::{DriverPtr, Engine, FaultKind, Protection, Snapshot, Tracking};
use iced_x86::code_asm::*;

use super::rig::{self, CODE, DATA, EXPORTS, Rig, STACK_TOP, assemble};

/// Tells `story` once with each back end that this host has.
fn both(code: &[u8], story: impl Fn(&Rig, &dyn Fn() -> Snapshot)) {
    for tracking in [Tracking::Faults, Tracking::Userfault] {
        let rig = Rig::new(code);
        if rig.host.track(tracking).is_ok() {
            story(&rig, &|| rig.host.snapshot().unwrap());
        } else {
            assert_eq!(tracking, Tracking::Userfault, "any Linux can do the other");
        }
    }
}

fn word(engine: Engine, at: u64) -> Option<u64> {
    engine.read(DriverPtr::new(at)).ok()
}

fn put(engine: Engine, at: u64, value: u64) {
    engine.write(DriverPtr::new(at), value).unwrap();
}

const RETURN: [u8; 1] = [0xC3];
const FREE: u64 = SYSTEM.base + 0x800_0000;

#[test]
fn mappings_made_changed_and_taken_away_since_are_undone() {
    both(&RETURN, |rig, snapshot| {
        let engine = rig.engine;
        engine.map(FREE, 0x4000_0000, 3 * PAGE, Protection::READ_WRITE);
        (0..3).for_each(|page| put(engine, FREE + page * PAGE, 10 + page));
        let (before, print) = (snapshot(), engine.fingerprint());
        for round in 0..5 {
            put(engine, FREE, 99);
            engine.unmap(FREE, PAGE);
            engine.protect(FREE + PAGE, PAGE, Protection::READ);
            engine.map(FREE + 2 * PAGE, 0x5000_0000, PAGE, Protection::READ_WRITE);
            put(engine, FREE + 2 * PAGE, 98);
            engine.map(USER.base + round * PAGE, 0x6000_0000, PAGE, Protection::READ_WRITE);
            put(engine, USER.base + round * PAGE, round);
            rig.host.rewind(before);
            assert_eq!(engine.fingerprint(), print, "round {round}");
            assert_eq!(
                [0, 1, 2].map(|page| word(engine, FREE + page * PAGE)),
                [Some(10), Some(11), Some(12)]
            );
            assert_eq!(word(engine, USER.base + round * PAGE), None, "it was not mapped then");
        }
        put(engine, FREE + PAGE, 5);
        assert_eq!(word(engine, FREE + PAGE), Some(5), "it may be written again");
        engine.map(FREE + 2 * PAGE, 0x5000_0000, PAGE, Protection::READ_WRITE);
        rig.host.rewind(before);
        engine.map(USER.base, 0x5000_0000, PAGE, Protection::READ);
        assert_eq!(word(engine, USER.base), Some(0), "what was written to that page is gone too");
    });
}

#[test]
fn a_page_is_put_back_through_whichever_address_it_was_written() {
    both(&RETURN, |rig, snapshot| {
        let engine = rig.engine;
        let aliases = [FREE, FREE + 7 * PAGE, USER.base];
        aliases.iter().for_each(|alias| engine.map(*alias, 0x4000_0000, PAGE, Protection::READ_WRITE));
        put(engine, FREE, 1);
        let outer = snapshot();
        for (index, alias) in aliases.iter().enumerate() {
            put(engine, *alias, 2 + index as u64);
            let inner = snapshot();
            put(engine, aliases[(index + 1) % 3], 50);
            // One more address for the page, which goes again before anybody looks.
            engine.map(FREE + 9 * PAGE, 0x4000_0000, PAGE, Protection::READ_WRITE);
            put(engine, FREE + 9 * PAGE + 8, 60);
            engine.unmap(FREE + 9 * PAGE, PAGE);
            rig.host.rewind(inner);
            assert!(aliases.iter().all(|alias| word(engine, *alias) == Some(2 + index as u64)));
            assert!(aliases.iter().all(|alias| word(engine, *alias + 8) == Some(0)));
            rig.host.rewind(outer);
            assert!(aliases.iter().all(|alias| word(engine, *alias) == Some(1)));
        }
    });
}

#[test]
fn an_address_that_a_written_page_was_given_since_is_watched_at_the_next_snapshot() {
    both(&RETURN, |rig, snapshot| {
        let engine = rig.engine;
        engine.map(FREE, 0x4000_0000, 2 * PAGE, Protection::READ_WRITE);
        let outer = snapshot();
        put(engine, FREE, 1);
        // Writes to that page are not awaited any more, so these may be written from the beginning.
        engine.map(USER.base, 0x4000_0000, PAGE, Protection::READ_WRITE);
        engine.map(USER.base + PAGE, 0x4000_0000, PAGE, Protection::READ);
        engine.protect(USER.base + PAGE, PAGE, Protection::READ_WRITE);
        for alias in [USER.base, USER.base + PAGE] {
            let (inner, print) = (snapshot(), engine.fingerprint());
            put(engine, alias, 2);
            rig.host.rewind(inner);
            assert_eq!(word(engine, FREE), Some(1), "it was noticed at {alias:#x}");
            assert_eq!(engine.fingerprint(), print);
        }
        rig.host.rewind(outer);
        assert_eq!([FREE, USER.base].map(|at| word(engine, at)), [Some(0), None]);
    });
}

#[test]
fn a_page_written_only_through_a_mapping_that_is_gone_is_put_back() {
    both(&RETURN, |rig, snapshot| {
        let engine = rig.engine;
        engine.map(FREE, 0x4000_0000, PAGE, Protection::READ_WRITE);
        put(engine, FREE, 1);
        engine.unmap(FREE, PAGE);
        let before = snapshot();
        for _ in 0..3 {
            engine.map(FREE + PAGE, 0x4000_0000, PAGE, Protection::READ_WRITE);
            put(engine, FREE + PAGE, 2);
            engine.unmap(FREE + PAGE, PAGE);
            rig.host.rewind(before);
            engine.map(FREE, 0x4000_0000, PAGE, Protection::READ);
            assert_eq!(word(engine, FREE), Some(1));
            rig.host.rewind(before);
        }
    });
}

/// `mov eax, 1; ret`, at `CODE`; the immediate lies at `CODE + 1`.
const ONE: [u8; 6] = [0xB8, 1, 0, 0, 0, 0xC3];

#[test]
fn code_that_was_written_since_is_forgotten() {
    both(&ONE, |rig, snapshot| {
        let engine = rig.engine;
        engine.protect(CODE, PAGE, Protection { read: true, write: true, execute: true });
        assert_eq!(rig.call(&[]), Ok(1));
        let before = snapshot();
        for _ in 0..3 {
            assert_eq!(rig.call(&[]), Ok(1));
            engine.write_bytes(CODE + 1, &[7]).unwrap();
            assert_eq!(rig.call(&[]), Ok(7));
            let later = snapshot();
            engine.write_bytes(CODE + 1, &[9]).unwrap();
            assert_eq!(rig.call(&[]), Ok(9));
            rig.host.rewind(later);
            assert_eq!(rig.call(&[]), Ok(7));
            rig.host.rewind(before);
        }
        assert_eq!(rig.call(&[]), Ok(1));
    });
}

#[test]
fn an_image_that_was_loaded_since_is_gone_and_another_can_take_its_place() {
    both(&RETURN, |rig, snapshot| {
        let engine = rig.engine;
        let at = IMAGES.base + 0x2000_0000;
        let before = snapshot();
        for value in 1..5 {
            engine.map(at, 0x7000_0000, PAGE, Protection::READ_WRITE);
            engine.write_bytes(at, &[0xB8, value, 0, 0, 0, 0xC3]).unwrap();
            engine.protect(at, PAGE, Protection::READ_EXECUTE);
            assert_eq!(rig.call_at(at, &[]), Ok(value.into()));
            rig.host.rewind(before);
            assert!(rig.call_at(at, &[]).is_err(), "no code is there any more");
            assert_eq!(rig.the_fault().kind, FaultKind::Execute);
        }
    });
}

#[test]
fn a_driver_that_writes_itself_is_noticed_by_both_who_must_know() {
    // f(n): stores n into the immediate of g, and calls g.
    let code = assemble(|a| {
        a.mov(rax, CODE + 0x41).unwrap();
        a.mov(dword_ptr(rax), ecx).unwrap();
        a.dec(rax).unwrap();
        a.jmp(rax).unwrap();
    });
    let mut page = vec![0; 0x80];
    page[..code.len()].copy_from_slice(&code);
    page[0x40..0x46].copy_from_slice(&ONE);
    both(&page, |rig, snapshot| {
        rig.engine.protect(CODE, PAGE, Protection { read: true, write: true, execute: true });
        assert_eq!(rig.call(&[5]), Ok(5));
        let before = snapshot();
        for n in 6..20 {
            assert_eq!(rig.call_at(CODE + 0x40, &[]), Ok(5));
            assert_eq!(rig.call(&[n]), Ok(n));
            rig.host.rewind(before);
        }
    });
}

#[test]
fn what_a_driver_may_not_write_is_its_fault_all_the_same() {
    let code = assemble(|a| {
        a.mov(qword_ptr(rcx), 1).unwrap();
        a.mov(rax, qword_ptr(rdx)).unwrap();
        a.ret().unwrap();
    });
    both(&code, |rig, snapshot| {
        let engine = rig.engine;
        engine.map(FREE, 0x4000_0000, PAGE, Protection::READ);
        let before = snapshot();
        assert_eq!(rig.call(&[DATA, DATA]), Ok(1), "a page that is only watched");
        assert!(rig.call(&[FREE, DATA]).is_err(), "one that may only be read");
        assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Write, FREE));
        assert!(rig.call(&[DATA, FREE + PAGE]).is_err(), "one that is not there");
        assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Read, FREE + PAGE));
        assert!(rig.call(&[CODE, DATA]).is_err(), "code");
        assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Write, CODE));
        assert!(engine.write_bytes(FREE, &[1]).is_err() && engine.write_bytes(CODE, &[1]).is_err());
        let across = DATA + PAGE - 4;
        put(engine, across, u64::MAX);
        rig.host.rewind(before);
        assert_eq!((word(engine, across), word(engine, DATA)), (Some(0), Some(0)));
    });
}

#[test]
fn the_clock_the_slice_and_the_processor_region_are_put_back() {
    both(
        &assemble(|a| {
            a.mov(rax, qword_ptr(0).gs()).unwrap();
            a.ret().unwrap();
        }),
        |rig, snapshot| {
            let engine = rig.engine;
            put(engine, DATA, 11);
            put(engine, DATA + PAGE, 22);
            engine.set_processor_region(DATA);
            engine.set_slice(1_000);
            assert_eq!(rig.call(&[]), Ok(11));
            let (before, now) = (snapshot(), engine.now());
            engine.charge(500);
            engine.set_slice(3);
            engine.set_processor_region(DATA + PAGE);
            assert_eq!(rig.call(&[]), Ok(22));
            assert!(engine.now() > now + 500);
            rig.host.rewind(before);
            assert_eq!((engine.now(), rig.call(&[])), (now, Ok(11)));
        },
    );
}

#[test]
fn a_panic_of_ours_that_was_caught_since_has_not_happened() {
    let code = assemble(|a| {
        a.mov(rax, EXPORTS + 0x1000).unwrap();
        a.jmp(rax).unwrap();
    });
    both(&code, |rig, snapshot| {
        rig.engine.define_export(EXPORTS + 0x1000, 0);
        *rig.export.borrow_mut() = Some(Box::new(|_, _, _| panic!("a fault of ours")));
        let before = snapshot();
        for _ in 0..3 {
            assert!(rig.call(&[]).is_err());
            assert_eq!(rig.engine.panic_message().as_deref(), Some("a fault of ours"));
            rig.host.rewind(before);
            assert_eq!(rig.engine.panic_message(), None);
        }
    });
}

#[test]
fn the_heap_gives_the_same_addresses_again_and_has_lost_nothing() {
    both(&RETURN, |rig, snapshot| {
        let kept: Vec<Vec<u8>> = rig.host.inside(|| (1..200).map(|n| vec![n as u8; n * 13]).collect());
        let before = snapshot();
        let churn = || {
            rig.host.inside(|| {
                let mut blocks: Vec<Vec<u8>> = (1..3_000).map(|n| vec![0xEE; n % 700 + 1]).collect();
                blocks.retain(|block| block.len() % 3 == 0);
                let big = vec![1u8; 5 << 20];
                let addresses = [blocks[0].as_ptr() as u64, blocks[400].as_ptr() as u64, big.as_ptr() as u64];
                // What is alive when the machine is rewound is not dropped.
                std::mem::forget((blocks, big));
                addresses
            })
        };
        let addresses = churn();
        for _ in 0..5 {
            rig.host.rewind(before);
            assert!(kept.iter().enumerate().all(|(n, block)| block.iter().all(|byte| *byte == n as u8 + 1)));
            assert_eq!(churn(), addresses);
        }
        rig.host.rewind(before);
        rig.host.inside(|| drop(kept));
    });
}

#[test]
fn with_more_scattered_writes_than_the_host_has_mappings_for_nothing_is_lost() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    rig.host.track(Tracking::Faults).unwrap();
    // Room for twice the mappings that a process may have, of which every other page is written.
    let pages = 2 * 36_000;
    let room: Vec<u8> = rig.host.inside(|| Vec::with_capacity((pages + 1) << 12));
    let first = (room.as_ptr() as usize).next_multiple_of(4096) as *mut u8;
    let before = rig.host.snapshot().unwrap();
    let scattered = || (0..pages).step_by(2).map(|page| first.wrapping_add(page << 12));
    // SAFETY: inside the vector's room, which is mapped.
    scattered().for_each(|at| unsafe { at.write_volatile(7) });
    put(engine, DATA, 3);
    engine.map(FREE, 0x4000_0000, PAGE, Protection::READ_WRITE);
    rig.host.rewind(before);
    // SAFETY: as above.
    assert!(scattered().all(|at| unsafe { at.read_volatile() } == 0));
    assert_eq!((word(engine, DATA), word(engine, FREE)), (Some(0), None));
    rig.host.discard(before);
    assert!(word(engine, STACK_TOP).is_some());
    rig.host.inside(|| drop(room));
}

#[test]
fn a_snapshot_that_was_discarded_costs_nothing_and_others_stand() {
    both(&RETURN, |rig, snapshot| {
        let engine = rig.engine;
        let at = |page: u64| DATA + page * PAGE;
        let show = || [0, 1, 2, 3].map(|page| word(engine, at(page)).unwrap());
        let first = snapshot();
        put(engine, at(0), 1);
        let second = snapshot();
        [0, 1].into_iter().for_each(|page| put(engine, at(page), 2));
        let third = snapshot();
        [0, 2].into_iter().for_each(|page| put(engine, at(page), 3));
        rig.host.discard(second);
        put(engine, at(3), 4);
        rig.host.rewind(third);
        assert_eq!(show(), [2, 2, 0, 0]);
        put(engine, at(3), 4);
        rig.host.discard(third);
        assert_eq!(show(), [2, 2, 0, 4]);
        rig.host.rewind(first);
        assert_eq!(show(), [0, 0, 0, 0]);
        rig.host.discard(first);
        put(engine, at(3), 5);
        let again = snapshot();
        put(engine, at(3), 6);
        rig.host.rewind(again);
        assert_eq!(show(), [0, 0, 0, 5]);
    });
}

/// Where another image lies.
const OTHER: u64 = IMAGES.base + 0x800_0000;

#[test]
fn an_image_that_goes_last_is_gone_at_once_and_comes_back() {
    let answers = |value: u64| assemble(|a| a.mov(eax, value as u32).and_then(|()| a.ret()).unwrap());
    both(&answers(1), |rig, snapshot| {
        let engine = rig.engine;
        rig.load(OTHER, &answers(2));
        let runs = |at| rig.call_at(at, &[]).ok();
        assert_eq!([runs(CODE), runs(OTHER)], [Some(1), Some(2)]);
        let (before, print) = (snapshot(), engine.fingerprint());
        let came_back = || {
            rig.host.rewind(before);
            assert_eq!(engine.fingerprint(), print);
            assert_eq!([runs(CODE), runs(OTHER)], [Some(1), Some(2)]);
        };
        // The kernel looks there; driver code runs; another image comes there; nothing of these.
        engine.unmap(OTHER, PAGE);
        assert_eq!(word(engine, OTHER), None);
        assert!(engine.write(DriverPtr::new(OTHER), 1_u64).is_err());
        came_back();
        engine.unmap(OTHER, PAGE);
        assert_eq!((runs(OTHER), rig.the_fault().kind), (None, FaultKind::Execute));
        assert_eq!(runs(CODE), Some(1));
        came_back();
        engine.unmap(OTHER, PAGE);
        rig.load(OTHER, &answers(3));
        assert_eq!(runs(OTHER), Some(3));
        came_back();
        engine.unmap(OTHER, PAGE);
        came_back();
        // A snapshot between.
        engine.unmap(OTHER, PAGE);
        let without = snapshot();
        assert_eq!(runs(OTHER), None);
        rig.host.rewind(without);
        assert_eq!((runs(OTHER), word(engine, OTHER)), (None, None));
        came_back();
        engine.unmap(OTHER, PAGE);
        rig.host.discard(before);
        assert_eq!((runs(OTHER), word(engine, OTHER)), (None, None));
    });
}

#[test]
fn an_image_that_goes_while_driver_code_waits_for_the_kernel_is_gone_for_that_code() {
    // Calls the export, and then what lies in the other image.
    let code = assemble(|a| {
        a.sub(rsp, 0x28).unwrap();
        a.mov(rax, EXPORTS).unwrap();
        a.call(rax).unwrap();
        a.mov(rax, OTHER).unwrap();
        a.call(rax).unwrap();
        a.add(rsp, 0x28).unwrap();
        a.ret().unwrap();
    });
    both(&code, |rig, snapshot| {
        let engine = rig.engine;
        rig.load(OTHER, &RETURN);
        engine.define_export(EXPORTS, 1);
        assert!(rig.call(&[]).is_ok());
        let before = snapshot();
        *rig.export.borrow_mut() = Some(Box::new(|rig, _, _| {
            rig.engine.unmap(OTHER, PAGE);
            Ok(0)
        }));
        for _ in 0..2 {
            assert!(rig.call(&[]).is_err());
            assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Execute, OTHER));
            rig.host.rewind(before);
        }
        *rig.export.borrow_mut() = None;
        assert!(rig.call(&[]).is_ok());
    });
}

#[test]
fn ranges_that_come_and_go_between_rewinds_are_there_only_while_they_are() {
    both(&RETURN, |rig, snapshot| {
        let engine = rig.engine;
        let before = snapshot();
        // More pages than the host keeps closed, in the order of their frames and in another, and with other frames.
        let pages = 3000;
        for round in 0..4 {
            let at = |page: u64| FREE + 2 * page * PAGE;
            for page in 0..pages {
                let frame = if round < 2 { page } else { pages - 1 - page };
                engine.map(at(page), 0x4000_0000 + frame * PAGE, PAGE, Protection::READ_WRITE);
                put(engine, at(page), page);
            }
            assert!((0..pages).all(|page| word(engine, at(page)) == Some(page)));
            (0..pages).step_by(2).for_each(|page| engine.unmap(at(page), PAGE));
            for page in [0, 1, pages - 2, pages - 1] {
                assert_eq!(word(engine, at(page)), (page % 2 == 1).then_some(page));
            }
            rig.host.rewind(before);
            assert!((0..pages).all(|page| word(engine, at(page)).is_none()));
        }
        engine.map(FREE, 0x4000_0000, PAGE, Protection::READ_WRITE);
        assert_eq!(word(engine, FREE), Some(0), "what was written there is gone");
    });
}

#[test]
fn an_image_that_others_lead_to_is_gone_for_them_and_led_to_again() {
    // By a register (the argument, or the image's address), as callbacks are called, and by a direct jump, as no compiler makes one into another
    // image.
    let by_register = assemble(|a| {
        a.sub(rsp, 0x28).unwrap();
        a.mov(rax, OTHER).unwrap();
        a.test(rcx, rcx).unwrap();
        a.cmovne(rax, rcx).unwrap();
        a.call(rax).unwrap();
        a.add(rsp, 0x28).unwrap();
        a.ret().unwrap();
    });
    let directly = rig::relative(CODE, &[0xE9], OTHER);
    for code in [by_register, directly] {
        both(&code, |rig, snapshot| {
            let engine = rig.engine;
            let answers = |value: u32| assemble(|a| a.mov(eax, value).and_then(|()| a.ret()).unwrap());
            rig.load(OTHER, &answers(2));
            (0..3).for_each(|_| assert_eq!(rig.call(&[]), Ok(2)));
            let (before, print) = (snapshot(), engine.fingerprint());
            for round in 0..3 {
                engine.unmap(OTHER, PAGE);
                assert!(rig.call(&[]).is_err(), "round {round}");
                assert_eq!((rig.the_fault().kind, rig.the_fault().address), (FaultKind::Execute, OTHER));
                assert!(rig.call(&[u64::MAX]).is_err(), "nothing else leads there either");
                if round == 1 {
                    rig.load(OTHER, &answers(3));
                    assert_eq!(rig.call(&[]), Ok(3));
                }
                rig.host.rewind(before);
                assert_eq!(engine.fingerprint(), print);
                (0..3).for_each(|_| assert_eq!(rig.call(&[]), Ok(2), "round {round}"));
            }
        });
    }
}

#[test]
fn an_image_that_was_another_at_an_older_snapshot_is_that_again() {
    let answers = |value: u32| assemble(|a| a.mov(eax, value).and_then(|()| a.ret()).unwrap());
    both(&answers(1), |rig, snapshot| {
        let engine = rig.engine;
        rig.load(OTHER, &answers(2));
        let runs = |at| rig.call_at(at, &[]).ok();
        assert_eq!(runs(OTHER), Some(2));
        let older = snapshot();
        engine.write_bytes(OTHER, &answers(3)).unwrap_err();
        engine.protect(OTHER, PAGE, Protection::READ_WRITE);
        engine.write_bytes(OTHER, &answers(3)).unwrap();
        engine.protect(OTHER, PAGE, Protection::READ_EXECUTE);
        let newer = snapshot();
        for back in [newer, newer, older] {
            assert_eq!(runs(OTHER), Some(3));
            engine.unmap(OTHER, PAGE);
            assert_eq!((runs(CODE), runs(OTHER)), (Some(1), None), "what it was is put aside");
            rig.host.rewind(back);
        }
        assert_eq!(runs(OTHER), Some(2));
    });
}

#[test]
fn a_page_that_was_never_mapped_is_untouched_and_one_that_was_stays_touched_though_it_is_taken_back() {
    both(&RETURN, |rig, snapshot| {
        let (engine, offset) = (rig.engine, 0x4000_0000);
        assert!(engine.is_untouched(offset) && engine.is_untouched(offset + PAGE));
        let before = snapshot();
        engine.map(FREE, offset, PAGE, Protection::READ_WRITE);
        assert_eq!((word(engine, FREE), engine.is_untouched(offset)), (Some(0), false));
        put(engine, FREE, 1);
        engine.unmap(FREE, PAGE);
        rig.host.rewind(before);
        assert!(!engine.is_untouched(offset) && engine.is_untouched(offset + PAGE));
        engine.map(FREE, offset, 2 * PAGE, Protection::READ_WRITE);
        assert_eq!([FREE, FREE + PAGE].map(|at| word(engine, at)), [Some(0), Some(0)]);
    });
}
