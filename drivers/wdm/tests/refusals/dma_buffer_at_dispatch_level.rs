//! Common buffers are allocated at PASSIVE_LEVEL.
use wdm::*;

fn dpc(adapter: DmaAdapter, dispatch: &mut Dispatch) {
    let _ = adapter.with_common_buffers([4096], Caching::Cached, dispatch);
}

fn main() {}
