//! What a kernel routine works with: the context it runs in, and the kernel's state behind it.
//!
//! The state is in a `RefCell` of [`Nt`]. [`Cx::with`] borrows it for one closure, which cannot use the `Cx`: state is read, the call is
//! made, state is read again. Types do not refuse a call by the engine inside the closure; it panics when the kernel is entered again.

use std::cell::RefCell;

use abi::{Code, DriverPtr};
use engine::{BadAddress, Engine, Flow, Leave, Point, Stack, TouchKind};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::event::{Event, Kind};
use crate::mm::{accessed, special_pool};
use crate::nt::Nt;
use crate::verdict::Verdict;
use crate::{cm, etw, ex, fs, hal, io, kd, ke, ldr, mm, ob, pcw, pnp, po, ps, se, wdf, wmi};

/// All state of the kernel, by NT's prefixes.
pub struct Kernel {
    /// The machine below.
    pub engine: Engine,
    /// Registry.
    pub cm: cm::State,
    /// Executive: work items, lookaside lists.
    pub ex: ex::State,
    /// `Etw*`.
    pub(crate) etw: etw::State,
    /// The files of the machine's folder.
    pub fs: fs::State,
    /// Hardware and interrupt lines.
    pub hal: hal::State,
    /// Drivers, devices, files, IRPs.
    pub io: io::State,
    /// Text for the debugger.
    pub kd: kd::State,
    /// Processors, threads, waits, timers, DPCs, interrupts.
    pub ke: ke::State,
    /// Loaded images.
    pub ldr: ldr::State,
    /// Physical pages, pool, MDLs, mappings.
    pub mm: mm::State,
    /// Object names and handles.
    pub ob: ob::State,
    /// Performance counters that drivers provide.
    pub pcw: pcw::State,
    /// Device nodes and their resources.
    pub pnp: pnp::State,
    /// Power states.
    pub po: po::State,
    /// Processes and system threads.
    pub ps: ps::State,
    /// Tokens and security descriptors.
    pub se: se::State,
    /// Frameworks and their clients.
    pub(crate) wdf: wdf::State,
    /// Data providers and who asks them.
    pub wmi: wmi::State,
    /// A reader wants details: what has short ways that tell none takes the long one.
    pub(crate) has_details: bool,
}

/// The context of a kernel routine: which machine, on whose behalf.
pub struct Cx<'m> {
    nt: &'m Nt,
}

impl<'m> Cx<'m> {
    /// Used where driver code or the scheduler enters the kernel.
    #[inline]
    pub(crate) fn new(nt: &'m Nt) -> Self {
        Self { nt }
    }

    /// The engine, for memory and time.
    #[must_use]
    #[inline]
    pub fn engine(&self) -> Engine {
        self.nt.engine
    }

    /// Reads or changes the kernel's state. The closure cannot call a driver or block.
    #[inline]
    pub fn with<R>(&mut self, f: impl FnOnce(&mut Kernel) -> R) -> R {
        f(&mut self.nt.kernel.borrow_mut())
    }

    /// Calls a driver's routine on the stack of the current thread.
    ///
    /// # Errors
    /// [`Leave`] if the driver's frames were discarded.
    #[inline]
    pub fn call(&mut self, routine: DriverPtr<Code>, arguments: &[u64]) -> Flow<u64> {
        let stack = ke::stack_for_call(self);
        self.call_on(routine, arguments, stack)
    }

    /// Calls a driver's routine on a stack of the caller's choice (DPC and interrupt stacks).
    ///
    /// # Errors
    /// As [`Cx::call`].
    #[inline]
    pub fn call_on(&mut self, routine: DriverPtr<Code>, arguments: &[u64], stack: Stack) -> Flow<u64> {
        self.nt.check_published();
        if self.nt.engine.depth() >= self.nt.most_calls {
            return Err(ke::stack::too_deep(self, routine));
        }
        let result = self.nt.engine.call(routine.address, arguments, stack);
        // The kernel's own code after a routine has interlocked instructions, and the end of an interrupt empties the buffers too.
        if result.is_ok() {
            hal::empty_buffers(self)?;
        }
        result
    }

    /// The clock is read: see [`ke::history`].
    pub(crate) fn reads_clock(&self) {
        if self.engine().keeps_history() {
            ke::history::reads_clock(&self.nt.kernel.borrow());
        }
    }

    /// A decision that could go otherwise: one of `0..n`, 0 being the default.
    pub fn choose(&mut self, point: &'static str, n: u32) -> u32 {
        self.nt.choose(Point(point), n)
    }

    /// Gives the event to the readers that want its kind.
    #[inline]
    pub fn emit(&mut self, event: Event) {
        self.nt.emit(event);
    }

    /// As [`Cx::emit`], of an event that owns no memory; only after [`Cx::count_event`] has said that a reader wants its kind.
    #[inline]
    pub(crate) fn emit_counted(&self, event: Event) {
        self.nt.emit_counted(event);
    }

    /// As [`Cx::emit_counted`], of an event at whose moment the processor was at `level`: what it is about has changed that since.
    #[inline]
    pub(crate) fn emit_at(&self, level: u8, event: Event) {
        self.nt.emit_at(level, event);
    }

    /// A detail of this kind: its event is made only if a reader wants it. See [`Kind::is_detail`].
    #[inline]
    pub(crate) fn detail(&self, kind: Kind, event: impl FnOnce() -> Event) {
        if self.nt.wants(kind) {
            self.nt.emit_counted(event());
        }
    }

    /// The number of the event that is emitted next.
    #[must_use]
    pub fn next_event(&self) -> u64 {
        self.nt.next_event()
    }

    /// An event of this kind happens now. If true, a reader wants it, and the caller builds it and emits it; else it is
    /// only counted, so that an event's number does not depend on the readers.
    #[must_use]
    #[inline]
    pub fn count_event(&self, kind: crate::event::Kind) -> bool {
        self.nt.count_event(kind)
    }

    /// Whether a reader looks at the names of registers.
    pub(crate) fn reads_names(&self) -> bool {
        self.nt.reads_names()
    }

    /// Ends the run with a verdict. The first one stands.
    #[cold]
    pub fn stop(&mut self, verdict: Verdict) -> Leave {
        self.nt.stop(verdict)
    }

    /// As [`Cx::stop`]; but where Verifier only logs, the caller goes on as if the driver had done what it has not.
    ///
    /// # Errors
    /// [`Leave::Stop`] if it ends the run.
    #[cold]
    pub(crate) fn stop_or_log(&mut self, verdict: Verdict) -> Flow<()> {
        self.nt.stop_or_log(verdict)
    }

    /// Notes a finding that does not end the run (a leak seen at unload, an advice). A finding is reported once.
    pub fn report(&mut self, verdict: Verdict) {
        self.nt.report(verdict);
    }

    /// Notes a finding of the verifier tier, as [`Cx::report`] does; the caller goes on. With the option of
    /// Verifier's that it belongs to it is a verdict, as [`Cx::stop`].
    ///
    /// # Errors
    /// [`Leave::Stop`] if it ends the run.
    #[cold]
    pub fn verify(&mut self, verdict: Verdict) -> Flow<()> {
        self.nt.verify(verdict)
    }

    // ---- driver memory: a bad pointer is a verdict on the driver that passed it ----
    // Memory, an application's memory, device windows and the shared page are all reached alike.

    /// Reads what a driver pointed to.
    ///
    /// # Errors
    /// [`Leave::Stop`] with a verdict if the pointer is bad.
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&mut self, from: DriverPtr<T>) -> Flow<T> {
        match self.engine().read_plain(from) {
            Some(value) => Ok(value),
            None => self.read_anywhere(from),
        }
    }

    #[inline(never)]
    fn read_anywhere<T: FromBytes + IntoBytes>(&mut self, from: DriverPtr<T>) -> Flow<T> {
        if hal::access::answers(from.address) {
            let mut value = T::new_zeroed();
            hal::access::fetch(self, from.address, value.as_mut_bytes())?;
            return Ok(value);
        }
        self.sound(from.address, size_of::<T>() as u64, TouchKind::Read)?;
        self.engine().read(from).map_err(|bad| self.bad_pointer(bad))
    }

    /// As [`Cx::read`], for a structure that is large enough that moving it about costs more than reading it.
    ///
    /// # Errors
    /// As [`Cx::read`].
    #[inline]
    pub fn read_into<T: FromBytes + IntoBytes>(&mut self, from: DriverPtr<T>, into: &mut T) -> Flow<()> {
        if hal::access::answers(from.address) {
            return hal::access::fetch(self, from.address, into.as_mut_bytes());
        }
        self.sound(from.address, size_of::<T>() as u64, TouchKind::Read)?;
        let read = self.engine().read_bytes(from.address, into.as_mut_bytes());
        read.map_err(|bad| self.bad_pointer(bad))
    }

    /// Writes where a driver pointed to.
    ///
    /// # Errors
    /// As [`Cx::read`].
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&mut self, to: DriverPtr<T>, value: T) -> Flow<()> {
        if self.engine().write_plain(to, &value) { Ok(()) } else { self.write_anywhere(to, value) }
    }

    #[inline(never)]
    fn write_anywhere<T: IntoBytes + Immutable>(&mut self, to: DriverPtr<T>, value: T) -> Flow<()> {
        if hal::access::answers(to.address) {
            return hal::access::put(self, to.address, value.as_bytes());
        }
        self.sound(to.address, size_of::<T>() as u64, TouchKind::Write)?;
        self.engine().write(to, value).map_err(|bad| self.bad_pointer(bad))
    }

    /// Reads `length` bytes a driver pointed to.
    ///
    /// # Errors
    /// As [`Cx::read`]; also if `length` is over 64 MiB, which no caller means.
    pub fn read_bytes(&mut self, address: u64, length: u64) -> Flow<Vec<u8>> {
        let length = match usize::try_from(length) {
            Ok(0) => return Ok(Vec::new()), // nothing is read: a null pointer to nothing is one too
            Ok(length) if length <= 64 << 20 => length,
            _ => return Err(self.bad_pointer(BadAddress { address, write: false })),
        };
        self.with(|k| ke::budget::moved(k, length as u64));
        let mut bytes = vec![0; length];
        if hal::access::answers(address) {
            hal::access::fetch(self, address, &mut bytes)?;
            return Ok(bytes);
        }
        self.sound(address, length as u64, TouchKind::Read)?;
        self.engine().read_bytes(address, &mut bytes).map_err(|bad| self.bad_pointer(bad))?;
        Ok(bytes)
    }

    /// Writes bytes where a driver pointed to.
    ///
    /// # Errors
    /// As [`Cx::read`].
    pub fn write_bytes(&mut self, address: u64, bytes: &[u8]) -> Flow<()> {
        if hal::access::answers(address) {
            return hal::access::put(self, address, bytes);
        }
        self.sound(address, bytes.len() as u64, TouchKind::Write)?;
        self.engine().write_bytes(address, bytes).map_err(|bad| self.bad_pointer(bad))
    }

    /// In a checked machine: freed memory and what lies around a block may not be touched, by the kernel neither.
    #[inline]
    fn sound(&mut self, address: u64, bytes: u64, kind: TouchKind) -> Flow<()> {
        if self.engine().is_checked() { mm::shadow::sound(self, address, bytes, kind) } else { Ok(()) }
    }

    /// A bad pointer that the kernel was given by a driver: an exception of the driver's, if that has a handler for it
    /// and Windows would ask it; else the verdict.
    #[cold]
    pub fn bad_pointer(&mut self, bad: BadAddress) -> Leave {
        if let Some(leave) = ke::exception::bad_pointer(self, bad) {
            return leave;
        }
        let constant = if bad.write {
            mm::user::read_only_written(self, bad.address, "the kernel, for the driver,")
        } else {
            None
        };
        let special = constant
            .or_else(|| special_pool::accused(self, bad.address, bad.write, special_pool::By::Kernel));
        let irql = ke::irql::current(self);
        let instruction = self.engine().caller().map(|caller| caller.rip);
        let accessed = instruction.map(|instruction| accessed::of_nothing(self, bad.address, instruction));
        self.stop(special.unwrap_or_else(|| Verdict { accessed, ..Verdict::bad_pointer(bad, irql) }))
    }

    pub(crate) fn nt(&self) -> &'m Nt {
        self.nt
    }
}

/// The kernel's state as `Nt` holds it.
pub(crate) type Cell = RefCell<Kernel>;

impl Kernel {
    pub(crate) fn new(
        engine: Engine,
        settings: &crate::nt::Settings,
        hardware: Box<dyn hal::hardware::Hardware>,
    ) -> Self {
        Self {
            engine,
            cm: cm::State::new(settings),
            ex: ex::State::new(settings),
            etw: etw::State::new(settings),
            wdf: wdf::State::default(),
            wmi: wmi::State::default(),
            pcw: pcw::State::default(),
            fs: fs::State::new(settings),
            hal: hal::State::new(hardware, settings.platform),
            io: io::State::new(settings),
            kd: kd::State::new(settings),
            ke: ke::State::new(engine, settings),
            ldr: ldr::State::new(settings),
            mm: mm::State::new(settings),
            ob: ob::State::new(settings),
            pnp: pnp::State::default(),
            po: po::State::new(settings),
            ps: ps::State::new(settings),
            se: se::State::default(),
            has_details: false,
        }
    }
}
