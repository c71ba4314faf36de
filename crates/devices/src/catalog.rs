//! The models that exist, what can be typed after `--device` for each, and the one place that makes them.
//!
//! A key that a model reads must stand here, or typing it is refused: the list that users see cannot lie.

use crate::bench;
use crate::edu;
use crate::generic;
use crate::pci::{Header, Model, PME, POWER_VERSION, Placement, PowerManagement};
use crate::pci9052;
use crate::plan::Freedom;
use crate::slave;
use crate::spec::{Options, ReadFile, SpecError, hex, number};
use crate::suggest::nearest;

/// A key of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// As typed; a trailing `N` stands for a digit 0–5.
    pub name: &'static str,
    /// What it does, and the form of its value.
    pub meaning: &'static str,
    /// What holds without it.
    pub default: &'static str,
}

/// A signal that a script can act on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signal {
    /// As typed.
    pub name: &'static str,
    /// What it does, and its values.
    pub meaning: &'static str,
    /// The values, two or more, one after the other, by which a card's surroundings act on it while all is well; none if it is a fault, or does what a driver
    /// must ask for.
    pub usual: &'static [u64],
}

/// A model.
pub struct Entry {
    /// As typed after `--device`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Default vendor and device ids; empty if it has none of its own.
    pub ids: &'static [(u16, u16)],
    /// Keys, with commas between them, by which it has all that a driver of it may need; empty if it has without any.
    pub whole: &'static str,
    /// Its own keys; [`catalog`]'s readers add [`PLACEMENT`].
    pub keys: &'static [Key],
    /// Its signals.
    pub signals: &'static [Signal],
    pub(crate) build: Build,
}

/// The keys that every model has.
pub const PLACEMENT: &[Key] = &[
    Key { name: "slot", meaning: "device number on bus 0, 1-31", default: "the lowest free" },
    Key {
        name: "line",
        meaning: "interrupt line, 16-23; give two cards the same to share it",
        default: "16 + (slot + pin - 1) mod 4",
    },
    Key { name: "atN", meaning: "bus address of BAR N, hexadecimal", default: "the lowest free place" },
];

/// Makes a card of what was typed.
type Build = fn(&Options<'_>, &ReadFile<'_>) -> Result<Box<dyn Model>, SpecError>;

const CATALOG: &[Entry] = &[pci9052::ENTRY, edu::ENTRY, bench::ENTRY, slave::ENTRY, generic::ENTRY];

impl Entry {
    /// All keys: the model's own, then those every model has.
    pub fn all_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().chain(PLACEMENT)
    }
}

/// The models, in the order to show them.
#[must_use]
pub fn catalog() -> &'static [Entry] {
    CATALOG
}

/// Makes the card that `spec` (`MODEL[,key[=value]]…`) describes. `read_file` is called for the files its keys name.
///
/// # Errors
/// An unknown model or key, with what exists; a value that cannot be used, with its form; a file's trouble.
pub fn parse(spec: &str, read_file: &ReadFile<'_>) -> Result<Box<dyn Model>, SpecError> {
    let options = Options::cut(spec)?;
    let Some(entry) = CATALOG.iter().find(|entry| entry.name == options.model) else {
        return Err(unknown_model(options.model));
    };
    if let Some(key) = options.keys().find(|key| !entry.all_keys().any(|known| known.matches(key))) {
        return Err(unknown_key(entry, key));
    }
    (entry.build)(&options, read_file)
}

impl Key {
    /// Whether `typed` is this key.
    pub(crate) fn matches(&self, typed: &str) -> bool {
        match self.name.strip_suffix('N') {
            None => typed == self.name,
            Some(stem) => typed.strip_prefix(stem).is_some_and(|n| matches!(n.as_bytes(), [b'0'..=b'5'])),
        }
    }
}

fn unknown_model(typed: &str) -> SpecError {
    let names: Vec<&str> = CATALOG.iter().map(|entry| entry.name).collect();
    let hint = did_you_mean(nearest(typed, names.iter().copied()));
    let list = names.join(", ");
    SpecError::new(format!("no device model `{typed}`{hint}; there are: {list} (see `dirql devices`)"))
}

fn unknown_key(entry: &Entry, typed: &str) -> SpecError {
    let names: Vec<&str> = entry.all_keys().map(|key| key.name).collect();
    let hint = did_you_mean(nearest(typed, names.iter().copied()));
    let list = names.join(", ");
    SpecError::new(format!("device `{}` has no key `{typed}`{hint}; its keys: {list}", entry.name))
}

fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// How long a bus master's transfer may take: see `plan`.
pub(crate) const LATE: Key =
    Key { name: "late", meaning: "up to so many times as long, as the policy chooses: 1-16", default: "1" };
/// In how many parts it may come.
pub(crate) const PIECES: Key = Key {
    name: "pieces",
    meaning: "a transfer comes in up to so many parts, in any order, as the policy chooses: 1-16",
    default: "1",
};

/// Power management, of cards that may have it.
pub(crate) const POWER: Key = Key {
    name: "pm",
    meaning: "a power management capability: nothing for D0 and D3 alone, or WORD[+WORD]…: d1, d2, keeps (what it holds, from D3hot to D0), \
              and the states from which it wakes: wake0, wake1, wake2, wake3, wakeoff (D3cold, with auxiliary power)",
    default: "none",
};
/// What it raises then.
pub(crate) const POWER_EVENT: Signal = Signal {
    name: PME,
    meaning: "1: it asserts PME#, with pm= and in a state from which it wakes",
    usual: &[],
};

/// Reads [`POWER`]: its registers lie at `at`, in front of the capabilities that are there.
pub(crate) fn power(options: &Options<'_>, header: &mut Header, at: u8) -> Result<(), SpecError> {
    const FORM: &str =
        "nothing, or d1, d2, keeps, wake0, wake1, wake2, wake3 and wakeoff with + between them";
    let read = |text: &str| {
        let mut power = PowerManagement { at, rest: POWER_VERSION, ..PowerManagement::default() };
        for word in text.split('+').filter(|word| !word.is_empty()) {
            match word {
                "d1" => power.d1 = true,
                "d2" => power.d2 = true,
                "keeps" => power.keeps_state = true,
                "wake0" => power.wakes_from |= 1,
                "wake1" => power.wakes_from |= 2,
                "wake2" => power.wakes_from |= 4,
                "wake3" => power.wakes_from |= 8,
                "wakeoff" => power.wakes_from |= 16,
                _ => return None,
            }
        }
        Some(power)
    };
    let Some(power) = options.value(POWER.name, FORM, read)? else { return Ok(()) };
    for (state, has, bit) in [("1", power.d1, 2), ("2", power.d2, 4)] {
        if power.wakes_from & bit != 0 && !has {
            return Err(options.bad(POWER.name, &format!("d{state} beside wake{state}")));
        }
    }
    if header.power.is_some() {
        return Err(options.bad(POWER.name, "left out: config= has power management of its own"));
    }
    header.power = Some(PowerManagement { next: header.capabilities, ..power });
    header.capabilities = at;
    Ok(())
}

/// Reads [`LATE`] and [`PIECES`].
pub(crate) fn freedom(options: &Options<'_>) -> Result<Freedom, SpecError> {
    let count =
        |text: &str| number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=16).contains(n));
    Ok(Freedom {
        late: options.value("late", "a number from 1 to 16", count)?.unwrap_or(1),
        pieces: options.value("pieces", "a number from 1 to 16", count)?.unwrap_or(1),
    })
}

/// Reads the keys of [`PLACEMENT`].
pub(crate) fn placement(options: &Options<'_>) -> Result<Placement, SpecError> {
    const AT: [&str; 6] = ["at0", "at1", "at2", "at3", "at4", "at5"];
    let slot = |text: &str| number(text).and_then(|n| u8::try_from(n).ok()).filter(|n| (1..=31).contains(n));
    let line =
        |text: &str| number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (16..=23).contains(n));
    let address = |text: &str| hex(text.trim_start_matches("0x"), 16);
    let mut placement = Placement {
        slot: options.value("slot", "a number from 1 to 31", slot)?,
        line: options.value("line", "a number from 16 to 23", line)?,
        bases: [None; 6],
    };
    for (base, key) in placement.bases.iter_mut().zip(AT) {
        *base = options.value(key, "a bus address in hexadecimal, e.g. E0001000", address)?;
    }
    Ok(placement)
}
