//! Any text as a compose file: it is accepted or refused, and never ends the program.

#![no_main]

use std::collections::BTreeMap;

use cotter::model::ImageRef;
use cotter::project;
use cotter::wire::compose_file;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(project) = project::parse(text) else { return };
    let file = project.file;
    let mut images = BTreeMap::new();
    for (name, fields) in &file.services {
        let image = fields.get("image").and_then(|image| image.as_str()).unwrap_or_default();
        images.extend(ImageRef::parse(image).ok().map(|image| (name.clone(), image)));
    }
    let _ = compose_file::check(&file, &images, None);
});
