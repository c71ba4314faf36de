//! Waiting for dispatcher objects. Follows *KeWaitForSingleObject function*.

use abi::{DriverPtr, NtStatus};
use engine::Flow;

use crate::cx::Cx;

/// Waits for one dispatcher object (event, semaphore, mutex, timer, thread). `timeout` in 100 ns: negative relative,
/// positive absolute, zero polls, `None` for ever.
pub fn single<T>(_cx: &mut Cx<'_>, _object: DriverPtr<T>, _timeout: Option<i64>) -> Flow<NtStatus> {
    todo!("ke helper")
}
