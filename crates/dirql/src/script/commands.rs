//! Each command of a script: its words to its meaning.

use kernel::po::setting;

use super::MAX_TRANSFER;
use super::ast::{
    Access, Cancel, Cards, Command, Counters, Demand, Expectations, Name, Open, Operation, Path, PnpEvent,
    Position, PowerState, Request, SpecialFile, User, Waitable,
};
use super::data::{Data, Pieces};
use super::error::{Outcome, fault, unknown};
use super::expect::{self, Yields as Can};
use super::lexer::Word;
use super::names::{Kind, Names, checked};
use super::status::parse_status;
use super::value::{parse_control_code, parse_guid, parse_number, parse_time};
use super::{port, registry, wmi};

/// What `wait` may be for, besides a time.
const LIMIT: &str = "limit";
const POWER_DOWN: &str = "power-down";

/// What a line may begin with.
pub(super) const COMMANDS: [&str; 74] = [
    "open",
    "read",
    "write",
    "read-scatter",
    "write-gather",
    "ioctl",
    "flush",
    "query",
    "set",
    "async",
    "pointer",
    "number",
    "memory",
    "unmap",
    "load",
    "store",
    "join",
    "must-end",
    "must-recover",
    "must-succeed",
    "must-answer",
    "must-last",
    "must-be",
    "must-differ",
    "cancel",
    "apc",
    "terminate",
    "duplicate",
    "port",
    "bind",
    "dequeue",
    "post",
    "close",
    "inherit",
    "process",
    "exit",
    "open-process",
    "load-image",
    "unload",
    "open-key",
    "create-key",
    "set-value",
    "query-value",
    "delete-value",
    "delete-key",
    "wait",
    "clock",
    "cards",
    "poke",
    "peek",
    "pool",
    "tree",
    "counters",
    "thread",
    "expect",
    "start-device",
    "stop-device",
    "query-stop",
    "cancel-stop",
    "remove-device",
    "query-remove",
    "cancel-remove",
    "surprise-remove",
    "eject-device",
    "lock-device",
    "unlock-device",
    "ask-bus",
    "interface-arrives",
    "interface-leaves",
    "usage",
    "power",
    "tolerate",
    "user",
    "wmi",
];

/// The words after a command.
pub(super) struct Arguments<'a> {
    words: &'a [Word<'a>],
    next: usize,
    /// Where the line ends, for what is missing there.
    end: Position,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(words: &'a [Word<'a>], end: Position) -> Self {
        Self { words, next: 0, end }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.next == self.words.len()
    }

    pub(super) fn word(&mut self, what: &str) -> Outcome<Word<'a>> {
        match self.words.get(self.next) {
            Some(word) => {
                self.next += 1;
                Ok(*word)
            }
            None => fault(self.end, format!("the line ends too early; here comes {what}")),
        }
    }

    /// Gives the last word back.
    pub(super) fn back(&mut self) {
        self.next -= 1;
    }

    /// Takes the next word if it is this one.
    pub(super) fn take(&mut self, keyword: &str) -> bool {
        let is = self.words.get(self.next).is_some_and(|word| word.is(keyword));
        self.next += usize::from(is);
        is
    }

    pub(super) fn keyword(&mut self, keyword: &str) -> Outcome<()> {
        if self.take(keyword) {
            return Ok(());
        }
        let word = self.word(&format!("`{keyword}`"))?;
        fault(word.at, format!("`{}` stands where `{keyword}` belongs", word.text()))
    }

    /// A number up to `most`.
    pub(super) fn number(&mut self, what: &str, most: u64) -> Outcome<u64> {
        let word = self.word(what)?;
        let written = word.text();
        match parse_number(&written) {
            Some(number) if number <= most => Ok(number),
            Some(_) => fault(word.at, format!("{written} is too much for {what}: at most {most}")),
            None => fault(
                word.at,
                format!("`{written}` stands where {what} belongs; write it in decimal or as 0x…"),
            ),
        }
    }

    /// Which of a driver's time limits.
    fn limit(&mut self) -> Outcome<u32> {
        let limit = self.number("the time limit, counted from 1 on", u64::from(u32::MAX))?;
        Ok(u32::try_from(limit.max(1)).unwrap_or(u32::MAX))
    }

    fn length(&mut self, what: &str) -> Outcome<u32> {
        let length = self.number(what, u64::from(MAX_TRANSFER))?;
        Ok(u32::try_from(length).unwrap_or(MAX_TRANSFER))
    }

    /// How long an application says that memory is.
    fn claimed(&mut self) -> Outcome<u32> {
        let length = self.number("a number of bytes", u64::from(u32::MAX))?;
        Ok(u32::try_from(length).unwrap_or(u32::MAX))
    }

    pub(super) fn data(&mut self, names: Option<&Names>) -> Outcome<Data> {
        let mut pieces = Pieces::default();
        loop {
            pieces.add(&self.word("bytes: hex:3c00, text:\"…\", file:PATH")?, names)?;
            if !self.take("+") {
                return Ok(pieces.finish());
            }
        }
    }

    /// Bytes of which each is known.
    pub(super) fn exact_data(&mut self, names: &Names) -> Outcome<Data> {
        let at = self.words.get(self.next).map_or(self.end, |word| word.at);
        let data = self.data(Some(names))?;
        if data.has_wildcards() {
            return fault(at, "`??` is for bytes that are expected; these are sent, so say what they are");
        }
        Ok(data)
    }

    /// `expect …` or the end of the line; `known` are the words that could have stood here instead.
    pub(super) fn expectations(&mut self, can: Can, known: &[&str]) -> Outcome<Expectations> {
        let mut expect = Expectations::default();
        if self.is_at_end() {
            return Ok(expect);
        }
        let word = self.word("`expect`")?;
        if word.plain() != Some("expect") {
            let words = known.iter().copied().chain(["expect"]).collect::<Vec<_>>();
            return fault(word.at, unknown("further word", &word.text(), words));
        }
        expect::clauses(self, can, &mut expect)?;
        Ok(expect)
    }

    pub(super) fn finish(&self) -> Outcome<()> {
        match self.words.get(self.next) {
            None => Ok(()),
            Some(word) => {
                fault(word.at, format!("`{}` is too much; the command has ended before it", word.text()))
            }
        }
    }
}

/// Reads the command that `first` begins (`thread` and `expect` are the parser's).
pub(super) fn command(first: &Word, args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    let keyword = first.text();
    let command = match &*keyword {
        "open" => open(args, names)?,
        "read" | "write" | "read-scatter" | "write-gather" | "ioctl" | "flush" | "query" | "set" => {
            let (request, can, known, _) = request(&keyword, args, names)?;
            Command::Request { request, expect: args.expectations(can, known)? }
        }
        "async" => asynchronous(args, names)?,
        "pointer" | "number" => answered(&keyword, args, names)?,
        "memory" => {
            let name = args.word("the memory's name")?;
            if args.take("at") {
                let address = args.number("an address", u64::MAX)?;
                let length = args.claimed()?;
                Command::MemoryAt { name: names.give(&name, Kind::Memory)?, address, length }
            } else if args.take("of") {
                let of = memory(args, names)?;
                let length = args.claimed()?;
                let offset =
                    if args.take("at") { args.number("an offset in bytes", u64::from(u32::MAX))? } else { 0 };
                Command::MemoryOf { name: names.give(&name, Kind::Memory)?, of, offset, length }
            } else {
                let data = args.exact_data(names)?;
                let read_only = args.take("read-only");
                Command::Memory { name: names.give(&name, Kind::Memory)?, data, read_only }
            }
        }
        "unmap" => {
            let name = memory(args, names)?;
            names.end(&name, first.at);
            Command::Unmap(name)
        }
        "load" => {
            let (pointer, _) = names.find(&args.word("the pointer")?, "pointer", Kind::is_pointer)?;
            let length = args.length("a number of bytes")?;
            let offset = offset(args)?.unwrap_or(0);
            Command::Load { pointer, offset, length, expect: args.expectations(Can::Data, &["at"])? }
        }
        "store" => {
            let (pointer, _) = names.find(&args.word("the pointer")?, "pointer", Kind::is_pointer)?;
            let data = args.exact_data(names)?;
            let offset = offset(args)?.unwrap_or(0);
            Command::Store { pointer, offset, data, expect: args.expectations(Can::Status, &["at"])? }
        }
        "join" => join(first, args, names)?,
        "must-end" => must_end(args, names, Demand::End)?,
        "must-recover" => must_end(args, names, Demand::Recover)?,
        "must-succeed" => must_end(args, names, Demand::Succeed)?,
        "must-answer" => must_answer(args, names)?,
        "must-last" => must_last(args, names)?,
        "must-be" => must_be(args, names)?,
        "must-differ" => must_differ(args, names)?,
        "cancel" => cancel(args, names)?,
        "apc" => Command::UserApc(thread(args, names)?),
        "terminate" => Command::Terminate(thread(args, names)?),
        "duplicate" => {
            let (handle, kind) =
                names.find(&args.word("the handle to duplicate")?, "handle", Kind::is_handle)?;
            args.keyword("as")?;
            let name = names.give(&args.word("the new handle's name")?, kind)?;
            Command::Duplicate { handle, name }
        }
        "close" => {
            let closes = |kind: Kind| kind.is_handle() || kind == Kind::Port;
            let word = args.word("the handle to close")?;
            if let Some(event) = word.bare.strip_prefix("event:") {
                Command::CloseEvent(checked(&Word { bare: event, ..word })?)
            } else {
                let (handle, _) = names.find(&word, "handle", closes)?;
                names.end(&handle, first.at);
                Command::Close { handle }
            }
        }
        "inherit" => {
            let (handle, _) = names.handle(&args.word("the handle that is to be inherited")?)?;
            Command::Inherit { handle, inherits: !args.take("off") }
        }
        "process" => process(first, args, names)?,
        "exit" => {
            let name = names.process(&args.word("the process")?)?;
            names.end(&name, first.at);
            Command::Exit(name)
        }
        "open-process" => open_process(args, names)?,
        "unload" => Command::Unload { expect: args.expectations(Can::Status, &[])? },
        "load-image" => Command::LoadImage(args.word("the image's path: C:\\\\a.dll")?.name()),
        "open-key" | "create-key" | "set-value" | "query-value" | "delete-value" | "delete-key" => {
            registry::command(&keyword, args, names)?
        }
        "port" | "bind" | "dequeue" | "post" => port::command(&keyword, args, names)?,
        "wait" => {
            let time = args.word("how long to wait: 10ms, `limit` or `power-down`")?;
            match &*time.text() {
                LIMIT => Command::WaitForLimit,
                POWER_DOWN => Command::WaitForPowerDown,
                _ => Command::Wait { nanoseconds: parse_time(&time)? },
            }
        }
        "clock" => Command::Clock { units: clock(args)? },
        "cards" => Command::Cards(cards(args)?),
        "poke" => Command::Poke {
            device: args.word("the device: its model and number, as pci9052#0")?.text().into_owned(),
            signal: args.word("the signal: linti1")?.text().into_owned(),
            value: args.number("the signal's value", u64::MAX)?,
        },
        "peek" => Command::Peek {
            device: args.word("the device: its model and number, as pci#0")?.text().into_owned(),
            register: args.word("the register: bar0+4c")?.text().into_owned(),
            expect: args.expectations(Can::Data, &[])?,
        },
        "pool" => Command::Pool { tag: tag(args)?, expect: args.expectations(Can::Data, &[])? },
        "tree" => Command::Tree,
        "tolerate" => {
            names.tolerate();
            Command::Tolerate
        }
        "counters" => Command::Counters(counters(args)?),
        "power" => power(args)?,
        "usage" => usage(args)?,
        "interface-arrives" => Command::Interface { class: interface_class(args)?, arrives: true },
        "interface-leaves" => Command::Interface { class: interface_class(args)?, arrives: false },
        "user" => Command::User(user(args)?),
        "wmi" => wmi::wmi(args, names)?,
        _ => match pnp_event(&keyword) {
            Some(mut event) => {
                let device = device(args);
                let mut known: &[&str] = &[];
                if event == PnpEvent::Start {
                    known = &["elsewhere"];
                    if args.take("elsewhere") {
                        event = PnpEvent::StartElsewhere;
                    }
                }
                Command::Pnp { event, device, expect: args.expectations(Can::Status, known)? }
            }
            None => return fault(first.at, unknown("command", &keyword, COMMANDS)),
        },
    };
    args.finish()?;
    Ok(command)
}

/// A name that `memory` gave.
fn memory(args: &mut Arguments, names: &Names) -> Outcome<Name> {
    names.find(&args.word("the memory's name")?, "memory", |kind| kind == Kind::Memory).map(|(name, _)| name)
}

/// Which expectations a command can have, and those it has.
pub(super) fn expectations_of(command: &mut Command) -> Option<(Can, &mut Expectations)> {
    match command {
        Command::Open(open) => Some((Can::Status, &mut open.expect)),
        Command::Request { request, expect } => Some((result_of(&request.operation), expect)),
        Command::Pointer { expect, .. }
        | Command::Number { expect, .. }
        | Command::Load { expect, .. }
        | Command::Peek { expect, .. }
        | Command::Pool { expect, .. }
        | Command::DequeueSeveral { expect, .. }
        | Command::JoinRequest { expect, .. } => Some((Can::Data, expect)),
        Command::Store { expect, .. }
        | Command::Bind { expect, .. }
        | Command::Process { expect, .. }
        | Command::OpenProcess { expect, .. } => Some((Can::Status, expect)),
        Command::Dequeue { expect, .. } => Some((Can::Bytes, expect)),
        Command::Unload { expect } | Command::Pnp { expect, .. } | Command::Power { expect, .. } => {
            Some((Can::Status, expect))
        }
        Command::Counters(asked) => Some((Can::Data, &mut asked.expect)),
        Command::Wmi(wmi) => Some((wmi::yields(&wmi.question), &mut wmi.expect)),
        Command::Registry(asked) => Some((registry::yields(&asked.action), &mut asked.expect)),
        _ => None,
    }
}

fn result_of(operation: &Operation) -> Can {
    match operation {
        Operation::Flush | Operation::Set { .. } => Can::Status,
        Operation::Write { .. } | Operation::Gather { .. } => Can::Bytes,
        Operation::Read { .. }
        | Operation::Scatter { .. }
        | Operation::Ioctl { .. }
        | Operation::Query { .. } => Can::Data,
    }
}

fn tag(args: &mut Arguments) -> Outcome<String> {
    let word = args.word("the pool tag: Pci9")?;
    let text = word.text().into_owned();
    if (1..=4).contains(&text.len()) && text.is_ascii() {
        return Ok(text);
    }
    fault(
        word.at,
        format!("`{text}` is no pool tag: write up to four characters, of which `?` and `*` stand for any"),
    )
}

fn counters(args: &mut Arguments) -> Outcome<Counters> {
    let set = args.word("the counter set's name")?.name();
    let (mut mask, mut id, mut names) = (None, None, false);
    loop {
        if args.take("instance") {
            mask = Some(args.word("the instances' names; `*` and `?` stand for others")?.name());
        } else if args.take("id") {
            let number = args.number("the instance's number", u64::from(u32::MAX) - 1)?;
            id = u32::try_from(number).ok();
        } else if args.take("names") {
            names = true;
        } else {
            break;
        }
    }
    let expect = args.expectations(Can::Data, &["instance", "id", "names"])?;
    Ok(Counters { set, mask, id, names, expect })
}

fn open(args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    let word = args.word("what to open: \\\\.\\Name, or interface:{GUID}")?;
    let path = match word.bare.strip_prefix("interface:") {
        Some(guid) if word.quoted.is_none() => Path::Interface(parse_guid(&word, guid)?),
        _ => match word.plain() {
            Some(name) if name.starts_with('\\') && name.len() > 1 => Path::Name(name.to_owned()),
            _ => {
                return fault(
                    word.at,
                    format!(
                        "`{}` is not a device's name; write \\\\.\\Name, \\Device\\Name or interface:{{GUID}}",
                        word.text()
                    ),
                );
            }
        },
    };
    args.keyword("as")?;
    let name = args.word("the handle's name")?;
    let (mut access, mut overlapped, mut exclusive) = (Access::ReadWrite, false, false);
    let (mut unbuffered, mut inherits) = (false, false);
    loop {
        if args.take("read-only") {
            access = Access::Read;
        } else if args.take("write-only") {
            access = Access::Write;
        } else if args.take("overlapped") {
            overlapped = true;
        } else if args.take("exclusive") {
            exclusive = true;
        } else if args.take("unbuffered") {
            unbuffered = true;
        } else if args.take("inherit") {
            inherits = true;
        } else {
            break;
        }
    }
    let words = &["read-only", "write-only", "overlapped", "exclusive", "unbuffered", "inherit"];
    let expect = args.expectations(Can::Status, words)?;
    let handle = names.give(&name, Kind::Handle { overlapped })?;
    if !expect.status.admits(0) {
        names.forget(&handle);
    }
    Ok(Command::Open(Open { path, handle, access, overlapped, unbuffered, inherits, exclusive, expect }))
}

/// A process, which the script itself begins.
fn process(first: &Word, args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    if !names.within_first() {
        return fault(first.at, "a process is begun by the script itself, not by one of its threads");
    }
    let word = args.word("the process' name")?;
    let inherits = args.take("inheriting");
    let command = if args.take("command") { Some(command_line(args, names)?) } else { None };
    let expect = args.expectations(Can::Status, &["inheriting", "command"])?;
    let name = names.give_process(&word)?;
    if !expect.status.admits(0) {
        names.forget(&name);
    }
    Ok(Command::Process { name, inherits, command, expect })
}

/// The longest command line that Windows takes, in bytes.
const LONGEST_COMMAND: usize = 65_532;

fn command_line(args: &mut Arguments, names: &Names) -> Outcome<String> {
    let first = args.word("the command line: utf16:\"…\"")?;
    args.back();
    let data = args.exact_data(names)?;
    let text = data.known().filter(|bytes| bytes.len() <= LONGEST_COMMAND).and_then(|bytes| {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    });
    match text {
        Some(text) => Ok(text),
        None => fault(
            first.at,
            format!(
                "a command line is UTF-16 of at most {LONGEST_COMMAND} bytes: command utf16:\"a.exe /all\""
            ),
        ),
    }
}

/// A handle of a process, which the script has begun.
fn open_process(args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    let process = names.process(&args.word("the process")?)?;
    args.keyword("as")?;
    let word = args.word("the handle's name")?;
    let mut access = ALL_ACCESS_TO_PROCESS;
    if args.take("access") {
        access = u32::try_from(args.number("the access", u32::MAX.into())?).unwrap_or(u32::MAX);
    }
    let expect = args.expectations(Can::Status, &["access"])?;
    let handle = names.give(&word, Kind::OpenProcess)?;
    if !expect.status.admits(0) {
        names.forget(&handle);
    }
    Ok(Command::OpenProcess { process, handle, access, expect })
}

/// `PROCESS_ALL_ACCESS`.
const ALL_ACCESS_TO_PROCESS: u32 = 0x1F_FFFF;

type Asked = (Request, Can, &'static [&'static str], bool);

/// `read`, `write`, `read-scatter`, `write-gather`, `ioctl`, `flush`, `query` or `set`: the request, what it yields, what else could follow, whether the handle is overlapped.
fn request(keyword: &str, args: &mut Arguments, names: &Names) -> Outcome<Asked> {
    let word = args.word("the handle's name")?;
    let (handle, overlapped) = names.handle(&word)?;
    if matches!(keyword, "read-scatter" | "write-gather") {
        must_be_overlapped(word.at, &handle, overlapped)?;
    }
    let mut known: &[&str] = &["at"];
    let (mut own_input, mut own_output) = (None, None);
    let operation = match keyword {
        "read" if args.take("memory") => {
            own_output = Some(memory(args, names)?);
            Operation::Read { length: 0, offset: offset(args)? }
        }
        "write" if args.take("memory") => {
            own_input = Some(memory(args, names)?);
            Operation::Write { data: Data::default(), offset: offset_or_end(args)? }
        }
        "read" => Operation::Read { length: args.length("a number of bytes")?, offset: offset(args)? },
        "write" => Operation::Write { data: args.exact_data(names)?, offset: offset_or_end(args)? },
        "read-scatter" => {
            Operation::Scatter { length: args.length("a number of bytes")?, offset: offset(args)? }
        }
        "write-gather" => Operation::Gather { data: args.exact_data(names)?, offset: offset(args)? },
        "flush" | "query" | "set" => {
            known = &[];
            match keyword {
                "flush" => Operation::Flush,
                "query" => {
                    Operation::Query { class: class(args)?, length: args.length("the buffer's size")? }
                }
                _ => Operation::Set { class: class(args)?, data: args.exact_data(names)? },
            }
        }
        _ => {
            known = &["in", "out"];
            let code = parse_control_code(&args.word("the control code")?)?;
            let (mut input, mut output) = (None, 0);
            if args.take("in") {
                if args.take("memory") {
                    own_input = Some(memory(args, names)?);
                } else {
                    input = Some(args.exact_data(names)?);
                }
            }
            if args.take("out") {
                if args.take("memory") {
                    own_output = Some(memory(args, names)?);
                } else {
                    output = args.length("the output buffer's size")?;
                }
            }
            Operation::Ioctl { code, input, output }
        }
    };
    let can = result_of(&operation);
    Ok((Request { handle, operation, input: own_input, output: own_output }, can, known, overlapped))
}

/// Names of `FILE_INFORMATION_CLASS`, for what drivers of devices are asked.
const CLASSES: [(&str, u32); 15] = [
    ("FileBasicInformation", 4),
    ("FileStandardInformation", 5),
    ("FileInternalInformation", 6),
    ("FileEaInformation", 7),
    ("FileAccessInformation", 8),
    ("FileNameInformation", 9),
    ("FileDispositionInformation", 13),
    ("FilePositionInformation", 14),
    ("FileModeInformation", 16),
    ("FileAlignmentInformation", 17),
    ("FileAllInformation", 18),
    ("FileAllocationInformation", 19),
    ("FileEndOfFileInformation", 20),
    ("FileStreamInformation", 22),
    ("FileNetworkOpenInformation", 34),
];

/// A class of information: its name, or a number.
fn class(args: &mut Arguments) -> Outcome<u32> {
    let word = args.word("the class: FileStandardInformation, or its number")?;
    let written = word.text();
    if let Some((_, class)) = CLASSES.iter().find(|(name, _)| *name == &*written) {
        return Ok(*class);
    }
    match parse_number(&written).and_then(|number| u32::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => {
            let names = CLASSES.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            fault(word.at, unknown("class of information", &written, names))
        }
    }
}

fn offset(args: &mut Arguments) -> Outcome<Option<u64>> {
    if args.take("at") { args.number("an offset", i64::MAX.unsigned_abs()).map(Some) } else { Ok(None) }
}

/// Where a write begins: at an offset, or `at end`, as `FILE_WRITE_TO_END_OF_FILE` (-1) says it.
fn offset_or_end(args: &mut Arguments) -> Outcome<Option<u64>> {
    if args.take("at") {
        if args.take("end") {
            return Ok(Some(u64::MAX));
        }
        args.back();
    }
    offset(args)
}

fn asynchronous(args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    let name = args.word("the request's name")?;
    let keyword = args.word("`read`, `write` or `ioctl`")?;
    let written = keyword.text();
    let known = ["read", "write", "read-scatter", "write-gather", "ioctl"];
    if !known.contains(&&*written) {
        return fault(keyword.at, unknown("request", &written, known));
    }
    let handle_at = args.words.get(args.next).map_or(args.end, |word| word.at);
    let (request, _, _, overlapped) = request(&written, args, names)?;
    must_be_overlapped(handle_at, &request.handle, overlapped)?;
    let apc = args.take("apc");
    if args.take("expect") {
        args.back();
        let at = args.word("`expect`")?.at;
        return fault(at, format!("its result comes later: write `join {} expect …`", name.text()));
    }
    let name = names.give(&name, Kind::Request)?;
    Ok(Command::Async { name, request, apc })
}

fn must_be_overlapped(at: Position, handle: &str, overlapped: bool) -> Outcome<()> {
    if overlapped {
        return Ok(());
    }
    fault(at, format!("`{handle}` was opened for one request at a time; open it with `overlapped`"))
}

/// A request of whose output something gets a name: an address (`pointer`), or a number.
fn answered(kind: &str, args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    let name = args.word("the name")?;
    let keyword = args.word("`read` or `ioctl`, whose output begins with what gets the name")?;
    let written = keyword.text();
    if !["read", "ioctl"].contains(&&*written) {
        return fault(keyword.at, unknown("request with an output", &written, ["read", "ioctl"]));
    }
    let (request, can, known, _) = request(&written, args, names)?;
    let expect = args.expectations(can, known)?;
    Ok(if kind == "pointer" {
        Command::Pointer { name: names.give(&name, Kind::Pointer)?, request, expect }
    } else {
        Command::Number { name: names.give(&name, Kind::Number)?, request, expect }
    })
}

fn join(first: &Word, args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    let word = args.word("the thread or request to wait for")?;
    let (name, kind) =
        names.find(&word, "thread or request", |kind| matches!(kind, Kind::Thread | Kind::Request))?;
    if kind == Kind::Request {
        let expect = args.expectations(Can::Data, &[])?;
        names.end(&name, first.at);
        return Ok(Command::JoinRequest { name, expect });
    }
    if args.take("expect") {
        args.back();
        let at = args.word("`expect`")?.at;
        return fault(at, "a thread has no result of its own; expect it where the thread makes its request");
    }
    Ok(Command::JoinThread(name))
}

fn must_end(args: &mut Arguments, names: &Names, demand: Demand) -> Outcome<Command> {
    let mut lists = [Vec::new(), Vec::new()];
    let mut conditions = false;
    loop {
        let word = args.word(if conditions {
            "the request that must have succeeded"
        } else {
            "the request that must end"
        })?;
        let list = &mut lists[usize::from(conditions)];
        list.push(names.find(&word, "request", |kind| kind == Kind::Request)?.0);
        if !conditions && args.take("if") {
            conditions = true;
        } else if args.is_at_end() {
            break;
        }
    }
    let [requests, behind] = lists;
    Ok(Command::MustEnd { requests, behind, demand })
}

fn must_answer(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let word = args.word("the request that must be answered so")?;
    let (name, _) = names.find(&word, "request", |kind| kind == Kind::Request)?;
    let answer = args.exact_data(names)?;
    args.keyword("not")?;
    let mut others = vec![args.exact_data(names)?];
    while args.take("or") {
        others.push(args.exact_data(names)?);
    }
    Ok(Command::MustAnswer { name, answer, others })
}

fn must_last(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let word = args.word("the request that must last so long")?;
    let (name, _) = names.find(&word, "request", |kind| kind == Kind::Request)?;
    let least = parse_time(&args.word("how long it lasts at least: 10ms")?)?;
    args.keyword("as")?;
    let status = parse_status(&args.word("the status that it has when its time is over")?)?;
    Ok(Command::MustLast { name, least, status })
}

fn must_be(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let word = args.word("the request that must have this status")?;
    let (name, _) = names.find(&word, "request", |kind| kind == Kind::Request)?;
    let status = parse_status(&args.word("its status, STATUS_PENDING while it is under way")?)?;
    Ok(Command::MustBe { name, status })
}

fn must_differ(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let mut number = |what| Ok(names.find(&args.word(what)?, "number", |kind| kind == Kind::Number)?.0);
    let (name, other) = (number("the number that must differ")?, number("the number that it must not be")?);
    Ok(Command::MustDiffer { name, other })
}

fn cancel(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let word = args.word("whose requests to cancel: a handle, a thread or a request")?;
    let (name, kind) = names.find(&word, "handle, thread or request", |kind| {
        matches!(kind, Kind::Handle { .. } | Kind::Thread | Kind::Request)
    })?;
    Ok(Command::Cancel(match kind {
        Kind::Handle { .. } => Cancel::Handle(name),
        Kind::Thread => Cancel::Thread(name),
        _ => Cancel::Request(name),
    }))
}

/// The thread of an `apc` or `terminate`.
fn thread(args: &mut Arguments, names: &Names) -> Outcome<Name> {
    let word = args.word("the thread")?;
    names.find(&word, "thread", |kind| kind == Kind::Thread).map(|(name, _)| name)
}

/// `pending NAME`, after `expect`.
pub(super) fn pending(args: &mut Arguments, names: &Names) -> Outcome<Command> {
    let word = args.word("the thread or request that has not ended")?;
    let (name, kind) =
        names.find(&word, "thread or request", |kind| matches!(kind, Kind::Thread | Kind::Request))?;
    args.finish()?;
    Ok(Command::ExpectPending(match kind {
        Kind::Request => Waitable::Request(name),
        _ => Waitable::Thread(name),
    }))
}

fn pnp_event(keyword: &str) -> Option<PnpEvent> {
    Some(match keyword {
        "start-device" => PnpEvent::Start,
        "stop-device" => PnpEvent::Stop,
        "query-stop" => PnpEvent::QueryStop,
        "cancel-stop" => PnpEvent::CancelStop,
        "remove-device" => PnpEvent::Remove,
        "query-remove" => PnpEvent::QueryRemove,
        "cancel-remove" => PnpEvent::CancelRemove,
        "surprise-remove" => PnpEvent::SurpriseRemove,
        "eject-device" => PnpEvent::Eject,
        "lock-device" => PnpEvent::Lock(true),
        "unlock-device" => PnpEvent::Lock(false),
        "ask-bus" => PnpEvent::AskBus,
        _ => return None,
    })
}

/// `usage [ DEVICE ] FILE on|off`.
fn usage(args: &mut Arguments) -> Outcome<Command> {
    const FILES: [(&str, SpecialFile); 3] = [
        ("paging", SpecialFile::Paging),
        ("hibernation", SpecialFile::Hibernation),
        ("dump", SpecialFile::Dump),
    ];
    let device = device(args);
    let word = args.word("the file: paging, hibernation or dump")?;
    let Some((_, file)) = FILES.into_iter().find(|(name, _)| word.plain() == Some(name)) else {
        return fault(word.at, unknown("file", &word.text(), FILES.map(|(name, _)| name)));
    };
    let word = args.word("`on` or `off`")?;
    let there = match word.plain() {
        Some("on") => true,
        Some("off") => false,
        _ => return fault(word.at, unknown("word", &word.text(), ["on", "off"])),
    };
    let expect = args.expectations(Can::Status, &[])?;
    Ok(Command::Pnp { event: PnpEvent::Usage(file, there), device, expect })
}

/// The class of device interfaces, if one stands here: `interface:{GUID}`.
fn interface_class(args: &mut Arguments) -> Outcome<Option<String>> {
    if args.is_at_end() {
        return Ok(None);
    }
    let word = args.word("the class: interface:{GUID}")?;
    match word.bare.strip_prefix("interface:") {
        Some(guid) => parse_guid(&word, guid).map(Some),
        None => fault(word.at, format!("`{}` is no class; write interface:{{GUID}}", word.text())),
    }
}

/// A device's name, if one stands here: it has a `#`.
fn device(args: &mut Arguments) -> Option<String> {
    let word = args.words.get(args.next).filter(|word| word.bare.contains('#'))?;
    args.next += 1;
    Some(word.text().into_owned())
}

/// By how many units of 100 ns the clock is set forward.
fn clock(args: &mut Arguments) -> Outcome<i64> {
    let sign = one_of(args, "`forward` or `back`", "direction", &[("forward", 1), ("back", -1)])?;
    let nanoseconds = parse_time(&args.word("how far: 60s")?)?;
    Ok(sign * i64::try_from(nanoseconds / 100).unwrap_or(i64::MAX))
}

fn cards(args: &mut Arguments) -> Outcome<Cards> {
    let states = [("silent", Cards::Silent), ("late", Cards::Late(1)), ("answer", Cards::Answer)];
    let state = one_of(args, "what they do: silent, late or answer", "state of cards", &states)?;
    Ok(match state {
        Cards::Late(_) if !args.is_at_end() => Cards::Late(args.limit()?),
        state => state,
    })
}

/// What one of these words means; `what` comes here, and is a `kind`.
fn one_of<T: Copy>(args: &mut Arguments, what: &str, kind: &str, words: &[(&str, T)]) -> Outcome<T> {
    let word = args.word(what)?;
    match words.iter().find(|(known, _)| word.plain() == Some(known)) {
        Some((_, meant)) => Ok(*meant),
        None => fault(word.at, unknown(kind, &word.text(), words.iter().map(|(known, _)| *known))),
    }
}

fn user(args: &mut Arguments) -> Outcome<User> {
    let users = [("administrator", User::Administrator), ("plain", User::Plain)];
    one_of(args, "who it is: administrator or plain", "user", &users)
}

/// What `power` may name; none for what has more behind it.
const POWER_STATES: [(&str, Option<PowerState>); 14] = [
    ("d0", Some(PowerState::Device(0))),
    ("d1", Some(PowerState::Device(1))),
    ("d2", Some(PowerState::Device(2))),
    ("d3", Some(PowerState::Device(3))),
    ("s0", Some(PowerState::System(0))),
    ("s1", Some(PowerState::System(1))),
    ("s2", Some(PowerState::System(2))),
    ("s3", Some(PowerState::System(3))),
    ("s4", Some(PowerState::System(4))),
    ("s5", Some(PowerState::System(5))),
    ("idle", Some(PowerState::Idle)),
    ("setting", None),
    ("directed-down", Some(PowerState::Directed(true))),
    ("directed-up", Some(PowerState::Directed(false))),
];

fn power(args: &mut Arguments) -> Outcome<Command> {
    let word = args.word("the state: d0 to d3, directed-down or directed-up of a device, s0 to s5 of the system, idle or setting")?;
    let written = word.text().to_lowercase();
    let Some((_, state)) = POWER_STATES.into_iter().find(|(name, _)| *name == written) else {
        let names = POWER_STATES.map(|(name, _)| name).join(", ");
        return fault(word.at, format!("there is no power state `{}`; there are: {names}", word.text()));
    };
    let state = match state {
        Some(state) => state,
        None => power_setting(args)?,
    };
    let is_devices = matches!(state, PowerState::Device(_) | PowerState::Directed(_));
    let device = if is_devices { device(args) } else { None };
    let expect = args.expectations(Can::Status, &[])?;
    Ok(Command::Power { state, device, expect })
}

/// `power setting NAME VALUE`.
fn power_setting(args: &mut Arguments) -> Outcome<PowerState> {
    let word = args.word("the power setting: a name, or `guid:{…}`")?;
    let name = match word.bare.strip_prefix("guid:") {
        Some(guid) if word.quoted.is_none() => parse_guid(&word, guid)?,
        _ => word.name(),
    };
    let Some(guid) = setting::named(&name) else {
        return fault(word.at, unknown("power setting", &word.text(), setting::names()));
    };
    let value = args.number("the setting's value", u32::MAX.into())?;
    Ok(PowerState::Setting(guid, u32::try_from(value).unwrap_or(u32::MAX)))
}
