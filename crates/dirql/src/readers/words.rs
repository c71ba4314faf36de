//! Events in words, for readers that people read.

use kernel::event::Event;

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
