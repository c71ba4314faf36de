//! `dirql run`: a driver, its devices and a script, made into a machine; its events and report, printed.

use std::io;
use std::path::Path;

use anyhow::Result;
use dirql::readers::{Flow, Json, Prints, Sink};
use dirql::{Bench, Error, Play, files, script, windows};

use crate::arguments::Run;

/// Virtual time a machine without a script is left alone, once its devices are started: 100 ms.
const IDLE: u64 = 100_000_000;

/// Runs it and returns the exit code.
///
/// # Errors
/// Something given cannot be used, or this host cannot run a machine.
pub(crate) fn run(arguments: &Run) -> Result<u8> {
    let play = play(arguments)?;
    let out = Sink::new(io::stdout());
    let bench = bench(arguments)?;
    if let Some(play) = &play {
        bench.check(play)?;
    }
    let symbols = bench.symbols();
    let bench = if arguments.json {
        bench.reader(Json::new(out.clone(), symbols))
    } else if arguments.quiet {
        bench.reader(Prints::new(out.clone()))
    } else {
        bench.reader(Flow::new(out.clone(), symbols))
    };
    let machine = bench.start()?;
    if machine.is_ready() {
        // What goes wrong in here stands in the report.
        let _ = match play {
            Some(play) => machine.play(play),
            None => machine.wait(IDLE),
        };
    }
    let report = machine.finish();
    if arguments.json {
        report.json_lines().iter().for_each(|line| out.line(line));
    } else if arguments.quiet {
        out.line(report.verdict_text().trim_end());
    } else {
        out.line(&format!("\n{}", report.to_string().trim_end()));
    }
    Ok(report.outcome().exit_code())
}

/// The machine that the arguments describe.
fn bench(arguments: &Run) -> Result<Bench, Error> {
    let mut bench = Bench::new()
        .driver(&arguments.driver)
        .processors(arguments.processors)
        .windows(windows::parse(&arguments.windows)?);
    for spec in &arguments.devices {
        bench = bench.device(spec);
    }
    for other in &arguments.with {
        bench = bench.with(other);
    }
    if let Some(inf) = &arguments.inf {
        bench = bench.inf(inf);
    }
    Ok(bench)
}

/// The script, checked as far as it can be without the machine.
fn play(arguments: &Run) -> Result<Option<Play>, Error> {
    let (source, text, folder) = match (&arguments.commands, &arguments.script) {
        (Some(text), _) => ("--do".to_owned(), text.clone(), Path::new("")),
        (None, Some(path)) => {
            let text = files::read_text(path, "the script")?;
            (path.display().to_string(), text, path.parent().unwrap_or(Path::new("")))
        }
        (None, None) => return Ok(None),
    };
    let script = script::parse(&source, &text).map_err(dirql::InputError::from)?;
    Ok(Some(Play::new(script, folder)?))
}
