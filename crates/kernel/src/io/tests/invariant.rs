//! Buffers that must not change while a request is under way.

use abi::{
    DO_DIRECT_IO, DriverPtr, IRP, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE, IRP_MJ_READ, IRP_MJ_WRITE,
    MDL, MDL_PAGE_CONTENTS_INVARIANT, NtStatus,
};
use engine::Flow;

use super::rig::*;
use crate::cx::Cx;
use crate::io::buffers::Buffer;
use crate::io::file::{self, OpenOptions};
use crate::io::routine::RustRoutine;
use crate::io::{irp, stack};
use crate::mm::{mdl, mdl_map};
use crate::verifier::VerifierOption;

const BYTES: [u8; 4] = [1, 2, 3, 4];

fn list_of(cx: &mut Cx<'_>, irp: Irp) -> Flow<DriverPtr<MDL>> {
    cx.read(irp + IRP::MdlAddress)
}

/// Where the kernel sees the buffer.
fn mapped(cx: &mut Cx<'_>, irp: Irp) -> Flow<u64> {
    let list = list_of(cx, irp)?;
    match cx.read(list + MDL::MappedSystemVa)?.address {
        0 => mdl_map::map_locked_pages_specify_cache(cx, list, 0, 1, 0, 0, 0x4000_0010),
        at => Ok(at),
    }
}

fn change(cx: &mut Cx<'_>, irp: Irp) -> Flow<()> {
    let at = mapped(cx, irp)?;
    cx.write_bytes(at + 2, &[0x77])
}

fn pass_on(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (device, irp) = arguments(given);
    skip(cx, irp)?;
    let at = extension(cx, device, 0)?;
    let lower = DriverPtr::new(cx.read(at)?);
    Ok(irp::call_driver(cx, lower, irp)?.0.into())
}

fn change_and_pass_on(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    change(cx, arguments(given).1)?;
    pass_on(cx, given)
}

fn change_and_complete(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    change(cx, irp)?;
    complete(cx, irp, NtStatus::SUCCESS, 4)
}

fn look_and_complete(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    let at = mapped(cx, irp)?;
    assert_eq!(cx.read_bytes(at, 4)?.len(), 4);
    complete(cx, irp, NtStatus::SUCCESS, 4)
}

/// Says of the buffer that it stays as it is.
fn vouch_and_pass_on(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    let list = list_of(cx, irp)?;
    let flags = mdl::flags(cx, list)?;
    mdl::set_flags(cx, list, flags | MDL_PAGE_CONTENTS_INVARIANT)?;
    pass_on(cx, given)
}

/// An application reads or writes on a stack of these drivers, the lowest first.
fn request(major: u8, drivers: &'static [RustRoutine]) -> Outcome {
    story_watched(VerifierOption::InvariantMdl, move |cx| {
        let mut below = None;
        for (routine, name) in drivers.iter().zip(["bottom", "middle", "top"]) {
            let rest = match below {
                None => succeed as RustRoutine,
                Some(_) => pass_on,
            };
            let all =
                [(IRP_MJ_CREATE, rest), (IRP_MJ_CLEANUP, rest), (IRP_MJ_CLOSE, rest), (major, *routine)];
            let driver = driver(cx, name, &all)?;
            let path = if below.is_none() { "\\Device\\Stack" } else { "" };
            let own = device(cx, driver, path, DO_DIRECT_IO)?;
            if let Some(below) = below {
                let attached = stack::attach_to_stack(cx, own, below)?;
                let at = extension(cx, own, 0)?;
                cx.write(at, attached.address)?;
            }
            below = Some(own);
        }
        let handle = file::open(cx, "\\Device\\Stack", &OpenOptions::default())?.unwrap();
        let buffer = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        let _ = match major {
            IRP_MJ_READ => file::read(cx, handle, buffer, None)?,
            _ => file::write(cx, handle, buffer, None)?,
        };
        file::close(cx, handle).map(|_| ())
    })
}

#[test]
fn what_an_application_writes_is_changed_by_the_driver_that_completes_it_or_by_one_that_passes_it_on() {
    let below = request(IRP_MJ_WRITE, &[change_and_complete, pass_on]);
    assert_eq!(below.verdict(), ("invariant-buffer-changed", 0xC4, 0x1010));
    let message = below.message();
    assert!(message.contains("(bottom) is completed") && message.contains("byte 2"), "{message}");
    let above = request(IRP_MJ_WRITE, &[look_and_complete, change_and_pass_on]);
    assert_eq!(above.verdict(), ("invariant-buffer-changed", 0xC4, 0x1010));
    assert!(above.message().contains("was 0x3 and is 0x77"), "{}", above.message());
}

#[test]
fn what_is_read_into_a_buffer_that_stays_is_changed_on_the_way_down() {
    let outcome = request(IRP_MJ_READ, &[look_and_complete, change_and_pass_on, vouch_and_pass_on]);
    assert_eq!(outcome.verdict(), ("invariant-buffer-changed", 0xC4, 0x1011));
}

/// Not: invariant-buffer-changed
#[test]
fn a_buffer_that_is_read_by_drivers_or_filled_at_the_end_is_as_it_should_be() {
    request(IRP_MJ_WRITE, &[look_and_complete, pass_on]).clean();
    request(IRP_MJ_READ, &[change_and_complete, pass_on, vouch_and_pass_on]).clean();
    request(IRP_MJ_READ, &[look_and_complete, change_and_pass_on]).clean();
}
