//! The first time through a sheet: what each line names, and where that lies.

use super::line::Line;
use super::{Kind, Sheet};
use crate::sheet::description::{Area, Block, Description, Fifo, Memory, Register, Rest, What};
use crate::sheet::error::Wrong;
use crate::sheet::expression::Bits;
use crate::sheet::names::Name;
use crate::spec::{hex, hint, number, size};

/// Registers, memories, FIFOs, timers: so many of all together.
const MOST_NAMES: usize = 10_000;
/// Words of a FIFO.
const DEEPEST_FIFO: u64 = 1 << 20;

impl Sheet<'_> {
    pub(super) fn declare_line(&mut self, line: &Line<'_>, space: &mut Option<u8>) -> Result<Kind, Wrong> {
        if let Some(found) = self.ports.spaces.iter().position(|name| *name == line.first) {
            *space = u8::try_from(found).ok();
            self.space(line, found)?;
            return Ok(Kind::Single);
        }
        match line.first {
            "card" if self.ports.is_card => self.keys(line)?,
            "fifo" => self.fifo(line)?,
            "state" => return self.declare_state(line),
            "line" | "message" => {}
            "on" => {
                self.declare_on(line)?;
                return Ok(Kind::On);
            }
            first => match (hex(first, 16), *space) {
                (Some(offset), Some(space)) => return self.declare_area(line, space, offset),
                (Some(_), None) => {
                    let spaces = self.ports.spaces.join(", ");
                    return Err(Wrong::at(
                        line.begin(),
                        format!("in which window is this? Begin with one of: {spaces}"),
                    ));
                }
                (None, _) => return Err(self.unknown(line)),
            },
        }
        Ok(Kind::Single)
    }

    fn unknown(&self, line: &Line<'_>) -> Wrong {
        let known =
            ["card", "fifo", "line", "message", "on"].into_iter().chain(self.ports.spaces.iter().copied());
        let hint = hint(line.first, known);
        let message =
            format!("`{}` begins no line{hint} (a register begins with its offset, hexadecimal)", line.first);
        Wrong::at(line.begin(), message)
    }

    /// `card KEY[=VALUE] …`.
    fn keys(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
        for word in line.rest.split_whitespace() {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (word, None),
            };
            self.key(line.column, key, value)?;
        }
        Ok(())
    }

    fn key(&mut self, at: usize, key: &str, value: Option<String>) -> Result<(), Wrong> {
        let is_taken = key.is_empty() || key == "sheet" || key.contains(',');
        if is_taken || value.as_ref().is_some_and(|value| value.contains(',')) {
            return Err(Wrong::at(
                at,
                format!("`{key}` cannot stand here; the keys are those of `--device pci`"),
            ));
        }
        if self.description.keys.iter().any(|(known, _)| known == key) {
            return Err(Wrong::at(at, format!("`{key}` is given twice")));
        }
        self.description.keys.push((key.to_owned(), value));
        Ok(())
    }

    /// `bar0 mem:4K [width=32] [rest=zeros]`.
    fn space(&mut self, line: &Line<'_>, space: usize) -> Result<(), Wrong> {
        for word in line.rest.split_whitespace() {
            let wrong = |message: &str| Wrong::at(line.column, format!("`{word}`: {message}"));
            match word.split_once('=') {
                Some(("width", bits)) => {
                    let bytes =
                        number(bits).map(|bits| bits / 8).filter(|bytes| [1, 2, 4, 8].contains(bytes));
                    self.description.widths[space] =
                        bytes.ok_or_else(|| wrong("width= is 8, 16, 32 or 64"))?;
                }
                Some(("rest", rest)) => {
                    self.description.rests[space] = match rest {
                        "refused" => Rest::Refused,
                        "zeros" => Rest::Zeros,
                        "ones" => Rest::Ones,
                        "memory" => Rest::Memory,
                        _ => return Err(wrong("rest= is refused, zeros, ones or memory")),
                    };
                }
                None if self.ports.is_card => self.key(line.column, line.first, Some(word.to_owned()))?,
                _ => return Err(wrong("it means nothing here; there are width= and rest=")),
            }
        }
        Ok(())
    }

    /// `fifo NAME DEPTH`.
    fn fifo(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        let (at, name) = cursor.name("the FIFO")?;
        let column = cursor.column();
        let depth = cursor.number("how many words it holds")?;
        cursor.end()?;
        let fits = (1..=DEEPEST_FIFO).contains(&depth);
        let depth = usize::try_from(depth).ok().filter(|_| fits);
        let depth = depth.ok_or_else(|| Wrong::at(column, "a FIFO holds 1 to 1048576 words"))?;
        self.named(name, at, Name::Fifo(self.description.fifos.len()))?;
        self.description.fifos.push(Fifo { depth });
        Ok(())
    }

    fn named(&mut self, name: &str, at: usize, stands_for: Name) -> Result<(), Wrong> {
        self.has_room(at)?;
        self.names.add(name, at, stands_for)
    }

    fn has_room(&self, at: usize) -> Result<(), Wrong> {
        let Description { registers, fifos, memories, timers, .. } = &self.description;
        if registers.len() + fifos.len() + memories.len() + timers.len() < MOST_NAMES {
            return Ok(());
        }
        Err(Wrong::at(at, "the sheet has too many names; 10000 are allowed"))
    }

    /// `OFFSET NAME …`: a register or a memory.
    fn declare_area(&mut self, line: &Line<'_>, space: u8, offset: u64) -> Result<Kind, Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        let (at, name) = cursor.name("the register")?;
        if cursor.word("memory") {
            let column = cursor.column();
            let text = line.rest.rsplit(' ').next().unwrap_or_default();
            let bytes = size(text).filter(|bytes| *bytes > 0);
            let bytes = bytes.ok_or_else(|| Wrong::at(column, "how large is it? Say `memory 1K`"))?;
            let memory = self.description.memories.len();
            self.named(name, at, Name::Memory(memory))?;
            self.description.memories.push(Memory { name: name.to_owned(), bytes });
            self.area(line, Area { space, offset, bytes, what: What::Memory(memory) })?;
            return Ok(Kind::Single);
        }
        let bytes = cursor.width().unwrap_or(4);
        let register = self.declare_register(at, name, bytes)?;
        self.area(line, Area { space, offset, bytes, what: What::Register(register) })?;
        Ok(Kind::Register(register))
    }

    /// `state NAME [= VALUE]`: what the card remembers and no access sees.
    fn declare_state(&mut self, line: &Line<'_>) -> Result<Kind, Wrong> {
        let tokens = line.tokens()?;
        let (at, name) = line.cursor(&tokens).name("what the card remembers")?;
        self.declare_register(at, name, 8).map(Kind::State)
    }

    fn declare_register(&mut self, at: usize, name: &str, bytes: u64) -> Result<usize, Wrong> {
        self.has_room(at)?;
        self.names.add_register(name, at, u32::try_from(bytes * 8).unwrap_or(64))?;
        self.description.registers.push(Register {
            name: name.to_owned(),
            bytes,
            reset: 0,
            fields: Vec::new(),
            pops: None,
            pushes: None,
            takes: 0,
            on_read: Block::default(),
            on_write: Block::default(),
        });
        Ok(self.description.registers.len() - 1)
    }

    fn area(&mut self, line: &Line<'_>, area: Area) -> Result<(), Wrong> {
        let Some(end) = area.offset.checked_add(area.bytes) else {
            return Err(Wrong::at(line.begin(), "no window reaches so far"));
        };
        let overlaps = |other: &Area| {
            other.space == area.space && other.offset < end && area.offset < other.offset + other.bytes
        };
        if let Some(other) = self.description.areas.iter().find(|other| overlaps(other)) {
            let name = match other.what {
                What::Register(register) => &self.description.registers[register].name,
                What::Memory(memory) => &self.description.memories[memory].name,
            };
            return Err(Wrong::at(line.begin(), format!("`{name}` is there already")));
        }
        self.description.areas.push(area);
        Ok(())
    }

    /// `7:4 NAME …` or `0 NAME …`, of a register's.
    pub(super) fn declare_field(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
        let bits = self.bits(line, register)?;
        let tokens = line.tokens()?;
        let (at, name) = line.cursor(&tokens).name("the field")?;
        self.names.add_field(name, at, bits)
    }

    pub(super) fn bits(&self, line: &Line<'_>, register: usize) -> Result<Bits, Wrong> {
        let (high, low) = line.first.split_once(':').unwrap_or((line.first, line.first));
        let last = self.description.registers[register].bytes * 8 - 1;
        let bit = |text: &str| text.parse::<u32>().ok().filter(|bit| u64::from(*bit) <= last);
        match (bit(high), bit(low)) {
            (Some(high), Some(low)) if low <= high => Ok(Bits::new(low, high)),
            _ => {
                let message = format!(
                    "a field of this register begins with its bits, as 7:4 or 0, up to {last}; or indent the line as the register's"
                );
                Err(Wrong::at(line.begin(), message))
            }
        }
    }

    /// `on timer NAME`, `on poke NAME` declare these names.
    fn declare_on(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        if cursor.word("timer") {
            let (at, name) = cursor.name("the timer")?;
            self.named(name, at, Name::Timer(self.description.timers.len()))?;
            self.description.timers.push(Block::default());
        } else if cursor.word("poke") {
            let (at, name) = cursor.name("the signal")?;
            if self.description.pokes.iter().any(|(known, _)| known == name) {
                return Err(Wrong::at(at, format!("the signal `{name}` is there already")));
            }
            self.description.pokes.push((name.to_owned(), Block::default()));
        }
        Ok(())
    }
}
