//! Stories of `METHOD_NEITHER` in a Rust driver, `card_rust.sys`: an application's addresses are captured in its own context, by probing and locking, and a
//! bad one is a status.

use dirql::Bench;
use dirql::explore::Policy;

use super::rig::{self, driver, finish, play, start};

/// Control codes: E08h puts the input into the card's memory, E09h has a work item get output from there.
const PUT: &str = "0x223823";
const GET: &str = "0x223827";

fn run(bench: impl Fn(Bench) -> Bench, script: &str) -> dirql::Report {
    let machine = start(|| {
        bench(Bench::new().driver(driver("card_rust.sys")).inf(driver("card_rust.inf")).device("bench,ram"))
    });
    let script = script.replace("open DEV", r"open \\.\CardRust-0").replace("PUT", PUT).replace("GET", GET);
    play(&machine, &script);
    finish(machine)
}

fn holds(script: &str) {
    for checked in [false, true] {
        run(|bench| bench.checked(checked), script);
    }
}

#[test]
fn an_applications_bytes_are_reached_where_it_asks_and_by_a_work_item_later() {
    holds(
        "open DEV as card
         ioctl card PUT in hex:0102030405060708
         ioctl card GET in u32:2 + u32:0 out 4 expect hex:03040506
         ioctl card GET in u32:0 + u32:5 out 8 expect hex:0102030405060708
         close card",
    );
}

#[test]
fn buffers_cross_pages_and_begin_anywhere() {
    let machine = start(|| {
        Bench::new().driver(driver("card_rust.sys")).inf(driver("card_rust.inf")).device("bench,ram")
    });
    let file = machine.open(r"\\.\CardRust-0").unwrap();
    let bytes = rig::pattern(3 * 4096 + 77);
    file.device_control(0x0022_3823, &bytes, 0).unwrap();
    let question = [1_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat();
    assert!(file.device_control(0x0022_3827, &question, 3 * 4096 + 76).unwrap() == bytes[1..]);
    file.close().unwrap();
    finish(machine);
}

/// How a request of four bytes in, or of a good question and four bytes out, ends at an address.
fn ended(checked: bool, bad: fn(u64) -> u64, is_output: bool) -> u32 {
    let machine = start(|| {
        let bench = Bench::new().driver(driver("card_rust.sys")).inf(driver("card_rust.inf"));
        bench.device("bench,ram").checked(checked)
    });
    let file = machine.open_overlapped(r"\\.\CardRust-0").unwrap();
    let good = machine.memory(&[0; 64]).unwrap();
    let gone = machine.memory(&[0; 64]).unwrap();
    machine.unmap(gone).unwrap();
    let bad = bad(gone);
    let request = if is_output {
        file.begin_device_control_in(0x0022_3827, (good, 8), (bad, 4)).unwrap()
    } else {
        file.begin_device_control_in(0x0022_3827, (bad, 8), (good, 4)).unwrap()
    };
    let status = request.wait().unwrap().status;
    file.close().unwrap();
    finish(machine);
    status
}

#[test]
fn an_address_that_is_none_is_a_status_and_no_bug_check() {
    let addresses: [fn(u64) -> u64; 4] =
        [|gone| gone, |_| 0, |_| 0x2020_0000_0000, |_| 0xFFFF_FFFF_FFFF_FFF8];
    for bad in addresses {
        for (checked, is_output) in [(false, false), (false, true), (true, false), (true, true)] {
            let status = ended(checked, bad, is_output);
            assert_eq!(status, abi::NtStatus::ACCESS_VIOLATION.0, "{:#x}, output: {is_output}", bad(0));
        }
    }
}

#[test]
fn what_is_not_there_is_too_small() {
    holds(
        "open DEV as card
         ioctl card PUT expect STATUS_BUFFER_TOO_SMALL
         ioctl card GET expect STATUS_BUFFER_TOO_SMALL
         ioctl card GET in u32:0 out 4 expect STATUS_BUFFER_TOO_SMALL
         ioctl card GET in u32:0 + u32:0 expect STATUS_BUFFER_TOO_SMALL
         close card",
    );
}

#[test]
fn pages_stay_locked_though_the_application_gives_them_back_meanwhile() {
    holds(
        "open DEV as card
         ioctl card PUT in hex:0102030405060708
         memory room zero:64
         t: ioctl card GET in u32:0 + u32:5 out memory room expect any
         wait 1ms
         unmap room
         join t
         close card",
    );
}

#[test]
fn what_was_captured_does_not_change_any_more() {
    // The application changes the offset while the driver has the request: the copy that was checked is the one that is used.
    for seed in rig::seeds(8) {
        run(
            |bench| bench.processors(2).policy(Policy::random(seed)),
            "open DEV as card
             memory asked u32:0 + u32:1 + zero:8
             t: ioctl card GET in memory asked out 4 expect success or STATUS_INVALID_PARAMETER
             u: store asked u32:0xfffffff0
             join t; join u
             close card",
        );
    }
}

#[test]
fn a_process_that_ends_leaves_no_page_locked() {
    holds(
        "process child
         child: open DEV as mine overlapped
         child: async one ioctl mine GET in u32:0 + u32:5 out 64
         join child
         wait 1ms
         exit child
         wait 10ms",
    );
}

#[test]
fn a_device_that_is_pulled_out_meanwhile_fails_the_request_and_unlocks_its_pages() {
    holds(
        "open DEV as card overlapped
         async one ioctl card GET in u32:0 + u32:5 out 64
         wait 1ms
         surprise-remove
         join one expect STATUS_DEVICE_NOT_CONNECTED
         close card",
    );
}
