//! The command line as a new user meets it: help, tips for what was mistyped, completions, manual pages, how far many runs have come.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::rig::{dirql, driver};

const COMMANDS: [&str; 11] =
    ["run", "explore", "replay", "imports", "tree", "wmi", "inf", "rules", "devices", "completions", "man"];

#[test]
fn help_is_a_command_too_and_knows_all_others() {
    let help = dirql(["help"]);
    assert_eq!((help.code, &*help.err), (Some(0), ""), "{}", help.said());
    assert_eq!(help.out, dirql(["--help"]).out);
    for command in COMMANDS {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}\n{}", help.said());
        let own = dirql(["help", command]);
        assert_eq!((own.code, own.out), (Some(0), dirql([command, "--help"]).out));
    }
    assert!(help.out.contains("dirql help run "), "{}", help.said());
    assert!(help.out.lines().all(|line| line.chars().count() <= 100), "it is wrapped\n{}", help.said());
}

/// What the command says of arguments that it does not understand.
fn tip(arguments: &[&str], tip: &str) {
    let answer = dirql(arguments);
    assert_eq!((answer.code, &*answer.out), (Some(2), ""), "{}", answer.said());
    assert!(answer.err.contains(tip), "{arguments:?} lacks `{tip}`\n{}", answer.said());
}

#[test]
fn what_was_mistyped_gets_what_was_probably_meant() {
    tip(&["rnu", "driver.sys"], "tip: a similar subcommand exists: 'run'");
    tip(&["help", "exploer"], "tip: a similar subcommand exists: 'explore'");
    tip(&["driver.sys"], "tip: to run a driver, write: dirql run driver.sys");
    tip(&["frobnicate"], "tip: the commands are: run, check, explore, replay, ");
    tip(&["run", "x.sys", "--sript", "y"], "tip: a similar argument exists: '--script'");
    tip(&["run", "x.sys", "--qiuet"], "tip: a similar argument exists: '--quiet'");
    tip(&["explore", "x.sys", "--runs", "10"], "tip: `--runs` is an option of `dirql run`");
    tip(&["--record", "y"], "tip: `--record` is an option of `dirql run` and `dirql explore`");
    tip(
        &["run", "x.sys", "--do", "open", r"\\.\Name", "as", "f"],
        r"put it in quotes: --do 'open \\.\Name as f; read f 4'",
    );
    tip(
        &["run", "x.sys", "--verifier", "pool"],
        "tip: options of Verifier's stand behind a `=`: --verifier=pool",
    );
    tip(
        &["run", "x.sys", "--special-pool", "Tag1"],
        "tip: tags of special pool stand behind a `=`: --special-pool=Tag1",
    );
    tip(&["run", "x.sys", "y.sys"], "tip: one driver is run; an image that it imports from comes by --with");
    tip(&["devices", "bnch"], "there is no device model `bnch`; did you mean `bench`?");
    tip(&["man", "rnu"], "there is no command `rnu`; did you mean `run`?");
    tip(&["completions", "tcsh"], "[possible values: bash, ");
    let unknown = dirql(["run", "x.sys", "--frobnicate"]);
    assert!(!unknown.err.contains("tip:"), "nothing is near it\n{}", unknown.said());
}

#[test]
fn bash_completes_commands_and_options() {
    let script = dirql(["completions", "bash"]);
    assert_eq!(script.code, Some(0), "{}", script.said());
    let asked = |words: &str, last: usize| {
        let ask = format!(
            "{}\nCOMP_WORDS=({words}); COMP_CWORD={last}; _dirql dirql \"${{COMP_WORDS[$COMP_CWORD]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.out
        );
        let mut bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        bash.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
        String::from_utf8(bash.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(asked("dirql ex", 1), "explore");
    assert_eq!(asked("dirql run --ver", 2), "--verifier");
}

#[test]
fn every_shell_is_told_of_all_commands_and_of_nothing_that_is_for_dirqls_own_use() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = dirql(["completions", shell]);
        assert_eq!((script.code, &*script.err), (Some(0), ""), "{}", script.said());
        for part in COMMANDS.iter().chain(&["preemptions", "verifier", "host-timeout"]) {
            assert!(script.out.contains(part), "{shell} lacks {part}");
        }
        for own in ["confined", "outbox", "untold", "checked-anyway"] {
            assert!(!script.out.contains(own), "{shell} knows {own}");
        }
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let page = dirql(["man"]);
    assert_eq!((page.code, &*page.err), (Some(0), ""), "{}", page.said());
    assert!(page.out.contains(".TH dirql 1") && page.out.contains("dirql\\-explore(1)"), "{}", page.said());
    for command in COMMANDS {
        let page = dirql(["man", command]);
        assert_eq!((page.code, &*page.err), (Some(0), ""), "{}", page.said());
        assert!(page.out.contains(&format!(".TH dirql-{command} 1")), "{}", page.said());
        assert!(!page.out.contains("confined"), "{}", page.said());
    }
    assert!(dirql(["man", "run"]).out.contains("Exit codes:"), "with what stands behind the options");
}

#[test]
fn help_that_cannot_be_written_is_no_answer() {
    for arguments in [&["help"][..], &["help", "run"], &["--version"], &["man"], &["completions", "zsh"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
        let output = command.args(arguments).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(said.contains("standard output cannot be written"), "{arguments:?}: {said}");
    }
}

/// What a command writes to a terminal that its standard error is, and its standard output.
fn on_a_terminal(arguments: &[&str]) -> (String, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let screen = File::options().read(true).write(true).open(name).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    let output = command.args(arguments).stderr(screen).output().unwrap();
    drop(command); // and its end of the terminal
    let mut seen = Vec::new();
    // Where everybody has left, reading ends with an error.
    let _ = File::from(terminal).read_to_end(&mut seen);
    (String::from_utf8(seen).unwrap(), String::from_utf8(output.stdout).unwrap())
}

const SCRIPT: &str =
    r"open \\.\DirqlQueue as f overlapped; async w write f hex:01; cancel w; join w expect any";

#[test]
fn whoever_looks_at_a_terminal_sees_how_far_it_has_come() {
    let sys = driver("queue.sys");
    let run = ["run", sys.to_str().unwrap(), "--do", SCRIPT, "--policy", "random:1", "--runs", "3"];
    let (seen, out) = on_a_terminal(&run);
    assert!(seen.contains("\r\u{1b}[K0 of 3 runs") && seen.ends_with("\r\u{1b}[K"), "{seen:?}");
    assert!(!out.contains('\r') && out.starts_with("3 runs, random:1 to random:3: 3 clean"), "{out}");
    let explore = ["explore", sys.to_str().unwrap(), "--do", SCRIPT, "--preemptions", "0"];
    let (seen, out) = on_a_terminal(&explore);
    assert!(
        seen.contains("\r\u{1b}[K1 schedule explored; at least ") && seen.ends_with("\r\u{1b}[K"),
        "{seen:?}"
    );
    assert!(!out.contains('\r') && out.contains("none is broken"), "{out}");
    let (seen, _) = on_a_terminal(&[&run[..], &["--quiet"]].concat());
    assert_eq!(seen, "", "who wants it quiet sees none");
    assert_eq!(dirql(run).err, "", "and where there is no terminal there is none");
}
