//! The EEPROM's contents, as a card has them and as a file: 16-bit words as hexadecimal text, eight in a line; `#` begins a comment.
//!
//! The same files are what `dirql run --device pci9052,eeprom=FILE` takes.

use std::fmt;

use crate::error::{Error, Result};

/// Words of the part, a 93CS46.
pub const WORDS: u32 = 64;
/// In a line of a file.
const PER_LINE: usize = 8;

/// The words of an EEPROM; those that nothing is said of are FFFFh, as in a new one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    words: [u16; WORDS as usize],
}

impl Default for Image {
    fn default() -> Self {
        Self { words: [0xFFFF; WORDS as usize] }
    }
}

impl Image {
    /// The words, the first one first.
    #[must_use]
    pub const fn words(&self) -> &[u16] {
        &self.words
    }

    /// The words, to be changed.
    pub const fn words_mut(&mut self) -> &mut [u16] {
        &mut self.words
    }

    /// Reads what [`Image`]'s text is. What is missing at the end is FFFFh.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut image = Self::default();
        let mut count = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let written = line.split('#').next().unwrap_or_default();
            for word in written.split_whitespace() {
                let place = image.words.get_mut(count);
                let place = place
                    .ok_or_else(|| Error::new(format!("line {number}: there are more than {WORDS} words")))?;
                let digits = word.len() <= 4 && word.chars().all(|digit| digit.is_ascii_hexdigit());
                let value = u16::from_str_radix(word, 16).ok().filter(|_| digits);
                *place = value.ok_or_else(|| {
                    Error::new(format!(
                        "line {number}: `{word}` is no word; one is at most four hexadecimal digits"
                    ))
                })?;
                count += 1;
            }
        }
        if count == 0 {
            return Err(Error::new("there is no word in it"));
        }
        Ok(image)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, words) in self.words.chunks(PER_LINE).enumerate() {
            let text: Vec<String> = words.iter().map(|word| format!("{word:04x}")).collect();
            writeln!(f, "{} # word {}", text.join(" "), row * PER_LINE)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_as_it_was_written() {
        let mut image = Image::default();
        (image.words_mut()[0], image.words_mut()[63]) = (0x9050, 0x1234);
        assert_eq!(Image::parse(&image.to_string()), Ok(image));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let refused = |text: &str| Image::parse(text).unwrap_err().to_string();
        assert_eq!(refused("# nothing"), "there is no word in it");
        assert_eq!(refused("1\n+2"), "line 2: `+2` is no word; one is at most four hexadecimal digits");
        assert_eq!(refused("12345"), "line 1: `12345` is no word; one is at most four hexadecimal digits");
        assert_eq!(refused(&"0 ".repeat(65)), "line 1: there are more than 64 words");
        assert_eq!(Image::parse("1 # 2\n3").unwrap().words()[..3], [1, 3, 0xFFFF]);
    }
}
