//! Quotas: how much paged and nonpaged pool is charged to each process, and how much may be.
//!
//! Pages: *ExAllocatePoolWithQuotaTag function*, *POOL_FLAGS*, *IoAllocateIrp function*, *PsChargePoolQuota function*, *PsReturnPoolQuota
//! function*, *Bug Check 0x21 QUOTA_UNDERFLOW*. A block is charged, with the bytes that were asked for, to the process in whose context it is
//! allocated, and given back to that process when it is freed, wherever that is, and whether or not the process still runs. The system process is
//! charged, too, and has no limit. Not here: what the I/O manager itself allocates for an application's request is not charged; quotas of page
//! files and working sets.

use std::collections::BTreeMap;

use abi::{DriverPtr, KPROCESS, NtStatus, PagedPool, QUOTA_UNDERFLOW};
use engine::{Flow, Leave};

use super::process::{self, SYSTEM};
use crate::cx::{Cx, Kernel};
use crate::ex;
use crate::verdict::Verdict;

/// Bytes that are charged, of one kind of pool, to one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Charge {
    process: u64,
    paged: bool,
    bytes: u64,
}

/// Charges.
#[derive(Default)]
pub(crate) struct State {
    /// The most of each kind of pool that may be charged to a process; none: any number.
    limit: Option<u64>,
    /// Bytes of nonpaged and of paged pool, by process.
    used: BTreeMap<u64, [u64; 2]>,
    /// What blocks were charged, by their addresses.
    blocks: BTreeMap<u64, Charge>,
}

impl State {
    /// With this limit.
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether the block at this address is charged to a process.
    #[inline]
    pub(crate) fn is_charged(&self, block: u64) -> bool {
        !self.blocks.is_empty() && self.blocks.contains_key(&block)
    }

    /// The charge is of this block's, which gives it back when it is freed.
    fn keep(&mut self, block: u64, charge: Charge) {
        self.blocks.insert(block, charge);
    }

    /// False, and nothing is charged, if that is more than the process may have.
    fn charge(&mut self, charge: Charge) -> bool {
        let limit = self.limit.filter(|_| charge.process != SYSTEM).unwrap_or(u64::MAX);
        let used = &mut self.used.entry(charge.process).or_default()[usize::from(charge.paged)];
        match used.checked_add(charge.bytes).filter(|sum| *sum <= limit) {
            Some(sum) => {
                *used = sum;
                true
            }
            None => false,
        }
    }

    /// Gives it back; the error is how much was charged, which is less.
    fn give_back(&mut self, charge: Charge) -> Result<(), u64> {
        let used = &mut self.used.entry(charge.process).or_default()[usize::from(charge.paged)];
        *used = used.checked_sub(charge.bytes).ok_or(*used)?;
        if self.used.get(&charge.process) == Some(&[0, 0]) {
            self.used.remove(&charge.process);
        }
        Ok(())
    }
}

/// Charges the current process; none if that is more than it may have.
pub(crate) fn charge_current(cx: &mut Cx<'_>, paged: bool, bytes: u64) -> Option<Charge> {
    let charge = Charge { process: process::current_process(cx), paged, bytes };
    cx.with(|k| k.ps.quota.charge(charge)).then_some(charge)
}

/// What has been charged is this block's; if none was to be had, it goes back.
pub(crate) fn settle(k: &mut Kernel, block: Option<u64>, charge: Charge) {
    match block {
        Some(block) => k.ps.quota.keep(block, charge),
        // It was charged just now.
        None => drop(k.ps.quota.give_back(charge)),
    }
}

/// A block is freed: what it was charged goes back.
pub(crate) fn block_freed(cx: &mut Cx<'_>, block: u64) -> Flow<()> {
    let Some(charge) = cx.with(|k| k.ps.quota.blocks.remove(&block)) else { return Ok(()) };
    match cx.with(|k| k.ps.quota.give_back(charge)) {
        Ok(()) => Ok(()),
        Err(used) => Err(underflow(cx, &format!("the block at {block:#x} was freed"), charge, used)),
    }
}

fn kind_of(paged: bool) -> &'static str {
    if paged { "paged" } else { "nonpaged" }
}

fn underflow(cx: &mut Cx<'_>, what: &str, charge: Charge, used: u64) -> Leave {
    let Charge { process, paged, bytes } = charge;
    let (name, object) = cx.with(|k: &mut Kernel| {
        let object = k.ps.processes.get(&process).map_or(0, |known| known.object.address);
        (process::name(k, process), object)
    });
    let message = format!(
        "{what}, which gives {bytes} bytes of {} pool quota back to {name}, and {used} are charged to it",
        kind_of(paged)
    );
    let parameters = [object, paged.into(), used, bytes];
    cx.stop(Verdict::error("quota-underflow", message).bug_check(QUOTA_UNDERFLOW, parameters))
}

/// `PsChargePoolQuota`: raises STATUS_QUOTA_EXCEEDED if that is more than the process may have.
///
/// # Errors
/// The exception; a verdict if there is no such process.
pub(crate) fn charge_pool(
    cx: &mut Cx<'_>,
    process: DriverPtr<KPROCESS>,
    pool_type: u32,
    bytes: u64,
) -> Flow<()> {
    const NAME: &str = "PsChargePoolQuota";
    let charge = Charge { process: process::key(cx, NAME, process)?, paged: is_paged(pool_type), bytes };
    if cx.with(|k| k.ps.quota.charge(charge)) {
        return Ok(());
    }
    Err(ex::exception::raise(cx, NtStatus::QUOTA_EXCEEDED, NAME))
}

/// `PsReturnPoolQuota`.
///
/// # Errors
/// A verdict if less is charged to the process, or there is none.
pub(crate) fn return_pool(
    cx: &mut Cx<'_>,
    process: DriverPtr<KPROCESS>,
    pool_type: u32,
    bytes: u64,
) -> Flow<()> {
    const NAME: &str = "PsReturnPoolQuota";
    let charge = Charge { process: process::key(cx, NAME, process)?, paged: is_paged(pool_type), bytes };
    match cx.with(|k| k.ps.quota.give_back(charge)) {
        Ok(()) => Ok(()),
        Err(used) => Err(underflow(cx, &format!("{NAME} was called"), charge, used)),
    }
}

const fn is_paged(pool_type: u32) -> bool {
    pool_type & PagedPool != 0
}
