//! The registry: a tree of keys with values, not case-sensitive.
//!
//! Pages: *Registry Key Objects*, *Registry HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services Tree*. It lives in memory and
//! is the machine's own. There is no security, no notification, no transaction, and no hive file. That a key is volatile only
//! keeps it out of what is saved: keys below it that are not made so are not refused.

use std::collections::BTreeMap;

use abi::NtStatus;

use crate::rtl::text;

/// A key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyId(u32);

impl KeyId {
    /// A number that no other key has; never 0 but for the root.
    pub(crate) fn number(self) -> u64 {
        self.0.into()
    }
}

/// A value of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// Its name, empty for the key's default value.
    pub name: Vec<u16>,
    /// `REG_SZ`, …
    pub kind: u32,
    /// Its bytes; texts are UTF-16 with their zero.
    pub data: Vec<u8>,
}

/// What a key holds.
struct Key {
    name: Vec<u16>,
    class: Vec<u16>,
    parent: Option<KeyId>,
    /// Subkeys by their name in capitals: the order in which they are enumerated.
    children: BTreeMap<Vec<u16>, KeyId>,
    /// Values in the order they were made.
    values: Vec<Value>,
    /// System time of the last change, in 100 ns since 1601.
    written: i64,
    /// Another key is meant wherever this one is.
    link: Option<KeyId>,
    /// It, and all below it, is gone when the system boots again.
    volatile: bool,
}

/// All keys.
pub struct Registry {
    keys: BTreeMap<KeyId, Key>,
    next: u32,
}

const ROOT: KeyId = KeyId(0);

/// What a key or a value takes besides its name and data.
const OVERHEAD: u64 = 128;

/// Longest name of a key, in code units, and of a value.
const KEY_NAME: usize = 255;
const VALUE_NAME: usize = 16_383;

/// What of a key `ZwQueryKey` tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its last component.
    pub name: Vec<u16>,
    /// As its creator gave it.
    pub class: Vec<u16>,
    /// System time of the last change.
    pub written: i64,
    /// How many subkeys.
    pub subkeys: usize,
    /// The longest of their names, in bytes.
    pub longest_subkey: usize,
    /// How many values.
    pub values: usize,
    /// The longest of their names, in bytes.
    pub longest_value_name: usize,
    /// The most data of one, in bytes.
    pub longest_data: usize,
}

impl Default for Registry {
    fn default() -> Self {
        let root = Key::new("Registry".encode_utf16().collect(), None, 0);
        Self { keys: BTreeMap::from([(ROOT, root)]), next: 1 }
    }
}

impl Key {
    fn new(name: Vec<u16>, parent: Option<KeyId>, now: i64) -> Self {
        Self {
            name,
            class: Vec::new(),
            parent,
            children: BTreeMap::new(),
            values: Vec::new(),
            written: now,
            link: None,
            volatile: false,
        }
    }
}

fn fold(name: &[u16]) -> Vec<u16> {
    name.iter().map(|&unit| text::upcase(unit)).collect()
}

/// Whether two names are one, but for case.
fn is_same(one: &[u16], other: &[u16]) -> bool {
    text::compare(one, other, true) == 0
}

/// The components of a path that is relative to something.
fn components(path: &[u16]) -> impl Iterator<Item = &[u16]> {
    path.split(|&unit| unit == u16::from(b'\\')).filter(|component| !component.is_empty())
}

impl Value {
    /// What it takes of the machine's memory.
    fn bytes(&self) -> u64 {
        OVERHEAD + 2 * self.name.len() as u64 + self.data.len() as u64
    }
}

impl Registry {
    /// The bytes that a value of this name takes now, and would take with so much data.
    #[must_use]
    pub fn bytes_of(&self, key: KeyId, name: &[u16], data: usize) -> (u64, u64) {
        let now = self.value(key, name).map_or(0, Value::bytes);
        (now, OVERHEAD + 2 * name.len() as u64 + data as u64)
    }

    /// The bytes that all values of a key take.
    #[must_use]
    pub fn bytes_of_values(&self, key: KeyId) -> u64 {
        self.keys.get(&key).map_or(0, |key| key.values.iter().map(Value::bytes).sum())
    }

    /// Where an absolute path begins: it must name `\Registry`; the rest.
    fn from_root(path: &[u16]) -> Result<&[u16], NtStatus> {
        const NAME: &[u8] = b"\\REGISTRY";
        if path.first() != Some(&u16::from(b'\\')) {
            return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
        }
        let (root, rest) = path.split_at_checked(NAME.len()).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        let is_root = root.iter().zip(NAME).all(|(&unit, &name)| text::upcase(unit) == u16::from(name));
        if is_root && rest.first().is_none_or(|&unit| unit == u16::from(b'\\')) {
            Ok(rest)
        } else {
            Err(NtStatus::OBJECT_NAME_NOT_FOUND)
        }
    }

    fn child(&self, key: KeyId, name: &[u16]) -> Option<KeyId> {
        // No key has a longer name.
        let mut folded = [0; KEY_NAME];
        let folded = folded.get_mut(..name.len())?;
        folded.iter_mut().zip(name).for_each(|(folded, &unit)| *folded = text::upcase(unit));
        let child = *self.keys.get(&key)?.children.get(&*folded)?;
        Some(self.keys.get(&child)?.link.unwrap_or(child))
    }

    /// The key at `path`, under `base` or, without one, from `\Registry` on.
    ///
    /// # Errors
    /// `OBJECT_NAME_NOT_FOUND`, `OBJECT_PATH_SYNTAX_BAD`; `KEY_DELETED` if the base is gone.
    pub fn open(&self, base: Option<KeyId>, path: &[u16]) -> Result<KeyId, NtStatus> {
        let (start, path) = self.start(base, path)?;
        let found = components(path).try_fold(start, |key, name| self.child(key, name));
        found.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    fn start<'p>(&self, base: Option<KeyId>, path: &'p [u16]) -> Result<(KeyId, &'p [u16]), NtStatus> {
        match base {
            None => Ok((ROOT, Self::from_root(path)?)),
            Some(base) if !self.keys.contains_key(&base) => Err(NtStatus::KEY_DELETED),
            Some(_) if path.first() == Some(&u16::from(b'\\')) => Err(NtStatus::OBJECT_PATH_SYNTAX_BAD),
            Some(base) => Ok((base, path)),
        }
    }

    /// The whole path of the key at `path`, which need not be there, without the links on the way.
    ///
    /// # Errors
    /// `OBJECT_PATH_SYNTAX_BAD`, or `OBJECT_NAME_NOT_FOUND` for what is not below `\Registry`; `KEY_DELETED` if the base is gone.
    pub fn path_to(&self, base: Option<KeyId>, path: &[u16]) -> Result<Vec<u16>, NtStatus> {
        let (mut key, path) = self.start(base, path)?;
        let mut rest = components(path).peekable();
        while let Some(child) = rest.peek().and_then(|name| self.child(key, name)) {
            key = child;
            rest.next();
        }
        let mut whole = self.path(key)?;
        rest.for_each(|name| whole.extend([u16::from(b'\\')].iter().chain(name)));
        Ok(whole)
    }

    /// As [`Registry::open`], making the last component if it is not there; whether it was made. With `all`, whatever
    /// lacks on the way too.
    ///
    /// # Errors
    /// As [`Registry::open`]; `INVALID_PARAMETER` for a name that is too long.
    pub fn create(
        &mut self,
        base: Option<KeyId>,
        path: &[u16],
        all: bool,
        now: i64,
    ) -> Result<(KeyId, bool), NtStatus> {
        let (mut key, path) = self.start(base, path)?;
        let names: Vec<&[u16]> = components(path).collect();
        let mut made = false;
        for (index, name) in names.iter().enumerate() {
            if let Some(child) = self.child(key, name) {
                key = child;
                continue;
            }
            if !all && index + 1 < names.len() {
                return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
            }
            if name.len() > KEY_NAME {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            key = self.add(key, name, now);
            made = true;
        }
        Ok((key, made))
    }

    fn add(&mut self, parent: KeyId, name: &[u16], now: i64) -> KeyId {
        let id = KeyId(self.next);
        self.next += 1;
        self.keys.insert(id, Key::new(name.to_vec(), Some(parent), now));
        if let Some(parent) = self.keys.get_mut(&parent) {
            parent.children.insert(fold(name), id);
            parent.written = now;
        }
        id
    }

    /// Makes `path`, which exists, mean `target`.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub fn link(&mut self, path: &[u16], target: KeyId) -> Result<(), NtStatus> {
        let key = self.open(None, path)?;
        self.keys.get_mut(&key).ok_or(NtStatus::KEY_DELETED)?.link = Some(target);
        Ok(())
    }

    /// Sets a key's class.
    pub fn set_class(&mut self, key: KeyId, class: Vec<u16>) {
        if let Some(key) = self.keys.get_mut(&key) {
            key.class = class;
        }
    }

    /// The key that is meant where this one is, if another is.
    #[must_use]
    pub fn target(&self, key: KeyId) -> Option<KeyId> {
        self.keys.get(&key)?.link
    }

    /// Makes a key one that does not outlive the system, with all below it (`REG_OPTION_VOLATILE`).
    pub fn set_volatile(&mut self, key: KeyId) {
        if let Some(key) = self.keys.get_mut(&key) {
            key.volatile = true;
        }
    }

    /// Whether a key was made so; those below one are not asked.
    #[must_use]
    pub fn is_volatile(&self, key: KeyId) -> bool {
        self.keys.get(&key).is_some_and(|key| key.volatile)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// `CANNOT_DELETE` if it has subkeys or is the root; `KEY_DELETED` if it is gone.
    pub fn delete(&mut self, key: KeyId, now: i64) -> Result<(), NtStatus> {
        let entry = self.keys.get(&key).ok_or(NtStatus::KEY_DELETED)?;
        let parent = entry.parent.filter(|_| entry.children.is_empty()).ok_or(NtStatus::CANNOT_DELETE)?;
        let name = fold(&entry.name);
        self.keys.remove(&key);
        if let Some(parent) = self.keys.get_mut(&parent) {
            parent.children.remove(&name);
            parent.written = now;
        }
        Ok(())
    }

    /// The value of this name.
    ///
    /// # Errors
    /// `OBJECT_NAME_NOT_FOUND`, `KEY_DELETED`.
    pub fn value(&self, key: KeyId, name: &[u16]) -> Result<&Value, NtStatus> {
        let values = &self.keys.get(&key).ok_or(NtStatus::KEY_DELETED)?.values;
        values.iter().find(|value| is_same(&value.name, name)).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    /// Gives a value its type and data; a new one becomes the last.
    ///
    /// # Errors
    /// `KEY_DELETED`; `INVALID_PARAMETER` for a name that is too long.
    pub fn set_value(
        &mut self,
        key: KeyId,
        name: &[u16],
        kind: u32,
        data: &[u8],
        now: i64,
    ) -> Result<(), NtStatus> {
        if name.len() > VALUE_NAME {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let key = self.keys.get_mut(&key).ok_or(NtStatus::KEY_DELETED)?;
        key.written = now;
        match key.values.iter_mut().find(|value| is_same(&value.name, name)) {
            Some(value) => (value.kind, value.data) = (kind, data.to_vec()),
            None => key.values.push(Value { name: name.to_vec(), kind, data: data.to_vec() }),
        }
        Ok(())
    }

    /// Deletes a value.
    ///
    /// # Errors
    /// As [`Registry::value`].
    pub fn delete_value(&mut self, key: KeyId, name: &[u16], now: i64) -> Result<(), NtStatus> {
        let key = self.keys.get_mut(&key).ok_or(NtStatus::KEY_DELETED)?;
        let found = key.values.iter().position(|value| is_same(&value.name, name));
        key.values.remove(found.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?);
        key.written = now;
        Ok(())
    }

    /// The `index`-th subkey by name.
    ///
    /// # Errors
    /// `NO_MORE_ENTRIES`, `KEY_DELETED`.
    pub fn subkey(&self, key: KeyId, index: usize) -> Result<KeyId, NtStatus> {
        let key = self.keys.get(&key).ok_or(NtStatus::KEY_DELETED)?;
        key.children.values().nth(index).copied().ok_or(NtStatus::NO_MORE_ENTRIES)
    }

    /// The `index`-th value in the order they were made.
    ///
    /// # Errors
    /// `NO_MORE_ENTRIES`, `KEY_DELETED`.
    pub fn value_at(&self, key: KeyId, index: usize) -> Result<&Value, NtStatus> {
        let key = self.keys.get(&key).ok_or(NtStatus::KEY_DELETED)?;
        key.values.get(index).ok_or(NtStatus::NO_MORE_ENTRIES)
    }

    /// What queries return of a key.
    ///
    /// # Errors
    /// `KEY_DELETED`.
    pub fn facts(&self, key: KeyId) -> Result<Facts, NtStatus> {
        let key = self.keys.get(&key).ok_or(NtStatus::KEY_DELETED)?;
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        Ok(Facts {
            name: key.name.clone(),
            class: key.class.clone(),
            written: key.written,
            subkeys: key.children.len(),
            longest_subkey: longest(&mut key.children.keys().map(|name| 2 * name.len())),
            values: key.values.len(),
            longest_value_name: longest(&mut key.values.iter().map(|value| 2 * value.name.len())),
            longest_data: longest(&mut key.values.iter().map(|value| value.data.len())),
        })
    }

    /// The whole path of a key.
    ///
    /// # Errors
    /// `KEY_DELETED`.
    pub fn path(&self, key: KeyId) -> Result<Vec<u16>, NtStatus> {
        let mut names = Vec::new();
        let mut at = Some(key);
        while let Some(key) = at {
            let key = self.keys.get(&key).ok_or(NtStatus::KEY_DELETED)?;
            names.push(key.name.as_slice());
            at = key.parent;
        }
        names.reverse();
        Ok(names.into_iter().flat_map(|name| [&[u16::from(b'\\')], name].concat()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        registry
            .create(None, &wide("\\Registry\\Machine\\System\\ControlSet001\\Services"), true, 1)
            .unwrap();
        registry
    }

    #[test]
    fn keys_are_found_whatever_their_case_and_made_one_component_at_a_time() {
        let mut registry = registry();
        let services =
            registry.open(None, &wide("\\REGISTRY\\machine\\SYSTEM\\controlset001\\Services\\")).unwrap();
        let (card, made) = registry.create(Some(services), &wide("Card"), false, 2).unwrap();
        assert!(made);
        assert_eq!(registry.create(Some(services), &wide("CARD"), false, 3).unwrap(), (card, false));
        let deep = registry.create(Some(services), &wide("None\\Parameters"), false, 4);
        assert_eq!(deep, Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!(
            String::from_utf16_lossy(&registry.path(card).unwrap()),
            "\\Registry\\Machine\\System\\ControlSet001\\Services\\Card"
        );
        assert_eq!(registry.open(None, &wide("\\Registryx")), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!(registry.open(None, &wide("Machine")), Err(NtStatus::OBJECT_PATH_SYNTAX_BAD));
    }

    #[test]
    fn a_link_leads_to_the_same_key() {
        let mut registry = registry();
        let set = registry.open(None, &wide("\\Registry\\Machine\\System\\ControlSet001")).unwrap();
        let link = wide("\\Registry\\Machine\\System\\CurrentControlSet");
        registry.create(None, &link, false, 2).unwrap();
        registry.link(&link, set).unwrap();
        let by_link = registry.open(None, &[&link[..], &wide("\\Services")].concat()).unwrap();
        assert_eq!(by_link, registry.open(Some(set), &wide("services")).unwrap());
        let absent =
            registry.path_to(None, &[&link[..], &wide("\\SERVICES\\Card\\Parameters")].concat()).unwrap();
        assert_eq!(
            String::from_utf16_lossy(&absent),
            "\\Registry\\Machine\\System\\ControlSet001\\Services\\Card\\Parameters"
        );
    }

    #[test]
    fn values_keep_their_order_and_change_in_place() {
        let mut registry = registry();
        let key = registry.open(None, &wide("\\Registry\\Machine")).unwrap();
        registry.set_value(key, &wide("B"), 4, &[1, 0, 0, 0], 5).unwrap();
        registry.set_value(key, &wide("A"), 1, &[], 6).unwrap();
        registry.set_value(key, &wide("b"), 3, &[9; 5], 7).unwrap();
        assert_eq!(registry.value_at(key, 0).unwrap().data, [9; 5]);
        assert_eq!(registry.value_at(key, 2), Err(NtStatus::NO_MORE_ENTRIES));
        let facts = registry.facts(key).unwrap();
        assert_eq!((facts.values, facts.longest_data, facts.written), (2, 5, 7));
        registry.delete_value(key, &wide("a"), 8).unwrap();
        assert_eq!(registry.value(key, &wide("A")).unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
    }

    #[test]
    fn a_key_with_subkeys_stays_and_a_deleted_one_says_so() {
        let mut registry = registry();
        let system = registry.open(None, &wide("\\Registry\\Machine\\System")).unwrap();
        assert_eq!(registry.delete(system, 2), Err(NtStatus::CANNOT_DELETE));
        let services = registry.open(Some(system), &wide("ControlSet001\\Services")).unwrap();
        registry.delete(services, 2).unwrap();
        assert_eq!(registry.value(services, &[]).unwrap_err(), NtStatus::KEY_DELETED);
        assert_eq!(registry.open(Some(services), &[]), Err(NtStatus::KEY_DELETED));
        assert_eq!(registry.subkey(system, 1), Err(NtStatus::NO_MORE_ENTRIES));
    }
}
