//! What `make release` ends with: its programs must need no other file.

use std::path::Path;
use std::process::{Command, Output};

fn check(program: &Path) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/is-static")).arg(program).output().unwrap()
}

#[test]
fn only_static_programs_are_taken() {
    let good = check(Path::new("/bin/busybox"));
    assert!(good.status.success(), "busybox-static: {}", String::from_utf8_lossy(&good.stderr));
    // This one is linked as usual.
    let own = std::env::current_exe().unwrap();
    for (program, expected) in
        [(own.as_path(), "Shared library: [libc.so"), (Path::new(file!()), "Not an ELF file"), (Path::new("/none"), "none")]
    {
        let bad = check(program);
        let said = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert!(!bad.status.success() && said.contains(expected), "{}: {said}", program.display());
    }
}
