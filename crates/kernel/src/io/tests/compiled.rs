//! The drivers of `drivers/c`, compiled, loaded, used and unloaded.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{FILE_DEVICE_UNKNOWN, NtStatus};
use engine::Flow;
use image::Image;

use super::rig::{Driver, Outcome, story, user_bytes};
use crate::cx::Cx;
use crate::io::file::{self, Buffer, OpenOptions, Operation, Overlapped};
use crate::io::{cancel, driver};
use crate::ldr::{self, Module};
use crate::mm::user;
use crate::ob::Handle;
use crate::rig;

/// `drivers/c/<source>` compiled with these definitions.
fn compile(source: &str, defines: &[&str]) -> Image {
    compile_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/c").join(source), defines)
}

/// `queue.c`, compiled once for all stories.
fn queue() -> Image {
    // tidy: a story's own, and no machine lives when it is made.
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers/c/queue.c");
    Image::parse("queue.sys", BYTES.get_or_init(|| bytes_of(&source, &[]))).unwrap()
}

/// A driver of a story's own.
fn compile_text(name: &str, text: &str) -> Image {
    let source = std::env::temp_dir().join(format!("dirql-io-{}-{name}.c", std::process::id()));
    std::fs::write(&source, format!("#include <ddk/wdm.h>\n{text}")).unwrap();
    let image = compile_file(&source, &[]);
    std::fs::remove_file(&source).unwrap();
    image
}

fn compile_file(source: &Path, defines: &[&str]) -> Image {
    let stem = source.file_stem().unwrap().to_string_lossy().into_owned();
    Image::parse(&format!("{stem}.sys"), &bytes_of(source, defines)).unwrap()
}

fn bytes_of(source: &Path, defines: &[&str]) -> Vec<u8> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let output = std::env::temp_dir().join(format!("dirql-io-{}-{number}.sys", std::process::id()));
    let flags = "-std=gnu11 -O2 -Wno-multichar -ffreestanding -fno-stack-protector -nostdlib -nostartfiles \
                 -Wl,--subsystem,native,--entry,DriverEntry,--image-base,0x140000000,--dynamicbase";
    let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
    gcc.args(flags.split_whitespace()).args(defines.iter().map(|name| format!("-D{name}")));
    rig::succeed(gcc.arg("-o").arg(&output).arg(source).args(["-lntoskrnl", "-lhal"]));
    let bytes = std::fs::read(&output).unwrap();
    std::fs::remove_file(&output).unwrap();
    bytes
}

/// Loads `image` and starts its driver on a system thread, tells the application's `story`, unloads.
fn with_driver(image: Image, tell: impl FnOnce(&mut Cx<'_>) -> Flow<()> + 'static) -> Outcome {
    story(move |cx| {
        let driver = load(cx, image)?;
        tell(cx)?;
        assert_eq!(driver::unload(cx, driver)?, NtStatus::SUCCESS);
        Ok(())
    })
}

fn load(cx: &mut Cx<'_>, image: Image) -> Flow<Driver> {
    let name = image.name().to_owned();
    let service = name.trim_end_matches(".sys").to_owned();
    let loaded = ldr::load(cx, Module { name, image, symbols: None })?.unwrap();
    Ok(driver::load(cx, &service, &loaded)?.unwrap())
}

/// A control code of the drivers' own.
const fn code(function: u32) -> u32 {
    FILE_DEVICE_UNKNOWN << 16 | function << 2
}

fn buffer(cx: &mut Cx<'_>, bytes: &[u8]) -> Buffer {
    Buffer { address: user_bytes(cx, bytes), length: u32::try_from(bytes.len()).unwrap() }
}

fn open(cx: &mut Cx<'_>, name: &str) -> Flow<Handle> {
    Ok(file::open(cx, name, &OpenOptions::overlapped())?.unwrap())
}

fn begin(cx: &mut Cx<'_>, handle: Handle, operation: Operation) -> Flow<Overlapped> {
    let overlapped = Overlapped::new(cx)?.unwrap();
    let answer = file::start(cx, handle, operation, &overlapped)?;
    assert_eq!(answer.status, NtStatus::PENDING);
    Ok(overlapped)
}

/// `QUEUE_STATE`: reads, writes, sum of written bytes, cancelled, ticks.
fn state(cx: &mut Cx<'_>, handle: Handle) -> Flow<[u32; 5]> {
    let output = buffer(cx, &[0; 20]);
    let answer = file::device_control(cx, handle, code(0x802), Buffer::default(), output)?;
    assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, 20));
    let bytes = user::read(cx, output.address, 20).unwrap();
    Ok(std::array::from_fn(|i| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap())))
}

const QUEUE: &str = "\\\\.\\DirqlQueue";

#[test]
fn queued_writes_go_through_start_io_and_a_timers_dpc_one_after_the_other() {
    let outcome = with_driver(queue(), |cx| {
        let handle = open(cx, QUEUE)?;
        let mut writes = Vec::new();
        for byte in 1..=3 {
            let data = buffer(cx, &[byte; 10]);
            writes.push(begin(cx, handle, Operation::Write(data, Some(0)))?);
        }
        let before = cx.engine().now();
        for write in &writes {
            let answer = write.wait(cx)?;
            assert_eq!((answer.status, answer.information), (NtStatus::SUCCESS, 10));
        }
        assert!(cx.engine().now() - before >= 3 * 2_000_000, "2 ms each");
        assert_eq!(state(cx, handle)?, [0, 3, 60, 0, 0]);
        assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
        Ok(())
    });
    outcome.clean();
    let position = |what: &str| outcome.trace.iter().position(|line| line.contains(what)).expect(what);
    let order = ["role: DispatchWrite", "role: StartIo", "CustomTimerDpc", "IrpCompleted"];
    let write = position(order[0]);
    let places = order
        .map(|what| write + outcome.trace[write..].iter().position(|line| line.contains(what)).expect(what));
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_waiting_write_the_current_write_and_a_read_can_all_be_cancelled() {
    with_driver(queue(), |cx| {
        let handle = open(cx, QUEUE)?;
        let data = buffer(cx, b"0123456789");
        let current = begin(cx, handle, Operation::Write(data, Some(0)))?;
        let waiting = begin(cx, handle, Operation::Write(data, Some(0)))?;
        let read = begin(cx, handle, Operation::Read(data, Some(0)))?;
        assert_eq!(file::cancel_io(cx, handle)?, NtStatus::SUCCESS);
        assert_eq!(waiting.wait(cx)?.status, NtStatus::CANCELLED);
        assert_eq!(read.wait(cx)?.status, NtStatus::CANCELLED);
        assert_eq!(current.wait(cx)?.status, NtStatus::SUCCESS, "StartIo had made it its own");
        assert_eq!(state(cx, handle)?, [0, 1, 525, 2, 0]);
        assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

#[test]
fn reads_are_answered_by_a_timer_and_cleanup_cancels_what_its_file_left() {
    with_driver(queue(), |cx| {
        let (handle, other) = (open(cx, QUEUE)?, open(cx, QUEUE)?);
        let data = buffer(cx, &[0; 4]);
        let reads = [
            begin(cx, handle, Operation::Read(data, Some(0)))?,
            begin(cx, other, Operation::Read(data, Some(0)))?,
        ];
        let queued = begin(cx, other, Operation::Read(data, Some(0)))?;
        assert_eq!(reads[0].wait(cx)?.information, 4);
        assert_eq!(user::read(cx, data.address, 4).unwrap(), 1_u32.to_le_bytes());
        assert_eq!(file::close(cx, other)?, NtStatus::SUCCESS);
        assert_eq!(reads[1].wait(cx)?.status, NtStatus::CANCELLED);
        assert_eq!(queued.wait(cx)?.status, NtStatus::CANCELLED);
        assert_eq!(state(cx, handle)?, [1, 0, 0, 2, 0]);
        assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

#[test]
fn the_devices_own_timer_comes_once_a_second() {
    with_driver(compile("queue.c", &["PACE_BY_IO_TIMER"]), |cx| {
        let handle = open(cx, QUEUE)?;
        let data = buffer(cx, &[0; 4]);
        let before = cx.engine().now();
        let reads = [
            begin(cx, handle, Operation::Read(data, Some(0)))?,
            begin(cx, handle, Operation::Read(data, Some(0)))?,
        ];
        for read in &reads {
            assert_eq!(read.wait(cx)?.status, NtStatus::SUCCESS);
        }
        let seconds = (cx.engine().now() - before) / 1_000_000_000;
        assert!((1..=2).contains(&seconds), "{seconds} s");
        assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

#[test]
fn an_application_that_ends_with_requests_under_way_has_them_cancelled() {
    with_driver(queue(), |cx| {
        let handle = open(cx, QUEUE)?;
        let data = buffer(cx, &[0; 4]);
        let read = begin(cx, handle, Operation::Read(data, Some(0)))?;
        cancel::rundown_thread(cx)?;
        assert_eq!(read.result(cx)?.status, NtStatus::CANCELLED);
        assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}

const FORGETS: &str = r#"
    static KTIMER Timer; static KDPC Dpc;
    static VOID NTAPI Tick(PKDPC d, PVOID c, PVOID a, PVOID b) { (void)d; (void)c; (void)a; (void)b; }
    static VOID NTAPI Unload(PDRIVER_OBJECT d) { (void)d; }
    NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path) {
        LARGE_INTEGER Due; (void)Path;
        Due.QuadPart = -10000000LL;
        KeInitializeTimer(&Timer);
        KeInitializeDpc(&Dpc, Tick, 0);
        if (LEAVES_TIMER) KeSetTimer(&Timer, Due, &Dpc);
        if (LEAVES_POOL) ExAllocatePoolWithTag(NonPagedPool, 100, 0x67726F46);
        Driver->DriverUnload = Unload;
        return FAILS ? STATUS_UNSUCCESSFUL : STATUS_SUCCESS;
    }"#;

fn forgetful(timer: bool, pool: bool, fails: bool) -> Image {
    let flag = |on: bool| u8::from(on);
    let defines = format!(
        "#define LEAVES_TIMER {}\n#define LEAVES_POOL {}\n#define FAILS {}\n",
        flag(timer),
        flag(pool),
        flag(fails)
    );
    compile_text(&format!("forgets{}{}{}", flag(timer), flag(pool), flag(fails)), &(defines + FORGETS))
}

#[test]
fn a_timer_left_at_unload_would_call_code_that_is_gone() {
    let outcome = with_driver(forgetful(true, false, false), |_| Ok(()));
    let (rule, code, _) = outcome.verdict();
    assert_eq!((rule, code), ("unload-still-called", 0xCE));
    assert!(outcome.verdict.as_ref().unwrap().message.contains("timer"), "{:?}", outcome.verdict);
}

#[test]
fn pool_left_at_unload_is_told_with_who_allocated_it() {
    let outcome = with_driver(forgetful(false, true, false), |_| Ok(()));
    assert!(outcome.verdict.is_none(), "{:?}", outcome.verdict);
    let [leak] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
    assert_eq!(leak.rule, "pool-leak");
    assert!(leak.message.contains("100 bytes") && leak.message.contains("'Forg'"), "{}", leak.message);
    assert!(leak.message.contains("allocated by") && leak.message.contains(".sys"), "{}", leak.message);
}

#[test]
fn a_driver_whose_entry_fails_is_gone_and_what_it_left_is_told() {
    let outcome = story(|cx| {
        let image = forgetful(false, true, true);
        let name = image.name().to_owned();
        let loaded = ldr::load(cx, Module { name: name.clone(), image, symbols: None })?.unwrap();
        assert_eq!(driver::load(cx, "forgets", &loaded)?, Err(NtStatus::UNSUCCESSFUL));
        assert!(cx.with(|k| k.io.drivers.is_empty() && ldr::image_name(k, loaded.base).is_none()));
        Ok(())
    });
    assert!(outcome.verdict.is_none(), "{:?}", outcome.verdict);
    assert_eq!(outcome.findings.len(), 1);
    assert!(outcome.findings[0].message.contains("failed in its DriverEntry"));
}

const LEGACY: &str = "\\\\.\\DirqlLegacy";
const CAN_WRITE: u32 = 2 << 14;
const CAN_READ: u32 = 1 << 14;

/// A control code of `legacy.c`: answer, and what is in the output buffer.
fn control(
    cx: &mut Cx<'_>,
    handle: Handle,
    code: u32,
    input: &[u8],
    output: &[u8],
) -> Flow<(NtStatus, Vec<u8>)> {
    let (input, output) = (buffer(cx, input), buffer(cx, output));
    let answer = file::device_control(cx, handle, code, input, output)?;
    Ok((answer.status, user::read(cx, output.address, answer.information.try_into().unwrap()).unwrap()))
}

#[test]
fn every_way_a_request_carries_data_works_in_a_compiled_driver() {
    with_driver(compile("legacy.c", &[]), |cx| {
        let handle = file::open(cx, LEGACY, &OpenOptions::default())?.unwrap();
        let data = buffer(cx, b"hello");
        assert_eq!(file::write(cx, handle, data, None)?.information, 5);
        let (status, text) = control(cx, handle, code(0x800), b"buffered", &[0; 8])?;
        assert_eq!((status, text.as_slice()), (NtStatus::SUCCESS, &b"BUFFERED"[..]));
        // METHOD_IN_DIRECT: the output buffer is what is stored, at the offset in the input.
        let store = code(0x801) | CAN_WRITE | 1;
        assert_eq!(control(cx, handle, store, &5_u32.to_le_bytes(), b", you")?.0, NtStatus::SUCCESS);
        let numbers: Vec<u8> = [1_u32, 2, 39].iter().flat_map(|n| n.to_le_bytes()).collect();
        let (status, sum) = control(cx, handle, code(0x802) | 2, &numbers, &[0; 8])?;
        assert_eq!((status, sum.as_slice()), (NtStatus::SUCCESS, &[3, 0, 0, 0, 42, 0, 0, 0][..]));
        let (status, text) = control(cx, handle, code(0x803) | 3, b"neither", &[0; 7])?;
        assert_eq!((status, text.as_slice()), (NtStatus::SUCCESS, &b"rehtien"[..]));
        let to = buffer(cx, &[0; 10]);
        assert_eq!(file::read(cx, handle, to, Some(0))?.information, 10);
        assert_eq!(user::read(cx, to.address, 10).unwrap(), b"hello, you");
        assert_eq!(file::read(cx, handle, to, None)?.status, NtStatus::END_OF_FILE, "the position has moved");
        let (_, state) = control(cx, handle, code(0x804) | CAN_READ, &[], &[0; 20])?;
        // Limit, bytes kept, handles, reads, writes.
        assert_eq!(state, [4096_u32, 10, 1, 1, 2].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
        assert_eq!(control(cx, handle, code(0x8FF), &[], &[])?.0, NtStatus::INVALID_DEVICE_REQUEST);
        assert_eq!(file::close(cx, handle)?, NtStatus::SUCCESS);
        Ok(())
    })
    .clean();
}
