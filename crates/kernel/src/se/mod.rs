//! `Se*` and what stands on it: security identifiers, access control lists, security descriptors.

pub mod acl;
pub mod descriptor;
pub mod relative;
pub mod sid;
#[cfg(test)]
mod tests;
