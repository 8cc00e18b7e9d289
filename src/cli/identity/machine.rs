//! What the machine itself says it is: the firmware's words, and where a cluster mounts tokens.

use std::path::{Path, PathBuf};

/// Where a pod's identity token for the broker is mounted, by convention.
pub const MOUNTED_TOKEN: &str = "/var/run/secrets/dayfly/token";

/// As the kernel shows it. Absent where it cannot be read, as in most containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// `/sys/class/dmi/id/product_name`.
    pub product_name: Option<String>,
    /// `/sys/class/dmi/id/sys_vendor`.
    pub vendor: Option<String>,
    /// `/sys/class/dmi/id/chassis_asset_tag`.
    pub asset_tag: Option<String>,
    /// [`MOUNTED_TOKEN`], where there is such a file.
    pub mounted_token: Option<PathBuf>,
}

impl Machine {
    pub fn this() -> Self {
        let word = |name: &str| {
            let text = std::fs::read_to_string(Path::new("/sys/class/dmi/id").join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Self {
            product_name: word("product_name"),
            vendor: word("sys_vendor"),
            asset_tag: word("chassis_asset_tag"),
            mounted_token: Some(MOUNTED_TOKEN.into()).filter(|path: &PathBuf| path.exists()),
        }
    }
}
