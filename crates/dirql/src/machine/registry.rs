//! What an installation writes to the registry.

use engine::Flow;
use kernel::Cx;
use kernel::pnp::NodeId;

use crate::inf::Installation;

pub(super) fn write_service(
    _cx: &mut Cx<'_>,
    _service: &str,
    _file: &str,
    _installation: Option<&Installation>,
) -> Flow<()> {
    Ok(())
}

pub(super) fn write_device(_cx: &mut Cx<'_>, _node: NodeId, _installation: &Installation) -> Flow<()> {
    Ok(())
}
