//! What a survey asks a driver for, one request at a time, and what comes of it.

use super::super::wanted::{FOUND, OWN_BYTES, Own, Owns, Thing, Wanted};
use super::{Known, Operation};
use crate::error::Error;
use crate::machine::{Handle, Machine, Request};
use crate::record::hex;
use crate::script::PAGE;

/// The sizes of input and output buffers that a code is asked with, until it succeeds.
pub(super) const SIZES: [(u32, u32); 14] = [
    (0, 0),
    (64, 64),
    (0, 64),
    (64, 0),
    (4, 4),
    (8, 8),
    (16, 16),
    (512, 4096),
    (0, 4),
    (0, 8),
    (0, 16),
    (4, 0),
    (8, 0),
    (16, 0),
];
/// Sizes that a request is asked with besides where it may take the number of something: the number goes in, and what is kept under it comes out.
const SIZES_OF_NUMBERED: [(u32, u32); 2] = [(4, 64), (8, 64)];
/// How long an answer may take, in the machine's time, before the request is cancelled.
pub(super) const PATIENCE: u64 = 30_000_000;
/// Longer than any sequence of requests in company takes: what still waits then does not end by itself.
pub(super) const LONG: u64 = 10 * PATIENCE;

/// What comes of a question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The driver's routine returned it.
    Status(u32),
    /// The routine returned `STATUS_PENDING`.
    Later(u32),
    /// It was cancelled.
    Waits,
    /// The machine has stopped, at this instruction of the driver's, if that is known; or it could not be cancelled.
    Ends(u64),
}

/// A request of the survey's.
#[derive(Clone, Copy)]
pub(super) enum Question {
    /// So many bytes.
    Read(u32),
    Write(Input),
    Control {
        code: u32,
        input: Input,
        output: u32,
    },
}

/// The input of a control request: so many bytes.
#[derive(Clone, Copy)]
pub(super) enum Input {
    Zeroes(u32),
    /// A word in front of zeroes.
    Word(u32, u32),
    /// A word again and again.
    Filled(u32, u32),
    /// These in front of zeroes, so many in all, and among them what is the application's, if there is a place for it.
    Found {
        bytes: [u8; FOUND],
        length: u32,
        own: Owns,
    },
    /// These, which the user has said.
    Given(&'static [u8]),
}

impl Input {
    pub(super) fn bytes(self) -> Vec<u8> {
        let (word, length, is_filled) = match self {
            Self::Zeroes(length) => return vec![0; length as usize],
            Self::Word(word, length) => (word, length, false),
            Self::Filled(word, length) => (word, length, true),
            Self::Found { bytes, length, .. } => {
                let mut bytes = bytes.to_vec();
                bytes.resize(length as usize, 0);
                return bytes;
            }
            Self::Given(bytes) => return bytes.to_vec(),
        };
        let mut bytes = word.to_le_bytes().repeat(if is_filled { length as usize / 4 } else { 1 });
        bytes.resize(length as usize, 0);
        bytes
    }

    /// The bytes that are sent.
    fn sent(self, machine: &Machine) -> Result<Vec<u8>, Error> {
        let mut bytes = self.bytes();
        let own = if let Self::Found { own, .. } = self { own } else { Owns::default() };
        for Own { at, what } in own.into_iter().flatten() {
            let number = match what {
                Thing::Event => machine.event()?,
                Thing::Page => machine.memory(&[0; PAGE])?,
            };
            bytes[at..at + OWN_BYTES].copy_from_slice(&number.to_le_bytes());
        }
        Ok(bytes)
    }

    /// As a script has it.
    fn text(self) -> String {
        match self {
            Self::Zeroes(length) => format!("zero:{length}"),
            Self::Word(word, 4) => format!("u32:{word:#x}"),
            Self::Word(word, length) => format!("u32:{word:#x} + zero:{}", length - 4),
            Self::Filled(word, length) => format!("fill:{word:#x}:{length}"),
            Self::Given(bytes) => match bytes.split_first_chunk::<4>() {
                None => format!("hex:{}", hex(bytes)),
                Some((word, [])) => format!("u32:{:#x}", u32::from_le_bytes(*word)),
                Some((word, rest)) => format!("u32:{:#x} + hex:{}", u32::from_le_bytes(*word), hex(rest)),
            },
            Self::Found { own, .. } => {
                let bytes = self.bytes();
                let mut own: Vec<Own> = own.into_iter().flatten().collect();
                own.sort_unstable();
                let (mut parts, mut from) = (Vec::new(), 0);
                for own @ Own { at, .. } in own {
                    parts.extend([words(&bytes[from..at]), own.text()]);
                    from = at + OWN_BYTES;
                }
                parts.push(words(&bytes[from..]));
                parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" + ")
            }
        }
    }

    /// What was found to be wanted.
    pub(super) fn wanted(wanted: &Wanted) -> Self {
        let mut bytes = [0; FOUND];
        let length = wanted.input.len().min(FOUND);
        bytes[..length].copy_from_slice(&wanted.input[..length]);
        Self::Found { bytes, length: u32::try_from(wanted.input.len()).unwrap_or(0), own: wanted.own }
    }

    /// The word in front.
    fn first(self) -> Option<u32> {
        match self {
            Self::Zeroes(_) => None,
            Self::Word(word, _) | Self::Filled(word, _) => Some(word),
            Self::Found { bytes, .. } => bytes.first_chunk().map(|word| u32::from_le_bytes(*word)),
            Self::Given(bytes) => bytes.first_chunk().map(|word| u32::from_le_bytes(*word)),
        }
    }
}

/// Bytes as words. What is behind the last whole one counts as zeroes.
fn words(bytes: &[u8]) -> String {
    let (words, _) = bytes.as_chunks::<4>();
    let used = words.iter().rposition(|word| *word != [0; 4]).map_or(0, |at| at + 1);
    let zeroes = bytes.len() - 4 * used;
    let words = words[..used].iter().map(|word| format!("u32:{:#x}", u32::from_le_bytes(*word)));
    let zeroes = (zeroes > 0).then(|| format!("zero:{zeroes}"));
    words.chain(zeroes).collect::<Vec<_>>().join(" + ")
}

/// The most that it writes because another request has named a length.
const LONGEST: u32 = 0x1_0000;
/// How much the survey reads and writes.
pub(super) const LENGTH: u32 = 64;

impl Question {
    pub(super) fn begin<'h>(self, handle: &'h Handle<'_>) -> Result<Request<'h>, Error> {
        match self {
            Self::Read(length) => handle.begin_read(length, None),
            Self::Write(data) => handle.begin_write(&data.sent(handle.machine())?, None),
            Self::Control { code, input, output } => {
                handle.begin_device_control(code, &input.sent(handle.machine())?, output)
            }
        }
    }

    /// The same with another word in front of its input, if it has one.
    pub(super) fn with_first(self, word: u32) -> Option<Self> {
        let Self::Control { code, input, output } = self else { return None };
        let input = match input {
            Input::Zeroes(length @ 4..) | Input::Word(_, length) => Input::Word(word, length),
            Input::Filled(_, length) => Input::Filled(word, length),
            Input::Found { mut bytes, length, own } if length >= 4 => {
                bytes[..4].copy_from_slice(&word.to_le_bytes());
                Input::Found { bytes, length, own }
            }
            _ => return None,
        };
        Some(Self::Control { code, input, output })
    }

    /// The bytes of its input.
    pub(super) fn input(self) -> Vec<u8> {
        match self {
            Self::Read(_) => Vec::new(),
            Self::Write(input) | Self::Control { input, .. } => input.bytes(),
        }
    }

    /// Whether it reads or writes no byte.
    pub(super) fn is_empty(self) -> bool {
        match self {
            Self::Read(length) => length == 0,
            Self::Write(input) => input.bytes().is_empty(),
            Self::Control { .. } => false,
        }
    }

    /// Whether it has the size that requests are most often asked with.
    pub(super) const fn is_short(self) -> bool {
        matches!(self, Self::Control { input: Input::Word(_, LENGTH) | Input::Filled(_, LENGTH), .. })
    }

    /// What it is asked as behind another, which is answered with this word.
    pub(super) fn behind(self, before: Self, answered: Option<u32>) -> Vec<Self> {
        let word = match before {
            Self::Control { input, .. } => input.first(),
            _ => None,
        };
        let code = match self {
            Self::Read(_) => return vec![self],
            // As many bytes as the other one has announced, or fewer.
            Self::Write(_) => {
                let lengths =
                    word.into_iter().chain(answered).filter(|length| (1..=LONGEST).contains(length));
                return lengths
                    .chain([LENGTH, 4, 1])
                    .map(|length| Self::Write(Input::Zeroes(length)))
                    .collect();
            }
            Self::Control { code, .. } => code,
        };
        let inputs = |length: u32| {
            let words = word.into_iter().chain(answered).filter(move |_| length >= 4);
            let both = words.flat_map(move |word| [Input::Word(word, length), Input::Filled(word, length)]);
            both.chain([Input::Zeroes(length)])
        };
        let of_size = |(length, output): (u32, u32)| {
            inputs(length).map(move |input| Self::Control { code, input, output })
        };
        SIZES.into_iter().chain(SIZES_OF_NUMBERED).flat_map(of_size).collect()
    }

    /// As a request that the driver knows.
    pub(super) fn known(self, succeeds: bool, waits: bool) -> Known {
        let code = match self {
            Self::Read(_) | Self::Write(_) => None,
            Self::Control { code, .. } => Some(code),
        };
        let operation =
            Operation { command: self.command(), code, succeeds, waits, variant: false, needs: None };
        Known { operation, question: self }
    }

    /// As a script has it.
    fn command(self) -> String {
        let (code, input, output) = match self {
            Self::Read(length) => return format!("read h {length}"),
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

/// The longest life.
pub(super) const WAITING: u32 = 3;

/// The longer a request lives, the more can happen to it meanwhile.
pub(super) const fn life(answer: Answer) -> u32 {
    match answer {
        Answer::Waits => WAITING,
        Answer::Later(_) if succeeds(answer) => 2,
        _ if succeeds(answer) => 1,
        _ => 0,
    }
}

pub(super) const fn ends_well(answer: Answer) -> bool {
    !matches!(answer, Answer::Waits) && succeeds(answer)
}

pub(super) const fn succeeds(answer: Answer) -> bool {
    match answer {
        Answer::Status(status) | Answer::Later(status) => status >> 31 == 0,
        Answer::Waits => true,
        Answer::Ends(_) => false,
    }
}

pub(super) fn answer(machine: &Machine, handle: &Handle<'_>, question: Question) -> Answer {
    answer_within(machine, handle, question, PATIENCE)
}

/// The answer that comes within so many nanoseconds.
pub(super) fn answer_within(
    machine: &Machine,
    handle: &Handle<'_>,
    question: Question,
    patience: u64,
) -> Answer {
    let Ok(request) = question.begin(handle) else { return Answer::Ends(0) };
    let steps = patience / PATIENCE;
    let mut waited = 0;
    while !request.is_over() && waited < steps && machine.wait(PATIENCE).is_ok() {
        waited += 1;
    }
    ended(request)
}

/// The bytes that a request gives, if it ends well within the usual time.
pub(super) fn given(machine: &Machine, handle: &Handle<'_>, question: Question) -> Option<Vec<u8>> {
    let request = question.begin(handle).ok()?;
    let _ = machine.wait(PATIENCE);
    if !request.is_over() {
        let _ = ended(request);
        return None;
    }
    let end = request.wait().ok()?;
    succeeds(Answer::Status(end.status)).then_some(end.data)
}

/// The number that they begin with.
pub(super) fn number(machine: &Machine, handle: &Handle<'_>, question: Question) -> Option<u32> {
    given(machine, handle, question)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// How a request ends, which is cancelled if it has not.
pub(super) fn ended(request: Request<'_>) -> Answer {
    let (waits, was_pending) = (!request.is_over(), request.was_pending());
    if waits && request.cancel().is_err() {
        return Answer::Ends(0);
    }
    match request.wait() {
        Ok(_) if waits => Answer::Waits,
        Ok(end) if was_pending => Answer::Later(end.status),
        Ok(end) => Answer::Status(end.status),
        Err(_) => Answer::Ends(0),
    }
}
