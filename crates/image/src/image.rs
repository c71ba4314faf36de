//! A driver image: what can be asked of it before it is loaded.
//!
//! Reading is all or nothing for what loading needs (headers, sections, imports, exports) and forgiving for what it does not
//! (unwind data, load configuration, debug directory): a damaged one is as good as none.

use crate::checksum::Checksum;
use crate::config::{self, LoadConfig};
use crate::debug::{self, PdbReference};
use crate::error::{ImageError, Problem};
use crate::exports::{self, Export};
use crate::headers::Headers;
use crate::imports::{self, Import};
use crate::memory::Memory;
use crate::protection::{PAGE, PageRange, Protection};
use crate::runtime_functions::{self, RuntimeFunction};
use crate::sections::{self, Section};
use crate::selector::Selector;
use crate::symbols::{Named, coff};

/// A parsed driver image. It owns what it needs of the file.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) name: String,
    pub(crate) headers: Headers,
    pub(crate) memory: Memory,
    pub(crate) config: LoadConfig,
    pub(crate) coff_names: Vec<Named>,
    sections: Vec<Section>,
    checksum: Checksum,
    imports: Vec<Import>,
    exports: Vec<Export>,
    functions: Vec<RuntimeFunction>,
    pdb: Option<PdbReference>,
}

impl Image {
    /// Takes `file`, the bytes of a `.sys`, apart. `name` is used in messages and for the `/GS` cookie.
    ///
    /// # Errors
    /// If it is not an x64 driver that Windows would load, with what is wrong, where, and what to do.
    pub fn parse(name: &str, file: &[u8]) -> Result<Self, ImageError> {
        Self::take_apart(name, file).map_err(|problem| ImageError { image: name.into(), problem })
    }

    fn take_apart(name: &str, file: &[u8]) -> Result<Self, Problem> {
        let headers = Headers::parse(file)?;
        let (sections, memory) = sections::read(file, &headers)?;
        let field = headers.optional_field(64) as usize;
        let image = Self {
            name: name.into(),
            coff_names: coff::read(file, &headers, &sections),
            sections,
            checksum: Checksum::of(file, field, headers.stored_checksum),
            imports: imports::read(&headers, &memory)?,
            exports: exports::read(&headers, &memory)?,
            functions: runtime_functions::read(&headers, &memory),
            config: config::read(&headers, &memory),
            pdb: debug::read(&headers, &memory),
            headers,
            memory,
        };
        match image.entry_point() {
            Some(entry) if !image.protection_at(entry).execute => Err(Problem::EntryPoint(entry)),
            _ => Ok(image),
        }
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The base it was linked for.
    #[must_use]
    pub fn preferred_base(&self) -> u64 {
        self.headers.preferred_base
    }

    /// Bytes it takes in memory: whole pages, at most [`crate::MAX_SIZE_OF_IMAGE`].
    #[must_use]
    pub fn size(&self) -> u32 {
        self.headers.mapped_size()
    }

    /// RVA of the entry point; `None` for an export library that has none.
    #[must_use]
    pub fn entry_point(&self) -> Option<u32> {
        Some(self.headers.entry).filter(|&rva| rva != 0)
    }

    /// Whether it can be only at its preferred base (`IMAGE_FILE_RELOCS_STRIPPED`).
    #[must_use]
    pub fn relocations_stripped(&self) -> bool {
        self.headers.relocations_stripped
    }

    /// The sections, by address.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section that `rva` is in.
    #[must_use]
    pub fn section_at(&self, rva: u32) -> Option<&Section> {
        self.sections.iter().find(|section| section.contains(rva))
    }

    /// The bytes of a section as the file gives them, unrelocated; what its virtual size has beyond them is zero.
    #[must_use]
    pub fn section_data(&self, section: &Section) -> &[u8] {
        let tail = self.memory.tail(section.rva);
        tail.get(..section.virtual_size as usize).unwrap_or(tail)
    }

    /// The checksum in the header and the one the file has.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// What it takes from others, delayed imports last.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    /// What it gives to others, by ordinal.
    #[must_use]
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// The export that `selector` means.
    #[must_use]
    pub fn export(&self, selector: &Selector) -> Option<&Export> {
        self.exports.iter().find(|export| match selector {
            Selector::Name(name) => export.name.as_deref() == Some(name),
            Selector::Ordinal(ordinal) => export.ordinal == u32::from(*ordinal),
        })
    }

    /// Functions with unwind data, by address.
    #[must_use]
    pub fn functions(&self) -> &[RuntimeFunction] {
        &self.functions
    }

    /// The function with unwind data that `rva` is in: of those that overlap, the one that begins last.
    #[must_use]
    pub fn function_at(&self, rva: u32) -> Option<RuntimeFunction> {
        let after = self.functions.partition_point(|function| function.begin <= rva);
        let nearest = *self.functions.get(after.checked_sub(1)?)?;
        (rva < nearest.end).then_some(nearest)
    }

    /// RVA of a function's entry in the exception directory, as a driver that asks for it reads it.
    #[must_use]
    pub fn function_entry(&self, function: RuntimeFunction) -> Option<u32> {
        runtime_functions::place(&self.headers, &self.memory, function)
    }

    /// Where the `/GS` cookie and the control-flow-guard pointers are.
    #[must_use]
    pub fn load_config(&self) -> LoadConfig {
        self.config
    }

    /// RVAs of the functions that indirect calls may reach; `None` if it has no table of them, so that all code may be.
    #[must_use]
    pub fn guard_targets(&self) -> Option<Vec<u32>> {
        let table = self.config.guard_functions?;
        Some(config::guard_targets(&self.headers, &self.memory, table))
    }

    /// The PDB that belongs to it.
    #[must_use]
    pub fn pdb(&self) -> Option<&PdbReference> {
        self.pdb.as_ref()
    }

    /// What may be done with each page, by address, pages of no section left out.
    ///
    /// Sections aligned to less than a page share pages; such an image is one range with what any of them may do.
    #[must_use]
    pub fn protections(&self) -> Vec<PageRange> {
        if self.headers.section_alignment < PAGE {
            let all = self.sections.iter().fold(Protection::READ, |all, section| all | section.protection);
            return vec![PageRange { rva: 0, size: self.size(), protection: all }];
        }
        let head = self.headers.size_of_headers.next_multiple_of(PAGE);
        let mut ranges = vec![PageRange { rva: 0, size: head, protection: Protection::READ }];
        for section in self.sections.iter().filter(|section| section.virtual_size > 0) {
            let size = section.virtual_size.next_multiple_of(PAGE);
            ranges.push(PageRange { rva: section.rva, size, protection: section.protection });
        }
        ranges
    }

    /// What may be done with the page that `rva` is in.
    #[must_use]
    pub fn protection_at(&self, rva: u32) -> Protection {
        let ranges = self.protections();
        let holds = |range: &&PageRange| (range.rva..range.rva + range.size).contains(&rva);
        ranges.iter().find(holds).map_or(Protection::default(), |range| range.protection)
    }
}
