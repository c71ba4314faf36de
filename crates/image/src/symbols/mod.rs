//! Names for addresses: which function (or variable) an RVA is in; and, read apart, from which source line it came.
//!
//! From the PDB if one is given, the COFF symbol table (mingw), DWARF where that lacks a function, and the exports; where none
//! knows, the caller writes `name.sys+0x…`.

mod annotations;
mod c13;
pub(crate) mod coff;
mod demangled;
mod dwarf;
mod entries;
mod inline_sites;
mod inlined_subroutines;
mod inlines;
mod lines;
mod msf;
mod pdb;
mod reader;
mod records;
mod subprograms;
mod type_sizes;
mod variables;

use std::fmt;

use crate::error::ImageError;
use crate::exports::ExportTarget;
use crate::image::Image;
use crate::sections::Section;
use crate::unwind::FunctionEntry;
pub use lines::{Lines, SourceFrame, SourceLine};

/// The texts of each annotation in the PDB of `image`.
///
/// # Errors
/// As [`Symbols::new`].
pub(crate) fn read_annotations(image: &Image, pdb: &[u8]) -> Result<Vec<Vec<String>>, ImageError> {
    pdb::annotations(image, pdb).map_err(|problem| ImageError { image: image.name().into(), problem })
}

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Symbol<'s> {
    /// The function or variable, as it is written in the file: a name of C++ is shown without its decoration.
    pub name: &'s str,
    /// Bytes from its beginning.
    pub offset: u32,
}

impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&demangled::demangled(self.name))?;
        if self.offset != 0 {
            write!(f, "+{:#x}", self.offset)?;
        }
        Ok(())
    }
}

/// A name as a source gives it. Of several for one address, the first in this order counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Named {
    pub(crate) rva: u32,
    pub(crate) source: Source,
    pub(crate) name: String,
    /// Bytes that a variable has, if that is known.
    pub(crate) extent: Option<u32>,
}

/// Where a name comes from, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Source {
    Procedure,
    Public,
    Data,
    /// Of type "function": before the marks that a linker leaves at the same address.
    CoffFunction,
    Dwarf,
    CoffGlobal,
    CoffStatic,
    Export,
    /// The function table: a function begins here, and its name is not known.
    Nameless,
}

/// The names of one image.
#[derive(Clone, Debug)]
pub struct Symbols {
    /// By address; of several for one, the best first.
    names: Vec<Named>,
    /// Where a section ends, every name in it does.
    parts: Vec<Part>,
}

/// A section as names see it.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    start: u32,
    end: u32,
    is_code: bool,
}

impl Symbols {
    /// The names of `image`, with those of its PDB's bytes, if they are given.
    ///
    /// # Errors
    /// If `pdb` is no PDB, a damaged one, or not the one that was written when `image` was linked.
    pub fn new(image: &Image, pdb: Option<&[u8]>) -> Result<Self, ImageError> {
        let mut names = image.coff_names.clone();
        if let Some(pdb) = pdb {
            let found = pdb::names(image, pdb);
            names.extend(found.map_err(|problem| ImageError { image: image.name().into(), problem })?);
        }
        let mut marks = nameless(image, &names);
        names.extend(variables::read(image));
        // It takes time to read, and mostly the others know all.
        if !marks.is_empty() {
            names.extend(subprograms::read(image));
        }
        names.extend(exported(image));
        if !marks.is_empty() {
            marks = nameless(image, &names);
        }
        names.extend(marks);
        names.sort_unstable();
        let part = |section: &Section| Part {
            name: section.name.clone(),
            start: section.rva,
            end: section.end(),
            is_code: section.protection.execute,
        };
        Ok(Self { names, parts: image.sections().iter().map(part).collect() })
    }

    /// What `rva` is in. In code: the nearest name at or before it in the same section, unless the function table says that another
    /// function, whose name is not known, begins between. Elsewhere: the variable that begins there, or whose extent is known and
    /// covers it; the next one before it may have ended, and what lies there may have no name.
    #[must_use]
    pub fn lookup(&self, rva: u32) -> Option<Symbol<'_>> {
        let part = self.part(rva)?;
        let after = self.names.partition_point(|named| named.rva <= rva);
        let nearest = self.names.get(after.checked_sub(1)?)?.rva;
        let best = self.names.partition_point(|named| named.rva < nearest);
        let named = self.names.get(best)?;
        if named.rva < part.start || named.source == Source::Nameless {
            return None;
        }
        let offset = rva - named.rva;
        let covers = |named: &Named| named.extent.is_some_and(|extent| offset < extent);
        if !part.is_code && offset != 0 && !self.names[best..after].iter().any(covers) {
            return None;
        }
        Some(Symbol { name: &named.name, offset })
    }

    /// The section of variables that `rva` is in, and how far into it; none for code and what is outside the image.
    #[must_use]
    pub fn data_section(&self, rva: u32) -> Option<(&str, u32)> {
        let part = self.part(rva).filter(|part| !part.is_code)?;
        Some((&part.name, rva - part.start))
    }

    fn part(&self, rva: u32) -> Option<&Part> {
        self.parts.iter().find(|part| (part.start..part.end).contains(&rva))
    }

    /// The RVA of the function or variable of this name; the lowest, if several have it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u32> {
        self.names
            .iter()
            .find(|named| named.name == name && named.source != Source::Nameless)
            .map(|named| named.rva)
    }
}

fn exported(image: &Image) -> Vec<Named> {
    let named = image.exports().iter().filter_map(|export| match (&export.target, &export.name) {
        (ExportTarget::Rva(rva), Some(name)) => {
            Some(Named { rva: *rva, source: Source::Export, name: name.clone(), extent: None })
        }
        _ => None,
    });
    named.collect()
}

/// Marks where functions of the function table begin that none of `names` is in.
fn nameless(image: &Image, names: &[Named]) -> Vec<Named> {
    let mut known: Vec<u32> = names.iter().map(|named| named.rva).collect();
    known.sort_unstable();
    let mut marks = Vec::new();
    for function in image.functions() {
        let primary = FunctionEntry::of(image, *function).map_or(function.begin, |entry| entry.primary.begin);
        let before = known.partition_point(|&rva| rva <= function.begin);
        let nearest = before.checked_sub(1).map(|index| known[index]);
        if nearest.is_none_or(|nearest| !(primary..=function.begin).contains(&nearest)) {
            marks.push(Named {
                rva: function.begin,
                source: Source::Nameless,
                name: String::new(),
                extent: None,
            });
        }
    }
    marks
}
