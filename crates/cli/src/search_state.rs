//! `dirql explore --state FILE`: what came of each run of a search, written while it is made, and read where it goes on.
//!
//! The file is a [`StateFile`], and what stands in its blocks is runs. A search is a function
//! of what came of its runs, so nothing else is kept, and every whole block is a state to go on from:
//!
//! ```text
//! places 20001004+10                                where the runs that follow were asked
//! said {"key":"…","text":"…","choices":"…"}         what the next run has said besides
//! made 3=1,7=1 2c2,1f3~0123…cdef 20001030            a run, its questions, their states, and the places that it has taught
//! lost 4=1 "…"                                      a run that ended its process, and why
//! ```

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dirql::Error;
use dirql::explore::{Known, Memory, Places, Ran, Remark, Schedule};
use serde_json::{Value, json};

use crate::outputs::Outputs;
use crate::remote_runner::{joined, parted};
use crate::said::Said;
use crate::state_file::{StateFile, Work};

/// The host's clock: how often the file is written changes no result.
#[allow(clippy::disallowed_types, reason = "it is read outside any machine")]
type Clock = std::time::Instant;

/// A run is in the file after this time, if more are made.
const PACE: Duration = Duration::from_millis(200);
const SEARCH: Work = Work { name: "search", format: 2 };

/// The file, while the search is made.
pub(crate) struct SearchState(Mutex<Writer>);

struct Writer {
    file: StateFile,
    /// What is not written yet.
    block: String,
    places: Option<Places>,
    written: Clock,
}

/// What a search is made of, as the file says it.
pub(crate) fn head(bounds: &Value, machine: &str) -> Value {
    SEARCH.head(bounds, machine)
}

/// Opens the file at `path`, which is among `outputs`, or makes it: and what came of runs before.
///
/// # Errors
/// As [`StateFile::open`].
pub(crate) fn open(path: &Path, outputs: &Outputs, head: &Value) -> Result<(SearchState, Memory), Error> {
    let (mut memory, mut reader) = (Memory::default(), Reader::default());
    let file = StateFile::open(&SEARCH, path, outputs, head, &mut |line| reader.line(line, &mut memory))?;
    let writer = Writer { file, block: String::new(), places: None, written: Clock::now() };
    Ok((SearchState(Mutex::new(writer)), memory))
}

impl SearchState {
    /// This came of a run that was asked in these places.
    pub(crate) fn made(&self, places: &Places, schedule: &Schedule, ran: &Ran<String>, said: &Said) {
        let line = match ran {
            Ran::Usual(questions, taught) => format!("made {schedule} {questions} {taught}\n"),
            Ran::Lost(why) => format!("lost {schedule} {}\n", json!(why)),
            Ran::Wanted(..) | Ran::Refused => return,
        };
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            writer.write();
        }
    }

    /// Writes the rest.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write();
    }
}

impl Writer {
    fn write(&mut self) {
        self.file.append(&std::mem::take(&mut self.block));
        self.written = Clock::now();
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_file::{self, summed};

    /// What is whole of a text, and how many runs it has.
    fn read(text: &str, head: &Value) -> Result<(u64, usize), String> {
        let (mut memory, mut reader) = (Memory::default(), Reader::default());
        let (whole, _) = state_file::read(&SEARCH, text, head, &mut |line| reader.line(line, &mut memory))?;
        Ok((whole, memory.len()))
    }

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
        let (whole, runs) = read(&text, &of(2, "0123456789abcdef")).unwrap();
        assert_eq!((whole, runs), (text.len() as u64, 2));
        let head = text[..text.find("places").unwrap()].len();
        for end in head..text.len() {
            let (whole, runs) = read(&text[..end], &of(2, "0123456789abcdef")).unwrap();
            assert_eq!((whole, runs), (head as u64, 0), "{end}");
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
                Ok((left, runs)) => {
                    assert!(left < whole && runs == 0, "{at}: what is behind the last checksum is left out");
                }
            }
        }
    }
}
