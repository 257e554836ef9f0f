//! Any release under a policy whose every setting is "no": what is accepted reaches nothing of the host, in what the
//! engine is asked for.

#![no_main]

#[path = "../../tests/hostile/any.rs"]
mod any;
#[path = "../../tests/hostile/harmless.rs"]
mod harmless;

use std::sync::LazyLock;

use cotter::model::Policy;

static OWNER: LazyLock<Policy> = LazyLock::new(any::owner_who_allows_nothing);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let release = any::release(bytes);
    let reached = any::reached(&release, &OWNER).unwrap_or_default();
    assert!(reached.is_empty(), "{}\n{release:#}", reached.join("\n"));
});
