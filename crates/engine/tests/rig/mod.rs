//! A machine with code laid into it by hand, and a guest that writes down what it is asked.
#![allow(dead_code, reason = "the tests use all of it, and the example `speed` a part")]

pub(crate) mod native;

use std::cell::{Cell, RefCell};

use engine::windows::{IMAGES, PAGE, SYSTEM};
use engine::{
    Access, Args, Engine, Fault, Flow, Guest, Host, Leave, MemoryAccess, Protection, Runner, Special, Stack,
    StrandId, TakenLock, Touch,
};

/// The tests that `checked.rs` takes in once more run in checked machines there.
pub(crate) const CHECKED: bool = matches!(
    module_path!().as_bytes(),
    [.., b'c', b'h', b'e', b'c', b'k', b'e', b'd', b':', b':', b'r', b'i', b'g']
);

/// Where the code goes.
pub(crate) const CODE: u64 = IMAGES.base + 0x1000_0000;
/// Where exports are.
pub(crate) const EXPORTS: u64 = IMAGES.base + 0x10_0000;
/// Data the code may use.
pub(crate) const DATA: u64 = SYSTEM.base + 0x10_0000;
/// Bytes of it.
pub(crate) const DATA_SIZE: u64 = 16 * PAGE;
/// Top of the driver's stack.
pub(crate) const STACK_TOP: u64 = SYSTEM.base + 0x20_0000;
/// Bytes of it; the page below is not mapped.
pub(crate) const STACK_SIZE: u64 = 24 << 10;

/// Called at the end of a slice.
pub(crate) type Hook = Box<dyn Fn(&Rig) -> Flow<()>>;
/// Called for a fault, after it was noted.
pub(crate) type OnFault = Box<dyn Fn(&Rig, &Fault) -> Leave>;
/// Called before an interlocked instruction that is watched.
pub(crate) type BeforeInterlocked = Box<dyn Fn(&Rig) -> Flow<()>>;
/// Called before a watched instruction that is not interlocked, with its address.
pub(crate) type BeforeShared = Box<dyn Fn(&Rig, u64) -> Flow<()>>;
/// Called for an access of driver code.
pub(crate) type OnAccess = Box<dyn Fn(&Rig, &MemoryAccess) -> Flow<()>>;
/// Called for an instruction that the guest answers, instead of writing it down.
pub(crate) type OnSpecial = Box<dyn Fn(&Rig, Special) -> Flow<u64>>;
/// Called for an export.
pub(crate) type Export = Box<dyn Fn(&Rig, u32, &Args) -> Flow<u64>>;

/// The guest.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) host: Host,
    pub(crate) log: RefCell<Vec<String>>,
    pub(crate) interrupt_flag: Cell<bool>,
    pub(crate) fault: RefCell<Option<Fault>>,
    pub(crate) device: RefCell<Vec<u8>>,
    /// Called at the end of each slice; sets the next.
    pub(crate) on_slice: RefCell<Option<Hook>>,
    pub(crate) export: RefCell<Option<Export>>,
    /// Called when an instruction that accessed a device or port has retired.
    pub(crate) on_accessed: RefCell<Option<Hook>>,
    pub(crate) before_interlocked: RefCell<Option<BeforeInterlocked>>,
    pub(crate) fence: RefCell<Option<BeforeInterlocked>>,
    pub(crate) before_shared: RefCell<Option<BeforeShared>>,
    pub(crate) on_access: RefCell<Option<OnAccess>>,
    /// Who runs what is called, and the top of the stack there.
    pub(crate) flow: Cell<u64>,
    pub(crate) stack_top: Cell<u64>,
    pub(crate) on_fault: RefCell<Option<OnFault>>,
    pub(crate) on_special: RefCell<Option<OnSpecial>>,
    /// Touches of marked memory, each with the time.
    pub(crate) touches: RefCell<Vec<(Touch, u64)>>,
    /// What is answered to them.
    pub(crate) may_touch: Cell<bool>,
    /// Locks that driver code took by itself and was found to hold.
    pub(crate) taken: RefCell<Vec<TakenLock>>,
    next_physical: Cell<u64>,
    /// Writes nothing down: for measuring.
    quiet: Cell<bool>,
}

/// A machine with nothing in it.
pub(crate) fn start() -> Result<Host, engine::StartError> {
    if CHECKED { Host::start_checked() } else { Host::start() }
}

impl Rig {
    /// A machine for measuring: as [`Rig::new`], and it writes nothing down.
    pub(crate) fn quiet(code: &[u8]) -> Self {
        let rig = Self::new(code);
        rig.quiet.set(true);
        rig
    }

    /// A machine whose code page holds `code`.
    pub(crate) fn new(code: &[u8]) -> Self {
        Self::on(start(), code)
    }

    /// As [`Rig::new`], a machine whose translations are checked.
    pub(crate) fn checked(code: &[u8]) -> Self {
        Self::on(Host::start_checked(), code)
    }

    fn on(host: Result<Host, engine::StartError>, code: &[u8]) -> Self {
        let host = host.expect("one test, one process: run them by cargo nextest");
        let rig = Self {
            engine: *host,
            host,
            log: RefCell::default(),
            interrupt_flag: Cell::new(true),
            fault: RefCell::default(),
            device: RefCell::new(vec![0; 4096]),
            on_slice: RefCell::default(),
            export: RefCell::default(),
            on_accessed: RefCell::default(),
            before_interlocked: RefCell::default(),
            fence: RefCell::default(),
            before_shared: RefCell::default(),
            on_access: RefCell::default(),
            flow: Cell::new(0),
            stack_top: Cell::new(STACK_TOP),
            on_fault: RefCell::default(),
            on_special: RefCell::default(),
            touches: RefCell::default(),
            may_touch: Cell::new(true),
            taken: RefCell::default(),
            next_physical: Cell::new(0x10_0000),
            quiet: Cell::new(false),
        };
        rig.map(DATA, DATA_SIZE);
        rig.map(STACK_TOP - STACK_SIZE, STACK_SIZE);
        rig.map(STACK_TOP, PAGE);
        rig.load(CODE, code);
        rig
    }

    pub(crate) fn map(&self, address: u64, length: u64) {
        let physical = self.next_physical.replace(self.next_physical.get() + length);
        self.engine.map(address, physical, length, Protection::READ_WRITE);
    }

    /// Lays code at an address of the images' window.
    pub(crate) fn load(&self, address: u64, code: &[u8]) {
        let length = (code.len() as u64 + 1).next_multiple_of(PAGE);
        self.map(address, length);
        self.engine.write_bytes(address, code).unwrap();
        self.engine.protect(address, length, Protection::READ_EXECUTE);
    }

    /// Lays an image at `CODE`, its sections with their own protections.
    pub(crate) fn load_image(&self, image: &image::Image) {
        let bytes = image.load_at(CODE).unwrap();
        self.map(CODE + PAGE, (bytes.len() as u64).next_multiple_of(PAGE) - PAGE);
        self.engine.protect(CODE, PAGE, Protection::READ_WRITE);
        self.engine.write_bytes(CODE, &bytes).unwrap();
        for range in image.protections() {
            let image::Protection { read, write, execute } = range.protection;
            let size = u64::from(range.size).next_multiple_of(PAGE);
            self.engine.protect(CODE + u64::from(range.rva), size, Protection { read, write, execute });
        }
    }

    pub(crate) fn call(&self, arguments: &[u64]) -> Flow<u64> {
        self.call_at(CODE, arguments)
    }

    pub(crate) fn call_at(&self, target: u64, arguments: &[u64]) -> Flow<u64> {
        self.host.run(self, || self.engine.call(target, arguments, Stack::At(self.stack_top.get())))
    }

    /// The fault that ended the last call.
    pub(crate) fn the_fault(&self) -> Fault {
        self.fault.borrow().expect("a fault was expected")
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if !self.quiet.get() {
            engine::outside(|| self.log.borrow_mut().push(text()));
        }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }
}

impl Guest for Rig {
    fn strand(&self, _id: StrandId) {}

    fn export(&self, number: u32, args: &Args) -> Flow<u64> {
        match &*self.export.borrow() {
            Some(export) => export(self, number, args),
            None => Ok(0),
        }
    }

    fn lock_taken(&self, taken: &TakenLock) {
        engine::outside(|| self.taken.borrow_mut().push(*taken));
    }

    fn slice(&self) -> Flow<()> {
        match &*self.on_slice.borrow() {
            Some(hook) => hook(self),
            None => Ok(()),
        }
    }

    fn port_read(&self, port: u16, bytes: u8) -> Flow<u64> {
        self.note(|| format!("in {port:#x} {bytes}"));
        Ok(0x1122_3344)
    }

    fn port_write(&self, port: u16, bytes: u8, value: u32) -> Flow<()> {
        self.note(|| format!("out {port:#x} {bytes} {value:#x}"));
        Ok(())
    }

    fn device_read(&self, access: Access, data: &mut [u8]) -> Flow<()> {
        let offset = (access.address & 0xFFF) as usize;
        data.copy_from_slice(&self.device.borrow()[offset..offset + data.len()]);
        self.note(|| format!("read {:#x} {}", access.address, access.bytes));
        Ok(())
    }

    fn device_write(&self, access: Access, data: &[u8]) -> Flow<()> {
        let offset = (access.address & 0xFFF) as usize;
        self.device.borrow_mut()[offset..offset + data.len()].copy_from_slice(data);
        self.note(|| format!("write {:#x} {} {data:x?}", access.address, access.bytes));
        Ok(())
    }

    /// As a guest for measuring does it: without the bytes, whose pieces would be waited for when they are loaded as one.
    fn device_load(&self, access: Access) -> Flow<u64> {
        if self.quiet.get() {
            return Ok(u64::from(self.device.borrow()[(access.address & 0xFFF) as usize]));
        }
        let mut data = [0; 8];
        self.device_read(access, &mut data[..access.bytes.into()])?;
        Ok(u64::from_le_bytes(data))
    }

    fn accessed(&self) -> Flow<()> {
        match &*self.on_accessed.borrow() {
            Some(hook) => hook(self),
            None => Ok(()),
        }
    }

    fn set_irql(&self, level: u64) -> Flow<()> {
        self.note(|| format!("level {level}"));
        self.engine.set_level(u8::try_from(level).unwrap());
        Ok(())
    }

    fn interrupt_flag(&self) -> bool {
        self.interrupt_flag.get()
    }

    fn set_interrupt_flag(&self, on: bool) -> Flow<()> {
        self.interrupt_flag.set(on);
        Ok(())
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        [leaf + 1, subleaf + 2, 3, 4]
    }

    fn special(&self, special: Special) -> Flow<u64> {
        if let Some(on_special) = &*self.on_special.borrow() {
            return on_special(self, special);
        }
        self.note(|| format!("{special:?}"));
        Ok(0x0123_4567_89AB_CDEF)
    }

    fn before_interlocked(&self) -> Flow<()> {
        match &*self.before_interlocked.borrow() {
            Some(hook) => hook(self),
            None => Ok(()),
        }
    }

    fn fence(&self) -> Flow<()> {
        match &*self.fence.borrow() {
            Some(hook) => hook(self),
            None => Ok(()),
        }
    }

    fn before_shared(&self, rip: u64) -> Flow<()> {
        match &*self.before_shared.borrow() {
            Some(hook) => hook(self, rip),
            None => Ok(()),
        }
    }

    fn accesses(&self, access: &MemoryAccess) -> Flow<()> {
        match &*self.on_access.borrow() {
            Some(hook) => hook(self, access),
            None => Ok(()),
        }
    }

    fn noted(&self, accesses: &[MemoryAccess]) {
        for access in accesses {
            let _ = self.accesses(access);
        }
    }

    fn runner(&self) -> Runner {
        let top = self.stack_top.get();
        Runner { flow: self.flow.get(), stack: top - STACK_SIZE..top }
    }

    fn touched(&self, touch: &Touch) -> Flow<()> {
        engine::outside(|| self.touches.borrow_mut().push((*touch, self.engine.now())));
        if self.may_touch.get() { Ok(()) } else { Err(Leave::Stop) }
    }

    fn fault(&self, fault: &Fault) -> Leave {
        *self.fault.borrow_mut() = Some(*fault);
        match &*self.on_fault.borrow() {
            Some(on_fault) => on_fault(self, fault),
            None => Leave::Stop,
        }
    }
}

/// Assembles with iced's own assembler, at `CODE`.
pub(crate) fn assemble(build: impl FnOnce(&mut iced_x86::code_asm::CodeAssembler)) -> Vec<u8> {
    let mut a = iced_x86::code_asm::CodeAssembler::new(64).unwrap();
    build(&mut a);
    a.assemble(CODE).unwrap()
}

/// The same, at any address.
pub(crate) fn assemble_at(at: u64, build: impl FnOnce(&mut iced_x86::code_asm::CodeAssembler)) -> Vec<u8> {
    let mut a = iced_x86::code_asm::CodeAssembler::new(64).unwrap();
    build(&mut a);
    a.assemble(at).unwrap()
}

/// `opcode` with a RIP-relative operand, at `at`: iced's assembler makes them of labels only.
pub(crate) fn relative(at: u64, opcode: &[u8], operand: u64) -> Vec<u8> {
    let next = at + opcode.len() as u64 + 4;
    let displacement = i32::try_from(operand.wrapping_sub(next).cast_signed()).expect("within 2 GiB");
    [opcode, &displacement.to_le_bytes()].concat()
}
