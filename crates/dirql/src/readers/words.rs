//! Events in words, for readers that people read.

use kernel::event::{Event, Form, Value};

use super::SymbolBook;
use super::names::{export_name, tag};

/// An application's request and what it is about: `WriteFile \\\\.\\Card, 2 bytes`. Empty for any other event.
pub(super) fn request(event: &Event) -> String {
    let Event::Request { name, file, code, class, offset, input, output, packets } = event else {
        return String::new();
    };
    let mut text = format!("{name} {file}");
    if let Some(code) = code {
        text += &format!(", code {code:#010x}");
    }
    if let Some(class) = class {
        text += &format!(", class {class}");
    }
    match (input, output) {
        (Some(input), Some(output)) => text += &format!(", {input} bytes in, {output} out"),
        (Some(bytes), None) | (None, Some(bytes)) => text += &format!(", {bytes} bytes"),
        (None, None) => {}
    }
    if let Some(most) = packets {
        text += &format!(", {most} at most");
    }
    match offset.map(u64::cast_signed) {
        Some(offset) if input.or(*output).is_some() => text + &format!(" at {offset}"),
        Some(offset) => text + &format!(", from {offset}"),
        None => text,
    }
}

/// A step of Plug and Play or of power: `start pci9052#0`. Empty for any other event.
pub(super) fn step(event: &Event) -> String {
    let Event::Pnp { step, of, after, value } = event else { return String::new() };
    let value = value.map_or_else(String::new, |value| format!(" = {value}"));
    let after = after.as_ref().map_or_else(String::new, |first| format!(", after that of {first}"));
    format!("{step} {of}{value}{after}")
}

/// Any event, by its kind and its fields: `access address 0x202000001004, bytes 4, kind store, atomic, code card!OnInterrupt+0x12`. A flag that is
/// not set is left out.
pub(super) fn fields(event: &Event, symbols: &SymbolBook) -> String {
    let mut text = event.kind().name().to_owned();
    let mut first = true;
    event.each_field(|name, form, value| {
        let value = match (value, form) {
            (Value::Number(row), Form::Export) => {
                export_name(u32::try_from(row).unwrap_or(u32::MAX)).to_owned()
            }
            (Value::Number(four), Form::Tag) => tag(u32::try_from(four).unwrap_or_default()),
            (Value::Number(address), Form::Code) => symbols.describe(address),
            (Value::Number(bits), Form::Hex) => format!("{bits:#x}"),
            (Value::Number(number), _) => number.to_string(),
            (Value::Words(words), _) => {
                words.iter().map(|word| format!("{word:#x}")).collect::<Vec<_>>().join(" ")
            }
            (Value::Flag(true), _) => String::new(),
            (Value::Text(text), _) => text.to_owned(),
            (Value::Flag(false) | Value::None, _) => return,
        };
        text += if first { " " } else { ", " };
        first = false;
        text += name;
        if !value.is_empty() {
            text += " ";
            text += &value;
        }
    });
    text
}
