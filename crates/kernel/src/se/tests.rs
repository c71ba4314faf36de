//! Security values and their bytes.

use abi::{ACCESS_ALLOWED_ACE_TYPE, SE_DACL_PRESENT, SE_SELF_RELATIVE};

use super::acl::{Acl, Entry};
use super::descriptor::Descriptor;
use super::sddl;
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

#[test]
fn a_descriptor_is_read_from_its_text() {
    let read = sddl::parse("O:BAG:SYD:P(A;;GA;;;SY)(D;OICI;0x3;;;S-1-5-32-545)(A;;GRGWSD;;;WD)").unwrap();
    assert_eq!(read.owner, Some(Sid::new(5, &[32, 544])));
    assert_eq!(read.group, Some(Sid::new(5, &[18])));
    assert_eq!(read.control, SE_SELF_RELATIVE | abi::SE_DACL_PROTECTED);
    let entries = read.dacl.unwrap().unwrap().entries;
    let expected = [
        Entry::new(ACCESS_ALLOWED_ACE_TYPE, 0, 0x1000_0000, &Sid::new(5, &[18])),
        Entry::new(abi::ACCESS_DENIED_ACE_TYPE, 3, 3, &Sid::new(5, &[32, 545])),
        Entry::new(ACCESS_ALLOWED_ACE_TYPE, 0, 0xC001_0000, &Sid::new(1, &[0])),
    ];
    assert_eq!(entries, expected);
    assert!(read.sacl.is_none());
}

#[test]
fn a_list_without_entries_and_a_null_one_are_told_apart() {
    assert_eq!(sddl::parse("D:P").unwrap().dacl, Some(Some(Acl::new(Vec::new()))));
    assert_eq!(sddl::parse("D:NO_ACCESS_CONTROL").unwrap().dacl, Some(None));
    assert_eq!(sddl::parse("G:SYS:AI(AU;SAFA;FA;;;WD)").unwrap().dacl, None);
    assert_eq!(sddl::parse("D:S:").unwrap().sacl, Some(Some(Acl::new(Vec::new()))));
}

#[test]
fn what_is_no_descriptor_says_why() {
    for (text, why) in [
        ("P(A;;GA;;;SY)", "no part"),
        ("D:P(A;;GA;;;XX)", "`XX` names no account"),
        ("D:P(A;;QQ;;;SY)", "rights"),
        ("D:P(Z;;GA;;;SY)", "its type is none"),
        ("D:P(A;;GA;;SY)", "is no entry"),
        ("D:P(A;;GA;;;SY", "no `)`"),
        ("D:Q(A;;GA;;;SY)", "no flags of a list"),
    ] {
        let error = sddl::parse(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}
