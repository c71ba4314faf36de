//! A hash of the memory that drivers can see: equal for equal runs, wherever the host put anything.
//!
//! Pages of the user, image and system windows that can be read, with their addresses; host stacks and heap have no part in it.

use engine::Engine;
use engine::windows::PAGE;
use kernel::Kernel;

use crate::readers::Hash128;

/// The hash of all mapped pages.
pub(super) fn hash(engine: Engine, kernel: &Kernel) -> u128 {
    let mut page = vec![0_u8; 0x1000];
    let mut hash = Hash128::default();
    for address in kernel.mm.map.addresses() {
        debug_assert!(address.is_multiple_of(PAGE));
        if engine.read_bytes(address, &mut page).is_err() {
            continue;
        }
        hash.word(address);
        hash.bytes(&page);
    }
    hash.value()
}
