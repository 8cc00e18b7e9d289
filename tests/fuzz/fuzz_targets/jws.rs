//! A compact JWS, as a stranger sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dayfly_fuzz::jws(data);
});
