//! Certificates that are asked about: by themselves or by their serial number, as tokens are by
//! themselves. One is matched by its fingerprint; what it says counts only then.

use std::sync::atomic::Ordering;

use base64::{
    Engine,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig,
        general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    },
};
use dayfly_domain::{Kind, LeaseId, Reason, State};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Flow,
    introspect::{Authority, INTROSPECT},
    issue::workload_of,
    sha256,
    words::{Introspected, Refused},
};
use crate::{
    lease::{Lease, Now},
    mint::{pki::Pki, subject},
    store::{LeaseRow, TaskRow},
    sys::offload::offload,
};

const PEM_BEGINS: &str = "-----BEGIN CERTIFICATE-----";
/// A certificate is not larger.
const DER_MAX_BYTES: usize = 16 << 10;
/// A serial number of ours, in hex.
const SERIAL_DIGITS: usize = 32;

/// A certificate, as somebody names it.
pub(super) enum Named {
    /// DER, whatever is in it.
    Certificate(Vec<u8>),
    Serial(LeaseId),
}

impl Named {
    /// PEM (of several the first), base64 or base64url of DER, the id of a lease, or a serial number in hex.
    /// `None`: it looks like none of these.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with(PEM_BEGINS) {
            let read = CertificateDer::from_pem_slice(text.as_bytes());
            return Some(Self::Certificate(read.map(|der| der.to_vec()).unwrap_or_default()));
        }
        if let Ok(lease) = text.parse() {
            return Some(Self::Serial(lease));
        }
        serial(text).map(Self::Serial).or_else(|| der(text).map(Self::Certificate))
    }
}

/// `01:a0:...`, or without the colons; as OpenSSL and browsers show it.
fn serial(text: &str) -> Option<LeaseId> {
    let digits: String = text.strip_prefix("0x").unwrap_or(text).chars().filter(|letter| *letter != ':').collect();
    let hex = digits.len() == SERIAL_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(&digits, 16).ok().map(LeaseId::from_u128)).flatten()
}

fn der(text: &str) -> Option<Vec<u8>> {
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    // A SEQUENCE whose length takes two octets: every certificate is one.
    if !text.starts_with("MI") || text.contains('.') || text.len() > DER_MAX_BYTES * 4 / 3 + 4 {
        return None;
    }
    let plain: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(&plain).or_else(|_| URL_SAFE.decode(&plain)).ok()
}

impl Flow {
    /// As for a token: who may not see the lease, and whatever is over, is `None`.
    pub(super) async fn introspect_certificate(
        &self,
        authority: &Authority,
        named: Named,
        now: Now,
    ) -> Result<Option<Introspected>, Refused> {
        let (id, der) = match &named {
            Named::Serial(id) => (*id, None),
            Named::Certificate(der) => match lease_in(der) {
                Some(id) => (id, Some(der)),
                None => return Ok(None),
            },
        };
        let found = self.table.lease(id).filter(|lease| der.is_none_or(|der| lease.is_of(&sha256(der))));
        let Some(lease) = found else {
            if let Some(der) = der {
                self.look_for_forged_certificate(der.clone(), id, now).await;
            }
            return Ok(None);
        };
        let visible = self.may_see_lease(authority, INTROSPECT, id, &lease);
        // SECURITY: what a tainted CA signed is dead from the moment it is tainted, before that is on the record.
        let tainted = lease.kid.as_deref().is_some_and(|kid| self.is_tainted(kid));
        if !visible || tainted || self.table.lease_state(&lease, now).0 != State::Active {
            return Ok(None);
        }
        self.recorded_certificate(id, &lease).await
    }

    /// What a certificate stands for, from the record of its lease.
    // SECURITY: `an_id_is_no_token`: of a token nobody learns by its id what only its holder may show.
    async fn recorded_certificate(&self, id: LeaseId, lease: &Lease) -> Result<Option<Introspected>, Refused> {
        let reader = self.reader.clone();
        let rows = offload(move || reader.lease(id)).await.map_err(|_| Reason::Internal)?;
        let rows = rows.map_err(|error| Refused::from(error.reason()))?;
        let Some((row, task)) = rows.filter(|(row, _)| row.kind == Kind::X509) else { return Ok(None) };
        Ok(self.claims_of(&row, &task).map(|claims| Introspected { claims, task: lease.task }))
    }

    /// The members that a token for the same would have.
    fn claims_of(&self, row: &LeaseRow, task: &TaskRow) -> Option<Map<String, Value>> {
        let policy = self.policy.load();
        let bundle = policy.bundle();
        let target = bundle.targets.get(&*row.target)?;
        let name = subject(&bundle.trust_domain, &task.template, &workload_of(task)?);
        let actions: Value = serde_json::from_str(&row.actions).ok()?;
        let mut detail = json!({
            "type": "dayfly_task",
            "template": task.template,
            "locations": [target.uri],
            "actions": actions,
            "purpose": task.purpose,
        });
        if let Some(ticket) = &task.ticket {
            detail["ticket"] = json!(ticket);
        }
        let claims = json!({
            "iss": &*self.issuer,
            "sub": name,
            "client_id": name,
            "aud": target.uri,
            "iat": row.issued_at.as_s(),
            "exp": row.expires.as_s(),
            "jti": row.id,
            "txn": task.id,
            "owner": task.owner,
            "authorization_details": [detail],
            "cnf": { "x5t#S256": URL_SAFE_NO_PAD.encode(row.credential_hash) },
        });
        match claims {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// A certificate that a CA of ours signed, over a serial number that no record knows: somebody signs with
    /// its key, or a record was lost. One over a number that is known is no alarm: whoever has the certificate
    /// makes a twin of its signature.
    // SECURITY: `a_certificate_of_ours_that_no_record_knows_is_an_alarm`.
    async fn look_for_forged_certificate(&self, der: Vec<u8>, id: LeaseId, now: Now) {
        let Some(pki) = self.pki().cloned() else { return };
        let reader = self.reader.clone();
        let forged = move || is_signed_leaf(&der, &pki, now) && matches!(reader.lease(id), Ok(None));
        if !matches!(offload(forged).await, Ok(true)) {
            return;
        }
        self.forged_or_lost.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("dayfly_forged_or_lost_total").increment(1);
        tracing::error!(lease = %id, "forged_or_lost: a certificate signed by a CA of ours has no lease");
    }
}

/// Whether it is valid now, signed by a CA of ours, and neither such a CA nor a signer of OCSP answers: those
/// have no leases.
fn is_signed_leaf(der: &[u8], pki: &Pki, now: Now) -> bool {
    let Ok((_, read)) = X509Certificate::from_der(der) else { return false };
    let expired = read.validity().not_after.timestamp() < now.at.as_s();
    let answers_only = read.extended_key_usage().ok().flatten().is_some_and(|usage| {
        usage.value.ocsp_signing && !usage.value.client_auth && !usage.value.server_auth && !usage.value.any
    });
    // SECURITY: of a CA that is tainted or has left too: `a_forgery_by_a_ca_that_is_out_is_an_alarm`.
    let signers = pki.signers();
    let own_ca = signers.iter().any(|ca| **ca == *der);
    !expired && !answers_only && !own_ca && signers.iter().any(|ca| has_signed(ca, &read))
}

fn has_signed(ca: &[u8], leaf: &X509Certificate<'_>) -> bool {
    let Ok((_, above)) = X509Certificate::from_der(ca) else { return false };
    above.subject().as_raw() == leaf.issuer().as_raw() && leaf.verify_signature(Some(above.public_key())).is_ok()
}

/// The lease that a certificate with its serial number would have.
fn lease_in(der: &[u8]) -> Option<LeaseId> {
    let (rest, read) = X509Certificate::from_der(der).ok()?;
    let octets: [u8; 16] = read.raw_serial().try_into().ok()?;
    rest.is_empty().then(|| LeaseId::from_u128(u128::from_be_bytes(octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_serial(text: &str) -> Option<LeaseId> {
        match Named::read(text)? {
            Named::Serial(id) => Some(id),
            Named::Certificate(_) => None,
        }
    }

    #[test]
    fn a_serial_number_is_read_as_tools_show_it() {
        let id = LeaseId::from_u128(0x01a0_c4ff_0000_0000_0000_0000_0000_00ab);
        for text in [
            "01A0C4FF0000000000000000000000AB",
            "0x01a0c4ff0000000000000000000000ab",
            " 01:a0:c4:ff:00:00:00:00:00:00:00:00:00:00:00:ab\n",
            &id.to_string(),
        ] {
            assert_eq!(read_serial(text), Some(id), "{text}");
        }
        for text in ["", "01a0", "eyJhbGciOiJFUzI1NiJ9.e30.AA", "dtc_x", "0x", "g1a0c4ff0000000000000000000000ab"] {
            assert!(Named::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_certificate_is_read_in_every_wrapping() {
        // Of a length that base64 pads.
        let der: Vec<u8> = [0x30, 0x82, 1, 5].into_iter().chain([0xfb; 261]).collect();
        let text = STANDARD.encode(&der);
        let pem = format!("{PEM_BEGINS}\n{text}\n-----END CERTIFICATE-----\n");
        let url = URL_SAFE_NO_PAD.encode(&der);
        for text in [text.as_str(), &pem, &format!("{pem}{pem}"), &url, &format!("{url}=="), &format!("{text}\n")] {
            let read = Named::read(text);
            assert!(matches!(read, Some(Named::Certificate(found)) if found == der), "{text}");
        }
        assert!(matches!(Named::read(&format!("{PEM_BEGINS}\n!")), Some(Named::Certificate(none)) if none.is_empty()));
    }
}
