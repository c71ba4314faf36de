//! Stories of a driver at its card: windows, ports, configuration space, and what it must not touch.

use abi::{DriverPtr, PCIBus, PCIConfiguration};
use engine::windows::{DEVICE, SHARED_DATA};
use engine::{Access, Flow};

use super::hardware::Width;
use super::rig::{AT, LINE, MEMORY, PORTS, machine};
use super::{access, bus_data};
use crate::cx::Cx;
use crate::ke::rig::{bug_check, message, rule};
use crate::mm::{io_space, pool};

fn read(cx: &mut Cx<'_>, address: u64, bytes: u8) -> Flow<Vec<u8>> {
    let mut data = vec![0; bytes.into()];
    access::device_read(cx, Access { address, bytes }, &mut data)?;
    access::accessed(cx)?;
    Ok(data)
}

fn write(cx: &mut Cx<'_>, address: u64, data: &[u8]) -> Flow<()> {
    access::device_write(cx, Access { address, bytes: u8::try_from(data.len()).unwrap() }, data)?;
    access::accessed(cx)
}

fn block(cx: &mut Cx<'_>, bytes: u64) -> DriverPtr<()> {
    pool::allocate(cx, pool::Kind::NonPaged, bytes, 1).unwrap()
}

#[test]
fn a_mapped_register_is_read_and_written_and_takes_its_time() {
    machine(|cx, card| {
        let window = io_space::map(cx, MEMORY, 0x80, 0).unwrap();
        let before = cx.engine().now();
        write(cx, window + 0x4C, &[0x78, 0x56, 0x34, 0x12]).unwrap();
        assert_eq!(read(cx, window + 0x4C, 2).unwrap(), [0x78, 0x56]);
        assert_eq!(cx.engine().now() - before, access::WRITE_COST + access::READ_COST);
        assert_eq!(card.borrow().accesses, ["w4 +4c", "r2 +4c"]);
        assert_eq!(read(cx, window, 16).unwrap().len(), 16, "an SSE move");
        assert_eq!(card.borrow().accesses[2..], ["r8 +0", "r8 +8"]);
    });
}

#[test]
fn ports_cost_more_than_memory_and_reach_the_same_card() {
    machine(|cx, card| {
        let before = cx.engine().now();
        access::port_write(cx, PORTS + 0x4C, 4, 7).unwrap();
        assert_eq!(access::port_read(cx, PORTS + 0x4C, 1).unwrap(), 7);
        assert_eq!(cx.engine().now() - before, 2 * access::PORT_COST);
        assert_eq!(card.borrow().accesses, ["w4 +4c", "r1 +4c"]);
        assert!(cx.nt().findings().is_empty());
    });
}

#[test]
fn an_access_that_the_register_refuses_ends_the_run_with_its_reason() {
    machine(|cx, _| {
        assert!(access::port_read(cx, PORTS + 2, 4).is_err());
        assert_eq!(rule(cx), Some("register-refused"));
        assert!(message(cx).contains("card#0 +2h: accepts aligned accesses"), "{}", message(cx));
    });
}

#[test]
fn an_access_behind_the_mapping_is_not_the_drivers_though_the_page_goes_on() {
    machine(|cx, card| {
        let window = io_space::map(cx, MEMORY, 0x80, 0).unwrap();
        assert!(read(cx, window + 0x7E, 4).is_err());
        assert_eq!(rule(cx), Some("device-access-past-mapping"));
        assert!(card.borrow().accesses.is_empty());
    });
}

#[test]
fn an_access_after_mm_unmap_io_space_is_a_page_fault() {
    machine(|cx, _| {
        let window = io_space::map(cx, MEMORY, 0x80, 0).unwrap();
        io_space::unmap(cx, window, 0x80).unwrap();
        assert!(write(cx, window, &[0]).is_err());
        assert_eq!((rule(cx), bug_check(cx)), (Some("device-memory-not-mapped"), Some(0x50)));
    });
}

#[test]
fn a_write_to_a_window_that_is_mapped_read_only_is_the_end() {
    machine(|cx, card| {
        let window = io_space::map_ex(cx, MEMORY, 0x80, abi::PAGE_READONLY | abi::PAGE_NOCACHE).unwrap();
        assert_eq!(read(cx, window + 4, 4).unwrap(), [0; 4]);
        assert!(write(cx, window + 4, &[1, 0, 0, 0]).is_err());
        assert_eq!((rule(cx), bug_check(cx)), (Some("write-to-read-only"), Some(0xBE)));
        assert_eq!(card.borrow().accesses, ["r4 +4"], "it has not arrived");
    });
}

#[test]
fn an_address_that_was_never_mapped_is_a_page_fault_too() {
    machine(|cx, _| {
        assert!(read(cx, DEVICE.base + 0x1234_5678, 4).is_err());
        assert_eq!(rule(cx), Some("device-memory-not-mapped"));
    });
}

#[test]
fn the_shared_clock_is_read_there_and_never_written() {
    machine(|cx, _| {
        // NtMajorVersion.
        assert_eq!(read(cx, SHARED_DATA.base + 0x26C, 4).unwrap(), [10, 0, 0, 0]);
        assert!(write(cx, SHARED_DATA.base + 0x320, &[0; 4]).is_err());
        assert_eq!((rule(cx), bug_check(cx)), (Some("shared-data-written"), Some(0xBE)));
    });
}

#[test]
fn a_port_of_no_device_is_a_warning_once() {
    machine(|cx, _| {
        for _ in 0..3 {
            assert_eq!(access::port_read(cx, 0x378, 1).unwrap() & 0xFF, 0xFF);
        }
        let findings = cx.nt().findings();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].rule, "port-of-no-device");
    });
}

#[test]
fn configuration_space_is_read_by_bus_and_slot() {
    machine(|cx, _| {
        let buffer = block(cx, 0x100);
        assert_eq!(bus_data::get(cx, PCIConfiguration, 0, 3, buffer, 0x40).unwrap(), 0x40);
        assert_eq!(cx.read_bytes(buffer.address, 4).unwrap(), [0xB5, 0x10, 0x50, 0x90]);
        assert_eq!(bus_data::get_by_offset(cx, PCIConfiguration, 0, 3, buffer, 0xFC, 16).unwrap(), 4);
        assert_eq!(bus_data::get(cx, PCIConfiguration, 0, 4, buffer, 0x40).unwrap(), 2, "an empty slot");
        assert_eq!(cx.read_bytes(buffer.address, 2).unwrap(), [0xFF, 0xFF]);
        assert_eq!(bus_data::get(cx, PCIConfiguration, 1, 3, buffer, 0x40).unwrap(), 0, "no such bus");
        assert_eq!(bus_data::get(cx, 0, 0, 3, buffer, 0x40).unwrap(), 0, "there is no CMOS");
    });
}

#[test]
fn configuration_space_is_written_by_bus_and_slot() {
    machine(|cx, card| {
        let buffer = block(cx, 4);
        cx.write(buffer.cast(), 0xAAu8).unwrap();
        assert_eq!(bus_data::set_by_offset(cx, PCIConfiguration, 0, 3, buffer, 0x3C, 1).unwrap(), 1);
        assert_eq!(card.borrow().config[0x3C], 0xAA);
        assert_eq!(bus_data::set_by_offset(cx, PCIConfiguration, 0, 9, buffer, 0x3C, 1).unwrap(), 0);
    });
}

#[test]
fn a_bus_address_and_a_line_are_translated_the_old_way() {
    machine(|cx, _| {
        let buffer = block(cx, 0x18);
        let (space, translated) = (buffer.cast::<u32>(), DriverPtr::<u64>::new(buffer.address + 8));
        cx.write(space, 1).unwrap();
        assert!(bus_data::translate_address(cx, PCIBus, 0, PORTS.into(), space, translated).unwrap());
        assert_eq!((cx.read(translated).unwrap(), cx.read(space).unwrap()), (PORTS.into(), 1));

        let (irql, affinity) = (buffer.cast::<u8>(), translated);
        // The card's interrupt line register says 10.
        let vector = bus_data::interrupt_vector(cx, PCIBus, 0, 10, 10, irql, affinity).unwrap();
        assert_eq!(vector, crate::ke::interrupt::vector_of_line(LINE));
        assert_eq!(u32::from(cx.read(irql).unwrap()), vector >> 4);
        assert_eq!(cx.read(affinity).unwrap(), 1);
        assert_eq!(bus_data::interrupt_vector(cx, PCIBus, 0, 3, 3, irql, affinity).unwrap(), 0);
    });
}

#[test]
fn a_card_that_was_pulled_out_answers_nothing() {
    machine(|cx, _| {
        cx.with(|k| k.hal.hardware.set_present(AT, false));
        assert_eq!(cx.with(|k| k.hal.hardware.config_read(AT, 0, Width::Dword)), u32::MAX);
        assert_eq!(access::port_read(cx, PORTS, 4).unwrap(), u32::MAX.into());
    });
}
