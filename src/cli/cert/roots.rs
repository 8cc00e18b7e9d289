//! The roots that vouch for others, as the broker publishes them (SPIFFE trust bundle: a JWK set whose keys of
//! use `x509-svid` carry a certificate). In: the document. Out: certificates.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use crate::cli::{api::Api, failure::Failure};

pub const BUNDLE_PATH: &str = "/spiffe/bundle";

#[derive(Deserialize)]
struct Bundle {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

pub async fn fetched(api: &Api) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let document = api.document(BUNDLE_PATH).await;
    let document =
        document.map_err(|error| error.failure("the roots cannot be fetched, which --layout split needs"))?;
    read(&document).ok_or_else(|| Failure::failed("the broker's trust bundle holds no certificate"))
}

fn read(document: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let bundle: Bundle = serde_json::from_slice(document).ok()?;
    let ours = bundle.keys.into_iter().filter(|key| key.purpose.as_deref() == Some("x509-svid"));
    let roots: Option<Vec<_>> = ours.map(|key| Some(STANDARD.decode(key.x5c.first()?).ok()?.into())).collect();
    roots.filter(|roots| !roots.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_certificates_for_x509_svids_are_roots() {
        let set = |keys| serde_json::to_vec(&json!({ "keys": keys, "spiffe_sequence": 1 })).unwrap();
        let root = json!({ "use": "x509-svid", "kty": "EC", "x5c": ["MAA="] });
        let other = json!({ "use": "jwt-svid", "kty": "EC", "kid": "k", "x5c": ["MAE="] });
        assert_eq!(read(&set(json!([other, root]))).unwrap(), [CertificateDer::from(vec![0x30, 0x00])]);
        for bad in
            [json!([]), json!([other]), json!([{ "use": "x509-svid" }]), json!([{ "use": "x509-svid", "x5c": ["!"] }])]
        {
            assert!(read(&set(bad.clone())).is_none(), "{bad}");
        }
        assert!(read(b"nonsense").is_none());
    }
}
