//! A live machine: its threads are run from here, one request at a time or a whole script.
//!
//! The host's side calls in and waits; what it asks for runs on threads inside. There is one machine a process.

mod boot;
mod boots;
mod counters;
mod end;
mod explore;
mod handle;
mod memory;
mod offered;
mod plan;
mod pnp;
mod port;
mod preset;
mod processes;
mod properties;
mod registry;
mod request;
pub(crate) mod sequences;
pub(crate) mod transfer;
mod wmi;
mod worker;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::{Flow, Host, outside};
use kernel::fs::Folder;
use kernel::ke::scheduler::{self, End};
use kernel::ke::{stuck, thread, wait};
use kernel::mm::pool_check;
use kernel::{Cx, Nt};
use kernel::{ob, po};

use crate::bench::{Bench, Inputs, Saved};
use crate::error::Error;
use crate::play::{Play, Stage};
use crate::readers::{Coverage, PrintLog, Summary, SymbolBook, TraceHash};
use crate::reg;
use crate::report::{Dismissal, Failure, Report};

pub use boots::Boots;
pub(crate) use boots::Tempo;
pub use explore::{Exploration, Mark, put};
pub use handle::Handle;
pub use port::{CompletionPort, Packet};
pub use processes::{Process, User};
pub use request::Request;
pub use transfer::Completion;

pub(crate) use end::have_devices_serve_again;
pub(crate) use plan::Plan;
pub(crate) use pnp::{Device, Step, step};
pub(crate) use worker::new_event;

/// Virtual time a machine without a script is left alone, once its devices are started: 100 ms.
const IDLE: u64 = 100_000_000;

/// A machine that runs a driver.
pub struct Machine {
    /// On the machine's heap, and dropped there.
    nt: Option<Box<Nt>>,
    /// The application's process: the first, or the one within which something is asked for.
    process: Cell<u64>,
    /// The others.
    processes: RefCell<Vec<u64>>,
    /// What is loaded and installed, in order.
    loaded: RefCell<boot::Loaded>,
    /// Handles on which several requests can be under way: what is left of these is cancelled at the end.
    overlapped: RefCell<Vec<ob::Handle>>,
    readers: Readers,
    notes: RefCell<Vec<String>>,
    failure: RefCell<Option<Failure>>,
    /// A thread of the application's waits in something that was asked for and given up.
    stuck: Cell<bool>,
    /// Sums and hashes are wanted.
    observed: bool,
    /// What does not count.
    dismissals: Vec<Dismissal>,
    /// What is loaded and installed: the machine looks up there who drives what its drivers report, so it goes first.
    work: RefCell<Option<Rc<boot::Work>>>,
    /// Where what is to be kept goes at the end.
    saved: RefCell<Saved>,
    /// The last to go: whatever else is here may lie in the machine.
    host: Host,
}

/// The readers every machine has.
#[derive(Default)]
struct Readers {
    summary: Summary,
    trace: TraceHash,
    prints: PrintLog,
    coverage: Option<Coverage>,
    symbols: SymbolBook,
}

impl Machine {
    pub(crate) fn start(bench: Bench, inputs: Inputs) -> Result<Self, Error> {
        boot::start(bench, inputs)
    }

    fn nt(&self) -> &Nt {
        self.nt.as_deref().expect("a machine has its kernel until it is finished")
    }

    /// Runs `f` inside the machine, outside any thread.
    fn inside<R>(&self, f: impl FnOnce(&Nt) -> R) -> R {
        let nt = self.nt();
        self.host.run(nt, || f(nt))
    }

    /// Runs `work` on a thread of the application's, and everything else meanwhile, until it is over. `what` names it to
    /// people. What `work` returns must lie outside the machine.
    fn on_thread<R: 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&mut Cx<'_>) -> Flow<R> + 'static,
    ) -> Result<R, Error> {
        // In the machine: the thread may end, and let go of it, after a snapshot, and as often as it is taken back there.
        let result = self.inside(|_| Rc::new(RefCell::new(None)));
        let slot = Rc::clone(&result);
        let body = move |cx: &mut Cx<'_>| {
            let value = work(cx)?;
            outside(|| *slot.borrow_mut() = Some(value));
            Ok(())
        };
        let spawned = self.inside(|nt| self.spawn(nt, Box::new(body)));
        if spawned.is_err() {
            return Err(Error::Stopped);
        }
        self.await_value(what, || result.borrow_mut().take())
    }

    /// A thread of the application's that does this.
    fn spawn(&self, nt: &Nt, body: thread::Work) -> Flow<()> {
        thread::spawn_application(&mut nt.cx(), "application's thread", self.process.get(), body).map(|_| ())
    }

    /// Lets the machine run until there is a value. `what` names what it comes from to people.
    fn await_value<R>(&self, what: &str, value: impl Fn() -> Option<R>) -> Result<R, Error> {
        let found = RefCell::new(None);
        let end = self.inside(|nt| {
            scheduler::run(nt, &mut |_| {
                let mut found = found.borrow_mut();
                if found.is_none() {
                    *found = value();
                }
                found.is_some()
            })
        });
        match (end, found.into_inner()) {
            (_, Some(value)) => Ok(value),
            (End::Quiet, None) => {
                self.stuck.set(true);
                let why = self.inside(|nt| {
                    let why = stuck::why(&mut nt.cx()).words;
                    outside(|| why.clone())
                });
                Err(Error::Stuck(format!("{what} does not end: {why}")))
            }
            (End::Stopped | End::Done, None) => Err(Error::Stopped),
        }
    }

    /// Runs `work` on a thread of the application's, with the kernel below it at hand: for measuring, and for tests that
    /// look below this library. What it returns must lie outside the machine ([`engine::outside`]).
    ///
    /// # Errors
    /// [`Error::Stuck`] if it never ends; [`Error::Stopped`].
    pub fn with_kernel<R: 'static>(
        &self,
        work: impl FnOnce(&mut Cx<'_>) -> Flow<R> + 'static,
    ) -> Result<R, Error> {
        self.on_thread("the work", work)
    }

    /// What is on drive `C:` now; none if the machine was given no folder.
    #[must_use]
    pub fn files(&self) -> Option<Folder> {
        self.inside(|nt| nt.cx().with(|k| outside(|| k.fs.folder())))
    }

    /// What the registry holds now, as a registry file: what a reboot would leave of `HKEY_LOCAL_MACHINE` and `HKEY_USERS`.
    #[must_use]
    pub fn registry(&self) -> String {
        self.inside(|nt| nt.cx().with(|k| outside(|| reg::write(&k.cm.registry))))
    }

    /// Lets so many nanoseconds of the machine's time pass.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the machine stops meanwhile.
    pub fn wait(&self, nanoseconds: u64) -> Result<(), Error> {
        self.on_thread("a wait", move |cx| wait::sleep(cx, nanoseconds))
    }

    /// Lets time pass until a device is to be powered down, at most a minute. Whether one is.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the machine stops meanwhile.
    pub fn wait_for_power_down(&self) -> Result<bool, Error> {
        self.on_thread("a wait", po::request::sleep_to_lowering)
    }

    /// Carries a script out.
    ///
    /// # Errors
    /// [`Error::Failed`] if an expectation does not hold, which is the report's failure too; [`Error::Stopped`] if the
    /// machine stops.
    pub fn play(&self, play: Play) -> Result<(), Error> {
        let stage = self.stage(&play);
        let process = self.process.get();
        let (failure, exit) = self.inside(|nt| {
            let end = stage.run(nt, process);
            let failure = stage.failure(nt, end);
            let exit = stage.exit(nt, process);
            self.stuck.set(self.stuck.get() || end == End::Quiet);
            (failure, if end == End::Stopped { end } else { exit })
        });
        self.inside(|_| drop(stage));
        if let Some(failure) = failure {
            self.failure.borrow_mut().get_or_insert(failure.clone());
            return Err(Error::Failed(failure));
        }
        if exit == End::Stopped { Err(Error::Stopped) } else { Ok(()) }
    }

    /// A stage for a script.
    fn stage(&self, play: &Play) -> Stage {
        let driver = self.loaded.borrow().driver.and_then(|driver| driver.object);
        self.inside(|_| Stage::new(play.clone(), self.readers.prints.clone(), driver))
    }

    /// Carries a script out if the driver is ready for one, or without one leaves the machine alone for 100 ms of its time,
    /// once its devices are started; and ends it.
    #[must_use]
    pub fn carry_out(self, play: Option<Play>) -> Report {
        self.perform(play);
        self.finish()
    }

    /// The same, without the end.
    pub fn perform(&self, play: Option<Play>) {
        if self.is_ready() {
            // What goes wrong in here stands in the report.
            let _ = match play {
                Some(play) => self.play(play),
                None => self.wait(IDLE),
            };
        }
    }

    /// The machine's clock: driver instructions retired and declared costs, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.host.now()
    }

    /// How many blocks of pool drivers have allocated and not freed whose tags are like `tag` (`?` and `*` stand for any characters), and
    /// their bytes: as `pool` in a script.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn pool(&self, tag: &str) -> Result<(u64, u64), Error> {
        let tag = tag.to_owned();
        self.on_thread("the look", move |cx| Ok(cx.with(|k| pool_check::held(k, &tag))))
    }

    /// A hash of what drivers can find in memory now: see [`Report::memory_hash`].
    #[must_use]
    pub fn memory_hash(&self) -> u128 {
        let engine = *self.host;
        self.inside(|nt| nt.cx().with(|k| outside(|| memory::hash(engine, k))))
    }

    /// Every line the driver has printed so far.
    #[must_use]
    pub fn prints(&self) -> Vec<String> {
        self.readers.prints.lines()
    }
}
