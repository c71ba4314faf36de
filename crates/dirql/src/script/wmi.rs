//! `wmi`: an administrator's program asks the blocks of data that drivers offer by WMI.

use super::MAX_TRANSFER;
use super::ast::{Command, Wmi, WmiInstance, WmiQuestion};
use super::commands::Arguments;
use super::error::{Outcome, fault, unknown};
use super::expect::Yields;
use super::names::Names;
use super::value::parse_guid;

const QUESTIONS: [&str; 7] = ["blocks", "query", "set", "execute", "enable", "disable", "event"];

/// Reads what comes behind `wmi`.
pub(super) fn wmi(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let word = args.word("what is asked: blocks, query, set, execute, enable, disable or event")?;
    let asked = word.text();
    if !QUESTIONS.contains(&&*asked) {
        return fault(word.at, unknown("question to a block", &asked, QUESTIONS));
    }
    if asked == "blocks" {
        return Ok(Command::WmiBlocks);
    }
    let block = args.word("the block: block:{GUID}")?;
    let guid = match block.bare.strip_prefix("block:") {
        Some(guid) if block.quoted.is_none() => parse_guid(&block, guid)?,
        _ => return fault(block.at, format!("`{}` is no block; write block:{{GUID}}", block.text())),
    };
    let is_about_data = matches!(&*asked, "query" | "set" | "execute");
    let instance = if is_about_data { instance(args, &asked)? } else { WmiInstance::All };
    let mut known: &[&str] = &[];
    let question = match &*asked {
        "query" => {
            known = &["instance", "name"];
            WmiQuestion::Query
        }
        "set" => {
            let item = if args.take("item") { Some(number(args, "the item's number")?) } else { None };
            WmiQuestion::Set { item, data: args.exact_data(names)? }
        }
        "execute" => {
            known = &["in", "out"];
            args.keyword("method")?;
            let method = number(args, "the method's number")?;
            let input = if args.take("in") { Some(args.exact_data(names)?) } else { None };
            let output = if args.take("out") { length(args)? } else { 0 };
            WmiQuestion::Execute { method, input, output }
        }
        "enable" => WmiQuestion::Enable,
        "disable" => WmiQuestion::Disable,
        _ => WmiQuestion::Event,
    };
    let yields = yields(&question);
    let expect = args.expectations(yields, known)?;
    Ok(Command::Wmi(Wmi { guid, instance, question, expect }))
}

/// What comes of a question.
pub(super) const fn yields(question: &WmiQuestion) -> Yields {
    match question {
        WmiQuestion::Query | WmiQuestion::Execute { .. } | WmiQuestion::Event => Yields::Data,
        WmiQuestion::Set { .. } | WmiQuestion::Enable | WmiQuestion::Disable => Yields::Status,
    }
}

/// `instance N` or `name "…"`; without, all of a `query`, and else the first.
fn instance(args: &mut Arguments, asked: &str) -> Outcome<WmiInstance> {
    if args.take("instance") {
        return number(args, "the instance's place, from 0").map(WmiInstance::Place);
    }
    if args.take("name") {
        return Ok(WmiInstance::Name(args.word("the instance's name")?.name()));
    }
    Ok(if asked == "query" { WmiInstance::All } else { WmiInstance::Place(0) })
}

fn number(args: &mut Arguments, what: &str) -> Outcome<u32> {
    let number = args.number(what, u32::MAX.into())?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

fn length(args: &mut Arguments) -> Outcome<u32> {
    let length = args.number("the output's size", MAX_TRANSFER.into())?;
    Ok(u32::try_from(length).unwrap_or(MAX_TRANSFER))
}
