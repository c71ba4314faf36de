//! The card's hardware, from start to stop: its registers, and its interrupts in one of three ways.

use wdm::abi::{CONNECT_FULLY_SPECIFIED, CONNECT_MESSAGE_BASED_PASSIVE, PASSIVE_LEVEL};
use wdm::{
    Device, MemoryWindow, Message, Messages, NtStatus, Passive, PassiveMessages, Resource, Resources, Result,
    Shared, delay_milliseconds, stall_microseconds,
};

use crate::card::Card;
use crate::counts::Counted;
use crate::isr::{Chip, IDENTIFICATION, Isr, OfVector, RAISE, Waiting};
use crate::{MESSAGES, TAG};

/// What IDENTIFICATION reads: "Benc".
const BENCH: u32 = 0x636E_6542;

/// How the interrupts are connected.
#[expect(clippy::large_enum_variant, reason = "there is one of it, where the device is")]
enum Interrupts {
    All(Messages<Isr>),
    AtPassive(PassiveMessages<Waiting>),
    Each { connected: [Option<Message<OfVector>>; MESSAGES], level: u8 },
}

/// A card in use. The interrupts go first when it is dropped.
pub(crate) struct Hardware {
    interrupts: Interrupts,
    /// The level of the line, if it has one.
    line: u8,
    pub(crate) chip: Shared<Chip>,
}

impl Hardware {
    /// Takes the card into use.
    ///
    /// # Errors
    /// `STATUS_DEVICE_CONFIGURATION_ERROR` if it is no such card, and what mapping and connecting say.
    pub(crate) fn start(
        device: &Device<Card>,
        resources: &Resources<'_>,
        passive: &mut Passive,
    ) -> Result<Self> {
        let window = resources.memory();
        let line = resources.line();
        let registers = MemoryWindow::map(&window.ok_or(NtStatus::DEVICE_CONFIGURATION_ERROR)?, passive)?;
        if registers.read(IDENTIFICATION) != BENCH {
            return Err(NtStatus::DEVICE_CONFIGURATION_ERROR);
        }
        let chip = Shared::new(Chip::new(registers), TAG, passive)?;
        chip.quiet();
        let interrupts = match device.connect {
            CONNECT_FULLY_SPECIFIED => each(device, resources, &chip, passive)?,
            CONNECT_MESSAGE_BASED_PASSIVE => {
                let state = Waiting(Isr::new(&chip));
                let connected = PassiveMessages::connect(device, line.as_ref(), state, TAG, passive)?;
                Interrupts::AtPassive(connected)
            }
            _ => Interrupts::All(Messages::connect(device, line.as_ref(), Isr::new(&chip), TAG, passive)?),
        };
        chip.enable();
        Ok(Self { interrupts, line: line.map_or(0, |line| line.irql()), chip })
    }

    /// Raises sources.
    pub(crate) fn raise(&self, sources: u32) {
        self.chip.registers.write(RAISE, sources);
    }

    /// How the interrupts are connected, and what came.
    pub(crate) fn tell(&self, passive: &mut Passive) -> Counted {
        let counts = &self.chip.counts;
        match &self.interrupts {
            Interrupts::All(messages) => {
                let own = messages.synchronize(passive, |isr, _dirql| isr.own());
                let (count, level) =
                    messages.table().map_or((0, self.line), |table| (table.count, table.irql));
                counts.tell(messages.version(), count, level, own)
            }
            Interrupts::AtPassive(messages) => {
                let own = messages.synchronize(passive, |waiting, _passive| waiting.0.own());
                let (count, level) =
                    messages.table().map_or((0, PASSIVE_LEVEL), |table| (table.count, table.irql));
                counts.tell(messages.version(), count, level, own)
            }
            Interrupts::Each { connected, level } => {
                let each = connected.iter().flatten();
                let own = each.map(|message| message.synchronize(passive, |state, _dirql| state.isr.own()));
                let (count, own) = own.fold((0, 0), |(count, sum), own| (count + 1, sum + own));
                counts.tell(CONNECT_FULLY_SPECIFIED, count, *level, own)
            }
        }
    }

    /// Raises a source while the routine of connection `whose` is kept out; how often it was served until that ends.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER`: there is no such connection.
    pub(crate) fn hold(&self, whose: u32, source: u32, passive: &mut Passive) -> Result<u32> {
        let counts = &self.chip.counts;
        let before = counts.served(source);
        let raise = || self.raise(1_u32.checked_shl(source).unwrap_or(0));
        let at_level = || {
            raise();
            stall_microseconds(20);
            counts.served(source) - before
        };
        match &self.interrupts {
            Interrupts::All(messages) => Ok(messages.synchronize(passive, |_isr, _dirql| at_level())),
            Interrupts::AtPassive(messages) => Ok(messages.synchronize(passive, |_waiting, passive| {
                raise();
                delay_milliseconds(20, passive);
                counts.served(source) - before
            })),
            Interrupts::Each { connected, .. } => {
                let message = connected.get(whose as usize).and_then(Option::as_ref);
                let message = message.ok_or(NtStatus::INVALID_PARAMETER)?;
                Ok(message.synchronize(passive, |_state, _dirql| at_level()))
            }
        }
    }
}

/// Each message by its vector.
fn each(
    device: &Device<Card>,
    resources: &Resources<'_>,
    chip: &Shared<Chip>,
    passive: &mut Passive,
) -> Result<Interrupts> {
    let vectors = resources.iter().filter_map(|resource| match resource {
        Resource::Messages(vectors) => Some(vectors.iter()),
        _ => None,
    });
    let mut connected = [const { None }; MESSAGES];
    let mut level = 0;
    for ((place, vector), message) in connected.iter_mut().zip(vectors.flatten()).zip(0..) {
        let state = OfVector { isr: Isr::new(chip), message };
        *place = Some(Message::connect(device, &vector, state, TAG, passive)?);
        level = level.max(vector.irql());
    }
    match connected {
        [None, ..] => Err(NtStatus::DEVICE_CONFIGURATION_ERROR), // it has no messages
        _ => Ok(Interrupts::Each { connected, level }),
    }
}
