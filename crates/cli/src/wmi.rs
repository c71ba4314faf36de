//! `dirql wmi`: what drivers offer by WMI, listed, read, set, called and watched from outside.
//!
//! A run like that of `dirql run`, whose script is followed by the questions; only WMI is shown of it. Each question is a `wmi` command of the script language.

use anyhow::Result;
use dirql::script;
use dirql::{Error, InputError};

use crate::arguments::{Around, Only, Wmi};
use crate::run;

/// A driver is asked what it offers on a thread of the system's, soon after it has registered.
const REGISTERED: &str = "wait 1ms\n";

/// Runs it and returns the exit code.
///
/// # Errors
/// As [`run::run`]; a question that is none.
pub(crate) fn run(arguments: Wmi) -> Result<u8> {
    let Wmi { mut run, asks, watched, patience } = arguments;
    let mut questions = asks.iter().map(|ask| question("--ask", ask)).collect::<Result<Vec<_>, _>>()?;
    let mut around = Around::default();
    for guid in &watched {
        let guid = guid.strip_prefix("block:").unwrap_or(guid);
        let enabled = question("--watch", &format!("enable block:{guid}"))?;
        around.before.push_str(&format!("{enabled}; "));
    }
    if watched.is_empty() && asks.is_empty() {
        questions.push("wmi blocks".to_owned());
    }
    // Mistakes in the user's own script are reported at their line there, not at their line behind what is added.
    if let Some(own) = run::script(&run.setup)? {
        own.play().map_err(Error::Input)?;
    }
    around.behind.push_str(REGISTERED);
    questions.iter().for_each(|question| around.behind.push_str(&format!("{question}\n")));
    if !watched.is_empty() {
        let waited = parsed("--for", format!("wait {patience}"))?;
        around.behind.push_str(&format!("{waited}\n"));
        for guid in &watched {
            let guid = guid.strip_prefix("block:").unwrap_or(guid);
            around.behind.push_str(&format!("wmi disable block:{guid}\n"));
        }
        // Events may come from the first moment on, and the driver has to know before that.
        around.before.insert_str(0, "wait 1ms; ");
    }
    (run.view.only, run.setup.around) = (Some(Only::Wmi), around);
    run::run(&run)
}

/// A question as a line of a script.
fn question(option: &str, text: &str) -> Result<String, Error> {
    let text = text.trim();
    let text = text.strip_prefix("wmi ").unwrap_or(text);
    parsed(option, format!("wmi {text}"))
}

/// A command that stands alone on its line.
fn parsed(option: &str, line: String) -> Result<String, Error> {
    let parsed = script::parse(option, &line).map_err(InputError::from)?;
    match parsed.statements.as_slice() {
        [_] => Ok(line),
        _ => {
            let message = format!("{option}: `{line}` is not one command; give {option} once for each");
            Err(InputError::new(message).into())
        }
    }
}
