//! What applications do, and what drivers see of it.

use abi::{
    DO_BUFFERED_IO, DO_DIRECT_IO, DRIVER_OBJECT, DriverPtr, FILE_OBJECT, GENERIC_READ, IO_STACK_LOCATION,
    IO_STATUS_BLOCK, IRP, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE, IRP_MJ_DEVICE_CONTROL, IRP_MJ_READ,
    IRP_MJ_WRITE, MDL, NtStatus,
};
use engine::Flow;

use super::rig::*;
use crate::cx::Cx;
use crate::io::file::{self, Buffer, OpenOptions, Operation, Overlapped};
use crate::io::irp;
use crate::io::routine::RustRoutine;
use crate::ke;
use crate::mm::user;
use crate::ob::names::Target;
use crate::verdict::Tier;

const BYTES: [u8; 4] = *b"echo";

/// Keeps what is written in the device extension, hands it out when read.
fn echo(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (device, irp) = arguments(given);
    let location = location(cx, irp)?;
    let length = cx.read(location + IO_STACK_LOCATION::Parameters_Read_Length)?;
    let system = cx.read(irp + IRP::AssociatedIrp_SystemBuffer)?;
    let store = extension(cx, device, 0)?;
    let (from, to) = if cx.read(location + IO_STACK_LOCATION::MajorFunction)? == IRP_MJ_READ {
        (store.address, system.address)
    } else {
        (system.address, store.address)
    };
    let bytes = cx.read_bytes(from, length.into())?;
    cx.write_bytes(to, &bytes)?;
    complete(cx, irp, NtStatus::SUCCESS, length.into())
}

fn with_link(cx: &mut Cx<'_>, device: &str, link: &str) {
    let target = Target::Link(device.to_owned());
    cx.with(|k| k.ob.names.insert(&format!("\\??\\{link}"), target)).expect("the link is new");
}

const FILE_MAJORS: [u8; 3] = [IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE];

fn echo_driver(cx: &mut Cx<'_>) -> Flow<Driver> {
    let mut dispatch: Vec<_> = FILE_MAJORS.map(|major| (major, succeed as _)).to_vec();
    dispatch.extend([(IRP_MJ_READ, echo as _), (IRP_MJ_WRITE, echo as _)]);
    driver(cx, "echo", &dispatch)
}

#[test]
fn what_is_written_to_a_buffered_device_is_read_from_it() {
    let outcome = story(|cx| {
        let driver = echo_driver(cx)?;
        device(cx, driver, "\\Device\\Echo", DO_BUFFERED_IO)?;
        with_link(cx, "\\Device\\Echo", "Echo");
        let handle = file::open(cx, "\\\\.\\echo", &OpenOptions::default())?.unwrap();
        let from = user_bytes(cx, &BYTES);
        let written = file::write(cx, handle, Buffer { address: from, length: 4 }, None)?;
        assert_eq!((written.status, written.information), (NtStatus::SUCCESS, 4));
        let to = user_bytes(cx, &[0; 4]);
        let read = file::read(cx, handle, Buffer { address: to, length: 4 }, Some(0))?;
        assert_eq!((read.status, read.information), (NtStatus::SUCCESS, 4));
        assert_eq!(user::read(cx, to, 4).unwrap(), BYTES);
        assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
        assert!(cx.with(|k| k.io.irps.live.is_empty() && k.io.files.is_empty()), "all was given back");
        Ok(())
    });
    outcome.clean();
    let sent = |major: u8| {
        let sent = format!("major: {major},");
        outcome.trace.iter().filter(|line| line.contains("IrpSent") && line.contains(&sent)).count()
    };
    assert_eq!(FILE_MAJORS.map(sent), [1, 1, 1]);
}

#[test]
fn a_device_without_the_dispatch_routine_refuses_the_request() {
    story(|cx| {
        let driver = driver(cx, "deaf", &[(IRP_MJ_CREATE, succeed)])?;
        device(cx, driver, "\\Device\\Deaf", DO_BUFFERED_IO)?;
        let handle = file::open(cx, "\\Device\\Deaf", &OpenOptions::default())?.unwrap();
        let buffer = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        assert_eq!(file::write(cx, handle, buffer, None)?.status, NtStatus::INVALID_DEVICE_REQUEST);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn opening_what_is_not_there_says_which_part_is_missing() {
    story(|cx| {
        let options = OpenOptions::default();
        let name = file::open(cx, "\\\\.\\Nothing", &options)?;
        assert_eq!(name, Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        let path = file::open(cx, "\\Nowhere\\Nothing", &options)?;
        assert_eq!(path, Err(NtStatus::OBJECT_PATH_NOT_FOUND));
        Ok(())
    })
    .clean();
}

/// Checks the MDL of a direct write, byte by byte through the driver's mapping.
fn direct(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    let list = cx.read(irp + IRP::MdlAddress)?;
    assert_eq!(cx.read(list + MDL::ByteCount)?, 4);
    let mapped = crate::mm::mdl_map::map_locked_pages_specify_cache(cx, list, 0, 1, 0, 0, 0x10)?;
    assert_eq!(cx.read_bytes(mapped, 4)?, BYTES);
    complete(cx, irp, NtStatus::SUCCESS, 4)
}

#[test]
fn a_direct_write_reaches_the_driver_as_locked_pages() {
    story(|cx| {
        let driver = driver(cx, "direct", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_WRITE, direct)])?;
        device(cx, driver, "\\Device\\Direct", DO_DIRECT_IO)?;
        let handle = file::open(cx, "\\Device\\Direct", &OpenOptions::default())?.unwrap();
        let buffer = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        let answer = file::write(cx, handle, buffer, None)?;
        assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, 4));
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn an_application_that_passes_a_bad_buffer_gets_a_status_and_the_driver_nothing() {
    let outcome = story(|cx| {
        let driver = echo_driver(cx)?;
        device(cx, driver, "\\Device\\Buffered", DO_BUFFERED_IO)?;
        device(cx, driver, "\\Device\\Direct", DO_DIRECT_IO)?;
        for name in ["\\Device\\Buffered", "\\Device\\Direct"] {
            let handle = file::open(cx, name, &OpenOptions::default())?.unwrap();
            for address in [engine::windows::USER.base + 0x5000_0000, engine::windows::SYSTEM.base, 0] {
                let buffer = Buffer { address, length: 4 };
                assert_eq!(file::write(cx, handle, buffer, None)?.status, NtStatus::ACCESS_VIOLATION);
                assert_eq!(file::read(cx, handle, buffer, None)?.status, NtStatus::ACCESS_VIOLATION);
            }
            let _ = file::close(cx, handle)?;
        }
        Ok(())
    });
    outcome.clean();
    assert!(!outcome.trace.iter().any(|line| line.contains("major: 3,") || line.contains("major: 4,")));
}

#[test]
fn a_handle_opened_for_reading_cannot_write_nor_send_a_code_that_needs_it() {
    story(|cx| {
        let driver = echo_driver(cx)?;
        device(cx, driver, "\\Device\\Echo", DO_BUFFERED_IO)?;
        let options = OpenOptions { access: GENERIC_READ, ..OpenOptions::default() };
        let handle = file::open(cx, "\\Device\\Echo", &options)?.unwrap();
        let buffer = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        assert_eq!(file::write(cx, handle, buffer, None)?.status, NtStatus::ACCESS_DENIED);
        let none = Buffer::default();
        let needs_write = 0x22 << 16 | 2 << 14;
        let answer = file::device_control(cx, handle, needs_write, none, none)?;
        assert_eq!(answer.status, NtStatus::ACCESS_DENIED);
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

/// Pends the request and completes it from a thread of its own, 1 ms later.
fn later(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    mark_pending(cx, irp)?;
    ke::thread::spawn(
        cx,
        "completes later",
        Box::new(move |cx| {
            let due = cx.with(|k| ke::time::due(k, -10_000));
            let _ = ke::wait::wait(cx, &[], false, ke::wait::Timeout::At(due), DriverPtr::NULL, "a test")?;
            complete(cx, irp, NtStatus::SUCCESS, 2).map(|_| ())
        }),
    )?;
    Ok(NtStatus::PENDING.0.into())
}

fn later_driver(cx: &mut Cx<'_>) -> Flow<()> {
    let driver = driver(cx, "later", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_READ, later)])?;
    device(cx, driver, "\\Device\\Later", DO_BUFFERED_IO).map(|_| ())
}

#[test]
fn a_synchronous_read_waits_for_a_pended_request() {
    story(|cx| {
        later_driver(cx)?;
        let handle = file::open(cx, "\\Device\\Later", &OpenOptions::default())?.unwrap();
        let before = cx.engine().now();
        let buffer = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        let answer = file::read(cx, handle, buffer, None)?;
        assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, 2));
        assert!(cx.engine().now() - before >= 1_000_000);
        assert_eq!(user::read(cx, buffer.address, 4).unwrap(), b"\0\0ho", "two bytes of the system buffer");
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn an_overlapped_read_goes_on_at_once_and_its_event_tells_the_end() {
    let outcome = story(|cx| {
        later_driver(cx)?;
        let handle = file::open(cx, "\\Device\\Later", &OpenOptions::overlapped())?.unwrap();
        let buffer = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        let overlapped = Overlapped::new(cx)?.unwrap();
        let answer = file::start(cx, handle, Operation::Read(buffer, Some(0)), &overlapped)?;
        assert_eq!(answer.status, NtStatus::PENDING);
        let answer = overlapped.wait(cx)?;
        assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, 2));
        overlapped.free(cx)?;
        file::close(cx, handle).map(|_| ())
    });
    outcome.clean();
    let answers =
        outcome.trace.iter().filter(|line| line.contains("Answer {") && line.contains("\"ReadFile\""));
    let statuses = answers.map(|line| line.contains(&format!("status: {}", NtStatus::PENDING.0)));
    assert_eq!(statuses.collect::<Vec<_>>(), [true, false], "pending at once, then its end");
}

/// Says whether the requester has given it an event.
fn event_or_none(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    let event = cx.read(irp + IRP::UserEvent)?;
    complete(cx, irp, NtStatus::SUCCESS, u64::from(!event.is_null()))
}

#[test]
fn a_call_that_waits_gives_the_driver_no_event_and_an_overlapped_one_does() {
    story(|cx| {
        let functions = [(IRP_MJ_CREATE, succeed as _), (IRP_MJ_DEVICE_CONTROL, event_or_none as _)];
        let driver = driver(cx, "events", &functions)?;
        device(cx, driver, "\\Device\\Events", 0)?;
        for (options, given) in [(OpenOptions::default(), 0), (OpenOptions::overlapped(), 1)] {
            let handle = file::open(cx, "\\Device\\Events", &options)?.unwrap();
            let output = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
            let answer = file::device_control(cx, handle, 0x22 << 16, Buffer::default(), output)?;
            assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, given));
            let _ = file::close(cx, handle)?;
        }
        Ok(())
    })
    .clean();
}

/// Claims to have filled more than there is.
fn boast(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    complete(cx, irp, NtStatus::SUCCESS, 5)
}

#[test]
fn information_beyond_the_output_buffer_is_a_verdict() {
    let outcome = story(|cx| {
        let driver = driver(cx, "boast", &[(IRP_MJ_CREATE, succeed), (IRP_MJ_DEVICE_CONTROL, boast)])?;
        device(cx, driver, "\\Device\\Boast", 0)?;
        let handle = file::open(cx, "\\Device\\Boast", &OpenOptions::default())?.unwrap();
        let output = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        file::device_control(cx, handle, 0x22 << 16, Buffer::default(), output).map(|_| ())
    });
    assert_eq!(outcome.verdict(), ("information-too-large", 0xC9, 0x312));
}

/// Refuses everything; a status block is not touched by a request that fails at once.
fn refuse(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (_, irp) = arguments(given);
    complete(cx, irp, NtStatus::DEVICE_BUSY, 77)?;
    Ok(NtStatus::DEVICE_BUSY.0.into())
}

#[test]
fn a_refused_create_leaves_no_file_and_no_close() {
    let outcome = story(|cx| {
        let driver = driver(cx, "busy", &[(IRP_MJ_CREATE, refuse), (IRP_MJ_CLOSE, succeed)])?;
        let device = device(cx, driver, "\\Device\\Busy", 0)?;
        // A warning counts as failure, too: DEVICE_BUSY is no success.
        let opened = file::open(cx, "\\Device\\Busy", &OpenOptions::default())?;
        assert_eq!(opened, Err(NtStatus::DEVICE_BUSY));
        assert_eq!(cx.read(device + abi::DEVICE_OBJECT::ReferenceCount)?, 0);
        assert!(cx.with(|k| k.io.files.is_empty()));
        Ok(())
    });
    outcome.clean();
    assert!(!outcome.trace.iter().any(|line| line.contains("major: 2,")));
}

#[test]
fn the_name_behind_a_device_is_the_file_name_its_driver_sees() {
    fn look(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        let location = location(cx, irp)?;
        let file: DriverPtr<FILE_OBJECT> = cx.read(location + IO_STACK_LOCATION::FileObject)?.cast();
        let name = crate::ob::string::read(cx, file + FILE_OBJECT::FileName)?;
        assert_eq!(name, "\\dir\\file");
        complete(cx, irp, NtStatus::SUCCESS, 0)
    }
    story(|cx| {
        let driver = driver(cx, "named", &[(IRP_MJ_CREATE, look)])?;
        device(cx, driver, "\\Device\\Named", 0)?;
        with_link(cx, "\\Device\\Named", "Named");
        let handle = file::open(cx, "\\\\.\\Named\\dir\\file", &OpenOptions::default())?.unwrap();
        file::close(cx, handle).map(|_| ())
    })
    .clean();
}

#[test]
fn the_preset_dispatch_routines_stand_in_every_slot() {
    story(|cx| {
        let driver = driver(cx, "empty", &[])?;
        for major in 0..=abi::IRP_MJ_MAXIMUM_FUNCTION {
            let slot = cx.read((driver + DRIVER_OBJECT::MajorFunction).element(major.into()))?;
            assert_eq!(slot, crate::ldr::internal_address("IopInvalidDeviceRequest"));
        }
        Ok(())
    })
    .clean();
}

#[test]
fn a_driver_that_completes_twice_is_stopped_with_44() {
    fn twice(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        complete(cx, irp, NtStatus::SUCCESS, 0)?;
        irp::complete(cx, irp, 0)?;
        Ok(0)
    }
    let outcome = story(|cx| {
        let driver = driver(cx, "twice", &[(IRP_MJ_CREATE, twice)])?;
        device(cx, driver, "\\Device\\Twice", 0)?;
        file::open(cx, "\\Device\\Twice", &OpenOptions::default()).map(|_| ())
    });
    let (rule, code, _) = outcome.verdict();
    assert_eq!((rule, code), ("double-completion", 0x44));
}

#[test]
fn status_and_mark_of_a_pended_request_must_agree() {
    type Dispatch = fn(&mut Cx<'_>, &[u64]) -> Flow<u64>;
    let cases: [(&str, u64, Dispatch); 5] = [
        ("pending-not-marked", 0x23D, |_, _| Ok(NtStatus::PENDING.0.into())),
        ("pending-marked", 0x23E, |cx, given| {
            mark_pending(cx, arguments(given).1)?;
            Ok(0)
        }),
        ("irp-forgotten", 0x226, |_, _| Ok(0)),
        ("dispatch-status-differs", 0x224, |cx, given| {
            complete(cx, arguments(given).1, NtStatus::UNSUCCESSFUL, 0)?;
            Ok(0)
        }),
        ("completed-with-pending", 0x6, |cx, given| complete(cx, arguments(given).1, NtStatus::PENDING, 0)),
    ];
    for (rule, code, dispatch) in cases {
        let outcome = story(move |cx| {
            let driver = driver(cx, "wrong", &[(IRP_MJ_CREATE, dispatch)])?;
            device(cx, driver, "\\Device\\Wrong", 0)?;
            file::open(cx, "\\Device\\Wrong", &OpenOptions::default()).map(|_| ())
        });
        assert_eq!(outcome.verdict(), (rule, 0xC9, code));
    }
}

/// A waiter takes the one for a request under way; the other is a failure, and only Driver Verifier refuses it.
#[test]
fn a_request_that_ends_with_minus_one_is_driver_verifiers_and_ends() {
    let outcome = story(|cx| {
        let ends: RustRoutine = |cx, given| complete(cx, arguments(given).1, NtStatus(u32::MAX), 0);
        let driver = driver(cx, "minus-one", &[(IRP_MJ_CREATE, ends)])?;
        device(cx, driver, "\\Device\\Minus", 0)?;
        file::open(cx, "\\Device\\Minus", &OpenOptions::default()).map(|_| ())
    });
    let found: Vec<_> = outcome.findings.iter().map(|finding| (finding.rule, finding.tier)).collect();
    assert!(found.contains(&("completed-with-pending", Tier::Verifier)), "{found:?}");
}

#[test]
fn a_request_built_for_a_driver_answers_in_its_status_block() {
    story(|cx| {
        let driver = echo_driver(cx)?;
        let device = device(cx, driver, "", DO_BUFFERED_IO)?;
        let block = crate::mm::pool::allocate::<u64>(cx, crate::mm::pool::Kind::NonPaged, 0x40, 0)?;
        let event = DriverPtr::new(block.address);
        let status: DriverPtr<IO_STATUS_BLOCK> = DriverPtr::new(block.address + 0x18);
        let data = block.address + 0x30;
        cx.write_bytes(data, &BYTES)?;
        ke::event::initialize(cx, event, 0, false)?;
        let (major, null) = (IRP_MJ_WRITE.into(), DriverPtr::NULL);
        let irp = crate::io::build::synchronous(cx, major, device, data, 4, null, event, status)?;
        assert_eq!(irp::call_driver(cx, device, irp)?, NtStatus::SUCCESS);
        assert_eq!(cx.read(status + IO_STATUS_BLOCK::Information)?, 4);
        assert_eq!(ke::event::read_state(cx, event)?, 1);
        assert!(cx.with(|k| k.io.irps.live.is_empty()), "the I/O manager freed it");
        Ok(())
    })
    .clean();
}

#[test]
fn a_control_code_may_be_answered_without_an_irp() {
    fn fast(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let [_file, _wait, input, length, _output, _room, code, block, _device] = given[..] else {
            panic!("nine arguments: {given:?}")
        };
        assert_eq!((cx.read_bytes(input, length)?.as_slice(), code), (&BYTES[..], 0x22 << 16));
        let block: DriverPtr<IO_STATUS_BLOCK> = DriverPtr::new(block);
        cx.write(block + IO_STATUS_BLOCK::Status, NtStatus::SUCCESS)?;
        cx.write(block + IO_STATUS_BLOCK::Information, 3)?;
        Ok(1)
    }
    let outcome = story(|cx| {
        let driver = driver(cx, "fast", &[(IRP_MJ_CREATE, succeed)])?;
        device(cx, driver, "\\Device\\Fast", 0)?;
        let kind = crate::mm::pool::Kind::NonPaged;
        let table: DriverPtr<abi::FAST_IO_DISPATCH> = crate::mm::pool::allocate(cx, kind, 0xe0, 0)?;
        cx.write(table + abi::FAST_IO_DISPATCH::SizeOfFastIoDispatch, 0xe0)?;
        let routine = routine(cx, fast);
        cx.write(table + abi::FAST_IO_DISPATCH::FastIoDeviceControl, routine)?;
        cx.write(driver + DRIVER_OBJECT::FastIoDispatch, table.cast())?;
        let handle = file::open(cx, "\\Device\\Fast", &OpenOptions::default())?.unwrap();
        let input = Buffer { address: user_bytes(cx, &BYTES), length: 4 };
        let answer = file::device_control(cx, handle, 0x22 << 16, input, Buffer::default())?;
        assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, 3));
        file::close(cx, handle).map(|_| ())
    });
    outcome.clean();
    assert!(!outcome.trace.iter().any(|line| line.contains("major: 14,")));
}

#[test]
fn what_one_opener_does_not_share_another_cannot_have() {
    const SHARE_READ: u32 = 1;
    story(|cx| {
        let kind = crate::mm::pool::Kind::NonPaged;
        let block = crate::mm::pool::allocate::<()>(cx, kind, 0x400, 0)?.address;
        let (counts, first, second) =
            (DriverPtr::new(block), DriverPtr::new(block + 0x100), DriverPtr::new(block + 0x200));
        let (read, write) = (abi::FILE_READ_DATA, abi::FILE_WRITE_DATA);
        crate::io::share_access::set(cx, read, SHARE_READ, first, counts)?;
        let mut open = |access| crate::io::share_access::check(cx, access, SHARE_READ, second, counts, true);
        assert_eq!(open(write)?, NtStatus::SHARING_VIOLATION);
        assert_eq!(open(read)?, NtStatus::SUCCESS);
        assert_eq!(cx.read(counts + abi::SHARE_ACCESS::Readers)?, 2);
        crate::io::share_access::remove(cx, second, counts)?;
        crate::io::share_access::remove(cx, first, counts)?;
        let exclusive = crate::io::share_access::check(cx, read | write, 0, second, counts, true)?;
        assert_eq!(exclusive, NtStatus::SUCCESS);
        let third = crate::io::share_access::check(cx, read, 7, first, counts, true)?;
        assert_eq!(third, NtStatus::SHARING_VIOLATION);
        Ok(())
    })
    .clean();
}

/// A file is counted, its share is given back or not, it goes, and another one comes to its place.
fn opened_twice(
    undo: impl Fn(&mut Cx<'_>, DriverPtr<abi::FILE_OBJECT>, DriverPtr<abi::SHARE_ACCESS>) -> Flow<()> + 'static,
) -> Outcome {
    use crate::io::share_access::{check, set};
    story(move |cx| {
        let kind = crate::mm::pool::Kind::NonPaged;
        let block = crate::mm::pool::allocate::<()>(cx, kind, 0x400, 0)?.address;
        let (counts, file) = (DriverPtr::new(block), DriverPtr::new(block + 0x100));
        let (read, shared) = (abi::FILE_READ_DATA, 1);
        set(cx, read, shared, file, counts)?;
        undo(cx, file, counts)?;
        cx.with(|k| k.io.openers.gone(file.address));
        // The next one is where that was.
        if cx.read(counts + abi::SHARE_ACCESS::OpenCount)? == 0 {
            set(cx, read, shared, file, counts)?;
        }
        check(cx, read, shared, file, counts, true).map(|_| ())
    })
}

#[test]
fn a_share_that_a_file_has_kept_which_is_gone_shows_at_the_next_open() {
    let outcome = opened_twice(|_, _, _| Ok(()));
    let rules: Vec<_> = outcome.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["share-access-kept"]);
}

/// Not: share-access-kept
#[test]
fn a_share_that_is_given_back_or_counted_anew_is_not_kept() {
    opened_twice(crate::io::share_access::remove).clean();
    // Where it is the first again, the driver counts from the beginning.
    opened_twice(|cx, _, counts| cx.write(counts, abi::SHARE_ACCESS::zeroed())).clean();
}
