#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| russet_fuzz::net_selector(bytes));
