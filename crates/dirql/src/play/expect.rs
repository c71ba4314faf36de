//! What was expected of a command against what came of it, in words if they differ.

use super::carry::Outcome;
use super::check::Play;
use crate::machine::Completion;
use crate::readers::status_text;
use crate::script::{Expectations, ExpectedData, ExpectedStatus};

/// Bytes that a message shows.
const SHOWN: usize = 32;

/// Holds what came against what was expected.
pub(super) fn judge(play: &Play, end: &Completion, expect: &Expectations) -> Outcome {
    status(end.status, &expect.status)?;
    if let Some(bytes) = expect.bytes
        && bytes != end.information
    {
        return Err(format!("expected {bytes} bytes to be transferred, saw {}", end.information));
    }
    match &expect.data {
        Some(expected) => data(play, &end.data, expected),
        None => Ok(()),
    }
}

/// Holds a status against the expected one.
pub(super) fn status(seen: u32, expected: &ExpectedStatus) -> Outcome {
    if expected.admits(seen) {
        return Ok(());
    }
    Err(format!("expected {}, saw {}", wanted(expected), status_text(seen)))
}

fn wanted(expected: &ExpectedStatus) -> String {
    match expected {
        ExpectedStatus::Success => "success".into(),
        ExpectedStatus::Failure => "failure".into(),
        ExpectedStatus::Exactly(status) => status_text(*status),
        ExpectedStatus::Any => "any status".into(),
        ExpectedStatus::OneOf(several) => several.iter().map(wanted).collect::<Vec<_>>().join(" or "),
    }
}

fn data(play: &Play, seen: &[u8], expected: &ExpectedData) -> Outcome {
    let wanted = play.bytes(&expected.data, |_, _| 0);
    let prefix = if expected.prefix { "a prefix of " } else { "" };
    let differs = wanted.iter().zip(seen).position(|(wanted, seen)| wanted.is_some_and(|byte| byte != *seen));
    let tell = |why: String| {
        let wanted_text = hex(&wanted);
        let seen: Vec<Option<u8>> = seen.iter().copied().map(Some).collect();
        Err(format!("expected {prefix}hex:{wanted_text}, saw hex:{}; {why}", hex(&seen)))
    };
    if let Some(at) = differs {
        return tell(format!("byte {at} differs"));
    }
    if seen.len() < wanted.len() || (!expected.prefix && seen.len() > wanted.len()) {
        return tell(format!("{} bytes came, {} were expected", seen.len(), wanted.len()));
    }
    Ok(())
}

fn hex(bytes: &[Option<u8>]) -> String {
    let shown = bytes.iter().take(SHOWN);
    let text: String = shown.map(|byte| byte.map_or("??".to_owned(), |byte| format!("{byte:02x}"))).collect();
    if bytes.len() > SHOWN { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::script::{Command, parse};

    /// What a command's expectation says of an end.
    fn judged(command: &str, end: &Completion) -> Outcome {
        let script = parse("test", &format!("open \\\\.\\X as x; {command}")).unwrap();
        let play = Play::new(script, Path::new("")).unwrap();
        let Command::Request { expect, .. } = play.script.statements[1].command.clone() else { panic!() };
        judge(&play, end, &expect)
    }

    fn end(status: u32, data: &[u8]) -> Completion {
        Completion { status, information: data.len() as u64, data: data.to_vec() }
    }

    #[test]
    fn a_request_is_expected_to_succeed_unless_it_says_otherwise() {
        assert_eq!(judged("read x 4", &end(0, &[])), Ok(()));
        assert_eq!(
            judged("read x 4", &end(0xC000_0120, &[])),
            Err("expected success, saw STATUS_CANCELLED".into())
        );
        assert_eq!(judged("read x 4 expect STATUS_CANCELLED", &end(0xC000_0120, &[])), Ok(()));
        assert_eq!(
            judged("read x 4 expect failure", &end(0, &[])),
            Err("expected failure, saw STATUS_SUCCESS".into())
        );
        let either = "read x 4 expect success or STATUS_CANCELLED";
        assert_eq!(judged(either, &end(0, &[])), Ok(()));
        assert_eq!(judged(either, &end(0xC000_0120, &[])), Ok(()));
        assert_eq!(
            judged(either, &end(0xC000_00B5, &[])),
            Err("expected success or STATUS_CANCELLED, saw STATUS_IO_TIMEOUT".into())
        );
        assert_eq!(judged("read x 4 expect any", &end(0xC000_0120, &[])), Ok(()));
        assert!(
            judged("read x 4 expect STATUS_CANCELLED", &end(0xC000_00B5, &[]))
                .unwrap_err()
                .contains("saw STATUS_IO_TIMEOUT")
        );
    }

    #[test]
    fn bytes_that_differ_are_shown_with_the_place() {
        assert_eq!(judged("read x 4 expect hex:3c??", &end(0, &[0x3c, 7])), Ok(()));
        assert_eq!(
            judged("read x 4 expect hex:3c??01", &end(0, &[0x3c, 7, 2])),
            Err("expected hex:3c??01, saw hex:3c0702; byte 2 differs".into())
        );
        assert_eq!(judged("read x 4 expect prefix hex:3c", &end(0, &[0x3c, 7])), Ok(()));
        assert_eq!(
            judged("read x 4 expect hex:3c", &end(0, &[0x3c, 7])),
            Err("expected hex:3c, saw hex:3c07; 2 bytes came, 1 were expected".into())
        );
        assert_eq!(
            judged("read x 4 expect bytes 4", &end(0, &[1])),
            Err("expected 4 bytes to be transferred, saw 1".into())
        );
    }
}
