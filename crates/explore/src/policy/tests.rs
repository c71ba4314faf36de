//! The table of policies holds for any row: what is printed is read, what cannot be is refused, and the documents show each.

use engine::Point;

use super::*;

fn read(typed: &str) -> Policy {
    typed.parse().unwrap_or_else(|error| panic!("{typed}: {error}"))
}

/// What is typed for a row with these numbers.
fn typed(entry: &Entry, numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let mark = if numbers.is_empty() { "" } else { ":" };
    format!("{}{mark}{}", entry.name, numbers.join(","))
}

/// The least, or the most, that each of its numbers may be.
fn ends(entry: &Entry) -> [Vec<u64>; 2] {
    let ends =
        |end: fn(&RangeInclusive<u64>) -> &u64| entry.parameters.iter().map(|one| *end(&one.range)).collect();
    [ends(RangeInclusive::start), ends(RangeInclusive::end)]
}

#[test]
fn each_row_is_well_formed() {
    for entry in policies() {
        let name = entry.name;
        assert_eq!(policies().iter().filter(|other| other.name == name).count(), 1, "{name} is there twice");
        assert!(name.bytes().all(|letter| letter.is_ascii_lowercase()), "{name}");
        assert!(!entry.summary.is_empty() && !entry.summary.contains('\n'), "{name}");
        assert!(entry.parameters.len() <= MOST, "{name} has more parameters than MOST");
        assert!(
            entry.parameters.is_sorted_by_key(|parameter| parameter.default.is_some()),
            "{name}: a default before none"
        );
        for parameter in entry.parameters {
            assert!(
                parameter.default.is_none_or(|number| parameter.range.contains(&number)),
                "{}",
                parameter.name
            );
        }
    }
}

#[test]
fn each_policy_is_read_as_it_is_written() {
    for entry in policies() {
        for numbers in ends(entry) {
            let name = typed(entry, &numbers);
            let last_given =
                entry.parameters.iter().zip(&numbers).rposition(|(one, number)| one.default != Some(*number));
            let shown = typed(entry, &numbers[..last_given.map_or(0, |last| last + 1)]);
            assert_eq!(read(&name).to_string(), shown);
            assert_eq!((read(&name), read(&shown)), (entry.with(&numbers), entry.with(&numbers)));
            let late = entry.with(&numbers).at_script();
            assert_eq!(
                (late.to_string(), read(&format!("{name}@script"))),
                (format!("{shown}@script"), late)
            );
            assert!(late.is_at_script() && late != read(&name));
        }
        let needed = entry.parameters.iter().take_while(|parameter| parameter.default.is_none()).count();
        let short = typed(entry, &ends(entry)[0][..needed]);
        assert_eq!(read(&short).to_string(), short);
    }
}

#[test]
fn each_policy_refuses_too_few_numbers_and_too_many_and_what_a_number_may_not_be() {
    for entry in policies() {
        let [least, most] = ends(entry);
        let mut wrong = vec![
            format!("{}:", entry.name),
            format!("{}x", typed(entry, &least)),
            format!("x{}", entry.name),
        ];
        wrong.push(typed(entry, &[&least[..], &[1]].concat()));
        for (index, parameter) in entry.parameters.iter().enumerate() {
            if parameter.default.is_none() {
                wrong.push(typed(entry, &least[..index]));
            }
            let with = |number: u64| [&least[..index], &[number], &least[index + 1..]].concat();
            wrong.extend(least[index].checked_sub(1).map(|number| typed(entry, &with(number))));
            wrong.extend(most[index].checked_add(1).map(|number| typed(entry, &with(number))));
        }
        for name in wrong {
            let error = name.parse::<Policy>().expect_err(&name).to_string();
            for entry in policies() {
                assert!(error.contains(&entry.form()), "{name}: {error}");
                assert!(entry.limits().all(|limit| error.contains(&limit)), "{name}: {error}");
            }
        }
    }
    assert!("".parse::<Policy>().is_err());
}

#[test]
fn only_a_policy_with_a_seed_has_later_ones() {
    for entry in policies() {
        let [least, most] = ends(entry);
        let (first, last) = (entry.with(&least), entry.with(&most));
        assert_eq!((first.later(0), last.later(0)), (Some(first), Some(last)));
        assert_eq!(last.later(1), None);
        assert_eq!(first.later(3).is_some(), entry.is_seeded());
    }
    assert_eq!(read("pct:1,3,500").later(1), Some(read("pct:2,3,500")));
}

#[test]
fn each_policy_makes_a_chooser_that_its_numbers_alone_decide() {
    for entry in policies() {
        for numbers in ends(entry) {
            let answers = || {
                let mut chooser = entry.with(&numbers).chooser();
                (0..200).map(move |_| chooser.choose(1, Point("test.point"), 5)).collect::<Vec<_>>()
            };
            assert_eq!(answers(), answers(), "{}", entry.name);
            assert!(answers().iter().all(|answer| *answer < 5), "{}", entry.name);
        }
    }
}

#[test]
fn forms_limits_and_help_are_made_of_the_rows() {
    let error = "x".parse::<Policy>().unwrap_err().to_string();
    let all = "default, random:SEED, pct:SEED[,DEPTH][,STEPS], fail:CALL[,COUNT], pair:CALL,OTHER, scarce:SEED[,CALL][,PERCENT], early, late (DEPTH 0 to 100, CALL 1 and up, COUNT 1 and up, CALL 1 and up, OTHER 1 and up, CALL 1 and up, PERCENT 1 to 100)";
    let behind = "each with @script behind it, too";
    assert_eq!(error, format!("`x` is no policy; there are: {all}, {behind}"));
    assert_eq!(
        Policy::seeded_forms(),
        "random:SEED or pct:SEED[,DEPTH][,STEPS] or scarce:SEED[,CALL][,PERCENT]"
    );
    assert_eq!(Policy::default(), read("default"));
    assert_eq!(Policy::pct(7, 1_000, 0), read("pct:7,100"));
}

#[test]
fn the_document_shows_each_policy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/replay.md");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for entry in policies() {
        assert!(
            text.contains(&format!("| `{}` |", entry.form())),
            "{path} has no line for `{}`",
            entry.form()
        );
    }
}
