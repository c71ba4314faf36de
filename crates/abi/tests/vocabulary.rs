//! What the kernel and drivers do with the vocabulary: walk from field to object and back, read codes, judge statuses.

use abi::{
    DriverPtr, FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, FILE_READ_ACCESS, FILE_WRITE_ACCESS, GUID,
    GUID_BUS_TYPE_PCI, IO_STATUS_BLOCK, IRP, IRP_MJ_PNP, LIST_ENTRY, METHOD_BUFFERED, METHOD_NEITHER,
    NtStatus, access_from_ctl_code, bug_check_name, ctl_code, device_type_from_ctl_code,
    method_from_ctl_code,
};

#[test]
fn a_list_entry_leads_back_to_its_irp() {
    let irp = DriverPtr::<IRP>::new(0x1_0000_0000);
    let entry: DriverPtr<LIST_ENTRY> = irp + IRP::Tail_Overlay_ListEntry;
    assert_eq!(entry.address, 0x1_0000_00a8);
    assert_eq!(entry.container(IRP::Tail_Overlay_ListEntry), irp);
}

#[test]
fn a_field_of_a_field_is_where_both_offsets_say() {
    let irp = DriverPtr::<IRP>::new(0x1000);
    assert_eq!((irp + IRP::IoStatus + IO_STATUS_BLOCK::Information).address, 0x1038);
}

#[test]
fn the_dispatch_table_has_a_slot_for_every_major_function() {
    let driver = DriverPtr::<abi::DRIVER_OBJECT>::new(0x1000);
    let slot = (driver + abi::DRIVER_OBJECT::MajorFunction).element(u64::from(IRP_MJ_PNP));
    assert_eq!(slot.address, 0x1000 + size_of::<abi::DRIVER_OBJECT>() as u64 - 8);
}

#[test]
fn a_driver_reaches_a_field_by_raw_pointer() {
    let mut block = IO_STATUS_BLOCK::zeroed();
    let information = IO_STATUS_BLOCK::Information.of(&raw mut block);
    assert_eq!(information.addr() - (&raw const block).addr(), 8);
}

#[test]
fn a_control_code_comes_apart_into_what_it_was_made_of() {
    assert_eq!(ctl_code(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS), 0x0022_2000);
    let code = ctl_code(FILE_DEVICE_UNKNOWN, 0x801, METHOD_NEITHER, FILE_READ_ACCESS | FILE_WRITE_ACCESS);
    assert_eq!(code, 0x0022_e007);
    assert_eq!(device_type_from_ctl_code(code), FILE_DEVICE_UNKNOWN);
    assert_eq!(method_from_ctl_code(code), METHOD_NEITHER);
    assert_eq!(access_from_ctl_code(code), FILE_READ_ACCESS | FILE_WRITE_ACCESS);
}

#[test]
fn pending_is_a_success_and_an_overflowed_buffer_only_a_warning() {
    assert!(NtStatus::PENDING.is_success());
    assert!(NtStatus::OBJECT_NAME_EXISTS.is_success() && NtStatus::OBJECT_NAME_EXISTS.is_information());
    assert!(NtStatus::BUFFER_OVERFLOW.is_warning() && !NtStatus::BUFFER_OVERFLOW.is_success());
    assert!(NtStatus::BUFFER_TOO_SMALL.is_error());
}

#[test]
fn statuses_and_bug_checks_speak_by_name() {
    assert_eq!(NtStatus::INSUFFICIENT_RESOURCES.to_string(), "STATUS_INSUFFICIENT_RESOURCES");
    assert_eq!(NtStatus(0xc0de_0001).to_string(), "NTSTATUS 0xc0de0001");
    assert_eq!(bug_check_name(0xd1), Some("DRIVER_IRQL_NOT_LESS_OR_EQUAL"));
    assert_eq!(bug_check_name(0xdead), None);
}

#[test]
fn an_identifier_is_written_as_inf_files_write_it() {
    assert_eq!(GUID_BUS_TYPE_PCI.to_string(), "{c8ebdfb0-b510-11d0-80e5-00a0c92542e3}");
    assert_eq!(GUID::zeroed().to_string(), "{00000000-0000-0000-0000-000000000000}");
}
