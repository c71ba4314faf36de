//! Bytes that the application sends, with the numbers that it knows when it does.

use std::borrow::Cow;

use kernel::{Cx, ps};

use super::Stage;
use crate::script::{Data, Number, OWN};

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

    fn number(&self, what: Number, name: &str, process: u64) -> Option<u64> {
        self.with(|state| match what {
            Number::ProcessId if name == OWN => Some(process),
            Number::ProcessId => state.processes.get(name).copied(),
            Number::Handle => state.handles.get(&process)?.get(name).map(|handle| handle.0),
            Number::Address => state.pointers.get(name).copied(),
        })
    }
}
