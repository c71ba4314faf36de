//! Stories of power: what a card holds when it comes back from a lower state, what its driver has to restore, and what the bus driver restores.

use dirql::explore::Policy;
use dirql::{Bench, Machine, Report};

use super::rig::{driver, finish, play, seeds, start, try_play};

/// The ways down and up again: the device alone, then the system.
const TRIPS: [&str; 4] =
    ["power d3; power d0", "power s3; power s0", "power s4; power s0", "power s1; power s0"];

fn machine(sys: &str, device: &str) -> Machine {
    start(|| {
        let bench = Bench::new().driver(driver(&format!("{sys}.sys"))).device(device);
        // A card that no model knows has no INF.
        if sys.starts_with("sheet") || matches!(sys, "wake" | "wake_forgets" | "idler") {
            bench
        } else {
            bench.inf(driver(&format!("{sys}.inf")))
        }
    })
}

fn run(sys: &str, device: &str, script: &str) -> Report {
    let machine = machine(sys, device);
    // What goes wrong stands in the report.
    let played = try_play(&machine, script);
    let report = machine.finish();
    assert!(played.is_ok(), "{played:?}\n{report}");
    report
}

/// A card whose data sheet is known: identification, enable and status registers, an interrupt.
const SHEET: &str = "pci,id=abcd:0001,bar0=mem:128,irq,reg0=0:5ee70001+10:cafe,status0=8,enable0=4,ack0=c";

#[test]
fn a_driver_that_restores_its_card_works_after_each_way_down_and_up() {
    for trip in TRIPS {
        let script = format!(
            r"open \\.\Sheet as s overlapped
              async w ioctl s 0x222000 out 8
              poke pci#0 irq 1
              join w expect u32:1 + u32:0xcafe
              poke pci#0 bar0+10 0x1234
              {trip}
              peek pci#0 bar0+4 expect u32:0xffffffff
              async v ioctl s 0x222000 out 8
              poke pci#0 irq 2
              join v"
        );
        run("sheet", SHEET, &script).expect_clean();
    }
}

#[test]
fn what_the_card_held_is_lost_in_d3_and_in_sleep_for_which_its_driver_sends_it_there() {
    for trip in TRIPS {
        let script = format!("poke pci#0 bar0+10 0x1234; {trip}; peek pci#0 bar0+10 expect u32:0xcafe");
        run("sheet", SHEET, &script).expect_clean();
    }
}

#[test]
fn a_driver_that_restores_nothing_waits_for_an_interrupt_that_its_card_does_not_let_through() {
    let script = r"open \\.\Sheet as s overlapped
          power d3; power d0
          peek pci#0 bar0+4 expect u32:0
          async v ioctl s 0x222000 out 8
          poke pci#0 irq 2
          wait 1ms
          expect pending v
          peek pci#0 bar0+8 expect u32:2
          ioctl s 0x222004 in u32:0xffffffff
          join v expect u32:2 + u32:0xcafe";
    run("sheet_forgets", SHEET, script);
}

#[test]
fn who_touches_a_card_without_power_is_told() {
    let script =
        r"open \\.\Sheet as s; power d3; ioctl s 0x222004 in u32:1; power d0; ioctl s 0x222004 in u32:1";
    let report = run("sheet", SHEET, script);
    let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["card-without-power"], "{report}");
    assert!(report.to_string().contains("pci#0, which is in D3: reads give ones"), "{report}");
}

#[test]
fn the_drivers_of_the_pci_9052_read_after_sleep_and_d3_what_they_write_then() {
    for (sys, device) in [("pci9052", r"\\.\Pci9052-0"), ("pciline", r"\\.\PciLine0")] {
        for trip in TRIPS {
            let script = format!(
                "open {device} as c
                 write c hex:0102 at 8; read c 2 at 8 expect hex:0102
                 {trip}
                 write c hex:3ca5 at 8; read c 2 at 8 expect hex:3ca5"
            );
            run(sys, "pci9052", &script).expect_clean();
        }
    }
}

/// Not: card-without-power
#[test]
fn requests_that_come_while_the_card_has_no_power_wait_until_it_has() {
    for (sys, device) in [("pci9052", r"\\.\Pci9052-0"), ("pciline", r"\\.\PciLine0")] {
        let script = format!(
            "open {device} as c overlapped
             power d3
             async w write c hex:3ca5 at 8
             wait 1ms
             expect pending w
             power d0
             join w
             read c 2 at 8 expect hex:3ca5"
        );
        run(sys, "pci9052", &script).expect_clean();
    }
}

/// The drivers that hold requests by `drivers/c/held.h`: what each is given, and a request that ends by an interrupt of its card.
const HOLDERS: [(&str, &str, &str, &str); 4] = [
    ("bench", "pci9052", r"\\.\DirqlBench", "write c hex:0102"),
    ("bench", "pci9052", r"\\.\DirqlBench", "ioctl c 0x222c04 in u32:3"),
    ("message", "bench,msix=4", r"\\.\Message", "ioctl c 0x226400 in u32:3"),
    ("message", "bench,msi=4", r"\\.\Message", "ioctl c 0x226400 in u32:3"),
];

fn holder(sys: &str, device: &str) -> Bench {
    let bench = Bench::new().driver(driver(&format!("{sys}.sys"))).device(device);
    if sys == "bench" { bench } else { bench.inf(driver(&format!("{sys}.inf"))) }
}

/// Not: card-without-power
#[test]
fn requests_are_held_while_a_card_sleeps_or_is_stopped_and_served_in_order_afterwards() {
    for (sys, device, name, request) in HOLDERS {
        for (down, up) in
            [("power d3", "power d0"), ("query-stop", "cancel-stop"), ("stop-device", "start-device")]
        {
            let script = format!(
                "open {name} as c overlapped
                 {request}
                 {down}
                 async r {request}; async s {request}; async t {request}
                 wait 1ms
                 expect pending r; expect pending s; expect pending t
                 cancel s; join s expect STATUS_CANCELLED
                 {up}
                 join r; join t
                 {request}"
            );
            let machine = start(|| holder(sys, device));
            play(&machine, &script);
            finish(machine);
        }
        for trip in TRIPS {
            let script = format!("open {name} as c; {request}; {trip}; {request}");
            let machine = start(|| holder(sys, device));
            play(&machine, &script);
            finish(machine);
        }
    }
}

#[test]
fn requests_that_are_held_end_when_their_file_is_closed_or_the_card_is_gone() {
    for (sys, device, name, request) in HOLDERS {
        for end in ["close c", "surprise-remove; join r expect failure; close c"] {
            let script = format!(
                "open {name} as c overlapped; power d3; async r {request}; wait 1ms; expect pending r; {end}"
            );
            let machine = start(|| holder(sys, device));
            play(&machine, &script);
            finish(machine);
        }
    }
}

#[test]
fn a_card_is_pulled_out_while_the_system_goes_to_sleep_and_wakes() {
    for (sys, device, name, request) in HOLDERS {
        let script = format!(
            "open {name} as c overlapped; async r {request}
            a: power s3 expect any; a: power s0 expect any
            surprise-remove; join a; join r expect any; close c"
        );
        for seed in seeds(8) {
            let machine = start(|| holder(sys, device).processors(2).policy(Policy::random(seed)));
            play(&machine, &script);
            finish(machine);
        }
    }
}

#[test]
fn requests_are_held_in_every_schedule() {
    for (sys, device, name, request) in HOLDERS {
        let down_and_up = "async r REQ; async s REQ; power d3; async t REQ; power d0; async u REQ; join r; join s; join t; join u";
        let script = format!("open {name} as c overlapped; {}", down_and_up.replace("REQ", request));
        for seed in seeds(8) {
            let machine = start(|| holder(sys, device).processors(2).policy(Policy::random(seed)));
            play(&machine, &script);
            finish(machine);
        }
    }
}

#[test]
fn bus_masters_transfer_and_messages_arrive_after_sleep_and_d3() {
    for trip in TRIPS {
        let edu = format!(
            r"open \\.\EduRust-0 as e
              ioctl e 0x223000 in u32:5 out 4 expect u32:120
              {trip}
              ioctl e 0x223000 in u32:6 out 4 expect u32:720"
        );
        run("edu_rust", "edu", &edu).expect_clean();
        let card = format!(
            r"open \\.\CardRust-0 as c
              write c hex:01020304 at 0
              {trip}
              write c hex:3ca53ca5 at 0; read c 4 at 0 expect hex:3ca53ca5"
        );
        run("card_rust", "bench,ram", &card).expect_clean();
        for messages in ["bench,msix=4", "bench,msi=4", "bench"] {
            let bench = format!(
                r"open \\.\BenchRust-0 as b; ioctl b 0x222400 in u32:1
                  {trip}
                  ioctl b 0x222400 in u32:1"
            );
            run("bench_rust", messages, &bench).expect_clean();
        }
    }
}

/// A card that can wake from D3, with and without power.
const WAKES: &str = "pci,id=abcd:0002,bar0=mem:128,irq,pm=d1+wake3+wakeoff";

#[test]
fn a_card_tells_what_its_power_management_declares() {
    for (card, capabilities) in [
        (WAKES, "u32:4 + u32:4 + u32:1 + u32:0 + u32:8"),
        ("pci,id=abcd:0002,bar0=mem:128,irq,pm=d1+d2+wake2", "u32:3 + u32:3 + u32:1 + u32:1 + u32:4"),
        ("pci,id=abcd:0002,bar0=mem:128,irq,pm", "u32:0 + u32:0 + u32:0 + u32:0 + u32:0"),
        ("pci,id=abcd:0002,bar0=mem:128,irq", "u32:0 + u32:0 + u32:0 + u32:0 + u32:0"),
    ] {
        let script = format!(r"open \\.\Wake as w; ioctl w 0x222010 out 20 expect {capabilities}");
        run("wake", card, &script).expect_clean();
    }
}

#[test]
fn a_card_in_d3_hot_loses_its_registers_unless_it_keeps_them() {
    for (pm, after) in [("pm", 0), ("pm=keeps", 0x1234)] {
        let script =
            format!("poke pci#0 bar0+10 0x1234; power d3; power d0; peek pci#0 bar0+10 expect u32:{after}");
        run("wake", &format!("pci,id=abcd:0002,bar0=mem:128,irq,{pm}"), &script).expect_clean();
    }
}

#[test]
fn a_device_that_sleeps_while_the_system_works_is_waked_by_its_card() {
    let script = r"open \\.\Wake as w
          ioctl w 0x222000 in u32:4
          ioctl w 0x222008 in u32:4
          wait 1ms
          ioctl w 0x222010 out 20
          poke pci#0 pme 1
          wait 1ms
          ioctl w 0x22200c out 16 expect u32:1 + u32:0 + u32:1 + u32:1
          ioctl w 0x222018 out 4 expect u32:0";
    run("wake", WAKES, script).expect_clean();
}

/// Holds: irps/wake-then-power, irps/wait-wake
#[test]
fn a_driver_may_mark_the_request_that_has_waked_the_system() {
    let script = r"open \\.\Wake as w
          ioctl w 0x22203c
          ioctl w 0x222000 in u32:4
          ioctl w 0x222008 in u32:4
          wait 1ms
          poke pci#0 pme 1
          wait 1ms
          ioctl w 0x222018 out 4 expect u32:1";
    run("wake", WAKES, script).expect_clean();
}

#[test]
fn a_card_wakes_the_system_from_s3_and_then_its_request_ends() {
    let script = r"open \\.\Wake as w
          ioctl w 0x222000 in u32:4
          power s3
          poke pci#0 pme 1
          wait 1ms
          ioctl w 0x22200c out 16 expect u32:1 + u32:0 + u32:2 + u32:1
          ioctl w 0x222018 out 4 expect u32:1";
    run("wake", WAKES, script).expect_clean();
}

#[test]
fn a_request_to_wait_for_a_signal_is_refused_where_none_can_come() {
    for (card, state, status) in [
        (WAKES, 5, "0xc0000184"),
        ("pci,id=abcd:0002,bar0=mem:128,irq,pm=wake3", 4, "0xc0000184"),
        ("pci,id=abcd:0002,bar0=mem:128,irq,pm", 1, "0xc00000bb"),
    ] {
        let script = format!(
            r"open \\.\Wake as w; ioctl w 0x222000 in u32:{state}; wait 1ms
              ioctl w 0x22200c out 16 expect u32:1 + u32:{status} + u32:0 + u32:1"
        );
        run("wake", card, &script).expect_clean();
    }
}

#[test]
fn a_second_request_to_wait_is_refused_and_the_first_can_be_cancelled() {
    let script = r"open \\.\Wake as w
          ioctl w 0x222000 in u32:4
          ioctl w 0x222000 in u32:4
          wait 1ms
          ioctl w 0x22200c out 16 expect u32:1 + u32:0x80000011 + u32:0 + u32:1
          ioctl w 0x222004
          wait 1ms
          ioctl w 0x22200c out 16 expect u32:2 + u32:0xc0000120 + u32:0 + u32:1
          poke pci#0 pme 1";
    run("wake", WAKES, script).expect_clean();
}

#[test]
fn who_keeps_a_power_request_for_ten_minutes_is_told_with_the_request() {
    let machine = machine("wake", WAKES);
    assert!(try_play(&machine, r"open \\.\Wake as w; ioctl w 0x222014; power d3").is_err());
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "power-irp-overdue");
    let bug_check = verdict.bug_check.unwrap();
    assert_eq!((bug_check.code, bug_check.parameters[0]), (0x9F, 3));
    let message = &verdict.message;
    assert!(message.starts_with("IRP_MN_SET_POWER (IRP 0x"), "{message}");
    assert!(message.contains(r"\Device\Wake") && message.ends_with("has not completed it"), "{message}");
}

/// Not: power-irp-overdue
#[test]
fn a_request_to_wait_for_a_signal_waits_for_hours() {
    let script = r"open \\.\Wake as w
          ioctl w 0x222000 in u32:4
          ioctl w 0x222008 in u32:4
          wait 3600s
          wait 3600s
          poke pci#0 pme 1
          wait 1ms
          ioctl w 0x22200c out 16 expect u32:1 + u32:0 + u32:1 + u32:1";
    run("wake", WAKES, script).expect_clean();
}

/// A card without wake signals.
const PLAIN: &str = "pci,id=abcd:0002,bar0=mem:128,irq,pm";

/// Has `idler.sys` do something: its index of `IDLER(…)`, and what goes in.
fn idler(index: u32, input: &[u32]) -> String {
    let input: Vec<String> = input.iter().map(|number| format!("u32:{number}")).collect();
    let input = if input.is_empty() { String::new() } else { format!(" in {}", input.join(" + ")) };
    format!("ioctl i {:#x}{input} out 32", 0x0022_2000 + 4 * index)
}

/// A run of a script on `idler.sys`, whose device is open as `i`.
fn on_idler(commands: &[String]) -> String {
    format!("open \\\\.\\Idler as i; {}", commands.join("; "))
}

const STATE: u32 = 3;

#[test]
fn a_device_that_nobody_uses_is_sent_to_its_idle_state_by_the_policy_of_the_power_source() {
    // 5 s on battery, 20 s on mains; the counter counts seconds, and only in D0.
    let commands = [
        idler(0, &[5, 20, 4]) + " expect u32:1",
        "wait 12500ms".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:0 + u32:0 + u32:12",
        idler(1, &[1]),
        "wait 18200ms".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:0 + u32:0 + u32:18",
        "wait 3s".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:1 + u32:0 + u32:0",
        "wait 60s".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:1 + u32:0 + u32:0",
        "power setting source 1".to_owned(),
        idler(2, &[1]),
        "wait 4s".to_owned(),
        idler(1, &[0]),
        "wait 4s".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:1 + u32:1",
        "wait 2s".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:2 + u32:1",
    ];
    run("idler", PLAIN, &on_idler(&commands)).expect_clean();
}

/// Not: device-not-busy, not-a-power-object
#[test]
fn a_device_that_is_busy_for_long_is_not_idle_until_it_is_over() {
    let commands = [
        idler(0, &[3, 3, 4]) + " expect u32:1",
        idler(1, &[2]),
        idler(1, &[2]),
        "wait 60300ms".to_owned(),
        idler(1, &[3]),
        "wait 60s".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:0",
        idler(1, &[3]),
        "wait 2500ms".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:0 + u32:0 + u32:2",
        "wait 1s".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:1",
    ];
    run("idler", PLAIN, &on_idler(&commands)).expect_clean();
}

#[test]
fn idle_detection_is_ended_and_refuses_the_standard_time_of_other_classes() {
    let commands = [
        idler(0, &[u32::MAX, 3, 4]) + " expect u32:0",
        idler(0, &[0, 0, 4]) + " expect u32:0",
        idler(0, &[3, 3, 4]) + " expect u32:1",
        idler(0, &[0, 0, 4]) + " expect u32:0",
        "wait 60s".to_owned(),
        idler(STATE, &[]) + " expect prefix u32:0",
    ];
    run("idler", PLAIN, &on_idler(&commands)).expect_clean();
}

#[test]
fn a_counter_that_is_none_and_a_busy_time_that_ends_twice_are_told() {
    let commands = [idler(0, &[3, 3, 4]), idler(7, &[2]), idler(1, &[2]), idler(1, &[3])];
    let report = run("idler", PLAIN, &on_idler(&commands));
    report.expect_clean();
    assert_eq!(report.findings.iter().map(|f| f.rule).collect::<Vec<_>>(), ["device-not-busy"], "{report}");

    for (wrong, how) in [(1, idler(1, &[0])), (4, format!("{}; {}", idler(5, &[0]), idler(5, &[1])))] {
        let machine = machine("idler", PLAIN);
        assert!(try_play(&machine, &on_idler(&[idler(0, &[3, 3, 4]), idler(7, &[wrong]), how])).is_err());
        assert_eq!(machine.finish().expect_verdict().rule, "not-a-power-object");
    }
}

#[test]
fn a_driver_is_told_of_power_settings_at_once_and_when_they_change() {
    let state = |sets: u32, source: u32, own: u32| {
        idler(STATE, &[])
            + &format!(
                " expect u32:0 + u32:0 + u32:0 + u32:{sets} + u32:{source} + u32:{own} + u32:0 + u32:0"
            )
    };
    let own = "guid:{11112222-3333-4444-0505-060607070808}";
    let commands = [
        "power setting source 2".to_owned(),
        idler(4, &[1]) + " expect u32:0",
        state(1, 2, 0),
        format!("power setting {own} 77"),
        state(2, 2, 77),
        format!("power setting {own} 77"),
        "power setting lid 0".to_owned(),
        state(2, 2, 77),
        idler(4, &[2]) + " expect u32:0",
        "power setting lid 1".to_owned(),
        "power setting source 0".to_owned(),
        state(5, 0, 77),
        idler(4, &[0]) + " expect u32:0xc000000d",
        "power setting source 1".to_owned(),
        state(5, 0, 77),
    ];
    run("idler", PLAIN, &on_idler(&commands)).expect_clean();
}

#[test]
fn a_callback_that_is_left_when_its_driver_is_unloaded_is_told() {
    let machine = machine("idler", PLAIN);
    let _ = try_play(&machine, &(on_idler(&[idler(4, &[1]), idler(7, &[8])]) + "; close i"));
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "unload-still-called");
    assert!(verdict.message.contains("PowerSettingCallback"), "{verdict:?}");
}

/// Not: power-request-outlives-device
#[test]
fn the_system_goes_to_sleep_by_itself_unless_somebody_requires_it() {
    let asleep = |on: bool| {
        if on { "power idle expect success; power s0" } else { "power idle expect STATUS_DEVICE_BUSY" }
    };
    let commands = [
        asleep(true).to_owned(),
        idler(5, &[0]) + " expect u32:1",
        idler(5, &[0]) + " expect u32:1",
        asleep(false).to_owned(),
        "power s3; power s0".to_owned(),
        idler(5, &[1]),
        asleep(true).to_owned(),
        idler(5, &[2]),
        asleep(false).to_owned(),
        "wait 601s".to_owned(),
        asleep(true).to_owned(),
        idler(5, &[3]) + " expect u32:0",
        idler(5, &[3]) + " expect u32:0",
        idler(5, &[4]) + " expect u32:0",
        asleep(false).to_owned(),
        idler(5, &[4]) + " expect u32:0",
        asleep(true).to_owned(),
        idler(5, &[4]) + " expect u32:0xc0000001",
        idler(5, &[5]) + " expect u32:0xc00000bb",
        idler(5, &[3]) + " expect u32:0",
    ];
    let report = run("idler", PLAIN, &on_idler(&commands));
    report.expect_clean();
    assert!(report.findings.is_empty(), "its power request is deleted before its device\n{report}");
}

#[test]
fn a_power_request_that_outlives_its_device_is_told() {
    let report = run("idler", PLAIN, &on_idler(&[idler(5, &[3]), idler(7, &[16])]));
    let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    assert!(rules.contains(&"power-request-outlives-device"), "{report}");
}

#[test]
fn a_driver_asks_how_long_it_may_take() {
    let commands = [
        idler(6, &[30]),
        "power d3; power d0".to_owned(),
        idler(STATE, &[]) + " expect u32:1 + u32:1 + u32:0 + u32:0 + u32:0 + u32:0 + u32:1 + u32:569",
    ];
    run("idler", PLAIN, &on_idler(&commands)).expect_clean();
}

/// Holds: irps/wait-wake
#[test]
fn the_bus_driver_refuses_a_second_request_to_wait_itself() {
    let script = r"open \\.\Wake as w; ioctl w 0x222000 in u32:4; wait 1ms; ioctl w 0x222000 in u32:4; wait 1ms; power d3; poke pci#0 pme 1; wait 1ms; power d0";
    let report = run("wake_forgets", WAKES, script);
    report.expect_clean();
    let ends: Vec<_> = report.prints.iter().filter(|line| line.contains("the wait ended")).collect();
    assert!(
        ends.len() == 2 && ends[0].contains("80000011") && ends[1].trim_end().ends_with(" 0"),
        "{ends:?}"
    );
}

/// Holds: irps/wait-cancelled
/// Not: wait-wake-not-cancelled
#[test]
fn a_driver_that_cancels_its_request_to_wait_when_its_device_goes_is_clean() {
    for end in ["remove-device", "surprise-remove", "stop-device; start-device"] {
        let script = format!(r"open \\.\Wake as w; ioctl w 0x222000 in u32:4; close w; wait 1ms; {end}");
        run("wake", WAKES, &script).expect_clean();
    }
}

/// Holds: irps/wait-left
#[test]
fn a_request_to_wait_that_is_left_behind_is_ended_by_the_bus_driver_and_told() {
    for end in ["remove-device", "surprise-remove"] {
        let script = format!(r"open \\.\Wake as w; ioctl w 0x222000 in u32:4; close w; wait 1ms; {end}");
        let report = run("wake_forgets", WAKES, &script);
        let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, ["wait-wake-not-cancelled"], "{report}");
        assert!(report.prints.iter().any(|line| line.contains("the wait ended with c0000120")), "{report}");
        assert_eq!(report.sums.still_allocated(), 0, "{report}");
    }
}
