//! `pci9052.sys`: the function driver of the PLX PCI 9050/9052. So far it loads, takes devices and unloads.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]
use wdm::*;
struct A;
struct F;
impl Driver for A {
    type Function = F;
    fn load(_: &RegistryPath<'_>, _: &mut Passive) -> Result<Self> {
        Line::new("pci9052: loaded").print();
        Ok(A)
    }
}
impl Drop for A {
    fn drop(&mut self) {
        Line::new("pci9052: unloaded").print();
    }
}
impl Function for F {
    type Driver = A;
    const TAG: Tag = Tag::new(b"9052");
    fn add(_: &A, _: &Pdo, _: &mut Passive) -> Result<(Name, Self)> {
        Ok((Name::new(r"\Device\Pci9052-0"), F))
    }
    fn start(_: &Device<Self>, _: &Resources<'_>, _: &mut Passive) -> Result<()> {
        Ok(())
    }
    fn pause(_: &Device<Self>, _: &mut Passive) -> Result<()> {
        Ok(())
    }
    fn resume(_: &Device<Self>, _: &mut Passive) {}
    fn stop(_: &Device<Self>, _: Stop, _: &mut Passive) {}
}
wdm::driver!(A);
