//! `[Manufacturer]` and the models sections: which entry of the file is the device's.
//!
//! Follows *INF Manufacturer Section*, *INF Models Section*, *How Windows Ranks Drivers* and *Identifier Score*. The signature score is left
//! out: there is one INF file, and nothing is signed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::error::{Outcome, Spot, fault};
use super::sections::{Section, Sections};
use super::target::{Target, fit, number};

/// What the bus driver says a device is, the most specific first, as *Device Identification Strings* has it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeviceIds {
    /// Hardware ids.
    pub hardware: Vec<String>,
    /// Compatible ids.
    pub compatible: Vec<String>,
}

/// An entry of a models section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Model {
    pub(super) spot: Spot,
    pub(super) description: String,
    pub(super) manufacturer: String,
    /// The install section's name without decoration.
    pub(super) install: String,
    /// The hardware id, then the compatible ids; some may be empty.
    pub(super) ids: Vec<String>,
}

/// All models for this Windows, in the order of the file.
pub(super) fn models(sections: &Sections, target: Target) -> Outcome<Vec<Model>> {
    let Some(manufacturers) = sections.get("Manufacturer") else {
        return fault(
            None,
            "there is no [Manufacturer] section, so that the file installs no device; give the INF of the device"
                .to_owned(),
        );
    };
    let mut models = Vec::new();
    let mut others = Vec::new();
    let mut found = false;
    for entry in manufacturers.entries() {
        let base = entry.value(0)?;
        let decorations = entry.values_from(1)?;
        let best = decorations
            .iter()
            .filter_map(|decoration| Some((fit(decoration, target)?, decoration)))
            .max_by_key(|(fit, _)| *fit);
        let Some((_, decoration)) = best else {
            others.push(format!("[{base}]"));
            others.extend(decorations.iter().filter(|d| !d.is_empty()).map(|d| format!("[{base}.{d}]")));
            continue;
        };
        found = true;
        let manufacturer = entry.key()?.unwrap_or_else(|| base.clone());
        let section = sections.led_to(&format!("{base}.{decoration}"), entry.spot_of(0))?;
        for model in section.entries() {
            let description = model.key()?.unwrap_or_default();
            let (install, ids) = (model.value(0)?, model.values_from(1)?);
            if install.is_empty() || ids.iter().all(String::is_empty) {
                return fault(
                    Some(model.spot()),
                    "a model needs an install section and a device id; write `%Description% = Section, PCI\\VEN_…`".to_owned(),
                );
            }
            models.push(Model {
                spot: model.spot(),
                description,
                manufacturer: manufacturer.clone(),
                install,
                ids,
            });
        }
    }
    if !found {
        let Target { major, minor, build } = target;
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        return fault(
            Some(manufacturers.spot()),
            format!(
                "[Manufacturer] leads to no models for x64 Windows {major}.{minor}.{build} (it has: {others}); \
                 decorate one as `%Name% = Section, NTamd64` and [Section.NTamd64]"
            ),
        );
    }
    Ok(models)
}

/// Each id once, in the order of the models.
pub(super) fn ids(models: &[Model]) -> Vec<String> {
    let mut known = BTreeSet::new();
    let all = models.iter().flat_map(|model| &model.ids).filter(|id| !id.is_empty());
    all.filter(|id| known.insert(id.to_ascii_lowercase())).cloned().collect()
}

/// How well a model fits a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Match<'a> {
    pub(super) model: &'a Model,
    /// The rank, `00GGTHHH`: the feature score, then the identifier score, 0–3FFFh. The less the better.
    pub(super) rank: u32,
    pub(super) id: String,
}

/// The feature score of drivers that have none.
const NO_FEATURES: u32 = 0xff;

/// The feature score that a model's install section has.
fn feature_score(sections: &Sections, model: &Model) -> u32 {
    let section = actual(sections, &model.install);
    let score = section.and_then(|section| number(&section.value_of("FeatureScore")?));
    score.filter(|score| *score <= NO_FEATURES).unwrap_or(NO_FEATURES)
}

/// The install section with the decoration that x64 prefers: *INF DDInstall Section*.
pub(super) fn actual<'a>(sections: &'a Sections, install: &str) -> Option<Section<'a>> {
    [".NTamd64", ".NT", ""].iter().find_map(|decoration| sections.get(&format!("{install}{decoration}")))
}

/// The model that fits best, by its features first; the first of equals.
pub(super) fn best<'a>(sections: &Sections, models: &'a [Model], device: &DeviceIds) -> Option<Match<'a>> {
    let mut best: Option<Match<'_>> = None;
    for model in models {
        for (index, id) in model.ids.iter().enumerate() {
            let Some(score) = score(index, id, device) else { continue };
            let rank = feature_score(sections, model) << 16 | score;
            if best.as_ref().is_none_or(|best| rank < best.rank) {
                best = Some(Match { model, rank, id: id.clone() });
            }
        }
    }
    best
}

/// As [`best`] for a device that has one id alone, for each id of the models, in their order.
pub(super) fn best_of_each<'a>(sections: &Sections, models: &'a [Model]) -> Vec<(String, Match<'a>)> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut all: Vec<(String, Match<'a>)> = Vec::new();
    for model in models {
        let features = feature_score(sections, model) << 16;
        for (index, id) in model.ids.iter().enumerate().filter(|(_, id)| !id.is_empty()) {
            let alone = DeviceIds { hardware: vec![id.clone()], compatible: Vec::new() };
            let Some(score) = score(index, id, &alone) else { continue };
            let found = Match { model, rank: features | score, id: id.clone() };
            match places.entry(id.to_ascii_lowercase()) {
                Entry::Vacant(place) => {
                    place.insert(all.len());
                    all.push((id.clone(), found));
                }
                Entry::Occupied(place) => {
                    let known = &mut all[*place.get()].1;
                    if found.rank < known.rank {
                        *known = found;
                    }
                }
            }
        }
    }
    all
}

/// The identifier score of the `index`-th id of a model: 0 is its hardware id, the others are compatible ids.
fn score(index: usize, id: &str, device: &DeviceIds) -> Option<u32> {
    let place = |ids: &[String]| {
        let found = ids.iter().position(|own| !own.is_empty() && own.eq_ignore_ascii_case(id))?;
        u32::try_from(found).ok()
    };
    let of_compatible = index.checked_sub(1).map(|position| u32::try_from(position).unwrap_or(u32::MAX));
    match (place(&device.hardware), place(&device.compatible), of_compatible) {
        (Some(at), _, None) => Some(at.min(0xfff)),
        (Some(at), _, Some(_)) => Some(0x1000 + at.min(0xfff)),
        (None, Some(at), None) => Some(0x2000 + at.min(0xfff)),
        (None, Some(at), Some(position)) => {
            Some(0x3000 + at.saturating_add(position.saturating_mul(0x100)).min(0xfff))
        }
        (None, None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceIds {
        let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        DeviceIds {
            hardware: owned(&["PCI\\VEN_10B5&DEV_9050&SUBSYS_905010B5&REV_02", "PCI\\VEN_10B5&DEV_9050"]),
            compatible: owned(&["PCI\\VEN_10B5&CC_068000", "PCI\\VEN_10B5"]),
        }
    }

    #[test]
    fn ids_are_scored_as_windows_does() {
        let device = device();
        assert_eq!(score(0, "pci\\ven_10b5&dev_9050", &device), Some(0x0001));
        assert_eq!(score(2, "PCI\\VEN_10B5&DEV_9050", &device), Some(0x1001));
        assert_eq!(score(0, "PCI\\VEN_10B5", &device), Some(0x2001));
        assert_eq!(score(2, "PCI\\VEN_10B5", &device), Some(0x3101));
        assert_eq!(score(0, "PCI\\VEN_10B5&DEV_9054", &device), None);
    }

    #[test]
    fn the_more_specific_id_wins_wherever_it_stands() {
        let model = |line, ids: &[&str]| Model {
            spot: Spot { line, column: 1 },
            description: String::new(),
            manufacturer: String::new(),
            install: format!("I{line}"),
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
        };
        let models = [
            model(1, &["PCI\\VEN_10B5"]),
            model(2, &["PCI\\VEN_10B5&DEV_9050"]),
            model(3, &["", "PCI\\VEN_10B5&DEV_9050&SUBSYS_905010B5&REV_02"]),
            model(4, &["PCI\\VEN_10B5&DEV_9050"]),
        ];
        let line = |text: &str| {
            let sections = Sections::parse(text.to_owned()).unwrap();
            let best = best(&sections, &models, &device()).unwrap();
            (best.model.spot.line, best.rank)
        };
        assert_eq!(line("[I]\n"), (2, 0x00ff_0001));
        assert_eq!(line("[I4]\nFeatureScore = 0xFE\n"), (4, 0x00fe_0001), "features go first");
        assert_eq!(line("[I1.NTamd64]\nFeatureScore = 10\n[I1]\n"), (1, 0x000a_2001));
    }
}
