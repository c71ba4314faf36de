//! Stories of the registry as drivers see it.

use abi::{
    DriverPtr, KEY_FULL_INFORMATION, KEY_VALUE_PARTIAL_INFORMATION, KeyBasicInformation, KeyFullInformation,
    KeyValueFullInformation, KeyValuePartialInformation, NtStatus, OBJECT_ATTRIBUTES, REG_DWORD,
    REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ, UNICODE_STRING,
};

use super::access::{SERVICES, multi_sz, set, set_number, set_text, sz, text, value as value_of};
use super::{key, relative, value};
use crate::Cx;
use crate::mm::rig::{bytes, call, driver, load, machine, room, text as text_in, unicode, verdict, wide};
use crate::ob::handle;

fn card() -> String {
    format!("{SERVICES}\\Card")
}

fn attributes(cx: &mut Cx<'_>, root: u64, name: &str) -> DriverPtr<OBJECT_ATTRIBUTES> {
    let attributes: DriverPtr<OBJECT_ATTRIBUTES> = DriverPtr::new(bytes(cx, &[0; 0x30]));
    let name = unicode(cx, name);
    cx.write(attributes + OBJECT_ATTRIBUTES::Length, 0x30).unwrap();
    cx.write(attributes + OBJECT_ATTRIBUTES::RootDirectory, root).unwrap();
    cx.write(attributes + OBJECT_ATTRIBUTES::ObjectName, name).unwrap();
    cx.write(attributes + OBJECT_ATTRIBUTES::Attributes, 0x240).unwrap();
    attributes
}

/// `ZwOpenKey`: its status, and the handle.
fn open(cx: &mut Cx<'_>, root: u64, name: &str) -> (NtStatus, u64) {
    let attributes = attributes(cx, root, name);
    let handle = DriverPtr::new(bytes(cx, &[0; 8]));
    let status = key::open(cx, handle, abi::KEY_ALL_ACCESS, attributes).unwrap();
    (status, cx.read(handle).unwrap())
}

fn create(cx: &mut Cx<'_>, root: u64, name: &str) -> (NtStatus, u64, u32) {
    let attributes = attributes(cx, root, name);
    let (handle, made) = (DriverPtr::new(bytes(cx, &[0; 8])), DriverPtr::new(bytes(cx, &[0; 4])));
    let status = key::create(cx, handle, 0, attributes, 0, DriverPtr::NULL, 0, made).unwrap();
    (status, cx.read(handle).unwrap(), cx.read(made).unwrap())
}

#[test]
fn a_driver_reads_its_parameters_by_handle() {
    machine(|cx| {
        set_number(cx, &format!("{}\\Parameters", card()), "Depth", 7).unwrap();
        let (status, service) = open(cx, 0, &card());
        assert_eq!(status, NtStatus::SUCCESS);
        assert_ne!(service, 0);
        let (status, parameters) = open(cx, service, "parameters");
        assert_eq!(status, NtStatus::SUCCESS);
        let name = unicode(cx, "DEPTH");
        let (buffer, length) = (bytes(cx, &[0xEE; 32]), DriverPtr::new(bytes(cx, &[0; 4])));
        let query = |cx: &mut Cx<'_>, room| {
            let class = KeyValuePartialInformation;
            let status = value::query(cx, parameters, name, class, buffer, room, length).unwrap();
            (status, cx.read(length).unwrap())
        };
        assert_eq!(query(cx, 11), (NtStatus::BUFFER_TOO_SMALL, 16));
        assert_eq!(query(cx, 12), (NtStatus::BUFFER_OVERFLOW, 16));
        assert_eq!(query(cx, 16), (NtStatus::SUCCESS, 16));
        let info: DriverPtr<KEY_VALUE_PARTIAL_INFORMATION> = DriverPtr::new(buffer);
        assert_eq!(cx.read(info + KEY_VALUE_PARTIAL_INFORMATION::Type).unwrap(), REG_DWORD);
        assert_eq!(cx.read(DriverPtr::<u32>::new(buffer + 12)).unwrap(), 7);
        assert_eq!(cx.read_bytes(buffer + 16, 1).unwrap(), [0xEE]);
        let missing = unicode(cx, "Width");
        let status = value::query(cx, parameters, missing, 2, buffer, 32, length).unwrap();
        assert_eq!(status, NtStatus::OBJECT_NAME_NOT_FOUND);
        for handle in [parameters, service] {
            assert_eq!(handle::zw_close(cx, handle).unwrap(), NtStatus::SUCCESS);
        }
        assert!(cx.with(|k| k.cm.open.is_empty()), "closed handles keep nothing");
    });
}

#[test]
fn a_key_is_made_written_enumerated_and_deleted() {
    machine(|cx| {
        let (status, card, made) = create(cx, 0, &card());
        assert_eq!((status, made), (NtStatus::SUCCESS, abi::REG_CREATED_NEW_KEY));
        assert_eq!(create(cx, card, "b").2, abi::REG_CREATED_NEW_KEY);
        assert_eq!(create(cx, card, "A").2, abi::REG_CREATED_NEW_KEY);
        let (_, again, made) = create(cx, card, "B");
        assert_eq!(made, abi::REG_OPENED_EXISTING_KEY);
        let (name, data) = (unicode(cx, "Label"), bytes(cx, &sz("x")));
        assert_eq!(value::set(cx, card, name, 0, REG_SZ, data, 4).unwrap(), NtStatus::SUCCESS);

        let (buffer, length) = (bytes(cx, &[0; 128]), DriverPtr::new(bytes(cx, &[0; 4])));
        let mut names = String::new();
        for index in 0.. {
            let status =
                value::enumerate_key(cx, card, index, KeyBasicInformation, buffer, 128, length).unwrap();
            if status != NtStatus::SUCCESS {
                assert_eq!(status, NtStatus::NO_MORE_ENTRIES);
                break;
            }
            names.push(char::from(cx.read(DriverPtr::<u8>::new(buffer + 0x10)).unwrap()));
        }
        assert_eq!(names, "Ab", "by name, whatever the case");
        let status = value::query_key(cx, card, KeyFullInformation, buffer, 128, length);
        assert_eq!(status, Ok(NtStatus::SUCCESS));
        let info: DriverPtr<KEY_FULL_INFORMATION> = DriverPtr::new(buffer);
        assert_eq!(cx.read(info + KEY_FULL_INFORMATION::SubKeys).unwrap(), 2);
        assert_eq!(cx.read(info + KEY_FULL_INFORMATION::MaxValueDataLen).unwrap(), 4);
        let status = value::enumerate(cx, card, 0, KeyValueFullInformation, buffer, 128, length);
        assert_eq!(status, Ok(NtStatus::SUCCESS));
        let offset: u32 = cx.read(DriverPtr::new(buffer + 8)).unwrap();
        assert_eq!(cx.read_bytes(buffer + u64::from(offset), 4).unwrap(), sz("x"));

        assert_eq!(key::delete_key(cx, card).unwrap(), NtStatus::CANNOT_DELETE);
        assert_eq!(key::delete_key(cx, again).unwrap(), NtStatus::SUCCESS);
        assert_eq!(value::set(cx, again, name, 0, REG_SZ, data, 4).unwrap(), NtStatus::KEY_DELETED);
        assert_eq!(value::delete(cx, card, name).unwrap(), NtStatus::SUCCESS);
    });
}

#[test]
fn a_handle_that_is_no_keys_is_refused() {
    machine(|cx| {
        assert_eq!(open(cx, 0x44, "x").0, NtStatus::INVALID_HANDLE);
        assert_eq!(key::flush(cx, u64::MAX).unwrap(), NtStatus::OBJECT_TYPE_MISMATCH, "the process");
        assert_eq!(open(cx, 0, "\\Device\\Null").0, NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(verdict(cx), None);
    });
}

#[test]
fn the_short_way_writes_checks_and_deletes() {
    machine(|cx| {
        let (path, name) = (wide(cx, "Card\\Parameters"), wide(cx, "Speed"));
        let data = bytes(cx, &9_u32.to_le_bytes());
        assert_eq!(relative::check(cx, 1, path).unwrap(), NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(relative::check(cx, 1 | abi::RTL_REGISTRY_OPTIONAL, path).unwrap(), NtStatus::SUCCESS);
        assert_eq!(relative::write(cx, 1, path, name, REG_DWORD, data, 4).unwrap(), NtStatus::SUCCESS);
        let written = value_of(cx, &format!("{}\\Parameters", card()), "speed").unwrap();
        assert_eq!((written.kind, written.data), (REG_DWORD, vec![9, 0, 0, 0]));
        assert_eq!(relative::delete(cx, 1, path, name).unwrap(), NtStatus::SUCCESS);
        assert_eq!(relative::delete(cx, 1, path, name).unwrap(), NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(
            relative::write(cx, 6, path, name, REG_DWORD, data, 4).unwrap(),
            NtStatus::INVALID_PARAMETER
        );
    });
}

/// A driver that reads a table of values, directly and by routine; its entry returns a sum of what it saw.
const READS: &str = r#"
    typedef unsigned short WCHAR;
    typedef int (*ROUTINE)(WCHAR *, unsigned, void *, unsigned, void *, void *);
    struct Line { ROUTINE Routine; unsigned Flags; WCHAR *Name; void *Context; unsigned Type; void *Default; unsigned Length; };
    struct String { unsigned short Length, Maximum; WCHAR *Buffer; };
    __declspec(dllimport) int RtlQueryRegistryValues(unsigned, WCHAR *, struct Line *, void *, void *);
    static WCHAR seen[64]; static int count;
    static int each(WCHAR *name, unsigned type, void *data, unsigned length, void *context, void *entry) {
        if (type != 1 || context != (void *)0x77 || entry != (void *)0x88) return 0xC0000001;
        seen[count++] = *(WCHAR *)data;
        return 0;
    }
    __declspec(dllexport) unsigned depth, width;
    __declspec(dllexport) struct String label;
    int DriverEntry(void *driver, void *path) {
        unsigned nine = 9;
        struct Line table[] = {
            { 0, 0x20, L"Depth", &depth },
            { 0, 0x20, L"Width", &width, 4, &nine, 4 },
            { 0, 0x20, L"Label", &label },
            { each, 1, L"More", (void *)0x88 },
            { each, 0, L"Names", (void *)0x88 },
            { 0, 2 | 0x24, L"Depth", &depth },
            { 0 } };
        int status = RtlQueryRegistryValues(1, L"Card", table, (void *)0x77, 0);
        return status ? status : depth * 1000000 + width * 10000 + label.Length * 100 + count;
    }"#;

#[test]
fn a_table_of_values_is_read_directly_and_by_routine() {
    machine(|cx| {
        set_number(cx, &card(), "Depth", 3).unwrap();
        set(cx, &card(), "Label", REG_EXPAND_SZ, &sz("%SystemRoot%\\x")).unwrap();
        let names = multi_sz(&["one", "two"]);
        set(cx, &format!("{}\\More", card()), "Names", REG_MULTI_SZ, &names).unwrap();
        cx.nt().boot().unwrap();
        let image = load(cx, driver("reads", READS, &[]));
        let result = call(cx, image.entry.unwrap().address, &[0, 0]);
        // 3, the default 9, 12 characters of C:\WINDOWS\x, and twice two names: all of the subkey, then by name.
        assert_eq!(result, Ok(3_000_000 + 90_000 + 2_400 + 4), "{:?}", cx.nt().verdict());
    });
}

#[test]
fn what_is_required_and_not_there_fails_the_table() {
    machine(|cx| {
        set_text(cx, &card(), "Label", "x").unwrap();
        cx.nt().boot().unwrap();
        let image = load(cx, driver("reads", READS, &[]));
        let result = call(cx, image.entry.unwrap().address, &[0, 0]).unwrap();
        assert_eq!(result & 0xFFFF_FFFF, u64::from(NtStatus::OBJECT_NAME_NOT_FOUND.0));
    });
}

#[test]
fn a_direct_text_that_does_not_fit_is_refused_and_nothing_is_lost() {
    machine(|cx| {
        set_text(cx, &card(), "Label", "longer than that").unwrap();
        let label = room(cx, 8);
        let mut line = vec![0_u8; 0x38 * 2];
        line[8] = 0x20;
        line[0x10..0x18].copy_from_slice(&wide(cx, "Label").to_le_bytes());
        line[0x18..0x20].copy_from_slice(&label.address.to_le_bytes());
        let table = DriverPtr::new(bytes(cx, &line));
        let path = wide(cx, "Card");
        let status = super::table::query_registry_values(cx, 1, path, table, 0, 0).unwrap();
        assert_eq!(status, NtStatus::BUFFER_TOO_SMALL);
        assert_eq!(cx.read(label + UNICODE_STRING::Length).unwrap(), 0);
        cx.write(label + UNICODE_STRING::Buffer, DriverPtr::NULL).unwrap();
        let status = super::table::query_registry_values(cx, 1, path, table, 0, 0).unwrap();
        assert_eq!(status, NtStatus::SUCCESS, "without a buffer it is given one");
        assert_eq!(text_in(cx, label), "longer than that");
        assert_eq!(text(cx, &card(), "Label").as_deref(), Some("longer than that"));
    });
}
