//! Stories of MDLs, device memory, contiguous memory and applications' buffers.

use abi::{DriverPtr, IoReadAccess, IoWriteAccess, MDL, MDL_MAPPED_TO_SYSTEM_VA};
use engine::windows::{DEVICE, PAGE, USER};
use engine::{Fill, Leave};

use super::physical::{Limits, is_ram};
use super::rig::{bug_check, machine, machine_with, message, verdict};
use super::{
    contiguous, io_space, mdl, mdl_lock, mdl_map, mdl_pages, paging, pool, pool_exports, ready, stack, user,
};
use crate::hal::hardware::{Function, PciAddress, Window};
use crate::ps::process;
use crate::verdict::Tier;
use crate::{Cx, Settings};

const KERNEL: u8 = 0;
const USER_MODE: u8 = 1;

fn mdl_for(cx: &mut Cx<'_>, address: u64, length: u32) -> DriverPtr<MDL> {
    mdl::io_allocate(cx, address, length, false, false, DriverPtr::NULL).unwrap()
}

fn nonpaged(cx: &mut Cx<'_>, bytes: u64) -> u64 {
    pool_exports::allocate_pool2(cx, abi::POOL_FLAG_NON_PAGED, bytes, 0x4C44_4D54).unwrap().address
}

fn map(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, mode: u8) -> u64 {
    mdl_map::map_locked_pages_specify_cache(cx, mdl, mode, 1, 0, 0, 16).unwrap()
}

#[test]
fn the_pages_of_a_pool_buffer_are_the_true_ones_and_not_contiguous() {
    machine(|cx| {
        let buffer = nonpaged(cx, 3 * PAGE) + 0x10;
        let list = mdl_for(cx, buffer, 0x2800);
        mdl::build_for_nonpaged_pool(cx, list).unwrap();
        assert_eq!(mdl::buffer(cx, list).unwrap(), (buffer, 0x2800));
        let pages: Vec<u64> = (0..3).map(|index| mdl::page(cx, list, index).unwrap()).collect();
        for (index, page) in (0..).zip(&pages) {
            let address = paging::physical_address(cx, buffer + index * PAGE).unwrap();
            assert_eq!(address & !(PAGE - 1), *page);
            assert!(is_ram(*page));
        }
        assert!(pages.windows(2).all(|pair| pair[0] + PAGE != pair[1]));
        mdl::io_free(cx, list).unwrap();
    });
}

#[test]
fn an_applications_buffer_is_locked_mapped_and_written_through_the_mapping() {
    machine(|cx| {
        let buffer = user::allocate(cx, 1, 2 * PAGE).unwrap() + 0xF00;
        assert!(USER.contains(buffer));
        let list = mdl_for(cx, buffer, 0x300);
        mdl_lock::probe_and_lock(cx, list, USER_MODE, IoWriteAccess).unwrap();
        let system = map(cx, list, KERNEL);
        assert_eq!(system % PAGE, 0xF00);
        let shown: DriverPtr<()> = cx.read(list + MDL::MappedSystemVa).unwrap();
        assert_eq!(shown.address, system);
        cx.write_bytes(system, b"from the driver").unwrap();
        assert_eq!(user::read(cx, buffer, 15).unwrap(), b"from the driver");
        mdl_lock::unlock(cx, list).unwrap();
        assert_eq!(mdl::flags(cx, list).unwrap() & MDL_MAPPED_TO_SYSTEM_VA, 0);
        assert!(cx.engine().read::<u8>(DriverPtr::new(system)).is_err(), "the mapping goes with the lock");
        mdl::io_free(cx, list).unwrap();
        assert!(user::free(cx, buffer));
    });
}

#[test]
fn a_buffer_that_is_not_there_or_not_writable_raises() {
    machine(|cx| {
        let buffer = user::allocate(cx, 1, PAGE).unwrap();
        assert!(user::protect(cx, buffer, false));
        let list = mdl_for(cx, buffer, 8);
        assert_eq!(mdl_lock::lock(cx, list, IoReadAccess), Ok(Ok(())));
        mdl_lock::unlock(cx, list).unwrap();
        assert_eq!(mdl_lock::probe_and_lock(cx, list, USER_MODE, IoWriteAccess), Err(Leave::Stop));
        assert!(
            message(cx).contains("MmProbeAndLockPages raised the exception STATUS_ACCESS_VIOLATION"),
            "{}",
            message(cx)
        );
    });
    machine(|cx| {
        let kernel = nonpaged(cx, 64);
        let list = mdl_for(cx, kernel, 8);
        assert_eq!(mdl_lock::probe_and_lock(cx, list, USER_MODE, IoReadAccess), Err(Leave::Stop));
        assert!(message(cx).contains("ACCESS_VIOLATION"), "an application named kernel memory");
    });
}

#[test]
fn every_wrong_order_of_an_mdls_life_has_verifiers_number() {
    type Wrong = fn(&mut Cx<'_>, DriverPtr<MDL>) -> Result<(), Leave>;
    let cases: [(&str, u64, Wrong); 6] = [
        ("unlocked twice", 0x7C, |cx, list| {
            mdl_lock::probe_and_lock(cx, list, KERNEL, IoReadAccess)?;
            mdl_lock::unlock(cx, list)?;
            mdl_lock::unlock(cx, list)
        }),
        ("unlocked though built for pool", 0x7D, |cx, list| {
            mdl::build_for_nonpaged_pool(cx, list)?;
            mdl_lock::unlock(cx, list)
        }),
        ("locked twice", 0xB0, |cx, list| {
            mdl_lock::probe_and_lock(cx, list, KERNEL, IoReadAccess)?;
            mdl_lock::probe_and_lock(cx, list, KERNEL, IoReadAccess)
        }),
        ("mapped without a lock", 0xB3, |cx, list| {
            mdl_map::map_locked_pages_specify_cache(cx, list, KERNEL, 1, 0, 0, 16).map(|_| ())
        }),
        ("mapped twice", 0xB2, |cx, list| {
            mdl_lock::probe_and_lock(cx, list, KERNEL, IoReadAccess)?;
            map(cx, list, KERNEL);
            mdl_map::map_locked_pages_specify_cache(cx, list, KERNEL, 1, 0, 0, 16).map(|_| ())
        }),
        ("unmapped though not mapped", 0xB6, |cx, list| {
            mdl_lock::probe_and_lock(cx, list, KERNEL, IoReadAccess)?;
            mdl_map::unmap_locked_pages(cx, 0x1000, list)
        }),
    ];
    for (story, sub, wrong) in cases {
        machine(|cx| {
            let buffer = nonpaged(cx, 100);
            let list = mdl_for(cx, buffer, 100);
            assert_eq!(wrong(cx, list), Err(Leave::Stop), "{story}");
            assert_eq!((verdict(cx), bug_check(cx)), (Some("mdl-state"), Some((0xC4, sub))), "{story}");
        });
    }
}

#[test]
fn an_mdl_freed_while_its_pages_are_locked_is_left_locked_pages() {
    machine(|cx| {
        let buffer = user::allocate(cx, 1, PAGE).unwrap();
        let list = mdl_for(cx, buffer, 100);
        mdl_lock::probe_and_lock(cx, list, USER_MODE, IoReadAccess).unwrap();
        assert_eq!(mdl::io_free(cx, list), Err(Leave::Stop));
        assert_eq!(bug_check(cx).unwrap().0, 0xCB);
    });
}

#[test]
fn pool_freed_under_a_lock_is_pfn_list_corrupt() {
    machine(|cx| {
        let buffer = nonpaged(cx, 2 * PAGE);
        let list = mdl_for(cx, buffer, 100);
        mdl_lock::probe_and_lock(cx, list, KERNEL, IoReadAccess).unwrap();
        assert_eq!(pool_exports::free_pool(cx, DriverPtr::new(buffer)), Err(Leave::Stop));
        assert_eq!((verdict(cx), bug_check(cx)), (Some("freed-while-locked"), Some((0x4E, 0x9A))));
    });
}

#[test]
fn a_partial_mdl_describes_its_part_and_cannot_leave_its_source() {
    machine(|cx| {
        let buffer = nonpaged(cx, 3 * PAGE);
        let source = mdl_for(cx, buffer, 0x3000);
        mdl::build_for_nonpaged_pool(cx, source).unwrap();
        let part = mdl_for(cx, buffer, 0x2000);
        mdl::build_partial(cx, source, part, buffer + 0x1800, 0x1000).unwrap();
        assert_eq!(mdl::buffer(cx, part).unwrap(), (buffer + 0x1800, 0x1000));
        assert_eq!(mdl::page(cx, part, 1).unwrap(), mdl::page(cx, source, 2).unwrap());
        let shown: DriverPtr<()> = cx.read(part + MDL::MappedSystemVa).unwrap();
        assert_eq!(shown.address, buffer + 0x1800);
        let rest = mdl_for(cx, buffer, 0x1000);
        mdl::build_partial(cx, source, rest, buffer + 0x2400, 0).unwrap();
        assert_eq!(mdl::buffer(cx, rest).unwrap().1, 0xC00, "length 0 is all the rest");
        assert_eq!(mdl::build_partial(cx, source, part, buffer + 0x2000, 0x1001), Err(Leave::Stop));
        assert_eq!(verdict(cx), Some("mdl-partial-outside"));
    });
    machine(|cx| {
        let buffer = nonpaged(cx, 3 * PAGE);
        let source = mdl_for(cx, buffer, 0x3000);
        mdl::build_for_nonpaged_pool(cx, source).unwrap();
        let small = mdl_for(cx, buffer, 0x1000);
        assert_eq!(mdl::build_partial(cx, source, small, buffer, 0x2000), Err(Leave::Stop));
        assert_eq!(bug_check(cx).unwrap().0, abi::TARGET_MDL_TOO_SMALL);
    });
}

#[test]
fn pages_for_an_mdl_respect_their_limit_and_are_zero() {
    machine(|cx| {
        let low = (1 << 32) - 1;
        let list = mdl_pages::allocate(cx, 0, low, 0, 5 * PAGE).unwrap();
        assert!((0..5).all(|index| mdl::page(cx, list, index).unwrap() <= low));
        let at = map(cx, list, KERNEL);
        assert!(cx.read_bytes(at, 5 * PAGE).unwrap().iter().all(|&byte| byte == 0));
        mdl_map::unmap_locked_pages(cx, at, list).unwrap();
        mdl_pages::free(cx, list).unwrap();
        pool_exports::free_pool(cx, list.cast()).unwrap();
        assert_eq!(verdict(cx), None);
    });
}

fn card(base: u64) -> Vec<Function> {
    let window = Window { bar: 0, port: false, base, length: 0x80, prefetchable: false };
    let address = PciAddress { bus: 0, device: 3, function: 0 };
    vec![Function { address, name: "card#0".to_owned(), windows: vec![window], line: None }]
}

#[test]
fn device_memory_resolves_to_its_bus_address_and_can_be_mapped_twice() {
    machine_with(&Settings::default(), card(0xFEB0_0080), |cx| {
        let first = io_space::map(cx, 0xFEB0_0080, 0x80, 0).unwrap();
        let second = io_space::map(cx, 0xFEB0_0080, 0x80, 0).unwrap();
        assert!(DEVICE.contains(first) && first != second && first % PAGE == 0x80);
        let bus = |cx: &mut Cx<'_>, address| cx.with(|k| io_space::resolve(k, address)).map(|found| found.0);
        assert_eq!(bus(cx, first + 0x4C), Some(0xFEB0_00CC));
        assert_eq!(bus(cx, second - 0x80), Some(0xFEB0_0000), "a page is mapped whole");
        assert_eq!(bus(cx, first + PAGE), None, "and no more");
        assert_eq!(paging::physical_address(cx, first).unwrap(), 0xFEB0_0080);
        assert!(paging::is_address_valid(cx, first).unwrap());
        io_space::unmap(cx, first, 0x80).unwrap();
        assert_eq!(bus(cx, first), None);
        assert!(cx.nt().findings().is_empty());
        assert_eq!(io_space::unmap(cx, second, 0x100), Err(Leave::Stop));
        assert_eq!((verdict(cx), bug_check(cx)), (Some("io-space-unmap"), Some((0xDA, 2))));
    });
}

#[test]
fn mapping_what_no_device_decodes_is_noted_and_so_is_ram_that_nobody_has_locked() {
    machine_with(&Settings::default(), card(0xFEB0_0000), |cx| {
        assert_ne!(io_space::map(cx, 0xC_0000, 0x1000, 0).unwrap(), 0, "firmware");
        assert!(cx.nt().findings().is_empty());
        assert_ne!(io_space::map(cx, 0xFEC0_0000, 0x1000, 0).unwrap(), 0);
        assert_eq!(cx.nt().findings()[0].rule, "io-space-outside");
        let low = io_space::map(cx, 0x20_0000, 0x1000, 0).unwrap();
        cx.write(DriverPtr::new(low), 7_u32).unwrap();
        let found = cx.nt().findings()[1].clone();
        assert_eq!((found.rule, found.tier), ("io-space-ram", Tier::Verifier));
        assert_eq!(found.bug_check.map(|check| (check.code, check.parameters[0])), Some((0xC4, 0x83)));
        io_space::unmap(cx, low, 0x1000).unwrap();
        assert!(cx.read(DriverPtr::<u32>::new(low)).is_err());
    });
}

#[test]
fn contiguous_memory_is_and_lies_where_it_was_asked_for() {
    machine(|cx| {
        let address = contiguous::allocate_specify_cache(cx, 5 * PAGE, 0, 0xFF_FFFF, 0, 0).unwrap();
        let first = paging::physical_address(cx, address).unwrap();
        assert!(first + 5 * PAGE <= 0x100_0000);
        assert_eq!(paging::physical_address(cx, address + 4 * PAGE + 7).unwrap(), first + 4 * PAGE + 7);
        let mine = contiguous::allocate(cx, 100, Limits::NONE, Fill::of(0)).unwrap();
        assert!(mine.physical >= 1 << 32);
        contiguous::free(cx, address).unwrap();
        assert_eq!(contiguous::free(cx, address), Err(Leave::Stop));
        assert_eq!((verdict(cx), bug_check(cx)), (Some("bad-contiguous-free"), Some((0xC2, 0x60))));
    });
}

#[test]
fn a_kernel_stack_ends_at_pages_that_are_never_there() {
    machine(|cx| {
        let first = stack::allocate(cx, stack::KERNEL_STACK).unwrap();
        let second = stack::allocate(cx, stack::KERNEL_STACK).unwrap();
        for stack in [first, second] {
            assert_eq!(stack.base - stack.limit, 0x6000);
            cx.write_bytes(stack.base - 8, &[1; 8]).unwrap();
            assert!(cx.engine().write(DriverPtr::new(stack.limit - 8), 0_u64).is_err());
            assert!(cx.engine().write(DriverPtr::new(stack.base), 0_u64).is_err());
        }
        stack::free(cx, first);
        assert!(cx.with(|k| k.mm.map.page(first.limit)).is_none());
    });
}

#[test]
fn a_stack_that_is_given_back_waits_and_comes_again_zeroed() {
    machine(|cx| {
        cx.with(ready::fill_up);
        let mut taken = Vec::new();
        for _ in 0..20 {
            let stack = stack::allocate(cx, stack::KERNEL_STACK).unwrap();
            assert_eq!(cx.engine().read::<u64>(DriverPtr::new(stack.base - 8)), Ok(0));
            cx.write_bytes(stack.base - 8, &[1; 8]).unwrap();
            assert!(cx.engine().write(DriverPtr::new(stack.limit - 8), 0_u64).is_err());
            taken.push(stack.base);
            stack::free(cx, stack);
            let page = |at| cx.with(|k| k.mm.map.page(at));
            assert_eq!([stack.limit, stack.base - 8].map(page), [None, None], "for drivers it is not there");
        }
        assert!(taken[..6].iter().enumerate().all(|(index, base)| !taken[..index].contains(base)));
        assert_eq!(taken[6..12], taken[..6], "the one that has waited longest comes first");
    });
}

#[test]
fn memory_is_zeroed_whether_its_pages_were_used_before_or_never() {
    machine(|cx| {
        for _ in 0..2000 {
            let stack = stack::allocate(cx, 0x4000).unwrap();
            assert_eq!(cx.engine().is_filled(stack.limit, 0x4000, 0), Ok(true));
            cx.engine().fill(stack.limit, 0x4000, 0xEE).unwrap();
            stack::free(cx, stack);
        }
    });
}

#[test]
fn small_buffers_lie_side_by_side_and_go_with_their_process() {
    machine(|cx| {
        cx.with(ready::fill_up);
        let process = process::create(cx, "one.exe").unwrap();
        let number = u32::try_from(process).unwrap();
        let take = |cx: &mut Cx<'_>, bytes| user::allocate(cx, number, bytes).unwrap();
        let small: Vec<u64> = (0..16).map(|_| take(cx, PAGE / 2)).collect();
        assert!(small.windows(2).all(|pair| pair[1] == pair[0] + PAGE), "{small:x?}");
        let frames =
            |cx: &mut Cx<'_>| small.iter().filter_map(|at| cx.with(|k| k.mm.map.physical(*at))).collect();
        let shown: Vec<u64> = frames(cx);
        assert!(shown.windows(2).all(|pair| pair[1] != pair[0] + PAGE), "no neighbours are contiguous");
        let large = take(cx, PAGE / 2 + 1);
        user::write(cx, large, &[1; 4096]).unwrap();
        assert!(user::write(cx, large, &[1; 4097]).is_err(), "behind a larger one nothing is mapped");
        let last = take(cx, 1);
        assert!(!small.contains(&last) && user::write(cx, last, &[1; 4097]).is_err(), "no small one waits");
        process::end(cx, process).unwrap();
        assert_eq!(frames(cx), Vec::<u64>::new());
        assert!(
            small.iter().all(|at| cx.engine().read::<u8>(DriverPtr::new(*at)).is_err()),
            "the host has closed them"
        );
    });
}

#[test]
fn a_machine_with_little_memory_has_nothing_wait() {
    let settings = Settings { memory: 4 << 20, ..Settings::default() };
    machine_with(&settings, Vec::new(), |cx| {
        let taken = cx.with(|k| {
            let taken = k.mm.physical.take_pages(600).unwrap();
            ready::fill_up(k);
            taken
        });
        let stack = stack::allocate(cx, stack::KERNEL_STACK).unwrap();
        stack::free(cx, stack);
        assert!(cx.engine().read::<u8>(DriverPtr::new(stack.limit)).is_err(), "it is gone at once");
        assert_eq!(taken.len(), 600);
    });
}

#[test]
fn an_applications_memory_goes_with_its_process() {
    machine(|cx| {
        let [ends, stays] = ["one.exe", "two.exe"].map(|name| process::create(cx, name).unwrap());
        let [first, second] = [ends, stays].map(|process| u32::try_from(process).unwrap());
        let one = user::allocate_at_end(cx, first, 10).unwrap();
        let two = user::allocate(cx, second, 10).unwrap();
        user::write(cx, one, &[7; 10]).unwrap();
        assert!(user::write(cx, one, &[7; 11]).is_err(), "it ends before a page that is not there");
        assert_eq!(cx.with(|k| user::process_of(k, one)), Some(first));
        process::end(cx, ends).unwrap();
        assert!(user::read(cx, one, 1).is_err());
        assert!(user::read(cx, two, 1).is_ok());
    });
}

#[test]
fn paged_pool_is_known_as_pageable() {
    machine(|cx| {
        let paged: DriverPtr<u8> = pool::allocate(cx, pool::Kind::Paged, 64, 1).unwrap();
        let list = mdl_for(cx, paged.address, 64);
        assert_eq!(mdl::build_for_nonpaged_pool(cx, list), Err(Leave::Stop));
        assert_eq!((verdict(cx), bug_check(cx)), (Some("mdl-not-nonpaged"), Some((0xC4, 0x7F))));
    });
}
