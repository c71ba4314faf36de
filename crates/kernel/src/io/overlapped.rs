//! Where an application finds how its request ended: a status block and an event.
//!
//! Pages: *OVERLAPPED structure*, *GetOverlappedResult function*. Completion ports are `completion_port`'s.

use abi::{DriverPtr, IO_STATUS_BLOCK};
use engine::{Flow, StrandId};

use super::system_request::Answer;
use super::{cancel, event};
use crate::cx::Cx;
use crate::ke::user_apc::WaitMode;
use crate::mm::user;
use crate::ob::{self, Handle, handle};
use crate::sorted_map::SortedMap;

/// Where an overlapped request tells its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overlapped {
    /// The status block, in memory of the application's.
    pub status_block: DriverPtr<IO_STATUS_BLOCK>,
    /// An event handle of the application's.
    pub event: Handle,
    /// What a completion port calls the request by: Windows does so by the address of the `OVERLAPPED`, which here may be another one's
    /// before the packet is taken.
    pub id: u64,
    /// Its thread gets a user APC with the end (`ReadFileEx`, `WriteFileEx`).
    pub apc: bool,
}

/// So many are kept.
const ENDS: usize = 8;

/// When requests of applications ended last that drivers had left pending: the status block of each, and nanoseconds since boot.
#[derive(Default)]
pub(crate) struct Ends {
    all: [(u64, u64); ENDS],
    next: usize,
}

impl Ends {
    #[inline]
    pub(super) fn note(&mut self, status_block: DriverPtr<IO_STATUS_BLOCK>, now: u64) {
        self.all[self.next] = (status_block.address, now);
        self.next = (self.next + 1) % ENDS;
    }

    /// When the last request with this status block ended, if that is among them.
    pub(super) fn of(&self, status_block: DriverPtr<IO_STATUS_BLOCK>) -> Option<u64> {
        let (newer, older) = (&self.all[..self.next], &self.all[self.next..]);
        let mut ends = newer.iter().rev().chain(older.iter().rev());
        ends.find(|(block, _)| *block == status_block.address).map(|(_, at)| *at)
    }
}

/// Bytes of a status block.
const SIZE: u64 = size_of::<IO_STATUS_BLOCK>() as u64;

/// Status blocks of threads for calls that wait, by strand: each has one, as on its stack, while it is in no such call.
pub(crate) type OfThreads = SortedMap<StrandId, DriverPtr<IO_STATUS_BLOCK>>;

/// The status block of the running thread for a call that waits; none if there is no memory.
pub(crate) fn take_own(cx: &mut Cx<'_>) -> Option<DriverPtr<IO_STATUS_BLOCK>> {
    let strand = cx.engine().strand();
    cx.with(|k| k.io.status_blocks.remove(&strand)).or_else(|| take(cx))
}

/// The call is over: its status block is for the thread's next one.
pub(crate) fn keep_own(cx: &mut Cx<'_>, status_block: DriverPtr<IO_STATUS_BLOCK>) {
    let strand = cx.engine().strand();
    // A user APC may have made such a call within this one.
    if let Some(other) = cx.with(|k| k.io.status_blocks.insert(strand, status_block)) {
        give(cx, other);
    }
}

/// The running thread ends.
pub(crate) fn give_own(cx: &mut Cx<'_>) {
    let strand = cx.engine().strand();
    if let Some(status_block) = cx.with(|k| k.io.status_blocks.remove(&strand)) {
        give(cx, status_block);
    }
}

fn take(cx: &mut Cx<'_>) -> Option<DriverPtr<IO_STATUS_BLOCK>> {
    let process = u32::try_from(handle::current_process(cx)).unwrap_or(0);
    user::take(cx, process, SIZE).map(DriverPtr::new)
}

fn give(cx: &mut Cx<'_>, status_block: DriverPtr<IO_STATUS_BLOCK>) {
    user::give(cx, status_block.address, SIZE);
}

impl Overlapped {
    /// A status block and an event of the running thread's process; none if there is no memory.
    ///
    /// # Errors
    /// As making an event.
    pub fn new(cx: &mut Cx<'_>) -> Flow<Option<Self>> {
        let Some(status_block) = take(cx) else {
            return Ok(None);
        };
        match event::create(cx, event::Type::Notification, false)? {
            Some(event) => {
                let id = cx.with(|k| {
                    k.io.overlapped += 1;
                    k.io.overlapped
                });
                Ok(Some(Self { status_block, event, id, apc: false }))
            }
            None => {
                give(cx, status_block);
                Ok(None)
            }
        }
    }

    /// `GetOverlappedResult` with waiting.
    ///
    /// # Errors
    /// A verdict if the machine ends meanwhile.
    pub fn wait(&self, cx: &mut Cx<'_>) -> Flow<Answer> {
        // The status block must not be written when the thread has ended.
        let cancel = |cx: &mut Cx<'_>| cancel::cancel_request(cx, self.status_block);
        let _ = event::wait_by(cx, self.event, |cx, event| {
            cancel::wait_for_end(cx, event, WaitMode::APPLICATION, cancel)
        })?;
        self.result(cx)
    }

    /// The result as the status block has it now.
    ///
    /// # Errors
    /// A verdict if the status block was taken away.
    pub fn result(&self, cx: &mut Cx<'_>) -> Flow<Answer> {
        let status = cx.read(self.status_block + IO_STATUS_BLOCK::Status)?;
        let information = cx.read(self.status_block + IO_STATUS_BLOCK::Information)?;
        Ok(Answer { status, information })
    }

    /// Gives event and status block back.
    ///
    /// # Errors
    /// As closing a handle.
    pub fn free(self, cx: &mut Cx<'_>) -> Flow<()> {
        give(cx, self.status_block);
        ob::handle::close(cx, self.event).map(|_| ())
    }
}
