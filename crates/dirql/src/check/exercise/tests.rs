//! Which exercises a survey leads to.

use super::super::absent::Absent;
use super::super::signals::Outside;
use super::super::survey::{Aged, Answered, Ended, Made, Operation, Survey, Timed, Watched};
use super::WithValues;
use super::{
    Exercise, exercises, exercises_beyond_reach, exercises_of_neighbours, exercises_on_busy_line,
    exercises_with_values,
};

fn operation(code: u32, waits: bool, variant: bool) -> Operation {
    let command = format!("ioctl h {code:#x} in u32:{}", u32::from(variant));
    Operation { command, code: Some(code), succeeds: true, waits, variant, needs: None }
}

/// One that ends by itself, that with another word, and one that waits until the first is made.
fn surveyed(device: &str, is_hardware: bool) -> Survey {
    let (code, waiting) = (0x0022_2000, 0x0022_2004);
    Survey {
        ready: true,
        names: (0..3).map(|number| format!(r"\\.\Unit{number}")).collect(),
        devices: (0..3).map(|number| format!("{device}#{number}")).collect(),
        operations: vec![
            operation(code, false, false),
            operation(code, false, true),
            operation(waiting, true, false),
        ],
        ended_by: vec![(2, 0)],
        is_hardware,
        ..Survey::default()
    }
}

fn titled<'e>(all: &'e [Exercise], part: &str) -> Vec<&'e Exercise> {
    all.iter().filter(|exercise| exercise.title.contains(part)).collect()
}

#[test]
fn a_request_of_a_quick_card_is_searched_alone_on_two_processors() {
    let all = exercises(&surveyed("edu", true), 100);
    let alone = titled(&all, "alone where the card answers");
    assert_eq!(alone.len(), 12, "three requests, each at once and at the first three accesses");
    for exercise in alone {
        assert!(exercise.processors == 2 && exercise.effort.schedules > 0, "{}", exercise.title);
        assert!(exercise.more[0].starts_with("--platform=quick-cards="), "{:?}", exercise.more);
    }
    assert!(titled(&exercises(&surveyed("unit", false), 100), "the card answers").is_empty());
}

#[test]
fn a_page_is_read_while_a_card_goes_and_offsets_reach_the_end_of_numbers() {
    let read = Operation { command: "read h 64".to_owned(), code: None, ..operation(0, false, false) };
    let write = Operation { command: "write h zero:64".to_owned(), ..read.clone() };
    let survey = Survey { operations: vec![read, write], ended_by: Vec::new(), ..surveyed("edu", true) };
    let all = exercises(&survey, 100);
    let [stopped] = titled(&all, "read of a page while the device is stopped")[..] else { panic!() };
    assert!(stopped.script.contains("async a read h 4096; async b read h 4096; stop-device"));
    assert!(!stopped.script.contains("must-end"), "a driver may wait for that much: {}", stopped.script);
    let [sizes] = titled(&all, "write of all sizes")[..] else { panic!() };
    assert!(sizes.script.contains(" at end") && sizes.script.contains(" at 9223372036854775792"));
    let without_card = exercises(&Survey { is_hardware: false, ..survey }, 100);
    assert!(titled(&without_card, "of a page while").is_empty());
}

#[test]
fn what_a_call_that_fails_leaves_behind_keeps_no_later_request_back() {
    let all = exercises(&Survey { self_ending: vec![(0, 0)], ..surveyed("unit", false) }, 100);
    let [behind] = titled(&all, "behind a call that fails")[..] else { panic!() };
    assert!(behind.script.contains("; must-recover c; ") && behind.effort.failing > 0, "{}", behind.script);
    assert!(!behind.effort.from_start, "what fails before a script owes nothing");
    let event = Outside { device: "unit#0".to_owned(), signal: "cause".to_owned(), values: vec![1, 0] };
    let ended = vec![Ended { operations: vec![2], by: vec![0], before: false, twice: false }];
    let all = exercises(&Survey { outside: vec![event], ended, ..surveyed("unit", true) }, 100);
    let [behind] = titled(&all, "ended by cause behind a call that fails")[..] else { panic!() };
    assert!(behind.script.contains("; must-recover c if a; "), "it is guessed at: {}", behind.script);
}

#[test]
fn a_handle_is_closed_as_its_request_ends_and_before_all_else() {
    let all = exercises(&surveyed("unit", false), 100);
    let [ends] = titled(&all, "whose handle is closed as")[..] else { panic!() };
    let (waits, made) =
        (ends.script.find("async a ioctl h 0x222004"), ends.script.find("async b ioctl h 0x222000"));
    assert!(waits.is_some() && waits < made && ends.script.ends_with("join a; close h"), "{}", ends.script);
    let closed = titled(&all, "of a handle that is closed before all else");
    assert_eq!(closed.len(), 2, "in either order");
    for exercise in closed {
        let (before, after) = exercise.script.split_once("close i").unwrap();
        assert!(before.contains("async a ioctl i") && before.contains("async b ioctl i"), "{before}");
        assert_eq!(after.matches("async r").count(), 3, "{after}");
    }
}

#[test]
fn a_handle_is_closed_while_its_device_is_stopped_without_power_or_gone() {
    let mut survey = surveyed("pci9052", true);
    let closed = |survey: &Survey| {
        let all = exercises(survey, 100);
        let titles = ["its handle closed without power", "its handle closed while", "its handle closed of"];
        let scripts = titles.iter().flat_map(|title| titled(&all, title));
        scripts.map(|one| one.script.clone()).collect::<Vec<_>>()
    };
    assert_eq!(closed(&survey).len(), 6, "three requests, stopped and pulled");
    survey.knows_power = true;
    let all = closed(&survey);
    assert_eq!(all.len(), 9, "without power, too");
    let asked = "async a ioctl h 0x222000 in u32:0; wait 20ms; power d3; close h; wait 20ms; power d0; ";
    assert!(all[0].contains(asked), "{}", all[0]);
}

#[test]
fn a_request_that_waits_is_cancelled_as_its_handle_or_its_device_goes() {
    let survey = Survey { knows_power: true, ..surveyed("unit", false) };
    let all = exercises(&survey, 100);
    let waiting = "ioctl 0x222004 of u32:0 cancelled and";
    let [closed] = titled(&all, &format!("{waiting} its handle closed at once"))[..] else { panic!() };
    let script = "async a ioctl h 0x222004 in u32:0; wait 1ms; t: cancel a; u: close h; join t; join u; ";
    assert!(closed.script.contains(script), "{}", closed.script);
    let of_device = titled(&all, &format!("{waiting} the device"));
    assert_eq!(of_device.len(), 4, "pulled, removed, stopped, powered down");
    assert_eq!(titled(&all, "cancelled and the device").len(), 4, "of what waits");
}

#[test]
fn the_eeprom_of_a_board_is_silent_or_erased() {
    let survey = Survey { boards: vec!["pci9052#0".to_owned()], ..surveyed("pci9052", true) };
    let all = exercises(&survey, 100);
    for (how, poke) in
        [("silent", "poke pci9052#0 eeprom-silent 1; "), ("erased", "poke pci9052#0 eeprom-erased 1; ")]
    {
        let [one] = titled(&all, &format!("where the EEPROM is {how}"))[..] else { panic!("{how}") };
        assert!(one.script.contains(poke), "{}", one.script);
    }
}

#[test]
fn what_ends_a_request_ends_it_behind_what_happens_to_the_device() {
    let mut survey = surveyed("pci9052", true);
    let behind = |survey: &Survey, title: &str| {
        let all = exercises(survey, 100);
        let scripts = titled(&all, title).into_iter().map(|one| one.script.clone());
        scripts.collect::<Vec<_>>()
    };
    let [before, meanwhile] = &behind(&survey, "after the device was stopped and started")[..] else {
        panic!()
    };
    let end = "async b ioctl h 0x222000 in u32:0; wait 50ms; must-end a if b; ";
    assert!(
        before.contains("start-device; wait 50ms; async a ioctl h 0x222004") && before.contains(end),
        "{before}"
    );
    assert!(meanwhile.contains("start-device; wait 50ms; async b") && meanwhile.contains(end), "{meanwhile}");
    assert!(
        behind(&survey, "after the device was powered down and up").is_empty(),
        "it knows no power states"
    );
    survey.knows_power = true;
    survey.outside =
        vec![Outside { device: "pci9052#0".to_owned(), signal: "linti1".to_owned(), values: vec![1, 0] }];
    survey.ended = vec![Ended { operations: vec![2], by: vec![0], before: false, twice: false }];
    let by_outside = behind(&survey, "ended by linti1 after the device was powered down and up");
    assert_eq!(by_outside.len(), 2);
    let end =
        "power d0; wait 50ms; poke pci9052#0 linti1 1; wait 50ms; must-end a; poke pci9052#0 linti1 0; ";
    assert!(by_outside[1].contains(end), "{by_outside:?}");
    let of_board =
        |bits| Outside { device: "pci9052#0".to_owned(), signal: "cause1".to_owned(), values: vec![bits, 0] };
    survey.outside = vec![of_board(1)];
    assert_eq!(behind(&survey, "ended by cause1 after the device was stopped and started").len(), 2);
    let of_power = "ended by cause1 after the device was powered down and up";
    assert!(behind(&survey, of_power).is_empty(), "what its registers hold is lost");
    survey.ended_by_bits = vec![(2, of_board(0x7FFF_FFFF))];
    assert!(
        behind(&survey, of_power)[1].contains("; poke pci9052#0 cause1 2147483647; wait 50ms; must-end a; ")
    );
    let without = Survey { devices: Vec::new(), ..survey };
    assert!(behind(&without, "after the device was stopped and started").is_empty());
}

#[test]
fn two_of_a_kind_need_not_both_end_by_what_comes_at_once() {
    let mut survey = surveyed("pci9052#0", true);
    let input = |signal: &str| Outside {
        device: "pci9052#0".to_owned(),
        signal: signal.to_owned(),
        values: vec![1, 0],
    };
    survey.outside = vec![input("linti1"), input("linti2")];
    let must_end = |operations: [usize; 2]| {
        let ended =
            vec![Ended { operations: operations.to_vec(), by: vec![0, 1], before: false, twice: false }];
        let all = exercises(&Survey { ended, ..survey.clone() }, 100);
        let [exercise] = titled(&all, "ended by linti1 and linti2")[..] else { panic!() };
        exercise.script.contains("must-end")
    };
    assert!(must_end([1, 2]) && !must_end([2, 2]));
}

#[test]
fn what_ends_a_request_before_it_or_behind_it_is_done_at_once_with_it_and_behind_what_it_needs() {
    let mut survey = surveyed("pci9052#0", true);
    survey.outside =
        vec![Outside { device: "pci9052#0".to_owned(), signal: "linti1".to_owned(), values: vec![1, 0] }];
    survey.operations[2].needs = Some(0);
    let either = |survey: &Survey, before: bool| {
        let ended = vec![Ended { operations: vec![2], by: vec![0], before, twice: false }];
        let all = exercises(&Survey { ended, ..survey.clone() }, 100);
        titled(&all, "which ends it in either order").into_iter().cloned().collect::<Vec<_>>()
    };
    assert!(either(&survey, false).is_empty(), "one that comes too late waits for the next");
    let [one] = &either(&survey, true)[..] else { panic!() };
    let order =
        ["ioctl h 0x222000", "t: async a ioctl h 0x222004", "u: poke pci9052#0 linti1 1", "must-end a"];
    let places = order.map(|step| one.script.find(step));
    assert!(places[0].is_some() && places.is_sorted(), "{}", one.script);
    assert!(one.processors == 2 && one.effort.schedules > 0);
    survey.outside[0].signal = "cause1".to_owned();
    let again = "wait 50ms; poke pci9052#0 cause1 1; wait 50ms; must-end a";
    assert!(either(&survey, true)[0].script.contains(again), "it may be over when the request is made");
    survey.outside[0].values[0] = 2;
    assert!(either(&survey, true).is_empty(), "what is guessed at owes nothing");
}

#[test]
fn a_request_is_made_again_as_what_comes_from_outside_ends_it() {
    let mut survey = surveyed("pci9052#0", true);
    survey.outside =
        vec![Outside { device: "pci9052#0".to_owned(), signal: "linti1".to_owned(), values: vec![1, 0] }];
    let again = |twice: bool| {
        let ended = vec![Ended { operations: vec![2], by: vec![0], before: false, twice }];
        let all = exercises(&Survey { ended, ..survey.clone() }, 100);
        titled(&all, "again as linti1 ends it").into_iter().cloned().collect::<Vec<_>>()
    };
    assert!(again(false).is_empty(), "what has ended the first may not end the second");
    let [one] = &again(true)[..] else { panic!() };
    let twice = "t: poke pci9052#0 linti1 1; u: async b ioctl h 0x222004 in u32:0; join t; join u; wait 50ms; \
                 poke pci9052#0 linti1 0; wait 1ms; poke pci9052#0 linti1 1; wait 50ms; must-end a b";
    assert!(one.script.contains(twice), "{}", one.script);
}

#[test]
fn one_that_waits_is_not_passed_over_and_nothing_is_left_of_handles_that_are_closed_at_once() {
    let mut survey = surveyed("unit", false);
    assert!(titled(&exercises(&survey, 100), "and once more behind").is_empty());
    (survey.passed_over, survey.anew) = (vec![(2, 0)], vec![0]);
    let all = exercises(&survey, 100);
    let [one] = titled(&all, "and once more behind")[..] else { panic!() };
    let order = ["async a ioctl h 0x222004", "async b ioctl h 0x222004", "async e ioctl h 0x222000"];
    let order = order.into_iter().chain(["async c ioctl h 0x222004", "must-end b if c"]);
    let places: Vec<_> = order.map(|step| one.script.find(step)).collect();
    assert!(places[0].is_some() && places.is_sorted(), "{}", one.script);
    let closed = titled(&all, "two handles closed at once after");
    let is_owed = |one: &&&Exercise| one.script.contains("as k overlapped; async c ioctl k 0x222000");
    assert_eq!((closed.len(), closed.iter().filter(is_owed).count()), (2, 1), "of the one that ends anew");
}

#[test]
fn a_device_serves_on_when_another_one_may_not_be_added() {
    let all = exercises_of_neighbours(&surveyed("unit", false), &[], 100);
    let each = titled(&all, "beside a device that may not be added");
    assert_eq!(each.len(), 3);
    let gone = "remove-device unit#0; remove-device unit#1; start-device unit#1; async a ";
    assert!(each.iter().all(|one| one.script.contains(gone) && one.effort.failing > 0), "{each:?}");
    assert!(each.iter().all(|one| one.script.contains(r#"open "\\.\Unit2" as h"#)), "{each:?}");
}

#[test]
fn what_a_request_has_set_going_goes_on_when_the_device_was_stopped() {
    let mut survey = Survey { ended_before: vec![(2, 0)], ..surveyed("unit", false) };
    let kept = |survey: &Survey| {
        let all = exercises(survey, 100);
        titled(&all, "ioctl 0x222004 of u32:0 behind ioctl 0x222000 of u32:0 before the device")
            .iter()
            .map(|one| one.script.clone())
            .collect::<Vec<_>>()
    };
    let all = kept(&survey);
    assert_eq!(all.len(), 3, "stopped, asked whether it may be, asked whether it may be removed");
    let order = [
        "async b ioctl h 0x222000",
        "async a ioctl h 0x222004",
        "stop-device; ",
        "start-device; wait 50ms; must-end a if b",
    ];
    let places = order.map(|step| all[0].find(step));
    assert!(places[0].is_some() && places.is_sorted(), "{}", all[0]);
    survey.is_hardware = true;
    assert!(kept(&survey).is_empty(), "what a card was doing may be over");
}

#[test]
fn a_handle_is_closed_as_a_timer_runs_out_that_a_request_of_another_input_has_set() {
    let mut survey = surveyed("unit", false);
    let closed =
        |survey: &Survey| titled(&exercises(survey, 100), "of u32:1: its handle is closed as a timer").len();
    assert_eq!(closed(&survey), 0);
    survey.sets_timers = true;
    assert_eq!(closed(&survey), 1);
}

#[test]
fn an_event_is_exchanged_for_another_as_the_interrupt_sets_it() {
    let mut survey = surveyed("pci", true);
    survey.operations[0].command = "ioctl h 0x222000 in event:bell + u32:1 out 8".to_owned();
    survey.outside =
        vec![Outside { device: "pci#0".to_owned(), signal: "line".to_owned(), values: vec![1, 0] }];
    let exchanged = |survey: &Survey| {
        titled(&exercises(survey, 100), "again, with another event").into_iter().cloned().collect::<Vec<_>>()
    };
    let [one] = &exchanged(&survey)[..] else { panic!() };
    let first = "async b ioctl h 0x222000 in event:bell + u32:1 out 8; wait 1ms; close event:bell; ";
    let (before, at_once) = one.script.split_once(first).expect(&one.script);
    assert!(!before.contains("event:"), "{before}");
    assert!(at_once.contains("t: poke pci#0 line 1; t: wait 1ms; t: poke pci#0 line 0; "), "{at_once}");
    assert!(at_once.contains("u: async a ioctl h 0x222000 in event:other + u32:1 out 8; "), "{at_once}");
    survey.operations[0].waits = true;
    assert!(exchanged(&survey).is_empty());
}

#[test]
fn a_device_is_stopped_and_goes_as_it_interrupts() {
    let mut survey = surveyed("pci9052#0", true);
    survey.boards = vec!["pci9052#0".to_owned()];
    let own = |survey: &Survey| {
        let all = exercises(survey, 100);
        titled(&all, "at once with poke")
            .into_iter()
            .filter(|it| it.title.starts_with("the device"))
            .cloned()
            .collect::<Vec<_>>()
    };
    let all = own(&survey);
    assert_eq!(
        all.len(),
        12,
        "by each of two inputs it is stopped, removed and pulled, with a handle and with none"
    );
    let steps = "t: poke pci9052#0 cause2 1; t: wait 1ms; t: poke pci9052#0 cause2 0; u: surprise-remove; join t; join u";
    assert!(all[11].script.contains(steps), "{}", all[11].script);
    assert!(all.iter().all(|one| one.processors == 2 && one.effort.schedules > 0));
    survey.knows_power = true;
    assert!(own(&survey).iter().any(|one| one.script.contains("u: power d3; u: power d0; join t")));
    survey.devices.clear();
    assert!(own(&survey).is_empty());
}

#[test]
fn what_accesses_to_a_board_may_end_need_not_end_a_request_beside_others() {
    let mut survey = surveyed("pci9052#0", true);
    survey.self_ending = vec![(0, 0)];
    survey.ended = vec![Ended { operations: vec![2], by: vec![0], before: false, twice: false }];
    let outside = |signal: &str| {
        vec![Outside { device: "pci9052#0".to_owned(), signal: signal.to_owned(), values: vec![1, 0] }]
    };
    let at_once = |survey: &Survey, signal: &str| {
        titled(&exercises(survey, 100), &format!("at once with {signal}, which ends"))[0].script.clone()
    };
    survey.outside = outside("linti1");
    assert!(at_once(&survey, "linti1").contains("must-end a"));
    survey.outside = outside("cause1");
    assert!(!at_once(&survey, "cause1").contains("must-end"));
}

#[test]
fn boards_interrupt_when_their_card_may_not_be_started_beside_another_one_of_its_line() {
    let survey = Survey { boards: vec!["pci9052#1".to_owned()], ..surveyed("pci9052", true) };
    let all = exercises_of_neighbours(&survey, &[], 100);
    let each = titled(&all, "an interrupt of a card that may not be started");
    assert_eq!(each.len(), 2, "by either input");
    let started = "remove-device pci9052#1; start-device pci9052#1; poke pci9052#1 ";
    assert!(each.iter().all(|one| one.script.contains(started) && one.effort.failing > 0));
}

#[test]
fn boards_interrupt_when_their_card_is_stopped_beside_another_one_of_its_line() {
    let survey = Survey { boards: vec!["pci9052#1".to_owned()], ..surveyed("pci9052", true) };
    let all = exercises_of_neighbours(&survey, &[], 100);
    let scripts: Vec<&str> =
        titled(&all, "an interrupt of a card that is").iter().map(|one| one.script.as_str()).collect();
    assert_eq!(scripts.len(), 4);
    for (input, life) in
        ["cause1", "cause2"].iter().flat_map(|input| ["stop", "remove"].map(|life| (input, life)))
    {
        let steps = format!("{life}-device pci9052#1; poke pci9052#1 {input} 1; ");
        assert!(scripts.iter().any(|script| script.contains(&steps)), "{steps}: {scripts:?}");
    }
    let starting = titled(&all, "a start beside another card of the line");
    let starts = starting.iter().filter(|one| one.script.contains("; t: start-device pci9052#1; u: poke"));
    assert_eq!((starting.len(), starts.count()), (2, 2), "by each input");
    let unknown = exercises_of_neighbours(&surveyed("pci", true), &[], 100);
    assert!(titled(&unknown, "an interrupt of a card that is").is_empty(), "it would interrupt in any case");
}

#[test]
fn requests_of_long_times_last_as_long_as_one_of_a_short_time() {
    let longer = vec![operation(0x0022_2000, true, true), operation(0x0022_2000, true, true)];
    let survey = Survey {
        timed: vec![Timed { longer, least: 1_000_000_000, status: 0x102 }],
        ..surveyed("unit", false)
    };
    let all = exercises(&survey, 100);
    let each = titled(&all, ", which is a long time");
    assert_eq!(each.len(), 2);
    assert!(each.iter().all(|one| one.script.contains("; must-last a 1000ms as 0x102; cancel h; join a; ")));
    assert!(titled(&exercises(&surveyed("unit", false), 100), "long time").is_empty());
}

#[test]
fn requests_end_as_usual_where_the_computer_has_been_running_for_long() {
    let made = |second, status, waits| Made { place: 0, second, status, waits };
    let aged = Aged {
        made: vec![made(false, 0, true), made(true, 0, false), made(false, 0x103, true)],
        uptime: 4_294_967_295_000_000,
    };
    let survey = Survey { aged: vec![aged], ..surveyed("unit", false) };
    let all = exercises(&survey, 100);
    let [one] = titled(&all, "behind others, 49 days and more after the computer was started")[..] else {
        panic!()
    };
    assert_eq!(one.more, ["--platform=uptime=4294967295000000"]);
    let steps = [
        "; async r0 ioctl h 0x222000 in u32:0; wait 300ms; cancel r0; join r0",
        "; async r1 ioctl i 0x222000 in u32:0; join r1",
        "; async r2 ioctl h 0x222000 in u32:0; wait 300ms; must-be r2 0x103; cancel r2; join r2; close h",
    ];
    assert!(one.script.contains(&steps.concat()), "{}", one.script);
    assert!(crate::play::ScriptText::typed(&one.script).play().is_ok());
    assert!(titled(&exercises(&surveyed("unit", false), 100), "days and more").is_empty());
}

#[test]
fn a_board_interrupts_beside_a_card_that_interrupts_on_the_line_of_its_card() {
    let boards = ["pci9052#0", "pci9052#1"].map(str::to_owned).to_vec();
    let survey = Survey { boards, ..surveyed("pci9052", true) };
    let all = exercises_on_busy_line(&survey, &["--device=pci,irq".to_owned()], 100);
    let each = titled(&all, "an interrupt beside a card that interrupts on its line");
    assert_eq!(each.len(), 6, "alone and behind two requests, by each input of the second card's");
    assert!(each.iter().all(|one| one.script.contains("poke pci9052#1 cause") && !one.more.is_empty()));
}

#[test]
fn a_driver_that_watches_images_is_unloaded_at_once_with_them_unless_it_is_of_plug_and_play() {
    let survey = Survey { watched: vec![Watched::Images], ..surveyed("unit", false) };
    let all = exercises(&survey, 100);
    let unloaded = titled(&all, "unloaded at once with");
    assert_eq!(unloaded.len(), 2, "alone and behind a request");
    assert!(unloaded.iter().all(|one| one.script.contains("; u: unload; join b; join u")));
    let stays = exercises(&Survey { plug_and_play: true, ..survey }, 100);
    assert!(titled(&stays, "unloaded at once with").is_empty());
}

#[test]
fn words_take_part_where_a_device_on_no_bus_is_removed_beside_another() {
    let more = vec!["--device=root".to_owned(); 3];
    let all = exercises_of_neighbours(&surveyed("unit", false), &more, 100);
    let removed = titled(&all, "while another device is disabled and enabled");
    assert_eq!(removed.len(), 3);
    let with_word = removed.iter().filter(|exercise| exercise.script.contains("in u32:1")).count();
    assert!(
        with_word == 1 && removed.iter().all(|exercise| exercise.script.contains("remove-device unit#1"))
    );
    let of_cards = exercises_of_neighbours(&surveyed("edu", true), &more, 100);
    assert_eq!(titled(&of_cards, "while another card is disabled and enabled").len(), 2, "no word");
}

#[test]
fn what_a_request_needs_is_made_before_it_and_before_that_what_it_needs() {
    let mut survey = surveyed("unit", false);
    for (place, needs) in [(0, 2), (2, 1)] {
        survey.operations[place] =
            Operation { succeeds: false, needs: Some(needs), ..survey.operations[place].clone() };
    }
    let all = exercises(&survey, 100);
    let [at_once] = titled(&all, "ioctl 0x222000 of u32:0 at once cancelled")[..] else { panic!() };
    let places = ["async p1 ", "async p2 ", "t: async a "].map(|step| at_once.script.find(step));
    assert!(places[0].is_some() && places.is_sorted(), "{}", at_once.script);
}

#[test]
fn memory_that_a_driver_keeps_changes_while_it_does_something_else() {
    const OUT_DIRECT: u32 = 0x0022_200A;
    let mut survey = surveyed("unit", false);
    let command = format!("ioctl h {OUT_DIRECT:#x} in zero:8 out 4096");
    survey.operations[2] = Operation { command, ..operation(OUT_DIRECT, true, false) };
    let all = exercises(&survey, 100);
    let changed = titled(&all, "while the buffer of ioctl 0x22200a becomes");
    assert_eq!(changed.len(), 2, "one other request, zeroes and ones");
    for exercise in changed {
        let steps = ["memory m zero:4096; async p ioctl h 0x22200a in zero:8 out memory m; ", "u: store m "];
        assert!(steps.iter().all(|step| exercise.script.contains(step)), "{}", exercise.script);
    }
}

#[test]
fn a_code_is_tried_with_all_sizes_whatever_its_usual_input_is() {
    let mut survey = surveyed("unit", false);
    let alone = Operation {
        command: "ioctl h 0x222000 in fill:0x1:64 out 64".to_owned(),
        ..operation(0x0022_2000, false, false)
    };
    let behind = Operation { needs: Some(1), succeeds: false, ..alone.clone() };
    survey.operations[0] = alone;
    survey.operations.push(behind);
    let all = exercises(&survey, 100);
    let [sizes] = titled(&all, "ioctl 0x222000 of fill:0x1:64 of all sizes")[..] else { panic!() };
    let text = "ioctl h 0x222000 in u32:1 + fill:0x41414141:60 out 60";
    assert!(sizes.script.contains(text), "a text without an end behind a number");
    assert_eq!(titled(&all, "ioctl 0x222000 of fill:0x1:64 of telling values").len(), 1);
}

fn absent(name: Option<&str>) -> Absent {
    let key = r"HKLM\System\ControlSet001\Services\unit\Parameters".to_owned();
    Absent { key, name: name.map(str::to_owned), kind: abi::REG_NONE, room: 0 }
}

#[test]
fn values_that_a_driver_asks_for_are_there_together_and_alone_and_once_large_or_of_another_type() {
    let all = vec![absent(None), absent(Some("Depth")), absent(Some("Extra"))];
    let with = WithValues { usable: all.clone(), all, survey: surveyed("unit", false) };
    let made = exercises_with_values(&with, 100);
    let options = |title: &str| {
        let [exercise] = titled(&made, title)[..] else { panic!("{title}") };
        exercise.more.clone()
    };
    let of = |name: &str, data: &str| {
        format!(r"--registry-value=HKLM\System\ControlSet001\Services\unit\Parameters\{name}={data}")
    };
    let (depth, extra) = (of("Depth", "dword:00000001"), of("Extra", "dword:00000001"));
    let start = "load, start, stop, remove and unload with";
    assert_eq!(
        options(&format!("{start} the values")),
        [depth.clone(), extra.clone()],
        "the key comes with them"
    );
    assert_eq!(options(&format!("{start} the value Depth")), [depth]);
    assert_eq!(options(&format!("{start} the value Extra")), [extra]);
    let large = of("Depth", "dword:00001000");
    assert_eq!(options(&format!("{start} large values"))[0], large);
    assert_eq!(options(&format!("{start} values of 0"))[0], of("Depth", "dword:00000000"));
    assert_eq!(options(&format!("{start} values that are as large"))[0], of("Depth", "dword:ffffffff"));
    let of_all_sizes = titled(&made, "behind codes with a word of 1, with values of 100");
    assert_eq!(of_all_sizes.len(), 2, "of each code");
    assert_eq!(of_all_sizes[0].more[0], of("Depth", "dword:00000064"));
    let begins = "async r0 ioctl h 0x222000 in u32:1 + zero:60 out 64; ";
    assert!(of_all_sizes[0].script.contains(begins) && of_all_sizes[0].script.ends_with("; close h"));
    assert_eq!(options(&format!("{start} values of another type")).len(), 2);
    assert_eq!(
        titled(&made, "ioctl 0x222000 of u32:0 of all sizes").len(),
        29,
        "eight of them by numbers whose products wrap, eight by records that begin with these, and one behind codes with a word of 1"
    );
    let bytes = of("Depth", "hex:ff,ff,");
    assert!(options(&format!("{start} values of as many bytes"))[0].starts_with(&bytes));
    assert_eq!(options(&format!("{start} texts of no bytes"))[0], of("Depth", "hex(1):"));
    let [set, restarted] = titled(&made, "requests behind values that are set")[..] else { panic!() };
    assert!(restarted.script.contains("; close k2; stop-device; start-device; "), "{}", restarted.script);
    let many = titled(&made, "130 times behind values that are set in the registry");
    assert!(many.iter().any(|one| one.script.contains("; stop-device; start-device; ioctl h ")));
    assert!(
        many.iter()
            .all(|one| one.script.matches("; ioctl h 0x222000 in u32:0; ioctl h 0x222000").count() >= 65)
    );
    let depth = r#"create-key "\Registry\Machine\System\ControlSet001\Services\unit\Parameters" as k1; set-value k1 "Depth" dword u32:100; close k1; "#;
    assert!(set.more.is_empty() && set.script.contains(depth), "{}", set.script);
    assert!(set.script.contains("ioctl h 0x222000 in u32:99;"), "{}", set.script);
    assert!(crate::play::ScriptText::typed(&set.script).play().is_ok(), "{}", set.script);
    let open = of("Depth", "hex(1):41,00,41,00,");
    assert!(options(&format!("{start} texts without an end"))[0].starts_with(&open));
}

#[test]
fn a_value_with_which_a_driver_does_not_start_hides_nothing_of_the_others() {
    let all = vec![absent(Some("Depth")), absent(Some("Disabled"))];
    let with = WithValues { usable: all[..1].to_vec(), all, survey: surveyed("unit", false) };
    let made = exercises_with_values(&with, 100);
    let [requests] = titled(&made, "ioctl 0x222000 of u32:0 of all sizes with the values")[..] else {
        panic!()
    };
    assert!(requests.more.len() == 1 && requests.more[0].contains("Depth="), "{:?}", requests.more);
    assert_eq!(titled(&made, "with the values in the registry")[0].more.len(), 2, "both, to begin with");
}

#[test]
fn what_was_cancelled_many_times_leaves_room_for_what_succeeds_behind_it() {
    let survey = Survey { behind_cancelled: vec![(2, 0)], ..surveyed("unit", false) };
    let all = exercises(&survey, 100);
    let [exercise] = titled(&all, "that are cancelled")[..] else { panic!() };
    assert_eq!(exercise.script.matches("async a ioctl h 0x222004 in u32:0; wait 1ms; cancel a").count(), 72);
    let end = "async b ioctl h 0x222000 in u32:0; must-succeed b; cancel h; join b; close h";
    assert!(exercise.script.ends_with(end), "{}", exercise.script);
}

#[test]
fn several_requests_through_a_handle_that_is_closed_must_end() {
    let survey = Survey { ended_by_closing: vec![2], ..surveyed("unit", false) };
    let all = exercises(&survey, 100);
    let [exercise] = titled(&all, "through a handle that is closed")[..] else { panic!() };
    let one = |name| format!("async {name} ioctl h 0x222004 in u32:0; ");
    let steps = ["a0", "a1", "a2"].map(one).concat() + "wait 1ms; close h; must-end a0 a1 a2";
    assert!(exercise.script.ends_with(&steps), "{}", exercise.script);
}

#[test]
fn where_stores_are_seen_late_one_request_waits_for_the_last_of_several() {
    let other = operation(0x0022_2008, false, false);
    let mut survey = surveyed("unit", false);
    survey.operations.push(other);
    survey.self_ending = vec![(0, 0), (0, 3), (3, 3)];
    let all = exercises(&survey, 100);
    let rows = titled(&all, "behind 3 of");
    assert_eq!(rows.len(), 2, "either behind the other");
    let three = ["ioctl h 0x222000 in u32:0"; 3].join("; ");
    let script = format!("{three}; async a ioctl h 0x222008 in u32:0; must-end a; cancel h");
    assert!(rows[0].script.contains(&script), "{}", rows[0].script);
    assert!(rows.iter().all(|row| row.more == ["--platform=late-stores"] && row.processors == 2));
}

#[test]
fn very_long_data_come_behind_very_long_data() {
    let all = exercises(&surveyed("unit", false), 100);
    let [long] = titled(&all, "very long data")[..] else { panic!() };
    assert!(long.script.contains("ioctl h 0x222004 in fill:0x410041:65532 out 4096"), "{}", long.script);
    assert_eq!(long.script.matches("async ").count(), 2 * 2 * 2 * 5, "each behind each, of five lengths");
}

#[test]
fn registers_by_which_a_driver_knows_its_card_stay_as_they_are() {
    let signals = vec!["pci#0 pulse".to_owned(), "pci#0 bar0".to_owned()];
    let survey =
        Survey { signals, identity: vec!["reg0=0:57415645+10:1".to_owned()], ..surveyed("pci", true) };
    let all = exercises(&survey, 100);
    let [held] = titled(&all, "while all registers hold 0x100")[..] else { panic!() };
    let is_held = |at: &str| held.script.contains(&format!("poke pci#0 bar0+{at} 256;"));
    assert!(is_held("4") && is_held("14") && !is_held("0") && !is_held("10"), "{}", held.script);
}

#[test]
fn a_driver_that_asks_others_has_them_refuse_later_and_answer_as_its_limit_ends() {
    let survey = Survey { asks_others: true, limited_below: vec![(0, 20)], ..surveyed("unit", false) };
    let all = exercises(&survey, 100);
    let left = titled(&all, "cancelled and left where the bus driver answers later");
    assert_eq!(left.len(), 2, "each kind of request");
    let late = titled(&all, "where the driver below answers as time limit");
    let options: Vec<&[String]> = late.iter().map(|one| &one.more[..2]).collect();
    let expected = ["20", "19"]
        .map(|limit| ["--platform=later-bus".to_owned(), format!("--platform=late-cards={limit}")]);
    assert_eq!(options, expected);
    let none = exercises(&surveyed("unit", false), 100);
    assert!(titled(&none, "where the bus driver answers later").is_empty());
}

#[test]
fn registers_hold_something_for_a_while_and_then_nothing() {
    let survey = Survey { boards: vec!["pci9052#0".to_owned()], ..surveyed("pci9052", true) };
    let all = exercises(&survey, 100);
    let shortly = titled(&all, "while all registers hold 0x8000ffff for a while");
    assert_eq!(shortly.len(), 2, "each kind of request");
    for exercise in shortly {
        let held = exercise.script.split("poke pci9052#0 shows 0x8000ffff; async a ").skip(1);
        let is_released = |rest: &str| rest.contains("; wait 20ms; poke pci9052#0 shows 0x0; wait 3s; ");
        assert_eq!(held.filter(|rest| is_released(rest)).count(), 2, "a page and more: {}", exercise.script);
    }
}

#[test]
fn registers_hold_different_words_as_a_card_interrupts() {
    let survey = Survey { boards: vec!["pci9052#0".to_owned()], ..surveyed("pci9052", true) };
    let all = exercises(&survey, 100);
    let held = titled(&all, "while registers hold different words");
    assert_eq!(held.len(), 2, "each kind of request");
    // A state register without its busy bit, and a count that is too great.
    let words: Vec<u32> = held[0]
        .script
        .split("poke pci9052#0 local+")
        .skip(1)
        .map(|rest| rest.split([' ', ';']).nth(1).unwrap().parse().unwrap())
        .collect();
    assert_eq!(words.len(), 12 * 16);
    let is_ready_with_many = |state: &[u32]| state[4] & 1 == 0 && state[2] > 128;
    assert!(words.chunks(16).filter(|state| is_ready_with_many(state)).count() >= 2, "{words:x?}");
    assert!(titled(&exercises(&surveyed("unit", false), 100), "different words").is_empty());
}

#[test]
fn an_event_is_the_drivers_alone_as_a_timer_runs_out() {
    let mut survey = surveyed("unit", false);
    survey.sets_timers = true;
    let of_events = |survey: &Survey| {
        let all = exercises(survey, 100);
        titled(&all, "whose event is closed").into_iter().map(|one| one.script.clone()).collect::<Vec<_>>()
    };
    assert!(of_events(&survey).is_empty());
    survey.operations[0].command = "ioctl h 0x222000 in event:e0 + u32:0x1 out 8".to_owned();
    let [again, closed] = &of_events(&survey)[..] else { panic!("by what does not wait, and by the handle") };
    for script in [again, closed] {
        assert!(script.contains(" + u32:0x1 out 8; wait 1ns; close event:e0; wait limit; "), "{script}");
    }
    assert!(closed.ends_with("wait limit; close h; wait 50ms; join a"), "{closed}");
}

#[test]
fn inputs_of_a_word_that_a_code_succeeds_with_are_tried_short() {
    let mut survey = surveyed("unit", false);
    let sizes = |survey: &Survey| {
        titled(&exercises(survey, 100), "ioctl 0x222000 of u32:0 of all sizes")[0].script.clone()
    };
    let short = "ioctl h 0x222000 in fill:0x4:12 out 12";
    assert!(!sizes(&survey).contains(short));
    survey.operations[1].command = "ioctl h 0x222000 in fill:0x4:64 out 64".to_owned();
    survey.operations[1].succeeds = true;
    assert!(sizes(&survey).contains(short), "{}", sizes(&survey));
}

#[test]
fn what_programs_of_32_bits_are_answered_lists_several() {
    let mut survey = surveyed("unit", false);
    survey.serves_32_bits = true;
    let all = exercises(&survey, 100);
    let sizes = &titled(&all, "ioctl 0x222000 of u32:0 of all sizes by a program of 32 bits")[0];
    let first = "ioctl h 0x222004 in u32:0; wait 20ms";
    assert_eq!(sizes.script.matches(first).count(), 6, "{}", sizes.script);
}

#[test]
fn where_memory_is_little_requests_are_made_beyond_a_cards_reach_too() {
    let all = exercises_beyond_reach(&surveyed("edu", true), 100);
    assert_eq!(all.len(), 3, "start and end, and each kind of request");
    assert!(all.iter().all(|exercise| exercise.more == ["--platform=high-memory"]));
}

#[test]
fn a_silent_card_answers_when_the_driver_has_given_up() {
    let all = exercises(&surveyed("edu", true), 100);
    let late = titled(&all, "where the card is silent and answers in the end");
    assert!(!late.is_empty());
    for exercise in late {
        assert_eq!(exercise.more, ["--platform=silent-cards"]);
        assert!(exercise.script.contains("; wait 210s; "), "longer than it is silent: {}", exercise.script);
    }
}

#[test]
fn what_a_silent_card_has_not_answered_keeps_the_next_request_from_nothing() {
    let mut survey = surveyed("edu", true);
    survey.self_ending = vec![(0, 0), (0, 1)];
    let all = exercises(&survey, 100);
    let [behind] = titled(&all, "behind one that a silent card has not answered")[..] else { panic!() };
    let asked = "; cards silent; async a ioctl h 0x222000 in u32:0; wait 210s; cards answer; ";
    assert!(behind.script.contains(asked) && behind.script.contains("; must-end b; "), "{}", behind.script);
}

#[test]
fn long_requests_are_made_while_registers_hold_something() {
    let write = Operation { command: "write h zero:64".to_owned(), code: None, ..operation(0, false, false) };
    let survey = Survey {
        operations: vec![write],
        ended_by: Vec::new(),
        signals: vec!["pci#0 pulse".to_owned(), "pci#0 bar0".to_owned()],
        ..surveyed("pci#0", true)
    };
    let all = exercises(&survey, 100);
    let long = titled(&all, "long requests while all registers hold");
    assert_eq!(long.len(), 4);
    assert!(
        long.iter().all(|one| one.script.contains("async r0 write h fill:0xffffffff:163840")),
        "{}",
        long[0].script
    );
}

#[test]
fn numbers_whose_product_is_zero_stand_beside_an_address_that_is_the_kernels() {
    let mut survey = surveyed("unit", false);
    survey.operations[0].command =
        "ioctl h 0x222000 in u32:0x1 + u32:0x1 + page:own + zero:8 out 72".to_owned();
    let all = exercises(&survey, 100);
    let [products] = titled(&all, "whose products do not fit into 32 bits")[..] else { panic!() };
    for put in ["u32:0x40000000 + u32:0x1", "u32:0x1 + u32:0x40000000", "u32:0x10000 + u32:0x10000"] {
        let request = format!("in {put} + u64:0xfffff800dead0000 + zero:8 out 72");
        assert!(products.script.contains(&request), "{put}: {}", products.script);
    }
}

#[test]
fn the_data_of_a_write_change_where_a_driver_maps_them() {
    let mut survey = surveyed("unit", false);
    let command = "write h u32:0x11 + u32:0x1 + zero:8".to_owned();
    survey.operations[0] = Operation { command, code: None, ..survey.operations[0].clone() };
    assert!(titled(&exercises(&survey, 100), "whose input becomes").is_empty());
    survey.maps_buffers = true;
    let all = exercises(&survey, 100);
    let changed = titled(&all, "whose input becomes 0x10000 at 4 meanwhile");
    let [exercise] = changed[..] else { panic!("{}", changed.len()) };
    let steps = "memory m u32:0x11 + u32:0x1 + zero:8; t: async a write h memory m; u: store m u32:0x11 + u32:0x10000; ";
    assert!(exercise.script.contains(steps), "{}", exercise.script);
}

#[test]
fn behind_all_sizes_and_values_the_usual_request_must_end_if_it_does_so_by_itself() {
    let must_end = "; async z ioctl h 0x222000 in u32:0; must-end z; join z; close h";
    let of = |self_ending: Vec<(usize, usize)>| {
        let all = exercises(&Survey { self_ending, ..surveyed("unit", false) }, 100);
        let ends: Vec<bool> = ["of all sizes", "of telling values", "with pointers of all kinds"]
            .iter()
            .flat_map(|what| titled(&all, &format!("ioctl 0x222000 of u32:0 {what}")))
            .map(|exercise| exercise.script.ends_with(must_end))
            .collect();
        ends
    };
    assert_eq!(of(vec![(0, 0)]), [true; 3]);
    assert_eq!(of(Vec::new()), [false; 3]);
}

#[test]
fn behind_the_first_of_many_that_fails_one_more_must_end() {
    let survey = Survey { stuck: vec![(0, 7)], ..surveyed("unit", false) };
    let all = exercises(&survey, 100);
    let [stuck] = titled(&all, "behind one of 7 in a row that fails")[..] else { panic!() };
    assert_eq!(stuck.script.matches("async a ioctl h 0x222000").count(), 7);
    assert!(stuck.script.ends_with("must-end z; cancel z; join z; close h"), "{}", stuck.script);
}

#[test]
fn a_number_that_is_handed_out_stands_in_front_of_what_takes_it() {
    let mut survey = Survey { numbered: vec![(0, 3)], ..surveyed("unit", false) };
    let command = "ioctl h 0x222008 in u32:0x1 + u32:0x5 + zero:8 out 64".to_owned();
    survey.operations.push(Operation { command, needs: Some(0), ..operation(0x0022_2008, false, false) });
    let all = exercises(&survey, 100);
    let of_numbers = titled(&all, "with a number of ioctl 0x222000");
    let [stays] = titled(&all, "one stays while 300 come and go")[..] else { panic!() };
    let taken = "ioctl h 0x222008 in number:m + u32:0x5 + zero:8 out 64; ";
    assert_eq!(stays.script.matches(taken).count(), 300);
    assert!(stays.script.contains("number n ioctl h 0x222000 in u32:0; number m "), "{}", stays.script);
    assert_eq!(stays.script.matches("; must-differ m n; ioctl h 0x222008 in number:m").count(), 300);
    assert!(stays.script.ends_with("in number:n + u32:0x5 + zero:8 out 64; close h"), "{}", stays.script);
    assert_eq!(of_numbers.len(), 9, "300, 40 at a time, twice, two of other handles, four at once");
    for exercise in of_numbers {
        let play = crate::play::ScriptText::typed(&exercise.script).play();
        assert!(play.is_ok(), "{}: {}", exercise.title, exercise.script);
    }
}

#[test]
fn what_a_card_answers_as_a_time_limit_ends_keeps_the_next_request_from_nothing() {
    let mut survey = Survey { limited: vec![(0, 2)], ..surveyed("edu", true) };
    let of = |survey: &Survey| {
        let all = exercises(survey, 100);
        let late = titled(&all, "behind one that the card answers as time limit");
        late.iter().map(|exercise| exercise.script.clone()).collect::<Vec<_>>()
    };
    assert!(of(&survey).is_empty(), "two of them may not be under way at once");
    survey.self_ending = vec![(0, 0)];
    let late = of(&survey);
    assert_eq!(late.len(), 2, "the last limit may be its own or that of what it waits behind");
    let asked = "cards late 2; async a ioctl h 0x222000 in u32:0; wait 100ms; async b ioctl h 0x222000 in u32:0; must-succeed b if a; ";
    assert!(late[0].contains(asked), "{}", late[0]);
    assert!(crate::play::ScriptText::typed(&late[0]).play().is_ok(), "{}", late[0]);
}

#[test]
fn each_of_two_inputs_of_one_code_gives_its_own_answer() {
    let answered = |word: u32, answer: &[u8]| Answered {
        operation: Operation {
            command: format!("ioctl h 0x222000 in u32:{word:#x} out 4"),
            ..operation(0x0022_2000, false, false)
        },
        answer: answer.to_vec(),
    };
    let answers = [answered(4, &[24]), answered(5, &[120])];
    let survey = Survey { answered: vec![answers], ..surveyed("edu", true) };
    let all = exercises(&survey, 100);
    let [queued] = titled(&all, "of u32:0x5 that wait behind each other")[..] else { panic!() };
    let own = "must-answer a hex:18 not hex:78 or u32:0x5; must-answer b hex:78 not hex:18 or u32:0x4; ";
    assert!(queued.script.contains(own), "{}", queued.script);
    let [both] =
        titled(&all, "the answers of ioctl 0x222000 of u32:0x4 and ioctl 0x222000 of u32:0x5 at once")[..]
    else {
        panic!()
    };
    assert!(
        both.script.contains("t: async a ioctl h 0x222000 in u32:0x4 out 4; u: async b "),
        "{}",
        both.script
    );
    for exercise in [queued, both] {
        assert!(crate::play::ScriptText::typed(&exercise.script).play().is_ok(), "{}", exercise.script);
    }
}

/// Of a card of which nothing is known, whose registers show a bit as it ends the request that waits.
fn ended_by_a_guessed_cause() -> Survey {
    let cause = Outside { device: "pci#0".to_owned(), signal: "cause".to_owned(), values: vec![2, 0] };
    let ended = Ended { operations: vec![2], by: vec![0], before: false, twice: false };
    Survey { outside: vec![cause], ended: vec![ended], ..surveyed("pci#0", true) }
}

#[test]
fn what_ends_a_request_at_an_unknown_card_comes_with_others_when_that_is_cancelled() {
    let survey = ended_by_a_guessed_cause();
    let all = exercises(&survey, 100);
    let both = titled(&all, "cancelled before poke pci#0 cause");
    assert_eq!(both.len(), 10, "seven low bits more, and three times many");
    let steps = "wait 1ms; cancel a; poke pci#0 cause 3; wait 1ms; poke pci#0 cause 0; wait 1ms; poke pci#0 cause 2; ";
    assert!(both[0].script.contains(steps), "{}", both[0].script);
    let sure = Outside { signal: "linti1".to_owned(), ..survey.outside[0].clone() };
    let known = exercises(&Survey { outside: vec![sure], ..survey }, 100);
    assert!(
        titled(&known, ", cancelled before poke").is_empty(),
        "a card of which all is known is not guessed at"
    );
}

#[test]
fn words_say_how_many_bytes_are_behind_them() {
    let mut survey = surveyed("unit", false);
    survey.values = vec![7, 0x5001];
    survey.operations[0].command = "ioctl h 0x222000 in u32:0x2 + zero:60 out 64".to_owned();
    let all = exercises(&survey, 100);
    let said = titled(&all, "ioctl 0x222000 of u32:0x2 of lengths that its words say");
    let [said] = said[..] else { panic!("{}", said.len()) };
    assert_eq!(said.script.matches("ioctl h 0x222000").count(), 24, "eight lengths in each of three words");
    let first = format!("ioctl h 0x222000 in u32:0xfffe + hex:{} + zero:65598 out 64; ", "00".repeat(60));
    assert!(said.script.contains(&first), "{}", said.script);
    let second = "ioctl h 0x222000 in hex:02000000 + u32:0x5000 + hex:";
    assert!(said.script.contains(second), "{}", said.script);
    assert!(crate::play::ScriptText::typed(&said.script).play().is_ok());
}

#[test]
fn requests_of_all_sizes_are_ended_by_what_ends_the_usual_one() {
    let survey = ended_by_a_guessed_cause();
    let all = exercises(&survey, 100);
    let [sizes] = titled(&all, "ioctl 0x222004 of u32:0 of all sizes, each ended by cause")[..] else {
        panic!()
    };
    let end = "; wait 1ms; poke pci#0 cause 2; wait 1ms; poke pci#0 cause 0; wait 20ms; cancel r";
    let requests = sizes.script.matches("; async r").count();
    assert!(requests > 10 && sizes.script.matches(end).count() == requests, "{}", sizes.script);
}
