//! Who asks for counters: an application's query, from its begin to its end.
//!
//! Pages: *PCW_CALLBACK_TYPE enumeration*, *PCW_MASK_INFORMATION structure*, *PcwAddInstance function* ("will record only the Name and Id" where instances are
//! enumerated). A query adds the counters of the set, collects once and removes them again; who only asks for names adds none. Callbacks are
//! called at PASSIVE_LEVEL on the thread that asks; what they return is not looked at, as the page says. There is no cancellation: `CancelEvent` is
//! never signaled.

use abi::{
    DriverPtr, KEVENT, NotificationEvent, NtStatus, PCW_ANY_INSTANCE_ID, PCW_DATA, PCW_MASK_INFORMATION,
    PcwCallbackAddCounter, PcwCallbackCollectData, PcwCallbackEnumerateInstances, PcwCallbackRemoveCounter,
    UNICODE_STRING,
};
use engine::Flow;

use super::instance::{blocks, fit, refuse_freed, values};
use super::{Block, Counter, Set, TAG, callback_of, no_handle};
use crate::cx::Cx;
use crate::event::Role;
use crate::ex::routines;
use crate::fs::wildcard;
use crate::io::driver::with_string;
use crate::ke::callout::call_routine;
use crate::mm::pool;
use crate::{ke, ob};

/// Which instances of a counter set are asked for, and what of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The names; `*` and `?` stand for others.
    pub mask: String,
    /// The number, if only that one is wanted.
    pub id: Option<u32>,
    /// Names and numbers are enough.
    pub names_only: bool,
}

/// An instance, as who asks sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// The identifiers of its counters with their values, in the order in which they were registered.
    pub counters: Vec<(u16, Vec<u8>)>,
}

impl Question {
    fn wants(&self, name: &str, id: u32) -> bool {
        self.id.is_none_or(|wanted| wanted == id)
            && wildcard::matches(&self.mask.to_uppercase(), &name.to_uppercase())
    }

    /// Whether more than one instance can be meant.
    fn is_for_several(&self) -> bool {
        self.id.is_none() && self.mask.contains(['*', '?'])
    }

    fn is_answered_by(&self, seen: &[Seen]) -> bool {
        !self.is_for_several() && !seen.is_empty()
    }
}

/// What is gathered in a buffer that a callback was given.
pub(super) struct Gathering {
    counters: Vec<Counter>,
    question: Question,
    seen: Vec<Seen>,
}

/// What a set is asked, without its handle.
struct Asked {
    at: u64,
    counters: Vec<Counter>,
    has_callback: bool,
    instances: Vec<(String, u32, Vec<Block>)>,
}

fn asked(set: &Set) -> Asked {
    let instances = set.instances.iter();
    Asked {
        at: set.at,
        counters: set.counters.clone(),
        has_callback: set.callback.len() > 0,
        instances: instances.map(|one| (one.name.clone(), one.id, one.blocks.clone())).collect(),
    }
}

/// Asks all counter sets of this name: the instances that there are. `NOT_FOUND` if none is registered.
///
/// # Errors
/// A verdict on a callback, or on data that cannot be read.
pub fn ask(cx: &mut Cx<'_>, name: &str, question: &Question) -> Flow<Result<Vec<Seen>, NtStatus>> {
    let sets: Vec<Asked> = cx.with(|k| {
        let sets = k.pcw.sets.iter().filter(|set| set.name.eq_ignore_ascii_case(name));
        sets.map(asked).collect()
    });
    if sets.is_empty() {
        return Ok(Err(NtStatus::NOT_FOUND));
    }
    let mut seen = Vec::new();
    for set in &sets {
        if question.names_only {
            gather(cx, set, question, &mut seen)?;
            continue;
        }
        notify(cx, set, question, PcwCallbackAddCounter, 0)?;
        gather(cx, set, question, &mut seen)?;
        notify(cx, set, question, PcwCallbackRemoveCounter, 0)?;
    }
    Ok(Ok(seen))
}

/// What one set has: its open instances, then what its callback adds.
fn gather(cx: &mut Cx<'_>, set: &Asked, question: &Question, seen: &mut Vec<Seen>) -> Flow<()> {
    for (name, id, blocks) in &set.instances {
        if question.is_answered_by(seen) || !question.wants(name, *id) {
            continue;
        }
        let mut counters = Vec::new();
        if !question.names_only {
            refuse_freed(cx, name, blocks)?;
            counters = values(cx, &set.counters, blocks)?;
        }
        seen.push(Seen { name: name.clone(), id: *id, counters });
    }
    if !set.has_callback || question.is_answered_by(seen) {
        return Ok(());
    }
    let buffer: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, 0x20, TAG)?;
    if buffer.is_null() {
        return Ok(());
    }
    let kind = if question.names_only { PcwCallbackEnumerateInstances } else { PcwCallbackCollectData };
    let gathering =
        Gathering { counters: set.counters.clone(), question: question.clone(), seen: Vec::new() };
    cx.with(|k| k.pcw.gathering.insert(buffer.address, gathering));
    notify(cx, set, question, kind, buffer.address)?;
    let gathered = cx.with(|k| k.pcw.gathering.remove(&buffer.address));
    seen.extend(gathered.into_iter().flat_map(|gathered| gathered.seen));
    pool::free(cx, buffer)
}

/// Calls the callback of a set, if it has one.
fn notify(cx: &mut Cx<'_>, set: &Asked, question: &Question, kind: u32, buffer: u64) -> Flow<()> {
    if !set.has_callback {
        return Ok(());
    }
    let mask =
        set.counters.iter().filter(|counter| counter.id < 64).fold(0, |mask, one| mask | 1u64 << one.id);
    with_string(cx, &question.mask, |cx, name: DriverPtr<UNICODE_STRING>| {
        let size = size_of::<PCW_MASK_INFORMATION>() as u64;
        let room = size + size_of::<KEVENT>() as u64;
        let info: DriverPtr<PCW_MASK_INFORMATION> = pool::allocate(cx, pool::Kind::NonPaged, room, TAG)?;
        if info.is_null() {
            return Ok(());
        }
        let event = DriverPtr::new(info.address + size);
        ke::event::initialize(cx, event, NotificationEvent, false)?;
        // PCW_COUNTER_INFORMATION is how this begins.
        cx.write(info + PCW_MASK_INFORMATION::CounterMask, mask)?;
        cx.write(info + PCW_MASK_INFORMATION::InstanceMask, name)?;
        cx.write(info + PCW_MASK_INFORMATION::InstanceId, question.id.unwrap_or(PCW_ANY_INSTANCE_ID))?;
        cx.write(info + PCW_MASK_INFORMATION::CollectMultiple, u8::from(question.is_for_several()))?;
        cx.write(info + PCW_MASK_INFORMATION::Buffer, buffer)?;
        cx.write(info + PCW_MASK_INFORMATION::CancelEvent, event)?;
        routines::call_all(cx, callback_of(set.at), |cx, routine| {
            let arguments = [kind.into(), info.address, routine.context];
            call_routine(cx, Role::PcwCallback, routine.code, 0, &arguments).map(drop)
        })?;
        pool::free(cx, info)
    })
}

/// `PcwAddInstance`: one that is not asked for is not recorded.
///
/// # Errors
/// A verdict on a bad pointer, and on a buffer that no callback has now.
pub fn add_instance(
    cx: &mut Cx<'_>,
    buffer: u64,
    name: DriverPtr<UNICODE_STRING>,
    id: u32,
    count: u32,
    data: DriverPtr<PCW_DATA>,
) -> Flow<NtStatus> {
    let gathering = cx.with(|k| {
        let gathering = k.pcw.gathering.get(&buffer)?;
        Some((gathering.counters.clone(), gathering.question.names_only))
    });
    let Some((counters, names_only)) = gathering else {
        let what = "buffer of a callback that runs now";
        return Err(no_handle(cx, "PcwAddInstance", buffer, what));
    };
    let name = ob::string::read(cx, name)?;
    let counters = if names_only {
        Vec::new()
    } else {
        let blocks = blocks(cx, count, data)?;
        if !fit(&counters, &blocks) {
            return Ok(NtStatus::INVALID_BUFFER_SIZE);
        }
        values(cx, &counters, &blocks)?
    };
    cx.with(|k| {
        let Some(Gathering { question, seen, .. }) = k.pcw.gathering.get_mut(&buffer) else { return };
        if question.wants(&name, id) && !question.is_answered_by(seen) {
            seen.push(Seen { name, id, counters });
        }
    });
    Ok(NtStatus::SUCCESS)
}
