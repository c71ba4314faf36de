//! The tree of object names: directories, symbolic links and named objects, not case-sensitive.
//!
//! Pages: *Object Names*, *Introduction to MS-DOS Device Names*. `\DosDevices` and `\??` are one directory, `\GLOBAL??`.
//! There are no per-session directories and no security descriptors.

use std::collections::BTreeMap;

use abi::NtStatus;

/// How often a name may lead on by symbolic links.
const MOST_LINKS: u32 = 32;

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A directory.
    Directory,
    /// Another name.
    Link(String),
    /// An object, by the address of its body.
    Object(u64),
}

/// What a path led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The whole name, links followed, as it was created.
    pub path: String,
    /// What is there.
    pub target: Target,
    /// What follows the object's name in the path: empty, or `\` and the name of something inside (a file).
    pub rest: String,
}

struct Entry {
    path: String,
    target: Target,
}

/// All names, by their whole path in capitals.
pub struct Names {
    entries: BTreeMap<String, Entry>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl Names {
    /// The directories and links that every Windows has.
    #[must_use]
    pub fn new() -> Self {
        let mut names = Self { entries: BTreeMap::new() };
        names.put("", Target::Directory);
        let directories =
            ["Device", "Driver", "FileSystem", "GLOBAL??", "BaseNamedObjects", "Callback", "KernelObjects"];
        for directory in directories {
            names.put(&format!("\\{directory}"), Target::Directory);
        }
        names.put("\\??", Target::Link("\\GLOBAL??".into()));
        names.put("\\DosDevices", Target::Link("\\GLOBAL??".into()));
        names.put("\\GLOBAL??\\Global", Target::Link("\\GLOBAL??".into()));
        names.put("\\GLOBAL??\\GLOBALROOT", Target::Link(String::new()));
        for namespace in ["Global", "Local"] {
            names.put(&format!("\\BaseNamedObjects\\{namespace}"), Target::Link("\\BaseNamedObjects".into()));
        }
        names
    }

    fn put(&mut self, path: &str, target: Target) {
        self.entries.insert(fold(path), Entry { path: path.to_owned(), target });
    }

    /// Follows `path` to its end, or to the first object on the way; links are followed.
    ///
    /// # Errors
    /// `OBJECT_PATH_SYNTAX_BAD`, `OBJECT_NAME_INVALID`, `OBJECT_PATH_NOT_FOUND`, `OBJECT_NAME_NOT_FOUND`.
    pub fn resolve(&self, path: &str) -> Result<Found, NtStatus> {
        self.walk(path, true)
    }

    /// As [`Names::resolve`], but a link as the last component is the answer itself.
    ///
    /// # Errors
    /// As [`Names::resolve`].
    pub fn resolve_link(&self, path: &str) -> Result<Found, NtStatus> {
        self.walk(path, false)
    }

    fn walk(&self, path: &str, follow_last: bool) -> Result<Found, NtStatus> {
        let mut path = checked(path)?.to_owned();
        for _ in 0..MOST_LINKS {
            match self.step(&path, follow_last)? {
                Ok(found) => return Ok(found),
                Err(further) => path = further,
            }
        }
        Err(NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    /// Goes down `path` until it ends (`Ok`) or a link says where to go on (`Err`).
    fn step(&self, path: &str, follow_last: bool) -> Result<Result<Found, String>, NtStatus> {
        // Components may be longer or shorter in capitals, but there are as many.
        let folded = fold(path);
        let (mut end, mut folded_end) = (0, 0);
        loop {
            let entry = self.entries.get(&folded[..folded_end]).ok_or(if end == path.len() {
                NtStatus::OBJECT_NAME_NOT_FOUND
            } else {
                NtStatus::OBJECT_PATH_NOT_FOUND
            })?;
            let rest = &path[end..];
            match &entry.target {
                Target::Link(to) if follow_last || !rest.is_empty() => return Ok(Err(format!("{to}{rest}"))),
                Target::Directory if !rest.is_empty() && rest != "\\" => {
                    end += component(rest);
                    folded_end += component(&folded[folded_end..]);
                }
                target => {
                    let rest = if *target == Target::Directory { "" } else { rest };
                    let (path, target) = (entry.path.clone(), target.clone());
                    return Ok(Ok(Found { path, target, rest: rest.to_owned() }));
                }
            }
        }
    }

    /// Gives `target` a name in an existing directory; returns the whole name with links followed.
    ///
    /// # Errors
    /// As [`Names::resolve`] for the directory; `OBJECT_NAME_COLLISION` if the name is taken.
    pub fn insert(&mut self, path: &str, target: Target) -> Result<String, NtStatus> {
        let path = checked(path)?;
        let (parent, name) = path.rsplit_once('\\').ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        if name.is_empty() {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        let directory = if parent.is_empty() { Ok(String::new()) } else { self.directory(parent) }?;
        let full = format!("{directory}\\{name}");
        if self.entries.contains_key(&fold(&full)) {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        self.put(&full, target);
        Ok(full)
    }

    fn directory(&self, path: &str) -> Result<String, NtStatus> {
        match self.resolve(path) {
            Ok(Found { path, target: Target::Directory, .. }) => Ok(path),
            Ok(_) | Err(NtStatus::OBJECT_NAME_NOT_FOUND) => Err(NtStatus::OBJECT_PATH_NOT_FOUND),
            Err(status) => Err(status),
        }
    }

    /// Takes a name away; `path` is one that [`Names::insert`] returned.
    pub fn remove(&mut self, path: &str) {
        self.entries.remove(&fold(path));
    }

    /// Whether no name lies in the directory of this path.
    pub(crate) fn is_empty(&self, path: &str) -> bool {
        let within = fold(path) + "\\";
        !self.entries.range(within.clone()..).next().is_some_and(|(name, _)| name.starts_with(&within))
    }

    /// All symbolic links of `\GLOBAL??`, by name and target: what `\\.\` can open.
    pub fn dos_devices(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.values().filter_map(|entry| match &entry.target {
            Target::Link(to) => Some((entry.path.strip_prefix("\\GLOBAL??\\")?, to.as_str())),
            _ => None,
        })
    }
}

fn checked(path: &str) -> Result<&str, NtStatus> {
    if !path.starts_with('\\') {
        return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
    }
    Ok(path)
}

/// The bytes of the first component of a path, with the separator before it.
fn component(path: &str) -> usize {
    1 + path[1..].find('\\').unwrap_or(path.len() - 1)
}

/// One character for one, as `RtlUpcaseUnicodeChar`.
pub(crate) fn fold(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_uppercase();
    }
    path.chars()
        .map(|c| {
            let mut upper = c.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(one), None) => one,
                _ => c,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_a_device() -> Names {
        let mut names = Names::new();
        names.insert("\\Device\\Foo", Target::Object(7)).unwrap();
        names.insert("\\DosDevices\\MyFoo", Target::Link("\\Device\\Foo".into())).unwrap();
        names
    }

    #[test]
    fn a_link_in_dosdevices_is_found_under_every_name_of_that_directory() {
        let names = with_a_device();
        for path in ["\\??\\MyFoo", "\\DosDevices\\myfoo", "\\GLOBAL??\\MYFOO", "\\??\\Global\\MyFoo"] {
            let found = names.resolve(path).unwrap();
            assert_eq!((found.path.as_str(), found.target), ("\\Device\\Foo", Target::Object(7)), "{path}");
        }
        assert_eq!(names.resolve("\\??\\GLOBALROOT\\device\\foo").unwrap().target, Target::Object(7));
    }

    #[test]
    fn the_first_sessions_names_are_the_global_ones() {
        let mut names = Names::new();
        let full = names.insert("\\BaseNamedObjects\\Global\\Foo", Target::Object(7)).unwrap();
        assert_eq!(full, "\\BaseNamedObjects\\Foo");
        assert_eq!(names.resolve("\\BaseNamedObjects\\Local\\foo").unwrap().target, Target::Object(7));
    }

    #[test]
    fn what_follows_a_device_name_is_the_name_of_a_file_on_it() {
        let found = with_a_device().resolve("\\??\\MyFoo\\dir\\file").unwrap();
        assert_eq!((found.target, found.rest.as_str()), (Target::Object(7), "\\dir\\file"));
        assert_eq!(with_a_device().resolve("\\Device\\Foo\\").unwrap().rest, "\\");
    }

    #[test]
    fn a_missing_name_and_a_missing_directory_are_told_apart() {
        let names = with_a_device();
        assert_eq!(names.resolve("\\??\\Bar"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!(names.resolve("\\Nowhere\\Bar"), Err(NtStatus::OBJECT_PATH_NOT_FOUND));
        assert_eq!(names.resolve("Device\\Foo"), Err(NtStatus::OBJECT_PATH_SYNTAX_BAD));
    }

    #[test]
    fn a_name_is_taken_whatever_its_case() {
        let mut names = with_a_device();
        assert_eq!(names.insert("\\device\\FOO", Target::Object(8)), Err(NtStatus::OBJECT_NAME_COLLISION));
        assert_eq!(names.insert("\\Nowhere\\X", Target::Object(8)), Err(NtStatus::OBJECT_PATH_NOT_FOUND));
        assert_eq!(names.insert("\\Device\\", Target::Object(8)), Err(NtStatus::OBJECT_NAME_INVALID));
    }

    #[test]
    fn a_component_that_is_shorter_in_capitals_leads_to_what_lies_in_it() {
        let mut names = with_a_device();
        names.insert("\\ıß", Target::Directory).unwrap();
        names.insert("\\ıß\\aı", Target::Object(9)).unwrap();
        let found = names.resolve("\\Iß\\AI\\ı").unwrap();
        assert_eq!((found.path.as_str(), found.target), ("\\ıß\\aı", Target::Object(9)));
        assert_eq!(found.rest, "\\ı");
        assert_eq!(names.resolve("\\Iß\\I"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!((fold("aß\\ıé"), fold("az\\9")), ("Aß\\IÉ".to_owned(), "AZ\\9".to_owned()));
    }

    #[test]
    fn links_that_go_round_in_a_circle_lead_nowhere() {
        let mut names = Names::new();
        names.insert("\\??\\A", Target::Link("\\??\\B".into())).unwrap();
        names.insert("\\??\\B", Target::Link("\\??\\A".into())).unwrap();
        assert_eq!(names.resolve("\\??\\A"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    }

    #[test]
    fn a_link_itself_can_be_found_and_removed() {
        let mut names = with_a_device();
        let found = names.resolve_link("\\??\\MyFoo").unwrap();
        assert_eq!(found.target, Target::Link("\\Device\\Foo".into()));
        names.remove(&found.path);
        assert_eq!(names.resolve("\\??\\MyFoo"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!(names.dos_devices().count(), 2, "Global and GLOBALROOT");
    }
}
