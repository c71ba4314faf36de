//! `ZwQuerySystemInformation`: what the system tells of itself.
//!
//! Pages: *NtQuerySystemInformation function*, *ZwQuerySystemInformation function*, *SYSTEM_BASIC_INFORMATION*. Of the classes that no page
//! describes (modules, the kernel's debugger) drivers rely on the layouts of Windows' public symbols. Times of processes and threads, their
//! memory and what they have transferred are not kept: those fields are 0. Other classes stop the run with their number.

use abi::{DriverPtr, NtStatus};
use engine::Flow;
use engine::windows::PAGE;

use crate::cx::{Cx, Kernel};
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::fields::{Fields, answer};
use crate::ke::thread::{NORMAL_PRIORITY, Role, State, Thread};
use crate::ke::{affinity, time};
use crate::ldr::{self, kernel_image};
use crate::mm::physical::RAM;
use crate::ob::handle::Table;
use crate::ps::process::session_of;
use crate::verdict::Verdict;

/// `SystemBasicInformation`.
const BASIC: u32 = 0;
/// `SystemProcessorInformation`.
const PROCESSOR: u32 = 1;
/// `SystemTimeOfDayInformation`.
const TIME_OF_DAY: u32 = 3;
/// `SystemProcessInformation`.
const PROCESSES: u32 = 5;
/// `SystemModuleInformation`.
const MODULES: u32 = 11;
/// `SystemKernelDebuggerInformation`.
const DEBUGGER: u32 = 35;
/// `SystemCodeIntegrityInformation`.
const CODE_INTEGRITY: u32 = 103;

/// What a reservation of addresses is rounded to.
const GRANULARITY: u32 = 0x1_0000;
/// `PROCESSOR_ARCHITECTURE_AMD64`.
const AMD64: u16 = 9;
/// `CODEINTEGRITY_OPTION_ENABLED`.
const ENABLED: u32 = 1;
/// Bytes of `SYSTEM_PROCESS_INFORMATION`.
const PROCESS_BYTES: usize = 0x100;
/// Bytes of a path in `RTL_PROCESS_MODULE_INFORMATION`, its end included.
const PATH_BYTES: usize = 0x100;

/// `ZwQuerySystemInformation`. `returned` gets the bytes that there are, also if they do not fit.
///
/// # Errors
/// A verdict if a pointer is bad, or on a class that is not here.
pub(crate) fn zw_query(
    cx: &mut Cx<'_>,
    class: u32,
    buffer: DriverPtr<u8>,
    length: u32,
    returned: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let answered = match class {
        BASIC => cx.with(|k| basic(k)),
        PROCESSOR => cx.with(|k| processor(k)),
        TIME_OF_DAY => cx.with(|k| time_of_day(k)),
        PROCESSES => cx.with(|k| processes(k, buffer.address)),
        MODULES => cx.with(|k| modules(k)),
        // KernelDebuggerEnabled, KernelDebuggerNotPresent.
        DEBUGGER => Fields::default().u16(0x0100),
        CODE_INTEGRITY => {
            let given: DriverPtr<u32> = buffer.cast();
            if length != 8 || cx.read(given)? != 8 {
                return Ok(NtStatus::INFO_LENGTH_MISMATCH);
            }
            Fields::default().u32(8).u32(ENABLED)
        }
        _ => {
            let what = format!("class {class} of ZwQuerySystemInformation");
            return Err(cx.stop(Verdict::not_implemented(&what)));
        }
    };
    answer(cx, &answered.done(), buffer.address, length, returned)
}

/// `SYSTEM_BASIC_INFORMATION`, 40h bytes.
fn basic(k: &Kernel) -> Fields {
    let pages: u64 = RAM.iter().map(|range| range.length / PAGE).sum();
    let [lowest, .., highest] = RAM;
    let (first, last) = (lowest.base / PAGE, (highest.base + highest.length) / PAGE - 1);
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let memory = Fields::default().u32(0).u32(small(time::INCREMENT)).u32(small(PAGE));
    let memory = memory.u32(small(pages)).u32(small(first)).u32(small(last)).u32(GRANULARITY).u32(0);
    let processors = affinity::of_group(k, 0);
    let users = memory.u64(GRANULARITY.into()).u64(USER_PROBE_ADDRESS - 1).u64(processors);
    users.u32(processors.count_ones()).pad_to(0x40)
}

/// `SYSTEM_PROCESSOR_INFORMATION`: architecture, family, model and stepping, processors, features.
fn processor(k: &Kernel) -> Fields {
    let processors = u16::try_from(affinity::of_group(k, 0).count_ones()).unwrap_or(u16::MAX);
    Fields::default().u16(AMD64).u16(6).u16(0).u16(processors).u32(0)
}

/// `SYSTEM_TIMEOFDAY_INFORMATION`, 30h bytes: the zone is UTC.
fn time_of_day(k: &Kernel) -> Fields {
    let (boot, now) = (time::boot(k), time::boot(k) + time::ticked(k));
    Fields::default().u64(boot - k.hal.platform.uptime / time::UNIT).u64(now).pad_to(0x30)
}

/// `RTL_PROCESS_MODULES`: the kernel first, then drivers as they were loaded.
fn modules(k: &Kernel) -> Fields {
    let kernel = (kernel_image::FOLDER, kernel_image::NAME, ldr::exports_base(), kernel_image::SIZE);
    let images = k
        .ldr
        .images
        .iter()
        .map(|(base, loaded)| (ldr::FOLDER, loaded.name.as_str(), *base, u64::from(loaded.image.size())));
    let all: Vec<_> = std::iter::once(kernel).chain(images).collect();
    let head = Fields::default().size(all.len()).u32(0);
    (0..).zip(all).fold(head, |list, (index, (folder, name, base, size))| {
        let begin = list.len();
        let placed = list.u64(0).u64(0).u64(base).u32(u32::try_from(size).unwrap_or(u32::MAX)).u32(0);
        let counted = placed.u16(index).u16(0).u16(1).u16(u16::try_from(folder.len()).unwrap_or(0));
        let path: Vec<u8> = folder.bytes().chain(name.bytes()).take(PATH_BYTES - 1).collect();
        let end = begin + 0x28 + PATH_BYTES;
        counted.bytes(&path).pad_to(end)
    })
}

/// A list of `SYSTEM_PROCESS_INFORMATION`, each with its threads and its name behind it; the idle process has none.
fn processes(k: &Kernel, buffer: u64) -> Fields {
    let mut list = process(k, buffer, &Listed { name: "", id: 0, key: None });
    let mut last = 0;
    for (key, known) in &k.ps.processes {
        let begin = list.len();
        let behind =
            process(k, buffer + begin as u64, &Listed { name: &known.name, id: known.id, key: Some(*key) });
        list = list.with_u32_at(last, begin - last).bytes(&behind.done());
        last = begin;
    }
    list
}

/// A process of the list.
struct Listed<'p> {
    name: &'p str,
    id: u64,
    /// None of the idle process.
    key: Option<u64>,
}

fn process(k: &Kernel, at: u64, listed: &Listed<'_>) -> Fields {
    let is_in = |thread: &&Thread| match listed.key {
        Some(key) => thread.home() == key && thread.role != Role::Idle && thread.state != State::Terminated,
        None => thread.role == Role::Idle,
    };
    let threads: Vec<&Thread> = k.ke.sched.threads().iter().filter(is_in).collect();
    let units: Vec<u16> = listed.name.encode_utf16().take(0x7FFE).collect();
    let text = PROCESS_BYTES + 0x50 * threads.len();
    let bytes = u16::try_from(2 * units.len()).unwrap_or(u16::MAX - 1);
    let counted = Fields::default().u32(0).size(threads.len()).pad_to(0x38);
    let named = if units.is_empty() {
        counted.u64(0).u64(0)
    } else {
        counted.u16(bytes).u16(bytes + 2).u32(0).u64(at + text as u64)
    };
    let handles = listed.key.and_then(|key| k.ob.tables.get(&key)).map_or(0, Table::count);
    let session = session_of(listed.id);
    let priority = if listed.key.is_some() { NORMAL_PRIORITY.into() } else { 0 };
    let head = named.u64(priority).u64(listed.id).u64(0).size(handles).u32(session).pad_to(PROCESS_BYTES);
    let whole = threads.iter().fold(head, |list, thread| of_thread(list, listed.id, thread));
    if units.is_empty() {
        return whole;
    }
    let end = (text + 2 * units.len() + 2).next_multiple_of(8);
    whole.wide(&units).pad_to(end)
}

/// `SYSTEM_THREAD_INFORMATION`, 50h bytes.
fn of_thread(list: Fields, process: u64, thread: &Thread) -> Fields {
    let state = match thread.state {
        State::Ready => 1,
        State::Running => 2,
        State::Terminated => 4,
        State::Waiting => 5,
    };
    let end = list.len() + 0x50;
    let owned = list.u64(0).u64(0).u64(0).u64(0).u64(0).u64(process).u64(thread.id);
    let ranked = owned.u32(thread.priority().into()).u32(thread.base_priority.into());
    ranked.u32(0).u32(state).u32(0).pad_to(end)
}
