//! Line numbers: from which file and line the code at an address was compiled.
//!
//! From the PDB, or else from the image's own DWARF; with the routines that are inlined there. Columns are not read. They are read apart from the
//! names, because only a finding asks for them.

use std::collections::BTreeMap;
use std::fmt;

use super::inlines::Inlines;
use super::{dwarf, pdb};
use crate::image::Image;

/// Lines of an image by address, and their files.
#[derive(Clone, Default, Debug)]
pub struct Lines {
    rows: Vec<Row>,
    files: Vec<String>,
    known: BTreeMap<String, usize>,
    pub(super) inlines: Inlines,
}

/// A routine that an address is in, and the line where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceFrame<'s> {
    /// The routine that was inlined; none for the one that has the address.
    pub inlined: Option<&'s str>,
    /// The line of the code, or of the call of the routine further in.
    pub line: Option<SourceLine<'s>>,
}

/// A place in the driver's source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceLine<'s> {
    /// The file, a path of the build machine.
    pub file: &'s str,
    /// Counted from 1.
    pub line: u32,
}

/// From `rva` up to `end`, code of one line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Row {
    pub(super) rva: u32,
    pub(super) end: u32,
    pub(super) file: usize,
    pub(super) line: u32,
}

impl Lines {
    /// The lines of `image`, from its PDB's bytes, if they are given, else from its DWARF. Of what is damaged there are
    /// none.
    #[must_use]
    pub fn new(image: &Image, pdb: Option<&[u8]>) -> Self {
        match pdb {
            Some(pdb) => pdb::lines(image, pdb).unwrap_or_default(),
            None => dwarf::read(image),
        }
    }

    /// The line of the code at `rva`.
    #[must_use]
    pub fn at(&self, rva: u32) -> Option<SourceLine<'_>> {
        let after = self.rows.partition_point(|row| row.rva <= rva);
        let row = self.rows.get(after.checked_sub(1)?).filter(|row| rva < row.end)?;
        Some(SourceLine { file: self.files.get(row.file)?, line: row.line })
    }

    /// The routines that the code at `rva` is of, from the innermost that was inlined there out to the one that has the address.
    #[must_use]
    pub fn frames(&self, rva: u32) -> Vec<SourceFrame<'_>> {
        let pieces = self.inlines.at(rva);
        let name = |index: usize| pieces.get(index).map(|piece| self.inlines.name_of(piece.name));
        let line = |index: usize| {
            let (file, line) = pieces.get(index)?.line?;
            Some(SourceLine { file: self.files.get(file)?, line })
        };
        // DWARF's table of lines has the innermost line, and an inlined call says where it was made; a PDB's has the outermost.
        let own = |index: usize| match (self.inlines.calls, index) {
            (true, 0) => self.at(rva),
            (true, index) => line(index - 1),
            (false, index) if index == pieces.len() => self.at(rva),
            (false, index) => line(index),
        };
        (0..=pieces.len()).map(|index| SourceFrame { inlined: name(index), line: own(index) }).collect()
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many files there are.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// The number of the file of this name.
    pub(super) fn file(&mut self, name: String) -> usize {
        if let Some(&file) = self.known.get(&name) {
            return file;
        }
        let file = self.files.len();
        self.files.push(name.clone());
        self.known.insert(name, file);
        file
    }

    /// Adds a row; one of no bytes says nothing.
    pub(super) fn push(&mut self, row: Row) {
        if row.rva < row.end {
            self.rows.push(row);
        }
    }

    /// Puts the rows in order: of several that begin at one address, the shortest counts.
    pub(super) fn sort(&mut self) {
        self.rows.sort_unstable();
        self.rows.dedup_by_key(|row| row.rva);
    }
}

impl fmt::Display for SourceLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
