//! Law L8 by type: what must never be printed.

use std::fmt;

use zeroize::Zeroize;

/// A value that appears in no log, error or answer by accident: no `Display`, `Serialize` or
/// `Clone`; `Debug` prints `[redacted]`; the memory is wiped when it is dropped.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The one way to the value: every call is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How every handle begins.
pub const HANDLE_PREFIX: &str = "dtc_";

/// Whether a text that a caller wrote for us to keep (a ticket, a reason, a name) may hold a token or
/// a handle by mistake: a handle's prefix, or the beginning of any JWT (`{"` in base64url).
pub fn may_hold_secret(text: &str) -> bool {
    text.contains(HANDLE_PREFIX) || text.contains("eyJ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_handles_are_recognised_wherever_they_stand() {
        for text in ["dtc_x", "see eyJhbGciOiJFUzI1NiJ9.e30.x", "OPS-1 dtc_abc", "https://x.example/?t=eyJ"] {
            assert!(may_hold_secret(text), "{text}");
        }
        for text in ["", "OPS-1", "deploy-prod", "https://shop.example.org", "release the shop"] {
            assert!(!may_hold_secret(text), "{text}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("dtc_x".to_owned())), "[redacted]");
    }
}
