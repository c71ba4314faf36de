//! Events of clients that treat their requests well and badly.

use super::*;
use crate::follower::Following;
use crate::rig::{call, enter, leave};

const REQUEST: u64 = 0x1000;
const OTHER: u64 = 0x2000;

/// What is said after these events, of which each tells its strand.
fn said(events: impl IntoIterator<Item = (u32, Event)>) -> Option<String> {
    crate::rig::said(&mut Following(KmdfRequests::default()), events)
}

fn complete(request: u64) -> Event {
    call("WdfRequestComplete", request, 0)
}

#[test]
fn a_request_is_completed_once_by_whichever_function() {
    for name in ["WdfRequestCompleteWithInformation", "WdfRequestCompleteWithPriorityBoost"] {
        let message = said([(1, complete(REQUEST)), (2, call(name, REQUEST, 0))]).unwrap();
        assert_eq!(message, format!("{name}: the request 0x1000 has been completed already"));
    }
    assert_eq!(said([(1, complete(REQUEST)), (1, complete(OTHER))]), None);
}

#[test]
fn a_handle_that_comes_by_a_callback_or_is_made_anew_is_another_request() {
    for role in [
        Role::EvtDeviceFileCreate,
        Role::EvtIoCanceledOnQueue,
        Role::EvtIoDefault,
        Role::EvtIoDeviceControl,
        Role::EvtIoInCallerContext,
        Role::EvtIoInternalDeviceControl,
        Role::EvtIoRead,
        Role::EvtIoWrite,
    ] {
        assert_eq!(
            said([(1, complete(REQUEST)), (1, enter(role, REQUEST)), (1, complete(REQUEST))]),
            None,
            "{role}"
        );
    }
    for name in ["WdfRequestReuse", "WdfObjectDelete"] {
        assert_eq!(said([(1, complete(REQUEST)), (1, call(name, REQUEST, 0)), (1, complete(REQUEST))]), None);
    }
    let of_another = [(1, complete(REQUEST)), (1, enter(Role::EvtIoRead, OTHER)), (1, complete(REQUEST))];
    assert!(said(of_another).is_some());
}

#[test]
fn a_function_that_may_give_a_request_out_makes_all_handles_new() {
    for name in GIVING {
        assert_eq!(
            said([(1, complete(REQUEST)), (1, call(name, OTHER, 0)), (1, complete(REQUEST))]),
            None,
            "{name}"
        );
    }
    let twice_after = [(1, call(GIVING[2], OTHER, 0)), (1, complete(REQUEST)), (1, complete(REQUEST))];
    assert!(said(twice_after).is_some());
}

#[test]
fn what_is_completed_while_a_function_gives_a_request_out_may_be_that_one() {
    let gives = || (1, call("WdfIoQueueRetrieveNextRequest", OTHER, 0));
    let between = [gives(), (2, complete(REQUEST)), (1, complete(REQUEST))];
    assert_eq!(said(between), None);
    let interrupted = [
        gives(),
        (1, enter(Role::EvtInterruptDpc, OTHER)),
        (1, call("WdfSpinLockAcquire", OTHER, 0)),
        (2, complete(REQUEST)),
        (1, leave(Role::EvtInterruptDpc)),
        (1, complete(REQUEST)),
    ];
    assert_eq!(said(interrupted), None);
    for returned in [leave(Role::EvtIoRead), call("WdfSpinLockAcquire", OTHER, 0)] {
        assert!(said([gives(), (1, returned), (2, complete(REQUEST)), (1, complete(REQUEST))]).is_some());
    }
}

#[test]
fn a_completed_request_is_not_used_unless_there_is_a_reference_to_it() {
    let ask = || call("WdfRequestIsCanceled", REQUEST, 0);
    let reference = |name| call(name, REQUEST, 0);
    let done = [(1, complete(REQUEST)), (2, ask())];
    assert!(said(done).unwrap().contains("is gone with that"));
    let held = [(1, reference("WdfObjectReferenceActual")), (1, complete(REQUEST)), (2, ask())];
    assert_eq!(said(held), None);
    let given_back = [
        (1, reference("WdfObjectReferenceActual")),
        (1, complete(REQUEST)),
        (1, reference("WdfObjectDereferenceActual")),
        (1, ask()),
    ];
    assert!(said(given_back).is_some());
    for role in REFERENCING {
        assert_eq!(said([(1, enter(role, REQUEST)), (1, complete(REQUEST)), (1, ask())]), None, "{role}");
    }
    let found = [(1, call(FIND, OTHER, 0)), (1, ask()), (1, complete(REQUEST)), (1, ask())];
    assert_eq!(said(found), None);
}

#[test]
fn what_may_be_done_in_a_cleanup_callback_is_not_held_against_the_thread_that_completes() {
    let begin =
        || [(1, call("WdfDeviceInitSetRequestAttributes", OTHER, 0)), (1, enter(Role::EvtIoRead, REQUEST))];
    let ask = |strand| (strand, call("WdfRequestGetIoQueue", REQUEST, 0));
    let then =
        |more: Vec<(u32, Event)>| said(begin().into_iter().chain([(1, complete(REQUEST))]).chain(more));
    assert_eq!(then(vec![ask(1), ask(1)]), None);
    assert!(then(vec![ask(2)]).is_some());
    assert!(then(vec![(1, leave(Role::EvtIoRead)), ask(1)]).is_some());
}

#[test]
fn of_requests_that_a_client_makes_it_may_ask_when_they_are_completed() {
    for (name, is_wrong) in [("WdfRequestGetStatus", false), ("WdfRequestGetIoQueue", true)] {
        let made = [
            (1, call(CREATE, 0, 0)),
            (1, call("WdfRequestSend", REQUEST, 0)),
            (1, complete(REQUEST)),
            (1, call(name, REQUEST, 0)),
        ];
        assert_eq!(said(made).is_some(), is_wrong, "{name}");
    }
}

#[test]
fn of_clients_whose_callbacks_are_not_seen_nothing_is_said() {
    for name in ["WdfIoQueueAssignForwardProgressPolicy", "WdfCxDeviceInitAllocate"] {
        assert_eq!(
            said([(1, call(name, OTHER, 0)), (1, complete(REQUEST)), (1, complete(REQUEST))]),
            None,
            "{name}"
        );
    }
}
