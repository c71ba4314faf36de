//! Stories of memory that a compiled driver tells and checks itself (`drivers/c/memory`): idioms of correct drivers, of which nothing
//! is found, and what only Driver Verifier or a careful reader minds, which goes on.

use std::collections::BTreeSet;

use dirql::explore::Policy;
use dirql::{Bench, Outcome, Report};
use kernel::verdict::Tier;

use super::rig::{self, driver, start};

fn bench() -> Bench {
    Bench::new().driver(driver("memory.sys"))
}

/// An idiom of the driver's table, which may have no finding.
fn tell(story: &str, checks: u32) {
    rig::tell(start(bench), r"\\.\DirqlMemory", story, checks, "");
}

/// A story that goes on, and its findings.
fn doubt(story: &str) -> Report {
    let machine = start(bench);
    let made = rig::checks_made(&machine, r"\\.\DirqlMemory", story, &[]);
    let report = machine.finish();
    assert!(made.is_ok(), "{story}: {made:?}\n{report}");
    assert!(report.verdict.is_none(), "{report}");
    report
}

fn found(report: &Report) -> Vec<(&'static str, Tier)> {
    report.findings.iter().map(|finding| (finding.rule, finding.tier)).collect()
}

#[test]
fn ram_that_stays_where_it_is_may_be_mapped_once_more() {
    tell("RamOnceMore", 4);
}

#[test]
fn an_application_gets_memory_where_the_driver_asks_for_it() {
    tell("MappedWhereAsked", 5);
}

#[test]
fn a_lookaside_list_of_no_pool_is_refused_by_its_parameter() {
    tell("LookasidePools", 5);
}

#[test]
fn contiguous_memory_holds_anything_at_first() {
    tell("ContiguousHoldsAnything", 3);
}

#[test]
fn pages_for_an_mdl_come_from_the_next_range_where_one_has_too_few() {
    tell("SkippedPages", 4);
}

#[test]
fn a_zone_gives_each_block_of_its_segments_once() {
    tell("Zones", 11);
}

#[test]
fn a_zone_is_shared_and_extended_under_a_lock_at_dispatch_level() {
    tell("ZonesWithLock", 9 + 7);
}

#[test]
fn a_zone_of_no_such_blocks_or_segment_is_refused_and_nothing_is_changed() {
    tell("ZonesRefused", 9);
}

#[test]
fn an_mdl_that_is_advanced_unlocks_and_unmaps_the_pages_it_passes() {
    tell("AdvancedMdl", 14);
    tell("AdvancedAndUnlocked", 6);
}

#[test]
fn a_mapping_is_protected_apart_from_what_it_shows() {
    tell("ProtectedMapping", 9);
}

#[test]
fn a_write_to_a_mapping_that_is_read_only_stops_the_machine() {
    let machine = start(bench);
    assert!(rig::checks_made(&machine, r"\\.\DirqlMemory", "WrittenThoughReadOnly", &[]).is_err());
    assert_eq!(machine.finish().verdict.unwrap().rule, "write-to-read-only");
}

#[test]
fn reserved_addresses_show_one_buffer_after_the_other() {
    assert_eq!(
        found(&doubt("ReservedAddresses")),
        [("reserved-mapping", Tier::Warning)],
        "an MDL of four pages for a range of three"
    );
}

#[test]
fn contiguous_memory_of_a_node_lies_within_its_limits_and_runs_code_if_that_is_asked_for() {
    tell("ContiguousOfNode", 4);
}

#[test]
fn each_misuse_of_reserved_addresses_has_its_check_of_0xda() {
    let checks = [0x100, 0x101, 0x102, 0x104, 0x105, 0x109, 0x103, 0x107, 0x108, 0x10C];
    for (kind, check) in (1u32..).zip(checks) {
        let machine = start(bench);
        let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "MisusedRange", &kind.to_le_bytes());
        let report = machine.finish();
        assert!(made.is_err(), "misuse {kind}");
        let verdict = report.verdict.as_ref().unwrap();
        let stopped = verdict.bug_check.map(|check| (check.code, check.parameters[0]));
        assert_eq!(
            (verdict.rule, stopped),
            ("reserved-mapping", Some((0xDA, check))),
            "misuse {kind}: {report}"
        );
    }
    let machine = start(bench);
    let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "MisusedRange", &11u32.to_le_bytes());
    let report = machine.finish();
    assert_eq!((made, found(&report)), (Ok(1), vec![("reserved-mapping", Tier::Warning)]), "{report}");
}

#[test]
fn a_routine_gets_as_much_stack_as_is_asked_for_and_its_own_high_water() {
    let report = rig::tell(start(bench), r"\\.\DirqlMemory", "LargerStack", 14, "larger stack");
    let (_, depth) =
        report.sums.stacks.iter().find(|(name, _)| name.starts_with("the expanded stack of")).unwrap();
    assert!((48 << 10..0xD000).contains(depth), "{report}");
}

#[test]
fn a_dpc_gets_as_much_stack_as_is_asked_for() {
    for checked in [false, true] {
        let machine = start(|| bench().checked(checked).stack_depths(true));
        let report = rig::tell(machine, r"\\.\DirqlMemory", "LargerInDpc", 7, "larger stack of a DPC");
        let stacks = &report.sums.stacks;
        let deep =
            stacks.iter().find(|(name, _)| name.starts_with("the expanded stack of the processor")).unwrap();
        assert!(*deep.1 >= 40 << 10, "{stacks:?}");
    }
}

#[test]
fn a_dpc_that_goes_deeper_than_its_expanded_stack_overflows_it() {
    let machine = start(bench);
    assert!(rig::checks_made(&machine, r"\\.\DirqlMemory", "DeeperInDpc", &[]).is_err());
    let report = machine.finish();
    let verdict = report.verdict.as_ref().unwrap();
    assert!(
        verdict.rule == "stack-overflow" && verdict.message.contains("the expanded stack of the processor"),
        "{report}"
    );
}

#[test]
fn packets_that_a_driver_asks_for_lie_in_special_pool_too() {
    for (chosen, rule) in [(0u32, None), (1, Some("pool-overrun")), (2, Some("use-after-free"))] {
        let machine = start(|| bench().special_pool("Irp".parse().unwrap()));
        let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "PacketMisused", &chosen.to_le_bytes());
        let report = machine.finish();
        assert_eq!(report.verdict.as_ref().map(|verdict| verdict.rule), rule, "{chosen}: {made:?}\n{report}");
        if let Some(verdict) = &report.verdict {
            assert!(!verdict.stack.is_empty(), "{report}");
        }
    }
}

#[test]
fn a_routine_that_goes_deeper_than_its_expanded_stack_overflows_it() {
    let machine = start(bench);
    assert!(rig::checks_made(&machine, r"\\.\DirqlMemory", "DeeperThanAsked", &[]).is_err());
    let report = machine.finish();
    let verdict = report.verdict.as_ref().unwrap();
    assert!(
        verdict.rule == "stack-overflow" && verdict.message.contains("the expanded stack of"),
        "{report}"
    );
    assert!(verdict.message.contains("memory.sys!Down"), "{report}");
}

#[test]
fn sections_that_may_be_paged_are_there_at_dispatch_level_while_they_are_locked_and_no_longer() {
    let run = |number: u32, checked: bool| {
        let machine = start(|| bench().checked(checked));
        let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "PagedSections", &number.to_le_bytes());
        (made, machine.finish())
    };
    for checked in [false, true] {
        let (made, report) = run(0, checked);
        assert_eq!(made, Ok(9), "{report}");
        assert!(report.verdict.is_none(), "{report}");
    }
    let mistakes: [(u32, &str, &str, &str); 5] = [
        (1, "PagedTriple", "in a pageable section", "PagedTriple"),
        (2, "Counted", "pageable: memory.sys", "Counted"),
        (3, "Resident", "in a pageable section", "Resident"),
        (4, "Resident", "in a pageable section", "Resident"),
        (6, "PagedTriple", "in a pageable section", "PagedTriple"),
    ];
    for (number, who, what, routine) in mistakes {
        let (made, report) = run(number, true);
        assert!(made.is_err(), "mistake {number}: {report}");
        let verdict = report.expect_verdict();
        assert_eq!(
            (verdict.rule, verdict.bug_check.unwrap().code),
            ("paged-at-raised-irql", 0xD1),
            "mistake {number}: {report}"
        );
        let complete = verdict.message.contains(who) && verdict.message.contains(what);
        assert!(complete && verdict.message.contains("at IRQL 2"), "mistake {number}: {report}");
        let stands = report.symbols.name(verdict.stack[0].address).unwrap();
        assert!(stands.contains(routine), "mistake {number} stops in {stands}: {report}");
    }
}

/// memory.sys with a discardable INIT section, as Microsoft's linker makes it.
fn with_discardable_init() -> std::path::PathBuf {
    const DISCARDABLE: u8 = 0x02;
    let mut bytes = std::fs::read(driver("memory.sys")).unwrap();
    let header = bytes.windows(8).position(|name| name == b"INIT\0\0\0\0").unwrap();
    bytes[header + 39] |= DISCARDABLE;
    let path = rig::folder("init").join("memory.sys");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_section_for_the_start_is_gone_when_the_driver_has_started() {
    let path = with_discardable_init();
    for checked in [false, true] {
        let machine = start(|| Bench::new().driver(&path).checked(checked));
        let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "PagedSections", &5_u32.to_le_bytes());
        let report = machine.finish();
        assert!(made.is_err(), "{report}");
        let verdict = report.expect_verdict();
        assert!(verdict.rule == "wild-call" && verdict.message.contains("OnlyAtStart"), "{report}");
    }
    let (device, story) = (r"\\.\DirqlMemory", "PagedSections");
    let kept = start(bench);
    assert!(
        rig::checks_made(&kept, device, story, &5_u32.to_le_bytes()).is_ok(),
        "one that is not discardable stays"
    );
    drop(kept.finish());
    let started = start(|| Bench::new().driver(&path).checked(true));
    assert!(rig::checks_made(&started, device, story, &0_u32.to_le_bytes()).is_ok());
    started.finish().expect_clean();
}

#[test]
fn what_is_mapped_for_an_application_is_not_there_for_a_thread_of_another_process() {
    assert_eq!(found(&doubt("SeenFromElsewhere")), [("physical-of-nothing", Tier::Warning)]);
}

#[test]
fn a_script_asks_what_drivers_hold_of_pool_with_a_tag() {
    let machine = start(bench);
    let device = r"open \\.\DirqlMemory as m; ioctl m 0x223ff8 in text:HeldBlocks out 8";
    rig::play(&machine, &format!("{device}; pool Oxtr expect u64:3 + u64:600; pool Oxt? expect bytes 600"));
    rig::play(&machine, "pool Memy expect bytes 0; pool * expect prefix u64:3");
    assert_eq!(machine.pool("O*").unwrap(), (3, 600));
    let wrong = rig::try_play(&machine, "pool Oxtr expect bytes 0").unwrap_err().to_string();
    assert!(wrong.contains("600"), "{wrong}");
    rig::play(&machine, &format!("{device}; pool Oxtr expect u64:0 + u64:0"));
    let report = machine.finish();
    assert!(report.verdict.is_none() && report.sums.still_allocated() == 0, "{report}");
    let wrong = dirql::script::parse("test", "pool Longer").unwrap_err().to_string();
    assert!(wrong.contains("`Longer` is no pool tag"), "{wrong}");
}

#[test]
fn extended_parameters_of_an_allocation_are_heeded_refused_or_ignored() {
    tell("ExtendedParameters", 7);
}

#[test]
fn where_memory_is_short_each_priority_leaves_some_to_the_next() {
    assert_eq!(found(&exhaust("Priorities", 16)), [("memory-used-up", Tier::Advice)]);
}

/// The bytes that routines whose role and name end so went down.
fn deep(report: &Report, role: &str, routine: &str) -> u64 {
    let depths = &report.sums.routine_stacks;
    let found = depths
        .iter()
        .find(|depth| depth.role.name().ends_with(role) && depth.routine.contains(&format!("!{routine}")));
    found.unwrap_or_else(|| panic!("{role} {routine}: {depths:?}")).bytes
}

#[test]
fn each_routine_of_the_driver_has_its_own_depth_where_that_is_asked_for() {
    for (kib, checked) in [(12_u32, false), (24, false), (24, true)] {
        let bytes = kib << 10;
        let machine = start(|| bench().stack(bytes.into()).stack_depths(true).checked(checked));
        let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "DeepRoutines", &bytes.to_le_bytes());
        let report = machine.finish();
        report.expect_clean();
        assert_eq!(made, Ok(5), "{report}");
        let expected = [
            ("Dpc", "DeepDpc", 3),
            ("WorkItem", "DeepWorkItem", 5),
            ("ThreadStart", "DeepThread", 7),
            ("DispatchDeviceControl", "DispatchDeviceControl", 2),
        ];
        for (role, routine, kib) in expected {
            let depth = deep(&report, role, routine);
            assert!((kib << 10..(kib << 10) + 1500).contains(&depth), "{routine}: {depth}\n{report}");
        }
        assert!(deep(&report, "DriverEntry", "DriverEntry") < 1000, "{report}");
        assert!(
            report.sums.stacks["the application's thread"] >= deep(&report, "", "DispatchDeviceControl"),
            "{report}"
        );
        let json = report.sums.json();
        assert!(json.contains(r#""role":"ThreadStart","routine":"memory.sys!DeepThread""#), "{json}");
    }
    let machine = start(bench);
    assert!(
        rig::checks_made(&machine, r"\\.\DirqlMemory", "DeepRoutines", &0x6000_u32.to_le_bytes()).is_ok()
    );
    assert_eq!(machine.finish().sums.routine_stacks, []);
}

#[test]
fn a_stack_of_12_kib_overflows_where_one_of_24_does_not() {
    for (bytes, fits) in [(0x6000, true), (0x3000, false)] {
        let machine = start(|| bench().stack(bytes));
        let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "FourteenKiB", &[]);
        let report = machine.finish();
        assert_eq!(made.is_ok(), fits, "{report}");
        let Some(verdict) = &report.verdict else { continue };
        assert_eq!(verdict.rule, "stack-overflow", "{report}");
        assert!(
            verdict.message.contains("memory.sys!Down") && !verdict.message.contains("0 bytes"),
            "{report}"
        );
    }
}

#[test]
fn fewer_pages_than_asked_for_come_in_some_schedules_unless_all_are_required() {
    let pages = |policy: Policy| {
        let machine = start(|| bench().policy(policy));
        rig::tell(machine, r"\\.\DirqlMemory", "FewerPages", 3, "fewer pages").prints.join("")
    };
    let seen: BTreeSet<String> = rig::seeds(20).map(|seed| pages(Policy::random(seed))).collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(
        pages(Policy::default()).contains("8 pages") && seen.iter().any(|line| line.contains("4 pages")),
        "{seen:?}"
    );
}

#[test]
fn a_pci_express_function_has_4_kib_of_configuration_space_and_a_conventional_one_has_not() {
    let machine = start(|| bench().device("pci,id=1234:0001,express").device("pci,id=1234:0002"));
    rig::tell(machine, r"\\.\DirqlMemory", "ExtendedConfiguration", 6, "extended configuration space");
}

#[test]
fn every_idiom_holds_in_random_schedules_of_choices() {
    for seed in rig::seeds(20) {
        for story in ["RamOnceMore", "MappedWhereAsked", "LookasidePools", "ContiguousHoldsAnything"] {
            let machine = start(|| bench().policy(Policy::random(seed)));
            let made = rig::checks_made(&machine, r"\\.\DirqlMemory", story, &[]);
            assert!(made.is_ok(), "{story}, seed {seed}: {made:?}");
            machine.finish().expect_clean();
        }
    }
}

#[test]
fn a_request_for_no_bytes_gives_a_block_and_a_warning() {
    let report = doubt("ZeroBytes");
    assert_eq!(found(&report), [("pool-zero-bytes", Tier::Warning); 2]);
    let [first, second] = report.findings.as_slice() else { panic!("{report}") };
    assert!(
        first.message.ends_with("Driver Verifier stops here, and Windows without it goes on"),
        "{report}"
    );
    assert_eq!(first.bug_check.unwrap().parameters[..3], [0, 0, 0], "{report}");
    assert_eq!(second.bug_check.unwrap().parameters[..3], [0, 0, 1], "{report}");
}

#[test]
fn device_memory_mapped_with_no_protection_or_two_fails_and_is_told() {
    assert_eq!(found(&doubt("WrongProtection")), [("io-space-protection", Tier::Warning); 2]);
}

#[test]
fn an_mdl_of_the_stack_is_told() {
    assert_eq!(found(&doubt("DescribedStack")), [("mdl-of-stack", Tier::Warning)]);
}

#[test]
fn ram_that_nobody_has_locked_is_mapped_and_only_verifier_minds() {
    assert_eq!(found(&doubt("LowRam")), [("io-space-ram", Tier::Verifier)]);
}

#[test]
fn pages_freed_while_the_system_has_them_mapped_are_a_matter_of_verifier() {
    assert_eq!(found(&doubt("FreedWhileMapped")), [("mdl-pages-freed-mapped", Tier::Verifier)]);
}

/// A machine of this size, in which the driver takes all there is: it goes on, with its findings.
fn exhaust(story: &str, megabytes: u64) -> Report {
    let machine = start(|| bench().memory(megabytes << 20));
    let made = rig::checks_made(&machine, r"\\.\DirqlMemory", story, &[]);
    let report = machine.finish();
    assert!(made.is_ok(), "{story}: {made:?}\n{report}");
    report.expect_clean();
    report
}

#[test]
fn a_machine_without_memory_refuses_what_is_asked_of_it_and_goes_on() {
    for story in ["MostPool", "MostPages", "MostRegistry", "MostDevices", "MostRequests", "MostThreads"] {
        assert_eq!(found(&exhaust(story, 16)), [("memory-used-up", Tier::Advice)], "{story}");
    }
}

#[test]
fn as_many_timers_as_fit_are_set_and_cancelled() {
    assert_eq!(found(&exhaust("MostTimers", 32)), []);
}

#[test]
fn text_that_never_ends_its_line_is_told_in_pieces_and_takes_no_longer() {
    let report = exhaust("MostText", 256);
    let (last, lines) = report.prints.split_last().unwrap();
    let bytes: usize = lines.iter().map(String::len).sum();
    assert_eq!(bytes, 10_000 * 52);
    assert!(lines.iter().all(|line| line.len() < 5000));
    assert_eq!(last, "the last line has no end", "it is shown at the end of the run");
}

#[test]
fn blocks_of_a_page_are_at_an_end_with_the_memory_before_the_host_has_no_areas_left() {
    assert_eq!(found(&exhaust("MostPages", 256)), [("memory-used-up", Tier::Advice)]);
}

#[test]
fn devices_and_requests_are_at_an_end_with_the_memory_of_a_usual_machine() {
    assert_eq!(found(&exhaust("MostDevices", 192)), [("memory-used-up", Tier::Advice)]);
    assert_eq!(found(&exhaust("MostRequests", 192)), [("memory-used-up", Tier::Advice)]);
}

#[test]
fn what_the_host_cannot_hold_is_dirqls_limit_by_name_and_the_driver_hears_of_it() {
    let machine = start(|| bench().memory(1 << 30));
    let made = rig::checks_made(&machine, r"\\.\DirqlMemory", "MostPages", &[]);
    let report = machine.finish();
    assert!(made.is_ok(), "{made:?}\n{report}");
    assert_eq!(report.outcome(), Outcome::NotImplemented);
    assert!(report.findings[0].message.contains("areas of memory"), "{report}");
}

#[test]
fn a_size_of_memory_that_no_machine_has_is_refused() {
    assert!(matches!(bench().memory(1 << 20).start(), Err(dirql::Error::Input(_))));
}
