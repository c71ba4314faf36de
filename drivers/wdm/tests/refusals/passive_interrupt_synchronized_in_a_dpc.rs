//! Nothing above PASSIVE_LEVEL keeps such a routine out.
use wdm::*;

fn dpc<S: PassiveMessageService>(messages: &PassiveMessages<S>, dispatch: &mut Dispatch) {
    messages.synchronize(dispatch, |_state, _passive| ());
}

fn main() {}
