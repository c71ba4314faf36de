//! What a driver does something of its own for, of what happens to any device: its power, which another driver may decide; directed power; special files.
//!
//! Its imports do not tell: a filter has its device powered by another driver, routines are looked up by their names, and a request is one of a `switch`. So the machine is asked: code runs then that runs in
//! what happens to any device else, too, or does not.

use super::usual;
use crate::error::Error;
use crate::machine::{Boots, Machine};
use crate::play::ScriptText;

/// What all drivers see, and requests of Plug and Play that few know, as those of the files are.
const OF_SYSTEM: &str = "tolerate; power s3; wait 20ms; power s0; wait 20ms; remove-device";
const OF_QUESTIONS: &str = "tolerate; query-stop; cancel-stop; query-remove; cancel-remove; ask-bus; lock-device; unlock-device; remove-device";
/// What they see where another driver powers their device,
const OF_DEVICE: &str = "tolerate; power d3; wait 20ms; power d0; wait 20ms; remove-device";
/// where the system powers down a device that has registered itself,
const OF_DIRECTED: &str = "tolerate; power s3; wait 20ms; power s0; wait 20ms; power directed-down; wait 20ms; power directed-up; wait 20ms; remove-device";
/// and where there are a paging file and others on it.
const OF_FILES: &str = "tolerate; query-stop; cancel-stop; query-remove; cancel-remove; ask-bus; lock-device; unlock-device; usage paging on; usage dump on; usage dump off; usage paging off; remove-device";

/// Whether code of the driver's runs only as its device is powered down or up.
pub(super) fn knows_power(boots: &mut Boots) -> Result<bool, Error> {
    does_more(boots, OF_SYSTEM, OF_DEVICE)
}

/// Whether any runs only where the system directs the device to power down.
pub(super) fn is_directed(boots: &mut Boots) -> Result<bool, Error> {
    does_more(boots, OF_SYSTEM, OF_DIRECTED)
}

/// Whether any runs only as special files are made on the device.
pub(super) fn knows_special_files(boots: &mut Boots) -> Result<bool, Error> {
    does_more(boots, OF_QUESTIONS, OF_FILES)
}

/// Whether more of the driver's code runs in the second script than in the first.
fn does_more(boots: &mut Boots, first: &str, second: &str) -> Result<bool, Error> {
    let mut reached = |script: &str| {
        let play = ScriptText::typed(script).play().expect("it is one");
        let perform = |machine: &Machine| {
            machine.perform(Some(play.clone()));
            machine.reached_count()
        };
        Ok::<_, Error>(boots.boot_to_script(usual(), perform)?.0)
    };
    Ok(reached(first)? < reached(second)?)
}
