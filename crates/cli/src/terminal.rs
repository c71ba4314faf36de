//! The terminal that a report is shown on: its width, and whether it has colours.
//!
//! The process that runs the machine writes into a pipe; the one that started it knows the terminal, and says so by the environment.
//! Pages: *NO_COLOR* (no-color.org). It changes no word of a report.

use std::io::IsTerminal;

use clap::ValueEnum;
use dirql::Dress;

/// The environment variable that the watching process sets for the one that runs the machine: `WIDTH`, 0 for no terminal.
pub(crate) const WIDTH_VARIABLE: &str = "DIRQL_TERMINAL";

/// When reports are coloured.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub(crate) enum Color {
    /// Where they are shown on a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Columns of the terminal that standard output is; 0 if it is none.
pub(crate) fn width() -> usize {
    if let Some(width) = std::env::var(WIDTH_VARIABLE).ok().and_then(|width| width.parse().ok()) {
        return width;
    }
    if !std::io::stdout().is_terminal() {
        return 0;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(80, |size| if size.ws_col == 0 { 80 } else { size.ws_col.into() })
}

/// How a report is shown.
pub(crate) fn dress(color: Color) -> Dress {
    let width = width();
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => width > 0 && !is_plain,
    };
    Dress { width: (width > 0).then_some(width), colour }
}
