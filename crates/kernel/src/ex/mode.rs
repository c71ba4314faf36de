//! On whose behalf a thread runs, and what its processor can do.
//!
//! Pages: *ExGetPreviousMode function*, *ExIsProcessorFeaturePresent function*.

use engine::Flow;

use crate::cx::Cx;
use crate::ke::shared_data;
use crate::ke::thread::{Role, Thread};

/// `ExGetPreviousMode`: `UserMode` (1) on an application's thread, but for what a driver asks of the system there by a
/// `Zw` routine; else `KernelMode` (0).
///
/// # Errors
/// None.
pub(crate) fn previous_mode(cx: &mut Cx<'_>) -> Flow<u8> {
    Ok(cx.with(|k| {
        let application = |thread: &Thread| thread.role == Role::Application && thread.services.is_empty();
        u8::from(k.ke.thread().is_some_and(application))
    }))
}

/// `ExIsProcessorFeaturePresent`, by `PF_…` number: what the processor model has.
///
/// # Errors
/// None.
pub(crate) fn is_feature_present(cx: &mut Cx<'_>, feature: u32) -> Flow<bool> {
    let cpu = cx.with(|k| k.ke.cpu);
    Ok(shared_data::features(cpu).any(|has| has == u64::from(feature)))
}
