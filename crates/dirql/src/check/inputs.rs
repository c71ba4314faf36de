//! Inputs by what code they reach: sequences of requests, changed at random, of which those are kept that came to code, or were answered, as none
//! before. What the outside world does to cards comes between them.
//!
//! Requests as the survey has them come first, alone and in pairs; where a pair comes to new code, each request is made behind it: what one leaves behind
//! shows by what the next one does, though both may fail. What a request is answered with is handed to others, on its handle and on another one. Then sequences are changed. What is changed are the bytes, lengths and codes of requests, their number and order, and the handle; values come from the driver's comparisons, from
//! what it has answered, and from what numbers overflow at. A sequence is tried from an open device on, and the machine taken back there: what only the end
//! of a machine shows is seen when [`Inputs::scripts`] are carried out. Random numbers have one seed, so the same driver has the same inputs.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use abi::NtStatus;
use explore::Rng;
use kernel::hal::writes::Sketch;

use super::campaign::HUNG;
use super::corpus::sequence;
use super::exercise::{KeptSequence, MANY, OVERFLOWS, PAUSE, WORDS, open, open_other, tried};
use super::signals::{Outside, all_guessed_causes};
use super::survey::{Operation, Survey};
use crate::error::Error;
use crate::machine::Boots;
use crate::machine::sequences::{Answer, Came, Deed, Poke, Step};
use crate::machine::transfer::Transfer;
use crate::script::written;

/// So many steps at most.
const LONGEST: usize = 6;
/// The longest buffer that is made.
const LARGEST: usize = 4096;
/// So many sequences are kept.
const KEPT: usize = 2_000;
/// So many words that the driver has answered are kept.
const WORDS_KEPT: usize = 64;
/// So many sequences take part in stories: the last ones, which go deepest.
const SEQUENCES_KEPT: usize = 64;
/// So often a request is handed what another was answered with, each time in a few sequences.
const ANSWERS_HANDED: usize = 256;
/// So many things that the outside world does come behind each request first; later one in so many changes adds one.
const EVENTS: usize = 6;
const EVENT_ONE_IN: u64 = 8;
/// Places at a buffer's beginning.
const NEAR: usize = 4;
const SIZES: [usize; 16] = [0, 1, 2, 4, 7, 8, 12, 16, 20, 24, 32, 40, 64, 128, 256, 1024];
/// What scripts call the two handles.
pub(super) const HANDLES: [&str; 2] = ["h", "i"];
/// Kinds of requests that are no codes of the survey's.
const WRITE: u32 = 0;
const READ: u32 = 1;
const UNKNOWN: u32 = 2;
/// `FILE_ANY_ACCESS` and method of a code lie below its function's number.
const FUNCTION: u32 = 4;

/// What came of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Inputs {
    /// As `--do` has them: those that came to new code, and those that showed something wrong.
    pub scripts: Vec<String>,
    /// The requests of some of the sequences that were kept, each as one that is to come behind the one before it.
    pub sequences: Vec<Vec<Operation>>,
    /// How many were tried.
    pub tried: u64,
}

/// Tries so many sequences of requests to the first name of a driver. What was `kept` of earlier searches takes part before anything is changed.
///
/// # Errors
/// As [`Boots::boot`].
pub fn inputs(
    boots: &mut Boots,
    survey: &Survey,
    kept: &[KeptSequence],
    count: u64,
) -> Result<Inputs, Error> {
    let first: Vec<Transfer<'static>> = survey.operations.iter().map(transfer).collect();
    let (Some(name), false) = (survey.names.first(), count == 0 || first.is_empty()) else {
        return Ok(Inputs::default());
    };
    let mut kept = kept.iter().filter_map(|kept| sequence(&kept.script));
    let found = boots.try_sequences(name, &survey.blocks, |trial| {
        let mut looking = Looking::new(survey, name, first, trial.has_other());
        let (mut number, mut hung) = (0, 0);
        while number < count && hung < HUNG {
            // Half of all are changed in any case.
            let planned = if number < count / 2 { looking.planned.pop_front() } else { None };
            let steps = planned.clone().or_else(|| kept.next()).unwrap_or_else(|| looking.changed());
            let came = trial.run(&steps)?;
            hung += u32::from(came.hangs);
            match planned.as_deref() {
                Some([only]) if !came.stopped => looking.plan_answered(only, &came),
                Some([_, _]) if came.new_code && !came.stopped => looking.plan_behind(&steps),
                _ => {}
            }
            looking.came(steps, came);
            number += 1;
        }
        let scripts = looking.kept.into_iter().filter_map(|kept| kept.script).collect();
        Ok(Inputs { scripts, sequences: looking.sequences.into(), tried: number })
    })?;
    Ok(found.unwrap_or_default())
}

/// Each request of the survey's alone.
pub(super) fn alone(survey: &Survey) -> impl Iterator<Item = Vec<Step>> {
    survey.operations.iter().map(|operation| vec![asks(&transfer(operation))])
}

/// A request of the survey's.
fn transfer(operation: &Operation) -> Transfer<'static> {
    let words: Vec<&str> = operation.command.split_whitespace().collect();
    let behind = |key: &str| {
        let at = words.iter().position(|word| *word == key)?;
        words.get(at + 1)?.parse().ok()
    };
    match operation.code {
        Some(code) => Transfer::Control {
            code,
            input: operation.input().into(),
            output: behind("out").map_or(0, length),
        },
        None if words.first() == Some(&"read") => {
            let said = words.get(2).and_then(|length| length.parse().ok());
            Transfer::Read { length: said.unwrap_or(64), offset: None }
        }
        None => Transfer::Write { data: operation.input().into(), offset: None },
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes.min(LARGEST)).unwrap_or(0)
}

/// A sequence that was kept.
struct Kept {
    steps: Vec<Step>,
    /// What is carried out, if it came to new code or showed something wrong.
    script: Option<String>,
}

/// As a deed.
fn deed(Outside { device, signal, values }: &Outside) -> Deed {
    let poke = |value: &u64| Poke { device: device.clone(), signal: signal.clone(), value: *value };
    Deed::Poke(values.iter().map(poke).collect())
}

fn asks(request: &Transfer<'static>) -> Step {
    Step { on_other: false, deed: Deed::Ask(request.clone()) }
}

struct Looking<'s> {
    /// The device's.
    name: &'s str,
    /// Its WMI blocks, whose events each script enables.
    blocks: &'s [String],
    rng: Rng,
    /// What sequences begin with, and what is added to them.
    requests: Vec<Transfer<'static>>,
    /// What the outside world may do to cards: what is known of that, and what is guessed.
    outside: Vec<Deed>,
    guessed: Vec<Deed>,
    /// What was written to registers, by all sequences.
    written: Sketch,
    /// What is tried before anything is changed.
    planned: VecDeque<Vec<Step>>,
    kept: Vec<Kept>,
    /// Numbers that the driver's code compares with, and their neighbours.
    compared: Vec<u32>,
    /// Words of the driver's answers.
    answered: Vec<u64>,
    /// How often a request was handed an answer.
    handed: usize,
    has_other: bool,
    /// What it answered: which request of which kind, and the status.
    seen: BTreeSet<(u32, usize, u32, bool)>,
    wrong: BTreeSet<String>,
    /// [`Inputs::sequences`], the last ones.
    sequences: VecDeque<Vec<Operation>>,
}

impl<'s> Looking<'s> {
    fn new(survey: &'s Survey, name: &'s str, requests: Vec<Transfer<'static>>, has_other: bool) -> Self {
        let near = |value: &u32| [*value, value.wrapping_sub(1), *value, value.wrapping_add(1)];
        let compared = survey.values.iter().flat_map(near).collect();
        let (kept, answered) = (Vec::new(), Vec::new());
        let (seen, wrong, sequences) = (BTreeSet::new(), BTreeSet::new(), VecDeque::new());
        let alone = requests.iter().map(|one| vec![asks(one)]);
        let pairs = requests.iter().flat_map(|one| requests.iter().map(|other| vec![asks(one), asks(other)]));
        let outside: Vec<Deed> = survey.outside.iter().map(deed).collect();
        let guessed: Vec<Deed> =
            all_guessed_causes(&survey.signals, &survey.boards).iter().map(deed).collect();
        let planned = alone.chain(pairs).collect();
        let mut looking = Self {
            name,
            blocks: &survey.blocks,
            rng: Rng::new(1),
            outside,
            guessed,
            written: Sketch::default(),
            planned,
            requests,
            kept,
            compared,
            answered,
            handed: 0,
            has_other,
            seen,
            wrong,
            sequences,
        };
        for one in looking.requests.clone().iter().rev() {
            looking.plan_events(&[asks(one)]);
        }
        looking
    }

    /// Each request is to be made behind these, before the other pairs.
    fn plan_behind(&mut self, steps: &[Step]) {
        for one in self.requests.iter().rev() {
            self.planned.push_front(steps.iter().cloned().chain([asks(one)]).collect());
        }
    }

    /// What the outside world does is to come behind these.
    fn plan_events(&mut self, steps: &[Step]) {
        let is_event = |step: &Step| matches!(step.deed, Deed::Poke(_));
        if steps.len() < LONGEST && !steps.last().is_some_and(is_event) {
            for event in self.first_events().into_iter().rev() {
                self.planned.push_front(steps.iter().cloned().chain([event]).collect());
            }
        }
    }

    /// What is known that the outside world does, and one thing that is guessed.
    fn first_events(&self) -> Vec<Step> {
        let first = self.outside.iter().take(EVENTS).chain(self.guessed.first());
        first.map(|deed| Step { on_other: false, deed: deed.clone() }).collect()
    }

    /// What a request was answered with is to be handed to each other one: on the same handle, on the other one, and there when the first is closed.
    fn plan_answered(&mut self, only: &Step, came: &Came) {
        let Some(answer) = came.answers.first().map(|answer| answer.end.data.clone()) else { return };
        let is_number = |word: &[u8]| word.iter().any(|byte| *byte != 0);
        if !answer.first_chunk::<4>().is_some_and(|word| is_number(word)) {
            return;
        }
        for one in &self.requests {
            let mut handed = one.clone();
            let (Transfer::Control { input: bytes, .. } | Transfer::Write { data: bytes, .. }) = &mut handed
            else {
                continue;
            };
            let count = bytes.len().min(answer.len()).min(8);
            if count < 4 || self.handed == ANSWERS_HANDED {
                continue;
            }
            bytes.to_mut()[..count].copy_from_slice(&answer[..count]);
            let ask = |on_other| Step { on_other, deed: Deed::Ask(handed.clone()) };
            let close = Step { on_other: false, deed: Deed::Close };
            let mut plans = vec![vec![only.clone(), ask(false)]];
            if self.has_other {
                plans.push(vec![only.clone(), ask(true)]);
                plans.push(vec![only.clone(), close, ask(true)]);
            }
            self.handed += 1;
            plans.into_iter().rev().for_each(|plan| self.planned.push_front(plan));
        }
    }

    /// What was kept, changed.
    fn changed(&mut self) -> Vec<Step> {
        let mut steps = match self.kept.len() as u64 {
            0 => Vec::new(),
            // What was kept last is what has been changed least.
            count if self.rng.one_in(2) => {
                let back = self.rng.below(count.min(8)) + 1;
                self.kept[index(count - back)].steps.clone()
            }
            count => self.kept[index(self.rng.below(count))].steps.clone(),
        };
        for _ in 0..=self.rng.below(4) {
            self.change(&mut steps);
        }
        steps.truncate(LONGEST);
        steps
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        all.get(index(self.rng.below(all.len() as u64))).cloned()
    }

    /// Something that the outside world does: as often what is known as what is guessed.
    fn event(&mut self) -> Option<Step> {
        let knows = self.guessed.is_empty() || !self.outside.is_empty() && self.rng.one_in(2);
        let all = if knows { &self.outside } else { &self.guessed };
        let deed = all.get(index(self.rng.below(all.len() as u64))).cloned()?;
        Some(Step { on_other: false, deed })
    }

    fn change(&mut self, steps: &mut Vec<Step>) {
        let has_events = !self.outside.is_empty() || !self.guessed.is_empty();
        if has_events && self.rng.one_in(EVENT_ONE_IN) {
            let to = index(self.rng.below(steps.len() as u64 + 1));
            let event = self.event();
            steps.splice(to..to, event);
            return;
        }
        let at = index(self.rng.below(steps.len() as u64));
        match self.rng.below(16) {
            0..=2 => {
                let request = self.requests[index(self.rng.below(self.requests.len() as u64))].clone();
                let to = index(self.rng.below(steps.len() as u64 + 1));
                steps.insert(to, Step { on_other: false, deed: Deed::Ask(request) });
            }
            3 if steps.len() > 1 => drop(steps.remove(at)),
            4 if !steps.is_empty() => steps.insert(at, steps[at].clone()),
            5 if self.has_other && !steps.is_empty() => steps[at].on_other ^= true,
            6 if self.rng.one_in(4) => {
                let on_other = self.has_other && self.rng.one_in(2);
                steps.insert(
                    index(self.rng.below(steps.len() as u64 + 1)),
                    Step { on_other, deed: Deed::Close },
                );
            }
            7 => {
                let times = if self.rng.one_in(4) { MANY } else { 1 };
                if let Some(Step { deed, .. }) = steps.get_mut(at) {
                    match deed {
                        Deed::Ask(request) => *deed = Deed::Leave(request.clone(), times),
                        Deed::Leave(request, _) => *deed = Deed::Ask(request.clone()),
                        Deed::Close | Deed::Poke(_) => {}
                    }
                }
            }
            _ => {
                if let Some(Deed::Ask(request) | Deed::Leave(request, _)) =
                    steps.get_mut(at).map(|step| &mut step.deed)
                {
                    for _ in 0..=self.rng.below(3) {
                        self.change_request(request);
                    }
                }
            }
        }
    }

    fn change_request(&mut self, request: &mut Transfer<'static>) {
        match request {
            Transfer::Control { code, input, output } => match self.rng.below(12) {
                0 => *output = length(self.size()),
                1 if self.rng.one_in(4) => *code = self.near(*code),
                _ => self.change_bytes(input.to_mut()),
            },
            Transfer::Read { length: bytes, offset } => {
                if self.rng.one_in(3) {
                    *offset = Some(self.value());
                } else {
                    *bytes = length(self.size());
                }
            }
            Transfer::Write { data, offset } => {
                if self.rng.one_in(4) {
                    *offset = Some(self.value());
                } else {
                    self.change_bytes(data.to_mut());
                }
            }
            _ => {}
        }
    }

    /// A code beside one that the driver knows.
    fn near(&mut self, code: u32) -> u32 {
        let distance = u32::try_from(self.rng.below(8) + 1).unwrap_or(1) * FUNCTION;
        if self.rng.one_in(2) { code.wrapping_add(distance) } else { code.wrapping_sub(distance) }
    }

    fn size(&mut self) -> usize {
        if self.rng.one_in(3) { index(self.rng.below(300)) } else { self.one_of(&SIZES).unwrap_or(0) }
    }

    /// A number that may tell: one of the driver's own, a small one, or one that overflows.
    fn value(&mut self) -> u64 {
        let small = self.rng.below(17);
        match self.rng.below(8) {
            0..=3 if !self.compared.is_empty() => {
                self.compared[index(self.rng.below(self.compared.len() as u64))].into()
            }
            4 if !self.answered.is_empty() => {
                self.answered[index(self.rng.below(self.answered.len() as u64))]
            }
            5 => self.one_of(&WORDS).map_or(small, u64::from),
            6 => self.one_of(&OVERFLOWS).map_or(small, u64::from),
            _ => small,
        }
    }

    fn change_bytes(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() || self.rng.one_in(6) {
            let size = self.size();
            return bytes.resize(size, 0);
        }
        let width = [1, 2, 4, 4, 4, 8][index(self.rng.below(6))];
        // What a driver looks at stands at the beginning more often than not.
        let places = bytes.len().div_ceil(width);
        let places = if self.rng.one_in(2) { places.min(NEAR) } else { places };
        let at = index(self.rng.below(places as u64)) * width;
        let value = match self.rng.below(5) {
            0 => self.rng.roll(),
            // The buffer's own lengths, and what is near.
            1 => (bytes.len() as u64 + self.rng.below(9)).wrapping_sub(4),
            _ => self.value(),
        };
        let end = (at + width).min(bytes.len());
        bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
    }

    /// What came of a sequence: whether it is kept.
    fn came(&mut self, steps: Vec<Step>, came: Came) {
        let mut is_new = false;
        for answer in &came.answers {
            let Deed::Ask(request) = &steps[answer.step].deed else { continue };
            let kind = match request {
                Transfer::Control { code, .. } if self.knows(*code) => *code,
                Transfer::Control { .. } => UNKNOWN,
                Transfer::Read { .. } => READ,
                _ => WRITE,
            };
            // Requests before it may have led to this answer, so the second of a kind is another thing than the first.
            let before = steps[..answer.step].iter().filter(|step| same_kind(step, request)).count().min(2);
            is_new |= self.seen.insert((kind, before, answer.end.status, answer.end.information > 0));
            self.learn(&answer.end.data);
        }
        let writes_more =
            std::iter::zip(&mut self.written, came.written).fold(false, |more, (known, word)| {
                let before = std::mem::replace(known, *known | word);
                more || before != *known
            });
        if (writes_more || came.new_code) && !came.stopped {
            self.plan_events(&steps);
        }
        is_new |= writes_more;
        let shows = came.wrong.iter().fold(false, |new, key| self.wrong.insert(key.clone()) | new);
        let is_shown = came.new_code || shows;
        if (is_new || is_shown) && self.kept.len() < KEPT {
            let script = is_shown.then(|| script(self.name, self.blocks, &steps, &came.answers));
            if came.wrong.is_empty() && !came.stopped {
                self.sequences.push_back(operations(&steps, &came.answers));
                if self.sequences.len() > SEQUENCES_KEPT {
                    self.sequences.pop_front();
                }
            }
            let kept = Kept { steps, script };
            // What stops the machine leads nowhere.
            if came.stopped || !came.wrong.is_empty() {
                self.kept.insert(0, kept);
            } else {
                self.kept.push(kept);
            }
        }
    }

    /// Whether a request of the survey's has this code. Any other is refused by most drivers, each in the same way.
    fn knows(&self, code: u32) -> bool {
        self.requests.iter().any(|known| matches!(known, Transfer::Control { code: own, .. } if *own == code))
    }

    /// Words of an answer, which may be what another request is to hold.
    fn learn(&mut self, data: &[u8]) {
        for word in data.chunks_exact(4).take(16) {
            let word = u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            if word > 16 && !self.answered.contains(&word) {
                if self.answered.len() == WORDS_KEPT {
                    self.answered.remove(0);
                }
                self.answered.push(word);
            }
        }
    }
}

/// The requests of a sequence that succeeded, and the last one.
fn operations(steps: &[Step], answers: &[Answer]) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (number, Answer { step, waited, end }) in answers.iter().enumerate() {
        let Deed::Ask(request) = &steps[*step].deed else { continue };
        let succeeds = NtStatus(end.status).is_success();
        if succeeds || number + 1 == answers.len() {
            let code = if let Transfer::Control { code, .. } = request { Some(*code) } else { None };
            operations.push(Operation {
                command: command(HANDLES[0], request),
                code,
                succeeds,
                waits: *waited,
                variant: false,
                needs: None,
            });
        }
    }
    operations
}

fn same_kind(step: &Step, request: &Transfer<'_>) -> bool {
    match (&step.deed, request) {
        (Deed::Ask(Transfer::Control { code, .. }), Transfer::Control { code: own, .. }) => code == own,
        (Deed::Ask(other), request) => std::mem::discriminant(other) == std::mem::discriminant(request),
        _ => false,
    }
}

/// An index out of a number below a length.
fn index(number: u64) -> usize {
    usize::try_from(number).expect("it is below a length")
}

/// A sequence as a script: the device of this name is opened, and the events of its WMI blocks are enabled, first.
pub(super) fn script(name: &str, blocks: &[String], steps: &[Step], answers: &[Answer]) -> String {
    let mut commands = vec![open(name)];
    commands.extend(blocks.iter().map(|block| format!("wmi enable {block}")));
    let mut is_open = [true, steps.iter().any(|step| step.on_other)];
    if is_open[1] {
        commands.push(open_other(name));
    }
    let mut left = Vec::new();
    for (number, Step { on_other, deed }) in steps.iter().enumerate() {
        let of = usize::from(*on_other);
        let handle = HANDLES[of];
        match deed {
            Deed::Poke(pokes) => {
                let poke = |Poke { device, signal, value }: &Poke| {
                    format!("poke {device} {signal} {value}; wait 1ms")
                };
                commands.extend(pokes.iter().map(poke));
            }
            _ if !is_open[of] => {}
            Deed::Ask(request) => {
                let request = command(handle, request);
                let at_once = answers.iter().any(|answer| answer.step == number && !answer.waited);
                commands.push(if at_once { request } else { tried(number, &request) });
            }
            Deed::Leave(request, times) => {
                for count in 0..*times {
                    commands.push(format!("async l{number}x{count} {}", command(handle, request)));
                    left.push(format!("cancel l{number}x{count}; join l{number}x{count}"));
                }
            }
            Deed::Close => {
                commands.push(format!("close {handle}"));
                is_open[of] = false;
            }
        }
    }
    if !left.is_empty() {
        commands.push(PAUSE.to_owned());
        commands.extend(left);
    }
    let rest = HANDLES.into_iter().zip(is_open).filter(|(_, is_open)| *is_open);
    commands.extend(rest.map(|(handle, _)| format!("close {handle}")));
    commands.join("; ")
}

fn command(handle: &str, request: &Transfer<'_>) -> String {
    let mut text = String::new();
    let at = |offset: &Option<u64>| offset.map(|offset| format!(" at {offset:#x}")).unwrap_or_default();
    let _ = match request {
        Transfer::Read { length, offset } => write!(text, "read {handle} {length}{}", at(offset)),
        Transfer::Write { data, offset: Some(u64::MAX) } => {
            write!(text, "write {handle} {} at end", written(data))
        }
        Transfer::Write { data, offset } => write!(text, "write {handle} {}{}", written(data), at(offset)),
        Transfer::Control { code, input, output } => {
            let input = if input.is_empty() { String::new() } else { format!(" in {}", written(input)) };
            let output = if *output == 0 { String::new() } else { format!(" out {output}") };
            write!(text, "ioctl {handle} {code:#x}{input}{output}")
        }
        _ => Ok(()),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Completion;
    use crate::play::ScriptText;

    #[test]
    fn a_sequence_is_a_script_that_waits_where_the_driver_let_it_wait() {
        let control =
            |input: &[u8]| Transfer::Control { code: 0x22_2000, input: input.to_vec().into(), output: 8 };
        let step = |on_other, deed| Step { on_other, deed };
        let steps = [
            step(false, Deed::Ask(control(&[1, 0, 0, 0, 0, 0, 0, 0]))),
            step(true, Deed::Ask(Transfer::Read { length: 4, offset: Some(16) })),
            step(true, Deed::Leave(Transfer::Write { data: vec![0; 3].into(), offset: None }, 2)),
            step(true, Deed::Close),
            step(true, Deed::Ask(control(&[]))),
            step(
                true,
                deed(&Outside { device: "edu#0".to_owned(), signal: "late".to_owned(), values: vec![1, 0] }),
            ),
        ];
        let end = Completion { status: 0, information: 0, data: Vec::new() };
        let answers = [false, true].into_iter().enumerate();
        let answers: Vec<Answer> =
            answers.map(|(step, waited)| Answer { step, waited, end: end.clone() }).collect();
        let script = script(r"\\.\D", &[], &steps, &answers);
        let expected = "ioctl h 0x222000 in u32:0x1 + zero:4 out 8; async r1 read i 4 at 0x10; wait 20ms; cancel r1; join r1; \
                        async l2x0 write i zero:3; async l2x1 write i zero:3; close i; \
                        poke edu#0 late 1; wait 1ms; poke edu#0 late 0; wait 1ms; wait 20ms; cancel l2x0; join l2x0; cancel l2x1; join l2x1; close h";
        assert!(script.ends_with(expected), "{script}");
        assert!(ScriptText::typed(&script).play().is_ok(), "{script}");
    }

    #[test]
    fn of_a_sequence_what_succeeded_and_its_last_request_take_part_in_stories() {
        let ask = |code| Deed::Ask(Transfer::Control { code, input: vec![1, 0, 0, 0].into(), output: 0 });
        let mut steps: Vec<Step> =
            [1, 2, 3, 4].map(|code| Step { on_other: code == 2, deed: ask(code) }).into();
        steps.insert(1, Step { on_other: true, deed: Deed::Close });
        let ended = |step, status| {
            let end = Completion { status, information: 0, data: Vec::new() };
            Answer { step, waited: step == 2, end }
        };
        let failed = NtStatus::INVALID_PARAMETER.0;
        let all = operations(&steps, &[ended(0, failed), ended(2, 0), ended(3, failed), ended(4, failed)]);
        let expected = [("ioctl h 0x2 in u32:0x1", true, true), ("ioctl h 0x4 in u32:0x1", false, false)];
        assert_eq!(all.len(), expected.len());
        for (operation, (command, succeeds, waits)) in all.iter().zip(expected) {
            assert_eq!(
                (operation.command.as_str(), operation.succeeds, operation.waits),
                (command, succeeds, waits)
            );
        }
    }

    #[test]
    fn changed_sequences_are_the_same_for_the_same_answers() {
        let survey = Survey { values: vec![0x1234_5678], ..Survey::default() };
        let all = || {
            let read = Transfer::Read { length: 64, offset: None };
            let mut looking = Looking::new(&survey, "D", vec![read], true);
            (0..200)
                .map(|number| {
                    let steps = looking.planned.pop_front().unwrap_or_else(|| looking.changed());
                    looking.came(steps.clone(), Came { new_code: number % 9 == 0, ..Came::default() });
                    steps
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(all(), all());
        assert!(all().iter().all(|steps| steps.len() <= LONGEST));
    }
}
