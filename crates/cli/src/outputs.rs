//! Files that a command writes: a record, a figure. Each is written beside its place and put there when it is complete, so that what
//! was there before is there until then; and none of them may be a file that the command reads.
//!
//! A jailed process can rename nothing: it writes, and the one that watches it puts the file in its place.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dirql::{Error, InputError};

use crate::arguments::Isolation;

/// One of them.
#[derive(Clone, Debug)]
struct Output {
    /// As the user named it.
    named: PathBuf,
    /// Where it is written.
    beside: PathBuf,
}

/// All of a command's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs(Vec<Output>);

impl Outputs {
    /// Of these, as far as they are given. Nothing is opened.
    pub(crate) fn new<'p>(
        isolation: &Isolation,
        given: impl IntoIterator<Item = Option<&'p PathBuf>>,
    ) -> Self {
        let writer = isolation.confined.unwrap_or_else(std::process::id);
        let output = |named: &PathBuf| {
            let name = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Output { named: named.clone(), beside: named.with_file_name(format!(".{name}.{writer}.part")) }
        };
        Self(given.into_iter().flatten().map(output).collect())
    }

    /// Whether each of them may be written, where the command reads `inputs`.
    ///
    /// # Errors
    /// [`Error::Input`]: one of them is an input or leads to one, lies in a folder that is one, is no regular file, or is named twice.
    pub(crate) fn check(&self, inputs: &[PathBuf]) -> Result<(), Error> {
        for (index, Output { named, .. }) in self.0.iter().enumerate() {
            let refused = |why: &str| Err(InputError::new(format!("{}: {why}", named.display())).into());
            if self.0[..index].iter().any(|other| same(&other.named, named)) {
                return refused("two things cannot be written to one file; give each a name of its own");
            }
            if let Some(folder) = inputs.iter().find(|input| lies_in(named, input)) {
                let why =
                    format!("lies in {}, which this command reads; give it another place", folder.display());
                return refused(&why);
            }
            let Ok(link) = fs::symlink_metadata(named) else { continue };
            match fs::metadata(named) {
                Err(_) if link.is_symlink() => {
                    return refused("cannot be written: a link that leads nowhere");
                }
                Ok(data) if data.is_dir() => return refused("cannot be written: it is a folder"),
                Ok(data) if !data.is_file() => {
                    return refused(
                        "cannot be written: it is no regular file (the file is put in its place when it is complete)",
                    );
                }
                _ => {}
            }
            if let Some(input) = inputs.iter().find(|input| same(input, named)) {
                let why = format!("would be written over {}, which this command reads", input.display());
                return refused(&why);
            }
        }
        Ok(())
    }

    /// Opens the one of this name, which is among them and has passed [`Outputs::check`].
    ///
    /// # Errors
    /// [`Error::Input`]: its folder cannot be written.
    pub(crate) fn create(&self, named: &Path) -> Result<File, Error> {
        let beside = self.0.iter().find(|output| output.named == named).map(|output| &output.beside);
        let path = beside.map_or(named, PathBuf::as_path);
        let error = |error| InputError::new(format!("{}: cannot be written: {error}", named.display()));
        File::create(path).map_err(|why| Error::Input(error(why)))
    }

    /// Puts those that are there in their places.
    ///
    /// # Errors
    /// [`Error::Input`]: the host does not let it.
    pub(crate) fn keep(&self) -> Result<(), Error> {
        for Output { named, beside } in &self.0 {
            if !beside.exists() {
                continue;
            }
            // A link stays, and leads to the new file.
            let place = fs::canonicalize(named).unwrap_or_else(|_| named.clone());
            if let Err(why) = fs::rename(beside, place) {
                let _ = fs::remove_file(beside);
                return Err(InputError::new(format!("{}: cannot be written: {why}", named.display())).into());
            }
        }
        Ok(())
    }

    /// They are not complete, and never will be.
    pub(crate) fn discard(&self) {
        for Output { beside, .. } in &self.0 {
            // It need not be there.
            let _ = fs::remove_file(beside);
        }
    }
}

/// Whether a file that is there, or is to be, lies in a folder.
fn lies_in(file: &Path, folder: &Path) -> bool {
    folder.is_dir()
        && place(file)
            .zip(fs::canonicalize(folder).ok())
            .is_some_and(|(file, folder)| file.starts_with(folder))
}

/// Whether two names lead to one file.
fn same(one: &Path, other: &Path) -> bool {
    let key = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    match (key(one), key(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => place(one) == place(other),
        _ => false,
    }
}

/// Where a file would be that is not there.
fn place(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(fs::canonicalize(folder).ok()?.join(path.file_name()?))
}
