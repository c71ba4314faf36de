//! The files of the package: what is copied, where it comes from and where it goes.
//!
//! Follows *INF CopyFiles Directive*, *INF SourceDisksFiles Section*, *INF SourceDisksNames Section* and *INF DestinationDirs Section*. Whether a
//! file is there is not looked at.

use std::collections::BTreeMap;

use super::Walk;
use super::services::Binary;
use crate::inf::error::Spot;
use crate::inf::folders;
use crate::inf::sections::Entry;

/// A file that is copied.
pub(super) struct Copy {
    /// The file-list section, lower case; empty for `CopyFiles = @name`.
    section: String,
    to: String,
    /// Its name in the package.
    from: String,
    spot: Spot,
}

/// A folder of `[DestinationDirs]`.
struct Destination {
    dirid: String,
    subfolder: String,
}

/// The sections of files and disks: for all architectures, and for one.
const ARCHITECTURES: [&str; 6] = ["", ".amd64", ".x86", ".arm64", ".arm", ".ia64"];

impl<'a> Walk<'a> {
    pub(super) fn copy_files(&mut self, entry: Entry<'a>) {
        for (name, spot) in self.values(entry, 0) {
            if let Some(file) = name.strip_prefix('@') {
                self.copies.push(Copy {
                    section: String::new(),
                    to: file.to_owned(),
                    from: file.to_owned(),
                    spot,
                });
                continue;
            }
            let Some(section) = self.led_to(&name, spot, "CopyFiles") else { continue };
            for line in section.entries() {
                let (to, from) = (self.value(line, 0), self.value(line, 1));
                if line.raw_key().is_some() || to.is_empty() {
                    self.error(
                        0,
                        line.spot(),
                        "a line of a file list is `name[, name in the package]`; write it so",
                    );
                    continue;
                }
                let from = if from.is_empty() { to.clone() } else { from };
                self.copies.push(Copy { section: section.name.to_lowercase(), to, from, spot: line.spot() });
            }
        }
    }

    pub(super) fn files(&mut self) {
        let disks = self.keys("SourceDisksNames");
        let sources = self.keys("SourceDisksFiles");
        self.disks(&disks, &sources);
        let destinations = self.destinations();
        let has_layout =
            self.sections.get("Version").is_some_and(|version| version.entry("LayoutFile").is_some());
        for copy in std::mem::take(&mut self.copies) {
            let source = self.source(&sources, &copy.from);
            if source.is_none() && !has_layout {
                self.error(
                    1230,
                    copy.spot,
                    format!("{} is copied, and [SourceDisksFiles] does not say where it is in the package; add {0} = 1 there", copy.from),
                );
            }
            let destination = destinations.get(&copy.section).or_else(|| destinations.get("defaultdestdir"));
            self.destination(&copy, source.as_deref(), destination);
            if let Some(destination) = destination {
                self.binary_is_elsewhere(&copy, destination);
            }
        }
        if !self.binaries.is_empty() && sources.iter().all(|(_, files)| files.is_empty()) && !has_layout {
            let spot = self.binaries[0].spot;
            self.warning(0, spot, "the file names a driver and copies none; add CopyFiles, [SourceDisksNames] and [SourceDisksFiles], so that the package has it");
        }
    }

    /// The entries of a section and of those for one architecture, by their keys, lower case.
    fn keys(&mut self, section: &str) -> Vec<(&'static str, BTreeMap<String, Entry<'a>>)> {
        let mut found = Vec::new();
        for architecture in ARCHITECTURES {
            let Some(section) = self.sections.get(&format!("{section}{architecture}")) else { continue };
            let mut keys = BTreeMap::new();
            for entry in section.entries() {
                let key = self.held(entry.key()).flatten().unwrap_or_default().to_lowercase();
                keys.insert(key, entry);
            }
            found.push((architecture, keys));
        }
        found
    }

    /// The subfolder of a file in the package, if it is there for the architectures of the file.
    fn source(&mut self, sources: &[(&str, BTreeMap<String, Entry<'a>>)], file: &str) -> Option<String> {
        let file = file.to_lowercase();
        let is_x64 = self.architectures.contains("amd64");
        let entry = sources
            .iter()
            .filter(|(architecture, _)| !is_x64 || ["", ".amd64"].contains(architecture))
            .find_map(|(_, files)| files.get(&file).copied())?;
        Some(self.value(entry, 1).trim_matches('\\').to_lowercase())
    }

    fn disks(
        &mut self,
        disks: &[(&str, BTreeMap<String, Entry<'a>>)],
        sources: &[(&str, BTreeMap<String, Entry<'a>>)],
    ) {
        for (_, files) in sources {
            for (file, entry) in files {
                let disk = self.value(*entry, 0);
                let is_there =
                    disks.iter().any(|(_, names)| names.keys().any(|name| same_number(name, &disk)));
                if !is_there {
                    self.error(
                        0,
                        entry.spot_of(0),
                        format!("{file} is on disk `{disk}`, which [SourceDisksNames] does not have; add {} = %DiskName% there", if disk.is_empty() { "1" } else { &disk }),
                    );
                }
            }
        }
    }

    fn destinations(&mut self) -> BTreeMap<String, Destination> {
        let mut all = BTreeMap::new();
        let Some(section) = self.sections.get("DestinationDirs") else { return all };
        for entry in section.entries() {
            let key = self.held(entry.key()).flatten().unwrap_or_default();
            let dirid = self.value(entry, 0);
            if dirid.contains('%') {
                self.error(
                    0,
                    entry.spot_of(0),
                    format!(
                        "`{dirid}`: a directory's number stands here without percent signs; write {}",
                        dirid.trim_matches('%')
                    ),
                );
            } else if crate::inf::target::number(dirid.trim_start_matches('-')).is_none() {
                self.error(
                    0,
                    entry.spot_of(0),
                    format!(
                        "`{dirid}` is not a directory's number; write 13 (the driver store) or 12 (drivers)"
                    ),
                );
            } else if folders::find(&dirid).is_none() {
                self.warning(0, entry.spot_of(0), format!("{dirid} is a directory that only an installer of yours can know; write 13 (the driver store) or 12 (drivers)"));
            }
            if !key.eq_ignore_ascii_case("DefaultDestDir") && self.sections.get(&key).is_none() {
                self.warning(0, entry.spot(), format!("[DestinationDirs] has a folder for [{key}], which the file does not have; remove it, or write the section's name"));
            }
            let subfolder = self.value(entry, 1).trim_matches('\\').to_lowercase();
            all.insert(key.to_lowercase(), Destination { dirid, subfolder });
        }
        all
    }

    fn destination(&mut self, copy: &Copy, source: Option<&str>, destination: Option<&Destination>) {
        let Some(Destination { dirid, subfolder }) = destination else {
            let of = if copy.section.is_empty() { "DefaultDestDir".to_owned() } else { copy.section.clone() };
            self.warning(
                0,
                copy.spot,
                format!("[DestinationDirs] does not say where {} goes; write {of} = 13 there", copy.to),
            );
            return;
        };
        if dirid == "13" {
            let is_renamed = !copy.to.eq_ignore_ascii_case(&copy.from);
            if is_renamed {
                self.error(1100, copy.spot, format!("{} is renamed to {}, and a file in the driver store has the name that it has in the package; give it one name", copy.from, copy.to));
            } else if source.is_some_and(|source| source != subfolder) {
                let source = source.unwrap_or_default();
                self.error(
                    1100,
                    copy.spot,
                    format!("{} is in the folder `{source}` of the package and goes to `{subfolder}` of the driver store, which keeps the package's folders; make them one", copy.to),
                );
            }
        }
        let is_elsewhere =
            folders::find(dirid).is_some_and(|folder| !folder.path.starts_with(r"\SystemRoot"));
        if is_elsewhere {
            self.warning(
                1306,
                copy.spot,
                format!("{} goes to a folder outside Windows; write 13 in [DestinationDirs]", copy.to),
            );
        }
    }

    /// A service whose file is copied, but not to where the service looks for it.
    fn binary_is_elsewhere(&mut self, copy: &Copy, destination: &Destination) {
        let Some(folder) = folders::find(&destination.dirid) else { return };
        let file = copy.to.to_lowercase();
        let path = format!(r"{}\{}", folder.path, destination.subfolder).to_lowercase();
        let path = path.trim_end_matches('\\');
        let elsewhere = |binary: &&Binary| binary.file == file && binary.folder != path;
        let found: Vec<(Spot, &str)> =
            self.binaries.iter().filter(elsewhere).map(|binary| (binary.spot, binary.dirid)).collect();
        for (spot, own) in found {
            self.warning(0, spot, format!("the service looks for {file} in %{own}%, and [DestinationDirs] has it copied to {0}; write %{0}%\\{file}", destination.dirid));
        }
    }
}

/// Whether two identifiers are one number: `1` and `01`.
fn same_number(a: &str, b: &str) -> bool {
    match (crate::inf::target::number(a), crate::inf::target::number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.eq_ignore_ascii_case(b),
    }
}
