//! The claims of a status list token, as a broker signs them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dayfly_fuzz::list_claims(data);
});
