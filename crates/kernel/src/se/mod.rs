//! `Se*` and what stands on it: security identifiers, access control lists, security descriptors, tokens, and whether a subject may do what
//! it wants.

pub(crate) mod access;
pub(crate) mod acl;
pub(crate) mod adjust;
pub(crate) mod assign;
pub(crate) mod captured;
pub(crate) mod descriptor;
pub(crate) mod filter;
pub(crate) mod impersonation;
pub(crate) mod object;
pub(crate) mod query;
pub(crate) mod relative;
pub mod sddl;
pub(crate) mod sid;
pub(crate) mod subject;
#[cfg(test)]
mod tests;
pub mod token;
pub(crate) mod token_handle;

use std::collections::BTreeMap;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    pub(crate) tokens: token::Tokens,
    pub(crate) impersonations: impersonation::Impersonations,
    /// How often subject contexts with a token are locked.
    pub(crate) locked: BTreeMap<u64, u32>,
    /// The descriptors of devices of which one was said.
    pub(crate) devices: BTreeMap<u64, descriptor::Descriptor>,
    /// That of all others.
    pub(crate) usual: object::Usual,
    pub(crate) log: captured::Log,
}
