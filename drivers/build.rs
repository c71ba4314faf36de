//! How each driver is linked: as Windows wants one.
//!
//! `/Brepro` for time stamps that are hashes, `/RELEASE` for the checksum. It compiles nothing.

fn main() {
    let arguments = [
        "/DRIVER",
        "/SUBSYSTEM:NATIVE,10.0",
        "/ENTRY:DriverEntry",
        "/NODEFAULTLIB",
        "/NXCOMPAT",
        "/DYNAMICBASE",
        "/TSAWARE:NO",
        "/RELEASE",
        "/Brepro",
        "/OPT:REF,NOICF", // folded routines would be shown by each other's names
        "/SECTION:INIT,ERD",
        "/MANIFEST:NO",
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rerun-if-changed=../build.rs");
}
