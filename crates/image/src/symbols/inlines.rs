//! Inlined calls: which routines' code an address is in, from the innermost out, and the line of each.
//!
//! From the PDB's inline sites or DWARF's inlined subroutines; `Lines` puts them together with the lines. A routine that was inlined
//! everywhere has no address of its own, so names here are of no use for looking one up.

/// The most pieces of inlined code that are kept.
pub(super) const MOST_PIECES: usize = 1 << 20;

/// From `rva` up to `end`, code of a routine that was inlined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Piece {
    pub(super) rva: u32,
    pub(super) end: u32,
    /// How deep: 1 is inlined in the routine that has the address.
    pub(super) depth: u32,
    /// A number of [`Inlines::name`].
    pub(super) name: usize,
    /// The file's number in the lines, and the line: of this code, or of the call, by [`Inlines::calls`].
    pub(super) line: Option<(usize, u32)>,
}

/// All inlined code of an image.
#[derive(Clone, Default, Debug)]
pub(super) struct Inlines {
    pieces: Vec<Piece>,
    names: Vec<String>,
    /// The furthest end of a piece up to each.
    reach: Vec<u32>,
    /// The line of a piece is where it was called (DWARF), and not its own (PDB).
    pub(super) calls: bool,
}

impl Inlines {
    /// The number of a new name.
    pub(super) fn name(&mut self, name: String) -> usize {
        self.names.push(name);
        self.names.len() - 1
    }

    /// The name of that number.
    pub(super) fn name_of(&self, number: usize) -> &str {
        self.names.get(number).map_or("", String::as_str)
    }

    /// Adds a piece; one of no bytes says nothing.
    pub(super) fn push(&mut self, piece: Piece) {
        if piece.rva < piece.end && self.pieces.len() < MOST_PIECES {
            self.pieces.push(piece);
        }
    }

    /// Puts the pieces in order.
    pub(super) fn sort(&mut self) {
        self.pieces.sort_unstable();
        let mut furthest = 0;
        self.reach =
            self.pieces.iter().map(|piece| (furthest = piece.end.max(furthest), furthest).1).collect();
    }

    /// The pieces that `rva` is in, the innermost first; of several of one depth, the nearest.
    pub(super) fn at(&self, rva: u32) -> Vec<Piece> {
        let after = self.pieces.partition_point(|piece| piece.rva <= rva);
        let mut found: Vec<Piece> = Vec::new();
        for index in (0..after).rev() {
            if self.reach[index] <= rva {
                break; // nothing before reaches so far
            }
            let piece = self.pieces[index];
            if rva < piece.end && found.iter().all(|other| other.depth != piece.depth) {
                found.push(piece);
            }
        }
        found.sort_unstable_by_key(|piece| std::cmp::Reverse(piece.depth));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_all_pieces_around_it_the_innermost_first() {
        let mut inlines = Inlines::default();
        let (a, b) = (inlines.name("a".into()), inlines.name("b".into()));
        for (rva, end, depth, name) in [(0x10, 0x40, 1, a), (0x20, 0x30, 2, b), (0x50, 0x60, 1, b)] {
            inlines.push(Piece { rva, end, depth, name, line: None });
        }
        inlines.sort();
        let names = |rva| -> Vec<String> {
            inlines.at(rva).iter().map(|piece| inlines.name_of(piece.name).to_owned()).collect()
        };
        assert_eq!(names(0x28), ["b", "a"]);
        assert_eq!(names(0x38), ["a"]);
        assert_eq!(names(0x48), [""; 0]);
        assert_eq!(names(0x50), ["b"]);
    }
}
