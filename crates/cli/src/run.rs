//! `dirql run`: a driver, its devices and a script, made into a machine; its events and report, printed.
//!
//! Each access of the driver's is tested, unless the user wants it fast. A fast run that may blame the wrong instruction, because
//! memory was damaged before, is made again with checks before anyone is blamed; so is one whose process died. A run whose verdict
//! names moments is made again for these.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use dirql::explore::Chooser;
use dirql::readers::{Figure, FigureForm, Sink};
use dirql::record::Recording;
use dirql::{
    Bench, Dismissal, Error, Jail, Outcome, Play, Report, ScriptText, files, framework, processor, windows,
};

use crate::again::quoted;
use crate::arguments::{Around, Only, Run, Setup};
use crate::crash_report::unexplained;
use crate::isolate::{self, Done};
use crate::many;
use crate::out::{self, complain};
use crate::outputs::Outputs;
use crate::said::Tells;
use crate::view::{MOMENTS, Show, silently};

/// The turn in which a run is made again with checks; the exit code of the first follows.
const CHECKED: &str = "checked:";
/// The turn in which a run whose process died is made again with checks; how it died follows.
pub(crate) const AFTER_DEATH: &str = "after-death:";
/// The turn in which a checked run is made again for its moments, which follow.
pub(crate) const CHECKED_MOMENTS: &str = "checked-moments:";

/// Runs it and returns the exit code.
///
/// # Errors
/// Something given cannot be used, or this host cannot run a machine.
pub(crate) fn run(arguments: &Run) -> Result<u8> {
    if let Some(runs) = arguments.many.runs.filter(|_| arguments.isolation.confined.is_none()) {
        return many::run(arguments, runs);
    }
    let outputs = outputs(arguments);
    isolate::in_turns(&arguments.isolation, &outputs, after_death(arguments), |jail, turn| {
        let Some(turn) = turn else { return carry_out(arguments, jail) };
        if let Some(runs) = turn.strip_prefix(many::SEVERAL) {
            several(arguments, jail, runs)
        } else if let Some(code) = turn.strip_prefix(CHECKED) {
            again_checked(arguments, jail, code)
        } else if let Some(death) = turn.strip_prefix(AFTER_DEATH) {
            checked_after_death(arguments, jail, death)
        } else if let Some(moments) = turn.strip_prefix(CHECKED_MOMENTS) {
            explain(arguments, jail, true, moments)
        } else {
            explain(arguments, jail, arguments.is_checked(), turn.strip_prefix(MOMENTS).unwrap_or(turn))
        }
    })
}

/// The same, with a last command in the script that shows the device tree, of all of which nothing else is shown.
///
/// # Errors
/// As [`run`].
pub(crate) fn tree(mut arguments: Run) -> Result<u8> {
    arguments.view.only = Some(Only::Tree);
    "tree\n".clone_into(&mut arguments.setup.around.behind);
    run(&arguments)
}

/// The files that it writes.
pub(crate) fn outputs(arguments: &Run) -> Outputs {
    Outputs::new(
        &arguments.isolation,
        [&arguments.record, &arguments.figure, &arguments.files_save, &arguments.registry_save]
            .map(Option::as_ref),
    )
}

/// The turn that finds out why the process of a run died: there is one, unless the run was checked already.
pub(crate) fn after_death(arguments: &Run) -> Option<&'static str> {
    (!arguments.is_checked()).then_some(AFTER_DEATH)
}

fn carry_out(arguments: &Run, jail: Option<Jail>) -> Result<Done> {
    let policy = many::policy(arguments, arguments.many.nth)?;
    if arguments.many.untold {
        let bench = bench(&arguments.setup)?.checked(arguments.is_checked()).policy(policy);
        let report = silently(bench, play(&arguments.setup)?, jail)?;
        Tells::default().tell(many::said(&report, &mut BTreeSet::new()));
        return Ok(Done::with(report.outcome().exit_code()));
    }
    let show = Show::new(&arguments.view, &arguments.isolation)?;
    let report = show_run(arguments, &show, arguments.is_checked(), jail)?;
    if !arguments.is_checked() && report.wants_checked_run() {
        let done = Done::then(format!("{CHECKED}{}", report.outcome().exit_code()));
        return Ok(show.behind_all(done, &report));
    }
    Ok(show.done(&report, MOMENTS))
}

/// Several of many runs, of which nothing is shown.
fn several(arguments: &Run, jail: Option<Jail>, runs: &str) -> Result<Done> {
    // Their sums and hashes are not shown.
    let bench = bench(&arguments.setup)?.checked(arguments.is_checked()).unobserved();
    let play = play(&arguments.setup)?;
    if let Some(play) = &play {
        bench.check(play)?;
    }
    many::several(arguments, bench, play.as_ref(), jail, runs)
}

/// The run that was asked for, shown, with the files that are wanted of it.
fn show_run(arguments: &Run, show: &Show<'_>, checked: bool, jail: Option<Jail>) -> Result<Report> {
    let policy = many::policy(arguments, arguments.many.nth)?;
    let (chooser, name) = (policy.chooser(), policy.to_string());
    let bench = bench(&arguments.setup)?.checked(checked);
    let outputs = outputs(arguments);
    let files = Files {
        outputs: &outputs,
        record: arguments.record.as_deref(),
        figure: arguments.figure.as_deref(),
        archive: arguments.files_save.as_deref(),
        registry: arguments.registry_save.as_deref(),
    };
    shown(show, bench, &arguments.setup, (chooser, &name), jail, files)
}

/// The same choices in a checked machine: a better verdict, if it has one.
fn again_checked(arguments: &Run, jail: Option<Jail>, first: &str) -> Result<Done> {
    let show = Show::new(&arguments.view, &arguments.isolation)?.without_events();
    show.note(
        "\nThis verdict may be a consequence of damaged memory. The same run again, with every access checked:",
    );
    let policy = many::policy(arguments, arguments.many.nth)?;
    let bench = bench(&arguments.setup)?.checked(true).policy(policy);
    let report = show.run(bench, play(&arguments.setup)?, jail)?;
    if report.outcome() == Outcome::Clean {
        show.note("The checked run has not shown it: the verdict above stands.");
        return Ok(Done::with(first.parse().unwrap_or(crate::NO_ANSWER)));
    }
    if let Some(path) = &arguments.record {
        show.note(&format!("replay: dirql replay {} --checked", quoted(&path.display().to_string())));
    }
    Ok(show.done(&report, CHECKED_MOMENTS))
}

/// The process that ran the machine died before its report. The same choices in a checked machine: if the driver wrote over dirql's
/// own memory, it is stopped at the first byte now.
fn checked_after_death(arguments: &Run, jail: Option<Jail>, death: &str) -> Result<Done> {
    let show = Show::new(&arguments.view, &arguments.isolation)?.without_events();
    note_death(&show, death);
    let report = show_run(arguments, &show, true, jail)?;
    if report.outcome() == Outcome::Clean {
        complain!("dirql: {}", unexplained(death));
        return Ok(show.behind_all(Done::with(crate::NO_ANSWER), &report));
    }
    Ok(show.done(&report, CHECKED_MOMENTS))
}

/// Says what follows where a run is made again because its process died.
pub(crate) fn note_death(show: &Show<'_>, death: &str) {
    show.note(&format!("\nBefore its report, {death}. The same run again, with every access checked:"));
}

/// Makes the run again and tells whose doing its moments were.
fn explain(arguments: &Run, jail: Option<Jail>, checked: bool, moments: &str) -> Result<Done> {
    let policy = many::policy(arguments, arguments.many.nth)?;
    let bench = bench(&arguments.setup)?.checked(checked).policy(policy);
    Show::new(&arguments.view, &arguments.isolation)?.explain(bench, play(&arguments.setup)?, jail, moments)
}

fn play(setup: &Setup) -> Result<Option<Play>> {
    Ok(script(setup)?.map(|script| script.play()).transpose().map_err(Error::Input)?)
}

/// The files that are wanted of a run, as the user named them.
#[derive(Clone, Copy)]
pub(crate) struct Files<'p> {
    pub(crate) outputs: &'p Outputs,
    pub(crate) record: Option<&'p Path>,
    pub(crate) figure: Option<&'p Path>,
    pub(crate) archive: Option<&'p Path>,
    pub(crate) registry: Option<&'p Path>,
}

/// What a command reads by its setup, of which `bench` and `script` are made: none of it is to be written over.
///
/// # Errors
/// [`Error::Input`]: as [`Recording::inputs`].
pub(crate) fn inputs(
    setup: &Setup,
    bench: &Bench,
    script: Option<&ScriptText>,
) -> Result<Vec<PathBuf>, Error> {
    let inputs = Recording::inputs(bench, "", script).map_err(Error::Input)?;
    let named = setup.script.iter().chain(&setup.dismiss).cloned();
    Ok(inputs.into_iter().chain(named).collect())
}

/// Runs `bench` by a policy, with its name, and shows the run, recorded and drawn as `files` says.
///
/// # Errors
/// As [`run`].
pub(crate) fn shown(
    show: &Show<'_>,
    bench: Bench,
    setup: &Setup,
    policy: (Box<dyn Chooser>, &str),
    jail: Option<Jail>,
    files: Files<'_>,
) -> Result<Report> {
    let script = script(setup)?;
    let play = script.as_ref().map(ScriptText::play).transpose().map_err(Error::Input)?;
    if let Some(play) = &play {
        bench.check(play)?;
    }
    // Before a file is made: what cannot be recorded leaves none behind.
    if files.record.or(files.figure).or(files.archive).or(files.registry).is_some() {
        files.outputs.check(&inputs(setup, &bench, script.as_ref())?)?;
    }
    let (bench, jail) = match files.figure {
        Some(path) => drawn(bench, jail, files.outputs, path)?,
        None => (bench, jail),
    };
    let (bench, jail) = match files.archive {
        Some(path) => {
            let file = files.outputs.create(path)?;
            let jail = jail.map(|jail| jail.may_write(&file));
            (bench.save_files(BufWriter::new(file)), jail)
        }
        None => (bench, jail),
    };
    let (bench, jail) = match files.registry {
        Some(path) => {
            let file = files.outputs.create(path)?;
            let jail = jail.map(|jail| jail.may_write(&file));
            (bench.save_registry(BufWriter::new(file)), jail)
        }
        None => (bench, jail),
    };
    match files.record {
        Some(path) => recorded(show, bench, (script.as_ref(), play), policy, jail, (files.outputs, path)),
        None => Ok(show.run(bench.decided_by(policy.0), play, jail)?),
    }
}

/// With a figure drawn to `path` at the end.
///
/// # Errors
/// The file cannot be made.
pub(crate) fn drawn(
    bench: Bench,
    jail: Option<Jail>,
    outputs: &Outputs,
    path: &Path,
) -> Result<(Bench, Option<Jail>)> {
    let file = outputs.create(path)?;
    let jail = jail.map(|jail| jail.may_write(&file));
    let ends = |form: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(form));
    let form = match () {
        () if ends("svg") => FigureForm::Svg,
        () if ends("html") => FigureForm::Page,
        () => FigureForm::Text,
    };
    let (symbols, name) = (bench.symbols(), path.display().to_string());
    let sink = Sink::new(Noted { out: BufWriter::new(file), name });
    Ok((bench.reader(Figure::new(sink, form, symbols)), jail))
}

/// A file of which the command reports write errors.
struct Noted<W: Write> {
    out: W,
    name: String,
}

impl<W: Write> Write for Noted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Drop for Noted<W> {
    fn drop(&mut self) {
        out::note(&self.name, self.out.flush());
    }
}

/// The same, recorded to `path`.
fn recorded(
    show: &Show<'_>,
    bench: Bench,
    (script, play): (Option<&ScriptText>, Option<Play>),
    (policy, name): (Box<dyn Chooser>, &str),
    jail: Option<Jail>,
    (outputs, path): (&Outputs, &Path),
) -> Result<Report> {
    let file = outputs.create(path)?;
    let jail = jail.map(|jail| jail.may_write(&file));
    let started = Recording::start(bench, policy, name, script, BufWriter::new(file));
    let (bench, recording) = started.map_err(Error::Input)?;
    let report = show.run(bench, play, jail)?;
    out::note(&path.display().to_string(), recording.finish(&report));
    if report.outcome() != Outcome::Clean {
        show.note(&format!("replay: dirql replay {}", quoted(&path.display().to_string())));
    }
    Ok(report)
}

/// What is not to count.
///
/// # Errors
/// [`Error::Input`] if a file says something else.
pub(crate) fn dismissals(setup: &Setup) -> Result<Vec<Dismissal>, Error> {
    let mut all = setup.rules.dismissals.clone();
    for path in &setup.dismiss {
        let bytes = files::read(path, "the file of what is dismissed")?;
        all.extend(Dismissal::parse(&path.display().to_string(), &String::from_utf8_lossy(&bytes))?);
    }
    Ok(all)
}

/// The machine that the arguments describe.
///
/// # Errors
/// [`Error::Input`] if the Windows version is none.
pub(crate) fn bench(setup: &Setup) -> Result<Bench, Error> {
    let mut bench = Bench::new()
        .driver(&setup.driver)
        .processors(setup.processors)
        .group_size(setup.group_size)
        .platform(setup.platform())
        .verifier(setup.verifier)
        .rules(setup.rules.judges.as_deref().unwrap_or_default())
        .dismiss(dismissals(setup)?)
        .races(setup.races)
        .stack(setup.stack)
        .stack_depths(setup.stack_depths)
        .special_pool(setup.special_pool.clone())
        .quota(setup.quota)
        .trace_providers(setup.trace_providers.clone())
        .memory(setup.memory)
        .processor(processor::parse(&setup.cpu)?)
        .windows(windows::parse(&setup.windows)?);
    for spec in &setup.devices {
        bench = bench.device(spec);
    }
    for other in &setup.with {
        bench = bench.with(other);
    }
    let found = || framework::find(&setup.driver, &setup.with, settings_folder().as_deref());
    match &setup.framework {
        Some(framework) => bench = bench.framework(framework),
        None => bench = found().into_iter().fold(bench, Bench::with),
    }
    for inf in &setup.inf {
        bench = bench.inf(inf);
    }
    if let Some(folder) = &setup.files {
        bench = bench.files(folder);
    }
    for file in &setup.registry {
        bench = bench.registry(file);
    }
    for value in &setup.registry_value {
        bench = bench.registry_value(value);
    }
    Ok(bench)
}

/// Where the user keeps what dirql may use: `~/.config/dirql`, or as `XDG_CONFIG_HOME` has it.
fn settings_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(base.join("dirql"))
}

/// The script, as it was given.
///
/// # Errors
/// [`Error::Input`] if its file cannot be read.
pub(crate) fn script(setup: &Setup) -> Result<Option<ScriptText>, Error> {
    let script = match (&setup.commands, &setup.script) {
        (Some(text), _) => Some(ScriptText::typed(text)),
        (None, Some(path)) => Some(ScriptText::read(path)?),
        (None, None) => None,
    };
    let Around { before, behind } = &setup.around;
    if before.is_empty() && behind.is_empty() {
        return Ok(script);
    }
    let script = script.unwrap_or_else(|| ScriptText::typed(""));
    Ok(Some(ScriptText { text: format!("{before}{}\n{behind}", script.text), ..script }))
}
