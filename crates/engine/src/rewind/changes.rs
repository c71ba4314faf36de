//! How a snapshot differs from the next one: which lines of which pages, and what they held.

use std::collections::BTreeMap;

use super::copies::PageId;
use super::lines::{Line, Lines, numbers};

/// The lines of a page stand together; a page may come more than once, with other lines.
#[derive(Default)]
pub(super) struct Changes {
    pages: Vec<(PageId, Lines)>,
    contents: Vec<Line>,
}

impl Changes {
    /// Adds some lines of a page, and what they held.
    pub(super) fn keep(&mut self, id: PageId, lines: Lines, contents: impl Iterator<Item = Line>) {
        if lines != 0 {
            self.pages.push((id, lines));
            self.contents.extend(contents);
        }
    }

    /// The snapshot behind this one goes: a line that changed between the two held then what is kept here already.
    pub(super) fn take_over(&mut self, gone: &Self) {
        let mut known: BTreeMap<PageId, Lines> = BTreeMap::new();
        for (id, lines) in &self.pages {
            *known.entry(*id).or_default() |= lines;
        }
        for (id, lines, contents) in gone.pages() {
            let new = lines & !known.get(&id).unwrap_or(&0);
            let contents = numbers(lines).zip(contents).filter(|(number, _)| new >> number & 1 != 0);
            self.keep(id, new, contents.map(|(_, line)| *line));
        }
    }

    /// In the order they came.
    pub(super) fn pages(&self) -> impl Iterator<Item = (PageId, Lines, &[Line])> {
        let mut rest = &self.contents[..];
        self.pages.iter().map(move |(id, lines)| {
            let (contents, behind) = rest.split_at(lines.count_ones() as usize);
            rest = behind;
            (*id, *lines, contents)
        })
    }

    /// How many pages there are.
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn clear(&mut self) {
        self.pages.clear();
        self.contents.clear();
    }

    /// Whether it has room that would cost something to make anew.
    pub(super) fn has_room(&self) -> bool {
        self.contents.capacity() > 0
    }
}
