//! `docs/guide/tests.md` as a reader tries it: its tests are made, in the folder that it means.

use dirql::{Bench, Error};

use super::rig::driver;

fn what_is_written_is_read() -> Result<(), Error> {
    let bench =
        Bench::new().driver("target/drivers/pciline.sys").inf("target/drivers/pciline.inf").device("pci9052");
    let machine = bench.checked(true).start()?;
    let card = machine.open(r"\\.\PciLine0")?;
    card.write_at(b"hello", Some(0))?;
    assert_eq!(card.read_at(5, Some(0))?, b"hello");
    card.close()?;
    machine.finish().expect_clean();
    Ok(())
}

fn a_read_that_waits_is_cancelled() -> Result<(), Error> {
    let machine = Bench::new().driver("target/drivers/queue.sys").start()?;
    let queue = machine.open_overlapped(r"\\.\DirqlQueue")?;
    let first = queue.begin_read(4, None)?;
    let second = queue.begin_read(4, None)?;
    assert!(!first.is_over());
    assert!(first.cancel()?, "it was under way");
    assert_eq!(first.wait()?.status, 0xC000_0120); // STATUS_CANCELLED
    assert_eq!(second.wait()?.data, [1, 0, 0, 0]);
    machine.finish().expect_clean();
    Ok(())
}

fn the_interrupt_is_acknowledged() -> Result<(), Error> {
    let card = "pci,id=abcd:0001,bar0=mem:128,irq,reg0=0:5ee70001,status0=8,enable0=4,ack0=c";
    let machine = Bench::new().driver("target/drivers/sheet.sys").device(card).start()?;
    let sheet = machine.open_overlapped(r"\\.\Sheet")?;
    let wait = sheet.begin_device_control(0x22_2000, &[], 8)?;
    machine.poke("pci#0", "irq", 0x81)?;
    assert_eq!(wait.wait()?.data[..4], 0x81_u32.to_le_bytes());
    assert_eq!(machine.peek("pci#0", "bar0+8")?, 0);
    machine.finish().expect_clean();
    Ok(())
}

fn another_applications_view_is_its_own() -> Result<(), Error> {
    let machine = Bench::new().driver("target/drivers/sections.sys").start()?;
    let other = machine.begin_process("other")?;
    machine.within(other, || {
        let file = machine.open(r"\\.\DirqlSections")?;
        let answer = file.device_control(0x22_2400, &[], 8)?; // the driver maps a section for who asks
        let view = u64::from_le_bytes(answer.try_into().unwrap());
        machine.store(view, &[7])?;
        assert_eq!(machine.load(view, 1)?, [7]);
        file.device_control(0x22_240C, &[], 8)?;
        file.close()
    })?;
    machine.end_process(other);
    machine.finish().expect_clean();
    Ok(())
}

#[test]
fn the_tests_of_the_page_hold_and_are_the_pages() {
    let root = driver("queue.sys").ancestors().nth(3).unwrap().to_owned();
    std::env::set_current_dir(&root).unwrap();
    what_is_written_is_read().unwrap();
    a_read_that_waits_is_cancelled().unwrap();
    the_interrupt_is_acknowledged().unwrap();
    another_applications_view_is_its_own().unwrap();
    let page = std::fs::read_to_string(root.join("docs/guide/tests.md")).unwrap();
    let own = std::fs::read_to_string(root.join("crates/dirql/tests/guide.rs")).unwrap();
    let shown: Vec<&str> =
        page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(shown.len(), 4);
    for block in shown {
        let (head, test) = block.split_once("#[test]\n").unwrap();
        assert_eq!(head.trim(), "use dirql::{Bench, Error};");
        assert!(own.contains(test), "the page has another test than this file:\n{test}");
    }
}
