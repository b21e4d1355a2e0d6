//! SECURITY.md names tests; they exist.

use std::{fs, path::Path};

/// Every file with tests in it, as one text.
fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !["target", "node_modules", "dist", ".git"].contains(&&*name) {
                sources(&path, text);
            }
        } else if [".rs", ".mjs", ".test.ts"].iter().any(|ending| name.ends_with(ending)) {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_security_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut text = String::new();
    for part in ["crates", "tests", "web/src"] {
        sources(&root.join(part), &mut text);
    }
    let lines = document.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 2);
    let named: Vec<&str> = lines
        .filter_map(|line| line.rsplit(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 25, "{named:?}");
    for name in named {
        let is_there = text.contains(&format!("fn {name}(")) || text.contains(&format!("test(\"{name}\""));
        assert!(is_there, "there is no test {name:?}");
    }
}
