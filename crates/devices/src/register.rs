//! A device's registers as one table, and the cutting of an access into the registers it touches.
//!
//! A byte write to a 32-bit register arrives as a value and the *lanes* (bits) it drives, as byte enables do on the
//! bus. It does no access checks: a model refuses before it cuts.

/// One register of a table.
#[derive(Clone, Copy)]
pub(crate) struct Row<R: 'static> {
    /// Which register.
    pub register: R,
    /// Bytes from the start of the table's space.
    pub offset: u64,
    /// Its size, 1 to 4.
    pub bytes: u64,
    /// As the data book spells it.
    pub name: &'static str,
}

/// The part of an access that falls on one register.
#[derive(Clone, Copy)]
pub(crate) struct Part<R> {
    /// Which register.
    pub register: R,
    /// The bits of the register that the access drives.
    pub lanes: u32,
    register_shift: u64,
    access_shift: u64,
}

impl<R> Part<R> {
    /// The register's bits, out of the value the access carries.
    pub(crate) fn written(&self, access: u64) -> u32 {
        low32((access >> self.access_shift) << self.register_shift) & self.lanes
    }

    /// The access's bits, out of the register's value.
    pub(crate) fn read(&self, register: u32) -> u64 {
        (u64::from(register & self.lanes) >> self.register_shift) << self.access_shift
    }
}

/// The registers that `bytes` (1–8) bytes at `offset` touch. The table is sorted and nothing in it overlaps.
pub(crate) fn parts<R: Copy>(table: &[Row<R>], offset: u64, bytes: u64) -> impl Iterator<Item = Part<R>> {
    let first = table.partition_point(|row| row.offset + row.bytes <= offset);
    table[first..].iter().take_while(move |row| row.offset < offset + bytes).map(move |row| {
        let start = row.offset.max(offset);
        let end = (row.offset + row.bytes).min(offset + bytes);
        let register_shift = (start - row.offset) * 8;
        let lanes = low32((u64::from(u32::MAX) >> (32 - (end - start) * 8)) << register_shift);
        Part { register: row.register, lanes, register_shift, access_shift: (start - offset) * 8 }
    })
}

/// Whether a table is sorted and nothing in it overlaps: [`parts`] relies on it, so each table asserts it.
pub(crate) const fn is_sorted<R>(table: &[Row<R>]) -> bool {
    let mut i = 1;
    while i < table.len() {
        if table[i - 1].offset + table[i - 1].bytes > table[i].offset {
            return false;
        }
        i += 1;
    }
    true
}

/// The register at `offset`, with its name.
pub(crate) fn at<R>(table: &'static [Row<R>], offset: u64) -> Option<&'static Row<R>> {
    table.iter().find(|row| (row.offset..row.offset + row.bytes).contains(&offset))
}

/// What an access sees of registers of 4 bytes that all hold these bits, if it begins so many bytes behind the beginning of one.
pub(crate) const fn lanes(bits: u32, behind: u64) -> u64 {
    let bits = bits as u64;
    (bits << 32 | bits) >> (8 * (behind % 4))
}

/// The lower 32 bits.
pub(crate) const fn low32(value: u64) -> u32 {
    (value & 0xFFFF_FFFF) as u32
}

/// Ones in the `bytes` (1–8) lowest bytes.
pub(crate) const fn ones(bytes: u64) -> u64 {
    u64::MAX >> (64 - bytes * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Row<char>] = &[
        Row { register: 'a', offset: 0, bytes: 2, name: "A" },
        Row { register: 'b', offset: 2, bytes: 1, name: "B" },
        Row { register: 'c', offset: 4, bytes: 4, name: "C" },
    ];

    #[test]
    fn an_access_is_cut_at_register_borders() {
        let cut: Vec<_> = parts(TABLE, 1, 4).map(|p| (p.register, p.lanes, p.written(0xDDCC_BBAA))).collect();
        assert_eq!(cut, [('a', 0xFF00, 0xAA00), ('b', 0xFF, 0xBB), ('c', 0xFF, 0xDD)]);
        let read = parts(TABLE, 1, 4).map(|p| p.read(0x1122_3344)).sum::<u64>();
        assert_eq!(read, 0x4400_4433);
        assert_eq!(at(TABLE, 7).map(|row| row.name), Some("C"));
        assert!(at(TABLE, 3).is_none());
    }
}
