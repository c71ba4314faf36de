//! Logical configurations: the resources that a file has for a device whose bus reports none.
//!
//! Follows *INF LogConfig Directive*, *INF DDInstall.FactDef Section*, *INF DDInstall.LogConfigOverride Section*. The configurations of a device are tried by
//! their priority; factory defaults come before those of the same priority, and must be met if they are forced. *Ours:* ports that say nothing of
//! how they are decoded are decoded with 16 bits, and the lists name an ISA bus. What is PCMCIA's is named and left out.

use abi::{
    CM_RESOURCE_DMA_8, CM_RESOURCE_DMA_16, CM_RESOURCE_DMA_32, CM_RESOURCE_DMA_BUS_MASTER,
    CM_RESOURCE_DMA_TYPE_A, CM_RESOURCE_DMA_TYPE_B, CM_RESOURCE_DMA_TYPE_F, CM_RESOURCE_INTERRUPT_LATCHED,
    CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE, CM_RESOURCE_MEMORY_24, CM_RESOURCE_MEMORY_CACHEABLE,
    CM_RESOURCE_MEMORY_COMBINEDWRITE, CM_RESOURCE_MEMORY_PREFETCHABLE, CM_RESOURCE_MEMORY_READ_ONLY,
    CM_RESOURCE_MEMORY_READ_WRITE, CM_RESOURCE_MEMORY_WRITE_ONLY, CM_RESOURCE_PORT_10_BIT_DECODE,
    CM_RESOURCE_PORT_12_BIT_DECODE, CM_RESOURCE_PORT_16_BIT_DECODE, CM_RESOURCE_PORT_IO,
    CM_RESOURCE_PORT_POSITIVE_DECODE, CmResourceShareDeviceExclusive, CmResourceShareShared,
    CmResourceTypeDma, CmResourceTypeInterrupt, CmResourceTypeMemory, CmResourceTypePort, Isa,
};
use kernel::pnp::install::Configuration;
use kernel::pnp::wanted::{Requirements, Wanted};

use super::addreg::Remarks;
use super::directives::{CONFIGURATION, OVERRIDE};
use super::error::{Outcome, fault};
use super::install::{entries, pass_over};
use super::sections::{Entry, Sections};

/// Priorities, the best first; `DISABLED` is none.
const PRIORITIES: [&str; 9] = [
    "FORCECONFIG",
    "DESIRED",
    "NORMAL",
    "SUBOPTIMAL",
    "HARDRECONFIG",
    "HARDWIRED",
    "RESTART",
    "REBOOT",
    "POWEROFF",
];

/// The alignment of memory that says nothing of it.
const PAGE: u32 = 0x1000;

/// One configuration.
struct Logical {
    /// Its place among [`PRIORITIES`]; none if it is disabled.
    priority: Option<usize>,
    list: Vec<Wanted>,
}

/// What the file has for the device with this id.
pub(super) fn configuration(
    sections: &Sections,
    install: &str,
    id: &str,
    remarks: &mut Remarks,
) -> Outcome<Configuration> {
    let factory = format!("{install}.FactDef");
    let factory = match sections.get(&factory) {
        Some(_) => Some(logical(sections, &factory, remarks)?),
        None => None,
    };
    let of_install = entries(sections, install, &mut Remarks::default())?;
    let own = of_install.into_iter().filter(|entry| entry.is("LogConfig"));
    let mut basic = named(sections, own, remarks)?;
    let mut overriding = Vec::new();
    for entry in entries(sections, &format!("{install}.LogConfigOverride"), remarks)? {
        if entry.is("LogConfig") {
            overriding.extend(named(sections, std::iter::once(entry), remarks)?);
        } else {
            pass_over(entry, OVERRIDE, remarks);
        }
    }
    let mut forced = Vec::new();
    if let Some(factory) = factory {
        if factory.priority == Some(0) { &mut forced } else { &mut basic }.insert(0, factory);
    }
    let is_card = id.split_once('\\').is_some_and(|(bus, _)| bus.eq_ignore_ascii_case("PCI"));
    if is_card && let Some(section) = sections.get(&format!("{install}.LogConfigOverride")) {
        let text = "LogConfigOverride: a card's resources are in its base address registers";
        remarks.name(section.spot(), text.to_owned());
    }
    Ok(Configuration {
        forced: requirements(forced),
        overriding: requirements(overriding),
        basic: requirements(basic),
    })
}

/// As one list of requirements, the best first.
fn requirements(mut all: Vec<Logical>) -> Requirements {
    all.retain(|one| one.priority.is_some());
    all.sort_by_key(|one| one.priority);
    let lists = all.into_iter().map(|one| one.list).collect();
    Requirements { interface: Isa, bus: 0, slot: 0, lists }
}

/// The configurations that these `LogConfig` entries name.
fn named<'a>(
    sections: &Sections,
    entries: impl Iterator<Item = Entry<'a>>,
    remarks: &mut Remarks,
) -> Outcome<Vec<Logical>> {
    let mut all = Vec::new();
    for entry in entries {
        for (at, name) in entry.values_from(0)?.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let section = sections.led_to(name, entry.spot_of(at))?;
            all.push(logical(sections, section.name, remarks)?);
        }
    }
    Ok(all)
}

/// One log-config section.
fn logical(sections: &Sections, name: &str, remarks: &mut Remarks) -> Outcome<Logical> {
    const NORMAL: usize = 2;
    let mut logical = Logical { priority: Some(NORMAL), list: Vec::new() };
    for entry in entries(sections, name, remarks)? {
        let parse = match entry.raw_key().map(str::to_ascii_lowercase).as_deref() {
            Some("configpriority") => {
                logical.priority = priority(entry)?;
                continue;
            }
            Some("ioconfig") => ports,
            Some("memconfig") => memory,
            Some("irqconfig") => {
                numbers(entry, &mut logical.list, irq)?;
                continue;
            }
            Some("dmaconfig") => {
                numbers(entry, &mut logical.list, dma)?;
                continue;
            }
            _ => {
                pass_over(entry, CONFIGURATION, remarks);
                continue;
            }
        };
        for at in 0..entry.len() {
            let text = entry.value(at)?;
            match parse(text.trim()) {
                Some(wanted) => logical.list.push(if at == 0 { wanted } else { wanted.or() }),
                None => return fault(Some(entry.spot_of(at)), wrong_range(&text)),
            }
        }
    }
    Ok(logical)
}

fn wrong_range(text: &str) -> String {
    format!("`{text}` is no range of addresses; write `START-END` or `SIZE@MIN-MAX%MASK`, all in hexadecimal")
}

fn priority(entry: Entry<'_>) -> Outcome<Option<usize>> {
    let text = entry.value(0)?;
    if text.eq_ignore_ascii_case("DISABLED") {
        return Ok(None);
    }
    match PRIORITIES.iter().position(|known| known.eq_ignore_ascii_case(&text)) {
        Some(priority) => Ok(Some(priority)),
        None => fault(
            Some(entry.spot_of(0)),
            format!("`{text}` is no ConfigPriority; write NORMAL, or one of {}", PRIORITIES.join(", ")),
        ),
    }
}

/// The lines or channels of an entry: `[attributes:]number, …`.
fn numbers(
    entry: Entry<'_>,
    list: &mut Vec<Wanted>,
    meaning: fn(&str) -> Option<(u8, u8, u16)>,
) -> Outcome<()> {
    let first = entry.value(0)?;
    let (attributes, first) = first.rsplit_once(':').unwrap_or(("", &first));
    let Some((kind, share, flags)) = meaning(attributes) else {
        return fault(
            Some(entry.spot_of(0)),
            format!(
                "`{attributes}` are no attributes; IRQConfig has L and LS, DMAConfig D, W, N, M, A, B and F"
            ),
        );
    };
    for at in 0..entry.len() {
        let text = if at == 0 { first.to_owned() } else { entry.value(at)? };
        let Ok(number) = text.trim().parse() else {
            return fault(Some(entry.spot_of(at)), format!("`{text}` is no number; write it in decimal"));
        };
        let wanted = Wanted::number(kind, share, flags, number);
        list.push(if at == 0 { wanted } else { wanted.or() });
    }
    Ok(())
}

fn irq(attributes: &str) -> Option<(u8, u8, u16)> {
    let (share, flags) = match attributes.trim().to_ascii_uppercase().as_str() {
        "" => (CmResourceShareDeviceExclusive, CM_RESOURCE_INTERRUPT_LATCHED),
        "L" => (CmResourceShareDeviceExclusive, CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE),
        "LS" | "SL" => (CmResourceShareShared, CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE),
        "S" => (CmResourceShareShared, CM_RESOURCE_INTERRUPT_LATCHED),
        _ => return None,
    };
    Some((CmResourceTypeInterrupt, share, flags))
}

fn dma(attributes: &str) -> Option<(u8, u8, u16)> {
    let mut flags = CM_RESOURCE_DMA_8;
    for letter in attributes.trim().chars() {
        flags |= match letter.to_ascii_uppercase() {
            'N' => CM_RESOURCE_DMA_8,
            'W' => CM_RESOURCE_DMA_16,
            'D' => CM_RESOURCE_DMA_32,
            'M' => CM_RESOURCE_DMA_BUS_MASTER,
            'A' => CM_RESOURCE_DMA_TYPE_A,
            'B' => CM_RESOURCE_DMA_TYPE_B,
            'F' => CM_RESOURCE_DMA_TYPE_F,
            _ => return None,
        };
    }
    Some((CmResourceTypeDma, CmResourceShareDeviceExclusive, flags))
}

/// `start-end` or `size@min-max[%mask]`: length, alignment, lowest and highest address. The second form is aligned to `usual` if it does not say.
fn place(text: &str, usual: u32) -> Option<(u32, u32, (u64, u64))> {
    let hexadecimal = |text: &str| {
        let digits = text.trim();
        u64::from_str_radix(digits.strip_prefix("0x").or(digits.strip_prefix("0X")).unwrap_or(digits), 16)
            .ok()
    };
    let (size, rest) = match text.split_once('@') {
        Some((size, rest)) => (Some(hexadecimal(size)?), rest),
        None => (None, text),
    };
    let (range, mask) = match rest.split_once('%') {
        Some((range, mask)) => (range, Some(hexadecimal(mask)?)),
        None => (rest, None),
    };
    let (low, high) = range.split_once('-')?;
    let (low, high) = (hexadecimal(low)?, hexadecimal(high)?);
    let length = match size {
        Some(size) => size,
        None => high.checked_sub(low)?.checked_add(1)?,
    };
    let length = u32::try_from(length).ok().filter(|length| *length != 0 && low <= high)?;
    let alignment = match (mask, size) {
        (Some(0), _) | (None, None) => 1,
        (Some(mask), _) => 1_u32.checked_shl(mask.trailing_zeros()).unwrap_or(1),
        (None, Some(_)) => usual,
    };
    Some((length, alignment, (low, high)))
}

/// A range, and what stands in parentheses behind it.
fn split(text: &str) -> Option<(&str, &str)> {
    match text.split_once('(') {
        Some((range, more)) => Some((range.trim(), more.trim().strip_suffix(')')?)),
        None => Some((text, "")),
    }
}

fn ports(text: &str) -> Option<Wanted> {
    let (range, more) = split(text)?;
    let (length, alignment, at) = place(range, 1)?;
    let mut parts = more.split(':').map(str::trim);
    let decode = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "3ff" => CM_RESOURCE_PORT_10_BIT_DECODE,
        "fff" => CM_RESOURCE_PORT_12_BIT_DECODE,
        "" | "ffff" => CM_RESOURCE_PORT_16_BIT_DECODE,
        "0" => CM_RESOURCE_PORT_POSITIVE_DECODE,
        _ => return None,
    };
    match parts.nth(1).unwrap_or_default().to_ascii_uppercase().as_str() {
        "" => Some(Wanted::range(CmResourceTypePort, CM_RESOURCE_PORT_IO | decode, length, alignment, at)),
        "M" => {
            Some(Wanted::range(CmResourceTypeMemory, CM_RESOURCE_MEMORY_READ_WRITE, length, alignment, at))
        }
        _ => None,
    }
}

fn memory(text: &str) -> Option<Wanted> {
    let (range, attributes) = split(text)?;
    let (length, alignment, at) = place(range, PAGE)?;
    let letters = attributes.to_ascii_uppercase();
    if !letters.chars().all(|letter| "RWCHFD ,".contains(letter)) {
        return None;
    }
    let has = |letter| letters.contains(letter);
    let mut flags = match (has('R'), has('W')) {
        (true, false) => CM_RESOURCE_MEMORY_READ_ONLY,
        (false, true) => CM_RESOURCE_MEMORY_WRITE_ONLY,
        _ => CM_RESOURCE_MEMORY_READ_WRITE,
    };
    for (letter, flag) in [
        ('C', CM_RESOURCE_MEMORY_COMBINEDWRITE),
        ('H', CM_RESOURCE_MEMORY_CACHEABLE),
        ('F', CM_RESOURCE_MEMORY_PREFETCHABLE),
    ] {
        flags |= if has(letter) { flag } else { 0 };
    }
    flags |= if has('D') { 0 } else { CM_RESOURCE_MEMORY_24 };
    Some(Wanted::range(CmResourceTypeMemory, flags, length, alignment, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_page_has_them() {
        let port = |text| ports(text).map(|w| (w.length, w.alignment, w.minimum, w.maximum, w.flags));
        assert_eq!(port("1F8-1FF"), Some((8, 1, 0x1F8, 0x1FF, 0x11)));
        assert_eq!(port("8@300-32F%FF8"), Some((8, 8, 0x300, 0x32F, 0x11)));
        assert_eq!(port("1f0-1f7(3ff::)"), Some((8, 1, 0x1F0, 0x1F7, 0x05)));
        assert_eq!(port("0x600-0x61f"), Some((0x20, 1, 0x600, 0x61F, 0x11)));
        assert_eq!(ports("100-1ff(ffff::M)").map(|w| w.kind), Some(CmResourceTypeMemory));
        for wrong in ["", "300", "8@300", "32F-300", "xyz-300", "300-30F(3fe)", "300-30F(3ff", "0@1-2"] {
            assert_eq!(ports(wrong), None, "{wrong}");
        }
        let memory = |text| memory(text).map(|w| (w.length, w.alignment, w.minimum, w.flags));
        assert_eq!(memory("C0000-C7FFF"), Some((0x8000, 1, 0xC0000, 0x10)));
        assert_eq!(memory("8000@C0000-D7FFF%F0000"), Some((0x8000, 0x1_0000, 0xC0000, 0x10)));
        assert_eq!(memory("4000@0-FFFFFFFF(RFD)"), Some((0x4000, 0x1000, 0, 0x05)));
    }

    #[test]
    fn attributes_of_lines_and_channels_are_letters() {
        assert_eq!(irq("LS"), Some((2, 3, 0)));
        assert_eq!(irq(""), Some((2, 1, 1)));
        assert_eq!(irq("X"), None);
        assert_eq!(dma("MF"), Some((4, 1, CM_RESOURCE_DMA_BUS_MASTER | CM_RESOURCE_DMA_TYPE_F)));
        assert_eq!(dma("Q"), None);
    }
}
