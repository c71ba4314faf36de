//! A security descriptor's text is read when the driver is compiled.
use wdm::*;

pub const SECURITY: Security = Security::new("D:P(A;;GA;;BA)");

fn main() {}
