//! What an application asks of an open file, with its data: buffers in the application's memory, and back.
//!
//! Everything here runs on a thread of the application's.

use std::borrow::Cow;

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::io::file::{self, Answer, Buffer, Operation, Overlapped, Segments};
use kernel::io::information;
use kernel::io::owed;
use kernel::mm::user;
use kernel::ob::Handle;
use kernel::ps;

/// Bytes of a page.
const PAGE: usize = 0x1000;

/// A request with its data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Transfer<'d> {
    /// `ReadFile`.
    Read { length: u32, offset: Option<u64> },
    /// `WriteFile`.
    Write { data: Cow<'d, [u8]>, offset: Option<u64> },
    /// `ReadFileScatter`: each page of the transfer lies in memory of its own.
    Scatter { length: u32, offset: Option<u64> },
    /// `WriteFileGather`.
    Gather { data: Cow<'d, [u8]>, offset: Option<u64> },
    /// `DeviceIoControl`.
    Control { code: u32, input: Cow<'d, [u8]>, output: u32 },
    /// `FlushFileBuffers`.
    Flush,
    /// `NtQueryInformationFile`.
    Query { class: u32, length: u32 },
    /// `NtSetInformationFile`.
    Set { class: u32, data: Cow<'d, [u8]> },
    /// Any of these with buffers in memory that the application has anyway, and keeps.
    Placed { transfer: Box<Self>, input: Option<Buffer>, output: Option<Buffer> },
}

impl Transfer<'_> {
    /// Without the places of its buffers, and those.
    fn parts(&self) -> (&Self, [Option<Buffer>; 2]) {
        match self {
            Self::Placed { transfer, input, output } => (transfer, [*input, *output]),
            other => (other, [None, None]),
        }
    }
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    /// NTSTATUS.
    pub status: u32,
    /// `IoStatus.Information`: for reads, writes and control codes, bytes transferred.
    pub information: u64,
    /// What came in.
    pub data: Vec<u8>,
}

impl Completion {
    /// A status and nothing else.
    pub(crate) const fn status(status: NtStatus) -> Self {
        Self { status: status.0, information: 0, data: Vec::new() }
    }

    /// Whether the status is a success or informational.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status >> 31 == 0
    }
}

/// A request's buffers in the application's memory.
#[derive(Default)]
struct Buffers {
    input: Buffer,
    output: Buffer,
    /// Which of them are the application's own, to be kept.
    kept: [bool; 2],
    /// The pages of a scattered transfer, whose array is `input`.
    pages: Option<Vec<u64>>,
}

impl Buffers {
    /// For a request; none if the application has no memory left.
    fn new(cx: &mut Cx<'_>, transfer: &Transfer<'_>) -> Flow<Option<Self>> {
        let (transfer, places) = transfer.parts();
        let (input, output): (&[u8], u32) = match transfer {
            Transfer::Scatter { length, .. } => return Self::scattered(cx, &[], *length),
            Transfer::Gather { data, .. } => return Self::scattered(cx, data, 0),
            Transfer::Read { length, .. } | Transfer::Query { length, .. } => (&[], *length),
            Transfer::Write { data, .. } | Transfer::Set { data, .. } => (data, 0),
            Transfer::Flush | Transfer::Placed { .. } => (&[], 0),
            Transfer::Control { input, output, .. } => (input, *output),
        };
        let length = u32::try_from(input.len()).expect("a script's data are bounded");
        let (Some(input_buffer), Some(output)) = (buffer(cx, length), buffer(cx, output)) else {
            return Ok(None);
        };
        if !input.is_empty() {
            user::write(cx, input_buffer.address, input).map_err(|bad| cx.bad_pointer(bad))?;
        }
        Ok(Some(Self {
            input: places[0].unwrap_or(input_buffer),
            output: places[1].unwrap_or(output),
            kept: places.map(|place| place.is_some()),
            pages: None,
        }))
    }

    /// Pages for what is written, or for so many bytes that are read, and the array of their addresses.
    fn scattered(cx: &mut Cx<'_>, data: &[u8], output: u32) -> Flow<Option<Self>> {
        let length = data.len().max(output as usize);
        let mut pages = vec![0; length.div_ceil(PAGE)];
        // The first page of the transfer is the last one that the application got.
        for (index, page) in pages.iter_mut().enumerate().rev() {
            let mut bytes: Vec<u8> = data.iter().skip(index * PAGE).take(PAGE).copied().collect();
            bytes.resize(PAGE, 0);
            let Some(buffer) = allocate(cx, &bytes)? else { return Ok(None) };
            *page = buffer.address;
        }
        let array: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        let Some(array) = allocate(cx, &array)? else { return Ok(None) };
        let output = Buffer { address: 0, length: output };
        let length = u32::try_from(length).expect("a script's data are bounded");
        let input = Buffer { length, ..array };
        Ok(Some(Self { input, output, kept: [false; 2], pages: Some(pages) }))
    }

    fn operation(&self, transfer: &Transfer<'_>) -> Operation {
        let signed = |offset: &Option<u64>| offset.map(u64::cast_signed);
        let segments = Segments { array: self.input.address, length: self.input.length };
        match transfer.parts().0 {
            Transfer::Scatter { offset, .. } => Operation::Scatter(segments, signed(offset)),
            Transfer::Gather { offset, .. } => Operation::Gather(segments, signed(offset)),
            Transfer::Read { offset, .. } => Operation::Read(self.output, signed(offset)),
            Transfer::Write { offset, .. } => Operation::Write(self.input, signed(offset)),
            Transfer::Control { code, .. } => Operation::Control(*code, self.input, self.output),
            Transfer::Flush | Transfer::Placed { .. } => Operation::Flush(0),
            Transfer::Query { class, .. } => Operation::Query(*class, self.output),
            Transfer::Set { class, .. } => Operation::Set(*class, self.input),
        }
    }

    /// What came in, and the buffers given back.
    fn finish(self, cx: &mut Cx<'_>, answer: Answer) -> Flow<Completion> {
        let Answer { status, information } = answer;
        let came = if status.is_error() { 0 } else { information.min(self.output.length.into()) };
        if let Some(pages) = self.pages {
            let mut data = Vec::new();
            for page in &pages {
                let more = usize::try_from(came).unwrap_or(0).saturating_sub(data.len()).min(PAGE);
                data.extend(user::read(cx, *page, more).map_err(|bad| cx.bad_pointer(bad))?);
            }
            for page in pages.into_iter().chain([self.input.address]) {
                user::free(cx, page);
            }
            return Ok(Completion { status: status.0, information, data });
        }
        let mut data = vec![0; usize::try_from(came).unwrap_or(0)];
        if !data.is_empty() {
            match cx.engine().read_bytes(self.output.address, &mut data) {
                Ok(()) => {}
                // The application has taken it away itself.
                Err(_) if self.kept[1] => data.clear(),
                Err(bad) => return Err(cx.bad_pointer(bad)),
            }
        }
        for (buffer, kept) in [self.input, self.output].into_iter().zip(self.kept) {
            if buffer.length > 0 && !kept {
                user::give(cx, buffer.address, buffer.length.into());
            }
        }
        Ok(Completion { status: status.0, information, data })
    }
}

/// A buffer of so many bytes; nowhere if there are none.
fn buffer(cx: &mut Cx<'_>, length: u32) -> Option<Buffer> {
    if length == 0 {
        return Some(Buffer::default());
    }
    let process = u32::try_from(ps::current_process(cx)).ok()?;
    Some(Buffer { address: user::take(cx, process, length.into())?, length })
}

/// Carries a request out and waits for its end.
pub(crate) fn perform(cx: &mut Cx<'_>, handle: Handle, transfer: &Transfer<'_>) -> Flow<Completion> {
    if matches!(transfer, Transfer::Scatter { .. } | Transfer::Gather { .. }) {
        // They are overlapped always.
        return begin(cx, handle, transfer, false)?.wait(cx);
    }
    let Some(buffers) = Buffers::new(cx, transfer)? else {
        return Ok(Completion::status(NtStatus::INSUFFICIENT_RESOURCES));
    };
    let answer = information::perform(cx, handle, buffers.operation(transfer))?;
    buffers.finish(cx, answer)
}

/// The application loads from its own memory, and from what a driver has mapped for it. Where there is nothing, it ends with
/// STATUS_ACCESS_VIOLATION.
pub(crate) fn load(cx: &mut Cx<'_>, address: u64, length: u32) -> Flow<Completion> {
    Ok(match user::load(cx, address, length)? {
        Ok(data) => {
            Completion { information: data.len() as u64, data, ..Completion::status(NtStatus::SUCCESS) }
        }
        Err(_) => Completion::status(NtStatus::ACCESS_VIOLATION),
    })
}

/// Memory of the running thread's process with these bytes; none if it has none left.
pub(crate) fn allocate(cx: &mut Cx<'_>, bytes: &[u8]) -> Flow<Option<Buffer>> {
    let process = u32::try_from(ps::current_process(cx)).unwrap_or(0);
    let Some(address) = user::allocate(cx, process, bytes.len() as u64) else { return Ok(None) };
    user::write(cx, address, bytes).map_err(|bad| cx.bad_pointer(bad))?;
    let length = u32::try_from(bytes.len()).expect("a script's data are bounded");
    Ok(Some(Buffer { address, length }))
}

/// The application stores to its memory; as [`load`].
pub(crate) fn store(cx: &mut Cx<'_>, address: u64, bytes: &[u8]) -> Flow<Completion> {
    let stored = user::store(cx, address, bytes)?;
    Ok(Completion::status(stored.map_or(NtStatus::ACCESS_VIOLATION, |()| NtStatus::SUCCESS)))
}

/// A request that was begun on an overlapped handle.
pub(crate) struct Begun {
    /// Whose it is.
    pub(crate) process: u64,
    buffers: Buffers,
    overlapped: Option<Overlapped>,
    /// What it returned at once, unless it is pending.
    at_once: Option<Answer>,
    /// When it was asked for, and when its dispatch routine had returned, in nanoseconds in which no thread was held up.
    asked: u64,
    returned: u64,
}

/// Begins a request and does not wait for its end, which its thread hears of by a user APC if that is wanted.
pub(crate) fn begin(cx: &mut Cx<'_>, handle: Handle, transfer: &Transfer<'_>, apc: bool) -> Flow<Begun> {
    let none = Answer::failed(NtStatus::INSUFFICIENT_RESOURCES);
    let process = ps::current_process(cx);
    let asked = owed::time(cx);
    let failed = Begun {
        process,
        buffers: Buffers::default(),
        overlapped: None,
        at_once: Some(none),
        asked,
        returned: asked,
    };
    let Some(buffers) = Buffers::new(cx, transfer)? else { return Ok(failed) };
    let Some(overlapped) = Overlapped::new(cx)? else { return Ok(failed) };
    let overlapped = Overlapped { apc, ..overlapped };
    let answer = file::start(cx, handle, buffers.operation(transfer), &overlapped)?;
    let at_once = (answer.status != NtStatus::PENDING).then_some(answer);
    let returned = owed::time(cx);
    Ok(Begun { process, buffers, overlapped: Some(overlapped), at_once, asked, returned })
}

impl Begun {
    /// Whether it has ended.
    pub(crate) fn is_over(&self, cx: &mut Cx<'_>) -> Flow<bool> {
        Ok(self.status(cx)?.is_some())
    }

    /// Whether `STATUS_PENDING` was returned.
    pub(crate) fn is_pending(&self) -> bool {
        self.at_once.is_none()
    }

    /// How it has ended, if it has.
    pub(crate) fn status(&self, cx: &mut Cx<'_>) -> Flow<Option<NtStatus>> {
        let status = match (&self.at_once, &self.overlapped) {
            (None, Some(overlapped)) => overlapped.result(cx)?.status,
            (at_once, _) => at_once.as_ref().map_or(NtStatus::INSUFFICIENT_RESOURCES, |answer| answer.status),
        };
        Ok((status != NtStatus::PENDING).then_some(status))
    }

    /// When it was asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// Until when it was under way at least, if it is not now.
    pub(crate) fn returned(&self) -> u64 {
        self.returned
    }

    /// Where its end is written, for cancelling it.
    pub(crate) fn overlapped(&self) -> Option<&Overlapped> {
        self.overlapped.as_ref()
    }

    /// Waits for its end.
    pub(crate) fn wait(self, cx: &mut Cx<'_>) -> Flow<Completion> {
        let answer = match (self.at_once, &self.overlapped) {
            (Some(answer), _) => answer,
            (None, Some(overlapped)) => overlapped.wait(cx)?,
            (None, None) => Answer::failed(NtStatus::INSUFFICIENT_RESOURCES),
        };
        if let Some(overlapped) = self.overlapped {
            overlapped.free(cx)?;
        }
        self.buffers.finish(cx, answer)
    }
}
