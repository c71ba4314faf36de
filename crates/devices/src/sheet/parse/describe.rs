//! The second time through a sheet: what registers, fields, lines and messages do.

use super::Sheet;
use super::line::Line;
use crate::sheet::cursor::Cursor;
use crate::sheet::description::{Access, Field};
use crate::sheet::error::Wrong;
use crate::sheet::expression::{Bits, Expression, Scope};
use crate::sheet::names::Name;
use crate::sheet::token::Token;
use crate::spec::TIME_UNITS;

/// What an access can take at most, ns.
const LONGEST: u64 = 1_000_000;

impl Sheet<'_> {
    pub(super) fn register(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
        let tokens = line.tokens()?;
        let mut cursor = line.cursor(&tokens);
        cursor.skip();
        let _declared = cursor.width();
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
            } else if cursor.word("takes") {
                self.description.registers[register].takes = duration(&mut cursor)?;
            } else {
                return Err(Wrong::at(
                    at,
                    "an access (as rw, ro, w1c), `= VALUE`, `reads`, `writes` or `takes` can stand here",
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

    pub(super) fn state(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
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

    pub(super) fn field(&mut self, line: &Line<'_>, register: usize) -> Result<(), Wrong> {
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

    /// `line NAME = VALUE`.
    pub(super) fn line(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
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
    pub(super) fn message(&mut self, line: &Line<'_>) -> Result<(), Wrong> {
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
}

/// What a register is read from.
enum Source {
    Fifo(usize),
    Value(Expression),
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

/// How much longer than others an access to a register takes, ns.
fn duration(cursor: &mut Cursor<'_, '_>) -> Result<u64, Wrong> {
    let at = cursor.column();
    let count = cursor.number("how much longer an access takes")?;
    let unit = TIME_UNITS.into_iter().find(|(unit, _)| cursor.word(unit));
    let missing = || Wrong::at(cursor.column(), "a unit is missing here: ns, us or ms");
    let (_, unit) = unit.ok_or_else(missing)?;
    let duration = count.checked_mul(unit).filter(|duration| *duration <= LONGEST);
    duration.ok_or_else(|| Wrong::at(at, "an access takes 1 ms at most"))
}
