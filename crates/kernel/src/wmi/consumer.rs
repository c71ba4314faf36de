//! Who asks providers: for all instances of a block or one, to set one or an item of one, to run a method, to listen.
//!
//! Pages: *IRP_MN_QUERY_ALL_DATA*, *IRP_MN_QUERY_SINGLE_INSTANCE*, *IRP_MN_CHANGE_SINGLE_INSTANCE*, *IRP_MN_CHANGE_SINGLE_ITEM*, *IRP_MN_EXECUTE_METHOD* ("WMI will
//! send an IRP_MN_QUERY_SINGLE_INSTANCE prior to"), *IRP_MN_ENABLE_EVENTS* and *IRP_MN_ENABLE_COLLECTION* ("a single request … when the first data consumer").
//! What applications ask is here, in blocks' bytes (`shown` emits the results); drivers that ask are in `block`. Requests are sent at
//! PASSIVE_LEVEL by the thread that asks.

use abi::{
    DEVICE_OBJECT, DriverPtr, IRP_MN_CHANGE_SINGLE_INSTANCE, IRP_MN_CHANGE_SINGLE_ITEM,
    IRP_MN_DISABLE_COLLECTION, IRP_MN_DISABLE_EVENTS, IRP_MN_ENABLE_COLLECTION, IRP_MN_ENABLE_EVENTS,
    IRP_MN_EXECUTE_METHOD, IRP_MN_QUERY_ALL_DATA, IRP_MN_QUERY_SINGLE_INSTANCE, NtStatus,
    WMIREG_FLAG_EXPENSIVE, WNODE_FLAG_ALL_DATA,
};
use engine::Flow;

use super::ask;
use super::judge::bad_node;
use super::node::{self, Form, Instance, Node, Target};
use super::provider::{Block, Names};
use super::{Guid, event, shown};
use crate::cx::Cx;
use crate::ke::time;

/// Of which instances of a block something is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// All.
    All,
    /// The one at this place, counted through all providers in the order of their registration.
    Place(u32),
    /// The one of this name.
    Name(String),
}

/// What an application asks of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// Its data.
    Query,
    /// New data for one instance.
    Set(Vec<u8>),
    /// New data for one item of one instance.
    SetItem(u32, Vec<u8>),
    /// A method of one instance: its number, its input, the room for its output.
    Execute(u32, Vec<u8>, u32),
    /// Its events are wanted from now on.
    Listen,
    /// They are not any more.
    Leave,
    /// The first of its events that has not been taken yet.
    Event,
}

/// What came of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: NtStatus,
    /// The data that came in, those of several instances one behind the other.
    pub data: Vec<u8>,
}

impl Outcome {
    const fn status(status: NtStatus) -> Self {
        Self { status, data: Vec::new() }
    }
}

/// An instance of a block, of a provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) id: u32,
    pub(super) target: Target,
}

/// The system time, for the header of a block.
pub(super) fn time(cx: &mut Cx<'_>) -> u64 {
    let since = time::interrupt_time(cx.engine());
    cx.with(|k| time::boot(k)) + since
}

/// A block of the bus driver's that there is not, so no driver above may answer for it: `{6DF1A8B2-7B7C-4B5E-9C26-6F40C2F1A0D3}`.
const OF_THE_BUS: Guid =
    [0xB2, 0xA8, 0xF1, 0x6D, 0x7C, 0x7B, 0x5E, 0x4B, 0x9C, 0x26, 0x6F, 0x40, 0xC2, 0xF1, 0xA0, 0xD3];

/// Asks the physical device of a stack for a block: the drivers above have to pass that down, as what is not for their devices.
///
/// # Errors
/// A verdict on a driver of the stack.
pub fn ask_bus(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> Flow<NtStatus> {
    let time = time(cx);
    let header = node::header(&OF_THE_BUS, 0, WNODE_FLAG_ALL_DATA, time);
    ask::of_device(cx, pdo, IRP_MN_QUERY_ALL_DATA, OF_THE_BUS, &header)
}

/// Asks a provider to begin or to end something for a block.
///
/// # Errors
/// A verdict on a driver of its stack.
pub(super) fn switch(cx: &mut Cx<'_>, id: u32, minor: u8, guid: Guid) -> Flow<NtStatus> {
    let time = time(cx);
    let header = node::header(&guid, id, 0, time);
    Ok(ask::block(cx, id, minor, guid, &header, header.len())?.status)
}

/// One more has the block open: the first has its data collected, where that costs something.
///
/// # Errors
/// As [`switch`].
pub(super) fn begin_use(cx: &mut Cx<'_>, guid: Guid) -> Flow<()> {
    let users = cx.with(|k| {
        let users = k.wmi.users.entry(guid).or_default();
        *users += 1;
        *users
    });
    if users == 1 { collect(cx, guid, IRP_MN_ENABLE_COLLECTION) } else { Ok(()) }
}

/// One has closed it.
///
/// # Errors
/// As [`switch`].
pub(super) fn end_use(cx: &mut Cx<'_>, guid: Guid) -> Flow<()> {
    let is_last = cx.with(|k| {
        let users = k.wmi.users.entry(guid).or_default();
        *users = users.saturating_sub(1);
        let is_last = *users == 0;
        if is_last {
            k.wmi.users.remove(&guid);
        }
        is_last
    });
    if is_last { collect(cx, guid, IRP_MN_DISABLE_COLLECTION) } else { Ok(()) }
}

fn collect(cx: &mut Cx<'_>, guid: Guid, minor: u8) -> Flow<()> {
    let expensive: Vec<u32> = cx.with(|k| {
        let expensive = k.wmi.offers(guid).filter(|(_, block)| block.flags & WMIREG_FLAG_EXPENSIVE != 0);
        expensive.map(|(id, _)| id).collect()
    });
    for id in expensive {
        let _ = switch(cx, id, minor, guid)?;
    }
    Ok(())
}

/// One more listens to the events of a block: the first enables them.
///
/// # Errors
/// As [`switch`].
pub(super) fn listen(cx: &mut Cx<'_>, guid: Guid) -> Flow<NtStatus> {
    let listeners = cx.with(|k| {
        let listeners = k.wmi.listeners.entry(guid).or_default();
        *listeners += 1;
        *listeners
    });
    if listeners == 1 { all(cx, guid, IRP_MN_ENABLE_EVENTS) } else { Ok(NtStatus::SUCCESS) }
}

/// One does not listen any more.
///
/// # Errors
/// As [`switch`].
pub(super) fn leave(cx: &mut Cx<'_>, guid: Guid) -> Flow<NtStatus> {
    let is_last = cx.with(|k| {
        let listeners = k.wmi.listeners.entry(guid).or_default();
        *listeners = listeners.saturating_sub(1);
        let is_last = *listeners == 0;
        if is_last {
            k.wmi.listeners.remove(&guid);
        }
        is_last
    });
    if is_last { all(cx, guid, IRP_MN_DISABLE_EVENTS) } else { Ok(NtStatus::SUCCESS) }
}

/// Sends a switch to all providers of a block; the first failure, if one fails.
fn all(cx: &mut Cx<'_>, guid: Guid, minor: u8) -> Flow<NtStatus> {
    let mut status = NtStatus::SUCCESS;
    for (id, _) in cx.with(|k| k.wmi.with_block(&guid)) {
        let one = switch(cx, id, minor, guid)?;
        if status.is_success() {
            status = one;
        }
    }
    Ok(status)
}

/// What a provider answers to the question for all instances.
pub(super) type AllData = Result<(Vec<u8>, Vec<Instance>), NtStatus>;

/// Asks a provider for all instances of a block, which get the names that were registered.
///
/// # Errors
/// A verdict on a driver of its stack, or on a block in which something is wrong.
pub(super) fn all_data(cx: &mut Cx<'_>, id: u32, block: &Block) -> Flow<AllData> {
    let time = time(cx);
    let header = node::header(&block.guid, id, WNODE_FLAG_ALL_DATA, time);
    let answer = ask::block(cx, id, IRP_MN_QUERY_ALL_DATA, block.guid, &header, 0)?;
    if !answer.status.is_success() {
        return Ok(Err(answer.status));
    }
    let mut instances = match Node(&answer.bytes).all_data() {
        Ok(instances) => instances,
        Err(what) => return Err(wrong(cx, id, IRP_MN_QUERY_ALL_DATA, &what)),
    };
    if let Names::Static(names) = &block.names {
        for (instance, name) in instances.iter_mut().zip(names) {
            instance.name.get_or_insert_with(|| name.clone());
        }
    }
    Ok(Ok((answer.bytes, instances)))
}

#[cold]
fn wrong(cx: &mut Cx<'_>, id: u32, minor: u8, what: &str) -> engine::Leave {
    let device = cx.with(|k| k.wmi.provider(id).map_or(0, |provider| provider.device));
    bad_node(cx, device, minor, what)
}

/// The instances that are meant, or could be: a provider with dynamic names is asked by the name.
///
/// # Errors
/// As [`all_data`].
pub(super) fn find(cx: &mut Cx<'_>, guid: Guid, which: &Which) -> Flow<Vec<Found>> {
    let (mut found, mut place) = (Vec::new(), 0);
    let dynamic = cx.with(|k| {
        let mut dynamic = Vec::new();
        for (id, block) in k.wmi.offers_data(guid) {
            match &block.names {
                Names::Static(names) if dynamic.is_empty() => {
                    for (index, name) in (0..).zip(names) {
                        if is_meant(which, place, name) {
                            found.push(Found {
                                id,
                                target: Target { index: Some(index), name: name.clone() },
                            });
                        }
                        place += 1;
                    }
                }
                // Its places, and those of who comes behind it, are known when it has been asked.
                _ => dynamic.push((id, block.clone())),
            }
        }
        dynamic
    });
    for (id, block) in dynamic {
        let names: Vec<Target> = match (&block.names, which) {
            (Names::Static(names), _) => {
                let numbered = (0..).zip(names);
                numbered.map(|(index, name)| Target { index: Some(index), name: name.clone() }).collect()
            }
            (Names::Dynamic, Which::Name(name)) => vec![Target { index: None, name: name.clone() }],
            (Names::Dynamic, _) => {
                let all = all_data(cx, id, &block)?.map_or(Vec::new(), |(_, all)| all);
                let named =
                    all.into_iter().map(|one| Target { index: None, name: one.name.unwrap_or_default() });
                named.collect()
            }
        };
        for target in names {
            if is_meant(which, place, &target.name) {
                found.push(Found { id, target });
            }
            place += 1;
        }
    }
    Ok(found)
}

/// Whether an instance is one of those that are asked for.
fn is_meant(which: &Which, place: u32, name: &str) -> bool {
    match which {
        Which::All => true,
        Which::Place(wanted) => *wanted == place,
        Which::Name(wanted) => wanted.eq_ignore_ascii_case(name),
    }
}

/// What a provider has answered about one instance.
pub(super) struct Answered {
    id: u32,
    name: String,
    bytes: Vec<u8>,
}

/// Sends a request about one instance to the first provider that has it: its answer's block, or why there is none.
///
/// # Errors
/// A verdict on a driver of its stack.
pub(super) fn about_one(
    cx: &mut Cx<'_>,
    guid: Guid,
    which: &Which,
    (minor, form): (u8, Form),
    data: &[u8],
    output: usize,
) -> Flow<Result<Answered, NtStatus>> {
    if cx.with(|k| k.wmi.offers_data(guid).next().is_none()) {
        return Ok(Err(NtStatus::WMI_GUID_NOT_FOUND));
    }
    let mut status = NtStatus::WMI_INSTANCE_NOT_FOUND;
    for Found { id, target } in find(cx, guid, which)? {
        let time = time(cx);
        let node = node::single(&guid, id, time, form, &target, data);
        let room = if output == 0 { 0 } else { node::data_at(form, &node) + output };
        let answer = ask::block(cx, id, minor, guid, &node, room)?;
        if answer.status.is_success() {
            return Ok(Ok(Answered { id, name: target.name, bytes: answer.bytes }));
        }
        // "WMI can therefore continue to query other data providers".
        status = answer.status;
        if status != NtStatus::WMI_INSTANCE_NOT_FOUND {
            break;
        }
    }
    Ok(Err(status))
}

/// A whole block with one instance, and the instance; or why there is none.
pub(super) type OneInstance = Result<(Vec<u8>, Instance), NtStatus>;

/// The data of one instance.
///
/// # Errors
/// As [`all_data`].
pub(super) fn one_instance(cx: &mut Cx<'_>, guid: Guid, which: &Which) -> Flow<OneInstance> {
    let request = (IRP_MN_QUERY_SINGLE_INSTANCE, Form::Instance);
    match about_one(cx, guid, which, request, &[], 0)? {
        Err(status) => Ok(Err(status)),
        Ok(Answered { id, name, bytes }) => match Node(&bytes).single_instance() {
            Ok(data) => Ok(Ok((bytes, Instance { name: Some(name), data }))),
            Err(what) => Err(wrong(cx, id, IRP_MN_QUERY_SINGLE_INSTANCE, &what)),
        },
    }
}

/// Changes an instance, or an item of it.
///
/// # Errors
/// As [`about_one`].
pub(super) fn change(
    cx: &mut Cx<'_>,
    guid: Guid,
    which: &Which,
    item: Option<u32>,
    data: &[u8],
) -> Flow<NtStatus> {
    let request = match item {
        None => (IRP_MN_CHANGE_SINGLE_INSTANCE, Form::Instance),
        Some(item) => (IRP_MN_CHANGE_SINGLE_ITEM, Form::Item(item)),
    };
    Ok(about_one(cx, guid, which, request, data, data.len().max(1))?.err().unwrap_or(NtStatus::SUCCESS))
}

/// Runs a method: its output.
///
/// # Errors
/// As [`all_data`].
pub(super) fn execute(
    cx: &mut Cx<'_>,
    guid: Guid,
    which: &Which,
    method: u32,
    input: &[u8],
    output: usize,
) -> Flow<Result<Instance, NtStatus>> {
    let request = (IRP_MN_EXECUTE_METHOD, Form::Method(method));
    match about_one(cx, guid, which, request, input, output.max(input.len()).max(1))? {
        Err(status) => Ok(Err(status)),
        Ok(Answered { id, name, bytes }) => match Node(&bytes).method_item() {
            Ok(data) => Ok(Ok(Instance { name: Some(name), data })),
            Err(what) => Err(wrong(cx, id, IRP_MN_EXECUTE_METHOD, &what)),
        },
    }
}

/// What an application asks, and hears of the answer as [`crate::event::Event::WmiAnswer`]; on its thread, at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver that is asked.
pub fn ask(cx: &mut Cx<'_>, guid: Guid, which: &Which, question: &Question) -> Flow<Outcome> {
    let answer = match question {
        Question::Listen => {
            let is_new = cx.with(|k| k.wmi.watched.insert(guid));
            Err(if is_new { listen(cx, guid)? } else { NtStatus::WMI_ALREADY_ENABLED })
        }
        Question::Leave => {
            let was = cx.with(|k| k.wmi.watched.remove(&guid));
            Err(if was { leave(cx, guid)? } else { NtStatus::WMI_ALREADY_DISABLED })
        }
        // The event was emitted when it came.
        Question::Event => return event::await_one(cx, guid),
        _ => {
            begin_use(cx, guid)?;
            let answer = of_data(cx, guid, which, question)?;
            end_use(cx, guid)?;
            answer
        }
    };
    shown::answer(cx, &guid, question, &answer);
    Ok(match answer {
        Ok(instances) => Outcome {
            status: NtStatus::SUCCESS,
            data: instances.into_iter().flat_map(|instance| instance.data).collect(),
        },
        Err(status) => Outcome::status(status),
    })
}

/// The instances that an answer brings; or only how the request ended.
pub(super) type Instances = Result<Vec<Instance>, NtStatus>;

fn of_data(cx: &mut Cx<'_>, guid: Guid, which: &Which, question: &Question) -> Flow<Instances> {
    let one = match question {
        Question::Query if *which == Which::All => return every(cx, guid),
        Question::Query => one_instance(cx, guid, which)?.map(|(_, instance)| instance),
        Question::Set(data) => return change(cx, guid, which, None, data).map(Err),
        Question::SetItem(item, data) => return change(cx, guid, which, Some(*item), data).map(Err),
        Question::Execute(method, input, output) => match one_instance(cx, guid, which)? {
            Ok(_) => execute(cx, guid, which, *method, input, *output as usize)?,
            Err(status) => Err(status),
        },
        Question::Listen | Question::Leave | Question::Event => return Ok(Err(NtStatus::SUCCESS)),
    };
    Ok(one.map(|instance| vec![instance]))
}

/// All instances of all providers.
fn every(cx: &mut Cx<'_>, guid: Guid) -> Flow<Instances> {
    let mut all: Instances = Err(NtStatus::WMI_GUID_NOT_FOUND);
    for (id, block) in cx.with(|k| k.wmi.with_data(&guid)) {
        match (all_data(cx, id, &block)?, &mut all) {
            (Ok((_, instances)), Ok(known)) => known.extend(instances),
            (Ok((_, instances)), Err(_)) => all = Ok(instances),
            (Err(why), Err(status)) => *status = why,
            (Err(_), Ok(_)) => {}
        }
    }
    Ok(all)
}

/// A block that some device offers, as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offered {
    /// Its GUID.
    pub guid: Guid,
    /// The device object.
    pub device: u64,
    /// `WMIREG_FLAG_*`.
    pub flags: u32,
    /// The names of its instances, if they were registered.
    pub names: Option<Vec<String>>,
    /// The name of the resource that describes its class, if its driver has named one.
    pub mof: Option<String>,
}

/// All blocks that are registered, in the order of their registration.
pub fn offered(cx: &mut Cx<'_>) -> Vec<Offered> {
    cx.with(|k| {
        let blocks = k.wmi.providers.iter().flat_map(|provider| {
            provider.blocks.iter().map(|block| Offered {
                guid: block.guid,
                device: provider.device,
                flags: block.flags,
                names: match &block.names {
                    Names::Static(names) => Some(names.clone()),
                    Names::Dynamic => None,
                },
                mof: block.mof.clone(),
            })
        });
        blocks.collect()
    })
}
