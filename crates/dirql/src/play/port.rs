//! `port`, `bind`, `dequeue`, `post`.

use abi::NtStatus;
use engine::Flow;
use kernel::Cx;
use kernel::io::completion_port::{self, Packet, SKIP_ON_SUCCESS};

use super::Stage;
use super::carry::Outcome;
use super::expect::judge;
use super::request::handle;
use crate::machine::Completion;
use crate::readers::status_text;
use crate::script::{Expectations, ExpectedStatus};

pub(super) fn make(stage: &Stage, cx: &mut Cx<'_>, name: &str, threads: u32) -> Flow<Outcome> {
    Ok(match completion_port::create(cx, threads)? {
        Some(port) => {
            stage.keep(cx, name, port);
            Ok(())
        }
        None => Err("there is no memory for a port".to_owned()),
    })
}

pub(super) fn bind(
    stage: &Stage,
    cx: &mut Cx<'_>,
    (file, port): (&str, &str),
    key: u64,
    skip: bool,
    expect: &Expectations,
) -> Flow<Outcome> {
    let (file, port) = match handle(stage, cx, file).and_then(|file| Ok((file, handle(stage, cx, port)?))) {
        Ok(both) => both,
        Err(why) => return Ok(Err(why)),
    };
    let mut status = completion_port::associate(cx, file, port, key)?;
    if status.is_success() && skip {
        status = completion_port::set_modes(cx, file, SKIP_ON_SUCCESS)?;
    }
    Ok(judge(&stage.play, &Completion::status(status), expect))
}

pub(super) fn dequeue(
    stage: &Stage,
    cx: &mut Cx<'_>,
    port: &str,
    (request, key): (Option<&str>, Option<u64>),
    timeout: Option<u64>,
    expect: &Expectations,
) -> Flow<Outcome> {
    let port = match handle(stage, cx, port) {
        Ok(port) => port,
        Err(why) => return Ok(Err(why)),
    };
    let packet = match completion_port::wait(cx, port, timeout)? {
        Ok(packet) => packet,
        Err(status) => {
            // STATUS_TIMEOUT counts as a success; who expects that no packet comes says so.
            let a_packet = request.is_some() || key.is_some() || expect.status == ExpectedStatus::Success;
            return Ok(if a_packet {
                Err(format!("expected a packet, saw {}", status_text(status.0)))
            } else {
                judge(&stage.play, &Completion::status(status), expect)
            });
        }
    };
    let end = Completion { information: packet.information, ..Completion::status(packet.status) };
    Ok(is_of(stage, request, packet)
        .and_then(|()| has_key(key, packet))
        .and_then(|()| judge(&stage.play, &end, expect)))
}

/// The packets that there are, at least one: data are the key and the number of bytes of each.
pub(super) fn dequeue_several(
    stage: &Stage,
    cx: &mut Cx<'_>,
    port: &str,
    (most, alertable): (u32, bool),
    timeout: Option<u64>,
    expect: &Expectations,
) -> Flow<Outcome> {
    let port = match handle(stage, cx, port) {
        Ok(port) => port,
        Err(why) => return Ok(Err(why)),
    };
    let end = match completion_port::wait_for_several(cx, port, most, timeout, alertable)? {
        Ok(packets) => {
            let words = packets.iter().flat_map(|packet| [packet.key, packet.information]);
            let data: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            Completion { information: packets.len() as u64, data, ..Completion::status(NtStatus::SUCCESS) }
        }
        // STATUS_TIMEOUT counts as a success; who expects that no packet comes says so.
        Err(status) if expect.status == ExpectedStatus::Success => {
            return Ok(Err(format!("expected packets, saw {}", status_text(status.0))));
        }
        Err(status) => Completion::status(status),
    };
    Ok(judge(&stage.play, &end, expect))
}

/// Whether the packet tells of the request of this name.
fn is_of(stage: &Stage, request: Option<&str>, packet: Packet) -> Outcome {
    let Some(name) = request else { return Ok(()) };
    stage.with(|state| {
        if state.told_of.get(name) == Some(&packet.request) {
            return Ok(());
        }
        let other = state.told_of.iter().find(|(_, id)| **id == packet.request).map(|(name, _)| name);
        Err(match other {
            Some(other) => format!("expected the packet of {name}, saw that of {other}"),
            None => format!("expected the packet of {name}, saw one of no request of the script's"),
        })
    })
}

fn has_key(key: Option<u64>, packet: Packet) -> Outcome {
    match key {
        Some(key) if key != packet.key => {
            Err(format!("expected a packet with key {key}, saw key {}", packet.key))
        }
        _ => Ok(()),
    }
}

pub(super) fn post(stage: &Stage, cx: &mut Cx<'_>, port: &str, key: u64, bytes: u64) -> Flow<Outcome> {
    let port = match handle(stage, cx, port) {
        Ok(port) => port,
        Err(why) => return Ok(Err(why)),
    };
    let packet = Packet { key, request: 0, status: NtStatus::SUCCESS, information: bytes };
    let status = completion_port::post(cx, port, packet)?;
    Ok(if status.is_success() { Ok(()) } else { Err(format!("the packet is not queued: {status}")) })
}
