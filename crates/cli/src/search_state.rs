//! `dirql explore --state FILE`: what came of each run of a search, written while it is made, and read where it goes on.
//!
//! The file begins with what the search was made of: a search with anything else does not go on from it. Runs follow, in blocks, each with a checksum of
//! everything above it. A block is written at once; what is behind the last checksum was cut short, and is made again. A search is a function
//! of what came of its runs, so nothing else is kept, and every whole block is a state to go on from:
//!
//! ```text
//! {"dirql_search":2,"bounds":{…},"machine":{…}}     as in a record
//! sha256 0123…cdef
//! places 20001004+10                                where the runs that follow were asked
//! said {"key":"…","text":"…","choices":"…"}         what the next run has said besides
//! made 3=1,7=1 2c2,1f3~0123…cdef 20001030            a run, its questions, their states, and the places that it has taught
//! lost 4=1 "…"                                      a run that ended its process, and why
//! sha256 0123…cdef
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dirql::explore::{Known, Memory, Places, Ran, Remark, Schedule};
use dirql::{Error, InputError};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use crate::out;
use crate::outputs::Outputs;
use crate::remote_runner::{joined, parted};
use crate::said::Said;

/// The host's clock: how often the file is written changes no result.
#[allow(clippy::disallowed_types, reason = "it is read outside any machine")]
type Clock = std::time::Instant;

/// A run is in the file after this time, if more are made.
const PACE: Duration = Duration::from_millis(200);
/// The version of the format.
const FORMAT: u32 = 2;
const SUM: &str = "sha256 ";
const ANEW: &str = "delete it, or give another name, and the search begins anew";

/// The file, while the search is made.
pub(crate) struct SearchState {
    name: String,
    writer: Mutex<Writer>,
}

struct Writer {
    /// None once it cannot be written.
    file: Option<File>,
    /// What is not written yet.
    block: String,
    /// The last checksum.
    sum: String,
    places: Option<Places>,
    written: Clock,
}

/// How often, and after which pauses, a file is asked for that another process has.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What a search is made of, as the file says it.
pub(crate) fn head(bounds: &Value, machine: &str) -> Value {
    let machine: Value = serde_json::from_str(machine).unwrap_or_default();
    json!({"dirql_search": FORMAT, "bounds": bounds, "machine": machine})
}

/// Opens the file at `path`, which is among `outputs`, or makes it: and what came of runs before.
///
/// # Errors
/// [`Error::Input`]: it cannot be read or written, another process is at it, it is of another search, or it is damaged. One message says what to do.
pub(crate) fn open(path: &Path, outputs: &Outputs, head: &Value) -> Result<(SearchState, Memory), Error> {
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
        Err(wrong("another search is writing it; let that one end, or give another name"))
    };
    let (file, sum, memory) = if path.exists() {
        let mut file = File::options().read(true).append(true).open(path).map_err(|error| cannot(&error))?;
        lock(&file)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| cannot(&error))?;
        let text = String::from_utf8_lossy(&bytes);
        let (whole, sum, memory) = read(&text, head).map_err(|what| wrong(&what))?;
        file.set_len(whole).map_err(|error| cannot(&error))?;
        (file, sum, memory)
    } else {
        let mut file = outputs.create(path)?;
        lock(&file)?;
        let (block, sum) = summed("", &format!("{head}\n"));
        file.write_all(block.as_bytes()).map_err(|error| cannot(&error))?;
        outputs.keep()?;
        (file, sum, Memory::default())
    };
    let writer = Writer { file: Some(file), block: String::new(), sum, places: None, written: Clock::now() };
    Ok((SearchState { name, writer: Mutex::new(writer) }, memory))
}

impl SearchState {
    /// This came of a run that was asked in these places.
    pub(crate) fn made(&self, places: &Places, schedule: &Schedule, ran: &Ran<String>, said: &Said) {
        let line = match ran {
            Ran::Usual(questions, taught) => format!("made {schedule} {questions} {taught}\n"),
            Ran::Lost(why) => format!("lost {schedule} {}\n", json!(why)),
            Ran::Wanted(..) | Ran::Refused => return,
        };
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.places.as_ref() != Some(places) {
            writer.block += &format!("places {places}\n");
            writer.places = Some(places.clone());
        }
        for (Remark { key, text }, choices) in said {
            let said = match text {
                Some(text) => json!({"key": key, "text": text, "choices": joined(choices)}),
                None => json!({"key": key}),
            };
            writer.block += &format!("said {said}\n");
        }
        writer.block += &line;
        if writer.written.elapsed() >= PACE {
            self.write(&mut writer);
        }
    }

    /// Writes the rest.
    pub(crate) fn end(&self) {
        self.write(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write(&self, writer: &mut Writer) {
        let lines = std::mem::take(&mut writer.block);
        let Some(file) = writer.file.as_mut().filter(|_| !lines.is_empty()) else { return };
        let (block, sum) = summed(&writer.sum, &lines);
        let written = file.write_all(block.as_bytes());
        if written.is_err() {
            writer.file = None;
        }
        out::note(&self.name, written);
        (writer.sum, writer.written) = (sum, Clock::now());
    }
}

/// Lines with the checksum of these and of all above, and that one.
fn summed(before: &str, lines: &str) -> (String, String) {
    let mut hash = hmac_sha256::Hash::new();
    hash.update(before.as_bytes());
    hash.update(lines.as_bytes());
    let sum: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (format!("{lines}{SUM}{sum}\n"), sum)
}

/// How long the text is up to its last checksum, that checksum, and what it has of runs.
fn read(text: &str, head: &Value) -> Result<(u64, String, Memory), String> {
    let first = text.split_once('\n').map_or(text, |(first, _)| first);
    let found: Value = serde_json::from_str(first).unwrap_or_default();
    let none = || format!("is no state of a search, or cut short in its first lines; {ANEW}");
    if found.get("dirql_search").is_none() {
        return Err(none());
    }
    let (mut sum, mut whole, mut start, mut at) = (String::new(), 0, 0, 0);
    let (mut memory, mut reader) = (Memory::default(), Reader::default());
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let begin = at;
        at += line.len();
        let Some(expected) = line.strip_prefix(SUM).and_then(|sum| sum.strip_suffix('\n')) else { continue };
        let lines = &text[start..begin];
        (_, sum) = summed(&sum, lines);
        if sum != expected {
            return Err(format!(
                "was changed or damaged after it was written: the checksum in line {number} does not fit; {ANEW}"
            ));
        }
        if start == 0 {
            if let Some(what) = difference(&found, head) {
                return Err(format!(
                    "is of another search: {what}; search with what it was made with, or give another name"
                ));
            }
        } else if lines.lines().any(|line| reader.line(line, &mut memory).is_none()) {
            return Err(format!("has a line above line {number} that no search of dirql's writes; {ANEW}"));
        }
        (whole, start) = (at, at);
    }
    if whole == 0 { Err(none()) } else { Ok((u64::try_from(whole).unwrap_or(u64::MAX), sum, memory)) }
}

/// What was read above a line.
#[derive(Default)]
struct Reader {
    places: Places,
    said: Said,
}

impl Reader {
    /// None if it is no such line.
    fn line(&mut self, line: &str, memory: &mut Memory) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "places" => self.places = rest.parse().ok()?,
            "said" => {
                let said: Value = serde_json::from_str(rest).ok()?;
                let key = said["key"].as_str()?.to_owned();
                let text = said["text"].as_str().map(str::to_owned);
                let choices = parted(said["choices"].as_str().unwrap_or_default()).ok()?;
                self.said.push((Remark { key, text }, choices));
            }
            "made" => {
                let [schedule, questions, taught] =
                    rest.splitn(3, ' ').collect::<Vec<_>>().try_into().ok()?;
                let known = Known::Usual(questions.parse().ok()?, taught.parse().ok()?);
                memory.add(&self.places, &schedule.parse().ok()?, known, std::mem::take(&mut self.said));
            }
            "lost" => {
                let (schedule, why) = rest.split_once(' ')?;
                let known = Known::Lost(serde_json::from_str(why).ok()?);
                memory.add(&self.places, &schedule.parse().ok()?, known, std::mem::take(&mut self.said));
            }
            _ => return None,
        }
        Some(())
    }
}

/// What of a search is other than it was, in words. Where files lie does not matter.
fn difference(then: &Value, now: &Value) -> Option<String> {
    let format = |head: &Value| head["dirql_search"].clone();
    if format(then) != format(now) {
        return Some(format!("its format is {}, and this dirql's is {FORMAT}", format(then)));
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

    fn of(processors: u32, driver: &str) -> Value {
        let driver = json!({"path": "a.sys", "sha256": driver});
        head(&json!({"faults": false}), &json!({"driver": driver, "processors": processors}).to_string())
    }

    fn file() -> String {
        let (first, sum) = summed("", &format!("{}\n", of(2, "0123456789abcdef")));
        let (second, _) =
            summed(&sum, "places 10+4\nmade usual 2c2 \nsaid {\"key\":\"k\"}\nlost 0=1 \"it died\"\n");
        first + &second
    }

    fn refused(text: &str) -> String {
        read(text, &of(2, "0123456789abcdef")).err().unwrap()
    }

    #[test]
    fn what_is_written_is_read_up_to_the_last_checksum_wherever_it_was_cut_short() {
        let text = file();
        let (whole, _, memory) = read(&text, &of(2, "0123456789abcdef")).unwrap();
        assert_eq!((whole, memory.len()), (text.len() as u64, 2));
        let head = text[..text.find("places").unwrap()].len();
        for end in head..text.len() {
            let (whole, _, memory) = read(&text[..end], &of(2, "0123456789abcdef")).unwrap();
            assert_eq!((whole, memory.len()), (head as u64, 0), "{end}");
        }
        for end in 0..head {
            assert!(refused(&text[..end]).contains("cut short"), "{end}: {}", refused(&text[..end]));
        }
    }

    #[test]
    fn no_byte_can_be_changed_without_notice() {
        let text = file();
        let whole = text.len() as u64;
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            match read(&changed, &of(2, "0123456789abcdef")) {
                Err(what) => assert!(what.contains("another name"), "{what}"),
                Ok((left, _, memory)) => {
                    assert!(
                        left < whole && memory.is_empty(),
                        "{at}: what is behind the last checksum is left out"
                    );
                }
            }
        }
    }

    #[test]
    fn a_state_of_another_search_is_refused_by_what_differs() {
        let differs = |now: &Value| difference(&of(2, "0123456789abcdef"), now);
        assert_eq!(differs(&of(2, "0123456789abcdef")), None);
        assert_eq!(differs(&of(3, "0123456789abcdef")).unwrap(), "processors: 2 then, 3 now");
        let other = differs(&of(2, "fedcba9876543210")).unwrap();
        assert!(other.starts_with("driver: one whose SHA-256 begins with 0123456789ab then, "), "{other}");
        let mut elsewhere = of(2, "0123456789abcdef");
        elsewhere["machine"]["driver"]["path"] = "b.sys".into();
        assert_eq!(differs(&elsewhere), None, "the same bytes at another place");
    }
}
