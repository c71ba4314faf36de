//! What is said of two accesses that nothing orders.
//!
//! A **race** is what loses something, or shows a part of something: a word that one of the two has read, changed and stored, and the other one has
//! stored meanwhile; a pointer that both have looked at and then stored (two that are linked into one list); a structure of more than a word that is
//! copied or stored as a whole by both. All else is **unordered**: plain loads and stores of whole words, which the processor does not tear, as flags
//! and states are read and set. Where one of the two is interlocked, such a load or store is as it was meant.

use std::fmt;

use kernel::verdict::{Related, Verdict};

use super::RULE;
use super::flows::Flows;
use super::memory::{Access, Use};

/// The rule of what is unordered and does no harm by itself.
pub(super) const UNORDERED: &str = "unordered-access";
/// Bytes that the processor loads and stores as one.
const WORD: u64 = 8;

/// What comes of two accesses that are not ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Harm {
    /// None: one of the two is an interlocked instruction, the other one loads or stores the word as a whole.
    None,
    /// None by itself.
    Unordered,
    /// Others than all bytes of one of the two are there, or are read.
    Torn,
    /// One is linked in, or taken, and the other one does not know.
    Overwritten,
    /// One changes what the other one has changed meanwhile.
    Lost,
}

/// What two accesses do to each other.
pub(super) fn harm(one: &Access, other: &Access) -> Harm {
    let both = |is: fn(&Access) -> bool| is(one) && is(other);
    let is_atomic = one.how == Use::Atomic || other.how == Use::Atomic;
    let stores = both(|access| access.how.stores());
    // What is added between a look and the store behind it is lost, whatever is stored.
    let is_looked_at = |one: &Access, other: &Access| {
        one.adds && other.how == Use::Store && other.after_load && both(Access::is_word)
    };
    if stores && (one.modifies() || other.modifies()) || is_looked_at(one, other) || is_looked_at(other, one)
    {
        Harm::Lost
    } else if stores && both(|access| access.after_load && access.bytes == WORD) {
        Harm::Overwritten
    } else if is_atomic && both(Access::is_word) {
        Harm::None
    } else if one.shared(other) > WORD {
        Harm::Torn
    } else {
        Harm::Unordered
    }
}

/// The finding.
pub(super) fn verdict(flows: &Flows, earlier: &Access, now: &Access) -> Verdict {
    let what = match harm(earlier, now) {
        Harm::None | Harm::Unordered => "the order in which they come is left to chance",
        Harm::Torn => "a mixture of both may be stored, or read",
        Harm::Overwritten => "both may find the same pointer there, and one of the two is overwritten",
        Harm::Lost => "one of the two may store between the load and the store of the other, and is lost",
    };
    let (who, before) = (flows.who(now.routine), flows.who(earlier.routine));
    let (does, did) = (Does(now), Does(earlier));
    let at = if earlier.address == now.address {
        "there".to_owned()
    } else {
        format!("at {:#x}", earlier.address)
    };
    let by = if earlier.code == now.code { "the same".to_owned() } else { By(earlier).to_string() };
    let message = format!(
        "{who} {does} at {:#x} by {} at IRQL {}, and nothing orders that with {before}, which {did} {at} by {by} at IRQL {}; {what}",
        now.address,
        By(now),
        now.irql,
        earlier.irql
    );
    let verdict = match harm(earlier, now) {
        Harm::None | Harm::Unordered => Verdict::advice("unordered-access", message),
        // Whether the words belong together, only the driver's author knows.
        Harm::Torn => Verdict::advice("data-race", message),
        _ => Verdict::warning("data-race", message),
    };
    debug_assert!(verdict.rule == RULE || verdict.rule == UNORDERED);
    let related = vec![Related { what: verb(earlier), event: earlier.event }];
    Verdict { instruction: Some(now.code).filter(|_| !now.kernel), related, ..verdict }
}

const fn verb(access: &Access) -> &'static str {
    match access.how {
        Use::Load => "loaded",
        Use::Update | Use::Atomic => "updated",
        Use::Store if access.derived => "updated",
        Use::Store => "stored",
    }
}

/// What an access does, in words.
struct Does<'a>(&'a Access);

impl fmt::Display for Does<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Access { how, derived, bytes, .. } = self.0;
        let verb = match how {
            Use::Load => "loads",
            Use::Store if *derived => "loads, changes and stores",
            Use::Store => "stores",
            Use::Update => "updates (without `lock`)",
            Use::Atomic => "updates (with `lock`)",
        };
        write!(f, "{verb} {bytes} byte{}", if *bytes == 1 { "" } else { "s" })
    }
}

/// The instruction that does it.
struct By<'a>(&'a Access);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Access { code, kernel, .. } = self.0;
        write!(f, "{} {code:#x}", if *kernel { "a call that returns to" } else { "the instruction" })
    }
}
