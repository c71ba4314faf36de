//! Registry files, read and written: each form of a line, each mistake, and that what is written is read back.

use kernel::cm::registry::{KeyId, Registry};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const SERVICES: &str = r"\Registry\Machine\System\ControlSet001\Services";

fn five(body: &str) -> String {
    format!("Windows Registry Editor Version 5.00\n\n{body}")
}

fn read(body: &str) -> RegFile {
    parse("my.reg", five(body).as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// The values that are set, in their order.
fn values(file: RegFile) -> Vec<(String, u32, Vec<u8>)> {
    let set = |action: Action| match action.what {
        What::Set { name, kind, data } => Some((name, kind, data)),
        _ => None,
    };
    file.actions.into_iter().filter_map(set).collect()
}

/// The data of the one value of a body, and its type.
fn data(value: &str) -> (u32, Vec<u8>) {
    let found = values(read(&format!("[HKLM\\Software\\Card]\n{value}\n")));
    assert_eq!(found.len(), 1, "{value}");
    let (_, kind, data) = found.into_iter().next().unwrap();
    (kind, data)
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn keys(body: &str) -> Vec<String> {
    read(body).actions.into_iter().map(|action| action.key).collect()
}

#[test]
fn each_type_of_value_is_read() {
    for (value, kind, bytes) in [
        (r#""a"="text""#, 1, utf16("text\0")),
        (r#""a"="C:\\drivers \"x\"; no comment""#, 1, utf16("C:\\drivers \"x\"; no comment\0")),
        (r#""a"="""#, 1, utf16("\0")),
        ("\"a\"=\"two\r\nlines\"", 1, utf16("two\r\nlines\0")),
        (r#"@="default""#, 1, utf16("default\0")),
        (r#""a"=dword:0000002a"#, 4, vec![0x2a, 0, 0, 0]),
        (r#" "a" = DWORD:2A ; the answer"#, 4, vec![0x2a, 0, 0, 0]),
        (r#""a"=hex:01,2,FF"#, 3, vec![1, 2, 0xff]),
        (r#""a"=hex:"#, 3, vec![]),
        (r#""a"=hex(0):"#, 0, vec![]),
        (r#""a"=hex(1):61,00"#, 1, utf16("a")),
        (r#""a"=hex(2):25,00,00,00"#, 2, utf16("%\0")),
        (r#""a"=hex(4):01,00,00,00"#, 4, vec![1, 0, 0, 0]),
        (r#""a"=hex(5):00,00,00,01"#, 5, vec![0, 0, 0, 1]),
        (r#""a"=hex(6):61,00"#, 6, utf16("a")),
        ("\"a\"=hex(7):61,00,00,00,\\\r\n  62,00,00,00,00,00", 7, utf16("a\0b\0\0")),
        (r#""a"=hex(8):01"#, 8, vec![1]),
        (r#""a"=hex(9):01"#, 9, vec![1]),
        (r#""a"=hex(a):01"#, 10, vec![1]),
        (r#""a"=hex(b):2a,00,00,00,00,00,00,00"#, 11, vec![0x2a, 0, 0, 0, 0, 0, 0, 0]),
        ("\"a\"=hex:\\\n  \\\n 01 , \\\n  02", 3, vec![1, 2]),
        (r#""a"=hex(ffff0012):01"#, 0xffff_0012, vec![1]),
    ] {
        assert_eq!(data(value), (kind, bytes), "{value}");
    }
}

#[test]
fn keys_lie_where_the_kernel_has_them_whatever_their_roots_are_called() {
    assert_eq!(
        keys(
            "[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\a]\n[hklm\\System\\ControlSet001\\Services]\n[HKEY_USERS\\S-1]\n[HKU]\n\
             [HKEY_CURRENT_USER\\Software]\n[HKCR\\.reg]\n[HKCC\\x]\n[HKLM\\Software\\a]b]\n[HKLM\\Software\\c] ; ]\n"
        ),
        [
            r"\Registry\Machine\SYSTEM\ControlSet001\Services\a",
            r"\Registry\Machine\System\ControlSet001\Services",
            r"\Registry\User\S-1",
            r"\Registry\User",
            r"\Registry\User\.Default\Software",
            r"\Registry\Machine\Software\Classes\.reg",
            r"\Registry\Machine\System\ControlSet001\Hardware Profiles\Current\x",
            r"\Registry\Machine\Software\a]b",
            r"\Registry\Machine\Software\c",
        ]
    );
    assert!(is_within(&format!(r"{SERVICES}\a\B"), r"\Registry\Machine\System\CurrentControlSet\Services\A"));
    assert!(!is_within(&format!(r"{SERVICES}\ab"), &format!(r"{SERVICES}\a")));
    assert!(is_kept(&format!(r"{SERVICES}\a\enum\x")) && !is_kept(&format!(r"{SERVICES}\enum")));
    assert!(is_kept(r"\Registry\Machine\System\ControlSet001\Enum\PCI\a\b\Control"));
}

#[test]
fn keys_and_values_are_deleted_in_the_order_of_the_file() {
    let file = read("; first\n[-HKLM\\Software\\Card]\n\n[HKLM\\Software\\Card]\n\"a\"=-\n@=-\n");
    let what: Vec<What> = file.actions.into_iter().map(|action| action.what).collect();
    let deleted = |name: &str| What::DeleteValue { name: name.to_owned() };
    assert_eq!(what, [What::Delete, What::Make, deleted("a"), deleted("")]);
}

#[test]
fn the_same_text_in_each_encoding_is_the_same() {
    let text = five("[HKLM\\Software\\Caf\u{e9}]\r\n\"\u{20ac}\"=\"\u{1f600}\"\r\n");
    let all = [
        text.clone().into_bytes(),
        [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat(),
        encode(&text),
        [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect(),
    ];
    let read = all.map(|bytes| parse("my.reg", &bytes).unwrap());
    assert!(read.iter().all(|file| *file == read[0]), "{read:#?}");
}

#[test]
fn a_file_of_version_4_is_in_the_ansi_code_page_with_the_bytes_of_its_texts() {
    let bytes = b"REGEDIT4\r\n[HKEY_LOCAL_MACHINE\\Software]\r\n\"\xe9\"=\"\xc3\xa9\"\r\n\"b\"=hex(7):61,00,80,00,00\r\n\"c\"=hex(2):25,00\r\n\"d\"=hex:80\r\n";
    let file = parse("old.reg", bytes).unwrap();
    // A record holds the text, and gives it back.
    assert_eq!(parse_text("old.reg", file.text.clone()).unwrap(), file);
    let expected = [
        ("\u{e9}", 1, utf16("\u{c3}\u{a9}\0")),
        ("b", 7, utf16("a\0\u{20ac}\0\0")),
        ("c", 2, utf16("%\0")),
        ("d", 3, vec![0x80]),
    ];
    assert_eq!(values(file), expected.map(|(name, kind, data)| (name.to_owned(), kind, data)));
}

#[test]
fn each_mistake_is_told_at_its_place_with_what_was_meant() {
    let key = "[HKLM\\Software\\Card]\n";
    for (body, says) in [
        (
            r"[HKEY_LOCAL_MASCHINE\Software]",
            "3:2: `HKEY_LOCAL_MASCHINE` is no root of the registry; did you mean HKEY_LOCAL_MACHINE?",
        ),
        (
            "[Software]",
            "3:2: `Software` is no root of the registry; a key begins with one of HKEY_LOCAL_MACHINE, HKEY_USERS, HKEY_CURRENT_USER, \
             HKEY_CLASSES_ROOT, HKEY_CURRENT_CONFIG",
        ),
        (
            r"[HKLM\\Software]",
            "3:6: a key's name is missing behind this backslash; between brackets each backslash stands once, and none at the end",
        ),
        (
            r"[HKLM\Software",
            r"3:1: this key's `[` has no `]` at the end of the line; write [HKEY_LOCAL_MACHINE\…]",
        ),
        (
            r"[-HKLM\System\CurrentControlSet]",
            "3:1: this key is the system's own and cannot be deleted; name one below it",
        ),
        (r"[-HKLM\System\CurrentControlSet\Enum\PCI\a\b]", "3:1: this key is the system's own"),
        (
            &format!("[HKLM{}]", "\\a".repeat(512)),
            "3:1029: this key lies more than 512 levels deep, which no key does; shorten its path",
        ),
        (r#""a"="b""#, "3:1: this value stands before the first [key]; write its key above it"),
        (
            "[-HKLM\\Software\\Card]\n\"a\"=\"b\"",
            "4:1: this value stands under a key that is deleted; write [key] above it, without the `-`",
        ),
        (
            &format!("{key}Limit=dword:7"),
            "4:1: `Limit=dword:7` stands here, which is no [key], no \"name\"=value and no comment (;); a value's name stands in quotes",
        ),
        (
            &format!("{key}\"a\" dword:7"),
            "4:5: `dword:7` stands here, where a `=` belongs, behind the value's name",
        ),
        (
            &format!("{key}\"a\"=dwrod:7"),
            "4:5: `dwrod:7` stands here, which is no data of a value; did you mean `dword:`?",
        ),
        (
            &format!("{key}\"a\"=text"),
            "4:5: `text` stands here, which is no data of a value; data is \"text\", dword:0000002a, hex:01,02, hex(7):",
        ),
        (
            &format!("{key}\"a\"=dword:0x2a"),
            "4:11: `0x2a` stands here, where one to eight hexadecimal digits belong, without 0x: dword:0000002a",
        ),
        (&format!("{key}\"a\"=dword:123456789"), "4:11: `123456789` stands here, where one to eight"),
        (
            &format!("{key}\"a\"=hex:01,zz"),
            "4:12: `zz` stands here, where a byte belongs: two hexadecimal digits, as in hex:01,2a",
        ),
        (&format!("{key}\"a\"=hex:012"), "4:9: `012` stands here, where a byte belongs"),
        (&format!("{key}\"a\"=hex:01,"), "4:12: the line ends here, where a byte belongs"),
        (&format!("{key}\"a\"=hex:01,\\ 02"), "4:12: there is text behind this backslash"),
        (
            &format!("{key}\"a\"=hex:01 02"),
            "4:12: `02` stands here, behind the value's data; put it on a line of its own",
        ),
        (
            &format!("{key}\"a\"=hex(x):01"),
            "4:8: `(x):01` stands here, where a type belongs: its number in hexadecimal",
        ),
        (&format!("{key}\"a\"=hex(7)01"), "4:11: `01` stands here, where a `:` belongs, behind the type"),
        (
            &format!("{key}\"a\"=\"C:\\drivers\""),
            "4:8: `d` stands behind this backslash; in a string a backslash is written `\\\\`, and a quote `\\\"`",
        ),
        (
            &format!("{key}\"a\"=\"b"),
            "4:5: the quote that begins here is not closed; put a `\"` where the string ends",
        ),
        (
            &format!("{key}\"a\"=\"b\n\"c\"=dword:1\n"),
            "4:5: this string does not end on its line, nor with one below; put a `\"` where it ends",
        ),
        (
            &format!("{key}\"a=dword:1\n\"b\"=dword:1\n"),
            "4:1: the name that begins here does not end on its line",
        ),
    ] {
        let message = parse("my.reg", five(body).as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("my.reg:{says}")), "{body}\n  {message}\n  {says}");
    }
    let first = |bytes: &[u8]| parse("my.reg", bytes).unwrap_err().to_string();
    assert_eq!(
        first(b"Windows Registry Edtior Version 5.00\n"),
        "my.reg:1:1: the first line is neither `Windows Registry Editor Version 5.00` nor `REGEDIT4`; did you mean `Windows Registry Editor Version 5.00`?"
    );
    assert!(first(b"[Version]\n").ends_with("; is this a registry file?"));
    assert_eq!(first(b""), "my.reg: the file is empty");
    assert!(first(b"W\0i\0").contains("byte order mark"));
}

#[test]
fn mutilated_files_are_answered_and_never_panic() {
    let text = five(
        "[HKLM\\Software\\a]\r\n@=\"x\\\\y\"\r\n\"n\"=dword:0000002a ; c\r\n\"b\"=hex(7):61,00,\\\r\n  00,00\r\n[-HKU\\x\\y]\r\n",
    );
    let letters: Vec<char> = text.chars().collect();
    for at in 0..letters.len() {
        for with in ['[', ']', '"', ':', ',', '=', ';', '\\', '\n', '\0', '\u{e9}'] {
            let mut changed = letters.clone();
            changed[at] = with;
            if let Err(error) = parse("my.reg", changed.iter().collect::<String>().as_bytes()) {
                assert!(!error.message.is_empty());
            }
        }
        let _ = parse("my.reg", &text.as_bytes()[at..]);
        let _ = parse("my.reg", &text.as_bytes()[..at]);
        let _ = parse("my.reg", &encode(&text)[at..]);
    }
}

// ---- what is written ----

/// Does to a registry what a file says.
fn carry_out(registry: &mut Registry, file: &RegFile) {
    for Action { key, what, .. } in &file.actions {
        let path: Vec<u16> = key.encode_utf16().collect();
        let key = registry.create(None, &path, true, 1).unwrap().0;
        if let What::Set { name, kind, data } = what {
            let name: Vec<u16> = name.encode_utf16().collect();
            registry.set_value(key, &name, *kind, data, 1).unwrap();
        }
    }
}

fn registry() -> (Registry, KeyId) {
    let mut registry = Registry::default();
    let path = |path: &str| path.encode_utf16().collect::<Vec<u16>>();
    let link = path(r"\Registry\Machine\System\CurrentControlSet");
    registry.create(None, &link, true, 1).unwrap();
    let set = registry.create(None, &path(r"\Registry\Machine\System\ControlSet001"), true, 1).unwrap().0;
    registry.link(&link, set).unwrap();
    registry.create(None, &path(r"\Registry\User"), true, 1).unwrap();
    (registry, set)
}

fn set(registry: &mut Registry, key: KeyId, name: &str, kind: u32, data: &[u8]) {
    registry.set_value(key, &name.encode_utf16().collect::<Vec<u16>>(), kind, data, 1).unwrap();
}

/// What of a text lies behind the line of this key, up to the empty one.
fn of_key<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let lines = text.split("\r\n").skip_while(|line| *line != format!("[{key}]")).skip(1);
    lines.take_while(|line| !line.is_empty()).collect()
}

#[test]
fn values_are_written_as_the_registry_editor_does() {
    let (mut registry, key) = registry();
    set(&mut registry, key, "", 1, &utf16("a \"b\" \\\0"));
    set(&mut registry, key, "n\\m", 4, &[0x2a, 0, 0, 0]);
    set(&mut registry, key, "short", 4, &[0x2a, 0]);
    set(&mut registry, key, "two", 1, &utf16("a\0b\0"));
    set(&mut registry, key, "open", 1, &utf16("a"));
    set(&mut registry, key, "odd", 1, &[0x61, 0, 0]);
    set(&mut registry, key, "lone", 1, &[0, 0xd8, 0, 0]);
    set(&mut registry, key, "lines", 1, &utf16("a\n\0"));
    set(&mut registry, key, "none", 1, &[]);
    set(&mut registry, key, "quad", 11, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let bytes: Vec<u8> = (0..60).collect();
    set(&mut registry, key, "DigitalProductId", 3, &bytes);
    let text = write(&registry);
    assert_eq!(
        of_key(&text, r"HKEY_LOCAL_MACHINE\System\CurrentControlSet"),
        [
            r#"@="a \"b\" \\""#,
            r#""n\\m"=dword:0000002a"#,
            r#""short"=hex(4):2a,00"#,
            r#""two"=hex(1):61,00,00,00,62,00,00,00"#,
            r#""open"=hex(1):61,00"#,
            r#""odd"=hex(1):61,00,00"#,
            r#""lone"=hex(1):00,d8,00,00"#,
            r#""lines"=hex(1):61,00,0a,00,00,00"#,
            r#""none"=hex(1):"#,
            r#""quad"=hex(b):01,00,00,00,00,00,00,00"#,
            r#""DigitalProductId"=hex:00,01,02,03,04,05,06,07,08,09,0a,0b,0c,0d,0e,0f,10,11,\"#,
            r"  12,13,14,15,16,17,18,19,1a,1b,1c,1d,1e,1f,20,21,22,23,24,25,26,27,28,29,2a,\",
            r"  2b,2c,2d,2e,2f,30,31,32,33,34,35,36,37,38,39,3a,3b",
        ]
    );
    assert!(!text.contains("ControlSet001"), "it stands once, under the link:\n{text}");
    assert_eq!(&encode(&text)[..4], [0xff, 0xfe, b'W', 0]);
}

#[test]
fn volatile_keys_and_names_that_no_text_can_have_are_left_out() {
    let (mut registry, key) = registry();
    let volatile = registry.create(Some(key), &[u16::from(b'v')], true, 1).unwrap().0;
    registry.create(Some(volatile), &[u16::from(b'w')], true, 1).unwrap();
    registry.set_volatile(volatile);
    registry.create(Some(key), &[u16::from(b'k'), 10], true, 1).unwrap();
    registry.create(Some(key), &"x] ;y".encode_utf16().collect::<Vec<u16>>(), true, 1).unwrap();
    registry.set_value(key, &[0xd800], 4, &[0; 4], 1).unwrap();
    registry.create(Some(key), &"d\\".repeat(600).encode_utf16().collect::<Vec<u16>>(), true, 1).unwrap();
    let text = write(&registry);
    assert_eq!(text.matches("; left out: the ").count(), 4, "{text}");
    assert!(text.contains("; left out: the key d, which lies deeper than 512 levels\r\n"), "{text}");
    assert!(text.contains("; left out: the key k\u{fffd}, whose name no text can have\r\n"), "{text}");
    assert!(!text.contains(r"\v]") && !text.contains(r"\w]"), "{text}");
    parse("saved.reg", &encode(&text)).unwrap();
}

/// Names of keys and values, more or less strange.
fn name() -> impl Strategy<Value = Vec<u16>> {
    let plain = proptest::string::string_regex("[a-zé\\[\\];=@\"\\-\t ]{1,6}").unwrap();
    prop_oneof![
        8 => plain.prop_map(|name| name.encode_utf16().collect()),
        1 => proptest::collection::vec(any::<u16>().prop_filter("separators", |unit| *unit != 0x5c), 1..4),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        "[ -~é\\\\\"\r\n\0]{0,40}".prop_map(|text| utf16(&format!("{text}\0"))),
    ]
}

/// The same cases in every run; none is kept in a file.
fn same_each_time() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(same_each_time())]

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 0..3_usize) {
        let begin: &[u8] = [&b""[..], b"REGEDIT4\n", b"Windows Registry Editor Version 5.00\n[HKLM\\Software]\n"][version];
        let _ = parse("my.reg", &[begin, &bytes].concat());
    }

    #[test]
    fn any_line_is_answered(body in "([\\[\\]\"=@;,:\\\\ \r\n-]|dword|hex|\\(7\\)|HKLM|[0-9a-f]{2}|a){0,30}") {
        let _ = parse("my.reg", five(&format!("[HKLM\\Software]\n{body}")).as_bytes());
    }

    #[test]
    fn what_is_written_is_read_and_written_the_same(
        entries in proptest::collection::vec((proptest::collection::vec(name(), 0..3), name(), prop_oneof![0..12_u32, any::<u32>()], bytes()), 0..12)
    ) {
        let (mut first, set) = registry();
        for (path, name, kind, data) in entries {
            let path = path.join(&u16::from(b'\\'));
            let key = first.create(Some(set), &path, true, 1).unwrap().0;
            first.set_value(key, &name, kind, &data, 1).unwrap();
        }
        let text = write(&first);
        let (mut second, _) = registry();
        carry_out(&mut second, &parse("saved.reg", &encode(&text)).unwrap());
        let again = write(&second);
        let said: Vec<&str> = text.split("\r\n").filter(|line| !line.starts_with("; left out")).collect();
        prop_assert_eq!(said, again.split("\r\n").collect::<Vec<_>>());
    }
}
