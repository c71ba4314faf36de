//! On whose behalf a thread runs, and what its processor can do.
//!
//! Pages: *ExGetPreviousMode function*, *ExIsProcessorFeaturePresent function*.

use engine::Flow;

use crate::cx::Cx;
use crate::ke::thread::Role;

/// `ExGetPreviousMode`: `UserMode` (1) on an application's thread, else `KernelMode` (0).
///
/// # Errors
/// None.
pub fn previous_mode(cx: &mut Cx<'_>) -> Flow<u8> {
    Ok(cx.with(|k| u8::from(k.ke.thread().is_some_and(|thread| thread.role == Role::Application))))
}

/// `ExIsProcessorFeaturePresent`, by `PF_…` number: what an x86-64-v2 processor has.
///
/// # Errors
/// None.
pub fn is_feature_present(_cx: &mut Cx<'_>, feature: u32) -> Flow<bool> {
    // COMPARE_EXCHANGE_DOUBLE, MMX, SSE, RDTSC, PAE, SSE2, NX, SSE3, COMPARE_EXCHANGE128, SSSE3, SSE4.1, SSE4.2.
    Ok(matches!(feature, 2 | 3 | 6 | 8 | 9 | 10 | 12 | 13 | 14 | 36 | 37 | 38))
}
