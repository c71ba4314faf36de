//! What can be typed after `dirql`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The command line.
#[derive(Parser)]
#[command(
    name = "dirql",
    version,
    about = "Runs a compiled Windows x64 driver on Linux, against modelled PCI hardware, and checks the kernel contract",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  clean
  1  the driver broke a rule, or an expectation of the script did not hold
  2  unusable arguments or input: the message says what, where, and what to do
  3  no answer: a fault of dirql's own, or the driver needs something that dirql does not have yet";

/// What can be asked for.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Loads a driver, starts it on its device, talks to it, stops, removes and unloads it
    Run(Run),
    /// Lists what a driver imports, and who has it
    Imports(Imports),
    /// Lists the device models, their ids, keys and signals
    Devices {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// `dirql run`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Run {
    /// The driver
    #[arg(value_name = "FILE.sys")]
    pub(crate) driver: PathBuf,
    /// Its INF: chooses the driver for the devices by hardware id, and writes its registry keys
    #[arg(long, value_name = "FILE.inf")]
    pub(crate) inf: Option<PathBuf>,
    /// A card on the bus: MODEL[,key[=value]]…, see `dirql devices`; may be given several times
    #[arg(long = "device", value_name = "MODEL[,KEY=VALUE]")]
    pub(crate) devices: Vec<String>,
    /// Another driver image, loaded first, that the driver may import from; may be given several times
    #[arg(long, value_name = "OTHER.sys")]
    pub(crate) with: Vec<PathBuf>,
    /// What to do, as a script on the command line
    #[arg(long = "do", value_name = "SCRIPT", conflicts_with = "script")]
    pub(crate) commands: Option<String>,
    /// What to do, as a script in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processors: u32,
    /// The Windows it is to be: 7, 8.1, 10-22h2 or 11-24h2
    #[arg(long, value_name = "VERSION", default_value = "11-24h2")]
    pub(crate) windows: String,
    /// One event a line, as JSON; the last line tells the outcome
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Only what the driver prints, and the verdict
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// `dirql imports`.
#[derive(Args)]
pub(crate) struct Imports {
    /// The driver
    #[arg(value_name = "FILE.sys")]
    pub(crate) driver: PathBuf,
    /// Another driver image that it may import from; may be given several times
    #[arg(long, value_name = "OTHER.sys")]
    pub(crate) with: Vec<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
