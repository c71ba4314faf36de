//! Registers of a card that no model knows, as its data sheet has them: what they hold after reset, and which of them tell, enable and
//! acknowledge the causes of its interrupt.
//!
//! A register has 32 bits; byte and word accesses touch their part of it. A cause is a bit of the status register: a script
//! sets it, the driver takes it back by the acknowledge register's rule, and the pin is asserted while a cause is set that
//! the enable register has set, too. *It does not* know side effects of any other register.

use super::Contents;

/// A register: a window of the card's, and bytes from its base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which base address register, 0–5.
    pub bar: u8,
    /// A multiple of 4.
    pub offset: u64,
}

/// How causes are taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rule {
    /// A one that is written clears its cause.
    #[default]
    Ones,
    /// A zero that is written clears its cause.
    Zeros,
    /// Any write clears all causes.
    Write,
    /// A read clears all causes, after it has seen them if it is of the status register.
    Read,
}

/// What is known of a card's interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Causes {
    /// Where the causes are read.
    pub status: Place,
    /// Where they are taken back; often the same.
    pub acknowledge: Place,
    /// How.
    pub rule: Rule,
    /// Where causes are let through to the pin; all are if there is none.
    pub enable: Option<Place>,
}

/// What is known of a card's registers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// What they hold after reset, if it is not 0.
    pub initial: Vec<(Place, u32)>,
    /// Those of its interrupt.
    pub causes: Option<Causes>,
}

/// Bytes of a register.
const BYTES: u64 = 4;

impl Place {
    /// The bits of it that an access of so many bytes drives, and how far the access's value is moved up (or down) to get there.
    fn lanes(self, bar: u8, offset: u64, bytes: u64) -> Option<(u32, i64)> {
        if bar != self.bar || offset >= self.offset + BYTES || offset + bytes <= self.offset {
            return None;
        }
        let byte = |n: &u64| (offset..offset + bytes).contains(&(self.offset + n));
        let lanes = (0..BYTES).filter(byte).fold(0, |lanes, n| lanes | 0xFF_u32 << (8 * n));
        Some((lanes, (offset.cast_signed() - self.offset.cast_signed()) * 8))
    }

    /// What it holds.
    pub(super) fn read(self, windows: &[Contents; 6]) -> u32 {
        let value = windows[usize::from(self.bar)].ram.read(self.offset, BYTES);
        u32::try_from(value).unwrap_or(u32::MAX)
    }

    /// Has it hold a value.
    pub(super) fn set(self, windows: &mut [Contents; 6], value: u32) {
        windows[usize::from(self.bar)].ram.write(self.offset, BYTES, value.into());
    }
}

impl Known {
    /// Power-on.
    pub(super) fn reset(&self, windows: &mut [Contents; 6]) {
        for (place, value) in &self.initial {
            place.set(windows, *value);
        }
    }

    /// The causes that reach the pin.
    pub(super) fn active(&self, windows: &[Contents; 6]) -> u32 {
        let Some(causes) = &self.causes else { return 0 };
        causes.status.read(windows) & causes.enable.map_or(u32::MAX, |enable| enable.read(windows))
    }

    /// The outside world raises causes; with none, all are taken back.
    pub(super) fn raise(&self, windows: &mut [Contents; 6], raised: u32) {
        if let Some(Causes { status, .. }) = &self.causes {
            let before = status.read(windows);
            status.set(windows, if raised == 0 { 0 } else { before | raised });
        }
    }

    /// After a read of the driver's. Whether causes were taken back.
    pub(super) fn was_read(&self, windows: &mut [Contents; 6], (bar, offset, bytes): (u8, u64, u64)) -> bool {
        let Some(Causes { status, acknowledge, rule: Rule::Read, .. }) = &self.causes else { return false };
        let Some((lanes, _)) = acknowledge.lanes(bar, offset, bytes) else { return false };
        // Where causes are read by bytes, each takes its own back.
        let left = if acknowledge == status { status.read(windows) & !lanes } else { 0 };
        status.set(windows, left);
        true
    }

    /// What the registers of the interrupt hold that a write does not store to.
    pub(super) fn before_write(&self, windows: &[Contents; 6]) -> Option<(u32, u32)> {
        let Causes { status, acknowledge, .. } = self.causes.as_ref()?;
        Some((status.read(windows), acknowledge.read(windows)))
    }

    /// After a write of the driver's was stored, which found this `before` it.
    pub(super) fn was_written(
        &self,
        windows: &mut [Contents; 6],
        (bar, offset, bytes): (u8, u64, u64),
        value: u64,
        before: Option<(u32, u32)>,
    ) {
        let (Some(causes), Some((before, stays))) = (&self.causes, before) else { return };
        let Causes { status, acknowledge, rule, .. } = causes;
        let left = acknowledge.lanes(bar, offset, bytes).map_or(before, |(lanes, shift)| {
            let moved = if shift < 0 { value >> -shift } else { value << shift };
            let written = u32::try_from(moved & u64::from(lanes)).unwrap_or(0);
            match rule {
                Rule::Ones => before & !written,
                Rule::Zeros => before & (written | !lanes),
                Rule::Write => 0,
                Rule::Read => before,
            }
        });
        acknowledge.set(windows, stays);
        status.set(windows, left);
    }

    /// The name of a register here, for people.
    pub(super) fn name(&self, bar: u8, offset: u64) -> Option<&'static str> {
        let causes = self.causes.as_ref()?;
        let is = |place: Place| place.lanes(bar, offset, 1).is_some();
        if is(causes.acknowledge) && is(causes.status) {
            Some("interrupt status, acknowledged here")
        } else if is(causes.acknowledge) {
            Some("interrupt acknowledge")
        } else if is(causes.status) {
            Some("interrupt status")
        } else if causes.enable.is_some_and(is) {
            Some("interrupt enable")
        } else {
            None
        }
    }
}
