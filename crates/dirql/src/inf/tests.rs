//! Stories of whole INF files: what a device gets, and what a file that is wrong is answered with.

use super::*;

const PCI9052: &str = r#"; PCI 9052 sample driver
[Version]
Signature   = "$Windows NT$"
Class       = Sample
ClassGuid   = {78A1C341-4539-11D3-B88D-00C04FAD5171}
Provider    = %Vendor%
DriverVer   = 01/01/2025,1.0.0.0
CatalogFile = pci9052.cat

[Manufacturer]
%Vendor% = Models, NTamd64, NTamd64.10.0...22000

[Models.NTamd64]
%Old% = Install, PCI\VEN_10B5&DEV_9050

[Models.NTamd64.10.0...22000]
%Any%  = Install, PCI\VEN_10B5
%Card% = Install, PCI\VEN_10B5&DEV_9050, PCI\VEN_10B5&DEV_9030

[Install.NTamd64]
CopyFiles = Files
AddReg    = Software

[Install.NTamd64.HW]
AddReg = Hardware

[Hardware]
HKR,,LocalSpace,0x00010001,2
HKR,,Label,,"local space ; 2"
HKR,Sub\Key,Flags,0x00010003,7
HKR,,UpperFilters,0x00010000,someflt

[Software]
HKR,,Wait,0x00010001,100

[Install.NTamd64.Services]
AddService = pci9052, 0x00000002, Service

[Service]
DisplayName   = %Card%
ServiceType   = 1  ; SERVICE_KERNEL_DRIVER
StartType     = 3
ErrorControl  = 1
ServiceBinary = %12%\pci9052.sys
AddReg        = Parameters

[Parameters]
HKR,Parameters,Verbose,0x00010001,1
HKR,Parameters,Names,0x00010000,"one","two"

[Files]
pci9052.sys

[Strings]
Vendor = "dirql"
Card   = "PCI 9052 card"
Any    = "A PLX card"
Old    = "PCI 9052 card (old Windows)"
"#;

fn card() -> DeviceIds {
    DeviceIds {
        hardware: vec![
            r"PCI\VEN_10B5&DEV_9050&SUBSYS_905010B5&REV_02".into(),
            r"PCI\VEN_10B5&DEV_9050&SUBSYS_905010B5".into(),
            r"PCI\VEN_10B5&DEV_9050&CC_068000".into(),
            r"PCI\VEN_10B5&DEV_9050".into(),
        ],
        compatible: vec![r"PCI\VEN_10B5&CC_068000".into(), r"PCI\VEN_10B5".into()],
    }
}

fn installed(text: &str) -> Result<Installation, Error> {
    parse("card.inf", text.as_bytes())?.installation(&card(), Target::WINDOWS_11_24H2)
}

fn refused(text: &str) -> String {
    match installed(text) {
        Ok(installation) => panic!("it was installed: {installation:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_card_gets_its_driver_and_its_keys() {
    let got = installed(PCI9052).unwrap();
    let service = got.service.unwrap();
    assert_eq!((service.name.as_str(), service.binary.as_str()), ("pci9052", "pci9052.sys"));
    assert_eq!(service.image_path, r"\SystemRoot\System32\drivers\pci9052.sys");
    assert_eq!((service.kind, service.start, service.error_control), (1, 3, 1));
    assert_eq!((got.class.as_str(), got.description.as_str()), ("Sample", "PCI 9052 card"));
    assert_eq!((got.matched_id.as_str(), got.rank), (r"PCI\VEN_10B5&DEV_9050", 0x00ff_0003));
    assert_eq!(got.section, "Install.NTamd64");
    assert_eq!(got.manufacturer, "dirql");

    let keys = |writes: &[RegistryWrite]| -> Vec<String> {
        writes
            .iter()
            .map(|write| match &write.write {
                Write::Set { name, value, .. } => format!("{}|{name}={value:?}", write.key),
                other => format!("{}|{other:?}", write.key),
            })
            .collect()
    };
    assert_eq!(
        keys(&got.device_keys),
        ["|LocalSpace=Dword(2)", "|Label=Sz(\"local space ; 2\")", "Sub\\Key|Flags=Dword(7)"]
    );
    assert_eq!(keys(&got.driver_keys), ["|Wait=Dword(100)"]);
    assert_eq!(
        keys(&service.keys),
        ["Parameters|Verbose=Dword(1)", "Parameters|Names=MultiSz([\"one\", \"two\"])"]
    );
}

#[test]
fn what_is_passed_over_is_said() {
    let got = installed(PCI9052).unwrap();
    let says = |remarks: &[Remark], what: &str| {
        remarks.iter().any(|remark| remark.text.contains(what) && remark.line > 0 && remark.column == 1)
    };
    assert!(says(&got.ignored, "CopyFiles"), "{:?}", got.ignored);
    let mistyped =
        PCI9052.replace("CopyFiles = Files", "AdReg = Software\nInclude = machine.inf\nNeeds = PCI.Needs");
    let got = installed(&mistyped).unwrap();
    for what in ["did you mean AddReg?", "Include = machine.inf", "Needs = PCI.Needs"] {
        assert!(says(&got.unsupported, what), "{what}: {:?}", got.unsupported);
    }
}

#[test]
fn an_older_windows_takes_the_section_made_for_it() {
    let inf = parse("card.inf", PCI9052.as_bytes()).unwrap();
    assert_eq!(
        inf.installation(&card(), Target::WINDOWS_7).unwrap().description,
        "PCI 9052 card (old Windows)"
    );
    assert_eq!(inf.ids(Target::WINDOWS_11_24H2).unwrap().len(), 3);
}

#[test]
fn a_card_that_the_file_does_not_know_is_told_what_it_knows() {
    let inf = parse("card.inf", PCI9052.as_bytes()).unwrap();
    let other = DeviceIds { hardware: vec![r"PCI\VEN_1234&DEV_11E8".into()], compatible: vec![] };
    let message = inf.installation(&other, Target::WINDOWS_7).unwrap_err().to_string();
    assert_eq!(
        message,
        r"card.inf: no model in the file matches the device; the device is: PCI\VEN_1234&DEV_11E8; the file has: PCI\VEN_10B5&DEV_9050; take a device that the file names, or add the device's id to a model"
    );
}

#[test]
fn a_file_with_a_mistake_is_answered_with_line_and_remedy() {
    for (from, to, says) in [
        ("[Version]", "[Versoin]", "card.inf: there is no [Version] section"),
        ("\"$Windows NT$\"", "\"$Window NT$\"", "card.inf:3:15: the signature `$Window NT$`"),
        ("Class       = Sample\n", "", "card.inf:2:1: [Version] has no `Class`"),
        ("[Manufacturer]", "[Manufacturers]", "there is no [Manufacturer] section"),
        (
            ", NTamd64, NTamd64.10.0...22000",
            ", NTx86",
            "card.inf:10:1: [Manufacturer] leads to no models for x64 Windows 10.0.26100 (it has: [Models], [Models.NTx86])",
        ),
        (
            "[Models.NTamd64.10.0...22000]",
            "[Models.NTamd64.10.0..22000]",
            "card.inf:11:12: this leads to a section [Models.NTamd64.10.0...22000], which the file does not have; did you mean",
        ),
        (
            "%Card% = Install, PCI",
            "%Card% = Instal, PCI",
            "card.inf:18:1: this leads to a section [Instal], which the file does not have; did you mean",
        ),
        (
            "[Install.NTamd64.Services]",
            "[Install.Services]",
            "card.inf:18:1: this installs [Install.NTamd64], for which the file has no [Install.NTamd64.Services]",
        ),
        (
            "AddService = pci9052, 0x00000002,",
            "AddService = pci9052, 0,",
            "no AddService has the flag 0x00000002",
        ),
        (
            "AddService = pci9052, 0x00000002, Service",
            "AddService = pci9052, 2, Servce",
            "did you mean [Service]?",
        ),
        ("ServiceType   = 1 ", "ServiceType   = 0x10 ", "ServiceType 0x10 is not a kernel driver"),
        ("StartType     = 3\n", "", "has no `StartType`"),
        ("StartType     = 3", "StartType     = 4", "a disabled service"),
        ("%12%\\pci9052.sys", "pci9052.sys", "does not begin with a directory's number"),
        ("%12%\\pci9052.sys", "\"%12%\\\"", "names no file"),
        ("%12%\\pci9052.sys", "%12%\\", "is no file's name (a backslash at a line's end"),
        ("AddReg = Hardware", "AddReg = Hardwar", "did you mean [Hardware]?"),
        (
            "HKR,,LocalSpace,0x00010001,2",
            "HKR,,LocalSpace,0x00010001,two",
            "card.inf:28:28: the REG_DWORD value `two`",
        ),
    ] {
        assert!(PCI9052.contains(from), "{from}");
        let message = refused(&PCI9052.replacen(from, to, 1));
        assert!(message.contains(says), "{to}\n  said   {message}\n  wanted {says}");
    }
}

#[test]
fn a_utf16_file_says_the_same() {
    let bytes: Vec<u8> = "\u{feff}"
        .encode_utf16()
        .chain(PCI9052.replace('\n', "\r\n").encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let got = parse("card.inf", &bytes).unwrap().installation(&card(), Target::WINDOWS_11_24H2);
    assert_eq!(got, installed(PCI9052));
}

#[test]
fn strings_that_grow_without_end_are_refused() {
    let long = "x".repeat(4000);
    let text = PCI9052
        .replace("%Card% = Install", "%L%%L% = Install")
        .replace("[Strings]\n", &format!("[Strings]\nL = {long}\n"));
    assert!(refused(&text).contains("longer than 4095 characters"));
}

#[test]
fn mutilated_files_are_answered_and_never_panic() {
    let letters: Vec<char> = PCI9052.chars().collect();
    for at in (0..letters.len()).step_by(3) {
        for with in ['[', ']', '"', '%', ',', '=', ';', '\\', '\n', '\0', '\u{e9}'] {
            let mut changed = letters.clone();
            changed[at] = with;
            if let Err(error) = installed(&changed.iter().collect::<String>()) {
                assert!(!error.message.is_empty());
            }
        }
        let _ = installed(&letters[at..].iter().collect::<String>());
        let _ = installed(&letters[..at].iter().collect::<String>());
    }
}

/// A file of `tests/infs`.
fn package(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/infs").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn described(name: &str, ids: &[&str]) -> Installation {
    let device = DeviceIds { hardware: ids.iter().map(|&id| id.to_owned()).collect(), compatible: vec![] };
    parse(name, package(name).as_bytes()).unwrap().described(&device, Target::WINDOWS_11_24H2).unwrap()
}

/// A value that is set: `key|name`, and what to.
fn set(writes: &[RegistryWrite], key: &str, name: &str) -> Value {
    let found = writes.iter().find_map(|write| match &write.write {
        Write::Set { name: own, value, .. } if write.key == key && own == name => Some(value.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{key}|{name} is not among {writes:#?}"))
}

#[test]
fn a_storage_controllers_messages_security_event_log_and_place_in_the_boot_come_out() {
    let got = described("storage.inf", &[r"PCI\VEN_1C5F&DEV_0540", r"PCI\CC_010802"]);
    assert_eq!(got.rank, 0x00f8_0000, "by FeatureScore");
    let messages = r"Interrupt Management\MessageSignaledInterruptProperties";
    assert_eq!(set(&got.device_keys, messages, "MSISupported"), Value::Dword(1));
    assert_eq!(set(&got.device_keys, messages, "MessageNumberLimit"), Value::Dword(0x100));
    assert_eq!(got.security.as_deref(), Some("D:P(A;;GA;;;SY)(A;;GA;;;BA)"));
    let service = got.service.unwrap();
    assert_eq!((service.start, service.error_control), (0, 3));
    assert_eq!(set(&service.keys, "", "Group"), Value::Sz("SCSI Miniport".into()));
    assert_eq!(set(&service.keys, "", "DependOnService"), Value::MultiSz(vec!["storport".into()]));
    assert_eq!(set(&service.keys, "", "DependOnGroup"), Value::MultiSz(vec!["PNP Filter".into()]));
    assert_eq!(set(&service.keys, r"Parameters\PnpInterface", "5"), Value::Dword(1));
    let log = r"System\CurrentControlSet\Services\EventLog\System\fastdisk";
    assert_eq!(set(&service.keys, log, "TypesSupported"), Value::Dword(7));
    let by_class = described("storage.inf", &[r"PCI\CC_010802"]);
    assert_eq!(
        (by_class.description.as_str(), by_class.rank),
        ("Controller of the standard class", 0x00f8_1000)
    );
}

#[test]
fn an_adapters_keywords_come_out_with_quotes_continuations_and_doubled_marks() {
    let got = described("network.inf", &[r"PCI\VEN_1AF5&DEV_2200"]);
    assert_eq!(
        set(&got.driver_keys, r"Ndi\Params\*FlowControl\enum", "3"),
        Value::Sz("Rx & Tx Enabled".into())
    );
    assert_eq!(set(&got.driver_keys, "", "*FlowControl"), Value::Sz("3".into()));
    assert_eq!(set(&got.driver_keys, "", "NetCfg"), Value::Binary(vec![1, 10, 255, 0]));
    let service = got.service.unwrap();
    let text = "Drives the \"Long Wire\" adapter; needs NDIS";
    assert_eq!(set(&service.keys, "", "Description"), Value::Sz(text.into()));
    let log = r"System\CurrentControlSet\Services\EventLog\System\lwire";
    let file = Value::ExpandSz(r"%SystemRoot%\System32\netevent.dll".into());
    assert_eq!(set(&service.keys, log, "EventMessageFile"), file);
}

#[test]
fn needs_of_the_same_file_is_read_and_of_windows_noted() {
    let got = described("daq.inf", &[r"PCI\VEN_1761&DEV_0016"]);
    let service = got.service.unwrap();
    assert_eq!(service.image_path, r"\SystemRoot\System32\DriverStore\FileRepository\daq.sys");
    assert_eq!((got.date.as_str(), got.version.as_str()), ("2-28-2024", "4.0.0.0"));
    let other = described("daq.inf", &[r"PCI\VEN_1761&DEV_0064"]);
    assert_eq!((other.date.as_str(), other.version.as_str()), ("3-1-2024", "4.1.0.0"), "its own");
    assert_eq!(set(&got.driver_keys, "", "Bits"), Value::Dword(16));
    assert_eq!(set(&got.driver_keys, "", "Channels"), Value::Dword(16));
    assert_eq!(got.class_filters.lower, ["daqtrace"]);
    assert!(got.security.unwrap().ends_with("(A;;GRGW;;;WD)"), "the class's");
    for (name, value) in [
        ("BufferSize", Value::Dword(65536)),
        ("Ranges", Value::MultiSz(vec!["±10 V".into(), "±5 V".into(), "0–10 V".into()])),
        ("Calibration", Value::Binary(vec![0, 1, 2, 3, 4])),
        ("Serial", Value::Other { kind: 11, data: vec![1, 0, 0, 0, 0, 0, 0, 0] }),
        ("Nothing", Value::Other { kind: 0, data: vec![] }),
        ("Path", Value::ExpandSz("%SystemRoot%\\System32\\\"daq\"".into())),
    ] {
        assert_eq!(set(&service.keys, "Parameters", name), value);
    }
    let usb = described("winusb.inf", &[r"USB\VID_1366&PID_0105"]);
    assert!(usb.service.is_none());
    assert!(
        usb.unsupported
            .iter()
            .any(|it| it.text == "Needs = WINUSB.NT.Services: a section of another INF file")
    );
    let message = parse("winusb.inf", package("winusb.inf").as_bytes()).unwrap();
    let device = DeviceIds { hardware: vec![r"USB\VID_1366&PID_0105".into()], compatible: vec![] };
    let message = message.installation(&device, Target::WINDOWS_11_24H2).unwrap_err().to_string();
    assert!(
        message.starts_with("winusb.inf: [USB_Install] gives the device no driver of this file's own"),
        "{message}"
    );
    assert!(described("chipset.inf", &[r"PCI\VEN_1B21&DEV_1080"]).service.is_none(), "the null driver");
}

#[test]
fn an_extensions_filter_and_a_cameras_keys_come_out() {
    let got = described("extension.inf", &[r"USB\VID_2BD9&PID_0021&MI_00"]);
    assert_eq!((got.all_filters().upper, &got.service), (vec!["tunedflt".to_owned()], &None));
    assert_eq!(
        got.other_services[0].image_path,
        r"\SystemRoot\System32\DriverStore\FileRepository\tunedflt.sys"
    );
    assert_eq!(set(&got.device_keys, "Tuning", "Rotation"), Value::Dword(180));
    let pad = described("hid.inf", &[r"USB\VID_28DE&PID_1142&MI_01"]);
    assert_eq!(pad.filters.lower, ["padflt"], "appended");
}

#[test]
fn interfaces_and_the_frameworks_version_come_out() {
    let got = described("audio.inf", &[r"PCI\VEN_13F6&DEV_5011&SUBSYS_501113F6&REV_10"]);
    let found: Vec<_> = got.interfaces.iter().map(|it| (it.class.as_str(), it.reference.as_str())).collect();
    assert_eq!(
        found,
        [
            ("{6994AD04-93EF-11D0-A3CC-00A0C9223196}", "Wave"),
            ("{65E8773E-8F56-11D0-A3B9-00A0C9223196}", "Wave"),
            ("{DDA54A40-1E4C-11D1-A050-405705C10000}", "Topology"),
        ]
    );
    assert_eq!(set(&got.interfaces[2].keys, "", "FriendlyName"), Value::Sz("Sound, topology".into()));
    let sampler = described("kmdf.inf", &[r"PCI\VEN_16C6&DEV_8842&REV_03"]);
    assert_eq!(sampler.framework.as_deref(), Some("1.31"));
    assert!(sampler.ignored.iter().any(|it| it.text.contains("Events")));
}

#[test]
fn english_is_chosen_among_the_languages() {
    assert_eq!(described("languages.inf", &[r"USB\VID_6403&PID_6001"]).description, "USB serial port");
    let choose = |sections: &str| {
        let text = PCI9052.replace("[Strings]\n", sections);
        installed(&text).unwrap().manufacturer
    };
    let all = "Vendor = de\nCard = c\nAny = a\nOld = o\n";
    let own = |id: &str, name: &str| format!("[Strings.{id}]\n{}", all.replace("de", name));
    let last = "\n[Strings]\n";
    assert_eq!(
        choose(&(own("0407", "german") + &own("0809", "british") + &own("0409", "american") + last)),
        "american"
    );
    assert_eq!(choose(&(own("0809", "british") + &own("0x0009", "neutral") + last)), "neutral");
    assert_eq!(choose(&(own("0407", "german") + &own("0809", "british") + last)), "british");
    assert_eq!(choose(&(own("0407", "german") + last)), "dirql");
}

#[test]
fn what_is_deleted_is_deleted_before_anything_is_written() {
    let got = described("older.inf", &[r"PCI\VEN_10B5&DEV_9056"]);
    let first: Vec<_> = got.driver_keys.iter().map(|write| &write.write).take(3).collect();
    let list = Write::DeleteText { name: "OldList".into(), text: "gone".into() };
    assert_eq!(first, [&Write::DeleteValue { name: "OldName".into() }, &Write::DeleteKey, &list]);
    assert_eq!(got.service.unwrap().image_path, r"\SystemRoot\system32\drivers\older.sys");
}

#[test]
fn properties_of_the_device_are_named() {
    let got = described("kmdf.inf", &[r"PCI\VEN_16C6&DEV_8842&REV_03"]);
    let says = |remark: &Remark| {
        remark.text == "DeviceCharacteristics: a property of the device, which is not given to it"
    };
    assert!(got.unsupported.iter().any(says), "{:?}", got.unsupported);
}

/// The rows of the book's tables: the words in backticks of the first column, and those of the last.
fn rows(book: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    fn quoted(column: &str) -> Vec<&str> {
        column.split('`').skip(1).step_by(2).collect()
    }
    let rows = book.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split(" | ").collect::<Vec<_>>()).filter(|row| row.len() == 3);
    rows.map(|row| (quoted(row[0]), quoted(row[2]))).filter(|(_, tests)| !tests.is_empty()).collect()
}

#[test]
fn every_directive_stands_in_the_book_and_is_known_where_it_belongs() {
    use super::directives::{self, Effect, PARTS};
    let book = include_str!("../../../../docs/inf.md");
    let rows = rows(book);
    let named = |name: &str| rows.iter().any(|(names, _)| names.contains(&name));
    let lists = PARTS.iter().map(|part| part.directives);
    let all = lists
        .chain([
            directives::INSTALL,
            directives::UNINSTALL,
            directives::SERVICE,
            directives::EVENT_LOG,
            directives::INTERFACE,
        ])
        .flatten();
    for known in all.chain(PARTS.iter().map(|part| &part.section)) {
        assert!(named(known.name), "docs/inf.md has no row of {}", known.name);
        let mut remarks = super::addreg::Remarks::default();
        let text = format!("[S]\n{} = x\n", known.name);
        let sections = Sections::parse(text).unwrap();
        let entry = sections.get("S").unwrap().entries().next().unwrap();
        super::install::pass_over(entry, std::slice::from_ref(known), &mut remarks);
        let found = (remarks.ignored.len(), remarks.unsupported.len());
        let wanted = match known.effect {
            Effect::Done => (0, 0),
            Effect::Harmless(_) => (1, 0),
            Effect::Missing(_) => (0, 1),
        };
        assert_eq!(found, wanted, "{}", known.name);
    }
    let sources = [
        include_str!("tests.rs"),
        include_str!("check/tests.rs"),
        include_str!("addreg.rs"),
        include_str!("encoding.rs"),
        include_str!("folders.rs"),
        include_str!("log_config.rs"),
        include_str!("models.rs"),
        include_str!("sections.rs"),
        include_str!("target.rs"),
        include_str!("bit_reg.rs"),
        include_str!("filter.rs"),
        include_str!("property.rs"),
        include_str!("../../tests/installed.rs"),
        include_str!("../../tests/resources.rs"),
        include_str!("../../tests/stacks.rs"),
        include_str!("../../../cli/tests/inf.rs"),
    ];
    for test in rows.iter().flat_map(|(_, tests)| tests) {
        let is_there = sources.iter().any(|source| source.contains(&format!("fn {test}()")));
        assert!(is_there, "docs/inf.md names {test}, which is no test");
    }
}

/// What `described_each` says is what `described` says of each id alone, in the order of the ids.
#[test]
fn each_install_section_is_described_as_its_first_id_is() {
    let text = with_models(
        "A = First,PCI\\VEN_1\nB = Second,PCI\\VEN_2,pci\\ven_1\nC = First,PCI\\VEN_3\nD = None,PCI\\VEN_4\nE = Second,PCI\\VEN_1",
    );
    let inf = parse("t.inf", text.as_bytes()).unwrap();
    let target = Target::WINDOWS_11_24H2;
    let each = inf.described_each(target, |_| true).unwrap();
    let mut slow: Vec<(Vec<String>, Installation)> = Vec::new();
    for id in inf.ids(target).unwrap() {
        let ids = DeviceIds { hardware: vec![id.clone()], compatible: Vec::new() };
        let Ok(found) = inf.described(&ids, target) else { continue };
        match slow.iter_mut().find(|(_, known)| known.section == found.section) {
            Some((known, _)) => known.push(id),
            None => slow.push((vec![id], found)),
        }
    }
    assert_eq!(each, slow);
    let sections: Vec<_> = each.iter().map(|(ids, found)| (ids.len(), found.section.as_str())).collect();
    assert_eq!(sections, [(2, "First"), (1, "Second")]);
}

/// A file with these models, and two install sections.
fn with_models(models: &str) -> String {
    let install = |name: &str| format!("[{name}]\n[{name}.Services]\nAddService = {name},2,Service\n");
    format!(
        "[Version]\nSignature=\"$Windows NT$\"\nClass=System\n[Manufacturer]\nX=Models,NTamd64\n[Models.NTamd64]\n{models}\n{}{}[Service]\n\
         ServiceType=1\nStartType=3\nErrorControl=1\nServiceBinary=%12%\\x.sys\n",
        install("First"),
        install("Second")
    )
}
