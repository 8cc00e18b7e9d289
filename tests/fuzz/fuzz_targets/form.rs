//! A form body, as a stranger sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dayfly_fuzz::form(data);
});
