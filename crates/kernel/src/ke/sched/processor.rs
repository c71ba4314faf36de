//! Virtual processors: control region, stacks, what runs on each. `KPCR` as `ntddk.h` has its public part.
//!
//! What an instruction asks of a processor is in `instruction`; levels are in `irql`.

use std::collections::VecDeque;

use abi::{DriverPtr, KPCR, KPRCB, KTHREAD, NtStatus};
use engine::{Flow, StrandId};

use super::affinity;
use crate::cx::{Cx, Kernel};
use crate::ke::irq::dpc::QueuedDpc;
use crate::ke::irq::threaded_dpc::Threaded;
use crate::ke::levels::irql::PASSIVE_LEVEL;
use crate::mm::stack::KernelStack;

/// A stack of the processor's that code was entered on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entered {
    pub(crate) stack: KernelStack,
    /// How many calls into drivers were nested on the strand before.
    pub(crate) depth: u32,
}

/// What a processor waits for inside a kernel call, without giving its thread up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WaitsFor {
    /// This spin lock.
    Lock(u64),
    /// To share this reader/writer spin lock.
    LockShared(u64),
    /// To have this reader/writer spin lock alone.
    LockAlone(u64),
    /// `KeIpiGenericCall`: the end of another processor's.
    IpiTurn,
    /// Its barrier.
    IpiBarrier,
    /// Its end on all processors.
    IpiEnd,
    /// `KeFlushQueuedDpcs`: every DPC that is queued or runs.
    Dpcs,
    /// This DPC, or callback of a timer, that is queued or runs.
    Dpc(u64),
    /// The routine of this DPC, which runs.
    Routine(u64),
    /// The routine of this interrupt object, which is being disconnected.
    Isr(u64),
}

/// One virtual processor.
pub(crate) struct Processor {
    /// 0–63.
    pub(crate) number: u32,
    /// Its control region, in nonpaged memory.
    pub(crate) region: DriverPtr<KPCR>,
    /// Its idle thread.
    pub(crate) idle: StrandId,
    /// The object of that.
    pub(crate) idle_object: DriverPtr<KTHREAD>,
    /// Its current thread.
    pub(crate) thread: StrandId,
    /// Its level, 0–15; see `level`.
    pub(in crate::ke) parked_level: u8,
    /// The interrupt flag.
    pub(crate) interrupts_enabled: bool,
    /// DPCs to run here.
    pub(crate) dpcs: VecDeque<QueuedDpc>,
    /// Whether the DPC queue is to be emptied as soon as the level allows.
    pub(crate) dispatch_requested: bool,
    /// The DPC that runs now.
    pub(crate) running_dpc: Option<u64>,
    /// When the DPCs that run now, one after another, began.
    pub(crate) dispatch_since: u64,
    /// DPCs to run here on a thread.
    pub(crate) threaded: Threaded,
    /// Behind the highest address of the stack DPCs run on.
    pub(crate) dpc_stack: u64,
    /// The same for interrupt service routines.
    pub(crate) interrupt_stack: u64,
    /// Which of them are in use, innermost last.
    pub(crate) entered: Vec<Entered>,
    /// The levels below which interrupt routines and DPCs that run now must not go, innermost last.
    pub(crate) floors: Vec<u8>,
    /// How many calls into drivers were nested when each of these came in.
    pub(crate) interrupted: Vec<u32>,
    /// When the outermost interrupt routine or DPC that runs now began.
    pub(crate) raised_since: u64,
    /// What this processor waits for inside a kernel call, without giving its thread up.
    pub(crate) waits_for: Option<WaitsFor>,
    /// A `KeSetEvent` or its like said that the current thread waits next: no other thread comes between.
    pub(crate) wait_next: bool,
    /// Whether the current thread gives way as soon as the level allows, and then goes behind its equals.
    pub(crate) yield_requested: bool,
    /// Counts turns: the processor with the lowest one has waited longest.
    pub(crate) last_turn: u64,
    /// When it got its turn.
    pub(crate) turn_began: u64,
    /// The address of the last page fault, as `mov r, cr2` reads it.
    pub(crate) cr2: u64,
}

impl WaitsFor {
    /// As one number.
    pub(crate) fn number(self) -> u64 {
        let (kind, object) = match self {
            Self::Lock(object) => (1, object),
            Self::LockShared(object) => (2, object),
            Self::LockAlone(object) => (3, object),
            Self::IpiTurn => (4, 0),
            Self::IpiBarrier => (5, 0),
            Self::IpiEnd => (6, 0),
            Self::Dpcs => (7, 0),
            Self::Dpc(object) => (8, object),
            Self::Routine(object) => (9, object),
            Self::Isr(object) => (10, object),
        };
        engine::mixed(kind, object)
    }
}

impl Processor {
    /// Processor `number` before anything runs on it.
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            region: DriverPtr::NULL,
            idle: StrandId(0),
            idle_object: DriverPtr::NULL,
            thread: StrandId(0),
            parked_level: PASSIVE_LEVEL,
            interrupts_enabled: true,
            dpcs: VecDeque::new(),
            dispatch_requested: false,
            running_dpc: None,
            dispatch_since: 0,
            threaded: Threaded::default(),
            dpc_stack: 0,
            interrupt_stack: 0,
            entered: Vec::new(),
            floors: Vec::new(),
            interrupted: Vec::new(),
            raised_since: 0,
            waits_for: None,
            wait_next: false,
            yield_requested: false,
            last_turn: 0,
            turn_began: 0,
            cr2: 0,
        }
    }

    /// Its bit in an affinity mask.
    pub(crate) const fn mask(&self) -> u64 {
        1 << self.number
    }

    /// Whether no thread but the idle one is on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.thread == self.idle
    }

    /// Where the current thread's object stands.
    pub(in crate::ke) fn control_block(&self) -> DriverPtr<KPRCB> {
        self.region + KPCR::Prcb
    }
}

/// Makes `strand` what processor `index` runs, also for drivers that read `gs:[188h]`.
pub(in crate::ke) fn set_current_thread(k: &mut Kernel, index: usize, strand: StrandId) {
    let object = k.ke.sched.threads[strand].object;
    k.ke.invalidate_levels();
    exchange_thread(k, index, strand, object);
}

/// The same with its idle thread, which is to run nothing: the published free level is recomputed when a turn begins.
#[inline]
pub(super) fn leave_to_idle(k: &mut Kernel, index: usize) {
    let (idle, object) = (k.ke.processors[index].idle, k.ke.processors[index].idle_object);
    exchange_thread(k, index, idle, object);
}

/// As [`set_current_thread`], with its object, where nothing waits for its processor that did not before.
#[inline]
pub(super) fn exchange_thread(k: &mut Kernel, index: usize, strand: StrandId, object: DriverPtr<KTHREAD>) {
    let processor = &mut k.ke.processors[index];
    processor.thread = strand;
    let at = processor.control_block() + KPRCB::CurrentThread;
    k.engine.write(at, object).expect("the control region is memory of ours");
}

/// Makes processor `index` the one that runs.
pub(super) fn switch_to(cx: &mut Cx<'_>, index: usize) {
    let region = cx.with(|k| {
        let changed = k.ke.current != index;
        k.make_current(index);
        changed.then(|| k.ke.processors[index].region)
    });
    if let Some(region) = region {
        cx.engine().set_processor_region(region.address);
    }
}

/// `KeGetCurrentProcessorNumberEx`: the number among all processors; group and number in it in a `PROCESSOR_NUMBER` if
/// asked.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn current_number(cx: &mut Cx<'_>, into: DriverPtr<abi::PROCESSOR_NUMBER>) -> Flow<u32> {
    let number = cx.with(|k| k.ke.processor().number);
    if !into.is_null() {
        affinity::write_number(cx, into, number)?;
    }
    Ok(number)
}

/// `KeGetProcessorNumberFromIndex`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn number_from_index(
    cx: &mut Cx<'_>,
    index: u32,
    into: DriverPtr<abi::PROCESSOR_NUMBER>,
) -> Flow<NtStatus> {
    if index >= cx.with(|k| k.ke.processor_count()) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    affinity::write_number(cx, into, index)?;
    Ok(NtStatus::SUCCESS)
}

/// `KeGetProcessorIndexFromNumber`; `INVALID_PROCESSOR_INDEX` if there is no such processor.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn index_from_number(cx: &mut Cx<'_>, number: DriverPtr<abi::PROCESSOR_NUMBER>) -> Flow<u32> {
    Ok(affinity::read_number(cx, number)?.unwrap_or(u32::MAX))
}
