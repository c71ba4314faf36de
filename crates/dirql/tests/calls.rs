//! What drivers ask of the kernel: threads, locks, time, memory, sections, files, the registry, security, WMI, and requests on their way.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod apcs;
mod clocks;
mod contend;
mod controllers;
mod counters;
mod exceptions;
mod extended;
mod fetch;
mod files;
mod filters;
mod folder;
mod hardening;
mod legacy;
mod libraries;
mod locks;
mod memory;
mod objects;
mod overlapped;
mod packets;
mod ports;
mod queue;
mod quota;
mod registry_files;
mod requests;
mod rig;
mod sections;
mod security;
mod services;
mod special_pool;
mod system;
mod tables;
mod tracing;
mod wmi;
