//! `pki.area_key`: a PKCS#11 URI (RFC 7512). In: its text. Out: which token, which key in it, which module
//! speaks to it, and where its PIN is. The PIN itself never stands in the settings.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer};

use super::SealSource;

/// What keys are called in a token, unless the URI says otherwise.
const OBJECT: &str = "dayfly area";

/// A token, and a key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Uri {
    /// Label, serial number, manufacturer and model of the token, as far as they are given: all must be so.
    pub token: Option<String>,
    pub serial: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    /// `CKA_LABEL` of what is made, and of what is looked for.
    pub object: String,
    /// `CKA_ID` of a key that is there already; `None`: a ceremony makes one.
    pub id: Option<Vec<u8>>,
    /// The module: a shared library.
    pub module: PathBuf,
    pub pin: SealSource,
}

/// Why a text is no such URI. What is wrong is not shown: a PIN may be in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPkcs11Uri {
    #[error("expected `pkcs11:token=NAME;object=NAME?module-path=/PATH&pin-source=file:/PATH`")]
    Form,
    #[error("`{0}` is not known here: token, serial, manufacturer, model, object, id, type; module-path, pin-source")]
    Attribute(String),
    #[error("`{0}` stands twice")]
    Twice(&'static str),
    #[error("the value of `{0}` is not usable")]
    Value(&'static str),
    #[error("a PIN never stands in the settings: write `pin-source=file:PATH`, `credential:NAME` or `env:NAME`")]
    Pin,
    #[error("`token` or `serial` must say which token is meant")]
    Token,
    #[error("`module-path` must be the absolute path of the token's module")]
    Module,
    #[error("`pin-source` must be `file:PATH`, `credential:NAME` or `env:NAME`")]
    Source,
}

const ATTRIBUTES: [&str; 9] =
    ["token", "serial", "manufacturer", "model", "object", "id", "type", "module-path", "pin-source"];

impl FromStr for Pkcs11Uri {
    type Err = NoPkcs11Uri;

    fn from_str(text: &str) -> Result<Self, NoPkcs11Uri> {
        let rest = text.strip_prefix("pkcs11:").ok_or(NoPkcs11Uri::Form)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut found = Attributes::default();
        path.split(';').filter(|one| !one.is_empty()).try_for_each(|one| found.take(one, &ATTRIBUTES[..7]))?;
        query.split('&').filter(|one| !one.is_empty()).try_for_each(|one| found.take(one, &ATTRIBUTES[7..]))?;
        // It is the private key that signs, whatever else has its name.
        if found.text("type")?.is_some_and(|kind| kind != "private") {
            return Err(NoPkcs11Uri::Value("type"));
        }
        let (token, serial) = (found.text("token")?, found.text("serial")?);
        if token.is_none() && serial.is_none() {
            return Err(NoPkcs11Uri::Token);
        }
        let module = found.text("module-path")?.map(PathBuf::from).filter(|path| path.is_absolute());
        let pin = found.text("pin-source")?.and_then(|source| source.parse().ok());
        Ok(Self {
            manufacturer: found.text("manufacturer")?,
            model: found.text("model")?,
            object: found.text("object")?.unwrap_or_else(|| OBJECT.to_owned()),
            id: found.octets("id"),
            module: module.ok_or(NoPkcs11Uri::Module)?,
            pin: pin.ok_or(NoPkcs11Uri::Source)?,
            token,
            serial,
        })
    }
}

/// What stands in a URI, decoded.
#[derive(Default)]
struct Attributes(Vec<(&'static str, Vec<u8>)>);

impl Attributes {
    /// `one`: `name=value`.
    fn take(&mut self, one: &str, known: &[&'static str]) -> Result<(), NoPkcs11Uri> {
        let (name, value) = one.split_once('=').ok_or(NoPkcs11Uri::Form)?;
        if name == "pin-value" {
            return Err(NoPkcs11Uri::Pin);
        }
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let known = known.iter().find(|known| **known == name);
        let name = known.ok_or_else(|| if plain { NoPkcs11Uri::Attribute(name.to_owned()) } else { NoPkcs11Uri::Form });
        let name = *name?;
        if self.octets(name).is_some() {
            return Err(NoPkcs11Uri::Twice(name));
        }
        let value = decoded(value).filter(|value| !value.is_empty()).ok_or(NoPkcs11Uri::Value(name))?;
        self.0.push((name, value));
        Ok(())
    }

    fn octets(&self, name: &str) -> Option<Vec<u8>> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, NoPkcs11Uri> {
        let text = |octets| String::from_utf8(octets).ok().filter(|text| !text.contains(char::is_control));
        self.octets(name).map(|octets| text(octets).ok_or(NoPkcs11Uri::Value(name))).transpose()
    }
}

/// Percent-decoded. A space stands for itself: people write labels as they see them.
fn decoded(value: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
        octets.push((digit(rest.next())? << 4 | digit(rest.next())?) as u8);
    }
    Some(octets)
}

/// Which token: what messages call it.
impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, serial, .. } = self;
        out.write_str(token.as_ref().or(serial.as_ref()).map_or("", |name| name))
    }
}

impl<'de> Deserialize<'de> for Pkcs11Uri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "pkcs11:token=day%20fly;object=area;id=%01%ff;type=private?\
                         module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/dayfly/pin";

    #[test]
    fn a_uri_names_token_key_module_and_where_the_pin_is() {
        let uri: Pkcs11Uri = WHOLE.parse().unwrap();
        assert_eq!((uri.to_string(), uri.object.as_str(), uri.id), ("day fly".to_owned(), "area", Some(vec![1, 255])));
        assert_eq!(uri.module.to_str(), Some("/usr/lib/softhsm/libsofthsm2.so"));
        assert_eq!(uri.pin, SealSource::File("/etc/dayfly/pin".into()));
        let least: Pkcs11Uri = "pkcs11:serial=07?module-path=/m.so&pin-source=env:PIN".parse().unwrap();
        assert_eq!((least.object.as_str(), least.id, least.token), (OBJECT, None, None));
    }

    #[test]
    fn a_pin_in_the_settings_is_refused_and_never_said_again() {
        for with_pin in [
            "pkcs11:token=t?module-path=/m.so&pin-value=hunter2",
            "pkcs11:token=t;pin-value=hunter2?module-path=/m.so&pin-source=env:PIN",
            "pkcs11:token=t?module-path=/m.so&pin-source=hunter2",
            "pkcs11:token=t?module-path=/m.so&pin-source=inline:hunter2",
            "hunter2",
            "pkcs11:hunter2",
            "pkcs11:token=t?hunter2",
            "pkcs11:token=t?HUNTER hunter2=1",
        ] {
            let error = with_pin.parse::<Pkcs11Uri>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let value = "pkcs11:token=t?module-path=/m.so&pin-value=1".parse::<Pkcs11Uri>();
        assert_eq!(value, Err(NoPkcs11Uri::Pin));
    }

    #[test]
    fn what_is_not_understood_is_no_token() {
        let of = |text: &str| text.parse::<Pkcs11Uri>().unwrap_err();
        let tail = "?module-path=/m.so&pin-source=env:PIN";
        assert_eq!(of(&format!("pkcs11:slot-id=0;token=t{tail}")), NoPkcs11Uri::Attribute("slot-id".to_owned()));
        assert_eq!(of(&format!("pkcs11:token=t;token=u{tail}")), NoPkcs11Uri::Twice("token"));
        assert_eq!(of(&format!("pkcs11:object=area{tail}")), NoPkcs11Uri::Token);
        assert_eq!(of(&format!("pkcs11:token=t;id=%0{tail}")), NoPkcs11Uri::Value("id"));
        assert_eq!(of(&format!("pkcs11:token=t;id=%zz{tail}")), NoPkcs11Uri::Value("id"));
        assert_eq!(of(&format!("pkcs11:token={tail}")), NoPkcs11Uri::Value("token"));
        assert_eq!(of(&format!("pkcs11:token=%ff{tail}")), NoPkcs11Uri::Value("token"));
        assert_eq!(of(&format!("pkcs11:token=t%00{tail}")), NoPkcs11Uri::Value("token"));
        assert_eq!(of(&format!("pkcs11:token=t;type=public{tail}")), NoPkcs11Uri::Value("type"));
        assert_eq!(of("pkcs11:token=t?module-path=m.so&pin-source=env:PIN"), NoPkcs11Uri::Module);
        assert_eq!(of("pkcs11:token=t?pin-source=env:PIN"), NoPkcs11Uri::Module);
        assert_eq!(of("pkcs11:token=t?module-path=/m.so"), NoPkcs11Uri::Source);
        assert_eq!(of(&format!("token=t{tail}")), NoPkcs11Uri::Form);
    }
}
