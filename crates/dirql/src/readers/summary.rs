//! The sums of a run: memory by tag, IRQL high-water, interrupts, DPCs, IRPs, register accesses, exports called.
//!
//! It counts events. What the kernel counts where it arises (calls of exports, the highest level, how deep stacks were, the clock) the
//! machine adds when it ends.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use kernel::event::{Class, Event, Kind, Reader, Stamp};
use kernel::ke::depth::Depth;

use super::json::{Object, array};
use super::names::{bytes, major, tag};

/// Memory that was allocated under one tag.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TagSum {
    /// Blocks allocated.
    pub allocated: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks freed.
    pub freed: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
}

/// The sums.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sums {
    /// Pool by tag.
    pub tags: BTreeMap<u32, TagSum>,
    /// The highest IRQL that any processor was at.
    pub irql_high_water: u8,
    /// ISR calls that claimed, and that did not.
    pub interrupts: (u64, u64),
    /// DPC routines run.
    pub dpcs: u64,
    /// IRPs sent, by major function.
    pub irps: BTreeMap<u8, u64>,
    /// IRPs completed.
    pub completed: u64,
    /// Register reads and writes.
    pub accesses: (u64, u64),
    /// Calls of each export.
    pub exports: BTreeMap<&'static str, u64>,
    /// Lines printed.
    pub prints: u64,
    /// The machine's clock, ns.
    pub time: u64,
    /// Deepest use of each stack in bytes, by whose it is (`the thread main`, `the DPC stack of processor 0`).
    pub stacks: BTreeMap<String, u64>,
    /// How deep each routine of a driver went, if that was measured.
    pub routine_stacks: Vec<Depth>,
}

impl Sums {
    /// Bytes allocated and not freed.
    #[must_use]
    pub fn still_allocated(&self) -> u64 {
        self.tags.values().map(|sum| sum.allocated_bytes - sum.freed_bytes).sum()
    }

    fn add(&mut self, event: &Event, live: &mut BTreeMap<u64, (u32, u64)>) {
        match event {
            Event::Allocated { address, bytes, tag, .. } => {
                let sum = self.tags.entry(*tag).or_default();
                (sum.allocated, sum.allocated_bytes) = (sum.allocated + 1, sum.allocated_bytes + bytes);
                live.insert(*address, (*tag, *bytes));
            }
            Event::Freed { address } => {
                if let Some((tag, bytes)) = live.remove(address) {
                    let sum = self.tags.entry(tag).or_default();
                    (sum.freed, sum.freed_bytes) = (sum.freed + 1, sum.freed_bytes + bytes);
                }
            }
            Event::Interrupt { claimed: true, .. } => self.interrupts.0 += 1,
            Event::Interrupt { claimed: false, .. } => self.interrupts.1 += 1,
            Event::Enter { role, .. } if matches!(role.class(), Class::Dpc | Class::ThreadedDpc) => {
                self.dpcs += 1;
            }
            Event::IrpSent { major, .. } => *self.irps.entry(*major).or_default() += 1,
            Event::IrpCompleted { .. } => self.completed += 1,
            Event::Device { write: false, .. } => self.accesses.0 += 1,
            Event::Device { write: true, .. } => self.accesses.1 += 1,
            Event::Print { .. } => self.prints += 1,
            _ => {}
        }
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        let tags = self.tags.iter().map(|(four, sum)| {
            Object::new()
                .text("tag", &tag(*four))
                .number("allocated", sum.allocated)
                .number("allocated_bytes", sum.allocated_bytes)
                .number("freed", sum.freed)
                .number("freed_bytes", sum.freed_bytes)
                .end()
        });
        let depths = self.routine_stacks.iter().map(|depth| {
            let routine = Object::new().text("role", depth.role.name()).text("routine", &depth.routine);
            routine.number("bytes", depth.bytes).end()
        });
        let numbers = |pairs: Vec<(String, u64)>| {
            pairs.into_iter().fold(Object::new(), |object, (name, count)| object.number(&name, count)).end()
        };
        Object::new()
            .number("time_ns", self.time)
            .raw("pool", &array(tags))
            .number("irql_high_water", self.irql_high_water)
            .number("interrupts_claimed", self.interrupts.0)
            .number("interrupts_not_claimed", self.interrupts.1)
            .number("dpcs", self.dpcs)
            .raw("irps", &numbers(self.irps.iter().map(|(code, count)| (major(*code), *count)).collect()))
            .number("irps_completed", self.completed)
            .number("register_reads", self.accesses.0)
            .number("register_writes", self.accesses.1)
            .raw("stacks", &numbers(self.stacks.clone().into_iter().collect()))
            .raw("routine_stacks", &array(depths))
            .raw("exports", &numbers(self.exports.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()))
            .number("prints", self.prints)
            .end()
    }
}

/// Reads events into [`Sums`]. A clone is the same sums.
#[derive(Clone, Default)]
pub struct Summary(Rc<RefCell<Counting>>);

#[derive(Clone, Default)]
struct Counting {
    sums: Sums,
    /// Tag and bytes of what is allocated, by address.
    live: BTreeMap<u64, (u32, u64)>,
}

impl Summary {
    /// The sums so far.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.0.borrow().sums.clone()
    }
}

impl Reader for Summary {
    fn wants(&self, kind: Kind) -> bool {
        use Kind::{Allocated, Device, Enter, Freed, Interrupt, IrpCompleted, IrpSent, Print};
        matches!(kind, Allocated | Device | Enter | Freed | Interrupt | IrpCompleted | IrpSent | Print)
    }

    fn reads_names(&self) -> bool {
        false
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        let Counting { sums, live } = &mut *self.0.borrow_mut();
        sums.add(event, live);
    }

    fn save(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.0.borrow().clone()))
    }

    fn restore(&mut self, saved: &dyn Any) {
        if let Some(counting) = saved.downcast_ref::<Counting>() {
            self.0.borrow_mut().clone_from(counting);
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  virtual time     {}.{:03} µs", self.time / 1000, self.time % 1000)?;
        writeln!(f, "  IRQL high-water  {}", self.irql_high_water)?;
        let (claimed, passed) = self.interrupts;
        writeln!(f, "  interrupts       {} ({claimed} claimed, {passed} not)", claimed + passed)?;
        writeln!(f, "  DPCs             {}", self.dpcs)?;
        let sent: u64 = self.irps.values().sum();
        let kinds: Vec<String> = self
            .irps
            .iter()
            .map(|(code, n)| format!("{n} {}", major(*code).replace("IRP_MJ_", "")))
            .collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        writeln!(f, "  IRPs             sent to drivers: {sent}{kinds}; completed: {}", self.completed)?;
        writeln!(f, "  registers        {} reads, {} writes", self.accesses.0, self.accesses.1)?;
        for (what, depth) in &self.stacks {
            writeln!(f, "  stack            {} deep in {what}", bytes(*depth))?;
        }
        for Depth { role, routine, bytes: depth } in &self.routine_stacks {
            writeln!(f, "  routine          {} deep in {role} {routine}", bytes(*depth))?;
        }
        for (four, sum) in &self.tags {
            let kept = sum.allocated_bytes - sum.freed_bytes;
            let kept = if kept == 0 { String::new() } else { format!(", {} not freed", bytes(kept)) };
            let (count, size) = (sum.allocated, bytes(sum.allocated_bytes));
            writeln!(
                f,
                "  pool {}        {count} × allocated ({size}), {} × freed{kept}",
                tag(*four),
                sum.freed
            )?;
        }
        let calls: u64 = self.exports.values().sum();
        writeln!(f, "  exports          {calls} calls of {}", self.exports.len())
    }
}
