//! Command lines that cannot be understood: clap's message, and what was probably meant, where clap does not see it.
//!
//! A letter that stands in the wrong place (`rnu`), a driver without a command before it (`dirql driver.sys`), an option of another command
//! (`dirql explore --runs 10`).

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Parser};
use dirql::script::suggest::nearest;

use crate::UNUSABLE;
use crate::arguments::Arguments;
use crate::out;

/// The command line, understood.
///
/// # Errors
/// The exit code: a message was printed, or the help that was asked for.
pub(crate) fn parse() -> Result<Arguments, u8> {
    Arguments::try_parse().map_err(|mut error| {
        match error.kind() {
            ErrorKind::InvalidSubcommand => meant_command(&mut error),
            ErrorKind::UnknownArgument => meant_option(&mut error),
            _ => {}
        }
        let printed = error.print();
        if error.use_stderr() {
            // Whether or not anybody can read why.
            return UNUSABLE;
        }
        out::note("standard output", printed);
        0
    })
}

/// `, did you mean …?`, or all there are.
pub(crate) fn did_you_mean<'n>(typed: &str, names: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(typed, names.clone()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; there are: {}", names.collect::<Vec<_>>().join(", ")),
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn tip(error: &mut clap::Error, text: String) {
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(text)]));
}

fn meant_command(error: &mut clap::Error) {
    let Some(typed) = text(error, ContextKind::InvalidSubcommand) else { return };
    let whole = Arguments::command();
    let names: Vec<&str> = whole.get_subcommands().map(Command::get_name).chain(["help"]).collect();
    if typed.contains(['.', '/']) {
        tip(error, format!("to run a driver, write: dirql run {typed}"));
    } else if error.get(ContextKind::SuggestedSubcommand).is_none() {
        match nearest(&typed, names.iter().copied()) {
            Some(near) => {
                let near = ContextValue::Strings(vec![near.to_owned()]);
                error.insert(ContextKind::SuggestedSubcommand, near);
            }
            None => tip(error, format!("the commands are: {}", names.join(", "))),
        }
    }
}

/// The options of a command that people use.
fn options(command: &Command) -> Vec<&str> {
    command.get_arguments().filter(|own| !own.is_hide_set()).filter_map(clap::Arg::get_long).collect()
}

/// A word too many, which is no option.
fn too_many_words(error: &mut clap::Error, typed: &str) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let at = words.iter().position(|word| word == typed).unwrap_or(words.len());
    let before = words[..at].last().map(String::as_str);
    if before == Some("--verifier") {
        tip(error, format!("options of Verifier's stand behind a `=`: --verifier={typed}"));
    } else if before == Some("--special-pool") {
        tip(error, format!("tags of special pool stand behind a `=`: --special-pool={typed}"));
    } else if words[..at].iter().any(|word| word == "--do") {
        tip(error, "the script behind --do is one word for the shell; put it in quotes: --do 'open \\\\.\\Name as f; read f 4'".to_owned());
    } else if typed.to_lowercase().ends_with(".sys") {
        tip(error, "one driver is run; an image that it imports from comes by --with".to_owned());
    }
}

fn meant_option(error: &mut clap::Error) {
    let Some(typed) = text(error, ContextKind::InvalidArg) else { return };
    if !typed.starts_with('-') {
        return too_many_words(error, &typed);
    }
    let Some(name) = typed.strip_prefix("--").and_then(|name| name.split('=').next()) else { return };
    let whole = Arguments::command();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let own = words.iter().find_map(|word| whole.find_subcommand(word));
    let own_name = own.map_or("", Command::get_name);
    // A driver's name does not begin with a hyphen.
    error.remove(ContextKind::Suggested);
    let others: Vec<&str> = whole
        .get_subcommands()
        .filter(|other| other.get_name() != own_name && options(other).contains(&name))
        .map(Command::get_name)
        .collect();
    if !others.is_empty() {
        error.remove(ContextKind::SuggestedArg);
        let all: Vec<String> = others.iter().map(|other| format!("`dirql {other}`")).collect();
        tip(error, format!("`--{name}` is an option of {}", all.join(" and ")));
    } else if error.get(ContextKind::SuggestedArg).is_none()
        && let Some(near) = own.and_then(|own| nearest(name, options(own)))
    {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{near}")));
    }
}
