//! The section table: where each section lies, what may be done with it, and when the system may take it away.
//!
//! As the Microsoft pages "PE Format" ("Section Table") and "Making Drivers Pageable" have it. It discards nothing and
//! pages nothing out: the kernel decides when.

use object::LittleEndian as LE;
use object::pe::{
    IMAGE_SCN_MEM_DISCARDABLE, IMAGE_SCN_MEM_EXECUTE, IMAGE_SCN_MEM_READ, IMAGE_SCN_MEM_WRITE,
    ImageSectionHeader,
};

use crate::error::Problem;
use crate::headers::Headers;
use crate::memory::{Memory, Part};
use crate::protection::{PAGE, Protection};

/// A section of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Its name, e.g. `.text`; 8 bytes, or longer from the COFF string table (mingw's debug sections).
    pub name: String,
    /// Where it begins.
    pub rva: u32,
    /// Bytes it has in memory; what the file does not give is zero.
    pub virtual_size: u32,
    /// Where its bytes are in the file.
    pub file_offset: u32,
    /// Bytes of it in the file.
    pub raw_size: u32,
    /// As its flags say. What is writable or executable is readable.
    pub protection: Protection,
    /// `IMAGE_SCN_MEM_DISCARDABLE`: the system need not keep it once the image is initialised.
    pub discardable: bool,
}

impl Section {
    /// Whether it is freed when `DriverEntry` has returned: discardable and named `INIT…`.
    #[must_use]
    pub fn is_init(&self) -> bool {
        self.discardable && self.name.starts_with("INIT")
    }

    /// Whether it may be paged out, so that it must not be touched at `DISPATCH_LEVEL` or above: named `PAGE…`.
    #[must_use]
    pub fn is_pageable(&self) -> bool {
        self.name.starts_with("PAGE")
    }

    /// RVA just past its last byte.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.rva.saturating_add(self.virtual_size)
    }

    /// Whether `rva` is in it.
    #[must_use]
    pub fn contains(&self, rva: u32) -> bool {
        (self.rva..self.end()).contains(&rva)
    }

    fn from_header(header: &ImageSectionHeader, name: String) -> Self {
        let flags = header.characteristics.get(LE).0;
        let set = |flag: object::pe::SectionFlags| flags & flag.0 != 0;
        let (write, execute) = (set(IMAGE_SCN_MEM_WRITE), set(IMAGE_SCN_MEM_EXECUTE));
        let (virtual_size, raw_size) = (header.virtual_size.get(LE), header.size_of_raw_data.get(LE));
        Self {
            name,
            rva: header.virtual_address.get(LE),
            virtual_size: if virtual_size == 0 { raw_size } else { virtual_size },
            file_offset: header.pointer_to_raw_data.get(LE),
            raw_size: if header.pointer_to_raw_data.get(LE) == 0 { 0 } else { raw_size },
            protection: Protection { read: write || execute || set(IMAGE_SCN_MEM_READ), write, execute },
            discardable: set(IMAGE_SCN_MEM_DISCARDABLE),
        }
    }
}

/// Reads the section table and lays the sections out above the headers.
pub(crate) fn read(file: &[u8], headers: &Headers) -> Result<(Vec<Section>, Memory), Problem> {
    let table = headers.section_table(file)?;
    let mut sections = Vec::new();
    let head = file.get(..headers.size_of_headers as usize).unwrap_or(file);
    let mut parts = vec![Part::new(0, headers.size_of_headers, head)];
    let (mut before, mut end) = (String::from("the header area"), headers.size_of_headers);
    for (index, header) in table.iter().enumerate() {
        let section = Section::from_header(header, headers.section_name(file, header, index));
        if section.rva < end {
            return Err(Problem::Overlap { first: before, second: section.name, rva: section.rva });
        }
        let (size, raw) = place(file, headers, &section)?;
        before = format!("section {}", section.name);
        end = section.end();
        if size > 0 {
            parts.push(Part::new(section.rva, size, raw));
        }
        sections.push(section);
    }
    Ok((sections, Memory::new(parts)))
}

/// The bytes a section takes in memory (whole pages, where sections have pages of their own) and those the file gives.
fn place<'f>(file: &'f [u8], headers: &Headers, section: &Section) -> Result<(u32, &'f [u8]), Problem> {
    let alignment = headers.section_alignment;
    if !section.rva.is_multiple_of(alignment) {
        return Err(Problem::Unaligned { section: section.name.clone(), rva: section.rva, alignment });
    }
    let end = u64::from(section.rva) + u64::from(section.virtual_size);
    if end > u64::from(headers.mapped_size()) {
        let size_of_image = headers.size_of_image;
        return Err(Problem::SectionOutsideImage { section: section.name.clone(), end, size_of_image });
    }
    let (start, length) = (section.file_offset as usize, section.raw_size as usize);
    let Some(raw) = start.checked_add(length).and_then(|end| file.get(start..end)) else {
        return Err(Problem::Truncated {
            what: format!("section {}", section.name),
            end: u64::from(section.file_offset) + u64::from(section.raw_size),
            length: file.len() as u64,
        });
    };
    let raw = if section.raw_size == 0 { &[] } else { raw };
    let own_pages = alignment >= PAGE;
    let size = if own_pages { section.virtual_size.next_multiple_of(PAGE) } else { section.virtual_size };
    Ok((size, raw))
}
