//! The bus: who claims an access, the levels of the interrupt lines, the messages sent, and the kernel's [`Hardware`] over all cards.
//!
//! PCI Local Bus Specification 3.0, 3.2.2 (address decoding, configuration mechanism 1) and 2.2.6 (interrupt pins). A
//! function claims only what its command register lets it decode; an address that is not claimed reads as ones.

use kernel::hal::hardware::{
    Function, Hardware, Message, Moment, PciAddress, Question, Refusal, Width, Window,
};

use super::assign::{PlacementError, assign, legacy_irq};
use super::config::{Command, ConfigSpace};
use super::express::ExpressUnit;
use super::header::Bar;
use super::message::MessageUnit;
use super::model::{Access, Master, Model};
use super::power::{Changed, PowerUnit};
use crate::isa_dma::IsaDma;
use crate::register::{low32, ones};

/// CONFIG_ADDRESS, 32 bits.
const CONFIG_ADDRESS: u16 = 0xCF8;
/// CONFIG_DATA, 4 bytes.
const CONFIG_DATA: u16 = 0xCFC;
/// Base address registers in configuration space.
const BASES: std::ops::Range<u16> = 0x10..0x28;
/// The last port of the DMA controllers behind the bridge.
const LAST_CHANNEL_PORT: u16 = 0xDF;

/// The signal that every card with power management has: something happens for which it wakes its driver.
pub(crate) const PME: &str = "pme";

/// One PCI bus, number 0, with cards whose windows and lines firmware has assigned.
pub struct PciBus {
    slots: Vec<Slot>,
    /// What is decoded now; rebuilt whenever a base, an enable or a size changes.
    claims: Vec<Claim>,
    /// The latch of configuration mechanism 1.
    config_address: u32,
    /// The levels of the lines and the first deadline, as the cards were when one changed last.
    lines: u64,
    /// Those of cards that no other driver serves, where there are such cards as well.
    own_lines: u64,
    has_others: bool,
    deadline: Option<u64>,
    /// The first card that leaves something open.
    asking: Option<usize>,
    /// Messages that the kernel has not taken yet.
    sent: Vec<Message>,
    /// Functions that have asserted PME#, not reported to the kernel yet.
    wakes: Vec<PciAddress>,
    /// Behind the bridge to the ISA bus, which takes what no card claims.
    channels: IsaDma,
}

/// A card in its slot.
struct Slot {
    address: PciAddress,
    name: String,
    model: Box<dyn Model>,
    config: ConfigSpace,
    messages: MessageUnit,
    power: PowerUnit,
    express: ExpressUnit,
    /// The windows as they were assigned before the card left D0, until software assigns them again.
    remembered: Option<Vec<Window>>,
    line: Option<u32>,
    /// Whether a read may change what the bus knows of it,
    reads_change: bool,
    /// whether its accesses may take longer than others,
    timed: bool,
    /// and whether there is anything to be asked after a read.
    asks_after_read: bool,
    /// Whether the card is in its slot.
    present: bool,
    /// The model's windows and line loads, and whether it was there, when `claims` was last built.
    seen_bars: [Option<Bar>; 6],
    seen_line_loads: u32,
    seen_pulled: bool,
}

/// A window that is decoded now.
#[derive(Clone, Copy)]
struct Claim {
    port: bool,
    base: u64,
    last: u64,
    slot: usize,
    bar: u8,
}

impl PciBus {
    /// Resets the cards, puts them in slots and does what firmware does: bases, lines, decoding on.
    ///
    /// # Errors
    /// Cards that cannot all be placed: too many, too large, or asked to be where another is.
    pub fn new(mut cards: Vec<Box<dyn Model>>) -> Result<Self, PlacementError> {
        for card in &mut cards {
            card.reset();
        }
        let places = assign(&cards)?;
        let place = |(model, place): (Box<dyn Model>, super::assign::Assignment)| {
            let mut config = ConfigSpace::default();
            config.assign(model.header(), place.bases, legacy_irq(place.line));
            Slot {
                address: place.address,
                name: place.name,
                seen_bars: model.header().bars,
                seen_line_loads: model.header().line_loads,
                seen_pulled: model.is_pulled(),
                reads_change: model.reads_change(),
                timed: model.is_timed(),
                asks_after_read: model.reads_change() || model.is_timed(),
                messages: MessageUnit::new(model.header().messages),
                power: PowerUnit::new(model.header().power),
                express: ExpressUnit::new(model.header()),
                remembered: None,
                model,
                config,
                line: place.line,
                present: true,
            }
        };
        let mut slots: Vec<Slot> = cards.into_iter().zip(places).map(place).collect();
        slots.sort_by_key(|slot| slot.address);
        let has_others = slots.iter().any(|slot| slot.model.is_of_another());
        let mut bus = Self {
            slots,
            claims: Vec::new(),
            config_address: 0,
            lines: 0,
            own_lines: 0,
            has_others,
            deadline: None,
            asking: None,
            sent: Vec::new(),
            wakes: Vec::new(),
            channels: IsaDma::default(),
        };
        bus.channels.reset();
        bus.rebuild_claims();
        Ok(bus)
    }

    /// RST#: every card and its configuration space as at power-on, nothing assigned, nothing decoded.
    pub fn reset(&mut self) {
        let Self {
            slots,
            claims: _,
            config_address,
            lines: _,
            own_lines: _,
            has_others: _,
            deadline: _,
            asking: _,
            sent,
            wakes,
            channels,
        } = self;
        *config_address = 0;
        channels.reset();
        sent.clear();
        wakes.clear();
        for slot in slots {
            slot.reset();
            slot.power.reset();
        }
        self.rebuild_claims();
    }

    fn rebuild_claims(&mut self) {
        self.claims.clear();
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.is_awake()) {
            let command = slot.config.command();
            for window in slot.config.windows(slot.model.header()) {
                let enable = if window.port { Command::IO_SPACE } else { Command::MEMORY_SPACE };
                if command.is(enable) && window.base != 0 {
                    let last = window.base.saturating_add(window.length - 1);
                    let (port, base, bar) = (window.port, window.base, window.bar);
                    self.claims.push(Claim { port, base, last, slot: index, bar });
                }
            }
        }
        self.look();
    }

    /// Looks at the pins and deadlines of all cards.
    fn look(&mut self) {
        if self.has_others {
            self.let_others_join();
        }
        self.lines = self.driven(|_| true);
        let awake = || self.slots.iter().filter(|slot| slot.power.is_awake());
        self.deadline = awake().filter_map(|slot| slot.model.deadline()).min();
        let asks = |slot: &Slot| slot.power.is_awake() && slot.model.question().is_some();
        self.asking = self.slots.iter().position(asks);
    }

    /// The lines that cards of this kind drive.
    fn driven(&self, of_kind: impl Fn(&Slot) -> bool) -> u64 {
        let driving = self.slots.iter().filter(|slot| slot.drives_line() && of_kind(slot));
        driving.filter_map(|slot| slot.line).fold(0, |lines, line| lines | 1 << line)
    }

    /// Cards that other drivers serve interrupt whenever another one of their line does.
    #[cold]
    fn let_others_join(&mut self) {
        let own = self.driven(|slot| !slot.model.is_of_another());
        let began = own & !std::mem::replace(&mut self.own_lines, own);
        for slot in self.others_on(began) {
            slot.model.join();
        }
    }

    /// The cards on these lines that other drivers serve.
    fn others_on(&mut self, lines: u64) -> impl Iterator<Item = &mut Slot> {
        let is_on = move |slot: &&mut Slot| slot.line.is_some_and(|line| lines & 1 << line != 0);
        self.slots.iter_mut().filter(|slot| slot.model.is_of_another()).filter(is_on)
    }

    /// Who decodes an address; the lowest slot, if two do.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "three comparisons, at each access of a driver's")]
    fn claim(&self, port: bool, address: u64) -> Option<&Claim> {
        let hit = |claim: &&Claim| claim.port == port && claim.base <= address && address <= claim.last;
        self.claims.iter().find(hit)
    }

    #[cold]
    fn past_the_end(&self, claim: Claim, access: Access) -> Refusal {
        let slot = &self.slots[claim.slot];
        let window = claim.last - claim.base + 1;
        let bytes = access.bytes();
        Refusal::new(
            format!("{} BAR{}+{:X}h", slot.name, claim.bar, access.offset),
            format!("an access of {bytes} bytes runs past the end of the window ({window:X}h bytes)"),
        )
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a driver waits for it, and every call counts")]
    fn read(&mut self, at: &mut Moment<'_>, port: bool, address: u64, width: Width) -> Result<u64, Refusal> {
        let Some(claim) = self.claim(port, address) else { return Ok(ones(width as u64)) };
        let access = Access { now: at.now, bar: claim.bar, offset: address - claim.base, address, width };
        let index = claim.slot;
        if claim.last - address < width as u64 - 1 {
            return Err(self.past_the_end(*claim, access));
        }
        self.catch_up(index, at);
        let slot = &mut self.slots[index];
        if slot.messages.owns(access.bar, access.offset) {
            let read = slot.messages.window_read(access.bar, access.offset, width);
            return read.map_err(|refusal| self.name(index, refusal));
        }
        match slot.model.read(&access) {
            Ok(value) => {
                if self.slots[index].asks_after_read {
                    self.after_read(index, &access, at);
                }
                Ok(value & ones(width as u64))
            }
            Err(refusal) => Err(self.name(index, refusal)),
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as above")]
    fn write(
        &mut self,
        at: &mut Moment<'_>,
        port: bool,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        let Some(claim) = self.claim(port, address) else { return Ok(()) };
        let access = Access { now: at.now, bar: claim.bar, offset: address - claim.base, address, width };
        let index = claim.slot;
        if claim.last - address < width as u64 - 1 {
            return Err(self.past_the_end(*claim, access));
        }
        self.catch_up(index, at);
        let slot = &mut self.slots[index];
        if slot.messages.owns(access.bar, access.offset) {
            let mut sent = Vec::new();
            let written = slot.messages.window_write(access.bar, access.offset, width, value, &mut sent);
            self.send(index, sent);
            return written.map_err(|refusal| self.name(index, refusal));
        }
        match slot.model.write(&access, value & ones(width as u64)) {
            Ok(()) => {
                if slot.timed {
                    at.takes += slot.model.takes(&access, true);
                }
                self.settle(index);
                self.catch_up(index, at);
                Ok(())
            }
            Err(refusal) => Err(self.name(index, refusal)),
        }
    }

    #[inline]
    fn after_read(&mut self, index: usize, access: &Access, at: &mut Moment<'_>) {
        let slot = &mut self.slots[index];
        if slot.timed {
            at.takes += slot.model.takes(access, false);
        }
        if slot.reads_change {
            self.settle(index);
            self.catch_up(index, at);
        }
    }

    /// Puts the card's name in front of a model's refusal.
    #[cold]
    fn name(&self, index: usize, refusal: Refusal) -> Refusal {
        refusal.by(&self.slots[index].name)
    }

    /// The slot of the card of this name.
    fn index_of(&self, device: &str) -> Result<usize, String> {
        self.slots.iter().position(|slot| slot.name == device).ok_or_else(|| {
            let names: Vec<&str> = self.slots.iter().map(|slot| slot.name.as_str()).collect();
            format!("no device `{device}` on the bus; there are: {}", names.join(", "))
        })
    }

    #[inline]
    fn catch_up(&mut self, index: usize, at: &mut Moment<'_>) {
        if self.deadline.is_some_and(|deadline| deadline <= at.now) {
            self.advance_card(index, at);
        }
    }

    #[cold]
    fn advance_card(&mut self, index: usize, at: &mut Moment<'_>) {
        let Slot { model, name, config, present, power, .. } = &mut self.slots[index];
        if power.is_awake() && model.deadline().is_some_and(|deadline| deadline <= at.now) {
            let enabled = *present && !model.is_pulled() && config.command().is(Command::BUS_MASTER);
            model.advance(at.now, &mut Master::new(at.memory, &mut self.channels, name, enabled));
            self.settle(index);
        }
    }

    /// After a model ran: it may have changed its windows, its pin or its deadline, or loaded its interrupt line register.
    #[inline]
    fn settle(&mut self, index: usize) {
        if self.slots[index].model.is_changed() {
            self.look_at(index);
        }
    }

    fn look_at(&mut self, index: usize) {
        let signaled = self.slots[index].model.take_messages();
        if !signaled.is_empty() {
            let mut sent = Vec::new();
            for number in signaled {
                self.slots[index].messages.signal(number, &mut sent);
            }
            self.send(index, sent);
        }
        let slot = &mut self.slots[index];
        let header = slot.model.header();
        if header.line_loads != slot.seen_line_loads {
            slot.seen_line_loads = header.line_loads;
            slot.config.set_interrupt_line(header.loaded_line);
        }
        if header.bars != slot.seen_bars || slot.model.is_pulled() != slot.seen_pulled {
            slot.seen_bars = header.bars;
            slot.seen_pulled = slot.model.is_pulled();
            self.rebuild_claims();
        } else {
            self.look();
        }
    }

    /// Puts on the bus what a function sends. A message is a write of a bus master: if the function may not be one, it is lost.
    fn send(&mut self, index: usize, sent: Vec<Message>) {
        let slot = &self.slots[index];
        if slot.is_awake() && slot.config.command().is(Command::BUS_MASTER) {
            self.sent.extend(sent);
        }
    }

    /// A byte from the controllers behind the bridge; none if there is none at this port, or a card claims it.
    fn channel_read(&mut self, port: u16, width: Width) -> Option<u32> {
        let is_own = width == Width::Byte && self.claim(true, port.into()).is_none();
        is_own.then(|| self.channels.read(port)).flatten().map(u32::from)
    }

    /// A byte to them: whether it was one. A card that waits for its channel may have it then.
    fn channel_write(&mut self, now: u64, port: u16, width: Width, value: u32) -> bool {
        let is_own = width == Width::Byte && self.claim(true, port.into()).is_none();
        if !is_own || !self.channels.write(port, (value & 0xFF) as u8) {
            return false;
        }
        for index in 0..self.slots.len() {
            self.slots[index].model.channels_changed(now);
            self.settle(index);
        }
        true
    }

    /// What a script says of a card's power management event.
    fn raise(&mut self, index: usize, value: &str) -> Result<(), String> {
        let slot = &mut self.slots[index];
        if value != "1" {
            return Err(format!("`{PME}` is raised by 1, not by `{value}`; its driver's bus takes it back"));
        }
        if slot.power.raise()? {
            self.wakes.push(slot.address);
        }
        Ok(())
    }

    fn slot_at(&self, at: PciAddress) -> Option<usize> {
        self.slots.iter().position(|slot| slot.address == at && slot.is_there())
    }

    /// The function, and the offset of its first byte, that CONFIG_DATA shows now; none while bit 31 is 0.
    fn config_target(&self) -> Option<(PciAddress, u8)> {
        let [register, function, bus, enable] = self.config_address.to_le_bytes();
        let at = PciAddress { bus, device: function >> 3, function: function & 7 };
        (enable & 0x80 != 0).then_some((at, register & 0xFC))
    }

    /// What an access to ports CF8h–CFFh means: the latch, or bytes of configuration space from an offset.
    fn config_port(&self, port: u16, width: Width) -> Option<ConfigPort> {
        if port == CONFIG_ADDRESS && width == Width::Dword {
            return Some(ConfigPort::Address);
        }
        let byte = port.checked_sub(CONFIG_DATA).filter(|byte| *byte < 4)?;
        if u64::from(byte) + width as u64 > 4 {
            return None;
        }
        let (at, register) = self.config_target()?;
        Some(ConfigPort::Data(at, register + u8::try_from(byte).ok()?))
    }
}

/// What an access to the configuration ports reaches.
enum ConfigPort {
    Address,
    Data(PciAddress, u8),
}

impl Hardware for PciBus {
    fn port_read(&mut self, at: &mut Moment<'_>, port: u16, width: Width) -> Result<u32, Refusal> {
        match self.config_port(port, width) {
            Some(ConfigPort::Address) => Ok(self.config_address),
            Some(ConfigPort::Data(of, offset)) => Ok(self.config_read(of, offset.into(), width)),
            None if port <= LAST_CHANNEL_PORT => match self.channel_read(port, width) {
                Some(value) => Ok(value),
                None => self.read(at, true, port.into(), width).map(low32),
            },
            None => self.read(at, true, port.into(), width).map(low32),
        }
    }

    fn port_write(
        &mut self,
        at: &mut Moment<'_>,
        port: u16,
        width: Width,
        value: u32,
    ) -> Result<(), Refusal> {
        match self.config_port(port, width) {
            Some(ConfigPort::Address) => self.config_address = value,
            Some(ConfigPort::Data(of, offset)) => self.config_write(of, offset.into(), width, value),
            None if port <= LAST_CHANNEL_PORT && self.channel_write(at.now, port, width, value) => {}
            None => return self.write(at, true, port.into(), width, value.into()),
        }
        Ok(())
    }

    fn memory_read(&mut self, at: &mut Moment<'_>, address: u64, width: Width) -> Result<u64, Refusal> {
        self.read(at, false, address, width)
    }

    fn memory_write(
        &mut self,
        at: &mut Moment<'_>,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        self.write(at, false, address, width, value)
    }

    fn config_read(&mut self, at: PciAddress, offset: u16, width: Width) -> u32 {
        let bytes = (width as u64).min(4);
        let Some(index) = self.slot_at(at) else { return low32(ones(bytes)) };
        let slot = &self.slots[index];
        let conventional = u8::try_from(offset).ok();
        let of_capabilities = conventional.and_then(|offset| {
            slot.messages.config_read(offset, bytes).or_else(|| slot.power.config_read(offset, bytes))
        });
        of_capabilities.unwrap_or_else(|| {
            let value = slot.config.read(slot.model.header(), slot.model.asserts(), offset.into(), bytes);
            slot.express.config_read(offset, bytes, value)
        })
    }

    fn config_write(&mut self, at: PciAddress, offset: u16, width: Width, value: u32) {
        let Some(index) = self.slot_at(at) else { return };
        let slot = &mut self.slots[index];
        let bytes = (width as u64).min(4);
        if BASES.contains(&offset) {
            slot.remembered = None;
        }
        slot.config.write(slot.model.header(), offset.into(), bytes, value);
        let mut sent = Vec::new();
        if let Ok(offset) = u8::try_from(offset) {
            slot.messages.config_write(offset, bytes, value, &mut sent);
            if slot.power.owns(offset) {
                slot.remember();
                if slot.power.config_write(offset, bytes, value) == Changed::Reset {
                    slot.reset();
                } else if slot.power.is_awake() {
                    slot.remembered = None;
                }
            }
        }
        if slot.express.config_write(slot.model.header(), offset, bytes, value) == Changed::Reset {
            slot.remember();
            slot.reset();
        }
        self.send(index, sent);
        self.rebuild_claims();
    }

    fn is_extended(&self, at: PciAddress) -> bool {
        self.slot_at(at).is_some_and(|index| self.slots[index].model.header().is_extended())
    }

    fn functions(&self) -> Vec<Function> {
        let function = |slot: &Slot| Function {
            address: slot.address,
            name: slot.name.clone(),
            windows: slot.windows(),
            line: slot.line,
        };
        self.slots.iter().map(function).collect()
    }

    fn route(&mut self, at: PciAddress, line: u32) {
        for slot in self.slots.iter_mut().filter(|slot| slot.address == at) {
            slot.line = slot.line.map(|_| line);
        }
        self.look();
    }

    fn set_present(&mut self, at: PciAddress, present: bool) {
        for slot in self.slots.iter_mut().filter(|slot| slot.address == at) {
            slot.present = present;
        }
        self.rebuild_claims();
    }

    fn describe(&self, port: bool, address: u64) -> Option<String> {
        if port && (address | 3) == u64::from(CONFIG_ADDRESS) + 3 {
            return Some("CONFIG_ADDRESS".to_owned());
        }
        if port && (address | 3) == u64::from(CONFIG_DATA) + 3 {
            return Some("CONFIG_DATA".to_owned());
        }
        let claim = self.claim(port, address)?;
        let slot = &self.slots[claim.slot];
        let offset = address - claim.base;
        let register = if slot.messages.owns(claim.bar, offset) {
            slot.messages.describe(claim.bar, offset)
        } else {
            slot.model.describe(claim.bar, offset)
        };
        Some(format!("{} {}", slot.name, register.unwrap_or_else(|| format!("BAR{}+{offset:X}h", claim.bar))))
    }

    fn set_powered(&mut self, at: PciAddress, powered: bool) {
        for slot in self.slots.iter_mut().filter(|slot| slot.address == at) {
            slot.remember();
            slot.power.set_powered(powered);
            slot.reset();
        }
        self.rebuild_claims();
    }

    fn take_wakes(&mut self) -> Vec<PciAddress> {
        std::mem::take(&mut self.wakes)
    }

    fn lines(&self) -> u64 {
        self.lines
    }

    fn has_messages(&self) -> bool {
        !self.sent.is_empty()
    }

    fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.sent)
    }

    fn asserting(&self, line: u32) -> Vec<String> {
        let guilty = |slot: &&Slot| slot.line == Some(line) && slot.drives_line();
        self.slots.iter().filter(guilty).map(|slot| slot.name.clone()).collect()
    }

    fn ends_by_itself(&self, line: u32) -> bool {
        self.slots.iter().any(|slot| slot.line == Some(line) && slot.model.ends_by_itself())
    }

    fn left_unclaimed(&mut self, line: u32) {
        if self.has_others {
            for slot in self.others_on(1 << line) {
                slot.model.left_unclaimed();
            }
            self.look();
        }
    }

    fn is_only_of_others(&self, line: u32) -> bool {
        let asserting = 1 << line;
        self.has_others && self.lines & asserting != 0 && self.own_lines & asserting == 0
    }

    fn question(&self) -> Option<Question> {
        self.asking.and_then(|index| self.slots[index].model.question())
    }

    fn answer(&mut self, answer: u32) {
        if let Some(index) = self.asking {
            self.slots[index].model.answer(answer);
            self.look_at(index);
        }
    }

    fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    fn is_quiet(&self, lines: u64, until: u64) -> bool {
        self.lines == lines
            && self.sent.is_empty()
            && self.asking.is_none()
            && self.deadline.is_none_or(|deadline| deadline >= until)
    }

    fn advance(&mut self, at: &mut Moment<'_>) {
        if self.deadline.is_none_or(|deadline| deadline > at.now) {
            return;
        }
        for index in 0..self.slots.len() {
            self.catch_up(index, at);
        }
    }

    fn poke(&mut self, at: &mut Moment<'_>, device: &str, signal: &str, value: &str) -> Result<(), String> {
        let index = self.index_of(device)?;
        self.catch_up(index, at);
        if signal == PME {
            return self.raise(index, value).map_err(|why| format!("{device}: {why}"));
        }
        let result = self.slots[index].model.poke(at.now, signal, value);
        self.settle(index);
        self.catch_up(index, at);
        result.map_err(|why| format!("{device}: {why}"))
    }

    fn peek(&mut self, at: &mut Moment<'_>, device: &str, register: &str) -> Result<u32, String> {
        let index = self.index_of(device)?;
        self.catch_up(index, at);
        if !self.slots[index].power.is_powered() {
            return Err(format!("{device} has no power, so its registers hold nothing"));
        }
        self.slots[index].model.peek(register).map_err(|why| format!("{device}: {why}"))
    }
}

impl Slot {
    /// What it holds is lost: card and configuration space are as at power-on, nothing is assigned, nothing decoded.
    fn reset(&mut self) {
        let Self {
            address: _,
            name: _,
            model,
            config,
            messages,
            power: _,
            express,
            remembered: _,
            line: _,
            reads_change: _,
            timed: _,
            asks_after_read: _,
            present: _,
            seen_bars,
            seen_line_loads,
            seen_pulled,
        } = self;
        model.reset();
        config.reset();
        messages.reset();
        express.reset();
        *seen_bars = model.header().bars;
        *seen_line_loads = model.header().line_loads;
        *seen_pulled = model.is_pulled();
    }

    /// Its windows, as assigned last: a card that has lost its registers decodes nothing, but its addresses stay reserved.
    fn windows(&self) -> Vec<Window> {
        self.remembered.clone().unwrap_or_else(|| self.config.windows(self.model.header()))
    }

    /// What it holds may be lost next.
    fn remember(&mut self) {
        if self.remembered.is_none() {
            self.remembered = Some(self.config.windows(self.model.header()));
        }
    }

    /// Whether anybody answers in it.
    fn is_there(&self) -> bool {
        self.present && self.power.is_powered() && !self.model.is_pulled()
    }

    /// Whether what is there is in D0: below it answers to configuration accesses only.
    fn is_awake(&self) -> bool {
        self.is_there() && self.power.is_awake()
    }

    /// Whether its pin pulls its line: software may have disabled it, or enabled messages in its place.
    fn drives_line(&self) -> bool {
        self.is_awake()
            && self.model.asserts()
            && !self.messages.is_enabled()
            && !self.config.command().is(Command::INTERRUPT_DISABLE)
    }
}
