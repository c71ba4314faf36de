//! Every chore of the project behind one door: `cargo xtask demo|test|check|bench|replays|rewind|schedules|sequences|soak|coverage|stubs|real|rules|sentences|events|drivers|museum|shipped`.
//!
//! It only calls other tools (cargo, gcc, apt-get) and says what it calls. It knows nothing of what they build.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a chore says what it does; xtask is no part of the machine"
)]

mod bench;
mod call;
mod check;
mod coverage;
mod drivers;
mod events;
mod identity;
mod install;
mod microsoft;
mod museum;
mod museum_kept;
mod museum_pairs;
mod real;
mod rules;
mod run;
mod runs;
mod rust_exhibit;
mod sentences;
mod shipped;
mod solo;
mod stubs;
mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "Every chore of the project", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

/// What can be asked for.
#[derive(Subcommand)]
enum Chore {
    /// Builds everything and shows one write on a PCI 9052 card, from WriteFile to the interrupt and back
    Demo,
    /// Builds the drivers and runs every test
    Test {
        /// Passed on to the test runner, e.g. part of a test's name
        filters: Vec<String>,
    },
    /// Everything CI does: format, lints, tests, documentation, for both workspaces
    Check,
    /// Measures every figure that is quoted
    Bench {
        /// One JSON object of `name: {median, p99, unit, samples}` on standard output
        #[arg(long)]
        json: bool,
    },
    /// Records and replays many runs of each driver by random policies: none may differ
    Replays {
        /// So many of each driver
        #[arg(long, value_name = "N", default_value_t = 1000)]
        runs: u32,
    },
    /// Takes machines back to choice points, very often: each time they must be as they were
    Rewind {
        /// So many times for each story
        #[arg(long, value_name = "N", default_value_t = 300_000)]
        rewinds: u32,
    },
    /// Tells the stories of locks, time, messages, cards and clients of KMDF in many random schedules: what is promised holds in each
    Schedules {
        /// So many for each story
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        schedules: u32,
    },
    /// Does random things to trees of devices: plugs, stops, removes, sleeps, wakes and requests: nothing is left, hangs or is accused
    Sequences {
        /// So many for each tree
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        sequences: u32,
    },
    /// Lets random traffic of applications go to each driver for long, on 8 processors: nothing is left, and the memory stays flat
    Soak {
        /// So much of the machine's time; a week if not given
        #[arg(long, value_name = "N", default_value_t = 168)]
        hours: u32,
    },
    /// Writes docs/coverage.md: which exports a driver has called in which test
    Coverage,
    /// Puts a routine that returns 0 and does nothing in the place of each export: a test must fail; names it in docs/coverage.md
    Stubs {
        /// Only these exports
        exports: Vec<String>,
    },
    /// Fetches drivers that others have published, and a framework of Microsoft's, from a package registry, and shows how far each gets: never in CI, and none is kept
    Real,
    /// Writes the documents that say which tests hold which sentences of Microsoft's pages
    Sentences {
        /// Only look whether they are what would be written
        #[arg(long)]
        check: bool,
    },
    /// Writes docs/events.md: what the lines of `--json` are
    Events {
        /// Only look whether it is what would be written
        #[arg(long)]
        check: bool,
    },
    /// Writes docs/rules.md: the rules, with their tiers, bug checks, pages, remedies and tests
    Rules {
        /// Only look whether it is what would be written
        #[arg(long)]
        check: bool,
    },
    /// Builds the museum of bugs, small drivers with one bug each and their fixed twins, and has `dirql check` look at them
    Museum {
        /// Only builds them
        #[arg(long)]
        build: bool,
        /// How much of its usual budget `dirql check` has for each, in hundredths
        #[arg(long, value_name = "PERCENT", default_value_t = 100)]
        budget: u32,
        /// The same for the fixed twins, if it is to be less
        #[arg(long, value_name = "PERCENT")]
        twins: Option<u32>,
        /// Only what docs/museum.md lacks, or has another header for, which is added to it
        #[arg(long, conflicts_with = "names")]
        new: bool,
        /// Only these bugs
        names: Vec<String>,
    },
    /// Has `dirql check` look at each driver that is shipped or shown as right: none may be accused
    Shipped {
        /// How much of its usual budget it has for each, in hundredths
        #[arg(long, value_name = "PERCENT", default_value_t = 100)]
        budget: u32,
    },
    /// Builds the C and Rust drivers as .sys files, each with its INF beside it
    Drivers {
        /// Where the files go, `target/drivers` if not given
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Only those in Rust
        #[arg(long)]
        rust: bool,
    },
}

fn main() -> ExitCode {
    let root = root();
    let done = match Arguments::parse().chore {
        Chore::Demo => run::demo(&root),
        Chore::Test { filters } => check::test(&root, &filters),
        Chore::Check => check::check(&root),
        Chore::Bench { json } => bench::bench(&root, json),
        Chore::Replays { runs } => run::replays(&root, runs),
        Chore::Rewind { rewinds } => run::rewinds(&root, rewinds),
        Chore::Schedules { schedules } => run::schedules(&root, schedules),
        Chore::Sequences { sequences } => run::sequences(&root, sequences),
        Chore::Soak { hours } => run::soak(&root, hours),
        Chore::Coverage => coverage::write(&root),
        Chore::Stubs { exports } => stubs::write(&root, &exports),
        Chore::Real => real::show(&root),
        Chore::Events { check } => events::write(&root, check),
        Chore::Rules { check } => rules::write(&root, check),
        Chore::Sentences { check } => sentences::write(&root, check),
        Chore::Museum { build: true, .. } => museum::only_build(&root),
        Chore::Museum { budget, twins, names, new, .. } => {
            let budgets = museum::Budgets { bugs: budget, twins: twins.unwrap_or(budget) };
            let kept = if new { museum_kept::Kept::read(&root) } else { Ok(museum_kept::Kept::default()) };
            kept.and_then(|kept| museum::museum(&root, &names, &budgets, &kept))
        }
        Chore::Shipped { budget } => shipped::check(&root, budget),
        Chore::Drivers { out, rust } => {
            let out = out.unwrap_or_else(|| drivers::default_out(&root));
            if rust { drivers::build_only_rust(&root, &out) } else { drivers::build(&root, &out) }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's own folder: the parent of this crate's, wherever cargo was called. Cargo says where that is now; it may
/// have been elsewhere when this was compiled.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    here.parent().map(Path::to_path_buf).unwrap_or(here)
}
