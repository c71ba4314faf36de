//! The command `pci9052`: looks at a card and changes it, by the library of the same name.
//!
//! On Windows the card is the first one that is there, or the one of `--card`; elsewhere it stands on dirql's bench.
//! Exit codes: 0 done, 1 the card or its driver refused, 2 unusable arguments.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

mod commands;

use std::process::ExitCode;

use clap::Parser;
use pci9052::{Card, Error, Result};

use commands::Command;

/// The command line.
#[derive(Parser)]
#[command(
    name = "pci9052",
    version,
    about = "Looks at a PCI 9052 card and changes it, by its driver pci9052.sys"
)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where the card is.
#[cfg(not(windows))]
#[derive(clap::Args)]
struct Place {
    /// The driver, with its INF beside it
    #[arg(long, value_name = "FILE", default_value = "target/drivers/pci9052.sys")]
    driver: std::path::PathBuf,
    /// The card, as `dirql run --device` takes it
    #[arg(long, value_name = "SPEC", default_value = "pci9052")]
    device: String,
    /// What the outside world does while `watch` waits, e.g. `linti1=1`; may be given again
    #[arg(long, value_name = "SIGNAL=VALUE")]
    poke: Vec<String>,
}

/// Where the card is.
#[cfg(windows)]
#[derive(clap::Args)]
struct Place {
    /// Which card, in the system's order
    #[arg(long, value_name = "N", default_value_t = 0)]
    card: usize,
}

impl Place {
    #[cfg(not(windows))]
    fn with_card(&self, work: impl FnOnce(&Card<'_>) -> Result<()>) -> Result<()> {
        let poke = |text: &String| {
            let cut = text.split_once('=').and_then(|(signal, value)| Some((signal, value.parse().ok()?)));
            let cut = cut.map(|(signal, value)| (signal.to_owned(), value));
            cut.ok_or_else(|| Error::new(format!("--poke {text}: it is a signal and a number, as linti1=1")))
        };
        let pokes = self.poke.iter().map(poke).collect::<Result<_>>()?;
        let setup = pci9052::bench::Setup { driver: self.driver.clone(), device: self.device.clone(), pokes };
        pci9052::bench::with_card(&setup, work)
    }

    #[cfg(windows)]
    fn with_card(&self, work: impl FnOnce(&Card<'_>) -> Result<()>) -> Result<()> {
        let cards = pci9052::windows::cards()?;
        let Some(path) = cards.get(self.card) else {
            return Err(Error::new(format!("there is no card {}; there are {}", self.card, cards.len())));
        };
        work(&Card::new(&pci9052::windows::open(path)?))
    }
}

fn main() -> ExitCode {
    let Arguments { place, command } = Arguments::parse();
    match place.with_card(|card| command.carry_out(card)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pci9052: {error}");
            ExitCode::FAILURE
        }
    }
}
