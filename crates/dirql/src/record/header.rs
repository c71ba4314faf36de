//! The first line of a record: everything that a machine is made of, with the hashes of all files.
//!
//! Symbols (PDB files) are not in it: they change no event.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Card, GivenRegistry, card_with_files, root_of};
use crate::error::InputError;
use crate::play::ScriptText;
use crate::reg::RegFile;
use crate::report::Dismissal;
use crate::{archive, files, folder, processor, windows};

/// The version of the format that is written, and the only one that is read.
pub(super) const FORMAT: u32 = 2;
/// What `state` lines are hashes of.
const STATE: &str = "events";
/// How driver code is translated: without and with a test of each access.
const TRANSLATIONS: [&str; 2] = ["fast", CHECKED];
const CHECKED: &str = "checked";

/// A file as the user named it, and what was in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFile {
    /// As the user named it.
    pub path: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// A registry file: all that it says, so that a replay does not need it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedRegistry {
    /// As the user named it.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// The script as it was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedScript {
    /// Its name.
    pub source: String,
    /// From where the paths in it count.
    pub folder: String,
    /// What it says.
    pub text: String,
}

/// Everything that a machine is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The format's version.
    pub dirql_record: u32,
    /// dirql's.
    pub dirql: String,
    /// The policy that made the choices; replay does not need it.
    pub policy: String,
    /// The driver.
    pub driver: RecordedFile,
    /// Its INF.
    pub inf: Option<RecordedFile>,
    /// INFs given beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_infs: Vec<RecordedFile>,
    /// Images given beside it.
    pub with: Vec<RecordedFile>,
    /// The folder that is drive `C:`; its hash is that of the archive that it would make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<RecordedFile>,
    /// What was given of the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registry: Vec<RecordedRegistry>,
    /// Device models with their settings, as typed.
    pub devices: Vec<String>,
    /// Files that device settings and the script name.
    pub files: Vec<RecordedFile>,
    /// The script.
    pub script: Option<RecordedScript>,
    /// The Windows version, as typed.
    pub windows: String,
    /// Virtual processors.
    pub processors: u32,
    /// Processors of a group.
    pub group_size: u32,
    /// The kind of computer, as typed.
    pub platform: String,
    /// The processor that driver code finds, as typed.
    pub cpu: String,
    /// Bytes of memory.
    #[serde(default = "usual_memory")]
    pub memory: u64,
    /// Bytes of each kernel stack.
    #[serde(default = "usual_stack")]
    pub stack: u64,
    /// Whether depths of routines are measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stack_depths: bool,
    /// Driver instructions after which one call counts as an endless loop.
    pub budget: u64,
    /// How many nanoseconds of virtual time a request may take that nothing ends.
    #[serde(default = "usual_patience")]
    pub patience: u64,
    /// Driver Verifier's options, as typed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verifier: String,
    /// Whose blocks of pool lie in special pool, as typed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub special_pool: String,
    /// Bytes of each kind of pool that may be charged to a process, if there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Which providers of events are traced, as typed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_providers: String,
    /// The readers that judge, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// What does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dismissed: Vec<Dismissal>,
    /// How driver code is translated; the events are the same in each way.
    pub translation: String,
    /// What `state` lines are hashes of.
    pub state: String,
}

impl Header {
    /// The header of a machine to be.
    pub(super) fn new(bench: &Bench, policy: &str, script: Option<&ScriptText>) -> Result<Self, InputError> {
        let Some(driver) = &bench.driver else {
            return Err(InputError::new("no driver is given; name a .sys file"));
        };
        let mut named = Vec::new();
        let mut devices = Vec::new();
        for card in &bench.cards {
            let Card::Spec(spec) = card else {
                return Err(InputError::new(
                    "a card made by a program cannot be recorded: a record holds cards as they are typed",
                ));
            };
            if root_of(spec)?.is_none() {
                card_with_files(spec, &mut named)?;
            }
            devices.push(spec.clone());
        }
        if let Some(script) = script {
            let play = script.play()?;
            let path = |name: &str| script.folder.join(name).display().to_string();
            named.extend(play.files().map(|(name, bytes)| (path(name), bytes.to_owned())));
        }
        Ok(Self {
            dirql_record: FORMAT,
            dirql: env!("CARGO_PKG_VERSION").to_owned(),
            policy: policy.to_owned(),
            driver: recorded(driver, "the .sys file")?,
            inf: bench.infs.first().map(|path| recorded(path, "the INF file")).transpose()?,
            other_infs: bench
                .infs
                .iter()
                .skip(1)
                .map(|path| recorded(path, "the INF file"))
                .collect::<Result<_, _>>()?,
            with: bench.with.iter().map(|path| recorded(path, "the .sys file")).collect::<Result<_, _>>()?,
            folder: bench.folder.as_deref().map(recorded_folder).transpose()?,
            registry: bench.registry.iter().map(recorded_registry).collect::<Result<_, _>>()?,
            devices,
            files: named
                .into_iter()
                .map(|(path, bytes)| RecordedFile { path, sha256: sha256(&bytes) })
                .collect(),
            script: script.map(|script| RecordedScript {
                source: script.source.clone(),
                folder: script.folder.display().to_string(),
                text: script.text.clone(),
            }),
            windows: windows::name(bench.settings.windows).to_owned(),
            processors: bench.settings.processors,
            group_size: bench.settings.group_size,
            platform: bench.settings.platform.to_string(),
            cpu: processor::name(bench.settings.cpu).to_owned(),
            memory: bench.settings.memory,
            stack: bench.settings.stack,
            stack_depths: bench.settings.stack_depths,
            budget: bench.settings.instruction_budget,
            patience: bench.settings.patience,
            verifier: bench.settings.verifier.to_string(),
            special_pool: bench.settings.special_pool.to_string(),
            quota: bench.settings.quota,
            trace_providers: bench.settings.trace_providers.to_string(),
            rules: bench.judges.iter().map(|name| (*name).to_owned()).collect(),
            dismissed: bench.dismissals.clone(),
            translation: TRANSLATIONS[usize::from(bench.settings.checked)].to_owned(),
            state: STATE.to_owned(),
        })
    }

    /// What in it this dirql cannot be: the field's name, what it has, and what this one has.
    pub(super) fn foreign(&self) -> Option<(&'static str, String, String)> {
        let fields = [
            ("version of dirql", self.dirql.as_str(), env!("CARGO_PKG_VERSION")),
            ("kind of state hash", &self.state, STATE),
        ];
        let translation = (!TRANSLATIONS.contains(&self.translation.as_str()))
            .then(|| ("translation", self.translation.clone(), TRANSLATIONS.join(" or ")));
        let other = fields.into_iter().find(|(_, theirs, ours)| theirs != ours);
        other.map(|(name, theirs, ours)| (name, theirs.to_owned(), ours.to_owned())).or(translation)
    }

    /// Whether the run was a checked one.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.translation == CHECKED
    }

    /// The script as it was given.
    #[must_use]
    pub fn script(&self) -> Option<ScriptText> {
        self.script.as_ref().map(|script| ScriptText {
            source: script.source.clone(),
            text: script.text.clone(),
            folder: PathBuf::from(&script.folder),
        })
    }
}

/// What a machine had before there was another size.
const fn usual_memory() -> u64 {
    kernel::mm::memory::USUAL
}

/// What stacks had before there was another size.
const fn usual_stack() -> u64 {
    kernel::mm::stack::KERNEL_STACK
}

/// How long a request might take before there was another time.
const fn usual_patience() -> u64 {
    kernel::ke::patience::USUAL
}

fn recorded(path: &Path, what: &str) -> Result<RecordedFile, InputError> {
    let bytes = files::read(path, what)?;
    Ok(RecordedFile { path: path.display().to_string(), sha256: sha256(&bytes) })
}

fn recorded_folder(path: &Path) -> Result<RecordedFile, InputError> {
    Ok(RecordedFile { path: path.display().to_string(), sha256: folder_hash(path)? })
}

fn recorded_registry(given: &GivenRegistry) -> Result<RecordedRegistry, InputError> {
    let RegFile { file, text, .. } = given.read()?;
    Ok(RecordedRegistry { path: file, text })
}

/// What a folder that is drive `C:` is known by.
pub(super) fn folder_hash(path: &Path) -> Result<String, InputError> {
    let mut hash = Hashed(hmac_sha256::Hash::new());
    // What is hashed is never too much.
    let _ = archive::write(&*folder::read(path)?, &mut hash);
    Ok(hex(&hash.0.finalize()))
}

/// Bytes that are hashed.
struct Hashed(hmac_sha256::Hash);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&hmac_sha256::Hash::hash(bytes))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
