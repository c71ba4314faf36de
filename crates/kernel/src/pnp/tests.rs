//! Stories of a device and its driver under Plug and Play, with drivers in Rust: what is asked, in which order, with what, and what a
//! driver must not do.

use std::cell::RefCell;
use std::rc::Rc;

use abi::{
    CM_RESOURCE_LIST, Code, DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DRIVER_EXTENSION, DRIVER_OBJECT,
    DriverPtr, FILE_DEVICE_UNKNOWN, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MJ_PNP, IRP_MJ_POWER,
    IRP_MN_FILTER_RESOURCE_REQUIREMENTS, IRP_MN_QUERY_PNP_DEVICE_STATE, IRP_MN_QUERY_REMOVE_DEVICE,
    IRP_MN_QUERY_STOP_DEVICE, IRP_MN_READ_CONFIG, IRP_MN_REMOVE_DEVICE, IRP_MN_SET_POWER,
    IRP_MN_START_DEVICE, IRP_MN_STOP_DEVICE, IRP_MN_SURPRISE_REMOVAL, NtStatus, PNP_DEVICE_FAILED,
    PowerDeviceD0, PowerDeviceD3, REG_MULTI_SZ,
};
use engine::Flow;

use super::node::State;
use super::{
    Drivers, Filters, Installation, NodeId, StartFailure, bus_interface, devices, enumerate, install,
    invalidate, named, property, query_remove, query_stop, remove, request, restart, state, stop,
    surprise_remove,
};
use crate::cm::access;
use crate::cx::Cx;
use crate::hal::rig::{Card, machine};
use crate::io;
use crate::io::driver::NewDriver;
use crate::ke::rig::{Trace, message, rule, settle, spawn};
use crate::mm::pool;
use crate::po;
use crate::verdict::Tier;

type Routine = fn(&mut Cx<'_>, &[u64]) -> Flow<u64>;

/// Where the drivers' routines seem to be.
const ADD_DEVICE: u64 = 0x1000;
const DISPATCH: u64 = 0x2000;
const COMPLETION: u64 = 0x3000;

/// A driver object with these routines.
fn driver(cx: &mut Cx<'_>, add_device: Routine, dispatch: Routine) -> DriverPtr<DRIVER_OBJECT> {
    let new = NewDriver {
        directory: "\\Driver",
        service: "card".to_owned(),
        base: 0,
        size: 0,
        entry: DriverPtr::NULL,
        section: DriverPtr::NULL,
    };
    let driver = io::driver::create_driver(cx, &new).unwrap().unwrap();
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension).unwrap();
    cx.write(extension + DRIVER_EXTENSION::AddDevice, DriverPtr::new(ADD_DEVICE)).unwrap();
    for major in [IRP_MJ_PNP, IRP_MJ_POWER] {
        let slot = (driver + DRIVER_OBJECT::MajorFunction).element(major.into());
        cx.write(slot, DriverPtr::<Code>::new(DISPATCH)).unwrap();
    }
    cx.with(|k| {
        k.io.rust_routines.insert(ADD_DEVICE, add_device);
        k.io.rust_routines.insert(DISPATCH, dispatch);
    });
    driver
}

fn start(cx: &mut Cx<'_>, id: NodeId, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<super::start::Started> {
    super::start(cx, id, &Drivers::without_filters(driver))
}

/// `AddDevice` as in a book; the device below is kept in the extension.
fn add_device(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
    let new = io::device::NewDevice {
        extension: 8,
        name: r"\Device\Card0".to_owned(),
        device_type: FILE_DEVICE_UNKNOWN,
        characteristics: 0,
        exclusive: false,
    };
    let device = io::device::create(cx, DriverPtr::new(arguments[0]), new)?.unwrap();
    let below = io::stack::attach_to_stack(cx, device, DriverPtr::new(arguments[1]))?;
    let extension = cx.read(device + DEVICE_OBJECT::DeviceExtension)?;
    cx.write(extension.cast(), below.address)?;
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    cx.write(device + DEVICE_OBJECT::Flags, flags & !DO_DEVICE_INITIALIZING | abi::DO_POWER_PAGABLE)?;
    Ok(0)
}

fn below(cx: &mut Cx<'_>, device: u64) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let extension = cx.read(DriverPtr::<DEVICE_OBJECT>::new(device) + DEVICE_OBJECT::DeviceExtension)?;
    Ok(DriverPtr::new(cx.read(extension.cast::<u64>())?))
}

/// `IoSkipCurrentIrpStackLocation`, `IoCallDriver`.
fn forward(cx: &mut Cx<'_>, device: u64, irp: DriverPtr<IRP>) -> Flow<u64> {
    let below = below(cx, device)?;
    let current = cx.read(irp + IRP::CurrentLocation)?;
    let location = cx.read(irp + IRP::Tail_Overlay_CurrentStackLocation)?;
    cx.write(irp + IRP::CurrentLocation, current + 1)?;
    cx.write(irp + IRP::Tail_Overlay_CurrentStackLocation, location.index(1))?;
    Ok(io::irp::call_driver(cx, below, irp)?.0.into())
}

fn set_status(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, status: NtStatus) -> Flow<()> {
    cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status, status)
}

fn complete(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, status: NtStatus) -> Flow<u64> {
    set_status(cx, irp, status)?;
    io::irp::complete(cx, irp, 0)?;
    Ok(status.0.into())
}

fn minor(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<(u8, DriverPtr<IO_STACK_LOCATION>)> {
    let location = io::irp::current(cx, irp)?;
    Ok((cx.read(location + IO_STACK_LOCATION::MinorFunction)?, location))
}

/// A function driver that passes everything down and takes itself away on removal.
fn good(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
    let (device, irp) = (arguments[0], DriverPtr::<IRP>::new(arguments[1]));
    let (minor, location) = minor(cx, irp)?;
    let major = cx.read(location + IO_STACK_LOCATION::MajorFunction)?;
    if major != IRP_MJ_PNP {
        return forward(cx, device, irp);
    }
    if matches!(minor, IRP_MN_REMOVE_DEVICE | IRP_MN_SURPRISE_REMOVAL | 1 | 3 | 4 | 5 | 6) {
        set_status(cx, irp, NtStatus::SUCCESS)?;
    }
    let lower = below(cx, device)?;
    let status = forward(cx, device, irp)?;
    if minor == IRP_MN_REMOVE_DEVICE {
        io::stack::detach(cx, lower)?;
        io::device::delete(cx, DriverPtr::new(device))?;
    }
    Ok(status)
}

/// Runs `story` on a thread of a machine whose devices have been found.
fn with_card(
    story: impl FnOnce(&mut Cx<'_>, NodeId, &Rc<RefCell<Card>>) -> Flow<()> + 'static,
) -> Vec<String> {
    let mut lines = Vec::new();
    machine(|cx, card| {
        let trace = Trace::of(cx);
        let (card, done) = (card.clone(), Rc::new(RefCell::new(false)));
        let finished = done.clone();
        spawn(cx, "test", move |cx| {
            enumerate(cx)?;
            let id = named(cx, "card#0").expect("the card");
            story(cx, id, &card)?;
            *finished.borrow_mut() = true;
            Ok(())
        });
        settle(cx);
        assert_eq!(cx.nt().verdict().map(|verdict| verdict.rule), None, "{}", message(cx));
        assert!(*done.borrow(), "the story did not come to its end");
        let traced = trace.lines();
        engine::outside(|| lines = traced);
    });
    lines
}

/// As [`with_card`]; the run must end with this rule.
fn must_stop(expected: &'static str, story: impl FnOnce(&mut Cx<'_>, NodeId) -> Flow<()> + 'static) {
    machine(|cx, _| {
        spawn(cx, "test", move |cx| {
            enumerate(cx)?;
            let id = named(cx, "card#0").expect("the card");
            story(cx, id)
        });
        settle(cx);
        assert_eq!(rule(cx), Some(expected), "{}", message(cx));
    });
}

/// The minor functions of PnP requests as a device got them.
fn minors(lines: &[String], device: u64) -> Vec<u8> {
    let mark = format!("device: {device}, major: 27, minor: ");
    lines
        .iter()
        .filter_map(|line| line.split_once(mark.as_str()))
        .map(|(_, rest)| rest.trim_end_matches([' ', '}']).parse().unwrap())
        .collect()
}

/// Holds: irps/add-from-below
#[test]
fn a_card_is_found_and_asked_who_it_is_in_windows_order() {
    let device = Rc::new(std::cell::Cell::new(0));
    let seen = device.clone();
    let lines = with_card(move |cx, id, _| {
        seen.set(id.0);
        let all = devices(cx);
        assert_eq!(all.len(), 1);
        let card = &all[0];
        assert_eq!((card.name.as_str(), card.state), ("card#0", State::Enumerated));
        assert_eq!(card.instance_path, r"PCI\VEN_10B5&DEV_9050&SUBSYS_227310B5&REV_02\3&11583659&0&18");
        assert_eq!(card.answers.compatible_ids.len(), 7);
        assert_eq!(card.answers.location, "PCI bus 0, device 3, function 0");
        assert_eq!(card.answers.capabilities[8..12], [0, 0, 3, 0]);
        assert_eq!(card.answers.bus[16..], [5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(card.answers.boot_resources.len(), 20 + 5 * 20);
        let name = cx.with(|k| k.ob.objects.get(id.0).expect("it exists").path.clone());
        assert_eq!(name.as_deref(), Some(r"\Device\NTPNP_PCI0001"));
        Ok(())
    });
    assert_eq!(minors(&lines, device.get()), [0x13, 9, 0xC, 0xC, 0x13, 0x13, 0x13, 0x13, 0x15, 0xA, 0xB]);
}

/// Holds: irps/requirements-then-start, irps/asked-after-start
#[test]
fn a_device_is_started_with_what_the_firmware_gave_it_and_asked_what_it_can_do() {
    fn sees_its_resources(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, location) = minor(cx, irp)?;
        if minor == IRP_MN_START_DEVICE {
            let raw = cx.read(location + IO_STACK_LOCATION::Parameters_StartDevice_AllocatedResources)?;
            let translated =
                cx.read(location + IO_STACK_LOCATION::Parameters_StartDevice_AllocatedResourcesTranslated)?;
            assert_eq!(cx.read(raw + CM_RESOURCE_LIST::Count)?, 1);
            let raw = cx.read_bytes(raw.address, 120)?;
            let translated = cx.read_bytes(translated.address, 120)?;
            assert_eq!(raw[20..28], [3, 1, 0, 0, 0, 0, 0, 0xE0], "memory first");
            assert_eq!(raw[60..68], [1, 1, 0x31, 0, 0, 0xC0, 0, 0], "then the ports");
            assert_eq!(raw[100..112], [2, 3, 0, 0, 17, 0, 0, 0, 17, 0, 0, 0], "then line 17");
            let vector = crate::ke::interrupt::vector_of_line(17);
            assert_eq!(u32::from(translated[104]), vector >> 4);
            assert_eq!(u32::from(translated[108]), vector);
            assert_eq!(translated[112..120], [1, 0, 0, 0, 0, 0, 0, 0], "processor 0");
        }
        good(cx, arguments)
    }
    let device = Rc::new(std::cell::Cell::new(0));
    let seen = device.clone();
    let lines = with_card(move |cx, id, card| {
        card.borrow_mut().config[4] = 0;
        let driver = driver(cx, add_device, sees_its_resources);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        seen.set(cx.read(id.pdo() + DEVICE_OBJECT::AttachedDevice)?.address);
        assert_eq!(state(cx, id), State::Started);
        assert_eq!(card.borrow().config[4], 7, "it decodes, and may master the bus");
        let interrupt = cx.with(|k| super::interrupt_of(k, id.pdo())).unwrap();
        assert_eq!((interrupt.line, interrupt.affinity), (17, 1));
        Ok(())
    });
    assert_eq!(minors(&lines, device.get()), [0xB, 0xD, 0, 9, 0x14, 7]);
    let steps: Vec<&String> = lines.iter().filter(|line| line.contains("Pnp {")).collect();
    assert_eq!(steps.len(), 4, "{steps:?}");
}

/// Holds: irps/query-then-stop
#[test]
fn a_stopped_device_decodes_nothing_and_starts_again_with_the_same_resources() {
    with_card(|cx, id, card| {
        let driver = driver(cx, add_device, good);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        assert_eq!(query_stop(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(state(cx, id), State::StopPending);
        assert_eq!(stop(cx, id)?, NtStatus::SUCCESS);
        assert_eq!((state(cx, id), card.borrow().config[4] & 7), (State::Stopped, 0));
        assert_eq!(crate::hal::access::port_read(cx, 0xC000, 4)?, u32::MAX.into());
        assert_eq!(cx.nt().findings().last().map(|f| f.rule), Some("resource-used-after-release"));
        assert_eq!(restart(cx, id)?, Ok(()));
        assert_eq!((state(cx, id), card.borrow().config[4] & 7), (State::Started, 7));
        Ok(())
    });
}

/// Holds: irps/stop-refused
#[test]
fn a_driver_that_will_not_stop_is_told_that_it_need_not() {
    fn stubborn(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, _) = minor(cx, irp)?;
        if minor == IRP_MN_QUERY_STOP_DEVICE || minor == IRP_MN_QUERY_REMOVE_DEVICE {
            return complete(cx, irp, NtStatus::DEVICE_BUSY);
        }
        good(cx, arguments)
    }
    let device = Rc::new(std::cell::Cell::new(0));
    let seen = device.clone();
    let lines = with_card(move |cx, id, _| {
        let driver = driver(cx, add_device, stubborn);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        seen.set(cx.read(id.pdo() + DEVICE_OBJECT::AttachedDevice)?.address);
        assert_eq!(stop(cx, id)?, NtStatus::DEVICE_BUSY);
        assert_eq!(remove(cx, id)?, NtStatus::DEVICE_BUSY);
        assert_eq!(state(cx, id), State::Started);
        Ok(())
    });
    assert_eq!(minors(&lines, device.get())[6..], [5, 6, 7, 1, 3]);
}

/// Holds: irps/query-then-remove
#[test]
fn a_removed_device_leaves_nothing_and_can_be_started_again() {
    with_card(|cx, id, card| {
        let driver = driver(cx, add_device, good);
        for _ in 0..2 {
            assert_eq!(start(cx, id, driver)?, Ok(()));
            assert_eq!(query_remove(cx, id)?, NtStatus::SUCCESS);
            assert_eq!(remove(cx, id)?, NtStatus::SUCCESS);
            assert_eq!((state(cx, id), card.borrow().config[4] & 7), (State::Enumerated, 0));
        }
        assert!(cx.nt().findings().is_empty());
        Ok(())
    });
}

/// Holds: irps/open-files, irps/refused
#[test]
fn an_open_file_keeps_a_device_from_being_removed() {
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, good);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        let top = cx.read(id.pdo() + DEVICE_OBJECT::AttachedDevice)?;
        cx.write(top + DEVICE_OBJECT::ReferenceCount, 1)?;
        assert_eq!(remove(cx, id)?, NtStatus::DEVICE_BUSY);
        cx.write(top + DEVICE_OBJECT::ReferenceCount, 0)?;
        assert_eq!(remove(cx, id)?, NtStatus::SUCCESS);
        Ok(())
    });
}

/// Holds: irps/surprise-then-remove
#[test]
fn after_surprise_removal_the_drivers_wait_for_the_last_file() {
    with_card(|cx, id, card| {
        let driver = driver(cx, add_device, good);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        let top = cx.read(id.pdo() + DEVICE_OBJECT::AttachedDevice)?;
        cx.write(top + DEVICE_OBJECT::ReferenceCount, 1)?;
        assert_eq!(surprise_remove(cx, id)?, NtStatus::SUCCESS);
        assert!(!card.borrow().present);
        assert_eq!(state(cx, id), State::SurpriseRemoved);
        cx.write(top + DEVICE_OBJECT::ReferenceCount, 0)?;
        super::surprise::file_closed(cx, top)?;
        let pause = pool::allocate(cx, pool::Kind::NonPaged, 8, 1)?;
        cx.write(pause, -10_000_i64)?;
        let _ = crate::ke::wait::delay(cx, 0, false, pause)?;
        assert_eq!(state(cx, id), State::Deleted);
        assert!(devices(cx).is_empty());
        Ok(())
    });
}

/// Holds: irps/failed-start
#[test]
fn a_start_that_fails_is_followed_by_a_removal() {
    fn broken(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, _) = minor(cx, irp)?;
        if minor == IRP_MN_START_DEVICE {
            return complete(cx, irp, NtStatus::DEVICE_CONFIGURATION_ERROR);
        }
        good(cx, arguments)
    }
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, broken);
        let failed = start(cx, id, driver)?.unwrap_err();
        let expected = StartFailure {
            step: "IRP_MN_START_DEVICE",
            status: NtStatus::DEVICE_CONFIGURATION_ERROR,
            why: String::new(),
        };
        assert_eq!((failed, state(cx, id)), (expected, State::Enumerated));
        assert!(cx.read(id.pdo() + DEVICE_OBJECT::AttachedDevice)?.is_null());
        Ok(())
    });
}

/// Holds: irps/failed-device
#[test]
fn a_device_that_says_it_failed_is_removed() {
    fn failing(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, _) = minor(cx, irp)?;
        if minor == IRP_MN_QUERY_PNP_DEVICE_STATE && !cx.nt().findings().is_empty() {
            set_status(cx, irp, NtStatus::SUCCESS)?;
            cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Information, PNP_DEVICE_FAILED.into())?;
        }
        good(cx, arguments)
    }
    with_card(|cx, id, card| {
        let driver = driver(cx, add_device, failing);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        crate::hal::access::port_read(cx, 0x80, 1)?; // a finding, so that it fails from now on
        invalidate::state(cx, id.pdo())?;
        let pause = pool::allocate(cx, pool::Kind::NonPaged, 8, 1)?;
        cx.write(pause, -10_000_i64)?;
        let _ = crate::ke::wait::delay(cx, 0, false, pause)?;
        assert_eq!((state(cx, id), card.borrow().present), (State::Enumerated, true));
        Ok(())
    });
}

#[test]
fn a_filter_may_take_resources_away() {
    fn without_interrupt(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, location) = minor(cx, irp)?;
        if minor == IRP_MN_FILTER_RESOURCE_REQUIREMENTS {
            let field = IO_STACK_LOCATION::Parameters_FilterResourceRequirements_IoResourceRequirementList;
            let list = cx.read(location + field)?;
            let size = cx.read(list.cast::<u32>())?;
            cx.write(list.cast::<u32>(), size - 0x20)?;
            let count = DriverPtr::<u32>::new(list.address + 0x24);
            let had = cx.read(count)?;
            cx.write(count, had - 1)?;
            set_status(cx, irp, NtStatus::SUCCESS)?;
            cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Information, list.address)?;
        }
        good(cx, arguments)
    }
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, without_interrupt);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        assert_eq!(cx.with(|k| super::interrupt_of(k, id.pdo())), None);
        Ok(())
    });
}

#[test]
fn a_removal_must_not_fail() {
    fn refusing(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, _) = minor(cx, irp)?;
        if minor == IRP_MN_REMOVE_DEVICE {
            return complete(cx, irp, NtStatus::UNSUCCESSFUL);
        }
        good(cx, arguments)
    }
    must_stop("pnp-request-failed", |cx, id| {
        let driver = driver(cx, add_device, refusing);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        remove(cx, id).map(|_| ())
    });
}

#[test]
fn a_removal_that_was_done_and_says_that_it_failed_is_the_verifiers() {
    fn gloomy(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, _) = minor(cx, irp)?;
        if minor == abi::IRP_MN_CANCEL_REMOVE_DEVICE {
            cx.with(|k| k.pnp.nodes.values_mut().for_each(|node| node.seen = true));
            return complete(cx, irp, NtStatus::UNSUCCESSFUL);
        }
        good(cx, arguments)
    }
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, gloomy);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        assert_eq!(query_remove(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(super::remove::cancel_remove(cx, id)?, NtStatus::SUCCESS);
        let found = cx.nt().findings();
        let rules: Vec<_> = found.iter().map(|finding| (finding.rule, finding.tier)).collect();
        assert_eq!(rules, [("pnp-request-failed", Tier::Verifier)]);
        Ok(())
    });
}

#[test]
fn a_stop_must_reach_the_bus_driver() {
    fn keeping(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, _) = minor(cx, irp)?;
        if minor == IRP_MN_STOP_DEVICE {
            return complete(cx, irp, NtStatus::SUCCESS);
        }
        good(cx, arguments)
    }
    must_stop("pnp-request-not-passed-down", |cx, id| {
        let driver = driver(cx, add_device, keeping);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        stop(cx, id).map(|_| ())
    });
}

/// A removal that passes down and does only some of what must be done.
fn half_removal(cx: &mut Cx<'_>, arguments: &[u64], detach: bool) -> Flow<u64> {
    let (device, irp) = (arguments[0], DriverPtr::<IRP>::new(arguments[1]));
    let (minor, _) = minor(cx, irp)?;
    if minor != IRP_MN_REMOVE_DEVICE {
        return good(cx, arguments);
    }
    let lower = below(cx, device)?;
    set_status(cx, irp, NtStatus::SUCCESS)?;
    let status = forward(cx, device, irp)?;
    if detach {
        io::stack::detach(cx, lower)?;
    }
    Ok(status)
}

#[test]
fn a_removed_device_must_be_detached() {
    fn attached(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        half_removal(cx, arguments, false)
    }
    must_stop("device-not-detached", |cx, id| {
        let driver = driver(cx, add_device, attached);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        remove(cx, id).map(|_| ())
    });
}

#[test]
fn a_removed_device_must_be_deleted() {
    fn there(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        half_removal(cx, arguments, true)
    }
    must_stop("device-not-deleted", |cx, id| {
        let driver = driver(cx, add_device, there);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        remove(cx, id).map(|_| ())
    });
}

#[test]
fn surprise_removal_is_no_time_to_go() {
    fn early(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let (device, irp) = (arguments[0], DriverPtr::<IRP>::new(arguments[1]));
        let (minor, _) = minor(cx, irp)?;
        let status = good(cx, arguments)?;
        if minor == IRP_MN_SURPRISE_REMOVAL {
            let lower = below(cx, device)?;
            io::stack::detach(cx, lower)?;
        }
        Ok(status)
    }
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, early);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        assert_eq!(surprise_remove(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(state(cx, id), State::Deleted);
        let found = cx.nt().findings();
        let rules: Vec<_> = found.iter().map(|finding| (finding.rule, finding.tier)).collect();
        assert_eq!(rules, [("detached-in-surprise-removal", Tier::Verifier)]);
        Ok(())
    });
}

#[test]
fn add_device_that_attaches_nothing_is_told() {
    fn lazy(_: &mut Cx<'_>, _: &[u64]) -> Flow<u64> {
        Ok(0)
    }
    with_card(|cx, id, _| {
        let driver = driver(cx, lazy, good);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        let found = cx.nt().findings();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rule, found[0].tier), ("add-device-attached-nothing", Tier::Warning));
        Ok(())
    });
}

#[test]
fn a_driver_reads_configuration_space_by_request_and_by_interface() {
    with_card(|cx, id, _| {
        let buffer: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, 0x100, 1)?;
        let answer = request::ask(cx, id, IRP_MN_READ_CONFIG, [0, buffer.address, 0x2C, 4])?;
        assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, 4));
        assert_eq!(cx.read_bytes(buffer.address, 4)?, [0xB5, 0x10, 0x73, 0x22]);
        assert_eq!(bus_interface::get_data(cx, id.0, 0, buffer, 0, 2)?, 2);
        assert_eq!(cx.read_bytes(buffer.address, 2)?, [0xB5, 0x10]);
        cx.write(buffer.cast::<u8>(), 0x77)?;
        assert_eq!(bus_interface::set_data(cx, id.0, 0, buffer, 0x3C, 1)?, 1);
        assert_eq!(bus_interface::get_data(cx, id.0, 0, buffer, 0x3C, 1)?, 1);
        assert_eq!(cx.read_bytes(buffer.address, 1)?, [0x77]);
        Ok(())
    });
}

#[test]
fn a_driver_asks_for_properties_of_its_device() {
    with_card(|cx, id, _| {
        let installation = Installation {
            service: "card".to_owned(),
            description: "A card".to_owned(),
            manufacturer: "dirql".to_owned(),
            class: "System".to_owned(),
            class_guid: "{4d36e97d-e325-11ce-bfc1-08002be10318}".to_owned(),
            ..Installation::default()
        };
        install(cx, id, installation)?;
        let buffer: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, 0x200, 1)?;
        let needed = DriverPtr::new(buffer.address + 0x1F8);
        let text = |cx: &mut Cx<'_>, property| {
            let status = property::get(cx, id.pdo(), property, 0x1F0, buffer, needed)?;
            assert_eq!(status, NtStatus::SUCCESS);
            let length = cx.read(needed)?;
            let bytes = cx.read_bytes(buffer.address, length.into())?;
            let units: Vec<u16> = bytes.chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
            Ok(String::from_utf16_lossy(&units))
        };
        assert_eq!(text(cx, abi::DevicePropertyDeviceDescription)?, "A card\0");
        assert_eq!(text(cx, abi::DevicePropertyPhysicalDeviceObjectName)?, "\\Device\\NTPNP_PCI0001\0");
        assert_eq!(text(cx, abi::DevicePropertyEnumeratorName)?, "PCI\0");
        assert_eq!(
            text(cx, abi::DevicePropertyDriverKeyName)?,
            "{4d36e97d-e325-11ce-bfc1-08002be10318}\\0000\0"
        );
        assert!(text(cx, abi::DevicePropertyHardwareID)?.ends_with("&CC_0680\0\0"));
        let short = property::get(cx, id.pdo(), abi::DevicePropertyDeviceDescription, 4, buffer, needed)?;
        assert_eq!((short, cx.read(needed)?), (NtStatus::BUFFER_TOO_SMALL, 14));
        let none = property::get(cx, id.pdo(), abi::DevicePropertyFriendlyName, 4, buffer, needed)?;
        assert_eq!(none, NtStatus::OBJECT_NAME_NOT_FOUND);
        Ok(())
    });
    must_stop("not-a-physical-device", |cx, id| {
        let driver = driver(cx, add_device, good);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        let top = cx.read(id.pdo() + DEVICE_OBJECT::AttachedDevice)?;
        property::get(cx, top, 0, 0, DriverPtr::NULL, DriverPtr::NULL).map(|_| ())
    });
}

#[test]
fn a_requested_power_irp_goes_through_the_stack_and_calls_back() {
    fn completed(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let [_, minor, state, context, block] = arguments else { panic!("five arguments") };
        assert_eq!((*minor, *state), (IRP_MN_SET_POWER.into(), PowerDeviceD3.into()));
        let status = cx.read(DriverPtr::<IO_STATUS_BLOCK>::new(*block) + IO_STATUS_BLOCK::Status)?;
        assert_eq!(status, NtStatus::SUCCESS);
        cx.write(DriverPtr::<u64>::new(*context), 1)?;
        Ok(0)
    }
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, good);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        let flag: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, 16, 1)?;
        cx.with(|k| k.io.rust_routines.insert(COMPLETION, completed));
        let (minor, state) = (IRP_MN_SET_POWER, PowerDeviceD3);
        let routine = DriverPtr::new(COMPLETION);
        let status =
            po::request::request(cx, id.pdo(), minor, state, routine, flag.address, DriverPtr::NULL)?;
        assert_eq!(status, NtStatus::PENDING);
        let pause = DriverPtr::new(flag.address + 8);
        cx.write(pause, -10_000_i64)?;
        let _ = crate::ke::wait::delay(cx, 0, false, pause)?;
        assert_eq!((cx.read(flag)?, cx.with(|k| k.pnp.node(id).power)), (1, PowerDeviceD3));
        assert_eq!(po::state::set(cx, id.pdo(), 1, PowerDeviceD3)?, 0);
        assert_eq!(po::state::set(cx, id.pdo(), 1, PowerDeviceD0)?, PowerDeviceD3);
        Ok(())
    });
}

#[test]
fn a_power_state_that_does_not_exist_is_told_and_nothing_stops() {
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, good);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        for state in [0, 77] {
            assert_eq!(po::state::set(cx, id.pdo(), 1, state)?, 0, "no state was set before");
            let (minor, null) = (IRP_MN_SET_POWER, DriverPtr::NULL);
            let status = po::request::request(cx, id.pdo(), minor, state, null, 0, DriverPtr::NULL)?;
            assert_eq!(status, NtStatus::PENDING);
        }
        let pause = pool::allocate(cx, pool::Kind::NonPaged, 8, 1)?;
        cx.write(pause, -10_000_i64)?;
        let _ = crate::ke::wait::delay(cx, 0, false, pause)?;
        assert_eq!(
            po::state::set(cx, id.pdo(), 1, PowerDeviceD3)?,
            0,
            "what does not exist is not remembered"
        );
        let rules: Vec<_> = cx.nt().findings().iter().map(|it| (it.rule, it.tier)).collect();
        assert_eq!(rules, [("bad-power-state", Tier::Warning); 4]);
        Ok(())
    });
}

/// Holds: irps/query-then-set
#[test]
fn the_system_sleeps_only_if_every_driver_agrees() {
    fn sleepless(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (minor, location) = minor(cx, irp)?;
        let major = cx.read(location + IO_STACK_LOCATION::MajorFunction)?;
        if (major, minor) == (IRP_MJ_POWER, abi::IRP_MN_QUERY_POWER) {
            assert_eq!(
                cx.read(location + IO_STACK_LOCATION::Parameters_Power_State)?,
                abi::PowerSystemSleeping3
            );
            return complete(cx, irp, NtStatus::DEVICE_BUSY);
        }
        good(cx, arguments)
    }
    with_card(|cx, id, _| {
        let good = driver(cx, add_device, good);
        assert_eq!(start(cx, id, good)?, Ok(()));
        assert_eq!(po::system::set(cx, abi::PowerSystemSleeping3)?, NtStatus::SUCCESS);
        assert_eq!(po::system::set(cx, abi::PowerSystemWorking)?, NtStatus::SUCCESS);
        cx.with(|k| k.io.rust_routines.insert(DISPATCH, sleepless));
        assert_eq!(po::system::set(cx, abi::PowerSystemSleeping3)?, NtStatus::DEVICE_BUSY);
        assert!(cx.nt().findings().is_empty());
        Ok(())
    });
}

#[test]
fn a_request_that_a_removed_driver_never_completed_is_told() {
    fn keeping(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let (_, location) = minor(cx, irp)?;
        if cx.read(location + IO_STACK_LOCATION::MajorFunction)? == IRP_MJ_POWER {
            let control = cx.read(location + IO_STACK_LOCATION::Control)?;
            cx.write(location + IO_STACK_LOCATION::Control, control | abi::SL_PENDING_RETURNED)?;
            return Ok(NtStatus::PENDING.0.into());
        }
        good(cx, arguments)
    }
    // Ten minutes later the system stops.
    must_stop("power-irp-overdue", |cx, id| {
        let driver = driver(cx, add_device, keeping);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        let (minor, state) = (IRP_MN_SET_POWER, PowerDeviceD3);
        let null = DriverPtr::NULL;
        let status = po::request::request(cx, id.pdo(), minor, state, null, 0, DriverPtr::NULL)?;
        assert_eq!(status, NtStatus::PENDING);
        let pause = pool::allocate(cx, pool::Kind::NonPaged, 8, 1)?;
        cx.write(pause, -10_000_i64)?;
        let _ = crate::ke::wait::delay(cx, 0, false, pause)?;
        assert_eq!(remove(cx, id)?, NtStatus::SUCCESS);
        let rules: Vec<&str> = cx.nt().findings().iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, ["request-pending-after-remove"]);
        Ok(())
    });
}

#[test]
fn an_installed_device_has_its_keys() {
    with_card(|cx, id, _| {
        let installation = Installation { service: "card".to_owned(), ..Installation::default() };
        install(cx, id, installation)?;
        let keys = super::install::keys(cx, id);
        assert_eq!(
            keys.hardware,
            r"\Registry\Machine\System\CurrentControlSet\Enum\PCI\VEN_10B5&DEV_9050&SUBSYS_227310B5&REV_02\3&11583659&0&18\Device Parameters"
        );
        assert_eq!(access::text(cx, &keys.instance, "Service").as_deref(), Some("card"));
        let ids = crate::cm::access::texts(cx, &keys.instance, "HardwareID").unwrap();
        assert_eq!(ids.len(), 4);
        let handle: DriverPtr<u64> = pool::allocate(cx, pool::Kind::NonPaged, 8, 1)?;
        for kind in [abi::PLUGPLAY_REGKEY_DEVICE, abi::PLUGPLAY_REGKEY_DRIVER] {
            assert_eq!(super::registry::open(cx, id.pdo(), kind, 0x2_0019, handle)?, NtStatus::SUCCESS);
            let opened = cx.read(handle)?;
            assert_eq!(crate::ob::handle::zw_close(cx, opened)?, NtStatus::SUCCESS);
        }
        let wrong = super::registry::open(cx, DriverPtr::NULL, 1, 0x2_0019, handle)?;
        assert_eq!(wrong, NtStatus::INVALID_DEVICE_REQUEST);
        Ok(())
    });
}

#[test]
fn each_inf_has_the_name_that_windows_publishes_it_by() {
    with_card(|cx, id, _| {
        let mut published = |inf: &str| {
            let installation = Installation { inf: inf.to_owned(), ..Installation::default() };
            install(cx, id, installation)?;
            let driver = super::install::keys(cx, id).driver.expect("it is installed");
            Ok(access::text(cx, &driver, "InfPath"))
        };
        assert_eq!(published("")?, None, "what no INF has installed has no such value");
        assert_eq!(published("first/card.inf")?.as_deref(), Some("oem0.inf"));
        assert_eq!(published("second/card.inf")?.as_deref(), Some("oem1.inf"));
        assert_eq!(published("First/Card.inf")?.as_deref(), Some("oem0.inf"), "installed again");
        assert_eq!(published("third.inf")?.as_deref(), Some("oem2.inf"));
        Ok(())
    });
}

#[test]
fn the_registry_names_the_filters_of_a_device_and_of_its_class() {
    with_card(|cx, id, _| {
        let filters = |name: &str| Filters {
            lower: vec![format!("{name}0"), format!("{name}1")],
            ..Filters::default()
        };
        let class_guid = super::install::UNKNOWN_CLASS.to_owned();
        let (own, class) = (filters("own"), filters("class"));
        install(
            cx,
            id,
            Installation { filters: own, class_filters: class, class_guid, ..Installation::default() },
        )?;
        let instance = super::install::keys(cx, id).instance;
        let class = format!(r"{}\{}", access::CLASS, super::install::UNKNOWN_CLASS);
        for (key, names) in [(instance, ["own0", "own1"]), (class, ["class0", "class1"])] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let expected = Some((REG_MULTI_SZ, access::multi_sz(&names)));
            let found = access::value(cx, &key, "LowerFilters").map(|value| (value.kind, value.data));
            assert_eq!(found, expected, "{key}");
            assert!(access::value(cx, &key, "UpperFilters").is_none(), "there are none");
        }
        Ok(())
    });
}

/// Not: bad-device-id
#[test]
fn an_id_has_only_characters_that_an_id_may_have() {
    /// `IRP_MN_QUERY_ID`.
    const QUERY_ID: u8 = abi::IRP_MN_QUERY_ID;
    fn answer(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, text: &[u16]) -> Flow<u64> {
        let block: DriverPtr<u16> = pool::allocate(cx, pool::Kind::Paged, 64, pool::tag(b"Test"))?;
        for (index, unit) in (0..).zip(text) {
            cx.write(block.index(index), *unit)?;
        }
        cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Information, block.address)?;
        complete(cx, irp, NtStatus::SUCCESS)
    }
    fn named_well(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let asked = minor(cx, irp)?.0 == QUERY_ID;
        if asked { answer(cx, irp, &[0x41, 0x42, 0]) } else { good(cx, arguments) }
    }
    fn named_with_a_comma(cx: &mut Cx<'_>, arguments: &[u64]) -> Flow<u64> {
        let irp = DriverPtr::<IRP>::new(arguments[1]);
        let asked = minor(cx, irp)?.0 == QUERY_ID;
        if asked { answer(cx, irp, &[0x41, 0x2C, 0]) } else { good(cx, arguments) }
    }
    with_card(|cx, id, _| {
        let driver = driver(cx, add_device, named_well);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        assert_eq!(request::text(cx, id, QUERY_ID, abi::BusQueryDeviceID)?, "AB");
        Ok(())
    });
    must_stop("bad-device-id", |cx, id| {
        let driver = driver(cx, add_device, named_with_a_comma);
        assert_eq!(start(cx, id, driver)?, Ok(()));
        request::text(cx, id, QUERY_ID, abi::BusQueryDeviceID).map(|_| ())
    });
}
