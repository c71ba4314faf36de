//! QEMU by its qtest protocol: lines on its standard input and output. A machine whose processor is parked, with the card in slot 3.
//!
//! Pages: *QTest Device Emulation Testing Framework*, *QEMU invocation*. With `-icount sleep=off` the time of devices does not wait
//! for the host's: a transfer of 100 ms is over at once. It knows no card.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Whether time passes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// At once, whenever something is due.
    Passes,
    /// Nothing is ever due.
    Stands,
}

/// Where the card's BAR0 is put.
const BASE: u64 = 0xE000_0000;
/// Its slot, and what `-device` calls it.
const SLOT: u32 = 3;

/// A QEMU, ended when this goes.
pub(crate) struct Qemu {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The levels of the I/O interrupt controller's inputs.
    lines: u64,
}

impl Qemu {
    /// Starts one with `device`.
    pub(crate) fn start(device: &str, time: Time) -> Self {
        // Instead of firmware: the processor halts.
        let folder = tempfile::Builder::new().prefix("qemu-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let firmware = folder.expect("the target's folder takes folders").keep().join("halt.bin");
        std::fs::write(&firmware, [0xF4; 0x1_0000]).expect("the folder for temporary files can be written");
        // Whatever ends this process, QEMU does not outlive it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args([
            "-M",
            "q35,hpet=off",
            "-machine",
            "pit=off",
            "-nodefaults",
            "-display",
            "none",
            "-m",
            "64",
        ]);
        command.args([
            "-device",
            &format!("{device},addr={SLOT}"),
            "-qtest",
            "stdio",
            "-qtest-log",
            "/dev/null",
        ]);
        command.arg("-bios").arg(firmware).args(["-accel", "tcg"]);
        command.args(match time {
            Time::Passes => &["-icount", "shift=0,sleep=off"][..],
            Time::Stands => &["-S"],
        });
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = command.spawn();
        let mut process = started.unwrap_or_else(|error| panic!("`setpriv` cannot be started: {error}"));
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut qemu = Self { process, input, output, lines: 0 };
        qemu.ask("irq_intercept_in ioapic");
        qemu.set_config(0x10, 0xE000_0000);
        qemu
    }

    /// One command; the words of the answer behind `OK`.
    pub(crate) fn ask(&mut self, command: &str) -> Vec<String> {
        const MISSING: &str = "QEMU does not answer: is `qemu-system-x86_64` there? `cargo xtask test` installs it, or \
                               `apt-get install qemu-system-x86`";
        // If it has ended this fails, or the read does.
        let _ = writeln!(self.input, "{command}");
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("QEMU writes text");
            assert!(read != 0, "{MISSING} (asked: {command})");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["OK", ref rest @ ..] => return rest.iter().map(|word| (*word).to_owned()).collect(),
                ["IRQ", level @ ("raise" | "lower"), line] => {
                    let line = 1_u64 << line.parse::<u32>().expect("a line has a number");
                    self.lines = if level == "raise" { self.lines | line } else { self.lines & !line };
                }
                _ => panic!("QEMU answered `{}` to `{command}`", line.trim()),
            }
        }
    }

    fn number(&mut self, command: &str) -> u64 {
        let answer = self.ask(command);
        let number =
            answer.first().and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        number.unwrap_or_else(|| panic!("{answer:?} is no number"))
    }

    /// A read of 4 or 8 bytes from the card's window.
    pub(crate) fn read(&mut self, offset: u64, bytes: u64) -> u64 {
        let name = if bytes == 8 { "readq" } else { "readl" };
        self.number(&format!("{name} {:#x}", BASE + offset))
    }

    /// A write of 4 or 8 bytes to it.
    pub(crate) fn write(&mut self, offset: u64, bytes: u64, value: u64) {
        let name = if bytes == 8 { "writeq" } else { "writel" };
        self.ask(&format!("{name} {:#x} {value:#x}", BASE + offset));
    }

    /// A DWORD of the card's configuration space.
    pub(crate) fn config(&mut self, offset: u32) -> u32 {
        self.ask(&format!("outl 0xcf8 {:#x}", 0x8000_0000 | SLOT << 11 | offset));
        u32::try_from(self.number("inl 0xcfc")).expect("a port has 32 bits")
    }

    /// Writes it.
    pub(crate) fn set_config(&mut self, offset: u32, value: u32) {
        self.ask(&format!("outl 0xcf8 {:#x}", 0x8000_0000 | SLOT << 11 | offset));
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    /// Bytes of the machine's memory.
    pub(crate) fn memory(&mut self, address: u64, length: usize) -> Vec<u8> {
        let answer = self.ask(&format!("read {address:#x} {length:#x}"));
        let digits = answer[0].trim_start_matches("0x");
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    /// Writes them.
    pub(crate) fn set_memory(&mut self, address: u64, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("write {address:#x} {:#x} 0x{digits}", bytes.len()));
    }

    /// Whether the card's pin pulls its line: those of cards are the inputs from 16 on.
    pub(crate) fn line(&self) -> bool {
        self.lines >> 16 != 0
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
