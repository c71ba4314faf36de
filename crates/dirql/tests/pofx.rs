//! Stories of the power management framework (PoFx): the life of a component, a device that goes to D3 when nothing needs it, and comes back.

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Machine, Outcome, Report, ScriptText};
use engine::{Chooser, Point};

use super::rig::{self, driver, start, try_play};

/// A card that loses its registers in D3; the STATE registers of idle.sys are at 20 and 24.
const CARD: &str = "pci,id=abcd:0003,bar0=mem:128,irq,pm";

/// What the driver is called for when its device is started, and nothing needs it.
const GOES_IDLE: &str = "I0* S02* I1* S12* N d ";

/// Answers one point otherwise.
struct Otherwise(&'static str);

impl Chooser for Otherwise {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        u32::from(point == Point(self.0))
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

fn bench(sys: &str) -> Bench {
    Bench::new().driver(driver(&format!("{sys}.sys"))).device(CARD)
}

fn machine(sys: &str) -> Machine {
    start(|| bench(sys))
}

fn played(machine: Machine, script: &str) -> Report {
    // What goes wrong stands in the report.
    let played = try_play(&machine, &format!(r"open \\.\Idle as i overlapped; {script}"));
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{report}");
    report
}

fn run(sys: &str, script: &str) -> Report {
    played(machine(sys), script)
}

/// What the driver was called for since the last time.
fn expect_calls(calls: &str) -> String {
    format!("wait 1ms; ioctl i 0x222014 out 512 expect text:\"{calls}\"")
}

/// The device stays in D0 for so long after its components are idle, and is there now.
fn stays_in_d0() -> String {
    format!(
        "{}; ioctl i 0x222018 in u32:3 + u32:0 + u32:0x3fffffff; ioctl i 0x22200c in u32:0 + u32:1; ioctl i 0x222010 in u32:0 + u32:1; wait 1ms; ioctl i 0x222014 out 512",
        expect_calls(GOES_IDLE)
    )
}

#[test]
fn an_idle_device_goes_to_d3_and_comes_back_for_a_request_which_waits_meanwhile() {
    let script = format!(
        "{}
         async w ioctl i 0x222000 in u32:0 + u32:0x1234
         join w
         {}
         ioctl i 0x222004 in u32:0 out 4 expect u32:0x1234
         {}",
        expect_calls(GOES_IDLE),
        expect_calls("R u A0* I0* S02* S12* N d "),
        expect_calls("R u A0* I0* S02* S12* N d "),
    );
    run("idle", &script).expect_clean();
}

#[test]
fn a_caller_that_blocks_is_called_back_itself_and_one_that_does_not_by_another_thread() {
    let script = format!(
        "{}
         ioctl i 0x222008 in u32:0 out 4 expect u32:0
         ioctl i 0x222014 out 512 expect text:\"S00 A0 I0 S02 \"
         async r ioctl i 0x222004 in u32:0 out 4
         join r
         {}
         ioctl i 0x222008 in u32:1 out 4 expect u32:0
         ioctl i 0x222014 out 512 expect text:\"S10 A1 I1 S12 \"",
        stays_in_d0(),
        expect_calls("S00* A0* I0* S02* "),
    );
    run("idle", &script).expect_clean();
}

#[test]
fn without_a_flag_the_framework_decides_which_thread_calls() {
    let activate = "ioctl i 0x22200c in u32:0 + u32:0; wait 1ms; ioctl i 0x222010 in u32:0 + u32:0";
    for (chooser, calls) in [(None, "S00 A0 I0 S02 "), (Some("po.fx_thread"), "S00* A0* I0* S02* ")] {
        let machine = start(|| match chooser {
            Some(point) => bench("idle").chooser(Otherwise(point)),
            None => bench("idle"),
        });
        let script = format!("{}; {activate}; {}", stays_in_d0(), expect_calls(calls));
        played(machine, &script).expect_clean();
    }
}

#[test]
fn at_dispatch_level_a_component_is_activated_and_idled_without_waiting() {
    let script = format!(
        "{}
         ioctl i 0x22200c in u32:0 + u32:0x20000000
         ioctl i 0x22200c in u32:0 + u32:0x20000002
         ioctl i 0x222010 in u32:0 + u32:0x20000002
         {}
         ioctl i 0x222010 in u32:0 + u32:0x20000000
         {}",
        stays_in_d0(),
        expect_calls("S00 A0 "),
        expect_calls("I0 S02 "),
    );
    run("idle", &script).expect_clean();
}

#[test]
fn the_f_state_is_the_deepest_that_latency_residency_and_wake_allow() {
    const LATENCY: &str = "ioctl i 0x222018 in u32:0 + u32:0 +";
    const RESIDENCY: &str = "ioctl i 0x222018 in u32:1 + u32:0 +";
    const WAKE: &str = "ioctl i 0x222018 in u32:2 + u32:0 +";
    let script = format!(
        "{}
         {LATENCY} u32:99999; {}
         {LATENCY} u32:9999; {}
         {LATENCY} u32:100000; {}
         {RESIDENCY} u32:100000; {}
         {RESIDENCY} u32:1000000; {}
         {WAKE} u32:1; {}
         {WAKE} u32:0; {}
         peek pci#0 bar0+20 expect u32:2",
        stays_in_d0(),
        expect_calls("S00* S01* "),
        expect_calls("S00* "),
        expect_calls("S02* "),
        expect_calls("S00* S01* "),
        expect_calls("S00* S02* "),
        expect_calls("S00* S01* "),
        expect_calls("S00* S02* "),
    );
    run("idle", &script).expect_clean();
}

#[test]
fn the_device_stays_in_d0_until_its_idle_time_is_over_and_activity_begins_it_again() {
    let script = format!(
        "{}
         ioctl i 0x222018 in u32:3 + u32:0 + u32:600000
         ioctl i 0x222008 in u32:0 out 4
         wait 40ms
         ioctl i 0x222008 in u32:0 out 4
         wait 40ms
         ioctl i 0x222014 out 512 expect text:\"R u A0 I0 S02 S12* S00 A0 I0 S02 \"
         wait 40ms
         ioctl i 0x222014 out 512 expect text:\"N d \"",
        expect_calls(GOES_IDLE),
    );
    run("idle", &script).expect_clean();
}

/// Not: pofx-nothing-outstanding
#[test]
fn answers_that_come_later_are_waited_for() {
    let script = format!(
        "{}
         ioctl i 0x22201c in u32:100000
         ioctl i 0x22200c in u32:0 + u32:2
         wait 1ms
         ioctl i 0x222014 out 512 expect text:\"S00* \"
         wait 40ms
         ioctl i 0x222014 out 512 expect text:\"A0* \"
         ioctl i 0x222010 in u32:0 + u32:0
         ioctl i 0x22200c in u32:0 + u32:0
         wait 1ms
         ioctl i 0x222014 out 512 expect text:\"I0 \"
         wait 40ms
         ioctl i 0x222014 out 512 expect text:\"A0* \"
         ioctl i 0x222010 in u32:0 + u32:1
         ioctl i 0x222014 out 512 expect text:\"I0 S02 \"
         wait 40ms",
        stays_in_d0(),
    );
    run("idle", &script).expect_clean();
}

#[test]
fn a_component_is_active_after_those_it_depends_on_and_idle_before_them() {
    let script = format!(
        "wait 1ms
         ioctl i 0x222014 out 512 expect text:\"I1* S12* I0* S02* N d \"
         ioctl i 0x222018 in u32:3 + u32:0 + u32:0x3fffffff
         ioctl i 0x222008 in u32:1 out 4
         {}
         ioctl i 0x222008 in u32:1 out 4
         {}
         ioctl i 0x222008 in u32:0 out 4
         {}",
        expect_calls("R u A0* A1 I1 S12 I0* S02* "),
        expect_calls("S00* A0* S10 A1 I1 S12 I0* S02* "),
        expect_calls("S00 A0 I0 S02 "),
    );
    run("idle_depends", &script).expect_clean();
}

#[test]
fn a_component_that_is_to_be_in_f0_when_the_device_goes_down_goes_there_first() {
    let script = format!(
        "{}
         ioctl i 0x222000 in u32:0 + u32:0x1234
         {}
         power s3
         power s0
         ioctl i 0x222004 in u32:0 out 4 expect u32:0x1234",
        expect_calls("I0* S02* I1* S12* N S00* d "),
        expect_calls("R u A0* I0* S02* S12* N S00* d "),
    );
    run("idle_kept", &script).expect_clean();
}

#[test]
fn before_sleep_the_components_are_activated_and_after_it_the_device_goes_idle_again() {
    for sleep in ["s1", "s3", "s4"] {
        let script = format!(
            "{}
             ioctl i 0x222000 in u32:1 + u32:0x77
             {}
             power {sleep}
             ioctl i 0x222014 out 512 expect text:\"R u A0* A1* d \"
             async r ioctl i 0x222004 in u32:1 out 4
             wait 1ms
             expect pending r
             power s0
             join r expect u32:0x77
             {}",
            expect_calls(GOES_IDLE),
            expect_calls("R u S02* A1* I1* S12* N d "),
            expect_calls("u I0* S02* I1* S12* N d "),
        );
        run("idle", &script).expect_clean();
    }
}

#[test]
fn a_system_that_does_not_activate_components_before_it_sleeps_is_answered_too() {
    let machine = start(|| bench("idle").chooser(Otherwise("po.fx_sleep")));
    let script = format!(
        "{}
         power s3
         ioctl i 0x222014 out 512 expect text:\"d \"
         async r ioctl i 0x222004 in u32:0 out 4
         wait 1ms
         expect pending r
         power s0
         join r expect u32:0
         {}",
        expect_calls(GOES_IDLE),
        expect_calls("u A0* I0* S02* S12* N d "),
    );
    played(machine, &script).expect_clean();
}

/// Not: pofx-still-registered
#[test]
fn a_card_that_is_pulled_out_ends_what_waits_for_it() {
    for before in ["", "wait 1ms;", "ioctl i 0x222018 in u32:3 + u32:0 + u32:0x3fffffff; wait 1ms;"] {
        run("idle", &format!("{before} surprise-remove; close i")).expect_clean();
        run("idle", &format!("{before} close i; surprise-remove")).expect_clean();
        run(
            "idle",
            &format!("{before} async r ioctl i 0x222004 in u32:0 out 4; surprise-remove; join r; close i"),
        )
        .expect_clean();
        run(
            "idle",
            &format!("{before} t: ioctl i 0x222008 in u32:0 out 4; surprise-remove; join t; close i"),
        )
        .expect_clean();
    }
}

#[test]
fn a_device_that_is_stopped_and_started_is_registered_again() {
    let script = format!(
        "{}
         ioctl i 0x222000 in u32:0 + u32:5
         stop-device; start-device
         ioctl i 0x222004 in u32:0 out 4 expect u32:5
         close i; remove-device",
        expect_calls(GOES_IDLE),
    );
    run("idle", &script).expect_clean();
}

#[test]
fn a_device_that_was_turned_on_beside_another_goes_down_again() {
    let script = format!(
        "{}
         ioctl i 0x222024
         {}",
        expect_calls(GOES_IDLE),
        expect_calls("S02* S12* N d "),
    );
    // The card was not turned on: the driver writes to one that is in D3.
    let report = run("idle", &script);
    let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    assert!(rules.iter().all(|rule| *rule == "card-without-power") && !rules.is_empty(), "{report}");
}

#[test]
fn a_device_that_is_directed_down_stays_there_with_its_requests_until_it_is_directed_up() {
    for before in
        ["wait 1ms", "ioctl i 0x222018 in u32:3 + u32:0 + u32:0x3fffffff; ioctl i 0x222008 in u32:0 out 4"]
    {
        let script = format!(
            "{before}
             power directed-down expect success
             power directed-down expect STATUS_INVALID_DEVICE_STATE
             async w ioctl i 0x222000 in u32:0 + u32:9
             async r ioctl i 0x222004 in u32:1 out 4
             wait 10ms
             expect pending w
             expect pending r
             ioctl i 0x222014 out 512
             power directed-up expect success
             join w; join r expect u32:0
             ioctl i 0x222004 in u32:0 out 4 expect u32:9
             power directed-up expect STATUS_INVALID_DEVICE_STATE"
        );
        run("idle_directed", &script).expect_clean();
    }
    let calls = format!(
        "{}; power directed-down; {}; power directed-up; {}",
        expect_calls(GOES_IDLE),
        expect_calls("D d "),
        expect_calls("U u S02* S12* N d ")
    );
    run("idle_directed", &calls).expect_clean();
    run("idle", "power directed-down expect STATUS_NOT_SUPPORTED").expect_clean();
}

#[test]
fn a_driver_that_does_not_answer_directed_power_is_told_after_ten_minutes() {
    let machine = machine("idle_directed");
    assert!(try_play(&machine, r"open \\.\Idle as i; ioctl i 0x222028; power directed-down").is_err());
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "directed-power-overdue");
    let bug_check = verdict.bug_check.unwrap();
    assert_eq!((bug_check.code, bug_check.parameters[0]), (0x9F, 5));
    let message = &verdict.message;
    assert!(message.contains("pci#0") && message.contains("PoFxCompleteDirectedPowerDown"), "{message}");
}

#[test]
fn a_driver_that_answers_directed_power_and_does_nothing_is_told() {
    // The device is kept in D0 by a component that is active, and in D3 by being directed there.
    let active = "ioctl i 0x22200c in u32:0 + u32:0; wait 1ms";
    for (script, down) in [
        (format!("{active}; ioctl i 0x222028 in u32:1; power directed-down"), 1),
        ("ioctl i 0x222028 in u32:2; power directed-down; power directed-up".to_owned(), 0),
    ] {
        let machine = machine("idle_directed");
        assert!(try_play(&machine, &format!(r"open \\.\Idle as i; {script}")).is_err(), "{script}");
        let report = machine.finish();
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, "directed-power-not-done");
        let bug_check = verdict.bug_check.unwrap();
        let [kind, _, what, _] = bug_check.parameters;
        assert_eq!((bug_check.code, kind, what), (0x9F, 6, down), "{}", verdict.message);
    }
}

/// Not: directed-power-overdue, directed-power-not-done
#[test]
fn a_device_may_be_directed_down_for_hours() {
    run("idle_directed", "wait 1ms; power directed-down; wait 3600s; power directed-up").expect_clean();
}

/// Requests for both components from several threads, while the device goes down and comes up again.
const MIXED: &str = r"open \\.\Idle as i overlapped
    t: ioctl i 0x222000 in u32:0 + u32:1
    u: ioctl i 0x222008 in u32:1 out 4
    async r ioctl i 0x222004 in u32:0 out 4
    async s ioctl i 0x222004 in u32:1 out 4
    t: ioctl i 0x222008 in u32:0 out 4 expect u32:1
    u: ioctl i 0x22200c in u32:1 + u32:0; u: ioctl i 0x222010 in u32:1 + u32:0
    join r; join s; join t; join u
    ioctl i 0x222004 in u32:0 out 4 expect u32:1
    close i";

#[test]
fn random_schedules_lose_no_request_and_touch_no_card_without_power() {
    for sys in ["idle", "idle_depends", "idle_kept", "idle_directed"] {
        for seed in rig::seeds(20) {
            let policy = Policy::random(seed);
            let machine = start(|| bench(sys).processors(2).checked(seed % 4 == 0).policy(policy));
            let ends = match seed % 4 {
                0 => "surprise-remove",
                1 => "power s3; power s0",
                2 => "stop-device; start-device; remove-device",
                _ => "power directed-down; power directed-up",
            };
            let ends = if sys == "idle_directed" || seed % 4 != 3 { ends } else { "wait 1ms" };
            let played = try_play(&machine, &format!("{MIXED}; {ends}"));
            let report = machine.finish();
            assert!(played.is_ok(), "{sys}, seed {seed}: {played:?}\n{report}");
            assert_eq!(report.outcome(), Outcome::Clean, "{sys}, seed {seed}\n{report}");
        }
    }
}

/// The search does not end: of an activation alone there are 460 schedules of one preemption, and more than 3,000 of two.
#[test]
fn no_schedule_of_two_preemptions_loses_a_request() {
    let script = r"open \\.\Idle as i overlapped
        t: ioctl i 0x222008 in u32:0 out 4
        async r ioctl i 0x222004 in u32:0 out 4
        join r; join t; close i";
    let play = ScriptText::typed(script).play().unwrap();
    let bounds = Bounds { schedules: rig::wanted("DIRQL_SCHEDULES", 60), ..Bounds::default() };
    let broken = |report: &Report| report.outcome() != Outcome::Clean;
    let bench = bench("idle").processors(2);
    let searched = bench.search(&play, &bounds, broken).unwrap_or_else(|error| panic!("{error}"));
    if let Some((choices, report)) = &searched.found {
        panic!("{choices:#?}\n{report}");
    }
}

/// What the driver answers, or asks, and what the bug check for it says in its last two parameters.
const MISTAKES: [(&str, &str, u64, u64, u64); 7] = [
    ("ioctl i 0x222020 in u32:0", "pofx-nothing-outstanding", 0x613, 1, 2),
    ("ioctl i 0x222020 in u32:2", "pofx-nothing-outstanding", 0x613, 0, 0),
    ("ioctl i 0x222020 in u32:3", "pofx-nothing-outstanding", 0x613, 0, 1),
    ("ioctl i 0x22200c in u32:0 + u32:0x20000001", "pofx-illegal-parameter", 0x614, 0, 0),
    ("ioctl i 0x222010 in u32:1 + u32:3", "pofx-illegal-parameter", 0x614, 1, 1),
    ("ioctl i 0x22200c in u32:2 + u32:0", "pofx-illegal-parameter", 0x614, 2, 2),
    ("ioctl i 0x222010 in u32:1 + u32:0", "pofx-idle-without-active", 0x608, 0, 0),
];

#[test]
fn mistakes_are_told_with_the_parameters_of_their_bug_check() {
    for (mistake, rule, kind, third, fourth) in MISTAKES {
        let machine = machine("idle");
        let played = try_play(&machine, &format!(r"open \\.\Idle as i; wait 1ms; {mistake}"));
        let report = machine.finish();
        assert!(played.is_err(), "{mistake}\n{report}");
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, rule, "{mistake}\n{report}");
        let bug_check = verdict.bug_check.unwrap();
        let [first, _, last @ ..] = bug_check.parameters;
        assert_eq!((bug_check.code, first, last), (0xA0, kind, [third, fourth]), "{mistake}\n{report}");
        assert!(verdict.message.contains("pci#0"), "{}", verdict.message);
    }
}

/// No page says what Windows does with these.
#[test]
fn answers_whose_bug_check_is_not_documented_are_warnings() {
    for answer in [1, 4] {
        let report = run("idle_directed", &format!("wait 1ms; ioctl i 0x222020 in u32:{answer}"));
        let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, ["pofx-nothing-outstanding"], "{report}");
    }
}

/// Story by story, what holds of it.
const STORIES: [(&str, &str, u32); 10] = [
    ("Descriptions", "descriptions", 8),
    ("Dependencies", "dependencies", 8),
    ("Callbacks", "callbacks", 4),
    ("Directed", "directed power", 3),
    ("Silent", "a device without callbacks", 1),
    ("BeforeStart", "before power management starts", 6),
    ("Counted", "activations are counted", 8),
    ("Control", "power control", 6),
    ("PerfRegistrations", "performance states", 12),
    ("PerfChanges", "their changes", 10),
];

#[test]
fn registrations_activations_and_performance_states_are_as_their_pages_say() {
    for thread in [None, Some("po.fx_thread")] {
        for (story, name, held) in STORIES {
            let machine = start(|| {
                let bench =
                    Bench::new().driver(driver("pofx.sys")).device("pci,id=abcd:0004,bar0=mem:128,irq");
                match thread {
                    Some(point) => bench.chooser(Otherwise(point)),
                    None => bench,
                }
            });
            let script = format!(r"open \\.\Fx as f; {} expect u32:0 + u32:{held}", rig::command("f", story));
            let played = try_play(&machine, &script);
            let prints = machine.prints().join("\n");
            let report = machine.finish();
            assert!(played.is_ok(), "{name}, {thread:?}: {played:?}\n{prints}\n{report}");
            report.expect_clean();
        }
    }
}
