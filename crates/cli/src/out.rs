//! What the command prints, and what becomes of it where it cannot be written: a reader that went away (`dirql … | head`) has read
//! enough, and anything else (a full disk, no standard output) is an answer lost: the other stream says so, and the exit code is 3.

use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;
use std::sync::PoisonError;

/// The first thing that went wrong on a stream, in words.
static LOST: Mutex<Option<String>> = Mutex::new(None);

/// Prints a line of the answer.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::bytes(format!("{}\n", format_args!($($text)*)).as_bytes()) };
}

/// Prints a line about the command itself.
macro_rules! complain {
    ($($text:tt)*) => { $crate::out::errors(format!("{}\n", format_args!($($text)*)).as_bytes()) };
}

pub(crate) use {complain, say};

/// To standard output.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout();
    note("standard output", out.write_all(bytes).and_then(|()| out.flush()));
}

/// To standard error.
pub(crate) fn errors(bytes: &[u8]) {
    note("standard error", io::stderr().write_all(bytes));
}

/// Notes what became of writing to `stream`.
pub(crate) fn note(stream: &str, written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let text = format!("{stream} cannot be written ({error}): what should stand there is lost");
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }
}

/// Whether something was lost: if so, a message says why, where one can be written.
pub(crate) fn is_lost() -> bool {
    let lost = LOST.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(why) = lost else { return false };
    let text = format!("dirql: {why}\n");
    let mut streams: [&mut dyn Write; 2] = [&mut io::stderr(), &mut io::stdout()];
    if why.starts_with("standard error") {
        streams.reverse();
    }
    // Where neither stream takes it, the exit code remains.
    let _ = streams
        .into_iter()
        .find_map(|stream| stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).ok());
    true
}
