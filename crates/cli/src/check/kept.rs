//! A check's findings as files (`--keep DIR`): of each the shortest script that shows it, a record of the run, and a test in Rust that fails until it is mended.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use clap::Parser;
use dirql::explore::Policy;
use dirql::{Error, InputError};

use super::report::{Entry, Report};
use crate::again;
use crate::arguments::{Arguments, Command, Setup};
use crate::remote_runner::parted;

/// Whether files can be kept there: asked before hours of work.
///
/// # Errors
/// [`Error::Input`]: it is no folder, or there is something in it.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    let refused = |why: &str| Err(InputError::new(format!("{}: {why}", folder.display())).into());
    match fs::read_dir(folder).map(|files| files.count()) {
        Ok(1..) => refused("there is something in this folder; name one that is empty or not there"),
        Err(why) if folder.exists() => refused(&format!("is no folder that can be read: {why}")),
        _ => Ok(()),
    }
}

/// Makes the folder and all files.
///
/// # Errors
/// [`Error::Input`]: the host does not let it.
pub(super) fn write(folder: &Path, report: &Report<'_>) -> Result<()> {
    let put = |name: String, text: String| {
        let path = folder.join(name);
        let failed = |why| InputError::new(format!("{}: cannot be written: {why}", path.display()));
        fs::write(&path, text).map_err(|why| Error::Input(failed(why)))
    };
    let failed = |why| InputError::new(format!("{}: cannot be made: {why}", folder.display()));
    fs::create_dir_all(folder).map_err(|why| Error::Input(failed(why)))?;
    for (at, entry) in report.entries().iter().enumerate() {
        // A mistake is mended where none of its places fails any more.
        for (place, entry) in [entry].into_iter().chain(&entry.more).enumerate() {
            let place = if place == 0 { String::new() } else { format!("-{}", place + 1) };
            let name = format!("{:02}-{}{place}", at + 1, entry.rule);
            put(format!("{name}.txt"), script(entry))?;
            put(format!("{name}.rs"), test(entry)?)?;
            record(entry, &folder.join(format!("{name}.dirql")));
        }
    }
    Ok(())
}

/// Runs the finding's own line once more. A run that cannot be recorded, as one with a card of a test's own, leaves none.
fn record(entry: &Entry<'_>, path: &Path) {
    let mut command = again::carried_out(&entry.words);
    command.arg("--quiet").arg(format!("--record={}", path.display()));
    // Its exit code is that of the driver's fault.
    let _ = command.status();
}

/// As `--script` has it.
fn script(entry: &Entry<'_>) -> String {
    let mut text = format!("# {}: {}\n# {}\n", entry.rule, entry.message, entry.replay);
    for command in commands(entry) {
        text.push_str(&command);
        text.push('\n');
    }
    text
}

fn commands(entry: &Entry<'_>) -> Vec<String> {
    let script = entry.words.iter().find_map(|word| word.strip_prefix("--do=")).unwrap_or_default();
    dirql::check::commands(script)
}

/// A test of cargo's, for a package with the crate `dirql`.
fn test(entry: &Entry<'_>) -> Result<String> {
    let (setup, chooser) = match Arguments::try_parse_from(&entry.words)?.command {
        Command::Run(run) => (run.setup, chosen_by(run.policy)),
        Command::Explore(explore) => (explore.setup, follows(&explore.follow.unwrap_or_default())?),
        _ => unreachable!("a finding is shown by `run` or by `explore`"),
    };
    let script = commands(entry).join("\n        ");
    let (imported, play) = match script.as_str() {
        "" => ("", "None".to_owned()),
        script => {
            (", ScriptText", format!("Some(ScriptText::typed(\n        {},\n    ).play()?)", raw(script)))
        }
    };
    Ok(format!(
        "//! `dirql check` has found that the driver breaks the rule `{rule}`: {message}\n\
         //! This fails until that is mended. The command line: `{replay}`\n\n\
         use dirql::{{Bench, Error{imported}}};\n\n\
         #[test]\n\
         fn {name}() -> Result<(), Error> {{\n    \
             let bench = Bench::new()\n{bench}{chooser}        .checked(true);\n    \
             let play = {play};\n    \
             let report = bench.run(play)?;\n    \
             assert!(report.causes().is_empty(), \"{{report}}\");\n    \
             Ok(())\n\
         }}\n",
        rule = entry.rule,
        message = entry.message,
        replay = entry.replay,
        name = entry.rule.replace('-', "_"),
        bench = bench(&setup)?,
    ))
}

fn chosen_by(policy: Policy) -> String {
    if policy == Policy::default() {
        return String::new();
    }
    format!("        .policy(\"{policy}\".parse().unwrap())\n")
}

/// The schedule that a search has found.
fn follows(choices: &str) -> Result<String> {
    let choices: Vec<String> =
        parted(choices)?.iter().map(|choice| format!("{:?}", choice.to_string())).collect();
    let all = choices.join(", ");
    Ok(format!(
        "        .chooser(dirql::explore::Replay::new([{all}].map(|choice| choice.parse().unwrap()).into_iter().collect()))\n"
    ))
}

/// A text in which quotes and backslashes stand as they are.
fn raw(text: &str) -> String {
    if text.contains("\"#") { format!("{text:?}") } else { format!("r#\"{text}\"#") }
}

/// The calls that make the machine of these arguments, a line each: what is as it is without any is not named.
fn bench(setup: &Setup) -> Result<String> {
    let Command::Run(usual) = Arguments::try_parse_from(["dirql", "run", "usual.sys"])?.command else {
        unreachable!("`run` was typed")
    };
    let usual = usual.setup;
    let mut text = String::new();
    let mut call = |call: &str, value: String| {
        let _ = writeln!(text, "        .{call}({value})");
    };
    let path = |path: &Path| format!("{:?}", path.display().to_string());
    call("driver", path(&setup.driver));
    let paths = [("inf", &setup.inf), ("with", &setup.with), ("registry", &setup.registry)];
    for (name, all) in paths {
        all.iter().for_each(|file| call(name, path(file)));
    }
    let folders = [("framework", &setup.framework), ("files", &setup.files)];
    for (name, one) in folders {
        one.iter().for_each(|file| call(name, path(file)));
    }
    setup.registry_value.iter().for_each(|value| call("registry_value", raw(value)));
    setup.devices.iter().for_each(|device| call("device", format!("{device:?}")));
    let typed = [
        ("platform", setup.platform().to_string(), usual.platform().to_string()),
        ("verifier", setup.verifier.to_string(), usual.verifier.to_string()),
        ("special_pool", setup.special_pool.to_string(), usual.special_pool.to_string()),
        ("trace_providers", setup.trace_providers.to_string(), usual.trace_providers.to_string()),
    ];
    for (name, value, usual) in typed {
        if value != usual {
            call(name, format!("{value:?}.parse().unwrap()"));
        }
    }
    if let Some(judges) = &setup.rules.judges {
        let names: Vec<&str> = judges.iter().map(|judge| judge.name).collect();
        let all = if setup.rules.list.starts_with("all") { "all".to_owned() } else { names.join(",") };
        call("rules", format!("&dirql::rules::judges({all:?})?"));
    }
    if setup.races {
        call("races", "true".to_owned());
    }
    let numbers = [
        ("processors", u64::from(setup.processors), usual.processors.into()),
        ("group_size", setup.group_size.into(), usual.group_size.into()),
        ("stack", setup.stack, usual.stack),
        ("memory", setup.memory, usual.memory),
    ];
    for (name, value, usual) in numbers {
        if value != usual {
            call(name, value.to_string());
        }
    }
    if let Some(bytes) = setup.quota {
        call("quota", bytes.to_string());
    }
    if setup.windows != usual.windows {
        call("windows", format!("dirql::windows::parse({:?})?", setup.windows));
    }
    if setup.cpu != usual.cpu {
        call("processor", format!("dirql::processor::parse({:?})?", setup.cpu));
    }
    Ok(text)
}
