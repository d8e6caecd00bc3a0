//! Copies of the working tree, for what changes sources.

use std::path::Path;
use std::{fs, io};

use crate::tools::repository;

/// What a copy needs to build and to run its tests.
const PARTS: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "README.md", "src", "docs", "deploy", "proto-tests", ".rustfmt.toml"];

/// Makes `to` a copy of the tree; what was there before goes.
///
/// # Errors
/// What the file system says.
pub fn copy(to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for part in PARTS.iter().filter(|part| repository().join(part).exists()) {
        duplicate(&repository().join(part), &to.join(part))?;
    }
    Ok(())
}

/// Copies without the times of last change: what is copied again must be built again.
fn duplicate(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::write(to, fs::read(from)?);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !["target", "node_modules", "__pycache__"].iter().any(|name| entry.file_name() == *name) {
            duplicate(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
