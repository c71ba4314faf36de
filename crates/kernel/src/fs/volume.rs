//! What is known of the volume as a whole.
//!
//! Pages: *ZwQueryVolumeInformationFile function*, *ZwSetVolumeInformationFile function*, *FILE_FS_SIZE_INFORMATION structure* and its neighbours. It says that it is NTFS, as drive
//! `C:` of a Windows of today is, and claims none of what it has not: no streams, descriptors, quotas or links.

#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    DriverPtr, FILE_DEVICE_DISK, FileFsAttributeInformation, FileFsDeviceInformation,
    FileFsFullSizeInformation, FileFsLabelInformation, FileFsSectorSizeInformation, FileFsSizeInformation,
    FileFsVolumeInformation, IO_STACK_LOCATION, IRP, NtStatus,
};
use engine::Flow;

use super::dispatch::Asked;
use super::file_information::{into_buffer, other_class};
use super::path::LONGEST;
use super::tree::{CAPACITY, CLUSTER};
use crate::cx::Cx;
use crate::fields::Fields;
use crate::io::system_request::Answer;
use crate::ke::time;
use crate::ob::string;

/// Bytes of a sector.
pub(super) const SECTOR: u32 = 512;
const SECTORS_PER_CLUSTER: u32 = 8;
const _: () = assert!(CLUSTER == SECTOR as u64 * SECTORS_PER_CLUSTER as u64);

/// `FILE_CASE_PRESERVED_NAMES` and `FILE_UNICODE_ON_DISK`.
const ATTRIBUTES: u32 = 0x2 | 0x4;
/// `FILE_DEVICE_IS_MOUNTED`.
const IS_MOUNTED: u32 = 0x20;
/// Always the same, as the volume is.
const SERIAL_NUMBER: u32 = 0xD112_0001;
/// Classes that Windows has besides: quotas, object id, driver path, volume flags, data copy, metadata size, the newer full size.
const OTHERS: &[u32] = &[6, 8, 9, 10, 12, 13, 14];

fn text(text: &str) -> Vec<u8> {
    let bytes = string::encode(text);
    bytes[..bytes.len() - 2].to_vec()
}

/// `IRP_MJ_SET_VOLUME_INFORMATION`: the label, by who has opened the volume itself.
pub(super) fn set(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    /// `FileFsControlInformation`, `FileFsObjectIdInformation`.
    const OTHERS: &[u32] = &[6, 8];
    const LONGEST_LABEL: u32 = 64;
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_SetVolume_Length)?;
    let class = cx.read(asked.location + IO_STACK_LOCATION::Parameters_SetVolume_FsInformationClass)?;
    if class != FileFsLabelInformation {
        return other_class(cx, "ZwSetVolumeInformationFile", class, OTHERS);
    }
    if length < 6 {
        return Ok(Answer::failed(NtStatus::INFO_LENGTH_MISMATCH));
    }
    if !cx.with(|k| k.fs.opens.get(&asked.file.address).is_some_and(|open| open.node.is_none())) {
        return Ok(Answer::failed(NtStatus::INVALID_PARAMETER));
    }
    let buffer = cx.read(asked.irp + IRP::AssociatedIrp_SystemBuffer)?.address;
    let bytes = cx.read(DriverPtr::<u32>::new(buffer))?;
    if bytes % 2 != 0 || bytes > length - 4 {
        return Ok(Answer::failed(NtStatus::INVALID_PARAMETER));
    }
    if bytes > LONGEST_LABEL {
        return Ok(Answer::failed(NtStatus::INVALID_VOLUME_LABEL));
    }
    let label = cx.read_bytes(buffer + 4, bytes.into())?;
    cx.with(|k| k.fs.label = Some(label));
    Ok(Answer::failed(NtStatus::SUCCESS))
}

/// `IRP_MJ_QUERY_VOLUME_INFORMATION`.
pub(super) fn query(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_QueryVolume_Length)?;
    let class = cx.read(asked.location + IO_STACK_LOCATION::Parameters_QueryVolume_FsInformationClass)?;
    let free = cx.with(|k| k.fs.tree().free()) / CLUSTER;
    let all = CAPACITY / CLUSTER;
    let fields = Fields::default();
    let (fields, least) = match class {
        FileFsVolumeInformation => {
            let label = cx.with(|k| k.fs.label.clone()).unwrap_or_else(|| text("dirql"));
            (fields.u64(time::BOOT).u32(SERIAL_NUMBER).size(label.len()).u16(0).bytes(&label), 24)
        }
        FileFsSizeInformation => (fields.u64(all).u64(free).u32(SECTORS_PER_CLUSTER).u32(SECTOR), 24),
        FileFsFullSizeInformation => {
            (fields.u64(all).u64(free).u64(free).u32(SECTORS_PER_CLUSTER).u32(SECTOR), 32)
        }
        FileFsDeviceInformation => (fields.u32(FILE_DEVICE_DISK).u32(IS_MOUNTED), 8),
        FileFsAttributeInformation => {
            let name = text("NTFS");
            (fields.u32(ATTRIBUTES).size(LONGEST).size(name.len()).bytes(&name), 16)
        }
        FileFsSectorSizeInformation => {
            // Logical, physical for atomicity and performance, effective; flags: device and partition are aligned.
            (fields.u32(SECTOR).u32(SECTOR).u32(SECTOR).u32(SECTOR).u32(3).u32(0).u32(0), 28)
        }
        _ => return other_class(cx, "ZwQueryVolumeInformationFile", class, OTHERS),
    };
    into_buffer(cx, asked, &fields.done(), least, length)
}
