//! A right file has no finding, and each finding has a file that is right but for it. Files as packages have them are in `tests/infs`.

use std::fs;
use std::path::Path;

use super::{Finding, Tier, check};
use crate::inf::{DeviceIds, Target, parse};

const CARD: &str = r#"[Version]
Signature   = "$Windows NT$"
Class       = System
ClassGuid   = {4D36E97D-E325-11CE-BFC1-08002BE10318}
Provider    = %Vendor%
DriverVer   = 01/31/2025,1.0.0.0
CatalogFile = card.cat
PnpLockdown = 1

[SourceDisksNames]
1 = %Disk%

[SourceDisksFiles]
card.sys    = 1
cardflt.sys = 1

[DestinationDirs]
DefaultDestDir = 13
CardFiles      = 13

[Manufacturer]
%Vendor% = Cards, NTamd64.10.0

[Cards.NTamd64.10.0]
%Card% = Card, PCI\VEN_1234&DEV_0001
%Two%  = Card, PCI\VEN_1234&DEV_0002

[Card.NT]
CopyFiles = CardFiles
AddReg    = CardSoftware

[CardFiles]
card.sys
cardflt.sys

[CardSoftware]
HKR,,Wait,0x00010001,100

[Card.NT.HW]
AddReg = CardHardware

[CardHardware]
HKR,Interrupt Management\MessageSignaledInterruptProperties,MSISupported,0x00010001,1
HKR,,Security,,"D:P(A;;GA;;;SY)(A;;GA;;;BA)"
HKR,,UpperFilters,0x00010000,cardflt

[Card.NT.Services]
AddService = card, 2, CardService, CardLog
AddService = cardflt, , FilterService

[CardService]
DisplayName   = %Card%
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %13%\card.sys
AddReg        = CardParameters

[CardParameters]
HKR,Parameters,Names,0x00010000,one,two

[FilterService]
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %13%\cardflt.sys

[CardLog]
AddReg = CardLogKeys

[CardLogKeys]
HKR,,TypesSupported,0x00010001,7

[Card.NT.Interfaces]
AddInterface = {5e7c9d61-0d56-4a9e-9f0f-1b2a3c4d5e6f},,CardInterface

[CardInterface]
AddReg = CardInterfaceKeys

[CardInterfaceKeys]
HKR,,FriendlyName,,%Card%

[Card.NT.Wdf]
KmdfService = card, CardFramework

[CardFramework]
KmdfLibraryVersion = 1.31

[Card.NT.Filters]
AddFilter = cardflt, , CardFilter

[CardFilter]
FilterPosition = Upper

[Card.NT.Events]
AddEventProvider = {071acb53-ccfb-42e0-9a68-5336b7301507}, CardEvents

[CardEvents]
ProviderName = Card
ResourceFile = %13%\card.sys

[Strings]
Vendor = "Vendor"
Disk   = "Disk"
Card   = "Card"
Two    = "Card, two"
"#;

fn shown(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let spot = finding.spot.map(|spot| format!("{spot}: ")).unwrap_or_default();
        let number = finding.infverif.map(|number| format!(" {number}")).unwrap_or_default();
        format!("{spot}{}{number}: {}\n", finding.tier, finding.message)
    };
    findings.iter().map(line).collect()
}

fn findings(text: &str) -> String {
    shown(&check("card.inf", text.as_bytes()).unwrap())
}

#[test]
fn a_right_file_has_no_finding() {
    assert_eq!(findings(CARD), "");
}

/// What stands in [`CARD`], what is written instead, and the beginning of a line that tells it.
const MISTAKES: &[(&str, &str, &str)] = &[
    // The form.
    ("[CardLog]\n", "[CardLog\n", "68:1: error: this section's `[` has no `]`"),
    ("\"Card, two\"", "\"Card, two", "106:10: error: a quote is not closed"),
    // [Version].
    ("[Version]\n", "[Versoin]\n", "error 1001: there is no [Version] section"),
    ("Signature   = \"$Windows NT$\"\n", "", "1:1: error 1001: [Version] has no Signature"),
    ("\"$Windows NT$\"", "\"$Windows$\"", "2:15: error 1001: the signature `$Windows$`"),
    ("Class       = System\n", "", "1:1: error 1233: [Version] has no Class; write Class = System"),
    ("= System\n", "= SystemSystemSystemSystemSystemSys\n", "3:15: error: the class's name has more than 32"),
    (
        "ClassGuid   =",
        "ClassGiud   =",
        "1:1: error 1233: [Version] has no ClassGuid; write ClassGuid = {4d36e97d",
    ),
    (
        "ClassGuid   =",
        "ClassGiud   =",
        "4:1: warning: ClassGiud is not an entry of [Version]; did you mean ClassGuid?",
    ),
    ("{4D36E97D-", "{4D36E97D", "4:15: error: ClassGuid `{4D36E97DE325"),
    ("{4D36E97D-", "{4D36E972-", "4:15: error: the class System of Windows has the GUID {4d36e97d"),
    ("= System\n", "= Systems\n", "4:15: error: this GUID is that of Windows' class System"),
    (
        "Class       = System\nClassGuid   = {4D36E97D-E325-11CE-BFC1-08002BE10318}",
        "Class = Extension\nClassGuid = {e2f84ce7-8efa-411c-aa69-97454ca4cb57}",
        "1:1: error 1233: an extension INF needs an ExtensionId",
    ),
    (
        "Class       = System\nClassGuid   = {4D36E97D-E325-11CE-BFC1-08002BE10318}",
        "Class = Own\nClassGuid = {11111111-8efa-411c-aa69-97454ca4cb57}",
        "1:1: advice: Own is no class of Windows'",
    ),
    ("Provider    = %Vendor%\n", "", "1:1: error 1233: [Version] has no Provider"),
    ("Vendor = \"Vendor\"", "Vendor = Microsoft", "5:15: error 1204: Provider cannot be Microsoft"),
    ("DriverVer   = 01/31/2025,1.0.0.0\n", "", "1:1: error 1233: [Version] has no DriverVer"),
    ("01/31/2025", "31/01/2025", "6:15: error: DriverVer's date `31/01/2025`"),
    ("01/31/2025", "02/29/2025", "6:15: error: DriverVer's date `02/29/2025`"),
    (",1.0.0.0", "", "6:1: warning: DriverVer has no version"),
    (",1.0.0.0", ", 1.0.0.65536", "6:27: error: DriverVer's version `1.0.0.65536`"),
    ("CatalogFile = card.cat\n", "", "1:1: error 1233: [Version] has no CatalogFile"),
    ("card.cat", "card.ct", "7:15: error: CatalogFile `card.ct`"),
    ("PnpLockdown = 1\n", "", "1:1: advice: [Version] has no PnpLockdown"),
    ("PnpLockdown = 1", "DontReflectOffline = 1", "8:1: warning: DontReflectOffline is Windows' own"),
    // Tokens.
    (
        "DisplayName   = %Card%",
        "DisplayName   = %Crad%",
        "52:17: error 1235: the token %Crad% is not defined in [Strings]; did you mean %Card%?",
    ),
    (
        "HKR,,Wait,0x00010001,100",
        "HKR,,Path,,%SystemRoot%\\x",
        "37:12: error 1235: the token %SystemRoot% is not defined in [Strings]; add SystemRoot",
    ),
    (
        "[Strings]\n",
        "[Strings.0407]\nVendor = V\n\n[Strings]\n",
        "102:1: warning: [Strings.0407] lacks tokens that another language has (card, disk, two)",
    ),
    // Models.
    ("[Manufacturer]\n", "[Manufacturers]\n", "error 1297: there is neither a [Manufacturer] section nor"),
    ("%Vendor% = Cards, NTamd64.10.0\n", "", "21:1: error 1297: [Manufacturer] is empty"),
    ("Cards, NTamd64.10.0\n", "Cards\n", "22:12: error 1203: [Manufacturer] leads to a section [Cards]"),
    (
        "Cards, NTamd64.10.0\n",
        "Cards, NTamd64.10.0, NTamd64.6.1\n",
        "22:33: error 1203: [Manufacturer] leads to a section [Cards.NTamd64.6.1]",
    ),
    ("Cards, NTamd64.10.0\n", "Cards, amd64\n", "22:19: error: `amd64` is not a decoration"),
    (
        "[Manufacturer]\n",
        "[DefaultInstall.NTamd64]\n\n[Manufacturer]\n",
        "21:1: error 1212: a file has either",
    ),
    (
        "%Two%  = Card, PCI\\VEN_1234&DEV_0002",
        "%Two%  = Card",
        "26:1: warning 1297: this model has no device id",
    ),
    ("%Two%  = Card, PCI", "Card, PCI", "26:1: error: a model is %Description%"),
    (
        "PCI\\VEN_1234&DEV_0002",
        "PCI\\VEN_1234&DEV_0001",
        "26:16: warning: PCI\\VEN_1234&DEV_0001 stands on line 25 already",
    ),
    ("PCI\\VEN_1234&DEV_0002", "PCI\\VEN_1234&DEV_2", "26:16: warning: PCI\\VEN_1234&DEV_2: a PCI id is"),
    ("PCI\\VEN_1234&DEV_0002", "PCI VEN_1234", "26:16: warning: ` ` in a device id"),
    (
        "%Two%  = Card,",
        "%Two%  = Crad,",
        "26:10: error 1203: a model leads to a section [Crad], which the file does not have; did you mean [Card]?",
    ),
    ("[Card.NT]\n", "[Card.NTx86]\n", "25:10: error 1203: Card has no install section for amd64"),
    // Properties, bits and levels of filters.
    (
        "AddReg    = CardSoftware",
        "AddReg    = CardSoftware\nAddProperty = CardProperties\n[CardProperties]\nModel,,,,x",
        "33:1: error: `Model` is neither a category's GUID in braces nor the name of a property",
    ),
    (
        "AddReg    = CardSoftware",
        "AddReg    = CardSoftware\nBitReg = CardBits\n[CardBits]\nHKR,,V,1,x,0",
        "33:10: error: the mask `x` is not a byte",
    ),
    (
        "FilterPosition = Upper",
        "FilterPosition = Upper\nFilterLevel = Far",
        "92:1: error: [CardFilter] has a FilterPosition and a FilterLevel",
    ),
    (
        "HKR,,TypesSupported,0x00010001,7",
        "HKR,,UpperFilterLevels,,Far",
        "72:24: error: UpperFilterLevels is a list; write HKR,,UpperFilterLevels,0x00010000",
    ),
    // Install sections.
    (
        "AddReg    = CardSoftware",
        "AddReg    = CardSoftwar",
        "30:13: error 1203: AddReg leads to a section [CardSoftwar], which the file does not have; did you mean [CardSoftware]?",
    ),
    (
        "AddReg    = CardSoftware",
        "AdReg    = CardSoftware",
        "30:1: warning: AdReg is not a directive of [Card.NT]; did you mean AddReg?",
    ),
    (
        "AddReg    = CardSoftware",
        "AddReg    = CardSoftware\nDelReg = CardSoftware",
        "31:10: warning 1205: [CardSoftware] is led to by DelReg here and by AddReg on line 30",
    ),
    (
        "AddReg    = CardSoftware",
        "AddReg    = CardSoftware\nLogConfig = CardLog",
        "31:1: warning 1300: LogConfig is legacy",
    ),
    (
        "AddReg    = CardSoftware",
        "AddReg    = CardSoftware\nFeatureScore = 0x100",
        "31:16: error: FeatureScore `0x100`",
    ),
    ("[Card.NT.Wdf]\n", "[Card.NT.CoInstallers]\n", "83:1: warning 1300: [Card.NT.CoInstallers] is legacy"),
    (
        "[Card.NT.HW]\n",
        "[Card.NT.HWW]\n",
        "39:1: warning 2083: nothing leads to [Card.NT.HWW], so that what it says is not done; did you mean [Card.NT.HW]?",
    ),
    (
        "[Card.NT.HW]\n",
        "[Card.HW]\n",
        "39:1: warning 2083: nothing leads to [Card.HW], so that what it says is not done; did you mean [Card.NT.HW]?",
    ),
    ("[CardLog]\n", "[Spare]\nHKR,,x\n\n[CardLog]\n", "68:1: warning 2083: nothing leads to [Spare]"),
    (
        "[Card.NT.HW]\n",
        "[Card.NT.HW]\nNeeds = Other.HW\n",
        "40:9: warning 1313: [Other.HW] is not in this file",
    ),
    (
        "[Card.NT.HW]\n",
        "[Card.NT.HW]\nInclude = o.inf\nNeeds = Other.Services\n",
        "41:9: warning 1310: [Card.NT.HW] needs [Other.Services]",
    ),
    // Files.
    (
        "CopyFiles = CardFiles",
        "CopyFiles = card.sys",
        "29:13: error 1203: CopyFiles leads to a section [card.sys]",
    ),
    ("card.sys    = 1\n", "", "32:1: error 1230: card.sys is copied, and [SourceDisksFiles] does not say"),
    ("[SourceDisksFiles]", "[SourceDisksFiles.x86]", "33:1: error 1230: card.sys is copied"),
    ("card.sys    = 1\n", "card.sys    = 2\n", "14:15: error: card.sys is on disk `2`"),
    (
        "DefaultDestDir = 13\nCardFiles      = 13",
        "CardFile       = 13",
        "18:1: warning: [DestinationDirs] has a folder for [CardFile]",
    ),
    (
        "DefaultDestDir = 13\nCardFiles      = 13",
        "",
        "32:1: warning: [DestinationDirs] does not say where card.sys goes",
    ),
    (
        "CardFiles      = 13",
        "CardFiles      = %13%",
        "19:18: error: `%13%`: a directory's number stands here without percent signs",
    ),
    (
        "CardFiles      = 13",
        "CardFiles      = drivers",
        "19:18: error: `drivers` is not a directory's number",
    ),
    (
        "CardFiles      = 13",
        "CardFiles      = 40000",
        "19:18: warning: 40000 is a directory that only an installer",
    ),
    (
        "CardFiles      = 13",
        "CardFiles      = 12",
        "56:17: warning: the service looks for card.sys in %13%, and [DestinationDirs] has it copied to 12",
    ),
    (
        "CardFiles      = 13",
        "CardFiles      = 24",
        "33:1: warning 1306: card.sys goes to a folder outside Windows",
    ),
    (
        "CardFiles      = 13",
        "CardFiles      = 13,x64",
        "33:1: error 1100: card.sys is in the folder `` of the package",
    ),
    ("\ncard.sys\n", "\ncard.sys, card64.sys\n", "33:1: error 1100: card64.sys is renamed to card.sys"),
    ("CopyFiles = CardFiles\n", "", "31:1: warning"),
    // The registry.
    ("HKR,,Wait", "HKX,,Wait", "37:1: error: `HKX` is not a root of the registry"),
    ("0x00010001,100", "0x00010001,hundred", "37:22: error: the REG_DWORD value `hundred`"),
    ("HKR,,Wait", "HKLM,Software,Wait", "37:1: warning 1304: HKLM: a driver package writes"),
    (
        "HKR,,Wait",
        "HKLM,System\\CurrentControlSet\\Services\\card,Wait",
        "37:1: error 1221: the services' keys",
    ),
    (
        "HKR,,Wait,0x00010001,100",
        "HKR,,CoInstallers32,0x00010000,\"a.dll,A\"",
        "37:1: warning 1303: this registers a co-installer",
    ),
    ("HKR,,Wait,0x00010001,100", "HKR,,List,0x00010008,one", "37:11: warning 1305: this adds to a list"),
    (
        "HKR,,Wait,",
        "HKR,Interrupt Management,Wait,",
        "37:1: warning: Windows reads Interrupt Management in the hardware key",
    ),
    ("MSISupported,0x00010001,1", "MSISupported,,1", "43:74: error: MSISupported is a REG_DWORD"),
    ("\"D:P(A;;GA;;;SY)(A;;GA;;;BA)\"", "\"D:P(A;;GA;;;SY\"", "44:16: error: Security: "),
    ("0x00010000,cardflt", ",cardflt", "45:19: error: UpperFilters is a list"),
    (
        "HKR,,Wait,0x00010001,100",
        "HKR,,LowerFilters,0x00010000,cardflt",
        "37:1: warning: LowerFilters of a device is read in the hardware key",
    ),
    ("0x00010000,cardflt", "0x00010000,other", "45:30: advice: a list of filters names the service other"),
    // Services.
    ("[Card.NT.Services]", "[Card.Services]", "25:10: error 1296: [Card.NT] has no [Card.NT.Services]"),
    (
        "AddService = card, 2,",
        "AddService = card, 0,",
        "47:1: error 1296: no AddService of [Card.NT.Services] has the flag",
    ),
    ("AddService = cardflt, ,", "AddService = cardflt, 2,", "49:1: error: this is a second function driver"),
    ("AddService = card, 2,", "AddService = card, two,", "48:20: error: the flags `two`"),
    (
        "CardService, CardLog",
        "CardServic, CardLog",
        "48:23: error 1203: AddService leads to a section [CardServic]",
    ),
    (
        "CardService, CardLog",
        "CardService, CardLogs",
        "48:36: error 1203: AddService's event log leads to a section [CardLogs]",
    ),
    (
        "AddService = cardflt, , FilterService",
        "AddService = cardflt",
        "49:1: error: AddService = cardflt names no service-install section",
    ),
    (
        "ServiceType   = 1\nStartType     = 3\nErrorControl  = 1\nServiceBinary = %13%\\card.sys",
        "StartType     = 3\nErrorControl  = 1\nServiceBinary = %13%\\card.sys",
        "51:1: error: [CardService] has no ServiceType",
    ),
    (
        "ErrorControl  = 1\nServiceBinary = %13%\\card.sys",
        "ErrorControl  = 4\nServiceBinary = %13%\\card.sys",
        "55:17: error: ErrorControl `4`",
    ),
    (
        "StartType     = 3\nErrorControl  = 1\nServiceBinary = %13%\\card.sys",
        "StartType     = 4\nErrorControl  = 1\nServiceBinary = %13%\\card.sys",
        "54:17: error: StartType 4 is a disabled driver",
    ),
    ("ServiceBinary = %13%\\card.sys\n", "", "51:1: error: [CardService] has no ServiceBinary"),
    (
        "%13%\\card.sys\nAdd",
        "card.sys\nAdd",
        "56:17: error: ServiceBinary `card.sys` does not begin with a directory's number",
    ),
    ("%13%\\card.sys\nAdd", "%14%\\card.sys\nAdd", "56:17: error: ServiceBinary: %14% is no directory"),
    (
        "AddReg        = CardParameters",
        "AddRegg        = CardParameters",
        "57:1: warning: AddRegg is not a directive of [CardService]; did you mean AddReg?",
    ),
    // Interfaces, frameworks, filters, events.
    ("{5e7c9d61-0d56", "{5e7c9d61-0d5", "75:16: error: the interface class `{5e7c9d61-0d5-"),
    (",,CardInterface\n", ",,CardInterface,1\n", "75:70: warning: the flags of AddInterface must be 0"),
    ("KmdfLibraryVersion = 1.31", "KmdfLibraryVersion = 1", "87:22: error: KmdfLibraryVersion `1`"),
    ("KmdfService = card,", "KmdfService = crad,", "84:15: advice: KmdfService names the service crad"),
    ("FilterPosition = Upper", "FilterPosition = Above", "92:1: error: FilterPosition `Above`"),
    (
        "FilterPosition = Upper",
        "Position = Upper",
        "92:1: error: [CardFilter] says nothing of where cardflt belongs",
    ),
    ("ProviderName = Card\n", "", "98:1: error: [CardEvents] has no ProviderName"),
    ("{071acb53-", "{x71acb53-", "96:20: error: the provider `{x71acb53"),
];

#[test]
fn each_mistake_is_told_at_its_place_with_what_to_do() {
    let mut failed = String::new();
    for (from, to, says) in MISTAKES {
        assert!(CARD.contains(from), "{from}");
        let found = findings(&CARD.replacen(from, to, 1));
        if !found.lines().any(|line| line.starts_with(says)) {
            failed += &format!("{from:?} → {to:?}\n  wanted {says}\n  found\n{found}\n");
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

/// The files of `tests/infs`: name and text.
fn packages() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/infs");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn files_of_real_styles_have_no_error_and_install() {
    let packages = packages();
    assert!(packages.len() >= 15);
    for (name, text) in packages {
        let findings = check(&name, text.as_bytes()).unwrap();
        let errors: Vec<Finding> = findings.iter().filter(|it| it.tier == Tier::Error).cloned().collect();
        assert_eq!(shown(&errors), "", "{name}");
        let inf = parse(&name, text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        if name == "minifilter.inf" {
            continue; // has no device
        }
        for id in inf.ids(Target::WINDOWS_11_24H2).unwrap() {
            let device = DeviceIds { hardware: vec![id], compatible: Vec::new() };
            inf.described(&device, Target::WINDOWS_11_24H2).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn they_say_the_same_in_every_encoding() {
    for (name, text) in packages() {
        let lines = text.replace('\n', "\r\n");
        let wide = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}".encode_utf16().chain(lines.encode_utf16()).flat_map(unit).collect()
        };
        let marked: Vec<u8> = "\u{feff}".bytes().chain(lines.bytes()).collect();
        let findings = check(&name, text.as_bytes()).unwrap();
        for bytes in [wide(u16::to_le_bytes), wide(u16::to_be_bytes), marked, lines.clone().into_bytes()] {
            assert_eq!(check(&name, &bytes).unwrap(), findings, "{name}");
        }
    }
}

#[test]
fn only_the_older_files_have_what_is_legacy() {
    for (name, text) in packages() {
        let findings = check(&name, text.as_bytes()).unwrap();
        let warnings: Vec<Finding> = findings.into_iter().filter(|it| it.tier == Tier::Warning).collect();
        let is_old = ["older.inf", "hid.inf", "languages.inf"].contains(&name.as_str());
        assert!(is_old || warnings.is_empty(), "{name}\n{}", shown(&warnings));
    }
}

#[test]
fn the_repositorys_own_files_have_no_error() {
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers");
    let mut found = 0;
    let folders =
        fs::read_dir(drivers).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    for file in folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "inf") {
            let name = file.display().to_string();
            let findings = check(&name, &fs::read(&file).unwrap()).unwrap();
            let errors: Vec<Finding> = findings.into_iter().filter(|it| it.tier == Tier::Error).collect();
            assert_eq!(shown(&errors), "", "{name}");
            found += 1;
        }
    }
    assert!(found >= 15, "{found} files");
}

#[test]
fn mutilated_files_are_looked_at_and_never_panic() {
    let letters: Vec<char> = CARD.chars().collect();
    for at in (0..letters.len()).step_by(7) {
        for with in ['[', ']', '"', '%', ',', '=', '\\', '\n'] {
            let mut changed = letters.clone();
            changed[at] = with;
            let _ = check("card.inf", changed.iter().collect::<String>().as_bytes()).unwrap();
        }
    }
}
