//! What is said to a PKCS#11 module: its library, its slots, a login, three verbs.

use std::path::Path;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session as Opened, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use zeroize::Zeroizing;

use super::{Open, Session, TokenError, TokenKey, TokenPlace};

/// `CKA_EC_PARAMS` of P-256: the curve's OID, DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const POINT_BYTES: usize = 65;

/// Nothing is touched before a session is asked for.
pub fn opener(place: TokenPlace, pin: &Zeroizing<String>) -> Open {
    let pin: AuthPin = pin.as_str().into();
    let mut module: Option<Pkcs11> = None;
    Box::new(move |writes| {
        let loaded = match module.take() {
            Some(loaded) => loaded,
            None => load(&place.module)?,
        };
        let found = match slot(&loaded, &place) {
            // Modules look for tokens when they are begun.
            Err(TokenError::Absent(_)) => {
                drop(loaded.finalize());
                let again = load(&place.module)?;
                slot(&again, &place).map(|found| (again, found))
            }
            found => found.map(|found| (loaded, found)),
        };
        let (loaded, (slot, info)) = found?;
        let session = opened(module.insert(loaded), slot, &info, writes, &place, &pin)?;
        Ok(Box::new(Talk { session, own: None }) as Box<dyn Session>)
    })
}

fn load(path: &Path) -> Result<Pkcs11, TokenError> {
    let unusable = |why: String| TokenError::Module { path: path.to_owned(), why };
    let module = Pkcs11::new(path).map_err(|error| unusable(said(&error)))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(unusable(said(&error))),
    }
    // What such a library leaves behind when it is unloaded, nobody knows: it stays.
    std::mem::forget(module.clone());
    Ok(module)
}

/// The one token that is meant.
fn slot(module: &Pkcs11, place: &TokenPlace) -> Result<(Slot, TokenInfo), TokenError> {
    let is = |wanted: &Option<String>, own: &str| wanted.as_ref().is_none_or(|wanted| wanted == own.trim_end());
    let meant = |info: &TokenInfo| {
        info.token_initialized()
            && is(&place.label, info.label())
            && is(&place.serial, info.serial_number())
            && is(&place.manufacturer, info.manufacturer_id())
            && is(&place.model, info.model())
    };
    let slots = module.get_slots_with_token().map_err(failed)?;
    // A slot whose token was taken out meanwhile is none.
    let tokens = slots.into_iter().filter_map(|slot| module.get_token_info(slot).ok().map(|info| (slot, info)));
    let mut tokens = tokens.filter(|(_, info)| meant(info));
    match (tokens.next(), tokens.next()) {
        (None, _) => Err(TokenError::Absent(place.to_string())),
        (Some(token), None) => Ok(token),
        (Some(_), Some(_)) => Err(TokenError::Ambiguous(place.to_string())),
    }
}

fn opened(
    module: &Pkcs11,
    slot: Slot,
    info: &TokenInfo,
    writes: bool,
    place: &TokenPlace,
    pin: &AuthPin,
) -> Result<Opened, TokenError> {
    if writes && info.write_protected() {
        return Err(TokenError::Key("the token is write-protected: make one by hand, and name its `id`".to_owned()));
    }
    let refused = |why: String| TokenError::Pin { token: place.to_string(), why };
    if info.user_pin_locked() {
        return Err(refused("CKF_USER_PIN_LOCKED".to_owned()));
    }
    // SECURITY: the last try is a person's, never a machine's.
    if info.user_pin_final_try() {
        return Err(TokenError::LastTry(place.to_string()));
    }
    let session = if writes { module.open_rw_session(slot) } else { module.open_ro_session(slot) };
    let session = session.map_err(failed)?;
    match session.login(UserType::User, Some(pin)) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(Error::Pkcs11(code, _)) if is_refusal(code) => Err(refused(ckr(code))),
        Err(error) => Err(failed(error)),
    }
}

/// The token has looked at the PIN.
fn is_refusal(code: RvError) -> bool {
    matches!(
        code,
        RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::UserPinNotInitialized
            | RvError::UserTypeInvalid
    )
}

struct Talk {
    session: Opened,
    /// The key that was used last.
    own: Option<(Vec<u8>, ObjectHandle)>,
}

impl Session for Talk {
    fn make(&mut self, label: &str, id: &[u8], named: fn(&[u8]) -> Vec<u8>) -> Result<TokenKey, TokenError> {
        let called = |id: &[u8]| [Attribute::Label(label.as_bytes().to_vec()), Attribute::Id(id.to_vec())];
        let public = [Attribute::Token(true), Attribute::Verify(true), Attribute::EcParams(P256.to_vec())];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::SignRecover(false),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ];
        let (public, private) = ([&public[..], &called(id)].concat(), [&private[..], &called(id)].concat());
        let made = self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
        let (public, private) = made.map_err(|error| match error {
            Error::Pkcs11(RvError::TokenWriteProtected | RvError::SessionReadOnly, _) => {
                TokenError::Key("the token is write-protected: make one by hand, and name its `id`".to_owned())
            }
            error => TokenError::Key(format!("none is made: {}", said(&error))),
        })?;
        let point = self.point(public)?;
        self.fit(private)?;
        // Whoever lists the token finds the id of the CA there.
        let name = [Attribute::Id(named(&point))];
        let renamed = [public, private].into_iter().try_for_each(|key| self.session.update_attributes(key, &name));
        let id = match renamed {
            Ok(()) => named(&point),
            Err(_) => self.id(private)?,
        };
        Ok(TokenKey { id, point })
    }

    fn find(&mut self, id: &[u8]) -> Result<TokenKey, TokenError> {
        let private = self.one(ObjectClass::PRIVATE_KEY, id)?;
        self.fit(private)?;
        let public = self.one(ObjectClass::PUBLIC_KEY, id)?;
        Ok(TokenKey { id: id.to_vec(), point: self.point(public)? })
    }

    fn sign(&mut self, id: &[u8], digest: &[u8]) -> Result<Vec<u8>, TokenError> {
        let key = match &self.own {
            Some((own, key)) if own == id => *key,
            _ => self.one(ObjectClass::PRIVATE_KEY, id)?,
        };
        self.own = Some((id.to_vec(), key));
        self.session.sign(&Mechanism::Ecdsa, key, digest).map_err(failed)
    }
}

impl Talk {
    fn one(&self, class: ObjectClass, id: &[u8]) -> Result<ObjectHandle, TokenError> {
        let found =
            self.session.find_objects(&[Attribute::Class(class), Attribute::Id(id.to_vec())]).map_err(failed)?;
        let kind = if class == ObjectClass::PUBLIC_KEY { "public" } else { "private" };
        let hex: String = id.iter().map(|octet| format!("{octet:02x}")).collect();
        match found[..] {
            [one] => Ok(one),
            [] => Err(TokenError::Key(format!("there is no {kind} key with the id {hex}"))),
            _ => Err(TokenError::Key(format!("there are several {kind} keys with the id {hex}"))),
        }
    }

    fn fit(&self, private: ObjectHandle) -> Result<(), TokenError> {
        let asked = [
            AttributeType::KeyType,
            AttributeType::EcParams,
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::Sign,
            AttributeType::AlwaysAuthenticate,
        ];
        let has = self.session.get_attributes(private, &asked).map_err(failed)?;
        unfit(&has).map_or(Ok(()), |why| Err(TokenError::Key(why.to_owned())))
    }

    fn point(&self, public: ObjectHandle) -> Result<Vec<u8>, TokenError> {
        let has = self.session.get_attributes(public, &[AttributeType::EcPoint]).map_err(failed)?;
        let point = has.into_iter().find_map(|attribute| match attribute {
            Attribute::EcPoint(point) => Some(point),
            _ => None,
        });
        let point = point.and_then(|point| uncompressed(&point));
        point.ok_or_else(|| TokenError::Key("its public key is no point on P-256".to_owned()))
    }

    fn id(&self, key: ObjectHandle) -> Result<Vec<u8>, TokenError> {
        let has = self.session.get_attributes(key, &[AttributeType::Id]).map_err(failed)?;
        let id = has.into_iter().find_map(|attribute| match attribute {
            Attribute::Id(id) => Some(id),
            _ => None,
        });
        id.ok_or_else(|| TokenError::Key("it has no id".to_owned()))
    }
}

/// A private key signs on P-256, never leaves the token, and asks for no PIN of its own, or says why not.
// SECURITY: `a_key_that_could_leave_the_token_or_is_on_another_curve_is_refused`.
fn unfit(has: &[Attribute]) -> Option<&'static str> {
    let is = |wanted: Attribute| has.contains(&wanted);
    if !is(Attribute::KeyType(KeyType::EC)) || !is(Attribute::EcParams(P256.to_vec())) {
        Some("it is not on P-256")
    } else if !is(Attribute::Sensitive(true)) || !is(Attribute::Extractable(false)) {
        Some("it can be taken out of the token (CKA_SENSITIVE, CKA_EXTRACTABLE)")
    } else if !is(Attribute::Sign(true)) {
        Some("it may not sign (CKA_SIGN)")
    } else if is(Attribute::AlwaysAuthenticate(true)) {
        Some("it asks for its PIN at each signature (CKA_ALWAYS_AUTHENTICATE)")
    } else {
        None
    }
}

/// A point in its OCTET STRING, as the standard has it, or without, as some modules do.
fn uncompressed(point: &[u8]) -> Option<Vec<u8>> {
    let bare = match point {
        [0x04, 0x41, bare @ ..] if bare.len() == POINT_BYTES => bare,
        bare => bare,
    };
    (bare.len() == POINT_BYTES && bare[0] == 4).then(|| bare.to_vec())
}

fn failed(error: Error) -> TokenError {
    TokenError::Failed(said(&error))
}

/// The name of the code, and not its paragraph.
fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{}: {}", called(*function), ckr(*code)),
        other => other.to_string(),
    }
}

fn called(function: Function) -> String {
    format!("C_{function:?}")
}

/// `PinIncorrect`: `CKR_PIN_INCORRECT`.
fn ckr(code: RvError) -> String {
    let mut name = "CKR".to_owned();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_with_and_without_its_wrapper() {
        let bare = [&[4][..], &[0x41; 64]].concat();
        let wrapped = [&[4, 0x41][..], &bare].concat();
        assert_eq!((uncompressed(&bare), uncompressed(&wrapped)), (Some(bare.clone()), Some(bare.clone())));
        assert!(uncompressed(&wrapped[..66]).is_none() && uncompressed(&[&[2][..], &bare[1..33]].concat()).is_none());
        assert!(uncompressed(&[]).is_none() && uncompressed(&[4, 0x61]).is_none());
    }

    #[test]
    fn a_key_that_could_leave_the_token_or_is_on_another_curve_is_refused() {
        let good = [
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(P256.to_vec()),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::AlwaysAuthenticate(false),
        ];
        assert_eq!(unfit(&good), None);
        // What a token does not say of a key is not believed of it; the last it says where it is so.
        for at in 0..5 {
            let mut less = good.to_vec();
            less.remove(at);
            assert!(unfit(&less).is_some(), "without {:?}", good[at]);
        }
        for (at, other) in [
            (0, Attribute::KeyType(KeyType::RSA)),
            (1, Attribute::EcParams(vec![0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22])),
            (2, Attribute::Sensitive(false)),
            (3, Attribute::Extractable(true)),
            (4, Attribute::Sign(false)),
            (5, Attribute::AlwaysAuthenticate(true)),
        ] {
            let mut turned = good.to_vec();
            turned[at] = other;
            assert!(unfit(&turned).is_some(), "{:?}", turned[at]);
        }
    }

    #[test]
    fn codes_are_called_as_the_standard_calls_them() {
        let wrong = Error::Pkcs11(RvError::PinIncorrect, Function::Login);
        assert_eq!(said(&wrong), "C_Login: CKR_PIN_INCORRECT");
    }
}
