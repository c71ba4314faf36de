//! Stories of drivers that a framework drives: clients of KMDF of several versions (`drivers/c/kmdf_*.c`) and a stand-in framework
//! (`drivers/c/framework.c`), from binding to unloading.

use std::path::{Path, PathBuf};

use dirql::explore::{Bounds, Policy};
use dirql::{Bench, Machine, ScriptText};

use super::rig::failures::{Failing, whichever_fails};
use super::rig::kmdf::{
    CLASSED_LIFE, Client, ECHO_LIFE, ECHO_PULLED_OUT, ECHOES, EDU_LIFE, EDU_PULLED_OUT, EDUS, FAULTIES,
    FORGETFUL, MINIPORTS, NOT_OWNERS, OPEN_ECHO, SELF_CHECKED, STORIES, classed, client, echo, echo_on, edu,
    edu_on, inf, mistake_before, mistake_on, on_each_framework, real, run, stand_in,
};
use super::rig::{self, driver, finish, play, printed, start, try_play};

#[test]
fn clients_of_every_version_serve_their_devices_by_the_table_that_they_are_given() {
    for (framework, of) in on_each_framework(&ECHOES, &ECHOES) {
        let report = run(
            || echo_on(&framework, of),
            &format!(
                r#"{OPEN_ECHO}
                write e text:"what is kept"; read e 100 expect text:"what is kept"
                ioctl e 0x222000 in text:back out 10 expect text:back
                ioctl e 0x222010 in text:"by a work item" out 20 expect text:"by a work item"
                close e"#
            ),
        );
        // At the end of a run the device is stopped and started once more.
        let life = [
            "D0 from 4",
            "to D4",
            "D0 from 4",
            "to D4",
            "cleaned up after 2 entries and 2 exits",
            "unloaded",
        ];
        let printed = printed(&report, "echo: D0 from 4");
        assert_eq!(printed[..6], life.map(|line| format!("echo: {line}")), "{of:?}: {report}");
    }
}

#[test]
fn a_late_request_ends_by_its_timer_or_is_cancelled_and_waits_while_power_is_off() {
    for (framework, of) in on_each_framework(&ECHOES, &ECHOES) {
        run(
            || echo_on(&framework, of),
            &format!(
                "{OPEN_ECHO}
                async r ioctl e 0x222004 in u32:5; wait 1ms; expect pending r; join r
                async s ioctl e 0x222004 in u32:5; async t ioctl e 0x222004 in u32:1
                wait 1ms; cancel s; join s expect STATUS_CANCELLED; join t
                async u ioctl e 0x222004 in u32:5
                wait 1ms; power s3; wait 1ms; expect pending u; power s0; join u
                ioctl e 0x222014 out 20 expect u32:2 + u32:1 + u32:1 + u32:1 + u32:0
                close e"
            ),
        );
    }
}

#[test]
fn requests_of_a_manual_queue_wait_until_the_driver_takes_them_or_they_are_cancelled() {
    for (framework, of) in on_each_framework(&ECHOES[1..2], &ECHOES) {
        run(
            || echo_on(&framework, of),
            &format!(
                "{OPEN_ECHO}
                ioctl e 0x22200c in text:no expect STATUS_NO_MORE_ENTRIES
                async r ioctl e 0x222008 out 8; async s ioctl e 0x222008 out 8; async t ioctl e 0x222008 out 8
                wait 1ms; cancel s; join s expect STATUS_CANCELLED
                ioctl e 0x22200c in text:one; join r expect text:one
                ioctl e 0x22200c in text:two; join t expect text:two
                async u ioctl e 0x222008 out 8
                close e; join u expect STATUS_CANCELLED"
            ),
        );
    }
}

#[test]
fn power_managed_queues_hold_requests_until_the_device_is_in_d0_again() {
    for (framework, of) in on_each_framework(&ECHOES[1..2], &ECHOES) {
        for (down, up) in [("power s3", "power s0"), ("stop-device", "start-device")] {
            run(
                || echo_on(&framework, of),
                &format!(
                    "{OPEN_ECHO}
                    write e text:before
                    {down}
                    async w write e text:after; async r read e 10
                    wait 1ms; expect pending w; expect pending r
                    {up}
                    join w; join r expect text:after
                    close e"
                ),
            );
        }
    }
}

#[test]
fn no_one_but_the_framework_changes_the_power_state_of_its_clients_devices() {
    let machine = start(|| echo(ECHOES[1]));
    let refused = try_play(&machine, "power d3").unwrap_err().to_string();
    assert!(refused.contains("the framework owns its power policy"), "{refused}");
    assert!(machine.finish().verdict.is_none());
}

/// What the owner of the power policy would do, the script does.
#[test]
fn a_device_whose_driver_has_given_up_its_power_policy_follows_the_owner() {
    for (framework, of) in on_each_framework(&NOT_OWNERS[..1], &NOT_OWNERS[..1]) {
        for (down, up) in [("power d3", "power d0"), ("power d3; power s3", "power s0; power d0")] {
            let report = run(
                || echo_on(&framework, of),
                &format!(
                    "{OPEN_ECHO}
                    async u ioctl e 0x222004 in u32:50; wait 1ms
                    {down}
                    async w write e text:after; async r read e 10
                    wait 1ms; expect pending w; expect pending r
                    {up}
                    join w; join r expect text:after; join u
                    ioctl e 0x222014 out 20 expect u32:2 + u32:1 + u32:1 + u32:1 + u32:0
                    close e"
                ),
            );
            let printed = printed(&report, "echo: D0 from 4");
            assert_eq!(printed[..3], ["echo: D0 from 4", "echo: to D3", "echo: D0 from 3"], "{report}");
        }
    }
    for (framework, of) in on_each_framework(&NOT_OWNERS[1..], &NOT_OWNERS[1..]) {
        run(|| edu_on(&framework, of), &edu_that_has_slept("power d3; power d0"));
    }
}

/// A factorial before the device is out of power, and one when it has come back, which the driver has seen.
fn edu_that_has_slept(how: &str) -> String {
    format!(
        r"open \\.\KmdfEdu as e
        ioctl e 0x223000 in u32:5 out 4 expect u32:120; ioctl e 0x223000 in u32:4 out 4 expect u32:24
        {how}
        ioctl e 0x223000 in u32:6 out 4 expect u32:720
        ioctl e 0x223004 out 24 expect u32:{} + u32:3 + u32:0 + u32:1 + u32:2 + u32:2
        close e",
        !0x1234_5678_u32
    )
}

#[test]
fn the_systems_sleep_changes_no_device_whose_power_policy_has_no_owner() {
    for (framework, of) in on_each_framework(&NOT_OWNERS[..1], &NOT_OWNERS[..1]) {
        run(
            || echo_on(&framework, of),
            &format!(
                "{OPEN_ECHO}
                async u ioctl e 0x222004 in u32:5; wait 1ms; power s3; wait 1ms; power s0; join u
                ioctl e 0x222014 out 20 expect u32:1 + u32:0 + u32:0 + u32:0 + u32:0
                close e"
            ),
        );
    }
}

/// A WDM driver above a client that has given up the power policy, which sends the device to D3 and back as the system sleeps and wakes.
#[test]
fn a_filter_that_owns_the_power_policy_sends_the_clients_device_to_its_states() {
    const KEYS: &str = "[Edu.Hardware.AddReg]\n";
    const SERVICES: &str = "[Edu.Install.NT.Services]\n";
    let inf = |(sys, version)| {
        rig::changed_inf("kmdf-filtered", "kmdf_edu.inf", |text| {
            assert!(text.contains(KEYS) && text.contains(SERVICES));
            let text = text.replace(KEYS, &format!("{KEYS}HKR,,UpperFilters,0x00010000,\"LayerX\"\n"));
            let text = text.replace(SERVICES, &format!("{SERVICES}AddService = LayerX,,Filter\n"));
            let filter = "\n[Filter]\nServiceType = 1\nStartType = 3\nErrorControl = 1\nServiceBinary = %13%\\layer_owner.sys\n";
            text.replace("kmdf_edu.sys", &format!("{sys}.sys")).replace("1.15", version) + filter
        })
    };
    for (framework, of) in on_each_framework(&NOT_OWNERS[1..], &NOT_OWNERS[1..]) {
        let inf = inf(of);
        for seed in rig::seeds(2) {
            let bench = || {
                let bench = Bench::new().driver(driver(&format!("{}.sys", of.0))).framework(&framework);
                let bench = bench.inf(&inf).with(driver("layer_owner.sys")).device("edu,factorial=25us");
                if seed == 0 { bench } else { bench.processors(2).policy(Policy::random(seed)) }
            };
            run(bench, &edu_that_has_slept("power s3; power s0"));
            run(bench, &edu_that_has_slept("power d3; power d0"));
        }
    }
}

/// A client above a WDM function driver.
#[test]
fn a_clients_framework_owns_the_power_policy_that_a_filter_has_asked_for() {
    let inf = rig::changed_inf("kmdf-filter", "layer.inf", |text| {
        text.replace("filter.sys", "kmdf_echo_owner.sys")
    });
    let machine = start(|| {
        let bench = Bench::new().driver(driver("layer.sys")).with(driver("kmdf_echo_owner.sys"));
        bench.inf(&inf).device("pci9052").framework(stand_in())
    });
    let refused = try_play(&machine, "power d3").unwrap_err().to_string();
    assert!(refused.contains("the framework owns its power policy"), "{refused}");
    play(&machine, "power s3; power s0");
    let report = machine.finish();
    assert!(report.verdict.is_none(), "{report}");
    assert_eq!(printed(&report, "echo: to D3")[..2], ["echo: to D3", "echo: D0 from 3"], "{report}");
}

/// What belongs to its driver's object goes with that, before the miniport is unloaded; else the framework deletes it when the miniport is unbound.
#[test]
fn a_miniport_deletes_its_drivers_object_when_its_port_driver_unloads_it() {
    let live = |framework: &Path, (sys, _): Client, checked| {
        let report = run(
            || Bench::new().driver(driver(&format!("{sys}.sys"))).framework(framework).checked(checked),
            r"open \\.\KmdfMiniport as m
            ioctl m 0x222000 out 4 expect u32:1; ioctl m 0x222000 out 4 expect u32:2; close m",
        );
        assert!(report.findings.is_empty(), "{report}");
        let said = report.prints.iter().filter_map(|line| line.trim_end().strip_prefix("miniport: "));
        said.map(str::to_owned).collect::<Vec<_>>()
    };
    const ITS_CALLBACK: &str = "EvtDriverUnload";
    for checked in [false, true] {
        for (framework, of) in on_each_framework(&MINIPORTS, &MINIPORTS) {
            let mut said = live(&framework, of, checked);
            // The page says so; Microsoft's framework of KMDF 1.7 does not.
            let is_called = said.first().is_some_and(|first| first == ITS_CALLBACK);
            assert!(is_called || framework != stand_in());
            said.retain(|line| line != ITS_CALLBACK);
            assert_eq!(said, ["counted to 2", "unloaded"], "{of:?}");
        }
        for (framework, of) in on_each_framework(&FORGETFUL, &FORGETFUL) {
            assert_eq!(live(&framework, of, checked), ["unloaded", "counted to 2"], "{of:?}");
        }
    }
}

#[test]
fn the_tree_shows_what_a_client_has_asked_its_framework_for() {
    for (framework, of) in on_each_framework(&EDUS, &EDUS) {
        let machine = start(|| edu_on(&framework, of));
        let tree = machine.tree().unwrap();
        finish(machine);
        let client = tree.iter().position(|line| *line == format!("    kmdf_edu: KMDF {}", of.1));
        let lines = &tree[client.unwrap_or_else(|| panic!("{tree:#?}")) + 1..];
        for wanted in [
            "driver: EvtDriverDeviceAdd @!OnDeviceAdd",
            "interrupt: EvtInterruptIsr @!OnInterrupt, EvtInterruptDpc @!OnDpc, EvtInterruptEnable @!OnEnable, EvtInterruptDisable @!OnDisable",
            "queue: EvtIoDeviceControl @!OnControl, EvtIoStop @!OnStop",
            "queue: EvtIoDefault @!OnState",
        ] {
            let wanted = format!("      {}", wanted.replace('@', &format!("{}.sys", of.0)));
            assert!(lines.contains(&wanted), "{wanted}: {tree:#?}");
        }
    }
}

/// What happens to a device in its life, from which it comes back.
const TRIPS: [&str; 6] = [
    "power s3; power s0",
    "power s4; power s0",
    "stop-device; start-device",
    "stop-device; start-device elsewhere",
    "query-stop; cancel-stop",
    "stop-device; start-device; power s1; power s0",
];

#[test]
fn a_device_with_an_interrupt_is_stopped_put_to_sleep_and_started_again() {
    for (framework, of) in on_each_framework(&EDUS, &EDUS) {
        for trip in TRIPS {
            run(
                || edu_on(&framework, of),
                &format!(
                    r"open \\.\KmdfEdu as e
                    ioctl e 0x223000 in u32:5 out 4 expect u32:120
                    {trip}
                    ioctl e 0x223000 in u32:6 out 4 expect u32:720
                    ioctl e 0x223004 out 24 expect prefix u32:{}
                    close e",
                    !0x1234_5678_u32
                ),
            );
        }
    }
}

#[test]
fn a_device_that_is_pulled_out_ends_its_requests_and_goes_when_its_files_are_closed() {
    for removal in ["surprise-remove", "surprise-remove; close e", "remove-device"] {
        let close = if removal.contains("close") || removal == "remove-device" { "" } else { "close e" };
        let open = if removal == "remove-device" { "" } else { r"open \\.\KmdfEdu as e" };
        let asked =
            if removal == "remove-device" { "" } else { "ioctl e 0x223000 in u32:5 out 4 expect u32:120" };
        run(|| edu(EDUS[1]), &format!("{open}\n{asked}\n{removal}\n{close}"));
    }
    run(
        || edu(EDUS[1]),
        r"open \\.\KmdfEdu as e overlapped
        async r ioctl e 0x223000 in u32:5 out 4
        wait 5us; surprise-remove; join r expect STATUS_NO_SUCH_DEVICE
        ioctl e 0x223000 in u32:5 out 4 expect any
        close e",
    );
    for (framework, of) in on_each_framework(&ECHOES[1..2], &ECHOES) {
        // What waits in a queue that power management does not hold, waits on.
        run(
            || echo_on(&framework, of),
            &format!(
                "{OPEN_ECHO}
                async r ioctl e 0x222004 in u32:5; async s ioctl e 0x222008 out 4; wait 1ms
                surprise-remove dirqlkmdfecho#0
                join r expect STATUS_CANCELLED; wait 1ms; expect pending s
                cancel s; join s expect STATUS_CANCELLED
                close e"
            ),
        );
    }
}

#[test]
fn clients_live_their_whole_lives_in_random_schedules() {
    for seed in rig::seeds(8) {
        for checked in [false, true] {
            let how = |bench: Bench| bench.processors(2).policy(Policy::random(seed)).checked(checked);
            let at = usize::try_from(seed).unwrap();
            run(|| how(echo(ECHOES[at % ECHOES.len()])), ECHO_LIFE);
            run(|| how(edu(EDUS[at % EDUS.len()])), EDU_LIFE);
        }
    }
}

/// What other stories here do on each framework, they have done on Microsoft's only if there is one.
#[test]
fn clients_live_their_whole_lives_on_a_framework_of_microsofts_too_where_one_is_named() {
    if real().is_none() {
        return eprintln!("not run on a framework of Microsoft's: DIRQL_WDF01000 names none");
    }
    for seed in rig::seeds(8) {
        let how = |bench: Bench| bench.processors(2).policy(Policy::random(seed)).checked(seed % 2 == 0);
        for (framework, of) in on_each_framework(&[], &ECHOES) {
            run(|| how(echo_on(&framework, of)), ECHO_LIFE);
        }
        for (framework, of) in on_each_framework(&[], &EDUS) {
            run(|| how(edu_on(&framework, of)), EDU_LIFE);
        }
    }
}

#[test]
fn a_client_that_is_newer_than_its_framework_is_refused_unless_an_older_one_will_do() {
    let newer = |framework, of| client(&driver(&format!("{framework}.sys")), "kmdf_echo", of).start();
    for (framework, of) in
        [("framework_1_15", ECHOES[2]), ("framework_1_15", ECHOES[3]), ("framework_1_25", ECHOES[2])]
    {
        let refused = newer(framework, of)
            .map(Machine::finish)
            .map_or_else(|error| error.to_string(), |report| report.to_string());
        assert!(refused.contains("STATUS_REVISION_MISMATCH"), "{framework} {of:?}: {refused}");
        assert_eq!(
            refused.matches("it needs a newer Wdf01000.sys").count(),
            1,
            "{framework} {of:?}: {refused}"
        );
    }
    let script = format!("{OPEN_ECHO}\nioctl e 0x222000 in text:back out 10 expect text:back\nclose e");
    for (framework, of) in
        [("framework_1_15", ECHOES[0]), ("framework_1_15", ECHOES[1]), ("framework_1_25", ECHOES[3])]
    {
        run(|| client(&driver(&format!("{framework}.sys")), "kmdf_echo", of), &script);
    }
}

/// By its number: a mistake, the rule that it breaks in a machine that is not checked, and in one that is.
const MISTAKES: [(&str, &str, &str); 19] = [
    ("completes twice", "driver-bug-check", "use-after-free"),
    ("never completes", "irp-never-completed", "irp-never-completed"),
    ("completes while cancelable", "cancel-routine-set", "cancel-routine-set"),
    ("waits at DISPATCH_LEVEL", "wait-at-raised-irql", "wait-at-raised-irql"),
    ("uses a deleted handle", "driver-bug-check", "use-after-free"),
    ("uses a handle of another type", "driver-bug-check", "driver-bug-check"),
    ("calls what is missing", "driver-bug-check", "driver-bug-check"),
    ("returns with a spin lock", "spin-lock-held-on-return", "spin-lock-held-on-return"),
    ("says that it has returned too much", "information-too-large", "information-too-large"),
    ("waits for a timer at DISPATCH_LEVEL", "irql-too-high", "irql-too-high"),
    ("acquires twice", "spin-lock-recursion", "spin-lock-recursion"),
    ("completes NULL", "driver-bug-check", "driver-bug-check"),
    ("writes a freed context", "write-after-free", "use-after-free"),
    ("drops the last reference", "driver-bug-check", "driver-bug-check"),
    ("releases a spin lock that it does not hold", "spin-lock-not-held", "spin-lock-not-held"),
    ("waits for a wait lock that it holds", "irp-never-completed", "irp-never-completed"),
    ("breaks into the debugger", "breakpoint", "breakpoint"),
    ("stops the system", "driver-bug-check", "driver-bug-check"),
    ("wants a callback that is missing", "driver-bug-check", "driver-bug-check"),
];

#[test]
fn what_is_done_right_by_the_same_calls_is_clean() {
    for (number, (what, ..)) in MISTAKES.iter().enumerate() {
        for checked in [false, true] {
            let report = mistake_before(&[], number, false, checked);
            report.expect_clean();
            assert_eq!(report.sums.still_allocated(), 0, "{what}: {report}");
        }
    }
}

#[test]
fn mistakes_of_a_client_end_in_their_verdicts() {
    for (number, (what, plainly, checked)) in MISTAKES.into_iter().enumerate() {
        assert_eq!(mistake_before(&[], number, true, false).verdict.unwrap().rule, plainly, "{what}");
        assert_eq!(mistake_before(&[], number, true, true).verdict.unwrap().rule, checked, "{what}, checked");
    }
}

/// Those that need what only the stand-in lacks, or what Microsoft's framework does by its verifier only.
const NOT_ON_EACH: [usize; 3] = [6, 16, 18];

#[test]
fn a_client_of_an_older_version_makes_the_same_mistakes_on_each_framework() {
    for (framework, of) in on_each_framework(&FAULTIES[1..], &FAULTIES) {
        for (number, (what, _, rule)) in MISTAKES.into_iter().enumerate() {
            if !NOT_ON_EACH.contains(&number) {
                let commit = |wrong| mistake_on(&framework, of, &[], number, wrong, true);
                commit(false).expect_clean();
                assert_eq!(commit(true).verdict.unwrap().rule, rule, "{what}, on {}", framework.display());
            }
        }
    }
}

#[test]
fn what_a_framework_does_for_its_client_is_told_as_the_clients() {
    let commit =
        |framework: &Path, of, number| mistake_on(framework, of, &[], number, true, true).verdict.unwrap();
    // Its function has jumped there, and is no frame of the stack.
    let message = commit(&stand_in(), FAULTIES[0], 16).message;
    let who = "the framework, in WdfVerifierDbgBreakPoint, which kmdf_faulty.sys!";
    assert!(message.starts_with(&format!("DbgBreakPoint was called by {who}")), "{message}");
    for (framework, of) in on_each_framework(&FAULTIES[..1], &FAULTIES) {
        let message = commit(&framework, of, 17).message;
        let who = format!(", in WdfVerifierKeBugCheck, which {}.sys!", of.0);
        assert!(message.starts_with("the framework") && message.contains(&who), "{message}");
        assert!(message.contains("called, called KeBugCheckEx(0xe1, 0x2, 0x3, 0x4, 0x5)"), "{message}");
    }
}

/// A mistake of this number needs what the stand-in lacks, and the stand-in says so by its name.
fn expect_missing(number: usize, part: &str) {
    let report = mistake_before(&[], number, true, false);
    let says = format!("framework: {part}: missing");
    assert!(report.prints.iter().any(|line| line.trim_end() == says), "{report}");
}

#[test]
fn a_function_that_the_stand_in_lacks_says_its_name_and_stops() {
    expect_missing(6, "WdfCollectionCreate, number 13");
}

#[test]
fn a_callback_that_the_stand_in_lacks_says_its_name_and_stops() {
    expect_missing(18, "EvtDeviceUsageNotificationEx");
}

#[test]
fn a_class_extension_is_a_client_itself_and_serves_clients() {
    for seed in rig::seeds(8) {
        let report = run(
            || classed("kmdf_classed").policy(Policy::random(seed)).processors(2).checked(seed % 2 == 0),
            CLASSED_LIFE,
        );
        let life = [
            "initialized",
            "serves kmdf_classed",
            "serves kmdf_classed no more",
            "deinitialized",
            "unloaded",
        ];
        let printed: Vec<_> = printed(&report, "class: initialized")
            .into_iter()
            .filter(|line| line.starts_with("class"))
            .collect();
        assert_eq!(printed, life.map(|line| format!("class: {line}")), "{report}");
    }
    let refused = classed("kmdf_classed_newer").start();
    let refused =
        refused.map(Machine::finish).map_or_else(|error| error.to_string(), |report| report.to_string());
    assert!(refused.contains("STATUS_REVISION_MISMATCH"), "{refused}");
}

/// A machine with `kmdf_stories.sys`, where a request waits in its manual queue, and its device was opened once more before.
fn stories((framework, (sys, _)): &(PathBuf, Client), seed: u64, checked: bool) -> Machine {
    let machine = start(|| {
        let bench = Bench::new().driver(driver(&format!("{sys}.sys"))).framework(framework);
        let bench = bench.checked(checked).processors(2);
        if seed == 0 { bench } else { bench.policy(Policy::random(seed)) }
    });
    play(&machine, r"open \\.\KmdfStories as first; close first");
    machine
}

#[test]
fn functions_of_the_framework_answer_as_their_pages_say() {
    for on in on_each_framework(&STORIES, &STORIES) {
        for story in SELF_CHECKED {
            for (seed, checked) in [(0, false), (0, true), (1, false), (2, true)] {
                let how = format!("on {on:?} with seed {seed}");
                rig::tell(stories(&on, seed, checked), r"\\.\KmdfStories", story, 1, &how);
            }
        }
    }
}

#[test]
fn a_manual_queue_is_stopped_started_and_refilled() {
    for on in on_each_framework(&STORIES, &STORIES) {
        for (seed, checked) in [(0, true), (1, false), (2, true)] {
            let machine = stories(&on, seed, checked);
            let tell = rig::command("s", "AManualQueueIsStoppedStartedAndRefilled");
            play(
                &machine,
                &format!(
                    r"open \\.\KmdfStories as s overlapped
                    async r ioctl s 0x222004; wait 1ms
                    {tell} expect prefix u32:0
                    join r; close s"
                ),
            );
            finish(machine);
        }
    }
}

#[test]
fn a_file_that_the_driver_refuses_is_not_there() {
    let machine = stories(&(stand_in(), STORIES[0]), 0, true);
    play(
        &machine,
        r"open \\.\KmdfStories as a; open \\.\KmdfStories as b
        open \\.\KmdfStories as c expect STATUS_TOO_MANY_OPENED_FILES
        close a; close b",
    );
    finish(machine);
}

#[test]
fn clients_are_pulled_out_in_random_schedules() {
    for seed in rig::seeds(8) {
        for checked in [false, true] {
            let how = |bench: Bench| bench.processors(2).policy(Policy::random(seed)).checked(checked);
            for (framework, of) in on_each_framework(&ECHOES[1..2], &ECHOES) {
                run(|| how(echo_on(&framework, of)), ECHO_PULLED_OUT);
            }
            for (framework, of) in on_each_framework(&EDUS[..1], &EDUS) {
                run(|| how(edu_on(&framework, of)), EDU_PULLED_OUT);
            }
        }
    }
}

#[test]
fn whichever_call_fails_a_client_leaves_nothing_behind() {
    let echo_script = format!(
        "{OPEN_ECHO}
        async r ioctl e 0x222004 in u32:1; write e text:abc; ioctl e 0x222010 in text:work out 8
        power s3; power s0; stop-device; start-device; join r; close e"
    );
    let edu_script = r"open \\.\KmdfEdu as e; ioctl e 0x223000 in u32:5 out 4; power s3; power s0; stop-device; start-device
        ioctl e 0x223000 in u32:5 out 4; close e";
    let classed_script = r"open \\.\KmdfClassed as c; write c hex:02; read c 1; close c";
    for which in [Failing::One, Failing::All] {
        for (framework, of) in on_each_framework(&ECHOES[1..2], &ECHOES) {
            assert!(whichever_fails(|| echo_on(&framework, of), which, &echo_script) > 20);
        }
        for (framework, of) in on_each_framework(&EDUS[1..2], &EDUS) {
            assert!(whichever_fails(|| edu_on(&framework, of), which, edu_script) > 20);
        }
        assert!(whichever_fails(|| classed("kmdf_classed"), which, classed_script) > 15);
    }
}

#[test]
fn a_client_counts_its_interrupts_under_their_lock_and_keeps_the_count_while_it_sleeps() {
    run(
        || edu(EDUS[1]),
        &format!(
            r"open \\.\KmdfEdu as e
            ioctl e 0x223000 in u32:5 out 4 expect u32:120; ioctl e 0x223000 in u32:6 out 4 expect u32:720
            power s3; power s0
            ioctl e 0x223000 in u32:5 out 4 expect u32:120
            ioctl e 0x223004 out 24 expect u32:{} + u32:3 + u32:0 + u32:1 + u32:2 + u32:2
            close e",
            !0x1234_5678_u32
        ),
    );
}

#[test]
fn a_client_gets_its_interrupt_as_a_message_and_as_a_line() {
    const SUPPORTED: &str = "MSISupported,0x00010001,1";
    let line = rig::changed_inf("kmdf-line", "kmdf_edu.inf", |text| {
        assert!(text.contains(SUPPORTED));
        text.replace(SUPPORTED, "MSISupported,0x00010001,0")
    });
    for inf in [line, driver("kmdf_edu.inf")] {
        let bench = || {
            let bench = Bench::new().driver(driver("kmdf_edu.sys")).framework(stand_in());
            bench.inf(&inf).device("edu,factorial=25us")
        };
        run(
            bench,
            r"open \\.\KmdfEdu as e
            ioctl e 0x223000 in u32:5 out 4 expect u32:120; ioctl e 0x223000 in u32:6 out 4 expect u32:720
            close e",
        );
    }
}

#[test]
fn two_clients_of_different_versions_live_by_one_framework() {
    let report = run(
        || {
            edu(EDUS[0]).device("root").with(driver("kmdf_echo_1_33.sys")).inf(inf(
                "kmdf_echo",
                "kmdf_echo_1_33",
                "1.33",
            ))
        },
        &format!(
            r"{OPEN_ECHO}; open \\.\KmdfEdu as c
            a: ioctl c 0x223000 in u32:5 out 4 expect u32:120; ioctl e 0x222000 in text:back out 10 expect text:back
            join a; power s3; power s0
            ioctl c 0x223000 in u32:6 out 4 expect u32:720; close c; close e"
        ),
    );
    assert_eq!(report.prints.iter().filter(|line| line.contains("commissioned")).count(), 2, "{report}");
}

#[test]
fn a_race_with_a_cancellation_is_found_by_a_search_and_is_none_where_the_client_looks() {
    let script = ScriptText::typed(&format!(
        "{OPEN_ECHO}\nasync r ioctl e 0x222004 in u32:500\nwait 1ms
        a: cancel r; b: ioctl e 0x222018\njoin a; join b; join r expect any\nclose e"
    ));
    let found = |sys: &str, bounds: &Bounds| {
        let bench = echo((sys, "1.15")).processors(2).checked(true).unobserved();
        let searched = bench.search(&script.play().unwrap(), bounds, |report| report.verdict.is_some());
        let searched = searched.unwrap_or_else(|error| panic!("{error}"));
        println!("{sys}: {:?}, complete: {}", searched.schedules, searched.complete);
        searched.found.is_some()
    };
    let bounds = |schedules| Bounds { preemptions: 1, schedules, ..Bounds::default() };
    assert!(found("kmdf_echo_races", &bounds(1000)));
    assert!(!found("kmdf_echo", &bounds(100)));
}
