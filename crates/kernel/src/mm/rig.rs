//! For tests: a machine without hardware, and a place to stand in it.

use engine::Defaults;
use image::Image;

use crate::hal::hardware::{Function, Hardware};
use crate::{Cx, Nt, Settings, rig};

/// Runs `test` in a machine of its own; waits until no other test has one.
pub(crate) fn machine(test: impl FnOnce(&mut Cx<'_>)) {
    machine_with(&Settings::default(), Vec::new(), test);
}

/// As [`machine`], with PCI functions to be found.
pub(crate) fn machine_with(settings: &Settings, functions: Vec<Function>, test: impl FnOnce(&mut Cx<'_>)) {
    let make = |engine| (Nt::new(engine, settings, Box::new(Silent { functions }), Box::new(Defaults)), ());
    rig::run(make, |nt, ()| test(&mut nt.cx()));
}

/// The rule of the verdict that ended the machine.
pub(crate) fn verdict(cx: &Cx<'_>) -> Option<&'static str> {
    cx.nt().verdict().map(|verdict| verdict.rule)
}

/// Its sentence.
pub(crate) fn message(cx: &Cx<'_>) -> String {
    cx.nt().verdict().map(|verdict| verdict.message).unwrap_or_default()
}

/// Its bug check code and first parameter.
pub(crate) fn bug_check(cx: &Cx<'_>) -> Option<(u32, u64)> {
    cx.nt().verdict().and_then(|verdict| verdict.bug_check).map(|check| (check.code, check.parameters[0]))
}

/// The arguments of a variadic call, as a driver would have put them on its stack.
pub(crate) fn arguments(cx: &mut Cx<'_>, values: &[u64]) -> engine::Args {
    let bytes = 8 + 8 * values.len() as u64;
    let stack: abi::DriverPtr<u64> =
        super::pool::allocate(cx, super::pool::Kind::NonPaged, bytes, 1).unwrap();
    for (index, &value) in (1..).zip(values) {
        cx.write(stack.index(index), value).unwrap();
    }
    let mut registers = [0; 4];
    registers.iter_mut().zip(values).for_each(|(register, value)| *register = *value);
    engine::Args { registers, rsp: stack.address }
}

/// Bytes in the machine's memory.
pub(crate) fn bytes(cx: &mut Cx<'_>, bytes: &[u8]) -> u64 {
    let at: abi::DriverPtr<u8> =
        super::pool::allocate(cx, super::pool::Kind::NonPaged, bytes.len().max(1) as u64, 1).unwrap();
    cx.write_bytes(at.address, bytes).unwrap();
    at.address
}

/// A zero-terminated ANSI text in the machine's memory.
pub(crate) fn ansi(cx: &mut Cx<'_>, text: &str) -> u64 {
    bytes(cx, &[text.as_bytes(), &[0]].concat())
}

/// A zero-terminated Unicode text in the machine's memory.
pub(crate) fn wide(cx: &mut Cx<'_>, text: &str) -> u64 {
    let units: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    bytes(cx, &units)
}

/// A `UNICODE_STRING` in the machine's memory.
pub(crate) fn unicode(cx: &mut Cx<'_>, text: &str) -> abi::DriverPtr<abi::UNICODE_STRING> {
    let buffer = wide(cx, text);
    let string = room(cx, 0);
    crate::rtl::string::init_unicode(cx, string, buffer).unwrap();
    string
}

/// An empty `UNICODE_STRING` with room for `capacity` bytes.
pub(crate) fn room(cx: &mut Cx<'_>, capacity: u16) -> abi::DriverPtr<abi::UNICODE_STRING> {
    let buffer = bytes(cx, &vec![0; capacity.into()]);
    let string = abi::DriverPtr::new(bytes(cx, &[0; 16]));
    crate::rtl::string::set(cx, string, 0, capacity.into(), buffer).unwrap();
    string
}

/// The text of a `UNICODE_STRING`.
pub(crate) fn text(cx: &mut Cx<'_>, string: abi::DriverPtr<abi::UNICODE_STRING>) -> String {
    let units = crate::rtl::string::read(cx, string).unwrap();
    String::from_utf16_lossy(&units)
}

/// Compiles `source` to `name.sys`; `imports` are (module, names) that no library of the compiler's has.
pub(crate) fn driver(name: &str, source: &str, imports: &[(&str, &[&str])]) -> Image {
    const FLAGS: &str = "-shared -nostdlib -O1 -Wl,--subsystem,native,-e,DriverEntry,--exclude-all-symbols";
    let mut bytes = rig::compile(source, FLAGS, imports);
    make_discardable(&mut bytes);
    Image::parse(&format!("{name}.sys"), &bytes).unwrap()
}

/// Flags a section INIT as discardable, as `link /SECTION:INIT,D` would: this compiler has no word for it.
fn make_discardable(file: &mut [u8]) {
    const DISCARDABLE: u8 = 0x02;
    if let Some(header) = file.windows(8).position(|window| window == b"INIT\0\0\0\0") {
        file[header + 39] |= DISCARDABLE;
    }
}

/// Loads it into the machine.
pub(crate) fn load(cx: &mut Cx<'_>, image: Image) -> crate::ldr::LoadedImage {
    let name = image.name().to_owned();
    crate::ldr::load(cx, crate::ldr::Module { name, image, symbols: None }).unwrap().unwrap()
}

/// Calls a driver's routine on a fresh stack.
pub(crate) fn call(cx: &mut Cx<'_>, routine: u64, arguments: &[u64]) -> engine::Flow<u64> {
    let stack = super::stack::allocate(cx, super::stack::KERNEL_STACK).unwrap();
    cx.engine().call(routine, arguments, engine::Stack::At(stack.base))
}

/// Hardware without a device: no access is answered.
struct Silent {
    functions: Vec<Function>,
}

impl Hardware for Silent {
    fn functions(&self) -> Vec<Function> {
        self.functions.clone()
    }
}
