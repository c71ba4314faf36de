//! WMI as it is shown: the blocks that drivers offer, what came of a question instance by instance, and events as they come.
//!
//! No page: these are events of dirql's own (`docs/events.md`). What the bytes mean is in the class that a driver's MOF resource describes; that format has no
//! public description and is not read.

use std::fmt::Write;

use abi::{
    WNODE_FLAG_SINGLE_INSTANCE, WNODE_FLAG_STATIC_INSTANCE_NAMES, WNODE_HEADER, WNODE_SINGLE_INSTANCE,
};
use engine::Flow;

use super::consumer::{Instances, Offered, Question, offered};
use super::node::{Instance, Node, at};
use super::{Guid, guid_text};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::io::violation::name_of_device;

/// Tells all blocks that are registered, in the order of their registration.
///
/// # Errors
/// None.
pub fn blocks(cx: &mut Cx<'_>) -> Flow<()> {
    for Offered { guid, device, flags, names, mof } in offered(cx) {
        if cx.count_event(Kind::WmiBlock) {
            let (device, driver) = cx.with(|k| {
                let record = k.io.devices.get(device).and_then(|record| k.io.drivers.get(&record.driver));
                let driver = record.map_or(String::new(), |driver| driver.service.clone());
                (name_of_device(k, device), driver)
            });
            let (guid, names) = (guid_text(&guid), names.map(|names| names.join("\n")));
            cx.emit(Event::WmiBlock { guid, device, driver, flags, names, mof });
        }
    }
    Ok(())
}

/// Tells what came of a question.
pub(super) fn answer(cx: &mut Cx<'_>, guid: &Guid, question: &Question, answer: &Instances) {
    let question = match question {
        Question::Query => "query",
        Question::Set(_) | Question::SetItem(..) => "set",
        Question::Execute(..) => "execute",
        Question::Listen => "enable",
        Question::Leave => "disable",
        Question::Event => "event",
    };
    let mut tell = |status, instance: Option<&Instance>| {
        if cx.count_event(Kind::WmiAnswer) {
            let name = instance.and_then(|instance| instance.name.clone());
            let data = instance.map(|instance| digits(&instance.data));
            cx.emit(Event::WmiAnswer { question, guid: guid_text(guid), instance: name, status, data });
        }
    };
    match answer {
        Err(status) => tell(status.0, None),
        Ok(instances) if instances.is_empty() => tell(0, None),
        Ok(instances) => instances.iter().for_each(|instance| tell(0, Some(instance))),
    }
}

/// Emits an event: of one that is no single instance, its whole block.
pub(super) fn event(cx: &mut Cx<'_>, guid: &Guid, block: &[u8], heard: bool) {
    if !cx.count_event(Kind::WmiEvent) {
        return;
    }
    let node = Node(block);
    let field = |place| node.u32(place).unwrap_or(0);
    let flags = field(at(WNODE_HEADER::Flags));
    let (mut instance, mut data) = (None, block.to_vec());
    if flags & WNODE_FLAG_SINGLE_INSTANCE != 0 {
        data = node.single_instance().unwrap_or(data);
        instance = if flags & WNODE_FLAG_STATIC_INSTANCE_NAMES == 0 {
            node.text(field(at(WNODE_SINGLE_INSTANCE::OffsetInstanceName)))
        } else {
            let (id, index) =
                (field(at(WNODE_HEADER::ProviderId)), field(at(WNODE_SINGLE_INSTANCE::InstanceIndex)));
            cx.with(|k| k.wmi.provider(id).and_then(|provider| provider.name_of(guid, index)))
        };
    }
    cx.emit(Event::WmiEvent { guid: guid_text(guid), instance, heard, data: digits(&data) });
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
