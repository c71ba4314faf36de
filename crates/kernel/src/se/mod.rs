//! `Se*` and what stands on it: security identifiers, access control lists, security descriptors, tokens, and whether a subject may do what
//! it wants.

pub mod access;
pub mod acl;
pub mod assign;
pub mod captured;
pub mod descriptor;
pub mod filter;
pub mod impersonation;
pub mod object;
pub mod query;
pub mod relative;
pub mod sddl;
pub mod sid;
pub mod subject;
#[cfg(test)]
mod tests;
pub mod token;
pub mod token_handle;

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
    pub(crate) log: captured::Log,
}
