//! `dirql check` has found that the driver breaks the rule `unload-still-called`: timer_left_at_unload_fixed was unloaded, and its timer timer_left_at_unload_fixed.sys!Timer is still set: its code is called when it is gone
//! This fails until that is mended. The command line: `dirql run ../../target/museum/timer_left_at_unload_fixed.sys --verifier=all,logging --rules=all '--do=open "\\.\Beeper" as h overlapped; async r0 ioctl h 0x1200c'`

use dirql::{Bench, Error, ScriptText};

#[test]
fn unload_still_called() -> Result<(), Error> {
    let bench = Bench::new()
        .driver("../../target/museum/timer_left_at_unload_fixed.sys")
        .verifier("all,logging".parse().unwrap())
        .rules(&dirql::rules::judges("all")?)
        .checked(true);
    let play = Some(ScriptText::typed(
        r#"open "\\.\Beeper" as h overlapped
        async r0 ioctl h 0x1200c"#,
    ).play()?);
    let report = bench.run(play)?;
    assert!(report.causes().is_empty(), "{report}");
    Ok(())
}
