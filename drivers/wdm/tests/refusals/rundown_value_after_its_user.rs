//! The value stays for as long as its user.
use wdm::*;

fn late<'a>(place: &'a Rundown<u32>, dispatch: &mut Dispatch) -> Option<&'a u32> {
    let user = place.enter(dispatch)?;
    Some(&*user)
}

fn main() {}
