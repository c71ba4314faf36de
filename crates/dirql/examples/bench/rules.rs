//! What judging costs: a request, one that an interrupt ends, and computing, with all that judges and Driver Verifier's options; and the inputs
//! that `dirql check` tries.

use std::time::Instant;

use dirql::check::{self, Operation, Survey};
use dirql::{Bench, Outcome, Verifier, rules};
use engine::Flow;
use kernel::Cx;

use crate::driver::{Open, SORT, bench, empty, sampled, written};
use crate::{Figure, built, each};

/// Sequences of requests that one machine tries, and how many machines do.
const SEQUENCES: u32 = 5_000;
const MACHINES: usize = 5;
/// A code that `pciline.sys` does not know, and one that it answers.
const UNKNOWN: u32 = 0x0022_3FF8;
const STATE: u32 = 0x0022_6404;

/// With all that judges, but for what is slow, and all that Verifier stops for.
pub(crate) fn judged(bench: Bench) -> Bench {
    bench.rules(&rules::judges("all").expect("there is that list")).verifier(Verifier::ALL)
}

/// The figures that are wanted.
pub(crate) fn all(wanted: &dyn Fn(&str) -> bool) -> Vec<Figure> {
    let mut figures = Vec::new();
    if wanted("irp_roundtrip_rules") {
        figures.push(of(judged(bench()), "irp_roundtrip_rules", 1_000, empty));
    }
    if wanted("interrupt_irp_rules") {
        figures.push(of(judged(bench()), "interrupt_irp_rules", 200, written));
    }
    if wanted("races_ratio_sort") {
        figures.push(races());
    }
    for (name, code) in [("inputs_refused", UNKNOWN), ("inputs_answered", STATE)] {
        if wanted(name) {
            figures.push(inputs(name, code));
        }
    }
    figures
}

fn of(
    bench: Bench,
    name: &'static str,
    repeats: u32,
    work: impl Fn(&mut Cx<'_>, &Open, u32) -> Flow<()> + 'static,
) -> Figure {
    let machine = bench.start().expect("the driver can be loaded");
    let figure = sampled(&machine, name, repeats, work);
    let report = machine.finish();
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    figure
}

/// How many times as long a driver computes where its accesses are tested and looked at for races.
fn races() -> Figure {
    let sort = |cx: &mut Cx<'_>, open: &Open, repeats| open.repeat(cx, SORT, repeats);
    let fast = of(bench(), "", 20, sort);
    let raced = of(bench().checked(true).races(true), "", 20, sort);
    Figure::once("races_ratio_sort", raced.at(50) / fast.at(50), "x")
}

/// One sequence of requests with this code, and the way back to where it began.
fn inputs(name: &'static str, code: u32) -> Figure {
    let command = format!("ioctl h {code:#x} out 64");
    let request =
        Operation { command, code: Some(code), succeeds: true, waits: false, variant: false, needs: None };
    let survey =
        Survey { names: vec![r"\\.\PciLine0".to_owned()], operations: vec![request], ..Survey::default() };
    let sample = || {
        let bench = judged(Bench::new().driver(built("pciline.sys")).inf(built("pciline.inf")));
        let mut boots =
            bench.device("pci9052").checked(true).unobserved().boots().expect("the driver can be loaded");
        let mut tried =
            |count| check::inputs(&mut boots, &survey, &[], u64::from(count)).expect("it can be tried");
        assert_eq!(tried(1).tried, 1, "the device can be opened");
        let begun = Instant::now();
        let tried = tried(SEQUENCES);
        assert_eq!(tried.tried, u64::from(SEQUENCES));
        each(begun, SEQUENCES)
    };
    Figure::new(name, SEQUENCES, std::iter::repeat_with(sample).take(MACHINES).collect())
}
