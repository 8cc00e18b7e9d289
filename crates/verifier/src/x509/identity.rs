//! Who a leaf names, and whether that is somebody who may enter. In: a leaf whose chain holds. Out: the
//! workload, its template and its lease.

use std::{collections::BTreeSet, fmt};

use dayfly_domain::{LeaseId, Name, UnixMs, spiffe, spiffe::SpiffeId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::PeerRefusal;

/// Whom a server lets in. Nobody, until a template is admitted.
#[derive(Debug, Clone)]
pub struct PeerRules {
    trust_domain: Box<str>,
    templates: BTreeSet<Name>,
    untrusted: bool,
    revocation: Revocation,
}

/// How a server hears of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revocation {
    /// By lists, for every level of the chain. Without them nobody enters.
    #[default]
    Crls,
    /// By introspection or OCSP, which the server asks itself, or not before `notAfter`. Lists that are there
    /// count all the same.
    Elsewhere,
}

/// Rules that let in nobody, and were not meant so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the trust domain is no name of one: lower-case letters, digits, `.`, `-` and `_`")]
pub struct RulesError;

/// Whose certificate it is. Made by [`super::check_peer`] alone.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// `spiffe://<trust domain>/<template>/<issuer>/<ids...>`, at most 127 bytes.
    pub spiffe_id: String,
    /// What it may do: servers authorise by this.
    pub template: Name,
    /// Who vouched for it: an issuer of the broker's bundle. Absent where the whole name was too long.
    pub issuer: Option<Name>,
    /// The issuer's ids for it; a single hash where they were too long.
    pub ids: Vec<String>,
    /// It speaks for code that nobody reviewed (a pull request from outside, say).
    pub untrusted: bool,
    /// The serial number: the same 128 bits.
    pub lease: LeaseId,
    /// The last second in which it is valid.
    pub not_after: UnixMs,
    /// SHA-256 of the DER.
    pub fingerprint: [u8; 32],
}

/// As `crate::mint::name` of the broker makes them.
const NAME_MAX_BYTES: usize = 127;
const UNTRUSTED: &str = "untrusted";
const HASH_CHARS: usize = 32;

impl PeerRules {
    /// Peers of this trust domain, as the broker's settings name it.
    pub fn new(trust_domain: &str) -> Result<Self, RulesError> {
        if !spiffe::is_trust_domain(trust_domain) {
            return Err(RulesError);
        }
        let trust_domain = trust_domain.into();
        Ok(Self { trust_domain, templates: BTreeSet::new(), untrusted: false, revocation: Revocation::default() })
    }

    /// Peers with this template may enter.
    pub fn admit(mut self, template: Name) -> Self {
        self.templates.insert(template);
        self
    }

    /// Also peers that speak for code that nobody reviewed.
    pub fn admit_untrusted(mut self) -> Self {
        self.untrusted = true;
        self
    }

    pub fn with_revocation(mut self, revocation: Revocation) -> Self {
        self.revocation = revocation;
        self
    }

    pub(super) fn revocation(&self) -> Revocation {
        self.revocation
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PeerIdentity")
            .field("spiffe_id", &self.spiffe_id)
            .field("lease", &self.lease)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Reads a leaf whose chain holds.
// SECURITY: `t_146_a_common_name_is_no_identity`, `two_names_are_none`
pub(super) fn read(leaf: &[u8], rules: &PeerRules) -> Result<PeerIdentity, PeerRefusal> {
    let (_, read) = X509Certificate::from_der(leaf).map_err(|_| PeerRefusal::Malformed)?;
    if !is_for_clients(&read)? {
        return Err(PeerRefusal::Purpose);
    }
    let spiffe_id = only_uri(&read)?;
    let named = named(spiffe_id, rules)?;
    let fingerprint = ring::digest::digest(&ring::digest::SHA256, leaf);
    Ok(PeerIdentity {
        spiffe_id: spiffe_id.to_owned(),
        template: named.template,
        issuer: named.issuer,
        ids: named.ids,
        untrusted: named.untrusted,
        lease: lease(read.raw_serial())?,
        not_after: UnixMs::from_s(read.validity().not_after.timestamp()),
        fingerprint: fingerprint.as_ref().try_into().map_err(|_| PeerRefusal::Malformed)?,
    })
}

/// Both extensions, and what they must say: nothing is for this use because it does not say otherwise.
fn is_for_clients(leaf: &X509Certificate<'_>) -> Result<bool, PeerRefusal> {
    let usage = leaf.key_usage().map_err(|_| PeerRefusal::Malformed)?;
    let extended = leaf.extended_key_usage().map_err(|_| PeerRefusal::Malformed)?;
    let signs = usage.is_some_and(|usage| usage.value.digital_signature());
    Ok(signs && extended.is_some_and(|uses| uses.value.client_auth))
}

/// SPIFFE X509-SVID section 2: exactly one URI. Names of other kinds say nothing here.
fn only_uri<'a>(leaf: &'a X509Certificate<'a>) -> Result<&'a str, PeerRefusal> {
    let names = leaf.subject_alternative_name().map_err(|_| PeerRefusal::Malformed)?.ok_or(PeerRefusal::Name)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(PeerRefusal::Name),
    }
}

struct Named {
    template: Name,
    issuer: Option<Name>,
    ids: Vec<String>,
    untrusted: bool,
}

/// Takes apart what `mint::name` of the broker puts together.
// SECURITY: `a_name_of_another_trust_domain_or_template_does_not_enter`
fn named(text: &str, rules: &PeerRules) -> Result<Named, PeerRefusal> {
    let id = SpiffeId::parse(text).filter(|_| text.len() <= NAME_MAX_BYTES).ok_or(PeerRefusal::Name)?;
    if id.trust_domain() != &*rules.trust_domain {
        return Err(PeerRefusal::TrustDomain);
    }
    let mut segments: Vec<&str> = id.path().split('/').collect();
    // An id of that name would count as one too: never less than what it is.
    let untrusted = segments.pop_if(|last| *last == UNTRUSTED).is_some();
    let (template, issuer, ids) = match segments.as_slice() {
        [template, issuer, ids @ ..] if !ids.is_empty() => (template, Some(name(issuer)?), ids),
        [template, hash] if is_hash(hash) => (template, None, std::slice::from_ref(hash)),
        // The template was too long to be in the name.
        [hash] if is_hash(hash) => return Err(PeerRefusal::Template),
        _ => return Err(PeerRefusal::Name),
    };
    let template = name(template)?;
    if !rules.templates.contains(&template) {
        return Err(PeerRefusal::Template);
    }
    if untrusted && !rules.untrusted {
        return Err(PeerRefusal::Untrusted);
    }
    Ok(Named { template, issuer, ids: ids.iter().map(|id| (*id).to_owned()).collect(), untrusted })
}

fn name(segment: &str) -> Result<Name, PeerRefusal> {
    segment.parse().map_err(|_| PeerRefusal::Name)
}

fn is_hash(segment: &str) -> bool {
    segment.len() == HASH_CHARS && segment.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `serial`: the content of the INTEGER. A lease's is positive and has at most 16 octets.
fn lease(serial: &[u8]) -> Result<LeaseId, PeerRefusal> {
    let positive = serial.first().is_some_and(|first| first & 0x80 == 0);
    let octets = serial.strip_prefix(&[0]).unwrap_or(serial);
    if !positive || octets.is_empty() || octets.len() > 16 {
        return Err(PeerRefusal::Serial);
    }
    Ok(LeaseId::from_u128(octets.iter().fold(0, |value, octet| value << 8 | u128::from(*octet))))
}
