//! What a panic is in a driver: a bug check that says where.
//!
//! Page: *KeBugCheckEx*. It formats nothing.

/// The bug check code: "RUST". Parameter 1 is the address of the source file's name, 2 its length, 3 the line, 4 the column.
pub const PANIC_BUGCHECK: u32 = u32::from_be_bytes(*b"RUST");

#[cfg(all(windows, not(test)))]
#[panic_handler]
fn panic(panic: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line, column) =
        panic.location().map_or(("", 0, 0), |place| (place.file(), place.line(), place.column()));
    // SAFETY: may be called at any level with any arguments.
    unsafe {
        crate::sys::KeBugCheckEx(
            PANIC_BUGCHECK,
            file.as_ptr().addr(),
            file.len(),
            line as usize,
            column as usize,
        )
    }
}
