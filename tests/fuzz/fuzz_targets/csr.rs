//! What a request for a certificate says, signed with the key of the seeds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dayfly_fuzz::csr(data);
});
