//! RSA keys that somebody else can have the secret half of. In: a modulus and an exponent, as they stand in
//! a request. Out: whether they are worth a certificate.
//!
//! Each test is cheap and of a failure that happened: small exponents, factors that many keys share, primes
//! close to each other (CVE-2022-26320), the primes of one library (CVE-2017-15361).

use std::ops::RangeInclusive;

use dayfly_verifier::is_roca_modulus;
use num_bigint::BigUint;

const BITS: RangeInclusive<u64> = 2048..=4096;
/// From 65537 on, and no longer than what is verified with.
const EXPONENTS: RangeInclusive<u64> = 65_537..=(1 << 33) - 1;
const FACTORS_MAX: u32 = 751;
const FERMAT_ROUNDS: u32 = 110;

/// Both in big-endian octets.
// SECURITY: `t_128_weak_rsa_keys_are_refused`.
pub fn is_sound_rsa(modulus: &[u8], exponent: &[u8]) -> bool {
    let (n, e) = (BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent));
    let bits = n.bits();
    BITS.contains(&bits)
        && bits.is_multiple_of(8)
        && n.bit(0)
        && e.bit(0)
        && u64::try_from(&e).is_ok_and(|e| EXPONENTS.contains(&e))
        && !has_small_factor(modulus)
        && !is_roca_modulus(modulus)
        && !has_close_primes(&n)
}

fn has_small_factor(modulus: &[u8]) -> bool {
    let rest = |factor: u32| modulus.iter().fold(0, |rest: u32, &octet| (rest << 8 | u32::from(octet)) % factor);
    // Odd numbers that are no primes cost a little and find nothing new.
    (3..=FACTORS_MAX).step_by(2).any(|factor| rest(factor) == 0)
}

/// Fermat: n = a^2 - b^2 with a just above the root of n.
fn has_close_primes(n: &BigUint) -> bool {
    let one = BigUint::from(1_u8);
    let mut a = n.sqrt();
    if &a * &a < *n {
        a += &one;
    }
    let mut rest = &a * &a - n;
    for _ in 0..FERMAT_ROUNDS {
        if is_square(&rest) {
            return true;
        }
        rest += (&a << 1_u8) + &one;
        a += &one;
    }
    false
}

/// Of four numbers three are told by their last bits, and of the others most by what is left of 63, 65 and 11.
fn is_square(number: &BigUint) -> bool {
    let rest = |by: u32| u64::try_from(number % by).unwrap_or_default();
    let may_be = |by: u32| {
        let (rest, by) = (rest(by), u64::from(by));
        (0..by).any(|root| root * root % by == rest)
    };
    [64, 63, 65, 11].into_iter().all(may_be) && {
        let root = number.sqrt();
        &root * &root == *number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two primes of 1024 bits that lie close together, and one that does not: 2^1024 less these.
    fn prime(less: u32) -> BigUint {
        (BigUint::from(1_u8) << 1024_u32) - less
    }

    #[test]
    fn t_128_weak_rsa_keys_are_refused() {
        let e = 65_537_u32.to_be_bytes();
        // Not all of them primes: what is looked for is only their distance.
        let close = prime(105) * prime(1_155);
        assert!(has_close_primes(&close) && !is_sound_rsa(&close.to_bytes_be(), &e));
        assert!(is_square(&(prime(105) * prime(105))) && !is_square(&(prime(105) * prime(105) + 4_u8)));
        let far = prime(105) * ((BigUint::from(3_u8) << 1022_u32) + 1_u8);
        assert!(!has_close_primes(&far));
        assert!(has_small_factor(&(far * 751_u32).to_bytes_be()));
    }
}
