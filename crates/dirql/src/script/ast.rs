//! What a script says, as plain values: the statements that an executor carries out one after another.
//!
//! All names are resolved and all numbers in range here. Nothing is executed, and no file is read. A script may have a hundred thousand
//! statements: one is small, and shares its names and its text with the others.

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

use kernel::wmi::Guid;

use super::data::Data;

/// A place in a script: both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The character in the line.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A name that a script gives. A clone is the same text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name(Rc<str>);

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// A whole script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// Its name as the user knows it: a path, or `--do`.
    pub source: String,
    /// What it says.
    pub text: String,
    /// In the order of the text.
    pub statements: Vec<Statement>,
}

impl Script {
    /// The command as written, for reports; without the thread's prefix.
    #[must_use]
    pub fn text_of(&self, statement: &Statement) -> &str {
        let Range { start, end } = statement.text;
        &self.text[start as usize..end as usize]
    }
}

/// One command, and the application thread that carries it out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Where it starts.
    pub at: Position,
    /// Where the command stands in the text, in bytes: see [`Script::text_of`].
    pub text: Range<u32>,
    /// `None`: the script's main thread, which goes on when the command has ended. `Some`: it is handed to the thread
    /// of this name, which carries out what it was handed in order, and the main thread goes on at once.
    pub thread: Option<Name>,
    /// What to do.
    pub command: Command,
}

/// What a statement does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// `open`: `CreateFile`.
    Open(Open),
    /// `read`, `write`, `read-scatter`, `write-gather`, `ioctl`, `flush`, `query`, `set`: a request, which this thread waits for.
    Request {
        /// The request.
        request: Request,
        /// What is to come of it.
        expect: Expectations,
    },
    /// `async NAME request`: an overlapped request, which this thread does not wait for.
    Async {
        /// The name to join or cancel it by.
        name: Name,
        /// The request; its handle was opened `overlapped`.
        request: Request,
        /// The thread gets a user APC with its end (`ReadFileEx`).
        apc: bool,
    },
    /// `pointer NAME request`: a request whose output begins with an address of the application's memory, which gets this name.
    Pointer {
        /// The name to load and store by.
        name: Name,
        /// The request.
        request: Request,
        /// What is to come of it.
        expect: Expectations,
    },
    /// `number NAME request`: a request whose output begins with a number of 32 bits, which gets this name.
    Number {
        /// The name to send it by.
        name: Name,
        /// The request.
        request: Request,
        /// What is to come of it.
        expect: Expectations,
    },
    /// `memory`: `VirtualAlloc`, and these bytes in it.
    Memory {
        /// The name to load, store and pass it by.
        name: Name,
        /// What it holds.
        data: Data,
        /// The application cannot store to it (`PAGE_READONLY`).
        read_only: bool,
    },
    /// `memory … at`: a name for an address that the application need not own.
    MemoryAt {
        /// The name to load, store and pass it by.
        name: Name,
        /// The address.
        address: u64,
        /// Bytes.
        length: u32,
    },
    /// `memory … of`: another name for memory, or for what is in it from an offset on, with a length of its own.
    MemoryOf {
        /// The name to load, store and pass it by.
        name: Name,
        /// The memory.
        of: Name,
        /// Bytes from its beginning.
        offset: u64,
        /// Bytes that the application says there are.
        length: u32,
    },
    /// `unmap`: `VirtualFree`.
    Unmap(Name),
    /// `load`: the application reads memory.
    Load {
        /// The pointer's name.
        pointer: Name,
        /// Bytes from where it points.
        offset: u64,
        /// Bytes, at most [`super::MAX_TRANSFER`].
        length: u32,
        /// What is to come of it.
        expect: Expectations,
    },
    /// `store`: the application writes memory.
    Store {
        /// The pointer's name.
        pointer: Name,
        /// Bytes from where it points.
        offset: u64,
        /// What is written.
        data: Data,
        /// What is to come of it; only a status.
        expect: Expectations,
    },
    /// `join` of a request: waits until it has completed.
    JoinRequest {
        /// The name given by `async`.
        name: Name,
        /// What is to have come of it.
        expect: Expectations,
    },
    /// `must-end`: waits until these requests have ended; each is to do so, by itself or because others have been made.
    MustEnd {
        /// The requests.
        requests: Vec<Name>,
        /// What ends them, if not they themselves: nothing is judged if one of these has not succeeded.
        behind: Vec<Name>,
        /// What is demanded of them.
        demand: Demand,
    },
    /// `must-answer`: waits until a request has completed, which is to give its own answer, and not another one's.
    MustAnswer {
        /// The name given by `async`.
        name: Name,
        /// What the request is answered with.
        answer: Data,
        /// What others are, or what is theirs.
        others: Vec<Data>,
    },
    /// `must-last`: waits until a request has ended or is so old; it may not end so before.
    MustLast {
        /// The name given by `async`.
        name: Name,
        /// How long it lasts at least, in nanoseconds.
        least: u64,
        /// The status that it has when its time is over.
        status: u32,
    },
    /// `must-be`: a request has this status now, in a computer that has been running for long, too.
    MustBe {
        /// The name given by `async`.
        name: Name,
        /// How it has ended, or `STATUS_PENDING`.
        status: u32,
    },
    /// `must-differ`: a request has handed out another number than one that is in use still.
    MustDiffer {
        /// The name given by `number`.
        name: Name,
        /// That of the other one.
        other: Name,
    },
    /// `join` of a thread: waits until it has carried out what it was handed.
    JoinThread(Name),
    /// `cancel`.
    Cancel(Cancel),
    /// `apc`: `QueueUserAPC` for this thread.
    UserApc(Name),
    /// `terminate`: `TerminateThread` of this thread.
    Terminate(Name),
    /// `port`: `CreateIoCompletionPort` without a file.
    Port {
        /// The name the script gives to it.
        name: Name,
        /// So many threads run at once that take packets from it; 0: as many as there are processors.
        threads: u32,
    },
    /// `bind`: `CreateIoCompletionPort` with a file, and `SetFileCompletionNotificationModes`.
    Bind {
        /// The handle's name; it was opened `overlapped`.
        handle: Name,
        /// The port's.
        port: Name,
        /// The completion key.
        key: u64,
        /// `FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`.
        skip: bool,
        /// What is to come of it; only a status.
        expect: Expectations,
    },
    /// `dequeue … several`: `GetQueuedCompletionStatusEx`.
    DequeueSeveral {
        /// The port's name.
        port: Name,
        /// So many packets at most.
        most: u32,
        /// A user APC ends the wait.
        alertable: bool,
        /// In how many nanoseconds of virtual time; `None`: for ever.
        timeout: Option<u64>,
        /// What is to come of it: the key and the number of bytes of each packet.
        expect: Expectations,
    },
    /// `dequeue`: `GetQueuedCompletionStatus`.
    Dequeue {
        /// The port's name.
        port: Name,
        /// The request that the packet is to be of, by the name that `async` gave it.
        request: Option<Name>,
        /// The key that it is to have.
        key: Option<u64>,
        /// In how many nanoseconds of virtual time; `None`: for ever.
        timeout: Option<u64>,
        /// What is to come of it; a status and bytes.
        expect: Expectations,
    },
    /// `post`: `PostQueuedCompletionStatus`.
    Post {
        /// The port's name.
        port: Name,
        /// The packet's key.
        key: u64,
        /// Its number of bytes.
        bytes: u64,
    },
    /// `close`: `CloseHandle`.
    Close {
        /// The handle's name.
        handle: Name,
    },
    /// `close event:NAME`: the same of an event's handle.
    CloseEvent(Name),
    /// `duplicate`: `DuplicateHandle`, another handle to the same file.
    Duplicate {
        /// The handle's name.
        handle: Name,
        /// The new handle's.
        name: Name,
    },
    /// `inherit`: `SetHandleInformation`, whether processes that are begun later have the handle too.
    Inherit {
        /// The handle's name.
        handle: Name,
        /// Whether they have.
        inherits: bool,
    },
    /// `process`: `CreateProcess`, whose image is the file of this name and whose first thread has it.
    Process {
        /// The name, without `.exe`.
        name: Name,
        /// It has the handles that can be inherited (`bInheritHandles`).
        inherits: bool,
        /// Its command line; `None`: the image's name.
        command: Option<String>,
        /// What is to come of it; only a status.
        expect: Expectations,
    },
    /// `open-process`: `OpenProcess`.
    OpenProcess {
        /// The process' name.
        process: Name,
        /// The handle's.
        handle: Name,
        /// `PROCESS_…`.
        access: u32,
        /// What is to come of it; only a status.
        expect: Expectations,
    },
    /// `load-image`: the process maps the image of this file, as `LoadLibrary` does.
    LoadImage(String),
    /// `open-key` and the like.
    Registry(Registry),
    /// `exit`: the process of this name ends.
    Exit(Name),
    /// `wait`: this thread sleeps so many nanoseconds of virtual time.
    Wait {
        /// Nanoseconds.
        nanoseconds: u64,
    },
    /// `wait limit`: this thread sleeps until the next time limit of a driver's ends.
    WaitForLimit,
    /// `wait power-down`: this thread sleeps until a device is to be powered down.
    WaitForPowerDown,
    /// `clock`: sets the system time.
    Clock {
        /// So many units of 100 ns forward; negative: back.
        units: i64,
    },
    /// `poke`: the outside world acts on a device, as its model names it.
    Poke {
        /// The model's name and number, e.g. `pci9052#0`.
        device: String,
        /// The signal's name in the model, e.g. `linti1`.
        signal: String,
        /// Its new value.
        value: u64,
    },
    /// `peek`: what a register of a device holds.
    Peek {
        /// The model's name and number, e.g. `pci#0`.
        device: String,
        /// The register as the model names it, e.g. `bar0+4c`.
        register: String,
        /// What is to be seen: its 4 bytes.
        expect: Expectations,
    },
    /// `pool`: what drivers hold of pool with a tag.
    Pool {
        /// The tag; `?` and `*` stand for any characters.
        tag: String,
        /// What is to be seen: the bytes, or the numbers of blocks and of bytes.
        expect: Expectations,
    },
    /// `tolerate`: from here on what a command yields is not looked at.
    Tolerate,
    /// `tree`: shows the device tree.
    Tree,
    /// `counters`.
    Counters(Counters),
    /// `unload`: a program has the driver unloaded.
    Unload {
        /// What is to come of it; only a status.
        expect: Expectations,
    },
    /// `interface-arrives`, `interface-leaves`: a device of another driver's comes or goes, with an interface that drivers here listen for.
    Interface {
        /// The class of the interface, as [`Path::Interface`] has it; `None`: each one that is listened for.
        class: Option<String>,
        /// Whether it comes.
        arrives: bool,
    },
    /// `stop-device` and its like.
    Pnp {
        /// What happens.
        event: PnpEvent,
        /// The model's name and number; `None`: the first device.
        device: Option<String>,
        /// What is to come of it; only a status.
        expect: Expectations,
    },
    /// `power`.
    Power {
        /// The state to go to.
        state: PowerState,
        /// The model's name and number; `None`: the first device, or the system.
        device: Option<String>,
        /// What is to come of it; only a status.
        expect: Expectations,
    },
    /// `wmi blocks`: shows the blocks that drivers offer.
    WmiBlocks,
    /// `wmi`.
    Wmi(Wmi),
    /// `user`: whose the application is from here on.
    User(User),
    /// `cards`: whether they do what they do by themselves from here on.
    Cards(Cards),
    /// `expect print`: some line printed since the last `expect print` that matched contains this text.
    ExpectPrint(String),
    /// `expect pending`: the request has not completed, the thread not ended what it was handed.
    ExpectPending(Waitable),
}

/// What a program asks of the counter sets of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    /// The counter set's name.
    pub set: String,
    /// The names of the instances; `*` and `?` stand for others. Without: all.
    pub mask: Option<String>,
    /// The number of the instance, if only that one is asked for.
    pub id: Option<u32>,
    /// Numbers and names are asked for, not values.
    pub names: bool,
    /// What is to come of it: bytes.
    pub expect: Expectations,
}

/// What an application asks of the registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registry {
    /// The handle of the key, by its name: to be given by `open-key` and `create-key`.
    pub key: Name,
    /// What is done.
    pub action: RegistryAction,
    /// What is to come of it.
    pub expect: Expectations,
}

/// What is done with a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegistryAction {
    /// `open-key`: `RegOpenKeyEx`.
    Open(String),
    /// `create-key`: `NtCreateKey`, of which `RegCreateKeyEx` makes one for each key that is missing.
    Create(String),
    /// `set-value`: `RegSetValueEx`.
    Set {
        /// The value's name.
        value: String,
        /// `REG_…`.
        kind: u32,
        /// Its data.
        data: Data,
    },
    /// `query-value`: `RegQueryValueEx`.
    Query {
        /// The value's name.
        value: String,
        /// Bytes that there is room for.
        length: u32,
    },
    /// `delete-value`: `RegDeleteValue`.
    DeleteValue(String),
    /// `delete-key`: `RegDeleteKey`.
    DeleteKey,
}

/// Whether cards do what they do by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cards {
    /// 200 s late.
    Silent,
    /// What they do next at this time limit of a driver's, counted from 1 on, and all else as usual.
    Late(u32),
    /// As usual, and what they owe at once.
    Answer,
}

/// What kind of user an application belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum User {
    /// A member of Administrators, elevated, with all its privileges enabled.
    Administrator,
    /// A member of Users and no more.
    Plain,
}

/// What `power` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerState {
    /// A device's: 0 for D0 … 3 for D3.
    Device(u8),
    /// The system's: 0 for S0 … 5 for S5.
    System(u8),
    /// S3, if no driver keeps the system awake.
    Idle,
    /// That a power setting gets a value.
    Setting(Guid, u32),
    /// Directed power: down if true, else up again.
    Directed(bool),
}

impl Command {
    /// In how many nanoseconds of virtual time it is to be over, if that is said.
    #[must_use]
    pub fn within(&self) -> Option<u64> {
        match self {
            Self::Open(Open { expect, .. })
            | Self::Bind { expect, .. }
            | Self::Process { expect, .. }
            | Self::OpenProcess { expect, .. }
            | Self::Registry(Registry { expect, .. })
            | Self::Dequeue { expect, .. }
            | Self::DequeueSeveral { expect, .. }
            | Self::Request { expect, .. }
            | Self::JoinRequest { expect, .. }
            | Self::Pnp { expect, .. }
            | Self::Power { expect, .. }
            | Self::Counters(Counters { expect, .. })
            | Self::Wmi(Wmi { expect, .. }) => expect.within,
            _ => None,
        }
    }
}

/// What `open` opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// What is opened.
    pub path: Path,
    /// The name the script gives to the handle.
    pub handle: Name,
    /// Access to ask for.
    pub access: Access,
    /// `FILE_FLAG_OVERLAPPED`: else requests on the handle are made one at a time.
    pub overlapped: bool,
    /// `FILE_FLAG_NO_BUFFERING`.
    pub unbuffered: bool,
    /// Processes that are begun later have it too (`bInheritHandle`).
    pub inherits: bool,
    /// Do not share (`dwShareMode` 0); else with readers and writers.
    pub exclusive: bool,
    /// What is to come of it; only a status.
    pub expect: Expectations,
}

/// A name to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Path {
    /// As `CreateFile` takes it (`\\.\Name`), or an object manager path (`\Device\Name`, `\??\Name`).
    Name(String),
    /// The first enabled device interface of this class; `{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}`, upper case.
    Interface(String),
}

/// `dwDesiredAccess`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// `GENERIC_READ | GENERIC_WRITE`.
    ReadWrite,
    /// `GENERIC_READ`.
    Read,
    /// `GENERIC_WRITE`.
    Write,
}

/// What is demanded of requests that are to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    /// `must-end`: nothing is judged if a call was made to fail.
    End,
    /// `must-succeed`: they are to succeed, too.
    Succeed,
    /// `must-recover`: only what was asked for behind calls that were made to fail is judged.
    Recover,
}

/// A request on a handle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The handle's name.
    pub handle: Name,
    /// What is asked for.
    pub operation: Operation,
    /// The memory that is its input buffer, by name; `None`: a buffer of its own.
    pub input: Option<Name>,
    /// The same for its output.
    pub output: Option<Name>,
}

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `ReadFile`.
    Read {
        /// Bytes, at most [`super::MAX_TRANSFER`].
        length: u32,
        /// File offset; `None`: the file position (0 on an overlapped handle).
        offset: Option<u64>,
    },
    /// `WriteFile`.
    Write {
        /// What is written.
        data: Data,
        /// File offset; `None`: the file position (0 on an overlapped handle); `u64::MAX`: the end, `FILE_WRITE_TO_END_OF_FILE`.
        offset: Option<u64>,
    },
    /// `ReadFileScatter`: each page comes to memory of its own.
    Scatter {
        /// Bytes, at most [`super::MAX_TRANSFER`].
        length: u32,
        /// File offset; `None`: 0.
        offset: Option<u64>,
    },
    /// `WriteFileGather`: each page comes from memory of its own.
    Gather {
        /// What is written.
        data: Data,
        /// File offset; `None`: 0.
        offset: Option<u64>,
    },
    /// `DeviceIoControl`.
    Ioctl {
        /// The control code.
        code: u32,
        /// The input buffer; `None`: no buffer.
        input: Option<Data>,
        /// The output buffer's bytes, at most [`super::MAX_TRANSFER`]; 0: no buffer.
        output: u32,
    },
    /// `FlushFileBuffers`.
    Flush,
    /// `NtQueryInformationFile`, as `GetFileSizeEx` and its like call it.
    Query {
        /// `FILE_INFORMATION_CLASS`.
        class: u32,
        /// The buffer's bytes, at most [`super::MAX_TRANSFER`].
        length: u32,
    },
    /// `NtSetInformationFile`, as `SetEndOfFile` and its like call it.
    Set {
        /// `FILE_INFORMATION_CLASS`.
        class: u32,
        /// What is set.
        data: Data,
    },
}

/// Whose requests `cancel` cancels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cancel {
    /// All on this handle (`CancelIoEx` without an `OVERLAPPED`).
    Handle(Name),
    /// The one that this thread waits for (`CancelSynchronousIo`).
    Thread(Name),
    /// The one that `async` gave this name (`CancelIoEx`).
    Request(Name),
}

/// Something that ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Waitable {
    /// A thread, by name.
    Thread(Name),
    /// A request, by the name that `async` gave it.
    Request(Name),
}

/// What the Plug and Play manager, or the user's hand, does to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PnpEvent {
    /// `IRP_MN_START_DEVICE`, with the resources that it had.
    Start,
    /// The same with others, as far as there are any.
    StartElsewhere,
    /// `IRP_MN_QUERY_STOP_DEVICE`, and unless it fails `IRP_MN_STOP_DEVICE`.
    Stop,
    /// `IRP_MN_QUERY_STOP_DEVICE` alone.
    QueryStop,
    /// `IRP_MN_CANCEL_STOP_DEVICE`.
    CancelStop,
    /// `IRP_MN_QUERY_REMOVE_DEVICE`, and unless it fails `IRP_MN_REMOVE_DEVICE`.
    Remove,
    /// `IRP_MN_QUERY_REMOVE_DEVICE` alone.
    QueryRemove,
    /// `IRP_MN_CANCEL_REMOVE_DEVICE`.
    CancelRemove,
    /// The card is gone: `IRP_MN_SURPRISE_REMOVAL`, and when the last handle is closed `IRP_MN_REMOVE_DEVICE`.
    SurpriseRemove,
    /// As `Remove`, and then `IRP_MN_EJECT`.
    Eject,
    /// `IRP_MN_SET_LOCK`: whether it is locked.
    Lock(bool),
    /// `IRP_MN_DEVICE_USAGE_NOTIFICATION`: such a file, and whether it is there.
    Usage(SpecialFile, bool),
    /// `IRP_MN_QUERY_ALL_DATA` for a block of the bus driver's, which has none: the drivers above pass it down.
    AskBus,
}

/// A file that the drivers of its device must know of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpecialFile {
    /// A paging file.
    Paging,
    /// The hibernation file.
    Hibernation,
    /// The crash dump file.
    Dump,
}

/// What an administrator's program asks of a block that drivers offer by WMI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wmi {
    /// `{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}`, upper case.
    pub guid: String,
    /// Of which of its instances.
    pub instance: WmiInstance,
    /// What.
    pub question: WmiQuestion,
    /// What is to come of it.
    pub expect: Expectations,
}

/// Instances of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WmiInstance {
    /// All.
    All,
    /// The one at this place, from 0.
    Place(u32),
    /// The one of this name.
    Name(String),
}

/// What is asked of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WmiQuestion {
    /// Its data.
    Query,
    /// To take other data.
    Set {
        /// An item's number; `None`: the whole instance.
        item: Option<u32>,
        /// The data.
        data: Data,
    },
    /// To run a method.
    Execute {
        /// The method's number.
        method: u32,
        /// Its input, if it has one.
        input: Option<Data>,
        /// Room for its output in bytes, at most [`super::MAX_TRANSFER`].
        output: u32,
    },
    /// To send its events from now on.
    Enable,
    /// Not to any more.
    Disable,
    /// For its next event, which is waited for.
    Event,
}

/// What is to come of a command. What is not said is not looked at, but for the status: it is to be a success.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Expectations {
    /// The status.
    pub status: ExpectedStatus,
    /// `IoStatus.Information`: bytes transferred.
    pub bytes: Option<u64>,
    /// The bytes that came in, all of them or the first ones.
    pub data: Option<ExpectedData>,
    /// The command is over in so many nanoseconds of virtual time.
    pub within: Option<u64>,
}

/// The status to come.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum ExpectedStatus {
    /// Success or informational (`NT_SUCCESS`).
    #[default]
    Success,
    /// A warning or an error.
    Failure,
    /// This one.
    Exactly(u32),
    /// Whatever it is: what matters is that the request ends.
    Any,
    /// One of these (`A or B`).
    OneOf(Vec<Self>),
}

impl ExpectedStatus {
    /// Whether `status` is what was expected.
    #[must_use]
    pub fn admits(&self, status: u32) -> bool {
        match self {
            Self::Success => status >> 31 == 0,
            Self::Failure => status >> 31 == 1,
            Self::Exactly(expected) => status == *expected,
            Self::Any => true,
            Self::OneOf(several) => several.iter().any(|one| one.admits(status)),
        }
    }
}

/// The bytes to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedData {
    /// The bytes; some may be any (`hex:3c??`).
    pub data: Data,
    /// Whether more bytes may follow (`expect prefix`).
    pub prefix: bool,
}
