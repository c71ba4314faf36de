//! How fast an INF file is read: a megabyte in the style of large packages, with its form, tokens and sections.

use std::fmt::Write as _;
use std::time::Instant;

use dirql::inf;

use crate::Figure;

/// The file's size, at least.
const SIZE: usize = 1 << 20;

/// Nanoseconds a byte.
pub(crate) fn parse() -> Figure {
    let text = package();
    let samples = (0..20)
        .map(|_| {
            let begun = Instant::now();
            let inf = inf::parse("bench.inf", text.as_bytes());
            let taken = begun.elapsed().as_secs_f64() * 1e9;
            assert!(inf.is_ok(), "the benchmark's file is right");
            #[allow(clippy::cast_precision_loss, reason = "a megabyte")]
            let bytes = text.len() as f64;
            taken / bytes
        })
        .collect();
    Figure { unit: "ns/B", ..Figure::new("inf_parse", 1, samples) }
}

fn package() -> String {
    let mut text = String::from(
        "[Version]\nSignature = \"$Windows NT$\"\nClass = System\nClassGuid = {4D36E97D-E325-11CE-BFC1-08002BE10318}\n\
         [Manufacturer]\n%Vendor% = Models, NTamd64.10.0\n",
    );
    let mut strings = String::from("[Strings]\nVendor = \"Vendor\"\n");
    for card in 0.. {
        if text.len() + strings.len() >= SIZE {
            break;
        }
        let _ = write!(
            text,
            "[Models.NTamd64.10.0]\n%Card{card}% = Install{card}, PCI\\VEN_1234&DEV_{card:04X}, PCI\\VEN_1234&CC_0680 ; {card}\n\
             [Install{card}.NTamd64]\nCopyFiles = @driver.sys\nAddReg = Keys{card}, \\\n  More{card}\n\
             [Keys{card}]\nHKR,,\"Name\",0x00010001,{card}\nHKR,Parameters\\Sub,List,0x00010000,\"one, \"\"two\"\"\",three\n\
             [More{card}]\nHKR,,Bytes,1,00,01,02,03,04,05,06,07,08,09\n",
        );
        let _ = writeln!(strings, "Card{card} = \"Card; number {card}\"");
    }
    text + &strings
}
