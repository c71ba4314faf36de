//! Times taken apart: 100 ns units since 1601, fields of the Gregorian calendar.
//!
//! Pages: *RtlTimeToTimeFields function*, *RtlTimeFieldsToTime function*, *ExSystemTimeToLocalTime function*. The machine's
//! time zone is UTC.

use abi::{DriverPtr, TIME_FIELDS};
use engine::Flow;

use crate::cx::Cx;

const MILLISECOND: i64 = 10_000;
const DAY_MS: i64 = 86_400_000;
/// Days from 1601-01-01, a Monday, to 1970-01-01.
const EPOCH_DAYS: i64 = 134_774;

/// Year, month, day of the day `days` after 1601-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    // Years are counted from March, so that the leap day is the last; 1600 begins a cycle of 400 years.
    let shifted = days + 306;
    let cycle = shifted.div_euclid(146_097);
    let of_cycle = shifted.rem_euclid(146_097);
    let year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    (1600 + 400 * cycle + year + i64::from(calendar_month <= 2), calendar_month, day)
}

/// Days from 1601-01-01 to a date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - 1600 - i64::from(month <= 2);
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 306
}

/// `RtlTimeToTimeFields`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn to_fields(cx: &mut Cx<'_>, time: DriverPtr<i64>, fields: DriverPtr<TIME_FIELDS>) -> Flow<()> {
    let ms = cx.read(time)?.div_euclid(MILLISECOND);
    let (whole, rest) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = date(whole);
    let values = [
        year,
        month,
        day,
        rest / 3_600_000,
        rest / 60_000 % 60,
        rest / 1000 % 60,
        rest % 1000,
        (whole + 1).rem_euclid(7),
    ];
    for (index, value) in (0..).zip(values) {
        cx.write(fields.cast::<i16>().index(index), i16::try_from(value).unwrap_or(i16::MAX))?;
    }
    Ok(())
}

/// `RtlTimeFieldsToTime`; false if there is no such time. The weekday is not looked at.
///
/// # Errors
/// As [`to_fields`].
pub(crate) fn from_fields(
    cx: &mut Cx<'_>,
    fields: DriverPtr<TIME_FIELDS>,
    time: DriverPtr<i64>,
) -> Flow<bool> {
    let mut values = [0_i64; 7];
    for (index, value) in (0..).zip(&mut values) {
        *value = cx.read(fields.cast::<i16>().index(index))?.into();
    }
    let [year, month, day, hour, minute, second, ms] = values;
    let clock = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    let right = year >= 1601 && (1..=12).contains(&month) && clock && (0..1000).contains(&ms);
    if !right || date(days(year, month, day)) != (year, month, day) {
        return Ok(false);
    }
    let total = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + ms;
    cx.write(time, total * MILLISECOND)?;
    Ok(true)
}

/// `ExSystemTimeToLocalTime`, `ExLocalTimeToSystemTime`: the machine's zone is UTC.
///
/// # Errors
/// As [`to_fields`].
pub(crate) fn same_zone(cx: &mut Cx<'_>, from: DriverPtr<i64>, to: DriverPtr<i64>) -> Flow<()> {
    let time = cx.read(from)?;
    cx.write(to, time)
}

/// `RtlSecondsSince1970ToTime`.
///
/// # Errors
/// As [`to_fields`].
pub(crate) fn from_1970(cx: &mut Cx<'_>, seconds: u32, time: DriverPtr<i64>) -> Flow<()> {
    from_seconds(cx, EPOCH_DAYS, seconds, time)
}

/// `RtlSecondsSince1980ToTime`.
///
/// # Errors
/// As [`to_fields`].
pub(crate) fn from_1980(cx: &mut Cx<'_>, seconds: u32, time: DriverPtr<i64>) -> Flow<()> {
    from_seconds(cx, days(1980, 1, 1), seconds, time)
}

fn from_seconds(cx: &mut Cx<'_>, since: i64, seconds: u32, time: DriverPtr<i64>) -> Flow<()> {
    let ms = since * DAY_MS + i64::from(seconds) * 1000;
    cx.write(time, ms * MILLISECOND)
}

/// `RtlTimeToSecondsSince1970`; false if it does not fit.
///
/// # Errors
/// As [`to_fields`].
pub(crate) fn to_1970(cx: &mut Cx<'_>, time: DriverPtr<i64>, seconds: DriverPtr<u32>) -> Flow<bool> {
    to_seconds(cx, EPOCH_DAYS, time, seconds)
}

/// `RtlTimeToSecondsSince1980`; false if it does not fit.
///
/// # Errors
/// As [`to_fields`].
pub(crate) fn to_1980(cx: &mut Cx<'_>, time: DriverPtr<i64>, seconds: DriverPtr<u32>) -> Flow<bool> {
    to_seconds(cx, days(1980, 1, 1), time, seconds)
}

fn to_seconds(cx: &mut Cx<'_>, since: i64, time: DriverPtr<i64>, seconds: DriverPtr<u32>) -> Flow<bool> {
    let since = cx.read(time)?.div_euclid(1000 * MILLISECOND) - since * 86_400;
    let Ok(since) = u32::try_from(since) else { return Ok(false) };
    cx.write(seconds, since)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days_are_each_others_inverse() {
        assert_eq!(date(0), (1601, 1, 1));
        assert_eq!(days(1970, 1, 1), EPOCH_DAYS);
        assert_eq!(date(days(2024, 2, 29)), (2024, 2, 29));
        assert_eq!(days(2024, 3, 1) - days(2024, 2, 28), 2);
        assert_eq!(days(2100, 3, 1) - days(2100, 2, 28), 1);
        for day in (0..200_000).step_by(17) {
            let (y, m, d) = date(day);
            assert_eq!(days(y, m, d), day);
        }
    }
}
