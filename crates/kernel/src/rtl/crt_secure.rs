//! The C run-time's routines that know how much room there is: `strcpy_s` and its like, narrow and wide.
//!
//! Pages: *strcpy_s, wcscpy_s*, *strcat_s, wcscat_s*, *strncpy_s*, *strncat_s*, *memcpy_s, wmemcpy_s*, *memmove_s*, *strtok_s*,
//! *_strset_s*, *_strnset_s*. In the kernel no handler of invalid parameters is called: the answer is an error number, and the buffer an empty
//! text.

use abi::DriverPtr;
use engine::Flow;

use super::crt::{read, write};
use super::memory;
use crate::cx::Cx;

const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
/// `STRUNCATE`.
const TRUNCATED: i32 = 80;
/// `_TRUNCATE`, as a count.
const TRUNCATE: u64 = u64::MAX;

/// The buffer becomes an empty text.
fn refuse<const W: u64>(cx: &mut Cx<'_>, to: u64, why: i32) -> Flow<i32> {
    write::<W>(cx, to, &[0])?;
    Ok(why)
}

/// Stores `units` behind the `before` characters that stay, if there is room for them and a zero.
fn put<const W: u64>(
    cx: &mut Cx<'_>,
    (to, room): (u64, u64),
    before: u64,
    mut units: Vec<u16>,
    count: u64,
) -> Flow<i32> {
    let free = room - before;
    let mut answer = 0;
    if units.len() as u64 >= free {
        if count != TRUNCATE {
            return refuse::<W>(cx, to, ERANGE);
        }
        units.truncate(usize::try_from(free - 1).unwrap_or(0));
        answer = TRUNCATED;
    }
    units.push(0);
    write::<W>(cx, to + before * W, &units)?;
    Ok(answer)
}

/// `strcpy_s`, `wcscpy_s`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn copy<const W: u64>(cx: &mut Cx<'_>, to: u64, room: u64, from: u64) -> Flow<i32> {
    if to == 0 || room == 0 {
        return Ok(EINVAL);
    }
    if from == 0 {
        return refuse::<W>(cx, to, EINVAL);
    }
    // No more of it is looked at than what shows that it does not fit.
    let units = read::<W>(cx, from, room)?;
    put::<W>(cx, (to, room), 0, units, 0)
}

/// `strncpy_s`, `wcsncpy_s`: at most `count` characters and a zero, or as many as fit.
///
/// # Errors
/// As [`copy`].
pub(crate) fn copy_n<const W: u64>(cx: &mut Cx<'_>, to: u64, room: u64, from: u64, count: u64) -> Flow<i32> {
    if count == 0 && to == 0 && room == 0 {
        return Ok(0);
    }
    if to == 0 || room == 0 {
        return Ok(EINVAL);
    }
    if count == 0 {
        return refuse::<W>(cx, to, 0);
    }
    if from == 0 {
        return refuse::<W>(cx, to, EINVAL);
    }
    let units = read::<W>(cx, from, count.min(room))?;
    put::<W>(cx, (to, room), 0, units, count)
}

/// `strcat_s`, `wcscat_s`.
///
/// # Errors
/// As [`copy`].
pub(crate) fn append<const W: u64>(cx: &mut Cx<'_>, to: u64, room: u64, from: u64) -> Flow<i32> {
    append_at_most::<W>(cx, (to, room), from, room, 0)
}

/// `strncat_s`, `wcsncat_s`.
///
/// # Errors
/// As [`copy`].
pub(crate) fn append_n<const W: u64>(
    cx: &mut Cx<'_>,
    to: u64,
    room: u64,
    from: u64,
    count: u64,
) -> Flow<i32> {
    append_at_most::<W>(cx, (to, room), from, count.min(room), count)
}

fn append_at_most<const W: u64>(
    cx: &mut Cx<'_>,
    (to, room): (u64, u64),
    from: u64,
    most: u64,
    count: u64,
) -> Flow<i32> {
    if to == 0 || room == 0 {
        return Ok(EINVAL);
    }
    if from == 0 {
        return refuse::<W>(cx, to, EINVAL);
    }
    let before = read::<W>(cx, to, room)?.len() as u64;
    if before == room {
        return refuse::<W>(cx, to, EINVAL);
    }
    let units = read::<W>(cx, from, most)?;
    put::<W>(cx, (to, room), before, units, count)
}

/// `memcpy_s`: what does not fit is not copied, and the room is cleared.
///
/// # Errors
/// As [`copy`].
pub(crate) fn copy_bytes(cx: &mut Cx<'_>, to: u64, room: u64, from: u64, count: u64) -> Flow<i32> {
    if count == 0 {
        return Ok(0);
    }
    if to == 0 {
        return Ok(EINVAL);
    }
    if from == 0 || room < count {
        memory::zero(cx, to, room)?;
        return Ok(if from == 0 { EINVAL } else { ERANGE });
    }
    memory::copy(cx, to, from, count).map(|_| 0)
}

/// `memmove_s`: what does not fit is not moved, and nothing is changed.
///
/// # Errors
/// As [`copy`].
pub(crate) fn move_bytes(cx: &mut Cx<'_>, to: u64, room: u64, from: u64, count: u64) -> Flow<i32> {
    if count == 0 {
        return Ok(0);
    }
    if to == 0 || from == 0 {
        return Ok(EINVAL);
    }
    if room < count {
        return Ok(ERANGE);
    }
    memory::copy(cx, to, from, count).map(|_| 0)
}

/// `_strset_s`, `_wcsset_s`: all characters of a text become this one.
///
/// # Errors
/// As [`copy`].
pub(crate) fn set<const W: u64>(cx: &mut Cx<'_>, to: u64, room: u64, unit: i32) -> Flow<i32> {
    set_n::<W>(cx, to, room, unit, u64::MAX)
}

/// `_strnset_s`, `_wcsnset_s`: its first `count`.
///
/// # Errors
/// As [`copy`].
pub(crate) fn set_n<const W: u64>(cx: &mut Cx<'_>, to: u64, room: u64, unit: i32, count: u64) -> Flow<i32> {
    if to == 0 || room == 0 {
        return Ok(EINVAL);
    }
    let length = read::<W>(cx, to, room)?.len() as u64;
    if length == room {
        return refuse::<W>(cx, to, EINVAL);
    }
    super::crt_more::set_n::<W>(cx, to, unit, count.min(length))?;
    Ok(0)
}

/// `strtok_s`: the next piece of a text between characters of `separators`; where it goes on is kept at `context`.
///
/// # Errors
/// As [`copy`].
pub(crate) fn token(cx: &mut Cx<'_>, text: u64, separators: u64, context: DriverPtr<u64>) -> Flow<u64> {
    if context.is_null() || separators == 0 {
        return Ok(0);
    }
    let from = if text == 0 { cx.read(context)? } else { text };
    if from == 0 {
        return Ok(0);
    }
    let separators = read::<1>(cx, separators, u64::MAX)?;
    let units = read::<1>(cx, from, u64::MAX)?;
    let is_one = |unit: &u16| separators.contains(unit);
    let Some(start) = units.iter().position(|unit| !is_one(unit)) else {
        cx.write(context, from + units.len() as u64)?;
        return Ok(0);
    };
    let end = units[start..].iter().position(is_one).map(|length| start + length);
    let next = match end {
        Some(end) => {
            write::<1>(cx, from + end as u64, &[0])?;
            end + 1
        }
        None => units.len(),
    };
    cx.write(context, from + next as u64)?;
    Ok(from + start as u64)
}
