//! Programs of others that the tests run: where they are, and whether they may be missing.
//!
//! `tests/run` prepares them below the target folder from the lock files in `tests/interop`.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;

/// Whether the runner said that this tool cannot be had; without that word a missing tool fails.
pub fn skipped(tool: &str) -> bool {
    env::var("DAYFLY_TEST_SKIP").is_ok_and(|skip| skip.split(',').any(|skipped| skipped == tool))
}

/// A script of `tests/interop` under the Python that has what `requirements.lock` pins.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(prepared("DAYFLY_TEST_PYTHON", "target/interop/venv/bin/python"));
    command.arg(source(script)).stdin(Stdio::null());
    command
}

/// The Envoy that `requirements.lock` pins.
pub fn envoy() -> Command {
    let python = prepared("DAYFLY_TEST_PYTHON", "target/interop/venv/bin/python");
    Command::new(python.with_file_name("envoy"))
}

/// A script of `tests/interop/node` with what `package-lock.json` pins, started in `work`.
pub fn node(work: &Path, script: &str) -> Command {
    let modules = prepared("DAYFLY_TEST_NODE_MODULES", "target/interop/node/node_modules");
    // Node looks for packages beside the script, and they are not in the source tree.
    let link = work.join("node_modules");
    if !link.exists() {
        std::os::unix::fs::symlink(modules, link).unwrap();
    }
    fs::copy(source(&format!("node/{script}")), work.join(script)).unwrap();
    let mut command = Command::new(node_program());
    command.arg(script).current_dir(work).stdin(Stdio::null());
    command
}

/// A script of `tests/interop` that needs no packages, started where it is.
pub fn plain_node(script: &str) -> Command {
    let mut command = Command::new(node_program());
    command.arg(source(script)).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

fn node_program() -> OsString {
    env::var_os("DAYFLY_TEST_NODE").unwrap_or_else(|| "node".into())
}

/// Runs it to its end with this on its standard input.
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A program that answers each line with a line of JSON, ended with the test.
pub struct Talker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Talker {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    pub fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no answer but `{line}`"))
    }

    pub fn ask(&mut self, word: &str) -> Value {
        writeln!(self.stdin, "{word}").unwrap();
        self.hear()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

fn prepared(variable: &str, usual: &str) -> PathBuf {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join(usual);
    let path = env::var_os(variable).map_or(usual, PathBuf::from);
    assert!(path.exists(), "nothing at `{}`: run tests/run", path.display());
    path
}
