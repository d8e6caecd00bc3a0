#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fusewire::fuzz::proxy_headers(data));
