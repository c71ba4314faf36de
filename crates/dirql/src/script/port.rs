//! `port`, `bind`, `dequeue`, `post`: completion ports.

use super::ast::{Command, Name};
use super::commands::Arguments;
use super::error::Outcome;
use super::expect::Yields as Can;
use super::names::{Kind, Names};
use super::value::parse_time;

pub(super) fn command(keyword: &str, args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    match keyword {
        "port" => {
            let name = args.word("the port's name")?;
            let threads = if args.take("threads") { count(args)? } else { 0 };
            Ok(Command::Port { name: names.give(&name, Kind::Port)?, threads })
        }
        "bind" => bind(args, names),
        "dequeue" => dequeue(args, names),
        _ => {
            let port = port(args, names)?;
            let key = if args.take("key") { args.number("a key", u64::MAX)? } else { 0 };
            let bytes =
                if args.take("bytes") { args.number("a number of bytes", u32::MAX.into())? } else { 0 };
            Ok(Command::Post { port, key, bytes })
        }
    }
}

fn count(args: &mut Arguments) -> Outcome<u32> {
    let count = args.number("a number of threads", u32::MAX.into())?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

fn port(args: &mut Arguments, names: &Names) -> Outcome<Name> {
    names.find(&args.word("the port's name")?, "port", |kind| kind == Kind::Port).map(|(name, _)| name)
}

fn bind(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let word = args.word("the handle's name")?;
    let (handle, _) = names.handle(&word)?;
    args.keyword("to")?;
    let port = port(args, names)?;
    let key = if args.take("key") { args.number("a key", u64::MAX)? } else { 0 };
    let skip = args.take("skip-on-success");
    let expect = args.expectations(Can::Status, &["key", "skip-on-success"])?;
    Ok(Command::Bind { handle, port, key, skip, expect })
}

fn dequeue(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let port = port(args, names)?;
    if args.take("several") {
        let most = args.number("a number of packets", u32::MAX.into())?;
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let alertable = args.take("alertable");
        let wait = if args.take("timeout") { Some(args.word("how long to wait: 10ms")?) } else { None };
        let timeout = wait.map(|word| parse_time(&word)).transpose()?;
        let expect = args.expectations(Can::Data, &["alertable", "timeout"])?;
        return Ok(Command::DequeueSeveral { port, most, alertable, timeout, expect });
    }
    let (mut request, mut key, mut timeout) = (None, None, None);
    loop {
        if args.take("of") {
            request = Some(names.request(&args.word("the request that it is to be of")?)?);
        } else if args.take("key") {
            key = Some(args.number("the key that it is to have", u64::MAX)?);
        } else if args.take("timeout") {
            timeout = Some(parse_time(&args.word("how long to wait: 10ms")?)?);
        } else {
            break;
        }
    }
    let expect = args.expectations(Can::Bytes, &["several", "of", "key", "timeout"])?;
    Ok(Command::Dequeue { port, request, key, timeout, expect })
}
