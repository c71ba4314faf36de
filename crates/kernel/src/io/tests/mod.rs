//! Stories of drivers, devices, files and IRPs, with drivers whose routines are Rust.

mod cancelling;
mod compiled;
mod devices;
mod fast_path;
mod files;
mod invariant;
mod queues;
mod rig;
mod stacks;
