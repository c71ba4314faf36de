//! A structure in driver memory word by word (`View`): what it reads and writes, and how it tells what cannot be accessed.
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use abi::{DriverPtr, IO_STATUS_BLOCK, IRP, LIST_ENTRY, NtStatus};
use engine::windows::{IMAGES, PAGE, SYSTEM, USER};
use engine::{Engine, Protection, Tracking};

use super::rig::{DATA, Rig};

const RETURN: [u8; 1] = [0xC3];
const FREE: u64 = SYSTEM.base + 0x800_0000;
const APPLICATION: u64 = USER.base + 0x10_0000;

fn word(engine: Engine, at: u64) -> u64 {
    engine.read(DriverPtr::new(at)).unwrap()
}

#[test]
fn each_word_is_where_the_layout_says_and_nothing_beside_it_changes() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    let at = DriverPtr::<IRP>::new(DATA);
    engine.fill(DATA, 0xD0, 0xAA).unwrap();
    let irp = engine.view(at).unwrap();
    let written = engine.peek(|| {
        irp.set(IRP::Size, 0x118);
        irp.set(IRP::StackCount, 1);
        irp.set(IRP::Flags, 0x70);
        irp.part(IRP::IoStatus).set(IO_STATUS_BLOCK::Information, 5);
        irp.part(IRP::IoStatus).set(IO_STATUS_BLOCK::Status, NtStatus::UNSUCCESSFUL);
        Some(())
    });
    assert_eq!(written, Some(()));
    let mut whole = IRP::zeroed();
    engine.read_bytes(DATA, zerocopy::IntoBytes::as_mut_bytes(&mut whole)).unwrap();
    assert_eq!((whole.get(IRP::Size), whole.get(IRP::StackCount), whole.get(IRP::Flags)), (0x118, 1, 0x70));
    assert_eq!(whole.get(IRP::IoStatus).get(IO_STATUS_BLOCK::Status), NtStatus::UNSUCCESSFUL);
    assert_eq!(whole.get(IRP::CurrentLocation), 0xAA, "a neighbour of one byte");
    assert_eq!(word(engine, DATA + 0x10), 0xAAAA_AAAA_0000_0070, "and one of four");
    assert_eq!(irp.get(IRP::Type), i16::from_le_bytes([0xAA; 2]));
    assert_eq!(irp.part(IRP::ThreadListEntry).get(LIST_ENTRY::Flink).address, 0xAAAA_AAAA_AAAA_AAAA);
}

#[test]
fn what_is_not_there_ends_a_look_with_nothing_and_the_machine_goes_on() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    let nowhere = engine.view(DriverPtr::<u64>::new(FREE)).unwrap();
    let look = || engine.peek(|| Some(nowhere.word()));
    assert_eq!(look(), None);
    assert_eq!(engine.peek(|| Some(7)), Some(7), "that fault is not this one's");
    engine.map(FREE, 0x4000_0000, PAGE, Protection::READ);
    assert_eq!(look(), Some(0), "it can be read now");
    let block = engine.view(DriverPtr::<IO_STATUS_BLOCK>::new(FREE)).unwrap();
    let written = engine.peek(|| {
        block.set(IO_STATUS_BLOCK::Information, 1);
        Some(())
    });
    assert_eq!(written, None, "and not be written");
    assert_eq!(word(engine, FREE + 8), 0);
    let last = DriverPtr::<IRP>::new(SYSTEM.end() - 8);
    let behind = engine.peek(|| Some(engine.view(last)?.get(IRP::UserEvent)));
    assert_eq!(behind, None, "behind the window there is nothing");
}

#[test]
fn a_fault_is_of_the_innermost_look_alone() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    let nowhere = engine.view(DriverPtr::<u64>::new(FREE)).unwrap();
    let seen = engine.peek(|| {
        assert_eq!(engine.peek(|| Some(nowhere.word())), None);
        assert!(!engine.has_faulted());
        Some(1)
    });
    assert_eq!(seen, Some(1));
    let seen = engine.peek(|| {
        let _ = nowhere.word();
        assert_eq!(engine.peek(|| Some(2)), Some(2), "what was before it is not its");
        assert!(engine.has_faulted());
        Some(3)
    });
    assert_eq!(seen, None);
    // A look that returns early has let go of its fault, too.
    let early = engine.peek(|| -> Option<()> {
        let _ = nowhere.word();
        None
    });
    assert_eq!((early, engine.peek(|| Some(4))), (None, Some(4)));
}

#[test]
fn an_image_and_an_address_of_nobody_have_no_view() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    for address in [0, 0x1000, IMAGES.base, USER.base - 8, SYSTEM.base - 8, SYSTEM.end(), u64::MAX] {
        assert!(engine.view(DriverPtr::<u64>::new(address)).is_none(), "{address:#x}");
    }
    for address in [0, SYSTEM.base, USER.base - 8, USER.end(), u64::MAX] {
        assert!(engine.view_of_user(DriverPtr::<u64>::new(address)).is_none(), "{address:#x}");
    }
}

#[test]
fn an_applications_ends_are_readable_or_not_and_its_bytes_are_copied() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    engine.map(APPLICATION, 0x4000_0000, PAGE, Protection::READ_WRITE);
    assert!(engine.are_ends_readable(APPLICATION, PAGE));
    assert!(!engine.are_ends_readable(APPLICATION, PAGE + 1));
    assert!(!engine.are_ends_readable(APPLICATION + PAGE, 1));
    assert!(!engine.are_ends_readable(DATA, 1), "that is no application's");
    for length in [1_u64, 3, 4, 8, 16, 100, 600] {
        let bytes: Vec<u8> = (0..length).map(|n| n as u8 ^ 0x5A).collect();
        engine.write_bytes(APPLICATION, &bytes).unwrap();
        engine.fill(DATA, 0x400, 0).unwrap();
        assert!(engine.copy_plain(DATA + 1, APPLICATION, length));
        let mut copy = vec![0; bytes.len() + 2];
        engine.read_bytes(DATA, &mut copy).unwrap();
        assert_eq!(copy, [&[0], &*bytes, &[0]].concat());
    }
    assert!(!engine.copy_plain(DATA, APPLICATION + PAGE - 2, 4), "half of it is not there");
    assert!(!engine.has_faulted(), "the result was false");
}

#[test]
fn a_block_is_laid_between_guards_and_each_byte_of_them_counts() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    let block = DATA + 0x40;
    for bytes in [0_u64, 1, 4, 15, 16, 17, 63, 64, 65, 200, 280, 1024] {
        let room = bytes.max(1).next_multiple_of(16);
        engine.fill(DATA, 0x800, 0x11).unwrap();
        assert!(engine.lay::<0, 0xFB>(block, bytes));
        let mut all = vec![0; 0x800];
        engine.read_bytes(DATA, &mut all).unwrap();
        let end = 0x40 + room as usize;
        assert!(all[..0x30].iter().chain(&all[end + 16..]).all(|byte| *byte == 0x11), "{bytes}");
        let (inside, behind) = all[0x40..end + 16].split_at(bytes as usize);
        assert!(inside.iter().all(|byte| *byte == 0), "{bytes}");
        assert!(all[0x30..0x40].iter().chain(behind).all(|byte| *byte == 0xFB), "{bytes}");
        assert_eq!(engine.is_guarded::<0xFB>(block, bytes), Some(true));
        for at in (block - 16..block).chain(block + bytes..block + room + 16) {
            engine.write(DriverPtr::<u8>::new(at), 0xFA).unwrap();
            assert_eq!(engine.is_guarded::<0xFB>(block, bytes), Some(false), "{bytes} {at:#x}");
            engine.write(DriverPtr::<u8>::new(at), 0xFB).unwrap();
        }
    }
}

#[test]
fn a_range_is_filled_or_one_byte_of_it_is_not() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    for bytes in [16_u64, 17, 63, 64, 65, 127, 128, 129, 150, 160, 255, 256, 288] {
        engine.fill(DATA + 3, bytes, 0xDD).unwrap();
        assert_eq!(engine.is_filled(DATA + 3, bytes, 0xDD), Ok(true));
        for at in 0..bytes {
            engine.write(DriverPtr::<u8>::new(DATA + 3 + at), 0xDC).unwrap();
            assert_eq!(engine.is_filled(DATA + 3, bytes, 0xDD), Ok(false), "{bytes} {at}");
            engine.write(DriverPtr::<u8>::new(DATA + 3 + at), 0xDD).unwrap();
        }
        assert_eq!(engine.is_filled(FREE, bytes, 0xDD).ok(), None, "nothing is mapped there");
    }
}

#[test]
fn what_is_written_by_a_view_is_taken_back_with_the_machine() {
    for tracking in [Tracking::Faults, Tracking::Userfault] {
        let rig = Rig::new(&RETURN);
        let engine = rig.engine;
        if rig.host.track(tracking).is_err() {
            assert_eq!(tracking, Tracking::Userfault, "any Linux can do the other");
            continue;
        }
        let block = engine.view(DriverPtr::<IO_STATUS_BLOCK>::new(DATA)).unwrap();
        block.set(IO_STATUS_BLOCK::Information, 1);
        let snapshot = rig.host.snapshot().unwrap();
        for _ in 0..3 {
            block.set(IO_STATUS_BLOCK::Information, 2);
            assert!(engine.lay::<0, 0xFB>(DATA + 0x40, 24));
            assert!(!engine.has_faulted());
            rig.host.rewind(snapshot);
            assert_eq!((word(engine, DATA + 8), word(engine, DATA + 0x38)), (1, 0));
        }
    }
}

#[test]
fn who_asks_who_touches_what_gets_no_view() {
    let rig = Rig::new(&RETURN);
    let engine = rig.engine;
    engine.learn_shared(true);
    assert!(engine.view(DriverPtr::<u64>::new(DATA)).is_none() && !engine.is_plain());
    assert!(!engine.copy_plain(DATA, DATA + 8, 8));
    assert_eq!(engine.is_guarded::<0>(DATA + 0x40, 16), None);
    engine.learn_shared(false);
    assert!(engine.view(DriverPtr::<u64>::new(DATA)).is_some());
}
