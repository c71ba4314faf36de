//! What an administrator's program asks of the blocks that drivers offer by WMI.
//!
//! Page: *Implementing WMI*. Data are bytes: what they mean stands in a class that only the driver's MOF resource describes.

use engine::outside;
use kernel::wmi::consumer::{self, Offered, Question, Which};
use kernel::wmi::parse_guid;

use super::Machine;
use super::transfer::Completion;
use crate::error::{Error, InputError};

impl Machine {
    /// Asks a block (`{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}`): its data, new data for it, a method of it, its events.
    ///
    /// # Errors
    /// [`Error::Status`] if it fails; [`Error::Input`] if that is no GUID; [`Error::Stuck`], [`Error::Stopped`].
    pub fn wmi(&self, block: &str, which: &Which, question: &Question) -> Result<Vec<u8>, Error> {
        let Some(guid) = parse_guid(block) else {
            return Err(Error::Input(InputError::new(format!("{block} is no GUID"))));
        };
        let what = format!("the WMI request about {block}");
        let (which, question) = (which.clone(), question.clone());
        let answer = self.on_thread(&what, move |cx| {
            let answer = consumer::ask(cx, guid, &which, &question)?;
            Ok(outside(|| Completion {
                status: answer.status.0,
                information: answer.data.len() as u64,
                data: answer.data.clone(),
            }))
        })?;
        if answer.is_success() { Ok(answer.data) } else { Err(Error::Status { what, status: answer.status }) }
    }

    /// Enables the events of a block (`block:{GUID}`, as scripts have it), whatever its drivers answer.
    ///
    /// # Errors
    /// As [`Self::wmi`], but that a failure is none.
    pub(crate) fn listen(&self, block: &str) -> Result<(), Error> {
        let guid = block.strip_prefix("block:").unwrap_or(block);
        match self.wmi(guid, &Which::All, &Question::Listen) {
            Ok(_) | Err(Error::Status { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// The blocks that drivers offer by now, in the order in which they were registered.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn wmi_blocks(&self) -> Result<Vec<Offered>, Error> {
        self.on_thread("the list of WMI blocks", |cx| {
            let offered = consumer::offered(cx);
            Ok(outside(|| offered.clone()))
        })
    }
}
