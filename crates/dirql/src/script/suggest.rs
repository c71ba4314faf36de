//! "Did you mean …?", as the cards say it: what counts as near enough is said in [`devices::suggest`].

pub use devices::suggest::nearest;
