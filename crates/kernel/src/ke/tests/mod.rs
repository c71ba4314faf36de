//! Stories of threads, waits, time and interrupts. Each runs a machine; the drivers are C, compiled by mingw.

mod budgets;
mod dpcs;
mod driver_threads;
mod fast_waits;
mod faults;
mod interrupts;
mod long_services;
mod processors;
mod schedules;
mod short_ways;
mod spins;
mod threads;
mod timers;
mod verdicts;
mod waits;
