//! Requests of a child come on any processor: what the driver keeps of it is shared.
use core::cell::Cell;
use wdm::*;

struct Ports;

struct Port {
    asked: Cell<u32>,
}

impl Bus for Ports {
    type Child = Port;
    const BUS_TYPE: GUID = GUID::new(0, 0, 0, 0);

    fn child_stop(port: &ChildDevice<Self>, _why: Stop, _passive: &mut Passive) {
        port.asked.set(0);
    }
}

struct TheDriver;

impl Driver for TheDriver {
    type Function = Ports;

    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self)
    }
}

impl Function for Ports {
    type Driver = TheDriver;
    const TAG: Tag = Tag::new(b"Port");

    fn add(_driver: &TheDriver, _pdo: &Pdo, _passive: &mut Passive) -> Result<(Name, Self)> {
        Ok((Name::new(r"\Device\Ports"), Self))
    }

    fn start(_device: &Device<Self>, _resources: &Resources<'_>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn pause(_device: &Device<Self>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    fn resume(_device: &Device<Self>, _passive: &mut Passive) {}

    fn stop(_device: &Device<Self>, _why: Stop, _passive: &mut Passive) {}
}

fn main() {}
