//! The `dirql` command: arguments in, reports out. It decides nothing about drivers; the library `dirql` does.
//!
//! The only crate that prints: reports to standard output, messages about the command itself to standard error. Exit codes:
//! 0 clean, 1 a rule broken, an expectation failed or an INF file with errors, 2 unusable arguments or input, 3 no answer (dirql's own fault, something
//! that dirql does not have yet, a search that was interrupted, or an answer that cannot be written), 4 a replay that is not the recorded run.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the crate that prints")]

mod again;
mod arguments;
mod check;
mod crash_report;
mod devices;
mod explore;
#[cfg(debug_assertions)]
mod failing;
mod imports;
mod inf;
mod isolate;
mod manual;
mod many;
mod new;
mod not_tried;
mod out;
mod outputs;
mod progress;
mod remarked;
mod remote_runner;
mod replay;
mod rules;
mod run;
mod said;
mod search_state;
mod state_file;
mod terminal;
mod tips;
mod view;
mod wmi;

use std::process::ExitCode;

use arguments::Command;
use out::complain;

/// Unusable arguments or input.
const UNUSABLE: u8 = 2;
/// No answer about the driver.
const NO_ANSWER: u8 = 3;

fn main() -> ExitCode {
    if dirql::standard_output::was_closed() {
        complain!(
            "dirql: there is no standard output, so no answer can be given: send it to a file or to /dev/null"
        );
        return NO_ANSWER.into();
    }
    let arguments = match tips::parse() {
        Ok(arguments) => arguments,
        Err(code) => return if out::is_lost() { NO_ANSWER.into() } else { code.into() },
    };
    let done = std::panic::catch_unwind(|| match arguments.command {
        Command::Run(run) => run::run(&run),
        Command::Tree(run) => run::tree(run),
        Command::Wmi(wmi) => wmi::run(wmi),
        Command::Check(check) => check::run(check),
        Command::Explore(explore) => explore::run(&explore),
        Command::Replay(replay) => replay::run(&replay),
        Command::Imports(imports) => imports::run(&imports).map(|()| 0),
        Command::Inf(file) => inf::run(&file),
        Command::New(new) => new::run(&new).map(|()| 0),
        Command::Rules { name, json } => rules::run(name.as_deref(), json).map(|()| 0),
        Command::Devices { model, json } => devices::run(model.as_deref(), json).map(|()| 0),
        Command::Completions { shell } => {
            manual::completions(shell);
            Ok(0)
        }
        Command::Man { command } => manual::page(command.as_deref()).map(|()| 0),
    });
    let code = match done {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            complain!("dirql: {error:#}");
            exit_code(&error)
        }
        Err(_) => {
            complain!("dirql: this is a fault of dirql, not of the driver: see the message above.");
            complain!("dirql: please report it with the command: https://github.com/dirql/dirql/issues");
            NO_ANSWER
        }
    };
    if out::is_lost() { NO_ANSWER.into() } else { code.into() }
}

/// What went wrong decides: the user's input, or this host and we.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<dirql::Error>() {
        Some(dirql::Error::Input(_)) => UNUSABLE,
        Some(_) => NO_ANSWER,
        None => UNUSABLE,
    }
}
