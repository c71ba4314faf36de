//! PCI Express functions: 4 KiB of configuration space and both lists of capabilities, as a compiled driver (`drivers/c/express.c`) finds them in each of the three ways, and what
//! becomes of their registers in D3.

use std::fs;

use dirql::{Bench, Machine};

use super::rig::{self, driver, folder, play, start};

const OPEN: &str = r"open \\.\DirqlExpress as f";
const INTERFACE: u32 = 0x22_2000;
const REQUEST: u32 = 0x22_2004;
const HAL: u32 = 0x22_2008;
const SET: u32 = 0x22_200C;
const SET_REQUEST: u32 = 0x22_2010;
const WALK: u32 = 0x22_2014;
const INTERRUPTS: u32 = 0x22_2018;

fn machine(device: &str) -> Machine {
    start(|| {
        Bench::new()
            .driver(driver("express.sys"))
            .inf(driver("express.inf"))
            .device(format!("pci,id=abcd:0e00,bar0=mem:4K{device}"))
    })
}

/// What is read at an offset, in one of the ways.
fn read(way: u32, offset: u32, length: u32, expect: &str) -> String {
    format!("ioctl f {way:#x} in u32:{offset:#x} + u32:{length} out {} expect {expect}\n", length.max(4))
}

/// The same in each way.
fn reads(offset: u32, length: u32, expect: &str) -> String {
    [INTERFACE, REQUEST, HAL].map(|way| read(way, offset, length, expect)).concat()
}

fn write(way: u32, offset: u32, value: u32) -> String {
    format!("ioctl f {way:#x} in u32:{offset:#x} + u32:{value:#x} out 4 expect u32:4\n")
}

/// What the walk finds: numbers and places.
fn walk(conventional: &[(u16, u16)], extended: &[(u16, u16)]) -> String {
    let all = conventional.iter().chain(&[(0xFFFF, 0xFFFF)]).chain(extended);
    let words: Vec<String> = all.map(|(id, at)| format!("u16:{id:#x} + u16:{at:#x}")).collect();
    format!("ioctl f {WALK:#x} out 64 expect {}\n", words.join(" + "))
}

fn tell(machine: Machine, script: &[String]) {
    play(&machine, &format!("{OPEN}\n{}close f", script.concat()));
    rig::finish(machine);
}

#[test]
fn a_driver_walks_both_lists_and_reads_beyond_256_bytes_in_each_way() {
    let machine = machine(
        ",irq,express=gen3+x4,serial=0011223344556677,aer,pm=d1,msi=4,caps=09:05aabb+03:0000,xcaps=000b:1:1122334455667788+0018:1:00000000",
    );
    tell(
        machine,
        &[
            walk(
                &[(5, 0xE0), (1, 0xD8), (3, 0x84), (9, 0x7C), (0x10, 0x40)],
                &[(3, 0x100), (1, 0x140), (0xB, 0x190), (0x18, 0x1A0)],
            ),
            reads(0x104, 8, "hex:7766554433221100"),
            reads(0x194, 8, "hex:1122334455667788"),
            reads(0x7E, 3, "hex:05aabb"),
            // PCI Express Capabilities: version 2, an endpoint. Link Status: 8 GT/s and four lanes.
            reads(0x42, 2, "hex:0200"),
            reads(0x52, 2, "hex:4310"),
            // What crosses the end of configuration space is cut there.
            reads(0xFF8, 16, "zero:8"),
            reads(0xFC, 8, "hex:00000000") + &reads(0x1000, 4, "bytes 0"),
        ]
        .map(|line| line.replace("expect hex:00000000\n", "expect prefix hex:00000000\n")),
    );
}

#[test]
fn a_conventional_function_has_256_bytes_and_one_list() {
    let machine = machine(",pm,caps=09:04ff");
    tell(
        machine,
        &[
            walk(&[(1, 0xD8), (9, 0x40)], &[]),
            reads(0xFC, 8, "bytes 4"),
            reads(0x100, 4, "bytes 0"),
            format!("ioctl f {SET:#x} in u32:0x100 + u32:1 out 4 expect u32:0\n"),
        ],
    );
}

#[test]
fn control_registers_hold_what_is_written_and_all_else_is_read_only() {
    let machine = machine(",express,aer");
    tell(
        machine,
        &[
            reads(0x48, 2, "hex:1028"),
            // Device Control with 128 bytes of payload; Device Status beside it is cleared by ones, and was.
            write(SET, 0x48, 0xFFFF_5000),
            reads(0x48, 4, "hex:00500000"),
            // The serial number is what it is, in whichever way.
            write(SET, 0x104, 0) + &write(SET_REQUEST, 0x104, 0),
            reads(0x104, 8, "hex:012345fffe6789ab"),
            // Masks and severity of advanced error reporting.
            reads(0x14C, 4, "hex:30204600"),
            write(SET_REQUEST, 0x148, 0x0000_4000) + &write(SET_REQUEST, 0x14C, 0),
            reads(0x148, 8, "hex:0040000000000000"),
        ],
    );
}

#[test]
fn the_bus_driver_puts_back_what_pci_express_registers_held_before_d3() {
    for power in ["", ",pm"] {
        let machine = machine(&format!(",express,aer{power}"));
        tell(
            machine,
            &[
                write(SET, 0x48, 0x0000_2017),
                write(SET, 0x50, 0x0000_0140),
                write(SET, 0x148, 0x0000_4000),
                "power d3 pci#0\npower d0 pci#0\n".to_owned(),
                reads(0x48, 2, "hex:1720"),
                reads(0x50, 2, "hex:4001"),
                reads(0x148, 4, "hex:00400000"),
                "power s3\npower s0\n".to_owned(),
                reads(0x48, 2, "hex:1720"),
            ],
        );
    }
}

#[test]
fn a_function_level_reset_leaves_the_function_as_after_power_on() {
    let machine = machine(",express=flr");
    tell(
        machine,
        &[
            write(SET, 0x50, 0x0000_0140),
            read(INTERFACE, 0x10, 4, "bytes 4"),
            write(SET, 0x48, 0x0000_8000),
            reads(0x50, 2, "hex:0000"),
            reads(0x48, 2, "hex:1028"),
            reads(0x04, 2, "hex:0000"),
            // Its driver would have put them back: it does not touch the card any more.
        ],
    );
}

#[test]
fn messages_of_any_card_are_sent_by_a_script() {
    for messages in ["msi=4", "bar1=mem:4K,msix=4:1"] {
        let machine = machine(&format!(",irq,express,{messages}"));
        tell(
            machine,
            &[
                format!("ioctl f {INTERRUPTS:#x} out 8 expect u32:0 + u32:1\n"),
                "poke pci#0 message 0\npoke pci#0 message 3\nwait 1ms\n".to_owned(),
                format!("ioctl f {INTERRUPTS:#x} out 8 expect u32:2 + u32:1\n"),
            ],
        );
    }
}

/// `lspci -xxxx` of an endpoint with power management, MSI-X, PCI Express and two extended capabilities.
fn dump() -> String {
    let mut bytes = vec![0_u8; 0x1000];
    let mut put = |at: usize, some: &[u8]| bytes[at..at + some.len()].copy_from_slice(some);
    put(0x00, &[0xCD, 0xAB, 0x00, 0x0E, 0x06, 0x04, 0x10, 0x00, 0x01, 0x00, 0x00, 0x02]);
    put(0x10, &[0x00, 0x00, 0xD0, 0xF7]);
    put(0x34, &[0x40]);
    put(0x3D, &[1]);
    put(0x40, &[0x01, 0x50, 0x23, 0x00, 0x08, 0x00]);
    put(0x50, &[0x11, 0x60, 0x03, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x30, 0x00, 0x00]);
    put(0x60, &[0x10, 0x00, 0x02, 0x00, 0xC2, 0x8F, 0x00, 0x10, 0x10, 0x28]);
    put(0x100, &[0x01, 0x00, 0x02, 0x14]);
    put(0x140, &[0x03, 0x00, 0x01, 0x00, 1, 2, 3, 4, 5, 6, 7, 8]);
    let rows = bytes.chunks(16).enumerate().map(|(row, bytes)| {
        let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:02x}: {}\n", row * 16, bytes.join(" "))
    });
    format!(
        "02:00.0 Ethernet controller: a card\n\tMemory at f7d00000 (32-bit, non-prefetchable) [size=16K]\n{}",
        rows.collect::<String>()
    )
}

#[test]
fn a_dumped_card_has_its_capabilities_its_messages_and_its_extended_space() {
    let file = folder("express").join("card.txt");
    fs::write(&file, dump()).unwrap();
    let machine = start(|| {
        Bench::new()
            .driver(driver("express.sys"))
            .inf(driver("express.inf"))
            .device(format!("pci,config={}", file.display()))
    });
    tell(
        machine,
        &[
            walk(&[(1, 0x40), (0x11, 0x50), (0x10, 0x60)], &[(1, 0x100), (3, 0x140)]),
            reads(0x144, 8, "hex:0102030405060708"),
            write(SET, 0x68, 0x0000_5000),
            reads(0x68, 2, "hex:0050"),
            "poke pci#0 message 2\nwait 1ms\n".to_owned(),
            format!("ioctl f {INTERRUPTS:#x} out 8 expect u32:1 + u32:1\n"),
            "power d3 pci#0\npower d0 pci#0\npoke pci#0 message 1\nwait 1ms\n".to_owned(),
            reads(0x68, 2, "hex:0050"),
            format!("ioctl f {INTERRUPTS:#x} out 8 expect u32:2 + u32:1\n"),
        ],
    );
}

#[test]
fn a_sheet_says_the_same_in_its_card_line() {
    let file = folder("express").join("card.sheet");
    fs::write(
        &file,
        "card id=abcd:0e00 express=gen2+x8 serial=0102030405060708 caps=09:04ff pm\nbar0 mem:4K\n  0 ID rw\n",
    )
    .unwrap();
    let machine = start(|| {
        Bench::new()
            .driver(driver("express.sys"))
            .inf(driver("express.inf"))
            .device(format!("pci,sheet={}", file.display()))
    });
    tell(
        machine,
        &[
            walk(&[(1, 0xD8), (9, 0x7C), (0x10, 0x40)], &[(3, 0x100)]),
            reads(0x104, 8, "hex:0807060504030201"),
            reads(0x52, 2, "hex:8210"),
        ],
    );
}

#[test]
fn every_model_of_a_modern_bus_can_be_a_pci_express_function() {
    for (device, id) in [("edu", "1234:11E8"), ("bench", "1234:BE2C"), ("slave", "1234:51A7")] {
        let (vendor, model) = id.split_once(':').unwrap();
        let inf = rig::changed_inf("express", "express.inf", |text| {
            text.replace("VEN_ABCD&DEV_0E00", &format!("VEN_{vendor}&DEV_{model}"))
        });
        let machine = start(|| {
            let device = format!("{device},express=gen2+x1,aer,caps=09:04ff");
            Bench::new().driver(driver("express.sys")).inf(&inf).device(device)
        });
        let found = [read(INTERFACE, 0x100, 4, "hex:03000114"), read(HAL, 0x140, 4, "hex:01000200")];
        tell(machine, &found);
    }
}
