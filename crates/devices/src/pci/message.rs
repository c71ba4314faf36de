//! Message-signaled interrupts of one function: the registers of its MSI or MSI-X capability, and what becomes of a
//! message that the model signals.
//!
//! PCI Local Bus Specification 3.0, 6.8. A masked message pends and is sent when its mask goes; until then it is one
//! message, however often it is signaled. Of MSI only as many messages exist as software has enabled: those above wrap
//! round to them. A function has one of the two capabilities, not both.

use kernel::hal::hardware::{Message, Refusal, Width};

use super::header::Messages;
use super::msi::Msi;
use super::msix::MsiX;

/// The registers of a function's messages.
pub(super) enum MessageUnit {
    /// It has a pin at most.
    None,
    Msi(Msi),
    MsiX(MsiX),
}

impl MessageUnit {
    pub(super) fn new(messages: Option<Messages>) -> Self {
        match messages {
            None => Self::None,
            Some(Messages::Msi { at, next, count, wide, maskable }) => {
                Self::Msi(Msi::new(at, next, count, wide, maskable))
            }
            Some(Messages::MsiX { at, next, count, table, pending }) => {
                Self::MsiX(MsiX::new(at, next, count, table, pending))
            }
        }
    }

    pub(super) fn reset(&mut self) {
        match self {
            Self::None => {}
            Self::Msi(msi) => msi.reset(),
            Self::MsiX(msix) => msix.reset(),
        }
    }

    /// Whether software has turned messages on: then the function does not use its pin.
    pub(super) fn is_enabled(&self) -> bool {
        match self {
            Self::None => false,
            Self::Msi(msi) => msi.is_enabled(),
            Self::MsiX(msix) => msix.is_enabled(),
        }
    }

    /// The model signals message `number`; what is sent is added to `sent`.
    pub(super) fn signal(&mut self, number: u16, sent: &mut Vec<Message>) {
        match self {
            Self::None => {}
            Self::Msi(msi) => msi.signal(number, sent),
            Self::MsiX(msix) => msix.signal(number, sent),
        }
    }

    /// A read of `bytes` (1, 2 or 4) of configuration space; none if the capability is elsewhere.
    pub(super) fn config_read(&self, offset: u8, bytes: u64) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Msi(msi) => msi.config_read(offset, bytes),
            Self::MsiX(msix) => msix.config_read(offset, bytes),
        }
    }

    /// A write to configuration space. What it unmasks is sent.
    pub(super) fn config_write(&mut self, offset: u8, bytes: u64, value: u32, sent: &mut Vec<Message>) {
        match self {
            Self::None => {}
            Self::Msi(msi) => msi.config_write(offset, bytes, value, sent),
            Self::MsiX(msix) => msix.config_write(offset, bytes, value, sent),
        }
    }

    /// Whether an offset of a window belongs to the table or the pending bits: the model is not asked then.
    #[inline]
    pub(super) fn owns(&self, bar: u8, offset: u64) -> bool {
        matches!(self, Self::MsiX(msix) if msix.owns(bar, offset))
    }

    /// A read from the table or the pending bits.
    ///
    /// # Errors
    /// Accesses other than aligned ones of 4 and 8 bytes.
    pub(super) fn window_read(&self, bar: u8, offset: u64, width: Width) -> Result<u64, Refusal> {
        match self {
            Self::MsiX(msix) => msix.window_read(bar, offset, width),
            _ => Ok(u64::MAX),
        }
    }

    /// A write to the table or the pending bits. What it unmasks is sent.
    ///
    /// # Errors
    /// As [`Self::window_read`].
    pub(super) fn window_write(
        &mut self,
        bar: u8,
        offset: u64,
        width: Width,
        value: u64,
        sent: &mut Vec<Message>,
    ) -> Result<(), Refusal> {
        match self {
            Self::MsiX(msix) => msix.window_write(bar, offset, width, value, sent),
            _ => Ok(()),
        }
    }

    /// The register at an offset of a window that [`Self::owns`] it.
    pub(super) fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        match self {
            Self::MsiX(msix) => Some(msix.describe(bar, offset)),
            _ => None,
        }
    }
}
