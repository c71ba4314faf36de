//! Stories of `correct_pnp.sys` on the `bench` card: what drivers may do with Plug and Play, power and unloading without being accused of
//! anything, as they come and in random schedules; and what Windows sends them, in which order.

use std::path::{Path, PathBuf};

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Outcome, Report, ScriptText, windows};
use kernel::cm::access;
use kernel::verdict::Tier;

use super::rig::{self, driver, start, try_play};

const FILTER_IN_PLACE: u32 = 0x001;
const FILTER_NEW_LIST: u32 = 0x002;
const KEEPS_INTERFACE: u32 = 0x004;
const FRAMEWORK: u32 = 0x008;
const NO_RESTART: u32 = 0x010;
const DEFERRED_START: u32 = 0x020;
const REFUSES_ONCE: u32 = 0x040;
const CAPABILITIES: u32 = 0x080;
const POWER_OWNER: u32 = 0x100;
const OPENS_EARLY: u32 = 0x200;
const FILTER: u32 = 0x400;

/// Minor functions.
const START: u8 = 0;
const QUERY_REMOVE: u8 = 1;
const REMOVE: u8 = 2;
const CANCEL_REMOVE: u8 = 3;
const STOP: u8 = 4;
const QUERY_STOP: u8 = 5;
const CANCEL_STOP: u8 = 6;
const QUERY_STATE: u8 = 0x14;
const SURPRISE: u8 = 0x17;

/// The driver's INF with these idioms.
fn inf(idioms: u32) -> PathBuf {
    const SETTING: &str = "Idioms,0x00010001,0 ";
    rig::changed_inf(&format!("correct_pnp-{idioms:x}"), "correct_pnp.inf", |text| {
        assert!(text.contains(SETTING));
        let text = text.replace("NTamd64.10.0...16299", "NTamd64"); // for older versions of Windows, too
        text.replace(SETTING, &format!("Idioms,0x00010001,{idioms} "))
    })
}

fn bench(inf: &Path) -> Bench {
    Bench::new().driver(driver("correct_pnp.sys")).inf(inf).device("bench")
}

/// A run of a script in which `@` is the device.
fn run_on(idioms: u32, text: &str, more: impl Fn(Bench) -> Bench) -> Report {
    run_with(&inf(idioms), text, more)
}

/// The same, with an INF that is there.
fn run_with(inf: &Path, text: &str, more: impl Fn(Bench) -> Bench) -> Report {
    let machine = start(|| more(bench(inf)));
    let played = try_play(&machine, &text.replace('@', r"\\.\CorrectPnp"));
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{report}");
    report
}

fn run(idioms: u32, text: &str) -> Report {
    run_on(idioms, text, |bench| bench)
}

/// Clean, with nothing of the driver's left; no finding but these.
fn clean(report: &Report, findings: &[&str]) {
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    let found: Vec<&str> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(found, findings, "{report}");
}

/// As it comes and in random schedules, on one processor and on several.
fn clean_in_all(idioms: u32, text: &str, findings: &[&str]) {
    clean(&run(idioms, text), findings);
    for seed in rig::seeds(8) {
        for processors in [1, 2, 4] {
            let with = |bench: Bench| bench.processors(processors).policy(Policy::random(seed));
            clean(&run_on(idioms, text, with), findings);
        }
    }
}

/// The PnP requests that change the device's state, and queries of its state, as the driver got them.
fn requests(report: &Report) -> Vec<u8> {
    let all = report.prints.iter().filter_map(|line| line.split_once("pnp 0x"));
    let all = all.map(|(_, minor)| u8::from_str_radix(minor.trim(), 16).unwrap());
    all.filter(|minor| *minor <= QUERY_STOP + 1 || [QUERY_STATE, SURPRISE].contains(minor)).collect()
}

/// Where lines with these texts stand among what was printed.
fn order(report: &Report, texts: &[&str]) -> Vec<usize> {
    let at = |text: &&str| report.prints.iter().position(|line| line.contains(text));
    texts.iter().map(|text| at(text).unwrap_or_else(|| panic!("no `{text}`\n{report}"))).collect()
}

/// Holds: irps/query-then-stop, irps/query-then-remove
#[test]
fn a_device_lives_as_on_windows_started_stopped_started_again_and_removed() {
    let report = run(0, "wait 1ms");
    clean(&report, &[]);
    let life = [START, QUERY_STATE, QUERY_STOP, STOP, START, QUERY_REMOVE, REMOVE];
    assert_eq!(requests(&report), life, "{report}");
}

#[test]
fn a_driver_that_takes_a_start_or_a_surprise_removal_when_it_is_stopped_lives_to_its_end() {
    clean_in_all(FRAMEWORK, "wait 1ms", &[]);
    let report = run(FRAMEWORK, "stop-device; remove-device");
    clean(&report, &[]);
    let life = [START, QUERY_STATE, QUERY_STOP, STOP, START, QUERY_REMOVE, REMOVE];
    assert_eq!(requests(&report), life, "{report}");
    let report = run(FRAMEWORK, "stop-device; surprise-remove");
    clean(&report, &[]);
    assert_eq!(requests(&report)[4..], [SURPRISE, REMOVE], "{report}");
}

#[test]
fn resource_requirements_are_filtered_where_the_status_block_points() {
    for idiom in [FILTER_IN_PLACE, FILTER_NEW_LIST] {
        let report = run(idiom, "wait 1ms");
        clean(&report, &[]);
        order(&report, &["requirements: 1 lists, the first of "]);
    }
}

#[test]
fn a_work_item_may_say_that_it_is_done_before_its_routine_returns() {
    let script = "open @ as card; ioctl card 0x223800; close card";
    clean_in_all(0, script, &[]);
}

#[test]
fn a_work_item_may_free_itself_with_nobody_waiting_for_it() {
    let script = "open @ as card; ioctl card 0x223804; ioctl card 0x223804; close card";
    clean_in_all(0, script, &[]);
}

#[test]
fn a_work_item_of_the_driver_object_keeps_the_image_until_its_routine_has_returned() {
    let script = "open @ as card; ioctl card 0x223808; close card";
    clean_in_all(0, script, &[]);
}

#[test]
fn information_is_a_number_where_no_system_buffer_is_copied() {
    let script = r"open @ as card
        ioctl card 0x22380f out 4 expect bytes 0x10000
        ioctl card 0x22380f expect bytes 0x10000
        ioctl card 0x22381e out 4 expect bytes 0x10000
        ioctl card 0x223810
        close card";
    clean(&run(0, script), &[]);
}

#[test]
fn an_allocated_irp_may_be_initialized_as_old_samples_do_and_is_told_of() {
    let report = run(0, "open @ as card; ioctl card 0x223814; close card");
    clean(&report, &["irp-initialized-again"]);
    assert_eq!(report.findings[0].tier, Tier::Advice);
}

#[test]
fn an_interface_that_a_driver_leaves_enabled_is_disabled_by_the_pnp_manager() {
    let class = "interface:{d5a1e2b4-6c37-4f09-8e5d-21c07b94a3f6}";
    for removal in ["remove-device", "surprise-remove"] {
        let script = format!("open {class} as one; close one; {removal}");
        clean(&run(0, &script), &[]);
        let report = run(KEEPS_INTERFACE, &script);
        clean(&report, &["interface-still-enabled"]);
        assert_eq!(report.findings[0].tier, Tier::Advice);
        let machine = start(|| bench(&inf(KEEPS_INTERFACE)));
        let late = try_play(&machine, &format!("{script}; open {class} as two")).unwrap_err().to_string();
        assert!(late.contains("no interface of class"), "{late}");
        drop(machine);
    }
}

#[test]
fn interfaces_are_listed_as_they_were_registered() {
    order(&run(0, "wait 1ms"), &["interface: enabled, listed as registered"]);
}

#[test]
fn an_interface_has_a_key_of_its_own_in_the_registry() {
    order(&run(0, "wait 1ms"), &["interface's key: kept"]);
}

#[test]
fn what_the_inf_writes_to_an_interfaces_key_is_there_when_the_driver_opens_it() {
    order(&run(0, "wait 1ms"), &["interface's word: c0de"]);
}

#[test]
fn what_the_inf_deletes_from_a_list_is_not_in_it_when_the_driver_reads_it() {
    const WORD: &str = "HKR,,Given,0x00010001,0xC0DE\n";
    const INTERFACE: &str = "AddInterface = {D5A1E2B4-6C37-4F09-8E5D-21C07B94A3F6},,CorrectPnp.Interface\n";
    let inf = rig::changed_inf("correct_pnp-list", "correct_pnp.inf", |text| {
        assert!(text.contains(WORD) && text.contains(INTERFACE));
        let more = INTERFACE.replace("CorrectPnp.Interface", "CorrectPnp.Less");
        let less = "[CorrectPnp.Less]\nDelReg = CorrectPnp.Delete\n[CorrectPnp.Delete]\nHKR,,List,0x00018002,ONE\nHKR,,Given\n";
        text.replace(WORD, &format!("{WORD}HKR,,List,0x00010000,one,two,three\n"))
            .replace(INTERFACE, &format!("{INTERFACE}{more}"))
            .replace("[Strings]", &format!("{less}[Strings]"))
    });
    let report = run_with(&inf, "wait 1ms", |bench| bench);
    order(&report, &["interface's list: two, then three"]);
    assert!(!report.prints.iter().any(|line| line.contains("interface's word")), "it is deleted\n{report}");
}

#[test]
fn a_device_that_does_not_start_again_is_gone_when_its_last_file_is_closed() {
    let script = "open @ as card; stop-device; start-device expect failure; open @ as late expect failure; \
                  ioctl card 0x223810; close card; wait 1ms";
    let report = run(NO_RESTART, script);
    clean(&report, &[]);
    let requests = requests(&report);
    assert_eq!(requests, [START, QUERY_STATE, QUERY_STOP, STOP, START, SURPRISE, REMOVE], "{report}");
    let at = order(&report, &["pnp 0x17", "cleanup", "close", "pnp 0x02"]);
    assert!(at.is_sorted(), "the last file is closed before the removal\n{report}");
    // The same at the end of a run, without files.
    assert_eq!(self::requests(&run(NO_RESTART, "wait 1ms"))[4..], [START, SURPRISE, REMOVE]);
}

#[test]
fn a_query_for_removal_is_asked_and_taken_back_while_a_file_is_open() {
    let script = "open @ as card; remove-device expect STATUS_DEVICE_BUSY; ioctl card 0x223810; close card; remove-device";
    let report = run(0, script);
    clean(&report, &[]);
    assert_eq!(requests(&report)[2..], [QUERY_REMOVE, CANCEL_REMOVE, QUERY_REMOVE, REMOVE], "{report}");
}

#[test]
fn a_driver_may_refuse_to_be_stopped_and_to_be_removed() {
    let script = "query-stop expect failure; remove-device";
    let report = run(REFUSES_ONCE, script);
    clean(&report, &[]);
    assert_eq!(requests(&report)[2..], [QUERY_STOP, CANCEL_STOP, QUERY_REMOVE, REMOVE], "{report}");
    let report = run(REFUSES_ONCE, "remove-device expect failure");
    assert_eq!(
        requests(&report)[2..],
        [QUERY_REMOVE, CANCEL_REMOVE, QUERY_STOP, STOP, START, QUERY_REMOVE, REMOVE],
        "{report}"
    );
}

#[test]
fn a_driver_whose_device_stays_to_the_end_is_not_unloaded_and_has_lost_nothing() {
    let report = run(0, "open @ as card; ioctl card 0x223818 in u32:0x20; close card; wait 1ms");
    report.expect_clean();
    let notes = report.notes.join("\n");
    assert!(notes.contains("bench#0: stays") && notes.contains("correct_pnp.sys: stays loaded"), "{report}");
    assert!(!report.prints.iter().any(|line| line.contains("unloaded")), "{report}");
}

#[test]
fn a_start_may_be_pended_and_completed_later() {
    clean_in_all(DEFERRED_START, "open @ as card; ioctl card 0x223810; close card", &[]);
}

#[test]
fn nobody_opens_a_device_before_it_is_started_or_when_it_is_gone() {
    for idioms in [OPENS_EARLY, OPENS_EARLY | DEFERRED_START] {
        let report = run(
            idioms,
            "open @ as card; surprise-remove; open @ as late expect STATUS_NO_SUCH_DEVICE; close card",
        );
        clean(&report, &[]);
        order(&report, &["opened early: 0xc000000e"]);
    }
}

#[test]
fn capabilities_that_a_driver_added_on_the_way_down_are_there_on_the_way_up() {
    let report = run(CAPABILITIES, "wait 1ms");
    clean(&report, &[]);
    order(&report, &["capabilities: surprise removal 1, number 42"]);
}

/// The requests after the first start, where the driver invalidates its state with these flags; the last is the answer.
fn after_invalidating(idioms: u32, flags: u32) -> Vec<u8> {
    let script = format!("open @ as card; ioctl card 0x223818 in u32:{flags}; close card; wait 1ms");
    let report = run(idioms, &script);
    report.expect_clean();
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(requests(&report)[..3], [START, QUERY_STATE, QUERY_STATE], "{report}");
    requests(&report)[3..].to_vec()
}

/// Holds: irps/changed-requirements, irps/failed-device
#[test]
fn a_device_state_brings_a_stop_a_start_or_a_removal_as_its_flags_say() {
    const FAILED: u32 = 0x04;
    const REMOVED: u32 = 0x08;
    const CHANGED: u32 = 0x10;
    const NOT_DISABLEABLE: u32 = 0x20;
    let end = [QUERY_STOP, STOP, START, QUERY_REMOVE, REMOVE];
    let with_end = |first: &[u8]| [first, &end].concat();
    assert_eq!(after_invalidating(0, NOT_DISABLEABLE), end[..3], "it is never asked to go");
    assert_eq!(after_invalidating(0, CHANGED), with_end(&[START]));
    assert_eq!(after_invalidating(0, FAILED | CHANGED), with_end(&[QUERY_STOP, STOP, START]));
    assert_eq!(after_invalidating(NO_RESTART, FAILED | CHANGED), [QUERY_STOP, STOP, START, SURPRISE, REMOVE]);
    assert_eq!(after_invalidating(0, FAILED), [SURPRISE, REMOVE]);
    assert_eq!(after_invalidating(0, REMOVED), [SURPRISE, REMOVE]);
}

/// What was printed of power: `query 0 to 4, action 2` and the like.
fn power(report: &Report) -> Vec<&str> {
    let all = report.prints.iter().filter_map(|line| line.split_once("power ").or(line.split_once("shut")));
    all.map(|(_, what)| what.trim()).collect()
}

#[test]
fn the_system_sleeps_wakes_and_is_shut_down_with_the_reason_that_the_page_names() {
    let report = run(0, "power s3; power s0; power s4; power s0; power s5");
    report.expect_clean();
    let asked = [
        "query 0 to 4, action 2",
        "set 0 to 4, action 2",
        "set 0 to 1, action 0",
        "query 0 to 5, action 3",
        "set 0 to 5, action 3",
        "set 0 to 1, action 0",
        "query 0 to 6, action 4",
        "down",
        "set 0 to 6, action 4",
    ];
    assert_eq!(power(&report), asked, "{report}");
    assert!(report.notes.iter().any(|note| note.contains("shut down")), "{report}");
    assert_eq!(requests(&report), [START, QUERY_STATE], "what is off is not removed\n{report}");
}

#[test]
fn what_happens_to_a_device_while_the_system_sleeps_its_driver_gets_to_know_when_it_is_awake() {
    let script =
        "open @ as card; power s3; stop-device expect STATUS_POWER_STATE_INVALID; surprise-remove; wait 1ms
                  power s0; wait 1ms; close card; wait 1ms";
    for idioms in [0, POWER_OWNER] {
        clean_in_all(idioms, script, &[]);
        let report = run(idioms, script);
        let at = order(&report, &["set 0 to 4", "set 0 to 1", "pnp 0x17", "close", "pnp 0x02"]);
        assert!(at.is_sorted(), "{report}");
        assert_eq!(requests(&report), [START, QUERY_STATE, SURPRISE, REMOVE], "{report}");
    }
}

#[test]
fn a_power_policy_owner_answers_when_its_device_has_followed() {
    let script = "power s3; power s0; power d2; power d0; power s1";
    clean_in_all(POWER_OWNER, script, &[]);
    let report = run(POWER_OWNER, script);
    let asked = power(&report);
    assert_eq!(
        asked[..6],
        [
            "query 0 to 4, action 2",
            "query 1 to 4, action 2",
            "4: 0x00000000",
            "set 0 to 4, action 2",
            "set 1 to 4, action 2",
            "4: 0x00000000"
        ],
        "{report}"
    );
    assert_eq!(asked.last(), Some(&"1: 0x00000000"), "at its end the system wakes\n{report}");
}

#[test]
fn an_installed_device_has_the_keys_that_windows_gives_it() {
    let inf = inf(0);
    let machine = start(|| bench(&inf));
    let written = machine
        .with_kernel(|cx| {
            let node = kernel::pnp::named(cx, "bench#0").expect("the card");
            let keys = kernel::pnp::install::keys(cx, node);
            let driver = keys.driver.expect("it is installed");
            let mut written = Vec::new();
            for name in [
                "ProviderName",
                "DriverVersion",
                "DriverDate",
                "MatchingDeviceId",
                "InfPath",
                "InfSection",
                "InfSectionExt",
            ] {
                written.push(access::text(cx, &driver, name).unwrap_or_default());
            }
            let services = format!(r"{}\correct_pnp\Enum", access::SERVICES);
            written.push(access::text(cx, &services, "0").unwrap_or_default());
            written.push(format!("{:?}", access::number(cx, &services, "Count")));
            written.push(format!("{:?}", access::number(cx, &services, "NextInstance")));
            written.push(format!("{:?}", access::number(cx, &keys.instance, "ConfigFlags")));
            written.push(format!("{:?}", access::number(cx, &keys.instance, "Capabilities")));
            let control = format!(r"{}\Control", keys.instance);
            written.push(access::text(cx, &control, "ActiveService").unwrap_or_default());
            let assigned = access::value(cx, &control, "AllocConfig").expect("it has resources");
            written.push(assigned.kind.to_string());
            let configuration = format!(r"{}\LogConf", keys.instance);
            written.push(
                access::value(cx, &configuration, "BasicConfigVector")
                    .expect("it asks for some")
                    .kind
                    .to_string(),
            );
            let boot = access::value(cx, &configuration, "BootConfig").expect("the firmware gave it some");
            written.push(boot.kind.to_string());
            assert_eq!(boot.data, assigned.data, "it was started with what the firmware gave it");
            Ok(engine::outside(|| written.clone()))
        })
        .unwrap();
    machine.finish().expect_clean();
    let expected = [
        "dirql",
        "1.0.0.0",
        "1-1-2025",
        r"PCI\VEN_1234&DEV_BE2C",
        "oem0.inf",
        "CorrectPnp.Install",
        ".NT",
        r"PCI\VEN_1234&DEV_BE2C&SUBSYS_00000000&REV_01\3&11583659&0&08",
        "Some(1)",
        "Some(1)",
        "Some(0)",
        "Some(0)",
        "correct_pnp",
        "8",
        "10",
        "8",
    ];
    assert_eq!(written, expected);
}

#[test]
fn a_driver_on_whose_device_a_file_is_open_goes_when_the_file_is_closed() {
    let machine = start(|| Bench::new().driver(driver("legacy.sys")).with(driver("holder.sys")));
    rig::play(&machine, r"open \\.\DirqlHolder as holder; ioctl holder 0x222000; close holder");
    let report = machine.finish();
    clean(&report, &[]);
    assert!(report.notes.is_empty(), "nothing stays\n{report}");
    assert!(order(&report, &["holder: lets go", "holder: unloaded"]).is_sorted());
}

#[test]
fn an_upper_filter_passes_everything_down_and_goes_with_the_device() {
    let script = "open @ as card; ioctl card 0x223810; power s3; power s0; stop-device; start-device; close card; remove-device";
    let report = run(FILTER, script);
    clean(&report, &[]);
    assert_eq!(
        requests(&report),
        [START, QUERY_STATE, QUERY_STOP, STOP, START, QUERY_REMOVE, REMOVE],
        "{report}"
    );
}

/// What may happen to a device, one after the other or while requests are under way.
const LIVES: [&str; 4] = [
    "open @ as card; ioctl card 0x223804; ioctl card 0x223808; surprise-remove; ioctl card 0x223810; close card",
    "open @ as a; open @ as b; t: ioctl a 0x223804; u: ioctl b 0x223814; query-stop; cancel-stop; join t; join u; \
     close a; close b; query-remove; cancel-remove; power s3; power s0",
    "open @ as card; t: close card; surprise-remove; join t; wait 1ms",
    "open @ as card; t: ioctl card 0x223818 in u32:0x14; power s1; power s0; join t; close card; wait 1ms",
];

/// What the driver does in each of them.
const HABITS: [u32; 5] = [
    0,
    FILTER,
    FRAMEWORK | POWER_OWNER,
    DEFERRED_START | FILTER | POWER_OWNER,
    FILTER_NEW_LIST | CAPABILITIES,
];

fn offences(report: &Report) -> usize {
    report.findings.iter().filter(|finding| finding.tier <= Tier::Verifier).count()
}

/// A life in the schedules of these seeds, in one machine.
fn in_schedules(bench: Bench, life: &str, seeds: &[u64], circumstances: &str) {
    let mut boots = rig::boots(bench);
    let life = life.replace('@', r"\\.\CorrectPnp");
    for seed in seeds.iter().copied() {
        for policy in [Policy::random(seed), Policy::pct(seed, 3, 2_000)] {
            let (played, report) = boots.boot(policy.chooser(), |machine| try_play(machine, &life)).unwrap();
            assert!(played.is_ok(), "{circumstances}, {policy}: {played:?}\n{report}");
            report.expect_clean();
            assert_eq!(offences(&report), 0, "{circumstances}, {policy}\n{report}");
        }
    }
}

/// Not: unload-still-called, pnp-request-failed, device-not-detached, device-not-deleted, request-pending-after-remove
#[test]
fn no_life_of_a_careful_driver_is_an_offence_in_any_schedule() {
    let seven = windows::parse("7").unwrap();
    for (life, idioms) in LIVES.iter().flat_map(|life| HABITS.map(|idioms| (life, idioms))) {
        let inf = inf(idioms);
        let (fast, checked): (Vec<u64>, Vec<u64>) = rig::seeds(2).partition(|seed| *seed == 2);
        for processors in [1, 2, 4] {
            // One seed as an older Windows, where nothing is tested.
            let usual = bench(&inf).processors(processors).checked(true);
            in_schedules(usual, life, &checked, &format!("{idioms:#x} on {processors} processors"));
            let older = bench(&inf).processors(processors).windows(seven);
            in_schedules(older, life, &fast, &format!("{idioms:#x} on {processors} processors, Windows 7"));
        }
    }
}

#[test]
fn no_life_of_a_careful_driver_is_an_offence_in_a_schedule_with_two_preemptions() {
    let bounds = Bounds { schedules: rig::wanted("DIRQL_SCHEDULES", 20), ..Bounds::default() };
    let accused = |report: &Report| report.outcome() != Outcome::Clean || offences(report) > 0;
    for (life, idioms) in LIVES.iter().flat_map(|life| HABITS.map(|idioms| (life, idioms))) {
        let inf = inf(idioms);
        let play = ScriptText::typed(&life.replace('@', r"\\.\CorrectPnp")).play().unwrap();
        let searched = bench(&inf).processors(2).unobserved().search(&play, &bounds, accused).unwrap();
        let found = searched.found.map(|(choices, report)| format!("{choices:#?}\n{report}"));
        assert!(found.is_none(), "{idioms:#x}, {life}:\n{}", found.unwrap_or_default());
        let made = searched.repeated + searched.schedules.iter().sum::<u64>();
        assert!(searched.complete || made == bounds.schedules, "{life}: {made}");
    }
}
