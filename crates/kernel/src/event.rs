//! Everything observable, emitted once, where it happens. Rules, traces and statistics are readers; the kernel names
//! none of them.

mod declaration;
mod lock;
mod role;

use std::any::Any;

pub use engine::AccessKind;
use engine::{MemoryAccess, StrandId};

pub use declaration::{Declared, Form, Value, Words};
use declaration::{Field, events};
pub use lock::LockKind;
pub use role::{Class, Role};

use crate::verdict::Verdict;

/// When and where an event happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Counts the machine's events from 0, whether a reader wants them or not. A change of IRQL is not counted: it has the number
    /// of the event after it.
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
        /// The export's row in the export table.
        export: u32 as Export,
        /// The first four arguments.
        arguments: [u64; 4] as Words,
        /// The return address.
        caller: u64 as Code,
    }
    /// A client of a driver framework called one of its functions, by its function table.
    Ddi = "ddi" {
        /// The function's row, behind those of the export table.
        export: u32 as Export,
        /// The first four arguments: the client's globals, and as a rule a handle.
        arguments: [u64; 4] as Words,
        /// The return address.
        caller: u64 as Code,
    }
    /// An export returned to the driver.
    Return = "return" {
        /// The export's row in the export table.
        export: u32 as Export,
        /// The return value (`rax`).
        value: u64 as Hex,
    }
    /// The kernel calls a driver's routine.
    Enter = "enter" {
        /// The routine's role: `DriverEntry`, `DispatchWrite`, `StartIo`, `Isr`, `DpcForIsr`, …
        role: Role as Text,
        /// The routine's address.
        routine: u64 as Code,
        /// The object it is called for (device, IRP, DPC, interrupt); 0 if none.
        object: u64 as Hex,
    }
    /// A driver's routine returned.
    Leave = "leave" {
        /// As in `Enter`.
        role: Role as Text,
        /// As in `Enter`.
        routine: u64 as Code,
        /// The return value (`rax`).
        value: u64 as Hex,
    }
    /// A driver accessed a device register or port.
    Device = "device" {
        /// True for a port (`in`, `out`), false for device memory.
        port: bool as Flag,
        /// Bus address or port number.
        address: u64 as Hex,
        /// Width of the access in bytes.
        bytes: u8 as Number,
        /// True for a write.
        write: bool as Flag,
        /// The value that was read or written.
        value: u64 as Hex,
        /// The device and register, if the device names them.
        register: Option<String> as Text,
    }
    /// Driver code stored to write-combined device memory. The processor keeps the bytes; those that reach the device are `Device` events, when
    /// they do.
    Combined = "combined" {
        /// Bus address.
        address: u64 as Hex,
        /// Width of the store in bytes.
        bytes: u8 as Number,
        /// The value that was stored.
        value: u64 as Hex,
    }
    /// An interrupt line changed its level.
    Line = "line" {
        /// The line's number.
        line: u32 as Number,
        /// True if it was asserted.
        asserted: bool as Flag,
    }
    /// A message-signaled interrupt arrived.
    Message = "message" {
        /// The vector it requests.
        vector: u32 as Number,
        /// The address that was written to.
        address: u64 as Hex,
        /// The data that was written.
        data: u32 as Hex,
        /// A routine is connected to the vector; else the message is lost.
        connected: bool as Flag,
    }
    /// A bus master moved data.
    Transfer = "transfer" {
        /// The PCI function.
        device: String as Text,
        /// The first physical address.
        address: u64 as Hex,
        /// Number of bytes.
        bytes: u64 as Number,
        /// True if to memory, false if from memory.
        write: bool as Flag,
    }
    /// An interrupt service routine was connected to a vector, or disconnected: then it does not run any more.
    Connection = "connection" {
        /// The KINTERRUPT.
        object: u64 as Hex,
        /// The vector.
        vector: u32 as Number,
        /// The IRQL the routine runs at.
        level: u8 as Number,
        /// True if connected, false if disconnected.
        made: bool as Flag,
    }
    /// An interrupt service routine returned.
    Interrupt = "interrupt" {
        /// The line or vector.
        vector: u32 as Number,
        /// The KINTERRUPT.
        object: u64 as Hex,
        /// The routine returned TRUE.
        claimed: bool as Flag,
    }
    /// A driver inserted a DPC into a queue.
    DpcQueued = "dpc-queued" {
        /// The KDPC.
        dpc: u64 as Hex,
        /// False if it was queued already.
        inserted: bool as Flag,
    }
    /// A DPC was removed from its queue before it ran.
    DpcRemoved = "dpc-removed" {
        /// The KDPC.
        dpc: u64 as Hex,
    }
    /// The IRQL of the processor changed.
    Irql = "irql" {
        /// The IRQL before.
        from: u8 as Number,
        /// The IRQL after.
        to: u8 as Number,
    }
    /// An IRP was sent to a driver.
    IrpSent = "irp-sent" {
        /// The IRP.
        irp: u64 as Hex,
        /// The number of the event with which the IRP was first sent. An IRP's address may be used again, this number is not.
        id: u64 as Number,
        /// The number of the application's request that it carries; none if a driver or the system sends it.
        request: Option<u64> as Number,
        /// The device object.
        device: u64 as Hex,
        /// Major function code.
        major: u8 as Number,
        /// Minor function code.
        minor: u8 as Number,
    }
    /// `IoCompleteRequest` was called for an IRP.
    IrpCompleted = "irp-completed" {
        /// The IRP.
        irp: u64 as Hex,
        /// As in `irp-sent`; none if the IRP was never sent.
        id: Option<u64> as Number,
        /// Its final status.
        status: u32 as Hex,
        /// `IoStatus.Information`.
        information: u64 as Number,
    }
    /// An application's request begins (`WriteFile`, …). Later events name the request by this event's number.
    Request = "request" {
        /// The function that the application calls.
        name: &'static str as Text,
        /// What it is about: the path of a file, or a handle's number.
        file: String as Text,
        /// The control code.
        code: Option<u32> as Hex,
        /// The class of information.
        class: Option<u32> as Number,
        /// Where in the file it begins, if that is said; negative numbers have a meaning of their own.
        offset: Option<u64> as Hex,
        /// Bytes that it gives to the driver.
        input: Option<u32> as Number,
        /// Bytes that the driver may give to it.
        output: Option<u32> as Number,
        /// How many completion packets it takes at most.
        packets: Option<u32> as Number,
    }
    /// An application's request is over, or (`STATUS_PENDING`) under way: then another `answer` follows at its end.
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
        /// The block's address.
        address: u64 as Hex,
        /// Its size in bytes.
        bytes: u64 as Number,
        /// Pool tag.
        tag: u32 as Tag,
        /// Paged pool if true.
        paged: bool as Flag,
    }
    /// Memory was freed.
    Freed = "freed" {
        /// The block's address.
        address: u64 as Hex,
    }
    /// A line of `DbgPrint` text (without its newline).
    Print = "print" {
        /// The text.
        text: String as Text,
    }
    /// A traced provider wrote an event.
    Traced = "traced" {
        /// The provider's GUID; for a classic event, the event's own.
        provider: String as Text,
        /// The names of provider and event, if they have any.
        name: Option<String> as Text,
        /// The event's number.
        id: u32 as Number,
        /// Its version.
        version: u8 as Number,
        /// Its level: 1 is critical, 5 verbose.
        level: u8 as Number,
        /// What the event marks in an activity: 1 its start, 2 its stop.
        opcode: u8 as Number,
        /// The task that it belongs to.
        task: u32 as Number,
        /// Its keywords.
        keyword: u64 as Hex,
        /// The activity that it belongs to, if there is one.
        activity: Option<String> as Text,
        /// The activity that this activity comes from.
        related: Option<String> as Text,
        /// Its data, in hexadecimal.
        data: String as Text,
        /// The data in words, if the event describes its data: `count=3 file="a.txt"`.
        text: Option<String> as Text,
    }
    /// A driver wrote a WPP message: to a session that traces it, or to a log of its recorder.
    TraceMessage = "trace-message" {
        /// The GUID of the message's format.
        guid: String as Text,
        /// The message's number within that format.
        number: u32 as Number,
        /// The arguments, in hexadecimal, separated by blanks; an empty one is `-`.
        arguments: String as Text,
    }
    /// A driver wrote an entry to the system's error log.
    ErrorLog = "error-log" {
        /// The driver or device that the entry is about.
        source: String as Text,
        /// `ErrorCode`, an NTSTATUS of the driver's message file or the system's.
        code: u32 as Hex,
        /// `UniqueErrorValue`: names the place in the driver.
        unique: u32 as Hex,
        /// `FinalStatus`.
        status: u32 as Hex,
    }
    /// A thread was created.
    Thread = "thread" {
        /// Its strand.
        thread: StrandId as Number,
        /// Its name.
        name: String as Text,
    }
    /// A thread gave its processor to another.
    Switch = "switch" {
        /// The strand that ran before.
        from: StrandId as Number,
        /// The strand that runs now.
        to: StrandId as Number,
    }
    /// A thread began to wait.
    Wait = "wait" {
        /// The first object it waits for.
        object: u64 as Hex,
        /// How many objects it waits for.
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
        /// Its base address.
        base: u64 as Hex,
        /// False when it is unloaded.
        loaded: bool as Flag,
    }
    /// A step of Plug and Play or of power: `start` of `pci9052#0`.
    Pnp = "pnp" {
        /// The step.
        step: &'static str as Text,
        /// Of what: a device, a state of the system, a power setting, or what keeps the system awake.
        of: String as Text,
        /// The device whose turn is over first.
        after: Option<String> as Text,
        /// The setting's value.
        value: Option<u32> as Number,
    }
    /// A device is started with these resources.
    Resources = "resources" {
        /// The device.
        device: String as Text,
        /// Its resources, as in the translated list that the driver gets.
        resources: String as Text,
    }
    /// An exception is dispatched to the handlers of drivers.
    Exception = "exception" {
        /// NTSTATUS.
        code: u32 as Hex,
        /// The address of the instruction.
        address: u64 as Hex,
    }
    /// An exception or an unwind left frames, and the driver goes on in one of those that remain.
    Unwound = "unwound" {
        /// The frame it goes on in.
        frame: u64 as Hex,
        /// The instruction it goes on at.
        to: u64 as Code,
    }
    /// A finding that does not end the run.
    Finding = "finding" {
        /// The rule.
        rule: &'static str as Text,
        /// The finding's sentence.
        message: String as Text,
    }
    /// A line of the device tree, which the script asked for.
    Tree = "tree" {
        /// The text of the line.
        line: String as Text,
    }
    /// A data block that a driver offers by WMI, which the script asked for.
    WmiBlock = "wmi-block" {
        /// Its GUID.
        guid: String as Text,
        /// The device that offers it.
        device: String as Text,
        /// The driver of the device.
        driver: String as Text,
        /// `WMIREG_FLAG_*`.
        flags: u32 as Hex,
        /// The names of its instances, one a line, if they were registered; else the driver's answers have them.
        names: Option<String> as Text,
        /// The name of the resource that describes the block's class, if the driver names one.
        mof: Option<String> as Text,
    }
    /// The result of a request to a WMI block: one event for each instance it returns, or one with the status.
    WmiAnswer = "wmi-answer" {
        /// `query`, `set`, `execute`, `enable` or `disable`.
        question: &'static str as Text,
        /// The block's GUID.
        guid: String as Text,
        /// The name of the instance.
        instance: Option<String> as Text,
        /// The NTSTATUS of the request.
        status: u32 as Hex,
        /// The instance's data, or a method's output: two hexadecimal digits for each byte.
        data: Option<String> as Text,
    }
    /// A driver fired a WMI event.
    WmiEvent = "wmi-event" {
        /// The event block's GUID.
        guid: String as Text,
        /// The name of the instance, if the event has it.
        instance: Option<String> as Text,
        /// An application has enabled the block's events, and receives this one.
        heard: bool as Flag,
        /// The data: two hexadecimal digits for each byte.
        data: String as Text,
    }
    /// A lock was acquired.
    LockAcquired = "lock-acquired" detail {
        /// Its address.
        lock: u64 as Hex,
        /// What it is: `spin lock` (queued ones, the cancel spin lock and those of interrupts too), `shared spin lock`, `exclusive spin lock`,
        /// `fast mutex` (guarded ones too), `mutex`, `push lock`, `shared push lock`, `resource`, `shared resource`, `passive interrupt` (the event that
        /// keeps routines of an interrupt at PASSIVE_LEVEL apart). Of a mutex that its owner acquires once more there is no event.
        kind: LockKind as Text,
    }
    /// A lock was given back, or is held another way from now on.
    LockReleased = "lock-released" detail {
        /// Its address.
        lock: u64 as Hex,
        /// As it was acquired; of a resource, `resource` in any case.
        kind: LockKind as Text,
    }
    /// A reference was acquired that keeps an object from being removed, and that any thread may release: no lock.
    ProtectionAcquired = "protection-acquired" detail {
        /// The `IO_REMOVE_LOCK` or `EX_RUNDOWN_REF`.
        protection: u64 as Hex,
        /// `remove lock` or `run-down protection`.
        kind: &'static str as Text,
        /// The tag, of a remove lock.
        tag: Option<u64> as Hex,
        /// How many at once.
        count: u32 as Number,
    }
    /// Such a reference was released. `IoReleaseRemoveLockAndWait` releases one before it waits.
    ProtectionReleased = "protection-released" detail {
        /// As in `protection-acquired`.
        protection: u64 as Hex,
        /// As in `protection-acquired`.
        kind: &'static str as Text,
        /// As in `protection-acquired`.
        tag: Option<u64> as Hex,
        /// As in `protection-acquired`.
        count: u32 as Number,
    }
    /// A thread knows that all such references are released, and that none can be acquired any more: it has waited for that.
    ProtectionEnded = "protection-ended" detail {
        /// As in `protection-acquired`.
        protection: u64 as Hex,
        /// As in `protection-acquired`.
        kind: &'static str as Text,
    }
    /// A dispatcher object was signalled, or given a count: by the call that the thread is in, by a timer that fired, by the end of a
    /// thread or process, or by the end of a request (the requester's event, the file's, the queue that is a completion port).
    Signalled = "signalled" detail {
        /// The object.
        object: u64 as Hex,
        /// `Type` of its DISPATCHER_HEADER.
        kind: u8 as Number,
        /// Its state before.
        before: u32 as Number,
    }
    /// A wait of the thread's is over because this object was signalled: at once, or behind `woken`. A wait for all has one such event for each
    /// object; a queue is an object from which the thread has taken an entry.
    WaitSatisfied = "wait-satisfied" detail {
        /// The object, which may be gone by now.
        object: u64 as Hex,
    }
    /// A timer was set.
    TimerSet = "timer-set" detail {
        /// The KTIMER.
        timer: u64 as Hex,
        /// When it is due, in 100 ns of interrupt time.
        due: u64 as Number,
        /// Its period in 100 ns; 0 if it fires once.
        period: u64 as Number,
    }
    /// A timer fired.
    TimerFired = "timer-fired" detail {
        /// The KTIMER.
        timer: u64 as Hex,
    }
    /// A timer that was set was cancelled.
    TimerCancelled = "timer-cancelled" detail {
        /// The KTIMER.
        timer: u64 as Hex,
    }
    /// An APC was queued for a thread: the end of a request that it has made. One that is delivered where it ends, in its own thread, needs no
    /// APC.
    ApcQueued = "apc-queued" detail {
        /// What the APC is about: the IRP, whose memory may be another's before the APC runs.
        object: u64 as Hex,
        /// The strand of the thread that is to carry it out. Each carries out its own in the order in which they were queued.
        thread: StrandId as Number,
    }
    /// A store of driver code is still in its processor's buffer when another processor has its turn, which does not see it (`--platform late-stores`).
    StoreKept = "store-kept" detail {
        /// The address.
        address: u64 as Hex,
        /// How many bytes.
        bytes: u64 as Number,
        /// The instruction that stored them.
        code: u64 as Code,
    }
    /// A thread carries out an APC: the end of a request that it has made.
    ApcRun = "apc-run" detail {
        /// What the APC is about: the IRP.
        object: u64 as Hex,
    }
    /// A work item was queued.
    WorkQueued = "work-queued" detail {
        /// The `IO_WORKITEM` or `WORK_QUEUE_ITEM`.
        item: u64 as Hex,
        /// The routine.
        routine: u64 as Code,
    }
    /// A worker thread takes a work item: the driver may queue or free it from now on.
    WorkRun = "work-run" detail {
        /// The item.
        item: u64 as Hex,
    }
    /// A thread has ended.
    ThreadEnded = "thread-ended" detail {
        /// Its strand.
        thread: StrandId as Number,
    }
    /// An IRP was allocated.
    IrpAllocated = "irp-allocated" detail {
        /// The IRP.
        irp: u64 as Hex,
        /// Its stack locations.
        locations: u8 as Number,
    }
    /// An IRP was freed, or (`IoInitializeIrp`) is none any more.
    IrpFreed = "irp-freed" detail {
        /// The IRP.
        irp: u64 as Hex,
    }
    /// A driver has answered an IRP with `STATUS_PENDING`.
    IrpPending = "irp-pending" detail {
        /// The IRP, which may be complete and gone.
        irp: u64 as Hex,
        /// The device object.
        device: u64 as Hex,
    }
    /// An IRP was cancelled.
    IrpCancelled = "irp-cancelled" detail {
        /// The IRP.
        irp: u64 as Hex,
        /// The Cancel routine that is called for it; 0 if none is set.
        routine: u64 as Code,
    }
    /// What the kernel found in an IRP where it had to look. Macros that are inlined into drivers (`IoMarkIrpPending`, `IoSetCancelRoutine`,
    /// `IoSetCompletionRoutine`, `IoSkipCurrentIrpStackLocation`, …) store into it without an event: this is what they had left there by now, not
    /// when.
    IrpFound = "irp-found" detail {
        /// The IRP.
        irp: u64 as Hex,
        /// Where it looked: `sent` (behind `irp-sent`), `returned` (from the dispatch routine of a driver that has not completed it), `started`
        /// (`IoStartPacket`), `queued` (a cancel-safe queue), `cancelled` (behind `irp-cancelled`), `left` (each stack location that a completion leaves).
        place: &'static str as Text,
        /// The number of the stack location: the receiver's where it was sent, and until it has returned. A driver that sends it on with the number
        /// that it got has skipped its own.
        location: u8 as Number,
        /// `Control` of that location: `SL_PENDING_RETURNED` (1), and when the completion routine is to be called (0x20, 0x40, 0x80).
        control: u8 as Hex,
        /// The completion routine there, which the driver above has set; 0 if there is none.
        completion: u64 as Code,
        /// The IRP's Cancel routine, 0 if there is none.
        cancel: u64 as Code,
    }
    /// An MDL was built for nonpaged pool, or as part of another.
    MdlBuilt = "mdl-built" detail {
        /// The MDL.
        mdl: u64 as Hex,
        /// The MDL that it is a part of (`IoBuildPartialMdl`).
        source: Option<u64> as Hex,
    }
    /// The pages of an MDL were locked, or allocated for it.
    MdlLocked = "mdl-locked" detail {
        /// The MDL.
        mdl: u64 as Hex,
        /// How many.
        pages: u64 as Number,
        /// They were allocated (`MmAllocatePagesForMdl`).
        allocated: bool as Flag,
    }
    /// An MDL begins later from now on (`MmAdvanceMdl`): the pages that it has passed are neither locked nor mapped any more.
    MdlAdvanced = "mdl-advanced" detail {
        /// The MDL.
        mdl: u64 as Hex,
        /// By how many bytes.
        bytes: u32 as Number,
        /// By how many pages.
        pages: u64 as Number,
    }
    /// The pages of an MDL were unlocked, and freed if they were allocated for it.
    MdlUnlocked = "mdl-unlocked" detail {
        /// The MDL.
        mdl: u64 as Hex,
    }
    /// The pages of an MDL were mapped.
    MdlMapped = "mdl-mapped" detail {
        /// The MDL.
        mdl: u64 as Hex,
        /// Where.
        address: u64 as Hex,
    }
    /// A mapping of an MDL's pages was taken away.
    MdlUnmapped = "mdl-unmapped" detail {
        /// The MDL.
        mdl: u64 as Hex,
        /// Its first page.
        address: u64 as Hex,
    }
    /// An instruction of a driver is about to load or store memory, or a routine that the driver has called has done so for it. There are so many
    /// that `all` leaves them out: they are asked for by their name. An instruction with several operands makes an event for each, loads first; a
    /// repeated string instruction makes one for all bytes on each side; a gather or a masked store makes one for each element that its mask
    /// names. An instruction that faults by its memory makes none, a repeated one those of what it does before.
    /// Not here: what the stack pointer alone addresses, and whatever else lies on the stack of what runs; what lies behind `gs`; device memory and
    /// `KUSER_SHARED_DATA` (see `device`); the fetching of instructions; what a bus master moves (see `transfer`).
    /// Of routines those are here that move, fill, compare and search bytes and text (`RtlCopyMemory`, `RtlFillMemory`, `RtlCompareMemory`, `memcpy`,
    /// `strlen`, `wcscpy` and their like, each operand once for each piece that it looks at) and `ExpInterlockedPushEntrySList`,
    /// `ExpInterlockedPopEntrySList` and `ExpInterlockedFlushSList`. What other routines read and write is left out: among them
    /// `ExInterlockedInsertHeadList` and the others with a lock of the caller's, `ProbeForRead` and `ProbeForWrite`, `MmCopyMemory`, `Zw` routines,
    /// structures of the kernel's and of the caller's (`UNICODE_STRING`, `LIST_ENTRY`, IRPs, MDLs, locks), and copies of an application's buffers.
    Access = "access" detail {
        /// The lowest byte.
        address: u64 as Hex,
        /// How many bytes.
        bytes: u64 as Number,
        /// `load`, `store`, or `update`: a load and then a store.
        kind: AccessKind as Text,
        /// No other processor comes between the load and the store: `lock`, and `xchg` with memory.
        atomic: bool as Flag,
        /// A routine that the driver has called has done it.
        kernel: bool as Flag,
        /// The instruction; of a routine's access, where the routine returns to.
        code: u64 as Code,
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

/// An access to a register of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterUse {
    /// True for a port.
    pub port: bool,
    /// Bus address or port number.
    pub address: u64,
    /// True for a write.
    pub write: bool,
    /// The value that was read or written.
    pub value: u64,
    /// Of a write: the bits that are, by the driver's instructions, those that the same flow of control has read there before, and that the register
    /// keeps as they are written.
    pub keeps: u64,
    /// The address of the instruction.
    pub code: u64,
}

/// A reader of events. It lives outside the machine.
pub trait Reader {
    /// The kinds it wants: asked when it subscribes.
    fn wants(&self, kind: Kind) -> bool;
    /// The details it wants, of the kinds for which [`Kind::is_detail`] holds; it gets none otherwise, whatever [`Reader::wants`] says. Where a
    /// reader wants any, the kernel takes its long ways, which tell them: events, time and memory are the same, and the run is slower.
    /// Asked when it subscribes.
    fn wants_detail(&self, kind: Kind) -> bool {
        let _ = kind;
        false
    }
    /// Whether it reads what driver code, and what routines that it calls, do to memory ([`Reader::accessed`]): each access, as events of the kind
    /// `access` have it. Asked when it subscribes.
    fn reads_accesses(&self) -> bool {
        false
    }
    /// It is subscribed, in a machine of so many processors.
    fn begins(&mut self, processors: u32) {
        let _ = processors;
    }
    /// Driver code has made these accesses, in this order, since the last event or call of this kind, or is about to make the one of them; or a routine
    /// that it has called has done so: see [`Event::Access`]. All were made where the stamp says; its time may be later than theirs. Where the reader judges,
    /// it is asked for [`Reader::judgement`] behind that or behind the next event that it reads.
    fn accessed(&mut self, stamp: &Stamp, accesses: &[MemoryAccess], by_routine: bool) {
        let _ = (stamp, accesses, by_routine);
    }
    /// Driver code has read or written a register of a device; the event of that comes next. For one that reads accesses.
    fn register(&mut self, stamp: &Stamp, made: &RegisterUse) {
        let _ = (stamp, made);
    }
    /// What was at these bytes of driver memory is gone, and something else comes to lie there. For one that reads accesses.
    fn fresh(&mut self, address: u64, bytes: u64) {
        let _ = (address, bytes);
    }
    /// Whether it looks at the names of the registers in [`Event::Device`]; they are left out if no reader does, because a card
    /// makes them anew for each access. Asked when it subscribes.
    fn reads_names(&self) -> bool {
        true
    }
    /// Whether it follows what clients of a driver framework do, and nothing else: a machine without one does without it.
    fn is_of_framework(&self) -> bool {
        false
    }
    /// One event of a kind it wants.
    fn event(&mut self, stamp: &Stamp, event: &Event);
    /// Whether it judges: only then is it asked for [`Reader::judgement`]. Asked when it subscribes.
    fn judges(&self) -> bool {
        false
    }
    /// As [`Reader::event`]; and whether it may conclude something from it. What judges each event and has seldom something to say answers this itself, which
    /// saves the kernel the question.
    fn event_shows(&mut self, stamp: &Stamp, event: &Event) -> bool {
        self.event(stamp, event);
        self.judges()
    }
    /// What it concludes from the event that it has just read. Asked behind each event it reads but [`Event::Finding`], if the event may have shown it something.
    ///
    /// A finding of the error tier, and a fault, stop the machine as soon as the kernel can leave what runs: at the latest where the
    /// kernel would next return to driver code, or where driver code comes to the end of its slice, which is made to come at its next
    /// instruction. What the call that emitted the event does before it returns still happens, and may emit more events. Once the
    /// machine stops, nothing more is concluded: the first judgement stands.
    fn judgement(&mut self) -> Option<Judgement> {
        None
    }
    /// What it concludes from the whole run, of one that judges: asked once, when handles are closed, devices removed and drivers unloaded.
    /// Not asked where the machine has stopped before: the first judgement stands.
    fn conclusions(&mut self) -> Vec<Judgement> {
        Vec::new()
    }
    /// A copy of the reader's state, for a machine that is taken back to this point. None if the state has left the process (a file),
    /// or holds however the run goes on: then the reader reads on as if there had been one long run.
    fn save(&self) -> Option<Box<dyn Any>> {
        None
    }
    /// The machine is back at the point at which [`Reader::save`] returned this.
    fn restore(&mut self, saved: &dyn Any) {
        let _ = saved;
    }
}
