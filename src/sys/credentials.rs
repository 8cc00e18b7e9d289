//! Credentials of systemd (systemd.exec(5), `LoadCredential=`): files that the service manager puts where the
//! service alone may read them.

use std::{io, path::Path};

use super::{env, files};

/// The credential's bytes.
pub fn read(name: &str) -> io::Result<Vec<u8>> {
    let dir = env::var("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty());
    let missing = || io::Error::new(io::ErrorKind::NotFound, "`CREDENTIALS_DIRECTORY` is not set: systemd sets it");
    files::read_capped(&Path::new(&dir.ok_or_else(missing)?).join(name))
}
