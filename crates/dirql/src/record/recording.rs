//! A record while it is written: choices and events as they come, so that the lines stand in the order of what happened.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;

use explore::{Chooser, Recorder};
use kernel::event::{Event, Kind, Reader, Stamp};

use super::header::{Header, hex};
use super::line::{End, Line, Rolling};
use crate::bench::Bench;
use crate::error::InputError;
use crate::play::ScriptText;
use crate::report::Report;

/// A record in progress. A clone is the same.
#[derive(Clone)]
pub struct Recording(Rc<RefCell<Writer>>);

struct Writer {
    out: Box<dyn Write>,
    checksum: hmac_sha256::Hash,
    rolling: Rolling,
    choices: u64,
    /// The first thing that went wrong with `out`; nothing is written after it.
    trouble: Option<io::Error>,
}

impl Writer {
    fn line(&mut self, text: &str) {
        if self.trouble.is_some() {
            return;
        }
        self.checksum.update(text.as_bytes());
        self.checksum.update(b"\n");
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.write_all(b"\n"));
        self.trouble = written.err();
    }
}

impl Recording {
    /// The header that [`Recording::start`] would write: for finding out what cannot be recorded before a file is made.
    ///
    /// # Errors
    /// As [`Recording::start`].
    pub fn prepare(bench: &Bench, policy: &str, script: Option<&ScriptText>) -> Result<String, InputError> {
        let header = Header::new(bench, policy, script)?;
        serde_json::to_string(&header)
            .map_err(|error| InputError::new(format!("the record's header cannot be written: {error}")))
    }

    /// The files that the machine to be is made of, and its script names: none of them is to be written over.
    ///
    /// # Errors
    /// As [`Recording::start`].
    pub fn inputs(
        bench: &Bench,
        policy: &str,
        script: Option<&ScriptText>,
    ) -> Result<Vec<PathBuf>, InputError> {
        let header = Header::new(bench, policy, script)?;
        let images = [&header.driver].into_iter().chain(&header.with).map(|file| PathBuf::from(&file.path));
        let books = images.clone().map(|path| path.with_extension("pdb"));
        let others = header
            .inf
            .iter()
            .chain(&header.other_infs)
            .chain(&header.folder)
            .chain(&header.files)
            .map(|file| PathBuf::from(&file.path));
        let others = others.chain(header.registry.iter().map(|file| PathBuf::from(&file.path)));
        let script = script.map(|script| PathBuf::from(&script.source));
        Ok(images.chain(books).chain(others).chain(script).collect())
    }

    /// Lets `bench` be run by `policy` (`name` is what people call it), recorded to `out`. `script` is what will be carried
    /// out. Call it last: what the bench is given afterwards is not in the record.
    ///
    /// # Errors
    /// Something given cannot be used, or cannot be recorded (a card made by a program).
    pub fn start(
        bench: Bench,
        policy: Box<dyn Chooser>,
        name: &str,
        script: Option<&ScriptText>,
        out: impl Write + 'static,
    ) -> Result<(Bench, Self), InputError> {
        let header = Self::prepare(&bench, name, script)?;
        let recording = Self(Rc::new(RefCell::new(Writer {
            out: Box::new(out),
            checksum: hmac_sha256::Hash::new(),
            rolling: Rolling::default(),
            choices: 0,
            trouble: None,
        })));
        recording.0.borrow_mut().line(&header);
        let log = recording.clone();
        let recorder = Recorder::new(policy, move |choice| {
            let mut writer = log.0.borrow_mut();
            writer.choices += 1;
            writer.line(&Line::Choice(choice).to_string());
        });
        Ok((bench.chooser(recorder).reader(recording.clone()), recording))
    }

    /// Writes the end. The machine must be finished.
    ///
    /// # Errors
    /// The record could not be written.
    pub fn finish(self, report: &Report) -> io::Result<()> {
        let mut writer = self.0.borrow_mut();
        let end = End::new(report, writer.rolling, writer.choices);
        writer.line(&Line::End(end).to_string());
        let checksum = hex(&writer.checksum.finalize());
        writer.line(&format!("sha256 {checksum}"));
        match writer.trouble.take() {
            Some(trouble) => Err(trouble),
            None => writer.out.flush(),
        }
    }
}

impl Reader for Recording {
    fn wants(&self, _kind: Kind) -> bool {
        true
    }

    fn reads_names(&self) -> bool {
        false
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let mut writer = self.0.borrow_mut();
        let mark = writer.rolling.take(stamp, event);
        writer.line(&Line::Event(mark).to_string());
        if let Some(state) = writer.rolling.due() {
            writer.line(&state.to_string());
            // A run that is killed leaves at least this much behind.
            let flushed = writer.out.flush();
            if writer.trouble.is_none() {
                writer.trouble = flushed.err();
            }
        }
    }
}
