//! The second time through a sheet: events, and what is done when they happen.

use super::Sheet;
use super::line::Line;
use crate::sheet::cursor::Cursor;
use crate::sheet::description::{Act, Action, Field, Target, Transfer};
use crate::sheet::error::Wrong;
use crate::sheet::expression::{Expression, Scope};
use crate::sheet::token::{Token, tokens};
use crate::spec::TIME_UNITS;

impl Sheet<'_> {
    pub(super) fn on(&self, line: &Line<'_>) -> Result<Event, Wrong> {
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

    pub(super) fn add(&mut self, event: Event, action: Action) {
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

    pub(super) fn action(&self, line: &Line<'_>, event: Event) -> Result<Action, Wrong> {
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
            let unit = TIME_UNITS.into_iter().find(|(unit, _)| cursor.word(unit));
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
}

/// What actions are of.
#[derive(Clone, Copy)]
pub(super) enum Event {
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
