//! From a sheet's text to what it says: see `docs/sheet.md` for the language.
//!
//! Lines that are indented deeper belong to the line above them: fields to a register, actions to an `on`. All names are collected first, so
//! that one can be used above the line that declares it.

use super::cursor::Cursor;
use super::description::{
    Access, Act, Action, Area, Block, Description, Field, Fifo, Memory, Register, Rest, SPACES, Target,
    Transfer, What,
};
use super::error::Wrong;
use super::expression::{Bits, Expression, Scope};
use super::names::{Name, Names};
use super::token::{Placed, Token, tokens};
use crate::spec::{hex, nearest, number, size};

/// What a card, or a board, has around what a sheet describes.
pub(crate) struct Ports {
    /// The names of its spaces.
    pub(crate) spaces: &'static [&'static str],
    /// How a space answers where the sheet has nothing, unless it says so.
    pub(crate) rest: Rest,
    /// The names of the lines that it can drive.
    pub(crate) lines: &'static [&'static str],
    /// The sheet has a `card` line, windows' sizes, messages, and reaches memory.
    pub(crate) is_card: bool,
}

/// Characters of a line.
const LONGEST_LINE: usize = 400;
/// Registers, memories, FIFOs, timers: so many of all together.
const MOST_NAMES: usize = 10_000;
/// Words of a FIFO.
const DEEPEST_FIFO: u64 = 1 << 20;
/// Computed registers that are computed of computed ones.
const LONGEST_CHAIN: u32 = 4;

/// A line that is not empty, without its comment.
struct Line<'t> {
    number: usize,
    indent: usize,
    /// Up to the first space.
    first: &'t str,
    /// What follows it.
    rest: &'t str,
    /// The column of `rest`.
    column: usize,
}

impl<'t> Line<'t> {
    /// Where its first word is.
    const fn begin(&self) -> usize {
        self.indent + 1
    }

    fn tokens(&self) -> Result<Vec<Placed<'t>>, Wrong> {
        tokens(self.rest, self.column)
    }

    fn cursor<'p>(&self, tokens: &'p [Placed<'t>]) -> Cursor<'p, 't> {
        Cursor::new(tokens, self.column + self.rest.chars().count())
    }
}

/// What the sheet says, or what is wrong with it.
pub(super) fn parse(text: &str, ports: &Ports) -> Result<Description, Wrong> {
    let lines = lines(text)?;
    let mut sheet =
        Sheet { ports, names: Names::default(), description: Description::default(), kinds: Vec::new() };
    sheet.description.rests = [ports.rest; SPACES];
    sheet.declare(&lines)?;
    sheet.describe(&lines)?;
    sheet.finish()
}

fn lines(text: &str) -> Result<Vec<Line<'_>>, Wrong> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        let body = line.trim_start();
        if body.is_empty() {
            continue;
        }
        let indent = line.len() - body.len();
        if line[..indent].contains(|c| c != ' ') {
            return Err(
                Wrong::at(1, "indent with spaces: how wide a tab is differs between editors").on(number)
            );
        }
        if line.chars().count() > LONGEST_LINE {
            return Err(
                Wrong::at(LONGEST_LINE, "the line is too long; 400 characters are allowed").on(number)
            );
        }
        let first = body.split_whitespace().next().unwrap_or_default();
        let rest = body[first.len()..].trim_start();
        let column = line.chars().count() - rest.chars().count() + 1;
        lines.push(Line { number, indent, first, rest, column });
    }
    Ok(lines)
}

/// What the line above is, for lines that are indented deeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// By itself; nothing belongs to it.
    Single,
    State(usize),
    Register(usize),
    Field(usize),
    On,
    Action,
}

struct Sheet<'p> {
    ports: &'p Ports,
    names: Names,
    description: Description,
    /// What each line is.
    kinds: Vec<Kind>,
}

impl Sheet<'_> {
    /// The first time through: names, and where things are.
    fn declare(&mut self, lines: &[Line<'_>]) -> Result<(), Wrong> {
        let mut owner: Option<(usize, Kind)> = None;
        let mut space = None;
        for line in lines {
            owner = owner.filter(|(indent, _)| line.indent > *indent);
            let kind = match owner {
                Some((_, Kind::Register(register))) => {
                    self.declare_field(line, register).map(|()| Kind::Field(register))
                }
                Some(_) => Ok(Kind::Action),
                None => self.declare_line(line, &mut space),
            };
            let kind = kind.map_err(|wrong| wrong.on(line.number))?;
            if owner.is_none() && matches!(kind, Kind::Register(_) | Kind::On) {
                owner = Some((line.indent, kind));
            }
            self.kinds.push(kind);
        }
        Ok(())
    }

    fn declare_line(&mut self, line: &Line<'_>, space: &mut Option<u8>) -> Result<Kind, Wrong> {
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
        let hint =
            nearest(line.first, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
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
        let widths = [("byte", 1), ("word", 2), ("dword", 4), ("qword", 8)];
        let bytes = widths.into_iter().find(|(width, _)| cursor.word(width)).map_or(4, |(_, bytes)| bytes);
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
    fn declare_field(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
        let bits = self.bits(line, register)?;
        let tokens = line.tokens()?;
        let (at, name) = line.cursor(&tokens).name("the field")?;
        self.names.add_field(name, at, bits)
    }

    fn bits(&self, line: &Line<'_>, register: usize) -> Result<Bits, Wrong> {
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

    /// The second time through: what each line says.
    fn describe(&mut self, lines: &[Line<'_>]) -> Result<(), Wrong> {
        let mut event = None;
        for (line, kind) in lines.iter().zip(std::mem::take(&mut self.kinds)) {
            let described = match kind {
                Kind::Register(register) => self.register(line, register),
                Kind::State(register) => self.state(line, register),
                Kind::Field(register) => self.field(line, register),
                Kind::On => self.on(line).map(|found| event = Some(found)),
                Kind::Action => {
                    let event = event.expect("actions stand behind their `on`");
                    self.action(line, event).map(|action| self.add(event, action))
                }
                Kind::Single if line.first == "line" => self.line(line),
                Kind::Single if line.first == "message" => self.message(line),
                Kind::Single => Ok(()),
            };
            described.map_err(|wrong| wrong.on(line.number))?;
        }
        Ok(())
    }

    fn register(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        cursor.skip();
        let _ = ["byte", "word", "dword", "qword"].into_iter().any(|width| cursor.word(width));
        let bits = self.names.whole(register);
        let (access, reset) = behaviour(&mut cursor, bits)?;
        let mut field = Field { bits, access: access.unwrap_or(Access::Rw), reads: None };
        while !cursor.is_at_end() {
            let at = cursor.column();
            if cursor.word("reads") {
                match self.reads(&mut cursor)? {
                    Source::Fifo(fifo) => self.description.registers[register].pops = Some(fifo),
                    Source::Value(value) => field.reads = Some(value),
                }
            } else if cursor.word("writes") {
                let (at, name) = cursor.name("a FIFO")?;
                self.description.registers[register].pushes = Some(self.names.fifo(name, at)?);
            } else {
                return Err(Wrong::at(
                    at,
                    "an access (as rw, ro, w1c), `= VALUE`, `reads` or `writes` can stand here",
                ));
            }
        }
        let described = &mut self.description.registers[register];
        if access.is_none()
            && (field.reads.is_some() || described.pops.is_some())
            && described.pushes.is_none()
        {
            field.access = Access::Ro;
        }
        described.reset = reset.unwrap_or(0);
        described.fields.push(field);
        Ok(())
    }

    fn state(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        cursor.skip();
        let bits = self.names.whole(register);
        let reset = reset(&mut cursor, bits)?;
        cursor.end()?;
        let described = &mut self.description.registers[register];
        described.reset = reset.unwrap_or(0);
        described.fields.push(Field { bits, access: Access::Rw, reads: None });
        Ok(())
    }

    /// What `reads` means here: a FIFO's words, or a value.
    fn reads(&self, cursor: &mut Cursor<'_, '_>) -> Result<Source, Wrong> {
        if let Some(Token::Word(name)) = cursor.peek()
            && let Ok(Name::Fifo(fifo)) = self.names.find(name, 0)
        {
            let mut ahead = Cursor::clone(cursor);
            ahead.skip();
            if !ahead.sign(".") {
                cursor.skip();
                return Ok(Source::Fifo(fifo));
            }
        }
        Expression::parse(cursor, &self.names, Scope::State).map(Source::Value)
    }

    fn field(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
        let bits = self.bits(line, register)?;
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        cursor.skip();
        let (access, reset) = behaviour(&mut cursor, bits)?;
        let reads = match cursor.word("reads") {
            true => Some(Expression::parse(&mut cursor, &self.names, Scope::State)?),
            false => None,
        };
        cursor.end()?;
        let described = &mut self.description.registers[register];
        if described.pops.is_some() || described.fields.first().is_some_and(|whole| whole.reads.is_some()) {
            return Err(Wrong::at(line.begin(), "the register reads as something else, so it has no fields"));
        }
        let whole = self.names.whole(register);
        let inherited = described.fields[0].access;
        // With fields of its own it has no bits besides them.
        if described.fields[0].bits == whole && described.fields.len() == 1 {
            described.fields[0].bits = Bits { low: 0, ones: 0 };
        }
        if described.fields.iter().any(|field| field.bits.mask() & bits.mask() != 0) {
            return Err(Wrong::at(line.begin(), "another field has one of these bits"));
        }
        if let Some(reset) = reset {
            described.reset = bits.put(described.reset, reset);
        }
        described.fields.push(Field { bits, access: access.unwrap_or(inherited), reads });
        Ok(())
    }

    fn on(&self, line: &Line<'_>) -> Result<Event, Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        let at = cursor.column();
        let event = if cursor.word("reset") {
            Event::Reset
        } else if cursor.word("write") {
            let (at, name) = cursor.name("a register")?;
            Event::Write(self.names.register(name, at)?)
        } else if cursor.word("read") {
            let (at, name) = cursor.name("a register")?;
            Event::Read(self.names.register(name, at)?)
        } else if cursor.word("timer") {
            let (at, name) = cursor.name("the timer")?;
            Event::Timer(self.names.timer(name, at)?)
        } else if cursor.word("poke") {
            let (_, name) = cursor.name("the signal")?;
            let poke = self.description.pokes.iter().position(|(known, _)| known == name);
            Event::Poke(poke.expect("it was declared"))
        } else {
            return Err(Wrong::at(
                at,
                "what happens? `on` is followed by write REGISTER, read REGISTER, timer NAME, poke NAME or reset",
            ));
        };
        cursor.end()?;
        Ok(event)
    }

    fn add(&mut self, event: Event, action: Action) {
        let masters = action.reaches_memory();
        let description = &mut self.description;
        let block = match event {
            Event::Reset => &mut description.on_reset,
            Event::Read(register) => &mut description.registers[register].on_read,
            Event::Write(register) => &mut description.registers[register].on_write,
            Event::Timer(timer) => &mut description.timers[timer],
            Event::Poke(poke) => &mut description.pokes[poke].1,
        };
        block.actions.push(action);
        block.masters |= masters;
    }

    fn action(&self, line: &Line<'_>, event: Event) -> Result<Action, Wrong> {
        let text_column = line.begin();
        let tokens = tokens(line.first, text_column)?.into_iter().chain(line.tokens()?).collect::<Vec<_>>();
        let mut cursor = line.cursor(&tokens);
        let act = self.act(&mut cursor, event.scope())?;
        let condition = match cursor.word("if") {
            true => Some(Expression::parse(&mut cursor, &self.names, event.scope())?),
            false => None,
        };
        cursor.end()?;
        let action = Action { act, condition };
        if action.reaches_memory() && !self.ports.is_card {
            return Err(Wrong::at(
                text_column,
                "the bridge is no bus master: nothing behind it reaches memory",
            ));
        }
        Ok(action)
    }

    fn act(&self, cursor: &mut Cursor<'_, '_>, scope: Scope) -> Result<Act, Wrong> {
        let value = |cursor: &mut Cursor<'_, '_>| Expression::parse(cursor, &self.names, scope);
        let fifo = |cursor: &mut Cursor<'_, '_>| {
            let (at, name) = cursor.name("a FIFO")?;
            self.names.fifo(name, at)
        };
        let timer = |cursor: &mut Cursor<'_, '_>| {
            let (at, name) = cursor.name("a timer")?;
            self.names.timer(name, at)
        };
        if cursor.word("push") {
            let fifo = fifo(cursor)?;
            return Ok(Act::Push(fifo, value(cursor)?));
        }
        if cursor.word("pop") {
            return Ok(Act::Pop(fifo(cursor)?));
        }
        if cursor.word("clear") {
            return Ok(Act::Clear(fifo(cursor)?));
        }
        if cursor.word("stop") {
            return Ok(Act::Stop(timer(cursor)?));
        }
        if cursor.word("start") {
            let timer = timer(cursor)?;
            let again = cursor.word("every");
            if !again && !cursor.word("after") {
                return Err(Wrong::at(
                    cursor.column(),
                    "when does it end? `after 10us` once, or `every 10us`",
                ));
            }
            let count = value(cursor)?;
            let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
            let unit = units.into_iter().find(|(unit, _)| cursor.word(unit));
            let missing = || Wrong::at(cursor.column(), "a unit is missing here: ns, us, ms or s");
            let (_, unit) = unit.ok_or_else(missing)?;
            return Ok(Act::Start { timer, count, unit, again });
        }
        let stores = cursor.word("store");
        if stores || cursor.word("fetch") {
            let (at, name) = cursor.name("a memory")?;
            let memory = self.names.memory(name, at)?;
            cursor.expect_sign("[")?;
            let offset = value(cursor)?;
            cursor.expect_sign("]")?;
            cursor.expect_word(if stores { "to" } else { "from" })?;
            let address = value(cursor)?;
            cursor.expect_word("length")?;
            let length = value(cursor)?;
            return Ok(Act::Transfer(Box::new(Transfer { memory, offset, address, length, stores })));
        }
        let target = self.target(cursor, scope)?;
        cursor.expect_sign("=")?;
        Ok(Act::Set(target, value(cursor)?))
    }

    /// What is set: a register, a field, a word of a memory or of the bus.
    fn target(&self, cursor: &mut Cursor<'_, '_>, scope: Scope) -> Result<Target, Wrong> {
        let at = cursor.column();
        let Some(Token::Word(_)) = cursor.peek() else {
            return Err(Wrong::at(
                at,
                "an action begins with what it sets, or with push, pop, clear, start, stop, fetch or store",
            ));
        };
        match Expression::operand(cursor, &self.names, scope)? {
            Expression::Register(register, bits) => {
                let described = &self.description.registers[register];
                let is_computed =
                    |field: &Field| field.reads.is_some() && field.bits.mask() & bits.mask() != 0;
                if described.pops.is_some() || described.fields.iter().any(is_computed) {
                    return Err(Wrong::at(at, "it reads as something else, so there is nothing to set"));
                }
                Ok(Target::Register(register, bits))
            }
            Expression::Memory(memory, offset) => Ok(Target::Memory(memory, *offset)),
            Expression::Bus(address) => Ok(Target::Bus(*address)),
            _ => Err(Wrong::at(at, "an action sets a register, a field, or 32 bits of a memory")),
        }
    }

    /// `line NAME = VALUE`.
    fn line(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        let (at, name) = cursor.name("the line")?;
        let output =
            self.ports.lines.iter().position(|known| *known == name).and_then(|n| u8::try_from(n).ok());
        let lines = || {
            Wrong::at(at, format!("there is no line `{name}`; there are: {}", self.ports.lines.join(", ")))
        };
        let output = output.ok_or_else(lines)?;
        if self.description.lines.iter().any(|(known, _)| *known == output) {
            return Err(Wrong::at(at, format!("the line `{name}` is driven already")));
        }
        cursor.expect_sign("=")?;
        let value = Expression::parse(&mut cursor, &self.names, Scope::State)?;
        cursor.end()?;
        self.description.lines.push((output, value));
        Ok(())
    }

    /// `message N = VALUE`.
    fn message(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        let at = cursor.column();
        if !self.ports.is_card {
            return Err(Wrong::at(at, "the bridge has no messages; drive one of its lines"));
        }
        let number = u16::try_from(cursor.number("the message's number")?).ok().filter(|number| *number < 32);
        let number = number.ok_or_else(|| Wrong::at(at, "messages are numbered 0 to 31"))?;
        cursor.expect_sign("=")?;
        let value = Expression::parse(&mut cursor, &self.names, Scope::State)?;
        cursor.end()?;
        self.description.messages.push((number, value));
        Ok(())
    }

    fn finish(mut self) -> Result<Description, Wrong> {
        self.description.areas.sort_by_key(|area| (area.space, area.offset));
        for register in 0..self.description.registers.len() {
            if chain(&self.description, register, 0) > LONGEST_CHAIN {
                let name = &self.description.registers[register].name;
                return Err(Wrong::at(
                    1,
                    format!("`{name}` reads as what reads as something else again, without an end"),
                )
                .on(1));
            }
        }
        Ok(self.description)
    }
}

/// What a register is read from.
enum Source {
    Fifo(usize),
    Value(Expression),
}

/// What actions are of.
#[derive(Clone, Copy)]
enum Event {
    Reset,
    Read(usize),
    Write(usize),
    Timer(usize),
    Poke(usize),
}

impl Event {
    const fn scope(self) -> Scope {
        match self {
            Self::Read(register) | Self::Write(register) => Scope::Access(register),
            Self::Poke(_) => Scope::Poke,
            Self::Reset | Self::Timer(_) => Scope::Event,
        }
    }
}

impl Action {
    fn reaches_memory(&self) -> bool {
        let mut values: Vec<&Expression> = self.condition.iter().collect();
        match &self.act {
            Act::Transfer(_) | Act::Set(Target::Bus(_), _) => return true,
            Act::Set(Target::Memory(_, offset), value) => values.extend([offset, value]),
            Act::Set(Target::Register(..), value) | Act::Push(_, value) | Act::Start { count: value, .. } => {
                values.push(value)
            }
            Act::Pop(_) | Act::Clear(_) | Act::Stop(_) => {}
        }
        values.into_iter().any(|value| value.any(&mut |leaf| matches!(leaf, Expression::Bus(_))))
    }
}

/// `[rw] [= VALUE]`.
fn behaviour(cursor: &mut Cursor<'_, '_>, bits: Bits) -> Result<(Option<Access>, Option<u64>), Wrong> {
    let access = Access::ALL.into_iter().find(|(word, _)| cursor.word(word)).map(|(_, access)| access);
    Ok((access, reset(cursor, bits)?))
}

/// `[= VALUE]`.
fn reset(cursor: &mut Cursor<'_, '_>, bits: Bits) -> Result<Option<u64>, Wrong> {
    if !cursor.sign("=") {
        return Ok(None);
    }
    let at = cursor.column();
    let reset = cursor.number("what it holds after reset")?;
    if reset & !bits.ones != 0 {
        return Err(Wrong::at(at, "that is more than these bits can hold"));
    }
    Ok(Some(reset))
}

/// How many registers stand behind one another in what this one reads as.
fn chain(description: &Description, register: usize, depth: u32) -> u32 {
    if depth > LONGEST_CHAIN {
        return depth;
    }
    let mut longest = depth;
    for reads in description.registers[register].fields.iter().filter_map(|field| field.reads.as_ref()) {
        reads.any(&mut |leaf| {
            if let Expression::Register(other, _) = leaf {
                longest = longest.max(chain(description, *other, depth + 1));
            }
            false
        });
    }
    longest
}
