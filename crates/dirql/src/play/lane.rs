//! The script's named threads: each carries out what it was handed, in order, on a thread of the application's.
//!
//! A thread runs while it has something to do, and is made anew when it is handed more.

use std::collections::VecDeque;

use abi::{DriverPtr, KEVENT, KTHREAD};
use engine::Flow;
use kernel::Cx;
use kernel::io::cancel;
use kernel::ke::{event, thread, user_apc, wait};
use kernel::mm::pool;
use kernel::ps;

use super::Stage;
use super::carry::Outcome;
use crate::machine::new_event;

/// A named thread.
pub(super) struct Lane {
    /// Commands it was handed and has not begun.
    queue: VecDeque<usize>,
    /// The command it is at; none while it has nothing to do.
    pub(super) at: Option<usize>,
    /// Set while it has nothing to do.
    idle: DriverPtr<KEVENT>,
    /// Its thread object, while it runs.
    pub(super) thread: Option<DriverPtr<KTHREAD>>,
}

impl Stage {
    /// Hands command `index` to the thread of this name, which exists from now on.
    pub(super) fn hand_over(&self, cx: &mut Cx<'_>, name: &str, index: usize) -> Flow<()> {
        if !self.with(|state| state.lanes.contains_key(name)) {
            let idle = new_event(cx)?;
            let lane = Lane { queue: VecDeque::new(), at: None, idle, thread: None };
            self.with(|state| state.lanes.insert(name.to_owned(), lane));
        }
        let (idle, begins) = self.with(|state| {
            let lane = state.lanes.get_mut(name).expect("just made");
            lane.queue.push_back(index);
            let begins = lane.at.is_none();
            if begins {
                lane.at = Some(index);
            }
            (lane.idle, begins)
        });
        if !begins {
            return Ok(());
        }
        event::clear(cx, idle)?;
        let (stage, lane) = (self.clone(), name.to_owned());
        let process = self.with(|state| state.processes.get(name).copied());
        let process = process.unwrap_or_else(|| ps::current_process(cx));
        let body: thread::Work = Box::new(move |cx| stage.live(cx, &lane));
        thread::spawn_application(cx, format!("thread {name}"), process, body).map(|_| ())
    }

    /// The life of a named thread.
    fn live(&self, cx: &mut Cx<'_>, name: &str) -> Flow<()> {
        let object = thread::current_object(cx);
        self.with(|state| state.lanes.get_mut(name).map(|lane| lane.thread = Some(object)));
        loop {
            let next = self.with(|state| {
                let failed = state.failure.is_some();
                let lane = state.lanes.get_mut(name).expect("lanes are not taken away");
                lane.at = lane.queue.pop_front().filter(|_| !failed);
                lane.at
            });
            let Some(index) = next else { break };
            self.carry_out(cx, index)?;
            if user_apc::returns(cx) {
                cancel::rundown_thread(cx)?;
                break;
            }
        }
        let idle = self.with(|state| {
            let lane = state.lanes.get_mut(name).expect("lanes are not taken away");
            (lane.at, lane.thread) = (None, None);
            lane.queue.clear();
            lane.idle
        });
        event::set(cx, idle, 0, false).map(|_| ())
    }

    /// Gives back what the named threads have, all of which have ended.
    pub(super) fn forget_lanes(&self, cx: &mut Cx<'_>) -> Flow<()> {
        let lanes = self.with(|state| std::mem::take(&mut state.lanes));
        lanes.into_values().try_for_each(|lane| pool::free(cx, lane.idle))
    }

    /// Does something to the thread of this name, which has something to do.
    pub(super) fn to_thread(
        &self,
        cx: &mut Cx<'_>,
        name: &str,
        what: fn(&mut Cx<'_>, DriverPtr<KTHREAD>) -> Flow<()>,
    ) -> Flow<Outcome> {
        match self.with(|state| state.lanes.get(name).and_then(|lane| lane.thread)) {
            Some(thread) => what(cx, thread).map(Ok),
            None => Ok(Err(format!("thread {name} has nothing to do"))),
        }
    }

    /// Whether the thread of this name has not carried out all that it was handed.
    pub(super) fn is_busy(&self, name: &str) -> bool {
        self.with(|state| state.lanes.get(name).is_some_and(|lane| lane.at.is_some()))
    }

    /// Every thread ends as soon as it returns from what it is at: the process exits.
    pub(super) fn end_all(&self, cx: &mut Cx<'_>) -> Flow<()> {
        let threads: Vec<_> = self.with(|state| {
            // The main thread is still there if something that it has asked for does not end.
            let main = state.main.filter(|_| !state.over);
            state.lanes.values().filter_map(|lane| lane.thread).chain(main).collect()
        });
        threads.into_iter().try_for_each(|thread| user_apc::end(cx, thread))
    }

    /// Waits until the thread of this name has carried out what it was handed.
    pub(super) fn join(&self, cx: &mut Cx<'_>, name: &str) -> Flow<()> {
        let idle =
            self.with(|state| state.lanes.get(name).filter(|lane| lane.at.is_some()).map(|lane| lane.idle));
        match idle {
            Some(idle) => wait::for_object(cx, idle).map(|_| ()),
            None => Ok(()),
        }
    }
}
