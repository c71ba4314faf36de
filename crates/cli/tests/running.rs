//! `dirql run` as people, scripts and programs see it: the flow, `--quiet`, `--json`, exit codes, and the same run twice.

use super::rig::{self, Answer, dirql, driver};

fn run(sys: &str, more: &[&str]) -> Answer {
    let driver = driver(sys);
    dirql(["run", driver.to_str().unwrap()].iter().chain(more))
}

const WRITE: &str = r"open \\.\DirqlLegacy as f; write f text:hello; read f 5 at 0 expect text:hello";

/// A file of the workspace.
fn ours(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let [inf, script] = [driver("pci9052.inf"), ours("demo/pci9052.dirql")];
    let more = ["--inf", inf.to_str().unwrap(), "--device", "pci9052", "--script", script.to_str().unwrap()];
    let answer = run("pci9052.sys", &more);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let readme = std::fs::read_to_string(ours("README.md")).unwrap();
    let shown = readme.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    // How many instructions the driver needs is its compiler's.
    let without_time = |line: &str| line.trim_start().split_once(' ').map(|(_, rest)| rest.to_owned());
    let mut printed = answer.out.lines().filter_map(without_time);
    for line in shown.lines().filter_map(without_time) {
        // Names of Rust routines are longer than this text has them.
        let (beginning, end) = line.split_once('…').unwrap_or((&line, &line));
        let found = printed.any(|printed| printed.starts_with(beginning) && printed.ends_with(end));
        assert!(
            found,
            "the README has this line, the demo has not, or elsewhere:\n{line}\n{}",
            answer.said()
        );
    }
    assert!(shown.lines().count() > 10, "{shown}");
}

#[test]
fn the_flow_shows_each_request_down_to_the_driver_and_back() {
    let answer = run("legacy.sys", &["--do", WRITE]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let place = |part: &str| {
        answer.out.find(part).unwrap_or_else(|| panic!("`{part}` is missing\n{}", answer.said()))
    };
    let steps = [
        "what happened",
        "DriverEntry legacy!DriverEntry",
        r"CreateFile \\.\DirqlLegacy",
        r"WriteFile \\.\DirqlLegacy, 5 bytes",
        "    DispatchWrite legacy!DispatchWrite  (IRP_MJ_WRITE, IRP ",
        "      IRP_MJ_WRITE completed: STATUS_SUCCESS, 5 bytes",
        "WriteFile returns STATUS_SUCCESS, 5 bytes",
        "Unload legacy!DriverUnload",
        "summary",
        "pool Dqlg",
        "verdict: clean",
    ];
    let places: Vec<usize> = steps.iter().map(|step| place(step)).collect();
    assert!(places.is_sorted(), "they come in this order\n{}", answer.said());
}

#[test]
fn a_figure_is_drawn_beside_the_run_as_text_or_as_a_picture() {
    let folder = rig::folder("figure");
    for (name, begins) in [("figure.txt", "     time"), ("figure.svg", "<svg ")] {
        let path = folder.join(name);
        let path = path.to_str().unwrap();
        let answer = run("legacy.sys", &["--figure", path, "--do", WRITE]);
        assert_eq!(answer.code, Some(0), "{}", answer.said());
        let figure = std::fs::read_to_string(path).unwrap();
        assert!(figure.starts_with(begins) && figure.contains("CreateFile"), "{figure}");
    }
    let answer = run("legacy.sys", &["--figure", "/no/such/folder/figure.svg"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.said().contains("/no/such/folder/figure.svg: cannot be written"), "{}", answer.said());
}

#[test]
fn quiet_leaves_the_drivers_lines_and_the_verdict() {
    let answer = run("legacy.sys", &["--do", WRITE, "--quiet"]);
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", answer.said());
    assert!(lines[0].starts_with("legacy: loaded from"), "{}", answer.said());
    assert_eq!(lines[1..], ["legacy: unloaded", "verdict: clean"]);
}

#[test]
fn json_is_one_event_a_line_and_the_last_tells_the_outcome() {
    let answer = run("legacy.sys", &["--do", WRITE, "--json"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<serde_json::Value> = answer.out.lines().map(parse).collect();
    assert!(lines.len() > 40, "{}", lines.len());
    let numbers: Vec<u64> = lines.iter().filter_map(|line| line["n"].as_u64()).collect();
    assert!(numbers.is_sorted(), "events are numbered");
    let end = lines.last().unwrap();
    assert_eq!(
        (&end["event"], &end["outcome"], &end["exit_code"]),
        (&"end".into(), &"clean".into(), &0.into())
    );
    assert_eq!(end["summary"]["irps"]["IRP_MJ_WRITE"], 1);
    assert!(end["verdict"].is_null() && end["failure"].is_null());
}

#[test]
fn a_broken_rule_is_exit_code_1_and_its_verdict_is_in_the_json() {
    let answer = run("faults.sys", &["--json", "--do", r"open \\.\DirqlFaults as f; ioctl f 0x222804"]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let end: serde_json::Value = serde_json::from_str(answer.out.lines().last().unwrap()).unwrap();
    let verdict = &end["verdict"];
    assert_eq!((&verdict["rule"], &verdict["tier"]), (&"wild-write".into(), &"error".into()));
    let check = &verdict["bug_check"];
    assert_eq!((&check["code"], &check["name"]), (&"0x50".into(), &"PAGE_FAULT_IN_NONPAGED_AREA".into()));
    assert_eq!(check["parameters"][0], "0xfffff880dead0000");
    assert_eq!(check["meanings"][0], "address that was referenced");
    assert_eq!(verdict["stack"][0]["symbol"], "faults!WildWrite+0xa");
}

#[test]
fn a_verdict_names_page_and_remedy_in_text_and_json_and_is_coloured_where_that_is_asked() {
    let bug = r"open \\.\DirqlFaults as f; ioctl f 0x22288c"; // number 35 frees a block twice
    let plain = run("faults.sys", &["--quiet", "--do", bug]);
    for part in
        ["  rule         double-free", "  page         Bug Check 0xC2", "  mend         Free a block once"]
    {
        assert!(plain.out.contains(part), "no `{part}`: {}", plain.said());
    }
    assert!(!plain.out.contains('\x1b'), "a pipe is no terminal: {}", plain.said());
    let coloured = run("faults.sys", &["--quiet", "--color", "always", "--do", bug]);
    assert!(
        coloured.out.contains("\x1b[1;31mverdict: the driver broke a rule\x1b[0m"),
        "{}",
        coloured.said()
    );
    let json = run("faults.sys", &["--json", "--do", bug]);
    let lines = json.out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let end = lines.into_iter().find(|line| line["event"] == "end").expect("there is an end");
    assert_eq!(end["verdict"]["page"], "Bug Check 0xC2 BAD_POOL_CALLER");
    assert!(end["verdict"]["remedy"].as_str().unwrap().starts_with("Free a block once"), "{end}");
    // With Verifier's option, what only it objects to is known by its name.
    let wrong = run("faults.sys", &["--verifier=pools", "--do", bug]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.said());
    assert!(wrong.said().contains("special-pool"), "{}", wrong.said());
}

#[test]
fn special_pool_tells_a_use_after_free_where_it_happens_with_who_allocated_and_freed_the_block() {
    let bug = r"open \\.\DirqlFaults as f; ioctl f 0x222888";
    let fast = run("faults.sys", &["--fast", "--quiet", "--do", bug]);
    assert!(fast.out.contains("write-after-free"), "it is reported late\n{}", fast.said());
    for options in [&["--special-pool"][..], &["--special-pool=Fu?t,start"], &["--verifier=special-pool"]] {
        let special = run("faults.sys", &[options, &["--fast", "--do", bug]].concat());
        assert_eq!(special.code, Some(1), "{}", special.said());
        for part in ["use-after-free", "DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL", "allocated at", "freed at"]
        {
            assert!(special.out.contains(part), "{part}: {}", special.said());
        }
        // Of the access, the allocation and the end.
        assert!(special.out.matches("UseAfterFree").count() >= 3, "{}", special.said());
    }
    let wrong = run("faults.sys", &["--special-pool=Longer", "--do", bug]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.said());
    assert!(wrong.said().contains("`Longer` is no pool tag"), "{}", wrong.said());
}

#[test]
fn a_failed_expectation_is_exit_code_1_and_says_where() {
    let answer = run("legacy.sys", &["--quiet", "--do", r"open \\.\DirqlLegacy as f; read f 1"]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    assert!(
        answer.out.contains("--do:1: `read f 1`: expected success, saw STATUS_END_OF_FILE"),
        "{}",
        answer.said()
    );
    assert!(answer.out.contains("no rule broken, but not what the script expects"), "{}", answer.said());
}

#[test]
fn something_dirql_lacks_is_exit_code_3_and_blames_nobody() {
    let answer = run("faults.sys", &["--quiet", "--do", r"open \\.\DirqlFaults as f; ioctl f 0x222830"]);
    assert_eq!(answer.code, Some(3), "{}", answer.said());
    assert!(answer.out.contains("ZwDirqlDoesNotExist"), "{}", answer.said());
    assert!(answer.out.contains("the driver is not to blame"), "{}", answer.said());
}

#[test]
fn an_export_can_be_made_to_do_nothing_to_see_who_notices() {
    let run = |export: &str| {
        let driver = driver("legacy.sys");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dirql"));
        command.arg("run").arg(driver).args(["--quiet", "--do", WRITE]).env("DIRQL_STUB", export);
        Answer::of(command.output().unwrap())
    };
    assert_eq!(run("KeSetEvent").code, Some(0), "it is not called");
    let answer = run("IoCreateDevice");
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let answer = run("IoCreateDevices");
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("IoCreateDevices, which is no export"), "{}", answer.said());
}

#[test]
fn a_driver_that_refuses_to_load_is_told_as_such() {
    // An entry point that returns STATUS_UNSUCCESSFUL: mov eax, C0000001h; ret.
    let mut bytes = std::fs::read(driver("legacy.sys")).unwrap();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let pe = word(&bytes, 0x3C) as usize;
    let entry = word(&bytes, pe + 0x28);
    let sections =
        pe + 0x18 + usize::from(u16::from_le_bytes(bytes[pe + 0x14..pe + 0x16].try_into().unwrap()));
    let count = usize::from(u16::from_le_bytes(bytes[pe + 6..pe + 8].try_into().unwrap()));
    let at = (0..count).map(|n| sections + 40 * n).find_map(|header| {
        let (size, rva, file) =
            (word(&bytes, header + 8), word(&bytes, header + 12), word(&bytes, header + 20));
        (rva..rva + size).contains(&entry).then(|| (entry - rva + file) as usize)
    });
    let at = at.expect("the entry point is in a section");
    bytes[at..at + 6].copy_from_slice(&[0xB8, 1, 0, 0, 0xC0, 0xC3]);
    let path = rig::folder("refusal").join("refuses.sys");
    std::fs::write(&path, bytes).unwrap();
    let answer = dirql(["run", path.to_str().unwrap(), "--quiet", "--do", r"open \\.\DirqlLegacy as f"]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    assert!(
        answer.out.contains("DriverEntry") && answer.out.contains("STATUS_UNSUCCESSFUL"),
        "{}",
        answer.said()
    );
    assert!(!answer.out.contains("CreateFile"), "the script did not run\n{}", answer.said());
}

#[test]
fn two_processes_run_the_same_events_and_leave_the_same_memory() {
    let randomised = std::fs::read_to_string("/proc/sys/kernel/randomize_va_space").unwrap_or_default();
    assert_ne!(
        randomised.trim(),
        "0",
        "the host's address randomisation is off, so this test would prove nothing"
    );
    for (sys, script) in [
        ("legacy.sys", WRITE),
        (
            "queue.sys",
            r"open \\.\DirqlQueue as q overlapped; async a read q 4; t: write q hex:0102; cancel a; join a expect STATUS_CANCELLED; join t",
        ),
    ] {
        let first = run(sys, &["--json", "--processors", "2", "--do", script]);
        let second = run(sys, &["--json", "--processors", "2", "--do", script]);
        assert_eq!(first.code, Some(0), "{}", first.said());
        assert_eq!(first.out, second.out, "{sys}: every event, address and hash is the same");
        let end: serde_json::Value = serde_json::from_str(first.out.lines().last().unwrap()).unwrap();
        assert_eq!(end["memory_hash"].as_str().map(str::len), Some(32));
        assert_eq!(end["trace_hash"].as_str().map(str::len), Some(32));
    }
}

#[test]
fn two_processes_serve_the_same_interrupts_at_the_same_instructions() {
    for (name, device) in [("pciline", r"\\.\PciLine0"), ("pci9052", r"\\.\Pci9052-0")] {
        let inf = driver(&format!("{name}.inf"));
        let script = format!(
            "open {device} as a; t: write a text:hello at 0; write a hex:07 at 9; join t; surprise-remove"
        );
        let arguments = [
            "--json",
            "--device",
            "pci9052",
            "--processors",
            "3",
            "--inf",
            inf.to_str().unwrap(),
            "--do",
            &script,
        ];
        let (first, second) =
            (run(&format!("{name}.sys"), &arguments), run(&format!("{name}.sys"), &arguments));
        assert_eq!(first.code, Some(0), "{}", first.said());
        assert_eq!(first.out, second.out, "{name}: every event, address and hash is the same");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirql"))
        .arg("run")
        .arg(driver("legacy.sys"))
        .args(["--do", WRITE])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Functions of `touches.sys`: pageable pool read at DISPATCH_LEVEL, a freed block read.
const PAGED: u32 = 13;
const FREED: u32 = 4;

#[test]
fn a_run_is_checked_unless_it_is_to_be_fast_and_a_fast_one_is_never_called_clean() {
    for (number, rule) in [(PAGED, "paged-at-raised-irql"), (FREED, "use-after-free")] {
        let script = format!(r"open \\.\DirqlTouches as f; ioctl f {:#x}", 0x22_0000 + (0xB00 + number) * 4);
        let checked = run("touches.sys", &["--quiet", "--do", &script]);
        assert_eq!(checked.code, Some(1), "{}", checked.said());
        assert!(checked.out.contains(rule), "{}", checked.said());
        let fast = run("touches.sys", &["--quiet", "--fast", "--do", &script]);
        assert_eq!(fast.code, Some(0), "{}", fast.said());
        assert!(fast.out.contains("verdict: clean (fast: not checked"), "{}", fast.said());
        let json = run("touches.sys", &["--json", "--fast", "--do", &script]);
        let end: serde_json::Value = serde_json::from_str(json.out.lines().last().unwrap()).unwrap();
        assert_eq!((&end["outcome"], &end["checked"]), (&"unconfirmed".into(), &false.into()));
    }
    let clean = run("legacy.sys", &["--json", "--do", WRITE]);
    let end: serde_json::Value = serde_json::from_str(clean.out.lines().last().unwrap()).unwrap();
    assert_eq!((&end["outcome"], &end["checked"]), (&"clean".into(), &true.into()));
}

#[test]
fn end_is_the_last_line_though_another_machine_tells_of_moments() {
    let answer = run("faults.sys", &["--json", "--do", r"open \\.\DirqlFaults as f; ioctl f 0x222880"]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let kinds: Vec<String> = answer
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].to_string())
        .collect();
    assert_eq!(kinds[0], "\"begin\"", "{}", answer.said());
    assert!(kinds.contains(&"\"moments\"".to_owned()), "{}", answer.said());
    assert_eq!(kinds.iter().position(|kind| kind == "\"end\""), Some(kinds.len() - 1), "{}", answer.said());
}

#[test]
fn an_answer_that_cannot_be_written_is_exit_code_3_told_on_the_other_stream() {
    let sys = driver("legacy.sys");
    let sys = sys.to_str().unwrap();
    for arguments in
        [vec!["devices"], vec!["imports", sys], vec!["run", sys], vec!["run", sys, "--in-process"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_dirql")).args(&arguments).stdout(full).output();
        let answer = Answer::of(output.unwrap());
        assert_eq!(answer.code, Some(3), "{arguments:?}: {}", answer.said());
        assert!(answer.err.contains("standard output cannot be written"), "{arguments:?}: {}", answer.said());
    }
    let closed = format!("exec {} devices >&-", env!("CARGO_BIN_EXE_dirql"));
    let answer = Answer::of(std::process::Command::new("sh").args(["-c", &closed]).output().unwrap());
    assert_eq!(answer.code, Some(3), "{}", answer.said());
    assert!(answer.err.contains("there is no standard output"), "{}", answer.said());
    let closed = format!("exec {} no-such-command 2>/dev/full", env!("CARGO_BIN_EXE_dirql"));
    let answer = Answer::of(std::process::Command::new("sh").args(["-c", &closed]).output().unwrap());
    assert_eq!(answer.code, Some(2), "{}", answer.said());
}

#[test]
fn a_reader_of_the_list_of_devices_that_has_read_enough_hears_no_panic() {
    let piped = format!("{} devices | head -n 1", env!("CARGO_BIN_EXE_dirql"));
    for _ in 0..20 {
        let answer = Answer::of(std::process::Command::new("sh").args(["-c", &piped]).output().unwrap());
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{}", answer.said());
    }
}

#[test]
fn what_is_written_never_takes_the_place_of_what_is_read() {
    let folder = rig::folder("written_over");
    let [sys, script, other] = ["legacy.sys", "script.txt", "other.txt"].map(|name| folder.join(name));
    std::fs::copy(driver("legacy.sys"), &sys).unwrap();
    std::fs::write(&script, WRITE.replace("; ", "\n")).unwrap();
    std::fs::write(&other, "it stays").unwrap();
    let before = std::fs::read(&sys).unwrap();
    let [soft, hard, fifo] = ["soft", "hard", "fifo"].map(|name| folder.join(name));
    std::os::unix::fs::symlink(&sys, &soft).unwrap();
    std::fs::hard_link(&script, &hard).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let [sys_text, script_text] = [&sys, &script].map(|path| path.to_str().unwrap());
    for to in [&sys, &script, &soft, &hard, &fifo, &folder] {
        for option in ["--record", "--figure"] {
            let answer =
                dirql(["run", sys_text, "--script", script_text, "--quiet", option, to.to_str().unwrap()]);
            assert_eq!(answer.code, Some(2), "{option} {}: {}", to.display(), answer.said());
            assert!(answer.err.starts_with(&format!("dirql: {}: ", to.display())), "{}", answer.said());
        }
    }
    assert_eq!(std::fs::read(&sys).unwrap(), before);
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "it stays");
    let other_text = other.to_str().unwrap();
    let written = dirql(["run", sys_text, "--script", script_text, "--quiet", "--record", other_text]);
    assert_eq!(written.code, Some(0), "{}", written.said());
    assert!(std::fs::read_to_string(&other).unwrap().contains("\nsha256 "));
    let over_itself = dirql(["replay", other_text, "--quiet", "--figure", other_text]);
    assert_eq!(over_itself.code, Some(2), "{}", over_itself.said());
    let drawn = folder.join("replay.txt");
    let replayed = dirql(["replay", other_text, "--quiet", "--figure", drawn.to_str().unwrap()]);
    assert_eq!(replayed.code, Some(0), "{}", replayed.said());
    assert!(std::fs::read_to_string(&drawn).unwrap().contains("CreateFile"));
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn what_is_shown_of_a_run_is_bounded_and_says_so() {
    let script = format!(r"open \\.\DirqlLegacy as f; {}", "write f text:hello at 0; ".repeat(300));
    let bounded =
        |more: &[&str]| run("legacy.sys", &[&["--do", &script, "--output-limit", "16K"], more].concat());
    let answer = bounded(&[]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert_eq!(answer.out.matches("is not shown, because it would be more than 16384 bytes").count(), 1);
    assert!(answer.out.contains("verdict: clean"), "the report comes in any case\n{}", answer.said());
    assert!((14 << 10..20 << 10).contains(&answer.out.len()), "{} bytes", answer.out.len());
    let answer = bounded(&["--json"]);
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines.iter().filter(|line| **line == r#"{"event":"cut","limit":16384}"#).count(), 1);
    assert!(lines.last().unwrap().contains(r#""event":"end""#), "{}", lines.last().unwrap());
    assert!(answer.out.len() < 20 << 10, "{} bytes", answer.out.len());
}

#[test]
fn what_fits_is_shown_without_a_word_about_it() {
    let answer = run("legacy.sys", &["--output-limit", "1M"]);
    assert!(answer.code == Some(0) && !answer.out.contains("not shown"), "{}", answer.said());
}
