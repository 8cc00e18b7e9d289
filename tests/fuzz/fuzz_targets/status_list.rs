//! A status list, as a broker publishes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dayfly_fuzz::status_list(data);
});
