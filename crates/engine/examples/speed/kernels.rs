//! Compiled functions, natively and translated: whole, in slices of a thousand instructions, and checked.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{ExportTarget, Image, Selector};

use crate::rig::native::Native;
use crate::rig::{CODE, Rig};
use crate::{Figure, sampled};

const SAMPLES: u32 = 300;
const KERNELS: [(&str, u32); 4] = [("crc", 4), ("parse", 10), ("sort", 4), ("calls", 6)];

pub(crate) fn all() -> Vec<Figure> {
    let wanted = |kinds: &[&str]| {
        let named = |name: &str| kinds.iter().any(|kind| crate::wanted(&format!("{kind}_ratio_{name}")));
        KERNELS.iter().filter(|(name, _)| named(name)).collect::<Vec<_>>()
    };
    let (whole, with_checks) = (wanted(&["native", "sliced"]), wanted(&["checked"]));
    if whole.is_empty() && with_checks.is_empty() {
        return Vec::new();
    }
    let image = compiled();
    let native = Native::new(0x10_0000);
    native.load(&image.load_at(native.base()).unwrap());
    let rig = Rig::new(&[0xC3]);
    rig.load_image(&image);
    let mut figures: Vec<Figure> =
        whole.iter().flat_map(|(name, repeats)| one(&rig, &native, &image, name, *repeats)).collect();
    drop(rig);
    let rig = Rig::checked(&[0xC3]);
    rig.load_image(&image);
    figures.extend(with_checks.iter().map(|(name, repeats)| checked(&rig, &native, &image, name, *repeats)));
    figures
}

fn compiled() -> Image {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/speed/kernels.c");
    let out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/speed-kernels.dll");
    let status = Command::new("x86_64-w64-mingw32-gcc")
        .args(["-O2", "-shared", "-nostdlib", "-ffreestanding", "-fno-tree-loop-distribute-patterns"])
        .args(["-Wl,--subsystem,native", "-Wl,--entry,DllMain", "-Wl,--dynamicbase"])
        .arg(source)
        .arg("-o")
        .arg(&out)
        .status();
    assert!(
        status.is_ok_and(|s| s.success()),
        "install Debian's gcc-mingw-w64-x86-64, as `cargo xtask` does"
    );
    Image::parse("kernels", &std::fs::read(out).unwrap()).unwrap()
}

fn place(image: &Image, name: &str) -> u64 {
    let export = image.export(&Selector::Name(name.to_owned())).unwrap();
    let ExportTarget::Rva(rva) = export.target else { panic!("{name} is our own") };
    rva.into()
}

/// As [`one`], in a machine that is checked.
fn checked(rig: &Rig, native: &Native, image: &Image, name: &str, repeats: u32) -> Figure {
    let rva = place(image, name);
    rig.engine.set_slice(u64::MAX);
    let ratio = |_| {
        let bare = sampled(1, repeats, |n| {
            (0..n).for_each(|seed| {
                black_box(native.call(native.base() + rva, [seed.into(), 0, 0, 0]));
            });
        });
        let checked = sampled(1, repeats, |n| {
            (0..n).for_each(|seed| {
                black_box(rig.call_at(CODE + rva, &[seed.into()]).unwrap());
            });
        });
        checked[0] / bare[0]
    };
    Figure::new(&format!("checked_ratio_{name}"), "x", (0..SAMPLES).map(ratio).collect())
}

fn one(rig: &Rig, native: &Native, image: &Image, name: &str, repeats: u32) -> Vec<Figure> {
    let rva = place(image, name);
    let natively = |seed: u64| native.call(native.base() + rva, [seed, 0, 0, 0]);
    let translated = |seed: u64| rig.call_at(CODE + rva, &[seed]).unwrap();
    assert_eq!(natively(7), translated(7), "{name}");
    rig.engine.set_slice(u64::MAX);
    // One after the other within each sample: what disturbs one disturbs the other.
    let mut whole = Vec::new();
    let mut sliced = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..SAMPLES {
        bare.extend(sampled(1, repeats, |n| {
            (0..n).for_each(|seed| {
                black_box(natively(seed.into()));
            })
        }));
        whole.extend(sampled(1, repeats, |n| {
            (0..n).for_each(|seed| {
                black_box(translated(seed.into()));
            })
        }));
        *rig.on_slice.borrow_mut() = Some(Box::new(|rig| {
            rig.engine.set_slice(1000);
            Ok(())
        }));
        rig.engine.set_slice(1000);
        sliced.extend(sampled(1, repeats, |n| {
            (0..n).for_each(|seed| {
                black_box(translated(seed.into()));
            })
        }));
        *rig.on_slice.borrow_mut() = None;
        rig.engine.set_slice(u64::MAX);
    }
    let ratio = |times: &[f64]| times.iter().zip(&bare).map(|(time, bare)| time / bare).collect();
    vec![
        Figure::new(&format!("native_ratio_{name}"), "x", ratio(&whole)),
        Figure::new(&format!("sliced_ratio_{name}"), "x", ratio(&sliced)),
    ]
}
