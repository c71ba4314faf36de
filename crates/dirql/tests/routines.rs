//! The same routine in Rust and in C, as it was compiled: instructions counted, and shown side by side in `docs/guide/isr.md`.
//!
//! `DIRQL_BLESS=1` has the page's listings written anew, after another compiler or another driver. Where mingw's gcc is of another version than
//! the page names, instructions are counted and listings are not compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter, Mnemonic};
use image::{Image, Symbols};

use super::rig;

/// A driver's image, taken apart.
struct Driver {
    image: Image,
    symbols: Symbols,
}

/// A routine and what it calls within its image: instructions by address, without padding.
struct Routine {
    instructions: Vec<Instruction>,
    listing: Vec<String>,
}

impl Driver {
    fn read(name: &str) -> Self {
        let path = rig::driver(name);
        let image = Image::parse(name, &std::fs::read(&path).unwrap()).unwrap();
        let pdb = std::fs::read(path.with_extension("pdb")).ok();
        let symbols = Symbols::new(&image, pdb.as_deref()).unwrap();
        Self { image, symbols }
    }

    fn at(&self, rva: u32) -> Vec<Instruction> {
        let function = self.image.function_at(rva).unwrap();
        let section = self.image.section_at(rva).unwrap();
        let (from, to) = ((function.begin - section.rva) as usize, (function.end - section.rva) as usize);
        let bytes = &self.image.section_data(section)[from..to];
        let decoder = Decoder::with_ip(64, bytes, function.begin.into(), DecoderOptions::NONE);
        decoder.into_iter().filter(|instruction| instruction.mnemonic() != Mnemonic::Nop).collect()
    }

    /// A routine with all that it calls or jumps to in its image.
    fn routine(&self, name: &str) -> Routine {
        let first =
            self.symbols.find(name).unwrap_or_else(|| panic!("{name} is not in {}", self.image.name()));
        let (mut known, mut to_read) = (BTreeSet::from([first]), vec![first]);
        let mut instructions = Vec::new();
        while let Some(rva) = to_read.pop() {
            let own = self.at(rva);
            let calls = |found: &Instruction| found.flow_control() == FlowControl::Call;
            for target in own.iter().filter(|found| calls(found)).map(Instruction::near_branch64) {
                let target = u32::try_from(target).unwrap();
                if known.insert(target) {
                    to_read.push(target);
                }
            }
            instructions.extend(own);
        }
        let listing = self.listing(&instructions);
        Routine { instructions, listing }
    }

    fn listing(&self, instructions: &[Instruction]) -> Vec<String> {
        let is_jump = |found: &&Instruction| found.is_jmp_short_or_near() || found.is_jcc_short_or_near();
        let targets: BTreeSet<u64> =
            instructions.iter().filter(is_jump).map(Instruction::near_branch64).collect();
        let labels: BTreeMap<u64, String> =
            targets.iter().zip(1..).map(|(target, number)| (*target, format!("L{number}"))).collect();
        let mut formatter = IntelFormatter::new();
        formatter.options_mut().set_hex_prefix("0x");
        formatter.options_mut().set_hex_suffix("");
        formatter.options_mut().set_space_after_operand_separator(true);
        instructions.iter().map(|found| self.line(found, &labels, &mut formatter)).collect()
    }

    fn line(
        &self,
        found: &Instruction,
        labels: &BTreeMap<u64, String>,
        formatter: &mut IntelFormatter,
    ) -> String {
        let label = labels.get(&found.ip()).map_or(String::new(), |label| format!("{label}:"));
        let mut text = String::new();
        formatter.format(found, &mut text);
        let target = found.near_branch64();
        if let Some(label) = labels.get(&target).filter(|_| target != 0) {
            text = format!("{} {label}", text.split(' ').next().unwrap());
        } else if found.flow_control() == FlowControl::Call {
            text = format!("call {}", self.name(u32::try_from(target).unwrap()));
        } else if found.is_ip_rel_memory_operand() {
            let slot = found.ip_rel_memory_address();
            let import = self.image.imports().iter().find(|import| u64::from(import.slot) == slot);
            if let Some(import) = import {
                text = format!("call {}", import.selector);
            }
        }
        format!("{label:<5}{text}")
    }

    fn name(&self, rva: u32) -> String {
        self.symbols.lookup(rva).map_or(String::new(), |symbol| symbol.name.to_owned())
    }
}

/// Both listings beside each other.
fn side_by_side(rust: &Routine, c: &Routine) -> String {
    let mut text = String::new();
    let heads = [rust, c].map(|routine| routine.instructions.len());
    let [left, right] =
        [("Rust", heads[0]), ("C", heads[1])].map(|(name, count)| format!("{name}: {count} instructions"));
    writeln!(text, "{left:<58}{right}").unwrap();
    for at in 0..heads[0].max(heads[1]) {
        let [left, right] = [rust, c].map(|routine| routine.listing.get(at).map_or("", String::as_str));
        text += format!("{left:<58}{right}").trim_end();
        text.push('\n');
    }
    text
}

/// The source of a routine stands on the page as it is in the driver.
fn expect_source(page: &str, language: &str, source: &str) {
    let shown =
        page.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let plain = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert!(plain(source).contains(plain(shown).trim()), "the driver's source is another than the page's");
}

/// The version of the compiler of the drivers in C: its first number.
fn gcc() -> String {
    let output = Command::new("x86_64-w64-mingw32-gcc").arg("-dumpversion").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    version.split(['.', '-']).next().unwrap().trim().to_owned()
}

#[test]
fn the_service_routine_in_rust_has_no_more_instructions_than_in_c_and_the_guide_shows_both() {
    let rust = Driver::read("pci9052.sys").routine("wdm::interrupt::connection::serve<pci9052::isr::Isr>");
    let c = Driver::read("pci9052_c.sys").routine("Isr");
    let listings = side_by_side(&rust, &c);
    assert!(rust.instructions.len() <= c.instructions.len(), "{listings}");

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let page = read("docs/guide/isr.md");
    expect_source(&page, "rust,ignore", &read("drivers/pci9052/src/isr.rs"));
    expect_source(&page, "c", &read("drivers/c/pci9052/hardware.h"));
    let (before, rest) = page.split_once("```text\n").unwrap();
    let (shown, behind) = rest.split_once("```").unwrap();
    if std::env::var_os("DIRQL_BLESS").is_some() {
        std::fs::write(root.join("docs/guide/isr.md"), format!("{before}```text\n{listings}```{behind}"))
            .unwrap();
    } else if page.contains(&format!("mingw's gcc {} ", gcc())) {
        assert!(
            shown == listings,
            "docs/guide/isr.md has other listings: DIRQL_BLESS=1 writes these:\n{listings}"
        );
    }
}
