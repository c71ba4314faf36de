//! What does not go together with memory integrity (HVCI): executable memory that a driver asks for, and images whose code can be changed.
//!
//! Pages: *Code integrity checking*, *Implement memory integrity compatible code*. Windows without it goes on, and so do correct drivers for
//! Windows 7, which has no other nonpaged pool: nothing is looked at without Verifier's option, nor before Windows 10. *It does not* look at
//! `MmAllocateContiguousMemory`, whose callers name no protection.

use abi::{
    MdlMappingNoExecute, PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY,
};
use engine::Flow;
use engine::windows::PAGE;
use image::{Image, Section};

use super::pool::tag_text;
use crate::cx::Cx;
use crate::nt::WindowsVersion;
use crate::verdict::Verdict;
use crate::verifier::VerifierOption;

fn is_watched(cx: &mut Cx<'_>) -> bool {
    cx.nt().is_watched_for(VerifierOption::CodeIntegrity)
        && cx.with(|k| k.ldr.windows) >= WindowsVersion::Win10
}

/// A driver has called the kernel, and not an application.
fn is_drivers(cx: &mut Cx<'_>) -> bool {
    is_watched(cx) && cx.engine().depth() > 0
}

fn verify(cx: &mut Cx<'_>, rule: &'static str, message: String, [code, first, second]: [u64; 3]) -> Flow<()> {
    let caller = cx.engine().caller_rip();
    cx.verify(Verdict::verifier(rule, message).bug_check(0xC4, [code, caller, first, second]))
}

/// A driver asks for executable pool.
///
/// # Errors
/// A verdict if Verifier watches for it.
pub(crate) fn executable_pool(cx: &mut Cx<'_>, name: &str, pool_type: u32, tag: u32) -> Flow<()> {
    if !is_drivers(cx) {
        return Ok(());
    }
    let tag_name = tag_text(tag);
    let message =
        format!("{name} was asked for executable pool, tag '{tag_name}': with memory integrity none is");
    verify(cx, "executable-pool", message, [0x2000, pool_type.into(), tag.into()])
}

/// A driver names a page protection.
///
/// # Errors
/// As [`executable_pool`].
pub(crate) fn protection(cx: &mut Cx<'_>, name: &str, protection: u32) -> Flow<()> {
    const EXECUTE: u32 = PAGE_EXECUTE | PAGE_EXECUTE_READ | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
    if protection & EXECUTE == 0 || !is_drivers(cx) {
        return Ok(());
    }
    let message = format!(
        "{name} was given the protection {protection:#x}: with memory integrity no page that a driver fills is executable"
    );
    verify(cx, "executable-protection", message, [0x2001, protection.into(), 0])
}

/// A driver maps an MDL for the kernel.
///
/// # Errors
/// As [`executable_pool`].
pub(crate) fn mapping(cx: &mut Cx<'_>, mdl: u64, priority: u32) -> Flow<()> {
    if priority & MdlMappingNoExecute != 0 || !is_drivers(cx) {
        return Ok(());
    }
    let message = format!("the MDL {mdl:#x} was mapped for the kernel without MdlMappingNoExecute");
    verify(cx, "executable-mapping", message, [0x2002, priority.into(), 0])
}

/// An image is loaded.
///
/// # Errors
/// As [`executable_pool`].
pub(crate) fn image(cx: &mut Cx<'_>, name: &str, image: &Image) -> Flow<()> {
    if !is_watched(cx) {
        return Ok(());
    }
    let names = |is_one: &dyn Fn(&Section) -> bool| {
        let sections = image.sections().iter().filter(|section| section.virtual_size > 0 && is_one(section));
        sections.map(|section| section.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let both = names(&|section| section.protection.write && section.protection.execute);
    let unaligned = names(&|section| !u64::from(section.rva).is_multiple_of(PAGE));
    let bound = names(&|section| {
        section.protection.execute && image.imports().iter().any(|import| section.contains(import.slot))
    });
    let found = [
        ("section-writable-and-executable", 0x2003, both, "can be written and executed"),
        ("section-not-page-aligned", 0x2004, unaligned, "do not begin with a page"),
        ("import-table-executable", 0x2005, bound, "hold the addresses of imports and are executable"),
    ];
    for (rule, code, sections, what) in found.into_iter().filter(|(_, _, sections, _)| !sections.is_empty()) {
        let message = format!("sections of {name} {what}: {sections}");
        cx.verify(Verdict::verifier(rule, message).bug_check(0xC4, [code, 0, 0, 0]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::rig::{load, machine_with};
    use crate::nt::Settings;
    use crate::verifier::Verifier;

    const SOURCE: &str = "
        void KeBugCheck(unsigned);
        int DriverEntry(void *driver, void *path) { if (!driver) KeBugCheck(0xE2); return 0; }";
    const WRITE: u8 = 0x80;
    const EXECUTE: u8 = 0x20;

    /// A driver, and what its sections' rights are instead.
    fn driver(flags: &str, rights: &[(&[u8; 8], u8)]) -> Image {
        const FLAGS: &str =
            "-shared -nostdlib -O1 -Wl,--subsystem,native,-e,DriverEntry,--exclude-all-symbols";
        let mut file = crate::rig::compile(SOURCE, &format!("{FLAGS}{flags}"), &[]);
        for (name, right) in rights {
            let header = file.windows(8).position(|eight| eight == *name).expect("there is that section");
            file[header + 39] = file[header + 39] & !(WRITE | EXECUTE) | right;
        }
        Image::parse("image.sys", &file).unwrap()
    }

    fn found(image: Image, verifier: Verifier, windows: WindowsVersion) -> Vec<&'static str> {
        let settings = Settings { verifier, windows, ..Settings::default() };
        let mut found = Vec::new();
        machine_with(&settings, Vec::new(), |cx| {
            load(cx, image);
            found = cx.nt().findings().iter().map(|finding| finding.rule).collect();
        });
        found
    }

    fn watched(image: Image) -> Vec<&'static str> {
        found(image, Verifier::NONE.with(VerifierOption::CodeIntegrity).logging(), WindowsVersion::Win11)
    }

    #[test]
    fn code_that_can_be_written_and_an_import_table_that_can_be_executed_are_told_by_their_sections() {
        let written = || driver("", &[(b".text\0\0\0", WRITE | EXECUTE)]);
        assert_eq!(watched(written()), ["section-writable-and-executable"]);
        assert_eq!(watched(driver("", &[(b".idata\0\0", EXECUTE)])), ["import-table-executable"]);
        let none: [&str; 0] = [];
        assert_eq!(
            found(written(), Verifier::ALL, WindowsVersion::Win11),
            none,
            "the option is not among `all`"
        );
        let option = Verifier::NONE.with(VerifierOption::CodeIntegrity);
        assert_eq!(found(written(), option, WindowsVersion::Win81), none, "it came with Windows 10");
    }

    #[test]
    fn a_section_within_a_page_is_told() {
        let packed = driver(",--section-alignment,0x200,--file-alignment,0x200", &[]);
        assert_eq!(watched(packed), ["section-not-page-aligned"]);
    }

    /// Not: import-table-executable, section-not-page-aligned, section-writable-and-executable
    #[test]
    fn an_image_with_rights_for_each_section_is_as_it_should_be() {
        assert!(watched(driver("", &[])).is_empty());
        assert!(watched(driver("", &[(b".idata\0\0", 0)])).is_empty());
    }
}
