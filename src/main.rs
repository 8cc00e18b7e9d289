//! The one binary: everything is in the library.

fn main() -> std::process::ExitCode {
    dayfly::cli::main(std::env::args_os())
}
