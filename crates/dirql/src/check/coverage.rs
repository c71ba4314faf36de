//! Which of a driver's code was reached, by function and by source line: what was not reached was not tested.
//!
//! A block of code counts as reached with its first instruction. Functions are those of the image's function table, so a leaf without an entry there
//! is not counted; names and lines are those of its symbols, as far as it has any.
//! The text of [`Coverage::lcov`] is a tracefile as *geninfo(1)* describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions};
use image::Lines;

use crate::files::DriverFile;

/// A function, and how much of it was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// `DispatchWrite`, or where it lies if it has no name: `+0x1234`.
    pub name: String,
    /// Its file and line, if they are known.
    pub source: Option<(String, u32)>,
    /// Instructions of it that were reached.
    pub reached: u32,
    /// All its instructions.
    pub instructions: u32,
}

/// What was reached of a driver.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Coverage {
    /// By where they lie.
    pub functions: Vec<Function>,
    /// By file and line: whether an instruction of it was reached.
    lines: BTreeMap<String, BTreeMap<u32, bool>>,
}

/// What the instructions at these offsets are of the driver's code.
#[must_use]
pub fn coverage(driver: &DriverFile, reached: &BTreeSet<u32>) -> Coverage {
    let image = &driver.image;
    let lines = Lines::new(image, driver.pdb.as_deref());
    let mut coverage = Coverage::default();
    for function in image.functions() {
        let Some(section) = image.section_at(function.begin) else { continue };
        let at = (function.begin - section.rva) as usize;
        let length = (function.end - function.begin) as usize;
        let Some(bytes) = image.section_data(section).get(at..at + length) else { continue };
        let decoder = Decoder::with_ip(64, bytes, function.begin.into(), DecoderOptions::NONE);
        let name = match driver.symbols.lookup(function.begin) {
            Some(symbol) if symbol.offset == 0 => symbol.name.to_owned(),
            _ => format!("+{:#x}", function.begin),
        };
        let source = lines.at(function.begin).map(|line| (line.file.to_owned(), line.line));
        let mut found = Function { name, source, reached: 0, instructions: 0 };
        for instruction in decoder {
            let rva = u32::try_from(instruction.ip()).unwrap_or(u32::MAX);
            let is_reached = reached.contains(&rva);
            found.instructions += 1;
            found.reached += u32::from(is_reached);
            if let Some(line) = lines.at(rva) {
                let file = coverage.lines.entry(line.file.to_owned()).or_default();
                *file.entry(line.line).or_default() |= is_reached;
            }
        }
        coverage.functions.push(found);
    }
    coverage
}

impl Coverage {
    /// How many instructions were reached, and how many there are.
    #[must_use]
    pub fn instructions(&self) -> (u32, u32) {
        let sum = |of: fn(&Function) -> u32| self.functions.iter().map(of).sum();
        (sum(|function| function.reached), sum(|function| function.instructions))
    }

    /// The functions that were never come to.
    pub fn missed(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|function| function.reached == 0)
    }

    /// As a tracefile: a record for each source file. Where no line is known it is empty.
    #[must_use]
    pub fn lcov(&self) -> String {
        let mut text = String::new();
        for (file, lines) in &self.lines {
            let _ = writeln!(text, "TN:dirql\nSF:{file}");
            let own = || {
                let of = |function: &&Function| function.source.as_ref().is_some_and(|(of, _)| of == file);
                self.functions.iter().filter(of)
            };
            for function in own() {
                let line = function.source.as_ref().map_or(0, |(_, line)| *line);
                let _ = writeln!(text, "FN:{line},{}", function.name);
            }
            for function in own() {
                let _ = writeln!(text, "FNDA:{},{}", u32::from(function.reached > 0), function.name);
            }
            let hit = own().filter(|function| function.reached > 0).count();
            let _ = writeln!(text, "FNF:{}\nFNH:{hit}", own().count());
            for (line, is_reached) in lines {
                let _ = writeln!(text, "DA:{line},{}", u32::from(*is_reached));
            }
            let hit = lines.values().filter(|is_reached| **is_reached).count();
            let _ = writeln!(text, "LF:{}\nLH:{hit}\nend_of_record", lines.len());
        }
        text
    }
}
