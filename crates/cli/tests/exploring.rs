//! `dirql explore`, in jailed processes: the first broken schedule, with its record; and the run that is made again checked.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use rig::{Answer, dirql, driver, folder};

const UNLOCKED: &str = r"open \\.\DirqlLostUpdate as a
open \\.\DirqlLostUpdate as b
open \\.\DirqlLostUpdate as c
t: ioctl a 0x222000
u: ioctl b 0x222000
ioctl c 0x222004
join t; join u
ioctl c 0x222008 out 4 expect u32:0";

const LOCKED: &str = r"open \\.\DirqlLostUpdate as a
open \\.\DirqlLostUpdate as b
t: ioctl a 0x222010
u: ioctl b 0x222010
join t; join u
ioctl a 0x222008 out 4 expect u32:0";

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
    for text in ["explored ", " without a preemption", "ke.before_interlocked", "replay: dirql replay "] {
        assert!(found.out.contains(text), "no `{text}`: {}", found.said());
    }
    let again = dirql(["replay", file.to_str().unwrap(), "--quiet"]);
    assert_eq!(again.code, Some(1), "{}", again.said());
    assert!(again.out.contains("replay: the same run, "), "{}", again.said());
}

#[test]
fn an_update_lost_between_plain_instructions_is_recorded_with_the_instruction() {
    let quiet = UNLOCKED.replace("0x222000", "0x22200c").replace("ioctl c 0x222004\n", "");
    let file = folder("lost_quietly").join("lost.dirql");
    let found = explore(&quiet, &["--preemptions", "1", "--record", file.to_str().unwrap()]);
    assert_eq!(found.code, Some(1), "{}", found.said());
    for text in [
        " before it was known that 4 instructions touch what others touch",
        "  preempt 7 after 17 before 0x2000",
    ] {
        assert!(found.out.contains(text), "no `{text}`: {}", found.said());
    }
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
            held.out.contains("all there are with up to 1 preemptions, and none is broken"),
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
