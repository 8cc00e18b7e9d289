//! Randomness, from the operating system through ring.

use ring::rand::{SecureRandom, SystemRandom};

/// The machine cannot give random bytes: nothing can be issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoEntropy;

/// For what makes keys and signatures and draws for itself.
#[expect(clippy::disallowed_methods, reason = "the one door to randomness")]
pub fn source() -> SystemRandom {
    SystemRandom::new()
}

/// `N` random bytes.
#[expect(clippy::disallowed_methods, reason = "the one door to randomness")]
pub fn bytes<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| NoEntropy)?;
    Ok(out)
}
