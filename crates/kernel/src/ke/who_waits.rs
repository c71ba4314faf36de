//! Who waits for what and where, who could end it, and what is alive meanwhile: in words, for verdicts on what does not end.
//! Follows no page. It reads the kernel's state and changes nothing.
//!
//! An object is named by what it is to a driver: the end of an IRP, a remove lock, a fast mutex, else an event and its address. Which
//! routine would have set an event cannot be known, and is not guessed.

use std::collections::BTreeMap;

use abi::{
    DEVICE_OBJECT, DISPATCHER_HEADER, DriverPtr, FAST_MUTEX, FILE_OBJECT, IO_STACK_LOCATION, IRP, KMUTANT,
    KTHREAD, KTIMER,
};
use engine::StrandId;

use super::waits::{dispatcher, dispatcher::Kind};

use super::sched::{thread_record, thread_record::Role, thread_record::State, thread_record::Thread};
use super::timing::time;
use super::waits::{mutex, timer, wait};
use crate::cx::{Cx, Kernel};
use crate::ex::{push_lock, resource};
use crate::hal::dma::channel;
use crate::io::{self, remove_lock};
use crate::ldr;
use crate::ldr::symbols;
use crate::mm::pool_check;
use crate::verdict::Related;

/// At most so many lines of a waiting thread's stack are shown.
const LINES: usize = 4;
/// At most so many live things of a kind are listed.
const MOST: usize = 4;
/// At most so many threads that wait for different things, and so many requests, are listed; the rest is a number.
const MOST_WAITS: usize = 32;
/// So many moments are worth a second run.
const MOMENTS: usize = 16;

/// Each thread that waits, for what and where, and each request that a driver has.
pub(crate) fn all(cx: &mut Cx<'_>) -> Vec<String> {
    let mut lines = threads(cx, |_| true);
    lines.extend(requests(cx));
    lines.extend(channel::waiting(cx));
    lines
}

/// Which of the threads that wait wait for what, and where.
pub(crate) fn threads(cx: &mut Cx<'_>, which: impl Fn(&Thread) -> bool) -> Vec<String> {
    let waiting = cx.with(|k| {
        let all = k.ke.sched.threads().iter().filter(|thread| which(thread));
        all.filter_map(|thread| Some((thread.strand, wait::describe_wait(k, thread)?))).collect::<Vec<_>>()
    });
    let with_place = |(strand, line)| match place(cx, strand) {
        place if place.is_empty() => line,
        // In front of the line: the owner of what is waited for is named last, and this must not seem to be its.
        place => format!("{}, {line}", place.trim_start()),
    };
    counted(waiting.into_iter().map(with_place), "threads")
}

/// The lines, equal ones once with their count, and at most [`MOST_WAITS`] of them.
pub(crate) fn counted(lines: impl Iterator<Item = String>, what: &str) -> Vec<String> {
    let (mut shown, mut counts, mut more) = (Vec::<String>::new(), BTreeMap::<String, usize>::new(), 0);
    for line in lines {
        match counts.get_mut(&line) {
            Some(count) => *count += 1,
            None if shown.len() < MOST_WAITS => {
                counts.insert(line.clone(), 1);
                shown.push(line);
            }
            None => more += 1,
        }
    }
    let with_count = |line: String| match counts[&line] {
        1 => line,
        count => format!("{line} ({count} such {what})"),
    };
    let mut lines: Vec<String> = shown.into_iter().map(with_count).collect();
    if more > 0 {
        lines.push(format!("so do {more} more {what}"));
    }
    lines
}

/// Where in a driver a thread stands: ` in a.sys!Foo+0x12, called from …`; nothing if in none.
fn place(cx: &mut Cx<'_>, strand: StrandId) -> String {
    let runs = cx.engine().strand() == strand;
    let lines = if runs { ldr::stack::lines(cx) } else { ldr::stack::lines_of(cx, strand) };
    let names: Vec<&str> = lines.iter().take(LINES).map(|line| line.symbol.as_str()).collect();
    if names.is_empty() { String::new() } else { format!(" in {}", names.join(", called from ")) }
}

/// The earlier moments that belong to what waits: when the drivers that have requests were sent them and kept them, when the locks that
/// are waited for were acquired, when spin locks were that are held.
pub(crate) fn moments(k: &Kernel) -> Vec<Related> {
    let mut all: Vec<Related> =
        k.io.irps
            .live
            .keys_where(|_| true)
            .into_iter()
            .filter(|irp| k.io.frames.holder(*irp).is_some())
            .flat_map(|irp| io::pending::moments(k, irp))
            .collect();
    all.extend(awaited(k).into_iter().map(|event| Related { what: "acquired", event }));
    let spun = k.ke.processors.iter().flat_map(|processor| k.ke.levels.locks().of(processor.number));
    all.extend(spun.map(|(_, held)| Related { what: "acquired", event: held.taken }));
    all.dedup();
    all.truncate(MOMENTS);
    all
}

/// When the locks that threads wait for were acquired.
pub(crate) fn awaited(k: &Kernel) -> Vec<u64> {
    let waits = || k.ke.sched.threads().iter().filter_map(|thread| thread.wait.as_ref());
    let objects = waits().flat_map(|wait| wait.objects.iter()).flat_map(|header| acquired(k, header.address));
    let granted = waits().filter_map(|wait| wait.granted).flat_map(|lock| push_lock::acquired(k, lock));
    objects.chain(granted).take(MOMENTS).collect()
}

/// When those that own what this object stands for acquired it.
fn acquired(k: &Kernel, object: u64) -> Vec<u64> {
    if let Some(lock) = remove_lock::with_event(k, object) {
        return remove_lock::acquired(k, lock);
    }
    if let Some(resource) = resource::with_event(k, object) {
        return resource::acquired(k, resource);
    }
    let fast =
        k.ex.contended.contains(&object).then(|| k.ex.mutexes.get(object - FAST_MUTEX::Event.offset()));
    let moment = fast.flatten().copied().or_else(|| mutex::acquired(k, object));
    moment.into_iter().collect()
}

// ---- objects ----

/// What an object is to those who wait for it.
pub(crate) fn object(k: &Kernel, header: DriverPtr<DISPATCHER_HEADER>) -> String {
    let at = header.address;
    if let Some(irp) = irp_behind(k, at) {
        return format!("the end of {}", request(k, irp));
    }
    if let Some(lock) = remove_lock::with_event(k, at) {
        return format!(
            "the release of the remove lock {}, {}",
            whereabouts(k, lock),
            remove_lock::held(k, lock)
        );
    }
    if let Some(resource) = resource::with_event(k, at) {
        return resource::describe(k, resource);
    }
    if k.ex.contended.contains(&at) {
        return fast_mutex(k, at - FAST_MUTEX::Event.offset());
    }
    let kind = k.engine.read(header + DISPATCHER_HEADER::Type).ok().and_then(Kind::from_byte);
    let name = kind.map_or("object", Kind::name);
    match kind {
        Some(Kind::Thread) => dispatcher::describe(k, header),
        Some(Kind::Mutant) => {
            let owner = k.engine.read(header.cast::<KMUTANT>() + KMUTANT::OwnerThread);
            owned(k, name, at, owner.unwrap_or(DriverPtr::NULL))
        }
        _ => format!("the {name} {}", whereabouts(k, at)),
    }
}

fn fast_mutex(k: &Kernel, mutex: u64) -> String {
    let owner = k.engine.read(DriverPtr::<FAST_MUTEX>::new(mutex) + FAST_MUTEX::Owner);
    owned(k, "fast mutex", mutex, owner.unwrap_or(DriverPtr::NULL))
}

fn owned(k: &Kernel, what: &str, at: u64, owner: DriverPtr<KTHREAD>) -> String {
    let owner = k.ke.thread_of(owner.address);
    let owner = owner.map_or("no thread".to_owned(), |owner| format!("the {}", owner.name));
    format!("the {what} {}, which {owner} owns", whereabouts(k, at))
}

/// A variable of a driver's, else an address and what lies there: `0x… in the device extension of \Device\Foo (foo) at +0x10`.
pub(crate) fn whereabouts(k: &Kernel, address: u64) -> String {
    if let Some(variable) = variable_of(k, address) {
        return variable;
    }
    let within = within(k, address).or_else(|| {
        let (start, block) = pool_check::containing(k, address)?;
        Some(format!("{:#x} bytes into {}", address - start, pool_check::describe(start, &block)))
    });
    within.map_or_else(|| format!("{address:#x}"), |within| format!("{address:#x} ({within})"))
}

/// What an address lies in that has a name: a device extension, a thread's stack.
pub(crate) fn within(k: &Kernel, address: u64) -> Option<String> {
    device_of(k, address).or_else(|| stack_of(k, address))
}

fn device_of(k: &Kernel, address: u64) -> Option<String> {
    let devices = k.io.devices.keys_where(|device| !device.deleted);
    devices.into_iter().find_map(|device| {
        let object = DriverPtr::<DEVICE_OBJECT>::new(device);
        let size = k.engine.read(object + DEVICE_OBJECT::Size).ok()?;
        let extension = k.engine.read(object + DEVICE_OBJECT::DeviceExtension).ok()?.address;
        let length = u64::from(size).saturating_sub(extension.wrapping_sub(device));
        let offset = address.wrapping_sub(extension);
        (extension != 0 && offset < length).then(|| {
            let name = io::violation::name_of_device(k, device);
            format!("in the device extension of {name} at +{offset:#x}")
        })
    })
}

fn variable_of(k: &Kernel, address: u64) -> Option<String> {
    k.ldr.image_at(address).map(|_| symbols::code(k, address))
}

fn stack_of(k: &Kernel, address: u64) -> Option<String> {
    let owner = k.ke.sched.threads().iter().find(|thread| thread.has_on_stack(address))?;
    Some(format!("on the stack of the {}", owner.name))
}

// ---- requests ----

/// The IRP whose end signals the event at this address.
fn irp_behind(k: &Kernel, event: u64) -> Option<u64> {
    let waited_for = |irp: u64, record: &io::irp::Record| {
        let by_issue = record.issue.as_ref().is_some_and(|issue| {
            let own = DriverPtr::<FILE_OBJECT>::new(issue.file) + FILE_OBJECT::Event;
            issue.event == event || own.address == event
        });
        let user = k.engine.read(DriverPtr::<IRP>::new(irp) + IRP::UserEvent);
        by_issue || user.is_ok_and(|user| user.address == event)
    };
    let mut live = k.io.irps.live.keys_where(|_| true).into_iter();
    live.find(|irp| k.io.irps.live.get(*irp).is_some_and(|record| waited_for(*irp, record)))
}

/// `IRP_MJ_READ (IRP 0x…)`.
fn request(k: &Kernel, irp: u64) -> String {
    let name = request_of(k, irp).unwrap_or_else(|| "a request".to_owned());
    format!("{name} (IRP {irp:#x})")
}

/// `IRP_MJ_READ`, if a driver has the IRP.
pub(crate) fn request_of(k: &Kernel, irp: u64) -> Option<String> {
    let at = DriverPtr::<IRP>::new(irp);
    let (number, count) = (k.engine.read(at + IRP::CurrentLocation), k.engine.read(at + IRP::StackCount));
    let number = number.ok().filter(|number| (1..=count.unwrap_or(0)).contains(number))?;
    let location = io::irp::location(at, number);
    let major = k.engine.read(location + IO_STACK_LOCATION::MajorFunction).ok()?;
    let minor = k.engine.read(location + IO_STACK_LOCATION::MinorFunction).ok()?;
    Some(io::violation::request_name(major, minor))
}

/// Each request that a driver has: who, since when, and whether it can be cancelled.
fn requests(cx: &mut Cx<'_>) -> Vec<String> {
    let held = cx.with(|k| {
        let live = k.io.irps.live.keys_where(|_| true).into_iter();
        live.filter_map(|irp| Some((irp, k.io.frames.holder(irp)?))).collect::<Vec<_>>()
    });
    let mut lines = Vec::new();
    let more = held.len().saturating_sub(MOST_WAITS);
    for (irp, device) in held.into_iter().take(MOST_WAITS) {
        let name = io::violation::device_name(cx, DriverPtr::new(device));
        let (sent, pended) = cx.with(|k| k.io.frames.had_since(irp));
        let since = match (pended, sent) {
            (Some(event), _) => format!("; its dispatch routine returned STATUS_PENDING at event {event}"),
            (None, Some(event)) => format!("; it was sent there at event {event}"),
            (None, None) => String::new(),
        };
        lines.push(cx.with(|k| {
            let routine =
                k.engine.read(DriverPtr::<IRP>::new(irp) + IRP::CancelRoutine).unwrap_or(DriverPtr::NULL);
            let cancelled = k.engine.read(DriverPtr::<IRP>::new(irp) + IRP::Cancel).is_ok_and(|set| set != 0);
            let cancel = match (cancelled, routine.is_null()) {
                (true, _) => "it has been cancelled".to_owned(),
                (false, true) => "it has no cancel routine".to_owned(),
                (false, false) => format!("its cancel routine is {}", symbols::code(k, routine.address)),
            };
            format!("{} is with {name}, which alone can complete it ({cancel}{since})", request(k, irp))
        }));
    }
    if more > 0 {
        lines.push(format!("{more} more requests are with drivers"));
    }
    lines
}

// ---- what is alive ----

/// What happens though nothing comes of it: timers, threads that run or wake by themselves, queued DPCs and work.
pub(crate) fn alive(cx: &mut Cx<'_>) -> Vec<String> {
    let mut lines: Vec<String> =
        cx.with(|k| timer::all_set(k).into_iter().take(MOST).map(|timer| of_timer(k, timer)).collect());
    let awake = cx.with(|k| {
        let awake =
            k.ke.sched.threads().iter().filter(|thread| thread.role != Role::Idle && is_awake(k, thread));
        let awake = awake.filter(|thread| thread.role != Role::Worker || !thread.callouts.is_empty());
        awake.take(MOST).map(|thread| (thread.strand, of_thread(k, thread))).collect::<Vec<_>>()
    });
    lines.extend(awake.into_iter().map(|(strand, line)| format!("{line}{}", place(cx, strand))));
    cx.with(|k| {
        let routine = |dpc: u64| {
            let routine = k.engine.read(DriverPtr::<abi::KDPC>::new(dpc) + abi::KDPC::DeferredRoutine);
            routine.map_or_else(|_| format!("{dpc:#x}"), |routine| symbols::code(k, routine.address))
        };
        let queued = super::irq::dpc::all_queued(k).into_iter().take(MOST);
        lines.extend(queued.map(|(dpc, _)| format!("the DPC {} is queued", routine(dpc))));
    });
    lines
}

fn is_awake(k: &Kernel, thread: &Thread) -> bool {
    thread.state != State::Waiting || k.ke.timing.timers().has_timeout(thread.strand)
}

fn of_thread(k: &Kernel, thread: &Thread) -> String {
    let name = thread_record::name(k, thread.strand);
    match thread.state {
        State::Waiting => format!("the {name} sleeps with a time-out"),
        State::Ready => format!("the {name} is ready to run"),
        _ => format!("the {name} runs"),
    }
}

fn of_timer(k: &Kernel, at: u64) -> String {
    let Some(setting) = k.ke.timing.timers().setting(at) else { return format!("timer {at:#x}") };
    let dpc = k.engine.read(DriverPtr::<KTIMER>::new(at) + KTIMER::Dpc).ok().filter(|dpc| !dpc.is_null());
    let routine = dpc.and_then(|dpc| k.engine.read(dpc + abi::KDPC::DeferredRoutine).ok());
    let calls = match (k.ex.timers.get(&at), routine) {
        (Some(own), _) => own.callback().map(|routine| format!(" and calls {}", symbols::code(k, routine))),
        (None, Some(routine)) => Some(format!(" and calls {}", symbols::code(k, routine.address))),
        (None, None) => None,
    };
    let how = match setting.period {
        0 => "is set once".to_owned(),
        period => format!("expires every {} ms", period / time::MILLISECOND),
    };
    format!("the timer {} {how}{}", whereabouts(k, at), calls.unwrap_or_default())
}
