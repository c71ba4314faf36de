//! `dirql check`: what a driver offers is found, what is wrong is reported once with the line that makes it again, and what is right is left in peace.

use serde_json::Value;

use super::rig::{self, Answer, dirql, driver};

fn check(name: &str, more: &[&str]) -> Answer {
    let sys = driver(name);
    dirql(["check", sys.to_str().unwrap()].iter().chain(more))
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.said()))
}

fn rules_of(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap()).collect()
}

#[test]
fn a_correct_driver_is_left_in_peace_and_the_report_says_what_was_tried() {
    let answer = check("queue.sys", &["--budget", "10"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(answer.out.contains("1 name, 5 requests, 0 devices; "), "{}", answer.said());
    assert!(
        answer.out.contains("nothing is wrong by these; --budget 100 adds schedules to "),
        "{}",
        answer.said()
    );
    assert!(
        answer.out.contains(" searches (the others have tried all within their bound) and seeds to "),
        "{}",
        answer.said()
    );
}

#[test]
fn sequences_that_came_to_new_code_are_kept_and_tried_by_the_next_check() {
    let folder = rig::folder("corpus");
    let option = format!("--corpus={}", folder.display());
    let kept = || {
        let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    };
    let titles = |report: &Value| -> Vec<String> {
        let exercises = report["exercises"].as_array().unwrap();
        let titles = exercises.iter().map(|exercise| exercise["title"].as_str().unwrap().to_owned());
        titles.filter(|title| title.starts_with("kept sequence ")).collect()
    };
    let check = || check("queue.sys", &["--budget", "1", "--json", &option]);
    assert_eq!(titles(&json(&check())), Vec::<String>::new());
    let first = kept();
    assert!(first.len() > 2, "{first:?}");
    let name = |path: &std::path::PathBuf| format!("kept sequence {}", path.file_stem().unwrap().display());
    assert_eq!(titles(&json(&check())), first.iter().map(name).collect::<Vec<_>>());
    assert!(first.iter().all(|path| kept().contains(path)), "what is known stays");

    std::fs::write(folder.join("by_hand.txt"), "opne x").unwrap();
    let refused = check();
    assert_eq!(refused.code, Some(2), "{}", refused.said());
    assert!(refused.err.contains("by_hand.txt: "), "{}", refused.said());
}

#[test]
fn the_gallery_of_correct_drivers_is_left_in_peace() {
    for name in ["correct.sys", "correct_pnp.sys", "pciline.sys"] {
        let answer = check(name, &["--budget", "1"]);
        assert_eq!(answer.code, Some(0), "{name}: {}", answer.said());
    }
}

#[test]
fn the_codes_of_a_jump_table_are_found() {
    let report = json(&check("lost_update.sys", &["--json", "--exercise=load, start"]));
    let codes =
        report["survey"]["operations"].as_array().unwrap().iter().map(|it| it["code"].as_u64().unwrap());
    let all: Vec<u64> = (0..13).map(|function| 0x22_2000 + 4 * function).collect();
    assert_eq!(codes.collect::<Vec<_>>(), all);
}

/// The survey of an exhibit of the museum, which comes before all exercises.
fn survey(exhibit: &str) -> Value {
    let path = rig::root().join("target/museum").join(exhibit).with_extension("sys");
    let answer = dirql(["check", path.to_str().unwrap(), "--json", "--budget=1", "--exercise=load, start"]);
    json(&answer)["survey"].take()
}

/// The commands of a survey's operations at the places that it names.
fn commands<'s>(survey: &'s Value, places: &Value) -> Vec<&'s str> {
    let places = places.as_array().unwrap().iter().map(|place| place.as_u64().unwrap());
    places
        .map(|place| survey["operations"][usize::try_from(place).unwrap()]["command"].as_str().unwrap())
        .collect()
}

#[test]
fn what_ends_a_request_that_waits_is_found_by_its_word_and_in_which_order_it_does() {
    // RAISE with zero raises nothing; what it raises is there until a WAIT comes.
    let raised = survey("lattice_fixed");
    let ended = commands(&raised, &raised["ended_by"][0]);
    assert!(ended[1].starts_with("ioctl h 0x22a1cc in u32:0x"), "{ended:?}");
    // A message waits for its reader.
    let kept = survey("hopper_fixed");
    assert_eq!(commands(&kept, &kept["ended_before"][0]), ["read h 64", "write h zero:64"]);
    // A bell that rings ends those that wait for it.
    let rung = survey("bell_fixed");
    assert_ne!(rung["ended_by"], serde_json::json!([]));
    assert_eq!(rung["ended_before"], serde_json::json!([]));
}

#[test]
fn children_that_one_request_brings_and_the_next_one_takes_away_are_known() {
    assert_eq!(survey("trellis_fixed")["children"], serde_json::json!(["shoot#0"]));
}

#[test]
fn a_request_that_only_the_user_knows_is_the_surveys() {
    let asked = |more: &[&str]| {
        let report = json(&check(
            "filters.sys",
            &[&["--json", "--budget=1", "--exercise=load, start"], more].concat(),
        ));
        let operations = report["survey"]["operations"].as_array().unwrap().clone();
        let is_of_stories = |one: &Value| one["command"].as_str().unwrap().contains("0x223ff8 in ");
        let of_stories: Vec<Value> = operations.into_iter().filter(is_of_stories).collect();
        of_stories.iter().map(|one| one["succeeds"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert!(!asked(&[]).contains(&true), "the name of a story cannot be found out");
    let script = r#"--do=open \\.\DirqlFilters as d; ioctl d 0x223ff8 in text:"ThreadsAreWatched" out 512"#;
    assert_eq!(asked(&[script]), [true]);
}

#[test]
fn the_inf_beside_a_driver_says_which_card_it_gets() {
    let report = json(&check("pci9052.sys", &["--budget", "1", "--json"]));
    assert_eq!(report["survey"]["devices"], serde_json::json!(["pci9052#0"]));
    assert_eq!(report["exit_code"], 0, "{report}");
    assert!(report["calls_failed"].as_u64().unwrap() > 50, "{report}");
}

#[test]
fn one_worker_and_three_tell_the_same() {
    let with = |workers| check("lost_update.sys", &["--budget", "1", "--workers", workers]);
    let (one, three) = (with("1"), with("3"));
    assert_eq!(one.code, Some(1), "{}", one.said());
    assert_eq!((one.out, one.err), (three.out, three.err));
}

#[test]
fn nothing_more_is_tried_once_what_was_asked_for_is_found() {
    let sys = rig::root().join("target/museum/input_not_checked.sys");
    let check = |more: &[&str]| {
        let own = ["check", sys.to_str().unwrap(), "--json", "--budget", "1"];
        dirql(own.iter().chain(more))
    };
    let left_out = |answer: &Answer| json(answer)["jobs_left_out"].as_u64().unwrap();
    let all = check(&[]);
    for rules in ["any", "pool-leak,wild-read"] {
        let short = check(&["--until", rules, "--workers", "1"]);
        assert!(left_out(&short) > 0, "{}", short.said());
        assert_eq!(short.out, check(&["--until", rules, "--workers", "3"]).out, "{rules}");
        let report = json(&short);
        assert_eq!(rules_of(&report), ["wild-read"], "{}", short.said());
        assert_eq!(report["no_answers"], serde_json::json!([]), "{}", short.said());
        assert_eq!(short.code, Some(1));
    }
    let in_vain = check(&["--until", "irp-never-completed"]);
    assert_eq!(left_out(&in_vain), 0, "{}", in_vain.said());
    assert_eq!(in_vain.out, all.out);
    let refused = check(&["--until", "wild-reed"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("did you mean `wild-read`?"), "{}", refused.said());
}

#[test]
fn what_has_shown_a_mistake_is_tried_alone_again() {
    let check = |name: &str, title: &str| {
        let sys = rig::root().join("target/museum").join(name);
        dirql(["check", sys.to_str().unwrap(), "--json", "--budget=1", "--exercise", title])
    };
    let title = "ioctl 0x22a008 of";
    let wrong = json(&check("input_not_checked.sys", title));
    assert_eq!(rules_of(&wrong), ["wild-read"]);
    let exercises = wrong["exercises"].as_array().unwrap();
    assert!(
        !exercises.is_empty()
            && exercises.iter().all(|one| one["title"].as_str().unwrap().starts_with(title))
    );
    // As the report has it, with how what happened departs from the usual.
    let shown = format!(
        "{}, in an order that departs from the usual once",
        wrong["findings"][0]["exercise"].as_str().unwrap()
    );
    let mended = check("input_not_checked_fixed.sys", &shown);
    assert_eq!((mended.code, json(&mended)["exercises"].as_array().unwrap().len()), (Some(0), 1));
    let refused = check("input_not_checked.sys", "nothing of the kind");
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.err.contains("no exercise has a title that begins with `nothing of the kind`"),
        "{}",
        refused.said()
    );
}

#[test]
fn each_cause_is_reported_once_as_short_as_it_can_be_and_its_line_makes_it_again() {
    let report = json(&check("legacy.sys", &["--budget", "1", "--json"]));
    let findings = report["findings"].as_array().unwrap();
    assert!(rules_of(&report).contains(&"unhandled-exception"), "{:?}", rules_of(&report));
    findings.iter().for_each(rig::is_made_again);
    // Of a hundred commands: to open it, to name memory, to take that away, to ask; and at most one besides.
    let script = findings[0]["script"].as_str().unwrap();
    assert!(script.split("; ").count() <= 5, "{script}");
}

/// A seed departs from the usual dozens of times, and a few of these matter.
#[test]
fn what_departs_from_the_usual_is_left_out_as_far_as_the_rest_shows_the_same() {
    let sys = rig::root().join("target/museum/drizzle.sys");
    let answer = dirql(["check", sys.to_str().unwrap(), "--json", "--budget", "2", "--until", "any"]);
    let report = json(&answer);
    let finding = &report["findings"][0];
    assert_eq!(finding["rule"], "freed-queued-dpc", "{}", answer.said());
    let replay = finding["replay"].as_str().unwrap();
    let (_, choices) = replay.split_once("--follow=").unwrap_or_else(|| panic!("{replay}"));
    let choices = choices.split('\'').next().unwrap().split(';').count();
    assert!((1..=4).contains(&choices), "{replay}");
    assert_eq!(finding["departures"], choices, "{replay}");
    rig::is_made_again(finding);
}

#[test]
fn a_length_that_no_request_compares_is_one_thing_with_all_its_places() {
    let report = json(&check("lengths.sys", &["--budget", "1", "--json"]));
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(rules_of(&report), ["pool-overrun"], "{report:#}");
    let also = |place: &Value| place["also"][0]["rule"].as_str().map(str::to_owned);
    let places = findings[0]["places"].as_array().unwrap();
    assert_eq!(places.len(), 2, "{report:#}");
    for place in [&findings[0]].into_iter().chain(places) {
        assert_eq!(also(place).as_deref(), Some("wild-read"), "{report:#}");
        rig::is_made_again(place);
        rig::is_made_again(&place["also"][0]);
    }
    let text = check("lengths.sys", &["--budget", "1"]);
    assert!(text.out.contains("  also as      wild-read\n"), "{}", text.said());
    assert!(text.out.contains("  more places  2 in lengths!DispatchControl: "), "{}", text.said());
    assert!(text.out.contains(": 1 thing is wrong\n"), "{}", text.said());
}

#[test]
fn input_that_cannot_be_used_is_refused_with_what_and_where() {
    let none = dirql(["check", "nowhere.sys"]);
    assert_eq!(none.code, Some(2), "{}", none.said());
    assert!(none.err.contains("nowhere.sys: there is no such file"), "{}", none.said());
    let here = check("queue.sys", &["--in-process"]);
    assert_eq!(here.code, Some(2), "{}", here.said());
    assert!(here.err.contains("--in-process"), "{}", here.said());
    let card = check("queue.sys", &["--device", "pci9053"]);
    assert_eq!(card.code, Some(2), "{}", card.said());
    assert!(card.err.contains("pci9053"), "{}", card.said());
}
