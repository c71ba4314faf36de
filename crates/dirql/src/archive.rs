//! A folder as a tar archive: what a run leaves on drive `C:`, and what a folder's hash is of.
//!
//! The POSIX format (*pax interchange format*), which any `tar` unpacks. The same folder gives the same bytes: items in the order of their
//! paths, no times, no owners.

use std::io::{self, Write};

use kernel::fs::{Folder, Item};

/// Bytes of a block.
const BLOCK: usize = 512;
/// The most bytes of a name in a header.
const LONGEST: usize = 100;

/// Writes it.
///
/// # Errors
/// The writer's.
pub(crate) fn write(folder: &Folder, out: &mut dyn Write) -> io::Result<()> {
    for (path, item) in &folder.items {
        let mut name = path.replace('\\', "/");
        let (kind, mode, contents): (u8, &str, &[u8]) = match item {
            Item::Directory => (b'5', "0000755", &[]),
            Item::File(bytes) => (b'0', "0000644", bytes),
        };
        if *item == Item::Directory {
            name.push('/');
        }
        if name.len() > LONGEST || !name.is_ascii() {
            let record = pax_record(&name);
            block(out, "pax", b'x', "0000644", &record)?;
        }
        block(out, &name, kind, mode, contents)?;
    }
    out.write_all(&[0; 2 * BLOCK])
}

/// A header and what follows it, filled up to whole blocks.
fn block(out: &mut dyn Write, name: &str, kind: u8, mode: &str, contents: &[u8]) -> io::Result<()> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(LONGEST)]);
    put(100, mode.as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{:011o}", contents.len()).as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&header)?;
    out.write_all(contents)?;
    out.write_all(&vec![0; contents.len().next_multiple_of(BLOCK) - contents.len()])
}

/// `LENGTH path=NAME`, the length counting itself.
fn pax_record(name: &str) -> Vec<u8> {
    let rest = format!(" path={name}\n");
    let mut length = rest.len();
    while format!("{length}{rest}").len() != length {
        length = format!("{length}{rest}").len();
    }
    format!("{length}{rest}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(pax_record("ab"), b"11 path=ab\n");
        let long = pax_record(&"x".repeat(120));
        assert_eq!((long.len(), &long[..4]), (130, &b"130 "[..]));
    }

    #[test]
    fn an_archive_is_whole_blocks_and_ends_with_two_empty_ones() {
        let items = [("a", Item::Directory), ("a\\b", Item::File(b"text".to_vec()))];
        let folder = Folder { items: items.map(|(path, item)| (path.to_owned(), item)).into() };
        let mut bytes = Vec::new();
        write(&folder, &mut bytes).unwrap();
        assert_eq!(bytes.len(), 5 * BLOCK);
        assert!(bytes.starts_with(b"a/\0") && bytes[BLOCK..].starts_with(b"a/b\0"));
        assert_eq!(&bytes[2 * BLOCK..2 * BLOCK + 4], b"text");
        assert!(bytes[3 * BLOCK..].iter().all(|byte| *byte == 0));
    }
}
