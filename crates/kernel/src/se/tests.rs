//! Security values and their bytes.

use abi::{ACCESS_ALLOWED_ACE_TYPE, SE_DACL_PRESENT, SE_SELF_RELATIVE};

use super::acl::{Acl, Entry};
use super::descriptor::Descriptor;
use super::sid::Sid;

#[test]
fn an_identifier_is_written_as_its_page_says() {
    assert_eq!(Sid::new(281_736, &[12, 72, 9, 110]).to_string(), "S-1-281736-12-72-9-110");
    assert_eq!(Sid::new(173_495_281_736, &[12, 72, 9, 110]).to_string(), "S-1-0x28651FE848-12-72-9-110");
}

#[test]
fn an_identifier_comes_back_from_its_bytes() {
    let sid = Sid::new(5, &[32, 544]);
    assert_eq!(sid.bytes(), [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0]);
    assert_eq!(Sid::from_bytes(&sid.bytes()), Some(sid.clone()));
    assert_eq!(Sid::from_bytes(&sid.bytes()[..15]), None);
    assert_eq!(Sid::from_bytes(&[2, 0, 0, 0, 0, 0, 0, 5]), None);
}

#[test]
fn a_self_relative_descriptor_has_its_parts_behind_it() {
    let system = Sid::new(5, &[18]);
    let dacl = Acl::new(vec![Entry::new(ACCESS_ALLOWED_ACE_TYPE, 0, 0x1F_01FF, &system)]);
    let descriptor =
        Descriptor { owner: Some(system), dacl: Some(Some(dacl.clone())), ..Descriptor::default() };
    let bytes = descriptor.bytes();
    assert_eq!(bytes.len(), 0x14 + 8 + 20 + 12);
    assert_eq!(bytes[..4], [1, 0, SE_DACL_PRESENT.to_le_bytes()[0], SE_SELF_RELATIVE.to_le_bytes()[1]]);
    assert_eq!(bytes[4..8], [0x14 + 28, 0, 0, 0]);
    assert_eq!(bytes[0x10..0x14], [0x14, 0, 0, 0]);
    assert_eq!(bytes[0x14..0x14 + 28], dacl.bytes());
}
