//! Driver files as the user names them: read, taken apart, with their symbols.
//!
//! It reads regular files only, and none that no driver is as large as.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use image::{Image, Symbols};

use crate::error::InputError;

/// The largest file that is read, in bytes; the largest real drivers have some 60 MB.
const MOST_BYTES: u64 = 512 << 20;

/// The bytes of a PDB.
pub type Pdb = Rc<[u8]>;

/// A driver's file.
pub struct DriverFile {
    /// As the user named it.
    pub path: PathBuf,
    /// Its file name: by it other images import from it, and people know it.
    pub name: String,
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Taken apart.
    pub image: Rc<Image>,
    /// The names of its routines, from its PDB if that lies beside it.
    pub symbols: Symbols,
    /// The bytes of that PDB: its source lines are read when one is first asked for.
    pub pdb: Option<Pdb>,
    /// What was passed over, for the user: a PDB of another build.
    pub notes: Vec<String>,
}

impl DriverFile {
    /// Reads a `.sys` file, and the PDB beside it if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or is not an x64 driver.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let bytes = read(path, "the .sys file")?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = parse(path, &name, &bytes)?;
        let mut notes = Vec::new();
        let (symbols, pdb) = symbols(path, &image, &mut notes)?;
        Ok(Self { path: path.to_owned(), name, bytes, image: Rc::new(image), symbols, pdb, notes })
    }

    /// The service's name where no INF gives one: the file's, without its extension.
    #[must_use]
    pub fn service(&self) -> String {
        let stem = Path::new(&self.name).file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }
}

fn parse(path: &Path, name: &str, bytes: &[u8]) -> Result<Image, InputError> {
    Image::parse(name, bytes)
        .map_err(|error| InputError::new(format!("{}: {}", path.display(), error.problem)))
}

/// The names of its routines, and the PDB they are from. A PDB that cannot be used is noted, and not used.
fn symbols(
    path: &Path,
    image: &Image,
    notes: &mut Vec<String>,
) -> Result<(Symbols, Option<Pdb>), InputError> {
    let own = image.pdb().map(|pdb| path.with_file_name(pdb.file_name()));
    let beside = [own, Some(path.with_extension("pdb"))];
    for pdb in beside.into_iter().flatten() {
        if !pdb.is_file() {
            continue;
        }
        match read(&pdb, "its PDB").map(|bytes| (Symbols::new(image, Some(&bytes)), bytes)) {
            Ok((Ok(symbols), bytes)) => return Ok((symbols, Some(bytes.into()))),
            Ok((Err(error), _)) => notes.push(format!("{}: {}", pdb.display(), error.problem)),
            Err(error) => notes.push(error.to_string()),
        }
    }
    let own = Symbols::new(image, None).map_err(|error| InputError::new(error.to_string()))?;
    Ok((own, None))
}

/// The bytes of a regular file. `what` says what it should be, for the message.
///
/// # Errors
/// It is not there, no file, too large, or may not be read.
pub fn read(path: &Path, what: &str) -> Result<Vec<u8>, InputError> {
    let shown = path.display();
    let data = fs::metadata(path).map_err(|error| unreadable(path, what, &error))?;
    if data.is_dir() {
        return Err(InputError::new(format!("{shown}: is a folder; give {what} itself")));
    }
    if !data.is_file() {
        return Err(InputError::new(format!("{shown}: is not a regular file; give {what} itself")));
    }
    if data.len() > MOST_BYTES {
        let (size, most) = (data.len() >> 20, MOST_BYTES >> 20);
        return Err(InputError::new(format!(
            "{shown}: has {size} MiB, over the limit of {most} MiB; give {what}"
        )));
    }
    fs::read(path).map_err(|error| unreadable(path, what, &error))
}

/// The text of a regular file.
///
/// # Errors
/// As [`read`]; also if it is not UTF-8.
pub fn read_text(path: &Path, what: &str) -> Result<String, InputError> {
    let bytes = read(path, what)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        InputError::new(format!("{}: is not UTF-8 text (at byte {at}); save {what} as UTF-8", path.display()))
    })
}

fn unreadable(path: &Path, what: &str, error: &std::io::Error) -> InputError {
    use std::io::ErrorKind;
    let remedy = match error.kind() {
        ErrorKind::NotFound => format!("there is no such file; give the path of {what}"),
        ErrorKind::PermissionDenied => "may not be read; change its permissions".to_owned(),
        _ => format!("cannot be read: {error}; give another copy of {what}"),
    };
    InputError::new(format!("{}: {remedy}", path.display()))
}
