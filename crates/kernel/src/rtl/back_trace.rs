//! Who called: return addresses of driver code on the current stack.
//!
//! Page: *RtlCaptureStackBackTrace function*; *RtlWalkFrameChain* has none, and is as drivers declare it: in its flags the upper 24 bits
//! are frames to skip, and 1 asks for the user's stack, of which there is none here. Frames of the kernel's own between two calls of driver
//! code are left out: dirql's have no addresses.

use abi::DriverPtr;
use engine::Flow;

use super::frames::{self, Next};
use crate::cx::Cx;
use crate::ke::budget;

/// What a frame counts as.
const FRAME: u64 = 4 * budget::SERVICE;
/// `RTL_WALK_USER_MODE_STACK`.
const USER: u32 = 1;
/// `RTL_STACK_WALKING_MODE_FRAMES_TO_SKIP_SHIFT`.
const SKIP: u32 = 8;

/// At most so many return addresses from the inside outwards, behind those that are skipped.
fn walk(cx: &mut Cx<'_>, skip: u32, most: u32) -> Flow<Vec<u64>> {
    let Some(innermost) = frames::innermost(cx) else { return Ok(Vec::new()) };
    let mut next = frames::begin(cx, &innermost);
    let mut found = Vec::new();
    for index in 0..u64::from(skip) + u64::from(most) {
        let (Next::Frame(at) | Next::Collided(at, _)) = next else { break };
        if index >= u64::from(skip) {
            found.push(at.context.rip);
        }
        budget::spend(cx, FRAME)?;
        next = frames::up(cx, &at);
    }
    Ok(found)
}

fn store(cx: &mut Cx<'_>, to: DriverPtr<u64>, addresses: &[u64]) -> Flow<u16> {
    for (index, address) in (0..).zip(addresses) {
        cx.write(to.byte_add(8 * index), *address)?;
    }
    Ok(u16::try_from(addresses.len()).expect("a stack has fewer frames"))
}

/// `RtlCaptureStackBackTrace`: how many frames there are in `to`, and in `*hash`, if that is wanted, the sum of them.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn capture(
    cx: &mut Cx<'_>,
    skip: u32,
    most: u32,
    to: DriverPtr<u64>,
    hash: DriverPtr<u32>,
) -> Flow<u16> {
    let found = walk(cx, skip, most.min(u16::MAX.into()))?;
    if !hash.is_null() {
        let sum = found.iter().fold(0, |sum: u64, address| sum.wrapping_add(*address));
        let [a, b, c, d, ..] = sum.to_le_bytes();
        cx.write(hash, u32::from_le_bytes([a, b, c, d]))?;
    }
    store(cx, to, &found)
}

/// `RtlWalkFrameChain`: how many frames there are in `to`.
///
/// # Errors
/// As [`capture`].
pub(crate) fn chain(cx: &mut Cx<'_>, to: DriverPtr<u64>, most: u32, flags: u32) -> Flow<u32> {
    if flags & USER != 0 {
        return Ok(0);
    }
    let found = walk(cx, flags >> SKIP, most.min(u16::MAX.into()))?;
    store(cx, to, &found).map(u32::from)
}
