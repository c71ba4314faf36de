//! A part of the museum of bugs, two of each area at least, by a small budget: each bug is found under a right name, and its twin is clean. The whole of it,
//! by the usual budget, is `cargo xtask museum`. What each finding has for a line makes it again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::rig::{Answer, dirql, is_made_again, root};

/// The rules that name a bug, of its file's header.
fn rules_of(area: &str, name: &str) -> Vec<String> {
    let source = root().join("museum").join(area).join(name);
    let in_c = fs::read_to_string(source.with_extension("c"));
    let text = in_c.or_else(|_| fs::read_to_string(source.with_extension("rs"))).unwrap();
    let rules = |line: &'static str| text.lines().find_map(move |read| read.strip_prefix(line));
    let line = rules(" * Rule: ").or_else(|| rules("//! Rule: ")).unwrap();
    line.split(',').map(|rule| rule.trim().to_owned()).collect()
}

fn built(name: &str) -> PathBuf {
    let path = root().join("target/museum").join(name).with_extension("sys");
    assert!(path.is_file(), "{} is not there: run `cargo xtask museum --build` first", path.display());
    path
}

/// The check of an exhibit.
fn check(name: &str, budget: &str, options: &[&str]) -> Answer {
    let sys = built(name);
    let own = ["check", sys.to_str().unwrap(), "--json", "--workers", "1", "--budget", budget];
    dirql(own.iter().chain(options))
}

/// What is found, at every place. Whatever it is, its line makes it again.
fn findings(answer: &Answer) -> Vec<Value> {
    let report: Value =
        serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.said()));
    assert_eq!(report["no_answers"], serde_json::json!([]), "{}", answer.said());
    let findings = report["findings"].as_array().unwrap();
    findings.iter().for_each(is_made_again);
    findings
        .iter()
        .flat_map(|finding| [finding].into_iter().chain(finding["also"].as_array().unwrap()))
        .cloned()
        .collect()
}

/// The rules that are said to be broken.
fn wrong(answer: &Answer) -> Vec<String> {
    findings(answer).iter().map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
}

/// The same by one exercise; by all, if there is none of that title: what a bug and its twin take for an input may differ.
fn wrong_by(name: &str, budget: &str, title: &str) -> Vec<String> {
    let answer = check(name, budget, &["--exercise", title]);
    let is_unknown = answer.code == Some(2) && answer.err.contains("no exercise has a title");
    wrong(&if is_unknown { check(name, budget, &[]) } else { answer })
}

/// The largest budget of a twin's check: all that there is to be tried takes several times as long as what finds the bug.
const MOST_OF_A_TWIN: u64 = 5;

/// One twin in four is tried by all there is, and the others by what has found the bug, which is over much sooner. `cargo xtask museum` tries each by all.
fn is_tried_by_all(name: &str) -> bool {
    name.bytes().map(u32::from).sum::<u32>().is_multiple_of(4)
}

fn is_found_and_its_twin_is_clean(area: &str, name: &str, budget: &str) {
    let right = rules_of(area, name);
    // What else there is to be found is not asked.
    let found = findings(&check(name, budget, &["--until", &right.join(",")]));
    let rule = |finding: &Value| finding["rule"].as_str().unwrap().to_owned();
    let named = found.iter().find(|finding| right.contains(&rule(finding)));
    let named = named.unwrap_or_else(|| panic!("{name}: {found:?}, and none of {right:?}"));
    let twin = format!("{name}_fixed");
    let wrong = if is_tried_by_all(name) {
        let budget = budget.parse::<u64>().unwrap().min(MOST_OF_A_TWIN).to_string();
        wrong(&check(&twin, &budget, &[]))
    } else {
        wrong_by(&twin, budget, named["exercise"].as_str().unwrap())
    };
    assert_eq!(wrong, Vec::<String>::new(), "the twin of {name}");
}

/// A test for each, and the list of all.
macro_rules! exhibits {
    ($($area:ident: $($name:ident $budget:literal),+;)+) => {
        $(mod $area {
            $(#[test]
            fn $name() {
                super::is_found_and_its_twin_is_clean(stringify!($area), stringify!($name), stringify!($budget));
            })+
        })+

        const AREAS: &[(&str, usize)] = &[$((stringify!($area), [$(stringify!($name)),+].len())),+];
    };
}

#[test]
fn no_schedule_of_a_dpc_that_runs_while_its_driver_is_unloaded_is_an_accusation() {
    let explored = |name: &str| {
        let sys = built(name);
        let script = r#"open "\\.\Clepsydra" as h overlapped; async p read h 64; t: close h"#;
        let more = ["--processors", "2", "--races", "--preemptions", "2", "--do", script];
        dirql(["explore", sys.to_str().unwrap()].iter().chain(&more))
    };
    let right = explored("dpc_counts_behind_completion_fixed");
    assert!(right.out.contains("and none is broken"), "{}", right.said());
    let wrong = explored("dpc_counts_behind_completion");
    assert!(wrong.out.contains("use-after-free"), "{}", wrong.said());
}

#[test]
fn an_exercise_is_over_behind_four_attempts_that_are_long_and_show_one_thing() {
    let sys = built("gone_as_it_starts");
    let own = ["check", sys.to_str().unwrap(), "--json", "--workers=1", "--budget=1", "--until=stuck"];
    let answer = dirql(own);
    let report: Value = serde_json::from_str(&answer.out).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let attempts: Vec<_> = findings.iter().map(|finding| finding["attempts"].as_u64().unwrap()).collect();
    assert!(!attempts.is_empty() && attempts.iter().sum::<u64>() <= 4, "{}", answer.said());
}

/// Two delays show it where writes to a card are on their way by default, and one schedule in thousands where each of them has to be chosen to be.
#[test]
fn an_interrupt_that_comes_late_meets_the_dpc_of_the_one_before() {
    let explored = |name: &str| {
        let sys = built(name);
        let inf = format!("--inf={}", sys.with_extension("inf").to_str().unwrap());
        let script = r#"open "\\.\PCI#VEN_1234&DEV_11E8&SUBSYS_11001AF4&REV_10#3&11583659&0&08#{8d1a4f02-11c9-4f5e-a620-338711fe0841}" as h overlapped;
            async w ioctl h 0x226284 in u32:1 + u32:0 out 4; t: ioctl h 0x22a280 in u32:1; u: ioctl h 0x22a280 in u32:2; join t; join u; join w"#;
        let more = ["--device=edu", "--platform=posted=2us", "--preemptions=2", "--do", script];
        dirql(["explore", sys.to_str().unwrap(), &inf].iter().chain(&more))
    };
    let right = explored("quadscan_fixed");
    assert!(right.out.contains("and none is broken"), "{}", right.said());
    let wrong = explored("quadscan");
    assert!(wrong.out.contains("was held up until what was due next had come"), "{}", wrong.said());
}

/// Not: dma-after-unmap
#[test]
fn what_a_card_transfers_as_a_time_limit_ends_is_late_though_it_is_in_time_from_then_on() {
    let late = ["--exercise", "ioctl 0x22a001 behind one that the card answers as time limit"];
    assert_eq!(wrong(&check("edureel_fixed", "100", &late)), Vec::<String>::new());
}

/// Not: interrupt-claimed-without-card
#[test]
fn a_service_routine_knows_a_card_that_was_pulled_out_by_the_ones_it_reads() {
    let pulled = ["--exercise", "pulled beside a card that interrupts on its line"];
    let found = |name: &str| wrong(&check(name, "100", &pulled));
    // The other card waits until its own driver's routine is called, behind this one.
    assert_eq!(found("edubrine"), ["interrupt-claimed-without-card", "interrupt-storm"]);
    assert_eq!(found("edubrine_fixed"), Vec::<String>::new());
}

/// A queue of a card of which nothing is known stays as full as a script has it, and what the registers of a board held is gone with its power.
#[test]
fn what_only_a_guessed_card_does_is_no_accusation() {
    for (name, title) in [
        ("sallow_fixed", "requests while all registers hold 0x1"),
        ("tansy_fixed", "ioctl 0x22204c ended by cause1 after the device was powered down and up"),
    ] {
        assert_eq!(wrong(&check(name, "10", &["--exercise", title])), Vec::<String>::new(), "{name}");
    }
}

/// Without the first of two leases the second is no other's.
#[test]
fn what_ends_otherwise_behind_the_same_requests_is_shown_behind_all_of_them() {
    let found = findings(&check("hourglas", "1", &["--until", "request-depends-on-uptime"]));
    let scripts: Vec<&str> = found.iter().filter_map(|finding| finding["script"].as_str()).collect();
    let is_whole = |script: &&str| script.contains("async r0 ") && !script.contains("must-be r0");
    assert!(!scripts.is_empty() && scripts.iter().all(is_whole), "{scripts:?}");
}

/// An application's wait is over and waits for the end of a long DPC, in which a timer runs out.
#[test]
fn what_becomes_due_in_a_dpc_is_seen_though_something_else_waits_for_its_end() {
    let sys = built("quoin_fixed");
    let inf = format!("--inf={}", sys.with_extension("inf").to_str().unwrap());
    let script = r#"open "\\.\PCI#VEN_10B5&DEV_9050&SUBSYS_905010B5&REV_02#3&11583659&0&08#{6c1e51a4-2f0b-4b61-9d11-3a705e218402}" as h overlapped;
        poke pci9052#0 shows 0x7fffffff; wait 2s"#;
    let more = ["--device=pci9052,idle=inactive", "--rules=data-race", "--do", script];
    let answer = dirql(["run", sys.to_str().unwrap(), &inf].iter().chain(&more));
    assert_eq!(answer.code, Some(0), "{}", answer.said());
}

#[test]
fn an_event_whose_handle_is_closed_goes_as_a_dpc_sets_it() {
    let explored = |name: &str| {
        let sys = built(name);
        let script = r#"open "\\.\Matins" as h overlapped; async a ioctl h 0x22a8c0 in event:e + u32:1 + u32:10 out 8;
            close event:e; wait limit; async b ioctl h 0x22a8c4; wait 50ms; cancel h; join b; close h"#;
        let more = ["--processors=2", "--preemptions=2", "--do", script];
        dirql(["explore", sys.to_str().unwrap()].iter().chain(&more))
    };
    let right = explored("matins_fixed");
    assert!(right.out.contains("and none is broken"), "{}", right.said());
    let wrong = explored("matins");
    assert!(wrong.out.contains("which is freed"), "{}", wrong.said());
}

/// Correct drivers, and runs by which they were once said to break a rule.
struct Accused {
    names: &'static [&'static str],
    rule: &'static str,
    options: &'static [&'static str],
    script: &'static str,
    /// With the seed at `{}`.
    policies: &'static [&'static str],
    seeds: u32,
}

const ONCE_ACCUSED: &[Accused] = &[
    // A bus driver that answers later was still in the completion routine of the driver that was unloaded.
    Accused {
        names: &["cfgdev_fixed", "gatecount_fixed"],
        rule: "unload-still-called",
        options: &["--platform=later-bus"],
        script: "",
        policies: &["pct:{}"],
        seeds: 24,
    },
    // A thread was held up until the board had taken its cause back, while another processor stood still in the interrupt routine that was to see it.
    Accused {
        names: &["bell_fixed"],
        rule: "request-forgotten",
        options: &["--device=pci9052,idle=inactive", "--races", "--processors=2"],
        script: r#"open "\\.\PCI#VEN_10B5&DEV_9050&SUBSYS_905010B5&REV_02#3&11583659&0&08#{6f0a4b18-0d6e-4f0e-9a51-33105c7e08a1}" as h overlapped;
           async a ioctl h 0x222180; wait 1ms; t: poke pci9052#0 cause1 1; join t; wait 50ms; must-end a; cancel h; join a; close h"#,
        policies: &["random:{}@script", "pct:{}"],
        seeds: 72,
    },
    // The routine for a scatter/gather list has put it and has not returned, on one processor, while its driver releases the adapter on the other.
    Accused {
        names: &["frmgrab_fixed"],
        rule: "dma-channel-leak",
        options: &["--device=pci,id=1da7:0220,bar0=mem:64K,irq", "--races", "--processors=2"],
        script: r#"tolerate; open "\\.\PCI#VEN_1DA7&DEV_0220&SUBSYS_00000000&REV_00#3&11583659&0&08#{30a5e2d9-77b1-4c84-a066-9b13f44e82cd}" as h overlapped;
           t: async a read h 64; u: surprise-remove; join t"#,
        policies: &["random:{}@script"],
        seeds: 4,
    },
    // What was cancelled while the card was at it, and ended when that was done, was said to have met a time limit.
    Accused {
        names: &["digitiz_fixed"],
        rule: "request-timed-out",
        options: &["--device=edu", "--races", "--processors=2"],
        script: r#"open "\\.\PCI#VEN_1234&DEV_11E8&SUBSYS_11001AF4&REV_10#3&11583659&0&08#{6a3f5b07-1c7d-4e0a-9b11-52407e2d9107}" as h overlapped;
           async r0 read h 64; async r1 read h 64; wait 100ms; t: async r2 read h 64; u: cancel r1; join t; must-end r0 r1 r2"#,
        policies: &["random:{}@script"],
        seeds: 8,
    },
];

#[test]
fn correct_drivers_that_were_once_accused_run_clean() {
    let each = ONCE_ACCUSED.iter().flat_map(|accused| accused.names.iter().map(move |name| (name, accused)));
    for (name, Accused { rule, options, script, policies, seeds, .. }) in each {
        let sys = built(name);
        let (image, inf) = (sys.to_str().unwrap(), sys.with_extension("inf"));
        let inf = format!("--inf={}", inf.to_str().unwrap());
        for (seed, policy) in (1..=*seeds).flat_map(|seed| policies.iter().map(move |policy| (seed, policy)))
        {
            let policy = format!("--policy={}", policy.replace("{}", &seed.to_string()));
            let own = ["run", image, &inf, "--verifier=all,logging", "--rules=all", &policy, "--do", script];
            let answer = dirql(own.iter().chain(*options));
            assert_eq!(answer.code, Some(0), "{name} by {policy}: {}", answer.said());
            assert!(!answer.out.contains(&format!("! {rule}: ")), "{name} by {policy}: {}", answer.said());
        }
    }
}

exhibits! {
    blind: hourglas 1, tithe 1, drennet 1, tarnix 1, lullaby 1, trigline 1, plxwhelk 1, stencil 1, satchel 1, gimbal 5, abutment 1, batten 1, edufife 1, eduguard 10, eduhour 10, lobby 20, pendulum 1, eduflax 1, tenon 1, soffit 1, eduwedge 1, edugirt 20, plxridge 20, parboil 100, plxwarm 10, plxpeal 50, cardreel 1, fennel 1, educrake 1, cardspool 1, stormlog 1, arincrx 1, plxcoral 1, sealkey 1, stanza 75, kudu 1, plxknot 1, acanth 1, gusset 1, eduhawk 1, dyeworks 1, signpost 1, tideline 5, mailman 1, cornice 1, gallery 1, edukeep 1, thistle 1, optoiso 5, pewter 2, yarrow 2, plxstrip 5, tapline 1, callboard 1, plxmaskr 1, embosser 1, fifochat 10, watchdog 10, turnkey 1, latchkey 1, edudusk 1, saunactl 1, plxtide 1, sonarbuf 20, callpt 1, plxwake 1, edustale 1, plxbits 1, pigeon 20, plxtoc 1, ringcfg 1, courier 20, quench 1, sampler 1, platter 1, sgloom 1, zephyr 1, dimcurve 1, gridplot 1, muster 1, furrow 1, canyon 1, gnssrx 1, rubric 1, tocsin 5, snapview 1, edulorry 1, gazette 50, dllwatch 5, plxpeek 1, plxchime 1, armcmd 1, echoline 1, eduretort 20, vigil 1, burnveto 1, tryst 1, plxhush 1, plxprom 1, blevel 1, bobbin 1, printshop 1, requeue 10, stalls 10, gauge 2, carousel 1, lockbox 1, duet 10, quill 10, csqirql 20, tempmon 5, cfgpci 1, idlecam 5, sgstore 5, ringtap 20, plxio 1, gaugewmi 20, keyguard 5, daqburst 5, laserpos 5, thermrack 1, passlog 5, lcrpeek 10, relaypci 10, aliasmap 1, sigpost 2, vaultio 2, voltsrc 5, scribering 1, lidarin 1, ramcopy 2, edublit 2, plxrelay 5, tallyflt 1, wmigauge 2, wavetab 2, plotter 2, checker 2, plxgulp 2, tankwmi 20, plxpipe 10, pulsegen 20, diarist 1, plxscan 10, dimmer 2, watchif 10, relaybd 2, chromat 5, plxdisp 1, edusnap 2, plxtrunk 5, pbxline 20;
    buffer: read_asked_for_input 1, input_not_checked 2, setting_into_user 1, product_overflows 2, pointer_not_probed 2, padding_not_zeroed 2, behind_magic 100, every_code_succeeds 1, both_lengths_exact 2, size_says_size 1, word_also_succeeds 1, index_of_code 1, codes_by_mask 1, claimed_length_wraps 2, own_pointer_guarded 2, pointer_in_input 1, event_replaced 1, answer_per_item 1, ticket_of_other 5;
    cancel: completed_while_cancelable 1, touched_after_insertion 20, next_started_in_start_io 2, cancelled_before_queued 20, tokens_kept_from_removal 1, two_doors 30;
    config: value_enables_header 1, slots_of_any_number 1, type_not_checked 1;
    device: raw_address_mapped 2, divides_by_register 10, port_by_log_config 1, cleared_by_ones 2, far_register 1;
    dma: low_buffer_left 1, common_buffer_left 1, adapter_left 1, copy_not_flushed 1, adapter_of_no_device 1;
    interrupt: own_not_claimed 2, ones_taken_for_bits 2, limit_hides_loss 1, lock_of_passive_routine 1, message_after_disconnect 50, message_counts 1;
    irp: asked_after_completion 1, initialized_for_reuse 1, unknown_code_not_completed 2, status_left_pending 2, pair_of_requests 2, other_end 1;
    lock: sent_with_spin_lock 1, returns_with_lock 2, mutexes_in_two_orders 2, broadcast_under_lock 2;
    memory: both_logs_missing 1, allocation_not_checked 2, process_reference_kept 2, last_opened_remembered 20, owner_kept_after_close 20, image_freed_while_written 10, local_too_short 1;
    pnp: bus_interface_given_back_twice 1, wmi_device_not_referenced 1, paging_file_leaves_pagable 1, full_store_keeps_file 1, remove_not_passed_down 1, capabilities_not_awaited 1, link_left 1, wmi_swallowed 1, surprise_leaves_requests 5, left_in_table 1, gone_as_it_starts 1, unit_looked_up 20, wmi_item_beyond 1, board_by_crate 1, board_not_referenced 1, child_by_extension 1, child_comes_again 5, child_id_of_label 1, children_go_with_crate 1, ejected_child_listed 1, empty_slots_counted 1, gone_child_kept 1, new_child_twice 1, notification_taken_back_twice 1, one_id_for_all 1;
    power: stop_acknowledged_later 1, wake_left_when_pulled 1, directed_answered_first 1, directed_up_not_reported 1, state_refused 1, touched_in_d3 30, waits_in_completion 1, busy_ended_twice 1, request_deleted_twice 1, request_outlives_device 1;
    rust: answer_of_uninit 1, box_freed_under_dpc 5, enum_from_input 1, forgotten_on_error 1, guard_in_scrutinee 1, guard_over_early_return 1, ring_shared_with_isr 2, shared_with_dpc 1, slice_of_claimed_length 1, waiter_outlives_cancel 1;
    stack: one_location_too_few 2, freed_and_continued 2, next_location_not_set 1;
    system: refused_user 1, image_name_copied 1, value_data_copied 1, command_line_wraps 1, handle_context_left 1, handle_filter_switched 1, x87_not_saved 1;
    time: timer_waits_for_itself 1, timer_left_at_unload 1, dpc_counts_past_zero 1, thread_reference_kept 1, ends_with_cancel_routine 1;
    unload: init_freed_twice 1, framework_called_after_unbind 1, entry_leaves_device 1, registry_callback_left 1;
}

/// What the README shows of the paper's driver, line by line, is what is said of it; each of its mistakes is among it, and its twin has none.
#[test]
fn the_papers_driver_has_each_of_its_mistakes_found_and_the_readme_shows_them() {
    const NAME: &str = "start_device_in_one_go";
    let sys = built(NAME);
    let answer = dirql(["check", sys.to_str().unwrap(), "--budget", "5"]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let shown = readme
        .split("```text\nerror: io-space-ram\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    assert!(shown.lines().count() > 15, "{shown}");
    for line in shown.lines() {
        // Addresses and distances are the compiler's.
        let parts = line.split('…').map(str::trim_end);
        let mut rest = answer.out.lines().filter(|printed| {
            let mut at = 0;
            parts.clone().all(|part| match printed[at..].find(part) {
                Some(found) => {
                    at += found + part.len();
                    true
                }
                None => false,
            })
        });
        assert!(rest.next().is_some(), "the README has `{line}`, the report has not\n{}", answer.said());
    }
    let mistakes =
        ["io-space-ram", "io-space-raw-address", "io-space-leak", "interrupt-still-connected", "wild-read"];
    let found = wrong(&check(NAME, "5", &[]));
    assert!(mistakes.iter().all(|rule| found.iter().any(|found| found == rule)), "{found:?}");
    assert_eq!(wrong(&check(&format!("{NAME}_fixed"), "5", &[])), Vec::<String>::new());
}

#[test]
fn no_area_is_left_out() {
    let museum = fs::read_dir(root().join("museum")).unwrap().map(|entry| entry.unwrap());
    let areas = museum.filter(|entry| entry.path().is_dir());
    let areas: BTreeSet<String> = areas
        .map(|area| area.file_name().into_string().unwrap())
        .filter(|area| area != "include" && area != "missed")
        .collect();
    let here: BTreeSet<String> = AREAS.iter().map(|(area, _)| (*area).to_owned()).collect();
    let left_out: Vec<&String> = areas.difference(&here).collect();
    // The paper's driver has many mistakes, and no single one.
    assert_eq!(left_out, ["paper"]);
    assert!(AREAS.iter().all(|(_, exhibits)| *exhibits >= 2));
}

/// What a script does by which a mistake shows.
struct Shown {
    name: &'static str,
    rule: &'static str,
    device: Option<&'static str>,
    platform: &'static str,
    script: &'static str,
}

const SHOWN: &[Shown] = &[
    // Not: user-handle-as-kernel
    Shown {
        name: "sigpost",
        rule: "user-handle-as-kernel",
        device: None,
        platform: "",
        script: r#"tolerate; open "\\.\SigPost" as h; ioctl h 0x82206404 in event:e + zero:8 out 4; close h"#,
    },
    // Not: read-only-memory-written
    Shown {
        name: "ramcopy",
        rule: "read-only-memory-written",
        device: Some("edu"),
        platform: "",
        script: r#"tolerate; memory m zero:4096 read-only;
           open "\\.\PCI#VEN_1234&DEV_11E8&SUBSYS_11001AF4&REV_10#3&11583659&0&08#{c2a5e0b7-0d14-4a6b-8e2d-73f19b50360c}" as h;
           ioctl h 0x2263c5 in u32:0 out memory m; ioctl h 0x2263c6 in u32:0 out memory m; close h"#,
    },
    Shown {
        name: "vaultio",
        rule: "information-too-large",
        device: None,
        platform: "32-bit-programs",
        script: r#"tolerate; open "\\.\VaultIo" as h; ioctl h 0x22a284 in zero:12 out 4; ioctl h 0x22628c out 12; close h"#,
    },
    // Not: next-packet-not-started
    Shown {
        name: "plotter",
        rule: "next-packet-not-started",
        device: Some("pci,id=1da7:0103,bar0=mem:64K,irq,reg0=0:504c4f54"),
        platform: "",
        script: r#"tolerate;
           open "\\.\PCI#VEN_1DA7&DEV_0103&SUBSYS_00000000&REV_00#3&11583659&0&08#{2f5e4b8c-9d37-4b44-876a-4c00f1368209}" as h overlapped;
           write h fill:0xffffffff:16; async a write h zero:16; wait 30s; cancel h; join a; close h"#,
    },
    // Not: wait-wake-repeated
    Shown {
        name: "wakecard",
        rule: "wait-wake-repeated",
        device: Some("pci,id=1da7:0102,bar0=mem:64K,irq,pm=wake0+wake3+wakeoff,reg0=0:57414b45"),
        platform: "",
        script: r#"tolerate;
           open "\\.\PCI#VEN_1DA7&DEV_0102&SUBSYS_00000000&REV_00#3&11583659&0&08#{0b3dce2a-68e4-4e0d-a715-93084a55d208}" as h;
           ioctl h 0x22a180 in u32:1; wait 10ms; ioctl h 0x22a180 in u32:0; close h"#,
    },
];

#[test]
fn what_a_script_does_shows_a_mistake_and_a_correct_driver_takes_it() {
    for Shown { name, rule, device, platform, script } in SHOWN {
        for (twin, code, is_said) in [("", 1, true), ("_fixed", 0, false)] {
            let sys = built(&format!("{name}{twin}"));
            let (image, inf) = (sys.to_str().unwrap(), sys.with_extension("inf"));
            let platform = format!("--platform={platform}");
            let mut own = vec!["run".to_owned(), image.to_owned(), "--verifier=all".to_owned(), platform];
            own.extend(device.map(|device| format!("--device={device}")));
            own.extend(device.map(|_| format!("--inf={}", inf.to_str().unwrap())));
            own.extend(["--do".to_owned(), (*script).to_owned()]);
            let answer = dirql(&own);
            assert_eq!(answer.code, Some(code), "{name}{twin}: {}", answer.said());
            assert_eq!(
                answer.out.contains(&format!("! {rule}: ")),
                is_said,
                "{name}{twin}: {}",
                answer.said()
            );
        }
    }
}
