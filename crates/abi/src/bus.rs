//! Kinds of bus, and of configuration data a bus has.
//!
//! Pages: *INTERFACE_TYPE*, *HalGetBusDataByOffset*; `wdm.h` and `ntddk.h`.

use crate::constant::constants;

constants! {
    u32 {
        // Page: *INTERFACE_TYPE*.
        InterfaceTypeUndefined = 0xffff_ffff;
        Internal = 0;
        Isa = 1;
        Eisa = 2;
        MicroChannel = 3;
        TurboChannel = 4;
        PCIBus = 5;
        VMEBus = 6;
        NuBus = 7;
        PCMCIABus = 8;
        CBus = 9;
        MPIBus = 10;
        MPSABus = 11;
        ProcessorInternal = 12;
        InternalPowerBus = 13;
        PNPISABus = 14;
        PNPBus = 15;
        Vmcs = 16;
        ACPIBus = 17;
        MaximumInterfaceType = 18;
    }
    u32 {
        // Page: *HalGetBusDataByOffset*.
        ConfigurationSpaceUndefined = 0xffff_ffff;
        Cmos = 0;
        EisaConfiguration = 1;
        Pos = 2;
        CbusConfiguration = 3;
        PCIConfiguration = 4;
        VMEConfiguration = 5;
        NuBusConfiguration = 6;
        PCMCIAConfiguration = 7;
        MPIConfiguration = 8;
        MPSAConfiguration = 9;
        PNPISAConfiguration = 10;
        SgiInternalConfiguration = 11;
        MaximumBusDataType = 12;
    }
}
