//! A small image linker for odd shapes: every header field is the test's to choose.
//!
//! It checks nothing: that is what is being tested.

pub(crate) const CODE: u32 = 0x6000_0020;
pub(crate) const DATA: u32 = 0xC000_0040;
pub(crate) const READ_ONLY: u32 = 0x4000_0040;

/// Data directories by index.
pub(crate) const EXPORT: usize = 0;
pub(crate) const IMPORT: usize = 1;
pub(crate) const RELOCATIONS: usize = 5;
pub(crate) const LOAD_CONFIG: usize = 10;
pub(crate) const DELAY_IMPORT: usize = 13;

/// A section: its bytes go to the file, padded to the file alignment.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) rva: u32,
    pub(crate) virtual_size: u32,
    pub(crate) flags: u32,
    pub(crate) bytes: Vec<u8>,
}

/// What the headers say.
#[derive(Clone)]
pub(crate) struct Assembly {
    pub(crate) machine: u16,
    pub(crate) characteristics: u16,
    pub(crate) magic: u16,
    pub(crate) subsystem: u16,
    pub(crate) base: u64,
    pub(crate) entry: u32,
    pub(crate) section_alignment: u32,
    pub(crate) file_alignment: u32,
    pub(crate) size_of_headers: u32,
    /// The end of the last section, rounded to the section alignment, if 0.
    pub(crate) size_of_image: u32,
    pub(crate) directories: [(u32, u32); 16],
    pub(crate) parts: Vec<Part>,
}

/// A driver of one code section at 1000h whose entry point returns.
pub(crate) fn tiny() -> Assembly {
    let mut code = vec![0xc3];
    code.resize(0x40, 0xcc);
    Assembly {
        machine: 0x8664,
        characteristics: 0x0022,
        magic: 0x20b,
        subsystem: 1,
        base: 0x1_0000,
        entry: 0x1000,
        section_alignment: 0x1000,
        file_alignment: 0x200,
        size_of_headers: 0x400,
        size_of_image: 0,
        directories: [(0, 0); 16],
        parts: vec![Part { name: ".text", rva: 0x1000, virtual_size: 0x40, flags: CODE, bytes: code }],
    }
}

impl Assembly {
    /// With one more section.
    pub(crate) fn part(mut self, name: &'static str, rva: u32, flags: u32, bytes: Vec<u8>) -> Self {
        let virtual_size = u32::try_from(bytes.len()).expect("a small image");
        self.parts.push(Part { name, rva, virtual_size, flags, bytes });
        self
    }

    /// With a data directory.
    pub(crate) fn directory(mut self, index: usize, rva: u32, size: u32) -> Self {
        self.directories[index] = (rva, size);
        self
    }

    /// The file.
    pub(crate) fn link(&self) -> Vec<u8> {
        let mut file = self.headers();
        file.resize(self.size_of_headers as usize, 0);
        let mut table = 0x80 + 24 + 240;
        for part in &self.parts {
            file.resize(file.len().next_multiple_of(self.file_alignment as usize), 0);
            let (offset, raw) = (file.len(), part.bytes.len().next_multiple_of(self.file_alignment as usize));
            file.extend(&part.bytes);
            file.resize(offset + raw, 0);
            file[table..table + part.name.len()].copy_from_slice(part.name.as_bytes());
            let fields = [
                part.virtual_size,
                part.rva,
                u32::try_from(raw).expect("a small image"),
                u32::try_from(offset).expect("a small image"),
            ];
            for (index, field) in fields.iter().enumerate() {
                put(&mut file, table + 8 + 4 * index, &field.to_le_bytes());
            }
            put(&mut file, table + 36, &part.flags.to_le_bytes());
            table += 40;
        }
        file
    }

    fn headers(&self) -> Vec<u8> {
        let mut file = vec![0; 0x80 + 24 + 240 + 40 * self.parts.len()];
        put(&mut file, 0, b"MZ");
        put(&mut file, 0x3c, &0x80u32.to_le_bytes());
        put(&mut file, 0x80, b"PE\0\0");
        put(&mut file, 0x84, &self.machine.to_le_bytes());
        put(&mut file, 0x86, &u16::try_from(self.parts.len()).expect("a small image").to_le_bytes());
        put(&mut file, 0x94, &240u16.to_le_bytes());
        put(&mut file, 0x96, &self.characteristics.to_le_bytes());
        let optional = 0x98;
        put(&mut file, optional, &self.magic.to_le_bytes());
        put(&mut file, optional + 16, &self.entry.to_le_bytes());
        put(&mut file, optional + 24, &self.base.to_le_bytes());
        put(&mut file, optional + 32, &self.section_alignment.to_le_bytes());
        put(&mut file, optional + 36, &self.file_alignment.to_le_bytes());
        put(&mut file, optional + 56, &self.image_size().to_le_bytes());
        put(&mut file, optional + 60, &self.size_of_headers.to_le_bytes());
        put(&mut file, optional + 68, &self.subsystem.to_le_bytes());
        put(&mut file, optional + 108, &16u32.to_le_bytes());
        for (index, (rva, size)) in self.directories.iter().enumerate() {
            put(&mut file, optional + 112 + 8 * index, &rva.to_le_bytes());
            put(&mut file, optional + 116 + 8 * index, &size.to_le_bytes());
        }
        file
    }

    fn image_size(&self) -> u32 {
        if self.size_of_image != 0 {
            return self.size_of_image;
        }
        let end = self.parts.iter().map(|part| part.rva + part.virtual_size).max().unwrap_or(0);
        end.next_multiple_of(self.section_alignment)
    }
}

/// Overwrites bytes of a file.
pub(crate) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// 32-bit little-endian words as bytes.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
