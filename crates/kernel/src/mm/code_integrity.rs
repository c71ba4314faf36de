//! What does not go together with memory integrity (HVCI): executable memory that a driver asks for, and images whose code can be changed.
//!
//! Pages: *Code integrity checking*, *Implement memory integrity compatible code*. Windows without it goes on, and so do correct drivers for
//! Windows 7, which has no other nonpaged pool: nothing is looked at without Verifier's option, nor before Windows 10. *It does not* look at
//! `MmAllocateContiguousMemory`, whose callers name no protection.

use abi::{MdlMappingNoExecute, PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY};
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
    let message = format!("{name} was asked for executable pool, tag '{tag_name}': with memory integrity none is");
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
