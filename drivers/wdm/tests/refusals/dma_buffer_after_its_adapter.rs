//! A common buffer is freed with its adapter.
use wdm::*;

fn late(buffers: CommonBuffers<1>) -> usize {
    let buffer = buffers.buffer(0);
    drop(buffers);
    buffer.len()
}

fn main() {}
