//! What is tried where values are in the registry that the driver asks for and that are not there else.

use abi::{REG_MULTI_SZ, REG_SZ};
use serde::{Deserialize, Serialize};

use super::super::absent::{Absent, Data};
use super::super::stories::with_words;
use super::super::survey::Survey;
use super::effort::{Kind, Plan};
use super::inputs_and_lengths::{gives_or_takes, sizes};
use super::lives::lives;
use super::steps::{first_operations, open, opened, tried, tried_in_turn, words};
use super::{Exercise, OVERFLOWS};

/// The first exercise of each machine.
pub(super) const START: &str = "load, start, stop, remove and unload";
/// Up to so many values are there alone, too.
const FEW: usize = 4;
/// So many values are set while a driver runs.
const SET: usize = 8;
/// More requests in a row than such a number.
const MORE_THAN_SET: usize = 130;
/// A number that is no power of 2: what is so long does not go round by a mask.
const NO_POWER: u32 = 100;

/// The options by which all of this is there, values as 1.
#[must_use]
pub fn registry_options(all: &[Absent]) -> Vec<String> {
    options(all, Data::One)
}

/// A key is named where there is nothing in it.
fn options(all: &[Absent], data: Data) -> Vec<String> {
    let is_named = |one: &&Absent| one.name.is_some() || !all.iter().any(|other| other.is_below(one));
    all.iter().filter(is_named).map(|one| one.option(data)).collect()
}

/// What is in the registry in more exercises, and what the driver offers then.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct WithValues {
    /// All that the driver asks for and that is not there else.
    pub all: Vec<Absent>,
    /// That of it with which the driver starts as well as without.
    pub usable: Vec<Absent>,
    /// What the driver offers where that is there.
    pub survey: Survey,
}

/// What is tried with all of this in the registry, with each value alone, and with values that are large or of another type.
#[must_use]
pub fn exercises_with_values(with: &WithValues, budget: u64) -> Vec<Exercise> {
    let WithValues { all, usable, survey } = with;
    let mut plan = Plan::new(survey, budget, registry_options(all));
    let title = |what: &str| format!("{what} with the values in the registry that it asks for");
    plan.add(title(START), "", Kind::StartWithValues);
    if usable.len() < all.len() {
        plan.more = registry_options(usable);
        plan.add(format!("{START} with those of the values with which it starts"), "", Kind::StartWithValues);
    }
    let requests = survey.names.first().map(|name| {
        let of = |operation| {
            let (opened, twice) =
                (opened(survey, name, &[operation]), [operation.command.as_str(); 2].join("; "));
            let own = if operation.waits { String::new() } else { format!("{twice}; ") };
            format!("{opened}; {own}{}", sizes(survey, operation))
        };
        first_operations(survey).map(|operation| (words(operation), of(operation))).collect::<Vec<_>>()
    });
    let requests = requests.unwrap_or_default();
    if survey.ready && !survey.devices.is_empty() {
        for (what, script) in lives(survey) {
            plan.add(title(&what), script, Kind::Little);
        }
    }
    for (what, script) in &requests {
        plan.add(title(&format!("{what} of all sizes")), script, Kind::Sizes);
    }
    let values: Vec<&Absent> = all.iter().filter(|one| one.name.is_some()).collect();
    let are_few = (2..=FEW).contains(&values.len());
    for value in values.iter().filter(|value| are_few || !usable.contains(value)).take(FEW) {
        let keys = all.iter().filter(|one| one.name.is_none()).cloned();
        plan.more = registry_options(&keys.chain([Absent::clone(value)]).collect::<Vec<_>>());
        let name = value.name.as_deref().unwrap_or_default();
        alone(&mut plan, &format!("with the value {name} in the registry"), &requests);
    }
    let numbers = "with numbers in the registry whose products do not fit into 32 bits";
    let usual = [
        (Data::Large, "with large values in the registry that it asks for"),
        (Data::Many(0), "with values of 0 in the registry that it asks for"),
        (Data::Many(u32::MAX), "with values that are as large as can be in the registry that it asks for"),
        (Data::OfAnotherType, "with values of another type in the registry that it asks for"),
        (Data::Bytes, "with values of as many bytes as it has room for in the registry"),
        (Data::OpenText(REG_SZ), "with texts without an end in the registry"),
        (Data::Stub(0), "with texts of no bytes in the registry"),
        (Data::Stub(1), "with texts of one byte in the registry"),
        (Data::OpenText(REG_MULTI_SZ), "with lists of texts without an end in the registry"),
    ];
    let overflows = OVERFLOWS.into_iter().flat_map(|number| [Data::Many(number), Data::Records(number)]);
    for (data, what) in usual.into_iter().chain(overflows.map(|data| (data, numbers))) {
        if values.iter().any(|value| data.is_for(value.kind)) {
            plan.more = options(all, data);
            alone(&mut plan, what, &requests);
        }
    }
    if let Some(name) = survey.names.first()
        && values.iter().any(|value| Data::Many(NO_POWER).is_for(value.kind))
    {
        plan.more = options(all, Data::Many(NO_POWER));
        for one in first_operations(survey) {
            let what = words(one);
            let title = format!(
                "{what} of all sizes behind codes with a word of 1, with values of {NO_POWER} in the registry"
            );
            plan.add(title, format!("{}; {}", switched_on(survey, name), sizes(survey, one)), Kind::Usual);
        }
    }
    set_while_it_runs(with, &mut plan);
    plan.all
}

/// Values grow while the driver runs, which reads them when it is started or asked to: what it has made by the old ones stays as small as it was. Then
/// requests are made with words that are less than the new ones.
fn set_while_it_runs(with: &WithValues, plan: &mut Plan) {
    let WithValues { all, survey, .. } = with;
    let numbers = all.iter().filter(|one| Data::Many(NO_POWER).is_for(one.kind));
    let set = |(n, one): (usize, &Absent)| one.set_by_script(&format!("k{n}"), NO_POWER);
    let steps: Vec<String> = numbers.enumerate().filter_map(set).take(SET).collect();
    let Some(name) = survey.names.first().filter(|_| !steps.is_empty()) else { return };
    plan.more.clear();
    let each = || first_operations(survey).filter(|one| !one.waits);
    let in_turn = tried_in_turn(each().map(|one| &one.command));
    let less = [NO_POWER - 1, NO_POWER / 2];
    let worded = less.iter().flat_map(|word| each().map(|one| with_words(&one.command, [*word; 2], false)));
    let worded = tried_in_turn(worded);
    let title = "requests behind values that are set in the registry while the driver runs";
    let restarted = ("; stop-device; start-device", " and the device is started again");
    let restarted = (!survey.devices.is_empty()).then_some(restarted);
    for (step, behind) in [("", "")].into_iter().chain(restarted) {
        let begun = format!("{}; {in_turn}; {}{step}", open(name), steps.join("; "));
        plan.add(format!("{title}{behind}"), format!("{begun}; {in_turn}; {worded}; close h"), Kind::Little);
        for one in each().filter(|one| one.is_usual() && gives_or_takes(one).0).take(FEW) {
            let many = vec![one.command.as_str(); MORE_THAN_SET].join("; ");
            plan.add(
                format!("{} {MORE_THAN_SET} times behind values that are set in the registry while the driver runs{behind}", words(one)),
                format!("{begun}; {many}; close h"),
                Kind::Usual,
            );
        }
    }
}

/// The device opened, and each code asked for with a word of 1, which may switch something on.
fn switched_on(survey: &Survey, name: &str) -> String {
    let codes = first_operations(survey).filter_map(|one| one.code).enumerate();
    let switched = codes.map(|(n, code)| tried(n, &format!("ioctl h {code:#x} in u32:1 + zero:60 out 64")));
    let steps: Vec<String> = [open(name)].into_iter().chain(switched).collect();
    steps.join("; ")
}

/// Load and start, and each request.
fn alone(plan: &mut Plan, with: &str, requests: &[(String, String)]) {
    plan.add(format!("{START} {with}"), "", Kind::Usual);
    for (what, script) in requests {
        plan.add(format!("{what} of all sizes {with}"), script.clone(), Kind::Usual);
    }
}
