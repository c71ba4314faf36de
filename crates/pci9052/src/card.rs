//! An open card: what the driver can be asked, as functions.

use crate::codes;
use crate::eeprom::{Image, WORDS};
use crate::error::{Error, Result};

/// What carries requests to the driver: an open file, on Windows or on the bench.
pub trait Device {
    /// `DeviceIoControl` with a buffer for so many bytes of output; what came out.
    ///
    /// # Errors
    /// The request failed.
    fn control(&self, code: u32, input: &[u8], output: u32) -> Result<Vec<u8>>;

    /// `ReadFile` of so many bytes at an offset; what came, which may be less.
    ///
    /// # Errors
    /// The request failed.
    fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>>;

    /// `WriteFile` at an offset.
    ///
    /// # Errors
    /// The request failed.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// What happened on a card since its driver was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Transfers that ended well.
    pub transfers: u32,
    /// Interrupts that the driver claimed.
    pub interrupts: u32,
    /// Interrupts that it left to others on the line.
    pub passed: u32,
    /// Bytes of local space.
    pub local: u32,
}

/// A card that is open.
pub struct Card<'d> {
    device: &'d dyn Device,
}

impl<'d> Card<'d> {
    /// The card behind an open file of the driver's.
    #[must_use]
    pub const fn new(device: &'d dyn Device) -> Self {
        Self { device }
    }

    /// What happened on it.
    ///
    /// # Errors
    /// The driver refused.
    pub fn counters(&self) -> Result<Counters> {
        let [transfers, interrupts, passed, local] = self.control(codes::COUNTERS, &[])?;
        Ok(Counters { transfers, interrupts, passed, local })
    }

    /// Bytes of local memory, from an offset on.
    ///
    /// # Errors
    /// They are not all there; the driver refused.
    pub fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.device.read(offset, length)
    }

    /// Writes local memory.
    ///
    /// # Errors
    /// As [`Card::read`].
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.device.write(offset, bytes)
    }

    /// A local configuration register, by its offset (0–50h).
    ///
    /// # Errors
    /// There is none there; the driver refused.
    pub fn register(&self, offset: u32) -> Result<u32> {
        self.control(codes::READ_LCR, &[offset]).map(|[value]| value)
    }

    /// Writes a local configuration register. The driver takes those that an application may change (28h–48h), and of CNTRL the user
    /// pins' bits.
    ///
    /// # Errors
    /// As [`Card::register`]; it is not for applications.
    pub fn set_register(&self, offset: u32, value: u32) -> Result<()> {
        self.control(codes::WRITE_LCR, &[offset, value]).map(|[]| ())
    }

    /// Waits for an interrupt that no transfer caused. There is no end to it but the interrupt, or the card's.
    ///
    /// # Errors
    /// The card has gone; the driver refused.
    pub fn wait(&self) -> Result<()> {
        self.control(codes::WAIT, &[]).map(|[]| ())
    }

    /// A word of the EEPROM (0–63).
    ///
    /// # Errors
    /// There is no EEPROM, or no such word.
    pub fn eeprom_word(&self, word: u32) -> Result<u16> {
        let [value] = self.control(codes::READ_EEPROM, &[word])?;
        u16::try_from(value).map_err(|_| Error::new(format!("EEPROM word {word} is said to be {value:#x}")))
    }

    /// Writes a word of the EEPROM; the card takes it over when it is reset or loses power.
    ///
    /// # Errors
    /// As [`Card::eeprom_word`].
    pub fn set_eeprom_word(&self, word: u32, value: u16) -> Result<()> {
        self.control(codes::WRITE_EEPROM, &[word, value.into()]).map(|[]| ())
    }

    /// The whole EEPROM.
    ///
    /// # Errors
    /// As [`Card::eeprom_word`].
    pub fn eeprom(&self) -> Result<Image> {
        let mut image = Image::default();
        for (word, value) in (0..WORDS).zip(image.words_mut()) {
            *value = self.eeprom_word(word)?;
        }
        Ok(image)
    }

    /// Writes those words of the EEPROM that are others, and reads each back. How many there were.
    ///
    /// # Errors
    /// As [`Card::eeprom_word`]; a word does not read back.
    pub fn restore_eeprom(&self, image: &Image) -> Result<usize> {
        let mut written = 0;
        for (word, value) in (0..WORDS).zip(image.words()) {
            if self.eeprom_word(word)? == *value {
                continue;
            }
            self.set_eeprom_word(word, *value)?;
            let found = self.eeprom_word(word)?;
            if found != *value {
                let message = format!("EEPROM word {word} was written as {value:04x} and reads {found:04x}");
                return Err(Error::new(message));
            }
            written += 1;
        }
        Ok(written)
    }

    /// A request whose buffers hold numbers of 32 bits, little endian.
    fn control<const OUTPUT: usize>(&self, code: u32, input: &[u32]) -> Result<[u32; OUTPUT]> {
        let bytes: Vec<u8> = input.iter().flat_map(|number| number.to_le_bytes()).collect();
        let room = u32::try_from(OUTPUT * 4).expect("a few numbers");
        let output = self.device.control(code, &bytes, room)?;
        let numbers = output.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let numbers: Vec<u32> = numbers.collect();
        numbers.try_into().map_err(|found: Vec<u32>| {
            Error::new(format!("the driver's answer has {} numbers instead of {OUTPUT}", found.len()))
        })
    }
}
