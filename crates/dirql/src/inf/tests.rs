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
AddService = pci9052, 0x00000002, Service, EventLog

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
    assert_eq!((got.service.name.as_str(), got.service.binary.as_str()), ("pci9052", "pci9052.sys"));
    assert_eq!(got.service.image_path, r"\SystemRoot\System32\drivers\pci9052.sys");
    assert_eq!((got.service.kind, got.service.start, got.service.error_control), (1, 3, 1));
    assert_eq!((got.class.as_str(), got.description.as_str()), ("Sample", "PCI 9052 card"));
    assert_eq!((got.matched_id.as_str(), got.rank), (r"PCI\VEN_10B5&DEV_9050", 3));
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
        keys(&got.service.keys),
        ["Parameters|Verbose=Dword(1)", "Parameters|Names=MultiSz([\"one\", \"two\"])"]
    );
}

#[test]
fn what_is_passed_over_is_said() {
    let got = installed(PCI9052).unwrap();
    let says = |remarks: &[Remark], what: &str| {
        remarks.iter().any(|remark| remark.text.contains(what) && remark.line > 0)
    };
    assert!(says(&got.ignored, "CopyFiles") && says(&got.ignored, "event log"), "{:?}", got.ignored);
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
        ("\"$Windows NT$\"", "\"$Window NT$\"", "card.inf:3: the signature `$Window NT$`"),
        ("Class       = Sample\n", "", "card.inf:2: [Version] has no `Class`"),
        ("[Manufacturer]", "[Manufacturers]", "there is no [Manufacturer] section"),
        (
            ", NTamd64, NTamd64.10.0...22000",
            ", NTx86",
            "card.inf:10: [Manufacturer] leads to no models for x64 Windows 10.0.26100 (it has: [Models], [Models.NTx86])",
        ),
        (
            "[Models.NTamd64.10.0...22000]",
            "[Models.NTamd64.10.0..22000]",
            "card.inf:11: this leads to a section [Models.NTamd64.10.0...22000], which the file does not have; did you mean",
        ),
        (
            "%Card% = Install, PCI",
            "%Card% = Instal, PCI",
            "card.inf:18: this leads to a section [Instal], which the file does not have; did you mean",
        ),
        (
            "[Install.NTamd64.Services]",
            "[Install.Services]",
            "card.inf:18: this installs [Install.NTamd64], for which the file has no [Install.NTamd64.Services]",
        ),
        (
            "AddService = pci9052, 0x00000002,",
            "AddService = pci9052, 0,",
            "no AddService has the flag 0x00000002",
        ),
        (
            "AddService = pci9052, 0x00000002, Service,",
            "AddService = pci9052, 2, Servce,",
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
            "card.inf:28: the REG_DWORD value `two`",
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
