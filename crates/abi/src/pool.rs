//! Kinds of pool, and flags of allocations.
//!
//! Pages: *POOL_TYPE*, *POOL_FLAGS*, *ExAllocatePool3*; `wdm.h`.

use crate::constant::constants;

constants! {
    u32 {
        // Page: *POOL_TYPE*.
        NonPagedPool = 0;
        NonPagedPoolExecute = 0;
        PagedPool = 1;
        NonPagedPoolMustSucceed = 2;
        DontUseThisType = 3;
        NonPagedPoolCacheAligned = 4;
        PagedPoolCacheAligned = 5;
        NonPagedPoolCacheAlignedMustS = 6;
        MaxPoolType = 7;
        NonPagedPoolBase = 0;
        NonPagedPoolBaseMustSucceed = 2;
        NonPagedPoolBaseCacheAligned = 4;
        NonPagedPoolBaseCacheAlignedMustS = 6;
        NonPagedPoolSession = 32;
        PagedPoolSession = 33;
        NonPagedPoolMustSucceedSession = 34;
        DontUseThisTypeSession = 35;
        NonPagedPoolCacheAlignedSession = 36;
        PagedPoolCacheAlignedSession = 37;
        NonPagedPoolCacheAlignedMustSSession = 38;
        NonPagedPoolNx = 512;
        NonPagedPoolNxCacheAligned = 516;
        NonPagedPoolSessionNx = 544;
        POOL_QUOTA_FAIL_INSTEAD_OF_RAISE = 8;
        POOL_RAISE_IF_ALLOCATION_FAILURE = 16;
        POOL_COLD_ALLOCATION = 256;
    }
    u32, not_in_mingw "newer than mingw's kit" {
        POOL_NX_ALLOCATION = 512;
        POOL_ZERO_ALLOCATION = 1024;
    }
    u32 {
        // Page: *EX_POOL_PRIORITY*.
        LowPoolPriority = 0;
        LowPoolPrioritySpecialPoolOverrun = 8;
        LowPoolPrioritySpecialPoolUnderrun = 9;
        NormalPoolPriority = 16;
        NormalPoolPrioritySpecialPoolOverrun = 24;
        NormalPoolPrioritySpecialPoolUnderrun = 25;
        HighPoolPriority = 32;
        HighPoolPrioritySpecialPoolOverrun = 40;
        HighPoolPrioritySpecialPoolUnderrun = 41;
    }
    u64, not_in_mingw "newer than mingw's kit" {
        // Page: *POOL_FLAGS*, for `ExAllocatePool2` and `ExAllocatePool3`.
        POOL_FLAG_REQUIRED_START = 0x1;
        POOL_FLAG_USE_QUOTA = 0x1;
        POOL_FLAG_UNINITIALIZED = 0x2;
        POOL_FLAG_SESSION = 0x4;
        POOL_FLAG_CACHE_ALIGNED = 0x8;
        POOL_FLAG_RAISE_ON_FAILURE = 0x20;
        POOL_FLAG_NON_PAGED = 0x40;
        POOL_FLAG_NON_PAGED_EXECUTE = 0x80;
        POOL_FLAG_PAGED = 0x100;
        POOL_FLAG_REQUIRED_END = 0x8000_0000;
        POOL_FLAG_OPTIONAL_START = 0x1_0000_0000;
        POOL_FLAG_SPECIAL_POOL = 0x1_0000_0000;
        POOL_FLAG_OPTIONAL_END = 0x8000_0000_0000_0000;
    }
    u8, not_in_mingw "newer than mingw's kit" {
        // `POOL_EXTENDED_PARAMETER::Bits`, its low byte.
        PoolExtendedParameterInvalidType = 0;
        PoolExtendedParameterPriority = 1;
        PoolExtendedParameterSecurePool = 2;
        PoolExtendedParameterNumaNode = 3;
    }
}
