//! Devices that are registered as WMI data providers, and the blocks that each offers.
//!
//! Pages: *Registering as a WMI Data Provider*, *IoWMIRegistrationControl function*, *Bug Check 0xC4* (DB). A provider has a 32-bit identifier besides
//! its device object, as on any 64-bit Windows.

use abi::{DEVICE_OBJECT, DriverPtr, WMIREG_FLAG_EVENT_ONLY_GUID};
use engine::{Flow, StrandId};

use super::{Guid, State};
use crate::cx::{Cx, Kernel};
use crate::io::violation::device_name;
use crate::ke::wait;
use crate::verdict::Verdict;
use crate::witness;

/// What the instances of a block are called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Names {
    /// The driver says it each time.
    Dynamic,
    /// As it was registered.
    Static(Vec<String>),
}

/// A block that a provider has registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) guid: Guid,
    /// `WMIREG_FLAG_*`.
    pub(super) flags: u32,
    pub(super) names: Names,
    /// The name of the MOF resource of its registration.
    pub(super) mof: Option<String>,
}

/// A device that is registered.
pub(super) struct Provider {
    pub(super) device: u64,
    pub(super) id: u32,
    /// The moment of its registration.
    pub(super) registered: u64,
    pub(super) blocks: Vec<Block>,
    /// Threads that have sent it a request and wait for its end.
    pub(super) asking: Vec<StrandId>,
    /// The thread that deregisters it, and waits for those.
    pub(super) leaver: Option<StrandId>,
    /// It gets no requests: it is being deregistered, or `WMIREG_ACTION_BLOCK_IRPS` has asked for that.
    pub(super) is_blocked: bool,
}

impl State {
    /// A device becomes a provider.
    pub(super) fn add(&mut self, device: u64, registered: u64) -> u32 {
        self.last_id += 1;
        let (blocks, asking) = (Vec::new(), Vec::new());
        let id = self.last_id;
        self.left.remove(&device);
        self.providers.push(Provider {
            device,
            id,
            registered,
            blocks,
            asking,
            leaver: None,
            is_blocked: false,
        });
        id
    }

    pub(super) fn provider(&mut self, id: u32) -> Option<&mut Provider> {
        self.providers.iter_mut().find(|provider| provider.id == id)
    }

    /// The provider that this device is.
    pub(super) fn of_device(&mut self, device: u64) -> Option<&mut Provider> {
        self.providers.iter_mut().find(|provider| provider.device == device)
    }

    /// Forgets a provider.
    pub(super) fn remove(&mut self, id: u32) {
        if let Some(place) = self.providers.iter().position(|provider| provider.id == id) {
            let gone = self.providers.remove(place);
            self.left.insert(gone.device);
        }
    }

    /// The providers that have a block, with what they have registered of it.
    pub(super) fn offers(&self, guid: Guid) -> impl Iterator<Item = (u32, &Block)> {
        let providers = self.providers.iter().filter(|provider| !provider.is_blocked);
        providers.filter_map(move |provider| {
            let block = provider.blocks.iter().find(|block| block.guid == guid)?;
            Some((provider.id, block))
        })
    }

    /// The same, of those that can be asked for data.
    pub(super) fn offers_data(&self, guid: Guid) -> impl Iterator<Item = (u32, &Block)> {
        self.offers(guid).filter(|(_, block)| block.flags & WMIREG_FLAG_EVENT_ONLY_GUID == 0)
    }

    /// As [`State::offers`], to be kept.
    pub(super) fn with_block(&self, guid: &Guid) -> Vec<(u32, Block)> {
        self.offers(*guid).map(|(id, block)| (id, block.clone())).collect()
    }

    /// As [`State::offers_data`], to be kept.
    pub(super) fn with_data(&self, guid: &Guid) -> Vec<(u32, Block)> {
        self.offers_data(*guid).map(|(id, block)| (id, block.clone())).collect()
    }
}

/// Waits until no request of a provider is under way, and forgets it.
///
/// # Errors
/// A verdict if the caller has sent one of them, and would wait for itself.
pub(super) fn leave(cx: &mut Cx<'_>, id: u32) -> Flow<()> {
    let strand = cx.with(|k| k.ke.processor().thread);
    let Some((device, own, busy)) = cx.with(|k| {
        let provider = k.wmi.provider(id)?;
        provider.is_blocked = true;
        let own = provider.asking.contains(&strand);
        let busy = !provider.asking.is_empty();
        if busy && !own {
            provider.leaver = Some(strand);
        }
        Some((provider.device, own, busy))
    }) else {
        return Ok(());
    };
    if own {
        let name = device_name(cx, DriverPtr::new(device));
        let message = format!(
            "IoWMIRegistrationControl deregisters {name} in its dispatch routine for IRP_MJ_SYSTEM_CONTROL: it waits for the end of all these \
             requests, and this one ends only after it"
        );
        return Err(cx.stop(Verdict::error("wmi-deregistered-in-request", message)));
    }
    if busy {
        wait::for_grant(cx, device, "IoWMIRegistrationControl")?;
    }
    cx.with(|k| k.wmi.remove(id));
    Ok(())
}

/// A request to a provider is over: who has waited for the last of them goes on.
pub(super) fn answered(k: &mut Kernel, id: u32) {
    let strand = k.ke.processor().thread;
    let Some(provider) = k.wmi.provider(id) else { return };
    if let Some(place) = provider.asking.iter().position(|asking| *asking == strand) {
        provider.asking.remove(place);
    }
    if provider.asking.is_empty()
        && let Some(leaver) = provider.leaver.take()
    {
        wait::grant(k, leaver);
    }
}

/// `IoDeleteDevice` of this device: it must not be a provider any more.
///
/// # Errors
/// With Driver Verifier's miscellaneous checks, a verdict if it is.
pub(crate) fn device_deleted(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let Some((id, registered)) =
        cx.with(|k| k.wmi.of_device(device.address).map(|provider| (provider.id, provider.registered)))
    else {
        cx.with(|k| k.wmi.left.remove(&device.address));
        return Ok(());
    };
    cx.with(|k| {
        k.wmi.remove(id);
        k.wmi.left.remove(&device.address);
    });
    let name = device_name(cx, device);
    let message = format!(
        "IoDeleteDevice on {name}, which is registered as a WMI data provider: IoWMIRegistrationControl with WMIREG_ACTION_DEREGISTER first"
    );
    let verdict = Verdict::verifier("wmi-still-registered", message).related("registered", registered);
    cx.verify(verdict.bug_check(0xC4, [0xDB, device.address, 0, 0]))
}

/// The moment of now, for a registration.
pub(super) fn now(cx: &mut Cx<'_>) -> u64 {
    witness::moment(cx)
}
