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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("dtc_x".to_owned())), "[redacted]");
    }
}
