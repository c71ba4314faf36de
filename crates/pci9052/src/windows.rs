//! A card on Windows, by the driver's device interface.
//!
//! Pages: *CM_Get_Device_Interface_ListW function*, *CreateFileW function*, *DeviceIoControl function*. Files are those of the standard library;
//! only what it does not have is called by its foreign name. This part is compiled here for Windows, and has not been run on it.
#![allow(unsafe_code, reason = "the standard library has neither device interfaces nor DeviceIoControl")]

use std::fs::{File, OpenOptions};
use std::os::windows::fs::FileExt;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Devices::DeviceAndDriverInstallation::{
    CM_GET_DEVICE_INTERFACE_LIST_PRESENT, CM_Get_Device_Interface_List_SizeW, CM_Get_Device_Interface_ListW,
    CR_SUCCESS,
};
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::core::GUID;

use crate::card::Device;
use crate::error::{Error, Result};

/// The driver's class of device interface.
const INTERFACE: GUID = GUID::from_u128(0x5d62_4f94_8850_40c3_a3fa_a4fd_2080_baf3);

/// A file of the driver's.
pub struct Opened {
    file: File,
}

/// The paths of all cards that are there, in the system's order.
///
/// # Errors
/// The configuration manager refused.
pub fn cards() -> Result<Vec<String>> {
    let refused = |code: u32| Error::new(format!("the configuration manager answers {code:#x}"));
    let mut length = 0;
    // SAFETY: both pointers are to live values; a null device id asks for all devices.
    let answer = unsafe {
        CM_Get_Device_Interface_List_SizeW(
            &raw mut length,
            &INTERFACE,
            std::ptr::null(),
            CM_GET_DEVICE_INTERFACE_LIST_PRESENT,
        )
    };
    if answer != CR_SUCCESS {
        return Err(refused(answer));
    }
    let mut names = vec![0_u16; length as usize];
    // SAFETY: `names` has room for the `length` characters that are said to be there.
    let answer = unsafe {
        CM_Get_Device_Interface_ListW(
            &INTERFACE,
            std::ptr::null(),
            names.as_mut_ptr(),
            length,
            CM_GET_DEVICE_INTERFACE_LIST_PRESENT,
        )
    };
    if answer != CR_SUCCESS {
        return Err(refused(answer));
    }
    let names = names.split(|character| *character == 0).filter(|name| !name.is_empty());
    Ok(names.map(String::from_utf16_lossy).collect())
}

/// Opens the card at a path of [`cards`].
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &str) -> Result<Opened> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map(|file| Opened { file }).map_err(|error| Error::new(format!("{path}: {error}")))
}

fn failed(error: std::io::Error) -> Error {
    Error::new(error.to_string())
}

impl Device for Opened {
    fn control(&self, code: u32, input: &[u8], output: u32) -> Result<Vec<u8>> {
        let length = u32::try_from(input.len()).map_err(|_| Error::new("the input is too long"))?;
        let (mut bytes, mut returned) = (vec![0_u8; output as usize], 0);
        // SAFETY: the file is open, the buffers live until the call returns and are as long as the call says; it is not overlapped.
        let is_done = unsafe {
            DeviceIoControl(
                self.file.as_raw_handle(),
                code,
                input.as_ptr().cast(),
                length,
                bytes.as_mut_ptr().cast(),
                output,
                &raw mut returned,
                std::ptr::null_mut(),
            )
        };
        if is_done == 0 {
            return Err(failed(std::io::Error::last_os_error()));
        }
        bytes.truncate(returned as usize);
        Ok(bytes)
    }

    fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        let count = self.file.seek_read(&mut bytes, offset).map_err(failed)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let count = self.file.seek_write(bytes, offset).map_err(failed)?;
        if count == bytes.len() {
            return Ok(());
        }
        Err(Error::new(format!("{count} of {} bytes were written", bytes.len())))
    }
}
