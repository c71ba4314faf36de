//! Readers of events that judge, one file each. They know nothing of the kernel but its events, and the kernel knows none of them.
//!
//! A rule whose state is at hand in the kernel stands there, where the thing happens; here stands what follows from several events. What is
//! said about a driver has its row in the kernel's table of rules. A machine has those that it is asked to have.

#![forbid(unsafe_code)]

mod callbacks;
mod data_races;
mod dpc_stalls;
mod follower;
mod giving;
mod guarantees;
mod kmdf_buffers;
mod kmdf_cancelable;
mod kmdf_device_init;
mod kmdf_locks;
mod kmdf_requests;
mod kmdf_stops;
mod kmdf_surprise_removal;
mod kmdf_waits;
mod promises;
#[cfg(test)]
mod rig;

use kernel::event::Reader;

use follower::Following;
pub use guarantees::Guarantees;

/// A reader that judges.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// Its name: that of the rule in the kernel's table, if it is about drivers.
    pub name: &'static str,
    /// What it looks for.
    pub about: &'static str,
    /// Makes one that has read nothing.
    pub make: fn() -> Box<dyn Reader>,
    /// It reads so much that machines are many times slower: `all` leaves it out.
    pub is_slow: bool,
}

/// All of them, by name.
pub const ALL: &[Judge] = &[
    Judge {
        name: data_races::RULE,
        about: "accesses to the same memory that nothing orders: lost updates, torn structures (docs/races.md); `all` leaves it out, since it is slow",
        make: || Box::new(data_races::DataRaces::default()),
        is_slow: true,
    },
    Judge {
        name: dpc_stalls::RULE,
        about: "a DPC routine that stalls for more than 100 microseconds in all, or it or a service routine that takes long otherwise",
        make: || Box::new(Following(dpc_stalls::DpcStalls::default())),
        is_slow: false,
    },
    Judge {
        name: "guarantees",
        about: "whether dirql itself keeps what drivers are promised of interrupts, DPCs and levels",
        make: || Box::new(Guarantees::default()),
        is_slow: false,
    },
    Judge {
        name: kmdf_buffers::RULE,
        about: "a client of KMDF that asks a request for a buffer or a file that it does not have",
        make: || Box::new(Following(kmdf_buffers::KmdfBuffers::default())),
        is_slow: false,
    },
    Judge {
        name: kmdf_cancelable::RULE,
        about: "a client of KMDF that completes, forwards or marks a request that can be canceled still",
        make: || Box::new(Following(kmdf_cancelable::KmdfCancelable::default())),
        is_slow: false,
    },
    Judge {
        name: kmdf_device_init::RULE,
        about: "a client of KMDF that uses a WDFDEVICE_INIT it has freed, or leaves a control device unfinished",
        make: || Box::new(Following(kmdf_device_init::KmdfDeviceInit::default())),
        is_slow: false,
    },
    Judge {
        name: kmdf_locks::RULE,
        about: "a client of KMDF that releases a lock it does not hold, waits for one that it holds, or sends a request with one",
        make: || Box::new(Following(kmdf_locks::KmdfLocks::default())),
        is_slow: false,
    },
    Judge {
        name: kmdf_requests::RULE,
        about: "a client of KMDF that completes a request twice, or uses one that it has completed",
        make: || Box::new(Following(kmdf_requests::KmdfRequests::default())),
        is_slow: false,
    },
    Judge {
        name: kmdf_stops::RULE,
        about: "a client of KMDF that acknowledges the stop of a request elsewhere than in EvtIoStop",
        make: || Box::new(Following(kmdf_stops::KmdfStops::default())),
        is_slow: false,
    },
    Judge {
        name: kmdf_surprise_removal::RULE,
        about: "a client of KMDF that ends requests in EvtDeviceSurpriseRemoval",
        make: || Box::new(Following(kmdf_surprise_removal::KmdfSurpriseRemoval::default())),
        is_slow: false,
    },
    Judge {
        name: kmdf_waits::RULE,
        about: "a client of KMDF that waits in a callback for that callback, or for a queue",
        make: || Box::new(Following(kmdf_waits::KmdfWaits::default())),
        is_slow: false,
    },
];

/// The name of the one that looks for data races.
pub const RACES: &str = data_races::RULE;

/// The one that looks for data races.
///
/// # Panics
/// Never: it is one of all.
#[must_use]
pub fn races() -> Judge {
    find(RACES).expect("it is one of all")
}

/// Which of them a list names: names with commas between them, `all` (but the slow ones) or `none`.
///
/// # Errors
/// The first name that none has.
pub fn named(list: &str) -> Result<Vec<Judge>, String> {
    match list {
        "all" => Ok(ALL.iter().filter(|judge| !judge.is_slow).copied().collect()),
        "none" => Ok(Vec::new()),
        list => list.split(',').map(str::trim).map(find).collect(),
    }
}

/// The one of this name.
///
/// # Errors
/// The name, if none has it.
pub fn find(name: &str) -> Result<Judge, String> {
    ALL.iter().find(|judge| judge.name == name).copied().ok_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_a_list_names_each_or_says_which_it_does_not() {
        assert!(ALL.is_sorted_by_key(|judge| judge.name));
        let names =
            |list: &str| named(list).map(|found| found.iter().map(|judge| judge.name).collect::<Vec<_>>());
        let quick = ALL.iter().filter(|judge| !judge.is_slow).map(|judge| judge.name);
        assert_eq!(names("all").unwrap(), quick.collect::<Vec<_>>());
        assert!(names("none").unwrap().is_empty());
        assert_eq!(names("guarantees, dpc-stalls").unwrap(), ["guarantees", "dpc-stalls"]);
        assert_eq!(names("guarantee").unwrap_err(), "guarantee");
    }
}
