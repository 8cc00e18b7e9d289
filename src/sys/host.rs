//! Who runs this, and where: for a record that people read.

/// `uid 1000 on host broker-1`.
pub fn whoami() -> String {
    let (uid, host) = (rustix::process::geteuid().as_raw(), rustix::system::uname());
    format!("uid {uid} on host {}", host.nodename().to_string_lossy())
}
