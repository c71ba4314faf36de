//! Stories of flows of control in events alone.
