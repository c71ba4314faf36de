//! What it costs to go from the scheduler to a strand and back, with no kernel above the engine.

use std::time::Instant;

use engine::windows::{PAGE, SYSTEM};
use engine::{
    Access, Args, Engine, Fault, Flow, Guest, Host, Leave, Progress, Protection, Special, StrandId,
};

use crate::{Figure, each};

const SAMPLES: u32 = 500;
const REPEATS: u32 = 10_000;

/// A guest whose strands do nothing but go back.
pub(crate) struct Nothing(pub(crate) Engine);

impl Guest for Nothing {
    fn strand(&self, _id: StrandId) {
        for _ in 0..u64::from(SAMPLES + 1) * u64::from(REPEATS) {
            self.0.suspend();
        }
    }
    fn export(&self, _number: u32, _args: &Args) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn slice(&self) -> Flow<()> {
        Ok(())
    }
    fn port_read(&self, _port: u16, _bytes: u8) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn port_write(&self, _port: u16, _bytes: u8, _value: u32) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn device_read(&self, _access: Access, _data: &mut [u8]) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn device_write(&self, _access: Access, _data: &[u8]) -> Flow<()> {
        Err(Leave::Stop)
    }
    fn accessed(&self) -> Flow<()> {
        Ok(())
    }
    fn set_irql(&self, _level: u64) -> Flow<()> {
        Ok(())
    }
    fn interrupt_flag(&self) -> bool {
        true
    }
    fn set_interrupt_flag(&self, _on: bool) -> Flow<()> {
        Ok(())
    }
    fn cpuid(&self, _leaf: u32, _subleaf: u32) -> [u32; 4] {
        [0; 4]
    }
    fn special(&self, _special: Special) -> Flow<u64> {
        Err(Leave::Stop)
    }
    fn fault(&self, _fault: &Fault) -> Leave {
        Leave::Stop
    }
}

/// `strand_switch`: one way.
pub(crate) fn switch() -> Figure {
    let host = Host::start().expect("no other machine is alive");
    let guest = Nothing(*host);
    let samples = host.run(&guest, || {
        let strand = host.spawn();
        let round = || (0..REPEATS).all(|_| host.resume(strand) == Progress::Suspended);
        assert!(round(), "the strand goes on for ever");
        let sample = |_| {
            let begun = Instant::now();
            assert!(round(), "the strand goes on for ever");
            each(begun, REPEATS) / 2.0
        };
        let samples: Vec<f64> = (0..SAMPLES - 1).map(sample).collect();
        engine::outside(|| samples.clone())
    });
    host.finish();
    Figure::new("strand_switch", REPEATS, samples)
}

/// `strand_switch_across`: one way, where each strand runs on a processor of its own.
pub(crate) fn across() -> Figure {
    const REGIONS: u64 = SYSTEM.base + 0x200_0000;
    let host = Host::start().expect("no other machine is alive");
    host.map(REGIONS, 0x200_0000, 2 * PAGE, Protection::READ_WRITE);
    let guest = Nothing(*host);
    let samples = host.run(&guest, || {
        let strands = [(host.spawn(), REGIONS), (host.spawn(), REGIONS + PAGE)];
        let turn = |(strand, region)| {
            host.set_processor_region(region);
            host.set_level(0);
            host.resume(strand) == Progress::Suspended
        };
        let round = || (0..REPEATS / 2).all(|_| strands.into_iter().all(turn));
        assert!(round(), "the strands go on for ever");
        let sample = |_| {
            let begun = Instant::now();
            assert!(round(), "the strands go on for ever");
            each(begun, REPEATS) / 2.0
        };
        let samples: Vec<f64> = (0..SAMPLES - 1).map(sample).collect();
        engine::outside(|| samples.clone())
    });
    host.finish();
    Figure::new("strand_switch_across", REPEATS, samples)
}
