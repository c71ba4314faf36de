//! Everything observable, emitted once, where it happens. Rules, traces and statistics are readers; the kernel knows
//! none of them.

mod declaration;
mod role;

use std::any::Any;

use engine::StrandId;

pub use declaration::{Declared, Form, Value, Words};
use declaration::{Field, events};
pub use role::{Class, Role};

use crate::verdict::Verdict;

/// When and where an event happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Counts the machine's events from 0, whether anybody reads them or not. A change of IRQL is not counted: it has the number
    /// of what comes next.
    pub number: u64,
    /// The machine's clock in nanoseconds (one driver instruction is one).
    pub time: u64,
    /// The processor.
    pub processor: u32,
    /// Its IRQL.
    pub irql: u8,
    /// The strand; 0 is the scheduler.
    pub strand: StrandId,
}

events! {
    /// A driver called an export.
    Call = "call" {
        /// Row of the export table.
        export: u32 as Export,
        /// The first four arguments.
        arguments: [u64; 4] as Words,
        /// The return address.
        caller: u64 as Code,
    }
    /// An export returned to the driver.
    Return = "return" {
        /// Row of the export table.
        export: u32 as Export,
        /// `rax`.
        value: u64 as Hex,
    }
    /// The kernel calls a routine of a driver.
    Enter = "enter" {
        /// What it is called for: `DriverEntry`, `DispatchWrite`, `StartIo`, `Isr`, `DpcForIsr`, …
        role: Role as Text,
        /// Its address.
        routine: u64 as Code,
        /// The object it is called for: device, IRP, DPC, interrupt; 0 if none.
        object: u64 as Hex,
    }
    /// A routine of a driver came back.
    Leave = "leave" {
        /// As in `Enter`.
        role: Role as Text,
        /// As in `Enter`.
        routine: u64 as Code,
        /// `rax`.
        value: u64 as Hex,
    }
    /// A driver accessed a device register or port.
    Device = "device" {
        /// `in`/`out` if true, else memory.
        port: bool as Flag,
        /// Bus address or port.
        address: u64 as Hex,
        /// Bytes.
        bytes: u8 as Number,
        /// A write if true.
        write: bool as Flag,
        /// The value that was read or written.
        value: u64 as Hex,
        /// The device and register, where the device can name it.
        register: Option<String> as Text,
    }
    /// Driver code stored to device memory that it has mapped to be write-combined: the processor keeps it, and what of it reaches the device,
    /// and when, is told as `Device`.
    Combined = "combined" {
        /// Bus address.
        address: u64 as Hex,
        /// Bytes.
        bytes: u8 as Number,
        /// The value that was stored.
        value: u64 as Hex,
    }
    /// An interrupt line changed its level.
    Line = "line" {
        /// The line.
        line: u32 as Number,
        /// Asserted if true.
        asserted: bool as Flag,
    }
    /// A message-signaled interrupt arrived.
    Message = "message" {
        /// The vector it brings.
        vector: u32 as Number,
        /// The address that was written to.
        address: u64 as Hex,
        /// What was written.
        data: u32 as Hex,
        /// Somebody is connected to the vector; else it is lost.
        connected: bool as Flag,
    }
    /// A bus master has moved data.
    Transfer = "transfer" {
        /// The function.
        device: String as Text,
        /// The first physical address.
        address: u64 as Hex,
        /// How many bytes.
        bytes: u64 as Number,
        /// To memory if true, else from memory.
        write: bool as Flag,
    }
    /// An interrupt service routine was connected to a vector, or disconnected: it does not run and will not.
    Connection = "connection" {
        /// The KINTERRUPT.
        object: u64 as Hex,
        /// The vector.
        vector: u32 as Number,
        /// The level the routine runs at.
        level: u8 as Number,
        /// Connected if true.
        made: bool as Flag,
    }
    /// An interrupt service routine answered.
    Interrupt = "interrupt" {
        /// The line or vector.
        vector: u32 as Number,
        /// The KINTERRUPT.
        object: u64 as Hex,
        /// It returned TRUE.
        claimed: bool as Flag,
    }
    /// A DPC was queued (or was queued already).
    DpcQueued = "dpc-queued" {
        /// The KDPC.
        dpc: u64 as Hex,
        /// False if it was in a queue already.
        inserted: bool as Flag,
    }
    /// A DPC was taken out of its queue again: it does not run.
    DpcRemoved = "dpc-removed" {
        /// The KDPC.
        dpc: u64 as Hex,
    }
    /// The IRQL of the processor changed.
    Irql = "irql" {
        /// Before.
        from: u8 as Number,
        /// After.
        to: u8 as Number,
    }
    /// An IRP was sent to a driver.
    IrpSent = "irp-sent" {
        /// The IRP.
        irp: u64 as Hex,
        /// The number of the event with which it was first sent. Addresses of IRPs are used again, this is not.
        id: u64 as Number,
        /// The number of the application's request that it is for; none if a driver or the system sends it.
        request: Option<u64> as Number,
        /// The device object.
        device: u64 as Hex,
        /// Major function.
        major: u8 as Number,
        /// Minor function.
        minor: u8 as Number,
    }
    /// `IoCompleteRequest`.
    IrpCompleted = "irp-completed" {
        /// The IRP.
        irp: u64 as Hex,
        /// As in `irp-sent`; none if it was never sent.
        id: Option<u64> as Number,
        /// Its final status.
        status: u32 as Hex,
        /// `IoStatus.Information`.
        information: u64 as Number,
    }
    /// An application's request begins (`WriteFile`, …). The number of this event is the request's in later ones.
    Request = "request" {
        /// The function as the application knows it.
        name: &'static str as Text,
        /// What it was called with, for people.
        detail: String as Text,
    }
    /// An application's request is over, or (`STATUS_PENDING`) under way: then another answer follows at its end.
    Answer = "answer" {
        /// The number of the event with which the request began.
        request: u64 as Number,
        /// As in `Request`.
        name: &'static str as Text,
        /// NTSTATUS.
        status: u32 as Hex,
        /// Bytes transferred.
        information: u64 as Number,
    }
    /// Memory was allocated.
    Allocated = "allocated" {
        /// Where.
        address: u64 as Hex,
        /// Bytes.
        bytes: u64 as Number,
        /// Pool tag.
        tag: u32 as Tag,
        /// Paged pool if true.
        paged: bool as Flag,
    }
    /// Memory was freed.
    Freed = "freed" {
        /// Where.
        address: u64 as Hex,
    }
    /// A line of `DbgPrint` text (without its newline).
    Print = "print" {
        /// The text.
        text: String as Text,
    }
    /// A provider of events that is traced wrote one.
    Traced = "traced" {
        /// The provider's GUID; of a classic event, its own.
        provider: String as Text,
        /// What the provider and the event are called, where they say so.
        name: Option<String> as Text,
        /// The event's number.
        id: u32 as Number,
        /// Its version.
        version: u8 as Number,
        /// Its level: 1 is critical, 5 verbose.
        level: u8 as Number,
        /// What it says of an activity: 1 is its start, 2 its stop.
        opcode: u8 as Number,
        /// The task that it belongs to.
        task: u32 as Number,
        /// Its keywords.
        keyword: u64 as Hex,
        /// The activity that it belongs to, if there is one.
        activity: Option<String> as Text,
        /// The activity from which that came.
        related: Option<String> as Text,
        /// Its data, in hexadecimal.
        data: String as Text,
        /// What its data say, where they describe themselves: `count=3 file="a.txt"`.
        text: Option<String> as Text,
    }
    /// A trace provider that is traced wrote a message (WPP).
    TraceMessage = "trace-message" {
        /// The GUID of the messages' format.
        guid: String as Text,
        /// The message's number among those.
        number: u32 as Number,
        /// What is put into its text, in hexadecimal, with blanks between the arguments; one that has no bytes is `-`.
        arguments: String as Text,
    }
    /// A driver wrote an entry for the system's error log.
    ErrorLog = "error-log" {
        /// The driver or device it is about.
        source: String as Text,
        /// `ErrorCode`, an NTSTATUS of the driver's message file or the system's.
        code: u32 as Hex,
        /// `UniqueErrorValue`: where in the driver.
        unique: u32 as Hex,
        /// `FinalStatus`.
        status: u32 as Hex,
    }
    /// There is a new thread.
    Thread = "thread" {
        /// Its strand.
        thread: StrandId as Number,
        /// What it is called.
        name: String as Text,
    }
    /// A thread gave its processor to another.
    Switch = "switch" {
        /// From this strand.
        from: StrandId as Number,
        /// To this one.
        to: StrandId as Number,
    }
    /// A thread began to wait.
    Wait = "wait" {
        /// The first object.
        object: u64 as Hex,
        /// How many.
        count: u32 as Number,
    }
    /// A wait ended.
    Woken = "woken" {
        /// The status of the wait.
        status: u32 as Hex,
    }
    /// A driver image was loaded, or unloaded.
    Image = "image" {
        /// Its name.
        name: String as Text,
        /// Where.
        base: u64 as Hex,
        /// False when it goes.
        loaded: bool as Flag,
    }
    /// Something about Plug and Play, in words: `start pci9052#0`.
    Pnp = "pnp" {
        /// The step.
        step: String as Text,
    }
    /// A device is started with these resources.
    Resources = "resources" {
        /// The device.
        device: String as Text,
        /// What it has, as the driver finds it in the translated list.
        resources: String as Text,
    }
    /// An exception is given to the handlers of drivers.
    Exception = "exception" {
        /// NTSTATUS.
        code: u32 as Hex,
        /// The instruction.
        address: u64 as Hex,
    }
    /// Frames were left by an exception or an unwind, and the driver goes on in one of them.
    Unwound = "unwound" {
        /// The frame.
        frame: u64 as Hex,
        /// The instruction.
        to: u64 as Code,
    }
    /// A finding.
    Finding = "finding" {
        /// The rule.
        rule: &'static str as Text,
        /// The sentence.
        message: String as Text,
    }
    /// A line of the device tree, which was asked for.
    Tree = "tree" {
        /// The line.
        line: String as Text,
    }
    /// A block of data that a driver offers by WMI, which was asked for.
    WmiBlock = "wmi-block" {
        /// Its GUID.
        guid: String as Text,
        /// The device that offers it.
        device: String as Text,
        /// The driver of the device.
        driver: String as Text,
        /// `WMIREG_FLAG_*`.
        flags: u32 as Hex,
        /// The names of its instances, each on a line, if they were registered; else the driver says them in its answers.
        names: Option<String> as Text,
        /// The name of the resource that describes its class, if the driver names one.
        mof: Option<String> as Text,
    }
    /// What came of a request to a WMI block: one for each instance that it brings, or one with its status.
    WmiAnswer = "wmi-answer" {
        /// `query`, `set`, `execute`, `enable` or `disable`.
        question: &'static str as Text,
        /// The block.
        guid: String as Text,
        /// The name of the instance.
        instance: Option<String> as Text,
        /// How the request ended.
        status: u32 as Hex,
        /// The instance's data, or a method's output: two hexadecimal digits for each byte.
        data: Option<String> as Text,
    }
    /// An event of a driver's, by WMI.
    WmiEvent = "wmi-event" {
        /// The event's block.
        guid: String as Text,
        /// The name of the instance, where the event has it.
        instance: Option<String> as Text,
        /// An application has enabled the block's events, and gets it.
        heard: bool as Flag,
        /// The data: two hexadecimal digits for each byte.
        data: String as Text,
    }
}

/// What a reader concludes from the events it has read.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// About a driver: a finding of its tier, as the kernel's own are. An error stops the machine; so does what only Driver Verifier
    /// stops for, if that is to watch for it.
    Finding(Box<Verdict>),
    /// About dirql itself, in a sentence: the machine stops, and the outcome is a fault of ours.
    Fault(String),
}

/// A reader of events. It lives outside the machine.
pub trait Reader {
    /// The kinds it wants: asked when it subscribes.
    fn wants(&self, kind: Kind) -> bool;
    /// Whether it looks at the names of the registers in [`Event::Device`]; they are left out if no reader does, because a card
    /// makes them anew for each access. Asked when it subscribes.
    fn reads_names(&self) -> bool {
        true
    }
    /// One event of a kind it wants.
    fn event(&mut self, stamp: &Stamp, event: &Event);
    /// Whether it judges: only then is it asked for [`Reader::judgement`]. Asked when it subscribes.
    fn judges(&self) -> bool {
        false
    }
    /// What it concludes from the event that it has just read. Asked behind each event it reads but [`Event::Finding`].
    ///
    /// A finding of the error tier, and a fault, stop the machine as soon as the kernel can leave what runs: at the latest where the
    /// kernel would next return to driver code, or where driver code comes to the end of its slice, which is made to come at its next
    /// instruction. What the call that emitted the event does before it returns still happens, and may emit more events. Once the
    /// machine stops, nothing more is concluded: the first judgement stands.
    fn judgement(&mut self) -> Option<Judgement> {
        None
    }
    /// What it knows by now, for the case that the machine is taken back to where it stands. Nothing, if what it read is
    /// out of its hands, or holds however the run goes on: then it reads on as if there had been one long run.
    fn save(&self) -> Option<Box<dyn Any>> {
        None
    }
    /// The machine is back where the reader gave this.
    fn restore(&mut self, saved: &dyn Any) {
        let _ = saved;
    }
}
