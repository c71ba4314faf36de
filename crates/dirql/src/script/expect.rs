//! `expect CLAUSE and CLAUSE …`: what is to come of a command.

use super::ast::{Expectations, ExpectedData, ExpectedStatus};
use super::commands::Arguments;
use super::data::is_data;
use super::error::{Outcome, fault, unknown};
use super::lexer::Word;
use super::status::parse_status;
use super::value::parse_time;

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

const CLAUSES: [&str; 8] = ["status", "success", "failure", "any", "bytes", "data", "prefix", "within"];

/// What is missing where a status belongs.
const A_STATUS: &str = "a status: its name (STATUS_CANCELLED) or number";

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
    if let Some(first) = one_status(word, args)? {
        let mut several = vec![first];
        while args.take("or") {
            let word = args.word(A_STATUS)?;
            match one_status(&word, args)? {
                Some(other) => several.push(other),
                None => {
                    return fault(word.at, format!("`{}` is no status; after `or` comes one", word.text()));
                }
            }
        }
        once(word, expect.status != ExpectedStatus::Success)?;
        expect.status = match <[ExpectedStatus; 1]>::try_from(several) {
            Ok([only]) => only,
            Err(several) => ExpectedStatus::OneOf(several),
        };
        return Ok(());
    }
    match word.plain() {
        Some("bytes") => {
            allowed(word, can >= Yields::Bytes, "a number of bytes")?;
            once(word, expect.bytes.is_some())?;
            expect.bytes = Some(args.number("a number of bytes", u64::MAX)?);
            Ok(())
        }
        Some("data") => data(word, args, false, can, expect),
        Some("prefix") => data(word, args, true, can, expect),
        Some("within") => {
            once(word, expect.within.is_some())?;
            expect.within = Some(parse_time(&args.word("a time: 10s")?)?);
            Ok(())
        }
        Some("print" | "pending") => {
            fault(word.at, format!("`expect {}` is a command of its own: put it on its own line", word.bare))
        }
        _ => fault(word.at, unknown("expectation", &word.text(), CLAUSES)),
    }
}

/// The status that `word` begins, if it begins one.
fn one_status(word: &Word, args: &mut Arguments) -> Outcome<Option<ExpectedStatus>> {
    Ok(Some(match word.plain() {
        Some("success") => ExpectedStatus::Success,
        Some("failure") => ExpectedStatus::Failure,
        Some("any") => ExpectedStatus::Any,
        Some("status") => ExpectedStatus::Exactly(parse_status(&args.word(A_STATUS)?)?),
        Some(name) if name.starts_with("STATUS_") => ExpectedStatus::Exactly(parse_status(word)?),
        _ => return Ok(None),
    }))
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
    expect.data = Some(ExpectedData { data: args.data(None)?, prefix });
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
