//! What a program that shows performance counters asks of the counter sets that drivers provide.
//!
//! Page: *PCW_CALLBACK callback function*. Values are bytes: what they mean stands in the manifest that the driver's counters were made from.

use engine::outside;
use kernel::pcw::query::{self, Question, Seen};

use super::Machine;
use crate::error::Error;

impl Machine {
    /// Asks all counter sets of this name for their instances, with names, numbers and the values of counters.
    ///
    /// # Errors
    /// [`Error::Status`] with `STATUS_NOT_FOUND` if none is registered; [`Error::Stuck`], [`Error::Stopped`].
    pub fn counters(&self, set: &str, question: &Question) -> Result<Vec<Seen>, Error> {
        let what = format!("the counters of {set}");
        let (name, question) = (set.to_owned(), question.clone());
        let seen = self.on_thread(&what, move |cx| {
            let seen = query::ask(cx, &name, &question)?;
            Ok(outside(|| seen.clone()))
        })?;
        seen.map_err(|status| Error::Status { what, status: status.0 })
    }
}
