//! A small ext4 filesystem on a loop device, to be filled.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// A filesystem of its own, gone when dropped.
pub struct SmallDisk {
    pub mount: PathBuf,
    _scratch: tempfile::TempDir,
}

impl SmallDisk {
    pub fn new(bytes: u64) -> Self {
        Self::made_with(bytes, &[])
    }

    /// With further words for mkfs.ext4.
    pub fn made_with(bytes: u64, options: &[&str]) -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        let (image, mount) = (scratch.path().join("image"), scratch.path().join("mount"));
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("make the image");
        fs::create_dir(&mount).expect("make the mount point");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).args(options).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        Self { mount, _scratch: scratch }
    }

    pub fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.mount).expect("statvfs");
        found.f_bavail * found.f_frsize
    }

    /// Another program takes all space but so much.
    pub fn leave(&self, bytes: u64) {
        self.give_back();
        let ballast = File::create(self.mount.join("ballast")).expect("make the ballast");
        let mut size = self.free().saturating_sub(bytes);
        // The filesystem takes some for itself: try a little less.
        while size > 0 && rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, size).is_err() {
            size = size.saturating_sub(16 << 10);
        }
    }

    pub fn give_back(&self) {
        let _ = fs::remove_file(self.mount.join("ballast"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.mount).status().is_ok_and(|status| status.success());
        if !unmounted {
            let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("run it");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
