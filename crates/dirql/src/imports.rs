//! What a driver needs and who has it: the answer of `dirql imports`.

use image::Image;
use kernel::ldr::imports;

pub use kernel::ldr::imports::{ImportStatus, Status};

use crate::files::DriverFile;
use crate::readers::{json_array, json_object};

/// Each import of `driver`, in the file's order, with `others` loaded beside it.
#[must_use]
pub fn list(driver: &DriverFile, others: &[DriverFile]) -> Vec<ImportStatus> {
    let others: Vec<&Image> = others.iter().map(|other| &*other.image).collect();
    imports::list(&driver.image, &others)
}

/// `implemented`, `linked` or `missing`.
#[must_use]
pub const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Implemented => "implemented",
        Status::Linked => "linked",
        Status::Missing => "missing",
    }
}

/// `data` or `function`.
#[must_use]
pub const fn kind_name(import: &ImportStatus) -> &'static str {
    if import.data { "data" } else { "function" }
}

/// As JSON: `{"imports":[{"module","name","kind","irql","status"}]}`.
#[must_use]
pub fn json(imports: &[ImportStatus]) -> String {
    let one = |import: &ImportStatus| {
        let object = json_object()
            .text("module", &import.module)
            .text("name", &import.name)
            .text("kind", kind_name(import));
        let object = match &import.irql {
            Some(irql) => object.text("irql", irql),
            None => object.raw("irql", "null"),
        };
        object.text("status", status_name(import.status)).end()
    };
    json_object().raw("imports", &json_array(imports.iter().map(one))).end()
}
