//! Stories of a card that a text file describes (`drivers/c/sampler.sheet`), and of the driver that was written for it (`sampler.sys`).

use std::path::PathBuf;

use dirql::{Bench, Machine, Outcome, Report, Verifier};

use super::rig::{driver, start, try_play};

/// The repository's sheet.
fn sheet() -> PathBuf {
    driver("sampler.sys").ancestors().nth(3).unwrap().join("drivers/c/sampler.sheet")
}

/// The driver with the card of a sheet.
fn bench(sheet: &std::path::Path) -> Bench {
    Bench::new().driver(driver("sampler.sys")).device(format!("pci,sheet={}", sheet.display()))
}

fn machine() -> Machine {
    start(|| bench(&sheet()).checked(true).verifier(Verifier::ALL))
}

fn run(machine: Machine, script: &str) -> Report {
    // What goes wrong stands in the report.
    let _ = try_play(&machine, script);
    machine.finish()
}

/// The same driver, and a card whose sheet has one line changed.
fn run_with(line: &str, changed: &str, script: &str) -> Report {
    let text = std::fs::read_to_string(sheet()).unwrap();
    assert_eq!(text.matches(line).count(), 1, "{line}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changed.sheet");
    std::fs::write(&file, text.replace(line, changed)).unwrap();
    run(start(|| bench(&file).checked(true)), script)
}

const SAMPLE: &str = r"open \\.\Sampler as s overlapped
    async r read s 40
    wait 1ms
    expect pending r
    ioctl s 0x222000 in u32:10
    join r expect u32:100 + u32:101 + u32:102 + u32:103 + u32:104 + u32:105 + u32:106 + u32:107 + u32:108 + u32:109
    close s";

#[test]
fn samples_come_by_interrupts_in_their_order() {
    let report = run(machine(), SAMPLE);
    report.expect_clean();
    assert!(report.sums.interrupts.0 >= 2, "ten samples are more than half a FIFO\n{report}");
}

#[test]
fn a_script_lets_the_signal_jump_and_sees_registers_by_name() {
    let report = run(
        machine(),
        r"open \\.\Sampler as s overlapped
          peek pci#0 ID expect u32:0x5a4d0001
          async r read s 32
          poke pci#0 signal 5000
          ioctl s 0x222000 in u32:20
          join r expect u32:5000 + u32:5001 + u32:5002 + u32:5003 + u32:5004 + u32:5005 + u32:5006 + u32:5007
          peek pci#0 CONTROL expect u32:0x1401
          ioctl s 0x222000 in u32:0
          peek pci#0 CONTROL expect u32:0",
    );
    report.expect_clean();
}

#[test]
fn a_block_comes_by_dma_through_the_adapter_that_the_driver_asked_for() {
    let report = run(
        machine(),
        r"open \\.\Sampler as s
          ioctl s 0x222004 out 256 expect prefix text:blocks and bytes 256
          ioctl s 0x222004 out 2048 expect bytes 2048",
    );
    report.expect_clean();
}

#[test]
fn a_read_is_cancelled_and_one_that_waits_ends_when_the_card_is_pulled() {
    let report = run(
        machine(),
        r"open \\.\Sampler as s overlapped
          async r read s 4
          cancel r
          join r expect STATUS_CANCELLED
          async r read s 4
          ioctl s 0x222000 in u32:0
          surprise-remove
          join r expect STATUS_DEVICE_NOT_CONNECTED
          close s",
    );
    report.expect_clean();
}

#[test]
fn a_card_stopped_in_the_middle_of_its_samples_starts_again_elsewhere() {
    let report = run(
        machine(),
        r"open \\.\Sampler as s overlapped
          async r read s 64
          ioctl s 0x222000 in u32:10
          wait 30us
          stop-device
          join r expect STATUS_DEVICE_NOT_CONNECTED
          start-device elsewhere
          async r read s 4
          ioctl s 0x222000 in u32:10
          join r expect u32:100
          close s",
    );
    report.expect_clean();
}

#[test]
fn a_card_whose_rtl_forgets_to_drop_its_line_is_a_storm() {
    let report = run_with("008 STATUS    w1c", "008 STATUS    ro", SAMPLE);
    assert_eq!(report.expect_verdict().rule, "interrupt-storm", "{report}");
}

#[test]
fn a_card_whose_rtl_never_interrupts_leaves_the_read_waiting() {
    let script = SAMPLE.replace("u32:10\n", "u32:255\n");
    let report = run_with("line irq = STATUS & ENABLE", "line irq = 0", &script);
    let text = report.to_string();
    assert!(
        report.outcome() == Outcome::Unexpected && text.contains("`join r") && text.contains("does not end"),
        "{report}"
    );
}

#[test]
fn a_card_whose_dma_goes_too_far_is_told_with_its_name() {
    let report = run_with(
        "store BLOCK[0] to ADDRESS length LENGTH",
        "store BLOCK[0] to ADDRESS + 4096 length LENGTH",
        "open \\\\.\\Sampler as s; ioctl s 0x222004 out 256 expect any",
    );
    let text = report.to_string();
    assert!(text.contains("pci#0") && report.outcome() != Outcome::Clean, "{report}");
}

#[test]
fn a_driver_that_touches_what_the_sheet_lacks_is_told_the_instruction() {
    let report = run_with(
        "020 ADDRESS   qword rw",
        "030 ADDRESS   qword rw",
        "open \\\\.\\Sampler as s; ioctl s 0x222004 out 256 expect any",
    );
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "register-refused", "{report}");
    assert!(verdict.message.contains("pci#0 BAR0+20h") && verdict.message.contains("rest=zeros"), "{report}");
    assert!(report.to_string().contains("sampler.c"), "its line\n{report}");
}

/// The built-in board of the PCI 9052, as a sheet.
const BOARD: &str = "local
fff8 STATUS w1c
    0 DONE
    1 BUSY ro
    2 OVERRUN
fffc DOORBELL rw
line linti1 = STATUS.DONE
on write DOORBELL
    STATUS.OVERRUN = 1 if WORK.running
    start WORK after 10us if !WORK.running
    STATUS.BUSY = 1
on timer WORK
    STATUS.BUSY = 0
    STATUS.DONE = 1
";

#[test]
fn behind_the_bridge_a_described_board_is_as_the_built_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("board.sheet");
    std::fs::write(&file, BOARD).unwrap();
    let reports = ["pci9052".to_owned(), format!("pci9052,local={}", file.display())].map(|device| {
        let bench =
            || Bench::new().driver(driver("pciline.sys")).inf(driver("pciline.inf")).device(device.clone());
        let report = run(
            start(bench),
            r"open \\.\PciLine0 as card
              write card text:hello at 0
              read card 5 at 0 expect text:hello
              write card u32:0x12345678 at 0x1001
              read card 2 at 0x1002 expect hex:5634
              close card",
        );
        report.expect_clean();
        assert!(report.sums.interrupts.0 > 0, "{report}");
        report.to_string()
    });
    assert_eq!(reports[0], reports[1]);
}
