//! What a driver offers, found out by asking it: names, requests, and which of the device control codes in its code it knows.
//!
//! The machine is booted for that as often as a question ends it: a driver that breaks a rule at a request knows the request. A code counts as known if
//! the driver answers it otherwise than codes that no driver has, or if its code compares with it.

use std::collections::BTreeSet;

use explore::Failing;
use image::Image;
use kernel::hal::platform::Promptness;
use kernel::io::offered::Offered;
use serde::{Deserialize, Serialize};

use super::codes::compared;
use super::exercise::MANY;
use super::signals::{Outside, outside};
use super::wanted::{Came, FOUND, Wanted, wanted};
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
    /// Those that come when requests are made, which the driver reports as its children.
    pub children: Vec<String>,
    /// It imports what only drivers of hardware need.
    pub is_hardware: bool,
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
    /// Pairs of them, by their places, that end by themselves and succeed in either order, and with the first of them once more: of two of one kind, too.
    pub self_ending: Vec<(usize, usize)>,
    /// Pairs of which the first ends by itself and succeeds while the second is under way, which does not end so.
    pub ending_beside: Vec<(usize, usize)>,
    /// Pairs of which the first waits, and ends well when the second is made: one for one, and as well where more were made before.
    pub ended_by: Vec<(usize, usize)>,
    /// Those of them whose first does not wait where the second has been made before it.
    pub ended_before: Vec<(usize, usize)>,
    /// What the surroundings of the cards do.
    pub outside: Vec<Outside>,
    /// Requests that wait until that happens.
    pub ended: Vec<Ended>,
    /// Requests that fail by a time limit where the card does nothing by itself, by their places, and at which limit of the driver's that is, from 1 on.
    pub limited: Vec<(usize, u32)>,
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
    /// It is the one before that is none, with another word or another input, which takes part only in what is done at once: of another channel, say.
    pub variant: bool,
    /// It succeeds behind another, by its place, and not alone.
    pub needs: Option<usize>,
}

/// Requests, by their places, each of which ends well when something, by its place, has been done to the card: one, or two together.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Ended {
    /// The requests.
    pub operations: Vec<usize>,
    /// What ends each of them.
    pub by: Vec<usize>,
}

impl Operation {
    /// What its input holds, if that is not zeroes: `u32:0x7`.
    pub(super) fn word(&self) -> Option<&str> {
        let input = self.command.split_once(" in ")?.1;
        input.split(' ').next().filter(|word| !word.starts_with("zero:"))
    }

    /// Whether it succeeds, and is no variant.
    pub(super) fn is_usual(&self) -> bool {
        self.succeeds && !self.variant
    }

    /// Its input.
    pub(super) fn input(&self) -> Vec<u8> {
        let data = self.command.strip_prefix("write h ");
        let input = || self.command.split_once(" in ").map(|(_, rest)| rest);
        let Some(rest) = data.or_else(input) else { return Vec::new() };
        let input = rest.split(" out ").next().unwrap_or(rest);
        let mut bytes = Vec::new();
        for piece in input.split(" + ") {
            let mut parts = piece.split(':');
            let kind = parts.next();
            let mut number = || {
                let text = parts.next().unwrap_or_default();
                let number = match text.strip_prefix("0x") {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => text.parse(),
                };
                number.unwrap_or(0)
            };
            match kind {
                Some("zero") => bytes.resize(bytes.len() + number() as usize, 0),
                Some("u32") => bytes.extend(number().to_le_bytes()),
                _ => {
                    let word = number();
                    bytes.extend(word.to_le_bytes().repeat(number() as usize / 4));
                }
            }
        }
        bytes
    }
}

/// Codes that no driver has.
const NOBODYS: [u32; 2] = [0x7A5C_2F44, 0x0022_3FFC];
/// The sizes of input and output buffers that a code is asked with, until it succeeds.
const SIZES: [(u32, u32); 8] = [(0, 0), (64, 64), (0, 64), (64, 0), (4, 4), (8, 8), (16, 16), (512, 4096)];
/// Words that codes are asked with besides zero and what the driver compares with, as a count, a kind or a number of something.
const WORDS: [u32; 8] = [1, 2, 3, 4, 8, 0x10, 0x64, 0x1000];
/// So many of the driver's own are tried.
const OWN_WORDS: usize = 24;
/// What writes are made of besides: digits, letters, ends of lines, and what no text has.
const TEXTS: [u32; 6] = [0x3030_3030, 0x3131_3131, 0x4141_4141, 0x6161_6161, 0x0A0A_0A0A, 0xFFFF_FFFF];
/// The sizes of buffers that these stand in.
const WORD_SIZES: [u32; 4] = [64, 4, 8, 16];
/// So often the machine is booted for one code, if words end it.
const BOOTS: usize = 6;
/// So many requests are made in pairs: as many as take part in what is done at once, and some.
const PAIRED: usize = 8;
/// So many words are looked at that a code is asked with, and so many of them are taken.
const ELSEWHERE_OF: usize = 24;
const ELSEWHERE: usize = 2;
/// So many inputs of one code are tried, each changed by what the driver has compared.
const TRIALS: usize = 96;
/// How long an answer may take, in the machine's time, before the request is cancelled.
const PATIENCE: u64 = 30_000_000;
/// The longest time limit of a driver's that is looked for, and the most that a request may live through.
const LONGEST_LIMIT: u64 = 11_000_000_000;
const MOST_LIMITS: u32 = 4096;
/// How long a bus driver may take until it reports what has come, in the machine's time: contacts bounce.
const SETTLING: u64 = 100_000_000;
/// Between two things that are done to a card.
const BETWEEN: u64 = 1_000_000;
/// The largest word of an answer that is taken for the number of something.
const LARGEST_NUMBER: u32 = 0xFFFF;
/// `STATUS_INVALID_DEVICE_REQUEST`.
const INVALID_REQUEST: u32 = 0xC000_0010;

/// Imports that only a driver of hardware needs.
pub const HARDWARE: [&str; 6] = [
    "IoConnectInterrupt",
    "IoConnectInterruptEx",
    "MmMapIoSpace",
    "MmMapIoSpaceEx",
    "IoGetDmaAdapter",
    "HalGetAdapter",
];
/// Imports of drivers that know their device's power states, and of those that power it down while it is idle.
const POWER: [&str; 2] = ["PoSetPowerState", "PoRequestPowerIrp"];
const IDLE: [&str; 4] =
    ["PoRegisterDeviceForIdleDetection", "PoFxRegisterDevice", "PoSetDeviceBusyEx", "PoSetDeviceBusy"];

/// Whether a driver imports one of these.
fn imports(image: &Image, names: &[&str]) -> bool {
    image.imports().iter().any(|import| names.contains(&import.selector.to_string().as_str()))
}

impl Survey {
    /// With requests that were found in sequences: each needs the one before it.
    #[must_use]
    pub fn with_sequences(mut self, sequences: Vec<Vec<Operation>>) -> Self {
        for sequence in sequences {
            let mut needs = None;
            for operation in sequence {
                let is_it = |known: &Operation| known.needs == needs && known.command == operation.command;
                let (known, before) = (self.operations.iter().position(is_it), needs);
                needs = Some(known.unwrap_or(self.operations.len()));
                if known.is_none() {
                    self.operations.push(Operation { needs: before, ..operation });
                }
            }
        }
        self
    }
}

/// What comes of a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The driver's routine returned it.
    Status(u32),
    /// The routine returned `STATUS_PENDING`.
    Later(u32),
    /// It was cancelled.
    Waits,
    /// The machine has stopped, or it could not be cancelled.
    Ends,
}

/// How much is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Extent {
    /// What requests there are, and which end by themselves in company: all that a machine with more cards is surveyed for.
    Requests,
    /// Besides, what ends them else: the world outside of the card, and time limits of the driver's.
    Everything,
}

/// Asks the driver of a machine that is booted for it, whose image this is.
///
/// # Errors
/// As [`Boots::boot`].
pub fn survey(boots: &mut Boots, image: &Image, extent: Extent) -> Result<Survey, Error> {
    let compared = &compared(image);
    let looked = boots.boot_to_script(usual(), |machine| {
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
        children: Vec::new(),
        is_hardware: imports(image, &HARDWARE),
        knows_power: imports(image, &IDLE) || imports(image, &POWER),
        idles: imports(image, &IDLE),
        signals: Vec::new(),
        failure: report.failure.as_ref().map(|failure| format!("{}: {}", failure.command, failure.message)),
        operations: Vec::new(),
        self_ending: Vec::new(),
        ending_beside: Vec::new(),
        ended_by: Vec::new(),
        ended_before: Vec::new(),
        outside: Vec::new(),
        ended: Vec::new(),
        limited: Vec::new(),
        values: compared.values.clone(),
        lacking: report.lacking().map(str::to_owned),
    };
    let Some(name) = found.names.first().filter(|_| ready).cloned() else { return Ok(found) };
    let handles = |major: usize| offered.majors.get(major).copied().unwrap_or(false);
    let mut asking = Asking { boots, name };
    let mut known: Vec<Known> = Vec::new();
    if handles(3) {
        known.extend(asking.plain(Question::Read)?);
    }
    if handles(4) {
        known.extend(asking.write(&compared.values)?);
    }
    if handles(14) {
        let refused = asking.refusals()?;
        for code in &compared.codes {
            known.extend(asking.code(*code, &refused, &compared.values)?);
        }
    }
    asking.ask_again(&mut known)?;
    asking.find_words_that_end(&mut known, &compared.values)?;
    asking.find_needs(&mut known)?;
    found.self_ending = asking.self_ending(&known, found.is_hardware)?;
    if extent == Extent::Everything {
        found.ending_beside = asking.ending_beside(&known, &found.self_ending)?;
        found.ended_by = asking.ended_by(&known, &found.self_ending)?;
        for &(waits, ends) in &found.ended_by {
            if asking.all_end_spaced(&[ends, waits].map(|place| known[place].question))? {
                found.ended_before.push((waits, ends));
            }
        }
        found.children = asking.children(&known, &found.devices)?;
        found.outside = outside(&found.devices);
        found.ended = asking.ended(&known, &found.outside)?;
        found.limited = asking.limited(&known)?;
    }
    found.operations = known.into_iter().map(|known| known.operation).collect();
    Ok(found)
}

fn usual() -> Box<dyn engine::Chooser> {
    Box::new(Failing::new(0, 1))
}

/// A request that the driver knows, and how it was asked.
struct Known {
    operation: Operation,
    question: Question,
}

struct Asking<'b> {
    boots: &'b mut Boots,
    name: String,
}

/// A request of the survey's.
#[derive(Clone, Copy)]
enum Question {
    Read,
    Write(Input),
    Control { code: u32, input: Input, output: u32 },
}

/// The input of a control request: so many bytes.
#[derive(Clone, Copy)]
enum Input {
    Zeroes(u32),
    /// A word in front of zeroes.
    Word(u32, u32),
    /// A word again and again.
    Filled(u32, u32),
    /// These in front of zeroes.
    Bytes([u8; FOUND], u32),
}

impl Input {
    fn bytes(self) -> Vec<u8> {
        let (word, length, is_filled) = match self {
            Self::Zeroes(length) => return vec![0; length as usize],
            Self::Word(word, length) => (word, length, false),
            Self::Filled(word, length) => (word, length, true),
            Self::Bytes(bytes, length) => {
                let mut bytes = bytes.to_vec();
                bytes.resize(length as usize, 0);
                return bytes;
            }
        };
        let mut bytes = word.to_le_bytes().repeat(if is_filled { length as usize / 4 } else { 1 });
        bytes.resize(length as usize, 0);
        bytes
    }

    /// As a script has it.
    fn text(self) -> String {
        match self {
            Self::Zeroes(length) => format!("zero:{length}"),
            Self::Word(word, 4) => format!("u32:{word:#x}"),
            Self::Word(word, length) => format!("u32:{word:#x} + zero:{}", length - 4),
            Self::Filled(word, length) => format!("fill:{word:#x}:{length}"),
            // What is behind the last whole word counts as zeroes.
            Self::Bytes(_, length) => {
                let bytes = self.bytes();
                let (words, _) = bytes.as_chunks::<4>();
                let used = words.iter().rposition(|word| *word != [0; 4]).map_or(0, |at| at + 1);
                let zeroes = length as usize - 4 * used;
                let words = words[..used].iter().map(|word| format!("u32:{:#x}", u32::from_le_bytes(*word)));
                let zeroes = (zeroes > 0 || used == 0).then(|| format!("zero:{zeroes}"));
                words.chain(zeroes).collect::<Vec<_>>().join(" + ")
            }
        }
    }

    /// What was found to be wanted.
    fn wanted(wanted: &Wanted) -> Self {
        let mut bytes = [0; FOUND];
        let length = wanted.input.len().min(FOUND);
        bytes[..length].copy_from_slice(&wanted.input[..length]);
        Self::Bytes(bytes, u32::try_from(wanted.input.len()).unwrap_or(0))
    }

    /// The word in front.
    fn first(self) -> Option<u32> {
        match self {
            Self::Zeroes(_) => None,
            Self::Word(word, _) | Self::Filled(word, _) => Some(word),
            Self::Bytes(bytes, _) => bytes.first_chunk().map(|word| u32::from_le_bytes(*word)),
        }
    }
}

/// How much the survey reads and writes.
const LENGTH: u32 = 64;

impl Question {
    fn begin<'h>(self, handle: &'h Handle<'_>) -> Result<Request<'h>, Error> {
        match self {
            Self::Read => handle.begin_read(LENGTH, None),
            Self::Write(data) => handle.begin_write(&data.bytes(), None),
            Self::Control { code, input, output } => {
                handle.begin_device_control(code, &input.bytes(), output)
            }
        }
    }

    /// The bytes of its input.
    fn input(self) -> Vec<u8> {
        match self {
            Self::Read => Vec::new(),
            Self::Write(input) | Self::Control { input, .. } => input.bytes(),
        }
    }

    /// Whether it has the size that requests are most often asked with.
    const fn is_short(self) -> bool {
        matches!(self, Self::Control { input: Input::Word(_, LENGTH) | Input::Filled(_, LENGTH), .. })
    }

    /// What it is asked as behind another, which is answered with this word.
    fn behind(self, before: Self, answered: Option<u32>) -> Vec<Self> {
        let Self::Control { code, .. } = self else { return vec![self] };
        let word = match before {
            Self::Control { input, .. } => input.first(),
            _ => None,
        };
        let inputs = |length: u32| {
            let words = word.into_iter().chain(answered).filter(move |_| length >= 4);
            let both = words.flat_map(move |word| [Input::Word(word, length), Input::Filled(word, length)]);
            both.chain([Input::Zeroes(length)])
        };
        let of_size = |(length, output): (u32, u32)| {
            inputs(length).map(move |input| Self::Control { code, input, output })
        };
        SIZES.into_iter().flat_map(of_size).collect()
    }

    /// As a request that the driver knows.
    fn known(self, succeeds: bool, waits: bool) -> Known {
        let code = match self {
            Self::Read | Self::Write(_) => None,
            Self::Control { code, .. } => Some(code),
        };
        let operation =
            Operation { command: self.command(), code, succeeds, waits, variant: false, needs: None };
        Known { operation, question: self }
    }

    /// As a script has it.
    fn command(self) -> String {
        let (code, input, output) = match self {
            Self::Read => return format!("read h {LENGTH}"),
            Self::Write(data) => return format!("write h {}", data.text()),
            Self::Control { code, input, output } => (code, input, output),
        };
        let mut command = format!("ioctl h {code:#x}");
        if !input.bytes().is_empty() {
            command += &format!(" in {}", input.text());
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
        let answers = self.with_handle(|machine, handle| {
            let mut answers = Vec::new();
            for question in questions {
                answers.push(answer(machine, handle, *question));
                if answers.last() == Some(&Answer::Ends) {
                    break;
                }
            }
            answers
        })?;
        Ok(answers.unwrap_or_default())
    }

    /// What comes of this with a machine whose device is open. None if it cannot be opened.
    fn with_handle<R>(&mut self, work: impl FnOnce(&Machine, &Handle<'_>) -> R) -> Result<Option<R>, Error> {
        let Self { boots, name } = self;
        let (done, _) = boots.boot_to_script(usual(), |machine| {
            let handle = machine.open_overlapped(name).ok()?;
            Some(work(machine, &handle))
        })?;
        Ok(done)
    }

    /// A read or write, unless the driver refuses it.
    fn plain(&mut self, question: Question) -> Result<Option<Known>, Error> {
        let answers = self.ask(&[question])?;
        Ok(match answers.first() {
            None | Some(Answer::Status(INVALID_REQUEST) | Answer::Later(INVALID_REQUEST)) => None,
            Some(answer) => {
                let waits = *answer == Answer::Waits;
                Some(question.known(succeeds(*answer), waits))
            }
        })
    }

    /// A write, as [`Asking::plain`]: of zeroes; or if it fails, of what it succeeds with and lives longest: text, or what the driver compares with.
    fn write(&mut self, own: &[u32]) -> Result<Option<Known>, Error> {
        let zeroes = self.plain(Question::Write(Input::Zeroes(LENGTH)))?;
        if zeroes.as_ref().is_none_or(|known| known.operation.succeeds) {
            return Ok(zeroes);
        }
        let repeated = |value: u32| if value <= 0xFF { value * 0x0101_0101 } else { value };
        let words: Vec<u32> =
            TEXTS.into_iter().chain(own.iter().take(OWN_WORDS).copied().map(repeated)).collect();
        let of_length =
            |length: u32| words.iter().map(move |word| Question::Write(Input::Filled(*word, length)));
        let answered = self.answers(&WORD_SIZES.into_iter().flat_map(of_length).collect::<Vec<_>>())?;
        // The first of those that live longest.
        let longest = answered.iter().rev().max_by_key(|(_, answer)| life(*answer));
        let known = longest.filter(|(_, answer)| life(*answer) > 0);
        let known = known.map(|(question, answer)| question.known(true, *answer == Answer::Waits));
        Ok(known.or(zeroes))
    }

    /// What the driver answers to codes that no driver has.
    fn refusals(&mut self) -> Result<Vec<Answer>, Error> {
        let mut refused = Vec::new();
        for code in NOBODYS {
            for (input, output) in [SIZES[0], SIZES[1]] {
                refused.extend(self.ask(&[Question::Control {
                    code,
                    input: Input::Zeroes(input),
                    output,
                }])?);
            }
        }
        Ok(refused)
    }

    /// A code, if the driver knows it: with zeroes, and with words by which it does more than that.
    fn code(&mut self, code: u32, refused: &[Answer], own: &[u32]) -> Result<Vec<Known>, Error> {
        let questions =
            SIZES.map(|(input, output)| Question::Control { code, input: Input::Zeroes(input), output });
        let answers = self.ask(&questions)?;
        if answers.is_empty() || answers.iter().all(|answer| refused.contains(answer)) {
            return Ok(Vec::new());
        }
        let best = answers.iter().position(|answer| succeeds(*answer));
        let waits = answers.contains(&Answer::Waits);
        let plain = questions[best.unwrap_or(1)].known(best.is_some(), waits);
        let reached = answers.iter().map(|answer| life(*answer)).max().unwrap_or(0);
        let worded = self.with_words(code, own)?;
        let mut known = Vec::new();
        // The first of those that live longest.
        let longest = worded.iter().rev().max_by_key(|(_, answer)| life(*answer));
        let longer = longest.filter(|(_, answer)| life(*answer) > reached);
        if longer.is_none() || plain.operation.succeeds {
            known.push(plain);
        }
        known.extend(longer.map(|(question, answer)| question.known(true, *answer == Answer::Waits)));
        let (last, reached) =
            (known[known.len() - 1].question, longer.map_or(reached, |(_, answer)| life(*answer)));
        known.extend(variant(last, reached, &worded));
        self.boots.note_compares(true);
        known.extend(self.going_elsewhere(last, reached, &worded)?);
        let wanted = self.wanted(code)?;
        self.boots.note_compares(false);
        // Of what fails otherwise it is the first that succeeds, and the others do something else.
        if !known[0].operation.succeeds && !wanted.is_empty() {
            known.clear();
        }
        for (question, life) in wanted {
            // Room for a longer answer is nothing else.
            if known.iter().any(|one| one.question.input() == question.input()) {
                continue;
            }
            let Known { operation, question } = question.known(true, life == WAITING);
            let variant = !known.is_empty();
            known.push(Known { operation: Operation { variant, ..operation }, question });
        }
        Ok(known)
    }

    /// Of words by which requests live as long as by the last one, those that lead to most comparisons which it does not lead to.
    fn going_elsewhere(
        &mut self,
        last: Question,
        reached: u32,
        worded: &[(Question, Answer)],
    ) -> Result<Vec<Known>, Error> {
        if reached == 0 {
            return Ok(Vec::new());
        }
        let mut sites = |question| -> Result<BTreeSet<u64>, Error> {
            Ok(self.compared_by(question)?.iter().flat_map(Came::sites).collect())
        };
        let mut seen = sites(last)?;
        let alike =
            worded.iter().filter(|(question, answer)| life(*answer) == reached && question.is_short());
        let mut left = Vec::new();
        for (question, _) in alike.take(ELSEWHERE_OF) {
            left.push((*question, sites(*question)?));
        }
        let mut known = Vec::new();
        for _ in 0..ELSEWHERE {
            let fresh = |(_, sites): &(Question, BTreeSet<u64>)| sites.difference(&seen).count();
            let best = left.iter().rev().max_by_key(|other| fresh(other)).filter(|best| fresh(best) > 0);
            let Some((question, sites)) = best else { break };
            let Known { operation, question } = question.known(true, reached == WAITING);
            known.push(Known { operation: Operation { variant: true, ..operation }, question });
            // It is not fresh any more.
            seen.extend(sites);
        }
        Ok(known)
    }

    /// What comes of a request, and what the driver compares until it is over.
    fn compared_by(&mut self, question: Question) -> Result<Option<Came>, Error> {
        self.with_handle(|machine, handle| {
            drop(machine.compared());
            let life = life(answer(machine, handle, question));
            Came { life, compared: machine.compared() }
        })
    }

    /// A code with inputs that the driver's comparisons ask for; and how long each lives.
    fn wanted(&mut self, code: u32) -> Result<Vec<(Question, u32)>, Error> {
        let question =
            |wanted: &Wanted| Question::Control { code, input: Input::wanted(wanted), output: wanted.output };
        let found = wanted(TRIALS, |wanted| self.compared_by(question(wanted)))?;
        Ok(found.iter().map(|(wanted, life)| (question(wanted), *life)).collect())
    }

    /// Which wait when nothing was asked before: behind others, what they have used up may be what a request waits for.
    fn ask_again(&mut self, known: &mut [Known]) -> Result<(), Error> {
        for Known { operation, question } in known.iter_mut().filter(|one| one.operation.waits) {
            operation.waits = self.ask(&[*question])?.first() == Some(&Answer::Waits);
        }
        Ok(())
    }

    /// What is over at once may do something with another word: one that ends a request that waits is what it is asked with.
    fn find_words_that_end(&mut self, known: &mut [Known], own: &[u32]) -> Result<(), Error> {
        let waiting = known.iter().filter(|one| one.operation.waits).take(PAIRED);
        let waiting: Vec<Question> = waiting.map(|one| one.question).collect();
        let is_plain = |one: &&mut Known| one.operation.succeeds && !one.operation.waits;
        for one in known.iter_mut().filter(is_plain).take(PAIRED) {
            let Question::Control { code, input: Input::Zeroes(length @ 4..), output } = one.question else {
                continue;
            };
            for waits in &waiting {
                let words = WORDS.iter().chain(own.iter().take(OWN_WORDS));
                let worded =
                    words.map(|word| Question::Control { code, input: Input::Word(*word, length), output });
                let questions: Vec<Question> = [one.question].into_iter().chain(worded).collect();
                let first = self.first_that_ends(*waits, &questions)?;
                // Neither do zeroes nor the time.
                let Some(at) = first.filter(|at| *at > 0) else { continue };
                if self.all_end_spaced(&[*waits, questions[at]])?
                    && !self.all_end_spaced(&[*waits, one.question])?
                {
                    *one = questions[at].known(true, false);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Behind which of these, asked one after the other, a request is over that waits.
    fn first_that_ends(&mut self, waits: Question, questions: &[Question]) -> Result<Option<usize>, Error> {
        let first = self.with_handle(|machine, handle| {
            let request = waits.begin(handle).ok()?;
            let first = questions.iter().position(|question| {
                let is_answered = ends_well(answer(machine, handle, *question));
                let _ = machine.wait(BETWEEN);
                is_answered && request.is_over()
            });
            let _ = ended(request);
            first
        })?;
        Ok(first.flatten())
    }

    /// Of those that fail alone, which succeed behind another: with zeroes, with the word that the other has, or with what it was answered.
    fn find_needs(&mut self, known: &mut [Known]) -> Result<(), Error> {
        let usual = known.iter().enumerate();
        let usual = usual.filter(|(_, one)| one.operation.is_usual() && !one.operation.waits).take(PAIRED);
        let mut first = Vec::new();
        for (place, one) in usual {
            first.push((place, one.question, self.answered(one.question)?));
        }
        for one in known.iter_mut().filter(|one| !one.operation.succeeds).take(PAIRED) {
            for &(place, before, answered) in &first {
                let questions = one.question.behind(before, answered);
                let answers = self.ask(&[&[before], &*questions].concat())?;
                let behind = answers.get(1..).unwrap_or_default();
                let Some(at) = behind.iter().position(|answer| succeeds(*answer)) else { continue };
                let Known { operation, question } = questions[at].known(false, behind[at] == Answer::Waits);
                *one = Known { operation: Operation { needs: Some(place), ..operation }, question };
                break;
            }
        }
        Ok(())
    }

    /// The word that a request is answered with, if that may be a number of something.
    fn answered(&mut self, question: Question) -> Result<Option<u32>, Error> {
        let word = self.with_handle(|machine, handle| {
            let request = question.begin(handle).ok()?;
            let _ = machine.wait(PATIENCE);
            let data = if request.is_over() { request.wait().ok()?.data } else { return None };
            let word = data.get(..4)?.try_into().ok()?;
            Some(u32::from_le_bytes(word)).filter(|word| (1..=LARGEST_NUMBER).contains(word))
        })?;
        Ok(word.flatten())
    }

    /// Which pairs end by themselves and succeed, in either order. Without hardware, which takes what was queued, a request may use something up for which the
    /// next ones wait: there, so must as many as are ever made.
    fn self_ending(&mut self, known: &[Known], is_hardware: bool) -> Result<Vec<(usize, usize)>, Error> {
        let alone = variants_last(known);
        let alone = alone.filter(|(_, one)| one.operation.succeeds && !one.operation.waits).take(PAIRED);
        let mut alone: Vec<(usize, Question)> = alone.map(|(place, one)| (place, one.question)).collect();
        if !is_hardware {
            let mut lasting = Vec::new();
            for (place, question) in alone {
                if self.all_end(&[question; MANY as usize])? {
                    lasting.push((place, question));
                }
            }
            alone = lasting;
        }
        let mut pairs = Vec::new();
        for (at, &(one, first)) in alone.iter().enumerate() {
            for &(other, second) in &alone[at..] {
                if self.all_end(&[first, second, first])?
                    && (one == other || self.all_end(&[second, first, second])?)
                {
                    pairs.push((one.min(other), one.max(other)));
                }
            }
        }
        Ok(pairs)
    }

    /// Which end by themselves beside one that does not.
    fn ending_beside(
        &mut self,
        known: &[Known],
        self_ending: &[(usize, usize)],
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut pairs = Vec::new();
        for &(one, _) in self_ending.iter().filter(|(one, other)| one == other) {
            for (other, beside) in variants_last(known).take(PAIRED) {
                if one == other || self_ending.contains(&(one.min(other), one.max(other))) {
                    continue;
                }
                let (first, second) = (known[one].question, beside.question);
                let begun_last = self.together(&[second, first], &[])?;
                if begun_last.get(1).is_some_and(|answer| ends_well(*answer))
                    && self.together(&[first, second], &[])?.first().is_some_and(|answer| ends_well(*answer))
                {
                    pairs.push((one, other));
                }
            }
        }
        Ok(pairs)
    }

    /// The devices that come when each of these has been asked for.
    fn children(&mut self, known: &[Known], devices: &[String]) -> Result<Vec<String>, Error> {
        // One of them may take away what the one before it has brought.
        let came = self.with_handle(|machine, handle| {
            let mut came = Vec::new();
            for one in known {
                if answer(machine, handle, one.question) == Answer::Ends {
                    break;
                }
                let _ = machine.wait(SETTLING);
                let is_new = |name: &String| !devices.contains(name) && !came.contains(name);
                let new: Vec<String> = machine.device_names().into_iter().filter(is_new).collect();
                came.extend(new);
            }
            came
        })?;
        Ok(came.unwrap_or_default())
    }

    /// Which wait until another is made.
    fn ended_by(
        &mut self,
        known: &[Known],
        self_ending: &[(usize, usize)],
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut pairs = Vec::new();
        let waiting = variants_last(known).filter(|(_, one)| one.operation.waits).take(PAIRED);
        for (one, waits) in waiting {
            for &(other, _) in self_ending.iter().filter(|(first, second)| first == second) {
                let (waits, ends) = (waits.question, known[other].question);
                let sequences = [
                    &[waits, ends][..],
                    &[waits, waits, ends, ends],
                    &[ends, waits, ends],
                    &[ends, ends, waits, ends],
                    &[waits, ends, waits, ends, ends],
                ];
                let mut is_so = true;
                for questions in sequences {
                    is_so = is_so && self.all_end_spaced(questions)?;
                }
                pairs.extend(is_so.then_some((one, other)));
            }
        }
        Ok(pairs)
    }

    /// Whether all of these end well, which are made one after the other, each a while behind the one before.
    fn all_end_spaced(&mut self, questions: &[Question]) -> Result<bool, Error> {
        let all_end = self.with_handle(|machine, handle| {
            let mut begun = Vec::new();
            for question in questions {
                let Ok(request) = question.begin(handle) else { return false };
                begun.push(request);
                let _ = machine.wait(PATIENCE);
            }
            begun.into_iter().all(|request| ends_well(ended(request)))
        })?;
        Ok(all_end.unwrap_or(false))
    }

    /// Which wait until something is done to the card.
    fn ended(&mut self, known: &[Known], outside: &[Outside]) -> Result<Vec<Ended>, Error> {
        let (mut alone, mut all) = (Vec::new(), Vec::new());
        let waiting = variants_last(known).filter(|(_, one)| one.operation.waits).take(PAIRED);
        for (place, one) in waiting {
            for (by, event) in outside.iter().enumerate() {
                if self.together(&[one.question], &[event])?.iter().all(|answer| ends_well(*answer)) {
                    alone.push((place, by));
                }
            }
        }
        for (at, &(one, first)) in alone.iter().enumerate().take(PAIRED) {
            all.push(Ended { operations: vec![one], by: vec![first] });
            for &(other, second) in alone[at + 1..].iter().filter(|(_, second)| *second != first) {
                let questions = [one, other].map(|place| known[place].question);
                let answers = self.together(&questions, &[&outside[first], &outside[second]])?;
                if answers.len() == 2 && answers.iter().all(|answer| ends_well(*answer)) {
                    all.push(Ended { operations: vec![one, other], by: vec![first, second] });
                }
            }
        }
        Ok(all)
    }

    /// The answers to requests that are under way together, while this is done to their cards.
    fn together(&mut self, questions: &[Question], events: &[&Outside]) -> Result<Vec<Answer>, Error> {
        let answers = self.with_handle(|machine, handle| {
            let begun: Result<Vec<_>, _> = questions.iter().map(|question| question.begin(handle)).collect();
            let Ok(begun) = begun else { return vec![Answer::Ends] };
            for event in events {
                for value in &event.values {
                    let _ = machine.wait(BETWEEN);
                    let _ = machine.poke(&event.device, &event.signal, *value);
                }
            }
            let _ = machine.wait(PATIENCE);
            begun.into_iter().map(ended).collect()
        })?;
        Ok(answers.unwrap_or_else(|| vec![Answer::Ends]))
    }

    /// Which the driver gives up after a time limit, and at which of its limits.
    fn limited(&mut self, known: &[Known]) -> Result<Vec<(usize, u32)>, Error> {
        let usual = known.iter().enumerate().filter(|(_, one)| one.operation.is_usual());
        let mut limited = Vec::new();
        for (place, one) in usual.take(PAIRED) {
            limited.extend(self.limit(one.question)?.map(|limit| (place, limit)));
        }
        Ok(limited)
    }

    /// At which of its limits the driver gives a request up whose card is late; none if it does not, or not in each such run without a transfer behind it.
    fn limit(&mut self, question: Question) -> Result<Option<u32>, Error> {
        if self.is_given_up(question, Promptness::Silent)? != Some(true) {
            return Ok(None);
        }
        // The first is one of those up to `last`.
        let (mut not, mut last) = (0, 1);
        loop {
            match self.is_given_up(question, Promptness::AtLimit(last))? {
                Some(true) => break,
                Some(false) if last < MOST_LIMITS => (not, last) = (last, last * 2),
                _ => return Ok(None),
            }
        }
        while last - not > 1 {
            let middle = u32::midpoint(not, last);
            match self.is_given_up(question, Promptness::AtLimit(middle))? {
                Some(true) => last = middle,
                Some(false) => not = middle,
                None => return Ok(None),
            }
        }
        Ok(Some(last))
    }

    /// Whether the driver ends a request with an error after a while whose card is so prompt. None if the card transfers something after that: not every card
    /// can be kept from it, so a driver may have no other choice.
    fn is_given_up(&mut self, question: Question, cards: Promptness) -> Result<Option<bool>, Error> {
        let Self { boots, name } = self;
        let (end, report) = boots.boot_with(Some(cards), usual(), |machine| {
            let handle = machine.open_overlapped(name).ok()?;
            let request = question.begin(&handle).ok()?;
            let _ = machine.wait(LONGEST_LIMIT);
            Some(ended(request))
        })?;
        let is_given_up =
            matches!(end, Some(Answer::Later(status) | Answer::Status(status)) if status >> 31 != 0);
        let transfers = report.verdict.is_some_and(|verdict| verdict.rule == "dma-after-unmap");
        Ok((!transfers).then_some(is_given_up))
    }

    /// Whether each of these, asked for one after the other, ends by itself and succeeds.
    fn all_end(&mut self, questions: &[Question]) -> Result<bool, Error> {
        let answers = self.ask(questions)?;
        Ok(answers.len() == questions.len() && answers.iter().all(|answer| ends_well(*answer)))
    }

    /// What a request of this code is answered with which words.
    fn with_words(&mut self, code: u32, own: &[u32]) -> Result<Vec<(Question, Answer)>, Error> {
        let mut questions = Vec::new();
        for length in WORD_SIZES {
            for word in WORDS.iter().chain(own.iter().take(OWN_WORDS)) {
                let inputs = [Input::Word(*word, length), Input::Filled(*word, length)];
                // They are the same in four bytes.
                let inputs = inputs.iter().take(if length == 4 { 1 } else { 2 });
                questions.extend(inputs.map(|input| Question::Control {
                    code,
                    input: *input,
                    output: length,
                }));
            }
        }
        self.answers(&questions)
    }

    /// The answers to one request after the other, though some may end the machine.
    fn answers(&mut self, questions: &[Question]) -> Result<Vec<(Question, Answer)>, Error> {
        let (mut rest, mut answered) = (questions, Vec::new());
        for _ in 0..BOOTS {
            let answers = self.ask(rest)?;
            answered.extend(rest.iter().copied().zip(answers.iter().copied()));
            rest = &rest[answers.len()..];
            if answers.is_empty() || rest.is_empty() {
                break;
            }
        }
        Ok(answered)
    }
}

/// All requests with their places, those first that are no variants: each time so many are taken.
fn variants_last(known: &[Known]) -> impl Iterator<Item = (usize, &Known)> {
    let of = move |variant: bool| {
        known.iter().enumerate().filter(move |(_, one)| one.operation.variant == variant)
    };
    of(false).chain(of(true))
}

/// The question with another of [`WORDS`] that lives as long, if it lives longer than the driver's routine.
fn variant(question: Question, reached: u32, worded: &[(Question, Answer)]) -> Option<Known> {
    let Question::Control { input, .. } = question else { return None };
    let first = input.bytes();
    let is_other = |asked: &Question| match asked {
        Question::Control { input: input @ Input::Word(word, length), .. } => {
            *length as usize == first.len() && WORDS.contains(word) && input.bytes() != first
        }
        _ => false,
    };
    let mut others = worded.iter().filter(|(asked, answer)| is_other(asked) && life(*answer) == reached);
    let (other, answer) = others.next().filter(|_| reached > 1)?;
    let Known { operation, question } = other.known(true, *answer == Answer::Waits);
    Some(Known { operation: Operation { variant: true, ..operation }, question })
}

/// The longest life.
const WAITING: u32 = 3;

/// The longer a request lives, the more can happen to it meanwhile.
const fn life(answer: Answer) -> u32 {
    match answer {
        Answer::Waits => WAITING,
        Answer::Later(_) if succeeds(answer) => 2,
        _ if succeeds(answer) => 1,
        _ => 0,
    }
}

const fn ends_well(answer: Answer) -> bool {
    !matches!(answer, Answer::Waits) && succeeds(answer)
}

const fn succeeds(answer: Answer) -> bool {
    match answer {
        Answer::Status(status) | Answer::Later(status) => status >> 31 == 0,
        Answer::Waits => true,
        Answer::Ends => false,
    }
}

fn answer(machine: &Machine, handle: &Handle<'_>, question: Question) -> Answer {
    let Ok(request) = question.begin(handle) else { return Answer::Ends };
    if !request.is_over() {
        let _ = machine.wait(PATIENCE);
    }
    ended(request)
}

/// How a request ends, which is cancelled if it has not.
fn ended(request: Request<'_>) -> Answer {
    let (waits, was_pending) = (!request.is_over(), request.was_pending());
    if waits && request.cancel().is_err() {
        return Answer::Ends;
    }
    match request.wait() {
        Ok(_) if waits => Answer::Waits,
        Ok(end) if was_pending => Answer::Later(end.status),
        Ok(end) => Answer::Status(end.status),
        Err(_) => Answer::Ends,
    }
}
