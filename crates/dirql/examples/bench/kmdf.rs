//! What a request costs whose driver is a framework's client: `kmdf_echo.sys` on the stand-in framework, which gives four bytes back at once.

use dirql::{Bench, Outcome};
use kernel::io::file::Operation;

use crate::driver::sampled_on;
use crate::{Figure, built};

const DEVICE: &str = r"\??\ROOT#DIRQLKMDFECHO#0000#{6d1c2b6e-7e0a-4c1b-9d37-3a54c0f2e815}";
const ECHO_BACK: u32 = 0x0022_2000;

pub(crate) fn ioctl() -> Figure {
    let bench = Bench::new().driver(built("kmdf_echo.sys")).inf(built("kmdf_echo.inf"));
    let bench = bench.framework(built("framework.sys")).unobserved().instruction_budget(u64::MAX >> 2);
    let machine = bench.start().expect("the driver can be loaded");
    assert!(machine.is_ready(), "{}", machine.finish());
    let figure = sampled_on(&machine, DEVICE, "kmdf_ioctl", 1_000, |cx, open, repeats| {
        let operation = Operation::Control(ECHO_BACK, open.number, open.output);
        (0..repeats).try_for_each(|_| open.perform(cx, operation))
    });
    let report = machine.finish();
    assert_eq!(report.outcome(), Outcome::Clean, "{report}");
    figure
}
