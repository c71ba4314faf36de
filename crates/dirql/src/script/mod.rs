//! The script language of `dirql run --do` and `--script`: what applications, the user's hand and the outside world do.
//!
//! `docs/script.md` explains it with an example of each command; the grammar is this:
//!
//! ```text
//! script    = { line }                      lines end at a line's end or at `;`; `#` at a word's start: a comment
//! line      = [ NAME ":" ] command          NAME: the application thread that does it; else the main thread
//!           | "thread" NAME "{" { line } "}"
//!           | "repeat" N "{" { line } "}"  no block stands in another one
//! command   = "open" path "as" NAME { "read-only" | "write-only" | "overlapped" | "exclusive" } [ expect ]
//!           | request [ expect ]
//!           | "async" NAME request          the request is overlapped and has a name
//!           | ( "pointer" | "number" ) NAME request [ expect ]    what its output begins with has a name
//!           | "join" NAME [ expect ]        a request or a thread
//!           | ( "must-end" | "must-recover" | "must-succeed" ) NAME { NAME } [ "if" NAME { NAME } ]   requests
//!           | "must-answer" NAME data "not" data { "or" data }   a request
//!           | "must-last" NAME TIME "as" STATUS    a request
//!           | "must-be" NAME STATUS         a request
//!           | "must-differ" NAME NAME       numbers
//!           | "cancel" NAME                 a handle, a thread or a request
//!           | ( "apc" | "terminate" ) NAME    a thread
//!           | "close" ( NAME | "event:" NAME )
//!           | "process" NAME [ "inheriting" ] [ "command" data ] [ expect ] | "exit" NAME
//!           | "open-process" NAME "as" NAME [ "access" number ] [ expect ] | "load-image" PATH
//!           | "unload" [ expect ]
//!           | ( "open-key" | "create-key" ) PATH "as" NAME [ expect ]     the rest of the registry: see `registry`
//!           | "wait" TIME                   10ns 10us 10ms 10s, of virtual time
//!           | "wait" "limit"                until a timer of a driver's runs out, or the time limit of a wait
//!           | "wait" "power-down"           until a device is to be powered down
//!           | "user" ( "administrator" | "plain" )
//!           | "cards" ( "silent" | "late" [ N ] | "answer" )
//!           | "poke" DEVICE SIGNAL number
//!           | ( "interface-arrives" | "interface-leaves" ) [ "interface:" {GUID} ]    without: each class that is listened for
//!           | "peek" DEVICE REGISTER [ expect ] | "pool" TAG [ expect ] | "tree"
//!           | "counters" NAME { "instance" string | "id" number | "names" } [ expect ]
//!           | pnp [ DEVICE ] [ expect ] | "power" ( "d0" | "d1" | "d2" | "d3" ) [ DEVICE ] [ expect ]
//!           | "power" ( "s0" | "s1" | "s2" | "s3" | "s4" | "s5" | "idle" ) [ expect ]
//!           | "power" "setting" ( NAME | GUID ) NUMBER [ expect ]
//!           | "usage" [ DEVICE ] ( "paging" | "hibernation" | "dump" ) ( "on" | "off" ) [ expect ]
//!           | "power" ( "directed-down" | "directed-up" ) [ DEVICE ] [ expect ]
//!           | "wmi" "blocks"
//!           | "wmi" ( "query" | "set" | "execute" ) block [ instance ] …     see `wmi`
//!           | "wmi" ( "enable" | "disable" | "event" ) block [ expect ]
//!           | expect                        about the command before it on the same thread
//!           | "expect" "print" TEXT | "expect" "pending" NAME
//! request   = "read" NAME number [ "at" number ]
//!           | "write" NAME data [ "at" ( number | "end" ) ]
//!           | "ioctl" NAME code [ "in" data ] [ "out" number ]
//! code      = number | "CTL_CODE(" type "," function "," method "," access ")"      names or numbers
//! pnp       = "start-device" [ DEVICE ] [ "elsewhere" ] | "stop-device" | "query-stop" | "cancel-stop" | "remove-device"
//!           | "query-remove" | "cancel-remove" | "surprise-remove" | "eject-device" | "lock-device" | "unlock-device" | "ask-bus"
//! expect    = "expect" clause { "and" clause }
//! clause    = "status" STATUS | STATUS_NAME | "success" | "failure" | "bytes" number
//!           | "data" data | data | "prefix" data
//! data      = piece { "+" piece }
//! piece     = "hex:" digits | "text:" string | "utf16:" string | "u8:" number | "u16:" … | "u32:" … | "u64:" …
//!           | "zero:" number | "file:" PATH | ( "pid:" | "handle:" | "address:" | "number:" | "event:" | "page:" ) NAME    in an expectation, hex:3c?? lets a byte be any
//! block     = "block:" {GUID}
//! instance  = "instance" number | "name" string
//! path      = \\.\NAME | "\\.\a name with spaces" | "interface:" {GUID}
//! ```
//!
//! It parses and checks names; it carries nothing out and reads no file.

mod ast;
mod commands;
mod data;
mod error;
mod expect;
mod lexer;
mod names;
mod parser;
mod port;
mod registry;
mod status;
pub mod suggest;
#[cfg(test)]
mod tests;
mod value;
mod wmi;

pub use ast::*;
pub(crate) use data::written;
pub use data::{Data, Number, OWN, PAGE};
pub use error::Error;
pub use status::status_name;

/// The most bytes one request of a script may move: an application's buffer is in the machine's memory.
pub const MAX_TRANSFER: u32 = 64 << 20;

/// Reads a script. `source` is its name as the user knows it: a path, or `--do`.
///
/// # Errors
/// The first thing that is wrong, with its place and what to do about it.
pub fn parse(source: &str, text: &str) -> Result<Script, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match parser::parse(text) {
        Ok(statements) => Ok(Script { source: source.to_owned(), text: text.to_owned(), statements }),
        Err(fault) => Err(Error { source: source.to_owned(), at: fault.at, message: fault.message }),
    }
}
