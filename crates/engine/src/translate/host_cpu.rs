//! Which of two equal encodings the host's processor runs faster: the choices that depend on its maker, made once.
//!
//! What is measured on one maker's processors is chosen for that maker only. A choice changes no count, no answer and nothing that a
//! driver can see.

use std::arch::x86_64::__cpuid;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

const YES: u8 = 1;
const NO: u8 = 2;
/// 0 until it is made.
static CHOICE: AtomicU8 = AtomicU8::new(0);

/// For tests: what is translated from now on is encoded as for a processor of the other maker.
///
/// Before a machine of this process begins.
pub fn encode_for_the_other_maker() {
    CHOICE.store(if is_amd(&vendor()) { NO } else { YES }, Relaxed);
}

/// Whether words of the scratch page are loaded relative to the instruction.
///
/// A register that is put aside for a few instructions comes back at once on either maker's processors, if the right
/// encoding asks for it. Intel's forward a store to a load for nothing where both have a plain address, and take 5 cycles where the load is
/// relative to the instruction. AMD's (family 26) take 8 cycles where both have a plain address, and none where the
/// load is relative.
pub(crate) fn loads_relative() -> bool {
    let mut choice = CHOICE.load(Relaxed);
    if choice == 0 {
        choice = if is_amd(&vendor()) { YES } else { NO };
        CHOICE.store(choice, Relaxed);
    }
    choice == YES
}

/// The maker's name for itself.
fn vendor() -> [u8; 12] {
    let leaf = __cpuid(0);
    let mut name = [0; 12];
    for (bytes, register) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    name
}

fn is_amd(vendor: &[u8; 12]) -> bool {
    matches!(vendor, b"AuthenticAMD" | b"HygonGenuine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maker_is_known_by_its_name() {
        assert!(is_amd(b"AuthenticAMD") && is_amd(b"HygonGenuine"));
        assert!(!is_amd(b"GenuineIntel"));
        assert!(vendor().iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '));
    }
}
