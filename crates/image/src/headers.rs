//! The DOS, file and optional headers of a PE32+ image, and whether this is an x64 driver at all.
//!
//! As the Microsoft page "PE Format" has them. It does not read what the data directories point to.

use object::LittleEndian as LE;
use object::pe::{
    IMAGE_FILE_DLL, IMAGE_FILE_EXECUTABLE_IMAGE, IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_I386,
    IMAGE_FILE_RELOCS_STRIPPED, IMAGE_NT_OPTIONAL_HDR32_MAGIC, IMAGE_NT_OPTIONAL_HDR64_MAGIC,
    IMAGE_NT_SIGNATURE, IMAGE_SUBSYSTEM_NATIVE, ImageDataDirectory, ImageDosHeader, ImageFileHeader,
    ImageNtHeaders64, ImageSectionHeader,
};
use object::pod::from_bytes;
use object::read::coff::CoffHeader;
use object::read::pe::{DataDirectories, ImageNtHeaders};

use crate::error::Problem;
use crate::protection::PAGE;

/// Largest `SizeOfImage` that is accepted, bytes: 256 MiB.
pub const MAX_SIZE_OF_IMAGE: u32 = 256 << 20;

/// What the headers say, checked for sense.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    pub(crate) preferred_base: u64,
    pub(crate) size_of_image: u32,
    pub(crate) size_of_headers: u32,
    pub(crate) section_alignment: u32,
    /// RVA; 0 if the image has no entry point.
    pub(crate) entry: u32,
    pub(crate) relocations_stripped: bool,
    pub(crate) stored_checksum: u32,
    /// File offset of the `PE` signature, which is also its RVA.
    pub(crate) nt_offset: u32,
    /// RVA and size of each data directory.
    directories: Vec<(u32, u32)>,
    file_header: ImageFileHeader,
    section_table_offset: u64,
}

impl Headers {
    /// Reads the headers and refuses what is no x64 driver.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, Problem> {
        let nt_offset = find_nt_headers(file)?;
        check_machine(file, nt_offset)?;
        let mut offset = u64::from(nt_offset);
        let (nt, directories) = ImageNtHeaders64::parse(file, &mut offset)
            .map_err(|_| truncated(file, "the optional header", offset))?;
        check_kind(nt)?;
        let optional = &nt.optional_header;
        let headers = Self {
            preferred_base: optional.image_base.get(LE),
            size_of_image: optional.size_of_image.get(LE),
            size_of_headers: optional.size_of_headers.get(LE),
            section_alignment: optional.section_alignment.get(LE),
            entry: optional.address_of_entry_point.get(LE),
            relocations_stripped: nt.file_header.characteristics.get(LE).0 & IMAGE_FILE_RELOCS_STRIPPED.0
                != 0,
            stored_checksum: optional.check_sum.get(LE),
            nt_offset,
            directories: list(&directories),
            file_header: nt.file_header,
            section_table_offset: offset,
        };
        headers.check_sizes(file, optional.file_alignment.get(LE))?;
        Ok(headers)
    }

    /// Bytes of the image in memory: `SizeOfImage` rounded up to whole pages.
    pub(crate) fn mapped_size(&self) -> u32 {
        self.size_of_image.next_multiple_of(PAGE)
    }

    /// RVA and size of a data directory, if it has both.
    pub(crate) fn directory(&self, index: usize) -> Option<(u32, u32)> {
        self.directories.get(index).copied().filter(|&(rva, size)| rva != 0 && size != 0)
    }

    /// File offset (and RVA) of a field of the optional header.
    pub(crate) fn optional_field(&self, offset: u32) -> u32 {
        self.nt_offset + 4 + 20 + offset
    }

    /// The file header, for the COFF symbol table.
    pub(crate) fn file_header(&self) -> &ImageFileHeader {
        &self.file_header
    }

    /// The section headers.
    pub(crate) fn section_table<'f>(&self, file: &'f [u8]) -> Result<&'f [ImageSectionHeader], Problem> {
        let count = usize::from(self.file_header.number_of_sections.get(LE));
        if count == 0 {
            return Err(Problem::Header("the file header counts no sections"));
        }
        let end = self.section_table_offset + 40 * count as u64;
        let tail = usize::try_from(self.section_table_offset).ok().and_then(|start| file.get(start..));
        match object::pod::slice_from_bytes(tail.unwrap_or(&[]), count) {
            Ok((table, _)) => Ok(table),
            Err(()) => Err(truncated(file, "the section table", end)),
        }
    }

    /// A section's name, from the header itself or, for `/123`, from the COFF string table.
    pub(crate) fn section_name(&self, file: &[u8], header: &ImageSectionHeader, index: usize) -> String {
        let strings = self.file_header.symbols(file).map(|table| table.strings()).unwrap_or_default();
        let name = header.name(strings).unwrap_or_else(|_| header.raw_name());
        let name = &name[..name.len().min(crate::memory::MAX_NAME)];
        if name.is_empty() { format!("#{}", index + 1) } else { String::from_utf8_lossy(name).into_owned() }
    }

    fn check_sizes(&self, file: &[u8], file_alignment: u32) -> Result<(), Problem> {
        if self.size_of_image == 0 || self.size_of_image > MAX_SIZE_OF_IMAGE {
            return Err(Problem::SizeOfImage(self.size_of_image));
        }
        let section = self.section_alignment;
        if !section.is_power_of_two() || !file_alignment.is_power_of_two() || file_alignment > section {
            return Err(Problem::Alignment { section, file: file_alignment });
        }
        if u64::from(self.size_of_headers) > file.len() as u64 {
            return Err(truncated(file, "the header area", self.size_of_headers.into()));
        }
        if self.size_of_headers < self.optional_field(112) || self.size_of_headers > self.size_of_image {
            return Err(Problem::Header("SizeOfHeaders does not cover the headers or exceeds SizeOfImage"));
        }
        if !self.preferred_base.is_multiple_of(0x1_0000) {
            return Err(Problem::Header("ImageBase is not a multiple of 64 KiB"));
        }
        if self.preferred_base.checked_add(self.mapped_size().into()).is_none() {
            return Err(Problem::Header("the image would wrap around the address space at its ImageBase"));
        }
        Ok(())
    }
}

fn list(directories: &DataDirectories<'_>) -> Vec<(u32, u32)> {
    let pair = |entry: &ImageDataDirectory| (entry.virtual_address.get(LE), entry.size.get(LE));
    directories.iter().take(16).map(pair).collect()
}

fn truncated(file: &[u8], what: &str, end: u64) -> Problem {
    Problem::Truncated { what: what.into(), end, length: file.len() as u64 }
}

/// The file offset of the `PE` signature, with the whole file header behind it.
fn find_nt_headers(file: &[u8]) -> Result<u32, Problem> {
    if file.is_empty() {
        return Err(Problem::Empty);
    }
    if !file.starts_with(b"MZ") {
        return Err(Problem::NotPe(looks_like(file)));
    }
    let dos: &ImageDosHeader = from_bytes(file).map_err(|()| truncated(file, "the DOS header", 64))?.0;
    let offset = dos.nt_headers_offset();
    let end = u64::from(offset) + 4 + 20 + 2;
    if end > file.len() as u64 {
        return Err(truncated(file, "the PE header that e_lfanew points to", end));
    }
    let signature = file.get(offset as usize..).and_then(<[u8]>::first_chunk).map(|b| u32::from_le_bytes(*b));
    if signature == Some(IMAGE_NT_SIGNATURE) {
        Ok(offset)
    } else {
        Err(Problem::NoSignature { offset: offset.into() })
    }
}

fn looks_like(file: &[u8]) -> &'static str {
    match file {
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file (Linux)",
        [b'S', b'Z', b'D', b'D', ..] | [b'M', b'S', b'C', b'F', ..] => "a compressed file (expand it first)",
        [b'P', b'K', ..] => "a ZIP archive (unpack it first)",
        [0x64, 0x86, ..] => "an object file (link it first)",
        [0xff, 0xfe, ..] | [b' '..=b'~' | b'\r' | b'\n' | b'\t' | 0xef, ..] => "a text file",
        _ => "something else",
    }
}

fn check_machine(file: &[u8], nt_offset: u32) -> Result<(), Problem> {
    let word = |offset: usize| {
        file.get(nt_offset as usize + offset..)
            .and_then(<[u8]>::first_chunk)
            .map(|bytes| u16::from_le_bytes(*bytes))
    };
    let machine = word(4).unwrap_or(0);
    if machine == IMAGE_FILE_MACHINE_I386.0 {
        return Err(Problem::ThirtyTwoBit);
    }
    if machine != IMAGE_FILE_MACHINE_AMD64.0 {
        return Err(Problem::Machine(machine));
    }
    match word(24) {
        Some(IMAGE_NT_OPTIONAL_HDR64_MAGIC) => Ok(()),
        Some(IMAGE_NT_OPTIONAL_HDR32_MAGIC) => {
            Err(Problem::Header("the machine is x64, but the optional header's magic is PE32's, not PE32+'s"))
        }
        _ => Err(Problem::Header("the optional header's magic is not PE32+'s (020b)")),
    }
}

/// mingw links drivers with `-shared`, so a native image with the DLL bit is a driver all the same.
fn check_kind(nt: &ImageNtHeaders64) -> Result<(), Problem> {
    let flags = nt.file_header.characteristics.get(LE).0;
    if flags & IMAGE_FILE_EXECUTABLE_IMAGE.0 == 0 {
        return Err(Problem::NotLinked);
    }
    let subsystem = nt.optional_header.subsystem.get(LE).0;
    if subsystem == IMAGE_SUBSYSTEM_NATIVE.0 {
        return Ok(());
    }
    let name = subsystem_name(subsystem);
    Err(if flags & IMAGE_FILE_DLL.0 == 0 { Problem::UserProgram(name) } else { Problem::UserDll(name) })
}

fn subsystem_name(subsystem: u16) -> &'static str {
    match subsystem {
        2 => "Windows GUI",
        3 => "Windows console",
        5 => "OS/2",
        7 => "POSIX",
        9 => "Windows CE",
        10..=13 => "EFI",
        14 | 17 => "Xbox",
        16 => "Windows boot application",
        _ => "unknown",
    }
}
