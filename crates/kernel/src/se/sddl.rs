//! Security descriptors as text: `D:P(A;;GA;;;SY)(A;;GRGW;;;BA)`.
//!
//! Pages: *Security Descriptor Definition Language*, *ACE Strings*, *SID Strings*, *SDDL for Device Objects*. Entries for types of objects,
//! with conditions, and accounts of a domain are not here.

use abi::{
    ACCESS_ALLOWED_ACE_TYPE, ACCESS_DENIED_ACE_TYPE, DELETE, FILE_ALL_ACCESS, FILE_GENERIC_EXECUTE,
    FILE_GENERIC_READ, FILE_GENERIC_WRITE, GENERIC_ALL, GENERIC_EXECUTE, GENERIC_READ, GENERIC_WRITE,
    READ_CONTROL, SE_DACL_AUTO_INHERIT_REQ, SE_DACL_AUTO_INHERITED, SE_DACL_PROTECTED,
    SE_SACL_AUTO_INHERIT_REQ, SE_SACL_AUTO_INHERITED, SE_SACL_PROTECTED, SE_SELF_RELATIVE,
    SYSTEM_AUDIT_ACE_TYPE, WRITE_DAC, WRITE_OWNER,
};

use super::acl::{Acl, Entry};
use super::descriptor::Descriptor;
use super::sid::Sid;

/// `SYSTEM_MANDATORY_LABEL_ACE_TYPE`.
const MANDATORY_LABEL: u8 = 0x11;
/// Successful and failed accesses, in the flags of an audit entry.
const FLAGS: [(&str, u8); 7] =
    [("OI", 0x1), ("CI", 0x2), ("NP", 0x4), ("IO", 0x8), ("ID", 0x10), ("SA", 0x40), ("FA", 0x80)];

const KINDS: [(&str, u8); 4] = [
    ("A", ACCESS_ALLOWED_ACE_TYPE),
    ("D", ACCESS_DENIED_ACE_TYPE),
    ("AU", SYSTEM_AUDIT_ACE_TYPE),
    ("ML", MANDATORY_LABEL),
];

const RIGHTS: [(&str, u32); 28] = [
    ("GA", GENERIC_ALL),
    ("GR", GENERIC_READ),
    ("GW", GENERIC_WRITE),
    ("GX", GENERIC_EXECUTE),
    ("RC", READ_CONTROL),
    ("SD", DELETE),
    ("WD", WRITE_DAC),
    ("WO", WRITE_OWNER),
    ("FA", FILE_ALL_ACCESS),
    ("FR", FILE_GENERIC_READ),
    ("FW", FILE_GENERIC_WRITE),
    ("FX", FILE_GENERIC_EXECUTE),
    ("KA", 0xF_003F),
    ("KR", 0x2_0019),
    ("KW", 0x2_0006),
    ("KX", 0x2_0019),
    ("CC", 0x1),
    ("DC", 0x2),
    ("LC", 0x4),
    ("SW", 0x8),
    ("RP", 0x10),
    ("WP", 0x20),
    ("DT", 0x40),
    ("LO", 0x80),
    ("CR", 0x100),
    ("NW", 0x1),
    ("NR", 0x2),
    ("NX", 0x4),
];

/// The names of well-known identifiers: authority and sub-authorities.
const SIDS: [(&str, u64, &[u32]); 34] = [
    ("AC", 15, &[2, 1]),
    ("AN", 5, &[7]),
    ("AO", 5, &[32, 548]),
    ("AU", 5, &[11]),
    ("BA", 5, &[32, 544]),
    ("BG", 5, &[32, 546]),
    ("BO", 5, &[32, 551]),
    ("BU", 5, &[32, 545]),
    ("CD", 5, &[32, 574]),
    ("CG", 3, &[1]),
    ("CO", 3, &[0]),
    ("CY", 5, &[32, 569]),
    ("ER", 5, &[32, 573]),
    ("HI", 16, &[0x3000]),
    ("IU", 5, &[4]),
    ("LS", 5, &[19]),
    ("LU", 5, &[32, 559]),
    ("LW", 16, &[0x1000]),
    ("ME", 16, &[0x2000]),
    ("MU", 5, &[32, 558]),
    ("NO", 5, &[32, 556]),
    ("NS", 5, &[20]),
    ("NU", 5, &[2]),
    ("OW", 3, &[4]),
    ("PO", 5, &[32, 550]),
    ("PS", 5, &[10]),
    ("PU", 5, &[32, 547]),
    ("RC", 5, &[12]),
    ("RD", 5, &[32, 555]),
    ("SI", 16, &[0x4000]),
    ("SO", 5, &[32, 549]),
    ("SU", 5, &[6]),
    ("SY", 5, &[18]),
    ("WD", 1, &[0]),
];

/// Reads a descriptor.
///
/// # Errors
/// What is not understood, for people.
pub fn parse(text: &str) -> Result<Descriptor, String> {
    let mut descriptor = Descriptor { control: SE_SELF_RELATIVE, ..Descriptor::default() };
    let mut left = text.trim();
    while !left.is_empty() {
        let (part, rest) =
            left.split_once(':').ok_or_else(|| format!("`{left}` is no part: O:, G:, D:, S:"))?;
        match part {
            "O" | "G" => {
                let (sid, after) = leading_sid(rest)?;
                let to = if part == "O" { &mut descriptor.owner } else { &mut descriptor.group };
                *to = Some(sid);
                left = after;
            }
            "D" | "S" => {
                let (flags, list, after) = list(rest)?;
                descriptor.control |= control(flags, part == "D")?;
                let to = if part == "D" { &mut descriptor.dacl } else { &mut descriptor.sacl };
                *to = Some(list);
                left = after;
            }
            _ => return Err(format!("`{part}:` is no part of a descriptor; there are O:, G:, D:, S:")),
        }
    }
    Ok(descriptor)
}

/// The identifier that a text begins with, and what follows: the next part, whose name is one letter before a colon.
fn leading_sid(text: &str) -> Result<(Sid, &str), String> {
    let end = text.find(':').map_or(text.len(), |colon| colon.saturating_sub(1));
    let (sid, rest) = text.split_at_checked(end).ok_or_else(|| format!("`{text}` names no SID"))?;
    Ok((sid_of(sid)?, rest))
}

/// A list: its flags, its entries (none if it says `NO_ACCESS_CONTROL`), and what follows.
fn list(text: &str) -> Result<(&str, Option<Acl>, &str), String> {
    let begin = text.find(['(', ':']).unwrap_or(text.len());
    let (mut flags, mut rest) = match text.as_bytes().get(begin) {
        // No entry: behind the flags comes the next part.
        Some(b':') => text.split_at_checked(begin.saturating_sub(1)).unwrap_or((text, "")),
        _ => text.split_at(begin),
    };
    let mut entries = Vec::new();
    while let Some(inside) = rest.strip_prefix('(') {
        let (ace, after) = inside.split_once(')').ok_or_else(|| format!("`({inside}` has no `)`"))?;
        entries.push(entry(ace)?);
        rest = after;
    }
    let null = flags.strip_suffix("NO_ACCESS_CONTROL");
    flags = null.unwrap_or(flags);
    Ok((flags, null.is_none().then(|| Acl::new(entries)), rest))
}

fn control(mut flags: &str, is_dacl: bool) -> Result<u16, String> {
    let known = [
        ("P", if is_dacl { SE_DACL_PROTECTED } else { SE_SACL_PROTECTED }),
        ("AR", if is_dacl { SE_DACL_AUTO_INHERIT_REQ } else { SE_SACL_AUTO_INHERIT_REQ }),
        ("AI", if is_dacl { SE_DACL_AUTO_INHERITED } else { SE_SACL_AUTO_INHERITED }),
    ];
    let mut control = 0;
    while !flags.is_empty() {
        let (name, bit) = known
            .iter()
            .find(|(name, _)| flags.starts_with(name))
            .ok_or_else(|| format!("`{flags}` are no flags of a list; there are P, AR, AI"))?;
        control |= bit;
        flags = &flags[name.len()..];
    }
    Ok(control)
}

/// `type;flags;rights;object;inherited object;account`.
fn entry(text: &str) -> Result<Entry, String> {
    let fields: Vec<&str> = text.split(';').map(str::trim).collect();
    let [kind, flags, rights, "", "", account] = fields[..] else {
        return Err(format!("`({text})` is no entry here; write (A;;GA;;;SY)"));
    };
    let kind = KINDS.iter().find(|(name, _)| *name == kind);
    let (_, kind) = kind.ok_or_else(|| format!("`({text})`: its type is none of A, D, AU, ML"))?;
    let flags = pairs(flags, &FLAGS.map(|(name, bit)| (name, bit.into())))
        .ok_or_else(|| format!("`({text})`: `{flags}` are no flags of an entry"))?;
    let number = rights.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16).ok());
    let rights = number.unwrap_or_else(|| pairs(rights, &RIGHTS).or_else(|| rights.parse().ok()));
    let rights = rights.ok_or_else(|| format!("`({text})`: what stands for its rights is not understood"))?;
    Ok(Entry::new(*kind, u8::try_from(flags).unwrap_or(0), rights, &sid_of(account)?))
}

/// The bits that words of two letters stand for.
fn pairs(text: &str, known: &[(&str, u32)]) -> Option<u32> {
    let mut bits = 0;
    let mut left = text;
    while !left.is_empty() {
        let (word, rest) = left.split_at_checked(2)?;
        bits |= known.iter().find(|(name, _)| *name == word)?.1;
        left = rest;
    }
    Some(bits)
}

fn sid_of(text: &str) -> Result<Sid, String> {
    if let Some((_, authority, parts)) = SIDS.iter().find(|(name, ..)| *name == text) {
        return Ok(Sid::new(*authority, parts));
    }
    let written = || {
        let mut numbers = text.strip_prefix("S-1-")?.split('-');
        let authority = numbers.next()?.parse().ok().filter(|authority: &u64| *authority < 1 << 48)?;
        let parts = numbers.map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()?;
        (parts.len() <= usize::from(abi::SID_MAX_SUB_AUTHORITIES)).then(|| Sid::new(authority, &parts))
    };
    written()
        .ok_or_else(|| format!("`{text}` names no account that is known here; write SY, BA, WD or S-1-…"))
}
