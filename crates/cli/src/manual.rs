//! `dirql completions` and `dirql man`: the command line as shells and `man` want it, made from its one description.

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use dirql::{Error, InputError};

use crate::arguments::Arguments;
use crate::out;
use crate::tips;

/// The command line, without what is for dirql's own use.
fn described() -> Command {
    shown(Arguments::command())
}

/// A command without its hidden options: shells would offer them.
fn shown(command: Command) -> Command {
    let mut made = Command::new(command.get_name().to_owned());
    if let Some(about) = command.get_about() {
        made = made.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        made = made.version(version.to_owned());
    }
    if let Some(after) = command.get_after_help() {
        made = made.after_help(after.clone());
    }
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    made = made.args(arguments.cloned().collect::<Vec<_>>());
    made.subcommands(command.get_subcommands().cloned().map(shown))
}

/// Prints what a shell completes by.
pub(crate) fn completions(shell: Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut described(), "dirql", &mut text);
    out::bytes(&text);
}

/// Prints the manual page of a command, or of dirql itself.
///
/// # Errors
/// There is no such command.
pub(crate) fn page(command: Option<&str>) -> Result<()> {
    let mut whole = described();
    whole.build();
    let page = match command {
        None => Man::new(whole),
        Some(name) => {
            let Some(found) = whole.find_subcommand(name) else {
                let names: Vec<&str> = whole.get_subcommands().map(Command::get_name).collect();
                let message = format!(
                    "there is no command `{name}`{}",
                    tips::did_you_mean(name, names.iter().copied())
                );
                return Err(Error::Input(InputError::new(message)).into());
            };
            let name = format!("dirql-{name}");
            Man::new(found.clone().name(name.clone()).display_name(name))
        }
    };
    let mut text = Vec::new();
    page.render(&mut text)?;
    out::bytes(&text);
    Ok(())
}
