//! Stories of requests, locks and run-down, against the kernel of `fake`.
//!
//! Hardware, dispatch and Plug and Play are not tested here: dirql runs a whole driver for those.

use core::ptr::{NonNull, null_mut};
use std::boxed::Box;
use std::vec::Vec;

use abi::NtStatus;

use crate::device::Device;
use crate::fake::{self, Request};
use crate::irp::{Owned, PendingIrp};
use crate::irql::{Passive, at_dispatch};
use crate::pool::{PoolBox, Tag};
use crate::{FileId, IrpQueue, ManagedQueue, Next, Refused, Rundown, SpinLock, Way};

const TAG: Tag = Tag::new(b"test");

struct Queues {
    waiting: IrpQueue,
}

/// A device with a queue of this capacity, and the proof that tests run at `PASSIVE_LEVEL`.
fn rig(capacity: usize) -> (Device<Queues>, Passive) {
    // SAFETY: the fake processor is at PASSIVE_LEVEL.
    let mut passive = unsafe { Passive::assume() };
    (Device::unattached(Queues { waiting: IrpQueue::new(capacity) }, &mut passive), passive)
}

/// A pended request that the device's remove lock is held for.
fn pended(device: &Device<Queues>, request: &mut Request) -> PendingIrp {
    let irp = NonNull::from(&mut request.irp);
    device.remove_lock.acquire(irp.as_ptr().cast()).unwrap();
    // SAFETY: the request is the test's, and its lock was taken.
    unsafe { PendingIrp::from_raw(irp, &raw const device.remove_lock) }
}

fn park(device: &Device<Queues>, request: &mut Request, passive: &mut Passive) -> Option<Refused> {
    let irp = pended(device, request);
    device.park(irp, |queues| &queues.waiting, passive).err().map(|(irp, why)| {
        irp.complete(NtStatus::CANCELLED, 0, passive);
        why
    })
}

fn requests<const N: usize>() -> [Box<Request>; N] {
    core::array::from_fn(|index| Request::read(index as u64 % 2, 4))
}

fn at(request: &Request) -> usize {
    (&raw const request.irp).addr()
}

#[test]
fn requests_leave_in_the_order_they_came() {
    let (device, mut passive) = rig(9);
    let mut all = requests::<3>();
    for request in &mut all {
        assert_eq!(park(&device, request, &mut passive), None);
    }
    let mut order = Vec::new();
    while let Some(irp) = device.waiting.pop(&mut passive) {
        irp.complete(NtStatus::SUCCESS, 0, &mut passive);
        order.extend(fake::completed().iter().map(|done| done.0));
    }
    assert_eq!(order, [at(&all[0]), at(&all[1]), at(&all[2])]);
    assert_eq!((fake::locked(), fake::irql()), (0, 0), "no lock is left, and the level is as before");
}

#[test]
fn a_cancelled_request_leaves_the_middle_of_the_queue_and_completes_once() {
    let (device, mut passive) = rig(9);
    let mut all = requests::<3>();
    for request in &mut all {
        assert_eq!(park(&device, request, &mut passive), None);
    }
    assert!(all[1].cancel());
    assert_eq!(fake::completed(), [(at(&all[1]), NtStatus::CANCELLED, 0)]);
    assert_eq!((fake::locked(), fake::irql()), (2, 0));
    for request in [&all[0], &all[2]] {
        let irp = device.waiting.pop(&mut passive).unwrap();
        irp.complete(NtStatus::SUCCESS, 4, &mut passive);
        assert_eq!(fake::completed(), [(at(request), NtStatus::SUCCESS, 4)]);
    }
    assert!(device.waiting.pop(&mut passive).is_none());
}

#[test]
fn a_request_that_left_the_queue_can_no_longer_be_cancelled() {
    let (device, mut passive) = rig(9);
    let mut request = Request::read(0, 4);
    assert_eq!(park(&device, &mut request, &mut passive), None);
    let irp = device.waiting.pop(&mut passive).unwrap();
    assert!(!request.cancel());
    irp.complete(NtStatus::SUCCESS, 0, &mut passive);
    assert_eq!(fake::completed().len(), 1);
}

#[test]
fn a_request_cancelled_before_it_waits_is_handed_back() {
    let (device, mut passive) = rig(9);
    let mut request = Request::read(0, 4);
    assert!(!request.cancel());
    assert_eq!(park(&device, &mut request, &mut passive), Some(Refused::Cancelled));
    assert!(device.waiting.pop(&mut passive).is_none());
    assert_eq!((fake::completed().len(), fake::locked()), (1, 0));
}

#[test]
fn a_queue_of_one_takes_one() {
    let (device, mut passive) = rig(1);
    let [mut first, mut second] = requests();
    assert_eq!(park(&device, &mut first, &mut passive), None);
    assert_eq!(park(&device, &mut second, &mut passive), Some(Refused::Full));
    assert!(first.cancel());
    let mut third = Request::read(0, 4);
    assert_eq!(park(&device, &mut third, &mut passive), None);
    drop(device.waiting.pop(&mut passive));
}

#[test]
fn closing_a_handle_takes_only_its_own_requests() {
    let (device, mut passive) = rig(9);
    let mut all = requests::<4>();
    let mut files: Vec<FileId> = Vec::new();
    for request in &mut all {
        let irp = pended(&device, request);
        files.push(irp.file());
        assert!(device.park(irp, |queues| &queues.waiting, &mut passive).is_ok());
    }
    while let Some(irp) = device.waiting.pop_of(files[1], &mut passive) {
        irp.complete(NtStatus::CANCELLED, 0, &mut passive);
    }
    let done: Vec<_> = fake::completed().iter().map(|done| done.0).collect();
    assert_eq!(done, [at(&all[1]), at(&all[3])]);
    while device.waiting.pop(&mut passive).is_some() {}
}

#[test]
fn a_request_that_is_dropped_fails() {
    let (device, _) = rig(1);
    let mut request = Request::read(0, 4);
    drop(pended(&device, &mut request));
    assert_eq!(fake::completed(), [(at(&request), NtStatus::UNSUCCESSFUL, 0)]);
    assert_eq!(fake::locked(), 0);
}

#[test]
fn no_more_is_transferred_than_a_request_has_room_for() {
    let (device, mut passive) = rig(1);
    for (said, most) in [(3, 3), (4, 4), (5, 4), (usize::MAX, 4)] {
        let mut request = Request::read(0, 4);
        pended(&device, &mut request).complete(NtStatus::SUCCESS, said, &mut passive);
        assert_eq!(fake::completed(), [(at(&request), NtStatus::SUCCESS, most)], "the driver said {said}");
    }
}

#[test]
fn a_request_without_a_remove_lock_releases_none() {
    let mut request = Request::read(0, 4);
    // SAFETY: the request is the test's.
    drop(unsafe { Owned::new(NonNull::from(&mut request.irp), null_mut()) });
    assert_eq!((fake::completed().len(), fake::locked()), (1, 0));
}

#[test]
fn a_spin_lock_raises_and_comes_back_from_either_level() {
    let (_, mut passive) = rig(1);
    let lock = SpinLock::new(1);
    assert_eq!(lock.with(&mut passive, |value, _dispatch| core::mem::replace(value, 2)), 1);
    assert_eq!(fake::irql(), 0);
    at_dispatch(&mut passive, |dispatch| {
        assert_eq!(lock.with(dispatch, |value, _dispatch| *value), 2);
        assert_eq!(fake::irql(), abi::DISPATCH_LEVEL, "the lock was taken at this level, and leaves it");
    });
    assert_eq!(fake::irql(), 0);
}

#[test]
fn what_is_taken_away_lets_nobody_in() {
    let (_, mut passive) = rig(1);
    let place = Rundown::new(TAG, &mut passive).unwrap();
    assert!(place.enter(&mut passive).is_none());
    assert!(place.put(7, &mut passive).is_ok());
    assert_eq!(place.put(8, &mut passive), Err(8), "one at a time");
    assert_eq!(place.enter(&mut passive).as_deref(), Some(&7));
    assert_eq!(place.take(&mut passive), Some(7));
    assert!(place.enter(&mut passive).is_none());
    assert_eq!(place.take(&mut passive), None);
    assert!(place.put(9, &mut passive).is_ok(), "and again");
}

#[test]
fn the_last_user_lets_the_taker_go_on() {
    let (_, mut passive) = rig(1);
    let place = Rundown::new(TAG, &mut passive).unwrap();
    assert!(place.put(7, &mut passive).is_ok());
    let (one, other) = (place.enter(&mut passive).unwrap(), place.enter(&mut passive).unwrap());
    place.close_for_test();
    assert!(place.enter(&mut passive).is_none(), "it is being taken");
    drop(one);
    assert!(!place.is_drained());
    drop(other);
    assert!(place.is_drained());
}

#[test]
fn input_and_output_of_a_control_request_are_values() {
    let (device, mut passive) = rig(1);
    const BUFFERED: u32 = 0x22_2000;
    let cases = [
        (BUFFERED, 8, 4, Ok([1, 2]), Ok(4)),
        (BUFFERED, 7, 16, Err(NtStatus::BUFFER_TOO_SMALL), Ok(4)),
        (BUFFERED, 16, 3, Ok([1, 2]), Err(NtStatus::BUFFER_TOO_SMALL)),
        (BUFFERED + abi::METHOD_OUT_DIRECT, 8, 8, Ok([1, 2]), Err(NtStatus::INVALID_DEVICE_REQUEST)),
        (
            BUFFERED + abi::METHOD_NEITHER,
            8,
            8,
            Err(NtStatus::INVALID_DEVICE_REQUEST),
            Err(NtStatus::INVALID_DEVICE_REQUEST),
        ),
    ];
    for (code, given, room, input, output) in cases {
        let mut request = Request::control(code, given, room);
        request.buffer[..8].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
        let mut irp = pended(&device, &mut request);
        assert_eq!(irp.input::<[u32; 2]>(), input, "{given} bytes by {code:#x}");
        assert_eq!(irp.output(&0xAABB_CCDD_u32), output, "room for {room} by {code:#x}");
        irp.complete(NtStatus::SUCCESS, 16, &mut passive);
        assert_eq!(fake::completed()[0].2, u64::from(room), "and no more is reported than that");
        if output.is_ok() {
            assert_eq!(request.buffer[..4], [0xDD, 0xCC, 0xBB, 0xAA]);
        }
    }
    let mut read = Request::read(0, 4);
    let mut irp = pended(&device, &mut read);
    assert_eq!(irp.input::<u8>(), Err(NtStatus::INVALID_DEVICE_REQUEST));
    drop(irp);
}

#[test]
fn another_devices_request_is_handed_back() {
    let (one, mut passive) = rig(9);
    let (other, _) = rig(9);
    let mut request = Request::read(0, 4);
    let irp = pended(&one, &mut request);
    let Err((irp, why)) = other.park(irp, |queues| &queues.waiting, &mut passive) else {
        panic!("one device would wait for it, and another be removed")
    };
    assert_eq!((why, why.status()), (Refused::Foreign, NtStatus::INVALID_DEVICE_REQUEST));
    assert!(other.waiting.pop(&mut passive).is_none());
    assert!(one.park(irp, |queues| &queues.waiting, &mut passive).is_ok(), "its own takes it");
    drop(one.waiting.pop(&mut passive));
    assert_eq!((fake::completed().len(), fake::locked()), (1, 0));
}

#[test]
#[should_panic(expected = "completed with STATUS_PENDING")]
fn a_request_that_ends_has_not_to_be_waited_for() {
    let (device, mut passive) = rig(1);
    let mut request = Request::read(0, 4);
    pended(&device, &mut request).complete(NtStatus::PENDING, 0, &mut passive);
}

#[test]
#[should_panic(expected = "above the level")]
fn a_request_is_not_dropped_above_dispatch_level() {
    let (device, _) = rig(1);
    let mut request = Request::read(0, 4);
    let irp = pended(&device, &mut request);
    fake::raise(7);
    drop(irp);
}

#[test]
#[should_panic(expected = "above the level")]
fn pool_is_not_freed_above_dispatch_level() {
    let (_, mut passive) = rig(1);
    let block = PoolBox::new(1_u32, TAG, &mut passive).unwrap();
    fake::raise(7);
    drop(block);
}

#[test]
fn users_that_are_forgotten_never_make_their_count_begin_again() {
    let (_, mut passive) = rig(1);
    let place = Rundown::new(TAG, &mut passive).unwrap();
    assert!(place.put(7, &mut passive).is_ok());
    place.crowd_for_test(1);
    core::mem::forget(place.enter(&mut passive).expect("there is room for one"));
    assert!(place.enter(&mut passive).is_none(), "and for no other: the count would wrap");
}

#[test]
#[should_panic(expected = "is removed while an interrupt")]
fn a_device_does_not_go_before_what_was_tied_to_it() {
    let (device, _) = rig(1);
    drop(device.tie());
    device.ties.expect_none();
    core::mem::forget(device.tie());
    device.ties.expect_none();
}

/// A device with a managed queue, and requests that it holds.
fn managed(serial: bool) -> (Device<ManagedQueue>, Passive) {
    // SAFETY: the fake processor is at PASSIVE_LEVEL.
    let mut passive = unsafe { Passive::assume() };
    let make = if serial { ManagedQueue::serial } else { ManagedQueue::parallel };
    let queue = make(TAG, &mut passive).unwrap();
    (Device::unattached(queue, &mut passive), passive)
}

fn hold(device: &Device<ManagedQueue>, request: &mut Request, passive: &mut Passive) {
    let irp = NonNull::from(&mut request.irp);
    device.remove_lock.acquire(irp.as_ptr().cast()).unwrap();
    // SAFETY: the request is the test's, and its lock was taken.
    let irp = unsafe { PendingIrp::from_raw(irp, &raw const device.remove_lock) };
    assert!(device.hold(irp, |queue| queue, passive).is_ok());
}

/// What comes next, ended: whether it was for the card.
fn next(device: &Device<ManagedQueue>, passive: &mut Passive) -> Option<bool> {
    let mut claimed = false;
    let next = device.next(passive, |_dispatch| claimed = true);
    next.map(|next| match next {
        Next::Go(irp) => {
            assert!(claimed);
            irp.complete(NtStatus::SUCCESS, 0, passive);
            true
        }
        Next::Fail(irp) => {
            assert!(!claimed);
            irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, passive);
            false
        }
    })
}

#[test]
fn requests_wait_while_their_device_is_stopped_or_asleep_and_fail_when_it_has_gone() {
    let (device, mut passive) = managed(false);
    let mut all = requests::<4>();
    for request in &mut all {
        hold(&device, request, &mut passive);
    }
    let passive = &mut passive;
    assert_eq!((device.way(passive), next(&device, passive)), (Way::Closed, Some(false)), "not yet started");
    device.open(passive);
    assert_eq!((device.way(passive), next(&device, passive)), (Way::Open, Some(true)));
    device.pause(passive);
    device.sleep(passive);
    device.resume(passive);
    assert_eq!((device.way(passive), next(&device, passive)), (Way::Held, None), "it is still asleep");
    device.pause(passive);
    device.wake(passive);
    assert_eq!(next(&device, passive), None, "it is still paused");
    device.resume(passive);
    assert_eq!(next(&device, passive), Some(true));
    device.pause(passive);
    device.close(passive);
    assert_eq!((device.way(passive), next(&device, passive)), (Way::Closed, Some(false)));
    assert_eq!((next(&device, passive), fake::completed().len(), fake::locked()), (None, 4, 0));
}

#[test]
fn a_serial_queue_gives_the_next_request_when_the_card_is_done() {
    let (device, mut passive) = managed(true);
    let mut all = requests::<3>();
    for request in &mut all {
        hold(&device, request, &mut passive);
    }
    let passive = &mut passive;
    assert!(device.wait_until_idle(0, passive));
    device.open(passive);
    assert_eq!((next(&device, passive), next(&device, passive)), (Some(true), None));
    assert!(!device.wait_until_idle(0, passive));
    device.pause(passive);
    device.done(passive);
    assert!(device.wait_until_idle(0, passive));
    assert_eq!(next(&device, passive), None, "idle, and paused");
    device.close(passive);
    assert_eq!((next(&device, passive), next(&device, passive)), (Some(false), Some(false)));
    assert_eq!(fake::completed().len(), 3);
}
