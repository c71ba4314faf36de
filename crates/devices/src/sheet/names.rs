//! The names of a sheet: registers with their fields, FIFOs, memories, timers. Each stands for one thing.

use std::collections::BTreeMap;

use super::error::Wrong;
use super::expression::Bits;
use crate::spec::hint;

/// What a name stands for, as its number among its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Register(usize),
    Fifo(usize),
    Memory(usize),
    Timer(usize),
}

/// Words that mean something in expressions and actions.
const RESERVED: [&str; 16] = [
    "old", "written", "value", "answered", "bus", "if", "reads", "writes", "push", "pop", "clear", "start",
    "stop", "fetch", "store", "memory",
];

/// All names, and the bits of registers.
#[derive(Default)]
pub(super) struct Names {
    names: BTreeMap<String, Name>,
    /// By the number of the register: all of it, and its fields.
    registers: Vec<(Bits, BTreeMap<String, Bits>)>,
}

impl Names {
    /// A new name.
    pub(super) fn add(&mut self, name: &str, at: usize, stands_for: Name) -> Result<(), Wrong> {
        if RESERVED.contains(&name) {
            return Err(Wrong::at(at, format!("`{name}` has a meaning of its own; choose another name")));
        }
        if self.names.insert(name.to_owned(), stands_for).is_some() {
            return Err(Wrong::at(at, format!("the name `{name}` is given twice")));
        }
        Ok(())
    }

    /// The next register, with so many bits.
    pub(super) fn add_register(&mut self, name: &str, at: usize, bits: u32) -> Result<(), Wrong> {
        self.add(name, at, Name::Register(self.registers.len()))?;
        self.registers.push((Bits::new(0, bits - 1), BTreeMap::new()));
        Ok(())
    }

    /// A field of the register that came last.
    pub(super) fn add_field(&mut self, name: &str, at: usize, bits: Bits) -> Result<(), Wrong> {
        let (_, fields) = self.registers.last_mut().expect("a field stands behind its register");
        if fields.insert(name.to_owned(), bits).is_some() {
            return Err(Wrong::at(at, format!("the register has two fields `{name}`")));
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str, at: usize) -> Result<Name, Wrong> {
        let found = self.names.get(name).copied();
        found.ok_or_else(|| unknown("nothing is named", name, at, self.names.keys().map(String::as_str)))
    }

    /// The register of this name.
    pub(super) fn register(&self, name: &str, at: usize) -> Result<usize, Wrong> {
        match self.find(name, at)? {
            Name::Register(register) => Ok(register),
            _ => Err(Wrong::at(at, format!("`{name}` is no register"))),
        }
    }

    /// The FIFO of this name.
    pub(super) fn fifo(&self, name: &str, at: usize) -> Result<usize, Wrong> {
        match self.find(name, at)? {
            Name::Fifo(fifo) => Ok(fifo),
            _ => Err(Wrong::at(at, format!("`{name}` is no FIFO"))),
        }
    }

    /// The timer of this name.
    pub(super) fn timer(&self, name: &str, at: usize) -> Result<usize, Wrong> {
        match self.find(name, at) {
            Ok(Name::Timer(timer)) => Ok(timer),
            Ok(_) => Err(Wrong::at(at, format!("`{name}` is no timer"))),
            Err(_) => {
                Err(Wrong::at(at, format!("no timer is named `{name}`; say what it does: `on timer {name}`")))
            }
        }
    }

    /// The memory of this name.
    pub(super) fn memory(&self, name: &str, at: usize) -> Result<usize, Wrong> {
        match self.find(name, at)? {
            Name::Memory(memory) => Ok(memory),
            _ => Err(Wrong::at(at, format!("`{name}` is no memory"))),
        }
    }

    /// All bits of a register.
    pub(super) fn whole(&self, register: usize) -> Bits {
        self.registers[register].0
    }

    /// The bits of a field of a register's.
    pub(super) fn field(&self, register: usize, field: &str, at: usize) -> Result<Bits, Wrong> {
        let fields = &self.registers[register].1;
        let found = fields.get(field).copied();
        found
            .ok_or_else(|| unknown("the register has no field", field, at, fields.keys().map(String::as_str)))
    }
}

/// A name that is not there, with the one that may be meant.
fn unknown<'n>(what: &str, name: &str, at: usize, known: impl Iterator<Item = &'n str>) -> Wrong {
    Wrong::at(at, format!("{what} `{name}`{}", hint(name, known)))
}
