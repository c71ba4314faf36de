//! Original bytes as a translation reads them: a page is read once for all blocks that are made of it at a time.

use crate::guest::FaultKind;
use crate::machine::state;
use crate::memory;
use crate::windows::PAGE;

/// Bytes of the longest instruction that begins on a page and ends behind it, and one that makes copies of a fixed length
/// possible.
const BEHIND: usize = 16;
const SIZE: usize = memory::usize_of(PAGE);

/// A page of code.
pub(super) struct Fetched {
    /// Its address, if it is known to hold what was read.
    page: Option<u64>,
    length: usize,
    bytes: Box<[u8; SIZE + 2 * BEHIND]>,
}

impl Default for Fetched {
    fn default() -> Self {
        Self { page: None, length: 0, bytes: Box::new([0; SIZE + 2 * BEHIND]) }
    }
}

impl Fetched {
    /// Driver code has run meanwhile.
    pub(super) fn forget(&mut self) {
        self.page = None;
    }

    /// Reads the page that `pc` is in, and 15 bytes more if the next page is code too. From now on a driver's write there is
    /// a fault.
    pub(super) fn fetch(&mut self, pc: u64) -> Result<(), FaultKind> {
        let page = pc & !(PAGE - 1);
        if self.page == Some(page) {
            return Ok(());
        }
        let memory = &state().memory;
        if !memory.executable(page) {
            return Err(FaultKind::Execute);
        }
        self.page = None;
        let goes_on = memory.executable(page + PAGE);
        self.length = if goes_on { SIZE + BEHIND - 1 } else { SIZE };
        memory::peek(page, &mut self.bytes[..self.length]).map_err(|_| FaultKind::Execute)?;
        memory.translate_from(page);
        if goes_on {
            memory.translate_from(page + PAGE);
        }
        self.page = Some(page);
        Ok(())
    }

    /// What was read.
    pub(super) fn code(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The instruction at this offset, and whatever comes behind it.
    pub(super) fn instruction(&self, offset: usize) -> [u8; 15] {
        *self.bytes[offset..].first_chunk().expect("there is room behind the page")
    }
}
