//! Stories of pool: what a driver gets, and what it can get wrong.

use abi::DriverPtr;
use engine::windows::PAGE;
use engine::{Fill, Leave};

use super::pool::{self, Kind, tag};
use super::rig::{bug_check, machine, message, verdict};
use super::{pool_check, pool_exports as exports};
use crate::Cx;

const TAG: u32 = tag(b"Dirq");
const NX: u32 = 512;

fn block(cx: &mut Cx<'_>, bytes: u64) -> u64 {
    exports::allocate_with_tag(cx, NX, bytes, TAG).unwrap().address
}

fn poke(cx: &mut Cx<'_>, address: u64, byte: u8) {
    cx.engine().write(DriverPtr::new(address), byte).unwrap();
}

#[test]
fn blocks_lie_above_4_gib_aligned_and_apart() {
    machine(|cx| {
        let mut last = 0;
        for bytes in [1, 16, 17, 100, 2000, 4000, 4064, 4065, 4096, 5000, 70_000] {
            let address = block(cx, bytes);
            assert!(address > u64::from(u32::MAX) && address.is_multiple_of(16));
            assert_ne!(address, last);
            last = address;
            if bytes >= PAGE {
                assert!(address.is_multiple_of(PAGE), "whole pages begin at one");
            } else {
                assert_eq!(address / PAGE, (address + bytes - 1) / PAGE, "less than a page crosses none");
            }
            let fresh = cx.read_bytes(address, bytes).unwrap();
            let is_laid =
                |(at, bytes): (usize, &[u8])| *bytes == Fill::FRESH.from(8 * at as u64)[..bytes.len()];
            assert!(fresh.chunks(8).enumerate().all(is_laid), "what was never written is not zero");
            cx.write_bytes(address, &fresh).unwrap();
        }
    });
}

#[test]
fn pool2_zeroes_unless_told_not_to() {
    machine(|cx| {
        let zeroed = exports::allocate_pool2(cx, 0x40, 300, TAG).unwrap();
        assert!(cx.read_bytes(zeroed.address, 300).unwrap().iter().all(|&byte| byte == 0));
        let raw = exports::allocate_pool2(cx, 0x40 | 2, 300, TAG).unwrap();
        assert!(cx.read_bytes(raw.address, 300).unwrap().iter().all(|&byte| byte != 0));
        let line = exports::allocate_pool2(cx, 0x40 | 8, 100, TAG).unwrap();
        assert!(line.address.is_multiple_of(64));
        assert!(exports::allocate_pool2(cx, 0x40 | 0x100, 8, TAG).unwrap().is_null(), "two kinds at once");
        assert!(exports::allocate_pool2(cx, 0x40, 8, 0).unwrap().is_null(), "no tag");
        assert!(
            exports::allocate_pool2(cx, 0x4000_0040, 8, TAG).unwrap().is_null(),
            "an unknown requirement"
        );
        assert!(!exports::allocate_pool2(cx, 1 << 40 | 0x40, 8, TAG).unwrap().is_null(), "an unknown wish");
        assert_eq!(verdict(cx), None);
    });
}

#[test]
fn a_type_of_pool_says_whether_code_may_run_there_for_descriptors_too() {
    let kinds =
        [(0, Kind::NonPagedExecute), (NX, Kind::NonPaged), (1, Kind::Paged), (NX | 4, Kind::NonPaged)];
    for (pool_type, kind) in kinds {
        assert_eq!(exports::kind(pool_type), kind);
    }
}

#[test]
fn one_byte_too_many_is_seen_when_the_block_is_freed() {
    for bytes in [24, 33, 4000, 5000] {
        machine(|cx| {
            let address = block(cx, bytes);
            poke(cx, address + bytes, 0);
            assert_eq!(exports::free_pool(cx, DriverPtr::new(address)), Err(Leave::Stop));
            assert_eq!((verdict(cx), bug_check(cx)), (Some("pool-overrun"), Some((0x19, 0x21))));
            assert!(message(cx).contains("0 bytes behind its end") && message(cx).contains("'Dirq'"));
        });
    }
}

#[test]
fn one_byte_too_early_is_seen_too() {
    machine(|cx| {
        let address = block(cx, 24);
        poke(cx, address - 1, 7);
        assert_eq!(exports::free_pool(cx, DriverPtr::new(address)), Err(Leave::Stop));
        assert_eq!(verdict(cx), Some("pool-underrun"));
    });
}

#[test]
fn a_whole_page_block_ends_before_an_unmapped_page() {
    machine(|cx| {
        let address = block(cx, 2 * PAGE);
        assert!(cx.engine().write(DriverPtr::new(address + 2 * PAGE), 0_u8).is_err());
    });
}

#[test]
fn a_second_free_is_bad_pool_caller_7() {
    for bytes in [40, 9000] {
        machine(|cx| {
            let address = block(cx, bytes);
            exports::free_pool(cx, DriverPtr::new(address)).unwrap();
            assert_eq!(exports::free_pool(cx, DriverPtr::new(address)), Err(Leave::Stop));
            assert_eq!((verdict(cx), bug_check(cx)), (Some("double-free"), Some((0xC2, 7))));
        });
    }
}

#[test]
fn freeing_what_was_never_allocated_says_what_it_is() {
    type Wrong = fn(&mut Cx<'_>) -> u64;
    let cases: [(Wrong, u64, &str); 4] = [
        (|_| 0, 0x40, "user-mode"),
        (|cx| block(cx, 64) + 16, 0x99, "0x10 bytes into a 64-byte"),
        (|cx| block(cx, 64) + 0x20_0000, 0x41, "not an allocated block of nonpaged pool"),
        (|_| 0xFFFF_8000_0000_0000, 0x46, "no pool address"),
    ];
    for (address, sub, words) in cases {
        machine(|cx| {
            let address = address(cx);
            assert_eq!(exports::free_pool(cx, DriverPtr::new(address)), Err(Leave::Stop));
            assert_eq!((verdict(cx), bug_check(cx)), (Some("bad-free"), Some((0xC2, sub))));
            assert!(message(cx).contains(words), "{}", message(cx));
        });
    }
}

#[test]
fn another_tag_at_the_free_is_bad_pool_caller_a() {
    machine(|cx| {
        let address = block(cx, 64);
        assert_eq!(exports::free_with_tag(cx, DriverPtr::new(address), tag(b"Othr")), Err(Leave::Stop));
        assert_eq!((verdict(cx), bug_check(cx)), (Some("pool-tag-mismatch"), Some((0xC2, 0xA))));
        assert!(message(cx).contains("'Dirq'") && message(cx).contains("'Othr'"));
    });
}

#[test]
fn a_freed_block_reads_as_dd_and_a_write_to_it_is_found() {
    machine(|cx| {
        let address = block(cx, 64);
        exports::free_with_tag(cx, DriverPtr::new(address), TAG).unwrap();
        assert!(cx.read_bytes(address, 64).unwrap().iter().all(|&byte| byte == 0xDD));
        pool_check::all(cx).unwrap();
        poke(cx, address + 5, 0x11);
        assert_eq!(pool_check::all(cx), Err(Leave::Stop));
        assert_eq!(verdict(cx), Some("write-after-free"));
        assert!(message(cx).contains("holds 0x11"));
    });
}

#[test]
fn a_write_after_free_is_found_when_the_place_comes_back_into_use() {
    machine(|cx| {
        let address = block(cx, 64);
        exports::free_pool(cx, DriverPtr::new(address)).unwrap();
        poke(cx, address, 0);
        let found = (0..2000).any(|_| {
            let other = block(cx, 64);
            exports::free_pool(cx, DriverPtr::new(other)).is_err()
        });
        assert!(found);
        assert_eq!(verdict(cx), Some("write-after-free"));
    });
}

#[test]
fn a_large_freed_block_is_gone_and_known() {
    machine(|cx| {
        let address = block(cx, 9000);
        exports::free_pool(cx, DriverPtr::new(address)).unwrap();
        assert!(cx.engine().read::<u8>(DriverPtr::new(address)).is_err());
        let words = pool_check::explain(cx, address + 0x10).unwrap().0;
        assert!(words.starts_with("0x10 bytes into a 9000-byte nonpaged block 'Dirq'"), "{words}");
        assert!(words.ends_with("which is freed"));
    });
}

#[test]
fn no_tag_and_must_succeed_are_verdicts() {
    let cases: [(u32, u64, u32, &str, u64); 3] = [
        (NX, 8, 0, "pool-tag", 0x9B),
        (NX, 8, tag(b"  .."), "pool-tag", 0x9D),
        (2, 8, TAG, "pool-must-succeed", 0x9A),
    ];
    for (pool_type, bytes, tag, rule, sub) in cases {
        machine(|cx| {
            assert_eq!(exports::allocate_with_tag(cx, pool_type, bytes, tag), Err(Leave::Stop));
            assert_eq!((verdict(cx), bug_check(cx)), (Some(rule), Some((0xC2, sub))));
        });
    }
}

#[test]
fn the_machine_runs_out_of_pool_before_the_host_does() {
    machine(|cx| {
        assert!(exports::allocate_with_tag(cx, NX, 16 << 30, TAG).unwrap().is_null());
        assert!(exports::allocate_with_tag(cx, NX, u64::MAX, TAG).unwrap().is_null());
        assert!(!exports::allocate_with_tag(cx, NX, 1 << 20, TAG).unwrap().is_null());
        assert_eq!(verdict(cx), None);
    });
}

#[test]
fn the_kernels_own_blocks_are_zeroed_and_nobodys_leak() {
    machine(|cx| {
        let own: DriverPtr<u64> = pool::allocate(cx, Kind::NonPaged, 8, TAG).unwrap();
        assert_eq!(cx.read(own).unwrap(), 0);
        assert!(pool_check::outstanding(cx, 0x2000_0200_0000).is_empty());
        pool::free(cx, own).unwrap();
    });
}

#[test]
fn pool3_heeds_what_it_knows_and_refuses_what_it_must_not_ignore() {
    const SECURE: u64 = 2;
    const OPTIONAL: u64 = 1 << 8;
    machine(|cx| {
        let parameter = DriverPtr::new(super::rig::bytes(cx, &[0; 16]));
        for (bits, granted) in [(1, true), (SECURE, false), (SECURE | OPTIONAL, true)] {
            cx.write(parameter + abi::POOL_EXTENDED_PARAMETER::Bits, bits).unwrap();
            let block = exports::allocate_pool3(cx, 0x40, 8, TAG, parameter, 1).unwrap();
            assert_eq!(!block.is_null(), granted, "{bits:#x}");
        }
    });
}

/// Answers 1 at one point, 0 at all others.
struct Lucky;

impl engine::Chooser for Lucky {
    fn choose(&mut self, _strand: u32, point: engine::Point, _n: u32) -> u32 {
        u32::from(point.0 == "mm.contiguous")
    }
    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

#[test]
fn a_buffer_is_contiguous_by_luck_only() {
    let contiguous = |cx: &mut Cx<'_>| {
        let address = block(cx, 3 * PAGE);
        let pages: Vec<u64> =
            cx.with(|k| (0..3).map(|n| k.mm.map.physical(address + n * PAGE).unwrap()).collect());
        exports::free_pool(cx, DriverPtr::new(address)).unwrap();
        pages.windows(2).all(|pair| pair[0] + PAGE == pair[1])
    };
    crate::ke::rig::Rig::default().run(|cx| assert!(!contiguous(cx)));
    let lucky = crate::ke::rig::Rig { chooser: Box::new(Lucky), ..crate::ke::rig::Rig::default() };
    lucky.run(|cx| assert!(contiguous(cx)));
}
