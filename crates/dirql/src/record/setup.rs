//! From a record to the machine that it describes: files found and held against their hashes, choices answered, events
//! compared.

use std::path::{Path, PathBuf};

use explore::Replay;

use super::comparison::Comparison;
use super::header::{RecordedFile, RecordedRegistry, folder_hash, sha256};
use super::read::Record;
use crate::bench::Bench;
use crate::error::InputError;
use crate::play::Play;
use crate::{files, processor, rules, windows};

impl Record {
    /// The machine that was recorded, the script to carry out in it, and what holds the run against the record. Files are
    /// looked for where they were, and beside the record; `driver`, `inf` and `folder` say where these are now. The bench may be made
    /// checked, or not, whatever the record says: the events are the same.
    ///
    /// # Errors
    /// A file that is not there or has changed; anything that the machine cannot be made of any more.
    pub fn bench(
        &self,
        driver: Option<&Path>,
        inf: Option<&Path>,
        folder: Option<&Path>,
    ) -> Result<(Bench, Option<Play>, Comparison), InputError> {
        let header = &self.header;
        for file in &header.files {
            self.unchanged(Path::new(&file.path), file, "the file that a device or the script names", "")?;
        }
        let replay = Replay::new(self.choices.clone());
        let comparison = Comparison::new(self.clone(), replay.clone());
        let mut bench = Bench::new()
            .driver(self.find(&header.driver, driver, "the .sys file", "; say where it is with --driver")?)
            .processors(header.processors)
            .group_size(header.group_size)
            .platform(header.platform.parse().map_err(InputError::new)?)
            .checked(header.is_checked())
            .windows(windows::parse(&header.windows)?)
            .processor(processor::parse(&header.cpu)?)
            .memory(header.memory)
            .stack(header.stack)
            .stack_depths(header.stack_depths)
            .instruction_budget(header.budget)
            .patience(header.patience)
            .verifier(header.verifier.parse().map_err(InputError::new)?)
            .special_pool(header.special_pool.parse().map_err(InputError::new)?)
            .quota(header.quota)
            .trace_providers(header.trace_providers.parse().map_err(InputError::new)?)
            .rules(&rules::judges_named(&header.rules)?)
            .dismiss(header.dismissed.clone())
            .chooser(replay)
            .reader(comparison.clone());
        if let Some(file) = &header.inf {
            bench = bench.inf(self.find(file, inf, "the INF file", "; say where it is with --inf")?);
        }
        for file in &header.other_infs {
            bench = bench.inf(self.find(file, None, "the INF file", "")?);
        }
        if let Some(recorded) = &header.folder {
            bench = bench.files(self.find_folder(recorded, folder)?);
        }
        for file in &header.with {
            bench = bench.with(self.find(file, None, "the .sys file", "")?);
        }
        for RecordedRegistry { path, text } in &header.registry {
            bench = bench.registry_text(path, text);
        }
        for spec in &header.devices {
            bench = bench.device(spec);
        }
        let play = header.script().map(|script| script.play()).transpose()?;
        Ok((bench, play, comparison))
    }

    /// Where a recorded file is, unchanged.
    fn find(
        &self,
        file: &RecordedFile,
        given: Option<&Path>,
        what: &str,
        remedy: &str,
    ) -> Result<PathBuf, InputError> {
        let path = given.map_or_else(|| self.place(&file.path), Path::to_owned);
        self.unchanged(&path, file, what, remedy)?;
        Ok(path)
    }

    /// Where the recorded folder is, with what it had.
    fn find_folder(&self, recorded: &RecordedFile, given: Option<&Path>) -> Result<PathBuf, InputError> {
        let path = given.map_or_else(|| self.place(&recorded.path), Path::to_owned);
        let (source, shown) = (&self.source, path.display());
        if !path.exists() {
            return Err(InputError::new(format!(
                "{shown}: is not there, and {source} was recorded with it as drive C:; say where it is with --files"
            )));
        }
        if folder_hash(&path)? == recorded.sha256 {
            return Ok(path);
        }
        Err(InputError::new(format!(
            "{shown}: what is in this folder, which is drive C:, has changed since {source} was recorded; put it back, say where it is \
             with --files, or record the run again"
        )))
    }

    /// As it was typed, else beside the record.
    fn place(&self, typed: &str) -> PathBuf {
        let typed = PathBuf::from(typed);
        let folder = Path::new(&self.source).parent().unwrap_or(Path::new(""));
        let beside = typed.file_name().map(|name| folder.join(name));
        match beside {
            Some(beside) if !typed.exists() && beside.exists() => beside,
            _ => typed,
        }
    }

    fn unchanged(
        &self,
        path: &Path,
        file: &RecordedFile,
        what: &str,
        remedy: &str,
    ) -> Result<(), InputError> {
        let (source, shown) = (&self.source, path.display());
        if !path.exists() {
            return Err(InputError::new(format!(
                "{shown}: is not there, and {source} was recorded with it{remedy}"
            )));
        }
        let now = sha256(&files::read(path, what)?);
        if now == file.sha256 {
            return Ok(());
        }
        let (now, then) = (&now[..12], file.sha256.get(..12).unwrap_or(&file.sha256));
        Err(InputError::new(format!(
            "{shown}: has changed since {source} was recorded (its SHA-256 begins with {now}, the record's with {then}); put that {} back, or record the run again{remedy}",
            what.trim_start_matches("the "),
        )))
    }
}
