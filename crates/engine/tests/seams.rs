//! The seams below driver code: allocator scope, strands, memory, one machine after the other.

use std::cell::RefCell;

use engine::windows::{IMAGES, PAGE, SYSTEM, USER};
use engine::{DriverPtr, Engine, Host, Progress, Protection, StartError, outside};

use super::rig::{self, DATA, Rig, STACK_TOP};

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

#[test]
fn allocations_inside_the_scope_have_machine_addresses_and_go_back_where_they_came_from() {
    let host = Host::start().unwrap();
    let heap = host.own_windows()[0];
    let (inner, mut outer) = host.inside(|| (vec![1u64; 100], outside(|| vec![2u64; 100])));
    assert!(heap.contains(address(&inner[..])));
    assert!(!heap.contains(address(&outer[..])));
    host.inside(|| outer.extend([3; 10_000]));
    assert!(!heap.contains(address(&outer[..])), "a block of the host's grows at the host's");
    drop(inner);
    host.inside(|| drop(outer));
    host.finish();
}

#[test]
fn allocations_have_the_same_addresses_in_every_machine() {
    let layout = || {
        let host = Host::start().unwrap();
        let addresses = host.inside(|| {
            let blocks: Vec<Vec<u8>> = (1..50).map(|n| vec![0; n * 37]).collect();
            blocks.iter().map(|b| address(&b[..])).collect::<Vec<_>>()
        });
        let copy = addresses.clone();
        drop(addresses);
        host.finish();
        copy
    };
    assert_eq!(layout(), layout());
}

#[test]
fn a_panic_inside_the_scope_is_told_and_leaves_the_machine_usable() {
    let rig = Rig::new(&[0x48, 0xB8, 0, 0x10, 0x10, 0, 0, 0x20, 0, 0, 0xFF, 0xE0]); // mov rax, EXPORTS+0x1000; jmp rax
    rig.engine.define_export(rig::EXPORTS + 0x1000, 0);
    *rig.export.borrow_mut() = Some(Box::new(|_, _, _| panic!("a fault of ours")));
    assert!(rig.call(&[]).is_err());
    assert_eq!(rig.engine.panic_message().as_deref(), Some("a fault of ours"));
}

struct PingPong {
    engine: Engine,
    log: RefCell<Vec<u32>>,
}

impl engine::Guest for PingPong {
    fn strand(&self, id: engine::StrandId) {
        for _ in 0..3 {
            let local = vec![id.0; 100];
            self.engine.suspend();
            outside(|| self.log.borrow_mut().push(local[99]));
        }
    }
    fn export(&self, _: u32, _: &engine::Args) -> engine::Flow<u64> {
        unreachable!("no driver code runs here")
    }
    fn slice(&self) -> engine::Flow<()> {
        unreachable!("no driver code runs here")
    }
    fn port_read(&self, _: u16, _: u8) -> engine::Flow<u64> {
        unreachable!("no driver code runs here")
    }
    fn port_write(&self, _: u16, _: u8, _: u32) -> engine::Flow<()> {
        unreachable!("no driver code runs here")
    }
    fn device_read(&self, _: engine::Access, _: &mut [u8]) -> engine::Flow<()> {
        unreachable!("no driver code runs here")
    }
    fn device_write(&self, _: engine::Access, _: &[u8]) -> engine::Flow<()> {
        unreachable!("no driver code runs here")
    }
    fn accessed(&self) -> engine::Flow<()> {
        unreachable!("no driver code runs here")
    }
    fn set_irql(&self, _: u64) -> engine::Flow<()> {
        unreachable!("no driver code runs here")
    }
    fn interrupt_flag(&self) -> bool {
        unreachable!("no driver code runs here")
    }
    fn set_interrupt_flag(&self, _: bool) -> engine::Flow<()> {
        unreachable!("no driver code runs here")
    }
    fn cpuid(&self, _: u32, _: u32) -> [u32; 4] {
        unreachable!("no driver code runs here")
    }
    fn special(&self, _: engine::Special) -> engine::Flow<u64> {
        unreachable!("no driver code runs here")
    }
    fn fault(&self, _: &engine::Fault) -> engine::Leave {
        unreachable!("no driver code runs here")
    }
}

#[test]
fn strands_take_turns_and_their_stacks_are_used_again() {
    let host = Host::start().unwrap();
    let guest = PingPong { engine: *host, log: RefCell::default() };
    host.run(&guest, || {
        for _ in 0..200 {
            let (a, b) = (host.spawn(), host.spawn());
            for _ in 0..3 {
                assert_eq!((host.resume(a), host.resume(b)), (Progress::Suspended, Progress::Suspended));
            }
            assert_eq!((host.resume(a), host.resume(b)), (Progress::Finished, Progress::Finished));
        }
    });
    let log = guest.log.borrow();
    assert_eq!((log.len(), &log[..6]), (1200, &[1, 2, 1, 2, 1, 2][..]));
    host.finish();
}

#[test]
fn strands_that_never_ended_are_abandoned_with_the_machine() {
    for _ in 0..3 {
        let host = Host::start().unwrap();
        let guest = PingPong { engine: *host, log: RefCell::default() };
        host.run(&guest, || assert_eq!(host.resume(host.spawn()), Progress::Suspended));
        host.finish();
    }
}

#[test]
fn a_physical_page_can_appear_twice() {
    let host = Host::start().unwrap();
    host.map(SYSTEM.base, 0x1_0000_0000, PAGE, Protection::READ_WRITE);
    host.map(USER.base, 0x1_0000_0000, PAGE, Protection::READ);
    let (there, here) = (DriverPtr::new(SYSTEM.base + 8), DriverPtr::new(USER.base + 8));
    host.write(there, 0x1234_5678_u32).unwrap();
    assert_eq!(host.read(here), Ok(0x1234_5678_u32));
    assert!(host.write(here, 1_u32).is_err(), "mapped to be read only");
    host.unmap(SYSTEM.base, PAGE);
    assert!(host.read(there).is_err(), "no longer mapped");
    host.finish();
}

#[test]
fn a_bad_pointer_is_an_answer_and_never_reaches_memory_of_ours() {
    let host = Host::start().unwrap();
    let secret = 5u64;
    for bad in
        [0, 8, u64::MAX, u64::MAX - 3, 0xFFFF_8000_0000_0000, address(&secret), SYSTEM.base, IMAGES.end() - 2]
    {
        let pointer = DriverPtr::<u64>::new(bad);
        assert!(host.read(pointer).is_err(), "read at {bad:#x}");
        assert!(host.write(pointer, 1u64).is_err(), "write at {bad:#x}");
    }
    host.map(SYSTEM.base, 0x1000, PAGE, Protection::READ_WRITE);
    assert!(host.read_bytes(SYSTEM.base + PAGE - 4, &mut [0; 8]).is_err(), "runs over the end of a mapping");
    assert_eq!(secret, 5);
    host.finish();
}

#[test]
fn one_machine_at_a_time_and_as_many_as_you_like_after_each_other() {
    for _ in 0..5 {
        let rig = Rig::new(&[0xB8, 7, 0, 0, 0, 0xC3]); // mov eax, 7; ret
        assert!(matches!(Host::start(), Err(StartError::Busy)));
        assert_eq!(rig.call(&[]), Ok(7));
        assert_eq!(rig.engine.now(), 2);
        let untouched = rig.engine.read(DriverPtr::<u64>::new(DATA));
        assert_eq!(untouched, Ok(0), "memory of the machine before is gone");
        rig.engine.write(DriverPtr::new(DATA), 9u64).unwrap();
        assert!(rig.engine.read(DriverPtr::<u64>::new(STACK_TOP)).is_ok());
    }
}
