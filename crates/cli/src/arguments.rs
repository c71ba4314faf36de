//! What can be typed after `dirql`.

use std::path::PathBuf;
use std::time::Duration;

use crate::check::Until;
use crate::terminal::Color;
use clap::{Args, Parser, Subcommand};
use dirql::explore::Policy;
use dirql::rules::Selection;
use dirql::{Platform, SpecialPool, TraceProviders, Verifier};

/// The command line.
#[derive(Parser)]
#[command(
    name = "dirql",
    version,
    about = "Runs a compiled Windows x64 driver on Linux, against modelled PCI hardware, and checks the kernel contract",
    after_help = BEGIN
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const BEGIN: &str = "\
To begin:
  dirql new mycard --device 10b5:9050     a driver, with INF, scripts and tests, for a card of yours
  dirql imports driver.sys                what it needs, and whether dirql has it
  dirql devices                           the cards that it can be run on
  dirql inf driver.inf                    what is wrong with its INF, and what it installs
  dirql run driver.sys --inf driver.inf --device pci9052 --do 'open \\\\.\\Name as f; read f 4'
  dirql help run                          all about a command

The guide and the reference are in docs/.";

const EXIT_CODES: &str = "\
Exit codes:
  0  clean
  1  the driver broke a rule, or an expectation of the script did not hold; `dirql inf`: the file has an error
  2  unusable arguments or input: the message says what, where, and what to do
  3  no answer: a fault of dirql's own, or the driver needs something that dirql does not have yet; `dirql explore`: it was
     interrupted; or the answer cannot be written
  4  `dirql replay`: the run is not the recorded one";

/// What can be asked for.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Loads a driver, starts it on its device, talks to it, stops, removes and unloads it
    Run(Run),
    /// Tries everything that the kernel contract allows on a driver, by itself: requests, calls that fail, removal, power, orders of threads; and tells
    /// what is wrong, with the line that shows it again
    Check(Check),
    /// Carries the script out in every schedule within a bound, and shows the first one that breaks the driver
    Explore(Explore),
    /// Makes a recorded run again, instruction for instruction, and says whether it is the same
    Replay(Replay),
    /// Lists what a driver imports, and who has it
    Imports(Imports),
    /// Shows the device tree of a run: once the devices are started, or at the end of the script if there is one
    Tree(Run),
    /// Shows the data blocks that drivers offer by WMI, and reads, sets, calls and watches them from outside, as an administrator's program does
    Wmi(Wmi),
    /// Checks an INF file as InfVerif does, and shows what it installs for each device
    Inf(InfFile),
    /// Makes a folder with a driver for a card of yours: source, INF, scripts and a test that builds it, runs it and is green
    New(New),
    /// Lists the rules that a driver can break, or tells one in full: tier, bug check, page, and what usually mends it
    Rules {
        /// The rule, as a verdict names it
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Lists the device models, their ids, keys and signals
    Devices {
        /// The model to tell of; else all
        #[arg(value_name = "MODEL")]
        model: Option<String>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Prints what a shell completes commands and options by: e.g. `dirql completions bash > /etc/bash_completion.d/dirql`
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Prints the manual page of dirql, or of one of its commands: e.g. `dirql man run | man -l -`
    Man {
        /// The command
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
}

/// What a machine is made of, and what is done in it.
#[derive(Args)]
pub(crate) struct Setup {
    /// The driver
    #[arg(value_name = "FILE.sys")]
    pub(crate) driver: PathBuf,
    /// Its INF: chooses the driver for the devices by hardware id, and writes its registry keys; may be given several times, as for
    /// a bus driver and the drivers of its children, and the one that fits a device best counts
    #[arg(long, value_name = "FILE.inf")]
    pub(crate) inf: Vec<PathBuf>,
    /// A card on the bus: MODEL[,key[=value]]…, or a device on none: root[,id=ID], see `dirql devices`; may be given several times
    #[arg(long = "device", value_name = "MODEL[,KEY=VALUE]")]
    pub(crate) devices: Vec<String>,
    /// Another driver image, loaded first, that the driver may import from; may be given several times
    #[arg(long, value_name = "OTHER.sys")]
    pub(crate) with: Vec<PathBuf>,
    /// The framework that a KMDF driver runs on: Windows' own Wdf01000.sys (docs/kmdf.md). Without it a file of that name is taken that lies beside the
    /// driver, or in ~/.config/dirql
    #[arg(long, value_name = "Wdf01000.sys")]
    pub(crate) framework: Option<PathBuf>,
    /// What is below this folder is drive C: (`\??\C:`, `\Device\HarddiskVolume1`), and its folder `Windows` is `\SystemRoot`: files that
    /// the driver opens. It is read before the machine is made, which works on a copy; the folder stays as it is
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// Keys and values that are in the registry before the driver is loaded, as the Registry Editor writes them; they win over what INFs write. May
    /// be given several times, and the later one wins
    #[arg(long, value_name = "FILE.reg")]
    pub(crate) registry: Vec<PathBuf>,
    /// One value that is in the registry before the driver is loaded: key and data as in a registry file, the name without quotes, as in
    /// `HKLM\System\CurrentControlSet\Services\card\Parameters\Depth=dword:1`; with a backslash at the end and no more, a key. It wins over files, and may be given several times
    #[arg(long, value_name = "KEY\\NAME=DATA")]
    pub(crate) registry_value: Vec<String>,
    /// What to do, as a script on the command line
    #[arg(long = "do", value_name = "SCRIPT", conflicts_with = "script")]
    pub(crate) commands: Option<String>,
    /// What to do, as a script in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// What a command of dirql's own puts around the script.
    #[arg(skip)]
    pub(crate) around: Around,
    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processors: u32,
    /// Processors in a group: 1, 2, 4, … 64; fewer than there are make several groups
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) group_size: u32,
    /// The kind of computer, to reach paths that a PC does not: `messages=N` (a device gets so many message-signaled interrupts at
    /// most), `fully-specified` (IoConnectInterruptEx knows only CONNECT_FULLY_SPECIFIED), `relayed-lines` (interrupt lines have
    /// PASSIVE_LEVEL), `before-vista` (there is no IoConnectInterruptEx), `shifted-bus` (raw and translated addresses differ),
    /// `quick-cards=N` (what a card does by itself comes at a driver's N-th access to a device since that was due next, if it is not due sooner; 0: behind the access that begins it), `meeting-cards=N` (likewise, of accesses of service routines),
    /// `late-cards=N` (what a card does by itself comes in the moment in which the N-th time limit of a driver ends, or the last there is), `silent-cards` (it
    /// comes 200 s late), `late-stores` (other processors see a processor's stores late, in their order, as from its store buffer),
    /// `later-bus` (bus drivers answer requests that they may pend later, in threads of their own, and power requests at DISPATCH_LEVEL),
    /// `stand-ins` (a device that a driver opens by name and that is not there is: it can be opened, and refuses what it is asked),
    /// `32-bit-programs` (IoIs32bitProcess says so of the script's programs), `drive` (without --files, there is a drive C: with the folders of a new Windows),
    /// `low-memory` (contiguous memory and addresses for DMA lie below 256 MiB), `high-memory` (not so), `loose-cards` (a card may be gone at each access of a driver's, as the policy chooses among the calls that may fail),
    /// `uptime=TIME` (the computer has been running for that long, as drivers see it, e.g. `49d`),
    /// `posted=TIME` (a write to device memory arrives so much later, e.g. `2us`, or at once, as the policy chooses; a read brings it home); several
    /// with commas between them, or the option several times
    #[arg(long, value_name = "WHAT", value_parser = platform_words)]
    pub(crate) platform: Vec<String>,
    /// How much memory there is for the driver, applications, and what the kernel keeps for them: bytes, or with K, M or G; beyond it a
    /// call fails that asks for more
    #[arg(long, value_name = "SIZE", default_value = "192M", value_parser = size)]
    pub(crate) memory: u64,
    /// How much stack each thread and processor has for drivers: 24K, as on x64, or 12K, as on x86
    #[arg(long, value_name = "SIZE", default_value = "24K", value_parser = stack)]
    pub(crate) stack: u64,
    /// Tells behind the sums how deep each routine of the driver (dispatch routines, DPCs, interrupt routines, work items, threads, …)
    /// went into its stack. Each call of one takes longer, and finds zeroes in the stack below it
    #[arg(long)]
    pub(crate) stack_depths: bool,
    /// What only Driver Verifier would stop for is an error: all of it, or the options named, with commas between them (special-pool,
    /// irql, pool, io, deadlock, dma, security, misc, ddi). Two more are looked at only if they are named, also beside `all`: code-integrity (executable
    /// memory, and images whose code can be changed: what memory integrity does not allow) and invariant-mdl (a buffer that changes while it is
    /// written). With `logging` among them such an error ends no run: the driver goes on as it would where Verifier does not watch
    #[arg(long, value_name = "OPTIONS", num_args = 0..=1, default_value = "none", default_missing_value = "all", require_equals = true)]
    pub(crate) verifier: Verifier,
    /// Attaches readers of events that judge: `all`, `none` (which is usual, but for `dirql check`), or those named, with commas between them (`dirql rules`
    /// names them). Slower, since they read events; a finding of theirs is an event more, which a record that was made without them does not have.
    /// `-NAME` among them: what breaks that rule is reported and makes nothing fail
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true, allow_hyphen_values = true, value_parser = rules)]
    pub(crate) rules: Selection,
    /// A file of findings that are reported and make nothing fail: RULE PLACE # REASON, a line each. PLACE is a routine (`card!OnInterrupt`), a file or a line of the
    /// driver's source (`card.c:88`), as reports name them, or left out for everywhere. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) dismiss: Vec<PathBuf>,
    /// Looks for data races: accesses of the driver's to the same memory that nothing orders, whether or not they meet in this run (docs/races.md).
    /// The same as `data-race` among --rules; several times slower
    #[arg(long, overrides_with = "races")]
    pub(crate) races: bool,
    /// Each block of pool that a driver allocates has pages of its own and ends before one that is never there, and those of a freed one
    /// are gone: an access beyond is reported there, though accesses are not tested. All blocks, or those of the tags named (`?` and
    /// `*` stand for any), with commas between them; `start`: blocks begin behind the page that is not there instead
    #[arg(long, value_name = "TAGS", num_args = 0..=1, default_value = "none", default_missing_value = "all", require_equals = true)]
    pub(crate) special_pool: SpecialPool,
    /// How much paged, and how much nonpaged, pool may be charged to an application's process (ExAllocatePoolWithQuotaTag and its like): bytes, or with
    /// K, M or G; beyond it such a call fails with STATUS_QUOTA_EXCEEDED. Without it there is no limit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) quota: Option<u64>,
    /// A session traces since before the driver is loaded: of `all` providers of events, or of those whose GUIDs are named, with commas between
    /// them; `level=N` (5, verbose, if not given) and `flags=0xN` (all) say what it wants. Providers (ETW, TraceLogging, WPP) are enabled,
    /// and what they write is in the trace. Without it nothing is traced
    #[arg(long, value_name = "all|GUID[,level=N][,flags=0xN]", default_value = "")]
    pub(crate) trace_providers: TraceProviders,
    /// The Windows it is to be: 7, 8.1, 10-22h2 or 11-24h2
    #[arg(long, value_name = "VERSION", default_value = "11-24h2")]
    pub(crate) windows: String,
    /// The processor that driver code finds: x86-64-v2, or x86-64-v3 with AVX2, if the host has it
    #[arg(long, value_name = "LEVEL", default_value = "x86-64-v2")]
    pub(crate) cpu: String,
}

/// `dirql run`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// Do not test each access of the driver's before it happens. Quicker; a wrong access may go by, and no run is called clean
    #[arg(long)]
    pub(crate) fast: bool,
    /// Test each access of the driver's before it happens: as without it
    #[arg(long, hide = true, conflicts_with = "fast")]
    pub(crate) checked: bool,
    #[arg(long, value_name = "POLICY", default_value_t)]
    #[arg(help = format!("Who decides what could go otherwise: {}", Policy::summaries()))]
    pub(crate) policy: Policy,
    /// Writes the run to a file that `dirql replay` makes again
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Draws what happened (of many runs, in the one that is shown) from the first request on: who called whom, from the application through dispatch routine, device,
    /// interrupt routine and DPC; as a picture if the name ends in `.svg`, as a page with every event in the lane of its thread, processor or
    /// device if in `.html`, else as text
    #[arg(long, value_name = "FILE")]
    pub(crate) figure: Option<PathBuf>,
    /// Writes what is on drive C: at the end (of many runs, of the one that is shown) to a tar archive; the folder itself is never written
    #[arg(long, value_name = "FILE.tar", requires = "files")]
    pub(crate) files_save: Option<PathBuf>,
    /// Writes what the registry holds at the end (of many runs, of the one that is shown) to a file that --registry and the Registry Editor read
    #[arg(long, value_name = "FILE.reg")]
    pub(crate) registry_save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) many: Many,
    #[command(flatten)]
    pub(crate) view: View,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
}

impl Run {
    /// Whether each access is tested.
    pub(crate) fn is_checked(&self) -> bool {
        !self.fast || self.many.checked_anyway
    }
}

/// Script text before and behind the user's own.
#[derive(Clone, Default)]
pub(crate) struct Around {
    /// On the script's first line, so that its lines keep their numbers.
    pub(crate) before: String,
    /// Behind its last line.
    pub(crate) behind: String,
}

/// `dirql wmi`.
#[derive(Args)]
#[command(after_help = WMI)]
pub(crate) struct Wmi {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Asks a block behind the script, as a script's `wmi` does (docs/script.md), with or without an expectation; may be given several times
    #[arg(long = "ask", value_name = "QUESTION")]
    pub(crate) asks: Vec<String>,
    /// Enables the events of a block before the script, and disables them at the end; may be given several times
    #[arg(long = "watch", value_name = "{GUID}")]
    pub(crate) watched: Vec<String>,
    /// How long events are waited for behind the script and the questions, in the machine's time
    #[arg(long = "for", value_name = "TIME", default_value = "1ms", requires = "watched")]
    pub(crate) patience: String,
}

const WMI: &str = "\
Without --ask and --watch the blocks are listed. Questions:
  --ask 'query block:{GUID}'                           all instances; one: instance N, or name \"NAME\"
  --ask 'set block:{GUID} instance 0 u32:5'            a whole instance; one item of it: item N
  --ask 'execute block:{GUID} method 1 in u32:5 out 4' a method
  --ask 'blocks'                                       the list

Exit codes:
  0  all was answered, and the run is clean
  1  a driver refused (the status is printed), an expectation did not hold, or the driver broke a rule
  2  unusable arguments or input
  3  no answer: a fault of dirql's own, or the driver needs something that dirql does not have yet; or the answer cannot be written";

/// One run or many.
#[derive(Args)]
pub(crate) struct Many {
    /// Makes so many runs, by the policy's seed and those that follow it, and shows (and records) the first that is not clean. Each
    /// loads and starts the driver anew, but for a policy that decides from the script on (`@script`), which is quicker
    #[arg(long, value_name = "N", conflicts_with = "in_process", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: Option<u32>,
    /// So many processes make them; as many as the host has processors, if not given
    #[arg(long, value_name = "N", requires = "runs", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
    /// This process makes one of many runs, the one of this number.
    #[arg(long = crate::many::NTH, hide = true, require_equals = true, default_value_t = 0)]
    pub(crate) nth: u32,
    /// It only ends with its code.
    #[arg(long = crate::many::UNTOLD, hide = true)]
    pub(crate) untold: bool,
    /// It is checked, though others are fast.
    #[arg(long = crate::many::ANYWAY, hide = true)]
    pub(crate) checked_anyway: bool,
}

/// `dirql explore`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Explore {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// How often, at most, a schedule departs from the usual: a thread gives way though it could go on, or something else
    /// goes another way
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) preemptions: u8,
    /// How many schedules to try at most
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) schedules: u64,
    /// Let a thread give way between any two instructions, and not only before those that others can see: exports, device
    /// accesses, interlocked instructions, and loads and stores of memory that others touch. Many more schedules
    #[arg(long)]
    pub(crate) instructions: bool,
    /// Test each access of the driver's before it happens, in every schedule: slower, and finds wrong ones that no fast schedule
    /// shows. Without it the schedule that is shown is tested so, or, if none is broken, the one that departs nowhere
    #[arg(long)]
    pub(crate) checked: bool,
    /// Test no access in any schedule: none is called clean then
    #[arg(long, conflicts_with = "checked")]
    pub(crate) fast: bool,
    /// Let calls fail that could succeed, too
    #[arg(long)]
    pub(crate) faults: bool,
    #[arg(help = format!(
        "Not every schedule, but those of {} and the seeds that follow, as many as --schedules says. The policy decides from where the \
         script begins",
        Policy::seeded_forms()
    ))]
    #[arg(long, value_name = "POLICY", conflicts_with_all = ["preemptions", "instructions", "faults"])]
    pub(crate) policy: Option<Policy>,
    /// So many processes search at a time; as many as the host has processors, if not given. The findings and the output do not
    /// depend on it
    #[arg(long, value_name = "N", conflicts_with = "in_process", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
    /// Keeps what came of each schedule in a file, while the search is made; where the file is there, the search goes on from it, and ends as if it had never been
    /// interrupted. It must be of the same search, but for --preemptions, --schedules, --workers and what is shown
    #[arg(long, value_name = "FILE", conflicts_with_all = ["in_process", crate::explore::FOLLOW])]
    pub(crate) state: Option<PathBuf>,
    /// Writes the first broken run to a file that `dirql replay` makes again
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Draws what happened in it from the first request on: who called whom, from the application through dispatch routine, device,
    /// interrupt routine and DPC; as a picture if the name ends in `.svg`, as a page with every event in the lane of its thread, processor or
    /// device if in `.html`, else as text
    #[arg(long, value_name = "FILE")]
    pub(crate) figure: Option<PathBuf>,
    /// Carries the script out in one schedule only, whose choices a search has printed; an empty text is the usual one
    #[arg(long = crate::explore::FOLLOW, value_name = "CHOICES")]
    pub(crate) follow: Option<String>,
    /// This process runs the schedule of these choices, which was found.
    #[arg(long = crate::explore::FOUND, hide = true, require_equals = true)]
    pub(crate) found: Option<String>,
    #[command(flatten)]
    pub(crate) view: View,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
}

/// `dirql check`.
#[derive(Args)]
#[command(after_help = CHECK)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) setup: Setup,
    /// How much is tried, in hundredths of the usual: of seeds and schedules, so results do not depend on the host's speed
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) budget: u64,
    /// So many processes work at a time; as many as the host has processors, if not given. The findings and the output do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
    /// Only exercises whose title, as a finding has it behind `shown by`, begins with this: what is mended is looked at again in seconds. May be given several times
    #[arg(long, value_name = "TITLE", conflicts_with = "state")]
    pub(crate) exercise: Vec<String>,
    /// Tries nothing more once one of these rules is found broken: names with commas between them, or `any`
    #[arg(long, value_name = "RULES", value_parser = until, conflicts_with = "state")]
    pub(crate) until: Option<Until>,
    /// Writes the findings as SARIF, which code hosts show at their lines
    #[arg(long, value_name = "FILE")]
    pub(crate) sarif: Option<PathBuf>,
    /// The folder of the driver's source, as its debug information names it: SARIF's files are named from there, as the code host knows them
    #[arg(long, value_name = "FOLDER", requires = "sarif")]
    pub(crate) source_root: Option<String>,
    /// Writes what was tried as JUnit XML, which servers of continuous integration read
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Writes one page with everything: each finding with a drawing of what happened, what was tried, what code was reached
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Keeps what comes of each exercise in this file, and goes on from it: what was done is not done again. The report does not depend on it
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Writes three files of each finding into this folder, which is made, or empty: the script that shows it, a record of the run, and a test in Rust
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Sequences of requests that came to new code are kept in this folder, and tried first by the next check; scripts that you put there, too
    #[arg(long, value_name = "DIR")]
    pub(crate) corpus: Option<PathBuf>,
    /// Writes which lines of the driver were reached, as a tracefile of lcov; it takes a PDB or DWARF
    #[arg(long, value_name = "FILE")]
    pub(crate) lcov: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on a terminal
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Whether the report is coloured
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: Color,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
}

const CHECK: &str = "\
Without --inf, an INF file of the driver's name beside it is taken; without --device, the card that it is for. A script (--do, --script) is one exercise more, and its requests that succeed take part in the others.

Exit codes:
  0  nothing is wrong by what was tried
  1  something is wrong: a rule of tier error, verifier or warning is broken
  2  unusable arguments or input
  3  no answer: a fault of dirql's own, or the driver needs something that dirql does not have yet";

/// Of what happens in a run, one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Only {
    /// The device tree, where it is asked for.
    Tree,
    /// What is asked of WMI, and its events.
    Wmi,
}

/// How a run is shown.
#[derive(Args)]
pub(crate) struct View {
    /// One event a line, as JSON (docs/events.md); the last line, `end`, tells the outcome
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Of events only these kinds, with commas between them (docs/events.md), or `all`: then the details too, which are not written otherwise, but
    /// for `access`, each access to memory, of which there are so many that it is only written where it is named
    #[arg(long, value_name = "KINDS", conflicts_with = "quiet", value_parser = kinds)]
    pub(crate) events: Option<Kinds>,
    /// Only what the driver prints, and the verdict
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Of what happens only this.
    #[arg(skip)]
    pub(crate) only: Option<Only>,
    /// How much is shown of what happens, or of what the driver prints; what is beyond is not, and a line says so. The report comes in any case
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = size)]
    pub(crate) output_limit: u64,
    /// Whether reports are coloured
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: Color,
}

/// Where a machine runs.
#[derive(Args)]
pub(crate) struct Isolation {
    /// Ends a run that takes longer of the host's time; 0: never. Only dirql's own hangs need it: a driver's are verdicts
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) host_timeout: u64,
    /// Runs the machine in this process, not in a jailed one of its own: for debugging dirql itself
    #[arg(long)]
    pub(crate) in_process: bool,
    /// This is the jailed process, started by the one of this id.
    #[arg(long = crate::isolate::CONFINED, hide = true, require_equals = true)]
    pub(crate) confined: Option<u32>,
    /// Where this process leaves what it has not printed yet.
    #[arg(long = crate::isolate::OUTBOX, hide = true, require_equals = true)]
    pub(crate) outbox: Option<i32>,
    /// Where this process leaves lines that are on their way to the one that watches it.
    #[arg(long = crate::isolate::LINES, hide = true, require_equals = true)]
    pub(crate) lines: Option<i32>,
    /// Where this process finds the number that its last word needs.
    #[arg(long = crate::isolate::PASS, hide = true, require_equals = true)]
    pub(crate) pass: Option<i32>,
    /// What an earlier process of this command left to be done by this one.
    #[arg(long = crate::isolate::TURN, hide = true, require_equals = true)]
    pub(crate) turn: Option<String>,
}

impl Isolation {
    /// How long the run may take of the host's time.
    pub(crate) fn host_limit(&self) -> Option<Duration> {
        (self.host_timeout > 0).then(|| Duration::from_secs(self.host_timeout))
    }
}

/// `dirql replay`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Replay {
    /// The record, as `dirql run --record` wrote it
    #[arg(value_name = "RECORD")]
    pub(crate) record: PathBuf,
    /// Where the driver is now, if it is neither where it was nor beside the record
    #[arg(long, value_name = "FILE.sys")]
    pub(crate) driver: Option<PathBuf>,
    /// Where its INF is now
    #[arg(long, value_name = "FILE.inf")]
    pub(crate) inf: Option<PathBuf>,
    /// Where the folder is now that is drive C:
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// Test each access of the driver's before it happens, though the record is of a fast run; the events are the same
    #[arg(long)]
    pub(crate) checked: bool,
    /// Draws what happened from the first request on: who called whom, from the application through dispatch routine, device,
    /// interrupt routine and DPC; as a picture if the name ends in `.svg`, as a page with every event in the lane of its thread, processor or
    /// device if in `.html`, else as text
    #[arg(long, value_name = "FILE")]
    pub(crate) figure: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) view: View,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
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

/// `dirql new`.
#[derive(Args)]
pub(crate) struct New {
    /// The driver's name: its file's, its service's, and the new folder's
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The PCI card's vendor and device
    #[arg(long, value_name = "VVVV:DDDD")]
    pub(crate) device: String,
    /// What it is written in
    #[arg(long, value_name = "LANGUAGE", value_enum, default_value_t = Language::Rust)]
    pub(crate) lang: Language,
}

/// A language that drivers are written in.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    Rust,
    C,
}

impl Language {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C",
        }
    }
}

/// `dirql inf`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct InfFile {
    /// The file
    #[arg(value_name = "FILE.inf")]
    pub(crate) file: PathBuf,
    /// Show what is installed for this device alone: PCI vendor and device, or USB vendor and product
    #[arg(long, value_name = "VVVV:DDDD")]
    pub(crate) device: Option<String>,
    /// The Windows that it is installed on: 7, 8.1, 10-22h2 or 11-24h2
    #[arg(long, value_name = "VERSION", default_value = "11-24h2")]
    pub(crate) windows: String,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A size of kernel stacks.
fn stack(text: &str) -> Result<u64, String> {
    match size(text) {
        Ok(bytes @ (0x3000 | 0x6000)) => Ok(bytes),
        _ => Err("kernel stacks have 24K on x64, and 12K on x86".to_owned()),
    }
}

/// A number of bytes: `64M`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G', 'k', 'm', 'g']);
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("write bytes, or a number with K, M or G: 64M".to_owned()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "write bytes, or a number with K, M or G: 64M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than there is".to_owned())
}

/// Kinds of events.
#[derive(Clone)]
pub(crate) struct Kinds(pub(crate) Vec<dirql::readers::Kind>);

/// Words that [`Platform`] knows.
fn platform_words(words: &str) -> Result<String, String> {
    words.parse::<Platform>().map(|_| words.to_owned())
}

impl Setup {
    /// What all its words say of the computer: of two that contradict each other the later one counts.
    pub(crate) fn platform(&self) -> Platform {
        self.platform.join(",").parse().expect("each was read before")
    }
}

fn kinds(list: &str) -> Result<Kinds, String> {
    dirql::readers::kinds(list).map(Kinds)
}

fn until(list: &str) -> Result<Until, String> {
    Until::typed(list).map_err(|error| error.to_string())
}

fn rules(list: &str) -> Result<Selection, String> {
    dirql::rules::selection(list).map_err(|error| error.to_string())
}
