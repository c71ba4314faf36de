//! A script held against the machine to be: devices and signals that it names exist, files that it names are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use devices::catalog;
use devices::pci::PciBus;
use kernel::hal::hardware::{Hardware, Memory, Moment};

use crate::error::InputError;
use crate::files;
use crate::machine::Plan;
use crate::script::{self, suggest::nearest};
use crate::script::{
    Command, Counters, Data, Number, Operation, PowerState, Registry, RegistryAction, Script, Statement, Wmi,
    WmiQuestion,
};

/// A script as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptText {
    /// Its name as the user knows it: a path, or `--do`.
    pub source: String,
    /// What it says.
    pub text: String,
    /// From where the paths of files that it names count.
    pub folder: PathBuf,
}

impl ScriptText {
    /// A script on the command line.
    #[must_use]
    pub fn typed(text: &str) -> Self {
        Self { source: "--do".to_owned(), text: text.to_owned(), folder: PathBuf::new() }
    }

    /// A script in a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no text.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let text = files::read_text(path, "the script")?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { source: path.display().to_string(), text, folder })
    }

    /// Parses it and reads the files that it names.
    ///
    /// # Errors
    /// A mistake in it, or a file that cannot be read, with the place.
    pub fn play(&self) -> Result<Play, InputError> {
        Play::new(script::parse(&self.source, &self.text)?, &self.folder)
    }
}

/// A script that can be carried out: checked, its files read. A clone is the same script.
#[derive(Clone, Debug)]
pub struct Play {
    pub(crate) script: Rc<Script>,
    /// By name as the script has it.
    pub(super) files: Rc<BTreeMap<String, Vec<u8>>>,
}

impl Play {
    /// Reads the files that a script names; their paths count from `folder`.
    ///
    /// # Errors
    /// A file that cannot be read, with the place in the script.
    pub fn new(script: Script, folder: &Path) -> Result<Self, InputError> {
        let mut files = BTreeMap::new();
        for statement in &script.statements {
            for name in data(&statement.command).flat_map(Data::files) {
                let bytes = files::read(&folder.join(name), "the file of `file:`")
                    .map_err(|error| at(&script, statement, &error.to_string()))?;
                files.insert(name.to_owned(), bytes);
            }
        }
        Ok(Self { script: Rc::new(script), files: Rc::new(files) })
    }

    /// The files that it names, as it names them, with their bytes.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Whether the machine to be has what the script names.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), InputError> {
        for statement in &self.script.statements {
            check(&statement.command, plan).map_err(|message| at(&self.script, statement, &message))?;
        }
        Ok(())
    }

    /// The bytes of data, if they are known before the script runs.
    pub(crate) fn said(&self, data: &Data) -> Option<Vec<u8>> {
        let read = |name: &str| Ok::<_, ()>(self.files.get(name).cloned().unwrap_or_default());
        data.resolve(read, |_, _| Err(())).ok()?.into_iter().collect()
    }

    /// The bytes of data in the script, which names stand in for `number` of; `None` is a byte that may be any.
    pub(super) fn bytes(&self, data: &Data, number: impl Fn(Number, &str) -> u64) -> Vec<Option<u8>> {
        let read = |name: &str| Ok::<_, ()>(self.files.get(name).cloned().unwrap_or_default());
        data.resolve(read, |what, name| Ok(number(what, name))).unwrap_or_default()
    }
}

fn at(script: &Script, statement: &Statement, message: &str) -> InputError {
    InputError::new(format!("{}:{}: {message}", script.source, statement.at))
}

/// All data that a command names.
pub(super) fn data(command: &Command) -> impl Iterator<Item = &Data> {
    let (request, expect) = match command {
        Command::Request { request, expect }
        | Command::Pointer { request, expect, .. }
        | Command::Number { request, expect, .. } => (Some(request), Some(expect)),
        Command::Load { expect, .. } | Command::Peek { expect, .. } | Command::Pool { expect, .. } => {
            (None, Some(expect))
        }
        Command::Async { request, .. } => (Some(request), None),
        Command::JoinRequest { expect, .. }
        | Command::DequeueSeveral { expect, .. }
        | Command::Counters(Counters { expect, .. })
        | Command::Registry(Registry { expect, .. })
        | Command::Wmi(Wmi { expect, .. }) => (None, Some(expect)),
        _ => (None, None),
    };
    let sent = request.and_then(|request| match &request.operation {
        Operation::Write { data, .. } => Some(data),
        Operation::Ioctl { input, .. } => input.as_ref(),
        Operation::Set { data, .. } | Operation::Gather { data, .. } => Some(data),
        Operation::Read { .. } | Operation::Scatter { .. } | Operation::Flush | Operation::Query { .. } => {
            None
        }
    });
    let expected = expect.and_then(|expect| expect.data.as_ref()).map(|expected| &expected.data);
    let answers: &[Data] = match command {
        Command::MustAnswer { others, .. } => others,
        _ => &[],
    };
    let stored = match command {
        Command::MustAnswer { answer, .. } => Some(answer),
        Command::Store { data, .. } | Command::Memory { data, .. } => Some(data),
        Command::Registry(Registry { action: RegistryAction::Set { data, .. }, .. }) => Some(data),
        Command::Wmi(wmi) => match &wmi.question {
            WmiQuestion::Set { data, .. } => Some(data),
            WmiQuestion::Execute { input, .. } => input.as_ref(),
            _ => None,
        },
        _ => None,
    };
    [sent, expected, stored].into_iter().flatten().chain(answers)
}

fn check(command: &Command, plan: &Plan) -> Result<(), String> {
    match command {
        Command::Poke { device, signal, value } => {
            exists(plan, device)?;
            tried(plan, |bus, at| bus.poke(at, device, signal, &value.to_string()))
                .map_err(|message| message + &meant(plan, device, signal))
        }
        Command::Peek { device, register, .. } => {
            exists(plan, device)?;
            tried(plan, |bus, at| bus.peek(at, device, register).map(|_| ()))
        }
        Command::Pnp { device: Some(device), .. } | Command::Power { device: Some(device), .. } => {
            exists(plan, device)
        }
        Command::Pnp { device: None, .. }
        | Command::Power { state: PowerState::Device(_) | PowerState::Directed(_), device: None, .. }
            if plan.cards.is_empty() =>
        {
            Err("there is no device in the machine; give one with --device".to_owned())
        }
        _ => Ok(()),
    }
}

/// What is asked of a card, asked of one like it.
fn tried(
    plan: &Plan,
    ask: impl FnOnce(&mut PciBus, &mut Moment<'_>) -> Result<(), String>,
) -> Result<(), String> {
    ask(&mut plan.bus.borrow_mut(), &mut Moment::new(0, &mut Nowhere))
}

/// No memory: nothing answers a bus master.
struct Nowhere;

impl Memory for Nowhere {
    fn read(&mut self, _master: &str, _address: u64, _into: &mut [u8]) -> bool {
        false
    }

    fn write(&mut self, _master: &str, _address: u64, _from: &[u8]) -> bool {
        false
    }
}

/// The signal of its model's that a mistyped one may stand for.
fn meant(plan: &Plan, device: &str, signal: &str) -> String {
    let kind = plan.cards.iter().find(|card| card.name == device).map(|card| card.kind.as_str());
    let signals = catalog().iter().filter(|entry| Some(entry.name) == kind).flat_map(|entry| entry.signals);
    let near = nearest(signal, signals.map(|signal| signal.name)).filter(|near| *near != signal);
    near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}

fn exists(plan: &Plan, device: &str) -> Result<(), String> {
    let names: Vec<&str> = plan.cards.iter().map(|card| card.name.as_str()).collect();
    // What a driver reports is not known before it does.
    let may_come = plan.may_grow && device.contains('#');
    if may_come || names.contains(&device) { Ok(()) } else { Err(unknown("device", device, &names)) }
}

fn unknown(what: &str, wrong: &str, known: &[&str]) -> String {
    let hint = nearest(wrong, known.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("no {what} `{wrong}` in the machine{}; there are: {list}", hint.unwrap_or_default())
}
