//! The windows of the PCI 9052: which accesses each register takes, and where a local space's accesses go.
//!
//! LCR: 1, 2 or 4 bytes, aligned. Local spaces: memory takes 1 to 8 bytes at any alignment, as byte enables and bus
//! splitting make of it; the peripheral's registers only aligned 1, 2 or 4 bytes.

use kernel::hal::hardware::{Refusal, Width};

use super::board::{Board, Local};
use super::fields::{Cntrl, Descriptor, Range};
use super::local::ByteOrder;
use super::timing::Timed;
use super::{Pci9052, lcr, local};
use crate::pci::{Access, Model};
use crate::register::{lanes, low32, ones, parts};

const REGISTER_WIDTHS: &str = "accepts 1, 2 and 4 bytes, aligned";

impl Pci9052 {
    pub(super) fn read_lcr(&self, access: &Access) -> Result<u64, Refusal> {
        self.check_register(access)?;
        if self.erratum(access) {
            return Ok(0);
        }
        if access.width == Width::Dword {
            return Ok(lcr::whole(access.offset).map_or(0, |at| self.read_register(access.now, at).into()));
        }
        let read = parts(lcr::TABLE, access.offset, access.bytes())
            .map(|part| part.read(self.read_register(access.now, part.register)));
        Ok(read.fold(0, |value, bits| value | bits))
    }

    pub(super) fn write_lcr(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        self.check_register(access)?;
        if access.width == Width::Dword {
            if let Some(register) = lcr::whole(access.offset) {
                self.write_register(access.now, register, low32(value), u32::MAX);
            }
            return Ok(());
        }
        for part in parts(lcr::TABLE, access.offset, access.bytes()) {
            self.write_register(access.now, part.register, part.written(value), part.lanes);
        }
        Ok(())
    }

    pub(super) fn read_local(&mut self, access: &Access) -> Result<u64, Refusal> {
        let local = self.local_access(access)?;
        if self.is_held_in_reset() {
            return Ok(ones(access.bytes()));
        }
        let found = self.board.read(&local).map_err(|why| self.refused_by_board(access, why));
        let [one, other] = self.shown_by_causes;
        let shown = lanes(self.shows | one | other, access.offset) & ones(access.bytes());
        let found = found.map(|value| value | shown);
        self.causes.accessed();
        if self.reads_change() {
            self.drive();
        }
        found
    }

    pub(super) fn write_local(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        let local = self.local_access(access)?;
        if !self.is_held_in_reset() {
            self.board.write(&local, value).map_err(|why| self.refused_by_board(access, why))?;
            self.causes.accessed();
            self.drive();
        }
        Ok(())
    }

    /// How long an access takes on the local bus; the chip's own registers are not there.
    pub(super) fn local_time(&mut self, access: &Access, write: bool) -> u64 {
        let (Some(timing), Some(space)) = (&mut self.timing, usize::from(access.bar).checked_sub(2)) else {
            return 0;
        };
        let address = self.lcr.local_address(space, access.offset);
        let port = self.lcr.lasrr[space].is(Range::IO_SPACE);
        let (now, bytes) = (access.now, access.bytes());
        let held = self.board.takes(now, address, bytes);
        let timed = Timed { now, address, bytes, write, port, held };
        timing.takes(self.lcr.lasbrd[space], &timed)
    }

    #[cold]
    fn refused_by_board(&self, access: &Access, why: String) -> Refusal {
        Refusal::new(self.describe(access.bar, access.offset).unwrap_or_default(), why)
    }

    /// PLX's erratum 1 for the 9050: LCR reads return 0 where bit 7 of the base is set. Writes arrive.
    fn erratum(&self, access: &Access) -> bool {
        !self.is_9052() && (access.address - access.offset) & 0x80 != 0
    }

    /// While CNTRL bit 30 is set the board is in reset and answers nothing.
    fn is_held_in_reset(&self) -> bool {
        self.lcr.cntrl.is(Cntrl::SOFTWARE_RESET)
    }

    /// Where on the local bus an access goes, and in which byte order.
    fn local_access(&self, access: &Access) -> Result<Local, Refusal> {
        let space = usize::from(access.bar) - 2;
        let address = self.lcr.local_address(space, access.offset);
        let is_built_in = matches!(self.board, Board::BuiltIn(_));
        if is_built_in && parts(local::TABLE, address.into(), access.bytes()).next().is_some() {
            self.check_register(access)?;
        }
        let order = byte_order(self.lcr.lasbrd[space]);
        Ok(Local { now: access.now, address, bytes: access.bytes(), order })
    }

    #[inline]
    fn check_register(&self, access: &Access) -> Result<(), Refusal> {
        if access.is_aligned() && access.width != Width::Qword {
            return Ok(());
        }
        Err(self.refused_register(access))
    }

    #[cold]
    fn refused_register(&self, access: &Access) -> Refusal {
        let what = self.describe(access.bar, access.offset).unwrap_or_default();
        let how = if access.is_aligned() { "" } else { " not aligned" };
        let why = format!("an access of {} bytes{how}; it {REGISTER_WIDTHS}", access.bytes());
        Refusal::new(what, why)
    }
}

/// Big endian turns the bytes of a bus word over: 8-bit buses have nothing to turn.
fn byte_order(descriptor: Descriptor) -> ByteOrder {
    if !descriptor.is(Descriptor::BIG_ENDIAN) {
        return ByteOrder(0);
    }
    match descriptor.get(Descriptor::BUS_WIDTH) {
        0 => ByteOrder(0),
        1 => ByteOrder(1),
        _ => ByteOrder(3),
    }
}
