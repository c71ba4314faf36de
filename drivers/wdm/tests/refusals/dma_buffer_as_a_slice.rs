//! A card writes a common buffer at any moment: there is no slice of it.
use wdm::*;

fn look(buffers: &CommonBuffers<1>) -> &[u8] {
    &buffers.buffer(0)
}

fn main() {}
