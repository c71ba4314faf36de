//! What `dirql devices` shows and what a user's typing mistakes are answered with.

use crate::rig::{card, no_files, refused};

#[test]
fn every_model_says_what_it_is_and_has_a_key_line_for_each_key() {
    let catalog = devices::catalog();
    let names: Vec<_> = catalog.iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["pci9052", "edu", "bench", "slave", "pci"]);
    assert_eq!(catalog[0].ids, [(0x10B5, 0x9050)]);
    for entry in catalog {
        assert!(!entry.summary.is_empty() && !entry.signals.is_empty(), "{}", entry.name);
        let keys: Vec<_> = entry.all_keys().map(|key| key.name).collect();
        assert!(keys.contains(&"slot") && keys.contains(&"line"), "{}", entry.name);
        assert!(
            entry.all_keys().all(|key| !key.meaning.is_empty() && !key.default.is_empty()),
            "{}",
            entry.name
        );
    }
}

#[test]
fn an_unknown_device_is_answered_with_the_one_that_was_meant_and_with_all() {
    assert_eq!(
        refused("pci9025"),
        "no device model `pci9025`, did you mean `pci9052`?; there are: pci9052, edu, bench, slave, pci (see `dirql devices`)"
    );
    assert_eq!(
        refused("toaster"),
        "no device model `toaster`; there are: pci9052, edu, bench, slave, pci (see `dirql devices`)"
    );
    assert!(refused("").starts_with("no device model ``"));
}

#[test]
fn an_unknown_key_is_answered_with_the_one_that_was_meant_and_with_all() {
    assert_eq!(
        refused("pci9052,latncy=5us"),
        "device `pci9052` has no key `latncy`, did you mean `latency`?; its keys: latency, rev, eeprom, sub, local, holds, lclk, ready, idle, slot, line, atN"
    );
    assert!(refused("pci,id=1:2,bar6=mem:4K").contains("has no key `bar6`, did you mean `barN`?"));
    assert!(refused("pci,id=1:2,id=3:4").contains("key `id` is given twice"));
}

#[test]
fn a_value_that_cannot_be_used_is_answered_with_the_form_of_one_that_can() {
    for (spec, says) in [
        ("pci9052,latency=soon", "latency=soon is not usable; latency is a time"),
        ("pci9052,rev=3", "rev is 1 or 2"),
        ("pci9052,slot=0", "slot is a number from 1 to 31"),
        ("pci9052,line=5", "line is a number from 16 to 23"),
        ("pci9052,sub=1:2,eeprom=blank", "sub= is for the built-in board"),
        ("pci9052,eeprom=my.hex", "eeprom=my.hex: my.hex: no such file"),
        ("pci", "needs id=VVVV:DDDD or config=FILE"),
        ("pci,id=10b5", "id is VVVV:DDDD"),
        ("pci,id=1:2,bar0=mem:100", "SIZE a power of two"),
        ("pci,id=1:2,bar0=mem:8", "mem from 16"),
        ("pci,id=1:2,bar0=io:64K", "io 4 to 16K"),
        ("pci,id=1:2,bar0=ram:4K", "bar0=ram:4K is not usable"),
        ("pci,id=1:2,bar5=mem64:4K", "needs the next BAR"),
        ("pci,id=1:2,bar0=mem64:4K,bar1=io:4", "needs the next BAR"),
        ("pci,id=1:2,irq=e", "a, b, c, d, stuck or nothing"),
        ("pci,id=1:2,reads=zero", "reads is ram, ones or last"),
        ("pci,id=1:2,class=68000", "class is six hexadecimal digits"),
        ("pci,id=1:2,rev=256", "rev is a number from 0 to 255"),
        ("pci,id=1:2,function=02:00.0", "chooses from config=FILE"),
        ("pci,config=card.txt", "config=card.txt: card.txt: no such file"),
    ] {
        let message = refused(spec);
        assert!(message.contains(says), "{spec}: {message}");
        assert!(!message.contains('\n'), "one line: {message}");
    }
}

#[test]
fn spaces_and_empty_pieces_do_no_harm() {
    assert_eq!(card("pci, id = 10b5:9050 ,, irq").header().device, 0x9050);
    assert!(devices::parse("pci9052,", &no_files).is_ok());
}
