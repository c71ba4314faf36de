//! Bytes that the application sends, with the numbers that it knows when it does.

use std::borrow::Cow;

use engine::Flow;
use kernel::io::event::{self, Type};
use kernel::ob::Handle;
use kernel::{Cx, ob, ps};

use super::Stage;
use super::carry::Outcome;
use super::check::data;
use crate::machine::transfer;
use crate::script::{Command, Data, Number, OWN, PAGE};

impl Stage {
    /// The bytes of data that the running thread's process sends. What a name stands for that is not there (yet) is 0.
    pub(super) fn sent<'d>(&self, cx: &mut Cx<'_>, data: &'d Data) -> Cow<'d, [u8]> {
        if let Some(bytes) = data.known() {
            return bytes.into();
        }
        let process = ps::current_process(cx);
        let number = |what, name: &str| self.number(what, name, process).unwrap_or(0);
        self.play.bytes(data, number).into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Makes the events and takes the pages that a command names, in the running thread's process; what that has stays.
    ///
    /// # Errors
    /// A verdict if the machine ends meanwhile.
    pub(super) fn make(&self, cx: &mut Cx<'_>, command: &Command) -> Flow<()> {
        for (what, name) in data(command).flat_map(Data::made) {
            let key = (ps::current_process(cx), what, name.to_owned());
            if self.with(|state| state.made.contains_key(&key)) {
                continue;
            }
            let made = match what {
                Number::Page => transfer::allocate(cx, &[0; PAGE])?.map(|page| page.address),
                _ => event::create(cx, Type::Synchronization, false)?.map(|event| event.0),
            };
            if let Some(number) = made {
                self.with(|state| state.made.insert(key, number));
            }
        }
        Ok(())
    }

    /// Closes an event's handle. Where it is named again, another event is made.
    pub(super) fn close_event(&self, cx: &mut Cx<'_>, name: &str) -> Flow<Outcome> {
        let key = (ps::current_process(cx), Number::Event, name.to_owned());
        match self.with(|state| state.made.remove(&key)) {
            Some(handle) => Ok(ob::handle::close(cx, Handle(handle))?.map_err(|status| status.to_string())),
            None => Ok(Err(format!("`event:{name}` is not there (now)"))),
        }
    }

    fn number(&self, what: Number, name: &str, process: u64) -> Option<u64> {
        self.with(|state| match what {
            Number::ProcessId if name == OWN => Some(process),
            Number::ProcessId => state.processes.get(name).copied(),
            Number::Handle => state.handles.get(&process)?.get(name).map(|handle| handle.0),
            Number::Address => state.pointers.get(name).copied(),
            Number::Answered => state.answered.get(name).copied().map(u64::from),
            Number::Event | Number::Page => state.made.get(&(process, what, name.to_owned())).copied(),
        })
    }
}
