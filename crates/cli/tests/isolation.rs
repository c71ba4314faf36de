//! Whatever a driver does, and whatever becomes of the process that runs it: the command says one thing about it, says
//! whose fault it was, keeps what was printed before, and the next run is none the worse.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::rig::{self, Answer, dirql, driver};

const LOADED: &str = "legacy: loaded from";

/// A run of `legacy.sys` whose process dies in this way once the driver is loaded.
fn dying(way: &str, more: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_dirql"))
        .arg("run")
        .arg(driver("legacy.sys"))
        .arg("--quiet")
        .args(fast(more))
        .args(more)
        .env("DIRQL_FAIL", way)
        .env_remove("RUST_BACKTRACE")
        .output();
    Answer::of(output.unwrap())
}

/// No answer, by one message with `parts`; and what the driver printed before.
fn no_answer(answer: &Answer, parts: &[&str]) {
    let said = answer.said();
    assert_eq!(answer.code, Some(3), "{said}");
    assert!(answer.out.starts_with(LOADED), "what was printed before stays\n{said}");
    assert!(!answer.out.contains("verdict"), "there is no verdict\n{said}");
    assert_eq!(answer.err.matches("dirql: ").count(), 1, "one message\n{said}");
    for part in parts {
        assert!(answer.err.contains(part), "`{part}` is missing\n{said}");
    }
}

fn attack(number: u32, more: &[&str]) -> Answer {
    Answer::of(attacking(number, more).output().unwrap())
}

fn attacking(number: u32, more: &[&str]) -> Command {
    let script = format!("open \\\\.\\DirqlHostile as f; ioctl f {:#x}", 0x22_0000 + (0xB00 + number) * 4);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command
        .arg("run")
        .arg(driver("hostile.sys"))
        .args(["--quiet", "--do", &script])
        .args(fast(more))
        .args(more);
    command
}

/// As [`attack`], of which an unchecked process dies before it comes to that.
fn deadly(number: u32, more: &[&str]) -> Answer {
    let mut command = attacking(number, more);
    Answer::of(command.env("DIRQL_FAIL", "abort-fast").env_remove("RUST_BACKTRACE").output().unwrap())
}

/// Replays what [`deadly`] has recorded, in the same way.
fn replaying(record: &std::path::Path, more: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.arg("replay").arg(record).arg("--quiet").args(more).env("DIRQL_FAIL", "abort-fast");
    Answer::of(command.output().unwrap())
}

/// These stories are of machines that are not checked, unless they say so.
fn fast(more: &[&str]) -> &'static [&'static str] {
    if more.contains(&"--checked") { &[] } else { &["--fast"] }
}

fn the_next_run_is_clean() {
    let sys = driver("hostile.sys");
    let script = r"open \\.\DirqlHostile as f; ioctl f 0x222c00 out 4 expect u32:38";
    let answer = dirql(["run", sys.to_str().unwrap(), "--quiet", "--do", script]);
    assert_eq!((answer.code, answer.out.trim()), (Some(0), "verdict: clean"), "{}", answer.said());
}

#[test]
fn an_abort_of_ours_is_told_as_ours() {
    if cfg!(debug_assertions) {
        no_answer(&dying("abort", &[]), &["ended by SIGABRT", "whose fault: dirql's", "issues"]);
    }
}

#[test]
fn a_heap_of_ours_that_is_exhausted_says_so_in_the_same_message() {
    if cfg!(debug_assertions) {
        no_answer(
            &dying("memory", &[]),
            &["SIGABRT: the machine's own heap is exhausted", "whose fault: dirql's"],
        );
    }
}

#[test]
fn a_stack_of_ours_that_overflows_says_so_in_the_same_message() {
    if cfg!(debug_assertions) {
        no_answer(
            &dying("overflow", &[]),
            &["SIGSEGV: a strand's host stack has overflowed", "whose fault: dirql's"],
        );
    }
}

#[test]
fn a_hang_of_ours_is_ended_after_the_hosts_time_that_it_was_given() {
    if cfg!(debug_assertions) {
        no_answer(
            &dying("hang", &["--host-timeout", "1"]),
            &["no end after 1 s of the host's time", "dirql's, if it hangs", "--host-timeout"],
        );
    }
}

#[test]
fn a_file_that_is_opened_in_the_jail_is_named_as_a_system_call_and_is_not_opened() {
    if cfg!(debug_assertions) {
        no_answer(
            &dying("open", &[]),
            &["SIGSYS", "the jail refused the system call openat (257)", "whose fault: dirql's"],
        );
    }
}

#[test]
fn a_program_that_is_started_in_the_jail_does_not_start() {
    if cfg!(debug_assertions) {
        no_answer(
            &dying("start", &[]),
            &["SIGSYS (a system call that its jail refuses)", "whose fault: dirql's"],
        );
    }
}

#[test]
fn a_last_word_without_the_number_that_only_the_watcher_knew_is_not_believed() {
    if cfg!(debug_assertions) {
        for way in ["forge", "forge-in-full"] {
            no_answer(&dying(way, &[]), &["(exit status: 0) without its report"]);
        }
    }
}

#[test]
fn a_process_that_ends_well_without_its_report_has_not_ended_well() {
    if cfg!(debug_assertions) {
        no_answer(&dying("exit", &[]), &["(exit status: 0) without its report", "whose fault: dirql's"]);
    }
}

#[test]
fn a_panic_of_ours_in_the_jail_is_in_the_report_though_its_backtrace_may_open_nothing() {
    if cfg!(debug_assertions) {
        let output = Command::new(env!("CARGO_BIN_EXE_dirql"))
            .args(["run", "--quiet"])
            .arg(driver("legacy.sys"))
            .env("DIRQL_FAIL", "panic")
            .env("RUST_BACKTRACE", "1")
            .output();
        let answer = Answer::of(output.unwrap());
        assert_eq!(answer.code, Some(3), "{}", answer.said());
        assert!(answer.out.contains("verdict: none; dirql itself failed"), "{}", answer.said());
        assert!(answer.out.contains("a panic that was asked for"), "{}", answer.said());
        assert!(!answer.err.contains("SIGSYS"), "{}", answer.said());
    }
}

#[test]
fn each_bug_of_a_driver_is_told_by_its_own_run_and_nothing_dies() {
    let sys = driver("faults.sys");
    // 6 runs a thousand million instructions before its verdict.
    for number in (1..=40).filter(|number| *number != 6) {
        let script = format!("open \\\\.\\DirqlFaults as f; ioctl f {:#x}", 0x22_2800 + number * 4);
        let answer = dirql(["run", sys.to_str().unwrap(), "--quiet", "--do", &script]);
        assert!(answer.out.contains("verdict: "), "fault {number}\n{}", answer.said());
        assert!(answer.err.is_empty(), "fault {number}\n{}", answer.said());
    }
}

/// Attacks that end in correct execution or a verdict. 19 takes as long as 6 above.
#[test]
fn code_that_is_out_to_get_us_ends_in_a_report_of_its_own() {
    for number in (1..=26).chain([32]).filter(|number| *number != 19) {
        let answer = attack(number, &[]);
        assert!(answer.out.contains("verdict: "), "attack {number}\n{}", answer.said());
        assert!(answer.err.is_empty(), "attack {number}\n{}", answer.said());
        let clean = answer.code == Some(0);
        assert_eq!(clean, number == 14, "attack {number}: only a stack in pool is no bug\n{}", answer.said());
    }
    the_next_run_is_clean();
}

/// Attacks on what dirql itself lives in: a verdict at the instruction, or, of the page that is the driver's to spoil, an end that is
/// reported.
#[test]
fn a_driver_that_writes_over_dirqls_own_memory_ends_its_own_run_only() {
    for number in (27..=31).chain([36, 37]) {
        let answer = attack(number, &["--host-timeout", "2"]);
        let said = || format!("attack {number}\n{}", &answer.said()[..answer.said().len().min(4000)]);
        assert!(matches!(answer.code, Some(1 | 3)), "{}", said());
        assert!(matches!(number, 30 | 37) || answer.code == Some(1), "{}", said());
        let judged = answer.out.contains("verdict: ");
        assert!(judged || answer.err.contains("whose fault: dirql's"), "{}", said());
    }
    the_next_run_is_clean();
}

/// What a driver can read at addresses that it can know: nothing of the host's, and in each process the same.
#[test]
fn no_address_of_the_host_can_be_read() {
    for number in [33, 34, 35] {
        let [one, other] = [(); 2].map(|()| attack(number, &[]));
        assert_eq!((one.code, other.code), (Some(0), Some(0)), "attack {number}\n{}", one.said());
        assert_eq!(one.out, other.out, "attack {number} tells one process from another");
        assert!(one.out.contains(": sum "), "{}", one.said());
    }
}

/// What the command says of an attack that kills its process: how it died, and then the verdict of the checked run.
fn told_after_death(answer: &Answer, number: u32) {
    let said = || format!("attack {number}\n{}", answer.said());
    assert_eq!(answer.code, Some(1), "{}", said());
    for part in ["Before its report, the process that ran the machine was ended by SIG", "hostile!Overwrite"]
    {
        assert!(answer.out.contains(part), "`{part}` is missing in {}", said());
    }
    assert!(answer.out.contains("  rule         wild-write"), "{}", said());
    assert!(answer.out.contains("drivers/c/hostile/hostile.c:"), "{}", said());
    assert!(!answer.err.contains("whose fault"), "the driver is named, and nothing else blamed: {}", said());
}

/// Attacks on what dirql itself lives in.
const DEADLY: [u32; 2] = [28, 29];

#[test]
fn a_run_whose_process_dies_is_made_again_with_checks_before_anyone_is_blamed() {
    if !cfg!(debug_assertions) {
        return;
    }
    for number in DEADLY {
        told_after_death(&deadly(number, &[]), number);
    }
    the_next_run_is_clean();
}

/// As what becomes of a store to what translated code counts by.
#[test]
fn a_run_that_hangs_is_made_again_with_checks_too() {
    if !cfg!(debug_assertions) {
        return;
    }
    let mut command = attacking(29, &["--host-timeout", "3"]);
    let answer = Answer::of(command.env("DIRQL_FAIL", "hang-fast").output().unwrap());
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    for part in ["no end after 3 s of the host's time", "  rule         wild-write", "hostile!Overwrite"] {
        assert!(answer.out.contains(part), "`{part}` is missing in {}", answer.said());
    }
}

#[test]
fn the_run_that_is_made_again_is_the_one_that_is_recorded() {
    if !cfg!(debug_assertions) {
        return;
    }
    let record = rig::folder("after-death").join("run.record");
    let record = record.to_str().unwrap();
    told_after_death(&deadly(29, &["--record", record]), 29);
    let again = replaying(record.as_ref(), &[]);
    assert_eq!(again.code, Some(1), "{}", again.said());
    assert!(again.out.contains("wild-write"), "{}", again.said());
    assert!(again.out.contains("replay: the same run"), "{}", again.said());
}

#[test]
fn of_many_runs_whose_processes_die_the_first_is_shown_with_its_verdict() {
    if !cfg!(debug_assertions) {
        return;
    }
    let answer = deadly(29, &["--runs", "2", "--policy", "random:3"]);
    told_after_death(&answer, 29);
    assert!(
        answer.out.contains("0 clean, 2 with a broken rule or expectation, 0 without"),
        "{}",
        answer.said()
    );
}

#[test]
fn of_many_runs_whose_processes_die_of_a_fault_of_ours_none_is_explained() {
    if cfg!(debug_assertions) {
        let answer = dying("abort-fast", &["--runs", "2", "--policy", "random:3"]);
        assert_eq!(answer.code, Some(3), "{}", answer.said());
        assert!(
            answer.out.contains("0 clean, 0 with a broken rule or expectation, 2 without"),
            "{}",
            answer.said()
        );
        assert!(answer.err.contains("whose fault: dirql's\n"), "{}", answer.said());
    }
}

/// The record of an attack as an unchecked machine would have left it.
fn unchecked_record(number: u32) -> std::path::PathBuf {
    let record = rig::folder("replayed-after-death").join("run.record");
    told_after_death(&deadly(number, &["--record", record.to_str().unwrap()]), number);
    let text = std::fs::read_to_string(&record).unwrap();
    let [checked, fast] = ["checked", "fast"].map(|translation| format!(r#""translation":"{translation}""#));
    assert_eq!(text.matches(&checked).count(), 1, "{text}");
    let (body, _) = text.rsplit_once("sha256 ").unwrap();
    let body = body.replace(&checked, &fast);
    let hash: String =
        hmac_sha256::Hash::hash(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&record, format!("{body}sha256 {hash}\n")).unwrap();
    record
}

#[test]
fn a_replay_whose_process_dies_is_made_again_with_checks() {
    if !cfg!(debug_assertions) {
        return;
    }
    for number in DEADLY {
        let record = unchecked_record(number);
        let answer = replaying(&record, &[]);
        told_after_death(&answer, number);
        assert!(answer.out.contains("replay: the same run"), "{}", answer.said());
        let checked = replaying(&record, &["--checked"]);
        assert_eq!(checked.code, Some(1), "{}", checked.said());
        assert!(!checked.said().contains("Before its report"), "{}", checked.said());
    }
    the_next_run_is_clean();
}

#[test]
fn a_replay_whose_process_dies_and_that_is_clean_with_checks_is_our_fault() {
    if !cfg!(debug_assertions) {
        return;
    }
    let record = rig::folder("clean").join("run.record");
    let sys = driver("legacy.sys");
    let made =
        dirql(["run", sys.to_str().unwrap(), "--fast", "--quiet", "--record", record.to_str().unwrap()]);
    assert_eq!(made.code, Some(0), "{}", made.said());
    let replay = |way: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
        command.arg("replay").arg(&record).arg("--quiet").env("DIRQL_FAIL", way).env_remove("RUST_BACKTRACE");
        Answer::of(command.output().unwrap())
    };
    let ours = replay("abort-fast");
    assert_eq!(ours.code, Some(3), "{}", ours.said());
    assert!(ours.err.contains("came to its end, and the driver has broken no rule"), "{}", ours.said());
    let twice = replay("abort");
    no_answer(&twice, &["again, with every access checked: the process that ran", "the second time"]);
}

#[test]
fn json_stays_json_though_the_process_dies_between() {
    if !cfg!(debug_assertions) {
        return;
    }
    let sys = driver("hostile.sys");
    let script = format!("open \\\\.\\DirqlHostile as f; ioctl f {:#x}", 0x22_0000 + (0xB00 + 29) * 4);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.arg("run").arg(&sys).args(["--fast", "--json", "--do", &script]).env("DIRQL_FAIL", "abort-fast");
    let answer = Answer::of(command.output().unwrap());
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    for line in answer.out.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "`{line}` in {}", answer.said());
    }
    let ends: Vec<&str> = answer.out.lines().filter(|line| line.contains(r#""event":"end""#)).collect();
    assert!(
        matches!(ends[..], [end] if end.contains("wild-write") || end.contains("broken")),
        "{}",
        answer.said()
    );
    assert!(answer.err.contains("Before its report, the process"), "{}", answer.said());
}

#[test]
fn if_the_checked_run_dies_too_one_message_says_both() {
    if cfg!(debug_assertions) {
        let answer = dying("abort", &[]);
        no_answer(
            &answer,
            &[
                "ended by SIGABRT\n  again, with every access checked: the process that ran",
                "the second time",
            ],
        );
        assert!(answer.out.contains("The same run again, with every access checked"), "{}", answer.said());
    }
}

#[test]
fn if_the_checked_run_is_clean_the_death_is_ours() {
    if cfg!(debug_assertions) {
        let answer = dying("abort-fast", &[]);
        assert_eq!(answer.code, Some(3), "{}", answer.said());
        assert_eq!(answer.err.matches("dirql: ").count(), 1, "one message\n{}", answer.said());
        for part in [
            "ended by SIGABRT",
            "came to its end, and the driver has broken no rule",
            "whose fault: dirql's\n",
        ] {
            assert!(answer.err.contains(part), "`{part}` is missing\n{}", answer.said());
        }
    }
}

#[test]
fn a_checked_run_whose_process_dies_is_not_made_again() {
    if cfg!(debug_assertions) {
        let answer = dying("abort", &["--checked"]);
        no_answer(&answer, &["ended by SIGABRT", "whose fault: dirql's"]);
        assert!(!answer.said().contains("again"), "{}", answer.said());
    }
}

#[test]
fn a_checked_run_stops_it_before_the_first_byte() {
    for number in 27..=31 {
        let answer = attack(number, &["--checked"]);
        assert_eq!(answer.code, Some(1), "attack {number}\n{}", answer.said());
        assert!(answer.out.contains("wild-write"), "attack {number}\n{}", answer.said());
    }
}

#[test]
fn in_process_says_the_same() {
    let sys = driver("faults.sys");
    let script = r"open \\.\DirqlFaults as f; ioctl f 0x222804";
    let arguments = ["run", sys.to_str().unwrap(), "--do", script, "--json"];
    let apart = dirql(arguments);
    let together = dirql(arguments.iter().chain(&["--in-process"]));
    assert_eq!(apart.code, Some(1), "{}", apart.said());
    assert_eq!((apart.code, &apart.out, &apart.err), (together.code, &together.out, &together.err));
}

#[test]
fn the_process_ends_with_the_one_that_watches_it() {
    if !cfg!(debug_assertions) {
        return;
    }
    let mut watcher = Command::new(env!("CARGO_BIN_EXE_dirql"))
        .args(["run", "--quiet"])
        .arg(driver("legacy.sys"))
        .env("DIRQL_FAIL", "hang")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(watcher.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with(LOADED), "{line}");
    let children = format!("/proc/{0}/task/{0}/children", watcher.id());
    let child = std::fs::read_to_string(children).unwrap().trim().to_owned();
    let alive =
        || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(!child.is_empty() && alive(), "it runs in a process of its own");
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        !alive()
    });
    assert!(gone, "process {child} lives on");
}

#[test]
fn what_the_watcher_uses_is_not_for_people() {
    let sys = driver("legacy.sys");
    let answer = dirql(["run", sys.to_str().unwrap(), "--confined=1"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("leave it out"), "{}", answer.said());
}
