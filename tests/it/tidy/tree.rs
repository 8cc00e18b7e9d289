//! The tree on disk: what a commit would hold, without build output. Files that only tests reach
//! are marked as such here, by following `mod` from every root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{files, source::Source};

/// Everything the checks look at. Paths are relative to the top, with `/`.
pub struct Tree {
    pub paths: Vec<String>,
    /// Every file that is UTF-8.
    pub texts: Vec<(String, String)>,
    /// Every Rust file.
    pub sources: Vec<Source>,
    top: PathBuf,
}

/// Dotted names that belong to the tree; other dotted names are a tool's.
const DOTTED: [&str; 3] = [".ci", ".github", ".gitignore"];
const OUTPUT: [&str; 4] = ["target", "node_modules", "__pycache__", "proptest-regressions"];

impl Tree {
    pub fn read() -> Self {
        let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        walk(&top, "", &mut paths);
        paths.sort();
        let texts: Vec<(String, String)> =
            paths.iter().filter_map(|path| Some((path.clone(), fs::read_to_string(top.join(path)).ok()?))).collect();
        let rust = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        let mut sources: Vec<Source> = rust.map(|(path, text)| Source::new(path, text)).collect();
        mark_tests(&mut sources);
        Self { paths, texts, sources, top }
    }

    /// Whether a path below the top exists, folder or file.
    pub fn has(&self, path: &str) -> bool {
        self.top.join(path).exists()
    }
}

fn walk(dir: &Path, prefix: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("the tree can be read") {
        let entry = entry.expect("the tree can be read");
        let name = entry.file_name().to_str().expect("file names are UTF-8").to_owned();
        if (name.starts_with('.') && !DOTTED.contains(&name.as_str())) || OUTPUT.contains(&name.as_str()) {
            continue;
        }
        let below = format!("{prefix}{name}");
        let kind = entry.file_type().expect("the tree can be read");
        if kind.is_dir() {
            walk(&entry.path(), &format!("{below}/"), paths);
        } else {
            paths.push(below);
        }
    }
}

fn mark_tests(sources: &mut [Source]) {
    let product = files::reached(sources, false);
    for source in sources {
        if !product.contains(&source.path) {
            source.only_tests();
        }
    }
}
