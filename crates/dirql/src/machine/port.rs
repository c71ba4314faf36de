//! Completion ports of the application, for tests in Rust.

use engine::outside;
use kernel::io::completion_port::{self, Packet as Queued};
use kernel::io::file;
use kernel::ob;

use super::{Handle, Machine, Request};
use crate::error::Error;

/// A completion port: it tells of the ends of requests on the handles that are bound to it.
pub struct CompletionPort<'m> {
    machine: &'m Machine,
    handle: ob::Handle,
}

/// What a port tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// What the handle was bound with, or what was posted.
    pub key: u64,
    /// NTSTATUS.
    pub status: u32,
    /// `IoStatus.Information`, or what was posted.
    pub information: u64,
    request: u64,
}

impl From<Queued> for Packet {
    fn from(Queued { key, request, status, information }: Queued) -> Self {
        Self { key, status: status.0, information, request }
    }
}

impl Packet {
    /// Whether it tells of this request.
    #[must_use]
    pub fn is_of(&self, request: &Request<'_>) -> bool {
        self.request != 0 && self.request == request.id()
    }
}

impl Machine {
    /// Makes a completion port (`CreateIoCompletionPort`): so many threads run at once that take packets from it, 0 being as many as
    /// there are processors.
    ///
    /// # Errors
    /// [`Error::Status`] if there is no memory; [`Error::Stopped`].
    pub fn completion_port(&self, threads: u32) -> Result<CompletionPort<'_>, Error> {
        let what = "CreateIoCompletionPort";
        match self.on_thread(what, move |cx| completion_port::create(cx, threads))? {
            Some(handle) => Ok(CompletionPort { machine: self, handle }),
            None => {
                let status = abi::NtStatus::INSUFFICIENT_RESOURCES.0;
                Err(Error::Status { what: what.to_owned(), status })
            }
        }
    }
}

impl CompletionPort<'_> {
    /// Requests that are made on an overlapped handle from now on end here, with this key.
    ///
    /// # Errors
    /// [`Error::Status`] if the handle is not overlapped, or has a port; [`Error::Stuck`], [`Error::Stopped`].
    pub fn bind(&self, file: &Handle<'_>, key: u64) -> Result<(), Error> {
        let (port, file) = (self.handle, file.raw());
        self.done("CreateIoCompletionPort", move |cx| completion_port::associate(cx, file, port, key))
    }

    /// Takes the next packet (`GetQueuedCompletionStatus`), which is waited for: for ever, or so many nanoseconds of the machine's time.
    ///
    /// # Errors
    /// [`Error::Status`] with STATUS_TIMEOUT, or STATUS_ABANDONED_WAIT_0 if the port is closed meanwhile; [`Error::Stuck`] if none ever
    /// comes; [`Error::Stopped`].
    pub fn next(&self, nanoseconds: Option<u64>) -> Result<Packet, Error> {
        let (port, what) = (self.handle, "GetQueuedCompletionStatus");
        match self.machine.on_thread(what, move |cx| completion_port::wait(cx, port, nanoseconds))? {
            Ok(packet) => Ok(packet.into()),
            Err(status) => Err(Error::Status { what: what.to_owned(), status: status.0 }),
        }
    }

    /// Takes the next packet, which is waited for, and those that are there besides (`GetQueuedCompletionStatusEx`): `most` in all, at least 1. With
    /// `alertable` a user APC ends the wait.
    ///
    /// # Errors
    /// As [`CompletionPort::next`]; [`Error::Status`] with STATUS_USER_APC.
    pub fn next_several(
        &self,
        most: u32,
        nanoseconds: Option<u64>,
        alertable: bool,
    ) -> Result<Vec<Packet>, Error> {
        let (port, what) = (self.handle, "GetQueuedCompletionStatusEx");
        let packets = self.machine.on_thread(what, move |cx| {
            let packets = completion_port::wait_for_several(cx, port, most, nanoseconds, alertable)?;
            Ok(outside(|| packets.clone()))
        })?;
        match packets {
            Ok(queued) => Ok(queued.into_iter().map(Packet::from).collect()),
            Err(status) => Err(Error::Status { what: what.to_owned(), status: status.0 }),
        }
    }

    /// Queues a packet of the application's own (`PostQueuedCompletionStatus`).
    ///
    /// # Errors
    /// [`Error::Status`]; [`Error::Stuck`], [`Error::Stopped`].
    pub fn post(&self, key: u64, information: u64) -> Result<(), Error> {
        let (port, status) = (self.handle, abi::NtStatus::SUCCESS);
        let packet = Queued { key, request: 0, status, information };
        self.done("PostQueuedCompletionStatus", move |cx| completion_port::post(cx, port, packet))
    }

    /// Closes it. Packets that are still queued are lost.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn close(self) -> Result<(), Error> {
        let handle = self.handle;
        self.machine.on_thread("CloseHandle", move |cx| file::close(cx, handle)).map(|_| ())
    }

    fn done(
        &self,
        what: &str,
        work: impl FnOnce(&mut kernel::Cx<'_>) -> engine::Flow<abi::NtStatus> + 'static,
    ) -> Result<(), Error> {
        let status = self.machine.on_thread(what, work)?;
        if status.is_success() {
            Ok(())
        } else {
            Err(Error::Status { what: what.to_owned(), status: status.0 })
        }
    }
}
