//! What can be wrong with the card, on demand: by a key from the beginning, by a script at a time.

/// The faults, each on or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// Never interrupts: no pin, no message.
    pub(crate) never: bool,
    /// Interrupts whether a driver has enabled it or not.
    pub(crate) early: bool,
    /// Its pin stays asserted once it was, whatever is acknowledged.
    pub(crate) stuck: bool,
    /// It has gone from its slot, and that was not detected: reads give ones, also of configuration space.
    pub(crate) pulled: bool,
}

impl Faults {
    /// Their names, as typed.
    pub(crate) const NAMES: [&str; 4] = ["never", "early", "stuck", "pulled"];

    /// The fault with this name.
    pub(crate) fn named(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "never" => Some(&mut self.never),
            "early" => Some(&mut self.early),
            "stuck" => Some(&mut self.stuck),
            "pulled" => Some(&mut self.pulled),
            _ => None,
        }
    }
}
