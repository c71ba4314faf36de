//! Instances that a driver keeps open: the system reads their counters from the driver's own blocks of data at each query.
//!
//! Pages: *PcwCreateInstance function* ("The data blocks … must remain valid until the instance is closed"), *PcwCloseInstance function* ("Closing
//! them again will crash the system"), *PCW_DATA structure*. A block that is gone is reported when it is read.

use abi::{DriverPtr, NtStatus, PCW_DATA, UNICODE_STRING};
use engine::Flow;

use super::provider::HANDLE_BYTES;
use super::{Block, Counter, Instance, TAG, no_handle};
use crate::cx::Cx;
use crate::mm::{pool, pool_check};
use crate::ob;
use crate::verdict::Verdict;

/// `PcwCreateInstance`.
///
/// # Errors
/// A verdict on a bad pointer and on what is no registration.
pub(crate) fn create(
    cx: &mut Cx<'_>,
    to: DriverPtr<u64>,
    registration: u64,
    name: DriverPtr<UNICODE_STRING>,
    count: u32,
    data: DriverPtr<PCW_DATA>,
) -> Flow<NtStatus> {
    let Some(counters) = cx.with(|k| k.pcw.set(registration).map(|set| set.counters.clone())) else {
        return Err(no_handle(cx, "PcwCreateInstance", registration, "counter set that is registered"));
    };
    if u64::from(count) * size_of::<PCW_DATA>() as u64 > u32::MAX.into() {
        return Ok(NtStatus::INTEGER_OVERFLOW);
    }
    if counters.iter().any(|counter| counter.block >= count as usize) {
        return Ok(NtStatus::INVALID_PARAMETER_4);
    }
    let name = ob::string::read(cx, name)?;
    let blocks = blocks(cx, count, data)?;
    if !fit(&counters, &blocks) {
        return Ok(NtStatus::INVALID_BUFFER_SIZE);
    }
    let handle: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, HANDLE_BYTES, TAG)?;
    if handle.is_null() {
        return Ok(NtStatus::NO_MEMORY);
    }
    cx.with(|k| {
        if let Some(set) = k.pcw.set(registration) {
            set.instances.push(Instance { at: handle.address, name, id: set.next_id, blocks });
            set.next_id += 1;
        }
    });
    cx.write(to, handle.address)?;
    Ok(NtStatus::SUCCESS)
}

/// `PcwCloseInstance`.
///
/// # Errors
/// A verdict on what is no instance that is open.
pub(crate) fn close(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    let closed = cx.with(|k| {
        let sets = &mut k.pcw.sets;
        let found = sets.iter_mut().find_map(|set| {
            let place = set.instances.iter().position(|instance| instance.at == handle)?;
            Some(set.instances.remove(place))
        });
        found.is_some()
    });
    if !closed {
        let what = "instance that is open: it is closed once, by PcwCloseInstance or by PcwUnregister of its counter set";
        return Err(no_handle(cx, "PcwCloseInstance", handle, what));
    }
    pool::free(cx, DriverPtr::<()>::new(handle))
}

/// The blocks of data that a driver has put together.
///
/// # Errors
/// A verdict on a bad pointer.
pub(super) fn blocks(cx: &mut Cx<'_>, count: u32, data: DriverPtr<PCW_DATA>) -> Flow<Vec<Block>> {
    (0..u64::from(count))
        .map(|index| {
            let one = DriverPtr::<PCW_DATA>::new(data.address + index * size_of::<PCW_DATA>() as u64);
            let address = cx.read(one + PCW_DATA::Data)?;
            Ok(Block { address, size: cx.read(one + PCW_DATA::Size)?.into() })
        })
        .collect()
}

/// Looks at the blocks of an open instance before the system reads them, where no driver code is running.
///
/// # Errors
/// A verdict on a block that lies in pool that is freed.
pub(super) fn refuse_freed(cx: &mut Cx<'_>, name: &str, blocks: &[Block]) -> Flow<()> {
    for given in blocks {
        let freed =
            cx.with(|k| pool_check::containing(k, given.address)).filter(|(_, block)| block.is_freed());
        if let Some((_, block)) = freed {
            let message = format!(
                "the data of the counter instance \"{name}\", which is open, lie at {:#x} in a block of pool that is freed",
                given.address
            );
            let verdict = Verdict::error("use-after-free", message).of_block(&block);
            return Err(cx.stop(verdict.bug_check(0xCC, [given.address, 0, 0, 0])));
        }
    }
    Ok(())
}

/// Whether each counter lies in its block.
pub(super) fn fit(counters: &[Counter], blocks: &[Block]) -> bool {
    let fits = |counter: &Counter| {
        blocks.get(counter.block).is_some_and(|block| counter.offset + counter.size <= block.size)
    };
    counters.iter().all(fits)
}

/// The values of all counters, in the order in which they were registered.
///
/// # Errors
/// A verdict on a block that cannot be read.
pub(super) fn values(cx: &mut Cx<'_>, counters: &[Counter], blocks: &[Block]) -> Flow<Vec<(u16, Vec<u8>)>> {
    counters
        .iter()
        .map(|counter| {
            let address = blocks[counter.block].address + counter.offset;
            Ok((counter.id, cx.read_bytes(address, counter.size)?))
        })
        .collect()
}
