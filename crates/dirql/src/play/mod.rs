//! Scripts carried out: application threads with named handles and requests, what the user's hand does to devices, what the
//! outside world does to cards, and expectations of all of it.
//!
//! [`Play`] is a script that has been checked against the machine to be; a [`Stage`] is one in progress. The grammar is
//! `script`'s; the meaning of each command is in `docs/script.md`.

mod carry;
mod check;
mod counters;
pub(crate) mod device;
mod expect;
mod lane;
mod owed;
mod port;
mod process;
mod registry;
mod request;
mod sent;
mod wmi;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use abi::{DRIVER_OBJECT, DriverPtr, KTHREAD};
use engine::{Flow, outside};
use kernel::io::file::Buffer;
use kernel::ke::scheduler::{self, End};
use kernel::ke::stuck::{self, Why};
use kernel::ke::{thread, user_apc};
use kernel::ob::Handle;
use kernel::verdict::Related;
use kernel::{Cx, Nt};

pub use check::{Play, ScriptText};
pub(crate) use device::{peek, poke};

use crate::machine::have_devices_serve_again;
use crate::machine::transfer::Begun;
use crate::readers::PrintLog;
use crate::report::Failure;
use crate::script::Number;
use lane::Lane;

/// A script in progress. Clones are the same.
#[derive(Clone)]
pub(crate) struct Stage {
    play: Rc<Play>,
    state: Rc<RefCell<State>>,
    /// The driver that it is about, once loaded.
    driver: Option<DriverPtr<DRIVER_OBJECT>>,
}

/// What the threads of a script share.
struct State {
    prints: PrintLog,
    /// Lines printed before this one have satisfied an `expect print`.
    printed: usize,
    /// By the process that has them, and then by their names.
    handles: BTreeMap<u64, BTreeMap<String, Handle>>,
    requests: BTreeMap<String, Begun>,
    /// What made each last, as the script has it.
    asked: BTreeMap<String, String>,
    /// How many calls had been made to fail when it was made, and when the script began.
    refusals_before: BTreeMap<String, u64>,
    refusals: u64,
    /// What completion ports call requests by, by their names.
    told_of: BTreeMap<String, u64>,
    /// Addresses that the application was given.
    pointers: BTreeMap<String, u64>,
    /// Numbers that drivers have answered, by the names they were given.
    answered: BTreeMap<String, u32>,
    /// Events, by their process and names.
    made: BTreeMap<(u64, Number, String), u64>,
    /// Memory that it has: what `pointers` says, too, and how many bytes.
    memory: BTreeMap<String, Buffer>,
    lanes: BTreeMap<String, Lane>,
    /// Processes besides the first, by their names.
    processes: BTreeMap<String, u64>,
    /// What commands yield is not looked at (`tolerate`).
    tolerant: bool,
    /// When a device or the system was last made to change its state, as requests have the time.
    changed: u64,
    /// When requests were last cancelled, likewise.
    cancelled: u64,
    /// The handle that was closed last, and when.
    closed: Option<(u64, String)>,
    /// What the outside world did to a card last, as the script has it, and when.
    happened: Option<(u64, String)>,
    /// The main thread's object.
    main: Option<DriverPtr<KTHREAD>>,
    /// What the main thread is at.
    at: Option<usize>,
    /// The main thread is through, or has given up.
    over: bool,
    failure: Option<Failure>,
}

impl Stage {
    /// A stage for a play. On the machine's heap.
    pub(crate) fn new(play: Play, prints: PrintLog, driver: Option<DriverPtr<DRIVER_OBJECT>>) -> Self {
        let state = State {
            prints,
            printed: 0,
            handles: BTreeMap::new(),
            requests: BTreeMap::new(),
            asked: BTreeMap::new(),
            refusals_before: BTreeMap::new(),
            refusals: 0,
            told_of: BTreeMap::new(),
            pointers: BTreeMap::new(),
            answered: BTreeMap::new(),
            made: BTreeMap::new(),
            memory: BTreeMap::new(),
            lanes: BTreeMap::new(),
            processes: BTreeMap::new(),
            tolerant: false,
            changed: 0,
            cancelled: 0,
            closed: None,
            happened: None,
            main: None,
            at: None,
            over: false,
            failure: None,
        };
        Self { play: Rc::new(play), state: Rc::new(RefCell::new(state)), driver }
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.borrow_mut())
    }

    /// Carries the script out: until its end, a failed expectation, or the end of the machine.
    pub(crate) fn run(&self, nt: &Nt, process: u64) -> End {
        let stage = self.clone();
        let body: thread::Work = Box::new(move |cx| {
            let result = stage.main(cx);
            stage.with(|state| state.over = true);
            result
        });
        if thread::spawn_application(&mut nt.cx(), "thread main", process, body).is_err() {
            return End::Stopped;
        }
        scheduler::run(nt, &mut |_| self.with(|state| state.over || state.failure.is_some()))
    }

    /// The main thread: its own commands in order, the others' handed to them, and at the end it waits for all.
    fn main(&self, cx: &mut Cx<'_>) -> Flow<()> {
        let object = thread::current_object(cx);
        let refusals = kernel::io::owed::refusals(cx);
        self.with(|state| (state.main, state.refusals) = (Some(object), refusals));
        for (index, statement) in self.play.script.statements.iter().enumerate() {
            match &statement.thread {
                Some(thread) => self.hand_over(cx, thread, index)?,
                None => {
                    self.with(|state| state.at = Some(index));
                    if !self.carry_out(cx, index)? {
                        return Ok(());
                    }
                }
            }
        }
        self.with(|state| state.at = None);
        let lanes: Vec<String> = self.with(|state| state.lanes.keys().cloned().collect());
        lanes.iter().try_for_each(|lane| self.join(cx, lane))
    }

    /// Carries out one command; false if the script has failed and is to end.
    fn carry_out(&self, cx: &mut Cx<'_>, index: usize) -> Flow<bool> {
        if self.with(|state| state.failure.is_some()) {
            return Ok(false);
        }
        let outcome = carry::out(self, cx, index)?;
        // A thread that was terminated expects nothing any more.
        if let Err(message) = outcome
            && !user_apc::is_to_end(cx)
            && !self.with(|state| state.tolerant)
        {
            self.fail(index, &message);
            return Ok(false);
        }
        Ok(true)
    }

    /// Notes the first failure: at command `index`, why.
    fn fail(&self, index: usize, message: &str) {
        self.fail_at(index, message, Vec::new());
    }

    fn fail_at(&self, index: usize, message: &str, moments: Vec<Related>) {
        self.with(|state| {
            let script = &*self.play.script;
            let statement = &script.statements[index];
            let failure = Failure {
                place: format!("{}:{}", script.source, statement.at.line),
                command: script.text_of(statement).to_owned(),
                message: message.to_owned(),
                moments,
            };
            state.failure.get_or_insert(failure);
        });
    }

    /// What failed, given how the run of the script ended; it lies outside the machine.
    pub(crate) fn failure(&self, nt: &Nt, end: End) -> Option<Failure> {
        if end == End::Quiet {
            let stuck = self.with(|state| state.at.or_else(|| state.lanes.values().find_map(|lane| lane.at)));
            if let Some(index) = stuck {
                let Why { words, moments } = stuck::why(&mut nt.cx());
                self.fail_at(index, &format!("does not end: {words}"), moments);
            }
        }
        outside(|| self.with(|state| state.failure.clone()))
    }

    /// The process exits: its threads end, its requests are cancelled and its handles closed.
    pub(crate) fn exit(&self, nt: &Nt, process: u64) -> End {
        if nt.stopping() {
            return End::Stopped;
        }
        have_devices_serve_again(nt);
        let stage = self.clone();
        let done = Rc::new(RefCell::new(false));
        let flag = Rc::clone(&done);
        let body: thread::Work = Box::new(move |cx| {
            process::exit_all(&stage, cx)?;
            stage.end_all(cx)?;
            request::close_all(&stage, cx)?;
            *flag.borrow_mut() = true;
            Ok(())
        });
        if thread::spawn_application(&mut nt.cx(), "exit of the process", process, body).is_err() {
            return End::Stopped;
        }
        let idle = || self.with(|state| state.lanes.values().all(|lane| lane.at.is_none()));
        let end = scheduler::run_until(nt, &mut |_| *done.borrow() && idle());
        match end {
            End::Done if self.forget_lanes(&mut nt.cx()).is_err() => End::Stopped,
            end => end,
        }
    }
}
