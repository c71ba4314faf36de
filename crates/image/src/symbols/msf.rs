//! The container of a PDB: a file of equal blocks that holds numbered streams.
//!
//! As LLVM's page "The MSF File Format" has it. No block is read twice, so that what is read is never more than the file;
//! the compressed form (`MSFZ`) is not read.

use super::reader::Reader;
use crate::error::Problem;

const MAGIC: &[u8; 32] = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0";
const NO_STREAM: u32 = u32::MAX;

/// The streams of a PDB.
pub(super) struct Streams<'p> {
    file: &'p [u8],
    block: usize,
    /// Size and blocks of each.
    streams: Vec<(usize, Vec<u32>)>,
    /// Bytes that may still be read.
    budget: usize,
}

impl<'p> Streams<'p> {
    /// Reads the directory.
    pub(super) fn open(file: &'p [u8]) -> Result<Self, Problem> {
        let Some(rest) = file.strip_prefix(MAGIC) else { return Err(Problem::NotPdb) };
        let mut streams = Self { file, block: 0, streams: Vec::new(), budget: file.len() };
        streams.read_directory(Reader(rest)).ok_or(Problem::DamagedPdb("the stream directory"))?;
        streams.budget = file.len();
        Ok(streams)
    }

    fn read_directory(&mut self, mut head: Reader<'_>) -> Option<()> {
        self.block =
            head.u32().filter(|size| (0x200..=0x1_0000).contains(size) && size.is_power_of_two())? as usize;
        let (_free_map, _blocks) = (head.u32()?, head.u32()?);
        let (size, _) = (head.u32()? as usize, head.u32()?);
        let map = (head.u32()? as usize).checked_mul(self.block)?;
        let mut list = Reader(self.file.get(map..)?);
        let blocks = self.block_list(&mut list, size)?;
        let directory = self.gather(size, &blocks)?;
        let mut reader = Reader(&directory);
        let count = reader.u32()? as usize;
        let mut sizes = Reader(reader.bytes(count.checked_mul(4)?)?);
        while let Some(size) = sizes.u32() {
            let size = if size == NO_STREAM { 0 } else { size as usize };
            let blocks = self.block_list(&mut reader, size)?;
            self.streams.push((size, blocks));
        }
        Some(())
    }

    fn block_list(&self, reader: &mut Reader<'_>, size: usize) -> Option<Vec<u32>> {
        let list = reader.bytes(size.div_ceil(self.block).checked_mul(4)?)?;
        Some(list.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect())
    }

    fn gather(&mut self, size: usize, blocks: &[u32]) -> Option<Vec<u8>> {
        self.budget = self.budget.checked_sub(size)?;
        let mut bytes = Vec::with_capacity(size);
        for &number in blocks {
            let start = (number as usize).checked_mul(self.block)?;
            let length = self.block.min(size - bytes.len());
            bytes.extend_from_slice(self.file.get(start..start.checked_add(length)?)?);
        }
        Some(bytes)
    }

    /// The bytes of a stream; empty if there is none of that number.
    pub(super) fn read(&mut self, number: usize) -> Result<Vec<u8>, Problem> {
        let Some((size, blocks)) = self.streams.get_mut(number).map(std::mem::take) else {
            return Ok(Vec::new());
        };
        self.gather(size, &blocks).ok_or(Problem::DamagedPdb("a stream"))
    }
}
