//! NTSTATUS names that a script may expect, by value. Source: the page *NTSTATUS Values* ([MS-ERREF] 2.3.1).
//!
//! It is wider than what the kernel returns by itself, since drivers complete requests with statuses of their choice.
//! A test holds it to the names in `abi`, which are known too. Any other status is written as a number.

use super::error::{Outcome, fault, unknown};
use super::lexer::Word;
use super::value::parse_number;

/// The value of a status, by name or number.
pub(super) fn parse_status(word: &Word) -> Outcome<u32> {
    let written = word.text();
    if let Some(&(_, value)) = STATUSES.iter().find(|(name, _)| *name == written) {
        return Ok(value);
    }
    if let Some(value) = in_abi(&written) {
        return Ok(value);
    }
    match parse_number(&written) {
        Some(value) => u32::try_from(value)
            .or_else(|_| fault(word.at, format!("{written} is not a status: it has more than 32 bits"))),
        None => {
            let mut message = unknown("status", &written, STATUSES.iter().map(|(name, _)| *name));
            if !message.contains("did you mean") {
                message = format!("`{written}` is not a status known here; write its number (0xC0000120)");
            }
            fault(word.at, message)
        }
    }
}

/// The name of a status, where it is known here.
#[must_use]
pub fn status_name(value: u32) -> Option<&'static str> {
    let listed = STATUSES.iter().find(|(_, known)| *known == value).map(|(name, _)| *name);
    listed.or_else(|| abi::NtStatus(value).name())
}

/// A status that only `abi` names: it is looked for among the codes of the system's own facility.
fn in_abi(name: &str) -> Option<u32> {
    let severities = [0x0000_0000, 0x4000_0000, 0x8000_0000, 0xc000_0000];
    let mut values = severities.iter().flat_map(|severity| (0..0x1000).map(move |code| severity | code));
    values.find(|&value| name.starts_with("STATUS_") && abi::NtStatus(value).name() == Some(name))
}

pub(super) const STATUSES: &[(&str, u32)] = &[
    ("STATUS_SUCCESS", 0x0000_0000),
    ("STATUS_WAIT_1", 0x0000_0001),
    ("STATUS_USER_APC", 0x0000_00c0),
    ("STATUS_ALERTED", 0x0000_0101),
    ("STATUS_TIMEOUT", 0x0000_0102),
    ("STATUS_PENDING", 0x0000_0103),
    ("STATUS_REPARSE", 0x0000_0104),
    ("STATUS_MORE_ENTRIES", 0x0000_0105),
    ("STATUS_NOTIFY_CLEANUP", 0x0000_010b),
    ("STATUS_NOTIFY_ENUM_DIR", 0x0000_010c),
    ("STATUS_OBJECT_NAME_EXISTS", 0x4000_0000),
    ("STATUS_SERIAL_MORE_WRITES", 0x4000_0008),
    ("STATUS_SERIAL_COUNTER_TIMEOUT", 0x4000_000c),
    ("STATUS_GUARD_PAGE_VIOLATION", 0x8000_0001),
    ("STATUS_DATATYPE_MISALIGNMENT", 0x8000_0002),
    ("STATUS_BREAKPOINT", 0x8000_0003),
    ("STATUS_BUFFER_OVERFLOW", 0x8000_0005),
    ("STATUS_NO_MORE_FILES", 0x8000_0006),
    ("STATUS_PARTIAL_COPY", 0x8000_000d),
    ("STATUS_DEVICE_PAPER_EMPTY", 0x8000_000e),
    ("STATUS_DEVICE_POWERED_OFF", 0x8000_000f),
    ("STATUS_DEVICE_OFF_LINE", 0x8000_0010),
    ("STATUS_DEVICE_BUSY", 0x8000_0011),
    ("STATUS_VERIFY_REQUIRED", 0x8000_0016),
    ("STATUS_NO_MORE_ENTRIES", 0x8000_001a),
    ("STATUS_UNSUCCESSFUL", 0xc000_0001),
    ("STATUS_NOT_IMPLEMENTED", 0xc000_0002),
    ("STATUS_INVALID_INFO_CLASS", 0xc000_0003),
    ("STATUS_INFO_LENGTH_MISMATCH", 0xc000_0004),
    ("STATUS_ACCESS_VIOLATION", 0xc000_0005),
    ("STATUS_IN_PAGE_ERROR", 0xc000_0006),
    ("STATUS_INVALID_HANDLE", 0xc000_0008),
    ("STATUS_INVALID_CID", 0xc000_000b),
    ("STATUS_INVALID_PARAMETER", 0xc000_000d),
    ("STATUS_NO_SUCH_DEVICE", 0xc000_000e),
    ("STATUS_NO_SUCH_FILE", 0xc000_000f),
    ("STATUS_INVALID_DEVICE_REQUEST", 0xc000_0010),
    ("STATUS_END_OF_FILE", 0xc000_0011),
    ("STATUS_WRONG_VOLUME", 0xc000_0012),
    ("STATUS_NO_MEDIA_IN_DEVICE", 0xc000_0013),
    ("STATUS_UNRECOGNIZED_MEDIA", 0xc000_0014),
    ("STATUS_NONEXISTENT_SECTOR", 0xc000_0015),
    ("STATUS_MORE_PROCESSING_REQUIRED", 0xc000_0016),
    ("STATUS_NO_MEMORY", 0xc000_0017),
    ("STATUS_CONFLICTING_ADDRESSES", 0xc000_0018),
    ("STATUS_ILLEGAL_INSTRUCTION", 0xc000_001d),
    ("STATUS_ACCESS_DENIED", 0xc000_0022),
    ("STATUS_BUFFER_TOO_SMALL", 0xc000_0023),
    ("STATUS_OBJECT_TYPE_MISMATCH", 0xc000_0024),
    ("STATUS_NOT_LOCKED", 0xc000_002a),
    ("STATUS_INVALID_PARAMETER_MIX", 0xc000_0030),
    ("STATUS_OBJECT_NAME_INVALID", 0xc000_0033),
    ("STATUS_OBJECT_NAME_NOT_FOUND", 0xc000_0034),
    ("STATUS_OBJECT_NAME_COLLISION", 0xc000_0035),
    ("STATUS_OBJECT_PATH_INVALID", 0xc000_0039),
    ("STATUS_OBJECT_PATH_NOT_FOUND", 0xc000_003a),
    ("STATUS_OBJECT_PATH_SYNTAX_BAD", 0xc000_003b),
    ("STATUS_DATA_OVERRUN", 0xc000_003c),
    ("STATUS_DATA_LATE_ERROR", 0xc000_003d),
    ("STATUS_DATA_ERROR", 0xc000_003e),
    ("STATUS_CRC_ERROR", 0xc000_003f),
    ("STATUS_SHARING_VIOLATION", 0xc000_0043),
    ("STATUS_MUTANT_NOT_OWNED", 0xc000_0046),
    ("STATUS_SEMAPHORE_LIMIT_EXCEEDED", 0xc000_0047),
    ("STATUS_DELETE_PENDING", 0xc000_0056),
    ("STATUS_REVISION_MISMATCH", 0xc000_0059),
    ("STATUS_PRIVILEGE_NOT_HELD", 0xc000_0061),
    ("STATUS_PROCEDURE_NOT_FOUND", 0xc000_007a),
    ("STATUS_INTEGER_DIVIDE_BY_ZERO", 0xc000_0094),
    ("STATUS_INTEGER_OVERFLOW", 0xc000_0095),
    ("STATUS_PRIVILEGED_INSTRUCTION", 0xc000_0096),
    ("STATUS_INSUFFICIENT_RESOURCES", 0xc000_009a),
    ("STATUS_DEVICE_DATA_ERROR", 0xc000_009c),
    ("STATUS_DEVICE_NOT_CONNECTED", 0xc000_009d),
    ("STATUS_DEVICE_POWER_FAILURE", 0xc000_009e),
    ("STATUS_FREE_VM_NOT_AT_BASE", 0xc000_009f),
    ("STATUS_MEMORY_NOT_ALLOCATED", 0xc000_00a0),
    ("STATUS_MEDIA_WRITE_PROTECTED", 0xc000_00a2),
    ("STATUS_DEVICE_NOT_READY", 0xc000_00a3),
    ("STATUS_BAD_IMPERSONATION_LEVEL", 0xc000_00a5),
    ("STATUS_PIPE_DISCONNECTED", 0xc000_00b0),
    ("STATUS_IO_TIMEOUT", 0xc000_00b5),
    ("STATUS_FILE_FORCED_CLOSED", 0xc000_00b6),
    ("STATUS_NOT_SUPPORTED", 0xc000_00bb),
    ("STATUS_DEVICE_DOES_NOT_EXIST", 0xc000_00c0),
    ("STATUS_ADAPTER_HARDWARE_ERROR", 0xc000_00c2),
    ("STATUS_REQUEST_NOT_ACCEPTED", 0xc000_00d0),
    ("STATUS_INTERNAL_ERROR", 0xc000_00e5),
    ("STATUS_INVALID_USER_BUFFER", 0xc000_00e8),
    ("STATUS_UNEXPECTED_IO_ERROR", 0xc000_00e9),
    ("STATUS_INVALID_PARAMETER_1", 0xc000_00ef),
    ("STATUS_INVALID_PARAMETER_2", 0xc000_00f0),
    ("STATUS_INVALID_PARAMETER_3", 0xc000_00f1),
    ("STATUS_INVALID_PARAMETER_4", 0xc000_00f2),
    ("STATUS_CANCELLED", 0xc000_0120),
    ("STATUS_CANNOT_DELETE", 0xc000_0121),
    ("STATUS_FILE_DELETED", 0xc000_0123),
    ("STATUS_FILE_CLOSED", 0xc000_0128),
    ("STATUS_REMOTE_DISCONNECT", 0xc000_013c),
    ("STATUS_INVALID_LEVEL", 0xc000_0148),
    ("STATUS_NO_SUCH_MEMBER", 0xc000_017a),
    ("STATUS_DEVICE_CONFIGURATION_ERROR", 0xc000_0182),
    ("STATUS_INVALID_DEVICE_STATE", 0xc000_0184),
    ("STATUS_IO_DEVICE_ERROR", 0xc000_0185),
    ("STATUS_DEVICE_PROTOCOL_ERROR", 0xc000_0186),
    ("STATUS_TOO_LATE", 0xc000_0189),
    ("STATUS_INVALID_BUFFER_SIZE", 0xc000_0206),
    ("STATUS_INVALID_ADDRESS_COMPONENT", 0xc000_0207),
    ("STATUS_TRANSACTION_TIMED_OUT", 0xc000_0210),
    ("STATUS_NOT_FOUND", 0xc000_0225),
    ("STATUS_RETRY", 0xc000_022d),
    ("STATUS_REQUEST_ABORTED", 0xc000_0240),
    ("STATUS_CONNECTION_ABORTED", 0xc000_0241),
    ("STATUS_RESOURCE_NOT_OWNED", 0xc000_0264),
    ("STATUS_DRIVER_UNABLE_TO_LOAD", 0xc000_026c),
    ("STATUS_NO_MATCH", 0xc000_0272),
    ("STATUS_RANGE_NOT_FOUND", 0xc000_028c),
    ("STATUS_DEVICE_REMOVED", 0xc000_02b6),
    ("STATUS_PNP_REBOOT_REQUIRED", 0xc000_02d2),
    ("STATUS_POWER_STATE_INVALID", 0xc000_02d3),
    ("STATUS_FAILED_DRIVER_ENTRY", 0xc000_0365),
    ("STATUS_DEVICE_ENUMERATION_ERROR", 0xc000_0366),
    ("STATUS_INVALID_DEVICE_OBJECT_PARAMETER", 0xc000_0369),
    ("STATUS_HARDWARE_MEMORY_ERROR", 0xc000_0709),
    ("STATUS_ALREADY_REGISTERED", 0xc000_0718),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_the_vocabulary_of_the_kernel() {
        let mut compared = 0;
        for (name, value) in STATUSES {
            if let Some(known) = abi::NtStatus(*value).name() {
                assert_eq!(known, *name, "{value:#010x}");
                compared += 1;
            }
        }
        assert!(compared >= 30, "abi names only {compared} of them: has NtStatus::name changed?");
    }

    #[test]
    fn a_status_that_only_the_kernel_names_is_known_too() {
        fn word(bare: &str) -> Word<'_> {
            Word::alone(bare, None)
        }
        assert!(!STATUSES.iter().any(|(name, _)| *name == "STATUS_KERNEL_APC"));
        assert_eq!(parse_status(&word("STATUS_KERNEL_APC")), Ok(0x0000_0100));
        assert_eq!(status_name(0x0000_0100), Some("STATUS_KERNEL_APC"));
        assert!(
            parse_status(&word("STATUS_NO_SUCH_THING_AT_ALL"))
                .unwrap_err()
                .message
                .contains("write its number")
        );
    }

    #[test]
    fn no_status_stands_twice() {
        for (index, (name, value)) in STATUSES.iter().enumerate() {
            let twin = STATUSES[..index].iter().find(|(other, same)| other == name || same == value);
            assert_eq!(twin, None, "{name}");
        }
    }
}
