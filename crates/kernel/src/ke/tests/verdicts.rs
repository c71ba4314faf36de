//! Mistakes with levels.

use crate::Cx;
use crate::ke::irql;
use crate::ke::rig::{bug_check, machine, rule, settle, spawn};
use crate::ke::scheduler::End;

#[test]
fn a_raise_that_lowers_and_a_lower_that_raises_are_told() {
    type Mistake = fn(&mut Cx<'_>) -> engine::Flow<()>;
    let cases: [(&str, u32, Mistake); 3] = [
        ("irql-raise-lowers", 0xC4, |cx| {
            irql::raise(cx, 5)?;
            irql::raise(cx, 2).map(|_| ())
        }),
        ("irql-lower-raises", 0xC4, |cx| irql::lower(cx, 2)),
        ("irql-invalid", 0x1E, |cx| irql::set_by_cr8(cx, 16)),
    ];
    for (expected, code, mistake) in cases {
        machine(move |cx| {
            spawn(cx, "driver", mistake);
            assert_eq!(settle(cx), End::Stopped);
            assert_eq!((rule(cx), bug_check(cx)), (Some(expected), Some(code)));
        });
    }
}

#[test]
fn the_level_is_the_same_by_call_by_cr8_and_in_the_control_region() {
    machine(|cx| {
        spawn(cx, "driver", |cx| {
            assert_eq!(irql::raise(cx, 7)?, 0);
            let region = cx.with(|k| k.ke.processor().region);
            assert_eq!(cx.read(region + abi::KPCR::Irql)?, 7);
            irql::set_by_cr8(cx, 3)?;
            assert_eq!(irql::get(cx), Ok(3));
            irql::lower(cx, 0)
        });
        assert_eq!(settle(cx), End::Quiet);
    });
}
