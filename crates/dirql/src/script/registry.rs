//! `open-key`, `create-key`, `set-value`, `query-value`, `delete-value`, `delete-key`: an application uses the registry.

use super::MAX_TRANSFER;
use super::ast::{Command, Registry, RegistryAction};
use super::commands::Arguments;
use super::error::{Outcome, fault, unknown};
use super::expect::Yields;
use super::names::{Kind, Names};

/// Types of values, as `set-value` names them, by their numbers.
const TYPES: [&str; 8] =
    ["none", "sz", "expand-sz", "binary", "dword", "dword-big-endian", "link", "multi-sz"];
const QWORD: &str = "qword";
const QWORD_TYPE: u32 = 11;

/// Reads what comes behind one of these words.
pub(super) fn command(keyword: &str, args: &mut Arguments, names: &mut Names) -> Outcome<Command> {
    if matches!(keyword, "open-key" | "create-key") {
        let word = args.word("the key's path: \\\\Registry\\\\Machine\\\\Software\\\\…")?;
        let path = word.name();
        if !path.starts_with('\\') {
            let message = format!(
                "`{path}` is no path of a key; it begins with \\\\Registry\\\\Machine or \\\\Registry\\\\User"
            );
            return fault(word.at, message);
        }
        args.keyword("as")?;
        let name = args.word("the key's name")?;
        let expect = args.expectations(Yields::Status, &[])?;
        let key = names.give(&name, Kind::Key)?;
        if !expect.status.admits(0) {
            names.forget(&key);
        }
        let open = if keyword == "open-key" { RegistryAction::Open } else { RegistryAction::Create };
        return Ok(Command::Registry(Registry { key, action: open(path), expect }));
    }
    let (key, _) = names.find(&args.word("the key")?, "key", |kind| kind == Kind::Key)?;
    if keyword == "delete-key" {
        let expect = args.expectations(Yields::Status, &[])?;
        return Ok(Command::Registry(Registry { key, action: RegistryAction::DeleteKey, expect }));
    }
    let value = args.word("the value's name")?.name();
    let action = match keyword {
        "set-value" => {
            let word = args.word("the value's type: sz, dword, binary")?;
            let name = word.text();
            let place = TYPES.iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok());
            let Some(kind) = place.or_else(|| (name == QWORD).then_some(QWORD_TYPE)) else {
                return fault(word.at, unknown("type of value", &name, TYPES.into_iter().chain([QWORD])));
            };
            RegistryAction::Set { value, kind, data: args.exact_data(names)? }
        }
        "query-value" => {
            let length = args.number("a number of bytes", MAX_TRANSFER.into())?;
            RegistryAction::Query { value, length: u32::try_from(length).unwrap_or(MAX_TRANSFER) }
        }
        _ => RegistryAction::DeleteValue(value),
    };
    let yields = yields(&action);
    let expect = args.expectations(yields, &[])?;
    Ok(Command::Registry(Registry { key, action, expect }))
}

/// What comes of an action.
pub(super) const fn yields(action: &RegistryAction) -> Yields {
    match action {
        RegistryAction::Query { .. } => Yields::Data,
        _ => Yields::Status,
    }
}
