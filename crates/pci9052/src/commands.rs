//! The subcommands of the program.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use pci9052::eeprom::Image;
use pci9052::registers::{REGISTERS, offset};
use pci9052::{Card, Error, Result};

/// Bytes in a line of a dump.
const PER_LINE: usize = 16;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows counters and all local configuration registers
    Info,
    /// Shows bytes of local memory
    Read {
        /// Where they begin, decimal or hexadecimal after 0x
        #[arg(value_parser = number)]
        offset: u32,
        /// How many
        #[arg(value_parser = number)]
        length: u32,
    },
    /// Writes bytes to local memory
    Write {
        /// Where they begin, decimal or hexadecimal after 0x
        #[arg(value_parser = number)]
        offset: u32,
        /// The bytes, hexadecimal, e.g. 3c00ff
        bytes: String,
    },
    /// Writes local memory to a file
    Dump {
        /// The file
        file: PathBuf,
    },
    /// Shows a local configuration register, or sets it
    Register {
        /// Its name in the data book, e.g. CS0BASE
        name: String,
        /// The new value, decimal or hexadecimal after 0x
        #[arg(value_parser = number)]
        value: Option<u32>,
    },
    /// Waits for interrupts that no transfer caused, and tells of each
    Watch {
        /// So many
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// The EEPROM that the card configures itself from
    #[command(subcommand)]
    Eeprom(Eeprom),
}

#[derive(Subcommand)]
pub(crate) enum Eeprom {
    /// Writes its words to a file, as text
    Save {
        /// The file
        file: PathBuf,
    },
    /// Writes the words of such a file to it, those that differ, and reads them back
    Restore {
        /// The file
        file: PathBuf,
    },
}

/// A number, decimal or hexadecimal after `0x`.
fn number(text: &str) -> std::result::Result<u32, String> {
    let found = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    found.map_err(|_| "it is no number of 32 bits; write 100 or 0x64".to_owned())
}

impl Command {
    pub(crate) fn carry_out(&self, card: &Card<'_>) -> Result<()> {
        match self {
            Self::Info => info(card),
            Self::Read { offset, length } => show(*offset, &card.read((*offset).into(), *length)?),
            Self::Write { offset, bytes } => card.write((*offset).into(), &bytes_of(bytes)?),
            Self::Dump { file } => dump(card, file),
            Self::Register { name, value } => register(card, name, *value),
            Self::Watch { count } => watch(card, *count),
            Self::Eeprom(Eeprom::Save { file }) => {
                let image = card.eeprom()?;
                write_file(file, image.to_string().as_bytes())
            }
            Self::Eeprom(Eeprom::Restore { file }) => restore(card, file),
        }
    }
}

/// A line of the answer.
fn say(line: &str) -> Result<()> {
    writeln!(stdout(), "{line}").map_err(|error| Error::new(format!("the answer cannot be written: {error}")))
}

fn info(card: &Card<'_>) -> Result<()> {
    let counters = card.counters()?;
    say(&format!("transfers   {}", counters.transfers))?;
    say(&format!("interrupts  {} claimed, {} left to others", counters.interrupts, counters.passed))?;
    say(&format!("local space {:#x} bytes", counters.local))?;
    for (name, offset) in REGISTERS {
        say(&format!("{name:<7} {:08x}", card.register(offset)?))?;
    }
    Ok(())
}

fn show(offset: u32, bytes: &[u8]) -> Result<()> {
    for (at, row) in (offset..).step_by(PER_LINE).zip(bytes.chunks(PER_LINE)) {
        let text: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        say(&format!("{at:05x}  {}", text.join(" ")))?;
    }
    Ok(())
}

fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let wrong =
        || Error::new(format!("`{text}` is no bytes; write two hexadecimal digits for each, as 3c00ff"));
    if text.is_empty()
        || !text.len().is_multiple_of(2)
        || !text.chars().all(|digit| digit.is_ascii_hexdigit())
    {
        return Err(wrong());
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong());
    (0..text.len()).step_by(2).map(byte).collect()
}

/// All of local memory that the driver gives: its last 8 bytes are the peripheral's registers.
fn dump(card: &Card<'_>, file: &Path) -> Result<()> {
    let length = card.counters()?.local.saturating_sub(8);
    write_file(file, &card.read(0, length)?)
}

fn register(card: &Card<'_>, name: &str, value: Option<u32>) -> Result<()> {
    let offset = offset(name).ok_or_else(|| {
        let names: Vec<&str> = REGISTERS.iter().map(|(name, _)| *name).collect();
        Error::new(format!("there is no register `{name}`; there are: {}", names.join(", ")))
    })?;
    match value {
        Some(value) => card.set_register(offset, value).map_err(|error| error.while_doing(name)),
        None => say(&format!("{:08x}", card.register(offset)?)),
    }
}

fn watch(card: &Card<'_>, count: u32) -> Result<()> {
    for number in 1..=count {
        card.wait()?;
        let counters = card.counters()?;
        say(&format!("interrupt {number}: {} claimed so far", counters.interrupts))?;
    }
    Ok(())
}

fn restore(card: &Card<'_>, file: &Path) -> Result<()> {
    let in_file = |why: String| Error::new(why).while_doing(&file.display().to_string());
    let text = std::fs::read_to_string(file).map_err(|error| in_file(error.to_string()))?;
    let image = Image::parse(&text).map_err(|error| in_file(error.to_string()))?;
    let written = card.restore_eeprom(&image)?;
    say(&format!("{written} words written; the card takes them over when it is reset or loses power"))
}

fn write_file(file: &Path, bytes: &[u8]) -> Result<()> {
    let written = std::fs::write(file, bytes);
    written.map_err(|error| Error::new(format!("{}: {error}", file.display())))
}
