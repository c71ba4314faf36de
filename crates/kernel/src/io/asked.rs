//! What traces tell of applications' requests and of the IRPs that carry them: which answer and which IRP belongs to which request.
//!
//! A request is known by the number of the event with which it begins, an IRP by that of the event with which it was first sent: both
//! are the same in each run, and nothing is remembered where no reader wants these events.

use abi::{DEVICE_OBJECT, DriverPtr, IRP};
use engine::StrandId;

use super::system_request::Answer;
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::mm::user_access;
use crate::sorted_map::SortedMap;

/// The request that each thread is in, by strand.
pub(crate) type Asked = SortedMap<StrandId, u64>;

/// What a request is about, as its event says it.
#[derive(Default)]
pub(crate) struct About {
    pub(crate) file: String,
    pub(crate) code: Option<u32>,
    pub(crate) class: Option<u32>,
    pub(crate) offset: Option<u64>,
    pub(crate) input: Option<u32>,
    pub(crate) output: Option<u32>,
    pub(crate) packets: Option<u32>,
}

impl About {
    pub(crate) fn file(file: String) -> Self {
        Self { file, ..Self::default() }
    }

    pub(crate) fn at(self, offset: Option<i64>) -> Self {
        Self { offset: offset.map(i64::cast_unsigned), ..self }
    }
}

/// A request begins; its number.
pub(crate) fn begin(cx: &mut Cx<'_>, name: &'static str, about: impl FnOnce(&mut Cx<'_>) -> About) -> u64 {
    if cx.engine().is_checked() {
        cx.with(user_access::begin);
    }
    cx.with(|k| k.po.rearmed.clear());
    let number = cx.next_event();
    if cx.count_event(Kind::Request) {
        let (about, strand) = (about(cx), cx.engine().strand());
        cx.with(|k| k.io.asked.insert(strand, number));
        let About { file, code, class, offset, input, output, packets } = about;
        cx.emit(Event::Request { name, file, code, class, offset, input, output, packets });
    }
    number
}

/// The request of an application's that the running thread is in, unless a driver that it has called sends something of its own; 0 if none.
#[inline]
pub(crate) fn current(k: &Kernel) -> u64 {
    if k.io.asked.is_empty() || k.engine.depth() > 0 {
        return 0;
    }
    k.io.asked.get(&k.engine.strand()).copied().unwrap_or(0)
}

/// The running thread is through with its request of this number.
pub(crate) fn end(cx: &mut Cx<'_>, request: u64, name: &'static str, answer: Answer) {
    if cx.count_event(Kind::Answer) {
        let strand = cx.engine().strand();
        cx.with(|k| k.io.asked.remove(&strand));
        cx.emit(Event::Answer { request, name, status: answer.status.0, information: answer.information });
    }
}

/// An IRP is sent, and a reader wants the event: [`Cx::count_event`] has said so.
pub(crate) fn sent(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    device: DriverPtr<DEVICE_OBJECT>,
    (major, minor): (u8, u8),
) {
    let (number, strand) = (cx.next_event(), cx.engine().strand());
    let by_a_driver = cx.engine().depth() > 0;
    let (id, request) = cx.with(|k| {
        let asked = k.io.asked.get(&strand).copied().filter(|_| !by_a_driver);
        let Some(record) = k.io.irps.live.get_mut(irp.address) else { return (number, asked) };
        if asked.is_some() {
            record.request = asked.into();
        }
        record.sent = record.sent.number().unwrap_or(number).into();
        (record.sent.number().unwrap_or(number), record.request.number())
    });
    cx.emit(Event::IrpSent { irp: irp.address, id, request, device: device.address, major, minor });
}

/// An IRP is completed, and a reader wants the event. A driver whose completion routine has kept it completes it once more.
pub(crate) fn completed(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, answer: Answer) {
    let id = cx.with(|k| k.io.irps.live.get_mut(irp.address).and_then(|record| record.sent.number()));
    let Answer { status, information } = answer;
    cx.emit(Event::IrpCompleted { irp: irp.address, id, status: status.0, information });
}
