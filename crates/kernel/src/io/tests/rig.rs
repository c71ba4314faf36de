//! A machine with drivers in Rust: their routines stand in the driver object like compiled ones.

use abi::{Code, DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, NtStatus};
use engine::Flow;

use crate::cx::Cx;
use crate::event::Kind;
use crate::io::device::{self, NewDevice};
use crate::io::driver::{self, NewDriver};
use crate::io::irp;
use crate::io::routine::RustRoutine;
use crate::ke::rig;
use crate::ke::scheduler::End;
use crate::mm::user;
use crate::nt::Settings;
use crate::ob;
use crate::verdict::{Tier, Verdict};
use crate::verifier::{Verifier, VerifierOption};

pub(crate) type Device = DriverPtr<DEVICE_OBJECT>;
pub(crate) type Driver = DriverPtr<DRIVER_OBJECT>;
pub(crate) type Irp = DriverPtr<IRP>;

/// How a story ended.
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) findings: Vec<Verdict>,
    pub(crate) trace: Vec<String>,
}

impl Outcome {
    /// Nothing was wrong and every thread came to its end.
    pub(crate) fn clean(&self) {
        assert!(self.verdict.is_none(), "{:?}", self.verdict);
        assert!(self.findings.is_empty(), "{:?}", self.findings);
        assert_eq!(self.end, End::Quiet);
    }

    fn only(&self) -> &Verdict {
        let is_verifiers = |finding: &&Verdict| finding.tier == Tier::Verifier;
        let verdict = self.verdict.as_ref().or_else(|| self.findings.iter().find(is_verifiers));
        verdict.expect("a verdict was expected")
    }

    /// What the verdict says.
    pub(crate) fn message(&self) -> &str {
        &self.only().message
    }

    /// The rule and the bug check's code and first parameter.
    pub(crate) fn verdict(&self) -> (&'static str, u32, u64) {
        let verdict = self.only();
        let check = verdict.bug_check;
        (verdict.rule, check.map_or(0, |c| c.code), check.map_or(0, |c| c.parameters[0]))
    }
}

/// Runs `story` as an application's thread, and the machine until nothing happens any more.
pub(crate) fn story(story: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static) -> Outcome {
    story_without(&[], story)
}

/// As [`story`]; these events are not traced.
pub(crate) fn story_without(
    unheard: &'static [Kind],
    story: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static,
) -> Outcome {
    rig::Rig::default().run(|cx| tell(cx, unheard, story))
}

/// As [`story`], where Verifier watches for what this option is for.
pub(crate) fn story_watched(
    option: VerifierOption,
    story: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static,
) -> Outcome {
    let settings = Settings { verifier: Verifier::NONE.with(option), ..Settings::default() };
    rig::Rig { settings, ..rig::Rig::default() }.run(|cx| tell(cx, &[], story))
}

/// As [`story`], in a machine with a PCI card, `card#0`.
pub(crate) fn story_with_card(story: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static) -> Outcome {
    let mut outcome = None;
    crate::hal::rig::machine(|cx, _| outcome = Some(tell(cx, &[], story)));
    outcome.expect("the machine has run")
}

fn tell(
    cx: &mut Cx<'_>,
    unheard: &'static [Kind],
    story: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static,
) -> Outcome {
    let trace = rig::Trace::without(cx, unheard);
    let done = std::rc::Rc::new(std::cell::Cell::new(false));
    let flag = done.clone();
    rig::spawn(cx, "application", move |cx| {
        story(cx)?;
        flag.set(true);
        Ok(())
    });
    let end = rig::settle(cx);
    let (verdict, findings) = (cx.nt().verdict(), cx.nt().findings());
    assert!(done.get() || verdict.is_some(), "the story stands still");
    // Copies that outlive the machine's heap.
    let (verdict, findings) = engine::outside(|| (verdict.clone(), findings.clone()));
    Outcome { end, verdict, findings, trace: trace.lines() }
}

/// Makes a Rust routine callable by address.
pub(crate) fn routine(cx: &mut Cx<'_>, rust: RustRoutine) -> DriverPtr<Code> {
    cx.with(|k| {
        let address = 0x7000_0000 + 16 * k.io.rust_routines.len() as u64;
        k.io.rust_routines.insert(address, rust);
        DriverPtr::new(address)
    })
}

/// A driver with dispatch routines for these major functions.
pub(crate) fn driver(cx: &mut Cx<'_>, service: &str, dispatch: &[(u8, RustRoutine)]) -> Flow<Driver> {
    let new = NewDriver {
        directory: "\\Driver",
        service: service.to_owned(),
        base: 0,
        size: 0,
        entry: DriverPtr::NULL,
        section: DriverPtr::NULL,
    };
    let driver = driver::create_driver(cx, &new)?.expect("the name is free");
    for (major, rust) in dispatch {
        let routine = routine(cx, *rust);
        cx.write((driver + DRIVER_OBJECT::MajorFunction).element((*major).into()), routine)?;
    }
    Ok(driver)
}

/// A device with `flags` (`DO_BUFFERED_IO`, …), ready for use.
pub(crate) fn device(cx: &mut Cx<'_>, driver: Driver, name: &str, flags: u32) -> Flow<Device> {
    let new = NewDevice {
        extension: 0x100,
        name: name.to_owned(),
        device_type: abi::FILE_DEVICE_UNKNOWN,
        characteristics: 0,
        exclusive: false,
    };
    let device = device::create(cx, driver, new)?.expect("the name is free");
    cx.write(device + DEVICE_OBJECT::Flags, flags)?;
    Ok(device)
}

/// What every dispatch routine of a test begins with.
pub(crate) fn arguments(arguments: &[u64]) -> (Device, Irp) {
    (DriverPtr::new(arguments[0]), DriverPtr::new(arguments[1]))
}

/// The current stack location.
pub(crate) fn location(cx: &mut Cx<'_>, irp: Irp) -> Flow<DriverPtr<IO_STACK_LOCATION>> {
    irp::current(cx, irp)
}

/// Completes and answers with the same status.
pub(crate) fn complete(cx: &mut Cx<'_>, irp: Irp, status: NtStatus, information: u64) -> Flow<u64> {
    cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status, status)?;
    cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Information, information)?;
    irp::complete(cx, irp, 0)?;
    Ok(status.0.into())
}

/// A dispatch routine that succeeds.
pub(crate) fn succeed(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    complete(cx, irp, NtStatus::SUCCESS, 0)
}

/// `IoMarkIrpPending`.
pub(crate) fn mark_pending(cx: &mut Cx<'_>, irp: Irp) -> Flow<()> {
    let location = location(cx, irp)?;
    crate::io::complete::mark_pending(cx, location)
}

/// `IoCopyCurrentIrpStackLocationToNext`, and `IoSetCompletionRoutine` for every outcome.
pub(crate) fn copy_to_next(cx: &mut Cx<'_>, irp: Irp, completion: DriverPtr<Code>, context: u64) -> Flow<()> {
    let current = irp::current(cx, irp)?;
    let next = irp::next(cx, irp)?;
    let bytes = cx.read_bytes(current.address, 0x38)?;
    cx.write_bytes(next.address, &bytes)?;
    cx.write(next + IO_STACK_LOCATION::CompletionRoutine, completion)?;
    cx.write(next + IO_STACK_LOCATION::Context, DriverPtr::new(context))?;
    let control = if completion.is_null() { 0 } else { 0xE0 };
    cx.write(next + IO_STACK_LOCATION::Control, control)
}

/// `IoSkipCurrentIrpStackLocation`.
pub(crate) fn skip(cx: &mut Cx<'_>, irp: Irp) -> Flow<()> {
    let number = cx.read(irp + IRP::CurrentLocation)? + 1;
    cx.write(irp + IRP::CurrentLocation, number)?;
    cx.write(irp + IRP::Tail_Overlay_CurrentStackLocation, irp::location(irp, number))
}

/// Memory of the application's that holds `bytes`.
pub(crate) fn user_bytes(cx: &mut Cx<'_>, bytes: &[u8]) -> u64 {
    let address = user::allocate(cx, 0, bytes.len() as u64).expect("there is memory");
    user::write(cx, address, bytes).expect("it was just allocated");
    address
}

/// A counted string in driver memory.
pub(crate) fn unicode(cx: &mut Cx<'_>, text: &str) -> Flow<DriverPtr<abi::UNICODE_STRING>> {
    let kind = crate::mm::pool::Kind::NonPaged;
    let string = crate::mm::pool::allocate(cx, kind, 0x10, 0)?;
    ob::string::allocate(cx, string, text, kind, 0)?;
    Ok(string)
}

/// The device extension, for a test's own values.
pub(crate) fn extension(cx: &mut Cx<'_>, device: Device, index: u64) -> Flow<DriverPtr<u64>> {
    Ok(cx.read(device + DEVICE_OBJECT::DeviceExtension)?.cast::<u64>().index(index))
}
