//! Prints `docs/events.md`, for `cargo xtask events`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "that is all it does")]

fn main() {
    print!("{}", dirql::readers::schema_page());
}
