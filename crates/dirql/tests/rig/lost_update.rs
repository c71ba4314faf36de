//! What searches ask of `lost_update.sys`, those of the library and those of the command: requests at once, of which some lose an
//! update in some schedules.
#![allow(dead_code, reason = "each test program uses its part of it")]

/// Two requests at once, and what is asked when both have ended.
macro_rules! two_at_once {
    ($one:literal, $other:literal, $end:literal) => {
        concat!(
            "open \\\\.\\DirqlLostUpdate as a\n",
            "open \\\\.\\DirqlLostUpdate as b\n",
            concat!("t: ioctl a ", $one, "\n"),
            concat!("u: ioctl b ", $other, "\n"),
            "join t; join u\n",
            $end
        )
    };
}

/// Two threads and a DPC increment; nothing may be lost.
pub(crate) const UNLOCKED: &str = r"open \\.\DirqlLostUpdate as a
open \\.\DirqlLostUpdate as b
open \\.\DirqlLostUpdate as c
t: ioctl a 0x222000
u: ioctl b 0x222000
ioctl c 0x222004
join t; join u
ioctl c 0x222008 out 4 expect u32:0";

/// Two threads; the script expects no lost update.
pub(crate) const COUNTED: &str = two_at_once!("0x222000", "0x222000", "ioctl a 0x222008 out 4 expect u32:0");

/// Two threads under the lock.
pub(crate) const LOCKED: &str = two_at_once!("0x222010", "0x222010", "ioctl a 0x222008 out 4 expect u32:0");

/// Two threads, with nothing between load and store that others could see: a preemption between plain instructions alone loses an
/// update, and which these are is learned.
pub(crate) const QUIET: &str = two_at_once!("0x22200c", "0x22200c", "ioctl a 0x222008 out 4 expect u32:0");

/// A thread's and a DPC's increment, as quietly.
pub(crate) const QUIET_DPC: &str = r"open \\.\DirqlLostUpdate as a
open \\.\DirqlLostUpdate as b
t: ioctl a 0x22200c
ioctl b 0x222014
join t
ioctl a 0x222008 out 4 expect u32:0";

/// `QUIET`, and the script does not look.
pub(crate) const UNSEEN: &str = two_at_once!("0x22200c", "0x22200c", "");

/// Kills the process in schedules that lose an update.
pub(crate) const WRECKING: &str = two_at_once!("0x222000", "0x222000", "ioctl a 0x22202c");

/// The same schedules, of which those that lose an update do what only Driver Verifier stops for.
pub(crate) const DIFFERING: &str = two_at_once!("0x222000", "0x222000", "ioctl a 0x222030 expect any");

/// The same schedules, all of them clean.
pub(crate) const HARMLESS: &str = two_at_once!("0x222000", "0x222000", "ioctl a 0x222010");

/// Two bits of a byte.
pub(crate) const BITS: &str = two_at_once!("0x222020", "0x222024", "ioctl a 0x222028 out 4 expect u32:3");

/// One bit each of two bytes beside each other.
pub(crate) const BYTES: &str = two_at_once!("0x222018", "0x22201c", "");
