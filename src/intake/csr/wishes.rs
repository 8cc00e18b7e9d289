//! What a request for a certificate wants beside its key. Whatever is not taken at all is refused here; the
//! rest is held against the grant before anything is built.

use super::{
    CsrError,
    der::{BIT_STRING, BOOLEAN, Element, OCTET_STRING, OID, SEQUENCE, SET},
};

/// Names and purposes that the request asks for: what is granted is neither taken from here nor widened by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub server: bool,
}

/// `extensionRequest` (RFC 2985 section 5.4.2).
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;

impl Wishes {
    // SECURITY: `t_122_a_name_that_is_not_granted_is_refused`, `t_123_what_a_ca_could_do_is_not_to_be_asked`,
    // `t_130_a_request_has_one_encoding`.
    pub(super) fn read(attributes: &[Element<'_>]) -> Result<Self, CsrError> {
        let mut wishes = Self::default();
        let extensions = match attributes {
            [] => return Ok(wishes),
            [one] => extensions(one)?,
            _ => return Err(CsrError::Attribute),
        };
        let mut seen = Vec::new();
        for extension in extensions {
            let (id, value) = extension_of(&extension).ok_or(CsrError::Form)?;
            if seen.contains(&id) {
                return Err(CsrError::Form);
            }
            seen.push(id);
            wishes.add(id, &value)?;
        }
        Ok(wishes)
    }

    fn add(&mut self, id: &[u8], value: &Element<'_>) -> Result<(), CsrError> {
        match id {
            SUBJECT_ALT_NAME => self.names(value),
            EXTENDED_KEY_USAGE => self.purposes(value),
            // `cA` is FALSE where it is absent, and a length of paths is a CA's.
            BASIC_CONSTRAINTS => (value.raw == [SEQUENCE, 0]).then_some(()).ok_or(CsrError::Ca),
            KEY_USAGE => (value.content(BIT_STRING) == Some(&[7, 0x80])).then_some(()).ok_or(CsrError::Usage),
            _ => Err(CsrError::Extension),
        }
    }

    fn names(&mut self, value: &Element<'_>) -> Result<(), CsrError> {
        let names = value.children(SEQUENCE).filter(|names| !names.is_empty()).ok_or(CsrError::Form)?;
        for name in names {
            let text = std::str::from_utf8(name.content).ok().filter(|text| text.is_ascii()).map(str::to_owned);
            match name.tag {
                URI => self.uris.push(text.ok_or(CsrError::Form)?),
                DNS_NAME => self.dns.push(text.ok_or(CsrError::Form)?),
                _ => return Err(CsrError::NameForm),
            }
        }
        Ok(())
    }

    fn purposes(&mut self, value: &Element<'_>) -> Result<(), CsrError> {
        let purposes = value.children(SEQUENCE).filter(|purposes| !purposes.is_empty()).ok_or(CsrError::Form)?;
        for purpose in purposes {
            match purpose.content(OID) {
                Some(CLIENT_AUTH) => {}
                Some(SERVER_AUTH) => self.server = true,
                _ => return Err(CsrError::Purpose),
            }
        }
        Ok(())
    }
}

/// Of `extensionRequest`, which has one value.
fn extensions<'a>(attribute: &Element<'a>) -> Result<Vec<Element<'a>>, CsrError> {
    let parts = attribute.children(SEQUENCE).ok_or(CsrError::Form)?;
    let [id, values] = parts[..] else { return Err(CsrError::Form) };
    if id.content(OID) != Some(EXTENSION_REQUEST) {
        return Err(CsrError::Attribute);
    }
    let values = values.children(SET).ok_or(CsrError::Form)?;
    let [value] = values[..] else { return Err(CsrError::Form) };
    value.children(SEQUENCE).filter(|extensions| !extensions.is_empty()).ok_or(CsrError::Form)
}

/// `critical` is left out where it is FALSE. The value is DER itself.
fn extension_of<'a>(extension: &Element<'a>) -> Option<(&'a [u8], Element<'a>)> {
    let parts = extension.children(SEQUENCE)?;
    let (id, value) = match parts[..] {
        [id, value] => (id, value),
        [id, critical, value] if critical.content(BOOLEAN) == Some(&[0xff]) => (id, value),
        _ => return None,
    };
    Some((id.content(OID)?, Element::whole(value.content(OCTET_STRING)?)?))
}
