//! The museum of bugs: `museum/AREA/BUG.c`, or `BUG.rs`, has one bug, and none where `FIXED` is defined (`#[cfg(FIXED)]`). Both are compiled, with an INF for
//! those whose device is on a bus, into `target/museum`: `BUG.sys` and `BUG_fixed.sys`.
//!
//! A file's header says what the rest of the machine needs to know of it: `Device`, the hardware id, or `none` for a driver that makes its
//! device itself; `Rule`, those that name the bug, each as good as another; `Needs`, what it shows by; `Compiler: clang` where `__try` is used,
//! with `integritycheck` for drivers that ask to get to know of processes, and with `align` where the bug's sections do not begin with pages; `Framework: KMDF` of
//! a client of KMDF, which finds its framework, the stand-in of `drivers/c/framework.c`, beside it; `Options`, without which `dirql check` does not look for the bug.
//! Without `--build` each is then looked at by `dirql check`, which gets nothing but the driver, its INF and these options. It does not judge whether a bug is one.
//! So are the rules one by one ([`museum_pairs`]). What comes of all of it with the usual budget is `docs/museum.md`, to which what is new can be added ([`crate::museum_kept`]). A run that was interrupted goes on where it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::museum_kept::{END_OF_SHOWN, Kept, Known, MARK, NOT_FOUND};
use crate::museum_pairs::{self, Pair, Rule};
use crate::suite::side_by_side;
use crate::{call, drivers, install, rust_exhibit};

/// What a bug may need to show, besides that its driver is loaded, started, stopped, removed and unloaded.
const NEEDS: &[&str] =
    &["nothing", "ioctl", "failure", "schedule", "removal", "power", "cancel", "device", "registry"];

/// One file of the museum.
#[derive(Debug)]
pub(crate) struct Exhibit {
    /// The driver's name: the file's.
    pub(crate) name: String,
    /// The folder it lies in.
    pub(crate) area: String,
    source: PathBuf,
    /// What its INF installs it for; none if it makes its device itself.
    device: Option<String>,
    /// Rules, each of which names the bug.
    pub(crate) rules: Vec<String>,
    /// Words of [`NEEDS`].
    pub(crate) needs: Vec<String>,
    /// What is wrong, a sentence.
    bug: String,
    language: Language,
    /// It is a client of KMDF.
    is_client: bool,
    /// What `dirql check` has to be given for the bug.
    options: Vec<String>,
}

/// What it is written in.
#[derive(Clone, Copy, Debug)]
enum Language {
    /// The bug's compiler, and that of its twin.
    C(drivers::Compiler, drivers::Compiler),
    Rust,
}

/// The endings of the files that are exhibits.
const ENDINGS: [&str; 2] = ["c", "rs"];

/// All files of a folder that are exhibits.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(ENDINGS
        .map(|ending| drivers::files_with(folder, ending))
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .concat())
}

impl Exhibit {
    /// Reads a file's header.
    fn read(source: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&source)?;
        let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = stem(&source).context("it has a name")?;
        let area = source.parent().and_then(stem).context("it lies in a folder")?;
        let rules = words(value(&text, "Rule").context("its header has no line `Rule: …`")?);
        let needs = words(value(&text, "Needs").context("its header has no line `Needs: …`")?);
        for word in &needs {
            ensure!(NEEDS.contains(&word.as_str()), "`Needs: {word}` is none of {}", NEEDS.join(", "));
        }
        ensure!(text.contains("FIXED"), "it has no fixed twin: no line depends on FIXED");
        let bug = bug(&text).context("its header does not say `The bug: …`")?;
        let device = value(&text, "Device").context("its header has no line `Device: …`")?;
        let framework = value(&text, "Framework");
        ensure!(
            matches!(framework, None | Some("KMDF")),
            "`Framework: {}` is not KMDF",
            framework.unwrap_or("")
        );
        Ok(Self {
            device: (device != "none").then(|| device.into()),
            language: language(&source, value(&text, "Compiler"))?,
            is_client: framework.is_some(),
            options: value(&text, "Options")
                .map(|options| options.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            name,
            area,
            source,
            rules,
            needs,
            bug,
        })
    }

    /// What it is called in `docs/museum.md`.
    fn title(&self) -> String {
        format!("{}/{}", self.area, self.name)
    }

    /// The columns there that its header decides.
    fn head(&self) -> String {
        format!("{} | {}", self.bug, self.needs.join(", "))
    }

    /// The driver's file in `out`, and that of its twin.
    pub(crate) fn images(&self, out: &Path) -> [PathBuf; 2] {
        ["", "_fixed"].map(|twin| out.join(format!("{}{twin}.sys", self.name)))
    }
}

/// As the file's ending and the header's `Compiler` say it: of C gcc, or clang for `__try`; with `integritycheck` the image is one whose signature Windows checks.
/// With `align` the bug is in what the linker is given.
fn language(source: &Path, said: Option<&str>) -> Result<Language> {
    use drivers::Compiler::{Clang, Gcc};
    const USUAL: drivers::Compiler = Clang(&["-O2"]);
    const CHECKED: drivers::Compiler = Clang(&["-O2", "-Wl,/integritycheck"]);
    let is_rust = source.extension().is_some_and(|ending| ending == "rs");
    Ok(match said {
        None if is_rust => Language::Rust,
        None => Language::C(Gcc, Gcc),
        Some(_) if is_rust => bail!("there is one compiler of Rust: `Compiler` says nothing"),
        Some("clang") => Language::C(USUAL, USUAL),
        Some("clang integritycheck") => Language::C(CHECKED, CHECKED),
        Some("clang align") => Language::C(Clang(&["-O2", "-Wl,/align:512"]), USUAL),
        Some(other) => {
            bail!("`Compiler: {other}` is none of `clang`, `clang integritycheck` and `clang align`")
        }
    })
}

/// The lines of a file's header: its first comment, without what makes it one.
fn header(text: &str) -> impl Iterator<Item = &str> {
    let is_rust = text.starts_with("//!");
    let end = if is_rust { text.len() } else { text.find("*/").unwrap_or(text.len()) };
    let lines = text[..end].lines().take_while(move |line| !is_rust || line.starts_with("//!"));
    lines.map(|line| line.trim().trim_start_matches("//!").trim_start_matches('*').trim())
}

/// What stands behind `KEY: ` in the file's header.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    header(text).find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// The sentence behind `The bug: `, or `The bugs: `, in the file's header.
fn bug(text: &str) -> Option<String> {
    let words = header(text).collect::<Vec<_>>().join(" ");
    let sentence =
        words.split_once("The bug: ").or_else(|| words.split_once("The bugs: "))?.1.split_once(". ")?.0;
    Some(sentence.to_owned())
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// `target/museum`.
pub(crate) fn default_out(root: &Path) -> PathBuf {
    root.join("target/museum")
}

/// How much of its usual budget `dirql check` has, in hundredths.
pub(crate) struct Budgets {
    pub(crate) bugs: u32,
    pub(crate) twins: u32,
}

/// Builds the museum, and no more.
///
/// # Errors
/// As [`build`].
pub(crate) fn only_build(root: &Path) -> Result<()> {
    build(root, &default_out(root), &|_| true).map(drop)
}

/// Builds what of the museum a test names: of a thousand exhibits a fifth.
///
/// # Errors
/// As [`build`]; or a test cannot be read.
pub(crate) fn build_for_tests(root: &Path) -> Result<()> {
    let named = named_by_tests(root)?;
    build(root, &default_out(root), &|exhibit| named.contains(&exhibit.name)).map(drop)
}

/// All words of the crates' tests, among them the exhibits that these look at.
fn named_by_tests(root: &Path) -> Result<BTreeSet<String>> {
    let mut named = BTreeSet::new();
    for folder in fs::read_dir(root.join("crates"))? {
        let tests = folder?.path().join("tests");
        if tests.is_dir() {
            for file in drivers::files_with(&tests, "rs")? {
                let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
                let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
                named.extend(words.map(|word| word.strip_suffix("_fixed").unwrap_or(word).to_owned()));
            }
        }
    }
    Ok(named)
}

/// Builds the museum and has `dirql check` look at each bug and its twin, of all or of those that are named, but for what is `kept`.
///
/// # Errors
/// As [`build`]; or a bug is not named by one of its rules, or its twin is not clean.
pub(crate) fn museum(root: &Path, names: &[String], budgets: &Budgets, kept: &Kept) -> Result<()> {
    let out = default_out(root);
    let mut exhibits = exhibits(root)?;
    if let Some(unknown) = names.iter().find(|name| exhibits.iter().all(|one| one.name != **name)) {
        bail!("the museum has no {unknown}");
    }
    exhibits.retain(|exhibit| names.is_empty() || names.contains(&exhibit.name));
    let known = |exhibit: &Exhibit| kept.exhibit(&exhibit.title(), &exhibit.head(), &exhibit.rules);
    let is_looked_at =
        |one: &Exhibit| known(one).is_none() && exhibits.iter().any(|exhibit| exhibit.name == one.name);
    build(root, &out, &is_looked_at)?;
    let mut cargo = call::cargo(root);
    call::step("dirql is built", cargo.args(["build", "--quiet", "--release", "--package", "dirql-cli"]))?;
    let seen = side_by_side(&exhibits, |_, exhibit| {
        if let Some(known) = known(exhibit) {
            return Ok(Seen::kept(known));
        }
        let [bug, twin] = exhibit.images(&out);
        let of = |image: &Path| Check {
            image: image.to_owned(),
            source: Some(exhibit.source.clone()),
            answers: image.to_owned(),
            given: exhibit.options.clone(),
            ..Check::default()
        };
        let of_bug = Check { until: exhibit.rules.clone(), ..of(&bug) };
        let of_twin = Check { but: &["advice"], ..of(&twin) };
        let (bug, twin) = (of_bug.look_until(root, budgets.bugs)?, of_twin.look(root, budgets.twins)?);
        let seen = Seen { bug, twin, origin: if kept.is_empty() { Origin::All } else { Origin::Since } };
        println!("{}", seen.line(exhibit));
        Ok(seen)
    })?;
    let found = exhibits.iter().zip(&seen).filter(|(exhibit, seen)| seen.is_found(exhibit)).count();
    let mut accused = seen.iter().filter(|seen| !seen.twin.found.is_empty()).count();
    println!("{found} of {} bugs found, {accused} twins accused", exhibits.len());
    let shown = format!("{}. {}.", made_again(&seen), less_reached(&exhibits, &seen));
    println!("{shown}");
    if names.is_empty() && budgets.bugs == USUAL {
        let shown = if kept.is_empty() { shown } else { kept.shown.clone() };
        let text = table(&exhibits, &seen, (found, accused), budgets.twins, (&missed(root)?, &shown));
        let (by_rules, right_halves) = one_by_one(root, &out, &exhibits, &seen, kept)?;
        accused += right_halves;
        drivers::write_if_changed((text + &by_rules).as_bytes(), &root.join("docs/museum.md"))?;
    }
    ensure!(found == exhibits.len() && accused == 0, "not every bug was found, or not every twin is clean");
    Ok(())
}

/// Twins that do not come to all that their bugs come to: such a twin may be clean only because it does less.
fn less_reached(exhibits: &[Exhibit], seen: &[Seen]) -> String {
    let less = exhibits.iter().zip(seen).filter_map(|(exhibit, seen)| {
        let missed: Vec<&str> = seen.missed_by_twin().collect();
        (!missed.is_empty()).then(|| format!("{} ({})", exhibit.name, missed.join(", ")))
    });
    match less.collect::<Vec<_>>() {
        none if none.is_empty() => "Each twin comes to all functions that its bug comes to".to_owned(),
        less => {
            format!("Twins that do not come to all functions that their bugs come to: {}", less.join(", "))
        }
    }
}

/// How many findings there were, and how often the runs that make them again depart from the usual.
fn made_again(seen: &[Seen]) -> String {
    let mut departures: Vec<u64> = seen.iter().flat_map(|seen| &seen.bug.departures).copied().collect();
    departures.sort_unstable();
    let not_made_again: usize = seen.iter().map(|seen| seen.bug.not_made_again).sum();
    let at = |percent: usize| departures.get(departures.len() * percent / 100).copied().unwrap_or(0);
    format!(
        "{} findings, each made again by its line from a machine's start, and {not_made_again} that were not; these runs depart from the usual {} times (median), \
         and nine in ten of them at most {} times",
        departures.len(),
        at(50),
        at(90)
    )
}

/// A bug is looked for with these parts of the budget, one after the other, until it is found.
const PARTS: [u32; 3] = [100, 5, 1];

/// The budget that `docs/museum.md` is written with.
const USUAL: u32 = 100;
/// That of the right halves of pairs, in which there is little to be tried.
const OF_RIGHT_HALVES: u32 = 2;

/// The folder of bugs that are known not to be found: no part of what is built or looked at.
const MISSED: &str = "missed";

/// The names of those bugs.
fn missed(root: &Path) -> Result<Vec<String>> {
    let sources = sources(&root.join("museum").join(MISSED))?;
    let mut names: Vec<String> =
        sources.iter().filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort_unstable();
    Ok(names)
}

/// The text of `docs/museum.md`.
fn table(
    exhibits: &[Exhibit],
    seen: &[Seen],
    (found, accused): (usize, usize),
    budget_of_twins: u32,
    (missed, shown): (&[String], &str),
) -> String {
    let since = match seen.iter().filter(|seen| seen.is_since()).count() {
        0 => String::new(),
        some => format!(
            " {some} of the bugs, those with a star, were looked at by themselves since all were, each by the dirql of its day."
        ),
    };
    let so_much = match budget_of_twins {
        USUAL => String::new(),
        percent => format!(" (by {percent} % of that budget)"),
    };
    let mut text = format!(
        "# The museum of bugs\n\n\
         Small drivers with one bug each, as they cost teams weeks (`museum/`), and what `dirql check` says of them in its usual budget, given nothing but the \
         driver and its INF, a client of KMDF a framework beside it, and the options that a few headers name, until the bug is found. Each has a twin that is right and differs by the bug only. Written by `cargo xtask museum`: **{found} of {} bugs are found \
         under a right name, {accused} twins are accused{so_much}.** Not among them are {} that are known not to be found (`museum/missed`): {}.\n\n\
         {shown}{END_OF_SHOWN}: exercises carried out, by 1 %, 20 % and all of the budget in turn.{since}\n\n\
         | bug | what is wrong | shows by | found as | by this exercise | attempts |\n| --- | --- | --- | --- | --- | --- |\n",
        exhibits.len(),
        missed.len(),
        missed.join(", "),
    );
    for (exhibit, seen) in exhibits.iter().zip(seen) {
        let found = seen.found(exhibit);
        let by = found.map_or(NOT_FOUND, |found| found.exercise.as_str());
        let rule = found.map(|found| format!("`{}`", found.rule)).unwrap_or_default();
        let mark = if seen.is_since() { MARK } else { "" };
        let (title, head, attempts) = (exhibit.title(), exhibit.head(), seen.bug.attempts);
        text += &format!("| `{title}`{mark} | {head} | {rule} | {by} | {attempts} |\n");
    }
    text
}

/// The second part of `docs/museum.md`: the rules, how many bugs were found as each, and what is said of a driver that breaks it alone; and how many right halves
/// are accused of anything.
fn one_by_one(
    root: &Path,
    out: &Path,
    exhibits: &[Exhibit],
    seen: &[Seen],
    kept: &Kept,
) -> Result<(String, usize)> {
    drivers::build(root, &drivers::default_out(root))?;
    let all = museum_pairs::rules(root)?;
    let pairs = museum_pairs::pairs(root, &all)?;
    let of_half = |pair: &Pair, wrong| {
        let (image, answers) = (pair.image.clone(), pair.answers(out, wrong));
        anyhow::Ok(Check { image, answers, given: pair.options(out, wrong)?, ..Check::default() })
    };
    let looks = side_by_side(&pairs, |_, pair| {
        if let Some(known) = kept.rule(&pair.rule) {
            return Ok(Look::kept(&pair.rule, known));
        }
        let check = Check { until: vec![pair.rule.clone()], ..of_half(pair, true)? };
        let look = check.look_until(root, USUAL)?;
        let found = if look.found_as(&check.until).is_some() { "found" } else { "missed" };
        println!("{found:6} {} by a driver that breaks it alone", pair.rule);
        Ok(look)
    })?;
    let right_halves = side_by_side(&pairs, |_, pair| {
        if kept.rule(&pair.rule).is_some() {
            return Ok(None);
        }
        let mut look = Check { but: &["advice"], ..of_half(pair, false)? }.look(root, OF_RIGHT_HALVES)?;
        if pair.rule.starts_with("add-device-") {
            // One of them is about a device that is rightly not added.
            look.found.retain(|found| found.rule != NEVER_STARTED);
        }
        let is_clean = look.found.is_empty();
        println!(
            "the right half of {}: {}",
            pair.rule,
            if is_clean { "clean".to_owned() } else { rules(&look.found) }
        );
        Ok((!is_clean).then(|| format!("`{}` ({})", pair.rule, rules(&look.found))))
    })?;
    let accused: Vec<String> = right_halves.into_iter().flatten().collect();
    let bugs_as = |rule: &Rule| {
        let all = exhibits.iter().zip(seen).filter_map(|(exhibit, seen)| seen.found(exhibit));
        all.filter(|found| found.rule == rule.name).count()
    };
    let mut text = String::new();
    let mut neither = Vec::new();
    for rule in &all {
        let name = &rule.name;
        let pair = pairs.iter().zip(&looks).find(|(pair, _)| pair.rule == *name);
        let alone = pair.and_then(|(_, look)| Some((look, look.found_as(std::slice::from_ref(name))?)));
        let (bugs, by) = (bugs_as(rule), alone.map(|(_, found)| found.exercise.as_str()));
        if bugs == 0 && by.is_none() {
            neither.push(format!("`{name}`"));
        }
        let by = by.unwrap_or(if pair.is_some() { NOT_FOUND } else { "" });
        let attempts = alone.map_or_else(String::new, |(look, _)| look.attempts.to_string());
        text += &format!("| `{name}` | {} | {bugs} | {by} | {attempts} |\n", rule.tiers);
    }
    let names = |all: &[String]| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let text = format!(
        "\n## The rules one by one\n\n\
         Of {} rules of a tier above advice {} are found, each with a bug above or with a driver that breaks it alone (`drivers/c/pairs`); not so: {}. The same driver \
         can do each of {} right, and is looked at then, too, by {OF_RIGHT_HALVES} % of the usual budget; accused of anything: {}.\n\n\
         | rule | tier | bugs above found as it | by a driver that breaks it alone: by this exercise | attempts |\n| --- | --- | --- | --- | --- |\n{text}",
        all.len(),
        all.len() - neither.len(),
        names(&neither),
        pairs.len(),
        names(&accused),
    );
    Ok((text, accused.len()))
}

/// What is said to be wrong with a driver.
struct Found {
    rule: String,
    /// The title of the exercise that has shown it.
    exercise: String,
}

/// What `dirql check` says of a driver.
#[derive(Default)]
struct Look {
    /// Rules that are broken, each once.
    found: Vec<Found>,
    /// Attempts until then.
    attempts: u64,
    /// Of each finding, how often the run that makes it again departs from the usual.
    departures: Vec<u64>,
    /// Findings that their lines did not make again.
    not_made_again: usize,
    /// Functions that were never come to.
    missed: Vec<String>,
}

impl Look {
    /// What is known of a look.
    fn kept(rule: &str, known: &Known) -> Self {
        let found =
            known.exercise.iter().map(|exercise| Found { rule: rule.to_owned(), exercise: exercise.clone() });
        Self { found: found.collect(), attempts: known.attempts, ..Self::default() }
    }

    /// What was found under one of these names.
    fn found_as(&self, rules: &[String]) -> Option<&Found> {
        self.found.iter().find(|found| rules.contains(&found.rule))
    }
}

/// When an exhibit was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// When all were,
    All,
    /// or by itself since.
    Since,
}

/// What it says of a bug and of its twin.
struct Seen {
    bug: Look,
    twin: Look,
    origin: Origin,
}

/// Rules in a row.
fn rules(found: &[Found]) -> String {
    found.iter().map(|found| found.rule.as_str()).collect::<Vec<_>>().join(", ")
}

impl Seen {
    /// As it was looked at before; its twin was clean.
    fn kept(known: &Known) -> Self {
        let origin = if known.is_marked { Origin::Since } else { Origin::All };
        Self { bug: Look::kept(&known.rule, known), twin: Look::default(), origin }
    }

    fn is_since(&self) -> bool {
        self.origin == Origin::Since
    }

    /// The bug under one of its names.
    fn found(&self, exhibit: &Exhibit) -> Option<&Found> {
        self.bug.found_as(&exhibit.rules)
    }

    fn is_found(&self, exhibit: &Exhibit) -> bool {
        self.found(exhibit).is_some()
    }

    /// Functions that the twin has not come to, and its bug has; or that only the twin has.
    fn missed_by_twin(&self) -> impl Iterator<Item = &str> {
        self.twin.missed.iter().filter(|function| !self.bug.missed.contains(function)).map(String::as_str)
    }

    /// A line of the table.
    fn line(&self, exhibit: &Exhibit) -> String {
        let found = if self.is_found(exhibit) { "found" } else { "missed" };
        let twin = if self.twin.found.is_empty() {
            String::new()
        } else {
            format!("; its twin: {}", rules(&self.twin.found))
        };
        let (area, name, rules) = (&exhibit.area, &exhibit.name, rules(&self.bug.found));
        format!("{found:6} {area}/{name} ({}): {rules}{twin}", exhibit.needs.join(", "))
    }
}

/// A look of `dirql check` at a driver.
#[derive(Default)]
struct Check {
    image: PathBuf,
    /// What the driver is made of, if that is a file of its own.
    source: Option<PathBuf>,
    /// What its answers are kept as, each with an ending of its own.
    answers: PathBuf,
    /// Options besides the usual.
    given: Vec<String>,
    /// Findings of these tiers do not count.
    but: &'static [&'static str],
    /// It ends once one of these rules is found.
    until: Vec<String>,
}

impl Check {
    /// The answer in that file, if neither dirql nor the driver is newer.
    fn kept(&self, dirql: &Path, file: &Path) -> Option<serde_json::Value> {
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
        let kept = changed(file).ok()?;
        let is_newer = |other: &Path| changed(other).is_ok_and(|at| at > kept);
        let inf = self.image.with_extension("inf");
        if [dirql, &self.image, &inf].into_iter().chain(self.source.as_deref()).any(is_newer) {
            return None;
        }
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Looks with ever more of the budget, until one of the rules is found. What a part of the budget finds, all of it finds, too.
    fn look_until(&self, root: &Path, budget: u32) -> Result<Look> {
        let mut attempts = 0;
        let mut last = Look::default();
        for part in PARTS {
            last = self.look(root, budget.div_ceil(part))?;
            attempts += last.attempts;
            if last.found_as(&self.until).is_some() {
                break;
            }
        }
        Ok(Look { attempts, ..last })
    }

    /// The rules that the driver is said to break; or that there is no answer. An answer is kept, so that what was interrupted goes on.
    fn look(&self, root: &Path, budget: u32) -> Result<Look> {
        let binary = root.join("target/release/dirql");
        let file = self.answers.with_extension(format!("{budget}.json"));
        if let Some(answer) = self.kept(&binary, &file) {
            return of_answer(&answer, self.but);
        }
        let mut dirql = Command::new(&binary);
        dirql.arg("check").arg(&self.image).args(&self.given).args([
            "--json",
            "--workers",
            "1",
            "--budget",
            &budget.to_string(),
        ]);
        if !self.until.is_empty() {
            dirql.args(["--until", &self.until.join(",")]);
        }
        let output = dirql.stderr(Stdio::null()).output().context("dirql cannot be started")?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`{}` did not write JSON", call::shown(&dirql)))?;
        let mut look = of_answer(&answer, self.but)?;
        if look.found.is_empty() && !output.status.success() {
            look.found
                .push(Found { rule: format!("no answer ({})", output.status), exercise: String::new() });
            return Ok(look);
        }
        fs::write(&file, &output.stdout).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(look)
    }
}

/// What an answer says, but for findings of these tiers.
fn of_answer(answer: &serde_json::Value, but: &[&str]) -> Result<Look> {
    let mut look = Look { attempts: answer["attempts"].as_u64().unwrap_or(0), ..Look::default() };
    let findings = answer["findings"].as_array().context("dirql check lists its findings")?;
    look.departures = findings.iter().filter_map(|finding| finding["departures"].as_u64()).collect();
    let why = answer["no_answers"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    look.not_made_again = why.clone().filter(|why| why.contains(NOT_MADE_AGAIN)).count();
    let missed = answer["coverage"]["functions_missed"].as_array().into_iter().flatten();
    look.missed = missed.filter_map(serde_json::Value::as_str).map(str::to_owned).collect();
    // Of one that was never at work nothing is known: a twin is not clean for that.
    let unstarted = why.filter(|why| why.contains(NEVER_STARTED));
    look.found.extend(unstarted.take(1).map(|_| Found {
        rule: NEVER_STARTED.to_owned(),
        exercise: "load, start, stop, remove and unload".to_owned(),
    }));
    for finding in findings.iter().flat_map(names_of) {
        let rule = finding["rule"].as_str().context("a finding has a rule")?;
        let is_left_out = finding["tier"].as_str().is_some_and(|tier| but.contains(&tier));
        if !is_left_out && look.found.iter().all(|known| known.rule != rule) {
            let exercise = finding["exercise"].as_str().unwrap_or_default().to_owned();
            look.found.push(Found { rule: rule.to_owned(), exercise });
        }
    }
    Ok(look)
}

/// What `dirql check` says of a driver that has tried nothing but its start.
const NEVER_STARTED: &str = "not ready after its start";
/// What `dirql check` says of a finding that its own line has not made again.
const NOT_MADE_AGAIN: &str = "not by one that is started anew";

/// A finding, and what its place shows as besides, which names the bug as well.
fn names_of(finding: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    [finding].into_iter().chain(finding["also"].as_array().into_iter().flatten())
}

/// All of the museum, by areas and names.
///
/// # Errors
/// A file cannot be read, or its header lacks a line.
pub(crate) fn exhibits(root: &Path) -> Result<Vec<Exhibit>> {
    let museum = root.join("museum");
    let mut found = Vec::new();
    for area in fs::read_dir(&museum).with_context(|| format!("cannot read {}", museum.display()))? {
        let area = area?.path();
        if !area.is_dir() || area.ends_with("include") || area.ends_with(MISSED) {
            continue;
        }
        for source in sources(&area)? {
            let shown = source.display().to_string();
            found.push(Exhibit::read(source).with_context(|| format!("{shown} is no exhibit"))?);
        }
    }
    found.sort_by(|a, b| (&a.area, &a.name).cmp(&(&b.area, &b.name)));
    let mut names: Vec<&str> = found.iter().map(|exhibit| exhibit.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two files of the museum are called {}", twice[0]);
    }
    Ok(found)
}

/// Compiles what is wanted and older than its sources, several at a time. What is wanted.
///
/// # Errors
/// A tool is missing and cannot be installed, a driver does not compile, or a file cannot be written.
fn build(root: &Path, out: &Path, is_wanted: &dyn Fn(&Exhibit) -> bool) -> Result<Vec<Exhibit>> {
    install::all(root)?;
    fs::create_dir_all(out).with_context(|| format!("cannot create the folder {}", out.display()))?;
    let out = &out.canonicalize()?;
    let _alone = drivers::build_alone(out)?;
    let mut exhibits = exhibits(root)?;
    exhibits.retain(|exhibit| is_wanted(exhibit));
    // Clients of KMDF one after the other: they share an import library, which the first of them makes.
    let (clients, others): (Vec<&Exhibit>, Vec<&Exhibit>) = exhibits.iter().partition(|one| one.is_client);
    if !clients.is_empty() {
        build_framework(root, out).context("the framework of the museum does not build")?;
    }
    clients.into_iter().try_for_each(|exhibit| build_both(root, out, exhibit))?;
    side_by_side(&others, |_, exhibit| build_both(root, out, exhibit))?;
    Ok(exhibits)
}

/// Builds a bug and its twin.
fn build_both(root: &Path, out: &Path, exhibit: &Exhibit) -> Result<()> {
    for (twin, defines) in [("", &[][..]), ("_fixed", &["FIXED"])] {
        let name = format!("{}{twin}", exhibit.name);
        build_one(root, out, exhibit, &name, defines)
            .with_context(|| format!("{name} of the museum does not build"))?;
    }
    Ok(())
}

/// The stand-in for the framework, under the name by which `dirql check` finds it beside a client.
fn build_framework(root: &Path, out: &Path) -> Result<()> {
    let folder = &root.join("drivers/c");
    drivers::build_image(&drivers::Image {
        root,
        folder,
        out,
        name: "Wdf01000",
        source: &folder.join("framework.c"),
        defines: &["KMDF_MINOR=15"],
        missing: Some("wdfldr/wdfldr.def"),
        compiler: drivers::Compiler::Gcc,
    })
}

fn build_one(root: &Path, out: &Path, exhibit: &Exhibit, name: &str, defines: &[&str]) -> Result<()> {
    let source = &exhibit.source;
    match exhibit.language {
        Language::Rust => rust_exhibit::build(root, out, source, name, defines)?,
        Language::C(bug, twin) => {
            let compiler = if defines.contains(&"FIXED") { twin } else { bug };
            let folder = &root.join("museum");
            drivers::build_image(&drivers::Image {
                root,
                folder,
                out,
                name,
                source,
                defines,
                missing: exhibit.is_client.then_some("../drivers/c/wdfldr/wdfldr.def"),
                compiler,
            })?;
        }
    }
    if let Some(id) = &exhibit.device {
        let own = exhibit.source.with_extension("inf.in");
        let usual = if exhibit.is_client { "client.inf.in" } else { "driver.inf.in" };
        let form = if own.is_file() { own } else { root.join("museum/include").join(usual) };
        let text = fs::read_to_string(&form).with_context(|| format!("cannot read {}", form.display()))?;
        let text = text.replace("@NAME@", name).replace("@ID@", id);
        drivers::write_if_changed(text.as_bytes(), &out.join(name).with_extension("inf"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_lines_for_the_machine() {
        let text =
            "/*\n * A bug.\n *\n * Device: none\n * Rule: pool-leak, double-free\n */\n * Needs: ioctl\n";
        assert_eq!(value(text, "Device"), Some("none"));
        assert_eq!(words(value(text, "Rule").unwrap()), ["pool-leak", "double-free"]);
        assert_eq!(value(text, "Needs"), None);
    }

    #[test]
    fn a_header_in_rust_has_the_same_lines() {
        let text = "//! A bug.\n//!\n//! The bug: a box is freed\n//! too early. So it is.\n//!\n//! Rule: pool-leak\n\n//! Needs: ioctl\n";
        assert_eq!(value(text, "Rule"), Some("pool-leak"));
        assert_eq!(value(text, "Needs"), None);
        assert_eq!(bug(text).as_deref(), Some("a box is freed too early"));
    }

    #[test]
    fn exhibits_in_rust_are_read_and_both_halves_are_built() {
        let root = crate::root();
        let all = exhibits(&root).unwrap();
        let in_rust: Vec<&Exhibit> =
            all.iter().filter(|one| matches!(one.language, Language::Rust)).collect();
        let files = drivers::files_with(&root.join("museum/rust"), "rs").unwrap();
        assert_eq!(in_rust.len(), files.len());
        assert!(in_rust.len() >= 6);
        let without_device = in_rust.iter().find(|one| one.device.is_none()).unwrap();
        let of_card = in_rust.iter().find(|one| one.device.is_some()).unwrap();
        let out = tempfile::tempdir().unwrap();
        for one in [without_device, of_card] {
            for (twin, defines) in [("", &[][..]), ("_fixed", &["FIXED"])] {
                build_one(&root, out.path(), one, &format!("{}{twin}", one.name), defines).unwrap();
            }
            let images = one.images(out.path());
            assert!(images.iter().all(|image| image.with_extension("inf").is_file() == one.device.is_some()));
            let [bug, twin] = images.map(|image| fs::read(image).unwrap());
            assert!(bug.starts_with(b"MZ") && twin.starts_with(b"MZ"));
            assert_ne!(bug, twin, "the twin of {} is made by the same command", one.name);
        }
    }

    #[test]
    fn a_finding_that_was_not_made_again_is_counted_by_the_checks_words() {
        let root = crate::root();
        let confirm = fs::read_to_string(root.join("crates/cli/src/check/confirm.rs")).unwrap();
        assert!(confirm.contains(NOT_MADE_AGAIN), "`dirql check` says `{NOT_MADE_AGAIN}`");
        let answer = serde_json::json!({
            "findings": [],
            "no_answers": [format!("pool-leak: it was shown {NOT_MADE_AGAIN}, a fault of dirql's"), "it was interrupted"],
        });
        let look = of_answer(&answer, &[]).unwrap();
        assert_eq!((look.not_made_again, look.found.len()), (1, 0));
    }

    #[test]
    fn a_twin_that_does_not_start_is_not_clean() {
        let report = fs::read_to_string(crate::root().join("crates/cli/src/check/report.rs")).unwrap();
        assert!(report.contains(NEVER_STARTED), "`dirql check` says `{NEVER_STARTED}`");
        let answer = serde_json::json!({
            "findings": [],
            "no_answers": [format!("the driver is {NEVER_STARTED}, so only that was tried")],
        });
        assert_eq!(rules(&of_answer(&answer, &[]).unwrap().found), NEVER_STARTED);
    }

    #[test]
    fn a_twin_that_comes_to_less_than_its_bug_is_named() {
        let missed = |functions: &[&str]| {
            let answer = serde_json::json!({"findings": [], "coverage": {"functions_missed": functions}});
            of_answer(&answer, &[]).unwrap()
        };
        let seen = [
            Seen { bug: missed(&["Late", "Never"]), twin: missed(&["Never"]), origin: Origin::All },
            Seen { bug: missed(&[]), twin: missed(&["Isr", "Dpc"]), origin: Origin::All },
        ];
        let all = exhibits(&crate::root()).unwrap();
        let name = &all[1].name;
        assert!(less_reached(&all[..2], &seen).ends_with(&format!(": {name} (Isr, Dpc)")));
        assert!(less_reached(&all[..1], &seen[..1]).starts_with("Each twin"));
    }

    #[test]
    fn what_tests_name_is_built_for_them_and_little_else() {
        let root = crate::root();
        let named = named_by_tests(&root).unwrap();
        for name in ["timer_left_at_unload", "drizzle", "barter", "left_in_table", "setting_into_user"] {
            assert!(named.contains(name), "{name}");
        }
        let all = exhibits(&root).unwrap();
        let wanted = all.iter().filter(|exhibit| named.contains(&exhibit.name)).count();
        assert!(wanted * 3 < all.len(), "{wanted} of {}", all.len());
    }

    #[test]
    fn each_file_is_an_exhibit_whose_rules_are_there() {
        let root = crate::root();
        let table = fs::read_to_string(root.join("docs/rules.md")).unwrap();
        for exhibit in exhibits(&root).unwrap() {
            for rule in &exhibit.rules {
                assert!(table.contains(&format!("\n| `{rule}` |")), "{}: no rule {rule}", exhibit.name);
            }
        }
    }
}
