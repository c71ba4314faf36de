//! What the driver of a machine that has started offers: see [`kernel::io::offered`].

use engine::outside;
use kernel::io::offered::{self, Offered};

use kernel::pnp;

use super::Machine;
use crate::error::Error;

impl Machine {
    /// What can be asked of the driver now; nothing if it has not come as far as its driver object.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn offered(&self) -> Result<Offered, Error> {
        let driver = self.loaded.borrow().driver.iter().find_map(|driver| driver.object);
        let Some(driver) = driver else { return Ok(Offered::default()) };
        self.on_thread("the look at the driver", move |cx| {
            let offered = offered::of(cx, driver)?;
            Ok(outside(|| offered.clone()))
        })
    }

    /// How many bytes the windows of its cards have, each number once.
    pub(crate) fn window_lengths(&self) -> Vec<u64> {
        self.inside(|nt| {
            let lengths = nt.cx().with(|k| pnp::window_lengths(k));
            outside(|| lengths.iter().copied().collect())
        })
    }

    /// The devices that it has, by the names that scripts have for them.
    #[must_use]
    pub fn device_names(&self) -> Vec<String> {
        self.inside(|nt| {
            let devices = pnp::devices(&mut nt.cx());
            outside(|| devices.iter().map(|device| device.name.clone()).collect())
        })
    }
}
