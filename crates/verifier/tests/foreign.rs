//! A process whose own provider for `jsonwebtoken` came first. One test, because the slot is the
//! process's.

use dayfly_verifier::crypto::{self, ForeignProvider, KeyError, SigningKey};
use jsonwebtoken::{
    crypto::{CryptoProvider, KeyUtils},
    errors::{ErrorKind, new_error},
};

static FOREIGN: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    key_utils: KeyUtils::new_unimplemented(),
};

#[test]
fn a_foreign_provider_is_said_and_makes_no_key_of_ours() {
    FOREIGN.install_default().expect("the first in this process");
    assert_eq!(crypto::init(), Err(ForeignProvider));
    assert_eq!(crypto::init(), Err(ForeignProvider), "said each time");
    let pkcs8 = SigningKey::generate_pkcs8().unwrap();
    assert_eq!(SigningKey::from_pkcs8(pkcs8.expose()).unwrap_err(), KeyError::Proof);
}
