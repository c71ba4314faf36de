//! What an installation writes to the registry: the service's key, the device's hardware and software keys, its interfaces' keys.
//!
//! Follows *INF AddService Directive*, *INF AddReg Directive* and *Registry Trees and Keys for Devices and Drivers*.

use abi::NtStatus;
use kernel::Cx;
use kernel::cm::access::{self, ENUM, SERVICES};
use kernel::cm::registry::{KeyId, Registry};
use kernel::io::registry_key;
use kernel::pnp::NodeId;
use kernel::pnp::install::{self, Keys};
use kernel::pnp::property_data::Owner;

use super::properties;
use crate::inf::{Installation, Interface, RegistryWrite, Root, Service, Value, Write};

/// What `Root::LocalMachine` means.
const MACHINE: &str = r"\Registry\Machine";

/// The key of a service, as the INF has it.
pub(super) fn write_service(cx: &mut Cx<'_>, service: &Service) -> Result<(), NtStatus> {
    let key = format!("{SERVICES}\\{}", service.name);
    access::set_number(cx, &key, "Type", service.kind)?;
    access::set_number(cx, &key, "Start", service.start)?;
    access::set_number(cx, &key, "ErrorControl", service.error_control)?;
    let path = Value::ExpandSz(service.image_path.clone());
    access::set(cx, &key, "ImagePath", path.kind(), &path.bytes())?;
    if let Some(name) = &service.display_name {
        access::set_text(cx, &key, "DisplayName", name)?;
    }
    write_all(cx, &key, &service.keys)
}

/// Has the framework of a client watch it, as Driver Verifier does.
pub(super) fn verify_client(cx: &mut Cx<'_>, service: &Service) -> Result<(), NtStatus> {
    access::set_number(cx, &format!("{SERVICES}\\{}\\Parameters\\Wdf", service.name), "VerifierOn", 1)
}

/// The keys of a device whose installation the PnP manager knows.
pub(super) fn write_device(
    cx: &mut Cx<'_>,
    node: NodeId,
    installation: &Installation,
) -> Result<(), NtStatus> {
    let keys = install::keys(cx, node);
    write_all(cx, &keys.hardware, &installation.device_keys)?;
    for interface in &installation.interfaces {
        let link = link(&keys, interface);
        if let Some(key) = registry_key::of_interface(&link) {
            access::create(cx, &key)?;
            write_all(cx, &key, &interface.keys)?;
        }
        properties::write(cx, &Owner::Interface(link.to_lowercase()), &interface.properties);
    }
    properties::write(cx, &Owner::Device(node), &installation.properties);
    match keys.driver {
        Some(driver) => write_all(cx, &driver, &installation.driver_keys),
        None => Ok(()),
    }
}

/// The symbolic link of a device's interface.
fn link(keys: &Keys, interface: &Interface) -> String {
    let device = keys.instance.strip_prefix(ENUM).unwrap_or_default().trim_start_matches('\\');
    let Interface { class, reference, .. } = interface;
    let link = format!(r"\??\{}#{class}\{reference}", device.replace('\\', "#"));
    link.trim_end_matches('\\').to_owned()
}

/// The keys that a device's installation writes to, or below them.
pub(super) fn touched(cx: &mut Cx<'_>, node: NodeId, installation: Option<&Installation>) -> Vec<String> {
    let keys = install::keys(cx, node);
    let of_interface = |interface: &Interface| registry_key::of_interface(&link(&keys, interface));
    let interfaces = || installation.into_iter().flat_map(|it| &it.interfaces);
    let of_machine = |write: &RegistryWrite| {
        (write.root == Root::LocalMachine).then(|| format!("{MACHINE}\\{}", write.key))
    };
    let writes = installation.into_iter().flat_map(|it| it.device_keys.iter().chain(&it.driver_keys));
    let writes = writes.chain(interfaces().flat_map(|interface| &interface.keys));
    let mut touched: Vec<String> = writes.filter_map(of_machine).collect();
    touched.extend(interfaces().filter_map(of_interface));
    touched.extend([keys.instance].into_iter().chain(keys.driver));
    touched
}

/// What is written without a device: below `HKLM` only.
pub(super) fn write_machine(cx: &mut Cx<'_>, writes: &[RegistryWrite]) -> Result<(), NtStatus> {
    write_all(cx, MACHINE, writes)
}

fn write_all(cx: &mut Cx<'_>, relative: &str, writes: &[RegistryWrite]) -> Result<(), NtStatus> {
    for write in writes {
        let root = match write.root {
            Root::Relative => relative,
            Root::LocalMachine => MACHINE,
        };
        let key = if write.key.is_empty() { root.to_owned() } else { format!("{root}\\{}", write.key) };
        carry_out(cx, &key, &write.write)?;
    }
    Ok(())
}

fn carry_out(cx: &mut Cx<'_>, key: &str, write: &Write) -> Result<(), NtStatus> {
    match write {
        Write::Key => access::create(cx, key).map(|_| ()),
        Write::Set { name, value, keep_existing, only_existing, append } => {
            let there = access::value(cx, key, name).is_some();
            if there && *keep_existing || !there && *only_existing {
                return Ok(());
            }
            match value {
                Value::MultiSz(texts) if *append => {
                    let mut all = access::texts(cx, key, name).unwrap_or_default();
                    all.extend(texts.iter().filter(|text| !all.contains(text)).cloned().collect::<Vec<_>>());
                    access::set(cx, key, name, value.kind(), &Value::MultiSz(all).bytes())
                }
                _ => access::set(cx, key, name, value.kind(), &value.bytes()),
            }
        }
        Write::DeleteText { name, text } => {
            let Some(mut all) = access::texts(cx, key, name) else { return Ok(()) };
            all.retain(|there| !there.eq_ignore_ascii_case(text));
            access::set(cx, key, name, abi::REG_MULTI_SZ, &Value::MultiSz(all).bytes())
        }
        Write::Bits { name, set, mask, byte } => {
            let there = access::value(cx, key, name).filter(|there| there.kind == abi::REG_BINARY);
            let Some(mut data) = there.map(|there| there.data) else { return Ok(()) };
            let Some(byte) = usize::try_from(*byte).ok().and_then(|byte| data.get_mut(byte)) else {
                return Ok(());
            };
            *byte = if *set { *byte | mask } else { *byte & !mask };
            access::set(cx, key, name, abi::REG_BINARY, &data)
        }
        Write::DeleteValue { name } => delete(cx, key, Some(name)),
        Write::DeleteKey => delete(cx, key, None),
    }
}

/// Deletes a value, or a key and all below it. What is not there needs no deleting.
pub(super) fn delete(cx: &mut Cx<'_>, key: &str, value: Option<&str>) -> Result<(), NtStatus> {
    let Ok(id) = access::open(cx, key) else { return Ok(()) };
    let now = access::now(cx);
    cx.with(|k| match value {
        Some(name) => {
            let name: Vec<u16> = name.encode_utf16().collect();
            k.cm.registry.delete_value(id, &name, now).or(Ok(()))
        }
        None => delete_tree(&mut k.cm.registry, id, now),
    })
}

fn delete_tree(registry: &mut Registry, key: KeyId, now: i64) -> Result<(), NtStatus> {
    while let Ok(below) = registry.subkey(key, 0) {
        delete_tree(registry, below, now)?;
    }
    registry.delete(key, now)
}
