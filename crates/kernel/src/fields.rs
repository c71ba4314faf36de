//! Fields of a structure that is put together outside of driver memory: little-endian, one behind the other; and how such a structure
//! answers a question that gave a buffer.

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use crate::cx::Cx;

/// The bytes so far.
pub(crate) struct Fields(Vec<u8>);

impl Default for Fields {
    /// With room for what most structures need.
    fn default() -> Self {
        Self(Vec::with_capacity(128))
    }
}

impl Fields {
    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn i64(self, value: i64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A length or an offset, of 32 bits.
    pub(crate) fn size(self, value: usize) -> Self {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX))
    }

    pub(crate) fn wide(mut self, units: &[u16]) -> Self {
        self.0.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Zeros up to this length, if it is shorter.
    pub(crate) fn pad_to(mut self, length: usize) -> Self {
        self.0.resize(length.max(self.0.len()), 0);
        self
    }

    /// Another value for the 32 bits at `at`.
    pub(crate) fn with_u32_at(mut self, at: usize, value: usize) -> Self {
        self.0[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of it.
    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Stores an answer, if there is room for all of it; `returned`, if it is not null, gets its bytes anyway.
///
/// # Errors
/// A verdict if a pointer is bad; inside, `INFO_LENGTH_MISMATCH`.
pub(crate) fn answer(
    cx: &mut Cx<'_>,
    bytes: &[u8],
    buffer: u64,
    length: u32,
    returned: DriverPtr<u32>,
) -> Flow<NtStatus> {
    if !returned.is_null() {
        cx.write(returned, u32::try_from(bytes.len()).unwrap_or(u32::MAX))?;
    }
    if bytes.len() > length as usize {
        return Ok(NtStatus::INFO_LENGTH_MISMATCH);
    }
    cx.write_bytes(buffer, bytes)?;
    Ok(NtStatus::SUCCESS)
}
