//! Registrations of counter sets.
//!
//! Pages: *PcwRegister function* ("All input arguments are captured"), *PcwUnregister function* ("Instances owned by the counterset registration are
//! automatically closed"), *PCW_REGISTRATION_INFORMATION structure*. How many counters are too many no page says: here as many as do not fit 32 bits.

use abi::{
    Code, DriverPtr, NtStatus, PCW_COUNTER_DESCRIPTOR, PCW_REGISTRATION_INFORMATION, PCW_VERSION_1,
    PCW_VERSION_2, PcwRegistrationSiloNeutral, UNICODE_STRING,
};
use engine::Flow;

use super::{Counter, Set, TAG, callback_of, no_handle};
use crate::cx::Cx;
use crate::ex::routines::{self, Routine, Routines};
use crate::mm::pool;
use crate::rtl::version::Version;
use crate::{ldr, ob};

/// The first build that knows `PCW_VERSION_2`.
const SINCE_BUILD: u32 = 19645;
/// Bytes of what a handle points to; drivers see nothing of them.
pub(super) const HANDLE_BYTES: u64 = 0x20;

/// `PcwRegister`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    to: DriverPtr<u64>,
    info: DriverPtr<PCW_REGISTRATION_INFORMATION>,
) -> Flow<NtStatus> {
    if !is_known_version(cx, info)? {
        return Ok(NtStatus::INVALID_PARAMETER_2);
    }
    let name = cx.read(info + PCW_REGISTRATION_INFORMATION::Name)?;
    let length = cx.read(name + UNICODE_STRING::Length)?;
    if length == 0 || !length.is_multiple_of(2) {
        return Ok(NtStatus::INVALID_PARAMETER_2);
    }
    let name = ob::string::read(cx, name)?;
    let count = cx.read(info + PCW_REGISTRATION_INFORMATION::CounterCount)?;
    if u64::from(count) * size_of::<PCW_COUNTER_DESCRIPTOR>() as u64 > u32::MAX.into() {
        return Ok(NtStatus::INTEGER_OVERFLOW);
    }
    let list = cx.read(info + PCW_REGISTRATION_INFORMATION::Counters)?;
    let counters = counters(cx, list, count)?;
    let code: DriverPtr<Code> = cx.read(info + PCW_REGISTRATION_INFORMATION::Callback)?;
    let context = cx.read(info + PCW_REGISTRATION_INFORMATION::CallbackContext)?;
    let handle: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, HANDLE_BYTES, TAG)?;
    if handle.is_null() {
        return Ok(NtStatus::NO_MEMORY);
    }
    let mut callback = Routines::default();
    if !code.is_null() {
        callback.add(handle.address, Routine { code, context });
    }
    let (owner, caller) = pool::caller(cx);
    let at = handle.address;
    let set = Set { at, name, counters, callback, instances: Vec::new(), next_id: 0, owner, caller };
    cx.with(|k| k.pcw.sets.push(set));
    cx.write(to, at)?;
    Ok(NtStatus::SUCCESS)
}

fn is_known_version(cx: &mut Cx<'_>, info: DriverPtr<PCW_REGISTRATION_INFORMATION>) -> Flow<bool> {
    Ok(match cx.read(info + PCW_REGISTRATION_INFORMATION::Version)? {
        PCW_VERSION_1 => true,
        PCW_VERSION_2 => {
            let flags = cx.read(info + PCW_REGISTRATION_INFORMATION::Flags)?;
            let build = cx.with(|k| Version::of(k.ldr.windows).build);
            build >= SINCE_BUILD && flags & !PcwRegistrationSiloNeutral == 0
        }
        _ => false,
    })
}

fn counters(cx: &mut Cx<'_>, list: DriverPtr<PCW_COUNTER_DESCRIPTOR>, count: u32) -> Flow<Vec<Counter>> {
    let size = size_of::<PCW_COUNTER_DESCRIPTOR>();
    let bytes = cx.read_bytes(list.address, u64::from(count) * size as u64)?;
    let words = |one: &[u8]| -> [u16; 4] {
        std::array::from_fn(|index| u16::from_le_bytes([one[2 * index], one[2 * index + 1]]))
    };
    let all = bytes.chunks_exact(size).map(words);
    let counter = |[id, block, offset, size]: [u16; 4]| Counter {
        id,
        block: block.into(),
        offset: offset.into(),
        size: size.into(),
    };
    Ok(all.map(counter).collect())
}

/// `PcwUnregister`: returns when the callback does not run any more. Instances that are open are closed.
///
/// # Errors
/// A verdict on what is no registration, and if the callback runs and the caller may not wait for it.
pub(crate) fn unregister(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    if cx.with(|k| k.pcw.set(handle).is_none()) {
        return Err(no_handle(cx, "PcwUnregister", handle, "counter set that is registered"));
    }
    routines::remove(cx, callback_of(handle), handle, "PcwUnregister")?;
    let gone = cx.with(|k| {
        let place = k.pcw.sets.iter().position(|set| set.at == handle)?;
        Some(k.pcw.sets.remove(place))
    });
    let Some(set) = gone else { return Ok(()) };
    for instance in set.instances {
        pool::free(cx, DriverPtr::<()>::new(instance.at))?;
    }
    pool::free(cx, DriverPtr::<()>::new(handle))
}

/// Counter sets that the image at `driver` has registered and left so: each handle, its name and who registered it.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(u64, String, String)> {
    let left: Vec<(u64, String, u64)> = cx.with(|k| {
        let own = k.pcw.sets.iter().filter(|set| set.owner == Some(driver));
        own.map(|set| (set.at, set.name.clone(), set.caller)).collect()
    });
    let described = |(at, name, caller)| (at, name, ldr::symbols::describe(cx, caller));
    left.into_iter().map(described).collect()
}
