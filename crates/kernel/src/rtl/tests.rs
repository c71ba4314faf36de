//! Stories of the run-time library over a machine's memory.

use abi::{DriverPtr, NtStatus, OSVERSIONINFOEXW, RTL_BITMAP, STRING, TIME_FIELDS, UNICODE_STRING};
use engine::Leave;
use engine::windows::PAGE;

use super::{assert, bitmap, convert, crt, guid, memory, print, random, string, time, version};
use crate::mm::rig::{
    ansi, arguments, bytes, machine, machine_with, message, room, text, unicode, verdict, wide,
};
use crate::mm::{pool_exports, user};
use crate::nt::WindowsVersion;
use crate::{Cx, Settings};

#[test]
fn overlapping_ranges_are_moved_whole_in_both_directions() {
    machine(|cx| {
        let length = 0x2_8000;
        let pattern: Vec<u8> =
            (0..length).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for (to, from) in [(0, 100), (100, 0), (0, 0x1_2345)] {
            let block = bytes(cx, &vec![0; 0x2_8000 + 0x2_0000]);
            cx.write_bytes(block + from, &pattern).unwrap();
            assert_eq!(memory::copy(cx, block + to, block + from, length.into()).unwrap(), block + to);
            assert!(cx.read_bytes(block + to, length.into()).unwrap() == pattern);
        }
    });
}

#[test]
fn comparing_stops_at_the_difference_and_touches_nothing_behind_it() {
    machine(|cx| {
        let one = user::allocate_at_end(cx, 1, 8).unwrap();
        cx.write_bytes(one, b"abcdefgh").unwrap();
        let two = bytes(cx, b"abcdXfghijklmnop");
        assert_eq!(memory::compare(cx, one, two, 8).unwrap(), 4);
        assert_eq!(memory::order(cx, one, two, 8).unwrap(), 1);
        assert_eq!(memory::find(cx, two, i32::from(b'X'), 16).unwrap(), two + 4);
        assert_eq!(memory::set(cx, one, 0x5A, 8).unwrap(), one);
        assert_eq!(memory::copy(cx, two, one, 9), Err(Leave::Stop), "one byte too many");
        assert_eq!(verdict(cx), Some("bad-pointer"));
    });
}

#[test]
fn memory_routines_take_time() {
    machine(|cx| {
        let block = bytes(cx, &[0; 4096]);
        let before = cx.engine().now();
        memory::set(cx, block, 1, 4096).unwrap();
        assert_eq!(cx.engine().now() - before, 8 + 512);
    });
}

#[test]
fn a_text_is_read_to_its_zero_and_not_into_the_next_page() {
    machine(|cx| {
        let at = user::allocate_at_end(cx, 1, 4).unwrap();
        cx.write_bytes(at, b"end\0").unwrap();
        assert_eq!(crt::length::<1>(cx, at).unwrap(), 3);
        cx.write_bytes(at + 3, b"!").unwrap();
        assert_eq!(crt::length_n::<1>(cx, at, 4).unwrap(), 4);
        assert_eq!(crt::length::<1>(cx, at), Err(Leave::Stop), "no zero before the page ends");
    });
}

#[test]
fn narrow_and_wide_texts_behave_alike() {
    machine(|cx| {
        let (narrow, wide) = (ansi(cx, "C:\\Dir\\file.Sys"), wide(cx, "C:\\Dir\\file.Sys"));
        assert_eq!(crt::find_last::<1>(cx, narrow, i32::from(b'\\')).unwrap(), narrow + 6);
        assert_eq!(crt::find_last::<2>(cx, wide, i32::from(b'\\')).unwrap(), wide + 12);
        assert_eq!(crt::find::<1>(cx, narrow, 0).unwrap(), narrow + 15, "the zero belongs to the text");
        assert_eq!(crt::find::<2>(cx, wide, i32::from(b'?')).unwrap(), 0);
        let (part, upper) = (ansi(cx, "file"), ansi(cx, "c:\\DIR\\FILE.SYS"));
        assert_eq!(crt::find_text::<1>(cx, narrow, part).unwrap(), narrow + 7);
        assert_eq!(crt::compare_case::<1>(cx, narrow, upper).unwrap(), 0);
        assert_eq!(crt::compare::<1>(cx, narrow, upper).unwrap(), -1);
        assert_eq!(crt::compare_n::<1>(cx, part, narrow, 0).unwrap(), 0);
        let buffer = bytes(cx, &[b'x'; 64]);
        crt::copy::<1>(cx, buffer, part).unwrap();
        crt::append::<1>(cx, buffer, part).unwrap();
        crt::make_upper::<1>(cx, buffer).unwrap();
        assert_eq!(cx.read_bytes(buffer, 10).unwrap(), b"FILEFILE\0x");
        crt::copy_n::<1>(cx, buffer, part, 6).unwrap();
        assert_eq!(cx.read_bytes(buffer, 8).unwrap(), b"file\0\0LE");
        let number = ansi(cx, "  -12x");
        assert_eq!(crt::to_integer::<1>(cx, number).unwrap(), -12);
    });
}

#[test]
fn printing_cuts_pads_and_ends_as_each_routine_promises() {
    machine(|cx| {
        let format = ansi(cx, "%s=%08X");
        let name = ansi(cx, "intcsr");
        let buffer = bytes(cx, &[b'.'; 32]);
        let args = arguments(cx, &[buffer, format, name, 0x4C]);
        assert_eq!(print::sprintf::<1>(cx, &args).unwrap(), 15);
        assert_eq!(cx.read_bytes(buffer, 17).unwrap(), b"intcsr=0000004C\0.");

        let args = arguments(cx, &[buffer, 6, format, name, 0x4C]);
        assert_eq!(print::snprintf::<1>(cx, &args).unwrap(), -1, "cut");
        assert_eq!(cx.read_bytes(buffer, 8).unwrap(), b"intcsr=0", "six characters and no zero");
        let args = arguments(cx, &[buffer, 15, format, name, 1]);
        assert_eq!(print::snprintf::<1>(cx, &args).unwrap(), 15, "it just fits");
        assert_eq!(cx.read_bytes(buffer + 14, 2).unwrap(), b"1\0", "the zero is the old one");

        let args = arguments(cx, &[buffer, 15, format, name, 1]);
        assert_eq!(print::sprintf_s::<1>(cx, &args).unwrap(), -1);
        assert_eq!(cx.read_bytes(buffer, 1).unwrap(), b"\0", "too long is empty");
        let args = arguments(cx, &[buffer, 8, u64::MAX, format, name, 1]);
        assert_eq!(print::snprintf_s::<1>(cx, &args).unwrap(), -1);
        assert_eq!(cx.read_bytes(buffer, 8).unwrap(), b"intcsr=\0", "_TRUNCATE always ends with a zero");
    });
}

#[test]
fn a_wide_text_prints_from_a_list() {
    machine(|cx| {
        let (format, string) = (wide(cx, "<%wZ> %d"), unicode(cx, "\\Device\\X"));
        let list = arguments(cx, &[string.address, 7]).slot(0);
        let buffer = bytes(cx, &[0; 64]);
        assert_eq!(print::vsnprintf::<2>(cx, buffer, 32, format, list).unwrap(), 13);
        assert_eq!(String::from_utf16_lossy(&crt::read::<2>(cx, buffer, 32).unwrap()), "<\\Device\\X> 7");
    });
}

#[test]
fn a_string_that_is_printed_from_nowhere_is_a_verdict() {
    machine(|cx| {
        let (format, buffer) = (ansi(cx, "%s"), bytes(cx, &[0; 32]));
        let args = arguments(cx, &[buffer, format, 0xFFFF_F6FB_7DBE_D000]);
        assert_eq!(print::sprintf::<1>(cx, &args), Err(Leave::Stop));
        assert_eq!(verdict(cx), Some("bad-pointer"));
    });
}

#[test]
fn a_counted_string_grows_while_there_is_room() {
    machine(|cx| {
        let path = room(cx, 40);
        let device = unicode(cx, "\\Device\\");
        string::copy_unicode(cx, path, device).unwrap();
        let name = wide(cx, "Card0");
        assert_eq!(string::append_unicode(cx, path, name).unwrap(), NtStatus::SUCCESS);
        assert_eq!(text(cx, path), "\\Device\\Card0");
        assert_eq!(string::append_string(cx, path, device).unwrap(), NtStatus::BUFFER_TOO_SMALL);
        assert_eq!(text(cx, path), "\\Device\\Card0", "nothing was done");
        assert_eq!(cx.read(path + UNICODE_STRING::MaximumLength).unwrap(), 40);
        string::copy_unicode(cx, path, DriverPtr::NULL).unwrap();
        assert_eq!(cx.read(path + UNICODE_STRING::Length).unwrap(), 0);
    });
}

#[test]
fn names_compare_as_object_names_do() {
    machine(|cx| {
        let (one, two, other) =
            (unicode(cx, "\\Device\\Ä"), unicode(cx, "\\DEVICE\\ä"), unicode(cx, "\\Dev"));
        assert!(string::equal_unicode(cx, one, two, true).unwrap());
        assert!(!string::equal_unicode(cx, one, two, false).unwrap());
        assert!(string::prefix_unicode(cx, other, two, true).unwrap());
        assert!(string::compare_unicode(cx, other, one, false).unwrap() < 0);
    });
}

#[test]
fn a_null_source_makes_an_empty_string() {
    machine(|cx| {
        let string = room(cx, 8);
        string::init_unicode(cx, string, 0).unwrap();
        assert!(cx.read(string + UNICODE_STRING::Buffer).unwrap().is_null());
        assert_eq!(cx.read(string + UNICODE_STRING::MaximumLength).unwrap(), 0);
    });
}

#[test]
fn ansi_and_unicode_convert_with_a_zero_and_with_or_without_a_buffer() {
    machine(|cx| {
        let source = unicode(cx, "naïve €");
        let narrow = room(cx, 0);
        assert_eq!(convert::unicode_to_ansi(cx, narrow, source, true).unwrap(), NtStatus::SUCCESS);
        assert_eq!(string::read_ansi(cx, narrow.cast::<STRING>()).unwrap(), b"na\xEFve \x80");
        let back = room(cx, 14);
        let status = convert::ansi_to_unicode(cx, back, narrow.cast(), false).unwrap();
        assert_eq!(status, NtStatus::BUFFER_OVERFLOW, "no room for the zero");
        let back = room(cx, 16);
        assert_eq!(convert::ansi_to_unicode(cx, back, narrow.cast(), false).unwrap(), NtStatus::SUCCESS);
        assert_eq!(text(cx, back), "naïve €");
        string::free(cx, narrow).unwrap();
        assert!(cx.read(narrow + UNICODE_STRING::Buffer).unwrap().is_null());
        string::free(cx, narrow).unwrap();
        assert_eq!(verdict(cx), None, "freeing an empty string does nothing");
    });
}

#[test]
fn numbers_become_text_and_text_numbers() {
    machine(|cx| {
        let string = room(cx, 20);
        assert_eq!(convert::integer_to_unicode(cx, 0xBEEF, 16, string).unwrap(), NtStatus::SUCCESS);
        assert_eq!(text(cx, string), "BEEF");
        let value = DriverPtr::new(bytes(cx, &[0; 4]));
        assert_eq!(convert::unicode_to_integer(cx, string, 16, value).unwrap(), NtStatus::SUCCESS);
        assert_eq!(cx.read(value).unwrap(), 0xBEEF);
        assert_eq!(convert::integer_to_unicode(cx, 1, 7, string).unwrap(), NtStatus::INVALID_PARAMETER);
        let small = room(cx, 4);
        assert_eq!(convert::integer_to_unicode(cx, 123, 10, small).unwrap(), NtStatus::BUFFER_OVERFLOW);
    });
}

fn info(cx: &mut Cx<'_>) -> DriverPtr<OSVERSIONINFOEXW> {
    let info: DriverPtr<OSVERSIONINFOEXW> = DriverPtr::new(bytes(cx, &[0; 0x11C]));
    cx.write(info + OSVERSIONINFOEXW::dwOSVersionInfoSize, 0x11C).unwrap();
    assert_eq!(version::get_version(cx, info), Ok(NtStatus::SUCCESS));
    info
}

#[test]
fn the_version_is_the_one_the_machine_was_asked_to_be() {
    let settings = Settings { windows: WindowsVersion::Win7, ..Settings::default() };
    machine_with(&settings, Vec::new(), |cx| {
        crate::ldr::boot(cx).unwrap();
        let info = info(cx);
        assert_eq!(cx.read(info + OSVERSIONINFOEXW::dwBuildNumber).unwrap(), 7601);
        let pack = (info + OSVERSIONINFOEXW::szCSDVersion).address;
        assert_eq!(String::from_utf16_lossy(&crt::read::<2>(cx, pack, 128).unwrap()), "Service Pack 1");
        let name = room(cx, 0);
        version::ps_get_version(cx, DriverPtr::NULL, DriverPtr::NULL, DriverPtr::NULL, name).unwrap();
        assert_eq!(text(cx, name), "Service Pack 1");
    });
}

#[test]
fn at_least_windows_8_holds_on_11_and_not_on_7() {
    const GREATER_EQUAL: u8 = 3;
    for (windows, holds) in [(WindowsVersion::Win7, false), (WindowsVersion::Win11, true)] {
        machine_with(&Settings { windows, ..Settings::default() }, Vec::new(), |cx| {
            let info = info(cx);
            cx.write(info + OSVERSIONINFOEXW::dwMajorVersion, 6).unwrap();
            cx.write(info + OSVERSIONINFOEXW::dwMinorVersion, 2).unwrap();
            let mask = version::set_condition_mask(cx, 0, 2, GREATER_EQUAL).unwrap();
            let mask = version::set_condition_mask(cx, mask, 1, GREATER_EQUAL).unwrap();
            let status = version::verify_version_info(cx, info, 3, mask).unwrap();
            assert_eq!(status == NtStatus::SUCCESS, holds, "{windows:?}: {status}");
        });
    }
}

#[test]
fn an_identifier_survives_its_text_and_new_ones_repeat_from_run_to_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        machine(|cx| {
            let id = DriverPtr::new(bytes(cx, &[0; 16]));
            assert_eq!(guid::create(cx, id), Ok(NtStatus::SUCCESS));
            let string = room(cx, 0);
            assert_eq!(guid::to_string(cx, id, string), Ok(NtStatus::SUCCESS));
            let copy = DriverPtr::new(bytes(cx, &[0; 16]));
            assert_eq!(guid::from_string(cx, string, copy).unwrap(), NtStatus::SUCCESS);
            assert_eq!(guid::read(cx, id).unwrap(), guid::read(cx, copy).unwrap());
            let fields = guid::read(cx, id).unwrap();
            engine::outside(|| runs.push(fields));
            string::free(cx, string).unwrap();
        });
    }
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn a_time_is_taken_apart_and_put_together() {
    machine(|cx| {
        // 2026-01-01 00:00 UTC, a Thursday, and 1.5 seconds.
        let at: DriverPtr<i64> = DriverPtr::new(bytes(cx, &[0; 8]));
        time::from_1970(cx, 1_767_225_600, at).unwrap();
        let start = cx.read(at).unwrap();
        cx.write(at, start + 15_000_000).unwrap();
        let fields: DriverPtr<TIME_FIELDS> = DriverPtr::new(bytes(cx, &[0; 16]));
        time::to_fields(cx, at, fields).unwrap();
        let read: Vec<i16> = (0..8).map(|n| cx.read(fields.cast::<i16>().index(n)).unwrap()).collect();
        assert_eq!(read, [2026, 1, 1, 0, 0, 1, 500, 4]);
        cx.write(at, 0).unwrap();
        assert!(time::from_fields(cx, fields, at).unwrap());
        assert_eq!(cx.read(at).unwrap(), start + 15_000_000);
        cx.write(fields + TIME_FIELDS::Month, 2).unwrap();
        cx.write(fields + TIME_FIELDS::Day, 29).unwrap();
        assert!(!time::from_fields(cx, fields, at).unwrap(), "2026 has no such day");
        let seconds = DriverPtr::new(bytes(cx, &[0; 4]));
        assert!(time::to_1970(cx, at, seconds).unwrap());
        assert_eq!(cx.read(seconds).unwrap(), 1_767_225_601);
    });
}

#[test]
fn random_numbers_follow_from_the_seed() {
    machine(|cx| {
        let seed = DriverPtr::new(bytes(cx, &7_u32.to_le_bytes()));
        let first: Vec<u32> = (0..50).map(|_| random::random(cx, seed).unwrap()).collect();
        cx.write(seed, 7).unwrap();
        let second: Vec<u32> = (0..50).map(|_| random::random(cx, seed).unwrap()).collect();
        assert_eq!(first, second);
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        assert!(different.len() == 50 && first.iter().all(|&number| number < 0x7FFF_FFFF));
    });
}

#[test]
fn a_failed_assertion_tells_what_and_where() {
    machine(|cx| {
        let (what, file) = (ansi(cx, "Irp != NULL"), ansi(cx, "card.c"));
        assert_eq!(assert::failed(cx, what, file, 42, 0), Err(Leave::Stop));
        assert_eq!(verdict(cx), Some("assertion-failed"));
        assert!(message(cx).ends_with("Irp != NULL (card.c, line 42)"), "{}", message(cx));
    });
}

#[test]
fn clear_bits_are_found_set_and_counted() {
    machine(|cx| {
        let map: DriverPtr<RTL_BITMAP> = DriverPtr::new(bytes(cx, &[0; 16]));
        let buffer = DriverPtr::new(bytes(cx, &[0; 8]));
        bitmap::initialize(cx, map, buffer, 40).unwrap();
        assert_eq!(bitmap::find_clear_and_set(cx, map, 10, 0).unwrap(), 0);
        assert_eq!(bitmap::find_clear_and_set(cx, map, 10, 0).unwrap(), 10);
        assert_eq!(bitmap::find_clear(cx, map, 21, 0).unwrap(), u32::MAX, "20 are left");
        bitmap::clear(cx, map, 5, 3).unwrap();
        assert_eq!(bitmap::find_clear(cx, map, 3, 16).unwrap(), 20, "from the hint on");
        assert_eq!(bitmap::count_set(cx, map).unwrap(), 17);
        assert!(bitmap::are_clear(cx, map, 5, 3).unwrap() && bitmap::test(cx, map, 8).unwrap());
        assert!(!bitmap::are_clear(cx, map, 39, 2).unwrap(), "beyond the end");
        assert_eq!(cx.read(buffer.index(1)).unwrap(), 0_u32);
    });
}

#[test]
fn a_block_of_a_page_is_a_page() {
    machine(|cx| {
        let block = pool_exports::allocate_pool2(cx, abi::POOL_FLAG_NON_PAGED, PAGE, 0x6C74_5252).unwrap();
        memory::zero(cx, block.address, PAGE).unwrap();
        assert_eq!(memory::zero(cx, block.address, PAGE + 1), Err(Leave::Stop));
    });
}
