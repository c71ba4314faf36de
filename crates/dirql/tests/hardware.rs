//! Cards and what is between them and their drivers: registers, interrupts and messages, DMA, configuration space, the local bus, data
//! sheets.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod bench_card;
mod bench_rust;
mod card;
mod card_rust;
mod card_wmi;
mod combine;
mod dma;
mod edu;
mod edu_rust;
mod express;
mod figure;
mod late;
mod localbus;
mod loose;
mod messages;
mod neither_rust;
mod posted;
mod rig;
mod routines;
mod sampler;
mod sheet;
mod slave;
mod streams;
#[path = "twins/main.rs"]
mod twins;
