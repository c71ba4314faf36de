//! Event objects. Follows *KeSetEvent function*, *KeClearEvent function*, *KeInitializeEvent function*.

use abi::{DriverPtr, KEVENT};
use engine::Flow;

use crate::cx::Cx;

/// `KeSetEvent`: signals; returns the previous state. With `wait`, the caller's next call is a wait.
pub fn set(_cx: &mut Cx<'_>, _event: DriverPtr<KEVENT>, _increment: i32, _wait: bool) -> Flow<i32> {
    todo!("ke helper")
}

/// `KeClearEvent`.
pub fn clear(_cx: &mut Cx<'_>, _event: DriverPtr<KEVENT>) -> Flow<()> {
    todo!("ke helper")
}
