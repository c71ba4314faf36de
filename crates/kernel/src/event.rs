//! Everything observable, emitted once, where it happens. Rules, traces and statistics are readers; the kernel knows
//! none of them.

use std::any::Any;

use engine::StrandId;

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

macro_rules! events {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        /// Something that happened.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Event {
            $($(#[$meta])* $name { $($(#[$fmeta])* $field: $type),* },)*
        }

        /// What kind of event; one bit each in a reader's subscription.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$meta])* $name,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            /// Whether such an event owns memory.
            #[must_use]
            #[inline]
            pub(crate) const fn owns(self) -> bool {
                match self {
                    $(Kind::$name => false $(|| std::mem::needs_drop::<$type>())*,)*
                }
            }
        }

        impl Event {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Event::$name { .. } => Kind::$name,)*
                }
            }
        }
    };
}

events! {
    /// A driver called an export.
    Call {
        /// Row of the export table.
        export: u32,
        /// The first four arguments.
        arguments: [u64; 4],
        /// The return address.
        caller: u64,
    }
    /// An export returned to the driver.
    Return {
        /// Row of the export table.
        export: u32,
        /// `rax`.
        value: u64,
    }
    /// The kernel calls a routine of a driver.
    Enter {
        /// What kind of routine: `DriverEntry`, `DispatchWrite`, `StartIo`, `Isr`, `DpcForIsr`, …
        role: &'static str,
        /// Its address.
        routine: u64,
        /// The object it is called for: device, IRP, DPC, interrupt; 0 if none.
        object: u64,
    }
    /// A routine of a driver came back.
    Leave {
        /// As in `Enter`.
        role: &'static str,
        /// As in `Enter`.
        routine: u64,
        /// `rax`.
        value: u64,
    }
    /// A driver accessed a device register or port.
    Device {
        /// `in`/`out` if true, else memory.
        port: bool,
        /// Bus address or port.
        address: u64,
        /// Bytes.
        bytes: u8,
        /// A write if true.
        write: bool,
        /// The value that was read or written.
        value: u64,
        /// The device and register, where the device can name it.
        what: Option<String>,
    }
    /// An interrupt line changed its level.
    Line {
        /// The line.
        line: u32,
        /// Asserted if true.
        asserted: bool,
    }
    /// A message-signaled interrupt arrived.
    Message {
        /// The vector it brings.
        vector: u32,
        /// The address that was written to.
        address: u64,
        /// What was written.
        data: u32,
        /// Somebody is connected to the vector; else it is lost.
        connected: bool,
    }
    /// A bus master has moved data.
    Transfer {
        /// The function.
        device: String,
        /// The first physical address.
        address: u64,
        /// How many bytes.
        bytes: u64,
        /// To memory if true, else from memory.
        write: bool,
    }
    /// An interrupt service routine was connected to a vector, or disconnected: it does not run and will not.
    Connection {
        /// The KINTERRUPT.
        object: u64,
        /// The vector.
        vector: u32,
        /// The level the routine runs at.
        irql: u8,
        /// Connected if true.
        made: bool,
    }
    /// An interrupt service routine answered.
    Interrupt {
        /// The line or vector.
        vector: u32,
        /// The KINTERRUPT.
        object: u64,
        /// It returned TRUE.
        claimed: bool,
    }
    /// A DPC was queued (or was queued already).
    DpcQueued {
        /// The KDPC.
        dpc: u64,
        /// False if it was in a queue already.
        inserted: bool,
    }
    /// A DPC was taken out of its queue again: it does not run.
    DpcRemoved {
        /// The KDPC.
        dpc: u64,
    }
    /// The IRQL of the processor changed.
    Irql {
        /// Before.
        from: u8,
        /// After.
        to: u8,
    }
    /// An IRP was sent to a driver.
    IrpSent {
        /// The IRP.
        irp: u64,
        /// The device object.
        device: u64,
        /// Major function.
        major: u8,
        /// Minor function.
        minor: u8,
    }
    /// `IoCompleteRequest`.
    IrpCompleted {
        /// The IRP.
        irp: u64,
        /// Its final status.
        status: u32,
        /// `IoStatus.Information`.
        information: u64,
    }
    /// An application's request begins (`WriteFile`, …).
    Request {
        /// The function as the application knows it.
        name: &'static str,
        /// What it was called with, for people.
        detail: String,
    }
    /// An application's request is over.
    Answer {
        /// As in `Request`.
        name: &'static str,
        /// NTSTATUS.
        status: u32,
        /// Bytes transferred.
        information: u64,
    }
    /// Memory was allocated.
    Allocated {
        /// Where.
        address: u64,
        /// Bytes.
        bytes: u64,
        /// Pool tag.
        tag: u32,
        /// Paged pool if true.
        paged: bool,
    }
    /// Memory was freed.
    Freed {
        /// Where.
        address: u64,
    }
    /// A line of `DbgPrint` text (without its newline).
    Print {
        /// The text.
        text: String,
    }
    /// A driver wrote an entry for the system's error log.
    ErrorLog {
        /// The driver or device it is about.
        source: String,
        /// `ErrorCode`, an NTSTATUS of the driver's message file or the system's.
        code: u32,
        /// `UniqueErrorValue`: where in the driver.
        unique: u32,
        /// `FinalStatus`.
        status: u32,
    }
    /// A thread gave its processor to another.
    Switch {
        /// From this strand.
        from: StrandId,
        /// To this one.
        to: StrandId,
    }
    /// A thread began to wait.
    Wait {
        /// The first object.
        object: u64,
        /// How many.
        count: u32,
    }
    /// A wait ended.
    Woken {
        /// The status of the wait.
        status: u32,
    }
    /// A driver image was loaded, or unloaded.
    Image {
        /// Its name.
        name: String,
        /// Where.
        base: u64,
        /// False when it goes.
        loaded: bool,
    }
    /// Something about Plug and Play, in words: `start pci9052#0`.
    Pnp {
        /// The step.
        step: String,
    }
    /// An exception is given to the handlers of drivers.
    Exception {
        /// NTSTATUS.
        code: u32,
        /// The instruction.
        address: u64,
    }
    /// Frames were left by an exception or an unwind, and the driver goes on in one of them.
    Unwound {
        /// The frame.
        frame: u64,
        /// The instruction.
        to: u64,
    }
    /// A finding.
    Finding {
        /// The rule.
        rule: &'static str,
        /// The sentence.
        message: String,
    }
}

/// A reader of events. It lives outside the machine.
pub trait Reader {
    /// The kinds it wants: asked when it subscribes.
    fn wants(&self, kind: Kind) -> bool;
    /// One event of a kind it wants.
    fn event(&mut self, stamp: &Stamp, event: &Event);
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
