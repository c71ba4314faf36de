//! Devices, names and drivers that come and go.

use abi::{DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DRIVER_OBJECT, DriverPtr, IRP_MJ_CREATE, NtStatus};
use engine::Flow;

use super::rig::*;
use crate::cx::Cx;
use crate::io::driver::{self as drivers, NewDriver};
use crate::io::file::{self, OpenOptions};
use crate::io::{allocate, device as devices, interface, links, stack, work_item};
use crate::ob;
use crate::ob::handle::Mode;

#[test]
fn a_device_in_use_goes_when_its_last_handle_is_closed() {
    story(|cx| {
        let driver = driver(cx, "slow", &[(IRP_MJ_CREATE, succeed)])?;
        let device = device(cx, driver, "\\Device\\Slow", 0)?;
        let handle = file::open(cx, "\\Device\\Slow", &OpenOptions::default())?.unwrap();
        devices::delete(cx, device)?;
        let again = file::open(cx, "\\Device\\Slow", &OpenOptions::default())?;
        assert_eq!(again, Err(NtStatus::OBJECT_NAME_NOT_FOUND), "its name is gone at once");
        assert!(cx.with(|k| k.io.devices.contains(device.address)));
        let _ = file::close(cx, handle)?;
        assert!(cx.with(|k| !k.io.devices.contains(device.address)));
        assert!(cx.read(driver + DRIVER_OBJECT::DeviceObject)?.is_null());
        Ok(())
    })
    .clean();
}

#[test]
fn a_device_deleted_twice_is_told() {
    let outcome = story(|cx| {
        let driver = driver(cx, "twice", &[])?;
        let device = device(cx, driver, "", 0)?;
        ob::object::reference(cx, device)?;
        devices::delete(cx, device)?;
        devices::delete(cx, device)
    });
    assert_eq!(outcome.verdict(), ("device-deleted-twice", 0xC9, 0x240));
}

#[test]
fn an_exclusive_device_is_opened_once() {
    story(|cx| {
        let driver = driver(cx, "alone", &[(IRP_MJ_CREATE, succeed)])?;
        device(cx, driver, "\\Device\\Alone", abi::DO_EXCLUSIVE)?;
        let handle = file::open(cx, "\\Device\\Alone", &OpenOptions::default())?.unwrap();
        let second = file::open(cx, "\\Device\\Alone", &OpenOptions::default())?;
        assert_eq!(second, Err(NtStatus::ACCESS_DENIED));
        let _ = file::close(cx, handle)?;
        let third = file::open(cx, "\\Device\\Alone", &OpenOptions::default())?.unwrap();
        file::close(cx, third).map(|_| ())
    })
    .clean();
}

#[test]
fn a_device_pointer_by_name_holds_the_file_and_not_a_handle() {
    let outcome = story(|cx| {
        let driver = driver(cx, "target", &[(IRP_MJ_CREATE, succeed)])?;
        let target = device(cx, driver, "\\Device\\Target", 0)?;
        let (file, device) = stack::pointer(cx, "\\Device\\Target", 0)?.unwrap();
        assert_eq!(device, target);
        assert_eq!(cx.read(target + DEVICE_OBJECT::ReferenceCount)?, 1);
        ob::object::dereference(cx, file)?;
        assert_eq!(cx.read(target + DEVICE_OBJECT::ReferenceCount)?, 0);
        Ok(())
    });
    outcome.clean();
    let cleanup = outcome.trace.iter().position(|line| line.contains("major: 18,")).unwrap();
    let close = outcome.trace.iter().position(|line| line.contains("major: 2,")).unwrap();
    assert!(cleanup < close);
}

fn entry(cx: &mut Cx<'_>, service: &str, entry: crate::io::routine::RustRoutine) -> Flow<Driver> {
    let entry = routine(cx, entry);
    let new = NewDriver {
        directory: "\\Driver",
        service: service.to_owned(),
        base: 0,
        size: 0,
        entry,
        section: DriverPtr::NULL,
    };
    Ok(drivers::create_driver(cx, &new)?.unwrap())
}

#[test]
fn driver_entry_gets_its_registry_path_and_its_devices_are_ready_afterwards() {
    fn driver_entry(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let path = ob::string::read(cx, DriverPtr::new(given[1]))?;
        assert_eq!(path, "\\REGISTRY\\MACHINE\\SYSTEM\\ControlSet001\\Services\\legacy");
        device(cx, DriverPtr::new(given[0]), "\\Device\\Legacy", DO_DEVICE_INITIALIZING)?;
        Ok(0)
    }
    story(|cx| {
        let driver = entry(cx, "legacy", driver_entry)?;
        assert_eq!(drivers::start(cx, driver)?, NtStatus::SUCCESS);
        let device = cx.read(driver + DRIVER_OBJECT::DeviceObject)?;
        assert_eq!(cx.read(device + DEVICE_OBJECT::Flags)? & DO_DEVICE_INITIALIZING, 0);
        let name = ob::string::read(cx, driver + DRIVER_OBJECT::DriverName)?;
        assert_eq!(name, "\\Driver\\legacy");
        Ok(())
    })
    .clean();
}

#[test]
fn what_a_driver_leaves_at_unload_is_listed() {
    let outcome = story(|cx| {
        let driver = entry(cx, "messy", |_, _| Ok(0))?;
        let unload = routine(cx, |_, _| Ok(0));
        cx.write(driver + DRIVER_OBJECT::DriverUnload, unload)?;
        assert_eq!(drivers::start(cx, driver)?, NtStatus::SUCCESS);
        device(cx, driver, "\\Device\\Messy", 0)?;
        let (link, target) = (unicode(cx, "\\DosDevices\\Messy")?, unicode(cx, "\\Device\\Messy")?);
        let status = links::create(cx, link, target)?;
        assert_eq!(status, NtStatus::SUCCESS);
        // No code of an image made these: the test says whose they are.
        let irp = allocate::allocate(cx, 1, false)?;
        cx.with(|k| {
            k.io.links.insert("\\GLOBAL??\\Messy".to_owned(), driver.address);
            k.io.irps.live.get_mut(irp.address).unwrap().owner = Some(driver.address);
        });
        assert_eq!(drivers::unload(cx, driver)?, NtStatus::SUCCESS);
        Ok(())
    });
    assert!(outcome.verdict.is_none());
    let rules: Vec<_> = outcome.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["device-leak", "symbolic-link-leak", "irp-leak"]);
    assert!(outcome.findings[0].message.contains("\\Device\\Messy"), "{}", outcome.findings[0].message);
}

#[test]
fn a_work_item_runs_on_a_system_thread_at_passive_level_and_keeps_its_device() {
    fn work(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let device = Device::new(given[0]);
        assert_eq!((given.len(), crate::ke::irql::current(cx)), (2, 0));
        let at = extension(cx, device, 0)?;
        cx.write(at, given[1])?;
        Ok(0)
    }
    story(|cx| {
        let driver = driver(cx, "worker", &[])?;
        let device = device(cx, driver, "", 0)?;
        let item = work_item::allocate(cx, device)?;
        let routine = routine(cx, work);
        work_item::queue(cx, item, routine, 1, 42)?;
        let until = cx.with(|k| crate::ke::time::due(k, -10_000));
        let timeout = crate::ke::wait::Timeout::At(until);
        let _ = crate::ke::wait::wait(cx, &[], false, timeout, DriverPtr::NULL, "a test")?;
        let at = extension(cx, device, 0)?;
        assert_eq!(cx.read(at)?, 42);
        work_item::free(cx, item)
    })
    .clean();
}

#[test]
fn a_work_item_queued_twice_before_it_ran_is_told() {
    let outcome = story(|cx| {
        let driver = driver(cx, "eager", &[])?;
        let device = device(cx, driver, "", 0)?;
        let item = work_item::allocate(cx, device)?;
        let routine = routine(cx, |_, _| Ok(0));
        work_item::queue(cx, item, routine, 1, 0)?;
        work_item::queue(cx, item, routine, 1, 0)
    });
    assert_eq!(outcome.verdict().0, "work-item-queued");
}

#[test]
fn a_device_interface_opens_the_device_while_it_is_enabled() {
    story_with_card(|cx| {
        crate::pnp::enumerate(cx)?;
        let physical = crate::pnp::named(cx, "card#0").expect("the rig's card").pdo();
        let driver = driver(cx, "card", &[(IRP_MJ_CREATE, succeed)])?;
        let function = device(cx, driver, "", 0)?;
        assert_eq!(stack::attach_to_stack(cx, function, physical)?, physical);
        let started = crate::pnp::node::State::Started;
        cx.with(|k| k.pnp.node_mut(crate::pnp::NodeId(physical.address)).state = started);
        let guid = crate::mm::pool::allocate(cx, crate::mm::pool::Kind::NonPaged, 16, 0)?;
        let link = unicode(cx, "x")?;
        assert_eq!(interface::register(cx, physical, guid, DriverPtr::NULL, link)?, NtStatus::SUCCESS);
        let name = ob::string::read(cx, link)?;
        let options = OpenOptions::default();
        assert_eq!(file::open(cx, &name, &options)?, Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!(interface::set_state(cx, link, true)?, NtStatus::SUCCESS);
        assert_eq!(interface::set_state(cx, link, true)?, NtStatus::OBJECT_NAME_EXISTS);
        let win32 = name.replacen("\\??\\", "\\\\?\\", 1);
        let handle = file::open(cx, &win32, &options)?.unwrap();
        let _ = file::close(cx, handle)?;
        assert_eq!(interface::set_state(cx, link, false)?, NtStatus::SUCCESS);
        assert_eq!(file::open(cx, &name, &options)?, Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        Ok(())
    })
    .clean();
}

#[test]
fn a_handle_names_its_object_until_it_is_closed() {
    story(|cx| {
        let handle = crate::io::event::create(cx, crate::io::event::Type::Notification, false)?.unwrap();
        let entry = ob::handle::reference(cx, handle, Some(ob::Kind::Event), 0, Mode::User)?.unwrap();
        let wrong = ob::handle::reference(cx, handle, Some(ob::Kind::File), 0, Mode::User)?;
        assert_eq!(wrong, Err(NtStatus::OBJECT_TYPE_MISMATCH));
        assert_eq!(ob::handle::close(cx, handle)?, Ok(()));
        assert_eq!(ob::handle::close(cx, handle)?, Err(NtStatus::INVALID_HANDLE));
        let left = ob::object::dereference(cx, DriverPtr::<()>::new(entry.object))?;
        assert_eq!(left, 0);
        Ok(())
    })
    .clean();
}

#[test]
fn a_dereference_too_many_is_stopped_with_18() {
    let outcome = story(|cx| {
        let driver = driver(cx, "over", &[(IRP_MJ_CREATE, succeed)])?;
        device(cx, driver, "\\Device\\Over", 0)?;
        let handle = file::open(cx, "\\Device\\Over", &OpenOptions::default())?.unwrap();
        let entry = ob::handle::entry(cx, handle, Mode::User).unwrap();
        ob::object::dereference(cx, DriverPtr::<()>::new(entry.object)).map(|_| ())
    });
    let (rule, code, _) = outcome.verdict();
    assert_eq!((rule, code), ("object-reference", 0x18));
}

#[test]
fn an_interrupt_is_connected_by_line_by_vector_and_as_a_fall_back_for_messages() {
    use crate::io::interrupt::{connect_ex, disconnect_ex};
    use crate::pnp::resource::{Interrupt, Resource};
    use abi::{
        IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS as FULL,
        IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS as LINE,
        IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS as MESSAGE,
        IO_CONNECT_INTERRUPT_PARAMETERS as PARAMETERS, IO_DISCONNECT_INTERRUPT_PARAMETERS as DISCONNECT,
    };

    const NUMBER: u32 = 5;
    let outcome = story_with_card(|cx| {
        crate::pnp::enumerate(cx)?;
        let id = crate::pnp::named(cx, "card#0").expect("the rig's card");
        let kind = crate::mm::pool::Kind::NonPaged;
        let block = crate::mm::pool::allocate::<()>(cx, kind, 0x200, 0)?.address;
        let (parameters, object) = (DriverPtr::<PARAMETERS>::new(block), DriverPtr::new(block + 0x100));
        let isr = routine(cx, |_, _| Ok(0));

        cx.write(parameters + PARAMETERS::Version, 2)?;
        let line = parameters + PARAMETERS::LineBased;
        cx.write(line + LINE::PhysicalDeviceObject, id.pdo())?;
        cx.write(line + LINE::InterruptObject, object)?;
        cx.write(line + LINE::ServiceRoutine, isr)?;
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::NOT_FOUND, "it was not started with an interrupt");

        let vector = crate::ke::interrupt::vector_of_line(NUMBER);
        let irql = crate::ke::interrupt::irql_of_line(NUMBER);
        let interrupt = Resource::Interrupt(Interrupt {
            line: NUMBER,
            vector,
            irql,
            affinity: 1,
            latched: false,
            shared: true,
        });
        cx.with(|k| k.pnp.node_mut(id).resources.push(interrupt));
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::SUCCESS);
        let disconnect = DriverPtr::<DISCONNECT>::new(block + 0x180);
        let connected = cx.read(object)?;
        cx.write(disconnect + DISCONNECT::ConnectionContext_InterruptObject, connected)?;
        disconnect_ex(cx, disconnect)?;

        cx.write(parameters, PARAMETERS::zeroed())?;
        cx.write(parameters + PARAMETERS::Version, 3)?;
        let message = parameters + PARAMETERS::MessageBased;
        cx.write(message + MESSAGE::PhysicalDeviceObject, id.pdo())?;
        cx.write(message + MESSAGE::ConnectionContext_InterruptObject, object)?;
        cx.write(message + MESSAGE::MessageServiceRoutine, isr)?;
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::NOT_FOUND, "no messages, and no fall-back routine");
        cx.write(message + MESSAGE::FallBackServiceRoutine, isr)?;
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::SUCCESS);
        assert_eq!(cx.read(parameters + PARAMETERS::Version)?, 2, "it says that it took the line");
        let connected = cx.read(object)?;
        cx.write(disconnect + DISCONNECT::ConnectionContext_InterruptObject, connected)?;
        disconnect_ex(cx, disconnect)?;

        cx.write(parameters, PARAMETERS::zeroed())?;
        cx.write(parameters + PARAMETERS::Version, 1)?;
        let full = parameters + PARAMETERS::FullySpecified;
        cx.write(full + FULL::InterruptObject, object)?;
        cx.write(full + FULL::ServiceRoutine, isr)?;
        cx.write(full + FULL::Vector, vector)?;
        cx.write(full + FULL::Irql, irql)?;
        cx.write(full + FULL::SynchronizeIrql, irql - 1)?;
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::INVALID_PARAMETER, "without a device");
        cx.write(full + FULL::PhysicalDeviceObject, id.pdo())?;
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::INVALID_PARAMETER_10, "without a processor");
        cx.write(full + FULL::ProcessorEnableMask, 1)?;
        cx.write(full + FULL::Vector, vector + 1)?;
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::NOT_FOUND, "the vector is not the device's");
        cx.write(full + FULL::Vector, vector)?;
        assert_eq!(
            connect_ex(cx, parameters)?,
            NtStatus::INVALID_PARAMETER,
            "synchronizes below its own level"
        );
        cx.write(full + FULL::SynchronizeIrql, irql)?;
        assert_eq!(connect_ex(cx, parameters)?, NtStatus::SUCCESS);
        let connected = cx.read(object)?;
        cx.write(disconnect + DISCONNECT::ConnectionContext_InterruptObject, connected)?;
        disconnect_ex(cx, disconnect)?;
        disconnect_ex(cx, disconnect)
    });
    assert_eq!(outcome.verdict().0, "interrupt-not-connected");
}
