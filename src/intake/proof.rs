//! Proofs of possession at the broker: which are new, and when a nonce of ours must be in them.
//!
//! The memory of used proofs dies with the process. So a proof that an earlier process may have taken
//! must name something that only this one says: a nonce. In comes the text of a `DPoP` header, out goes
//! a `Binding`; what it is worth is `flow`'s to say.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::{Reason, UnixMs};
use dayfly_verifier::{
    Binding, ProofRefusal,
    dpop::{Proof, ProofRules, Proofs, UnverifiedProof},
};
use ring::hmac;
use subtle::ConstantTimeEq;

const MINUTE_S: i64 = 60;

/// How far a proof's `iat` may be ahead of us without a nonce; and for how long after a start each
/// needs one, because the process before took what was so far ahead.
const AHEAD_S: i64 = 5;

/// Why a proof is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error(transparent)]
    Proof(#[from] ProofRefusal),
    /// RFC 9449 section 8: an old nonce, one that is none, or none where one is needed.
    #[error("the proof needs a nonce of this broker")]
    Nonce,
}

impl ProofError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Proof(refusal) => refusal.reason(),
            Self::Nonce => Reason::DpopNonce,
        }
    }
}

/// The proofs of one process.
#[derive(Debug)]
pub struct ProofDesk {
    used: Proofs,
    nonce_key: hmac::Key,
    started_s: i64,
}

impl ProofDesk {
    /// `key`: random bytes of this process.
    pub fn new(key: &[u8; 32], started: UnixMs) -> Self {
        Self { used: Proofs::default(), nonce_key: hmac::Key::new(hmac::HMAC_SHA256, key), started_s: started.as_s() }
    }

    /// Form, request, time and nonce; not the signature, which costs more than all of these.
    // SECURITY: a_proof_from_before_the_restart_needs_a_nonce
    pub fn read(&self, text: &str, rules: &ProofRules<'_>, now: UnixMs) -> Result<UnverifiedProof, ProofError> {
        let proof = UnverifiedProof::read(text, rules, now)?;
        let good = match proof.nonce() {
            Some(nonce) => self.is_nonce(nonce, now),
            None => {
                let since_s = proof.issued_at_s() - self.started_s;
                since_s > AHEAD_S && proof.issued_at_s() - now.as_s() <= AHEAD_S
            }
        };
        if good { Ok(proof) } else { Err(ProofError::Nonce) }
    }

    /// Uses the proof up.
    pub fn accept(&self, proof: Proof, now: UnixMs) -> Result<Binding, ProofError> {
        Ok(self.used.accept(proof, now)?)
    }

    /// Good for this minute and the next.
    pub fn nonce(&self, now: UnixMs) -> String {
        self.nonce_of(minute(now))
    }

    fn is_nonce(&self, sent: &str, now: UnixMs) -> bool {
        let same = |minute| bool::from(self.nonce_of(minute).as_bytes().ct_eq(sent.as_bytes()));
        same(minute(now)) || same(minute(now) - 1)
    }

    fn nonce_of(&self, minute: i64) -> String {
        let mut context = hmac::Context::with_key(&self.nonce_key);
        context.update(b"dpop nonce");
        context.update(&minute.to_be_bytes());
        URL_SAFE_NO_PAD.encode(context.sign())
    }
}

fn minute(now: UnixMs) -> i64 {
    now.as_s().div_euclid(MINUTE_S)
}

#[cfg(test)]
mod tests {
    use dayfly_verifier::{crypto::SigningKey, dpop::prove};

    use super::*;

    const START: UnixMs = UnixMs::from_s(1_800_000_000);
    const RULES: ProofRules<'_> = ProofRules { method: "POST", url: "https://b.example/x", token: None };

    /// What the desk says, at these seconds after its start, to a proof of that second.
    fn said(desk: &ProofDesk, at_s: i64, iat_s: i64, nonce: Option<&str>) -> Option<ProofError> {
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let text = prove(&key, &RULES, nonce, "j", START.as_s() + iat_s).unwrap();
        desk.read(&text, &RULES, START.plus_s(at_s)).err()
    }

    #[test]
    fn a_proof_from_before_the_restart_needs_a_nonce() {
        let desk = ProofDesk::new(&[7; 32], START);
        for (at_s, iat_s) in [(0, 0), (30, -1), (30, 0), (30, 5), (60, 0)] {
            assert_eq!(said(&desk, at_s, iat_s, None), Some(ProofError::Nonce), "{at_s} {iat_s}");
        }
        assert_eq!(said(&desk, 6, 6, None), None);
        assert_eq!(said(&desk, 1, 6, None), None, "nobody took it before: it was too far ahead");
        let nonce = desk.nonce(START);
        assert_eq!(said(&desk, 0, 0, Some(&nonce)), None, "with a nonce the start does not matter");
    }

    #[test]
    fn a_proof_from_the_future_needs_a_nonce() {
        let desk = ProofDesk::new(&[7; 32], START);
        assert_eq!(said(&desk, 100, 105, None), None);
        assert_eq!(said(&desk, 100, 106, None), Some(ProofError::Nonce));
        assert_eq!(said(&desk, 100, 160, Some(&desk.nonce(START.plus_s(100)))), None);
        assert_eq!(said(&desk, 100, 161, None), Some(ProofRefusal::Time.into()));
    }

    #[test]
    fn a_nonce_is_good_for_its_minute_and_the_next_and_of_this_process_only() {
        let (desk, other) = (ProofDesk::new(&[7; 32], START), ProofDesk::new(&[8; 32], START));
        let nonce = desk.nonce(START);
        assert_eq!(said(&desk, 119, 119, Some(&nonce)), None);
        assert_eq!(said(&desk, 120, 120, Some(&nonce)), Some(ProofError::Nonce), "old");
        assert_eq!(said(&other, 119, 119, Some(&nonce)), Some(ProofError::Nonce), "of another process");
        let ahead = desk.nonce(START.plus_s(60));
        assert_eq!(said(&desk, 0, 0, Some(&ahead)), Some(ProofError::Nonce), "of a minute that has not come");
        for bad in ["x", &nonce[1..], &nonce.to_lowercase(), &format!("{nonce}=")] {
            assert_eq!(said(&desk, 30, 30, Some(bad)), Some(ProofError::Nonce), "{bad}");
        }
    }
}
