//! Which causes one mistake is behind, so that a report lists it once.
//!
//! A length that is not compared shows in several ways at one instruction, by what lies where the access goes: behind the end of the block, nothing, or a
//! freed block. These are one [`Place`]. And it shows at each instruction of the routine that uses the same memory: these places are one group, as are those of a
//! routine that use a window of device memory behind its unmapping, or blocks that one place has freed. A request that is forgotten is one group, whichever of those that end it was made. A null pointer that is no request's buffer may be another mistake at each
//! instruction, and so may each block that the driver allocates.

use super::cause::{Access, Cause, FREED, NULL, SYSTEM_BUFFER, UNMAPPED};

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The number of the cause that says most.
    pub cause: usize,
    /// The numbers of others that it shows as.
    pub also: Vec<usize>,
}

/// Puts the causes of one instruction together that have one mistake behind them. Places are in the order of their first causes.
#[must_use]
pub fn places(causes: &[&Cause]) -> Vec<Place> {
    let mut left: Vec<usize> = (0..causes.len()).collect();
    let mut places = Vec::new();
    while let Some(first) = left.first().copied() {
        let one: Vec<usize> =
            left.iter().copied().filter(|at| is_at_one(causes[first], causes[*at])).collect();
        let mut own =
            of_one_length(causes, &one).filter(|own| own.contains(&first)).unwrap_or_else(|| vec![first]);
        left.retain(|at| !own.contains(at));
        own.sort_by_key(|at| (rank(&causes[*at].rule), *at));
        let mut own = own.into_iter();
        places.extend(own.next().map(|cause| Place { cause, also: own.collect() }));
    }
    places
}

/// Puts the numbers of places together that have one mistake behind them. A place is given by the cause that stands for it. Groups are in the order of
/// their first places.
#[must_use]
pub fn groups(places: &[&Cause]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, cause) in places.iter().enumerate() {
        match groups.iter_mut().find(|group| is_one_mistake(places[group[0]], cause)) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

/// What says most comes first.
fn rank(rule: &str) -> u8 {
    match rule {
        "pool-overrun" => 0,
        "pool-underrun" => 1,
        "use-after-free" => 3,
        _ => 2,
    }
}

/// Whether two are accesses of one instruction, called from one place.
fn is_at_one(one: &Cause, other: &Cause) -> bool {
    let (Some(first), Some(second)) = (&one.access, &other.access) else { return false };
    one.instruction.is_some() && one.instruction == other.instruction && first.caller == second.caller
}

/// Of accesses of one instruction, those that have one length behind them; none if there is no sign of a length.
fn of_one_length(causes: &[&Cause], one: &[usize]) -> Option<Vec<usize>> {
    let accesses = || one.iter().filter_map(|at| Some((*at, causes[*at].access.as_ref()?)));
    let is_outside = |access: &Access| access.is_outside;
    let is_of = |access: &Access, memory: &str| access.memory.as_deref() == Some(memory);
    let uses_copy = accesses().any(|(_, access)| is_outside(access) && is_of(access, SYSTEM_BUFFER));
    let overruns = accesses().any(|(at, access)| is_outside(access) && causes[at].rule == "pool-overrun");
    // The I/O manager has no request fail for want of a copy: where the pointer is a request's buffer, NULL is one without bytes.
    let belongs = |access: &Access| is_outside(access) || uses_copy && is_of(access, NULL);
    let own = accesses().filter(|(_, access)| belongs(access)).map(|(at, _)| at);
    (uses_copy || overruns).then(|| own.collect())
}

/// Whether one mistake is behind two places.
fn is_one_mistake(one: &Cause, other: &Cause) -> bool {
    if let (Some(first), Some(second)) = (&one.awaited, &other.awaited) {
        return one.rule == other.rule && first.waits == second.waits;
    }
    let (Some(first), Some(second)) = (&one.access, &other.access) else { return false };
    let is_shared = match first.memory.as_deref() {
        Some(SYSTEM_BUFFER) => first.is_outside && second.is_outside,
        Some(memory) => memory.starts_with(UNMAPPED) || memory.starts_with(FREED),
        None => false,
    };
    is_shared
        && one.rule == other.rule
        && first.memory == second.memory
        && first.routine.is_some()
        && first.routine == second.routine
}

#[cfg(test)]
mod tests {
    use super::super::cause::Awaited;
    use super::*;

    fn cause(rule: &str, instruction: u64, memory: &str, is_outside: bool) -> Cause {
        let memory = Some(memory.to_owned()).filter(|memory| !memory.is_empty());
        Cause {
            key: format!("{rule}@{instruction:x}"),
            rule: rule.to_owned(),
            tier: "error".to_owned(),
            instruction: Some(instruction),
            finding: String::new(),
            aside: None,
            awaited: None,
            access: Some(Access { memory, is_outside, routine: Some(0x1000), caller: Some(0x500) }),
        }
    }

    fn rules_of_places(causes: &[Cause]) -> Vec<Vec<&str>> {
        let all: Vec<&Cause> = causes.iter().collect();
        let rules = |place: Place| {
            [place.cause].into_iter().chain(place.also).map(|at| causes[at].rule.as_str()).collect()
        };
        places(&all).into_iter().map(rules).collect()
    }

    #[test]
    fn one_instruction_that_goes_too_far_is_one_place_whatever_lies_there() {
        let causes = [
            cause("wild-read", 0x1010, "system buffer", true),
            cause("double-free", 0x1010, "", false),
            cause("use-after-free", 0x1010, "pool", true),
            cause("pool-overrun", 0x1010, "system buffer", true),
            cause("pool-overrun", 0x1020, "system buffer", true),
        ];
        assert_eq!(
            rules_of_places(&causes),
            [vec!["pool-overrun", "wild-read", "use-after-free"], vec!["double-free"], vec!["pool-overrun"]]
        );
    }

    #[test]
    fn a_null_pointer_where_a_requests_buffer_is_used_is_that_of_a_request_without_bytes() {
        let causes =
            [cause("wild-read", 0x1010, "null", false), cause("pool-overrun", 0x1010, "system buffer", true)];
        assert_eq!(rules_of_places(&causes), [["pool-overrun", "wild-read"]]);
    }

    #[test]
    fn a_block_that_could_not_be_had_and_one_that_is_freed_are_other_mistakes_than_a_length() {
        let causes = [
            cause("pool-overrun", 0x1010, "pool", true),
            cause("wild-write", 0x1010, "null", false),
            cause("use-after-free", 0x1010, "pool", false),
        ];
        assert_eq!(rules_of_places(&causes).len(), 3);
    }

    #[test]
    fn what_a_helper_is_called_with_by_two_is_two_mistakes() {
        let mut causes =
            [cause("pool-overrun", 0x1010, "system buffer", true), cause("wild-read", 0x1010, "", true)];
        causes[1].access.as_mut().unwrap().caller = Some(0x600);
        assert_eq!(rules_of_places(&causes).len(), 2);
    }

    #[test]
    fn a_request_that_is_forgotten_is_one_mistake_whatever_should_have_ended_it() {
        let forgotten = |waits: &str, ends: &str| Cause {
            key: format!("request-forgotten:{waits} {ends}"),
            rule: "request-forgotten".to_owned(),
            tier: "warning".to_owned(),
            instruction: None,
            finding: String::new(),
            aside: None,
            access: None,
            awaited: Some(Awaited { waits: waits.to_owned(), ends: ends.to_owned() }),
        };
        let causes =
            [forgotten("read", "write"), forgotten("read", "ioctl 0x222000"), forgotten("write", "read")];
        let all: Vec<&Cause> = causes.iter().collect();
        assert_eq!(groups(&all), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn places_of_one_routine_that_use_the_same_memory_are_a_group() {
        let mut causes = [
            cause("pool-overrun", 0x1010, "system buffer", true),
            cause("wild-read", 0x1020, "null", false),
            cause("wild-read", 0x1030, "null", false),
            cause("pool-overrun", 0x1040, "system buffer", true),
            cause("device-memory-not-mapped", 0x1050, "unmapped 0xe0000000", false),
            cause("device-memory-not-mapped", 0x1060, "unmapped 0xe0000000", false),
            cause("device-memory-not-mapped", 0x1070, "unmapped 0xf0000000", false),
            cause("pool-overrun", 0x2010, "system buffer", true),
            cause("use-after-free", 0x1080, "freed by 0x3000", false),
            cause("use-after-free", 0x1090, "freed by 0x3000", false),
            cause("use-after-free", 0x1090, "freed by 0x3100", false),
        ];
        causes[7].access.as_mut().unwrap().routine = Some(0x2000);
        let all: Vec<&Cause> = causes.iter().collect();
        assert_eq!(
            groups(&all),
            [vec![0, 3], vec![1], vec![2], vec![4, 5], vec![6], vec![7], vec![8, 9], vec![10]]
        );
    }
}
