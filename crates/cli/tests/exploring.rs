//! `dirql explore`, in jailed processes: the first broken schedule, with its record; the same however many processes search;
//! and what becomes of a driver that kills them.

use super::rig::lost_update::{COUNTED, HARMLESS, LOCKED, QUIET, UNLOCKED, UNSEEN, WRECKING};
use super::rig::{Answer, dirql, driver, folder};

fn explore(script: &str, more: &[&str]) -> Answer {
    let sys = driver("lost_update.sys");
    let fixed = ["explore", sys.to_str().unwrap(), "--processors", "2", "--do", script];
    dirql(fixed.iter().chain(more))
}

#[test]
fn a_lost_update_is_found_shown_and_recorded() {
    let sys = driver("lost_update.sys");
    let usual = dirql(["run", sys.to_str().unwrap(), "--processors", "2", "--do", UNLOCKED]);
    assert_eq!(usual.code, Some(0), "run until blocked does not find it: {}", usual.said());
    let file = folder("lost_update").join("lost.dirql");
    let found = explore(UNLOCKED, &["--record", file.to_str().unwrap()]);
    assert_eq!(found.code, Some(1), "{}", found.said());
    for text in
        ["explored ", " without a preemption", "; the report says how, in words", "replay: dirql replay "]
    {
        assert!(found.out.contains(text), "no `{text}`: {}", found.said());
    }
    let again = dirql(["replay", file.to_str().unwrap(), "--quiet"]);
    assert_eq!(again.code, Some(1), "{}", again.said());
    assert!(again.out.contains("replay: the same run, "), "{}", again.said());
    // In words: which thread, in which routine and line, gave way before what to which.
    for answer in [&found, &again] {
        let schedule = answer.out.split("schedule, where it is not the usual one").nth(1);
        let schedule = schedule.unwrap_or_else(|| panic!("no schedule: {}", answer.said()));
        for text in [", in lost_update!", ".c:", " gave way to ", "before that interlocked instruction"] {
            assert!(schedule.contains(text), "no `{text}`: {}", answer.said());
        }
    }
}

#[test]
fn what_a_search_finds_is_drawn_as_text_or_as_a_picture_and_what_it_does_not_find_is_not() {
    let folder = folder("explored_figure");
    for (name, begins) in [("lost.txt", "     time"), ("lost.svg", "<svg ")] {
        let file = folder.join(name);
        let found = explore(UNLOCKED, &["--quiet", "--figure", file.to_str().unwrap()]);
        assert_eq!(found.code, Some(1), "{}", found.said());
        let figure = std::fs::read_to_string(&file).unwrap();
        assert!(figure.starts_with(begins), "{figure}");
        // The schedule that was found, with the DPC that the update is lost to.
        for text in ["DeviceIoControl", "DispatchDeviceControl", "CustomDpc", "AddDpc"] {
            assert!(figure.contains(text), "{name} lacks `{text}`\n{figure}");
        }
    }
    let none = folder.join("none.txt");
    let clean = explore(LOCKED, &["--quiet", "--preemptions", "0", "--figure", none.to_str().unwrap()]);
    assert_eq!(clean.code, Some(0), "{}", clean.said());
    assert!(!none.exists(), "nothing is broken, so nothing is drawn");
    let nowhere = explore(UNLOCKED, &["--figure", "/no/such/folder/figure.svg"]);
    assert_eq!(nowhere.code, Some(2), "{}", nowhere.said());
    assert!(nowhere.err.contains("/no/such/folder/figure.svg: cannot be written"), "{}", nowhere.said());
}

#[test]
fn an_update_lost_between_plain_instructions_is_recorded_with_the_instruction() {
    let quiet = UNLOCKED.replace("0x222000", "0x22200c").replace("ioctl c 0x222004\n", "");
    let file = folder("lost_quietly").join("lost.dirql");
    let found = explore(&quiet, &["--preemptions", "1", "--record", file.to_str().unwrap()]);
    assert_eq!(found.code, Some(1), "{}", found.said());
    for text in [
        " before it was known that 4 instructions touch what others touch",
        "It departs from the usual one once",
        " gave way to ",
        " before it touched memory that others touch",
    ] {
        assert!(found.out.contains(text), "no `{text}`: {}", found.said());
    }
    assert!(!found.out.contains("preempt 7"), "words, no records: {}", found.said());
    assert!(std::fs::read_to_string(&file).unwrap().contains("\npreempt 7 after 17 before 0x2000"));
    let again = dirql(["replay", file.to_str().unwrap(), "--quiet"]);
    assert_eq!(again.code, Some(1), "{}", again.said());
    assert!(again.out.contains("replay: the same run, "), "{}", again.said());
}

#[test]
fn what_holds_in_all_schedules_is_said_with_their_number() {
    for way in [&[] as &[&str], &["--in-process"]] {
        let held = explore(LOCKED, &[&["--preemptions", "1"], way].concat());
        assert_eq!(held.code, Some(0), "{}", held.said());
        assert!(
            held.out.contains("all there are with up to 1 preemption, and none is broken"),
            "{}",
            held.said()
        );
    }
    let stopped = explore(LOCKED, &["--schedules", "5", "--json"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.said());
    assert!(stopped.out.contains(r#""complete":false,"choices":null"#), "{}", stopped.said());
}

#[test]
fn without_a_script_there_is_nothing_to_explore() {
    let sys = driver("lost_update.sys");
    let answer = dirql(["explore", sys.to_str().unwrap()]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("give a script"), "{}", answer.said());
}

/// What a search says, for any number of processes.
fn the_same_by_any_number_of_processes(script: &str, more: &[&str]) -> Answer {
    let here = explore(script, &[more, &["--in-process"]].concat());
    for workers in ["1", "2", "5"] {
        let there = explore(script, &[more, &["--workers", workers]].concat());
        assert_eq!(
            (here.code, &here.out, &here.err),
            (there.code, &there.out, &there.err),
            "{workers} workers"
        );
    }
    here
}

#[test]
fn a_search_is_the_same_by_any_number_of_processes() {
    // Complete, found early, found late, ended by its bound in the middle of a part; by seeds.
    let complete = the_same_by_any_number_of_processes(LOCKED, &["--json"]);
    assert!(
        complete.out.contains(r#""complete":true,"choices":null,"not_searched":0"#),
        "{}",
        complete.said()
    );
    let found = the_same_by_any_number_of_processes(UNLOCKED, &["--quiet"]);
    assert_eq!(found.code, Some(1), "{}", found.said());
    for bound in ["1", "7", "100"] {
        let bounded = the_same_by_any_number_of_processes(LOCKED, &["--schedules", bound]);
        assert!(bounded.out.starts_with(&format!("explored {bound} schedule")), "{}", bounded.said());
        assert!(bounded.out.contains("there are more"), "{}", bounded.said());
    }
    let seeds = ["--policy", "random:1", "--schedules", "300"];
    let found = the_same_by_any_number_of_processes(UNLOCKED, &seeds);
    assert!(found.out.contains("from random:1 on: the last one is unexpected"), "{}", found.said());
    let clean = the_same_by_any_number_of_processes(LOCKED, &seeds);
    let said = "explored 300 schedules from random:1 on, and none is broken\n\
                with every access checked, the schedule without a preemption is clean too (--checked tests all)\n";
    assert_eq!(clean.out, said, "{}", clean.said());
}

#[test]
fn what_a_search_learns_is_the_same_by_any_number_of_processes() {
    let found = the_same_by_any_number_of_processes(QUIET, &["--preemptions", "1"]);
    assert_eq!(found.code, Some(1), "{}", found.said());
    for text in [
        " instructions touch what others touch): the last one is ",
        " before it touched memory that others touch",
    ] {
        assert!(found.out.contains(text), "no `{text}`: {}", found.said());
    }
    let all = the_same_by_any_number_of_processes(UNSEEN, &["--json"]);
    assert!(all.out.contains(r#""complete":true,"choices":null"#), "{}", all.said());
    assert!(number(&all, "repeated") > 0 && number(&all, "shared_instructions") > 1, "{}", all.said());
    // Many parts, whose runs begin behind what they have in common.
    assert!(number(&all, "schedules") > 200, "{}", all.said());
    let bound = ["--schedules", "200", "--json"];
    let bounded = the_same_by_any_number_of_processes(UNSEEN, &bound);
    assert_eq!(number(&bounded, "schedules") + number(&bounded, "repeated"), 200, "{}", bounded.said());
}

#[test]
fn every_number_of_processes_writes_the_same_record() {
    for (name, script, choice) in
        [("unlocked", UNLOCKED, "ke.before_interlocked"), ("quiet", QUIET, " before 0x")]
    {
        let records = ["1", "2", "5"].map(|workers| {
            let file = folder(&format!("same_record_{name}_{workers}")).join("lost.dirql");
            explore(script, &["--workers", workers, "--record", file.to_str().unwrap()]);
            std::fs::read_to_string(file).unwrap()
        });
        assert!(records[0].contains(choice));
        assert!(records.iter().all(|record| *record == records[0]));
    }
}

fn number(answer: &Answer, key: &str) -> u64 {
    let json: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let value = &json["explored"][key];
    let all = value.as_array().map(|all| all.iter().filter_map(serde_json::Value::as_u64).sum());
    all.or_else(|| value.as_u64()).unwrap()
}

/// Explores in processes that die in this way.
fn dying(way: &str, script: &str, more: &[&str]) -> Answer {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dirql"));
    command
        .arg("explore")
        .arg(driver("lost_update.sys"))
        .args(["--processors", "2", "--do", script])
        .args(more);
    Answer::of(command.env("DIRQL_FAIL", way).env_remove("RUST_BACKTRACE").output().unwrap())
}

#[test]
fn a_schedule_that_kills_its_process_is_made_with_checks_and_found() {
    let file = folder("wrecking").join("wrecked.dirql");
    let more = ["--preemptions", "1", "--record", file.to_str().unwrap()];
    let found: Vec<Answer> = ["1", "2", "5"]
        .iter()
        .map(|workers| explore(WRECKING, &[&more[..], &["--workers", workers]].concat()))
        .collect();
    let first = &found[0];
    assert_eq!(first.code, Some(1), "{}", first.said());
    for text in [
        ": the last one is broken. It departs from the usual one",
        "  rule         wild-write",
        "lost_update!",
    ] {
        assert!(first.out.contains(text), "no `{text}`: {}", first.said());
    }
    assert!(first.err.is_empty(), "{}", first.said());
    for other in &found {
        assert_eq!((other.code, &other.out, &other.err), (first.code, &first.out, &first.err));
    }
    let again = dirql(["replay", file.to_str().unwrap(), "--quiet"]);
    assert_eq!(again.code, Some(1), "{}", again.said());
    assert!(
        again.out.contains("wild-write") && again.out.contains("replay: the same run"),
        "{}",
        again.said()
    );
}

#[test]
fn a_checked_search_finds_the_same_without_a_death() {
    let found = explore(WRECKING, &["--preemptions", "1", "--checked"]);
    assert_eq!(found.code, Some(1), "{}", found.said());
    assert!(found.out.contains("wild-write") && !found.out.contains("Before its report"), "{}", found.said());
    let died = explore(WRECKING, &["--preemptions", "1"]);
    assert_eq!(found.out.lines().next(), died.out.lines().next(), "after the same schedules");
}

#[test]
fn a_search_with_checks_says_what_one_without_says() {
    for script in [UNLOCKED, LOCKED, QUIET] {
        let bounds = ["--preemptions", "1", "--quiet"];
        let (fast, checked) =
            (explore(script, &bounds), explore(script, &[&bounds[..], &["--checked"]].concat()));
        assert_eq!((fast.code, &fast.err), (checked.code, &checked.err));
        let mut said = fast.out.lines();
        let same = checked.out.lines().all(|line| said.next() == Some(line));
        assert!(same, "{}\n{}", fast.said(), checked.said());
        let confirmed = said.next().is_some_and(|line| line.contains("is clean too"));
        assert_eq!(confirmed, fast.code == Some(0), "a fast search is confirmed: {}", fast.said());
    }
}

#[test]
fn a_schedule_whose_process_hangs_is_tried_again_with_checks() {
    if cfg!(debug_assertions) {
        let more = ["--preemptions", "1", "--quiet", "--host-timeout", "3"];
        let found = dying("hang-fast-broken", COUNTED, &more);
        assert_eq!(found.code, Some(1), "{}", found.said());
    }
}

#[test]
fn a_schedule_whose_process_dies_and_that_is_clean_with_checks_is_our_fault() {
    if cfg!(debug_assertions) {
        // With checks an increment is lost all the same: that is found.
        let found = dying("abort-fast-broken", COUNTED, &["--preemptions", "1", "--quiet"]);
        assert_eq!(found.code, Some(1), "{}", found.said());
        let lost = dying("abort-broken", COUNTED, &["--preemptions", "1"]);
        assert_eq!(lost.code, Some(3), "{}", lost.said());
        assert!(
            lost.err.contains("SIGABRT") && lost.err.contains("the second time, no access"),
            "{}",
            lost.said()
        );
        let checked = dying("abort-broken", COUNTED, &["--preemptions", "1", "--checked"]);
        assert_eq!(checked.code, Some(3), "{}", checked.said());
        assert!(!checked.err.contains("again, with every access"), "{}", checked.said());
        assert_eq!(checked.out, lost.out);
    }
}

#[test]
fn schedules_that_kill_their_process_are_told_and_all_others_are_searched() {
    if !cfg!(debug_assertions) {
        return;
    }
    let bounds = ["--preemptions", "1", "--json"];
    let all = explore(HARMLESS, &bounds);
    assert_eq!(all.code, Some(0), "{}", all.said());
    let deadly = |more: &[&str]| dying("abort-broken", COUNTED, more);
    let searched: Vec<Answer> = ["1", "2", "5"]
        .iter()
        .map(|workers| deadly(&[&bounds[..], &["--workers", workers]].concat()))
        .collect();
    let first = &searched[0];
    assert_eq!(first.code, Some(3), "no answer about some is none about the driver: {}", first.said());
    assert!(first.out.contains(r#""complete":false,"choices":null"#), "{}", first.said());
    let (made, lost) = (number(first, "schedules"), number(first, "not_searched"));
    assert!(lost > 1, "{}", first.said());
    let all = number(&all, "schedules");
    assert!(made + lost < all, "nothing departs further from those that die: {lost} and {made} of {all}");
    assert!(made > all / 2, "but from the others: {made} of {all}");
    assert!(first.err.starts_with("dirql: schedule "), "{}", first.said());
    assert!(
        first.err.contains(" has ended its process: ") && first.err.contains("SIGABRT"),
        "{}",
        first.said()
    );
    for other in &searched {
        assert_eq!((other.code, &other.out, &other.err), (first.code, &first.out, &first.err));
    }
    let without = deadly(&["--preemptions", "0"]);
    assert_eq!(without.code, Some(0), "{}", without.said());
    let dead = deadly(&bounds[..2]);
    assert!(dead.out.contains(&format!("; {lost} more ended their process")), "{}", dead.said());
}

#[test]
fn a_driver_that_is_none_is_told_once() {
    let answer = dirql(["explore", "no-such.sys", "--do", LOCKED, "--workers", "3"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.out.is_empty() && answer.err.matches("dirql: ").count() == 1, "{}", answer.said());
    let sys = driver("lost_update.sys");
    let answer = dirql(["explore", sys.to_str().unwrap(), "--do", LOCKED, "--policy", "default"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("no seed for each of 100000 runs"), "{}", answer.said());
}
