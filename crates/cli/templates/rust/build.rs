//! How the driver is linked: as Windows wants one.

fn main() {
    let options = [
        "/DRIVER",
        "/SUBSYSTEM:NATIVE,10.0",
        "/ENTRY:DriverEntry",
        "/NODEFAULTLIB",
        "/NXCOMPAT",
        "/DYNAMICBASE",
        "/RELEASE",
    ];
    let more = [
        "/TSAWARE:NO",
        "/Brepro",
        "/OPT:REF,NOICF",
        "/SECTION:INIT,ERD",
        "/MANIFEST:NO",
    ];
    for option in options.iter().chain(&more) {
        println!("cargo:rustc-link-arg-bins={option}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
