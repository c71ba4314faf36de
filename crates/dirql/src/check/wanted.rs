//! The input that a device control code wants, found by what the driver compares.
//!
//! The input begins with bytes of which no two are alike, so each number that the driver compares tells whether it comes from there, or is the length of
//! one of the buffers: then what it was compared with is put in its place. What leads to comparisons or code that none has led to before is kept, and the next
//! one changed, from the last on: that is where the driver has turned away. Where no change leads further, what was kept before is changed otherwise.
//! Of what is only limited little is put there, so that it fits whatever else is asked; once a request succeeds, so much as it still does with. A due
//! time that comes from the input is made a short one: that of a request that would wait for ever is let end. Where a handle comes from it, an event's is put,
//! and where an address does, that of a page of the application's.
//!
//! A number may be compared after another was added to it, whichever that is (`x - 0x100001`). Where nothing else leads further, the same is asked with
//! other words: what is compared then is another by as much as the word is that it comes from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::{Asked, Compare};

/// So many bytes of the input are found out.
pub(super) const FOUND: usize = 64;
/// The length of the output buffer at first: another than the input's.
const OUTPUT: u32 = 72;
/// What the input begins with, counting up.
const FIRST: u8 = 0x80;
/// The longest buffer that is tried.
const LONGEST: u64 = 4096;
/// A number may be so much more or less than what stands in the input: a header's length was added to it.
const APART: i64 = 64;
/// The same of a buffer's length, before all else was tried: small numbers are so much less than any length.
const NEAR: i64 = 16;
/// So many bytes follow a header where they can be fewer: no whole word.
const SHORT: u64 = 5;
/// So many inputs are found, and one more with the greatest words.
const MOST: usize = 3;
/// A short time, in units of 100 ns: the survey still sees its end. And what an input may count in instead.
const SHORTLY: i64 = 100_000;
const COUNTED_IN: [i64; 2] = [10, 10_000];
/// So much is put in a word of which little was enough.
const MORE: u64 = 16;
/// So many rounds of a loop lead further than the one before.
const ROUNDS: usize = 3;
/// So many different comparisons of one instruction are looked at: those of a loop over all of an input.
const OF_ONE: usize = FOUND;
/// The greatest that a word may be is looked for by so many requests.
const HALVES: u32 = 12;
/// The bytes of what is the application's: a handle or an address.
pub(super) const OWN_BYTES: usize = 8;
/// Words that are put where the driver has asked for nothing, if nothing else succeeds: small numbers of 4, 2 and 1 bytes.
const SMALL: [u32; 4] = [1, 0x0001_0001, 0x0101_0101, 0x0004_0004];
/// By so much times its number from 1 on a word is made another one.
const SHIFT: u32 = 0x1003;

/// An input, and the length of the output buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) input: Vec<u8>,
    pub(super) output: u32,
    /// Bytes that hold what the driver has asked for.
    given: BTreeSet<usize>,
    /// The words in which it does: where, of how many bytes.
    put: BTreeSet<(usize, usize)>,
    /// Words of which it may have asked only that they are no greater than this: where, of how many bytes.
    limits: Vec<(usize, usize, u64)>,
    /// What stands in it of the application's.
    pub(super) own: Owns,
}

/// Up to so many things: more than a thread can wait for without memory of its driver's.
pub(super) type Owns = [Option<Own>; 5];

/// What is known only when the request is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Own {
    /// Where in the input it stands, 8 bytes.
    pub(super) at: usize,
    pub(super) what: Thing,
}

/// A thing of the application's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Thing {
    /// The handle of an event: another one at each place.
    Event,
    /// The address of a page of memory.
    Page,
}

impl Own {
    /// As a script has it.
    pub(super) fn text(self) -> String {
        match self.what {
            Thing::Event => format!("event:e{}", self.at),
            Thing::Page => "page:own".to_owned(),
        }
    }
}

/// The life of a request that ends the machine.
pub(super) const ENDING: u32 = u32::MAX;

/// What comes of an input.
pub(super) struct Came {
    /// The longer the request lives, the more; 0: it fails; [`ENDING`].
    pub(super) life: u32,
    /// What the driver compared, in order.
    pub(super) compared: Vec<Compare>,
    /// It came to code that no request before it had come to.
    pub(super) new_code: bool,
}

/// A change of an input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Change {
    /// At this place, of so many bytes.
    Put(usize, usize, u64),
    /// The same for what may be so great.
    Limit(usize, usize, u64, u64),
    Own(Own),
    InputLength(u64),
    OutputLength(u64),
}

/// Which word of the input a number comes from that an instruction has compared.
struct Origin {
    rip: u64,
    number: u64,
    at: usize,
}

/// What is changed for a comparison to come out otherwise: the less likely when all else was tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reach {
    /// What the driver has asked for nothing of, and lengths that are about the number that it compared.
    Near,
    /// Words that were put there for it, too: it may take more than one.
    Again,
    /// All lengths that the number may have to do with.
    Far,
}

impl Reach {
    const fn next(self) -> Option<Self> {
        match self {
            Self::Near => Some(Self::Again),
            Self::Again => Some(Self::Far),
            Self::Far => None,
        }
    }
}

/// An input that led further.
struct Kept {
    wanted: Wanted,
    came: Came,
    /// The comparisons that may be made to come out otherwise, the last first.
    telling: Vec<Compare>,
    /// What is compared of it after another number was added; none if that was not asked.
    origins: Option<Vec<Origin>>,
}

impl Kept {
    fn new(wanted: Wanted, came: Came) -> Self {
        let telling = came.telling();
        Self { wanted, came, telling, origins: None }
    }

    /// A change that was not tried.
    fn fresh(&self, tried: &BTreeSet<(u64, Change)>, reach: Reach) -> Option<(Compare, Change)> {
        let changes = self.telling.iter().flat_map(|compare| {
            let changes = self.wanted.changes(compare, self.origins(), reach);
            changes.into_iter().map(|change| (*compare, change))
        });
        let is_one = |change: Change| !self.wanted.is_like(&self.wanted.with(change));
        changes
            .into_iter()
            .find(|(compare, change)| !tried.contains(&(compare.rip, *change)) && is_one(*change))
    }

    fn origins(&self) -> &[Origin] {
        self.origins.as_deref().unwrap_or_default()
    }

    /// Finds that out by what came of other words.
    fn find_origins(&mut self, then: Option<&Came>) {
        let mut left: BTreeMap<u64, VecDeque<&Compare>> = BTreeMap::new();
        for compare in then.iter().flat_map(|came| &came.compared) {
            left.entry(compare.rip).or_default().push_back(compare);
        }
        let mut origins = Vec::new();
        for compare in &self.came.compared {
            // Each instruction's comparisons are in the same order.
            let Some(other) = left.get_mut(&compare.rip).and_then(VecDeque::pop_front) else { continue };
            if compare.asked != Asked::Order || compare.bytes < 4 {
                continue;
            }
            for (number, shifted) in [(compare.left, other.left), (compare.right, other.right)] {
                let by = shifted.wrapping_sub(number) & u64::from(u32::MAX);
                let at = self.wanted.words().find(|at| by == u64::from(Wanted::shift(*at)));
                origins.extend(at.map(|at| Origin { rip: compare.rip, number, at }));
            }
        }
        self.origins = Some(origins);
    }
}

impl Came {
    /// The instructions that compared.
    pub(super) fn sites(&self) -> impl Iterator<Item = u64> {
        self.compared.iter().map(|compare| compare.rip)
    }

    /// What was compared, the last first, each once: loops compare thousands of times.
    fn telling(&self) -> Vec<Compare> {
        let mut seen: BTreeMap<u64, BTreeSet<Compare>> = BTreeMap::new();
        let is_first = |compare: &&Compare| {
            let seen = seen.entry(compare.rip).or_default();
            seen.len() < OF_ONE && seen.insert(**compare)
        };
        self.compared.iter().rev().filter(is_first).copied().collect()
    }

    /// They, and how often each has before: a loop goes further, too.
    fn progress(&self) -> BTreeSet<(u64, usize)> {
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        let counted = self.sites().map(|rip| {
            let time = times.entry(rip).or_default();
            *time += 1;
            (rip, (*time - 1).min(ROUNDS))
        });
        counted.collect()
    }
}

impl Wanted {
    /// What is begun with.
    pub(super) fn first() -> Self {
        Self::of_lengths(FOUND, OUTPUT)
    }

    /// The same with buffers of these lengths.
    pub(super) fn of_lengths(input: usize, output: u32) -> Self {
        let mut bytes: Vec<u8> = (FIRST..).take(FOUND).collect();
        bytes.resize(input, 0);
        Self {
            input: bytes,
            output,
            given: BTreeSet::new(),
            put: BTreeSet::new(),
            limits: Vec::new(),
            own: Owns::default(),
        }
    }

    /// Whether a driver is asked the same by it.
    fn is_like(&self, other: &Self) -> bool {
        (&self.input, self.output, self.own) == (&other.input, other.output, other.own)
    }

    /// Where words of four bytes begin of which the driver has asked for no byte.
    fn words(&self) -> impl Iterator<Item = usize> {
        let whole = self.input.len().min(FOUND) & !3;
        (0..whole).step_by(4).filter(|at| (*at..at + 4).all(|at| !self.given.contains(&at)))
    }

    /// By how much the word at this place is made another one.
    fn shift(at: usize) -> u32 {
        u32::try_from(at / 4 + 1).unwrap_or(0).wrapping_mul(SHIFT)
    }

    /// With other words where the driver has asked for nothing.
    fn shifted(&self) -> Self {
        let mut other = self.clone();
        for at in self.words() {
            let word = &mut other.input[at..at + 4];
            let now = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            word.copy_from_slice(&now.wrapping_add(Self::shift(at)).to_le_bytes());
        }
        other
    }

    /// With this word wherever the driver has asked for nothing.
    fn filled(&self, word: u32) -> Self {
        let mut other = self.clone();
        for (at, byte) in other.input.iter_mut().enumerate().filter(|(at, _)| !self.given.contains(at)) {
            *byte = word.to_le_bytes()[at % 4];
        }
        other
    }

    /// With zeroes where the driver has asked for nothing.
    pub(super) fn plain(&self) -> Self {
        self.filled(0)
    }

    /// With zeroes in as many words as `lives` says that they may have, so that a request still succeeds.
    fn simplest<E>(&self, lives: &mut impl FnMut(&Self) -> Result<bool, E>) -> Result<Self, E> {
        let plain = self.plain();
        if lives(&plain)? {
            return Ok(plain);
        }
        let mut simplest = self.clone();
        for at in (0..self.input.len().min(FOUND)).step_by(8) {
            let mut other = simplest.clone();
            let end = other.input.len().min(at + 8);
            other.input[at..end].copy_from_slice(&plain.input[at..end]);
            if other != simplest && lives(&other)? {
                simplest = other;
            }
        }
        Ok(simplest)
    }

    /// With less behind it, where a word that the driver has asked for may say how much that is: what it makes room for then is not filled.
    fn shorter(&self) -> Vec<Self> {
        let length = self.input.len() as u64;
        let places = 0..FOUND.min(self.input.len()).saturating_sub(3);
        let shorter = places.filter(|at| (*at..at + 4).all(|at| self.given.contains(&at))).filter_map(|at| {
            let word = u64::from(u32::from_le_bytes(*self.input[at..].first_chunk()?));
            let header = length.checked_sub(word).filter(|header| *header <= APART.cast_unsigned())?;
            let shorter = self.with(Change::Put(at, 4, SHORT)).with(Change::InputLength(header + SHORT));
            (word > SHORT).then_some(shorter)
        });
        shorter.collect()
    }

    fn put(&mut self, at: usize, bytes: usize, value: u64) {
        self.input[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self.given.extend(at..at + bytes);
        self.put.insert((at, bytes));
    }

    fn word(&self, at: usize, bytes: usize) -> u64 {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&self.input[at..at + bytes]);
        u64::from_le_bytes(word)
    }

    /// With each limited word as great as it may be, one after the other, where `lives` says whether a request still succeeds.
    fn greatest<E>(&self, mut lives: impl FnMut(&Self) -> Result<bool, E>) -> Result<Self, E> {
        let mut greatest = self.clone();
        let length = self.input.len();
        for (at, bytes, limit) in self.limits.iter().copied().filter(|(at, bytes, _)| at + bytes <= length) {
            let (mut low, mut high) = (greatest.word(at, bytes), limit);
            // The limit itself is the first that is tried.
            let mut next = high;
            for _ in 0..HALVES {
                if next <= low {
                    break;
                }
                let other = greatest.with(Change::Put(at, bytes, next));
                if lives(&other)? {
                    (greatest, low) = (other, next);
                } else {
                    high = next;
                }
                next = low + (high - low) / 2;
            }
        }
        Ok(greatest)
    }

    /// With more in each limited word, of which one may say how much is in a buffer.
    fn with_more(&self) -> impl Iterator<Item = Self> {
        let is_inside = |at: usize, bytes: usize| at + bytes <= self.input.len();
        let limits =
            self.limits.iter().filter(move |(at, bytes, limit)| is_inside(*at, *bytes) && *limit > 1);
        limits.map(|(at, bytes, limit)| self.with(Change::Put(*at, *bytes, MORE.min(*limit))))
    }

    /// With the length of a buffer that this is refused for, if there is one by which it is not refused; and how long it lives then.
    fn with_its_length<E>(
        &self,
        ask: &mut impl FnMut(&Self) -> Result<Option<Came>, E>,
    ) -> Result<Option<(Self, u32)>, E> {
        let Some(came) = ask(self)?.filter(|came| came.life == 0) else { return Ok(None) };
        let lengths = came.compared.iter().rev().flat_map(|compare| self.changes(compare, &[], Reach::Far));
        let lengths =
            lengths.filter(|change| matches!(change, Change::InputLength(_) | Change::OutputLength(_)));
        for change in lengths {
            let other = self.with(change);
            if let Some(came) = ask(&other)?.filter(|came| came.life > 0) {
                return Ok(Some((other, came.life)));
            }
        }
        Ok(None)
    }

    fn with(&self, change: Change) -> Self {
        let mut wanted = self.clone();
        match change {
            Change::Put(at, bytes, value) => wanted.put(at, bytes, value),
            Change::Limit(at, bytes, value, greatest) => {
                wanted.put(at, bytes, value);
                wanted.limits.push((at, bytes, greatest));
            }
            Change::Own(own) => {
                wanted.put(own.at, OWN_BYTES, 0);
                if let Some(free) = wanted.own.iter_mut().find(|other| other.is_none()) {
                    *free = Some(own);
                }
            }
            Change::InputLength(length) => {
                wanted.input.resize(usize::try_from(length).unwrap_or(0), 0);
                wanted.own = wanted.own.map(|own| own.filter(|own| own.at + OWN_BYTES <= wanted.input.len()));
            }
            Change::OutputLength(length) => wanted.output = u32::try_from(length).unwrap_or(0),
        }
        wanted
    }

    /// What of the application's may stand where the driver has wanted some first.
    fn own_wanted(&self, compared: &[Compare]) -> Option<Change> {
        let mut wants =
            compared.iter().filter(|compare| matches!(compare.asked, Asked::Handle | Asked::Address));
        wants.find_map(|compare| self.changes(compare, &[], Reach::Near).first().copied())
    }

    /// What may be changed for a comparison to come out otherwise.
    fn changes(&self, compare: &Compare, origins: &[Origin], reach: Reach) -> Vec<Change> {
        let Compare { rip, bytes, asked, left, right } = *compare;
        let is_mask = match asked {
            Asked::Bits => true,
            Asked::Order => false,
            Asked::DueTime => return self.shortly(left.cast_signed()),
            Asked::Handle => return self.own(Thing::Event, left).into_iter().collect(),
            Asked::Address => return self.own(Thing::Page, left).into_iter().collect(),
        };
        let mut changes = Vec::new();
        for (own, other) in [(left, right), (right, left)] {
            let origin = origins.iter().find(|origin| origin.rip == rip && origin.number == own);
            let moved = |value: u64| {
                origin.map(|origin| {
                    let added = own.wrapping_sub(self.word(origin.at, 4));
                    Change::Put(origin.at, 4, value.wrapping_sub(added) & u64::from(u32::MAX))
                })
            };
            let places = |value: u64| {
                let mut places = self.places(own, bytes as usize, value, reach);
                places.extend(moved(value).filter(|_| places.is_empty()));
                places
            };
            if !is_mask {
                // Of what is only limited, little.
                changes.extend(places(1).into_iter().map(|change| limited(change, other.wrapping_sub(1))));
            }
            let values = match is_mask {
                true if own == other => vec![0, 1],
                true => masked(own, other),
                false => vec![other, other.wrapping_sub(1), other.wrapping_add(1)],
            };
            changes.extend(values.into_iter().flat_map(places));
            if own == other {
                break;
            }
        }
        changes
    }

    /// Where a due time comes from, changed so that it comes shortly: it stands there, negative or not, or how many microseconds or milliseconds it is.
    fn shortly(&self, due: i64) -> Vec<Change> {
        let units = [(due, -SHORTLY), (due.wrapping_neg(), SHORTLY)].into_iter();
        let counted = COUNTED_IN.into_iter().filter(|unit| due % unit == 0);
        let counted = counted.map(|unit| ((due / unit).wrapping_neg(), SHORTLY / unit));
        let place = |(own, value): (i64, i64)| {
            self.places(own.cast_unsigned(), 8, value.cast_unsigned(), Reach::Near)
        };
        units.chain(counted).flat_map(place).collect()
    }

    /// Where the number of such a thing comes from.
    fn own(&self, what: Thing, number: u64) -> Option<Change> {
        let last = self.input.len().min(FOUND).checked_sub(OWN_BYTES)?;
        let is_free = |at: usize| (at..at + OWN_BYTES).all(|at| !self.given.contains(&at));
        let at = (0..=last).find(|at| is_free(*at) && self.word(*at, OWN_BYTES) == number);
        at.filter(|_| self.own.contains(&None)).map(|at| Change::Own(Own { at, what }))
    }

    /// Where a number that was compared comes from, changed so that it would have been `value`.
    fn places(&self, own: u64, bytes: usize, value: u64, reach: Reach) -> Vec<Change> {
        let mut changes = Vec::new();
        for width in [8, 4, 2, 1].into_iter().filter(|width| *width <= bytes) {
            for at in 0..=FOUND.min(self.input.len()).saturating_sub(width) {
                let is_given = (at..at + width).all(|at| self.given.contains(&at));
                let is_again = reach >= Reach::Again && self.put.contains(&(at, width));
                if at + width > self.input.len() || is_given && !is_again {
                    continue;
                }
                let word = self.word(at, width);
                let apart = own.wrapping_sub(word).cast_signed();
                let high = !0xFFFF_u64;
                if apart == 0 || matches!(width, 2 | 4) && apart.abs() <= APART {
                    changes.push(Change::Put(at, width, value.wrapping_sub(apart.cast_unsigned())));
                } else if width == 4 && own == word & high {
                    changes.push(Change::Put(at + 2, 2, value >> 16));
                }
            }
        }
        let about = if reach == Reach::Far { APART } else { NEAR };
        let mut lengths = |length: u64, change: fn(u64) -> Change| {
            let to = value.wrapping_add(length.wrapping_sub(own));
            if own <= length && length - own <= about.cast_unsigned() && to <= LONGEST && to != length {
                changes.push(change(to));
            }
        };
        lengths(self.input.len() as u64, Change::InputLength);
        lengths(self.output.into(), Change::OutputLength);
        changes
    }
}

/// What may be wanted instead of a number of which these bits are looked at: all of these, the first one, none of them; all others, if they are few.
fn masked(number: u64, bits: u64) -> Vec<u64> {
    let others = u64::from(!u32::try_from(bits).unwrap_or(0));
    let few = Some(others).filter(|others| *others <= u64::from(u16::MAX));
    [bits, bits & bits.wrapping_neg(), number & !bits].into_iter().chain(few).collect()
}

/// The change that puts 1 there, of what may be so much more: also where it was compared less 1, as what may not be 0.
fn limited(change: Change, more: u64) -> Change {
    match change {
        Change::Put(at, bytes, value) => {
            let (value, more) = if value == 2 { (1, more.saturating_add(1)) } else { (value, more) };
            let greatest = value.saturating_add(more).min(u64::MAX >> (64 - 8 * bytes));
            Change::Limit(at, bytes, value, greatest)
        }
        length => length,
    }
}

/// An input that fails, and behind which most was compared.
struct Furthest {
    wanted: Wanted,
    sites: BTreeSet<(u64, usize)>,
    /// What of the application's the driver wanted then, and had not.
    own: Option<Change>,
}

/// Inputs by which requests succeed, each by other comparisons than those before it, the first of them with the greatest words, and another time until it
/// ends; and one that ends the machine, if one does. If there is none of these, one that fails where no other comes to. `ask` makes a request, the first one
/// and `trials` more at most, and some more where one succeeds.
pub(super) fn wanted<E>(
    first: Wanted,
    trials: usize,
    mut ask: impl FnMut(&Wanted) -> Result<Option<Came>, E>,
) -> Result<Vec<(Wanted, u32)>, E> {
    let (mut sites, mut tried, mut found) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let (mut greatest, mut longer, mut timed, mut ending) = (None, None, None, None);
    let Some(came) = ask(&first)? else { return Ok(found) };
    if came.life == ENDING {
        return Ok(vec![(first.plain(), ENDING)]);
    }
    sites.extend(came.progress());
    let mut longest = came.life;
    let mut furthest: Option<Furthest> = None;
    // What was kept: the last is changed, and where that leads no further, the one before it.
    let mut kept = vec![Kept::new(first, came)];
    let (mut laid_by, mut reach) = (Vec::new(), Reach::Near);
    for _ in 0..trials {
        while let Some(last) = kept.last_mut().filter(|last| last.fresh(&tried, reach).is_none()) {
            if last.origins.is_none() {
                last.find_origins(ask(&last.wanted.shifted())?.as_ref());
                continue;
            }
            laid_by.extend(kept.pop());
            if kept.is_empty()
                && let Some(further) = reach.next()
            {
                reach = further;
                kept.extend(laid_by.drain(..).rev());
            }
        }
        let last = kept.last().and_then(|last| Some((last, last.fresh(&tried, reach)?)));
        let Some((Kept { wanted: now, came, .. }, (compare, change))) = last else { break };
        tried.insert((compare.rip, change));
        let other = now.with(change);
        let Some(then) = ask(&other)? else { continue };
        let before = sites.len();
        sites.extend(then.progress());
        if then.life == ENDING {
            ending.get_or_insert((other.plain(), ENDING));
            continue;
        }
        if compare.asked == Asked::DueTime && then.life > 0 && then.life != came.life {
            timed.get_or_insert((other.plain(), then.life));
        }
        if sites.len() == before && then.life <= longest && !then.new_code {
            continue;
        }
        let life = then.life;
        longest = longest.max(life);
        if life > 0 {
            let mut lives = |wanted: &Wanted| Ok(ask(wanted)?.is_some_and(|then| then.life == life));
            let mut simplest = other.simplest(&mut lives)?;
            for shorter in simplest.shorter() {
                if lives(&shorter)? {
                    simplest = shorter;
                    break;
                }
            }
            if found.is_empty() {
                for more in simplest.with_more() {
                    let Some((other, life)) = more.with_its_length(&mut ask)? else { continue };
                    let kept = if life == ENDING { &mut ending } else { &mut longer };
                    kept.get_or_insert((other, life));
                }
                let lives = |wanted: &Wanted| Ok(ask(wanted)?.is_some_and(|then| then.life == life));
                greatest = Some((simplest.greatest(lives)?, life));
            }
            found.push((simplest, life));
            if found.len() == MOST {
                break;
            }
        }
        let progress = then.progress();
        if life == 0 && furthest.as_ref().is_none_or(|known| progress.len() >= known.sites.len()) {
            let own = other.own_wanted(&then.compared);
            furthest = Some(Furthest { wanted: other.clone(), sites: progress, own });
        }
        kept.push(Kept::new(other, then));
    }
    found.extend(greatest);
    found.extend(longer);
    found.extend(timed);
    found.extend(ending);
    // Numbers that are multiplied are compared in no form that shows them: small ones do most often.
    if let Some(Furthest { wanted, own, .. }) = furthest.as_ref().filter(|_| found.is_empty()) {
        // So does memory that is long enough for what they say.
        let with_own = own.map(|own| wanted.with(own));
        let wanted = with_own.as_ref().unwrap_or(wanted);
        for word in SMALL {
            let other = wanted.filled(word);
            let Some(life) = ask(&other)?.map(|came| came.life).filter(|life| *life > 0) else { continue };
            let mut lives = |wanted: &Wanted| Ok(ask(wanted)?.is_some_and(|then| then.life == life));
            let simplest = if life == ENDING { other } else { other.simplest(&mut lives)? };
            found.push((simplest, life));
            break;
        }
    }
    // What fails still has the lengths and numbers that the driver asks for first, behind which it may want what another request leaves.
    if let Some(Furthest { wanted, sites, .. }) = furthest.filter(|_| found.is_empty()) {
        let comes_so_far = |came: Came| sites.is_subset(&came.progress());
        let plain = wanted.plain();
        let is_plain = ask(&plain)?.is_some_and(comes_so_far);
        found.push((if is_plain { plain } else { wanted }, 0));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver that wants a header of three words (a number below 16, one of two kinds, how many bytes follow) and that many bytes, and room for the
    /// answer; and what it compares until it has had enough.
    fn driver(wanted: &Wanted) -> Came {
        let mut compared = Vec::new();
        let mut compare = |rip, left: usize, right: usize| {
            let (left, right) = (left as u64, right as u64);
            compared.push(Compare { rip, bytes: 4, asked: Asked::Order, left, right });
            left.cmp(&right)
        };
        let word = |at: usize| {
            let word = wanted.input[at..at + 4].try_into().unwrap();
            u32::from_le_bytes(word) as usize
        };
        let length = wanted.input.len();
        let succeeds = compare(1, length, 12).is_ge()
            && compare(2, word(0), 16).is_lt()
            && compare(3, word(4), 7).is_eq()
            && compare(4, word(8) + 12, length).is_eq()
            && compare(5, wanted.output as usize, 76).is_ge();
        Came { life: succeeds.into(), compared, new_code: false }
    }

    #[test]
    fn a_header_is_found_by_what_it_is_compared_with() {
        let mut asked = 0;
        let found = wanted::<()>(Wanted::first(), 64, |wanted| {
            asked += 1;
            Ok(Some(driver(wanted)))
        });
        let found = found.unwrap();
        let (first, life) = &found[0];
        assert_eq!(*life, 1);
        assert_eq!(driver(first).life, 1);
        assert_eq!(first.input, [1, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
        let (greatest, _) = found.last().unwrap();
        assert_eq!(driver(greatest).life, 1);
        assert_eq!(greatest.input[..12], [15, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0], "a number below 16");
        assert!(asked <= 120, "{asked}");
    }

    #[test]
    fn numbers_that_are_multiplied_are_small() {
        // A magic number, and a count and a size of 2 bytes each whose product fits into the input and is not 0.
        let driver = |wanted: &Wanted| {
            let compare = |rip, left, right| Compare { rip, bytes: 4, asked: Asked::Order, left, right };
            let mut compared = vec![compare(1, wanted.word(0, 4), 0x4B43_4150)];
            let bytes = wanted.word(8, 2) * wanted.word(10, 2);
            let is_known = wanted.word(0, 4) == 0x4B43_4150;
            if is_known {
                compared.push(compare(2, bytes, wanted.input.len() as u64 - 12));
            }
            let succeeds = is_known && (1..=wanted.input.len() as u64 - 12).contains(&bytes);
            Came { life: succeeds.into(), compared, new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        let [(first, 1)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(driver(first).life, 1);
        assert_eq!(first.input[..12], [0x50, 0x41, 0x43, 0x4B, 0, 0, 0, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn an_input_that_ends_the_machine_is_one_of_those_that_are_wanted() {
        // Both lengths must be 48.
        let driver = |wanted: &Wanted| {
            let [output, input] = [u64::from(wanted.output), wanted.input.len() as u64];
            let compare = |rip, left| Compare { rip, bytes: 4, asked: Asked::Order, left, right: 48 };
            let compared = [compare(1, output), compare(2, input)];
            let count = if output == 48 { 2 } else { 1 };
            let life = if (output, input) == (48, 48) { ENDING } else { 0 };
            Came { life, compared: compared[..count].to_vec(), new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        let [(ending, ENDING)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((ending.input.as_slice(), ending.output), ([0; 48].as_slice(), 48));
    }

    #[test]
    fn where_a_choice_leads_no_further_the_other_one_is_made_and_a_request_that_would_wait_for_ever_is_let_end()
     {
        // The first word is 1, for what fails in any case, or 0; a time stands behind it.
        let driver = |wanted: &Wanted| {
            let [kind, time] = [wanted.word(0, 4), wanted.word(8, 8)];
            let compare = |rip, asked, left, right| Compare { rip, bytes: 4, asked, left, right };
            let mut compared = vec![compare(1, Asked::Bits, kind, kind), compare(2, Asked::Order, kind, 1)];
            let time = time.cast_signed();
            let life = match kind {
                0 => {
                    let due = Compare { bytes: 8, ..compare(0, Asked::DueTime, time.cast_unsigned(), 0) };
                    compared = vec![compared[0], due];
                    if time < -1_000_000 { 3 } else { 2 }
                }
                1 => {
                    compared.push(compare(3, Asked::Bits, 0, 0));
                    0
                }
                _ => 0,
            };
            Came { life, compared, new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        let lives: Vec<u32> = found.iter().map(|(_, life)| *life).collect();
        assert_eq!(lives, [3, 3, 2]);
        assert_eq!(found[2].0.word(8, 8).cast_signed(), -SHORTLY);
    }

    #[test]
    fn a_number_is_found_that_another_was_added_to_before_it_was_compared() {
        // A number from 1 to 0x100000 at byte 8, as compilers ask for it.
        let driver = |wanted: &Wanted| {
            let word = wanted.word(8, 4).wrapping_sub(0x10_0001) & u64::from(u32::MAX);
            let compare = Compare { rip: 1, bytes: 4, asked: Asked::Order, left: word, right: 0xFFEF_FFFF };
            Came { life: u32::from(word > 0xFFEF_FFFF), compared: vec![compare], new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        assert_eq!(found.first().map(|(wanted, _)| wanted.word(8, 8)), Some(1));
    }

    #[test]
    fn an_event_stands_where_a_handle_is_taken_from_behind_the_length_that_is_asked_for_first() {
        let event = Own { at: 12, what: Thing::Event };
        let driver = |wanted: &Wanted| {
            let length = wanted.input.len() as u64;
            let mut compared =
                vec![Compare { rip: 1, bytes: 4, asked: Asked::Order, left: length, right: 24 }];
            if length == 24 {
                let left = wanted.word(12, 8);
                compared.push(Compare { rip: 0, bytes: 8, asked: Asked::Handle, left, right: 0 });
            }
            Came { life: (length == 24 && wanted.own[0] == Some(event)).into(), compared, new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        assert_eq!(found[0].0.own, [Some(event), None, None, None, None]);
    }

    #[test]
    fn each_record_of_an_array_gets_what_the_loop_over_them_asks_for() {
        // Two records: each is to begin with a number below 16, and holds an address.
        let driver = |wanted: &Wanted| {
            let (mut compared, mut records) = (Vec::new(), 0);
            for at in [0, 24] {
                let left = wanted.word(at, 4);
                compared.push(Compare { rip: 1, bytes: 4, asked: Asked::Order, left, right: 16 });
                if left >= 16 {
                    break;
                }
                compared.push(Compare {
                    rip: 0,
                    bytes: 8,
                    asked: Asked::Address,
                    left: wanted.word(at + 8, 8),
                    right: 0,
                });
                if !wanted.own.iter().flatten().any(|own| own.at == at + 8) {
                    break;
                }
                records += 1;
            }
            Came { life: u32::from(records == 2), compared, new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        let pages = [8, 32].map(|at| Some(Own { at, what: Thing::Page }));
        assert_eq!(found[0].0.own[..2], pages);
    }

    #[test]
    fn a_length_goes_with_how_many_are_asked_for() {
        // So many words behind 8 bytes are answered as the input's first word says, 64 at most, and there must be room for just these.
        let driver = |wanted: &Wanted| {
            let (count, output) = (wanted.word(0, 4), u64::from(wanted.output));
            let compare = |rip, left, right| Compare { rip, bytes: 4, asked: Asked::Order, left, right };
            let mut compared = vec![compare(1, count, 65)];
            if count < 65 {
                compared.push(compare(2, output, 8 + 4 * count));
            }
            Came { life: (count < 65 && output == 8 + 4 * count).into(), compared, new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        let sizes: Vec<_> = found.iter().map(|(wanted, _)| (wanted.word(0, 4), wanted.output)).collect();
        assert!(sizes.contains(&(1, 12)) && sizes.contains(&(MORE, 72)), "{sizes:?}");
    }

    #[test]
    fn what_fails_is_the_one_that_comes_furthest() {
        let driver = |wanted: &Wanted| {
            let compare = |rip, left| Compare { rip, bytes: 4, asked: Asked::Order, left, right: 12 };
            let length = wanted.input.len() as u64;
            let mut compared = vec![compare(1, length)];
            if length == 12 {
                compared.push(Compare { right: 7, ..compare(2, 99_999) });
            }
            Came { life: 0, compared, new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        let lengths: Vec<_> = found.iter().map(|(wanted, life)| (wanted.input.len(), *life)).collect();
        assert_eq!(lengths, [(12, 0)]);
    }

    #[test]
    fn a_word_of_which_several_are_taken_is_changed_again() {
        // What to do, at most 3, in bits; for the second bit, a number below 100. Flags of its own are compared besides.
        let driver = |wanted: &Wanted| {
            let mut compared = Vec::new();
            let mut compare = |rip, asked, left: u32, right: u32| {
                compared.push(Compare { rip, bytes: 4, asked, left: left.into(), right: right.into() });
            };
            let word = |at: usize| u32::from_le_bytes(wanted.input[at..at + 4].try_into().unwrap());
            let (what, number) = (word(0), word(4));
            compare(1, Asked::Order, what.wrapping_sub(1), 2);
            let mut life = u32::from(what.wrapping_sub(1) <= 2);
            for flag in 0..24 {
                compare(10 + flag, Asked::Order, 0, 1);
            }
            if life > 0 {
                compare(2, Asked::Bits, what, 2);
            }
            if life > 0 && what & 2 != 0 {
                compare(3, Asked::Order, number, 99);
                life = u32::from(number <= 99) * 2;
            }
            Came { life, compared, new_code: false }
        };
        let found = wanted::<()>(Wanted::first(), 64, |wanted| Ok(Some(driver(wanted)))).unwrap();
        let lives: Vec<u32> = found.iter().map(|(_, life)| *life).collect();
        assert!(lives.contains(&1) && lives.contains(&2), "{lives:?}");
    }

    #[test]
    fn of_a_loop_that_compares_thousands_of_times_the_last_rounds_are_looked_at() {
        let compare = |rip, left| Compare { rip, bytes: 4, asked: Asked::Order, left, right: 9_000 };
        let mut compared: Vec<Compare> = (0..9_000).map(|round| compare(1, round)).collect();
        compared.extend([compare(2, 7), compare(2, 7)]);
        let telling = Came { life: 1, compared, new_code: false }.telling();
        assert_eq!(telling.len(), 1 + OF_ONE, "each once");
        assert_eq!((telling[0], telling[1]), (compare(2, 7), compare(1, 8_999)));
    }

    #[test]
    fn what_is_never_compared_is_not_guessed() {
        let came = || Ok(Some(Came { life: 0, compared: Vec::new(), new_code: false }));
        assert_eq!(wanted::<()>(Wanted::first(), 64, |_| came()), Ok(Vec::new()));
    }

    #[test]
    fn a_mask_and_half_a_word_are_seen_through() {
        let first = Wanted::first();
        let word = u64::from(u32::from_le_bytes(first.input[4..8].try_into().unwrap()));
        let compare = |asked, left, right| Compare { rip: 1, bytes: 4, asked, left, right };
        let half = first.changes(&compare(Asked::Order, word & 0xFFFF_0000, 0xF7A3_0000), &[], Reach::Near);
        assert!(half.contains(&Change::Put(6, 2, 0xF7A3)), "{half:?}");
        let mask = first.changes(&compare(Asked::Bits, word, 6), &[], Reach::Near);
        assert!(mask.contains(&Change::Put(4, 4, 6)) && mask.contains(&Change::Put(4, 4, 2)), "{mask:?}");
    }
}
