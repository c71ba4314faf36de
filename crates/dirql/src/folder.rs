//! The folder that is drive `C:` of a machine: read before the machine is made.
//!
//! What is in it is taken as it is, or the folder is refused with the name of what is in the way: symbolic links and whatever is neither file
//! nor folder (so nothing outside of it is read), names that Windows cannot have, names that differ only in case, more than fits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use kernel::fs::folder::{ROOM, folded, is_name, taken_by};
use kernel::fs::{Folder, Item};

use crate::error::InputError;

/// What is read so far.
#[derive(Default)]
struct Reading {
    folder: Folder,
    /// Paths as they are looked for, and as they are.
    seen: BTreeMap<String, String>,
    /// Bytes of the volume.
    taken: u64,
}

/// What lies in the folder at `path`.
///
/// # Errors
/// It is not there, no folder, may not be read; or something in it is refused.
pub(crate) fn read(path: &Path) -> Result<Rc<Folder>, InputError> {
    let shown = path.display();
    let data = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !data.is_dir() {
        return Err(InputError::new(format!(
            "{shown}: is no folder; give one with --files, which is drive C:"
        )));
    }
    let mut reading = Reading::default();
    reading.directory(path, "")?;
    Ok(Rc::new(reading.folder))
}

impl Reading {
    /// All in the folder at `host`, whose path on the volume is `inner`.
    fn directory(&mut self, host: &Path, inner: &str) -> Result<(), InputError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(host).map_err(|error| unreadable(host, &error))? {
            names.push(entry.map_err(|error| unreadable(host, &error))?.file_name());
        }
        names.sort();
        for name in names {
            let host = host.join(&name);
            let name = name.to_str().filter(|name| is_name(name)).ok_or_else(|| {
                let what = "a name that no file of Windows can have; rename it, or take it out of the folder";
                refused(&host, what)
            })?;
            let inner = if inner.is_empty() { name.to_owned() } else { format!("{inner}\\{name}") };
            self.item(&host, inner)?;
        }
        Ok(())
    }

    fn item(&mut self, host: &Path, inner: String) -> Result<(), InputError> {
        if let Some(other) = self.seen.insert(folded(&inner), inner.clone()) {
            let what = format!("differs from {other} only in case, and Windows has one of them; rename one");
            return Err(refused(host, &what));
        }
        // Not of what a link leads to.
        let data = fs::symlink_metadata(host).map_err(|error| unreadable(host, &error))?;
        if data.is_dir() {
            self.take(host, 0)?;
            self.folder.items.insert(inner.clone(), Item::Directory);
            return self.directory(host, &inner);
        }
        if data.is_symlink() {
            let what = "is a symbolic link, and may lead out of the folder; put the file itself there";
            return Err(refused(host, what));
        }
        if !data.is_file() {
            return Err(refused(host, "is neither a file nor a folder; take it out of the folder"));
        }
        self.take(host, data.len())?;
        let mut bytes = Vec::new();
        let file = File::open(host).map_err(|error| unreadable(host, &error))?;
        file.take(ROOM).read_to_end(&mut bytes).map_err(|error| unreadable(host, &error))?;
        self.folder.items.insert(inner, Item::File(bytes));
        Ok(())
    }

    fn take(&mut self, host: &Path, size: u64) -> Result<(), InputError> {
        self.taken = self.taken.saturating_add(taken_by(size.min(ROOM * 2)));
        if self.taken <= ROOM {
            return Ok(());
        }
        let most = ROOM >> 20;
        let what =
            format!("with it the folder has over {most} MiB, in units of 4 KiB; give one with less in it");
        Err(refused(host, &what))
    }
}

fn refused(path: &Path, what: &str) -> InputError {
    InputError::new(format!("{}: {what}", path.display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> InputError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => {
            refused(path, "there is no such folder; give one with --files, which is drive C:")
        }
        ErrorKind::PermissionDenied => refused(path, "may not be read; change its permissions"),
        _ => refused(path, &format!("cannot be read: {error}")),
    }
}
