//! What will be on the bus and which driver each card gets: known, and checked, before the machine exists.

use std::cell::RefCell;

use devices::pci::{Model, PciBus};
use kernel::hal::hardware::Hardware;
use kernel::pnp::identity::Identity;

use crate::bench::{Bench, Card, Inputs, card_of};
use crate::error::InputError;
use crate::inf::{DeviceIds, Installation};
use crate::windows;

/// The cards of a machine to be.
pub(crate) struct Plan {
    /// In the order of their places on the bus.
    pub(crate) cards: Vec<PlannedCard>,
    /// A bus like that of the machine, for trying what a script asks of cards.
    pub(crate) bus: RefCell<PciBus>,
}

/// A card, and what the INF installs for it.
pub(crate) struct PlannedCard {
    /// `pci9052#0`.
    pub(crate) name: String,
    /// `pci9052`, for looking up its signals.
    pub(crate) kind: String,
    pub(crate) installation: Option<Installation>,
}

impl Plan {
    /// Builds the bus once to see what is on it, and asks the INF about each card.
    ///
    /// # Errors
    /// Cards that cannot be placed; an INF with no driver for any of them, or with mistakes.
    pub(crate) fn new(bench: &Bench, inputs: &Inputs) -> Result<Self, InputError> {
        let mut bus = bus(&bench.cards)?;
        let target = windows::target(bench.settings.windows);
        let mut refusal = None;
        let mut cards = Vec::new();
        for function in bus.functions() {
            let identity = Identity::read(&mut bus, function.address);
            let ids = DeviceIds { hardware: identity.hardware_ids(), compatible: identity.compatible_ids() };
            let installation = match inputs.inf.as_ref().map(|inf| inf.installation(&ids, target)) {
                Some(Ok(installation)) => Some(installation),
                Some(Err(error)) => {
                    refusal.get_or_insert(error);
                    None
                }
                None => None,
            };
            let kind = function.name.split('#').next().unwrap_or_default().to_owned();
            cards.push(PlannedCard { name: function.name, kind, installation });
        }
        match refusal {
            Some(error) if cards.iter().all(|card| card.installation.is_none()) => Err(error.into()),
            _ => Ok(Self { cards, bus: RefCell::new(bus) }),
        }
    }
}

/// A bus with these cards.
pub(crate) fn bus(cards: &[Card]) -> Result<PciBus, InputError> {
    let cards = cards.iter().map(|card| match card {
        Card::Spec(spec) => card_of(spec),
        Card::Made(make) => Ok(make()),
    });
    let cards = cards.collect::<Result<Vec<Box<dyn Model>>, _>>()?;
    PciBus::new(cards).map_err(|error| InputError::new(error.to_string()))
}
