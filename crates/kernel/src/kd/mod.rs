//! `Kd*`, `DbgPrint`: text for the debugger.
