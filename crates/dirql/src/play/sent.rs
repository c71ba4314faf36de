//! Bytes that the application sends, with the numbers that it knows when it does.

use std::borrow::Cow;

use engine::Flow;
use kernel::io::event::{self, Type};
use kernel::{Cx, ps};

use super::Stage;
use super::check::data;
use crate::script::{Command, Data, Number, OWN};

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

    /// Makes the events that a command names, in the running thread's process; those that it has stay.
    ///
    /// # Errors
    /// A verdict if the machine ends meanwhile.
    pub(super) fn make_events(&self, cx: &mut Cx<'_>, command: &Command) -> Flow<()> {
        for name in data(command).flat_map(Data::events) {
            let key = (ps::current_process(cx), name.to_owned());
            if self.with(|state| state.events.contains_key(&key)) {
                continue;
            }
            if let Some(event) = event::create(cx, Type::Synchronization, false)? {
                self.with(|state| state.events.insert(key, event));
            }
        }
        Ok(())
    }

    fn number(&self, what: Number, name: &str, process: u64) -> Option<u64> {
        self.with(|state| match what {
            Number::ProcessId if name == OWN => Some(process),
            Number::ProcessId => state.processes.get(name).copied(),
            Number::Handle => state.handles.get(&process)?.get(name).map(|handle| handle.0),
            Number::Address => state.pointers.get(name).copied(),
            Number::Event => state.events.get(&(process, name.to_owned())).map(|handle| handle.0),
        })
    }
}
