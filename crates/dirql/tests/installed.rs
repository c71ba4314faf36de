//! What an INF makes of the properties of a device and of its interface, as a compiled driver (`drivers/c/installed.c`) finds them; and drivers that an INF installs
//! without a device.

use std::fs;
use std::path::PathBuf;

use dirql::Bench;

use super::rig::{self, driver, folder, play};

/// `{C22189E4-8BF3-4E6D-8467-8DC6D95E2A7E}`, `DEVPKEY_DrvPkg_*` and `DEVPKEY_DeviceInterface_FriendlyName` as bytes.
const OWN: &str = "hex:e48921c2f38b6d4e84678dc6d95e2a7e";
const PACKAGE: &str = "hex:51bb73cfbf3aa24485e09a3dc7a12132";
const INTERFACE: &str = "hex:6e516e0214b84b4183cd856d6fef4822";
const DEVICE: &str = "hex:4e255ca41cdffd4e802067d146a850e0";

fn bench(inf: PathBuf) -> Bench {
    Bench::new().driver(driver("installed.sys")).inf(inf).device("pci9052")
}

#[test]
fn a_driver_finds_the_properties_that_its_inf_sets() {
    let machine = bench(driver("installed.inf")).start().unwrap();
    play(
        &machine,
        &format!(
            r#"open \\.\DirqlInstalled as f
            ioctl f 0x222000 in {PACKAGE} + u32:2 out 64 expect u32:0x12 + u32:16 + utf16:"Model 9" + u16:0
            ioctl f 0x222000 in {PACKAGE} + u32:6 out 64 expect u32:0x2012 + u32:34 + utf16:"one.ico" + u16:0 + utf16:"two.ico" + u16:0 + u16:0
            ioctl f 0x222000 in {PACKAGE} + u32:3 out 64 expect STATUS_OBJECT_NAME_NOT_FOUND
            ioctl f 0x222000 in {OWN} + u32:2 out 64 expect u32:7 + u32:4 + u32:0x1F00
            ioctl f 0x222000 in {OWN} + u32:3 out 64 expect u32:17 + u32:1 + hex:ff
            ioctl f 0x222000 in {OWN} + u32:4 out 64 expect u32:0x1003 + u32:3 + hex:0102ff
            ioctl f 0x222000 in {OWN} + u32:5 out 64 expect u32:0x2012 + u32:14 + utf16:"a" + u16:0 + utf16:"b" + u16:0 + utf16:"c" + u16:0 + u16:0
            ioctl f 0x222000 in {OWN} + u32:5 out 16 expect STATUS_BUFFER_TOO_SMALL
            ioctl f 0x222000 in {DEVICE} + u32:14 out 64 expect u32:18 + u32:32 + utf16:"A friendly card" + u16:0
            ioctl f 0x222008 out 64 expect u32:0 + u32:32 + utf16:"A friendly card" + u16:0
            ioctl f 0x222004 in {INTERFACE} + u32:2 out 64 expect u32:18 + u32:42 + utf16:"A friendly interface" + u16:0
            ioctl f 0x222004 in {OWN} + u32:2 out 64 expect STATUS_OBJECT_NAME_NOT_FOUND
            close f"#
        ),
    );
    rig::finish(machine);
}

#[test]
fn what_del_property_names_is_deleted_before_anything_is_added() {
    let inf = rig::changed_inf("installed", "installed.inf", |text| {
        text.replace("[Installed.Files]\n", "DelProperty = Gone\n[Gone]\nDeviceModel\n[Installed.Files]\n")
            .replace(
                "AddProperty = Interface.Properties\n",
                "AddProperty = Interface.Properties\nDelProperty = Gone\n",
            )
    });
    let machine = bench(inf).start().unwrap();
    play(
        &machine,
        &format!(
            r#"open \\.\DirqlInstalled as f
            ioctl f 0x222000 in {PACKAGE} + u32:2 out 64 expect u32:0x12 + u32:16 + utf16:"Model 9" + u16:0
            close f"#
        ),
    );
    rig::finish(machine);
}

#[test]
fn an_extension_adds_properties_to_those_of_the_base() {
    let extension = folder("extension").join("more.inf");
    fs::write(
        &extension,
        "[Version]\nSignature=\"$Windows NT$\"\nClass=Extension\nClassGuid={e2f84ce7-8efa-411c-aa69-97454ca4cb57}\n\
         ExtensionId={97cd5eb3-8c9b-41b0-9b5e-0f8c3f1b7a11}\nProvider=\"dirql\"\nDriverVer=01/01/2025,1.0.0.0\n[Manufacturer]\n\"dirql\"=Models,NTamd64\n\
         [Models.NTamd64]\n\"more\"=More,PCI\\VEN_10B5&DEV_9050\n[More]\nAddProperty=More.Properties\n[More.Properties]\n\
         DeviceModel,,,2,\"Model 10\"\n{c22189e4-8bf3-4e6d-8467-8dc6d95e2a7e},9,7,,9\n",
    )
    .unwrap();
    let machine = bench(driver("installed.inf")).inf(extension).start().unwrap();
    play(
        &machine,
        &format!(
            r#"open \\.\DirqlInstalled as f
            ioctl f 0x222000 in {PACKAGE} + u32:2 out 64 expect u32:0x12 + u32:18 + utf16:"Model 10" + u16:0
            ioctl f 0x222000 in {OWN} + u32:9 out 64 expect u32:7 + u32:4 + u32:9
            close f"#
        ),
    );
    rig::finish(machine);
}

#[test]
fn a_driver_without_a_device_finds_its_services_key_and_what_its_inf_writes_to_the_machine() {
    let file = folder("default").join("legacy.inf");
    fs::write(
        &file,
        "[Version]\nSignature=\"$Windows NT$\"\nClass=System\nClassGuid={4d36e97d-e325-11ce-bfc1-08002be10318}\nProvider=\"dirql\"\nDriverVer=01/01/2025,1.0.0.0\n\
         [DefaultInstall.NTamd64]\nAddReg=Machine\n[Machine]\nHKLM,System\\CurrentControlSet\\Services\\Own\\Parameters,Limit,0x00010021,7\n\
         [DefaultInstall.NTamd64.Services]\nAddService=Own,,Service\n[Service]\nServiceType=1\nStartType=3\nErrorControl=1\nServiceBinary=%12%\\legacy.sys\n\
         AddReg=Keys\n[Keys]\nHKR,Parameters,Limit,0x00010001,5\n",
    )
    .unwrap();
    let machine = Bench::new().driver(driver("legacy.sys")).inf(file).start().unwrap();
    let report = rig::finish(machine);
    // The key's value is there (5), so that it is overwritten.
    assert!(report.prints[0].ends_with("\\Services\\Own, keeps 7 bytes"), "{:?}", report.prints);
}
