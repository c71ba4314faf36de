//! The translated stretches of code, in the order of their addresses: the cache grows upwards, so each new one is the last.

use super::cache::MapEntry;

/// A translated stretch of code.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// How many instructions its head charged.
    pub(crate) charged: u32,
    /// Original addresses of its instructions; a loop that goes round several times for one charge has them once.
    pub(crate) instructions: Vec<u64>,
    pub(crate) map: Vec<MapEntry>,
    /// Where the same instructions stand without what has failed; 0 if there is no such place.
    pub(crate) retry: u64,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Blocks(Vec<Block>);

impl Blocks {
    /// Adds a block that was written behind all others.
    pub(crate) fn insert(&mut self, block: Block) {
        assert!(self.0.last().is_none_or(|last| last.start < block.start), "the cache grows upwards");
        self.0.push(block);
    }

    /// The block that holds a translated address.
    pub(crate) fn around(&self, translated: u64) -> Option<&Block> {
        let behind = self.0.partition_point(|block| block.start <= translated);
        self.0[..behind].last().filter(|block| translated < block.end)
    }

    pub(crate) fn beginning_at(&mut self, start: u64) -> Option<&mut Block> {
        let index = self.0.binary_search_by_key(&start, |block| block.start).ok()?;
        Some(&mut self.0[index])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.0.iter()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
