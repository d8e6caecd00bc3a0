//! A small file system in memory, to be filled. It takes root.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A file system with little room. Dropped, it is gone.
#[derive(Debug)]
pub struct Disk(TempDir);

impl Disk {
    /// Whether file systems may be mounted.
    pub fn possible() -> bool {
        crate::process::is_root()
    }

    /// One with so much room (`64k`).
    pub fn with_room(size: &str) -> Self {
        let dir = TempDir::with_prefix("fusewire-disk-").expect("a temporary directory");
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        assert!(mount.expect("mount").success(), "a file system cannot be mounted: this takes root");
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}
