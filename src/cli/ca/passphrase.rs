//! The passphrase of the root: from a file, a credential of systemd, or the terminal; never an argument.

use std::path::Path;

use zeroize::Zeroizing;

use crate::{
    cli::{args::CaInitArgs, failure::Failure, session::Session},
    mint::pki::PASSPHRASE_MIN_CHARS,
    sys::{credentials, files, terminal},
};

/// `fresh`: it is about to seal a root, and asked for twice.
pub fn passphrase(args: &CaInitArgs, fresh: bool, session: &Session) -> Result<Zeroizing<String>, Failure> {
    let text = match (&args.passphrase_file, &args.passphrase_credential) {
        (Some(file), _) => from_file(file)?,
        (None, Some(name)) => {
            let read = credentials::read(name);
            line(
                read.map_err(|error| Failure::usage(format!("the credential `{name}` cannot be read")).because(error))?,
            )?
        }
        (None, None) => typed(fresh, session)?,
    };
    if fresh && text.chars().count() < PASSPHRASE_MIN_CHARS {
        let what = format!("the passphrase is shorter than {PASSPHRASE_MIN_CHARS} characters");
        return Err(
            Failure::usage(what).help("six random words, e.g. of the EFF's list, and kept where the root is not")
        );
    }
    Ok(text)
}

fn from_file(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let unusable =
        |error| Failure::usage(format!("the passphrase's file `{}` is not usable", file.display())).because(error);
    files::require_private(file).map_err(unusable)?;
    line(files::read_capped(file).map_err(unusable)?)
}

/// The one line of a file.
fn line(bytes: Vec<u8>) -> Result<Zeroizing<String>, Failure> {
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\n', '\r']));
    match text {
        Ok(text) if !text.is_empty() && !text.contains('\n') => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(Failure::usage("a passphrase is one line of UTF-8")),
    }
}

fn typed(fresh: bool, session: &Session) -> Result<Zeroizing<String>, Failure> {
    if session.no_input {
        return Err(
            Failure::usage("there is no terminal to ask for the root's passphrase at").help("--passphrase-file FILE")
        );
    }
    let ask = |question: &str| {
        let typed = terminal::ask_hidden(&format!("dayfly: {question} "));
        typed.map_err(|error| Failure::failed("the passphrase cannot be asked for").because(error))
    };
    let first = ask("passphrase of the root:")?;
    if fresh && *ask("the same again:")? != *first {
        return Err(Failure::usage("the two passphrases are not the same: nothing was made"));
    }
    Ok(first)
}
