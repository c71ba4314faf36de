//! What a question to a data block costs: `pci9052.sys`, in Rust, answers through the WMI library.

use std::time::Instant;

use abi::NtStatus;
use dirql::{Bench, Outcome};
use engine::outside;
use kernel::wmi::consumer::{Question, Which, ask};
use kernel::wmi::parse_guid;

use crate::{Figure, built, each};

/// The counters of a card.
const STATISTICS: &str = "{8F2D4B61-2C3E-4A7D-9B15-6E0CD38A7F42}";
const SAMPLES: usize = 300;
const REPEATS: u32 = 500;
/// Until the driver has said what it offers, in nanoseconds.
const REGISTERED: u64 = 1_000_000;

/// A consumer's question for one instance of one block: IRP_MN_QUERY_SINGLE_INSTANCE, there and back.
pub(crate) fn query() -> Figure {
    let bench = Bench::new().driver(built("pci9052.sys")).inf(built("pci9052.inf")).device("pci9052");
    let bench = bench.unobserved().instruction_budget(u64::MAX >> 2);
    let machine = bench.start().expect("the driver can be loaded");
    machine.wait(REGISTERED).expect("nothing keeps it from waiting");
    let guid = parse_guid(STATISTICS).expect("it is a GUID");
    let samples = machine.with_kernel(move |cx| {
        let mut samples = outside(|| Vec::with_capacity(SAMPLES));
        for sample in 0..=SAMPLES {
            let begun = Instant::now();
            for _ in 0..REPEATS {
                let answer = ask(cx, guid, &Which::Place(0), &Question::Query)?;
                assert_eq!((answer.status, answer.data.len()), (NtStatus::SUCCESS, 40));
            }
            // The first of them warms up.
            if sample > 0 {
                samples.push(each(begun, REPEATS));
            }
        }
        Ok(samples)
    });
    let samples = samples.unwrap_or_else(|error| panic!("wmi_query: {error}"));
    let report = machine.finish();
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    Figure::new("wmi_query", REPEATS, samples)
}
