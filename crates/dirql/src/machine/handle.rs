//! Open files of the application, for tests in Rust.

use engine::outside;
use kernel::io::completion_port;
use kernel::io::event::{self, Type};
use kernel::io::file::{self, Buffer, OpenOptions};
use kernel::mm::user;
use kernel::ob::{self, duplicate};

use super::transfer::{self, Completion, Transfer, perform};
use super::{Machine, Request};
use crate::error::Error;

/// An open device. What is still open when the machine is finished is closed then.
pub struct Handle<'m> {
    machine: &'m Machine,
    handle: ob::Handle,
    path: String,
}

impl Machine {
    /// Opens a device for reading and writing, as `CreateFile` does: `\\.\Name`, or an object manager path.
    ///
    /// # Errors
    /// [`Error::Status`] if it cannot be opened; [`Error::Stuck`], [`Error::Stopped`].
    pub fn open(&self, path: &str) -> Result<Handle<'_>, Error> {
        self.open_as(path, OpenOptions::default())
    }

    /// Opens a device with `FILE_FLAG_OVERLAPPED`: several requests can be under way at once, see [`Handle::begin_read`].
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn open_overlapped(&self, path: &str) -> Result<Handle<'_>, Error> {
        let opened = self.open_as(path, OpenOptions { options: 0, ..OpenOptions::default() })?;
        self.overlapped.borrow_mut().push(opened.handle);
        Ok(opened)
    }

    /// Opens a device as [`Machine::open_overlapped`] and with `FILE_FLAG_NO_BUFFERING`, as [`Handle::read_scatter`] needs it.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn open_unbuffered(&self, path: &str) -> Result<Handle<'_>, Error> {
        let options = abi::FILE_NO_INTERMEDIATE_BUFFERING;
        let opened = self.open_as(path, OpenOptions { options, ..OpenOptions::default() })?;
        self.overlapped.borrow_mut().push(opened.handle);
        Ok(opened)
    }

    fn open_as(&self, path: &str, options: OpenOptions) -> Result<Handle<'_>, Error> {
        let what = format!("CreateFile of {path}");
        let name = path.to_owned();
        match self.on_thread(&what, move |cx| file::open(cx, &name, &options))? {
            Ok(handle) => Ok(Handle { machine: self, handle, path: path.to_owned() }),
            Err(status) => Err(Error::Status { what, status: status.0 }),
        }
    }
}

impl Machine {
    /// The application loads from its memory, e.g. from a window of a card that a driver has mapped for it: 1, 2, 4 or 8 bytes that
    /// are aligned are one access.
    ///
    /// # Errors
    /// [`Error::Status`] with STATUS_ACCESS_VIOLATION if nothing is there; [`Error::Stuck`], [`Error::Stopped`].
    pub fn load(&self, address: u64, length: u32) -> Result<Vec<u8>, Error> {
        let what = format!("a load from {address:#x}");
        let end = self.on_thread(&what, move |cx| {
            let end = transfer::load(cx, address, length)?;
            Ok(outside(|| end.clone()))
        })?;
        if end.is_success() { Ok(end.data) } else { Err(Error::Status { what, status: end.status }) }
    }

    /// The application takes memory, which has these bytes in it; its address. Beside [`Machine::load`] and [`Machine::store`] it can be the buffers of
    /// requests ([`Handle::begin_device_control_in`]).
    ///
    /// # Errors
    /// [`Error::Status`] if there is none left; [`Error::Stopped`].
    pub fn memory(&self, bytes: &[u8]) -> Result<u64, Error> {
        let given = bytes.to_vec();
        match self.on_thread("VirtualAlloc", move |cx| transfer::allocate(cx, &given))? {
            Some(buffer) => Ok(buffer.address),
            None => {
                let status = abi::NtStatus::INSUFFICIENT_RESOURCES.0;
                Err(Error::Status { what: "VirtualAlloc".to_owned(), status })
            }
        }
    }

    /// The application makes an event (`CreateEvent`, auto-reset); its handle, as drivers get it in the input of requests.
    ///
    /// # Errors
    /// [`Error::Status`] if there is no memory left; [`Error::Stopped`].
    pub fn event(&self) -> Result<u64, Error> {
        match self.on_thread("CreateEvent", |cx| event::create(cx, Type::Synchronization, false))? {
            Some(event) => Ok(event.0),
            None => {
                let status = abi::NtStatus::INSUFFICIENT_RESOURCES.0;
                Err(Error::Status { what: "CreateEvent".to_owned(), status })
            }
        }
    }

    /// The application frees memory of [`Machine::memory`], in use or not. True if it was there, and no driver has secured it.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn unmap(&self, address: u64) -> Result<bool, Error> {
        self.on_thread("VirtualFree", move |cx| Ok(user::free(cx, address)))
    }

    /// The application stores to its memory, as [`Machine::load`] loads.
    ///
    /// # Errors
    /// As there.
    pub fn store(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let (what, bytes) = (format!("a store to {address:#x}"), bytes.to_vec());
        let status = self.on_thread(&what, move |cx| Ok(transfer::store(cx, address, &bytes)?.status))?;
        if status >> 31 == 0 { Ok(()) } else { Err(Error::Status { what, status }) }
    }
}

impl Handle<'_> {
    pub(super) fn raw(&self) -> ob::Handle {
        self.handle
    }

    /// What the completion port tells of, and whether the file's own event is set (`SetFileCompletionNotificationModes`):
    /// FILE_SKIP_COMPLETION_PORT_ON_SUCCESS is 1, FILE_SKIP_SET_EVENT_ON_HANDLE 2.
    ///
    /// # Errors
    /// [`Error::Status`]; [`Error::Stuck`], [`Error::Stopped`].
    pub fn set_completion_modes(&self, modes: u8) -> Result<(), Error> {
        let handle = self.handle;
        let what = format!("SetFileCompletionNotificationModes on {}", self.path);
        let status =
            self.machine.on_thread(&what, move |cx| completion_port::set_modes(cx, handle, modes))?;
        if status.is_success() { Ok(()) } else { Err(Error::Status { what, status: status.0 }) }
    }

    /// Writes at the file's position; how many bytes were written.
    ///
    /// # Errors
    /// [`Error::Status`] if the request fails; [`Error::Stuck`], [`Error::Stopped`].
    pub fn write(&self, data: &[u8]) -> Result<u64, Error> {
        self.write_at(data, None)
    }

    /// Writes at an offset, or at the file's position.
    ///
    /// # Errors
    /// As [`Handle::write`].
    pub fn write_at(&self, data: &[u8], offset: Option<u64>) -> Result<u64, Error> {
        self.ask("WriteFile", Transfer::Write { data: data.to_owned().into(), offset })
            .map(|end| end.information)
    }

    /// Reads up to `length` bytes at the file's position.
    ///
    /// # Errors
    /// As [`Handle::write`].
    pub fn read(&self, length: u32) -> Result<Vec<u8>, Error> {
        self.read_at(length, None)
    }

    /// Reads at an offset, or at the file's position.
    ///
    /// # Errors
    /// As [`Handle::write`].
    pub fn read_at(&self, length: u32, offset: Option<u64>) -> Result<Vec<u8>, Error> {
        self.ask("ReadFile", Transfer::Read { length, offset }).map(|end| end.data)
    }

    /// Reads up to `length` bytes into pages that do not lie beside each other (`ReadFileScatter`).
    ///
    /// # Errors
    /// As [`Handle::write`]; [`Error::Status`] with STATUS_INVALID_PARAMETER if it was not opened by [`Machine::open_unbuffered`].
    pub fn read_scatter(&self, length: u32, offset: Option<u64>) -> Result<Vec<u8>, Error> {
        self.ask("ReadFileScatter", Transfer::Scatter { length, offset }).map(|end| end.data)
    }

    /// Writes from such pages (`WriteFileGather`); how many bytes were written.
    ///
    /// # Errors
    /// As [`Handle::read_scatter`].
    pub fn write_gather(&self, data: &[u8], offset: Option<u64>) -> Result<u64, Error> {
        let transfer = Transfer::Gather { data: data.to_owned().into(), offset };
        self.ask("WriteFileGather", transfer).map(|end| end.information)
    }

    /// A process that is begun by [`Machine::begin_process_inheriting`] from now on has it too, or not (`SetHandleInformation`).
    ///
    /// # Errors
    /// [`Error::Status`]; [`Error::Stopped`].
    pub fn set_inherit(&self, inherit: bool) -> Result<(), Error> {
        let handle = self.handle;
        let set = self
            .machine
            .on_thread("SetHandleInformation", move |cx| Ok(ob::handle::set_inherit(cx, handle, inherit)))?;
        set.map_err(|status| Error::Status {
            what: format!("SetHandleInformation of {}", self.path),
            status: status.0,
        })
    }

    /// A device control request; what came out.
    ///
    /// # Errors
    /// As [`Handle::write`].
    pub fn device_control(&self, code: u32, input: &[u8], output: u32) -> Result<Vec<u8>, Error> {
        let transfer = Transfer::Control { code, input: input.to_owned().into(), output };
        self.ask("DeviceIoControl", transfer).map(|end| end.data)
    }

    /// A device control request, whatever its status.
    ///
    /// # Errors
    /// [`Error::Stuck`], [`Error::Stopped`].
    pub fn try_device_control(&self, code: u32, input: &[u8], output: u32) -> Result<Completion, Error> {
        self.try_ask("DeviceIoControl", Transfer::Control { code, input: input.to_owned().into(), output })
    }

    /// Has the driver write what it keeps back (`FlushFileBuffers`).
    ///
    /// # Errors
    /// As [`Handle::write`].
    pub fn flush(&self) -> Result<(), Error> {
        self.ask("FlushFileBuffers", Transfer::Flush).map(|_| ())
    }

    /// Asks what is known of the file, of a class of `FILE_INFORMATION_CLASS` (`NtQueryInformationFile`), with a buffer of so many bytes.
    ///
    /// # Errors
    /// As [`Handle::write`].
    pub fn query_information(&self, class: u32, length: u32) -> Result<Vec<u8>, Error> {
        self.ask("NtQueryInformationFile", Transfer::Query { class, length }).map(|end| end.data)
    }

    /// Sets what [`Handle::query_information`] asks for (`NtSetInformationFile`).
    ///
    /// # Errors
    /// As [`Handle::write`].
    pub fn set_information(&self, class: u32, data: &[u8]) -> Result<(), Error> {
        self.ask("NtSetInformationFile", Transfer::Set { class, data: data.to_owned().into() }).map(|_| ())
    }

    /// Another handle to the same open file (`DuplicateHandle`): the driver hears of the end when the last one is closed.
    ///
    /// # Errors
    /// [`Error::Status`]; [`Error::Stuck`], [`Error::Stopped`].
    pub fn duplicate(&self) -> Result<Self, Error> {
        let handle = self.handle;
        let copy = self.machine.on_thread("DuplicateHandle", move |cx| duplicate::of_own(cx, handle))?;
        match copy {
            Ok(handle) => Ok(Self { machine: self.machine, handle, path: self.path.clone() }),
            Err(status) => {
                Err(Error::Status { what: format!("DuplicateHandle of {}", self.path), status: status.0 })
            }
        }
    }

    /// Begins to read, as [`Handle::read_at`], and does not wait for the end.
    ///
    /// # Errors
    /// [`Error::Stuck`] if the driver's dispatch routine does not return; [`Error::Stopped`]. How the request ends, [`Request::wait`]
    /// tells.
    pub fn begin_read(&self, length: u32, offset: Option<u64>) -> Result<Request<'_>, Error> {
        self.begin("ReadFile", Transfer::Read { length, offset })
    }

    /// Begins to write.
    ///
    /// # Errors
    /// As [`Handle::begin_read`].
    pub fn begin_write(&self, data: &[u8], offset: Option<u64>) -> Result<Request<'_>, Error> {
        self.begin("WriteFile", Transfer::Write { data: data.to_owned().into(), offset })
    }

    /// Begins a device control request.
    ///
    /// # Errors
    /// As [`Handle::begin_read`].
    pub fn begin_device_control(&self, code: u32, input: &[u8], output: u32) -> Result<Request<'_>, Error> {
        self.begin("DeviceIoControl", Transfer::Control { code, input: input.to_owned().into(), output })
    }

    /// Begins a device control request whose buffers (address, bytes) lie in memory that the application has anyway.
    ///
    /// # Errors
    /// As [`Handle::begin_read`].
    pub fn begin_device_control_in(
        &self,
        code: u32,
        input: (u64, u32),
        output: (u64, u32),
    ) -> Result<Request<'_>, Error> {
        let [input, output] = [input, output].map(|(address, length)| Some(Buffer { address, length }));
        let transfer = Box::new(Transfer::Control { code, input: (&[]).into(), output: 0 });
        self.begin("DeviceIoControl", Transfer::Placed { transfer, input, output })
    }

    /// Cancels all requests on it that are under way (`CancelIoEx`). Whether there were any; how they end, each tells itself.
    ///
    /// # Errors
    /// [`Error::Stuck`] if a cancel routine does not return; [`Error::Stopped`].
    pub fn cancel(&self) -> Result<bool, Error> {
        let handle = self.handle;
        let what = format!("CancelIoEx on {}", self.path);
        let status = self.machine.on_thread(&what, move |cx| file::cancel_io_ex(cx, handle))?;
        Ok(status.is_success())
    }

    /// The machine that it is of.
    pub(crate) fn machine(&self) -> &Machine {
        self.machine
    }

    /// The handle itself.
    pub(super) fn handle(&self) -> ob::Handle {
        self.handle
    }

    fn begin(&self, name: &str, transfer: Transfer<'static>) -> Result<Request<'_>, Error> {
        Request::begin(self.machine, self.handle, format!("{name} on {}", self.path), transfer)
    }

    /// Closes it.
    ///
    /// # Errors
    /// [`Error::Stuck`] if the driver keeps a request of the file's for ever; [`Error::Stopped`].
    pub fn close(self) -> Result<(), Error> {
        let handle = self.handle;
        self.machine.on_thread("CloseHandle", move |cx| file::close(cx, handle)).map(|_| ())
    }

    fn try_ask(&self, name: &str, transfer: Transfer<'static>) -> Result<Completion, Error> {
        let handle = self.handle;
        let what = format!("{name} on {}", self.path);
        self.machine.on_thread(&what, move |cx| {
            let end = perform(cx, handle, &transfer)?;
            Ok(outside(|| end.clone()))
        })
    }

    fn ask(&self, name: &str, transfer: Transfer<'static>) -> Result<Completion, Error> {
        let end = self.try_ask(name, transfer)?;
        if end.is_success() {
            return Ok(end);
        }
        Err(Error::Status { what: format!("{name} on {}", self.path), status: end.status })
    }
}
