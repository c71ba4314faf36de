//! Message-signaled interrupts at the processors: what arrives, and the service routines that are called for it. Follows
//! *Introduction to Message-Signaled Interrupts*, *KMESSAGE_SERVICE_ROUTINE callback function*; Intel 64 and IA-32
//! Software Developer's Manual, volume 3, 11.11 (message format).
//!
//! As in an interrupt controller, a vector is requested or it is not: a message that comes before its predecessor was
//! taken is one with it; one that comes during the service is served afterwards. A message whose vector has no routine
//! connected is lost. One that its own routine sends again each time would be served for ever: 0x133 on Windows, whose
//! watchdog sees that no DPC runs. Which processor a message's address names is not looked at: the connection's set counts.

use engine::Flow;

use super::interrupt::line_of_vector;
use super::interrupt_delivery::{self, CLAIMED_PASSES, LATENCY};
use super::passive_isr;
use super::vectors::{Vectors, irql_of_vector};
use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::hal::hardware::Message;
use crate::ke::levels::irql;
use crate::ke::sched::slice;
use crate::verdict::Verdict;

/// Where messages to processors go: FEE00000h–FEEFFFFFh.
const PROCESSORS: u64 = 0xFEE;
/// Delivery modes that bring a vector: fixed, and to the processor with the lowest priority.
const WITH_VECTOR: u32 = 1;

/// What becomes of messages.
#[derive(Default)]
pub(crate) struct Messages {
    /// Requested, and not taken yet.
    pub(crate) pending: Vectors,
    /// A routine is connected.
    pub(crate) connected: Vectors,
    /// Being served: the next message waits for the end of it.
    serving: Vectors,
}

impl Messages {
    /// The vectors that want service, the highest first.
    pub(in crate::ke) fn wanting(&self) -> impl Iterator<Item = u32> {
        let Self { pending, connected, serving } = self;
        let (connected, serving) = (*connected, *serving);
        pending.descending().filter(move |vector| connected.contains(*vector) && !serving.contains(*vector))
    }

    /// The service of a vector is over.
    pub(in crate::ke) fn served(&mut self, vector: u32) {
        self.serving.remove(vector);
    }

    /// No routine is connected to a vector any more.
    pub(crate) fn forget(&mut self, vector: u32) {
        self.pending.remove(vector);
    }
}

/// Interrupts that a processor takes one after another, before what it interrupted goes on.
#[derive(Clone, Copy, Default)]
pub(in crate::ke) struct InARow {
    vector: u32,
    times: u32,
}

impl InARow {
    /// `vector` has been served. The verdict if it is a message that has come again each time, for so long that whatever it
    /// interrupts would never go on; a line that does so is `line`'s.
    pub(in crate::ke) fn count(&mut self, k: &Kernel, vector: u32) -> Option<Verdict> {
        self.times = if self.vector == vector { self.times + 1 } else { 1 };
        self.vector = vector;
        let storm = self.times >= CLAIMED_PASSES && line_of_vector(vector).is_none();
        storm.then(|| self.storm(k))
    }

    fn storm(self, k: &Kernel) -> Verdict {
        let Self { vector, times } = self;
        let irql = irql_of_vector(vector);
        let routines: Vec<String> =
            k.ke.irq.interrupts.active_on(vector).map(|(_, one)| format!("{:#x}", one.routine)).collect();
        let message = format!(
            "interrupt storm by message: vector {vector:#x} came again during each of {times} services in a row (routine {}), and \
             nothing below IRQL {irql} runs any more",
            routines.join(", ")
        );
        let verdict = Verdict::error("interrupt-storm", message).bug_check(0x133, [1, 0, 0, 0]);
        Verdict { by_hardware: true, ..verdict }
    }
}

/// A function's write arrives.
pub(crate) fn arrive(cx: &mut Cx<'_>, message: Message) {
    let Message { address, data } = message;
    if address >> 20 != PROCESSORS || data >> 8 & 7 > WITH_VECTOR {
        let what = format!("a message of {data:#x} to {address:#x}, which brings no processor a vector");
        // The thread that runs next finds that the machine has ended.
        let _ended = cx.stop(Verdict::not_implemented(&what));
        return;
    }
    let vector = data & 0xFF;
    let connected = cx.with(|k| {
        let messages = &mut k.ke.irq.interrupts.messages;
        let connected = messages.connected.contains(vector);
        if connected {
            messages.pending.insert(vector);
            // Another processor may take it.
            k.ke.rearm();
        }
        connected
    });
    cx.emit(Event::Message { vector, address, data, connected });
}

/// The current processor takes the message of `vector`.
pub(crate) fn service(cx: &mut Cx<'_>, vector: u32) -> Flow<()> {
    let old = irql::current(cx);
    cx.with(|k| {
        let messages = &mut k.ke.irq.interrupts.messages;
        messages.pending.remove(vector);
        messages.serving.insert(vector);
        k.ke.invalidate_levels();
    });
    irql::set(cx, irql_of_vector(vector));
    slice::charge(cx, LATENCY);
    let result = interrupt_delivery::call_chain(cx, vector);
    let result = match result {
        Ok(_) if cx.with(|k| passive_isr::serves(k, vector)) => passive_isr::hand_over(cx, vector),
        result => {
            cx.with(|k| interrupt_delivery::unmask(k, vector));
            result.map(|_claimed| ())
        }
    };
    irql::set(cx, old);
    result
}
