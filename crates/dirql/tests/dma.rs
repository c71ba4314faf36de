//! DMA by adapters, as a compiled driver does it (`drivers/c/dma.c`) on the model of QEMU's educational device: transfers of all kinds by cards of
//! all widths, what waits for what, and the mistakes that an IOMMU, a copy that is not flushed, and Driver Verifier find.

use dirql::explore::Policy;
use dirql::{Bench, Machine};
use kernel::verdict::{Tier, Verdict};

use super::rig::{self, driver, finish, start};

const DEVICE: &str = r"\\.\DirqlDma";
const SETUP: u32 = 0x0022_3000;
const MISUSE: u32 = 0x0022_3004;

/// Ways of `dma.c`.
const CHANNEL: u32 = 0;
const KEPT: u32 = 1;
const OLD: u32 = 2;
const LIST: u32 = 3;
const BUILT: u32 = 4;
const COMMON: u32 = 5;
const EXTENDED: u32 = 6;
const EXTENDED_LIST: u32 = 7;
const EXTENDED_BUILT: u32 = 8;

/// Mistakes of `dma.c`.
const AFTER_FLUSH: u32 = 1;
const PHYSICAL: u32 = 2;
const DIRECTION: u32 = 3;
const BEHIND: u32 = 4;
const NO_FLUSH: u32 = 5;
const SHORT_FLUSH: u32 = 6;
const NEVER_MAPPED: u32 = 7;
const STALE: u32 = 8;
const WRONG_FLUSH: u32 = 9;
const KEEP_REGISTERS: u32 = 10;
const KEEP_CHANNEL: u32 = 11;
const BEYOND_MDL: u32 = 12;
const TOO_FEW: u32 = 13;
const PUT_TWICE: u32 = 14;
const PUT_NEVER: u32 = 15;
const REGISTERS_TWICE: u32 = 16;
const HOARD: u32 = 17;
const HOARD_MENDED: u32 = 18;

/// Of `DEVICE_DESCRIPTION`, and how.
#[derive(Clone, Copy)]
struct Setup {
    version: u32,
    bits: u32,
    scatter_gather: bool,
    how: u32,
}

fn bench(bits: u32) -> Bench {
    let mask = u64::MAX >> (64 - bits);
    Bench::new()
        .driver(driver("dma.sys"))
        .inf(driver("dma.inf"))
        .device(format!("edu,dma_mask={mask:#x},dma=10us"))
}

fn set_up(machine: &Machine, setup: Setup) {
    let file = machine.open(DEVICE).unwrap();
    let Setup { version, bits, scatter_gather, how } = setup;
    let words = [version, bits, scatter_gather.into(), 0x8000, how];
    let input: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.device_control(SETUP, &input, 0).unwrap();
    file.close().unwrap();
}

/// Bytes that tell their place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256).to_le_bytes()[0]).collect()
}
/// What is written comes back, of a buffer of several pages that begins anywhere.
fn write_and_read(machine: &Machine, length: usize) {
    let file = machine.open(DEVICE).unwrap();
    assert_eq!(file.write(&pattern(4096)).unwrap(), 4096);
    let came = file.read(u32::try_from(length).unwrap()).unwrap();
    let expected: Vec<u8> = pattern(4096).iter().cycle().take(length).copied().collect();
    assert!(came == expected, "the card's buffer, over and over");
    file.close().unwrap();
}

const ALL_SETUPS: [Setup; 20] = {
    const fn of(version: u32, bits: u32, scatter_gather: bool, how: u32) -> Setup {
        Setup { version, bits, scatter_gather, how }
    }
    [
        of(1, 64, true, CHANNEL),
        of(2, 64, false, CHANNEL),
        of(0, 32, true, CHANNEL),
        of(1, 24, false, CHANNEL),
        of(3, 28, true, CHANNEL),
        of(2, 32, true, KEPT),
        of(0, 32, false, OLD),
        of(2, 64, true, LIST),
        of(2, 32, true, LIST),
        of(1, 24, false, LIST),
        of(2, 32, true, BUILT),
        of(3, 28, false, BUILT),
        of(1, 32, true, COMMON),
        of(1, 24, true, COMMON),
        of(3, 28, true, EXTENDED),
        of(3, 64, true, EXTENDED),
        of(3, 28, false, EXTENDED),
        of(3, 64, true, EXTENDED_LIST),
        of(3, 28, true, EXTENDED_LIST),
        of(3, 32, true, EXTENDED_BUILT),
    ]
};

/// Not: dma-after-unmap
/// Not: dma-behind-mapping
/// Not: dma-by-physical-address
/// Not: dma-wrong-direction
/// Not: obsolete-hal-get-adapter
#[test]
fn every_kind_of_transfer_of_cards_of_every_width_comes_back_whole() {
    for checked in [false, true] {
        for setup in ALL_SETUPS {
            let machine = start(|| bench(setup.bits).checked(checked));
            set_up(&machine, setup);
            write_and_read(&machine, 3 * 4096 + 123);
            finish(machine);
        }
    }
}

#[test]
fn transfers_hold_in_random_schedules_whatever_is_copied() {
    for seed in rig::seeds(20) {
        let setup = ALL_SETUPS[usize::try_from(seed).unwrap() % ALL_SETUPS.len()];
        let checked = seed % 4 == 0;
        let machine = start(|| bench(setup.bits).checked(checked).processors(2).policy(Policy::random(seed)));
        set_up(&machine, setup);
        write_and_read(&machine, 2 * 4096 + 5);
        finish(machine);
    }
}

fn tell(story: &str, checks: u32) {
    for checked in [false, true] {
        let machine = start(|| bench(64).checked(checked));
        rig::tell(machine, DEVICE, story, checks, "");
    }
}

#[test]
fn an_adapter_has_the_routines_of_its_version_and_as_many_map_registers_as_its_transfers_take() {
    tell("Adapters", 20);
}

#[test]
fn a_common_buffer_lies_where_the_card_reaches_it() {
    tell("CommonBuffers", 40);
}

#[test]
fn who_waits_for_map_registers_gets_them_in_the_order_of_asking() {
    tell("InOrder", 12);
}

#[test]
fn a_channel_that_is_kept_makes_others_wait() {
    tell("Channels", 8);
}

#[test]
fn a_list_says_where_the_buffer_is_or_its_copy() {
    tell("Lists", 8000);
}

#[test]
fn a_list_of_chained_mdls_is_one_buffer() {
    tell("Chained", 8);
}

#[test]
fn version_3_asks_at_once_or_cancels_and_maps_chains_by_offset() {
    tell("Extended", 36);
}

#[test]
fn common_buffers_lie_within_bounds_alone_or_several_by_their_index() {
    tell("Bounds", 13);
}

/// Not: dma-too-few-map-registers
#[test]
fn parts_of_one_page_take_one_map_register() {
    tell("Parts", 11);
}

#[test]
fn adapters_join_each_others_domains_and_have_memory_in_common() {
    tell("Domains", 13);
}

#[test]
fn memory_that_the_driver_has_becomes_a_common_buffer_in_which_its_pages_lie_side_by_side() {
    tell("FromMdl", 14);
}

/// Of `HalGetAdapter`, Driver Verifier alone has something to say.
#[test]
fn the_names_of_windows_nt_4_do_the_same() {
    let machine = start(|| bench(64));
    rig::checks_made(&machine, DEVICE, "OldNames", &[]).unwrap();
    let report = machine.finish();
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.rule, finding.tier)).collect();
    assert_eq!(found, [("obsolete-hal-get-adapter", Tier::Verifier)], "{report}");
    assert!(report.verdict.is_none(), "{report}");
}

/// What a mistake comes to: its findings, the worst first, and what a read has brought, if it has.
fn misuse(setup: Setup, kind: u32, write: bool) -> (Vec<Verdict>, Option<Vec<u8>>) {
    // The card itself refuses what leaves its buffer.
    let length: u16 = match kind {
        BEHIND => 2048,
        // One page takes one map register.
        TOO_FEW => 8192,
        _ => 4096,
    };
    let machine = start(|| bench(setup.bits));
    set_up(&machine, setup);
    write_and_read(&machine, 4096);
    let file = machine.open(DEVICE).unwrap();
    file.device_control(MISUSE, &kind.to_le_bytes(), 0).unwrap();
    let came = if write {
        file.write(&pattern(length.into())).map(|_| Vec::new())
    } else {
        file.read(length.into())
    };
    let report = machine.finish();
    let mut found: Vec<Verdict> = report.findings.iter().chain(&report.verdict).cloned().collect();
    found.sort_by_key(|finding| finding.tier);
    (found, came.ok())
}

fn of(bits: u32, scatter_gather: bool, how: u32) -> Setup {
    Setup { version: 2, bits, scatter_gather, how }
}

fn rules(found: &[Verdict]) -> Vec<(&'static str, Tier)> {
    found.iter().map(|finding| (finding.rule, finding.tier)).collect()
}

#[test]
fn a_card_that_goes_on_with_what_was_unmapped_is_told_with_who_mapped_and_who_unmapped_it() {
    for (bits, how, unmapped) in
        [(64, CHANNEL, "FlushAdapterBuffers"), (32, LIST, "PutScatterGatherList"), (24, CHANNEL, "Flush")]
    {
        let (found, _) = misuse(of(bits, true, how), AFTER_FLUSH, false);
        assert_eq!(rules(&found), [("dma-after-unmap", Tier::Error)], "{found:?}");
        let message = &found[0].message;
        assert!(message.contains("edu#0 wrote 0x10 bytes by DMA at the logical address"), "{message}");
        assert!(message.contains("dma.sys!") && message.contains(unmapped), "{message}");
        let check = found[0].bug_check.unwrap();
        assert_eq!((check.code, check.parameters[0]), (0xE6, 0x26));
        assert_eq!(
            found[0].related.iter().map(|moment| moment.what).collect::<Vec<_>>(),
            ["mapped", "unmapped"]
        );
    }
}

/// Not: dma-after-time-limit
#[test]
fn a_driver_that_waits_for_a_late_card_has_its_transfers() {
    let machine = start(|| bench(64).platform("silent-cards".parse().unwrap()));
    set_up(&machine, of(64, true, CHANNEL));
    write_and_read(&machine, 4096);
    finish(machine);
}

#[test]
fn of_a_card_that_is_later_than_a_time_limit_may_be_that_is_advice_and_the_driver_goes_on() {
    let machine = start(|| bench(64).platform("silent-cards".parse().unwrap()));
    set_up(&machine, of(64, true, CHANNEL));
    write_and_read(&machine, 4096);
    let file = machine.open(DEVICE).unwrap();
    file.device_control(MISUSE, &AFTER_FLUSH.to_le_bytes(), 0).unwrap();
    let _ = file.read(4096);
    let report = machine.finish();
    assert_eq!(rules(&report.findings), [("dma-after-time-limit", Tier::Advice)], "{report}");
    assert!(report.verdict.is_none(), "{report}");
}

#[test]
fn a_physical_address_works_without_an_iommu_and_is_told() {
    let (found, _) = misuse(of(64, true, CHANNEL), PHYSICAL, false);
    assert_eq!(rules(&found), [("dma-by-physical-address", Tier::Verifier)], "{found:?}");
    let machine = start(|| bench(64).verifier("dma".parse().unwrap()));
    set_up(&machine, of(64, true, CHANNEL));
    let file = machine.open(DEVICE).unwrap();
    file.device_control(MISUSE, &PHYSICAL.to_le_bytes(), 0).unwrap();
    let _ = file.read(4096);
    assert_eq!(machine.finish().expect_verdict().rule, "dma-by-physical-address");
}

#[test]
fn a_buffer_that_is_mapped_the_other_way_is_no_place_to_write_to() {
    for (bits, tier) in [(64, Tier::Verifier), (24, Tier::Error)] {
        let (found, _) = misuse(of(bits, true, CHANNEL), DIRECTION, false);
        assert_eq!(
            found.first().map(|finding| (finding.rule, finding.tier)),
            Some(("dma-wrong-direction", tier)),
            "{found:?}"
        );
        assert!(found[0].message.contains("from memory to the device"), "{}", found[0].message);
    }
}

#[test]
fn what_lies_behind_a_mapping_is_told_at_the_byte() {
    for (how, write) in [(CHANNEL, true), (KEPT, false), (LIST, true)] {
        let (found, _) = misuse(of(32, true, how), BEHIND, write);
        assert_eq!(rules(&found), [("dma-behind-mapping", Tier::Error)], "{found:?}");
        assert!(found[0].message.contains("lies 0x0 bytes behind the end"), "{}", found[0].message);
    }
}

#[test]
fn a_copy_that_is_not_flushed_is_data_that_does_not_arrive() {
    let (found, _) = misuse(of(24, false, CHANNEL), NO_FLUSH, false);
    assert_eq!(rules(&found), [("dma-not-flushed", Tier::Error)], "{found:?}");
    assert!(found[0].message.contains("does not arrive"), "{}", found[0].message);
    let (found, _) = misuse(of(24, false, CHANNEL), SHORT_FLUSH, false);
    assert_eq!(rules(&found), [("dma-not-flushed", Tier::Error)], "{found:?}");
    assert!(found[0].message.contains("of which 0x800 were flushed"), "{}", found[0].message);
    for kind in [NO_FLUSH, SHORT_FLUSH] {
        let (found, came) = misuse(of(64, true, CHANNEL), kind, false);
        assert_eq!(rules(&found).first(), Some(&("dma-not-flushed", Tier::Verifier)), "{found:?}");
        assert_eq!(came, Some(pattern(4096)), "where nothing is copied, it arrives");
    }
}

/// A mistake: how the driver transfers, what it does, whether it writes; and all its findings.
type Row = (u32, bool, u32, u32, bool, &'static [(&'static str, Tier)]);

/// Every mistake of a driver with an adapter, planted once while a card transfers. Bits of addresses, scatter/gather, how, kind, writes. What takes no
/// card is in the pairs of `drivers/c/pairs/dma.h`, and a card that is not waited for in `late.rs`.
const MISTAKES: &[Row] = &[
    (64, true, CHANNEL, NEVER_MAPPED, false, &[("wild-dma", Tier::Error)]),
    (64, true, CHANNEL, AFTER_FLUSH, false, &[("dma-after-unmap", Tier::Error)]),
    (32, true, LIST, AFTER_FLUSH, true, &[("dma-after-unmap", Tier::Error)]),
    (64, true, CHANNEL, PHYSICAL, true, &[("dma-by-physical-address", Tier::Verifier)]),
    (24, true, CHANNEL, DIRECTION, false, &[("dma-wrong-direction", Tier::Error)]),
    (32, true, CHANNEL, BEHIND, true, &[("dma-behind-mapping", Tier::Error)]),
    (32, true, LIST, BEHIND, true, &[("dma-behind-mapping", Tier::Error)]),
    (24, false, CHANNEL, NO_FLUSH, false, &[("dma-not-flushed", Tier::Error)]),
    (24, false, CHANNEL, SHORT_FLUSH, false, &[("dma-not-flushed", Tier::Error)]),
    (24, false, KEPT, NO_FLUSH, false, &[("dma-not-flushed", Tier::Error)]),
    (64, true, CHANNEL, NO_FLUSH, true, &[("dma-not-flushed", Tier::Verifier)]),
    (
        24,
        false,
        CHANNEL,
        WRONG_FLUSH,
        false,
        &[("dma-not-flushed", Tier::Error), ("dma-flush-not-mapped", Tier::Verifier)],
    ),
    (32, true, CHANNEL, KEEP_REGISTERS, false, &[("dma-map-registers-leak", Tier::Verifier)]),
    (
        32,
        true,
        KEPT,
        KEEP_CHANNEL,
        false,
        &[("dma-channel-leak", Tier::Verifier), ("dma-map-registers-leak", Tier::Verifier)],
    ),
    (32, true, CHANNEL, REGISTERS_TWICE, false, &[("dma-map-registers-not-allocated", Tier::Error)]),
    (32, true, CHANNEL, BEYOND_MDL, true, &[("dma-outside-mdl", Tier::Error)]),
    (24, false, CHANNEL, TOO_FEW, true, &[("dma-too-few-map-registers", Tier::Verifier)]),
    (32, true, LIST, PUT_TWICE, false, &[("not-a-scatter-gather-list", Tier::Error)]),
    (24, true, LIST, PUT_NEVER, false, &[("scatter-gather-list-leak", Tier::Verifier)]),
];

#[test]
fn every_mistake_is_told_as_what_it_is_and_its_mended_twin_is_clean() {
    for (bits, scatter_gather, how, kind, write, expected) in MISTAKES {
        let setup = of(*bits, *scatter_gather, *how);
        let (found, came) = misuse(setup, *kind, *write);
        assert_eq!(rules(&found), *expected, "kind {kind} of way {how}: {found:?}");
        // A list that is never put is a copy that is never flushed: of this card each transfer is one.
        let arrives = *kind != PUT_NEVER;
        if !*write && found.iter().all(|finding| finding.tier == Tier::Verifier) {
            assert_eq!(came == Some(pattern(4096)), arrives, "kind {kind} of way {how}");
        }
        let (found, _) = misuse(setup, 0, *write);
        assert!(found.is_empty(), "the twin of kind {kind} of way {how}: {found:?}");
    }
}

#[test]
fn a_request_that_ends_before_its_copy_is_flushed_has_brought_nothing() {
    let (found, came) = misuse(of(24, false, CHANNEL), STALE, false);
    assert_eq!(rules(&found), [("dma-not-flushed", Tier::Error)], "{found:?}");
    let came = came.expect("the request had ended when the driver was stopped");
    assert!(came.len() == 4096 && came != pattern(4096), "the card has the data, and the buffer has not");
    let (found, came) = misuse(of(24, false, CHANNEL), 0, false);
    assert!(found.is_empty() && came == Some(pattern(4096)), "{found:?}");
}

#[test]
fn a_driver_that_waits_for_map_registers_with_all_others_in_its_hands_is_told_with_both_sides() {
    let run = |kind: u32| {
        let machine = start(|| bench(32));
        set_up(&machine, of(32, true, CHANNEL));
        let script = format!(
            r"open \\.\DirqlDma as f
            ioctl f 0x223004 in u32:{kind}
            write f zero:8192
            close f"
        );
        let _ = rig::try_play(&machine, &script);
        machine.finish()
    };
    run(HOARD_MENDED).expect_clean();
    let report = run(HOARD);
    let failure = report.failure.as_ref().unwrap_or_else(|| panic!("{report}"));
    let words = "waits for a DMA channel with 2 map registers, as dma.sys!";
    assert!(failure.message.contains(words), "{report}");
    assert!(failure.message.contains("1 are free, and dma.sys!"), "{report}");
}
