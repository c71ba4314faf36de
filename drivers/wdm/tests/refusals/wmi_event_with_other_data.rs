//! What comes with an event has its type.
use wdm::*;

struct Demo;
struct Card;

impl Driver for Demo {
    type Function = Card;
    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self)
    }
}

impl Function for Card {
    type Driver = Demo;
    const TAG: Tag = Tag::new(b"Demo");
    const WMI: &'static [Offered<Self>] = &[Offered::event::<Late>()];
    fn add(_driver: &Demo, _pdo: &Pdo, _passive: &mut Passive) -> Result<(Name, Self)> {
        Ok((Name::new(r"\Device\Card"), Self))
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

struct Late;

impl EventBlock for Late {
    type Function = Card;
    type Data = u32;
    const GUID: GUID = GUID::new(1, 2, 3, 4);
}

fn dpc(device: &Device<Card>, dispatch: &mut Dispatch) {
    let _ = device.fire::<Late>(0, &1_u64, dispatch);
}

fn main() {}
