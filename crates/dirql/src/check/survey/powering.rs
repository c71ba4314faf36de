//! Whether a driver that imports nothing for it does something of its own as its device is powered down and up: a filter, whose device another driver powers.

use super::usual;
use crate::error::Error;
use crate::machine::Boots;
use crate::play::ScriptText;

/// What a driver of no power policy sees anyway: of the system, of the device's end.
const OF_SYSTEM: &str = "tolerate; power s3; wait 20ms; power s0; wait 20ms; remove-device";
/// What it sees where another driver powers its device.
const OF_DEVICE: &str = "tolerate; power d3; wait 20ms; power d0; wait 20ms; remove-device";

/// Whether code of the driver's runs only as its device is powered down or up.
pub(super) fn knows_power(boots: &mut Boots) -> Result<bool, Error> {
    let mut reached = Vec::new();
    for script in [OF_SYSTEM, OF_DEVICE] {
        let play = ScriptText::typed(script).play().expect("it is one");
        let perform = |machine: &crate::machine::Machine| {
            machine.perform(Some(play.clone()));
            machine.reached_count()
        };
        reached.push(boots.boot_to_script(usual(), perform)?.0);
    }
    Ok(reached[1] > reached[0])
}
