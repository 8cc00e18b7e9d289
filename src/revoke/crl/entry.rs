//! One revoked certificate, as a CRL and an OCSP answer say it.

use dayfly_domain::{Cause, UnixMs};

use super::super::der;

/// RFC 5280 section 5.3.1, as far as the broker has use for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlReason {
    KeyCompromise = 1,
    Superseded = 4,
    CessationOfOperation = 5,
    PrivilegeWithdrawn = 9,
}

impl From<Cause> for CrlReason {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Completed | Cause::HoldLost | Cause::ParentEnded => Self::CessationOfOperation,
            Cause::Superseded => Self::Superseded,
            Cause::KeyTainted => Self::KeyCompromise,
            Cause::Presented | Cause::Revoked | Cause::Policy | Cause::Conflict => Self::PrivilegeWithdrawn,
        }
    }
}

/// When and why a certificate was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    pub at: UnixMs,
    pub reason: CrlReason,
}

/// A certificate by the octets of its serial number; those of ours are positive and have 16.
pub type Serial = [u8; 16];

/// A certificate on a CRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlEntry {
    pub serial: Serial,
    pub revocation: Revocation,
}

/// `id-ce-cRLReasons`, not critical, up to the reason itself.
const REASON: [u8; 13] = [0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01];

impl CrlEntry {
    /// `revokedCertificates` has one of these for each. Thousands are written a second: into one buffer.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let Self { serial, revocation: Revocation { at, reason } } = self;
        let date = der::time(*at);
        let serial = Number::of(serial);
        der::head(out, der::SEQUENCE, serial.octets().len() + 2 + date.len() + REASON.len() + 1);
        der::head(out, der::INTEGER, serial.octets().len());
        out.extend_from_slice(serial.octets());
        out.extend_from_slice(&date);
        out.extend_from_slice(&REASON);
        out.push(*reason as u8);
    }
}

/// A serial number in its shortest form, with a zero before it where it would be negative.
pub(crate) struct Number {
    octets: [u8; 17],
    from: usize,
}

impl Number {
    pub fn of(serial: &Serial) -> Self {
        let mut octets = [0; 17];
        octets[1..].copy_from_slice(serial);
        let zeros = serial.iter().take_while(|octet| **octet == 0).count().min(15);
        let from = if serial[zeros] > 0x7f { zeros } else { zeros + 1 };
        Self { octets, from }
    }

    pub fn octets(&self) -> &[u8] {
        &self.octets[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_the_reasons_of_the_contract() {
        let reason = |cause| CrlReason::from(cause) as u8;
        let all: Vec<_> = Cause::ALL.iter().map(|cause| (cause.as_str(), reason(*cause))).collect();
        assert_eq!(
            all,
            [
                ("completed", 5),
                ("hold_lost", 5),
                ("parent_ended", 5),
                ("superseded", 4),
                ("presented", 9),
                ("revoked", 9),
                ("policy", 9),
                ("key_tainted", 1),
                ("conflict", 9),
            ]
        );
    }

    #[test]
    fn an_entry_is_what_der_would_write() {
        let revocation = Revocation { at: UnixMs::from_s(1_800_000_000), reason: CrlReason::Superseded };
        for (serial, integer) in [([1; 16], 16), ([0xff; 16], 17), ([0; 16], 1)] {
            let mut written = Vec::new();
            CrlEntry { serial, revocation }.write(&mut written);
            let reason = der::extension(&[0x55, 0x1d, 0x15], false, &[der::ENUMERATED, 1, 4]);
            let number = der::integer(&serial);
            assert_eq!(number.len(), integer + 2);
            assert_eq!(written, der::sequence(&[&number, &der::time(revocation.at), &der::sequence(&[&reason])]));
        }
    }
}
