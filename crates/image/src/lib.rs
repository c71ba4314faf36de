//! Placeholder header, replaced by the first real commit.
#![forbid(unsafe_code)]
