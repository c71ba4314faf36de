//! The blocks that travel in WMI requests: built for a provider, and read strictly when it has filled them.
//!
//! Pages: *WNODE_HEADER structure*, *WNODE_ALL_DATA structure*, *WNODE_SINGLE_INSTANCE structure*, *WNODE_SINGLE_ITEM structure*, *WNODE_METHOD_ITEM
//! structure*, *WNODE_TOO_SMALL structure*. What is wrong with one is said in words; nothing is read beyond what came.

use abi::{
    Field, WNODE_ALL_DATA, WNODE_FLAG_FIXED_INSTANCE_SIZE, WNODE_FLAG_STATIC_INSTANCE_NAMES,
    WNODE_FLAG_TOO_SMALL, WNODE_HEADER, WNODE_METHOD_ITEM, WNODE_SINGLE_INSTANCE, WNODE_SINGLE_ITEM,
    WNODE_TOO_SMALL,
};

use super::Guid;
use crate::fields::Fields;

/// Instances begin at such places.
pub(super) const ALIGNMENT: usize = 8;
/// More instances than a block is believed to have.
const MOST_INSTANCES: u32 = 0x1_0000;

/// Where a field lies.
#[allow(clippy::cast_possible_truncation, reason = "offsets in a small structure")]
pub(super) const fn at<S, T>(field: Field<S, T>) -> usize {
    field.offset() as usize
}

/// Bytes of the longest name.
const LONGEST_NAME: u16 = 0xFFFE;

/// One instance of a block.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Instance {
    /// Its name, where the driver has said it.
    pub(super) name: Option<String>,
    pub(super) data: Vec<u8>,
}

/// A block in what a provider has answered.
#[derive(Clone, Copy)]
pub(super) struct Node<'a>(pub(super) &'a [u8]);

impl<'a> Node<'a> {
    pub(super) fn u32(self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(super) fn u64(self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(super) fn part(self, at: u32, length: u32) -> Option<&'a [u8]> {
        let at = usize::try_from(at).ok()?;
        self.0.get(at..at.checked_add(usize::try_from(length).ok()?)?)
    }

    /// A counted string: its length in bytes, and its characters.
    pub(super) fn text(self, at: u32) -> Option<String> {
        let length = self.part(at, 2)?;
        let length = u16::from_le_bytes([length[0], length[1]]);
        let bytes = self.part(at.checked_add(2)?, length.into())?;
        let units: Vec<u16> =
            bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        Some(String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned())
    }

    /// Whether it is a `WNODE_TOO_SMALL`: how large it would have been.
    pub(super) fn size_needed(self) -> Option<u32> {
        let flags = self.u32(at(WNODE_HEADER::Flags))?;
        if flags & WNODE_FLAG_TOO_SMALL == 0 { None } else { self.u32(at(WNODE_TOO_SMALL::SizeNeeded)) }
    }

    /// The instances of a `WNODE_ALL_DATA`.
    pub(super) fn all_data(self) -> Result<Vec<Instance>, String> {
        let head = |at: usize| self.u32(at).ok_or_else(|| self.short("WNODE_ALL_DATA", 0x3C));
        let flags = head(at(WNODE_HEADER::Flags))?;
        let count = head(at(WNODE_ALL_DATA::InstanceCount))?;
        let names = head(at(WNODE_ALL_DATA::OffsetInstanceNameOffsets))?;
        let data = head(at(WNODE_ALL_DATA::DataBlockOffset))?;
        if count > MOST_INSTANCES {
            return Err(format!("a WNODE_ALL_DATA whose InstanceCount is {count:#x}"));
        }
        let has_names = flags & WNODE_FLAG_STATIC_INSTANCE_NAMES == 0 && names != 0;
        let mut all = Vec::new();
        for index in 0..count {
            let (from, length) = if flags & WNODE_FLAG_FIXED_INSTANCE_SIZE != 0 {
                let size = head(at(WNODE_ALL_DATA::FixedInstanceSize))?;
                let stride = u64::from(size).next_multiple_of(ALIGNMENT as u64);
                let from = u64::from(data) + stride * u64::from(index);
                (u32::try_from(from).unwrap_or(u32::MAX), size)
            } else {
                let place = at(WNODE_ALL_DATA::OffsetInstanceDataAndLength) + 8 * index as usize;
                let both = self.u32(place).zip(self.u32(place + 4));
                both.ok_or_else(|| {
                    self.beyond(format!("OffsetInstanceDataAndLength[{index}] lies at {place:#x}"))
                })?
            };
            let bytes = if length == 0 { Some(&[][..]) } else { self.part(from, length) };
            let bytes = bytes.ok_or_else(|| {
                self.beyond(format!("instance {index} has {length:#x} bytes at offset {from:#x}"))
            })?;
            let name = if has_names { Some(self.name_of(names, index)?) } else { None };
            all.push(Instance { name, data: bytes.to_vec() });
        }
        Ok(all)
    }

    fn name_of(self, names: u32, index: u32) -> Result<String, String> {
        let place = names.saturating_add(4 * index);
        let offset = self.u32(place as usize).ok_or_else(|| {
            self.beyond(format!(
                "OffsetInstanceNameOffsets is {names:#x} and instance {index} has its offset there"
            ))
        })?;
        self.text(offset)
            .ok_or_else(|| self.beyond(format!("the name of instance {index} lies at offset {offset:#x}")))
    }

    /// The data of a `WNODE_SINGLE_INSTANCE`.
    pub(super) fn single_instance(self) -> Result<Vec<u8>, String> {
        let (from, size) = (WNODE_SINGLE_INSTANCE::DataBlockOffset, WNODE_SINGLE_INSTANCE::SizeDataBlock);
        self.data("WNODE_SINGLE_INSTANCE", at(from), at(size))
    }

    /// The output of a `WNODE_METHOD_ITEM`.
    pub(super) fn method_item(self) -> Result<Vec<u8>, String> {
        let (from, size) = (WNODE_METHOD_ITEM::DataBlockOffset, WNODE_METHOD_ITEM::SizeDataBlock);
        self.data("WNODE_METHOD_ITEM", at(from), at(size))
    }

    fn data(self, kind: &str, from: usize, size: usize) -> Result<Vec<u8>, String> {
        let both = self.u32(from).zip(self.u32(size));
        let (from, size) = both.ok_or_else(|| self.short(kind, 0x40))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.part(from, size);
        let bytes = bytes.ok_or_else(|| {
            self.beyond(format!("its {kind} has {size:#x} bytes of data at offset {from:#x}"))
        })?;
        Ok(bytes.to_vec())
    }

    fn short(self, kind: &str, least: usize) -> String {
        format!("{:#x} bytes, which is less than the {least:#x} that a {kind} begins with", self.0.len())
    }

    fn beyond(self, what: String) -> String {
        format!("a block of {:#x} bytes in which {what}, beyond its end", self.0.len())
    }
}

/// Whom a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// Its place among the names that were registered, if they are static.
    pub(super) index: Option<u32>,
    pub(super) name: String,
}

/// What the middle of a request's block says, besides instance and data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `WNODE_SINGLE_INSTANCE`.
    Instance,
    /// `WNODE_SINGLE_ITEM` with its `ItemId`.
    Item(u32),
    /// `WNODE_METHOD_ITEM` with its `MethodId`.
    Method(u32),
}

impl Form {
    const fn flag(self) -> u32 {
        match self {
            Self::Instance => abi::WNODE_FLAG_SINGLE_INSTANCE,
            Self::Item(_) => abi::WNODE_FLAG_SINGLE_ITEM,
            Self::Method(_) => abi::WNODE_FLAG_METHOD_ITEM,
        }
    }
}

/// A `WNODE_HEADER`; its size is filled in by [`ask`](super::ask).
pub(super) fn header(guid: &Guid, id: u32, flags: u32, time: u64) -> Vec<u8> {
    head(guid, id, flags, time).done()
}

fn head(guid: &Guid, id: u32, flags: u32, time: u64) -> Fields {
    // HistoricalContext, and TimeStamp behind it.
    let head = Fields::default().u32(0).u32(id).u64(0).u64(time);
    head.bytes(guid).u32(0).u32(flags)
}

/// The block of a request about one instance, with `data` in it: the name stands behind the structure, as the pages demand of static names too.
pub(super) fn single(guid: &Guid, id: u32, time: u64, form: Form, target: &Target, data: &[u8]) -> Vec<u8> {
    const NAME: usize = 0x48;
    let static_names = if target.index.is_some() { WNODE_FLAG_STATIC_INSTANCE_NAMES } else { 0 };
    let name: Vec<u16> = target.name.encode_utf16().collect();
    let length = u16::try_from(2 * name.len()).unwrap_or(LONGEST_NAME);
    let from = (NAME + 2 + 2 * name.len()).next_multiple_of(ALIGNMENT);
    let head = head(guid, id, form.flag() | static_names, time);
    let named = head.size(NAME).u32(target.index.unwrap_or(0));
    let placed = match form {
        Form::Instance => named.size(from).size(data.len()),
        Form::Item(number) | Form::Method(number) => named.u32(number).size(from).size(data.len()),
    };
    placed.pad_to(NAME).u16(length).wide(&name).pad_to(from).bytes(data).done()
}

/// Where the data of a request's block begin.
pub(super) fn data_at(form: Form, node: &[u8]) -> usize {
    let field = match form {
        Form::Instance => at(WNODE_SINGLE_INSTANCE::DataBlockOffset),
        Form::Item(_) => at(WNODE_SINGLE_ITEM::DataBlockOffset),
        Form::Method(_) => at(WNODE_METHOD_ITEM::DataBlockOffset),
    };
    Node(node).u32(field).map_or(0, |from| from as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: Guid = [7; 16];

    fn all(count: u32, flags: u32, fixed: u32, rest: &[u8]) -> Vec<u8> {
        let head = Fields::default().bytes(&header(&GUID, 1, flags, 0));
        head.u32(0x48).u32(count).u32(0).u32(fixed).pad_to(0x48).bytes(rest).done()
    }

    #[test]
    fn instances_of_one_size_are_eight_bytes_aligned() {
        let node = all(2, WNODE_FLAG_FIXED_INSTANCE_SIZE, 6, &[1, 1, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2, 2, 2]);
        let data: Vec<Vec<u8>> = Node(&node).all_data().unwrap().into_iter().map(|i| i.data).collect();
        assert_eq!(data, [[1; 6], [2; 6]]);
    }

    #[test]
    fn an_instance_beyond_the_end_is_told_and_an_empty_one_is_nowhere() {
        let wrong = all(3, WNODE_FLAG_FIXED_INSTANCE_SIZE, 6, &[0; 16]);
        assert!(Node(&wrong).all_data().unwrap_err().contains("instance 2 has 0x6 bytes at offset 0x58"));
        let endless = all(u32::MAX, WNODE_FLAG_FIXED_INSTANCE_SIZE, 0, &[]);
        assert!(Node(&endless).all_data().unwrap_err().contains("InstanceCount"));
        let empty = all(1, WNODE_FLAG_FIXED_INSTANCE_SIZE, 0, &[]);
        assert_eq!(Node(&empty).all_data().unwrap(), [Instance::default()]);
    }

    #[test]
    fn a_block_of_one_instance_has_its_name_and_its_data_where_it_says() {
        let target = Target { index: Some(3), name: "Port0".to_owned() };
        for form in [Form::Instance, Form::Item(9), Form::Method(9)] {
            let node = single(&GUID, 5, 0, form, &target, &[1, 2, 3]);
            let from = data_at(form, &node);
            assert_eq!((from % ALIGNMENT, &node[from..]), (0, &[1, 2, 3][..]));
            assert_eq!(Node(&node).text(Node(&node).u32(0x30).unwrap()), Some("Port0".to_owned()));
            assert_eq!(Node(&node).u32(0x34), Some(3));
        }
        let node = single(&GUID, 5, 0, Form::Instance, &target, &[1, 2, 3]);
        assert_eq!(Node(&node).single_instance(), Ok(vec![1, 2, 3]));
        assert!(Node(&node[..node.len() - 1]).single_instance().unwrap_err().contains("beyond its end"));
    }
}
