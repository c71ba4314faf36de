//! What drivers have asked the registry for and what is not there: keys that cannot be opened, and values of keys that can.
//!
//! Only calls that name one key or one value are noted. What a driver looks for by enumerating is not known.

use abi::{NtStatus, REG_NONE};

use super::State;
use super::registry::KeyId;
use crate::cx::Cx;

/// So many are noted.
const MOST: usize = 256;

/// A key or a value that a driver has asked for and that is not there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Absent {
    /// The key's path from `\Registry` on, without links.
    pub key: String,
    /// The value's name; none if the key itself is not there.
    pub name: Option<String>,
    /// The type that the driver says the value has (`REG_SZ`, …), or `REG_NONE`.
    pub kind: u32,
    /// So many bytes of data the driver's buffer has room for; 0 if that is not known.
    pub room: u32,
}

impl Absent {
    /// Whether both are one key or value.
    fn is_same(&self, other: &Self) -> bool {
        (&self.key, &self.name, self.kind) == (&other.key, &other.name, other.kind)
    }
}

/// Notes that the value of this name is not there.
pub(super) fn note_value(state: &mut State, key: KeyId, name: &[u16], kind: u32, room: u32) {
    let Ok(path) = state.registry.path(key) else { return };
    let name = Some(String::from_utf16_lossy(name));
    let absent = Absent { key: String::from_utf16_lossy(&path), name, kind, room };
    add(&mut state.absent, absent, MOST);
}

/// Opens a key for a driver. One that is not there is noted.
///
/// # Errors
/// As [`super::registry::Registry::open`].
pub(crate) fn open(cx: &mut Cx<'_>, base: Option<KeyId>, path: &[u16]) -> Result<KeyId, NtStatus> {
    cx.with(|k| {
        let key = k.cm.registry.open(base, path);
        if key == Err(NtStatus::OBJECT_NAME_NOT_FOUND)
            && let Ok(path) = k.cm.registry.path_to(base, path)
        {
            let absent = Absent { key: String::from_utf16_lossy(&path), name: None, kind: REG_NONE, room: 0 };
            add(&mut k.cm.absent, absent, MOST);
        }
        key
    })
}

/// Adds one to those that are known, if there are fewer than `most`. One that is known has the most room that the driver has had for it: it may ask for the
/// length first.
pub fn add(all: &mut Vec<Absent>, absent: Absent, most: usize) {
    if let Some(known) = all.iter_mut().find(|known| known.is_same(&absent)) {
        known.room = known.room.max(absent.room);
    } else if all.len() < most {
        all.push(absent);
    }
}

#[cfg(test)]
mod tests {
    use super::super::access;
    use super::*;
    use crate::mm::rig::machine;

    #[test]
    fn a_key_that_is_not_there_is_noted_once_by_its_own_path() {
        machine(|cx| {
            let path: Vec<u16> = format!("{}\\Card\\Parameters", access::SERVICES).encode_utf16().collect();
            for _ in 0..2 {
                assert_eq!(open(cx, None, &path), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
            }
            let key = access::create(cx, "\\Registry\\Machine\\Software\\Card").unwrap();
            cx.with(|k| note_value(&mut k.cm, key, &[u16::from(b'A')], abi::REG_SZ, 8));
            let absent = |key: &str, name: Option<&str>, kind| Absent {
                key: key.to_owned(),
                name: name.map(str::to_owned),
                kind,
                room: if name.is_some() { 8 } else { 0 },
            };
            let expected = [
                absent(
                    "\\Registry\\Machine\\System\\ControlSet001\\Services\\Card\\Parameters",
                    None,
                    REG_NONE,
                ),
                absent("\\Registry\\Machine\\Software\\Card", Some("A"), abi::REG_SZ),
            ];
            assert_eq!(cx.with(|k| k.cm.absent.clone()), expected);
        });
    }
}
