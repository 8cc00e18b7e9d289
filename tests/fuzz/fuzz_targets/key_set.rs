//! A JWK Set or a SPIFFE trust bundle, as an issuer publishes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dayfly_fuzz::key_set(data);
});
