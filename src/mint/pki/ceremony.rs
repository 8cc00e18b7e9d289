//! What people do with the root, four times in a year: make it, let it sign an area CA and its own long CRL,
//! or ask the company's own CA to sign the area CA and take in what it signed. In: a passphrase, a place for
//! the root key, who does it. Out: files, and a transcript without secrets.
//!
//! The root's file is made once; each ceremony writes into its record what the root signed and took back. What
//! `serve` needs is in the authority's folder, and nothing in it opens with the passphrase.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use dayfly_domain::UnixMs;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateDer;

use super::{
    admit::admit_area,
    ca::{AREA, Above, Ca, CaId, CaTerms, DAY_S, ROOT, Tier, area_request, hex, moment},
    kept::{Area, Authority, Folder, KeptArea, KeptAreaKey, KeptAuthority, KeptRevoked, decoded, encoded, upper_crl},
    probe::probe,
    root::{RootKey, RootRecord, SignedArea},
    sealed::random,
    signer::{CaSigner, FileKey, PkiError},
    transcript::Transcript,
    turns::Places,
};

/// How long a root's CRL counts.
pub const ROOT_CRL_DAYS: i64 = 100;
/// A clock that is behind by this much takes what was just made.
const BACKDATED_S: i64 = 60;

/// Who holds a ceremony, when, and for what.
#[derive(Debug, Clone)]
pub struct Ceremony<'a> {
    pub trust_domain: &'a str,
    pub places: &'a Places,
    /// DNS names below the area CA are in these domains; none: in any.
    pub dns: &'a [String],
    pub now: UnixMs,
    /// `uid 1000 on host broker-1`, as the transcript says it.
    pub by: &'a str,
}

impl Ceremony<'_> {
    /// Makes the root and writes its file, which must not be there yet.
    // SECURITY: `the_root_is_written_once_and_never_over_another`.
    pub fn make_root(&self, file: &Path, passphrase: &str, told: &mut Transcript) -> Result<RootKey, PkiError> {
        let key = Arc::new(FileKey::generate()?);
        let ca = Ca::root(&self.terms(ROOT, None, &[])?, key.clone())?;
        let root = RootKey::make(ca, &key, file, passphrase)?;
        told.made("root CA", root.der(), &root.ca)?;
        told.wrote("root key, sealed with the passphrase", file);
        Ok(root)
    }

    /// The root signs a new area CA, whose key is sealed in the folder, and its own CRL, which lists whatever it
    /// took back, here or elsewhere, before or now: `revoke` names area CAs that it signed, whether the folder
    /// knows them or not, or another root that is left with all below it.
    // SECURITY: `an_empty_folder_does_not_bring_a_revoked_area_ca_back`.
    pub fn make_area(
        &self,
        folder: &Folder,
        root: &RootKey,
        revoke: &[CaId],
        told: &mut Transcript,
    ) -> Result<(), PkiError> {
        let _held = folder.hold_ceremony()?;
        let mut kept = self.kept(folder)?;
        let (trusted, before) = (kept.trusted()?, root.record()?);
        let mut record = before.clone();
        for id in revoke {
            self.revoke(&mut kept, &mut record, root, id, told)?;
        }
        kept.agree(&mut record, root.id());
        let (signer, key) = kept.new_key(folder, &record)?;
        let (area, place) = (self.area(&root.ca, signer)?, key.place(folder));
        kept.admit(KeptArea { chain: vec![encoded(area.der()), encoded(root.ca.der())], key });
        record.areas.push(SignedArea { id: area.id().as_str().to_owned(), serial: hex(&area.serial()?) });
        record.crl_number = kept.next_crl_number(root.id(), record.crl_number, self.now);
        let crl = self.root_crl(&root.ca, &record)?;
        kept.put_crl(&crl)?;
        kept.settle(&trusted, self.now)?;
        kept.opened(folder, self.now)?;
        // The root first: what it signed is on its record before anybody uses it.
        root.keep(&before, record)?;
        folder.keep_authority(&kept)?;
        told.made("area CA", area.der(), &area)?;
        told.line(&format!("  its key {place}"));
        told.crl("signed    root CRL", &crl)?;
        told.wrote("area CA and the root CRL", &super::kept::authority_file(&folder.dir));
        Ok(())
    }

    /// A new key, and what the company's own CA is asked to sign: PKCS#10, DER. The area CA of now goes on until
    /// the answer is taken in.
    pub fn request(&self, folder: &Folder, told: &mut Transcript) -> Result<Vec<u8>, PkiError> {
        let _held = folder.hold_ceremony()?;
        let mut kept = self.kept(folder)?;
        let (signer, key) = kept.new_key(folder, &RootRecord::default())?;
        let request = area_request(self.trust_domain, signer.as_ref())?;
        told.line(&format!("made      request for an area CA, key {}", key.id()));
        told.line(&format!("  its key {}", key.place(folder)));
        if let Some(other) = kept.pending.replace(key) {
            told.line(&format!("dropped   the request for key {}: its answer will not be taken in", other.id()));
        }
        folder.keep_authority(&kept)?;
        told.wrote("what waits for its certificate", &super::kept::authority_file(&folder.dir));
        Ok(request)
    }

    /// What the company's own CA signed: the area CA first, the root last. It is looked at as closely as what
    /// we sign ourselves. CRLs of the CAs above may come with it, or alone.
    // SECURITY: `what_a_company_signed_is_taken_in_only_when_it_can_carry_issuing_cas`.
    pub fn import(
        &self,
        folder: &Folder,
        chain: &[CertificateDer<'_>],
        crls: &[Vec<u8>],
        told: &mut Transcript,
    ) -> Result<(), PkiError> {
        let _held = folder.hold_ceremony()?;
        let mut kept = self.kept(folder)?;
        let trusted = kept.trusted()?;
        if !chain.is_empty() {
            let nothing = || PkiError::Refused("no request waits for it: `dayfly ca init --csr` makes one".to_owned());
            let key = kept.pending.take().ok_or_else(nothing)?;
            let signer = key.opened(folder)?;
            let ders: Vec<&[u8]> = chain.iter().map(|der| der.as_ref()).collect();
            admit_area(&ders, signer.as_ref(), Some(self.now))?;
            let area = Ca::new(chain[0].clone().into_owned(), signer)?;
            probe(&area, &chain[1..], self.trust_domain, self.places, self.now)?;
            kept.admit(KeptArea { chain: chain.iter().map(|der| encoded(der)).collect(), key });
            told.made("area CA, signed elsewhere", area.der(), &area)?;
        }
        for crl in crls {
            kept.put_signed_crl(crl, self.now)?;
            told.crl("took in   CRL from above", crl)?;
        }
        kept.settle(&trusted, self.now)?;
        kept.opened(folder, self.now)?;
        folder.keep_authority(&kept)?;
        told.wrote("what was taken in", &super::kept::authority_file(&folder.dir));
        Ok(())
    }

    /// Three tiers whose root is gone once this returns.
    pub(super) fn in_memory(&self) -> Result<Authority, PkiError> {
        let root = Ca::root(&self.terms(ROOT, None, &[])?, Arc::new(FileKey::generate()?))?;
        let area = self.area(&root, Arc::new(FileKey::generate()?))?;
        let crl_number = self.now.as_ms().unsigned_abs();
        let crl = self.root_crl(&root, &RootRecord { crl_number, ..RootRecord::default() })?;
        let area = Area { ca: Arc::new(area), above: vec![root.der().clone()], revoked: false };
        let trust_domain = self.trust_domain.to_owned();
        let roots = vec![root.der().clone()];
        Ok(Authority { trust_domain, sequence: 1, roots, areas: vec![area], crls: vec![upper_crl(&crl)?] })
    }

    /// A whole authority whose root nobody keeps: for development.
    pub fn without_root(&self, folder: &Folder) -> Result<(), PkiError> {
        let root = Ca::root(&self.terms(ROOT, None, &[])?, Arc::new(FileKey::generate()?))?;
        self.make_area(folder, &RootKey::unkept(root), &[], &mut Transcript::default())
    }

    fn kept(&self, folder: &Folder) -> Result<KeptAuthority, PkiError> {
        let kept = folder.authority()?.unwrap_or_else(|| KeptAuthority::empty(self.trust_domain));
        if kept.trust_domain != self.trust_domain {
            let what = format!("the authority is that of `{}`, not of `{}`", kept.trust_domain, self.trust_domain);
            return Err(PkiError::Refused(what));
        }
        Ok(kept)
    }

    fn area(&self, root: &Ca, signer: Arc<dyn CaSigner>) -> Result<Ca, PkiError> {
        let above = Above { crl: self.places.crl(root.id(), 0), certificate: self.places.certificate(root.id()) };
        let area = root.subordinate(&self.terms(AREA, Some(above), self.dns)?, signer)?;
        admit_area(&[area.der(), root.der()], area.signer(), Some(self.now))?;
        Ok(area)
    }

    fn terms<'a>(&'a self, tier: Tier, above: Option<Above>, dns: &'a [String]) -> Result<CaTerms<'a>, PkiError> {
        let (serial, from) = (random()?, self.now.plus_s(-BACKDATED_S));
        Ok(CaTerms { tier, trust_domain: self.trust_domain, serial, from, life_s: tier.life_s, above, dns })
    }

    /// Only a root's own key takes back what it signed.
    // SECURITY: `an_area_ca_below_another_root_is_not_revoked_in_vain`, `a_root_that_leaked_is_given_out_no_more`.
    fn revoke(
        &self,
        kept: &mut KeptAuthority,
        record: &mut RootRecord,
        root: &RootKey,
        id: &CaId,
        told: &mut Transcript,
    ) -> Result<(), PkiError> {
        let (own, at_s) = (root.id().as_str().to_owned(), self.now.as_s());
        let place = match kept.place(id)? {
            Some(Place::Below { root, serial }) if root == own => Some(serial),
            place => match (record.has_signed(id), place) {
                (Some(area), _) => Some(area.serial.clone()),
                (None, Some(Place::Root)) if id.as_str() != own => None,
                (None, place) => return Err(not_taken_back(id, place)),
            },
        };
        let Some(serial) = place else {
            told.line(&format!("left      root {id}, with all that is below it"));
            kept.leave(id);
            return Ok(());
        };
        if record.revoked.iter().chain(&kept.revoked).any(|revoked| revoked.id == id.as_str()) {
            told.line(&format!("revoked   area CA {id}: it was before"));
            return Ok(());
        }
        told.line(&format!("revoked   area CA {id}, serial {serial}"));
        record.revoked.push(KeptRevoked { id: id.as_str().to_owned(), root: own, serial, at_s });
        Ok(())
    }

    /// Complete, and longer than any other: the root is not at hand to sign the next.
    fn root_crl(&self, root: &Ca, record: &RootRecord) -> Result<Vec<u8>, PkiError> {
        let revoked = record.revoked.iter().map(|revoked| {
            let serial = (0..revoked.serial.len()).step_by(2);
            let octet = |at| u8::from_str_radix(revoked.serial.get(at..at + 2).unwrap_or_default(), 16).ok();
            let serial = serial.map(octet).collect::<Option<Vec<u8>>>();
            let serial = serial.ok_or_else(|| PkiError::Read("a serial is not hexadecimal".to_owned()))?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: moment(revoked.at_s)?,
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: moment(self.now.as_s() - BACKDATED_S)?,
            next_update: moment(self.now.as_s() + ROOT_CRL_DAYS * DAY_S)?,
            crl_number: SerialNumber::from(record.crl_number),
            // OpenSSL, asked for a CRL of every level, looks for the root's own too, which names no place.
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<Vec<_>, PkiError>>()?,
            key_identifier_method: KeyIdMethod::PreSpecified(root.id().octets()),
        };
        let made = params.signed_by(&root.issuer()?).map_err(|error| PkiError::Build(error.to_string()))?;
        Ok(made.der().to_vec())
    }
}

impl KeptAuthority {
    /// One that no area CA of ours has, or had as long as anybody knows: `record` is of the root.
    // SECURITY: `a_key_in_the_token_carries_one_area_ca`.
    fn new_key(&self, folder: &Folder, record: &RootRecord) -> Result<(Arc<dyn CaSigner>, KeptAreaKey), PkiError> {
        let (signer, key) = KeptAreaKey::make(folder)?;
        let known = self.areas.iter().any(|area| area.key.id() == key.id())
            || record.areas.iter().any(|area| area.id == key.id())
            || self.revoked.iter().any(|revoked| revoked.id == key.id());
        if known {
            let what = format!("the key {} is that of an area CA already: make another, and name its `id`", key.id());
            return Err(PkiError::Refused(what));
        }
        Ok((signer, key))
    }

    /// The newest first.
    fn admit(&mut self, area: KeptArea) {
        self.areas.insert(0, area);
        self.areas.truncate(AREAS_MAX);
    }

    fn put_crl(&mut self, der: &[u8]) -> Result<(), PkiError> {
        let issuer = upper_crl(der)?.issuer;
        let other =
            |text: &String| decoded(text).is_none_or(|der| upper_crl(&der).is_ok_and(|crl| crl.issuer != issuer));
        self.crls.retain(other);
        self.crls.push(encoded(der));
        Ok(())
    }

    /// One that somebody else made: signed by a CA above us, and newer than what we have.
    fn put_signed_crl(&mut self, der: &[u8], now: UnixMs) -> Result<(), PkiError> {
        use x509_parser::{prelude::*, revocation_list::CertificateRevocationList};
        let found = upper_crl(der)?;
        if found.next_update <= now {
            return Err(PkiError::Refused(format!("this CRL was over at {}", found.next_update)));
        }
        let above = self.areas.iter().flat_map(|area| area.chain.iter().skip(1)).filter_map(|text| decoded(text));
        let signed = |above: Vec<u8>| {
            let crl = CertificateRevocationList::from_der(der).map(|(_, crl)| crl);
            let signer = X509Certificate::from_der(&above).map(|(_, signer)| signer);
            crl.is_ok_and(|crl| signer.is_ok_and(|signer| crl.verify_signature(signer.public_key()).is_ok()))
        };
        if !above.into_iter().any(signed) {
            return Err(PkiError::Refused("no CA above us signed this CRL".to_owned()));
        }
        if self.crl_number(&found.issuer).is_some_and(|old| crl_number(der).is_none_or(|new| new < old)) {
            return Err(PkiError::Refused("this CRL is older than the one that is here".to_owned()));
        }
        self.put_crl(der)
    }

    fn crl_number(&self, issuer: &CaId) -> Option<u64> {
        let all = self.crls.iter().filter_map(|text| decoded(text));
        let own = all.filter(|der| upper_crl(der).is_ok_and(|crl| crl.issuer == *issuer));
        own.filter_map(|der| crl_number(&der)).max()
    }

    /// The time, and never less than one more than that of the last, wherever it is known from.
    fn next_crl_number(&self, root: &CaId, last: u64, now: UnixMs) -> u64 {
        let last = self.crl_number(root).unwrap_or_default().max(last);
        last.saturating_add(1).max(now.as_ms().unsigned_abs())
    }

    /// What the root took back stands in its record and here: each learns what only the other knew.
    fn agree(&mut self, record: &mut RootRecord, root: &CaId) {
        let known = |all: &[KeptRevoked], one: &KeptRevoked| all.iter().any(|other| other.id == one.id);
        for revoked in self.revoked.iter().filter(|revoked| revoked.root == root.as_str()) {
            if !known(&record.revoked, revoked) {
                record.revoked.push(revoked.clone());
            }
        }
        for revoked in &record.revoked {
            if !known(&self.revoked, revoked) {
                self.revoked.push(revoked.clone());
            }
        }
    }

    fn leave(&mut self, root: &CaId) {
        if !self.left.iter().any(|left| left == root.as_str()) {
            self.left.push(root.as_str().to_owned());
        }
    }

    /// Where this CA stands, as far as the folder knows.
    fn place(&self, id: &CaId) -> Result<Option<Place>, PkiError> {
        for chain in self.chains()? {
            let (Some(area), Some(root)) = (chain.first(), chain.last()) else { return Err(PkiError::NoCa) };
            let own = CaId::of_certificate(root)?;
            if own == *id {
                return Ok(Some(Place::Root));
            }
            if CaId::of_certificate(area)? == *id {
                let serial = hex(&super::ca::serial_of(area)?);
                return Ok(Some(Place::Below { root: own.as_str().to_owned(), serial }));
            }
        }
        Ok(None)
    }

    /// What nobody needs any more goes; whoever keeps the trust bundle is told when it says something else.
    /// `trusted`: what it said before.
    fn settle(&mut self, trusted: &[CertificateDer<'_>], now: UnixMs) -> Result<(), PkiError> {
        let chains = self.chains()?;
        if chains.first().is_some_and(|newest| newest.last().is_some_and(|root| self.has_left(root).unwrap_or(true))) {
            return Err(PkiError::Refused("its root was left: nothing of it is trusted any more".to_owned()));
        }
        let lasts = |chain: &super::kept::Chain| {
            let until = chain.first().and_then(|area| super::ca::window(area).ok()).map(|(_, until)| until);
            until.is_none_or(|until| now <= until.plus_s(DAY_S))
        };
        let mut kept = chains.iter().enumerate().map(|(place, chain)| place == 0 || lasts(chain));
        self.areas.retain(|_| kept.next().unwrap_or(true));
        let above = self.above()?;
        self.crls.retain(|text| {
            decoded(text).is_some_and(|der| upper_crl(&der).is_ok_and(|crl| above.contains(&crl.issuer)))
        });
        self.sequence += u64::from(self.trusted()? != trusted);
        Ok(())
    }
}

/// Where a CA stands.
enum Place {
    Root,
    /// An area CA, with its serial number in hexadecimal.
    Below {
        root: String,
        serial: String,
    },
}

fn not_taken_back(id: &CaId, place: Option<Place>) -> PkiError {
    PkiError::Refused(match place {
        Some(Place::Below { root, .. }) => format!(
            "`{id}` is below the root `{root}`, whose own key must sign that: name that root's file. A root that \
             leaked is left, with all that is below it, by `--new-root --revoke {root}`"
        ),
        Some(Place::Root) => format!("`{id}` is the root of this ceremony: it is left at one with `--new-root`"),
        None => format!("`{id}` is neither an area CA that this root signed nor a root of this authority"),
    })
}

/// Area CAs that are kept: one in 90 days lives, the others are there for their issuing CAs of three days.
const AREAS_MAX: usize = 8;

/// A number of more than 64 bits is nobody's.
fn crl_number(der: &[u8]) -> Option<u64> {
    use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};
    let (_, crl) = CertificateRevocationList::from_der(der).ok()?;
    crl.crl_number().and_then(|number| number.try_into().ok())
}

/// Where a root's file may not be: the broker is on that machine, and its folders are in its backups.
// SECURITY: `the_root_key_is_not_kept_where_the_broker_is`.
pub fn may_hold_root(file: &Path, broker: &[&Path]) -> Result<PathBuf, PkiError> {
    let failed = |source| PkiError::File { path: file.to_owned(), source };
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.canonicalize().map_err(failed)?;
    let within = |dir: &&&Path| dir.canonicalize().is_ok_and(|dir| parent.starts_with(dir));
    if let Some(dir) = broker.iter().find(within) {
        let what = format!("the root key may not be in `{}`, which is the broker's", dir.display());
        return Err(PkiError::Refused(what));
    }
    Ok(parent.join(file.file_name().unwrap_or_default()))
}

#[cfg(test)]
#[path = "ceremony_tests.rs"]
mod tests;
