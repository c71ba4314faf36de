//! `expect CLAUSE and CLAUSE …`: what is to come of a command.

use super::ast::{Expectations, ExpectedData, ExpectedStatus};
use super::commands::Arguments;
use super::data::is_data;
use super::error::{Outcome, fault, unknown};
use super::lexer::Word;
use super::status::parse_status;

/// Which expectations a command can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Yields {
    /// It yields a status only.
    Status,
    /// It yields a status and a number of bytes.
    Bytes,
    /// It yields a status and bytes.
    Data,
}

const CLAUSES: [&str; 6] = ["status", "success", "failure", "bytes", "data", "prefix"];

/// Reads the clauses after `expect` and adds them to what was expected already.
pub(super) fn clauses(args: &mut Arguments, can: Yields, expect: &mut Expectations) -> Outcome<()> {
    loop {
        let word = args.word("what to expect: a status, `bytes N`, `data hex:…`")?;
        clause(&word, args, can, expect)?;
        if args.is_at_end() {
            return Ok(());
        }
        args.keyword("and")?;
    }
}

fn clause(word: &Word, args: &mut Arguments, can: Yields, expect: &mut Expectations) -> Outcome<()> {
    if is_data(word) {
        args.back();
        return data(word, args, false, can, expect);
    }
    match word.plain() {
        Some("success") => status(word, ExpectedStatus::Success, expect),
        Some("failure") => status(word, ExpectedStatus::Failure, expect),
        Some("status") => {
            let name = args.word("a status: its name (STATUS_CANCELLED) or number")?;
            status(word, ExpectedStatus::Exactly(parse_status(&name)?), expect)
        }
        Some(name) if name.starts_with("STATUS_") => {
            status(word, ExpectedStatus::Exactly(parse_status(word)?), expect)
        }
        Some("bytes") => {
            allowed(word, can >= Yields::Bytes, "a number of bytes")?;
            once(word, expect.bytes.is_some())?;
            expect.bytes = Some(args.number("a number of bytes", u64::MAX)?);
            Ok(())
        }
        Some("data") => data(word, args, false, can, expect),
        Some("prefix") => data(word, args, true, can, expect),
        Some("print" | "pending") => {
            fault(word.at, format!("`expect {}` is a command of its own: put it on its own line", word.bare))
        }
        _ => fault(word.at, unknown("expectation", &word.text(), CLAUSES)),
    }
}

fn status(word: &Word, wanted: ExpectedStatus, expect: &mut Expectations) -> Outcome<()> {
    once(word, expect.status != ExpectedStatus::Success)?;
    expect.status = wanted;
    Ok(())
}

fn data(
    word: &Word,
    args: &mut Arguments,
    prefix: bool,
    can: Yields,
    expect: &mut Expectations,
) -> Outcome<()> {
    allowed(word, can >= Yields::Data, "bytes that come in")?;
    once(word, expect.data.is_some())?;
    expect.data = Some(ExpectedData { data: args.data()?, prefix });
    Ok(())
}

fn allowed(word: &Word, is: bool, what: &str) -> Outcome<()> {
    if is { Ok(()) } else { fault(word.at, format!("this command does not yield {what}")) }
}

fn once(word: &Word, said: bool) -> Outcome<()> {
    if said {
        return fault(word.at, format!("`{}` says again what is expected already; leave one", word.text()));
    }
    Ok(())
}
