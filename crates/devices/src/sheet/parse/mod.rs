//! From a sheet's text to what it says: see `docs/sheet.md` for the language.
//!
//! Lines that are indented deeper belong to the line above them: fields to a register, actions to an `on`. All names are collected first, so
//! that one can be used above the line that declares it.

mod action;
mod declare;
mod describe;
mod line;

use super::description::{Description, Rest, SPACES};
use super::error::Wrong;
use super::expression::Expression;
use super::names::Names;
use line::{Line, lines};

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

/// Computed registers that are computed of computed ones.
const LONGEST_CHAIN: u32 = 4;
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
