//! What a row can still match when its issuer's pins and its profile have had their say. In: a row,
//! its issuer, its profile. Out: the values that are left of each claim, and why the others went.
//!
//! It errs on the side of keeping: what it cuts never matches
//! (`what_is_said_never_to_match_never_does`), what it keeps may still not.

use std::collections::BTreeMap;

use super::super::{ClaimMatch, Issuer, Profile, Row};
use crate::{ClaimType, ClaimValue};

/// Why a value can never match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The issuer pins another value.
    Pinned,
    /// The profile refuses such evidence.
    Refused,
    /// It speaks for unreviewed code, and the row is not for it.
    Untrusted,
    /// The profile requires another value.
    Required,
    /// Another claim of the row must have the same value, and has not.
    Differs(String),
    /// The platform sends no such value.
    Impossible,
    /// Evidence with it is refused: it cannot be a part of a workload's name.
    Nameless,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub claim: String,
    pub value: ClaimValue,
    pub why: Why,
}

/// What is left.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Of the row's claims and the issuer's pins.
    pub left: ClaimMatch,
    pub cut: Vec<Cut>,
}

impl Reach {
    pub fn of(row: &Row, issuer: &Issuer, profile: &Profile) -> Self {
        let mut reach = Self { left: pinned(row, issuer), cut: Vec::new() };
        let is_set = |name: &str| issuer.claims.get(name).is_some_and(|rule| rule.kind == ClaimType::Set);
        reach.cut_pins(issuer, &is_set);
        reach.cut_impossible(issuer);
        reach.cut_nameless(issuer, profile);
        loop {
            let before = reach.cut.len();
            reach.cut_refused(row, profile);
            reach.cut_required(profile, &is_set);
            if reach.cut.len() == before {
                return reach;
            }
        }
    }

    /// The first claim of which nothing is left, and why.
    pub fn never(&self) -> Option<(&str, &Why)> {
        let (claim, _) = self.left.iter().find(|(_, values)| values.is_empty())?;
        let cut = self.cut.iter().rfind(|cut| cut.claim == *claim)?;
        Some((claim, &cut.why))
    }

    fn cut_pins(&mut self, issuer: &Issuer, is_set: &impl Fn(&str) -> bool) {
        for (name, pin) in issuer.pin.iter().filter(|(name, _)| !is_set(name)) {
            self.keep(name, &Why::Pinned, |value| value == pin);
        }
    }

    fn cut_impossible(&mut self, issuer: &Issuer) {
        for (name, rule) in issuer.claims.iter().filter(|(_, rule)| !rule.one_of.is_empty()) {
            self.keep(name, &Why::Impossible, |value| match value {
                ClaimValue::String(text) => rule.one_of.contains(text),
                _ => true,
            });
        }
    }

    fn cut_nameless(&mut self, issuer: &Issuer, profile: &Profile) {
        let rules = profile.principal.iter().filter_map(|name| Some((name, issuer.claims.get(name)?)));
        for (name, rule) in rules {
            self.keep(name, &Why::Nameless, |value| match value {
                ClaimValue::String(text) => rule.can_name(text, issuer.trust_domain()),
                _ => true,
            });
        }
    }

    /// Where all other claims of what is refused are certain, the values of the last are refused.
    fn cut_refused(&mut self, row: &Row, profile: &Profile) {
        let refused = profile.refuse.iter().map(|refusal| (&refusal.when, Why::Refused));
        let untrusted = profile.untrusted.iter().filter(|_| !row.untrusted).map(|when| (when, Why::Untrusted));
        for (when, why) in refused.chain(untrusted) {
            let certain = |name: &String, bad: &[ClaimValue]| {
                self.left.get(name).is_some_and(|left| left.iter().all(|value| bad.contains(value)))
            };
            let open: Vec<_> = when.iter().filter(|(name, bad)| !certain(name, bad)).collect();
            let (name, bad) = match (open.as_slice(), when.iter().next()) {
                ([], Some(first)) => first,
                ([one], _) => *one,
                _ => continue,
            };
            self.keep(name, &why, |value| !bad.contains(value));
        }
    }

    fn cut_required(&mut self, profile: &Profile, is_set: &impl Fn(&str) -> bool) {
        let required = profile.require.iter().flat_map(|required| &required.when);
        for (name, good) in required.filter(|(name, _)| !is_set(name)) {
            self.keep(name, &Why::Required, |value| good.contains(value));
        }
        for names in &profile.same {
            for name in names {
                for other in names.iter().filter(|other| *other != name) {
                    let Some(there) = self.left.get(other).cloned() else { continue };
                    self.keep(name, &Why::Differs(other.clone()), |value| there.contains(value));
                }
            }
        }
    }

    /// Cuts the values of a claim that are not kept.
    fn keep(&mut self, name: &str, why: &Why, keep: impl Fn(&ClaimValue) -> bool) {
        let Some(values) = self.left.get_mut(name) else { return };
        let (kept, cut) = std::mem::take(values).into_iter().partition(keep);
        *values = kept;
        let cut: Vec<ClaimValue> = cut;
        let cut = cut.into_iter().map(|value| Cut { claim: name.to_owned(), value, why: why.clone() });
        self.cut.extend(cut);
    }
}

impl Why {
    pub fn text(&self, claim: &str) -> String {
        match self {
            Self::Pinned => format!("the issuer pins another `{claim}`"),
            Self::Refused => format!("the profile refuses such evidence (`{claim}`)"),
            Self::Untrusted => "such evidence speaks for unreviewed code".to_owned(),
            Self::Required => format!("the profile requires another `{claim}`"),
            Self::Differs(other) => format!("`{claim}` and `{other}` are always equal"),
            Self::Nameless => format!("no workload has such a `{claim}`, whole and without wildcards"),
            Self::Impossible => format!("the platform sends no such `{claim}`"),
        }
    }
}

/// All that is certain of evidence that matches the row: its claims, and the issuer's pins.
pub fn pinned(row: &Row, issuer: &Issuer) -> ClaimMatch {
    let pins = issuer.pin.iter().map(|(name, value)| (name.clone(), vec![value.clone()]));
    let mut claims: BTreeMap<_, _> = pins.collect();
    claims.extend(row.claims.clone());
    claims
}
