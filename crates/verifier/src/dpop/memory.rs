//! Each proof once: the proofs that were accepted, as long as they could come again.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Mutex, PoisonError},
};

use dayfly_domain::UnixMs;
use ring::digest;

use super::{PROOF_WINDOW_S, Proof, ProofRefusal, Seen, Thumbprint};

/// Proofs remembered at once by [`Proofs::default`]: 60 s of 8,700 a second, at most 40 MiB.
pub const PROOFS_MAX: usize = 1 << 19;

/// A key that was just proven: by a proof that was right for its request, signed by that key, and
/// never used before. Only [`Proofs::accept`] makes one.
#[derive(Debug)]
pub struct Binding(Thumbprint);

impl Binding {
    /// What a token that is bound to this key holds in `cnf`.
    pub fn thumbprint(&self) -> Thumbprint {
        self.0
    }
}

/// The proofs of the last minutes, cut to 16 bytes of SHA-256 each. Keep one for all that one server
/// answers for; it is lost with the process, so a proof from before a restart may come again.
pub struct Proofs {
    max: usize,
    used: Mutex<Used>,
}

/// First 16 bytes of SHA-256 over thumbprint and `jti`.
type Name = [u8; 16];

#[derive(Default)]
struct Used {
    names: HashSet<Name>,
    /// By the last second at which they would still be taken.
    until: BTreeMap<i64, Vec<Name>>,
    /// The last such second of all that was forgotten.
    forgotten_s: Option<i64>,
}

impl Default for Proofs {
    fn default() -> Self {
        Self::new(PROOFS_MAX)
    }
}

impl Proofs {
    /// Remembers at most `max` proofs, and accepts none beyond that.
    pub fn new(max: usize) -> Self {
        Self { max, used: Mutex::default() }
    }

    /// The key behind a proof, if the proof is used for the first time. [`ProofRefusal::Used`], or
    /// [`ProofRefusal::Full`] where it could not be remembered.
    // SECURITY: a_proof_is_good_once, a_full_memory_accepts_nothing
    pub fn accept(&self, proof: Proof, now: UnixMs) -> Result<Binding, ProofRefusal> {
        let Proof(seen) = proof;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_before(now.as_s());
        let until_s = seen.issued_at_s + PROOF_WINDOW_S;
        // A clock that was set back finds its proofs forgotten: they are not new for that.
        // SECURITY: a_clock_set_back_revives_no_proof
        if until_s < now.as_s() || used.forgotten_s.is_some_and(|forgotten_s| until_s <= forgotten_s) {
            return Err(ProofRefusal::Time);
        }
        let name = name_of(&seen);
        if used.names.contains(&name) {
            return Err(ProofRefusal::Used);
        }
        if used.names.len() >= self.max {
            return Err(ProofRefusal::Full);
        }
        used.names.insert(name);
        used.until.entry(until_s).or_default().push(name);
        Ok(Binding(seen.thumbprint))
    }

    /// How many proofs are remembered, those that are over and not yet forgotten included.
    pub fn len(&self) -> usize {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).names.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Used {
    /// Each proof is forgotten once, so this costs each of them a constant.
    fn forget_before(&mut self, now_s: i64) {
        while let Some(first) = self.until.first_entry().filter(|first| *first.key() < now_s) {
            let (until_s, names) = first.remove_entry();
            names.iter().for_each(|name| {
                self.names.remove(name);
            });
            self.forgotten_s = self.forgotten_s.max(Some(until_s));
        }
        if self.names.is_empty() && self.names.capacity() > 1024 {
            self.names = HashSet::new();
        }
    }
}

fn name_of(seen: &Seen) -> Name {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(seen.thumbprint.as_bytes());
    context.update(seen.jti.as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&context.finish().as_ref()[..16]);
    name
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").field("len", &self.len()).field("max", &self.max).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    fn proof(jti: &str, issued_at_s: i64) -> Proof {
        let thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".parse().unwrap();
        Proof(Seen { thumbprint, jti: jti.to_owned(), nonce: None, issued_at_s })
    }

    fn accept(proofs: &Proofs, jti: &str, iat: i64, now: UnixMs) -> Option<ProofRefusal> {
        proofs.accept(proof(jti, iat), now).err()
    }

    #[test]
    fn a_proof_is_good_once() {
        let (proofs, now_s) = (Proofs::new(10), NOW.as_s());
        assert_eq!(accept(&proofs, "a", now_s, NOW), None);
        for later_s in [0, 1, 59, 60] {
            assert_eq!(accept(&proofs, "a", now_s, NOW.plus_s(later_s)), Some(ProofRefusal::Used), "{later_s}");
        }
        assert_eq!(accept(&proofs, "a", now_s, NOW.plus_s(61)), Some(ProofRefusal::Time), "forgotten, and too old");
        assert_eq!(accept(&proofs, "b", now_s + 60, NOW), None);
        assert_eq!(accept(&proofs, "b", now_s + 60, NOW.plus_s(120)), Some(ProofRefusal::Used), "of a clock ahead");
    }

    #[test]
    fn two_hundred_and_fifty_six_uses_at_once_give_one_binding() {
        let proofs = Proofs::default();
        let accepted: usize = std::thread::scope(|scope| {
            let one = || usize::from(accept(&proofs, "a", NOW.as_s(), NOW).is_none());
            let all: Vec<_> = (0..256).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(accepted, 1);
    }

    #[test]
    fn a_full_memory_accepts_nothing() {
        let proofs = Proofs::new(100);
        for number in 0..100 {
            assert_eq!(accept(&proofs, &number.to_string(), NOW.as_s(), NOW), None);
        }
        assert_eq!(accept(&proofs, "one more", NOW.as_s(), NOW), Some(ProofRefusal::Full));
        assert_eq!(accept(&proofs, "7", NOW.as_s(), NOW), Some(ProofRefusal::Used), "a used one stays used");
        assert_eq!(proofs.len(), 100);
        let later = NOW.plus_s(61);
        assert_eq!(accept(&proofs, "one more", later.as_s(), later), None);
        assert_eq!(proofs.len(), 1, "what is over makes room");
    }

    #[test]
    fn a_clock_set_back_revives_no_proof() {
        let proofs = Proofs::new(10);
        assert_eq!(accept(&proofs, "a", NOW.as_s(), NOW), None);
        let day = NOW.plus_s(86_400);
        assert_eq!(accept(&proofs, "b", day.as_s(), day), None, "the clock jumped ahead");
        assert_eq!(accept(&proofs, "a", NOW.as_s(), NOW.plus_s(1)), Some(ProofRefusal::Time));
        let soon = NOW.plus_s(2);
        assert_eq!(accept(&proofs, "c", soon.as_s(), soon), None, "and new ones are taken again");
    }
}
