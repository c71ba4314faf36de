//! Stories of loading: drivers compiled by mingw, loaded and run a little.

use abi::{DriverPtr, KLDR_DATA_TABLE_ENTRY, LIST_ENTRY, UNICODE_STRING};
use engine::Leave;
use image::Image;

use super::imports::{self, Status};
use super::{LoadError, Module, symbols};
use crate::Cx;
use crate::exports::data;
use crate::mm::pool_check;
use crate::mm::rig::{call, driver, load, machine, message, unicode, verdict};

const ALLOCATES: &str = "
    void *ExAllocatePoolWithTag(int, unsigned long long, unsigned);
    void ExFreePoolWithTag(void *, unsigned);
    void *kept;
    __attribute__((noinline)) int allocate(void) {
        kept = ExAllocatePoolWithTag(512, 100, 'Dirq');
        void *other = ExAllocatePoolWithTag(512, 200, 'Dirq');
        ExFreePoolWithTag(other, 'Dirq');
        return kept != 0;
    }
    int DriverEntry(void *driver, void *path) { return allocate() + 41; }";

#[test]
fn a_driver_is_loaded_calls_the_kernel_and_leaves_a_block_behind() {
    machine(|cx| {
        let image = load(cx, driver("leaky", ALLOCATES, &[]));
        assert_eq!(call(cx, image.entry.unwrap().address, &[0, 0]), Ok(42));
        let left = pool_check::outstanding(cx, image.base);
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].bytes, left[0].paged), (100, false));
        assert!(left[0].allocated_by.starts_with("leaky.sys!allocate+"), "{}", left[0].allocated_by);
        super::unload(cx, image.base).unwrap();
        assert!(symbols::describe(cx, image.base + 0x1000).ends_with("(unloaded)"));
        assert!(cx.engine().read::<u8>(DriverPtr::new(image.base)).is_err());
    });
}

#[test]
fn text_cannot_be_written_and_data_can() {
    machine(|cx| {
        let image = load(cx, driver("plain", ALLOCATES, &[]));
        let entry: DriverPtr<u8> = image.entry.unwrap().cast();
        let first = cx.engine().read(entry).unwrap();
        assert!(cx.engine().write(entry, first).is_err());
        let parsed = cx.with(|k| {
            let image = &k.ldr.images[&image.base].image;
            image.sections().iter().find(|section| section.protection.write).map(|section| section.rva)
        });
        let data = DriverPtr::<u8>::new(image.base + u64::from(parsed.unwrap()));
        cx.engine().write(data, 0).unwrap();
    });
}

const MISSING: &str = "
    __declspec(dllimport) int ZwFrobnicate(void);
    __declspec(dllimport) extern int FrobCounter;
    int __attribute__((noinline)) outer(void) { return ZwFrobnicate() + 1; }
    int DriverEntry(void *driver, void *path) { return outer() + 1; }
    __declspec(dllexport) int Look(void) { return FrobCounter; }";

fn missing() -> Image {
    driver("wants", MISSING, &[("ntoskrnl.exe", &["ZwFrobnicate"]), ("frob.sys", &["FrobCounter DATA"])])
}

#[test]
fn calling_an_import_that_nobody_has_names_it_and_its_caller() {
    machine(|cx| {
        let image = load(cx, missing());
        assert_eq!(call(cx, image.entry.unwrap().address, &[0, 0]), Err(Leave::Stop));
        assert_eq!(verdict(cx), Some("not-implemented"));
        assert!(
            message(cx).starts_with("ntoskrnl.exe!ZwFrobnicate, called from wants.sys"),
            "{}",
            message(cx)
        );
        assert!(message(cx).ends_with("not implemented by dirql"));
        let stack = cx.nt().verdict().unwrap().stack;
        let names: Vec<_> = stack.iter().map(|line| line.symbol.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].starts_with("wants.sys!outer+0x"), "{names:?}");
        assert!(names[1].starts_with("wants.sys!DriverEntry+0x"), "{names:?}");
    });
}

const NEW: &str = "
    void *ExAllocatePool2(unsigned long long, unsigned long long, unsigned);
    void ExFreePoolWithTag(void *, unsigned);
    int DriverEntry(void *driver, void *path) {
        ExFreePoolWithTag(ExAllocatePool2(0x40, 16, 'Dirq'), 'Dirq');
        return 42;
    }";

#[test]
fn an_export_that_this_windows_does_not_have_yet_is_told_as_such() {
    let new = || driver("newer", NEW, &[("ntoskrnl.exe", &["ExAllocatePool2"])]);
    machine(|cx| {
        let image = load(cx, new());
        assert_eq!(call(cx, image.entry.unwrap().address, &[0, 0]), Ok(42));
        super::unload(cx, image.base).unwrap();
        cx.with(|k| k.ldr.windows = crate::nt::WindowsVersion::Win7);
        let image = load(cx, new());
        assert_eq!(call(cx, image.entry.unwrap().address, &[0, 0]), Err(Leave::Stop));
        assert_eq!(verdict(cx), Some("export-too-new"));
        assert!(message(cx).contains("came with Windows 10"), "{}", message(cx));
    });
}

#[test]
fn reading_a_variable_that_nobody_has_faults_at_an_address_that_knows_its_name() {
    machine(|cx| {
        let image = load(cx, missing());
        let slot = cx.with(|k| {
            let image = &k.ldr.images[&image.base].image;
            image.imports().iter().find(|import| import.selector.to_string() == "FrobCounter").map(|i| i.slot)
        });
        let slot = DriverPtr::<u64>::new(image.base + u64::from(slot.unwrap()));
        let address = cx.read(slot).unwrap();
        assert!(cx.engine().read::<u32>(DriverPtr::new(address)).is_err());
        assert_eq!(imports::name_at(cx, address + 200).as_deref(), Some("frob.sys!FrobCounter"));
        assert_eq!(imports::name_at(cx, image.base), None);
    });
}

#[test]
fn the_list_of_imports_tells_what_there_is() {
    let image = missing();
    let library =
        driver("frob", "__declspec(dllexport) int FrobCounter = 7; int DriverEntry(void) { return 0; }", &[]);
    let alone = imports::list(&image, &[]);
    assert_eq!(alone.iter().map(|import| import.status).collect::<Vec<_>>(), [Status::Missing; 2]);
    let linked = imports::list(&image, &[&library]);
    let frob = linked.iter().find(|import| import.name == "FrobCounter").unwrap();
    assert_eq!((frob.module.as_str(), frob.data, frob.status), ("frob.sys", true, Status::Linked));
    let pool = imports::list(&driver("leaky", ALLOCATES, &[]), &[]);
    let pool = pool.iter().find(|import| import.name == "ExAllocatePoolWithTag").unwrap();
    assert_eq!((pool.status, pool.irql.as_deref(), pool.data), (Status::Implemented, Some("0..2"), false));
}

#[test]
fn an_import_from_another_driver_is_its_export() {
    let library = "
        __declspec(dllexport) int FrobCounter = 7;
        __declspec(dllexport) int DllInitialize(void *path) { FrobCounter = 8; return 0; }
        int DriverEntry(void) { return 0; }";
    let user = "
        __declspec(dllimport) extern int FrobCounter;
        int DriverEntry(void *driver, void *path) { return FrobCounter; }";
    machine(|cx| {
        let frob = load(cx, driver("frob", library, &[]));
        let image = load(cx, driver("user", user, &[("FROB.SYS", &["FrobCounter DATA"])]));
        assert_eq!(super::libraries(cx, image.base), [frob.base]);
        let initializer = super::initializer(cx, frob.base).unwrap();
        assert_eq!(symbols::describe(cx, initializer.address), "frob.sys!DllInitialize");
        assert_eq!(call(cx, initializer.address, &[0]), Ok(0));
        assert_eq!(call(cx, image.entry.unwrap().address, &[0, 0]), Ok(8));
        assert_eq!(super::initializer(cx, image.base), None);
    });
}

#[test]
fn init_is_gone_once_it_is_discarded() {
    let source = "
        int __attribute__((section(\"INIT\"))) once(void) { return 5; }
        int DriverEntry(void *driver, void *path) { return once(); }";
    let parsed = driver("init", source, &[]);
    let rva = parsed.sections().iter().find(|section| section.is_init()).unwrap().rva;
    machine(|cx| {
        let image = load(cx, parsed.clone());
        assert_eq!(call(cx, image.entry.unwrap().address, &[0, 0]), Ok(5));
        super::discard_init(cx, image.base);
        assert!(cx.engine().read::<u8>(DriverPtr::new(image.base + u64::from(rva))).is_err());
        super::unload(cx, image.base).unwrap();
    });
}

#[test]
fn a_driver_finds_itself_in_the_list_of_modules_behind_the_kernel() {
    machine(|cx| {
        let image = load(cx, driver("listed", ALLOCATES, &[]));
        let head = DriverPtr::<LIST_ENTRY>::new(data::address("PsLoadedModuleList"));
        let first = cx.read(head + LIST_ENTRY::Flink).unwrap();
        assert_eq!(first.container(KLDR_DATA_TABLE_ENTRY::InLoadOrderLinks), data::kernel_module());
        let second = cx.read(first + LIST_ENTRY::Flink).unwrap();
        assert_eq!(second.container(KLDR_DATA_TABLE_ENTRY::InLoadOrderLinks), image.section);
        let base: DriverPtr<()> = cx.read(image.section + KLDR_DATA_TABLE_ENTRY::DllBase).unwrap();
        assert_eq!(base.address, image.base);
        let name = image.section + KLDR_DATA_TABLE_ENTRY::BaseDllName;
        let (length, text) = (
            cx.read(name + UNICODE_STRING::Length).unwrap(),
            cx.read(name + UNICODE_STRING::Buffer).unwrap(),
        );
        let text = cx.read_bytes(text.address, length.into()).unwrap();
        let units: Vec<u16> = text.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        assert_eq!(String::from_utf16_lossy(&units), "listed.sys");
        super::unload(cx, image.base).unwrap();
        assert_eq!(cx.read(first + LIST_ENTRY::Flink).unwrap(), head);
        assert_eq!(cx.read(head + LIST_ENTRY::Blink).unwrap(), first);
    });
}

#[test]
fn the_same_driver_twice_is_refused_with_a_sentence() {
    machine(|cx| {
        load(cx, driver("twice", ALLOCATES, &[]));
        let again =
            Module { name: "TWICE.SYS".to_owned(), image: driver("twice", ALLOCATES, &[]), symbols: None };
        let error = super::load(cx, again).unwrap().unwrap_err();
        assert!(matches!(error, LoadError::AlreadyLoaded(_)));
        assert_eq!(error.to_string(), "TWICE.SYS: an image of this name is loaded already");
    });
}

#[test]
fn a_routine_is_found_by_name_at_run_time_as_an_import_would_be() {
    machine(|cx| {
        super::boot(cx).unwrap();
        let mut find = |name: &str| {
            let name = unicode(cx, name);
            super::system_routine_address(cx, name).unwrap()
        };
        assert_eq!(
            Some(find("ExAllocatePool2")),
            super::export_address("ExAllocatePool2").map(|at| at.address)
        );
        assert_eq!(find("PsThreadType"), data::address("PsThreadType"));
        assert_eq!(find("ExAllocatePool99"), 0, "Windows has no such routine");
        let later = find("ZwCommitTransaction");
        assert_ne!(later, 0, "Windows has it, dirql does not yet");
        assert_eq!(imports::name_at(cx, later).as_deref(), Some("ntoskrnl.exe!ZwCommitTransaction"));
        let missing = call(cx, later, &[]);
        assert_eq!((missing, verdict(cx)), (Err(Leave::Stop), Some("not-implemented")));
    });
}

#[test]
fn exported_variables_hold_what_this_machine_is() {
    machine(|cx| {
        super::boot(cx).unwrap();
        let number =
            |cx: &mut Cx<'_>, name: &str| cx.read(DriverPtr::<u32>::new(data::address(name))).unwrap();
        assert_eq!(number(cx, "NtBuildNumber"), 0xF000_0000 | 26100);
        assert_eq!(number(cx, "KeNumberProcessors") & 0xFF, 1);
        let pointer: u64 = cx.read(DriverPtr::new(data::address("IoFileObjectType"))).unwrap();
        assert_eq!(pointer, data::object_type("IoFileObjectType"));
        assert!(cx.engine().write(DriverPtr::new(data::address("NtBuildNumber")), 0_u32).is_err());
        data::set(cx, "PsInitialSystemProcess", 0x1234);
        let process: u64 = cx.read(DriverPtr::new(data::address("PsInitialSystemProcess"))).unwrap();
        assert_eq!(process, 0x1234);
        let table = data::address("HalDispatchTable");
        let slot: u64 = cx.read(DriverPtr::new(table + 8)).unwrap();
        assert_eq!(
            imports::name_at(cx, slot).as_deref(),
            Some("hal.dll!HalDispatchTable->HalQuerySystemInformation")
        );
    });
}
