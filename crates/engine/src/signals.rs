//! stub
pub(crate) fn prepare_thread() -> std::io::Result<()> {
    Ok(())
}
pub(crate) fn set_gs(_address: u64) {}
