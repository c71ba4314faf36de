//! The fast path of a request (`io::fast_path`) beside the general one: a machine that learns who touches what has only the general one,
//! so a story on both must leave the same events, the same memory before each driver, and the same pool.

use abi::{DEVICE_OBJECT, DO_BUFFERED_IO, IO_STACK_LOCATION, IRP, IRP_MJ_CREATE, KEVENT, NtStatus};
use engine::{DriverPtr, Flow};

use super::rig::*;
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::io::file::{self, Buffer, OpenOptions, Operation, Overlapped};
use crate::io::system_request::Answer;
use crate::io::transfer::{self, Request};
use crate::io::{event, fast_path, irp};
use crate::ke;
use crate::mm::pool::Block;
use crate::mm::user;
use crate::ob::Handle;
use crate::ps;

/// More than places that one request after the other makes anew: the fast path takes only such as were there.
const ROUNDS: u32 = 40;
const METHOD_BUFFERED: u32 = 0x0022_2000;
const BYTES: u64 = 24;

/// What the driver does with a request: its first byte of input, or of its parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Deed {
    Answer = 1,
    Fail,
    Warn,
    /// Marks it pending and completes it all the same.
    Pend,
    /// As `Pend`, and takes the application's buffer away first.
    Protect,
    /// Waits a while, so that a thread waits for the event meanwhile.
    Linger,
    /// Marks it pending and completes it at DISPATCH_LEVEL, as a DPC would: the thread is notified when the level falls.
    Raise,
    /// The same, of one that fails.
    RaiseAndFail,
}

const DEEDS: [Deed; 8] = [
    Deed::Answer,
    Deed::Fail,
    Deed::Warn,
    Deed::Pend,
    Deed::Protect,
    Deed::Linger,
    Deed::Raise,
    Deed::RaiseAndFail,
];

/// Prints all it sees of the request, and does what the story has written for it.
fn obey(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
    let (device, irp) = arguments(given);
    let size = cx.read(irp + IRP::Size)?;
    let packet = cx.read_bytes(irp.address - 16, u64::from(size) + 32)?;
    let system = cx.read(irp + IRP::AssociatedIrp_SystemBuffer)?;
    let buffer = if system.is_null() { Vec::new() } else { cx.read_bytes(system.address - 16, BYTES + 48)? };
    let references = cx.with(|k| {
        let issue = k.io.irps.live.get(irp.address)?.issue.as_ref()?;
        Some([issue.file, issue.event].map(|object| k.ob.objects.get(object).map(|object| object.references)))
    });
    cx.emit(Event::Print { text: format!("{packet:?} {buffer:?} {references:?}") });
    let short = cx.with(|k| {
        k.io.irps
            .live
            .get(irp.address)
            .is_some_and(|record| record.issue.as_ref().is_some_and(|issue| issue.blocks.is_some()))
    });
    let counter = extension(cx, device, 0)?;
    let count = cx.read(counter)?;
    cx.write(counter, count + u64::from(short))?;
    let wanted = extension(cx, device, 1)?;
    let deed = cx.read(wanted)?;
    let deed = DEEDS.into_iter().find(|known| *known as u64 == deed).expect("the story says it");
    let location = location(cx, irp)?;
    let length = cx.read(location + IO_STACK_LOCATION::Parameters_DeviceIoControl_OutputBufferLength)?;
    let user = cx.read(irp + IRP::UserBuffer)?;
    let (status, information) = match deed {
        Deed::Fail | Deed::RaiseAndFail => (NtStatus::UNSUCCESSFUL, 0),
        Deed::Warn => (NtStatus::BUFFER_OVERFLOW, length.into()),
        _ => (NtStatus::SUCCESS, u64::from(length)),
    };
    if deed == Deed::Protect && !user.is_null() {
        user::protect(cx, user.address, false);
    }
    if deed == Deed::Linger {
        ke::wait::sleep(cx, 1_000_000)?;
    }
    let raises = matches!(deed, Deed::Raise | Deed::RaiseAndFail);
    let pends = raises || matches!(deed, Deed::Pend | Deed::Protect);
    if pends {
        mark_pending(cx, irp)?;
    }
    let level = ke::irql::raise(cx, if raises { 2 } else { 0 })?;
    complete(cx, irp, status, information)?;
    let waits = cx.with(|k| ke::apc::is_any_pending(k));
    ke::irql::lower(cx, level)?;
    assert_eq!(waits, raises, "{deed:?}");
    if deed == Deed::Protect && !user.is_null() {
        user::protect(cx, user.address, true);
    }
    Ok(if pends { NtStatus::PENDING } else { status }.0.into())
}

/// What is left of a story: how many requests took the fast path, how each ended, and all blocks of pool.
type Left = (u64, Vec<(Deed, u32, u64)>, Vec<(u64, Block)>);

fn requests(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, handle: Handle) -> Flow<Left> {
    let address = user_bytes(cx, &[7; 24]);
    let (buffer, short) = (Buffer { address, length: 24 }, Buffer { address: address + 1, length: 3 });
    let overlapped = Overlapped::new(cx)?.expect("there is memory");
    let waiter = overlapped.event;
    crate::ke::rig::spawn(cx, "waiter", move |cx| {
        // Woken by some of the requests, in whichever way they go.
        (0..3).try_for_each(|_| event::wait_by(cx, waiter, ke::wait::for_object).map(|_| ()))
    });
    let operations = [
        Operation::Control(METHOD_BUFFERED, short, buffer),
        Operation::Control(METHOD_BUFFERED, Buffer::default(), Buffer::default()),
        Operation::Write(buffer, None),
        Operation::Read(short, Some(5)),
        Operation::Read(buffer, None),
    ];
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        for deed in DEEDS {
            let wanted = extension(cx, device, 1)?;
            cx.write(wanted, deed as u64)?;
            let operation = operations[(round as usize + deed as usize) % operations.len()];
            let answer = match round % 3 {
                0 => transfer::perform(cx, handle, operation)?,
                _ => match file::start(cx, handle, operation, &overlapped)? {
                    Answer { status: NtStatus::PENDING, .. } => overlapped.wait(cx)?,
                    answer => answer,
                },
            };
            answers.push((deed, answer.status.0, answer.information));
        }
    }
    let counter = extension(cx, device, 0)?;
    let shorts = cx.read(counter)?;
    let blocks = cx.with(|k| k.mm.pool.all());
    Ok((shorts, answers, blocks))
}

/// Runs the story on a machine that learns, or does not; the kinds in `unheard` are not traced.
fn run_story(learns: bool, unheard: &'static [Kind], options: OpenOptions) -> (Vec<String>, Left) {
    let left = std::rc::Rc::new(std::cell::RefCell::new(None));
    let keep = left.clone();
    let outcome = story_without(unheard, move |cx| {
        cx.engine().learn_shared(learns);
        let majors =
            [IRP_MJ_CREATE, abi::IRP_MJ_CLEANUP, abi::IRP_MJ_CLOSE].map(|major| (major, succeed as _));
        let obeys =
            [abi::IRP_MJ_READ, abi::IRP_MJ_WRITE, abi::IRP_MJ_DEVICE_CONTROL].map(|major| (major, obey as _));
        let driver = driver(cx, "obedient", &[majors, obeys].concat())?;
        let device = device(cx, driver, "\\Device\\Obedient", DO_BUFFERED_IO)?;
        let handle = file::open(cx, "\\Device\\Obedient", &options)?.unwrap();
        let (shorts, answers, blocks) = requests(cx, device, handle)?;
        engine::outside(|| *keep.borrow_mut() = Some((shorts, answers.clone(), blocks.clone())));
        cx.engine().learn_shared(false);
        file::close(cx, handle).map(|_| ())
    });
    outcome.clean();
    let left = left.borrow_mut().take().expect("the story ran to its end");
    (outcome.trace, left)
}

fn both_ways(options: OpenOptions) {
    // Where levels are not traced, a thread that is notified does not go to APC_LEVEL.
    for unheard in [&[][..], &[Kind::Irql]] {
        compare(unheard, options);
    }
}

fn compare(unheard: &'static [Kind], options: OpenOptions) {
    let (short_trace, (shorts, answers, blocks)) = run_story(false, unheard, options);
    let (long_trace, (longs, long_answers, long_blocks)) = run_story(true, unheard, options);
    assert!(shorts > 100, "{shorts} took the fast path");
    assert_eq!(longs, 0);
    assert_eq!(answers, long_answers);
    assert_eq!(blocks, long_blocks);
    let first = short_trace.iter().zip(&long_trace).find(|(short, long)| short != long);
    assert_eq!(first, None);
    assert_eq!(short_trace.len(), long_trace.len());
}

#[test]
fn a_request_leaves_the_same_by_the_short_way_as_by_the_long_one() {
    both_ways(OpenOptions::default());
}

#[test]
fn so_does_one_on_an_overlapped_handle() {
    both_ways(OpenOptions::overlapped());
}

#[test]
fn an_irp_whose_buffer_a_driver_has_overrun_is_told_as_one() {
    fn overrun(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        let system = cx.read(irp + IRP::AssociatedIrp_SystemBuffer)?;
        assert!(cx.with(|k| k.io.irps.live.get(irp.address).is_none_or(|known| known.issue.is_some())));
        let round = cx.read(system.cast::<u32>())?;
        if round == ROUNDS {
            cx.write(DriverPtr::<u8>::new(system.address + 4), 0)?;
        }
        complete(cx, irp, NtStatus::SUCCESS, 0)
    }
    let outcome = story(|cx| {
        let majors = [(IRP_MJ_CREATE, succeed as _), (abi::IRP_MJ_DEVICE_CONTROL, overrun as _)];
        let driver = driver(cx, "careless", &majors)?;
        device(cx, driver, "\\Device\\Careless", DO_BUFFERED_IO)?;
        let handle = file::open(cx, "\\Device\\Careless", &OpenOptions::default())?.unwrap();
        for round in 0..=ROUNDS {
            let buffer = Buffer { address: user_bytes(cx, &round.to_le_bytes()), length: 4 };
            file::device_control(cx, handle, METHOD_BUFFERED, buffer, Buffer::default())?;
        }
        Ok(())
    });
    assert_eq!(outcome.verdict().0, "pool-overrun");
}

#[test]
fn a_driver_that_writes_to_a_completed_irp_is_told_when_its_memory_comes_round() {
    fn late(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        complete(cx, irp, NtStatus::SUCCESS, 0)?;
        cx.write(irp + IRP::UserEvent, DriverPtr::<KEVENT>::NULL)?;
        Ok(0)
    }
    let outcome = story(|cx| {
        let majors = [(IRP_MJ_CREATE, succeed as _), (abi::IRP_MJ_DEVICE_CONTROL, late as _)];
        let driver = driver(cx, "late", &majors)?;
        device(cx, driver, "\\Device\\Late", DO_BUFFERED_IO)?;
        let handle = file::open(cx, "\\Device\\Late", &OpenOptions::default())?.unwrap();
        for _ in 0..ROUNDS {
            let nothing = Buffer::default();
            file::device_control(cx, handle, METHOD_BUFFERED, nothing, nothing)?;
        }
        Ok(())
    });
    assert_eq!(outcome.verdict().0, "write-after-free");
}

#[test]
fn an_irp_completed_a_second_time_is_no_request_any_more() {
    fn twice(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (device, irp) = arguments(given);
        let counter = extension(cx, device, 0)?;
        let count = cx.read(counter)? + 1;
        cx.write(counter, count)?;
        complete(cx, irp, NtStatus::SUCCESS, 0)?;
        if count > u64::from(ROUNDS) {
            irp::complete(cx, irp, 0)?;
        }
        Ok(0)
    }
    let outcome = story(|cx| {
        let majors = [(IRP_MJ_CREATE, succeed as _), (abi::IRP_MJ_DEVICE_CONTROL, twice as _)];
        let driver = driver(cx, "twice", &majors)?;
        device(cx, driver, "\\Device\\Twice", DO_BUFFERED_IO)?;
        let handle = file::open(cx, "\\Device\\Twice", &OpenOptions::default())?.unwrap();
        for _ in 0..=ROUNDS {
            let nothing = Buffer::default();
            file::device_control(cx, handle, METHOD_BUFFERED, nothing, nothing)?;
        }
        Ok(())
    });
    assert_eq!(outcome.verdict().0, "double-completion");
    assert!(outcome.verdict.is_some_and(|verdict| !verdict.related.is_empty()), "it says when it was first");
}

#[test]
fn a_file_whose_device_leads_nowhere_leaves_the_next_request_alone() {
    let outcome = story(|cx| {
        let majors = [(IRP_MJ_CREATE, succeed as _), (abi::IRP_MJ_DEVICE_CONTROL, succeed as _)];
        let driver = driver(cx, "lost", &majors)?;
        let device = device(cx, driver, "\\Device\\Lost", DO_BUFFERED_IO)?;
        let handle = file::open(cx, "\\Device\\Lost", &OpenOptions::default())?.unwrap();
        let overlapped = Overlapped::new(cx)?.expect("there is memory");
        let nothing = Operation::Control(METHOD_BUFFERED, Buffer::default(), Buffer::default());
        let (event, status_block) = (Some(overlapped.event), overlapped.status_block);
        let request = Request { operation: &nothing, event, status_block, key: 0, context: 0, apc: false };
        let field = device + DEVICE_OBJECT::DriverObject;
        cx.write(field, DriverPtr::new(engine::windows::SYSTEM.end() - 0x1000))?;
        assert!(cx.with(|k| fast_path::begin(k, handle, &request)).is_none());
        assert!(!cx.engine().has_faulted(), "what it could not read is no other request's");
        cx.write(field, driver)?;
        assert_eq!(file::start(cx, handle, nothing, &overlapped)?.status, NtStatus::SUCCESS);
        Ok(())
    });
    outcome.clean();
}

#[test]
fn an_application_whose_buffer_is_gone_at_the_end_is_told_so_both_ways() {
    fn take_away(cx: &mut Cx<'_>, given: &[u64]) -> Flow<u64> {
        let (_, irp) = arguments(given);
        let user = cx.read(irp + IRP::UserBuffer)?;
        user::free(cx, user.address);
        complete(cx, irp, NtStatus::SUCCESS, 4)
    }
    for learns in [false, true] {
        let outcome = story(move |cx| {
            cx.engine().learn_shared(learns);
            let majors =
                [IRP_MJ_CREATE, abi::IRP_MJ_CLEANUP, abi::IRP_MJ_CLOSE].map(|major| (major, succeed as _));
            let takes = [(abi::IRP_MJ_DEVICE_CONTROL, take_away as _)];
            let driver = driver(cx, "thief", &[majors.as_slice(), &takes].concat())?;
            device(cx, driver, "\\Device\\Thief", DO_BUFFERED_IO)?;
            let handle = file::open(cx, "\\Device\\Thief", &OpenOptions::default())?.unwrap();
            let process = u32::try_from(ps::current_process(cx)).unwrap();
            for _ in 0..ROUNDS {
                let output = Buffer { address: user::allocate(cx, process, 4).unwrap(), length: 4 };
                let answer = file::device_control(cx, handle, METHOD_BUFFERED, Buffer::default(), output)?;
                assert_eq!(answer.status, NtStatus::ACCESS_VIOLATION);
            }
            cx.engine().learn_shared(false);
            file::close(cx, handle).map(|_| ())
        });
        outcome.clean();
    }
}
