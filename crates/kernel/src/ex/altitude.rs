//! Altitudes: where a driver stands among others that filter the same.
//!
//! Pages: *Load Order Groups and Altitudes for Minifilter Drivers*, *Supporting Layered Registry Filtering Drivers*. A decimal number of any
//! length, with digits behind a point if need be, so that there is room between any two. The highest is called first.

use std::cmp::Ordering;

/// An altitude; of two, the greater one is the higher one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Altitude {
    /// Digits before the point, without zeros in front.
    whole: String,
    /// Digits behind it, without zeros at the end.
    part: String,
}

impl Altitude {
    /// From its text; none if that is no number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_number = !whole.is_empty() && digits(whole) && digits(part);
        is_number.then(|| Self {
            whole: whole.trim_start_matches('0').to_owned(),
            part: part.trim_end_matches('0').to_owned(),
        })
    }
}

impl PartialOrd for Altitude {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Altitude {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |altitude: &Self| altitude.whole.len();
        key(self)
            .cmp(&key(other))
            .then_with(|| self.whole.cmp(&other.whole))
            .then_with(|| self.part.cmp(&other.part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_between_any_two_altitudes() {
        let of = |text: &str| Altitude::parse(text).unwrap();
        assert!(of("409800") < of("1000000"));
        assert!(of("320000.5") > of("320000") && of("320000.5") < of("320000.51"));
        assert_eq!(of("0320000.50"), of("320000.5"));
        assert!(["", "abc", "1.2.3", "-1", "32 0", ".5"].iter().all(|text| Altitude::parse(text).is_none()));
    }
}
