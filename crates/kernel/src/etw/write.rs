//! An event that a provider writes, if it is enabled: `EtwWrite` and its kin, and the filter by level and keyword.
//!
//! Pages: *EtwWrite function* (at most 128 descriptors, else STATUS_INVALID_PARAMETER; of what cannot be logged, STATUS_INVALID_HANDLE), *EtwEventEnabled function*,
//! *EVENT_DESCRIPTOR structure*, *EVENT_DATA_DESCRIPTOR structure*, *EventWrite function* (64 KiB). `EtwWriteEx`'s filter and flags name sessions and
//! kinds of faults that there are none of. An event that its provider's manifest describes is bytes here; one that describes itself has its
//! fields as text (`describe`). A descriptor that is not data, nor one of those two, is passed over.

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use super::describe;
use crate::cx::Cx;
use crate::event::Event;
use crate::rtl::crt;
use crate::wmi::{Guid, guid_text};

/// Descriptors of one event at most, and bytes.
const MOST_DESCRIPTORS: u32 = 128;
const LARGEST: u64 = 0x1_0000;
/// Bytes of an `EVENT_DESCRIPTOR`, and of an `EVENT_DATA_DESCRIPTOR`.
const DESCRIPTOR: u64 = 16;
/// `EVENT_DATA_DESCRIPTOR::Type`.
const DATA: u8 = 0;
const EVENT_METADATA: u8 = 1;
const PROVIDER_METADATA: u8 = 2;

/// An `EVENT_DESCRIPTOR`.
#[derive(Clone, Copy, Default)]
pub(super) struct Descriptor {
    id: u16,
    version: u8,
    pub(super) level: u8,
    opcode: u8,
    task: u16,
    pub(super) keyword: u64,
}

impl Descriptor {
    pub(super) fn read(cx: &mut Cx<'_>, at: u64) -> Flow<Self> {
        let bytes: [u8; 16] = cx.read(DriverPtr::new(at))?;
        let [i0, i1, version, _channel, level, opcode, t0, t1, keyword @ ..] = bytes;
        let (id, task) = (u16::from_le_bytes([i0, i1]), u16::from_le_bytes([t0, t1]));
        Ok(Self { id, version, level, opcode, task, keyword: u64::from_le_bytes(keyword) })
    }
}

/// What an event is written with: where its activities stand (0: nowhere), and its data.
#[derive(Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) activity: u64,
    pub(super) related: u64,
    pub(super) count: u32,
    pub(super) data: u64,
}

/// The pieces of an event.
#[derive(Default)]
struct Pieces {
    data: Vec<u8>,
    event: Option<Vec<u8>>,
    provider: Option<Vec<u8>>,
}

/// Writes an event of a provider that is enabled.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(super) fn event(cx: &mut Cx<'_>, handle: u64, event: u64, written: Written) -> Flow<NtStatus> {
    if written.count > MOST_DESCRIPTORS {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let descriptor = Descriptor::read(cx, event)?;
    if !cx.with(|k| k.etw.tracing.takes(descriptor.level, descriptor.keyword)) {
        return Ok(NtStatus::SUCCESS);
    }
    let Some(pieces) = pieces(cx, written)? else { return Ok(lost(cx)) };
    let described = pieces.event.as_ref().and_then(|metadata| describe::event(metadata, &pieces.data));
    let (name, text) = described.map_or((None, None), |(name, text)| (Some(name), Some(text)));
    let provider = pieces.provider.as_ref().and_then(|metadata| describe::provider(metadata));
    let whose = provider.or_else(|| cx.with(|k| k.etw.name_of(handle)));
    let name = match (whose, name) {
        (Some(whose), Some(name)) => Some(format!("{whose}.{name}")),
        (whose, name) => whose.or(name),
    };
    tell(cx, handle, descriptor, written, name, &pieces.data, text)
}

/// What the descriptors point at; none if that is too much.
fn pieces(cx: &mut Cx<'_>, written: Written) -> Flow<Option<Pieces>> {
    let mut pieces = Pieces::default();
    let mut room = LARGEST;
    for index in 0..u64::from(written.count) {
        let at: [u8; 16] = cx.read(DriverPtr::new(written.data.wrapping_add(DESCRIPTOR * index)))?;
        let [p0, p1, p2, p3, p4, p5, p6, p7, s0, s1, s2, s3, kind, ..] = at;
        let pointer = u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        let Some(left) = room.checked_sub(size) else { return Ok(None) };
        room = left;
        let bytes = cx.read_bytes(pointer, size)?;
        match kind {
            DATA => pieces.data.extend(bytes),
            EVENT_METADATA => pieces.event = Some(bytes),
            PROVIDER_METADATA => pieces.provider = Some(bytes),
            _ => {}
        }
    }
    Ok(Some(pieces))
}

/// An event that is too large.
pub(crate) fn lost(cx: &mut Cx<'_>) -> NtStatus {
    cx.with(|k| k.etw.lost = k.etw.lost.saturating_add(1));
    NtStatus::INVALID_HANDLE
}

/// Writes a text of a provider that is enabled.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(super) fn string(
    cx: &mut Cx<'_>,
    handle: u64,
    (level, keyword): (u8, u64),
    activity: u64,
    text: u64,
) -> Flow<NtStatus> {
    if !cx.with(|k| k.etw.tracing.takes(level, keyword)) {
        return Ok(NtStatus::SUCCESS);
    }
    let units = crt::read::<2>(cx, text, crt::ALL)?;
    if units.len() as u64 >= LARGEST / 2 {
        return Ok(lost(cx));
    }
    let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let shown = describe::text(&bytes);
    let name = cx.with(|k| k.etw.name_of(handle));
    let descriptor = Descriptor { level, keyword, ..Descriptor::default() };
    tell(cx, handle, descriptor, Written { activity, ..Written::default() }, name, &bytes, Some(shown))
}

fn tell(
    cx: &mut Cx<'_>,
    handle: u64,
    descriptor: Descriptor,
    written: Written,
    name: Option<String>,
    data: &[u8],
    text: Option<String>,
) -> Flow<NtStatus> {
    let activity = match written.activity {
        0 => cx.with(|k| k.ke.thread().map(|thread| thread.activity)).unwrap_or_default(),
        at => cx.read(DriverPtr::new(at))?,
    };
    let related = if written.related == 0 { [0; 16] } else { cx.read(DriverPtr::new(written.related))? };
    let provider = cx.with(|k| {
        k.etw.logged = k.etw.logged.saturating_add(1);
        k.etw.providers.get(&handle).map_or([0; 16], |provider| provider.id)
    });
    let known = |id: Guid| (id != [0; 16]).then(|| guid_text(&id));
    let Descriptor { id, version, level, opcode, task, keyword } = descriptor;
    cx.emit(Event::Traced {
        provider: guid_text(&provider),
        name,
        id: id.into(),
        version,
        level,
        opcode,
        task: task.into(),
        keyword,
        activity: known(activity),
        related: known(related),
        data: describe::hex(data),
        text,
    });
    Ok(NtStatus::SUCCESS)
}
