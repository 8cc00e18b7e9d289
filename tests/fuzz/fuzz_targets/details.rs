//! Authorization details, as a stranger sends them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dayfly_fuzz::details(data);
});
