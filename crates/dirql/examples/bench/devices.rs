//! What Plug and Play and power cost: a thousand devices, found and started; a device that loses its power and gets it back.

use std::time::Instant;

use abi::{NtStatus, PowerDeviceD0, PowerDeviceD3};
use dirql::{Bench, Outcome};
use engine::outside;
use kernel::ke::thread;
use kernel::{pnp, po};

use crate::{Figure, built, each};

/// Starts of the machine with many devices.
const STARTS: usize = 5;
const DEVICES: usize = 1000;
/// What the machine with these has, in bytes.
const MEMORY: u64 = 256 << 20;
const SAMPLES: usize = 100;
/// Cycles of power in a sample.
const CYCLES: u32 = 100;

/// From nothing to a machine with a thousand devices on no bus, all of which one driver has started.
pub(crate) fn enumerate() -> Figure {
    let bench = || {
        let one = Bench::new().driver(built("soft.sys")).inf(built("soft.inf"));
        let all = (0..DEVICES).fold(one, |bench, _| bench.device("root"));
        all.memory(MEMORY).unobserved().instruction_budget(u64::MAX >> 2)
    };
    let sample = |_| {
        let begun = Instant::now();
        let machine = bench().start().expect("the driver can be loaded");
        let time = each(begun, 1);
        let started = machine.with_kernel(|cx| {
            let all = pnp::devices(cx);
            Ok(all.iter().filter(|device| device.state == pnp::node::State::Started).count())
        });
        assert_eq!(started.unwrap_or_default(), DEVICES);
        drop(machine.finish());
        time
    };
    Figure::new("enumerate_1000_devices", 1, (0..STARTS).map(sample).collect())
}

/// Queried and set to D3, and to come back: `pci9052.sys`, in Rust, whose card forgets all and is set up again.
pub(crate) fn power_cycle() -> Figure {
    let bench = Bench::new().driver(built("pci9052.sys")).inf(built("pci9052.inf")).device("pci9052");
    let bench = bench.unobserved().instruction_budget(u64::MAX >> 2);
    let machine = bench.start().expect("the driver can be loaded");
    let samples = machine.with_kernel(|cx| {
        let card = pnp::devices(cx)[0].id;
        thread::wait_for_system(cx, "bench", move |cx| {
            let mut samples = outside(|| Vec::with_capacity(SAMPLES));
            for sample in 0..=SAMPLES {
                let begun = Instant::now();
                for _ in 0..CYCLES {
                    for state in [PowerDeviceD3, PowerDeviceD0] {
                        assert_eq!(po::request::set_device(cx, card, state)?, NtStatus::SUCCESS);
                    }
                }
                // The first of them warms up.
                if sample > 0 {
                    samples.push(each(begun, CYCLES));
                }
            }
            Ok(samples)
        })
    });
    let samples = samples.unwrap_or_else(|error| panic!("power_cycle_device: {error}"));
    let report = machine.finish();
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    Figure::new("power_cycle_device", CYCLES, samples)
}
