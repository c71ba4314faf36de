//! Which of a driver's code was reached, by function and by source line: what was not reached was not tested.
//!
//! A block of code counts as reached with its first instruction. Functions are those of the image's function table, so a leaf without an entry there
//! is not counted; names and lines are those of its symbols, as far as it has any.
//! The text of [`Coverage::lcov`] is a tracefile as *geninfo(1)* describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use image::Lines;

use crate::files::DriverFile;

/// So many bytes of a function may be inlined from elsewhere.
const INLINED: usize = 256;

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
    /// Of one that was never come to: who names it, and why that did not lead there.
    pub why: Option<String>,
}

/// An instruction that names a function: one that calls it or takes its address.
struct Naming {
    /// The function that has it, by its place.
    by: usize,
    rva: u32,
    calls: bool,
    is_reached: bool,
    /// The last instruction before it, in the same function, that was reached.
    behind: Option<u32>,
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
    let mut named: BTreeMap<u32, Vec<Naming>> = BTreeMap::new();
    let mut begins = Vec::new();
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
        let mut found = Function { name, source, reached: 0, instructions: 0, why: None };
        let mut behind = None;
        for instruction in decoder {
            let rva = u32::try_from(instruction.ip()).unwrap_or(u32::MAX);
            let is_reached = reached.contains(&rva);
            if let Some((target, calls)) = names(&instruction)
                && !(function.begin..function.end).contains(&target)
            {
                let by = coverage.functions.len();
                named.entry(target).or_default().push(Naming { by, rva, calls, is_reached, behind });
            }
            behind = if is_reached { Some(rva) } else { behind };
            found.instructions += 1;
            found.reached += u32::from(is_reached);
            if let Some(line) = lines.at(rva) {
                let file = coverage.lines.entry(line.file.to_owned()).or_default();
                *file.entry(line.line).or_default() |= is_reached;
            }
        }
        coverage.functions.push(found);
        begins.push(function.begin);
    }
    // What is inlined from a header is where the function itself goes on before it.
    let functions = &coverage.functions;
    let place = |by: usize, rva: u32| {
        let own = functions[by].source.as_ref().map(|(file, _)| file.as_str());
        let of_own = |at: u32| lines.at(at).filter(|line| own == Some(line.file));
        let line = (begins[by]..=rva).rev().take(INLINED).find_map(of_own).or_else(|| lines.at(rva));
        line.map_or_else(|| format!("+{rva:#x}"), |line| format!("{}:{}", line.file, line.line))
    };
    let why_missed = |(function, begin): (&Function, u32)| {
        let all = named.get(&begin).filter(|_| function.reached == 0)?;
        why(all, functions, &place)
    };
    let all: Vec<Option<String>> = functions.iter().zip(begins.iter().copied()).map(why_missed).collect();
    for (function, why) in coverage.functions.iter_mut().zip(all) {
        function.why = why;
    }
    coverage
}

/// The address that an instruction calls, jumps to, or loads as such, and whether it goes there.
fn names(instruction: &Instruction) -> Option<(u32, bool)> {
    let target = match instruction.flow_control() {
        FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            (instruction.near_branch_target(), true)
        }
        _ if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() => {
            (instruction.ip_rel_memory_address(), false)
        }
        _ => return None,
    };
    Some((u32::try_from(target.0).ok().filter(|target| *target != 0)?, target.1))
}

/// What of those that name a function says most about why it was never come to: a branch that went another way, an address that nothing called, a caller
/// that was never come to itself.
fn why(all: &[Naming], functions: &[Function], place: &dyn Fn(usize, u32) -> String) -> Option<String> {
    let name = |naming: &Naming| &functions[naming.by].name;
    if let Some((one, behind)) =
        all.iter().find_map(|one| Some((one, one.behind.filter(|_| !one.is_reached)?)))
    {
        let (at, behind) = (place(one.by, one.rva), place(one.by, behind));
        return Some(format!("named by {} at {at}, and {behind} never led there", name(one)));
    }
    if let Some(one) = all.iter().find(|one| one.is_reached && !one.calls) {
        return Some(format!(
            "its address is taken by {} at {}, and nothing called it",
            name(one),
            place(one.by, one.rva)
        ));
    }
    let one = all.iter().find(|one| !one.is_reached)?;
    Some(format!("named by {}, which was never come to", name(one)))
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
