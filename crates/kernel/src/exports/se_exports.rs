//! What `SeExports` points to: the numbers of privileges and the well-known security identifiers.
//!
//! Pages: *SE_EXPORTS structure*, *Well-known SIDs*, *Privilege Constants*. It holds no access check.

/// One 8-byte member of `SE_EXPORTS`.
enum Member {
    /// A privilege: the low part of its LUID.
    Privilege(u32),
    /// A pointer to a security identifier: its authority and sub-authorities.
    Sid(u8, &'static [u32]),
}

use Member::{Privilege, Sid};

/// The built-in domain's sub-authority.
const BUILTIN: u32 = 32;

/// The members in the order of the structure.
const MEMBERS: [Member; 65] = [
    Privilege(2),
    Privilege(3),
    Privilege(4),
    Privilege(5),
    Privilege(6),
    Privilege(7),
    Privilege(8),
    Privilege(9),
    Privilege(10),
    Privilege(15),
    Privilege(14),
    Privilege(11),
    Privilege(12),
    Privilege(13),
    Privilege(16),
    Privilege(17),
    Privilege(18),
    Privilege(19),
    Privilege(20),
    Privilege(21),
    Privilege(22),
    Privilege(23),
    Privilege(24),
    Sid(0, &[0]),            // null
    Sid(1, &[0]),            // world
    Sid(2, &[0]),            // local
    Sid(3, &[0]),            // creator owner
    Sid(3, &[1]),            // creator group
    Sid(5, &[]),             // NT authority
    Sid(5, &[1]),            // dialup
    Sid(5, &[2]),            // network
    Sid(5, &[3]),            // batch
    Sid(5, &[4]),            // interactive
    Sid(5, &[18]),           // local system
    Sid(5, &[BUILTIN, 544]), // administrators
    Sid(5, &[BUILTIN, 545]), // users
    Sid(5, &[BUILTIN, 546]), // guests
    Sid(5, &[BUILTIN, 547]), // power users
    Sid(5, &[BUILTIN, 548]), // account operators
    Sid(5, &[BUILTIN, 549]), // system operators
    Sid(5, &[BUILTIN, 550]), // print operators
    Sid(5, &[BUILTIN, 551]), // backup operators
    Sid(5, &[11]),           // authenticated users
    Sid(5, &[12]),           // restricted
    Sid(5, &[7]),            // anonymous
    Privilege(25),
    Privilege(26),
    Privilege(27),
    Sid(5, &[19]), // local service
    Sid(5, &[20]), // network service
    Privilege(28),
    Privilege(29),
    Privilege(30),
    Privilege(31),
    Privilege(32),
    Privilege(33),
    Privilege(34),
    Privilege(35),
    Sid(5, &[17]),      // IUSR
    Sid(16, &[0]),      // untrusted integrity
    Sid(16, &[0x1000]), // low
    Sid(16, &[0x2000]), // medium
    Sid(16, &[0x3000]), // high
    Sid(16, &[0x4000]), // system
    Sid(3, &[4]),       // owner rights
];

/// Bytes set aside for one identifier: revision, count, authority, at most two sub-authorities.
const SID_BYTES: usize = 16;

/// The structure and the identifiers behind it, to lie at `address`.
pub(crate) fn bytes(address: u64) -> Vec<u8> {
    let mut table = Vec::new();
    let mut sids = Vec::new();
    for member in &MEMBERS {
        let word = match member {
            Privilege(number) => u64::from(*number),
            Sid(authority, parts) => {
                let at = address + (MEMBERS.len() * 8 + sids.len()) as u64;
                sids.extend(sid(*authority, parts));
                at
            }
        };
        table.extend(word.to_le_bytes());
    }
    table.extend(sids);
    table
}

fn sid(authority: u8, parts: &[u32]) -> [u8; SID_BYTES] {
    let mut sid = [0; SID_BYTES];
    sid[0] = 1;
    sid[1] = u8::try_from(parts.len()).unwrap_or(0);
    sid[7] = authority;
    for (place, part) in sid[8..].as_chunks_mut::<4>().0.iter_mut().zip(parts) {
        *place = part.to_le_bytes();
    }
    sid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_system_sid_is_s_1_5_18() {
        let bytes = bytes(0x1_0000);
        let word = |offset: usize| u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap());
        // SeLocalSystemSid is the 34th member of SE_EXPORTS.
        let at = usize::try_from(word(33 * 8) - 0x1_0000).unwrap();
        assert_eq!(bytes[at..at + 12], [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]);
        assert_eq!(word(8 * 8), 10, "SeLoadDriverPrivilege");
        assert!(bytes.len() < 0x1000);
    }
}
