//! `cargo xtask bench`: the engine's figures and the machine's, from one run, beside what they should be, and the processor that they are of.
//!
//! The measuring is done by two examples, `speed` of crate `dirql-engine` and `bench` of crate `dirql`; each writes one JSON
//! object, `name: {median, p99, unit, samples}`; what the built command takes is measured by `runs`. Here they are put together and shown.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::{call, drivers, runs};

/// What a figure should be at most, on a machine that does nothing else: nanoseconds, times native speed, MB, bytes, or nanoseconds a byte.
const GOALS: &[(&str, f64)] = &[
    ("call_driver", 12.0),
    ("gate", 8.0),
    ("irp_roundtrip", 150.0),
    ("irp_roundtrip_rules", 500.0),
    ("kmdf_ioctl", 300.0),
    ("mmio_read", 35.0),
    ("mmio_read_sheet", 100.0),
    ("port_read", 35.0),
    ("irql_raise_lower", 6.0),
    ("irql_raise_lower_call", 6.0),
    ("dpc", 40.0),
    ("spinlock", 5.0),
    ("spinlock_watched", 15.0),
    ("event_wait_wake_twice", 120.0),
    ("section_map_64k", 5_000.0),
    ("pool_alloc_free", 40.0),
    ("pool_alloc_free_checked", 150.0),
    ("pool_alloc_free_special", 6_000.0),
    ("stack_of_six", 300.0),
    ("dma_sg_64k", 2_000.0),
    ("irp_outstanding", 600.0),
    ("strand_switch", 5.0),
    ("strand_switch_across", 25.0),
    ("interrupt_irp", 400.0),
    ("interrupt_irp_rules", 1_500.0),
    ("races_ratio_sort", 10.0),
    ("schedule_rewound", 33_000.0),
    ("schedule_rules", 66_000.0),
    ("inputs_refused", 33_000.0),
    ("inputs_answered", 33_000.0),
    ("native_ratio_crc", 1.05),
    ("native_ratio_parse", 1.2),
    ("native_ratio_sort", 1.5),
    ("native_ratio_calls", 1.5),
    ("sliced_ratio_crc", 1.26),
    ("sliced_ratio_parse", 1.44),
    ("sliced_ratio_sort", 1.8),
    ("sliced_ratio_calls", 1.8),
    ("checked_ratio_crc", 5.0),
    ("checked_ratio_parse", 5.0),
    ("checked_ratio_sort", 5.0),
    ("checked_ratio_calls", 5.0),
    ("fork_point", 12_000.0),
    ("fork_tree", 150_000.0),
    ("start_to_ready", 2_000_000.0),
    ("enumerate_1000_devices", 1_000_000_000.0),
    ("power_cycle_device", 10_000.0),
    ("inf_parse", 50.0),
    ("wmi_query", 2_000.0),
    ("translate_instruction", 200.0),
    ("resident", 16.0),
    ("run_quiet", 1_500.0),
    ("run_checked", 5_000.0),
    ("run_text", 15_000.0),
    ("run_json", 15_000.0),
];

/// Builds the drivers, measures, and shows the figures: a table, or with `json` one object.
///
/// # Errors
/// Something does not build, a benchmark fails, or does not write what it should.
pub(crate) fn bench(root: &Path, json: bool) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    let mut figures = measured(root, "dirql-engine", "speed")?;
    figures.append(&mut measured(root, "dirql", "bench")?);
    figures.append(&mut runs::measured(root)?);
    let processor = processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    if json {
        figures.insert("processor".to_owned(), processor.into());
        println!("{}", Value::from(figures));
        return Ok(());
    }
    println!("{processor}");
    println!("{:24} {:>14} {:>14}      {:>12}", "", "median", "p99", "goal");
    for (name, figure) in &figures {
        println!("{}", line(name, figure));
    }
    Ok(())
}

/// The first processor that the host lists: its name, which a virtual machine may have cut short, and its family and model.
fn processor(listed: &str) -> String {
    let field = |name: &str| {
        let mut fields = listed.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim() == name).map_or("unknown", |(_, value)| value.trim())
    };
    format!("{}, family {}, model {}", field("model name"), field("cpu family"), field("model"))
}

/// What one of the examples measures.
fn measured(root: &Path, package: &str, example: &str) -> Result<Map<String, Value>> {
    let mut cargo = call::cargo(root);
    cargo.args(["run", "--quiet", "--release", "-p", package, "--example", example, "--", "--json"]);
    let text = call::output(&mut cargo)?;
    serde_json::from_str(&text)
        .with_context(|| format!("example {example} of {package} wrote no JSON object"))
}

fn line(name: &str, figure: &Value) -> String {
    let number = |key: &str| figure[key].as_f64().unwrap_or(f64::NAN);
    let unit = figure["unit"].as_str().unwrap_or_default();
    let (median, p99) = (number("median"), number("p99"));
    let goal = GOALS.iter().find(|(goal, _)| *goal == name).map(|(_, goal)| *goal);
    let verdict = goal.map_or(String::new(), |goal| {
        let met = if median <= goal { "met" } else { "missed" };
        format!("{goal:>12} {met}")
    });
    format!("{name:24} {median:>14.2} {p99:>14.2} {unit:4} {verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_a_name_a_family_and_a_model() {
        let listed =
            "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n";
        assert_eq!(processor(listed), "AMD EPYC, family 26, model 2");
        assert_eq!(processor(""), "unknown, family unknown, model unknown");
    }

    #[test]
    fn a_figure_is_shown_beside_its_goal() {
        let figure = serde_json::json!({"median": 9.5, "p99": 20.0, "unit": "ns", "samples": 3});
        assert!(line("gate", &figure).ends_with("8 missed"), "{}", line("gate", &figure));
        assert!(line("call_driver", &figure).ends_with("12 met"), "{}", line("call_driver", &figure));
        assert!(line("something_else", &figure).contains("9.50"), "one without a goal is shown too");
    }
}
