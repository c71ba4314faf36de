//! Driver frameworks: which of the files that were given is one, and where one lies that a driver needs and that was not named.
//!
//! A framework is an image that registers with the frameworks' loader; it is the user's own, and dirql brings none. `docs/kmdf.md` says where
//! it comes from.

use std::path::{Path, PathBuf};

use image::{Image, Import, Selector};

use crate::error::InputError;
use crate::files::{self, DriverFile};
use crate::inf::Installation;

/// The framework's file, as Windows has it.
pub const FILE: &str = "Wdf01000.sys";

/// Whether the image is a framework.
pub(crate) fn is_framework(image: &Image) -> bool {
    image.imports().iter().any(|import| is_loaders(import, "WdfRegisterLibrary"))
}

/// Whether the image is a framework's client: a driver that a framework drives.
pub(crate) fn is_client(image: &Image) -> bool {
    image.imports().iter().any(|import| is_loaders(import, "WdfVersionBind"))
}

fn is_loaders(import: &Import, name: &str) -> bool {
    let loader =
        Path::new(&import.module).file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case("wdfldr"));
    loader && matches!(&import.selector, Selector::Name(own) if own == name)
}

/// Puts frameworks in front of the other files: clients bind to them when they are loaded.
///
/// # Errors
/// A client is given without a framework, or as the framework something else.
pub(crate) fn order(
    driver: &DriverFile,
    with: &mut [DriverFile],
    framework: Option<&Path>,
) -> Result<(), InputError> {
    if let Some(file) = with.iter().find(|file| framework.is_some_and(|path| file.path == path))
        && !is_framework(&file.image)
    {
        return Err(InputError::new(format!(
            "{}: is no driver framework (it does not call WdfRegisterLibrary); give {FILE}",
            file.path.display()
        )));
    }
    with.sort_by_key(|file| !is_framework(&file.image));
    let is_there = with.iter().chain([driver]).any(|file| {
        // A loader that is given needs none of what dirql's does.
        is_framework(&file.image) || file.service().eq_ignore_ascii_case("wdfldr")
    });
    match with.iter().chain([driver]).find(|file| is_client(&file.image)) {
        Some(client) if !is_there => Err(missing(client)),
        _ => Ok(()),
    }
}

fn missing(client: &DriverFile) -> InputError {
    InputError::new(format!(
        "{}: is a KMDF driver, and runs on Microsoft's framework, {FILE}, which dirql does not bring: give that file with --framework, or put it \
         beside the driver or into ~/.config/dirql. Windows has it as C:\\Windows\\System32\\drivers\\{FILE}; docs/kmdf.md says how to build it from \
         Microsoft's source",
        client.path.display()
    ))
}

/// What an INF says of its driver's framework and the driver does not: `KmdfLibraryVersion` is what Windows looks at before it loads the driver.
pub(crate) fn disagreement(installation: &Installation, bound: Option<(u32, u32)>) -> Option<String> {
    let service = &installation.service.as_ref()?.name;
    let file = &installation.file;
    match (&installation.framework, bound) {
        (Some(said), Some((major, minor))) if parse(said) != Some((major, minor)) => Some(format!(
            "{file}: KmdfLibraryVersion = {said}, and {service} is built for KMDF {major}.{minor}; write that version"
        )),
        (Some(said), None) => Some(format!(
            "{file}: KmdfLibraryVersion = {said}, and {service} is no KMDF driver; take the section out"
        )),
        _ => None,
    }
}

/// `1.15`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The framework's file for a driver that needs one, where `given` has none: beside the driver, or else in this folder. None if it
/// is not there. What cannot be read is reported when the files are read.
#[must_use]
pub fn find(driver: &Path, given: &[PathBuf], folder: Option<&Path>) -> Option<PathBuf> {
    let others: Vec<Image> = given.iter().filter_map(|path| image(path)).collect();
    let own = image(driver)?;
    let images = || others.iter().chain([&own]);
    let needed = images().any(is_client) && !images().any(is_framework);
    if !needed {
        return None;
    }
    driver.parent().into_iter().chain(folder).find_map(in_folder)
}

/// The image in a file, without its symbols.
fn image(path: &Path) -> Option<Image> {
    let bytes = files::read(path, "the .sys file").ok()?;
    Image::parse(&path.file_name()?.to_string_lossy(), &bytes).ok()
}

/// The framework's file in a folder, however its name is written.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).ok()?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(FILE)));
    found.into_iter().min()
}
