//! `root[,id=ID]`: a device that is on no bus. It was installed by a hardware id, as by `devcon install FILE.inf ID`.
//!
//! Page: *Device Tree* ("root-enumerated devices"). It is no card and has no model; here is only how it is typed.

use crate::catalog::Key;
use crate::spec::{Options, SpecError};
use crate::suggest::nearest;

/// As typed.
pub const NAME: &str = "root";

/// One line.
pub const SUMMARY: &str =
    "a device without hardware, installed by its id: for drivers whose INF names Root\\NAME";

/// Its key.
pub const KEYS: &[Key] = &[Key {
    name: "id",
    meaning: "its hardware id, e.g. Root\\SOFT",
    default: "the first Root\\ id of the INF",
}];

/// A root-enumerated device, as typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootSpec {
    /// Its hardware id; if it is not given, the INF's.
    pub id: Option<String>,
}

/// What `spec` says, if it speaks of such a device.
///
/// # Errors
/// (inner) an unknown key, or an id that is none.
#[must_use]
pub fn parse(spec: &str) -> Option<Result<RootSpec, SpecError>> {
    let options = Options::cut(spec);
    if options.as_ref().is_ok_and(|options| options.model != NAME) {
        return None;
    }
    match options {
        Err(_) if spec.split(',').next().map(str::trim) != Some(NAME) => None,
        Err(error) => Some(Err(error)),
        Ok(options) => Some(read(&options)),
    }
}

fn read(options: &Options<'_>) -> Result<RootSpec, SpecError> {
    if let Some(key) = options.keys().find(|key| !KEYS.iter().any(|known| known.name == *key)) {
        let hint = nearest(key, KEYS.iter().map(|key| key.name));
        let hint = hint.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
        return Err(SpecError::new(format!("device `{NAME}` has no key `{key}`{hint}; its keys: id")));
    }
    let form = "printable characters without spaces, e.g. id=Root\\SOFT";
    let id = options.value("id", form, |id| {
        let good = !id.is_empty() && id.len() <= 200 && id.chars().all(|c| c.is_ascii_graphic());
        good.then(|| id.to_owned())
    })?;
    Ok(RootSpec { id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_on_no_bus_is_typed_with_its_id_or_without() {
        assert_eq!(parse("root").unwrap().unwrap(), RootSpec { id: None });
        let id = Some(r"Root\SOFT".to_owned());
        assert_eq!(parse(r"root,id=Root\SOFT").unwrap().unwrap(), RootSpec { id });
        assert!(parse("pci9052,slot=3").is_none());
    }

    #[test]
    fn what_is_wrong_with_it_is_said() {
        let error = parse("root,ids=X").unwrap().unwrap_err().to_string();
        assert_eq!(error, "device `root` has no key `ids`, did you mean `id`?; its keys: id");
        assert!(parse("root,id=").unwrap().unwrap_err().to_string().contains("id is printable"));
        assert!(parse("root,id=A,id=B").unwrap().unwrap_err().to_string().contains("given twice"));
    }
}
