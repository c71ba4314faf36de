//! `dirql check --corpus DIR`: the sequences of requests that came to new code, a script each, kept from one check to the next.
//!
//! What a search by coverage has come upon once is tried first from then on, however the driver changes and however small the budget is. Each file is
//! a script as `--script` has it; its name is the sum of what it says, so that one sequence is one file. Scripts that people put there are tried as well.

use std::fs;
use std::path::Path;

use anyhow::Result;
use dirql::check::{KeptSequence, play};
use dirql::{Error, InputError};

use crate::state_file::sum;

/// Letters of a file's name, in front of this.
const LETTERS: usize = 16;
const ENDING: &str = "txt";

/// The sequences in this folder, in the order of their names; none where it is not there.
///
/// # Errors
/// [`Error::Input`]: it cannot be read, or a file of it is no script.
pub(super) fn read(folder: &Path) -> Result<Vec<KeptSequence>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let refused =
        |what: &Path, why: String| Error::Input(InputError::new(format!("{}: {why}", what.display())));
    let files = fs::read_dir(folder)
        .map_err(|why| refused(folder, format!("is no folder that can be read: {why}")))?;
    let mut paths = Vec::new();
    for file in files {
        paths.push(file.map_err(|why| refused(folder, format!("cannot be read: {why}")))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
    paths.sort();
    let read = |path: &Path| -> Result<KeptSequence, Error> {
        let text = fs::read_to_string(path).map_err(|why| refused(path, format!("cannot be read: {why}")))?;
        let script = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let script = script.collect::<Vec<_>>().join("; ");
        play(&script).map_err(|why| refused(path, why.to_string()))?;
        Ok(KeptSequence { name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), script })
    };
    Ok(paths.iter().map(|path| read(path)).collect::<Result<_, _>>()?)
}

/// Puts these there, besides those that `known` has.
///
/// # Errors
/// [`Error::Input`]: the host does not let it.
pub(super) fn write(folder: &Path, known: &[KeptSequence], scripts: &[String]) -> Result<()> {
    let failed = |path: &Path, why| {
        Error::Input(InputError::new(format!("{}: cannot be written: {why}", path.display())))
    };
    fs::create_dir_all(folder).map_err(|why| failed(folder, why))?;
    for script in scripts.iter().filter(|script| known.iter().all(|known| known.script != **script)) {
        let path = folder.join(&sum(script)[..LETTERS]).with_extension(ENDING);
        let lines = dirql::check::commands(script).join("\n");
        fs::write(&path, lines + "\n").map_err(|why| failed(&path, why))?;
    }
    Ok(())
}
