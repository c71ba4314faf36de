//! What a provider answers to `IRP_MN_REGINFO_EX`: its blocks, and what their instances are called.
//!
//! Pages: *IRP_MN_REGINFO_EX*, *WMIREGINFOW structure*, *WMIREGGUIDW structure*, *Defining WMI Instance Names*. Of a static name that is made from a base
//! (a string, or the instance path of a device with `_`) the pages say that a counter follows. The registry path is
//! looked at for being there, and not used; the name of the MOF resource is kept to be shown.

use abi::{
    WMIREG_FLAG_INSTANCE_BASENAME, WMIREG_FLAG_INSTANCE_LIST, WMIREG_FLAG_INSTANCE_PDO, WMIREGGUIDW,
    WMIREGINFOW,
};

use super::node::{Node, at};
use super::provider::{Block, Names};

/// More blocks, or instances of one, than a driver is believed to have.
const MOST: u32 = 0x1_0000;

/// What a provider has registered.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Registration {
    pub(super) blocks: Vec<Block>,
    /// Physical device objects that it has given, each of which it has referenced.
    pub(super) pdos: Vec<u64>,
}

/// Reads a chain of `WMIREGINFO`; `path_of` finds the instance path of a physical device object.
pub(super) fn read(bytes: &[u8], path_of: impl Fn(u64) -> Option<String>) -> Result<Registration, String> {
    let mut all = Registration::default();
    let mut rest = bytes;
    loop {
        one(Node(rest), &path_of, &mut all)?;
        let next = Node(rest).u32(at(WMIREGINFOW::NextWmiRegInfo)).unwrap_or(0);
        if next == 0 {
            return Ok(all);
        }
        let behind = (next as usize >= size_of::<WMIREGINFOW>()).then(|| rest.get(next as usize..)).flatten();
        rest = behind.ok_or_else(|| format!("a WMIREGINFO whose NextWmiRegInfo is {next:#x}"))?;
    }
}

fn one(
    info: Node<'_>,
    path_of: &impl Fn(u64) -> Option<String>,
    all: &mut Registration,
) -> Result<(), String> {
    let head = |at: usize| {
        info.u32(at).ok_or_else(|| format!("{:#x} bytes, too few for a WMIREGINFO", info.0.len()))
    };
    let count = head(at(WMIREGINFOW::GuidCount))?;
    let named = |name: &str, field| match head(field)? {
        0 => Ok(None),
        offset => text(info, name, offset).map(|(text, _)| Some(text)),
    };
    named("RegistryPath", at(WMIREGINFOW::RegistryPath))?;
    let mof = named("MofResourceName", at(WMIREGINFOW::MofResourceName))?.filter(|name| !name.is_empty());
    if count > MOST {
        return Err(format!("a WMIREGINFO whose GuidCount is {count:#x}"));
    }
    for index in 0..count as usize {
        let from = size_of::<WMIREGINFOW>() + size_of::<WMIREGGUIDW>() * index;
        let own = info.0.get(from..from + size_of::<WMIREGGUIDW>()).ok_or_else(|| {
            format!(
                "a WMIREGINFO of {:#x} bytes and {count} WMIREGGUIDs, of which only {index} are in it",
                info.0.len()
            )
        })?;
        all.blocks.push(block(info, Node(own), mof.clone(), path_of, &mut all.pdos)?);
    }
    Ok(())
}

fn block(
    info: Node<'_>,
    own: Node<'_>,
    mof: Option<String>,
    path_of: &impl Fn(u64) -> Option<String>,
    pdos: &mut Vec<u64>,
) -> Result<Block, String> {
    let field = |at: usize| own.u32(at).unwrap_or(0);
    let (flags, count) = (field(at(WMIREGGUIDW::Flags)), field(at(WMIREGGUIDW::InstanceCount)));
    let mut guid = [0; 16];
    guid.copy_from_slice(&own.0[..16]);
    if count > MOST {
        return Err(format!("a WMIREGGUID whose InstanceCount is {count:#x}"));
    }
    let numbered = |base: &str| Names::Static((0..count).map(|number| format!("{base}{number}")).collect());
    let names = if flags & WMIREG_FLAG_INSTANCE_LIST != 0 {
        let mut offset = field(at(WMIREGGUIDW::InstanceNameList));
        let mut names = Vec::new();
        for _ in 0..count {
            let (name, bytes) = text(info, "InstanceNameList", offset)?;
            names.push(name);
            offset = offset.saturating_add(bytes);
        }
        Names::Static(names)
    } else if flags & WMIREG_FLAG_INSTANCE_BASENAME != 0 {
        numbered(&text(info, "BaseNameOffset", field(at(WMIREGGUIDW::BaseNameOffset)))?.0)
    } else if flags & WMIREG_FLAG_INSTANCE_PDO != 0 {
        let pdo = own.u64(at(WMIREGGUIDW::Pdo)).unwrap_or(0);
        let path = path_of(pdo).ok_or_else(|| {
            format!("a WMIREGGUID whose Pdo is {pdo:#x}, which is no physical device object")
        })?;
        if !pdos.contains(&pdo) {
            pdos.push(pdo);
        }
        numbered(&format!("{path}_"))
    } else {
        Names::Dynamic
    };
    Ok(Block { guid, flags, names, mof })
}

/// A counted string of a registration, and the bytes that it takes.
fn text(info: Node<'_>, what: &str, offset: u32) -> Result<(String, u32), String> {
    let text = info.text(offset).ok_or_else(|| {
        format!(
            "a WMIREGINFO of {:#x} bytes whose {what} is {offset:#x}: the string there ends beyond it",
            info.0.len()
        )
    })?;
    let length = info.part(offset, 2).map_or(0, |length| u16::from_le_bytes([length[0], length[1]]));
    Ok((text, u32::from(length) + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;

    fn info(flags: u32, count: u32, names: u64, rest: &[u8]) -> Vec<u8> {
        let head = Fields::default().u32(0).u32(0).u32(0).u32(0).u32(1).pad_to(0x18);
        head.bytes(&[3; 16]).u32(flags).u32(count).u64(names).bytes(rest).done()
    }

    fn counted(text: &str) -> Vec<u8> {
        let units: Vec<u16> = text.encode_utf16().collect();
        Fields::default().u16(u16::try_from(2 * units.len()).unwrap()).wide(&units).done()
    }

    fn names(bytes: &[u8]) -> Result<Names, String> {
        let read = read(bytes, |pdo| (pdo == 0x1000).then(|| r"PCI\A\1".to_owned()))?;
        Ok(read.blocks[0].names.clone())
    }

    #[test]
    fn names_are_a_list_or_made_from_a_base_or_from_a_device_or_not_registered() {
        let list = [counted("Red"), counted("Green")].concat();
        let named = |names: [&str; 2]| Ok(Names::Static(names.map(str::to_owned).to_vec()));
        assert_eq!(names(&info(WMIREG_FLAG_INSTANCE_LIST, 2, 0x38, &list)), named(["Red", "Green"]));
        assert_eq!(
            names(&info(WMIREG_FLAG_INSTANCE_BASENAME, 2, 0x38, &counted("Port"))),
            named(["Port0", "Port1"])
        );
        assert_eq!(
            names(&info(WMIREG_FLAG_INSTANCE_PDO, 2, 0x1000, &[])),
            named([r"PCI\A\1_0", r"PCI\A\1_1"])
        );
        assert_eq!(names(&info(0, 0, 0, &[])), Ok(Names::Dynamic));
    }

    #[test]
    fn what_lies_beyond_the_end_is_told() {
        let short = info(WMIREG_FLAG_INSTANCE_LIST, 2, 0x38, &counted("Red"));
        assert!(names(&short).unwrap_err().contains("InstanceNameList is 0x40"));
        assert!(names(&info(WMIREG_FLAG_INSTANCE_PDO, 1, 0x2000, &[])).unwrap_err().contains("0x2000"));
        let mut many = info(0, 0, 0, &[]);
        many[0x10] = 2;
        assert!(names(&many).unwrap_err().contains("only 1 are in it"));
        let mut round = info(0, 0, 0, &[]);
        round[4] = 8;
        assert!(names(&round).unwrap_err().contains("NextWmiRegInfo"));
    }
}
