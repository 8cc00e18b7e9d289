//! What is wrong with the authority, and what will be soon: for readiness, metrics and `serve --check`.

use std::sync::PoisonError;

use dayfly_domain::UnixMs;

use super::{
    ca::{CaId, DAY_S},
    kept::UpperCrl,
    turns::Pki,
};

/// When people are told to hold a ceremony.
pub const AREA_ALARM_DAYS: i64 = 14;
pub const ROOT_CRL_ALARM_DAYS: i64 = 30;
/// A company needs time to take in another root.
pub const ROOT_ALARM_DAYS: i64 = 180;

/// One line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PkiHealth {
    /// No certificate can be issued.
    pub faults: Vec<String>,
    pub warnings: Vec<String>,
    /// When the CA of each tier that signs now is over.
    pub root_until: UnixMs,
    pub area_until: UnixMs,
    pub issuing_until: Option<UnixMs>,
    /// When the first CRL of a CA above ours is over; `None`: there is none.
    pub root_crl_until: Option<UnixMs>,
}

impl Pki {
    // SECURITY: `an_authority_that_is_over_is_said_before_and_after`.
    pub fn health(&self, now: UnixMs) -> PkiHealth {
        let area_until = self.area().not_after();
        let issuing_until = self.lasts_until();
        let mut health = PkiHealth {
            root_until: super::ca::window(&self.root()).map(|(_, until)| until).unwrap_or_default(),
            area_until,
            issuing_until,
            root_crl_until: self.carrying_crls().iter().map(|crl| crl.next_update).min(),
            ..PkiHealth::default()
        };
        let fault = self.fault.load();
        let because = fault.as_ref().as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let area = self.area();
        if now > area_until {
            health.faults.push(format!("the area CA {} was over at {area_until}: hold a ceremony", area.id()));
        } else if now.plus_s(AREA_ALARM_DAYS * DAY_S) > area_until {
            health.warnings.push(format!("the area CA {} is over at {area_until}: hold a ceremony", area.id()));
        }
        match issuing_until {
            Some(until) if now <= until => {
                let stuck = fault.as_ref().as_ref().map(|why| format!("issuing CAs do not take turns: {why}"));
                health.warnings.extend(stuck);
            }
            _ => health.faults.push(format!("no issuing CA is in force{because}")),
        }
        health.crls(now);
        if now.plus_s(ROOT_ALARM_DAYS * DAY_S) > health.root_until {
            health.warnings.push(format!("the root is over at {}: make another, and give it out", health.root_until));
        }
        health
    }
}

impl Pki {
    /// Those of CAs above an area CA that still carries something: of a root that was left nobody makes another.
    fn carrying_crls(&self) -> Vec<UpperCrl> {
        let authority = self.authority();
        let areas = || authority.areas.iter().filter(|area| !area.revoked);
        let above: Vec<CaId> = areas().flat_map(|area| &area.above).flat_map(|der| CaId::of_certificate(der)).collect();
        authority.crls.iter().filter(|crl| above.contains(&crl.issuer)).cloned().collect()
    }

    /// What is told was told already today, word for word, or there is nothing to tell.
    pub fn is_news(&self, lines: &[&String], now: UnixMs) -> bool {
        let digest: Vec<String> = lines.iter().map(|line| (*line).clone()).collect();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let again = told.as_ref().is_some_and(|(before, at)| *before == digest && now < at.plus_s(DAY_S));
        if !again {
            *told = Some((digest, now));
        }
        !again && !lines.is_empty()
    }
}

impl PkiHealth {
    fn crls(&mut self, now: UnixMs) {
        match self.root_crl_until {
            Some(until) if now > until => self.warnings.push(format!(
                "the root's CRL was over at {until}: whoever checks every level refuses every certificate; hold a ceremony"
            )),
            Some(until) if now.plus_s(ROOT_CRL_ALARM_DAYS * DAY_S) > until => {
                self.warnings.push(format!("the root's CRL is over at {until}: hold a ceremony"));
            }
            Some(_) => {}
            None => self.warnings.push(
                "there is no CRL of the CAs above: whoever checks every level finds none (`dayfly ca import --crl`)".to_owned(),
            ),
        }
    }
}
