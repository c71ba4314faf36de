//! A file in which a command keeps what it has done, and goes on from: `dirql explore --state FILE`, `dirql check --state FILE`.
//!
//! The file begins with what the work was made of: with anything else nothing goes on from it. Lines follow, in blocks, each with a checksum of
//! everything above it. A block is written at once; what is behind the last checksum was cut short, and is done again:
//!
//! ```text
//! {"dirql_search":2,"bounds":{…},"machine":{…}}     as in a record
//! sha256 0123…cdef
//! …                                                  lines of the command's
//! sha256 0123…cdef
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use dirql::{Error, InputError};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use crate::out;
use crate::outputs::Outputs;

const SUM: &str = "sha256 ";

/// How often, and after which pauses, a file is asked for that another process has.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What sort of work is kept.
pub(crate) struct Work {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The version of the format.
    pub(crate) format: u32,
}

impl Work {
    fn key(&self) -> String {
        format!("dirql_{}", self.name)
    }

    fn anew(&self) -> String {
        format!("delete it, or give another name, and the {} begins anew", self.name)
    }

    /// What it is made of, as the file says it.
    pub(crate) fn head(&self, bounds: &Value, machine: &str) -> Value {
        let machine: Value = serde_json::from_str(machine).unwrap_or_default();
        json!({self.key(): self.format, "bounds": bounds, "machine": machine})
    }
}

/// The file, while the work is done.
pub(crate) struct StateFile {
    name: String,
    /// None once it cannot be written.
    file: Option<File>,
    /// The last checksum.
    sum: String,
}

impl StateFile {
    /// Opens the file at `path`, which is among `outputs`, or makes it. `line` is given what was written before, and answers nothing to a line that
    /// is none of the command's.
    ///
    /// # Errors
    /// [`Error::Input`]: it cannot be read or written, another process is at it, it is of other work, or it is damaged. One message says what to do.
    pub(crate) fn open(
        work: &Work,
        path: &Path,
        outputs: &Outputs,
        head: &Value,
        line: &mut dyn FnMut(&str) -> Option<()>,
    ) -> Result<Self, Error> {
        let name = path.display().to_string();
        let wrong = |what: &str| Error::Input(InputError::new(format!("{name}: {what}")));
        let cannot = |error: &std::io::Error| wrong(&format!("cannot be read and written: {error}"));
        let lock = |file: &File| {
            // One that was killed a moment ago has it until its last process is gone.
            for _ in 0..LOCK_TRIES {
                if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return Ok(());
                }
                thread::sleep(LOCK_PAUSE);
            }
            let what = work.name;
            Err(wrong(&format!("another {what} is writing it; let that one end, or give another name")))
        };
        let (file, sum) = if path.exists() {
            let mut file =
                File::options().read(true).append(true).open(path).map_err(|error| cannot(&error))?;
            lock(&file)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(|error| cannot(&error))?;
            let text = String::from_utf8_lossy(&bytes);
            let (whole, sum) = read(work, &text, head, line).map_err(|what| wrong(&what))?;
            file.set_len(whole).map_err(|error| cannot(&error))?;
            (file, sum)
        } else {
            let mut file = outputs.create(path)?;
            lock(&file)?;
            let (block, sum) = summed("", &format!("{head}\n"));
            file.write_all(block.as_bytes()).map_err(|error| cannot(&error))?;
            outputs.keep()?;
            (file, sum)
        };
        Ok(Self { name, file: Some(file), sum })
    }

    /// Writes lines, each with its end. If that fails, that is said once, and nothing more is written.
    pub(crate) fn append(&mut self, lines: &str) {
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else { return };
        let (block, sum) = summed(&self.sum, lines);
        let written = file.write_all(block.as_bytes());
        if written.is_err() {
            self.file = None;
        }
        out::note(&self.name, written);
        self.sum = sum;
    }
}

/// Lines with the checksum of these and of all above, and that one.
pub(crate) fn summed(before: &str, lines: &str) -> (String, String) {
    let sum = sum_of([before, lines]);
    (format!("{lines}{SUM}{sum}\n"), sum)
}

/// The checksum of a text.
pub(crate) fn sum(text: &str) -> String {
    sum_of([text])
}

fn sum_of<const N: usize>(parts: [&str; N]) -> String {
    let mut hash = hmac_sha256::Hash::new();
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long the text is up to its last checksum, and that checksum.
pub(crate) fn read(
    work: &Work,
    text: &str,
    head: &Value,
    each: &mut dyn FnMut(&str) -> Option<()>,
) -> Result<(u64, String), String> {
    let (what, anew) = (work.name, work.anew());
    let first = text.split_once('\n').map_or(text, |(first, _)| first);
    let found: Value = serde_json::from_str(first).unwrap_or_default();
    let none = || format!("is no state of a {what}, or cut short in its first lines; {anew}");
    if found.get(work.key()).is_none() {
        return Err(none());
    }
    let (mut sum, mut whole, mut start, mut at) = (String::new(), 0, 0, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let begin = at;
        at += line.len();
        let Some(expected) = line.strip_prefix(SUM).and_then(|sum| sum.strip_suffix('\n')) else { continue };
        let lines = &text[start..begin];
        (_, sum) = summed(&sum, lines);
        if sum != expected {
            return Err(format!(
                "was changed or damaged after it was written: the checksum in line {number} does not fit; {anew}"
            ));
        }
        if start == 0 {
            if let Some(difference) = difference(work, &found, head) {
                return Err(format!(
                    "is of another {what}: {difference}; {what} with what it was made with, or give another name"
                ));
            }
        } else if lines.lines().any(|line| each(line).is_none()) {
            return Err(format!("has a line above line {number} that no {what} of dirql's writes; {anew}"));
        }
        (whole, start) = (at, at);
    }
    if whole == 0 { Err(none()) } else { Ok((u64::try_from(whole).unwrap_or(u64::MAX), sum)) }
}

/// What of the work is other than it was, in words. Where files lie does not matter.
fn difference(work: &Work, then: &Value, now: &Value) -> Option<String> {
    let key = work.key();
    let format = |head: &Value| head[&key].clone();
    if format(then) != format(now) {
        return Some(format!("its format is {}, and this dirql's is {}", format(then), work.format));
    }
    ["machine", "bounds"].into_iter().find_map(|part| {
        let (then, now) = (then[part].as_object()?, now[part].as_object()?);
        let keys = now.keys().chain(then.keys());
        let differs = |key: &&String| without_paths(then.get(*key)) != without_paths(now.get(*key));
        let key = keys.into_iter().find(differs)?;
        let value = |part: &serde_json::Map<String, Value>| shown(part.get(key));
        let what = match key.as_str() {
            "dirql" => "version of dirql".to_owned(),
            "inf" => "INF".to_owned(),
            key => key.replace('_', " "),
        };
        Some(format!("{what}: {} then, {} now", value(then), value(now)))
    })
}

/// A value without the names of files, whose contents it has.
fn without_paths(value: Option<&Value>) -> Value {
    match value {
        Some(Value::Array(all)) => all.iter().map(|value| without_paths(Some(value))).collect(),
        Some(Value::Object(all)) => {
            let kept = all.iter().filter(|(key, _)| !["path", "source", "folder"].contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
        }
        None => Value::Null,
        Some(value) => value.clone(),
    }
}

/// A value in a message: of files, how their checksums begin.
fn shown(value: Option<&Value>) -> String {
    const MOST: usize = 40;
    let text = match value {
        None | Some(Value::Null) => return "none".to_owned(),
        Some(Value::Object(file)) if file.contains_key("sha256") => {
            let sum = file["sha256"].as_str().unwrap_or_default();
            return format!("one whose SHA-256 begins with {}", sum.get(..12).unwrap_or(sum));
        }
        Some(Value::Object(script)) if script.contains_key("text") => {
            format!("{:?}", script["text"].as_str().unwrap_or_default())
        }
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => value.to_string(),
    };
    let short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() { format!("{short}…") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Work = Work { name: "search", format: 2 };

    fn of(processors: u32, driver: &str) -> Value {
        let driver = json!({"path": "a.sys", "sha256": driver});
        let machine = json!({"driver": driver, "processors": processors});
        SEARCH.head(&json!({"faults": false}), &machine.to_string())
    }

    #[test]
    fn a_state_of_other_work_is_refused_by_what_differs() {
        let differs = |now: &Value| difference(&SEARCH, &of(2, "0123456789abcdef"), now);
        assert_eq!(differs(&of(2, "0123456789abcdef")), None);
        assert_eq!(differs(&of(3, "0123456789abcdef")).unwrap(), "processors: 2 then, 3 now");
        let other = differs(&of(2, "fedcba9876543210")).unwrap();
        assert!(other.starts_with("driver: one whose SHA-256 begins with 0123456789ab then, "), "{other}");
        let mut elsewhere = of(2, "0123456789abcdef");
        elsewhere["machine"]["driver"]["path"] = "b.sys".into();
        assert_eq!(differs(&elsewhere), None, "the same bytes at another place");
    }
}
