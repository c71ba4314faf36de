//! What a driver offers, found out by asking it: names, requests, and which of the device control codes in its code it knows.
//!
//! The machine is booted for that as often as a question ends it: a driver that breaks a rule at a request knows the request. A code counts as known if
//! the driver answers it otherwise than codes that no driver has, or if its code compares with it.

mod answers;
mod asking;
mod closing;
mod company;
mod durations;
mod given;
mod identity;
mod known;
mod limits;
mod needs;
mod numbered;
mod powering;
mod question;
mod uptime;

use explore::Failing;
use image::Image;
use kernel::io::offered::Offered;
use kernel::wmi;
use serde::{Deserialize, Serialize};

use super::absent::Absent;
use super::codes::{Compared, compared};
use super::exercise::MANY;
use super::signals::{Outside, Signals, all_guessed_causes};
use super::wanted::OWN_BYTES;
use crate::error::Error;
use crate::machine::{Boots, Tempo};
use crate::play::Play;
use asking::Asking;
use company::MORE_THAN_ANY;
use given::Given;
use known::Known;
use needs::behind_needs;

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
    /// It knows power states of its device: it tells the system of them, asks for them, or does something of its own as another driver has its device powered.
    pub knows_power: bool,
    /// It has the system power its device down while that is idle and the system works.
    pub idles: bool,
    /// Its device was powered down while the system worked and nothing was asked for.
    pub powers_down: bool,
    /// It does something where the system directs its device to power down.
    pub directed: bool,
    /// It does something as special files (a paging file, for hibernation, of crash dumps) are made on its device.
    pub special_files: bool,
    /// It can set timers.
    pub sets_timers: bool,
    /// It can map the buffers that requests describe by MDLs, which stay the applications' own memory.
    pub maps_buffers: bool,
    /// It can make requests of its own to other drivers.
    pub asks_others: bool,
    /// It asks whether a program is of 32 bits.
    pub serves_32_bits: bool,
    /// What it asks to get to know of.
    pub watched: Vec<Watched>,
    /// It can ask to be notified of device interfaces.
    pub listens_for_interfaces: bool,
    /// The blocks of data that it offers by WMI, as scripts have them: `block:{GUID}`.
    pub blocks: Vec<String>,
    /// What the outside world can do to cards of which nothing is known, as `poke` has it: `pci#0 pulse`, `pci#0 bar2`.
    pub signals: Vec<String>,
    /// Messages that they can signal, if their INF asks for such: `pci#0 message 3`.
    pub messages: Vec<String>,
    /// Bridges behind which a board stands of which nothing is known: `pci9052#0`.
    pub boards: Vec<String>,
    /// Keys of the card of which nothing is known by which the driver is ready after its start, where it is not without: what registers hold.
    pub identity: Vec<String>,
    /// Why the driver is not ready after its start, if it is not.
    pub failure: Option<String>,
    /// Requests that the driver does not refuse as unknown, the first name's.
    pub operations: Vec<Operation>,
    /// Pairs of them, by their places, that end by themselves and succeed in either order, and with the first of them once more: of two of one kind, too.
    pub self_ending: Vec<(usize, usize)>,
    /// Requests that end by themselves, of which one in a row fails, by its number from 1 on, and the next one does not end.
    pub stuck: Vec<(usize, usize)>,
    /// Pairs of which the first ends by itself and succeeds while the second is under way, which does not end so.
    pub ending_beside: Vec<(usize, usize)>,
    /// Pairs of which the first waits, and the second ends by itself and succeeds where the first was cancelled before it.
    pub behind_cancelled: Vec<(usize, usize)>,
    /// Requests that wait, and end as the handle is closed through which they were made, of a driver without hardware: a card may be begun with the next one then,
    /// which is the card's to end.
    pub ended_by_closing: Vec<usize>,
    /// Pairs of which the first waits, and ends well when the second is made: one for one, and as well where more were made before.
    pub ended_by: Vec<(usize, usize)>,
    /// Those of them whose first does not wait where the second has been made before it.
    pub ended_before: Vec<(usize, usize)>,
    /// As `ended_by`, but that what is there ends one that comes later, and leaves the one that waits.
    pub passed_over: Vec<(usize, usize)>,
    /// Requests that end well on a handle that is opened when the last one is closed, on which they were made, too.
    pub anew: Vec<usize>,
    /// Those of `ended_by`, and a third that ends by itself and does not end the first: the first ends well whichever of the two others is made before.
    pub ended_beside: Vec<EndedBeside>,
    /// Two of `ended_by` with other requests each, none of which ends the other's: made together, each of both still ends well.
    pub ended_together: Vec<[(usize, usize); 2]>,
    /// Pairs of which the first hands out the number of something, each time another, and the second takes it.
    pub numbered: Vec<(usize, usize)>,
    /// Requests of one code with two inputs, each of which gives an answer of its own, whatever is asked for before it.
    pub answered: Vec<[Answered; 2]>,
    /// Requests that wait for a time that they are given.
    pub timed: Vec<Timed>,
    /// Requests that end otherwise where the computer has been running for long.
    pub aged: Vec<Aged>,
    /// What the surroundings of the cards do.
    pub outside: Vec<Outside>,
    /// Requests that wait until that happens.
    pub ended: Vec<Ended>,
    /// Those of them that end while all registers of a board of which nothing is known show many bits, and how they come to that.
    pub ended_by_bits: Vec<(usize, Outside)>,
    /// Requests that fail by a time limit where the card does nothing by itself, by their places, and at which limit of the driver's that is, from 1 on.
    pub limited: Vec<(usize, u32)>,
    /// The same where drivers below answer late what they are asked.
    pub limited_below: Vec<(usize, u32)>,
    /// Interrupts of cards of which nothing is known about which the driver does more than about those at which all registers show one bit.
    pub stirring: Vec<Outside>,
    /// Numbers that the driver's code compares with.
    pub values: Vec<u32>,
    /// What dirql lacks that loading and starting needs.
    pub lacking: Option<String>,
    /// What it asks the registry for and what is not there.
    pub absent: Vec<Absent>,
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
    /// It succeeds behind another, by its place, and not alone; or waits for something outside of the card that comes only behind the other.
    pub needs: Option<usize>,
}

/// What happens in the system that a driver may register a routine for.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Watched {
    /// Processes and threads begin and end.
    Processes,
    /// Images are mapped.
    Images,
    /// The registry is used.
    Registry,
    /// Handles of processes and threads are made.
    Handles,
}

impl Watched {
    const ALL: [Self; 4] = [Self::Processes, Self::Images, Self::Registry, Self::Handles];

    /// What of processes it is about.
    pub(in super::super) const fn words(self) -> &'static str {
        match self {
            Self::Processes => "beginning and end",
            Self::Images => "images",
            Self::Registry => "use of the registry",
            Self::Handles => "handles",
        }
    }

    /// What a driver that asks for it imports.
    const fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Processes => &[
                "PsSetCreateProcessNotifyRoutine",
                "PsSetCreateProcessNotifyRoutineEx",
                "PsSetCreateProcessNotifyRoutineEx2",
                "PsSetCreateThreadNotifyRoutine",
                "PsSetCreateThreadNotifyRoutineEx",
            ],
            Self::Images => &["PsSetLoadImageNotifyRoutine", "PsSetLoadImageNotifyRoutineEx"],
            Self::Registry => &["CmRegisterCallback", "CmRegisterCallbackEx"],
            Self::Handles => &["ObRegisterCallbacks"],
        }
    }
}

/// Requests that wait for as long as their first words say.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Timed {
    /// Those that are to be tried: each says more than what has shown it.
    pub longer: Vec<Operation>,
    /// The longest time that has, in nanoseconds,
    pub least: u64,
    /// and the status when it is over.
    pub status: u32,
}

/// Requests one after the other, of which the last ends otherwise where the computer has been running for long.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Aged {
    /// What comes of them in a computer that was started lately.
    pub made: Vec<Made>,
    /// How long the computer has been running, in nanoseconds.
    pub uptime: u64,
}

/// A request, and how it ends.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Made {
    /// Its place.
    pub place: usize,
    /// It is made on the second of two handles.
    pub second: bool,
    /// Its status, or `STATUS_PENDING`.
    pub status: u32,
    /// It is not over at once.
    pub waits: bool,
}

/// A request, and what it is answered with, alone and behind others.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Answered {
    /// The request.
    pub operation: Operation,
    /// The bytes that it gives.
    pub answer: Vec<u8>,
}

/// Requests, by their places: one that waits, what ends it, and what is made beside that.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct EndedBeside {
    /// The one that waits.
    pub waits: usize,
    /// The one that ends it.
    pub ends: usize,
    /// The third one.
    pub beside: usize,
}

/// Requests, by their places, each of which ends well when something, by its place, has been done to the card: one, or two together.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Ended {
    /// The requests.
    pub operations: Vec<usize>,
    /// What ends each of them.
    pub by: Vec<usize>,
    /// It is one, which does not wait if that has been done before it is made.
    pub before: bool,
    /// It is one, and when it is made again it ends when that is done again.
    pub twice: bool,
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
                // The handle is known when the request is made.
                Some("event" | "page") => bytes.extend([0; OWN_BYTES]),
                Some("hex") => {
                    let digits = parts.next().unwrap_or_default().as_bytes();
                    let byte = |pair: &[u8]| {
                        let pair = std::str::from_utf8(pair).ok()?;
                        u8::from_str_radix(pair, 16).ok()
                    };
                    bytes.extend(digits.chunks(2).filter_map(byte));
                }
                _ => {
                    let word = number();
                    bytes.extend(word.to_le_bytes().repeat(number() as usize / 4));
                }
            }
        }
        bytes
    }
}

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

const TIMERS: [&str; 5] =
    ["KeSetTimer", "KeSetTimerEx", "KeSetCoalescableTimer", "ExSetTimer", "IoStartTimer"];

const ASKS: [&str; 6] = [
    "IoAllocateIrp",
    "IoBuildDeviceIoControlRequest",
    "IoBuildAsynchronousFsdRequest",
    "IoBuildSynchronousFsdRequest",
    "IoGetDeviceObjectPointer",
    "IoAttachDevice",
];

/// What the operation at this place needs, what that needs, and so on.
fn chain(place: usize, needs: impl Fn(usize) -> Option<usize>) -> impl Iterator<Item = usize> {
    std::iter::successors(needs(place), move |place| needs(*place))
}

/// As [`Survey::needed_before`].
fn needed_before(
    places: impl IntoIterator<Item = usize>,
    needs: impl Fn(usize) -> Option<usize>,
) -> Vec<usize> {
    let mut needed: Vec<usize> = Vec::new();
    for place in places {
        let chain: Vec<usize> = chain(place, &needs).collect();
        let fresh: Vec<usize> = chain.into_iter().rev().filter(|place| !needed.contains(place)).collect();
        needed.extend(fresh);
    }
    needed
}

/// Whether a driver imports one of these.
fn imports(image: &Image, names: &[&str]) -> bool {
    image.imports().iter().any(|import| names.contains(&import.selector.to_string().as_str()))
}

impl Survey {
    /// What an operation needs, what that needs, and so on.
    pub(super) fn needed(&self, place: usize) -> impl Iterator<Item = usize> {
        chain(place, |place| self.operations[place].needs)
    }

    /// What these need, each once, and each time what that needs before it.
    pub(super) fn needed_before(&self, places: impl IntoIterator<Item = usize>) -> Vec<usize> {
        needed_before(places, |place| self.operations[place].needs)
    }

    /// The requests that wait until one thing outside of a card ends them, and that.
    pub(super) fn ended_by_outside(&self) -> impl Iterator<Item = (usize, &Outside)> {
        self.ended.iter().filter_map(|Ended { operations, by, .. }| {
            match (operations.as_slice(), by.as_slice()) {
                ([place], [by]) => Some((*place, &self.outside[*by])),
                _ => None,
            }
        })
    }

    /// Of a machine with more devices of which only that is known what a start shows: the requests of the driver are those of this machine.
    #[must_use]
    pub fn with_requests_of(self, own: &Self) -> Self {
        Self { operations: own.operations.clone(), self_ending: own.self_ending.clone(), ..self }
    }

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

/// The system asks a driver what it offers by WMI a little after it has registered, in ns.
const REGISTERED: u64 = 1_000_000;

/// How much is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Extent {
    /// What can be known of a driver that is only started.
    Start,
    /// What requests there are, and which end by themselves in company: all that a machine with more cards is surveyed for.
    Requests,
    /// Besides, what ends them else: the world outside of the card, and time limits of the driver's.
    Everything,
}

/// Asks the driver of a machine that is booted for it, whose image this is, and whose cards have these signals. What the user's script asks of it is known.
///
/// # Errors
/// As [`Boots::boot`].
pub fn survey(
    boots: &mut Boots,
    image: &Image,
    signals: Signals,
    script: Option<&Play>,
    extent: Extent,
) -> Result<Survey, Error> {
    boots.keep_reached();
    let compared = &compared(image);
    let looked = boots.boot_to_script(usual(), |machine| {
        let offered =
            if machine.is_ready() { machine.offered().unwrap_or_default() } else { Offered::default() };
        let _ = machine.wait(REGISTERED);
        let blocks = machine.wmi_blocks().unwrap_or_default();
        (machine.is_ready(), offered, machine.device_names(), blocks, machine.window_lengths())
    })?;
    let ((ready, offered, devices, blocks, windows), report) = looked;
    let mut blocks: Vec<String> =
        blocks.iter().map(|block| format!("block:{}", wmi::guid_text(&block.guid))).collect();
    blocks.dedup();
    let mut found = Survey {
        ready,
        plug_and_play: offered.plug_and_play,
        names: offered.links.iter().chain(&offered.devices).cloned().collect(),
        devices,
        blocks,
        children: Vec::new(),
        is_hardware: imports(image, &HARDWARE),
        knows_power: imports(image, &IDLE) || imports(image, &POWER),
        idles: imports(image, &IDLE),
        powers_down: false,
        directed: false,
        special_files: false,
        sets_timers: imports(image, &TIMERS),
        maps_buffers: imports(image, &["MmMapLockedPagesSpecifyCache"]),
        asks_others: imports(image, &ASKS),
        serves_32_bits: imports(image, &["IoIs32bitProcess"]),
        listens_for_interfaces: imports(image, &["IoRegisterPlugPlayNotification"]),
        watched: Watched::ALL.into_iter().filter(|watched| imports(image, watched.imports())).collect(),
        identity: Vec::new(),
        signals: signals.of_unknown,
        messages: signals.messages,
        boards: signals.boards,
        failure: report.failure.as_ref().map(|failure| format!("{}: {}", failure.command, failure.message)),
        operations: Vec::new(),
        self_ending: Vec::new(),
        stuck: Vec::new(),
        ending_beside: Vec::new(),
        behind_cancelled: Vec::new(),
        ended_by_closing: Vec::new(),
        ended_by: Vec::new(),
        ended_before: Vec::new(),
        passed_over: Vec::new(),
        anew: Vec::new(),
        ended_beside: Vec::new(),
        ended_together: Vec::new(),
        numbered: Vec::new(),
        answered: Vec::new(),
        timed: Vec::new(),
        aged: Vec::new(),
        outside: signals.outside,
        ended: Vec::new(),
        ended_by_bits: Vec::new(),
        limited: Vec::new(),
        limited_below: Vec::new(),
        stirring: Vec::new(),
        values: compared.values.iter().copied().chain(ends(&windows)).collect(),
        lacking: report.lacking().map(str::to_owned),
        absent: Vec::new(),
    };
    if !found.ready && extent == Extent::Everything {
        found.identity = identity::identity(boots, &found)?;
    }
    if extent == Extent::Everything && found.ready && found.plug_and_play && !found.devices.is_empty() {
        found.knows_power = found.knows_power || powering::knows_power(boots)?;
        found.directed = powering::is_directed(boots)?;
        found.special_files = powering::knows_special_files(boots)?;
    }
    if extent != Extent::Start {
        ask(boots, &mut found, compared, &offered, script, extent)?;
    }
    let service = boots.service();
    found.absent = boots.absent().iter().filter_map(|one| Absent::of_driver(one, service)).collect();
    Ok(found)
}

/// Finds out which requests the driver knows, and what comes of them.
fn ask(
    boots: &mut Boots,
    found: &mut Survey,
    compared: &Compared,
    offered: &Offered,
    script: Option<&Play>,
    extent: Extent,
) -> Result<(), Error> {
    let given = script.and_then(|play| Given::new(play, &found.names));
    if let Some(given) = &given {
        // It is asked of what the user's script opens.
        found.names.sort_by_key(|name| *name != given.name);
    }
    let Some(name) = found.names.first().filter(|_| found.ready).cloned() else { return Ok(()) };
    let handles = |major: usize| offered.majors.get(major).copied().unwrap_or(false);
    let mut asking = Asking { boots, name };
    let mut known: Vec<Known> = Vec::new();
    if handles(3) {
        known.extend(asking.read()?);
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
    if let Some(given) = given {
        asking.add_given(&mut known, given)?;
    }
    asking.ask_again(&mut known)?;
    asking.find_words_that_end(&mut known, &compared.values)?;
    asking.find_needs(&mut known)?;
    // Cards and boards of which nothing is known do nothing by themselves.
    let is_unknown = !found.signals.is_empty() || !found.boards.is_empty();
    let in_a_row = match found.is_hardware {
        false => MANY as usize,
        true if is_unknown => MORE_THAN_ANY,
        true => 0,
    };
    found.self_ending = asking.self_ending(&known, in_a_row)?;
    if extent == Extent::Everything {
        found.stuck = asking.stuck(&known, &found.self_ending)?;
        found.ending_beside = asking.ending_beside(&known, &found.self_ending)?;
        found.behind_cancelled = asking.behind_cancelled(&known, &found.self_ending)?;
        if !found.is_hardware {
            found.ended_by_closing = asking.ended_by_closing(&known)?;
        }
        found.ended_by = asking.ended_by(&known)?;
        for &(waits, ends) in &found.ended_by {
            if asking.all_end_spaced(&behind_needs(&known, &[ends, waits]))? {
                found.ended_before.push((waits, ends));
            }
        }
        found.passed_over = asking.passed_over(&known, &found.ended_by)?;
        found.anew = asking.ending_anew(&known)?;
        found.ended_beside = asking.ended_beside(&known, &found.self_ending, &found.ended_by)?;
        found.ended_together = asking.ended_together(&known, &found.ended_by)?;
        found.numbered = asking.numbered(&known)?;
        found.answered = asking.own_answers(&known, &found.self_ending)?;
        found.timed = asking.timed(&known)?;
        found.aged = asking.aged(&known)?;
        found.children = asking.children(&known, &found.devices)?;
        asking.find_what_arms(&mut known, &found.ended_by, &found.outside)?;
        found.ended = asking.ended(&known, &found.outside)?;
        found.ended_by_bits = asking.ended_by_bits(&known, &found.ended, &found.outside)?;
        let guessed = all_guessed_causes(&found.signals, &found.boards);
        for (operation, cause) in asking.ended_by_causes(&known, &found.ended, &guessed)? {
            let known = found.outside.iter().position(|other| *other == cause);
            let by = vec![known.unwrap_or(found.outside.len())];
            if known.is_none() {
                found.outside.push(cause);
            }
            found.ended.push(Ended { operations: vec![operation], by, before: false, twice: false });
        }
        found.limited = asking.limited(&known, Tempo::Cards)?;
        if found.asks_others && found.sets_timers {
            found.limited_below = asking.limited(&known, Tempo::Below)?;
        }
        found.powers_down = found.knows_power && asking.powers_down()?;
        found.stirring = asking.stirring(&found.signals, &found.boards)?;
    }
    found.operations = known.into_iter().map(|known| known.operation).collect();
    Ok(())
}

/// The last words of windows of so many bytes, and what comes behind them.
fn ends(windows: &[u64]) -> impl Iterator<Item = u32> {
    let ends = windows.iter().filter_map(|length| u32::try_from(*length).ok());
    ends.filter(|length| *length >= 4).flat_map(|length| [length - 4, length])
}

fn usual() -> Box<dyn engine::Chooser> {
    Box::new(Failing::new(0, 1))
}
