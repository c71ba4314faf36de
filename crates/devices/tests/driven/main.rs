//! Stories of a compiled driver on a modelled card: `pciline.sys` and the PCI 9052, from finding the card to unloading.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

mod rig;

use abi::NtStatus;
use kernel::Cx;
use kernel::io::driver;
use kernel::io::file::{self, Buffer};
use kernel::pnp::{self, Drivers, Installation, NodeId, node};
use rig::{STATE, WAIT, buffer, contents, load, open, run, set_hardware, set_parameter, write_and_read};

const CARD: &str = "pci9052";

/// The card, found and with the driver's INF as good as installed.
fn card(cx: &mut Cx<'_>) -> engine::Flow<NodeId> {
    pnp::enumerate(cx)?;
    let id = pnp::named(cx, "pci9052#0").expect("the card");
    let installation = Installation {
        service: "pciline".to_owned(),
        description: "PLX PCI 9050/9052 card (line interrupt)".to_owned(),
        manufacturer: "dirql".to_owned(),
        class: "PciLineSample".to_owned(),
        class_guid: "{5b0c3e0a-7c1d-4e57-9a5e-6a2e5d1f4c90}".to_owned(),
        ..Installation::default()
    };
    pnp::install(cx, id, installation)?;
    Ok(id)
}

/// Found, driven, started.
fn started(cx: &mut Cx<'_>) -> engine::Flow<NodeId> {
    let id = card(cx)?;
    let driver = load(cx)?;
    assert_eq!(pnp::start(cx, id, &Drivers::without_filters(driver))?, Ok(()));
    Ok(id)
}

#[test]
fn a_write_goes_into_the_card_and_an_interrupt_completes_it() {
    let ended = run(&[CARD], |cx| {
        let id = card(cx)?;
        let driver = load(cx)?;
        assert_eq!(pnp::start(cx, id, &Drivers::without_filters(driver))?, Ok(()));
        assert_eq!(write_and_read(cx, 0x10, b"first light")?, b"first light");
        let handle = open(cx)?;
        let state = buffer(cx, &[0; 16]);
        let nothing = Buffer { address: 0, length: 0 };
        let answer = file::device_control(cx, handle, STATE, nothing, state)?;
        assert_eq!(answer.status, NtStatus::SUCCESS);
        let counters: Vec<u8> = contents(cx, state).chunks(4).map(|c| c[0]).collect();
        assert_eq!(counters[..3], [2, 2, 0], "two transfers, two interrupts, none passed on");
        let _ = file::close(cx, handle)?;
        assert_eq!(pnp::remove(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(driver::unload(cx, driver)?, NtStatus::SUCCESS);
        Ok(())
    });
    ended.clean();
    let steps: Vec<&str> =
        ended.steps.iter().map(String::as_str).filter(|s| !s.starts_with("prints")).collect();
    assert_eq!(
        steps,
        [
            "found pci9052#0",
            "add pci9052#0",
            "start pci9052#0",
            "started pci9052#0",
            "query remove pci9052#0",
            "remove pci9052#0",
            "removed pci9052#0"
        ]
    );
}

#[test]
fn the_driver_connects_its_interrupt_in_each_of_the_three_ways() {
    for mode in 0..3 {
        let ended = run(&[CARD], move |cx| {
            set_parameter(cx, "InterruptMode", mode);
            let id = started(cx)?;
            assert_eq!(write_and_read(cx, 0, &[1, 2, 3])?, [1, 2, 3]);
            assert_eq!(pnp::remove(cx, id)?, NtStatus::SUCCESS);
            Ok(())
        });
        ended.clean();
        assert!(
            ended.steps.iter().any(|step| step.contains(&format!("interrupt mode {mode}"))),
            "{:?}",
            ended.steps
        );
    }
}

#[test]
fn the_registers_are_reached_by_ports_if_the_hardware_key_says_so() {
    run(&[CARD], |cx| {
        let id = card(cx)?;
        set_hardware(cx, id, "UsePorts", 1);
        let driver = load(cx)?;
        assert_eq!(pnp::start(cx, id, &Drivers::without_filters(driver))?, Ok(()));
        assert_eq!(write_and_read(cx, 4, b"by ports")?, b"by ports");
        assert_eq!(pnp::remove(cx, id)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

#[test]
fn the_card_is_stopped_and_started_again_between_two_writes() {
    run(&[CARD], |cx| {
        let id = started(cx)?;
        assert_eq!(write_and_read(cx, 0, b"before")?, b"before");
        assert_eq!(pnp::stop(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(pnp::restart(cx, id)?, Ok(()));
        assert_eq!(write_and_read(cx, 0, b"after")?, b"after");
        assert_eq!(pnp::query_stop(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(pnp::stop::cancel_stop(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(pnp::query_remove(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(pnp::remove::cancel_remove(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(write_and_read(cx, 0, b"still")?, b"still");
        assert_eq!(pnp::remove(cx, id)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

#[test]
fn a_card_pulled_out_under_an_open_file_is_removed_when_the_file_is_closed() {
    run(&[CARD], |cx| {
        let id = started(cx)?;
        let handle = open(cx)?;
        assert_eq!(pnp::surprise_remove(cx, id)?, NtStatus::SUCCESS);
        assert_eq!(pnp::state(cx, id), node::State::SurpriseRemoved);
        let data = buffer(cx, b"too late");
        let answer = file::write(cx, handle, data, Some(0))?;
        assert_eq!(answer.status, NtStatus::DEVICE_NOT_CONNECTED);
        let _ = file::close(cx, handle)?;
        while pnp::state(cx, id) != node::State::Deleted {
            sleep(cx)?;
        }
        Ok(())
    })
    .clean();
}

/// Lets a millisecond pass.
fn sleep(cx: &mut Cx<'_>) -> engine::Flow<()> {
    let interval = kernel::mm::pool::allocate(cx, kernel::mm::pool::Kind::NonPaged, 8, 1)?;
    cx.write(interval, -10_000_i64)?;
    let _ = kernel::ke::wait::delay(cx, 0, false, interval)?;
    kernel::mm::pool::free(cx, interval)
}

#[test]
fn a_waiting_request_ends_when_the_local_side_raises_its_interrupt() {
    run(&[CARD], |cx| {
        let id = started(cx)?;
        let raise = |cx: &mut Cx<'_>| {
            sleep(cx)?;
            let now = cx.engine().now();
            cx.with(|k| k.hardware(now, |hardware, at| hardware.poke(at, "pci9052#0", "linti1", "1")))
                .unwrap();
            kernel::ke::interrupt::deliver(cx)
        };
        let _ = kernel::ke::thread::spawn(cx, "local side", Box::new(raise))?;
        let handle = open(cx)?;
        let nothing = Buffer { address: 0, length: 0 };
        let answer = file::device_control(cx, handle, WAIT, nothing, nothing)?;
        assert_eq!(answer.status, NtStatus::SUCCESS);
        let _ = file::close(cx, handle)?;
        assert_eq!(pnp::remove(cx, id)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

/// Opens the `n`-th device of the driver, writes and reads.
fn talk(cx: &mut Cx<'_>, n: u32, bytes: &[u8]) -> engine::Flow<()> {
    let handle = file::open(cx, &format!(r"\\.\PciLine{n}"), &file::OpenOptions::default())?.unwrap();
    let data = buffer(cx, bytes);
    assert_eq!(file::write(cx, handle, data, Some(0))?.status, NtStatus::SUCCESS);
    let back = buffer(cx, &vec![0; bytes.len()]);
    assert_eq!(file::read(cx, handle, back, Some(0))?.status, NtStatus::SUCCESS);
    assert_eq!(contents(cx, back), bytes);
    assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
    Ok(())
}

#[test]
fn two_cards_share_a_line_and_each_claims_its_own_interrupts() {
    run(&["pci9052,line=17", "pci9052,line=17"], |cx| {
        let first = card(cx)?;
        let second = pnp::named(cx, "pci9052#1").expect("the other card");
        let driver = load(cx)?;
        assert_eq!(pnp::start(cx, first, &Drivers::without_filters(driver))?, Ok(()));
        assert_eq!(pnp::start(cx, second, &Drivers::without_filters(driver))?, Ok(()));
        talk(cx, 0, b"one")?;
        talk(cx, 1, b"two")?;
        assert_eq!(pnp::remove(cx, first)?, NtStatus::SUCCESS);
        talk(cx, 1, b"the other goes on")?;
        assert_eq!(pnp::remove(cx, second)?, NtStatus::SUCCESS);
        assert_eq!(driver::unload(cx, driver)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

#[test]
fn a_card_without_its_local_space_does_not_start_and_leaves_nothing() {
    let ended = run(&["pci,id=10b5:9050,bar0=mem:128,bar1=io:128,irq"], |cx| {
        pnp::enumerate(cx)?;
        let id = pnp::named(cx, "pci#0").expect("the card");
        let driver = load(cx)?;
        let failed = pnp::start(cx, id, &Drivers::without_filters(driver))?.unwrap_err();
        assert_eq!(
            (failed.step, failed.status),
            ("IRP_MN_START_DEVICE", NtStatus::DEVICE_CONFIGURATION_ERROR)
        );
        assert_eq!(pnp::state(cx, id), node::State::Enumerated);
        assert_eq!(driver::unload(cx, driver)?, NtStatus::SUCCESS);
        Ok(())
    });
    ended.clean();
}

#[test]
fn the_system_sleeps_and_wakes_with_the_driver_loaded() {
    run(&[CARD], |cx| {
        let id = started(cx)?;
        assert_eq!(kernel::po::system::set(cx, abi::PowerSystemSleeping3)?, NtStatus::SUCCESS);
        assert_eq!(kernel::po::system::set(cx, abi::PowerSystemWorking)?, NtStatus::SUCCESS);
        assert_eq!(write_and_read(cx, 0, b"awake")?, b"awake");
        assert_eq!(pnp::remove(cx, id)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}
