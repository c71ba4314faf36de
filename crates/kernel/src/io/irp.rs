//! IRPs: where their parts lie, and what the I/O manager knows of each beside what drivers see.
//!
//! Pages: *IRP structure*, *IO_STACK_LOCATION structure*. Making them is in `allocate` and `build`, sending in `call`,
//! completing in `complete` and `finish`.

use std::collections::VecDeque;

use abi::{DriverPtr, IO_STACK_LOCATION, IRP};
use engine::Flow;

pub(crate) use super::call::call_driver;
use super::cancel_routine;
pub(crate) use super::complete::complete;
use super::file::Issue;
use super::priority_hint;
use crate::address_map::AddressMap;
use crate::cx::Cx;
use crate::event::Role;
use crate::mm::pool::Known;
use crate::witness::Noted;

/// Who made an IRP, and so who frees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// `IoAllocateIrp`: the driver frees it; its completion routine must stop the completion.
    Allocated,
    /// `IoInitializeIrp` in memory of the driver's own.
    DriverMemory,
    /// `IoBuildDeviceIoControlRequest`, `IoBuildSynchronousFsdRequest`: the I/O manager frees it at completion.
    Threaded,
    /// `IoBuildAsynchronousFsdRequest`.
    Asynchronous,
    /// `IoMakeAssociatedIrp` for this master.
    Associated(u64),
    /// The I/O manager's own: files, Plug and Play, power.
    System,
}

/// What the I/O manager knows of a live IRP.
pub(crate) struct Record {
    pub(crate) origin: Origin,
    /// The driver that made it, where one did.
    pub(crate) owner: Option<u64>,
    /// The thread in whose list it is; 0 if in none.
    pub(crate) thread: u64,
    /// The application's request behind it. Most of what a driver makes have none.
    pub(crate) issue: Option<Box<Issue>>,
    /// Bytes of the caller's output buffer, where `IoStatus.Information` may not exceed them.
    pub(crate) output: Option<u32>,
    /// `IO_PRIORITY_HINT`.
    pub(crate) priority: u8,
    /// The moment when a driver made it.
    pub(crate) allocated: Noted,
    /// The moment when a driver put it into a queue of the system's last.
    pub(crate) queued: Noted,
    /// The moment when it was completed last.
    pub(crate) completed: Noted,
    /// When it was cancelled first, in the machine's nanoseconds; 0 if it never was.
    pub(crate) cancelled: u64,
    /// A driver has passed it on failed, and was blamed.
    pub(crate) failed: bool,
    /// The number of the event with which it was first sent, where a reader wanted it.
    pub(crate) sent: Noted,
    /// The request of an application that it is for, likewise.
    pub(crate) request: Noted,
}

impl Record {
    /// Of a new IRP.
    pub(crate) const fn new(origin: Origin, owner: Option<u64>) -> Self {
        let (allocated, queued, completed) = (Noted::NONE, Noted::NONE, Noted::NONE);
        let (thread, issue, output, priority) = (0, None, None, priority_hint::NORMAL);
        let (sent, request) = (Noted::NONE, Noted::NONE);
        Self {
            origin,
            owner,
            thread,
            issue,
            output,
            priority,
            allocated,
            queued,
            completed,
            cancelled: 0,
            failed: false,
            sent,
            request,
        }
    }
}

/// The blocks of pool of a request, and where what is known of its objects is likely to be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Blocks {
    pub(crate) packet: Known,
    pub(crate) buffer: Option<Known>,
    /// The numbers of the file and the event among objects: see [`AddressMap::number`].
    pub(crate) objects: [u32; 2],
}

/// How many freed IRPs are remembered, so that a second completion is reported as one. One that is live again stays among them.
const REMEMBERED: usize = 256;

/// What is remembered of an IRP that is gone.
struct Freed {
    irp: u64,
    /// The moment of its completion.
    completed: Noted,
    /// It was cancelled before that.
    cancelled: bool,
}

/// All live IRPs, and the last that were freed.
#[derive(Default)]
pub(crate) struct Irps {
    pub(crate) live: AddressMap<Record>,
    /// Who changed their cancel routines, in a checked machine.
    pub(crate) cancels: cancel_routine::Changes,
    freed: VecDeque<Freed>,
    /// Room for requests of applications: each was one's before.
    #[allow(clippy::vec_box, reason = "what is kept is the room")]
    spare: Vec<Box<Issue>>,
}

impl Irps {
    /// There is an IRP at this address now.
    #[inline]
    pub(crate) fn begin(&mut self, irp: u64, record: Record) {
        self.live.insert(irp, record);
    }

    /// The IRP is gone. Whether its memory is the I/O manager's to free.
    pub(crate) fn retire(&mut self, irp: u64) -> bool {
        let Some(record) = self.live.remove(irp) else {
            return false;
        };
        self.remember(Freed { irp, completed: record.completed, cancelled: record.cancelled != 0 });
        record.origin != Origin::DriverMemory
    }

    /// The IRP whose record has this number is gone, completed at this moment.
    #[inline]
    pub(crate) fn retire_at(&mut self, number: u32, irp: u64, completed: u64) {
        let record = self.live.at_mut(number);
        let cancelled = record.as_ref().is_some_and(|record| record.cancelled != 0);
        self.spare.extend(record.and_then(|record| record.issue.take()));
        self.live.remove(irp);
        self.remember(Freed { irp, completed: completed.into(), cancelled });
    }

    /// What is remembered of a request, in room of its own.
    #[inline]
    pub(crate) fn boxed(&mut self, issue: Issue) -> Box<Issue> {
        let Some(mut room) = self.spare.pop() else { return Box::new(issue) };
        *room = issue;
        room
    }

    #[inline]
    fn remember(&mut self, freed: Freed) {
        if self.freed.len() >= REMEMBERED {
            self.freed.pop_front();
        }
        self.freed.push_back(freed);
    }

    fn freed(&self, irp: u64) -> Option<&Freed> {
        self.freed.iter().rev().find(|freed| freed.irp == irp)
    }

    /// Whether there was one at this address not long ago.
    pub(crate) fn was_freed(&self, irp: u64) -> bool {
        self.freed(irp).is_some()
    }

    /// The moment when the IRP at this address was completed; of a freed one, too.
    pub(crate) fn completed_at(&self, irp: u64) -> Option<u64> {
        match self.live.get(irp) {
            Some(record) => record.completed.number(),
            None => self.freed(irp)?.completed.number(),
        }
    }

    /// Whether the IRP at this address is cancelled; or was, if it is gone.
    pub(crate) fn was_cancelled(&self, irp: u64) -> bool {
        match self.live.get(irp) {
            Some(record) => record.cancelled != 0,
            None => self.freed(irp).is_some_and(|freed| freed.cancelled),
        }
    }

    /// A driver has put the IRP into a queue of the system's.
    pub(crate) fn queued(&mut self, irp: u64, moment: u64) {
        self.live.change(irp, |record| record.queued = moment.into());
    }

    /// IRPs in the list of a thread, oldest address first.
    pub(crate) fn of_thread(&self, thread: u64) -> Vec<u64> {
        self.live.keys_where(|record| record.thread == thread)
    }
}

/// Bytes of an IRP with so many stack locations.
pub(crate) const fn size(stack_size: u8) -> u16 {
    IRP_BYTES + LOCATION_BYTES * stack_size as u16
}

const IRP_BYTES: u16 = 0xd0;
const LOCATION_BYTES: u16 = 0x48;
const _: () = assert!(size_of::<IRP>() == 0xd0 && size_of::<IO_STACK_LOCATION>() == 0x48);

/// The `number`-th stack location, counted from 1 (the lowest driver's) to `StackCount`.
pub(crate) fn location(irp: DriverPtr<IRP>, number: u8) -> DriverPtr<IO_STACK_LOCATION> {
    DriverPtr::new(irp.address + u64::from(IRP_BYTES)).index(u64::from(number).wrapping_sub(1))
}

/// `IoGetCurrentIrpStackLocation`, by `CurrentLocation`; null if no driver has the IRP.
pub(crate) fn current(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<DriverPtr<IO_STACK_LOCATION>> {
    let number = cx.read(irp + IRP::CurrentLocation)?;
    let count = cx.read(irp + IRP::StackCount)?;
    Ok(if number == 0 || number > count { DriverPtr::NULL } else { location(irp, number) })
}

/// `IoGetNextIrpStackLocation`: what the next driver will find.
pub(crate) fn next(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<DriverPtr<IO_STACK_LOCATION>> {
    let number = cx.read(irp + IRP::CurrentLocation)?;
    Ok(location(irp, number.wrapping_sub(1)))
}

/// The application's names of major functions, as routines are named after them.
pub(crate) fn dispatch_role(major: u8) -> Role {
    const ROLES: [Role; 28] = [
        Role::DispatchCreate,
        Role::DispatchCreateNamedPipe,
        Role::DispatchClose,
        Role::DispatchRead,
        Role::DispatchWrite,
        Role::DispatchQueryInformation,
        Role::DispatchSetInformation,
        Role::DispatchQueryEa,
        Role::DispatchSetEa,
        Role::DispatchFlushBuffers,
        Role::DispatchQueryVolumeInformation,
        Role::DispatchSetVolumeInformation,
        Role::DispatchDirectoryControl,
        Role::DispatchFileSystemControl,
        Role::DispatchDeviceControl,
        Role::DispatchInternalDeviceControl,
        Role::DispatchShutdown,
        Role::DispatchLockControl,
        Role::DispatchCleanup,
        Role::DispatchCreateMailslot,
        Role::DispatchQuerySecurity,
        Role::DispatchSetSecurity,
        Role::DispatchPower,
        Role::DispatchSystemControl,
        Role::DispatchDeviceChange,
        Role::DispatchQueryQuota,
        Role::DispatchSetQuota,
        Role::DispatchPnp,
    ];
    ROLES.get(usize::from(major)).copied().unwrap_or(Role::Dispatch)
}
