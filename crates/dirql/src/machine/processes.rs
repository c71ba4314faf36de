//! Several applications: processes with handles and memory of their own.
//!
//! A machine begins with one. What is asked for within another is done by threads of that. Not here: a process that begins in the middle
//! of an exploration. Those of scripts are `play::process`'.

use kernel::io::cancel;
use kernel::ke::thread;
use kernel::ps::{process, user_image};
use kernel::se::token;
pub use kernel::se::token::User;
use kernel::{Nt, ob, ps};

use super::{Machine, end};
use crate::error::Error;

/// A process of applications.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process(u64);

impl Machine {
    /// Begins another process, whose image is the file of this name: `other.exe`, or `C:\Tools\other.exe`. It ends with the machine, if
    /// [`Machine::end_process`] has not ended it.
    ///
    /// # Errors
    /// [`Error::Status`] if a driver prevents it; [`Error::Stopped`].
    pub fn begin_process(&self, name: &str) -> Result<Process, Error> {
        self.begin_process_with(name, name)
    }

    /// As [`Machine::begin_process`], with the command line that process notify routines get.
    ///
    /// # Errors
    /// As [`Machine::begin_process`].
    pub fn begin_process_with(&self, name: &str, command: &str) -> Result<Process, Error> {
        let made = self.inside(|nt| process::create(&mut nt.cx(), name.to_owned()).map_err(|_| ()));
        let process = made.map_err(|()| Error::Stopped)?;
        self.processes.borrow_mut().push(process);
        let command = command.to_owned();
        let status = self.on_thread("a process", move |cx| ps::create_notify::tell(cx, process, &command))?;
        if status.is_success() {
            let begun = Process(process);
            if self.inside(|nt| user_image::are_noticed(&mut nt.cx())) {
                self.within(begun, || self.on_thread("a process' first thread", user_image::load_first))?;
            }
            return Ok(begun);
        }
        self.end_process(Process(process));
        Err(Error::Status { what: format!("the creation of {name}"), status: status.0 })
    }

    /// As [`Machine::begin_process`], by the process that asks, whose handles it inherits ([`crate::Handle::set_inherit`]): each is used
    /// within either process then, and the driver hears of the file's end when both have closed it.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn begin_process_inheriting(&self, name: &str) -> Result<Process, Error> {
        let parent = self.process.get();
        let child = self.begin_process(name)?;
        self.on_thread("CreateProcess", move |cx| ob::handle::inherit(cx, parent, child.0))?;
        Ok(child)
    }

    /// The application that asks from here on belongs to such a user: what it opens is checked against that. At first it is an
    /// administrator's. Handles that are open stay as they are.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn set_user(&self, user: User) -> Result<(), Error> {
        let process = self.process.get();
        let done = self.inside(|nt| token::assign(&mut nt.cx(), process, user).map_err(|_| ()));
        done.map_err(|()| Error::Stopped)
    }

    /// What `ask` asks the machine for, threads of `process` do. A handle is used within the process that opened it.
    pub fn within<R>(&self, process: Process, ask: impl FnOnce() -> R) -> R {
        let before = self.process.replace(process.0);
        let answer = ask();
        self.process.set(before);
        answer
    }

    /// The id of a process, as drivers know it.
    #[must_use]
    pub fn process_id(&self, process: Process) -> u64 {
        process.0
    }

    /// The process exits: its handles are closed, and its memory goes.
    pub fn end_process(&self, process: Process) {
        let known = self.processes.borrow().contains(&process.0);
        if known {
            self.processes.borrow_mut().retain(|other| *other != process.0);
            self.inside(|nt| exit(nt, process.0));
        }
    }

    /// All that were begun besides the first.
    pub(super) fn end_processes(&self) {
        for process in self.processes.take() {
            self.inside(|nt| exit(nt, process));
        }
    }
}

fn exit(nt: &Nt, process: u64) {
    if nt.stopping() {
        return;
    }
    let close: thread::Work = Box::new(move |cx| {
        cancel::rundown_thread(cx)?;
        ob::handle::close_all(cx, process)
    });
    let over: thread::Work = Box::new(move |cx| ps::process::end(cx, process));
    let done =
        end::run(nt, close, |cx, work| thread::spawn_application(cx, "end of an application", process, work));
    if done {
        end::run(nt, over, |cx, work| thread::spawn(cx, "process' end", work));
    }
}
