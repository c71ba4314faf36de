//! What will be in the machine and which driver each device gets: known, and checked, before the machine exists.

use std::cell::RefCell;
use std::collections::BTreeSet;

use devices::pci::{Model, PciBus};
use kernel::hal::hardware::Hardware;
use kernel::pnp::identity::Identity;
use kernel::pnp::{root, tree};

use crate::bench::{Bench, Card, Inputs, card_of, root_of};
use crate::error::InputError;
use crate::inf::{DeviceIds, Inf, Installation, RegistryWrite, Service, Target};
use crate::windows;

/// The devices of a machine to be.
pub(crate) struct Plan {
    /// The cards in the order of their places on the bus, then the devices that are on none.
    pub(crate) cards: Vec<PlannedCard>,
    /// A bus like that of the machine, for trying what a script asks of cards.
    pub(crate) bus: RefCell<PciBus>,
    /// The services that the INFs install for any of their devices.
    pub(crate) services: Vec<Service>,
    /// What the INFs that are for no device write to the registry.
    pub(crate) registry: Vec<RegistryWrite>,
    /// The Windows that they are installed on.
    pub(crate) target: Target,
    /// Drivers may report devices that are not in the plan.
    pub(crate) may_grow: bool,
}

/// A device, and what the INF installs for it.
pub(crate) struct PlannedCard {
    /// `pci9052#0`.
    pub(crate) name: String,
    /// `pci9052`, for looking up its signals.
    pub(crate) kind: String,
    pub(crate) installation: Option<Installation>,
    /// One that is on no bus.
    pub(crate) root: Option<root::Device>,
}

impl Plan {
    /// Builds the bus once to see what is on it, and asks the INFs about each device.
    ///
    /// # Errors
    /// Cards that cannot be placed; INFs with no driver for any device, or with mistakes.
    pub(crate) fn new(bench: &Bench, inputs: &Inputs) -> Result<Self, InputError> {
        let mut bus = bus(&bench.cards)?;
        let target = windows::target(bench.settings.windows);
        let mut refusal = None;
        let mut installation = |ids: &DeviceIds| match best(&inputs.infs, ids, target) {
            Some(Ok(installation)) => Some(installation),
            Some(Err(error)) => {
                refusal.get_or_insert(error);
                None
            }
            None => None,
        };
        let mut cards: Vec<PlannedCard> = Vec::new();
        for function in bus.functions() {
            let identity = Identity::read(&mut bus, function.address);
            let ids = DeviceIds { hardware: identity.hardware_ids(), compatible: identity.compatible_ids() };
            let kind = function.name.split('#').next().unwrap_or_default().to_owned();
            let installation = installation(&ids);
            cards.push(PlannedCard { name: function.name, kind, installation, root: None });
        }
        for id in roots(bench, inputs, target)? {
            let names: BTreeSet<&str> = cards.iter().map(|card| card.name.as_str()).collect();
            let name = tree::first_free(&id, |name| names.contains(name));
            let ids = DeviceIds { hardware: vec![id.clone()], compatible: Vec::new() };
            let (installation, root) = (installation(&ids), Some(root::Device::with_id(&id)));
            cards.push(PlannedCard { name, kind: devices::root::NAME.to_owned(), installation, root });
        }
        if let Some(error) = refusal
            && cards.iter().all(|card| card.installation.is_none())
        {
            return Err(error.into());
        }
        let may_grow = inputs.infs.len() > 1 || cards.iter().any(|card| card.root.is_some());
        let without_device = inputs.infs.iter().filter_map(|inf| inf.default_installation()?.ok());
        let registry = without_device.flat_map(|installation| installation.keys).collect();
        let services = services(&inputs.infs, target);
        Ok(Self { cards, bus: RefCell::new(bus), services, registry, target, may_grow })
    }
}

/// What the INF that fits a device best installs for it, the first of equals, and all extension INFs that fit it, in their order. None if there is no INF.
pub(super) fn best(
    infs: &[Inf],
    ids: &DeviceIds,
    target: Target,
) -> Option<Result<Installation, crate::inf::Error>> {
    let mut best: Option<Result<Installation, crate::inf::Error>> = None;
    for inf in infs.iter().filter(|inf| !inf.is_extension() && inf.default_installation().is_none()) {
        let found = inf.installation(ids, target);
        let better = match (&best, &found) {
            (None, _) => true,
            (Some(Ok(best)), Ok(found)) => found.rank < best.rank,
            (Some(Err(_)), Ok(_)) => true,
            (Some(_), Err(_)) => false,
        };
        if better {
            best = Some(found);
        }
    }
    if let Some(Ok(base)) = &mut best {
        for inf in infs.iter().filter(|inf| inf.is_extension()) {
            match inf.extension(ids, target) {
                None => {}
                Some(Ok(extension)) => base.extend(extension),
                Some(Err(error)) => return Some(Err(error)),
            }
        }
    }
    best
}

/// The ids of the devices that are on no bus: those that were given, or without any device the one that the INFs are for.
fn roots(bench: &Bench, inputs: &Inputs, target: Target) -> Result<Vec<String>, InputError> {
    let mut all = Vec::new();
    for inf in &inputs.infs {
        all.extend(inf.ids(target).unwrap_or_default());
    }
    let begins =
        |id: &str, bus: &str| id.split_once('\\').is_some_and(|(own, _)| own.eq_ignore_ascii_case(bus));
    let first = all.iter().find(|id| begins(id, "ROOT")).cloned();
    let mut ids = Vec::new();
    for card in &bench.cards {
        let Card::Spec(spec) = card else { continue };
        let Some(root) = root_of(spec)? else { continue };
        let Some(id) = root.id.or_else(|| first.clone()) else {
            return Err(InputError::new(
                "device `root`: no INF that is given names a device Root\\NAME; say which it is, e.g. root,id=Root\\SOFT",
            ));
        };
        ids.push(id);
    }
    if bench.cards.is_empty()
        && let Some(inf) = bench.infs.first()
        && inputs.infs.iter().any(|inf| inf.default_installation().is_none())
    {
        // A device of any other bus than PCI can be installed by its id, too.
        let other = all.first().filter(|_| all.iter().all(|id| !begins(id, "PCI"))).cloned();
        let Some(id) = first.or(other) else {
            return Err(InputError::new(format!(
                "{}: an INF chooses a driver for a device, and no device is given; add one (see `dirql devices`)",
                inf.display()
            )));
        };
        ids.push(id);
    }
    Ok(ids)
}

/// The services that INFs install for any of their devices.
fn services(infs: &[Inf], target: Target) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for inf in infs {
        if let Some(Ok(installation)) = inf.default_installation() {
            services.extend(installation.services);
            continue;
        }
        for (_, installation) in inf.described_each(target, |_| true).unwrap_or_default() {
            // What has no driver of its own is no device's installation, but an extension of one.
            if installation.service.is_none() && !inf.is_extension() {
                continue;
            }
            for service in installation.service.into_iter().chain(installation.other_services) {
                if !services.contains(&service) {
                    services.push(service);
                }
            }
        }
    }
    services
}

/// A bus with these cards.
pub(crate) fn bus(cards: &[Card]) -> Result<PciBus, InputError> {
    let mut models: Vec<Box<dyn Model>> = Vec::new();
    for card in cards {
        match card {
            Card::Spec(spec) if root_of(spec)?.is_some() => {}
            Card::Spec(spec) => models.push(card_of(spec)?),
            Card::Made(make) => models.push(make()),
        }
    }
    PciBus::new(models).map_err(|error| InputError::new(error.to_string()))
}
