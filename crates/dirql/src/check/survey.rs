//! What a driver offers, found out by asking it: names, requests, and which of the device control codes in its code it knows.
//!
//! The machine is booted for that as often as a question ends it: a driver that breaks a rule at a request knows the request. A code counts as known if
//! the driver answers it otherwise than codes that no driver has, or if its code compares with it.

use explore::Failing;
use image::Image;
use kernel::io::offered::Offered;
use serde::{Deserialize, Serialize};

use super::codes::Compared;
use crate::error::Error;
use crate::machine::{Boots, Handle, Machine, Request};

/// What can be done with a driver.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Survey {
    /// It has been loaded and started without breaking a rule.
    pub ready: bool,
    /// It has an `AddDevice` routine.
    pub plug_and_play: bool,
    /// What can be opened.
    pub names: Vec<String>,
    /// The devices in the machine, by name: `pci9052#0`.
    pub devices: Vec<String>,
    /// It knows power states of its device: it tells the system of them, or asks for them.
    pub knows_power: bool,
    /// It powers its device down while the system works, when that is idle.
    pub idles: bool,
    /// What the outside world can do to cards of which nothing is known, as `poke` has it: `pci#0 pulse`, `pci#0 bar2`.
    pub signals: Vec<String>,
    /// Why the driver is not ready after its start, if it is not.
    pub failure: Option<String>,
    /// Requests that the driver does not refuse as unknown, the first name's.
    pub operations: Vec<Operation>,
    /// Numbers that the driver's code compares with.
    pub values: Vec<u32>,
    /// What dirql lacks that loading and starting needs.
    pub lacking: Option<String>,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Operation {
    /// As a script has it behind the handle's name, `read`'s and `write`'s lengths being 64: `ioctl h 0x222004 out 64`.
    pub command: String,
    /// The device control code, of `ioctl`.
    pub code: Option<u32>,
    /// It succeeded, or waits.
    pub succeeds: bool,
    /// It waits: it is over when it is cancelled, or something else happens.
    pub waits: bool,
}

/// Codes that no driver has.
const NOBODYS: [u32; 2] = [0x7A5C_2F44, 0x0022_3FFC];
/// The sizes of input and output buffers that a code is asked with, until it succeeds.
const SIZES: [(u32, u32); 8] = [(0, 0), (64, 64), (0, 64), (64, 0), (4, 4), (8, 8), (16, 16), (512, 4096)];
/// How long an answer may take, in the machine's time, before the request is cancelled.
const PATIENCE: u64 = 30_000_000;
/// `STATUS_INVALID_DEVICE_REQUEST`.
const INVALID_REQUEST: u32 = 0xC000_0010;

/// Imports of drivers that know their device's power states, and of those that power it down while it is idle.
const POWER: [&str; 2] = ["PoSetPowerState", "PoRequestPowerIrp"];
const IDLE: [&str; 4] =
    ["PoRegisterDeviceForIdleDetection", "PoFxRegisterDevice", "PoSetDeviceBusyEx", "PoSetDeviceBusy"];

impl Survey {
    /// With what a driver's imports say of it.
    #[must_use]
    pub fn with_imports(self, image: &Image) -> Self {
        let imports = |names: &[&str]| {
            image.imports().iter().any(|import| names.contains(&import.selector.to_string().as_str()))
        };
        let idles = imports(&IDLE);
        Self { idles, knows_power: idles || imports(&POWER), ..self }
    }
}

/// What comes of a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Status(u32),
    /// It was cancelled.
    Waits,
    /// The machine has stopped, or it could not be cancelled.
    Ends,
}

/// Asks the driver of a machine that is booted for it. `compared` is what its code compares with.
///
/// # Errors
/// As [`Boots::boot`].
pub fn survey(boots: &mut Boots, compared: &Compared) -> Result<Survey, Error> {
    let looked = boots.boot(usual(), |machine| {
        let offered =
            if machine.is_ready() { machine.offered().unwrap_or_default() } else { Offered::default() };
        (machine.is_ready(), offered, machine.device_names())
    })?;
    let ((ready, offered, devices), report) = looked;
    let mut found = Survey {
        ready,
        plug_and_play: offered.plug_and_play,
        names: offered.links.into_iter().chain(offered.devices).collect(),
        devices,
        knows_power: false,
        idles: false,
        signals: Vec::new(),
        failure: report.failure.as_ref().map(|failure| format!("{}: {}", failure.command, failure.message)),
        operations: Vec::new(),
        values: compared.values.clone(),
        lacking: report.lacking().map(str::to_owned),
    };
    let Some(name) = found.names.first().filter(|_| ready).cloned() else { return Ok(found) };
    let handles = |major: usize| offered.majors.get(major).copied().unwrap_or(false);
    let mut asking = Asking { boots, name };
    if handles(3) {
        found.operations.extend(asking.plain(Question::Read)?);
    }
    if handles(4) {
        found.operations.extend(asking.plain(Question::Write)?);
    }
    if handles(14) {
        let refused = asking.refusals()?;
        for code in &compared.codes {
            found.operations.extend(asking.code(*code, &refused)?);
        }
    }
    Ok(found)
}

fn usual() -> Box<dyn engine::Chooser> {
    Box::new(Failing::new(0, 1))
}

struct Asking<'b> {
    boots: &'b mut Boots,
    name: String,
}

/// A request of the survey's.
#[derive(Clone, Copy)]
enum Question {
    Read,
    Write,
    Control { code: u32, input: u32, output: u32 },
}

/// How much the survey reads and writes.
const LENGTH: u32 = 64;

impl Question {
    fn begin<'h>(self, handle: &'h Handle<'_>) -> Result<Request<'h>, Error> {
        match self {
            Self::Read => handle.begin_read(LENGTH, None),
            Self::Write => handle.begin_write(&[0; LENGTH as usize], None),
            Self::Control { code, input, output } => {
                handle.begin_device_control(code, &vec![0; input as usize], output)
            }
        }
    }

    /// As a script has it.
    fn command(self) -> String {
        let (code, input, output) = match self {
            Self::Read => return format!("read h {LENGTH}"),
            Self::Write => return format!("write h zero:{LENGTH}"),
            Self::Control { code, input, output } => (code, input, output),
        };
        let mut command = format!("ioctl h {code:#x}");
        if input > 0 {
            command += &format!(" in zero:{input}");
        }
        if output > 0 {
            command += &format!(" out {output}");
        }
        command
    }
}

impl Asking<'_> {
    /// The answers to one request after the other, on one handle, up to the first that ends the machine.
    fn ask(&mut self, questions: &[Question]) -> Result<Vec<Answer>, Error> {
        let name = self.name.clone();
        let (answers, _) = self.boots.boot(usual(), |machine| {
            let Ok(handle) = machine.open_overlapped(&name) else { return Vec::new() };
            let mut answers = Vec::new();
            for question in questions {
                answers.push(answer(machine, &handle, *question));
                if answers.last() == Some(&Answer::Ends) {
                    break;
                }
            }
            answers
        })?;
        Ok(answers)
    }

    /// A read or write, unless the driver refuses it.
    fn plain(&mut self, question: Question) -> Result<Option<Operation>, Error> {
        let answers = self.ask(&[question])?;
        Ok(match answers.first() {
            None | Some(Answer::Status(INVALID_REQUEST)) => None,
            Some(answer) => {
                let waits = *answer == Answer::Waits;
                Some(Operation {
                    command: question.command(),
                    code: None,
                    succeeds: succeeds(*answer),
                    waits,
                })
            }
        })
    }

    /// What the driver answers to codes that no driver has.
    fn refusals(&mut self) -> Result<Vec<Answer>, Error> {
        let mut refused = Vec::new();
        for code in NOBODYS {
            for (input, output) in [SIZES[0], SIZES[1]] {
                refused.extend(self.ask(&[Question::Control { code, input, output }])?);
            }
        }
        Ok(refused)
    }

    fn code(&mut self, code: u32, refused: &[Answer]) -> Result<Option<Operation>, Error> {
        let questions = SIZES.map(|(input, output)| Question::Control { code, input, output });
        let answers = self.ask(&questions)?;
        if answers.is_empty() || answers.iter().all(|answer| refused.contains(answer)) {
            return Ok(None);
        }
        let best = answers.iter().position(|answer| succeeds(*answer));
        let command = questions[best.unwrap_or(1)].command();
        let waits = answers.contains(&Answer::Waits);
        Ok(Some(Operation { command, code: Some(code), succeeds: best.is_some(), waits }))
    }
}

const fn succeeds(answer: Answer) -> bool {
    match answer {
        Answer::Status(status) => status >> 31 == 0,
        Answer::Waits => true,
        Answer::Ends => false,
    }
}

fn answer(machine: &Machine, handle: &Handle<'_>, question: Question) -> Answer {
    let Ok(request) = question.begin(handle) else { return Answer::Ends };
    if !request.is_over() {
        let _ = machine.wait(PATIENCE);
    }
    let waits = !request.is_over();
    if waits && request.cancel().is_err() {
        return Answer::Ends;
    }
    match request.wait() {
        Ok(_) if waits => Answer::Waits,
        Ok(end) => Answer::Status(end.status),
        Err(_) => Answer::Ends,
    }
}
